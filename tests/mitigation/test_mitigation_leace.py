"""LEACE's theorems: no covariance is left on the fitting rows, no linear probe reads the attribute, no change is smaller."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from biascxr.errors import InputError
from biascxr.mitigation.representation.leace import Leace, LeaceSettings


def leaky(split_of, groups, *, d=12, relu=False, seed=0, split="train", shift=1.0):
    """Rows of correlated columns, the mean of each known group elsewhere; the groups' places do not depend on `seed`."""
    rng, world = np.random.default_rng([seed, len(split)]), np.random.default_rng(99)
    groups = np.asarray(groups, object)
    mix = world.normal(size=(d, d))
    vectors = rng.normal(size=(len(groups), d)) @ mix
    for name, place in zip("ABCD", world.normal(size=(4, d)) @ mix / np.sqrt(d), strict=True):
        vectors[groups == name] += shift * place
    if relu:
        vectors = np.maximum(vectors, 0)
        vectors[:, 1], vectors[:, 2] = 0, vectors[:, 3]
    part = split_of(split, n=len(groups), d=d, n_labels=2, seed=seed, race=groups)
    return replace(part, vectors=vectors.astype(np.float32))


def drawn(n, shares=(0.6, 0.4), seed=1):
    return np.random.default_rng(seed).choice(list("ABCD")[: len(shares)], n, p=shares)


def ones(part):
    return np.ones(len(part), np.float32)


def covariance(vectors, groups, weights=None):
    """The largest covariance of a column with a group's one-hot, over the rows of known group, in float64."""
    known = np.asarray(groups) != "unknown"
    one_hot = pd.get_dummies(np.asarray(groups)[known]).to_numpy(np.float64)
    weights = np.ones(known.sum()) if weights is None else weights[known].astype(np.float64)
    vectors = np.asarray(vectors, np.float64)[known]
    one_hot = one_hot - np.average(one_hot, axis=0, weights=weights)
    return np.abs((vectors * weights[:, None]).T @ one_hot / weights.sum()).max()


