"""Forms that a phantom is written in: the official trees that the layouts of `biascxr.cohort` read."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from biascxr.errors import unknown_name

if TYPE_CHECKING:
    from biascxr.phantom.forms.base import Form

FORMS: dict[str, str] = {
    "generic": "biascxr.phantom.forms.generic:Generic",
    "mimic": "biascxr.phantom.forms.mimic:Mimic",
    "mimic_v1": "biascxr.phantom.forms.mimic:MimicV1",
    "chexpert": "biascxr.phantom.forms.chexpert:Chexpert",
    "chexpert_plus": "biascxr.phantom.forms.chexpert_plus:ChexpertPlus",
    "nih": "biascxr.phantom.forms.nih:Nih",
    "midrc": "biascxr.phantom.forms.midrc:Midrc",
    "cxr_foundation": "biascxr.phantom.forms.cxr_foundation:CxrFoundation",
}


def find_form(name: str) -> Form:
    """Returns the form of that name, a key of `FORMS`."""
    if name not in FORMS:
        raise unknown_name("phantom form", name, FORMS)
    module, member = FORMS[name].split(":")
    return getattr(importlib.import_module(module), member)()
