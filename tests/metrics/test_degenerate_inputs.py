"""What every metric says when there is hardly anything to measure: NaN where the mathematics is undefined, and nowhere else.

Each metric is listed with the cases in which it is undefined; in all others it has a finite value. No case raises an
exception or a warning.
"""

from __future__ import annotations

import inspect
import warnings
from functools import partial

import numpy as np
import pytest

from biascxr.metrics import calibration, classification, fairness, ranking

LABELS = np.array([0, 0, 1, 1, 0, 1, 1, 0], float)
SCORES = np.array([0.1, 0.2, 0.6, 0.7, 0.8, 0.9, 0.3, 0.4])
# Every other row is of group a, so in each group both classes, and both decisions in each class, are there.
GROUP = np.array(["a", "b"] * 4)
ONES, NANS = np.ones(8), np.full(8, np.nan)

# case -> labels, scores, weights
CASES = {
    "no rows": (LABELS[:0], SCORES[:0], ONES[:0]),
    "all labels NaN": (NANS, SCORES, ONES),
    "all weights zero": (LABELS, SCORES, 0 * ONES),
    "only positives": (ONES, SCORES, ONES),
    "only negatives": (0 * ONES, SCORES, ONES),
    "constant score": (LABELS, 0.3 * ONES, ONES),
    "one row": (ONES[:1], np.array([0.7]), ONES[:1]),
    "scores exactly 0 and 1": (LABELS, np.array([0, 1, 1, 0, 1, 1, 0, 0], float), ONES),
    "separated classes": (LABELS, 0.2 + 0.6 * LABELS, ONES),
    "plain": (LABELS, SCORES, ONES),
}
NOTHING = {"no rows", "all labels NaN", "all weights zero"}
NO_NEGATIVES = NOTHING | {"only positives", "one row"}  # the one row is a positive
NO_POSITIVES = NOTHING | {"only negatives"}
ONE_CLASS = NO_NEGATIVES | NO_POSITIVES
ONE_GROUP = NOTHING | {"one row"}

# metric -> the cases in which it is undefined; scores of .5 and above are flagged
ON_DECISIONS = {
    classification.true_positive_rate: NO_POSITIVES,
    classification.false_negative_rate: NO_POSITIVES,
    classification.false_positive_rate: NO_NEGATIVES,
    classification.true_negative_rate: NO_NEGATIVES,
    classification.positive_predictive_value: NOTHING | {"constant score"},  # nobody is flagged
    classification.negative_predictive_value: NOTHING | {"one row"},  # everyone is
    classification.selection_rate: NOTHING,
    classification.accuracy: NOTHING,
    classification.balanced_accuracy: ONE_CLASS,
}
ON_SCORES = {
    ranking.auroc: ONE_CLASS,
    ranking.auprc: NO_POSITIVES,
    ranking.cross_auroc: ONE_CLASS,
    ranking.bnsp_auroc: ONE_CLASS,
    ranking.bpsn_auroc: ONE_CLASS,
    calibration.brier_score: NOTHING,
    calibration.log_loss: NOTHING,
    calibration.expected_calibration_error: NOTHING,
    calibration.debiased_calibration_error: NOTHING,
    calibration.calibration_in_the_large: ONE_CLASS,
    calibration.calibration_slope: ONE_CLASS | {"constant score", "separated classes"},
}
GAPS_OF_DECISIONS = {
    fairness.demographic_parity_difference: ONE_GROUP,
    fairness.equal_opportunity_difference: ONE_GROUP | NO_POSITIVES,
    partial(fairness.equal_opportunity_difference, on="TNR"): NO_NEGATIVES,
    fairness.equalized_odds_difference: ONE_CLASS,
    fairness.predictive_parity_difference: ONE_GROUP | {"constant score"},
    fairness.underdiagnosis_gap: NO_NEGATIVES,
}
GAPS_OF_SCORES = {
    fairness.auroc_gap: ONE_CLASS,
    fairness.calibration_gap: ONE_GROUP,
    fairness.cross_auroc_gap: ONE_CLASS,
}
TABLES = (ON_DECISIONS, ON_SCORES, GAPS_OF_DECISIONS, GAPS_OF_SCORES)


def name_of(metric) -> str:
    return f"{metric.func.__name__} {metric.keywords['on']}" if isinstance(metric, partial) else metric.__name__


