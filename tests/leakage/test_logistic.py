"""The logistic probe finds scikit-learn's minimum, on random and on real vectors."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit, logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from biascxr.errors import InputError
from biascxr.leakage import logistic, logistic_pass
from biascxr.leakage.logistic import fit_logistic


def made_up(n: int, d: int, k: int, *, seed: int = 0, is_correlated: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Standardised vectors, like an encoder's: few directions hold most of the variance; and groups that depend on them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d))
    if is_correlated:
        x = x @ (rng.standard_normal((d, d)) * np.arange(1, d + 1)[:, None] ** -0.8)
    x = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    logits = x @ rng.standard_normal((d, k)) / np.sqrt(d) + np.linspace(0, 1, k)
    return x, (logits + 1.5 * rng.gumbel(size=(n, k))).argmax(1)


def objective(x, codes, coefficients, intercept, inverse_penalty, weights) -> float:
    """The objective by its definition, in float64."""
    logits = x.astype(np.float64) @ coefficients.T + intercept
    if logits.shape[1] == 1:
        logits = np.hstack([np.zeros_like(logits), logits])
    losses = logsumexp(logits, axis=1) - logits[np.arange(len(codes)), codes]
    return np.average(losses, weights=weights) + np.sum(coefficients**2) / (2 * inverse_penalty * weights.sum())


@pytest.fixture(params=["compiled", "plain"])
def form(request, monkeypatch):
    """Both forms of the pass over the rows."""
    monkeypatch.setattr(logistic_pass, "SMALL_SIZE", 0 if request.param == "compiled" else np.inf)


@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("is_correlated", [True, False])
@pytest.mark.parametrize("is_weighted", [True, False])
def test_the_minimum_is_scikit_learns_at_every_penalty(form, k, is_correlated, is_weighted):
    x, codes = made_up(1500, 20, k, is_correlated=is_correlated)
    weights = np.random.default_rng(1).uniform(0.2, 3, len(x)) if is_weighted else np.ones(len(x))
    penalties = (0.01, 1.0, 0.0001)
    for c, fit in zip(penalties, fit_logistic(x, codes, penalties, weights=weights), strict=True):
        peer = LogisticRegression(C=c, tol=1e-7, max_iter=5000).fit(x.astype(float), codes, sample_weight=weights)
        own, theirs = (objective(x, codes, *w, c, weights) for w in (
            (fit.coefficients, fit.intercept), (peer.coef_, peer.intercept_)))  # fmt: skip
        assert fit.is_converged and fit.coefficients.shape == peer.coef_.shape
        assert fit.objective == pytest.approx(own, rel=1e-6)
        assert own == pytest.approx(theirs, rel=1e-6)
        np.testing.assert_allclose(fit.probabilities(x), peer.predict_proba(x), atol=0.02)


@pytest.mark.parametrize("inverse_penalty", [0.0001, 0.01, 1.0])
def test_on_real_vectors_objective_and_auroc_are_scikit_learns(nih_folder, inverse_penalty):
    """Recorded sex from the fourteen logits of a public CheXNet; patients never straddle."""
    table = pd.read_csv(nih_folder / "chexnet_predictions.csv.gz")
    x = logit(np.clip(table.filter(like="prob_").to_numpy(float), 1e-6, 1 - 1e-6))
    in_train = (table["patient_id"] % 2 == 0).to_numpy()
    x = ((x - x[in_train].mean(0)) / x[in_train].std(0)).astype(np.float32)
    codes = (table["sex"] == "M").to_numpy(np.int64)
    (fit,) = fit_logistic(x[in_train], codes[in_train], [inverse_penalty])
    peer = LogisticRegression(C=inverse_penalty, tol=1e-4).fit(x[in_train].astype(float), codes[in_train])
    rows = (x[in_train], codes[in_train])
    own = objective(*rows, fit.coefficients, fit.intercept, inverse_penalty, np.ones(in_train.sum()))
    theirs = objective(*rows, peer.coef_, peer.intercept_, inverse_penalty, np.ones(in_train.sum()))
    assert own == pytest.approx(theirs, rel=1e-6)
    aurocs = [roc_auc_score(codes[~in_train], f(x[~in_train])[:, 1]) for f in (fit.probabilities, peer.predict_proba)]
    assert aurocs[0] == pytest.approx(aurocs[1], abs=1e-3)
    assert aurocs[0] > 0.55


@pytest.mark.parametrize("k", [2, 3])
def test_gradient_is_the_slope_of_the_objective(form, k):
    x, codes = made_up(300, 5, k)
    weights = np.random.default_rng(2).uniform(0.5, 2, 300)
    o, rng = 1 if k == 2 else k, np.random.default_rng(3)
    w, b = rng.normal(size=(o, 5)).astype(np.float32).astype(float), rng.normal(size=o)

    def loss(w, b):
        return objective(x, codes, w, b, np.inf, weights)

    with logistic.ThreadPoolExecutor(1) as pool:
        mean = logistic_pass.pass_over_rows(x, codes, weights, w, b, pool=pool).divided(weights.sum())
    assert mean.loss == pytest.approx(loss(w, b), rel=1e-6)
    for g in range(o):
        step = 1e-5 * np.eye(o)[g]
        assert mean.by_intercept[g] == pytest.approx((loss(w, b + step) - loss(w, b - step)) / 2e-5, abs=1e-5)
        for c in range(5):
            step = np.zeros_like(w)
            step[g, c] = 1e-5
            assert mean.slope[g, c] == pytest.approx((loss(w + step, b) - loss(w - step, b)) / 2e-5, abs=1e-5)


def test_scaled_coordinates_take_fewer_steps(monkeypatch):
    x, codes = made_up(3000, 60, 2)
    (scaled,) = fit_logistic(x, codes, [1.0])
    monkeypatch.setattr(logistic, "_axes", lambda x, w, mean: (np.ones(x.shape[1]), None))
    (plain,) = fit_logistic(x, codes, [1.0])
    assert scaled.objective == pytest.approx(plain.objective, rel=1e-5)
    assert 2 * scaled.n_steps < plain.n_steps


def test_more_tasks_than_threads_give_the_same_fit_each_time(monkeypatch):
    x, codes = made_up(2000, 12, 3)
    (whole,) = fit_logistic(x, codes, [0.1])
    monkeypatch.setattr(logistic_pass, "ROWS_PER_TASK", 150)
    again = [fit_logistic(x, codes, [0.1])[0] for _ in range(2)]
    np.testing.assert_array_equal(again[0].coefficients, again[1].coefficients)
    np.testing.assert_allclose(again[0].coefficients, whole.coefficients, atol=1e-3)


@pytest.mark.parametrize("n", [2, 5, 40])
def test_groups_that_a_plane_parts_and_few_rows_are_no_failure(form, n):
    x, codes = made_up(n, 100, 2)
    codes = np.arange(n) % 2
    for fit in fit_logistic(x, codes, [1e-4, 1.0, 1e6]):
        assert np.isfinite(fit.coefficients).all() and np.isfinite(fit.objective)
    assert (fit.probabilities(x).argmax(1) == codes).all()


def test_constant_vectors_give_the_shares_of_the_groups():
    codes = np.array([0, 0, 0, 1, 1, 2] * 5)
    (fit,) = fit_logistic(np.zeros((30, 4), np.float32), codes, [1.0])
    np.testing.assert_allclose(fit.probabilities(np.zeros((1, 4), np.float32))[0], [1 / 2, 1 / 3, 1 / 6], atol=1e-3)


def test_not_converging_is_said(monkeypatch, caplog):
    monkeypatch.setattr(logistic, "MAX_STEPS", 1)
    with caplog.at_level(logging.WARNING, "biascxr"):
        (fit,) = fit_logistic(*made_up(500, 30, 2), [100.0])
    assert not fit.is_converged and "C = 100: not converged" in caplog.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"codes": np.zeros(50, np.int64)}, "two groups"),
        ({"codes": np.repeat([0, 2], 25)}, "without a gap"),
        ({"inverse_penalties": [0.0]}, "must be positive"),
        ({"vectors": np.full((50, 3), np.nan, np.float32)}, "finite"),
        ({"vectors": np.zeros((50, 3))}, "float64"),
    ],
)
def test_what_cannot_be_fitted_is_said(change, said):
    given = {"vectors": np.ones((50, 3), np.float32), "codes": np.repeat([0, 1], 25), "inverse_penalties": [1.0]} | change
    with pytest.raises(InputError, match=said):
        fit_logistic(**given)
