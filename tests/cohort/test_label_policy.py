"""Label policy: uncertain and blank become what was asked for, and everything is counted."""

import math

import numpy as np
import pandas as pd
import pytest

from biascxr.cohort.labels import apply_policies, both_classes, choose_labels
from biascxr.errors import InputError

RECORDED = pd.DataFrame({"Edema": [1, 0, -1, math.nan], "Fracture": [math.nan, -1, 1, 1]})


@pytest.mark.parametrize(("uncertain", "becomes"), [("zeros", 0), ("ones", 1), ("ignore", math.nan)])
@pytest.mark.parametrize(("blank", "blank_becomes"), [("zeros", 0), ("ignore", math.nan)])
def test_each_policy_changes_its_own_cells_only(uncertain, becomes, blank, blank_becomes):
    labels, _ = apply_policies(RECORDED, uncertain=uncertain, blank=blank)
    wanted = [[1, blank_becomes], [0, becomes], [becomes, 1], [blank_becomes, 1]]
    np.testing.assert_array_equal(labels, np.array(wanted, np.float32))
    assert labels.dtype == np.float32


def test_what_was_recorded_is_not_changed_in_place():
    before = RECORDED.copy()
    apply_policies(RECORDED, uncertain="ones", blank="zeros")
    pd.testing.assert_frame_equal(RECORDED, before)


def test_counts_say_what_the_policies_did():
    _, counts = apply_policies(RECORDED, uncertain="ignore", blank="zeros")
    edema, fracture = counts.to_dict("records")
    assert edema == {"label": "Edema", "uncertain": 1, "blank": 1, "positive": 1, "negative": 2, "masked": 1}
    assert fracture == {"label": "Fracture", "uncertain": 1, "blank": 1, "positive": 2, "negative": 1, "masked": 1}


def test_only_the_wanted_findings_stay_in_the_wanted_order():
    assert list(choose_labels(RECORDED, ("Fracture",))) == ["Fracture"]
    assert list(choose_labels(RECORDED, ("Fracture", "Edema"))) == ["Fracture", "Edema"]
    assert list(choose_labels(RECORDED, ())) == ["Edema", "Fracture"]


def test_a_misspelt_finding_gets_the_nearest_one():
    with pytest.raises(InputError, match=r"Unknown label 'Edma'\. Did you mean 'Edema'\? Known: Edema, Fracture"):
        choose_labels(RECORDED, ("Edma",))


def test_a_finding_of_one_class_is_left_out_and_said_so():
    labels = np.array([[1, 0, 1, 0], [1, 0, 0, np.nan], [1, np.nan, 1, 0]], np.float32)
    has_both, notes = both_classes(labels, ["all", "none", "both", "masked"])
    assert has_both.tolist() == [False, False, True, False]
    assert notes == [
        "all: one class only (no negative), left out.",
        "none: one class only (no positive), left out.",
        "masked: one class only (no positive), left out.",
    ]


def test_no_finding_with_both_classes_is_an_error():
    with pytest.raises(InputError, match=r"No label has both positives and negatives.*Edema: one class only \(no positive\)"):
        both_classes(np.zeros((5, 1), np.float32), ["Edema"])
