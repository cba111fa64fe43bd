"""Each rule: a clean cohort is clean, the fault is found with its count and nothing else is, and mended it is gone."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from biascxr.cohort.contract import (
    RULES,
    ContractError,
    Evidence,
    Fit,
    allow_findings,
    check_contract,
    findings_to_records,
    patient_digests,
    rules_about,
    settle_findings,
)
from biascxr.errors import InputError
from biascxr.report.page import contract_warnings

N = 600


def with_table(evidence: Evidence, **columns) -> Evidence:
    """The same data set as read, with other columns."""
    return replace(evidence, parsed=replace(evidence.parsed, table=evidence.parsed.table.assign(**columns)))


def with_cohort(evidence: Evidence, *, columns: dict | None = None, **changes) -> Evidence:
    """The same rows in use, with other columns of the table, or other fields."""
    cohort = evidence.cohort
    return replace(evidence, cohort=replace(cohort, table=cohort.table.assign(**(columns or {})), **changes))


def with_card(evidence: Evidence, **card) -> Evidence:
    """The same vectors, and the encoder's card says something else or more."""
    return replace(evidence, embeddings=replace(evidence.embeddings, card=evidence.embeddings.card | card))


def with_vectors(evidence: Evidence, vectors: np.ndarray) -> Evidence:
    """Other vectors of the same images."""
    return replace(evidence, embeddings=replace(evidence.embeddings, vectors=vectors))


def edited(values: pd.Series, rows, new) -> pd.Series:
    """A column with other values in some rows."""
    values = values.copy()
    values.iloc[list(rows)] = new
    return values


def straddle(e):
    split = e.parsed.table["split"].copy()
    for row in (0, 2, 4):  # first image of three patients
        split.iloc[row] = "test" if split.iloc[row + 1] != "test" else "train"
    return with_table(e, split=split)


def listed_twice(e):
    return with_table(e, image_id=edited(e.parsed.table["image_id"], [11, 21], ["secretimage10", "secretimage20"]))


def one_file_of_two_patients(e):
    return with_table(e, path=edited(e.parsed.table["path"], [100], e.parsed.table["path"][0]))


def one_file_twice(e):
    return with_table(e, path=edited(e.parsed.table["path"], [1], "./" + e.parsed.table["path"][0]))


def changes(e):
    patients = {"sex": frozenset({"secretpatient1", "secretpatient2"}), "race": frozenset()}
    return replace(e, parsed=replace(e.parsed, conflicting=patients))


def too_old(e):
    return with_table(e, age=edited(e.parsed.table["age"], [3, 4, 5], [414.0, -1.0, 121.0]))


def contradiction(e):
    labels = e.parsed.labels.copy()
    labels.loc[:4, ["No Finding", "Mass"]] = 1.0
    labels.loc[:, "Support Devices"] = 1.0  # a tube is no disease
    return replace(e, parsed=replace(e.parsed, labels=labels))


def one_class(split, value):
    def fault(e):
        labels = e.cohort.labels.copy()
        labels[np.ix_(e.cohort.split_rows(split), [0, 1])] = [value, np.nan]
        return with_cohort(e, labels=labels)

    return fault


def few_of(n_images):
    def fault(e):
        test = e.cohort.split_rows("test")
        return with_cohort(e, columns={"sex": edited(e.cohort.table["sex"], test[n_images:], "unknown")})

    return fault


