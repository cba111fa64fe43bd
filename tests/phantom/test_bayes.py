"""Bayes-optimal scores are those of brute force, are calibrated, and nobody does better."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from biascxr.phantom.bayes import MARKER_SHIFT, RowLaw, bayes_scores, biased_law, fair_law
from biascxr.phantom.mechanisms import MECHANISMS, Effect
from biascxr.phantom.vectors import Mixing, VectorConfig, VectorPhantom, draw_vectors

GROUP, MARKED = 1, 2
fractions = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.01, 0.99))
effects = st.builds(Effect, **{field.name: fractions for field in dataclasses.fields(Effect)})


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One way in which everything but the noise may have come out, and its chance."""

    chance: float
    labels: tuple[int, ...]
    marker: int


def outcomes(fair: RowLaw, effect: Effect, *, is_learned_from: bool) -> list[Outcome]:
    """Every way in which a row that enters may have come about, in the words of `Effect`; chances sum to one.

    A label is not there, there, or was there and was taken away; in test the marker follows the frequency elsewhere.
    """
    marker_rate = 0.0
    if not is_learned_from:
        elsewhere = outcomes(fair, effect, is_learned_from=True)
        marker_rate = sum(outcome.chance for outcome in elsewhere if outcome.marker)
    found = []
    for share, rates in zip(fair.class_shares, fair.rates, strict=True):
        for states in itertools.product(("not there", "there", "taken"), repeat=len(rates)):
            chance = share
            for state, rate in zip(states, rates, strict=True):
                ways = {"not there": 1 - rate, "there": rate * (1 - effect.absent), "taken": rate * effect.absent}
                chance *= ways[state]
            labels = tuple(int(state == "there") for state in states)
            if is_learned_from:
                marked = effect.marked if labels[fair.marked_label] else 0.0
                chance *= (1 - effect.sick_left_out) ** sum(labels)
            else:
                marked = marker_rate
            found += [Outcome(chance * marked, labels, 1), Outcome(chance * (1 - marked), labels, 0)]
    total = sum(outcome.chance for outcome in found)
    return [dataclasses.replace(outcome, chance=outcome.chance / total) for outcome in found]


def by_brute_force(signal: np.ndarray, marker: np.ndarray, possible: list[Outcome], shifts: np.ndarray) -> np.ndarray:
    """P(label | coordinates): Bayes' theorem, outcome by outcome."""
    chance = np.array([outcome.chance for outcome in possible])
    labels = np.array([outcome.labels for outcome in possible], float)
    marked = np.array([outcome.marker for outcome in possible])
    density = stats.norm.pdf(signal[:, None] - labels * shifts).prod(axis=2)  # [n, outcomes]
    density *= stats.norm.pdf(marker[:, None] - MARKER_SHIFT * marked)
    joint = density * chance
    return joint @ labels / joint.sum(axis=1, keepdims=True)


@given(effects, st.integers(1, 4), st.booleans(), st.integers(0, 2**32 - 1), st.data())
@settings(deadline=None, max_examples=80)
def test_scores_are_those_of_brute_force_whatever_the_effects_are_and_however_they_meet(effect, n, is_learned_from, seed, data):
    fair = fair_law(n, marked_label=data.draw(st.integers(0, n - 1)))
    rng = np.random.default_rng(seed)
    signal, marker = rng.normal(1.0, 2.0, (20, n)), rng.normal(2.0, 3.0, 20)
    expected = by_brute_force(
        signal, marker, outcomes(fair, effect, is_learned_from=is_learned_from), fair.effects * (1 - effect.fade)
    )
    scores = bayes_scores(signal, marker, biased_law(fair, effect, is_learned_from=is_learned_from))
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-12)


