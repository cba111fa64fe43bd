"""`inlp`: linear classifiers lose the attribute round by round, and everything else stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from biascxr.errors import InputError
from biascxr.mitigation.representation.inlp import Inlp, InlpSettings

D = 12


def leaky(split_of, n=600, shares=(0.5, 0.5), seed=0, scale=1.0):
    """Column 0 reads the finding; columns 1 to 3 the group, each of one group's place; column 4 is constant."""
    rng = np.random.default_rng(seed)
    groups = rng.choice(list("ABCD")[: len(shares)], n, p=shares)
    part = split_of(n=n, d=D, seed=seed, race=groups)
    vectors = np.asarray(part.vectors) + 2
    for column, group in enumerate("BCD", start=1):
        vectors[groups == group, column] += 3
    vectors *= np.linspace(1, scale, D)
    vectors[:, 4] = 7
    return replace(part, vectors=vectors.astype(np.float32)), groups


def ones(part):
    return np.ones(len(part), np.float32)


def readable(train, train_groups, test, test_groups):
    model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(train, train_groups)
    return balanced_accuracy_score(test_groups, model.predict(test))


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.9, 0.1), (0.5, 0.3, 0.2)])
def test_a_new_classifier_does_no_better_than_chance_on_new_patients(split_of, shares):
    (train, groups), (new, new_groups) = leaky(split_of, shares=shares), leaky(split_of, shares=shares, seed=1)
    fitted = Inlp().fit(train, ones(train))
    before = readable(train.vectors, groups, new.vectors, new_groups)
    after = readable(fitted.transform(train.vectors), groups, fitted.transform(new.vectors), new_groups)
    assert before > 0.8 and after < 1 / len(shares) + 0.08


def test_the_finding_can_still_be_read(split_of):
    train, _ = leaky(split_of)
    known = ~np.isnan(train.labels[:, 0])
    before, after = (
        roc_auc_score(train.labels[known, 0], vectors[known, 0])
        for vectors in (np.asarray(train.vectors), Inlp().fit(train, ones(train)).transform(train.vectors))
    )
    assert after > before - 0.02 > 0.9


def test_one_round_on_two_groups_takes_out_what_the_classifier_reads_and_no_more(split_of):
    train, groups = leaky(split_of, scale=100.0)
    sixth = np.asarray(train.vectors)[:, 6]  # under the weights it reads the group too
    weights = np.where((sixth > np.median(sixth)) == (groups == "B"), 1, 0.1).astype(np.float32)
    settings = InlpSettings(n_iterations=1, inverse_penalty=0.5)
    fitted = Inlp(settings).fit(train, weights)
    assert fitted.state["left"].shape == (D, 1)
    x = np.asarray(train.vectors, np.float64)
    scaler = StandardScaler().fit(x, sample_weight=weights)
    scaled, ours = scaler.transform(x), scaler.transform(fitted._transform(x, None))
    own = np.isin(train.patient_id, fitted_patients(train, 0))
    peer = LogisticRegression(C=0.5, class_weight="balanced", max_iter=200)
    peer.fit(scaled[own], groups[own], sample_weight=weights[own])
    direction = peer.coef_[0] / np.linalg.norm(peer.coef_)
    np.testing.assert_allclose(ours @ direction, 0, atol=1e-2)
    np.testing.assert_allclose(ours, scaled - np.outer(scaled @ direction, direction), atol=1e-2)
    unweighted = Inlp(settings).fit(train, ones(train))
    assert np.abs(scaler.transform(unweighted._transform(x, None)) - ours).max() > 0.2


def fitted_patients(train, seed):
    """The patients that classifiers are fitted on: all but a quarter."""
    patients = np.unique(train.patient_id.astype(str))
    return np.random.default_rng(seed).permutation(patients)[round(0.25 * len(patients)) :]


def test_all_rounds_are_one_orthogonal_projection_in_units_of_the_deviations(split_of):
    train, _ = leaky(split_of, shares=(0.4, 0.3, 0.2, 0.1), scale=50.0)
    fitted = Inlp().fit(train, ones(train))
    x = np.asarray(train.vectors, np.float64)
    once = fitted._transform(x, None)
    np.testing.assert_allclose(fitted._transform(once, None), once, atol=1e-9)
    varies = x.std(0) > 1e-6
    deviation = x.std(0)[varies]
    matrix = fitted.as_matrix()[0][np.ix_(varies, varies)] * deviation[:, None] / deviation
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-9)
    sizes = np.linalg.eigvalsh(matrix)
    np.testing.assert_allclose(np.minimum(np.abs(sizes), np.abs(sizes - 1)), 0, atol=1e-9)
    assert (once[:, 4] == 7).all()  # the constant column


