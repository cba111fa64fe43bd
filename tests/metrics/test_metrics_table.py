"""What the table of metrics says of each metric is true of its function; a new member is covered on arrival."""

from __future__ import annotations

import inspect
import re

import numpy as np
import pytest

from biascxr.metrics import METRICS

OF_GROUP = [m for m, metric in METRICS.items() if metric.of_group]
OF_ROWS = [m for m in METRICS if m not in OF_GROUP]
OF_CALIBRATION = [m for m, metric in METRICS.items() if metric.function.startswith("biascxr.metrics.calibration")]


def compute(metric, y, score, weight=None, decision=None):
    """Calls a metric as the table says; the group of those of a group is every other row."""
    function = METRICS[metric].load()
    weight = np.ones(len(y)) if weight is None else weight
    if METRICS[metric].of_group:
        return function(y, score, np.arange(len(y)) % 2 == 0, weight)
    if METRICS[metric].reads == "decision":
        return function(y, (score >= 0.5).astype(float) if decision is None else decision, weight)
    return function(y, score, weight)


def rows(seed=0, n=400):
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.4).astype(float)
    return y, np.clip(rng.normal(0.4 + 0.2 * y, 0.15), 0, 1).round(2)


@pytest.mark.parametrize("metric", METRICS)
def test_the_function_is_called_as_the_table_says(metric):
    parameters = list(inspect.signature(METRICS[metric].load()).parameters)
    second = "decision" if METRICS[metric].reads == "decision" else "score"
    wanted = ["y_true", second, "in_group", "weight"] if METRICS[metric].of_group else ["y_true", second, "weight"]
    assert parameters[: len(wanted)] == wanted
    assert np.isfinite(compute(metric, *rows()))


@pytest.mark.parametrize("metric", METRICS)
def test_masked_rows_and_rows_of_weight_zero_change_nothing(metric):
    y, score = rows()
    weight = np.random.default_rng(1).integers(0, 3, len(y)).astype(float)
    masked = y.copy()
    masked[::10] = np.nan
    left_out = weight.copy()
    left_out[::10] = 0
    expected = compute(metric, y, score, left_out)
    assert compute(metric, masked, score, weight) == pytest.approx(expected, rel=1e-12)
    assert compute(metric, y, score, weight) != expected  # those rows did count


@pytest.mark.parametrize("metric", METRICS)
def test_the_scale_and_default_of_weights_do_not_matter(metric):
    y, score = rows(2)
    weight = np.random.default_rng(2).random(len(y))
    assert compute(metric, y, score, 7 * weight) == pytest.approx(compute(metric, y, score, weight), rel=1e-9)
    group = [np.arange(len(y)) % 2 == 0] * METRICS[metric].of_group
    second = (score >= 0.5).astype(float) if METRICS[metric].reads == "decision" else score
    assert METRICS[metric].load()(y, second, *group) == compute(metric, y, score)


@pytest.mark.parametrize("metric", OF_ROWS)
def test_a_weight_of_two_is_the_row_twice_but_for_the_debiased_calibration_error(metric):
    y, score = rows(3)
    weight = np.random.default_rng(3).integers(0, 3, len(y))
    weighted = compute(metric, y, score, weight.astype(float))
    copied = compute(metric, np.repeat(y, weight), np.repeat(score, weight))
    if metric == "ECE_debiased":
        assert weighted < copied  # copies are no information, so more of it is noise
    else:
        assert weighted == pytest.approx(copied, rel=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_without_the_class_it_rests_on_a_metric_is_undefined(metric):
    y, score = rows(4)
    among = METRICS[metric].among
    for absent, name in ((1, "positive"), (0, "negative")):
        kept = y != absent
        value = compute(metric, y[kept], score[kept])
        if among in (name, "both"):
            assert np.isnan(value)
        elif not METRICS[metric].of_group:  # those of a group need both, of different groups
            assert np.isfinite(value)
    assert np.isnan(compute(metric, y * np.nan, score))


@pytest.mark.parametrize("metric", METRICS)
def test_the_better_way_is_where_better_scores_lead(metric):
    y, score = rows(5)
    better = METRICS[metric].better
    scores = (0.8 * score + 0.2 * (1 - y), score, 0.6 * score + 0.4 * y)
    if metric.startswith("ECE"):  # knows no ranking: better is what is nearer to the risk
        risk = np.random.default_rng(5).random(4000)
        y = (np.random.default_rng(6).random(4000) < risk).astype(float)
        scores = (risk**3, risk**2, risk)
    worse, middle, best = (compute(metric, y, s) for s in scores)
    if better == "higher":
        assert worse < middle < best
    elif better == "lower":
        assert worse > middle > best
    else:
        assert metric in ("selection_rate", "calibration_in_the_large", "calibration_slope")


@pytest.mark.parametrize("metric", METRICS)
def test_prevalence_moves_those_that_are_said_to_depend_on_it_and_no_other(metric):
    """Scores mean the same in two groups: the same within each class, or, for calibration, the same risk at each score."""
    rng = np.random.default_rng(6)
    if metric in OF_CALIBRATION:
        low, high = rng.beta(2, 8, 40_000), rng.beta(4, 4, 40_000)
        values = [compute(metric, (rng.random(40_000) < s).astype(float), s) for s in (low, high)]
        tolerance = 0.06 if metric.startswith("calibration") else 0.01  # some 4 standard errors
    else:
        y, score = rows(6, 4000)
        flagged = (score >= 0.6).astype(float)  # misses more than it falsely flags, or accuracy would stay where it is
        values = [compute(metric, y, score, w, flagged) for w in (np.ones(len(y)), np.where(y == 1, 1.0, 5.0))]
        tolerance = 1e-9
    if METRICS[metric].depends_on_prevalence:
        assert abs(values[0] - values[1]) > 0.02
    else:
        assert values[0] == pytest.approx(values[1], abs=tolerance)


@pytest.mark.parametrize("metric", METRICS)
def test_values_stay_where_the_interval_expects_them(metric):
    """Wilson and logit intervals are for values in [0, 1]."""
    for seed in range(20):
        y, score = rows(seed, 30)
        value = compute(metric, y, score)
        if METRICS[metric].interval in ("rate", "auroc", "logit") and not np.isnan(value):
            assert 0 <= value <= 1
    assert METRICS[metric].interval in ("rate", "auroc", "mean", "logit", "t", "calibration")
    assert METRICS[metric].among in ("positive", "negative", "both", "known")


def test_each_name_is_told_to_its_reader_once():
    """The docstring of every function gives a formula or a definition and its reference."""
    functions = [metric.function for metric in METRICS.values()]
    assert len(set(functions)) == len(functions)
    for name, metric in METRICS.items():
        assert re.search(r"Reference: .*\d{4}", metric.load().__doc__, re.DOTALL), name
