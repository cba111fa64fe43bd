"""The verdict on the five planted cases, and the rules one by one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from biascxr.containers import Attribute
from biascxr.errors import InputError
from biascxr.leakage import ProbeRows, find_probe
from biascxr.leakage.dependence import HiddenRows, ScoredRows, frozen_head, given_label
from biascxr.leakage.result import COLUMNS
from biascxr.leakage.verdicts import INCONCLUSIVE, NOT_DETECTED, UNUSED, USED, verdict
from biascxr.metrics.delong import clustered_auroc
from biascxr.phantom.leakage_cases import CASES, LeakageCase, draw_case

SEX = Attribute("sex", ("F", "M"), True)
NAMES = ("a", "b", "c")


def readings_of(case: LeakageCase, probes: tuple[str, ...] = ("knn", "logistic"), *, n_shuffles: int = 199) -> pd.DataFrame:
    """Reads the attribute as the stage does, with the p-value of permuting the groups of test patients."""
    train, validation, test = (case.rows(split) for split in ("train", "validation", "test"))
    parts = [ProbeRows(case.vectors[rows], case.codes[rows], case.patient_id[rows]) for rows in (train, validation)]
    rng = np.random.default_rng(0)
    _, first, patient = np.unique(case.patient_id[test], return_index=True, return_inverse=True)
    rows = []
    for probe in probes:
        reading = find_probe(probe).read(parts[0], [case.vectors[test]], n_groups=2, validation=parts[1], seed=0)
        score, own = reading.scores[0][:, 1], case.codes[test]
        found = clustered_auroc(own == 1, score, patient)
        shuffled = [rng.permutation(own[first])[patient] for _ in range(n_shuffles)]
        null = np.array([clustered_auroc(codes == 1, score, patient).value for codes in shuffled])
        half = 1.96 * np.sqrt(found.variance)
        rows.append(
            {
                "representation": "vectors", "attribute": "sex", "probe": probe, "control": "none", "group": "macro",
                "auroc": found.value, "low": found.value - half, "high": found.value + half,
                "p_value": (1 + (null >= found.value).sum()) / (1 + n_shuffles), "validation_auroc": reading.validation_auroc,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def dependence_of(case: LeakageCase, *, n_permutations: int = 199, n_random: int = 200) -> pd.DataFrame:
    train, test = case.rows("train"), case.rows("test")
    rows = ScoredRows(case.scores[test], case.labels[test], case.codes[test], case.patient_id[test], NAMES, SEX)
    hidden = HiddenRows(
        case.hidden[train], case.labels[train], case.codes[train], case.hidden[test], case.kernel, case.bias
    )  # fmt: skip
    asked = given_label(rows, recipe="planted", n_permutations=n_permutations, seed=0)
    return pd.concat([asked, frozen_head(hidden, rows, recipe="planted", n_random=n_random, seed=0)], ignore_index=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_planted_cases_get_their_verdict_over_seeds(name):
    """One of the three may be wrong by chance (alpha is .05), and then never the opposite of the truth for a used one."""
    found = []
    for seed in range(3):
        case = draw_case(name, n_patients=8000, seed=seed)
        found.append(verdict(readings_of(case), dependence_of(case, n_permutations=99))["verdict"])
    assert found.count(CASES[name].verdict) >= 2
    if CASES[name].is_used:
        assert set(found) == {USED}


@pytest.mark.parametrize("name", ["encoded_used", "used_nonlinearly"])
def test_use_is_called_use_on_a_small_sample(name):
    case = draw_case(name, n_patients=1500, seed=0)
    made = verdict(readings_of(case), dependence_of(case))
    assert made["verdict"] == USED and made["evidence"] == "given_label; frozen_head" and made["recipe"] == "planted"
    assert made["probe"] == ("knn" if name == "used_nonlinearly" else "logistic")
    assert made["reason"].startswith("Recorded sex is readable from the vector") and made["reason"].endswith(".")


def test_no_use_on_a_small_sample_is_not_called_absence_of_use():
    """The intervals are then too wide for equivalence: little data must not read as a clean bill."""
    case = draw_case("encoded_unused", n_patients=600, seed=0)
    assert verdict(readings_of(case), dependence_of(case))["verdict"] == INCONCLUSIVE


def read(*rows: tuple) -> pd.DataFrame:
    """(probe, group, auroc, low, high, p_value, validation_auroc)"""
    names = ("probe", "group", "auroc", "low", "high", "p_value", "validation_auroc")
    common = {"representation": "vectors", "attribute": "age_group", "control": "none"}
    return pd.DataFrame([common | dict(zip(names, row, strict=True)) for row in rows])


def asked(*rows: tuple) -> pd.DataFrame:
    """(evidence, measure, label, value, low, high, control_high, p_value)"""
    names = ("evidence", "measure", "label", "value", "low", "high", "control_high", "p_value")
    return pd.DataFrame(
        [{"recipe": "erm", "attribute": "age_group", "group": "65+"} | dict(zip(names, r, strict=True)) for r in rows],
        columns=["recipe", "attribute", "group", *names],
    )


READABLE = read(("knn", "macro", 0.7, 0.66, 0.74, 0.001, 0.7))
NEAR = ("given_label", "auroc", "x", 0.5, 0.47, 0.53, 0.53, 0.9)
FAR = ("given_label", "auroc", "x", 0.6, 0.56, 0.64, 0.54, 0.001)
WIDE = ("given_label", "auroc", "x", 0.52, 0.40, 0.64, 0.62, 0.6)
SMALL = ("frozen_head", "rms_logit_change", "macro", 0.02, 0.01, 0.03, 0.2, 0.9)
LARGE = ("frozen_head", "rms_logit_change", "macro", 0.6, 0.5, 0.7, 0.2, 0.0025)
SLIGHT = ("frozen_head", "rms_logit_change", "macro", 0.05, 0.04, 0.06, 0.03, 0.0025)  # above its control, and negligible
BETWEEN = ("frozen_head", "rms_logit_change", "macro", 0.1, 0.05, 0.15, 0.03, 0.0025)
NO_ROWS = asked()


@pytest.mark.parametrize(
    ("rows", "expected", "evidence"),
    [
        ((NEAR, SMALL), UNUSED, "given_label; frozen_head"),
        ((NEAR,), UNUSED, "given_label"),
        ((NEAR, SLIGHT), UNUSED, "given_label; frozen_head"),
        ((NEAR, BETWEEN), INCONCLUSIVE, "frozen_head"),
        ((FAR, SMALL), USED, "given_label"),
        ((NEAR, LARGE), USED, "frozen_head"),
        ((FAR, LARGE), USED, "given_label; frozen_head"),
        ((WIDE, SMALL), INCONCLUSIVE, "given_label"),
        ((SMALL,), INCONCLUSIVE, "frozen_head"),  # nothing erased below one layer shows no absence
        ((), INCONCLUSIVE, ""),
        ((("given_label", "auroc", "x", 0.52, 0.51, 0.53, 0.51, 0.001), SMALL), UNUSED, "given_label; frozen_head"),
        ((("given_label", "auroc", "x", 0.56, 0.49, 0.63, 0.57, 0.03), SMALL), INCONCLUSIVE, "given_label"),  # p at alpha / 2
        ((NEAR, ("given_label", "auroc_positives", "x", 0.3, 0.2, 0.4, 0.6, 0.001), SMALL), USED, "given_label"),
        ((NEAR, ("given_label", "auroc_positives", "x", 0.5, 0.3, 0.7, 0.7, 0.9), SMALL), UNUSED, "given_label; frozen_head"),
        # What a covariate explains counts as explained.
        ((FAR, ("given_label_and_covariates", *NEAR[1:]), SMALL), UNUSED, "given_label_and_covariates; frozen_head"),
    ],
)
def test_rules_of_dependence(rows, expected, evidence):
    made = verdict(READABLE, asked(*rows))
    assert (made["verdict"], made["evidence"]) == (expected, evidence)


@pytest.mark.parametrize(
    ("rows", "expected", "probe"),
    [
        ([("knn", "macro", 0.51, 0.48, 0.54, 0.3, 0.5), ("logistic", "macro", 0.5, 0.47, 0.53, 0.5, 0.5)], NOT_DETECTED, "knn"),
        # Significant and within the margin: the margin says what counts.
        ([("knn", "macro", 0.52, 0.51, 0.53, 0.001, 0.52)], NOT_DETECTED, "knn"),
        ([("knn", "macro", 0.51, 0.45, 0.57, 0.3, 0.5)], INCONCLUSIVE, "knn"),
        # The better on test is not the one that validation chose.
        (
            [("knn", "macro", 0.7, 0.6, 0.8, 0.001, 0.5), ("logistic", "macro", 0.52, 0.45, 0.6, 0.2, 0.6)],
            INCONCLUSIVE,
            "logistic",
        ),
        ([("knn", "macro", 0.7, 0.6, 0.8, 0.001, 0.6), ("logistic", "macro", 0.52, 0.45, 0.6, 0.2, 0.5)], UNUSED, "knn"),
        # Without validation the smallest p-value speaks, at half the level.
        (
            [("knn", "macro", 0.7, 0.6, 0.8, 0.03, np.nan), ("logistic", "macro", 0.5, 0.45, 0.6, 0.2, np.nan)],
            INCONCLUSIVE,
            "knn",
        ),
        ([("knn", "macro", 0.7, 0.6, 0.8, 0.02, np.nan), ("logistic", "macro", 0.5, 0.45, 0.6, 0.2, np.nan)], UNUSED, "knn"),
        # One small group is readable, the mean is not.
        (
            [
                ("knn", "macro", 0.52, 0.50, 0.54, 0.1, 0.6),
                ("knn", "A", 0.65, 0.58, 0.72, 0.01, 0.6),
                ("knn", "B", 0.5, 0.48, 0.52, 0.9, 0.6),
            ],
            UNUSED,
            "knn",
        ),
        # Of two groups, .03 is not enough.
        (
            [
                ("knn", "macro", 0.52, 0.50, 0.54, 0.1, 0.6),
                ("knn", "A", 0.65, 0.58, 0.72, 0.03, 0.6),
                ("knn", "B", 0.5, 0.48, 0.52, 0.9, 0.6),
            ],
            NOT_DETECTED,
            "knn",
        ),
    ],
)  # fmt: skip
def test_rules_of_encoding(rows, expected, probe):
    made = verdict(read(*rows), asked(NEAR, SMALL))
    assert (made["verdict"], made["probe"]) == (expected, probe)


def test_what_no_probe_reads_and_predictions_depend_on_is_inconclusive_and_not_absent():
    unread = read(("knn", "macro", 0.5, 0.47, 0.53, 0.5, 0.5))
    made = verdict(unread, asked(FAR))
    assert made["verdict"] == INCONCLUSIVE and "and yet predictions depend on it" in made["reason"]
    assert verdict(unread, NO_ROWS)["verdict"] == NOT_DETECTED


def test_the_reason_names_figures_and_groups_too_small_to_say():
    made = verdict(READABLE, asked(NEAR, ("given_label", "auroc", "y", 0.6, np.nan, np.nan, np.nan, np.nan), SMALL))
    assert "AUROC 0.70, 0.66 to 0.74" in made["reason"] and "too few patients to say it of 65+" in made["reason"]
    assert "Recorded age group is readable from the vector" in made["reason"]
    wide = read(("knn", "macro", 0.5, 0.47, 0.53, 0.5, 0.5), ("knn", "80+", 0.5, 0.3, 0.7, 0.5, 0.5))
    assert "too few patients to say it of 80+ alone" in verdict(wide, NO_ROWS)["reason"]
    assert list(made) == list(COLUMNS["verdicts"])


def test_rows_of_two_attributes_or_none_are_refused():
    two = pd.concat([READABLE, READABLE.assign(attribute="sex")])
    with pytest.raises(InputError, match="one attribute; got"):
        verdict(two, NO_ROWS)
    with pytest.raises(InputError, match="must be of one attribute; got 'age_group' and 'sex'"):
        verdict(READABLE, asked(NEAR).assign(attribute="sex"))
    with pytest.raises(InputError, match="control none and group macro"):
        verdict(READABLE.assign(control="shuffled"), NO_ROWS)