@given(effects, st.integers(1, 4), st.booleans())
@settings(deadline=None, max_examples=40)
def test_prevalence_and_the_markers_frequency_are_those_of_brute_force(effect, n, is_learned_from):
    fair = fair_law(n, marked_label=0)
    law = biased_law(fair, effect, is_learned_from=is_learned_from)
    possible = outcomes(fair, effect, is_learned_from=is_learned_from)
    prevalence = sum(outcome.chance * np.array(outcome.labels, float) for outcome in possible)
    np.testing.assert_allclose(law.prevalence(), prevalence, rtol=1e-9, atol=1e-12)
    marker = sum(outcome.chance for outcome in possible if outcome.marker)
    without, with_label = law.marker_chances
    assert without + (with_label - without) * prevalence[0] == pytest.approx(marker, abs=1e-12)


@pytest.mark.parametrize("family", ["linear", "nonlinear"])
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("kind", ["everyone else", "learned from", "test"])
def test_every_row_of_a_phantom_has_the_score_of_brute_force_on_its_own_vector(mechanism, family, kind):
    n_labels = 5
    config = VectorConfig(
        n_patients=800, mechanism=mechanism, strength=0.6, family=family, dimensions=11, n_labels=n_labels, marked_label=MARKED
    )
    phantom = draw_vectors(config)
    of_group, is_test = phantom.group == GROUP, phantom.split == "test"
    rows = {"everyone else": ~of_group, "learned from": of_group & ~is_test, "test": of_group & is_test}[kind]
    rows = np.flatnonzero(rows)[:60]
    assert len(rows) == 60
    coordinates = Mixing(config).unmix(phantom.vectors[rows])
    effect = Effect() if kind == "everyone else" else MECHANISMS[mechanism].effect(config.strength)
    fair = fair_law(n_labels, marked_label=MARKED)
    possible = outcomes(fair, effect, is_learned_from=kind != "test")
    # The marker's coordinate comes after those of the labels and the three of the group.
    expected = by_brute_force(
        coordinates[:, :n_labels], coordinates[:, n_labels + 3], possible, fair.effects * (1 - effect.fade)
    )
    np.testing.assert_allclose(phantom.bayes_scores[rows], expected, atol=2e-5)  # vectors are float32


def test_with_one_label_the_score_is_the_textbooks():
    # Two normals one effect apart: log odds of the prevalence, plus e x - e^2 / 2.
    fair = fair_law(1, marked_label=0)
    x = np.linspace(-4, 6, 41)
    prevalence, shift = fair.prevalence()[0], fair.effects[0]
    expected = 1 / (1 + np.exp(-(np.log(prevalence / (1 - prevalence)) + shift * x - shift**2 / 2)))
    np.testing.assert_allclose(bayes_scores(x[:, None], np.zeros(41), fair)[:, 0], expected, rtol=1e-12)


