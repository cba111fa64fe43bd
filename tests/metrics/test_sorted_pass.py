"""Every sum of the pass is the sum over rows, or over pairs of rows, that its name says; with numba and without."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from biascxr.metrics.sorted_pass import LANES, N_BINS, SUMS, has_compiler, in_lanes, sort_label, sorted_pass, tie_blocks

needs_numba = pytest.mark.skipif(not has_compiler, reason="numba is not installed: there is one form only")
FORMS = [False, pytest.param(True, marks=needs_numba)]
# Scores at both ends, at edges of bins (1/3), tied, and near one another.
LEVELS = (0.0, 1e-9, 0.2, 1 / 3, 0.4, 0.41, 0.5, 2 / 3, 0.9, 1.0)


def sums_by_hand(y, score, decision, codes, n_groups, drawn, size) -> dict[str, np.ndarray]:
    """All sums of one weighting, from their definitions, with loops over rows; a row weighs `drawn * size`."""
    known = ~np.isnan(y) & (codes >= 0)
    y, s, d, code, drawn, size = (a[known] for a in (y, score, decision, codes, drawn, size))
    w = drawn * size
    positives, negatives = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    out = {name: np.zeros(n_groups) for name in SUMS}
    for i in range(len(y)):
        kind = "positive" if y[i] == 1 else "negative"
        out[kind][code[i]] += w[i]
        if d[i] == 1:
            out[f"true_{kind}" if y[i] == 1 else "false_positive"][code[i]] += w[i]
        if np.isnan(d[i]):
            out[f"undecided_{kind}"][code[i]] += w[i]
        out["squared_error"][code[i]] += w[i] * (s[i] - y[i]) ** 2
        p = min(max(s[i], 1e-7), 1 - 1e-7)
        out["log_loss"][code[i]] -= w[i] * (math.log(p) if y[i] == 1 else math.log(1 - p))
    for i in positives:
        for j in negatives:
            pair = w[i] * w[j] * (1.0 if s[j] > s[i] else 0.5 if s[j] == s[i] else 0.0)
            out["losses_of_group"][code[i]] += pair
            out["losses_to_group"][code[j]] += pair
            if code[i] == code[j]:
                out["losses"][code[i]] += pair
    for g in range(n_groups):
        for rows, ending in ((code == g, ""), (code != g, "_others")):
            if ending and n_groups == 1:
                continue
            for i in np.flatnonzero(rows & (y == 1) & (w > 0)):
                above = rows & (s >= s[i])
                out[f"precision{ending}"][g] += w[i] * w[above & (y == 1)].sum() / w[above].sum()
            for b in range(N_BINS):
                upper = s <= 1 if b == N_BINS - 1 else s < (b + 1) / N_BINS
                own = rows & (s >= b / N_BINS) & upper
                out[f"bin_error{ending}"][g] += abs((w * (s - y))[own].sum())
                out[f"bin_noise{ending}"][g] += noise_of_bin(y[own], s[own], w[own], (drawn * size**2)[own])
    return out


def noise_of_bin(y, s, w, squares) -> float:
    """E|N(d, v)| - |d| of one bin, times its weight, by the folded normal's mean in the docstring of the metric."""
    if not w.sum() > 0:
        return 0.0
    effective = w.sum() ** 2 / squares.sum()
    rate = (w * y).sum() / w.sum()
    if effective < 1 + 1e-6 or rate < 1e-12 or rate > 1 - 1e-12:
        return 0.0
    d, v = abs((w * (s - y)).sum() / w.sum()), rate * (1 - rate) / (effective - 1)
    folded = math.sqrt(2 * v / math.pi) * math.exp(-(d**2) / (2 * v)) + d * (1 - 2 * special.ndtr(-d / math.sqrt(v)))
    return w.sum() * (folded - d)


