"""What an encoder was trained on: by its list of patients, else by the name of the data set on its card."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from biascxr.cohort.build import LAYOUTS, load_layout
from biascxr.cohort.contract.encoder import data_set_words, encoder_saw_test_patients, patient_digests


def with_card(evidence, layout, **card):
    """The clean cohort as one of that layout, and an encoder with that card."""
    cohort = replace(evidence.cohort, layout=layout, accounting={"card": load_layout(layout).card})
    return replace(evidence, cohort=cohort, embeddings=replace(evidence.embeddings, card=evidence.embeddings.card | card))


def test_digests_are_sha256_in_an_order_that_tells_nothing():
    assert patient_digests(["b", "a", "b"]) == sorted(hashlib.sha256(x).hexdigest() for x in (b"a", b"b"))


@pytest.mark.parametrize(
    ("layout", "trained_on", "is_named"),
    [
        ("mimic_cxr", "MIMIC-CXR 2.0, train split", True),
        ("mimic_cxr", "chest X-rays of mimic", True),
        ("mimic_cxr", "CheXpert", False),
        ("mimic_cxr", "biomimicry", False),
        ("mimic_cxr", "JPG photographs", False),
        ("chexpert", "chexpert-small", True),
        ("nih", "ChestXray14", True),
        ("nih", "ChestX-ray14 of the National Institutes of Health", True),
        ("nih", "the NIH data", True),
        ("nih", "NIHON University", True),  # a warning too many is looked at and put aside
        ("nih", "any chest x-ray", False),
        ("midrc", "MIDRC", True),
        ("generic", "a generic mixture, by the BiasCXR code", False),
        *((layout, text, False) for layout in LAYOUTS for text in ("ImageNet (natural photographs)", "not known here", "")),
    ],
)
def test_a_data_set_is_known_by_its_card(clean, layout, trained_on, is_named):
    found = encoder_saw_test_patients(with_card(clean, layout, trained_on=trained_on))
    assert [f.is_error for f in found] == [False] * is_named


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "generic"])
def test_every_layout_of_one_data_set_has_a_name(clean, layout):
    assert any(layout.split("_")[0] == word.lower() for word in data_set_words(with_card(clean, layout).cohort))


def test_a_list_without_test_patients_settles_the_question(clean):
    table = clean.cohort.table
    train = patient_digests(table["patient_id"][table["split"] == "train"])
    assert encoder_saw_test_patients(with_card(clean, "nih", trained_on="NIH", trained_on_patients=train)) == []
    everyone = patient_digests(table["patient_id"])
    (found,) = encoder_saw_test_patients(with_card(clean, "nih", trained_on="NIH", trained_on_patients=everyone))
    assert found.is_error and found.count == table["patient_id"][table["split"] == "test"].nunique()


def test_an_untrained_encoder_has_seen_nobody(clean):
    assert encoder_saw_test_patients(with_card(clean, "nih", trained_on="NIH", is_trained=False)) == []