CASES = {
    "two groups": {"groups": drawn(300)},
    "four groups, one of one row": {"groups": [*drawn(299, (0.6, 0.3, 0.1)), "D"]},
    "unknown groups": {"groups": np.where(np.arange(300) % 3 == 0, "unknown", drawn(300))},
    "constant and equal columns": {"groups": drawn(300), "relu": True},
    "fewer rows than columns": {"groups": drawn(30, (0.5, 0.3, 0.2)), "d": 64},
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_no_covariance_is_left_on_the_fitting_rows(split_of, case, weighted):
    train = leaky(split_of, **CASES[case])
    weights = (np.random.default_rng(0).random(len(train)) + 0.1).astype(np.float32) if weighted else ones(train)
    groups, fitted = train.attributes["race"], Leace().fit(train, weights)
    before = covariance(train.vectors, groups, weights)
    assert covariance(fitted._transform(np.asarray(train.vectors), None), groups, weights) < 1e-10 * before
    assert covariance(fitted.transform(train.vectors), groups, weights) < 1e-6 * before


def test_it_is_the_papers_equation_1(split_of):
    train = leaky(split_of, drawn(500, (0.5, 0.3, 0.2)))
    x = np.asarray(train.vectors, np.float64)
    z = pd.get_dummies(train.attributes["race"]).to_numpy(np.float64)
    joint = np.cov(np.c_[x, z].T, ddof=0)
    whitener = np.real(scipy.linalg.inv(scipy.linalg.sqrtm(joint[:12, :12])))
    basis = scipy.linalg.orth(whitener @ joint[:12, 12:], rcond=1e-8)
    centred = x - x.mean(0)
    expected = x - centred @ (scipy.linalg.inv(whitener) @ basis @ basis.T @ whitener).T
    np.testing.assert_allclose(Leace().fit(train, ones(train))._transform(x, None), expected, atol=1e-9)


def closed_form(x, z, kind, tolerance):
    """Equation 1 computed in one floating type throughout, as one would write it down."""
    x, z = (x - x.mean(0)).astype(kind), (z - z.mean(0)).astype(kind)
    values, vectors = np.linalg.eigh(x.T @ x / kind(len(x)))
    kept = values > tolerance * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    basis, sizes, _ = np.linalg.svd((vectors / np.sqrt(values)).T @ (x.T @ z / kind(len(x))), full_matrices=False)
    basis = basis[:, sizes > 1e-3 * sizes[0]]
    left, right = (vectors / np.sqrt(values)) @ basis, basis.T @ (vectors * np.sqrt(values)).T
    return x - (x @ left) @ right, kept.sum()


def test_float32_leaves_signal_or_loses_directions_and_float64_does_neither(split_of):
    groups = drawn(2000)
    train = leaky(split_of, groups, d=60)
    sizes = np.logspace(0, -3, 60)  # embeddings have directions of very different size
    rotation = np.linalg.qr(np.random.default_rng(5).normal(size=(60, 60)))[0]
    train = replace(train, vectors=((np.asarray(train.vectors) * sizes) @ rotation + 3).astype(np.float32))
    x, z = np.asarray(train.vectors, np.float64), pd.get_dummies(groups).to_numpy(np.float64)
    before = covariance(x, groups)
    coarse, n_kept = closed_form(x.astype(np.float32), z, np.float32, 1e-5)
    assert covariance(coarse, groups) > 1e-4 * before and n_kept < 50
    fine, n_kept = closed_form(x.astype(np.float32), z, np.float32, 1e-9)
    assert covariance(fine, groups) > 1e-6 * before
    double, n_kept = closed_form(x, z, np.float64, 1e-12)
    assert covariance(double, groups) < 1e-10 * before and n_kept == 60
    ours = Leace().fit(train, ones(train))._transform(x, None)
    assert covariance(ours, groups) < 1e-10 * before
    np.testing.assert_allclose(ours - x.mean(0), double, atol=1e-7)


def probe(vectors, groups, **settings):
    return LogisticRegression(class_weight="balanced", max_iter=5000, **settings).fit(vectors, groups)


def auroc_of(model, vectors, groups):
    return roc_auc_score(groups == "B", model.predict_proba(vectors)[:, 1])


def test_a_linear_probe_reads_nothing_on_the_fitting_rows(split_of):
    groups = drawn(600, (0.8, 0.2))
    train = leaky(split_of, groups, relu=True)
    raw, erased = np.asarray(train.vectors), Leace().fit(train, ones(train)).transform(train.vectors)
    assert auroc_of(probe(raw, groups), raw, groups) > 0.7
    assert abs(auroc_of(probe(erased, groups), erased, groups) - 0.5) <= 0.005
    # However long it learns: its scores stay a constant, one half.
    long = probe(erased.astype(np.float64), groups, C=1e6, tol=1e-12)
    np.testing.assert_allclose(long.predict_proba(erased)[:, 1], 0.5, atol=1e-3)


def test_a_probe_of_the_fitting_rows_reads_no_more_from_test_rows_than_a_shuffled_one(split_of):
    groups, test_groups = drawn(400), drawn(400, seed=2)
    train, test = leaky(split_of, groups, d=40), leaky(split_of, test_groups, d=40, split="test")
    fitted = Leace().fit(train, ones(train))
    rng = np.random.default_rng(0)
    for transform, is_within in ((fitted.transform, True), (np.asarray, False)):
        scaler = StandardScaler().fit(transform(train.vectors))
        own, other = (scaler.transform(transform(part.vectors)) for part in (train, test))
        shuffled = [auroc_of(probe(own, rng.permutation(groups), C=0.01), other, test_groups) for _ in range(20)]
        found = auroc_of(probe(own, groups, C=0.01), other, test_groups)
        assert (np.min(shuffled) <= found <= np.max(shuffled)) == is_within


def test_what_a_new_probe_reads_from_new_rows_shrinks_as_the_fitting_rows_grow(split_of):
    new_groups = drawn(8000, seed=3)
    new = leaky(split_of, new_groups, d=30, seed=3)
    first, second = np.arange(4000), np.arange(4000, 8000)
    found = {}
    for n in (150, 15_000):
        train = leaky(split_of, drawn(n), d=30)
        erased = Leace().fit(train, ones(train)).transform(new.vectors)
        found[n] = auroc_of(probe(erased[first], new_groups[first]), erased[second], new_groups[second])
    assert found[150] > 0.56 and abs(found[15_000] - 0.5) < 0.04


def test_no_other_affine_eraser_changes_the_vectors_less(split_of):
    train = leaky(split_of, drawn(400, (0.5, 0.3, 0.2)))
    x = np.asarray(train.vectors, np.float64)
    z = pd.get_dummies(train.attributes["race"]).to_numpy(np.float64)[:, :2]
    centred, z = x - x.mean(0), z - z.mean(0)
    cross, sigma = centred.T @ z / len(x), centred.T @ centred / len(x)
    inner_products = {"euclidean": np.eye(12), "covariance": sigma, "mahalanobis": np.linalg.inv(sigma)}
    rng = np.random.default_rng(0)

    def size(change, inner):
        return np.einsum("ni,ij,nj->", change, inner, change) / len(x)

    ours = Leace().fit(train, ones(train))._transform(x, None) - x
    # Every eraser of rank 2 is an oblique projection along the columns of S_xz; with C = S_xz' it is the orthogonal one.
    nearest = np.linalg.solve(sigma, cross).T
    others = [cross.T, rng.normal(size=(2, 12)), nearest + 0.01 * rng.normal(size=(2, 12)), nearest - 0.1 * cross.T]
    for other in others:
        projection = cross @ np.linalg.solve(other @ cross, other)
        change = -centred @ projection.T
        assert covariance(x + change, train.attributes["race"]) < 1e-12
        for name, inner in inner_products.items():
            assert size(ours, inner) < size(change, inner) * (1 - 1e-9), name
    # And none that moves everything a little more, or by another constant.
    assert size(ours, np.eye(12)) < size(ours + 0.01, np.eye(12))


def test_a_second_time_changes_nothing(split_of):
    train = leaky(split_of, drawn(300, (0.5, 0.3, 0.2)), relu=True)
    fitted = Leace().fit(train, ones(train))
    once = fitted._transform(np.asarray(train.vectors), None)
    np.testing.assert_allclose(fitted._transform(once, None), once, atol=1e-12)
    assert np.abs(once - train.vectors).max() > 0.1
    np.testing.assert_allclose(fitted.state["right"] @ fitted.state["left"], np.eye(2), atol=1e-12)


def test_the_size_of_a_column_makes_no_difference(split_of):
    train, scale = leaky(split_of, drawn(300)), 2.0 ** np.linspace(-30, 30, 12).round()  # exact in float32
    scaled = replace(train, vectors=(np.asarray(train.vectors) * scale).astype(np.float32))
    expected = Leace().fit(train, ones(train))._transform(np.asarray(train.vectors), None)
    np.testing.assert_allclose(
        Leace().fit(scaled, ones(train))._transform(np.asarray(scaled.vectors), None) / scale, expected, atol=1e-9
    )


def test_groups_are_kept_apart_and_one_direction_goes_for_each_but_one(split_of):
    groups = drawn(400, (0.4, 0.3, 0.2, 0.1))
    train = leaky(split_of, groups)
    fitted = Leace().fit(train, ones(train))
    out = fitted._transform(np.asarray(train.vectors), None)
    for group in "ABCD":
        np.testing.assert_allclose(out[groups == group].mean(0), out.mean(0), atol=1e-10)
    assert fitted.state["left"].shape == (12, 3)
    assert fitted.notes == ("leace: 3 of 12 directions taken out for race",)


def test_rows_of_unknown_group_are_moved_like_others_and_say_nothing_about_the_groups(split_of):
    groups = drawn(300).astype(object)
    train = leaky(split_of, groups)
    hidden = train.attributes.assign(race=np.where(np.arange(300) % 2 == 0, "unknown", groups))
    fitted = Leace().fit(replace(train, attributes=hidden), ones(train))
    moved = np.abs(fitted.transform(train.vectors) - train.vectors).max(axis=1)
    assert moved[::2].min() > 0
    # Vectors of theirs that no group resembles change the covariance that the map is fitted to, not what is erased.
    out = fitted._transform(np.asarray(train.vectors), None)
    np.testing.assert_allclose(out[1::2][groups[1::2] == "A"].mean(0), out[1::2][groups[1::2] == "B"].mean(0), atol=1e-10)
    known = train.take(np.arange(1, 300, 2))
    alone = Leace().fit(known, ones(known))
    erased, expected = fitted.state["right"], alone.state["right"]  # the direction erased, S_xz, is that of the known rows
    assert abs(erased[0] @ expected[0]) == pytest.approx(np.linalg.norm(erased) * np.linalg.norm(expected))


def test_side_by_side_leaves_an_interaction_that_the_crossing_erases(split_of):
    rng = np.random.default_rng(0)
    sex, race = rng.choice(["F", "M"], 400), rng.choice(["A", "B"], 400)
    train = split_of(n=400, d=6, sex=sex, race=race)
    vectors = rng.normal(size=(400, 6))
    vectors[:, 0] += 2 * ((sex == "F") ^ (race == "A"))
    vectors[:, 1] += 2 * (race == "B")
    train, crossing = replace(train, vectors=vectors.astype(np.float32)), np.char.add(sex, race)
    out = {}
    for crossed in (False, True):
        fitted = Leace(LeaceSettings(attributes=("sex", "race"), crossed=crossed)).fit(train, ones(train))
        out[crossed] = fitted._transform(np.asarray(train.vectors), None)
        for groups in (sex, race):
            assert covariance(out[crossed], groups) < 1e-12
    assert covariance(out[False], crossing) > 0.05 and covariance(out[True], crossing) < 1e-12


def design_of(labels):
    masked = np.isnan(labels)
    return np.column_stack([np.ones(len(labels)), np.where(masked, 0, labels), masked])


def test_within_label_no_partial_covariance_given_the_labels_is_left(split_of):
    groups = np.where(np.arange(400) % 5 == 0, "unknown", drawn(400, (0.5, 0.3, 0.2)))
    train = leaky(split_of, groups)
    assert np.isnan(train.labels).any()
    weights = (np.random.default_rng(0).random(400) + 0.1).astype(np.float32)
    known, x = groups != "unknown", np.asarray(train.vectors)
    root = np.sqrt(weights[known, None].astype(np.float64))
    one_hot, design = pd.get_dummies(groups[known]).to_numpy(np.float64), design_of(train.labels[known])

    def partial(vectors):
        """Both sides less what the labels predict of them (Frisch, Waugh and Lovell), over the known rows."""
        sides = [root * one_hot, root * vectors[known].astype(np.float64)]
        left = [side - root * design @ np.linalg.lstsq(root * design, side, rcond=None)[0] for side in sides]
        return np.abs(left[0].T @ left[1]).max()

    fitted = Leace(LeaceSettings(within_label=True)).fit(train, weights)
    out = fitted._transform(x, None)
    assert partial(out) < 1e-10 * partial(x)
    assert covariance(out, groups, weights) > 1e-3 * covariance(x, groups, weights)
    assert fitted.notes == ("leace: 2 of 12 directions taken out for race given the labels",)


def test_within_label_keeps_a_finding_that_goes_with_the_attribute_and_marginal_erasure_does_not(split_of):
    rng = np.random.default_rng(0)
    positive = rng.random(2000) < 0.5
    race = np.where(rng.random(2000) < np.where(positive, 0.8, 0.2), "B", "A")  # prevalence differs between groups
    train = split_of(n=2000, d=8, n_labels=1, race=race)
    vectors = rng.normal(size=(2000, 8))
    vectors[:, 0] += 2 * positive  # the finding
    vectors[:, 1] += 2 * (race == "B")  # the shortcut
    train = replace(train, vectors=vectors.astype(np.float32), labels=positive[:, None].astype(np.float32))
    finding, shortcut = {}, {}
    for within in (False, True):
        out = Leace(LeaceSettings(within_label=within)).fit(train, ones(train)).transform(train.vectors)
        finding[within] = roc_auc_score(positive, probe(out, positive).predict_proba(out)[:, 1])
        shortcut[within] = max(
            abs(roc_auc_score(race[positive == y] == "B", out[positive == y, 1]) - 0.5) for y in (False, True)
        )
    best = roc_auc_score(positive, vectors[:, 0])
    assert abs(finding[True] - best) < 0.02 and finding[False] < best - 0.04
    assert shortcut[True] < 0.04


def test_within_label_erases_nothing_where_labels_say_all_there_is_to_say(split_of):
    train = split_of(n=100, n_labels=1)
    labels = (np.arange(100) % 2).astype(np.float32)
    train = replace(train, labels=labels[:, None], attributes=pd.DataFrame({"race": np.where(labels, "B", "A")}))
    out = Leace(LeaceSettings(within_label=True)).fit(train, ones(train)).transform(train.vectors)
    np.testing.assert_array_equal(out, train.vectors)


@pytest.mark.parametrize(
    "attributes", [pd.DataFrame(index=range(60)), pd.DataFrame({"race": ["A"] * 60}), pd.DataFrame({"race": ["unknown"] * 60})]
)
def test_without_two_known_groups_no_bit_changes_and_a_note_says_so(split_of, attributes):
    train = replace(split_of(), attributes=attributes)
    vectors = np.asarray(train.vectors) * 1e-8 + np.float32(3)
    fitted = Leace().fit(train, ones(train))
    np.testing.assert_array_equal(fitted.transform(vectors), vectors)
    assert fitted.notes == ("leace: no attribute with two known groups: vectors are left as they are",)


def test_vectors_that_are_all_the_same_stay_so(split_of):
    train = replace(split_of(), vectors=np.full((60, 16), 0.1, np.float32))
    np.testing.assert_allclose(Leace().fit(train, ones(train)).transform(train.vectors), train.vectors, rtol=1e-6)


def test_attributes_that_the_cohort_lacks_or_that_are_named_twice_are_refused(split_of):
    with pytest.raises(InputError, match="'height' is not an attribute of this cohort"):
        Leace(LeaceSettings(attributes=("height",))).fit(split_of(), np.ones(60, np.float32))
    with pytest.raises(InputError, match=r"attributes must name each attribute once; got \['sex', 'sex'\]"):
        LeaceSettings(attributes=("sex", "sex"))
