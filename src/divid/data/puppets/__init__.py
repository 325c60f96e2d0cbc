"""Our own generator of little films: a look from one seed doing an action from another, drawn with Pillow, exactly labelled."""

from divid.data.puppets.figure import render
from divid.data.puppets.looks import Look, make_look
from divid.data.puppets.motion import ACTIONS, FPS, JOINT_NAMES, Motion, make_motion
from divid.data.puppets.scenery import Scenery

__all__ = ["ACTIONS", "FPS", "JOINT_NAMES", "Look", "Motion", "Scenery", "make_look", "make_motion", "render"]
