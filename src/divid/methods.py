"""The visible table of every method: a new one is one file and one line here."""

from __future__ import annotations

from divid.baselines.dbse import DBSEModel
from divid.baselines.spyl import SPYLModel
from divid.distillation.consistency import ConsistencyModel
from divid.models.divid import DividModel

METHODS: dict[str, type] = {"divid": DividModel, "dbse": DBSEModel, "spyl": SPYLModel, "consistency": ConsistencyModel}
"""Name in a recipe -> class; each meets `divid.types.Disentangler` and is a diffusers `ModelMixin`."""