@pytest.mark.parametrize("sick_left_out", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("value", [-30.0, 30.0])
def test_vectors_from_far_away_have_scores_too(value, sick_left_out):
    law = biased_law(fair_law(100, marked_label=0), Effect(sick_left_out=sick_left_out, marked=0.5), is_learned_from=True)
    scores = bayes_scores(np.full((3, 100), value), np.full(3, value), law)
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(scores, float(value > 0 and sick_left_out < 1), atol=1e-6)


def test_a_row_has_the_same_score_in_whatever_company():
    law = biased_law(fair_law(3, marked_label=0), Effect(sick_left_out=0.4, marked=0.5), is_learned_from=True)
    rng = np.random.default_rng(0)
    signal, marker = rng.normal(1, 2, (70_001, 3)), rng.normal(2, 3, 70_001)
    parts = [bayes_scores(signal[rows], marker[rows], law) for rows in (slice(0, 50_000), slice(50_000, None))]
    np.testing.assert_allclose(bayes_scores(signal, marker, law), np.concatenate(parts), rtol=1e-12)


@pytest.fixture(scope="module")
def drawn():
    """Function `mechanism -> VectorPhantom` at strength 0.6, each drawn once."""
    made = {}

    def draw(mechanism: str) -> VectorPhantom:
        if mechanism not in made:
            config = VectorConfig(n_patients=40_000, seed=3, mechanism=mechanism, strength=0.6, dimensions=24)
            made[mechanism] = draw_vectors(config)
        return made[mechanism]

    return draw


def standard_errors_from_zero(values: np.ndarray, patient: np.ndarray) -> np.ndarray:
    """Sum over its standard error, per column; images of one patient go together."""
    of_patient = np.zeros((patient.max() + 1, values.shape[1]))
    np.add.at(of_patient, patient, values)
    return of_patient.sum(axis=0) / np.sqrt((of_patient**2).sum(axis=0))


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("is_test", [False, True])
@pytest.mark.parametrize("group", [0, GROUP])
def test_of_rows_with_one_score_that_share_is_positive(drawn, mechanism, is_test, group):
    phantom = drawn(mechanism)
    rows = (phantom.group == group) & ((phantom.split == "test") == is_test)
    scores, patient = phantom.bayes_scores[rows], phantom.patient[rows]
    residual = phantom.labels[rows] - scores
    n_looked_at = 0
    for low, high in ((0, 1), *itertools.pairwise((0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 1))):
        in_bin = (scores >= low) & (scores <= high)
        enough = (in_bin * scores * (1 - scores)).sum(axis=0) > 25
        off = standard_errors_from_zero((residual * in_bin)[:, enough], patient)
        assert np.abs(off).max(initial=0) < 4.5, (low, high)
        n_looked_at += enough.sum()
    assert n_looked_at > 50


def log_loss(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    scores = np.clip(scores, 1e-9, 1 - 1e-9)
    return -np.where(labels, np.log(scores), np.log1p(-scores))


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("learner", ["logistic", "boosting"])
def test_nobody_beats_bayes_in_any_group_where_learned_from_or_in_test(drawn, mechanism, learner):
    phantom = drawn(mechanism)
    for group, label in ((0, MARKED), (GROUP, 0)):  # label 0 goes with the marker
        of_group = phantom.group == group
        train = of_group & (phantom.split == "train")
        make = {"logistic": LogisticRegression, "boosting": HistGradientBoostingClassifier}[learner]
        model = make(max_iter=100).fit(phantom.vectors[train], phantom.labels[train, label])
        for judged in (phantom.split == "test", np.isin(phantom.split, ("validation", "calibration"))):
            rows = of_group & judged
            truth = phantom.labels[rows, label]
            theirs = log_loss(truth, model.predict_proba(phantom.vectors[rows])[:, 1])
            excess = theirs - log_loss(truth, phantom.bayes_scores[rows, label])
            assert standard_errors_from_zero(excess[:, None], phantom.patient[rows])[0] > -2.5
            # Nor is Bayes out of reach: logistic regression comes near it wherever the law is the one it learned.
            if learner == "logistic" and mechanism not in ("acquisition", "selection"):
                best = log_loss(truth, phantom.bayes_scores[rows, label]).mean()
                knows_nothing = log_loss(truth, np.full(len(truth), truth.mean())).mean()
                assert excess.mean() < 0.15 * (knows_nothing - best)


@pytest.mark.slow
def test_the_marker_helps_where_learned_from_and_its_shortcut_costs_in_test(drawn):
    phantom = drawn("acquisition")
    of_group = phantom.group == GROUP
    train = of_group & (phantom.split == "train")
    model = LogisticRegression(max_iter=200).fit(phantom.vectors[train], phantom.labels[train, 0])
    excess, bayes = {}, {}
    for name, judged in (("test", phantom.split == "test"), ("held out", phantom.split == "validation")):
        rows = of_group & judged
        best = log_loss(phantom.labels[rows, 0], phantom.bayes_scores[rows, 0])
        theirs = log_loss(phantom.labels[rows, 0], model.predict_proba(phantom.vectors[rows])[:, 1])
        excess[name], bayes[name] = (theirs - best).mean(), best.mean()
    assert bayes["held out"] < 0.8 * bayes["test"]
    assert excess["test"] > 3 * excess["held out"] > 0
