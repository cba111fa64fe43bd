"""Rates of wrong labels: given by name, or estimated against a reference group whose labels are taken to be right."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, special
from sklearn.metrics import confusion_matrix

from biascxr.errors import InputError
from biascxr.mitigation import SplitData
from biascxr.mitigation.cells import Cells
from biascxr.mitigation.training.noise_estimate import agreed_rates, estimate_rates, fit_rates, rate_errors
from biascxr.mitigation.training.noise_rates import NoiseRates, given_rates

CELLS = Cells(("race",), ("A", "B / F", "C"))
LABELS = ("Edema", "Pleural Effusion")


class TestGiven:
    def test_a_labels_own_rate_wins_over_its_groups_and_what_is_not_named_is_zero(self):
        rates = given_rates(("B / F@Edema=0.4", "B / F=0.2"), ("C=1e-1",), CELLS, LABELS)
        np.testing.assert_allclose(rates.false_negative, [[0, 0], [0.4, 0.2], [0, 0]])
        np.testing.assert_allclose(rates.false_positive, [[0, 0], [0, 0], [0.1, 0.1]])

    @pytest.mark.parametrize(
        ("texts", "message"),
        [
            (("D=0.2",), r"Unknown group in label_noise.false_negative_rate 'D'.*Known: A, B / F, C"),
            (("A@Oedema=0.2",), r"Unknown label in label_noise.false_negative_rate 'Oedema'. Did you mean 'Edema'"),
            (("A=1.0",), r"a rate must be in \[0, 1\); got 'A=1.0'"),
            (("A",), r"takes GROUP=RATE or GROUP@LABEL=RATE, for instance F=0.2; got 'A'"),
            (("A=much",), r"takes GROUP=RATE or GROUP@LABEL=RATE.*got 'A=much'"),
            (("C@Edema=0.9",), r"must be below 1"),
        ],
    )
    def test_what_cannot_be_read_is_said(self, texts, message):
        with pytest.raises(InputError, match=message):
            given_rates(texts, ("C=0.1",), CELLS, LABELS)

    def test_they_are_told_by_group_rounded(self):
        rates = NoiseRates(np.array([[0, 0], [0.123, 0], [0.5, 0.25]]), np.array([[0, 0], [0, 0.071], [0, 0]]))
        assert rates.describe(CELLS, LABELS) == (
            "B / F: false negative rate Edema 0.12; false positive rate Pleural Effusion 0.07",
            "C: false negative rate Edema 0.50, Pleural Effusion 0.25",
        )
        assert NoiseRates.zero(3, 2).describe(CELLS, LABELS) == () and not NoiseRates.zero(3, 2).any


class TestLikelihood:
    def test_where_the_truth_is_known_it_is_the_share_of_wrong_labels(self):
        rng = np.random.default_rng(0)
        true = rng.integers(0, 2, 500)
        recorded = np.where(rng.random(500) < 0.2, 1 - true, true)
        (tn, fp), (fn, tp) = confusion_matrix(true, recorded)
        np.testing.assert_allclose(fit_rates(recorded, true), [fn / (fn + tp), fp / (fp + tn)], atol=1e-4)

    def test_it_is_the_maximum_of_the_likelihood(self):
        rng = np.random.default_rng(1)
        clean = rng.beta(0.5, 2, 800)
        recorded = (rng.random(800) < 0.7 * clean + 0.05 * (1 - clean)).astype(float)

        def loss(rates):
            p = (1 - rates[0]) * clean + rates[1] * (1 - clean)
            return -np.mean(recorded * np.log(p) + (1 - recorded) * np.log(1 - p))

        found = fit_rates(recorded, clean)
        best = optimize.differential_evolution(loss, [(0, 0.9), (1e-6, 0.9)], seed=0, tol=1e-10)
        assert loss(found) <= best.fun + 1e-8

    def test_a_recorded_label_that_is_always_right_gives_no_rate(self):
        true = np.random.default_rng(2).integers(0, 2, 200)
        np.testing.assert_allclose(fit_rates(true, true), 0, atol=1e-6)

    def test_errors_are_the_spread_of_the_estimates_and_patients_are_their_unit(self):
        rng = np.random.default_rng(3)
        clean, patients = np.repeat(rng.beta(1, 1, 150), 3), np.repeat(np.arange(150), 3)
        found, errors = [], []
        for _ in range(60):
            recorded = np.repeat(rng.random(150) < 0.7 * clean[::3] + 0.2 * (1 - clean[::3]), 3).astype(float)  # three alike
            found.append(fit_rates(recorded, clean))
            errors.append(rate_errors(recorded, clean, found[-1], patients))
        np.testing.assert_allclose(np.mean(errors, axis=0), np.std(found, axis=0), rtol=0.3)

    def test_rows_that_cannot_tell_one_rate_from_the_other_have_no_finite_error(self):
        assert np.isinf(rate_errors(np.array([0.0, 1.0] * 20), np.full(40, 0.5), np.array([0.1, 0.1]), np.arange(40))).all()


class TestTwoReadings:
    def test_their_mean_is_lowered_by_their_doubt_and_never_below_zero(self):
        first, second = np.zeros((2, 1, 2)), np.zeros((2, 1, 2))
        first[1, 0], second[1, 0] = [0.3, 0.0], [0.5, 0.02]
        errors = np.zeros((2, 1, 2))
        errors[1, 0] = [0.1, 0.05]
        readings = [(first, errors), (second, errors)]
        doubt = np.hypot(0.1, 0.1)  # within the group, and half the difference
        assert agreed_rates(readings, 0).false_negative[1, 0] == pytest.approx(0.4)
        assert agreed_rates(readings, 1).false_negative[1, 0] == pytest.approx(0.4 - doubt)
        assert agreed_rates(readings, 1).false_positive[1, 0] == 0
        assert agreed_rates(readings, 9).false_negative[1, 0] == 0

    def test_a_rate_that_one_of_them_cannot_tell_is_zero_and_two_rates_leave_a_fifth(self):
        rates = np.full((2, 1, 2), 0.7)
        errors = np.zeros_like(rates)
        both = agreed_rates([(rates, errors), (rates, errors)], 1)
        np.testing.assert_allclose(both.false_negative + both.false_positive, 0.8)
        untold = rates.copy()
        untold[1] = np.nan
        assert agreed_rates([(rates, errors), (untold, errors)], 1).false_negative.tolist() == [[pytest.approx(0.4)], [0]]
        assert not agreed_rates([(rates, errors), (rates, np.full_like(errors, np.inf))], 1).any


def world(*, false_negative: float = 0.0, lower_risk: float = 0.0, seed: int = 0, n: int = 6000) -> SplitData:
    """One label that a vector tells of; group B's is missed at a rate, or is rarer at the same vector."""
    rng = np.random.default_rng(seed)
    group = rng.choice(["A", "B", "C", "unknown"], n, p=[0.5, 0.3, 0.1, 0.1])
    vectors = rng.normal(size=(n, 8)).astype(np.float32)
    vectors[:, 1] += group == "B"  # a mark of the group
    risk = special.expit(2 * vectors[:, 0] - 1)
    true = rng.random(n) < np.where(group == "B", (1 - lower_risk) * risk, risk)
    recorded = true & ~((group == "B") & (rng.random(n) < false_negative))
    return SplitData(
        split="train", vectors=vectors, labels=np.stack([recorded, np.zeros(n)], axis=1).astype(np.float32),
        attributes=pd.DataFrame({"race": group}), patient_id=np.arange(n) // 2, image_id=np.arange(n),
        label_names=("x", "never"),
    )  # fmt: skip