def test_rounds_end_when_held_out_patients_cannot_be_told_apart(split_of):
    train, _ = leaky(split_of)
    shuffled = replace(train, attributes=train.attributes.sample(frac=1, random_state=0).reset_index(drop=True))
    nothing = Inlp(InlpSettings(min_gain=0.1)).fit(shuffled, ones(train))
    np.testing.assert_array_equal(nothing.transform(train.vectors), train.vectors)
    assert "race could no longer be read (rounds: 0; gain" in nothing.notes[0]
    # A gain that cannot be missed: it goes on for as many rounds as it may.
    endless = Inlp(InlpSettings(min_gain=-1.0, n_iterations=4)).fit(train, ones(train))
    assert endless.state["left"].shape == (D, 4) and "still being read (rounds: 4)" in endless.notes[0]


def test_no_more_directions_go_than_there_are(split_of):
    train, _ = leaky(split_of, shares=(0.4, 0.3, 0.3))
    fitted = Inlp(InlpSettings(min_gain=-1.0, n_iterations=30)).fit(train, ones(train))
    assert fitted.state["left"].shape[1] <= D - 1  # column 4 never varies
    assert np.isfinite(fitted.transform(train.vectors)).all()


def test_groups_are_kept_apart_and_each_round_takes_out_one_direction_less_than_there_are(split_of):
    for shares in ((0.4, 0.3, 0.3), (0.4, 0.3, 0.2, 0.1)):
        train, _ = leaky(split_of, shares=shares)
        fitted = Inlp(InlpSettings(n_iterations=1)).fit(train, ones(train))
        assert fitted.state["left"].shape == (D, len(shares) - 1)


def test_several_attributes_take_turns(split_of):
    train, _ = leaky(split_of)
    sex = np.where(np.random.default_rng(5).random(600) < 0.5, "F", "M")
    vectors = np.asarray(train.vectors) + 0
    vectors[:, 6] += 3 * (sex == "F")
    train = replace(train, vectors=vectors, attributes=train.attributes.assign(sex=sex))
    half_known = replace(train, attributes=train.attributes.assign(sex=np.where(np.arange(600) % 4 < 2, "unknown", sex)))
    once = Inlp(InlpSettings(attributes=("race", "sex"), n_iterations=1)).fit(half_known, ones(train))
    assert once.state["left"].shape == (D, 2)  # one for each attribute: unknown is no group
    fitted = Inlp(InlpSettings(attributes=("race", "sex"))).fit(train, ones(train))
    assert {note.split()[1] for note in fitted.notes if "could no longer" in note} == {"race", "sex"}
    out = fitted.transform(vectors)
    for groups in train.attributes["race"], train.attributes["sex"]:
        assert readable(out, groups, out, groups) < 0.6


def test_the_seed_draws_rows_and_patients_and_nothing_else_is_random(split_of):
    train, _ = leaky(split_of)
    first, again, other = (
        Inlp(InlpSettings(max_rows=200)).fit(train, ones(train), seed=seed).transform(train.vectors) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    noted = Inlp(InlpSettings(max_rows=200)).fit(train, ones(train)).notes
    assert noted[-1] == "inlp: classifiers saw 200 of 600 rows"


def test_an_attribute_that_cannot_be_judged_is_left_alone_with_a_note(split_of):
    train = split_of()
    race = np.array(["A"] * 59 + ["B"], object)  # one row: its patient is fitted on or judged, not both
    fitted = Inlp().fit(replace(train, attributes=pd.DataFrame({"race": race})), np.ones(60, np.float32))
    np.testing.assert_array_equal(fitted.transform(train.vectors), train.vectors)
    assert fitted.notes[0] == "inlp: race was left alone: fewer than two groups among fitted or held-out patients"
    nobody = replace(train, attributes=pd.DataFrame({"race": ["unknown"] * 60}))
    assert "no attribute with two known groups" in Inlp().fit(nobody, np.ones(60, np.float32)).notes[0]


def test_rows_of_unknown_group_are_projected_and_teach_nothing(split_of):
    train, groups = leaky(split_of)
    hidden = np.where(np.arange(600) % 4 < 2, "unknown", groups)  # both rows of a patient
    part = replace(train, attributes=pd.DataFrame({"race": hidden}))
    fitted = Inlp().fit(part, ones(train))
    assert np.abs(fitted.transform(train.vectors) - train.vectors)[hidden == "unknown"].max(axis=1).min() > 0
    nonsense = np.array(train.vectors)
    nonsense[hidden == "unknown", 1] = np.random.default_rng(0).permutation(nonsense[hidden == "unknown", 1])
    other = Inlp().fit(replace(part, vectors=nonsense), ones(train))  # same columns, hence same scale
    np.testing.assert_allclose(other.transform(train.vectors), fitted.transform(train.vectors), atol=1e-4)


@pytest.mark.parametrize("settings", [{"n_iterations": 0}, {"max_rows": 0}, {"inverse_penalty": 0.0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(InputError, match="n_iterations and max_rows must be >= 1"):
        InlpSettings(**settings)