@st.composite
def worlds(draw):
    """Rows with everything that can go wrong: no rows, one class, empty and unknown groups, ties, weights, factors."""
    n, k = draw(st.integers(0, 24)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    prevalence = draw(st.sampled_from([0.0, 0.3, 0.6, 1.0]))
    y = (rng.random(n) < prevalence).astype(np.float64)
    y[rng.random(n) < draw(st.sampled_from([0, 0.2]))] = np.nan
    score = rng.choice(LEVELS[: draw(st.sampled_from([1, 5, 10]))], n) if draw(st.booleans()) else rng.random(n)
    score = score.astype(draw(st.sampled_from([np.float32, np.float64])))
    decision = rng.choice([0.0, 1.0, np.nan], n)
    patient = rng.integers(0, 7, n)
    n_replicates = draw(st.sampled_from([1, 3, LANES + 2]))  # the last needs two blocks
    drawn = rng.integers(0, 4, (7, n_replicates)).astype(np.uint8)
    weight = rng.choice([0.0, 1 / 3, 1.0, 2.5], n) if draw(st.booleans()) else None
    cell, factor = None, None
    if draw(st.booleans()):
        cell = rng.integers(0, 3, n)
        factor = rng.choice([0.0, 0.5, 1.7], (3, n_replicates))
    codes = rng.integers(-1, k, n)
    return y, score, decision, codes, k, patient, drawn, weight, cell, factor


def run(world, **options) -> np.ndarray:
    y, score, decision, codes, k, patient, drawn, weight, cell, factor = world
    lanes = None if factor is None else in_lanes(factor)
    return sorted_pass(
        sort_label(y, score, decision), codes, k, patient, in_lanes(drawn), weight=weight, cell=cell, factor=lanes, **options
    )


@pytest.mark.slow
@pytest.mark.parametrize("is_compiled", FORMS, ids=["numpy", "numba"])
@given(world=worlds())
@settings(deadline=None, max_examples=150)
def test_each_sum_is_the_sum_over_rows_and_pairs_that_it_is_said_to_be(world, is_compiled):
    y, score, decision, codes, k, patient, drawn, weight, cell, factor = world
    made = run(world, is_compiled=is_compiled)
    for r in {0, drawn.shape[1] // 2, drawn.shape[1] - 1}:
        size = np.ones(len(y)) if weight is None else weight.copy()
        if factor is not None:
            size = size * factor[cell, r]
        expected = sums_by_hand(y, score.astype(np.float64), decision, codes, k, drawn[patient, r].astype(float), size)
        for name, values in zip(SUMS, made[:, :, r], strict=True):
            # sqrt(rate (1 - rate)) turns rounding of 1e-16 into 1e-8
            tolerance = 1e-6 if name.startswith("bin_noise") else 1e-9
            np.testing.assert_allclose(values, expected[name], rtol=1e-9, atol=tolerance, err_msg=f"{name}, replicate {r}")
    assert not made[:, :, drawn.shape[1] :].any()  # lanes that fill up the last block weigh nothing


@needs_numba
@pytest.mark.slow
@pytest.mark.parametrize("with_factor", [False, True])
@pytest.mark.parametrize("n_groups", [1, 2, 5])
def test_both_forms_give_the_same_sums_on_many_rows(n_groups, with_factor):
    rng = np.random.default_rng(n_groups)
    n, patients = 3000, 700
    y = (rng.random(n) < 0.2).astype(float)
    y[rng.random(n) < 0.05] = np.nan
    score = np.round(rng.beta(1 + np.nan_to_num(y), 2), 2)
    factor = rng.random((6, 100)) if with_factor else None
    world = (
        y, score, rng.choice([0.0, 1.0, np.nan], n), rng.integers(-1, n_groups, n), n_groups, rng.integers(0, patients, n),
        rng.poisson(1, (patients, 100)).astype(np.uint8), rng.random(n), rng.integers(0, 6, n) if with_factor else None, factor,
    )  # fmt: skip
    by_numpy, by_numba = run(world, is_compiled=False), run(world, is_compiled=True)
    assert by_numpy.shape == (len(SUMS), n_groups, 2 * LANES)
    assert (by_numpy[: SUMS.index("precision_others"), :, :100] != 0).all()
    np.testing.assert_allclose(by_numba, by_numpy, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("is_compiled", FORMS, ids=["numpy", "numba"])
def test_what_is_not_asked_for_is_zero_and_changes_nothing_else(is_compiled):
    rng = np.random.default_rng(0)
    n = 60
    world = (
        (rng.random(n) < 0.4).astype(float), rng.choice(LEVELS, n), rng.choice([0.0, 1.0], n), rng.integers(0, 2, n), 2,
        np.arange(n), np.ones((n, 2), np.uint8), None, None, None,
    )  # fmt: skip
    whole = run(world, is_compiled=is_compiled)
    precision = [SUMS.index(name) for name in SUMS if name.startswith("precision")]
    calibration = [SUMS.index(name) for name in SUMS if name.startswith(("bin_", "squared", "log_loss"))]
    for options, left_out in (
        ({"with_precision": False}, precision),
        ({"with_calibration": False}, calibration),
        ({"with_precision": False, "with_calibration": False}, precision + calibration),
    ):
        made = run(world, is_compiled=is_compiled, **options)
        assert not made[left_out].any() and whole[left_out].any()
        kept = np.setdiff1d(np.arange(len(SUMS)), left_out)
        np.testing.assert_array_equal(made[kept], whole[kept])


@pytest.mark.parametrize("is_compiled", FORMS, ids=["numpy", "numba"])
def test_a_weight_is_that_many_rows_for_all_but_the_noise_of_bins(is_compiled):
    rng = np.random.default_rng(4)
    n = 80
    y, score, codes = (rng.random(n) < 0.4).astype(float), rng.choice(LEVELS, n), rng.integers(0, 3, n)
    decision, weight = rng.choice([0.0, 1.0, np.nan], n), rng.integers(0, 4, n)
    once = np.ones((n, 1), np.uint8)
    weighted = run(
        (y, score, decision, codes, 3, np.arange(n), once, weight.astype(float), None, None), is_compiled=is_compiled
    )
    drawn = run(
        (y, score, decision, codes, 3, np.arange(n), weight[:, None].astype(np.uint8), None, None, None),
        is_compiled=is_compiled,
    )
    y, score, decision, codes = (np.repeat(a, weight) for a in (y, score, decision, codes))
    patient = np.repeat(np.arange(n), weight)
    copied = run((y, score, decision, codes, 3, patient, once, None, None, None), is_compiled=is_compiled)
    np.testing.assert_allclose(drawn, copied, atol=1e-9)  # a patient drawn twice is two patients
    is_noise = np.array([name.startswith("bin_noise") for name in SUMS])
    np.testing.assert_allclose(weighted[~is_noise], copied[~is_noise], atol=1e-9)
    assert (weighted[is_noise] > copied[is_noise]).any()  # copies by weight are no information: more noise is expected


def test_rows_of_a_label_stand_by_falling_score_and_masked_ones_are_left_out():
    y = np.array([1, np.nan, 0, 0, 1, 0, 0])
    rows = sort_label(y, np.array([0.2, 0.9, 0.5, 0.2, 0.7, 0.1, 0.1]), np.array([0, 1, np.nan, 1, 1, 0, 0]))
    np.testing.assert_array_equal(rows.row, [4, 2, 0, 3, 5, 6])
    np.testing.assert_array_equal(rows.positive, [True, False, True, False, False, False])
    np.testing.assert_array_equal(rows.flag, [1, -1, 0, 1, 0, 0])
    np.testing.assert_array_equal(rows.tie_end, [1, 2, 4, 4, 5, 6])  # the tie of 0.2 holds a positive, that of 0.1 none
    np.testing.assert_array_equal(tie_blocks(rows.tie_end), [1, 2, 3, 3, 4, 5])
    assert (sort_label(y, y * 0 + 0.5, None).flag == -1).all()


def test_bins_end_where_the_fixed_bins_of_the_calibration_error_end():
    score = np.linspace(0, 1, 61)
    rows = sort_label(np.zeros(61), score, None)
    falling = score[::-1]
    bins = np.minimum(np.floor(falling * N_BINS + 1e-12), N_BINS - 1)
    np.testing.assert_array_equal(rows.bin_end, np.r_[bins[1:] != bins[:-1], True])
    assert rows.bin_end.sum() == N_BINS


@given(st.integers(1, 9), st.integers(1, 2 * LANES + 1))
@settings(deadline=None, max_examples=30)
def test_lanes_hold_the_weightings_in_order(n_patients, n_weightings):
    weights = np.random.default_rng(n_patients).integers(1, 9, (n_patients, n_weightings)).astype(np.uint8)
    lanes = in_lanes(weights)
    assert lanes.shape == (-(-n_weightings // LANES), n_patients, LANES) and lanes.dtype == np.uint8
    for r in range(n_weightings):
        np.testing.assert_array_equal(lanes[r // LANES, :, r % LANES], weights[:, r])
    assert lanes.sum() == weights.sum()  # the rest is 0


def test_numbas_form_without_numba_is_refused_in_words(monkeypatch):
    monkeypatch.setattr("biascxr.metrics.sorted_pass.has_compiler", False)
    rows = sort_label(np.array([0.0, 1.0]), np.array([0.2, 0.7]), None)
    with pytest.raises(ValueError, match="needs numba"):
        sorted_pass(rows, np.zeros(2, int), 1, np.arange(2), in_lanes(np.ones((2, 1), np.uint8)), is_compiled=True)