def estimated(data: SplitData, **settings) -> NoiseRates:
    cells = Cells.of(data.attributes, ("race",))
    codes = cells.codes(data.attributes)
    chosen = {"caution": 1.0, "min_positive": 30, "seed": 0} | settings
    return estimate_rates(data.take(codes == 0), data.take(codes > 0), cells, reference_group="A", **chosen)


class TestAgainstAReference:
    def test_planted_misses_are_found_where_they_are(self):
        rates = estimated(world(false_negative=0.4), caution=0.0)
        assert rates.false_negative[1, 0] == pytest.approx(0.4, abs=0.08)
        assert rates.false_negative[0, 0] == 0 and rates.false_negative[2, 0] < 0.12
        assert rates.false_positive.max() < 0.05

    def test_without_misses_little_is_found(self):
        found = [estimated(world(seed=seed)).false_negative.max() for seed in (1, 2, 3)]
        assert np.mean(found) < 0.04

    def test_a_group_of_lower_risk_is_taken_for_one_whose_findings_are_missed(self):
        """What recorded labels cannot tell apart, as the method says in its notes."""
        missed, rarer = (estimated(world(**{what: 0.4}), caution=0.0) for what in ("false_negative", "lower_risk"))
        assert rarer.false_negative[1, 0] == pytest.approx(missed.false_negative[1, 0], abs=0.08)

    def test_a_label_without_positives_and_a_group_with_too_few_are_not_corrected(self):
        rates = estimated(world(false_negative=0.4), min_positive=400)
        assert rates.false_negative[1, 0] > 0 and not rates.false_negative[2].any() and not rates.false_negative[:, 1].any()
        assert not estimated(world(false_negative=0.4), min_positive=5000).any

    def test_the_same_seed_gives_the_same_rates_and_one_patient_is_too_few(self):
        data = world(false_negative=0.4, n=1000)
        np.testing.assert_array_equal(estimated(data).false_negative, estimated(data).false_negative)
        few = data.take(
            np.r_[np.flatnonzero(data.attributes["race"] == "A")[:1], np.flatnonzero(data.attributes["race"] == "B")]
        )
        assert not estimated(few).any