def uneven(e):
    in_train = e.cohort.table["split"] == "train"
    return with_cohort(e, columns={"sex": e.cohort.table["sex"].mask(in_train & (np.arange(N) // 2 % 5 > 0), "F")})


def gone(e):
    return with_cohort(e, columns={"path": edited(e.cohort.table["path"], [1, 2, 3], ["p00/no.png", "p99/no.png", "p00"])})


def all_gone(e):
    return with_cohort(e, images_root=Path("/nowhere"))


def copied(into):
    def fault(e):
        """Two images of train have a copy in the split `into`, under names of their own."""
        root, path = e.cohort.images_root, e.cohort.table["path"].copy()
        (root / "copies").mkdir(exist_ok=True)
        for a, b in zip(e.cohort.split_rows("train")[:2], e.cohort.split_rows(into)[-2:], strict=True):
            (root / f"copies/{b}.png").write_bytes((root / path[a]).read_bytes())
            path[b] = f"copies/{b}.png"
        return with_cohort(e, columns={"path": path})

    return fault


def near(e):
    """Two images that differ by 3 in 1,000, in two splits neither of which is test."""
    vectors = e.embeddings.vectors.copy()
    a, b = e.cohort.split_rows("train")[0], e.cohort.split_rows("calibration")[0]
    vectors[b] = vectors[a] + 0.003 * vectors[a + 1]
    return with_vectors(e, vectors)


def near_in_test(e):
    vectors = e.embeddings.vectors.copy()
    vectors[e.cohort.split_rows("test")[:5]] = vectors[e.cohort.split_rows("train")[:5]]
    return with_vectors(e, vectors)


def trained_on_test(e):
    patients = e.cohort.table["patient_id"].iloc[e.cohort.split_rows("test")].unique()[:7]
    return with_card(e, trained_on_patients=patient_digests(patients))


def trained_on_this(e):
    e = with_cohort(e, layout="mimic_cxr", accounting={"card": "Source: MIMIC-CXR-JPG 2.x (physionet.org)"})
    return with_card(e, trained_on="MIMIC-CXR reports and images")


def fitted_on_test(e):
    test = e.cohort.table["image_id"].iloc[e.cohort.split_rows("test")[:4]]
    return replace(e, fits=(*e.fits, Fit("erm+group_youden", "group_youden", frozenset(test))))


# rule, fault, is it an error, how many it concerns, words of the message
FAULTS = [
    ("patient_in_two_splits", straddle, True, 3, "3 patients in more than one part of the table's own split."),
    ("patient_in_two_splits", lambda e: replace(straddle(e), split_is_used=False), False, 3, "which is not in use here"),
    ("duplicate_images", listed_twice, False, 2, "2 rows with an image_id that was listed before."),
    ("duplicate_images", one_file_of_two_patients, True, 2, "2 images in different patients or splits with a path"),
    ("duplicate_images", one_file_twice, False, 2, "2 images with a path that another one of the same patient has"),
    ("constant_attribute_changes", changes, False, 2, "2 patients recorded with more than one value of sex"),
    ("impossible_ages", too_old, False, 3, "3 images with an age below 0 or above 120 years"),
    ("no_finding_with_finding", contradiction, False, 5, "5 studies with No Finding and a finding at once"),
    ("one_class_label", one_class("test", 0.0), False, 2, "One class only in test: Edema, Mass."),
    ("one_class_label", one_class("calibration", 1.0), False, 2, "One class only in calibration: Edema, Mass."),
    ("small_group", few_of(40), False, 2, "F (fewer than 10), M (fewer than 25)"),
    ("split_mix", uneven, False, 1, "sex (M in train: 16% of patients, 49% in the other splits)"),
    ("missing_files", gone, False, 3, "3 images without a file (0.5% of all)."),
    ("missing_files", all_gone, True, 600, "None of the 600 files"),
    ("copied_files", copied("test"), True, 4, "4 images whose file is, byte for byte, that of an image in another split"),
    ("copied_files", copied("train"), False, 4, "4 images whose file is, byte for byte, that of an image in the same split"),
    ("near_duplicate_vectors", near, False, 2, "2 images with a near copy in another split"),
    ("near_duplicate_vectors", near_in_test, True, 10, "3.3% of the test images have theirs in train"),
    ("encoder_saw_test_patients", trained_on_test, True, 7, "7 test patients among those that the encoder was trained on"),
    ("encoder_saw_test_patients", trained_on_this, False, 75, "trained on data named MIMIC"),
    ("fit_touched_test", fitted_on_test, True, 4, "group_youden of recipe erm+group_youden was fitted on 4 test images"),
]
every_fault = pytest.mark.parametrize(
    ("rule", "fault", "is_error", "count", "words"), FAULTS, ids=[f"{row[0]}-{i}" for i, row in enumerate(FAULTS)]
)


def test_nothing_is_said_of_a_clean_cohort(clean):
    assert check_contract(clean) == []


def test_every_rule_has_a_fault_here():
    assert {fault[0] for fault in FAULTS} == set(RULES)


@every_fault
def test_the_fault_is_found_with_its_count_and_nothing_else(clean, rule, fault, is_error, count, words):
    (found,) = check_contract(fault(clean))
    assert (found.rule, found.is_error, found.count) == (rule, is_error, count)
    assert words in found.message
    json.dumps(findings_to_records([found]))  # as a run keeps it: NumPy's own types are none of JSON's
    assert (found.advice and found.examples) or rule in ("one_class_label", "split_mix", "encoder_saw_test_patients")
    assert check_contract(clean) == []  # what the fault was put into is as it was


@every_fault
def test_no_identifier_is_in_the_words(clean, rule, fault, is_error, count, words):
    """Examples are for the person at the machine; message and advice may stand in a report."""
    for finding in check_contract(fault(clean)):
        said = finding.message + finding.advice
        assert "secret" not in said and ".png" not in said and str(clean.cohort.images_root) not in said
        assert "secret" not in str(findings_to_records([finding]))


@every_fault
def test_the_report_says_no_small_number_of_people(clean, rule, fault, is_error, count, words):
    """The report hides counts of one to nine by the form of the sentence; each message has that form."""
    if count >= 10 or rule in ("one_class_label", "small_group", "split_mix"):  # these count labels, groups, attributes
        return
    found = check_contract(fault(clean))
    assert str(count) in found[0].message
    ((said, _),) = contract_warnings(findings_to_records(found))
    assert "fewer than 10" in said and f" {count} " not in f" {said}"


@pytest.mark.parametrize("name", RULES)
def test_every_rule_can_be_resolved_and_needs_what_there_is(clean, name):
    rule = RULES[name]
    assert rule.sentence and set(rule.needs) <= {f.name for f in dataclasses.fields(Evidence)}
    assert not rule.applies(Evidence())
    assert rule.check(clean) == []


def test_rules_about_vectors_are_those_that_read_them():
    assert rules_about("embeddings") == ["near_duplicate_vectors", "encoder_saw_test_patients"]
    assert rules_about("fits") == ["fit_touched_test"]


class TestAllow:
    @pytest.mark.parametrize("fault", [all_gone, copied("test"), one_file_of_two_patients, near_in_test, trained_on_test])
    def test_an_allowed_error_is_a_warning(self, clean, fault):
        (before,) = check_contract(fault(clean))
        (after,) = check_contract(fault(clean), allow=[before.rule])
        assert before.is_error and after == replace(before, is_error=False)

    @pytest.mark.parametrize(("fault", "rule"), [(straddle, "patient_in_two_splits"), (fitted_on_test, "fit_touched_test")])
    def test_what_would_make_every_number_wrong_cannot_be_allowed(self, clean, fault, rule):
        assert [f.is_error for f in check_contract(fault(clean), allow=[rule])] == [True]
        assert {name for name, r in RULES.items() if not r.may_be_allowed} == {"patient_in_two_splits", "fit_touched_test"}

    def test_a_misspelt_rule_gets_the_nearest_one(self, clean):
        with pytest.raises(InputError, match="Did you mean 'missing_files'"):
            allow_findings([], ["missing_file"])


def test_errors_stop_and_are_said_all_at_once(clean):
    findings = check_contract(straddle(one_file_of_two_patients(clean)))
    with pytest.raises(ContractError) as error:
        settle_findings(findings)
    assert "break 2 of the contract's rules" in str(error.value)
    assert "patient_in_two_splits: 3 patients" in str(error.value) and "use --split_source random" in str(error.value)
    assert error.value.findings == tuple(findings)
    assert "secret" not in str(error.value)
