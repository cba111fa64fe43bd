"""Erasing below the last layer: what it changes, against closed forms; the control; heads that can and cannot be opened."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import special
from sklearn.metrics import log_loss, roc_auc_score

from biascxr.containers import Attribute
from biascxr.errors import InputError
from biascxr.leakage.dependence import HiddenRows, ScoredRows, frozen_head, hidden_of
from biascxr.leakage.dependence.effects import (
    auroc_of,
    aurocs_of,
    deviations_of,
    equality_contrast,
    group_differences,
    log_loss_of,
    log_losses_of,
    rms_change,
    towards_equality,
)
from biascxr.metrics.delong import clustered_auroc
from biascxr.phantom.leakage_cases import draw_case

SEX = Attribute("sex", ("F", "M"), True)
NAMES = ("a", "b", "c")


def asked_of(name: str, seed: int = 0, *, n_patients: int = 800) -> tuple[HiddenRows, ScoredRows]:
    case = draw_case(name, n_patients=n_patients, seed=seed)
    train, test = case.rows("train"), case.rows("test")
    rows = ScoredRows(case.scores[test], case.labels[test], case.codes[test], case.patient_id[test], NAMES, SEX)
    hidden = HiddenRows(case.hidden[train], case.labels[train], case.codes[train], case.hidden[test], case.kernel, case.bias)
    return hidden, rows


def macro(table: pd.DataFrame, measure: str = "rms_logit_change") -> pd.Series:
    return table[(table["label"] == "macro") & (table["measure"] == measure)].iloc[0]


def test_the_change_is_that_of_leaces_closed_form_for_one_binary_attribute():
    hidden, rows = asked_of("encoded_used")
    x = hidden.train.astype(np.float64)
    design = np.column_stack([np.ones(len(x)), hidden.train_labels])
    z = hidden.train_codes - design @ np.linalg.lstsq(design, hidden.train_codes, rcond=None)[0]
    centred = x - x.mean(0)
    cross, covariance = centred.T @ z / len(x), np.cov(x.T, bias=True)
    direction = np.linalg.pinv(covariance, rcond=1e-10) @ cross  # S^-1 S_xz: what is read of z
    taken = np.outer((hidden.test - x.mean(0)) @ direction, cross) / (cross @ direction) @ hidden.kernel
    logits = hidden.test.astype(np.float64) @ hidden.kernel + hidden.bias
    expected = np.sqrt((taken**2).mean(0)) / logits.std(0)
    table = frozen_head(hidden, rows, n_random=0, seed=0)
    own = table[table["measure"] == "rms_logit_change"].set_index("label")
    np.testing.assert_allclose(own.loc[list(NAMES), "value"], expected, rtol=1e-5)
    assert own.loc["macro", "value"] == pytest.approx(expected.mean(), rel=1e-5)
    for j, label in enumerate(NAMES):  # and the ranking after it is that of the closed form's logits
        change = table[(table["measure"] == "auroc_change") & (table["label"] == label)].iloc[0]["value"]
        values = [clustered_auroc(rows.labels[:, j], s[:, j], rows.patient_id).value for s in (logits - taken, logits)]
        assert change == pytest.approx(values[0] - values[1], abs=1e-5)


@pytest.mark.parametrize("name", ["encoded_used", "used_nonlinearly"])
def test_a_head_that_uses_the_attribute_changes_more_than_by_any_random_direction(name):
    table = frozen_head(*asked_of(name), n_random=200, seed=0)
    found = macro(table)
    assert found["p_value"] == pytest.approx(1 / 201) and found["low"] > found["control_high"] and found["low"] > 0.3
    shrunk = macro(table, "group_difference_change")
    assert shrunk["high"] < -0.5 and shrunk["p_value"] == pytest.approx(1 / 201)


@pytest.mark.parametrize("name", ["encoded_unused", "unequal_prevalence"])
def test_a_head_that_does_not_use_it_hardly_changes(name):
    """Also where the group with more disease is scored higher: that goes through the labels and is not erased."""
    for seed in range(3):
        found = macro(frozen_head(*asked_of(name, seed), n_random=200, seed=seed))
        assert found["p_value"] > 0.2 and found["value"] < 0.15


def test_random_subspaces_take_their_share_of_the_variance():
    """On rows like the training rows a random direction of r takes 1 / r of a logit's variance on average."""
    rng = np.random.default_rng(0)
    n, width = 1500, 10
    mixing = rng.normal(size=(width, width))
    train, test = (rng.normal(size=(n, width)) @ mixing for _ in range(2))
    labels, codes = (rng.random((n, 1)) < 0.5).astype(float), rng.integers(0, 2, n)
    hidden = HiddenRows(train, labels, codes, test, rng.normal(size=(width, 1)), np.zeros(1))
    scores = special.expit(test @ hidden.kernel)
    rows = ScoredRows(scores, labels, codes, np.arange(n), ("a",), SEX)
    found = macro(frozen_head(hidden, rows, n_random=1000, seed=1))
    # The share is Beta(1/2, (r - 1)/2); its root's quantiles:
    from scipy import stats

    low, high = np.sqrt(stats.beta.ppf([0.025, 0.975], 0.5, (width - 1) / 2))
    assert found["control_low"] == pytest.approx(low, abs=0.02) and found["control_high"] == pytest.approx(high, abs=0.05)


