"""Fitted calibration of a cell is the pure function; its one-step resamples spread as refitting in each resample would."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import special
from statsmodels.api import GLM, families

from biascxr.audit.adjust import Adjustment
from biascxr.audit.calibration import CALIBRATION_FITS, calibration_replicates
from biascxr.audit.cells import measure_cells
from biascxr.audit.groups import ALL, OVERALL, find_groups
from biascxr.audit.rows import label_rows
from biascxr.containers import Attribute, Predictions
from biascxr.metrics import METRICS, calibration_slope, resample_patients

SEX, AGE = Attribute("sex", ("F", "M"), True), Attribute("age_group", ("young", "old"), False)


def make_world(seed: int, n: int, *, levels: int = 0) -> Predictions:
    """Scores too extreme (slope .7) and too low (intercept .4); two images a patient, who share a part of the risk."""
    rng = np.random.default_rng(seed)
    patient = np.arange(n) // 2
    logit = rng.normal(-1, 1, n) + rng.normal(0, 0.7, n)[patient]
    score = special.expit(logit)
    if levels:
        score = np.round(score * levels) / levels
    y = (rng.random(n) < special.expit(0.4 + 0.7 * logit)).astype(np.float32)
    y[rng.random(n) < 0.05] = np.nan
    table = pd.DataFrame(
        {
            "patient_id": patient, "view": rng.choice(["AP", "PA"], n), "sex": rng.choice(["F", "M", "unknown"], n)[patient],
            "age_group": rng.choice(["young", "old", "unknown"], n, p=[0.5, 0.4, 0.1]),
        }
    )  # fmt: skip
    return Predictions(table, y[:, None], score[:, None], ("a",), (SEX, AGE))


def replicates_of(predictions, n_replicates, **options):
    groups = find_groups(predictions, (SEX, AGE))
    resamples = resample_patients(predictions.table["patient_id"], n_replicates, seed=1)
    return groups, resamples, calibration_replicates([label_rows(predictions, 0)], groups, resamples, **options)


@pytest.mark.parametrize("weights", [None, "random", "with zeros"])
@pytest.mark.parametrize("levels", [0, 4])
def test_the_estimate_is_the_pure_function_on_the_rows(weights, levels):
    """Scores on four levels are tied and often at 0 or 1; a small group then often has no slope: NaN in both."""
    n_undefined = 0
    for seed in range(12):
        predictions = make_world(seed, 400 if seed == 0 else 24, levels=levels)
        n = len(predictions.table)
        rng = np.random.default_rng(seed)
        weight = {None: None, "random": rng.random(n), "with zeros": rng.choice([0, 0, 1.0], n)}[weights]
        groups, _, made = replicates_of(predictions, 3, weight=weight)
        for column in range(len(groups.names)):
            own = groups.mask(column)
            for metric in CALIBRATION_FITS:
                w = None if weight is None else weight[own]
                expected = METRICS[metric].load()(predictions.y_true[own, 0], predictions.scores[own, 0], w)
                value = made[metric][0, column, 0]
                assert value == pytest.approx(expected, rel=1e-9, nan_ok=True), (metric, groups.names[column], seed)
                n_undefined += np.isnan(value)
                if np.isnan(value):
                    assert np.isnan(made[metric][0, column]).all()
    assert n_undefined > 12 * 2  # more than everyone else of everyone


def test_the_estimate_is_the_logistic_regression_of_statsmodels():
    predictions = make_world(1, 900)
    groups, _, made = replicates_of(predictions, 2)
    for group in ("young", "old"):
        for is_others in (False, True):
            column = groups.index("age_group", group, others=is_others)
            own = groups.mask(column) & ~np.isnan(predictions.y_true[:, 0])
            y, x = predictions.y_true[own, 0].astype(float), special.logit(predictions.scores[own, 0])
            one = np.ones(len(y))
            intercept = GLM(y, one, family=families.Binomial(), offset=x).fit().params[0]
            slope = GLM(y, np.column_stack([one, x]), family=families.Binomial()).fit().params[1]
            assert made["calibration_in_the_large"][0, column, 0] == pytest.approx(intercept, abs=1e-7)
            assert made["calibration_slope"][0, column, 0] == pytest.approx(slope, abs=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("is_weighted", [False, True])
def test_one_step_resamples_are_near_refitting_in_each(is_weighted):
    """Of 60 resamples of a few hundred patients: the same one by one, to a tenth of their spread; and so in their spread."""
    predictions = make_world(2, 1200)
    weight = np.random.default_rng(2).random(1200) if is_weighted else None
    groups, resamples, made = replicates_of(predictions, 60, weight=weight)
    drawn = resamples.weights()[1:] * (1 if weight is None else weight)
    for column in range(1, groups.n_own):
        own = groups.mask(column)
        for metric in CALIBRATION_FITS:
            function = METRICS[metric].load()
            refitted = np.array([function(predictions.y_true[own, 0], predictions.scores[own, 0], w[own]) for w in drawn])
            steps = made[metric][0, column, 1:]
            assert steps.std() == pytest.approx(refitted.std(), rel=0.1), (metric, groups.names[column])
            assert np.abs(steps - refitted).mean() < 0.1 * refitted.std()
            assert np.corrcoef(steps, refitted)[0, 1] > 0.98


def test_resamples_centre_on_the_estimate_even_where_scores_are_saturated():
    """Half of the scores are 0 or 1, clipped to 1e-7 or so; the gradient at the estimate is 0 all the same."""
    rng = np.random.default_rng(3)
    predictions = make_world(3, 2000)
    scores = predictions.scores.copy()
    end = rng.random(2000) < 0.5
    scores[end, 0] = scores[end, 0] > 0.5
    predictions = Predictions(predictions.table, predictions.y_true, scores, ("a",), (SEX, AGE))
    groups, _, made = replicates_of(predictions, 400)
    for metric in CALIBRATION_FITS:
        own = made[metric][0, groups.index(OVERALL, ALL)]
        assert own[1:].mean() == pytest.approx(own[0], abs=0.3 * own[1:].std())


def test_the_weights_of_an_adjustment_are_those_of_the_data_as_they_are():
    predictions = make_world(4, 600)
    groups = find_groups(predictions, (SEX, AGE))
    resamples = resample_patients(predictions.table["patient_id"], 3, seed=1)
    weight = np.random.default_rng(4).random(600)
    adjustment = Adjustment(predictions, groups, resamples, ("view", "age_group"), weight)
    made = measure_cells(predictions, groups, resamples, CALIBRATION_FITS, weight=weight, adjustment=adjustment)
    for at, grouping in enumerate(groups.groupings[1:], start=1):
        for group in grouping.attribute.groups:
            column = groups.index(grouping.attribute.name, group)
            own = groups.mask(column)
            w = (weight * adjustment.fixed(0, at))[own]
            expected = calibration_slope(predictions.y_true[own, 0], predictions.scores[own, 0], w)
            assert made.estimate("calibration_slope")[0, column] == pytest.approx(expected, rel=1e-9)
            assert expected != calibration_slope(predictions.y_true[own, 0], predictions.scores[own, 0], weight[own])


def test_a_tie_between_the_classes_stays_a_tie():
    """Positives at .1 or above, negatives at .1 or below: no slope. As (.1 - 1) + 1 the tie would be broken, the slope -29."""
    score = np.array([0.1, 0.1, 0.3, 0.5, 0.1, 0.1, 0.05, 0.02])
    y = np.repeat([1, 0], 4).astype(np.float32)
    table = pd.DataFrame({"patient_id": np.arange(8), "sex": ["F", "M"] * 4, "age_group": "young"})
    predictions = Predictions(table, y[:, None], score[:, None], ("a",), (SEX, AGE))
    groups, _, made = replicates_of(predictions, 3)
    column = groups.index(OVERALL, ALL)
    assert np.isnan(made["calibration_slope"][0, column]).all()
    assert not np.isnan(made["calibration_in_the_large"][0, column, 0])
