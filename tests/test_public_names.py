from __future__ import annotations

import subprocess
import sys

import pytest

import divid


def test_every_public_name_is_there_and_no_other():
    assert sorted(divid.__all__) == dir(divid)
    assert len(set(divid.__all__)) == len(divid.__all__)
    assert {*divid._PLACES, "__version__"} == set(divid.__all__)


@pytest.mark.parametrize("name", divid.__all__)
def test_a_public_name_comes_from_where_it_lives(name):
    value = getattr(divid, name)
    module = getattr(value, "__module__", None)
    if isinstance(value, type):
        assert module == divid._PLACES[name]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = divid.Nonsense


def test_importing_divid_loads_nothing_heavy():
    code = "import sys, divid; heavy = {'torch', 'numpy', 'diffusers', 'av'} & set(sys.modules); assert not heavy, heavy"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_type_checker_sees_the_same_names():
    import ast
    from pathlib import Path

    tree = ast.parse(Path(divid.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == divid._PLACES