def test_dead_units_and_copies_do_not_make_the_control_easier():
    hidden, rows = asked_of("encoded_used")
    plain = macro(frozen_head(hidden, rows, n_random=50, seed=0))
    dead = [np.column_stack([part, np.full((len(part), 40), 3.0), part[:, :1]]) for part in (hidden.train, hidden.test)]
    kernel = np.vstack([hidden.kernel, np.ones((40, 3)), np.zeros((1, 3))])
    wide = dataclasses.replace(hidden, train=dead[0], test=dead[1], kernel=kernel)
    same = macro(frozen_head(wide, rows, n_random=50, seed=0))
    assert same["value"] == pytest.approx(plain["value"], rel=1e-4)
    assert same["control_high"] == pytest.approx(plain["control_high"], rel=0.2)  # 40 more directions would halve it


def test_findings_p_values_hold_jointly():
    """A finding's p-value is by the largest change over all findings, so it is at least that of its own change alone."""
    hidden, rows = asked_of("absent")
    table = frozen_head(hidden, rows, n_random=200, seed=0)
    own = table[(table["measure"] == "rms_logit_change") & (table["label"] != "macro")]
    assert (own.sort_values("value", ascending=False)["p_value"].diff().dropna() >= 0).all()
    biggest = own.loc[own["value"].idxmax()]
    assert biggest["p_value"] > 0.02


def test_nobody_of_known_group_is_undefined_and_lengths_are_checked():
    hidden, rows = asked_of("absent")
    unknown = dataclasses.replace(hidden, train_codes=np.full(len(hidden.train), -1))
    table = frozen_head(unknown, rows, n_random=10, seed=0)
    assert table["value"].isna().all() and table["p_value"].isna().all() and (table["n"] > 0).all()
    with pytest.raises(InputError, match=r"hidden\.test and kernel must match"):
        frozen_head(hidden, rows.take(np.arange(5)), seed=0)
    with pytest.raises(InputError, match="one column per row of the kernel"):
        dataclasses.replace(hidden, kernel=hidden.kernel[:3])


def test_same_seed_same_table():
    hidden, rows = asked_of("absent")
    pd.testing.assert_frame_equal(frozen_head(hidden, rows, n_random=9, seed=1), frozen_head(hidden, rows, n_random=9, seed=1))


