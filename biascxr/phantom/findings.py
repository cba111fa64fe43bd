"""The 13 findings: the explicit tables of how each shows on a film.

Some change the chest's shape before it is drawn (`RESHAPERS`), most are drawn on it (`PAINTERS`), some do both. Every
function takes an effect in [0, 1], severity times visibility: contrast and displacement go to zero with it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from biascxr.phantom.anatomy import Anatomy
from biascxr.phantom.canvas import Canvas
from biascxr.phantom.devices import support_devices
from biascxr.phantom.opacities import atelectasis, consolidation, edema, lung_lesion, lung_opacity, pneumonia
from biascxr.phantom.pleura import pleural_effusion, pleural_other, pneumothorax
from biascxr.phantom.shapes import (
    enlarge_heart,
    fracture_ribs,
    raise_diaphragm,
    show_fracture,
    widen_mediastinum,
)

Reshaper = Callable[[Anatomy, float, np.random.Generator], Anatomy]
Painter = Callable[[Canvas, float, np.random.Generator], None]

RESHAPERS: dict[str, Reshaper] = {
    "Atelectasis": raise_diaphragm,
    "Cardiomegaly": enlarge_heart,
    "Enlarged Cardiomediastinum": widen_mediastinum,
    "Fracture": fracture_ribs,
}

# In this order: what lies in the lung, then what lies around it, then metal and plastic on top.
PAINTERS: dict[str, Painter] = {
    "Edema": edema,
    "Lung Opacity": lung_opacity,
    "Consolidation": consolidation,
    "Pneumonia": pneumonia,
    "Atelectasis": atelectasis,
    "Lung Lesion": lung_lesion,
    "Pneumothorax": pneumothorax,
    "Pleural Effusion": pleural_effusion,
    "Pleural Other": pleural_other,
    "Fracture": show_fracture,
    "Support Devices": support_devices,
}