def groups_of(metric, group: np.ndarray) -> tuple[np.ndarray, ...]:
    """The arguments by which this metric learns the groups."""
    names = list(inspect.signature(metric).parameters)
    if "in_positive_group" in names:
        return group == "a", group == "b"
    if "in_group" in names:
        return (group == "a",)
    return (group,) if "group" in names else ()


def measure(metric, case: str, **changed) -> float:
    y, score, weight = CASES[case]
    value = (score >= 0.5).astype(float) if metric in {**ON_DECISIONS, **GAPS_OF_DECISIONS} else score
    groups = changed.get("groups", groups_of(metric, GROUP[: len(y)]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return metric(y, value, *groups, weight)


EVERY = [(metric, undefined) for table in TABLES for metric, undefined in table.items()]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("metric", "undefined"), EVERY, ids=[name_of(metric) for metric, _ in EVERY])
def test_a_metric_is_nan_exactly_where_it_is_undefined(metric, undefined, case):
    value = measure(metric, case)
    assert type(value) is float
    assert np.isnan(value) if case in undefined else np.isfinite(value)


def test_every_metric_stands_in_a_table():
    """A new metric fails here until it says where it is undefined."""
    listed = {getattr(metric, "func", metric) for metric, _ in EVERY}
    found = set()
    for module in (calibration, classification, fairness, ranking):
        for name, function in vars(module).items():
            if inspect.isfunction(function) and not name.startswith("_") and function.__module__ == module.__name__:
                parameters = list(inspect.signature(function).parameters)
                if parameters[0] == "y_true" and "weight" in parameters:
                    found.add(function)
    assert found == listed
    assert len(found) == 28


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        (ranking.auroc, 0.5),
        (ranking.auprc, 0.5),  # the prevalence
        (ranking.cross_auroc, 0.5),
        (calibration.brier_score, 0.5 * 0.3**2 + 0.5 * 0.7**2),
        (calibration.expected_calibration_error, 0.2),
        (calibration.calibration_in_the_large, np.log(0.7 / 0.3)),
        (fairness.auroc_gap, 0.0),
        (fairness.calibration_gap, 0.0),
        (fairness.cross_auroc_gap, 0.0),
    ],
)
def test_a_constant_score_of_three_tenths_at_a_prevalence_of_one_half(metric, value):
    assert measure(metric, "constant score") == pytest.approx(value)


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        (ranking.auprc, 1.0),
        (calibration.brier_score, 0.3**2),
        (calibration.log_loss, -np.log(0.7)),
        (calibration.expected_calibration_error, 0.3),
        (calibration.debiased_calibration_error, 0.3),
        (classification.accuracy, 1.0),
        (classification.selection_rate, 1.0),
    ],
)
def test_one_positive_row_with_a_score_of_seven_tenths(metric, value):
    assert measure(metric, "one row") == pytest.approx(value)


@pytest.mark.parametrize("unknown", ["unknown", None, np.nan])
@pytest.mark.parametrize("metric", {**GAPS_OF_DECISIONS, **GAPS_OF_SCORES}, ids=name_of)
def test_a_gap_without_known_groups_or_with_one_is_undefined(metric, unknown):
    assert np.isnan(measure(metric, "plain", groups=(np.array([unknown] * 8, object),)))
    assert np.isnan(measure(metric, "plain", groups=(np.array(["a"] * 4 + [unknown] * 4, object),)))


VALUES = {
    "no groups": [],
    "one group": [0.5],
    "one defined": [np.nan, 0.5, np.nan],
    "none defined": [np.nan, np.nan],
    "all zero": [0.0, 0.0],
    "equal": [0.4, np.nan, 0.4],
}
OF_VALUES = {
    fairness.gap: {"all zero": 0.0, "equal": 0.0},
    fairness.ratio: {"equal": 1.0},
    fairness.spread: {"all zero": 0.0, "equal": 0.0},
    fairness.noise_corrected_spread: {"all zero": 0.0, "equal": 0.0},
}


@pytest.mark.parametrize("case", VALUES)
@pytest.mark.parametrize("function", OF_VALUES, ids=name_of)
def test_summaries_of_group_values_need_two(function, case):
    values = np.array(VALUES[case])
    arguments = (values, np.full(len(values), 0.1)) if function is fairness.noise_corrected_spread else (values,)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = function(*arguments)
        worst = fairness.worst_group(values)
    assert type(found) is float and type(worst) is int
    assert found == pytest.approx(OF_VALUES[function].get(case, np.nan), nan_ok=True)
    assert worst == (0 if case in ("all zero", "equal") else -1)