def test_influence_values_are_those_of_leaving_a_row_out():
    """Jackknife: (n - 1) x (value - value without the row) is n x the influence, up to terms of order 1 / n."""
    rng = np.random.default_rng(0)
    n = 400
    label = rng.integers(0, 2, n).astype(float)
    label[:20] = np.nan
    codes = rng.integers(-1, 2, n)
    old = rng.normal(size=n) + np.nan_to_num(label) + 0.5 * codes
    new = old + 0.5 * rng.normal(size=n) - 0.3 * codes

    def shrinking(o, w, y, c):
        return towards_equality(group_differences(o, y, c, n_groups=2), group_differences(w, y, c, n_groups=2))

    measures = {
        "rms": lambda o, w, y, c: rms_change(o, w),
        "loss": lambda o, w, y, c: log_loss_of(y, w),
        "auroc": lambda o, w, y, c: auroc_of(y, w, np.arange(len(y))),
        "difference": shrinking,
    }
    for name, measure in measures.items():
        full = measure(old, new, label, codes)
        assert full.influence.sum() == pytest.approx(0, abs=1e-10), name
        for i in (0, 25, 101, 333):
            kept = np.delete(np.arange(n), i)
            without = measure(old[kept], new[kept], label[kept], codes[kept]).value
            assert full.influence[i] == pytest.approx(full.value - without, abs=2e-2 / n + 0.05 * abs(full.influence[i])), name
    contrast = equality_contrast(group_differences(old, label, codes, n_groups=2), label, codes)
    assert contrast @ (new - old) == pytest.approx(shrinking(old, new, label, codes).value, abs=1e-12)


def test_columns_at_once_are_the_columns_one_by_one_with_ties_and_unknown_labels():
    rng = np.random.default_rng(0)
    labels = (rng.random((90, 4)) < 0.3).astype(np.float32)
    labels[rng.random(labels.shape) < 0.2] = np.nan
    labels[:, 3] = np.where(labels[:, 3] == 1, 0, labels[:, 3])  # no positive: no AUROC
    logits = rng.normal(size=(90, 4)).round(1)
    aurocs, losses = aurocs_of(labels, logits), log_losses_of(labels, logits)
    for j in range(4):
        known = ~np.isnan(labels[:, j])
        probability = special.expit(logits[known, j])
        assert losses[j] == pytest.approx(log_loss(labels[known, j], probability, labels=[0, 1]), abs=1e-12)
        if j < 3:
            assert aurocs[j] == pytest.approx(roc_auc_score(labels[known, j], logits[known, j]), abs=1e-12)
    assert np.isnan(aurocs[3])


def test_a_logit_that_is_the_same_for_all_has_no_unit_and_not_one_of_rounding():
    logits = np.column_stack([np.full(90, special.logit(0.25)), np.zeros(90), np.arange(90.0)])
    found = deviations_of(logits)
    assert np.isnan(found[:2]).all() and found[2] == pytest.approx(np.arange(90).std())


def test_the_interval_keeps_patients_together():
    rng = np.random.default_rng(1)
    before, after = rng.normal(size=(2, 300))
    single = rms_change(before, after)
    doubled = rms_change(np.repeat(before, 2), np.repeat(after, 2))  # every patient has the same image twice
    one, two = single.interval(np.arange(300), 0.95), doubled.interval(np.repeat(np.arange(300), 2), 0.95)
    np.testing.assert_allclose(one, two, rtol=1e-9)
    assert np.diff(doubled.interval(np.arange(600), 0.95)) < 0.8 * np.diff(two)


@pytest.mark.parametrize("hidden_units", [(), (5,)])
def test_a_dense_head_opens_into_its_own_probabilities(hidden_units):
    from biascxr.mitigation.training import Head
    from biascxr.models import build_mlp

    head = Head(build_mlp(4, 3, hidden=hidden_units, dropout=0.5))
    vectors = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    layer = hidden_of(head).layer
    hidden = layer.hidden(vectors)
    assert hidden.shape == (20, hidden_units[-1] if hidden_units else 4)
    if not hidden_units:
        np.testing.assert_array_equal(hidden, vectors)
    np.testing.assert_allclose(special.expit(hidden @ layer.kernel + layer.bias), head.predict(vectors), atol=1e-6)


def test_a_head_without_such_a_layer_does_not_open_and_says_why():
    import keras

    from biascxr.mitigation.training import Head

    vector = keras.Input((4,))
    other = Head(keras.Model(vector, keras.layers.Dense(3, activation="sigmoid", name="elsewhere")(vector)))
    opened = hidden_of(other)
    assert opened.layer is None and "one dense layer named 'findings'" in opened.reason
    first = keras.layers.Dense(3, activation="sigmoid", name="findings")(vector)
    behind = Head(keras.Model(vector, keras.layers.Rescaling(0.5)(first)))
    assert hidden_of(behind).layer is None and "not the last step" in hidden_of(behind).reason
