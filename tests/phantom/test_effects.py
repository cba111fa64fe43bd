"""What each mechanism plants, where, and how much."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy import stats

from biascxr.phantom import LABELS, MECHANISMS, Effect, PhantomConfig, draw_phantom
from biascxr.phantom.effects import apply_effect
from biascxr.phantom.labels import DISEASES, NO_FINDING, with_no_finding
from biascxr.phantom.population import Population

GROUP = 1
IS_FINDING = np.arange(len(LABELS)) != NO_FINDING
MAY_CHANGE = {
    "prevalence": {"labels", "severity", "recorded"},
    "presentation": {"visibility"},
    "annotation": {"recorded"},
    "acquisition": {"marker"},
    "selection": set(),
    "under_representation": set(),
}
ONLY_WHERE_LEARNED_FROM = {"selection", "under_representation"}
STRENGTHS = (0.0, 0.2, 0.6, 1.0)


@pytest.fixture(scope="module")
def drawn():
    """Function `(mechanism, strength) -> Phantom`, each drawn once."""
    made = {}

    def draw(mechanism: str, strength: float):
        if (mechanism, strength) not in made:
            config = PhantomConfig(n_patients=2000, mechanism=mechanism, strength=strength, disadvantaged_group=GROUP)
            made[mechanism, strength] = draw_phantom(config)
        return made[mechanism, strength]

    return draw


def columns(phantom) -> dict[str, np.ndarray]:
    population = phantom.population
    fields = {field.name: getattr(population, field.name) for field in dataclasses.fields(population)}
    return {**fields, "reported": phantom.reported}


def assert_same(first, second, *, where_first=slice(None), where_second=slice(None)):
    for (name, before), after in zip(columns(first).items(), columns(second).values(), strict=True):
        np.testing.assert_array_equal(before[where_first], after[where_second], err_msg=name)


def in_both(weak, strong) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the films that both hold."""
    _, first, second = np.intersect1d(weak.population.film, strong.population.film, return_indices=True)
    return first, second


def test_every_mechanism_has_its_claims_here():
    assert set(MAY_CHANGE) == set(MECHANISMS)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_strength_0_is_the_fair_cohort(drawn, mechanism):
    phantom = drawn(mechanism, 0.0)
    assert_same(phantom, drawn("presentation", 0.0))
    assert (phantom.population.visibility == 1.0).all() and not phantom.population.marker.any()
    np.testing.assert_array_equal(phantom.population.recorded, phantom.population.labels)
    np.testing.assert_array_equal(phantom.population.film, np.arange(len(phantom)))


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_same_configuration_draws_the_same_cohort(drawn, mechanism):
    phantom = drawn(mechanism, 0.6)
    assert_same(phantom, draw_phantom(phantom.config))


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("strength", STRENGTHS)
def test_everyone_else_stays_as_they_were(drawn, mechanism, strength):
    fair, biased = drawn(mechanism, 0.0), drawn(mechanism, strength)
    others = fair.population.group != GROUP, biased.population.group != GROUP
    assert others[0].sum() > 2000
    assert_same(fair, biased, where_first=others[0], where_second=others[1])


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_mechanism_changes_what_it_says_and_nothing_else(drawn, mechanism):
    fair, biased = drawn(mechanism, 0.0), drawn(mechanism, 0.6)
    first, second = in_both(fair, biased)
    before, after = columns(fair), columns(biased)
    changed = {
        name for name in before if not np.array_equal(before[name][first], after[name][second], equal_nan=name == "reported")
    }
    expected = MAY_CHANGE[mechanism]
    assert changed - {"reported"} == expected
    assert ("reported" in changed) == ("recorded" in expected)
    assert (len(biased) < len(fair)) == (mechanism in ONLY_WHERE_LEARNED_FROM)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(("weaker", "stronger"), list(itertools.pairwise(STRENGTHS)))
def test_what_happens_at_one_strength_happens_at_every_larger_one(drawn, mechanism, weaker, stronger):
    weak, strong = drawn(mechanism, weaker), drawn(mechanism, stronger)
    assert set(strong.population.film) <= set(weak.population.film)
    first, second = in_both(weak, strong)
    before, after = weak.population.rows(first), strong.population.rows(second)
    assert not (after.labels & ~before.labels)[:, IS_FINDING].any()
    assert not (after.recorded & ~before.recorded)[:, IS_FINDING].any()
    assert (after.severity <= before.severity).all() and (after.visibility <= before.visibility).all()
    assert not (before.marker & ~after.marker).any()


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("strength", STRENGTHS)
def test_the_cohort_stays_consistent(drawn, mechanism, strength):
    phantom = drawn(mechanism, strength)
    population = phantom.population
    np.testing.assert_array_equal(population.labels, with_no_finding(population.labels))
    np.testing.assert_array_equal(population.recorded, with_no_finding(population.recorded))
    np.testing.assert_array_equal((population.severity > 0)[:, IS_FINDING], population.labels[:, IS_FINDING])
    assert not (population.recorded & ~population.labels)[:, IS_FINDING].any()
    # Films of one study share findings, record and report.
    _, first, study = np.unique(population.study, return_index=True, return_inverse=True)
    assert len(first) < len(population)
    for values in (population.labels, population.severity, population.recorded, phantom.reported):
        np.testing.assert_array_equal(values, values[first][study])


@pytest.mark.parametrize("mechanism", sorted(ONLY_WHERE_LEARNED_FROM))
def test_who_is_left_out_is_left_out_of_what_is_learned_from_only(drawn, mechanism):
    fair, biased = drawn(mechanism, 0.0), drawn(mechanism, 1.0)
    tests = fair.population.split == "test", biased.population.split == "test"
    assert_same(fair, biased, where_first=tests[0], where_second=tests[1])
    assert (biased.population.group[tests[1]] == GROUP).any()


@pytest.fixture(scope="module")
def fair() -> Population:
    return draw_phantom(PhantomConfig(n_patients=20_000, strength=0.0)).population


def affected(fair, **effect) -> Population:
    return apply_effect(fair, fair.group == GROUP, Effect(**effect), np.random.default_rng(5), marked_finding="Pneumothorax")


def share_per_study(values: np.ndarray, population: Population) -> float:
    """Share of true cells, each study counted once, as films of a study share the draw."""
    _, first = np.unique(population.study, return_index=True)
    return values[first].mean()


def test_findings_are_absent_overlooked_and_faded_in_the_stated_share(fair):
    of_group = fair.group == GROUP
    true = fair.labels[of_group][:, IS_FINDING]
    absent = affected(fair, absent=0.3)
    kept = absent.labels[of_group][:, IS_FINDING]
    assert abs(1 - kept.sum() / true.sum() - 0.3) < 0.01
    np.testing.assert_array_equal(absent.recorded, absent.labels)
    overlooked = affected(fair, overlooked=0.3)
    assert abs(1 - overlooked.recorded[of_group][:, IS_FINDING].sum() / true.sum() - 0.3) < 0.01
    np.testing.assert_allclose(affected(fair, fade=0.3).visibility[of_group], 0.7, rtol=1e-6)


def test_overlooking_everything_records_the_whole_group_as_no_finding(fair):
    recorded = affected(fair, overlooked=1.0).recorded[fair.group == GROUP]
    assert recorded[:, NO_FINDING].all() and not recorded[:, IS_FINDING].any()


def test_the_sick_are_left_out_in_the_stated_share_and_the_healthy_stay(fair):
    left = affected(fair, sick_left_out=0.4)
    learned_from = (fair.group == GROUP) & (fair.split != "test")
    stays = np.isin(fair.film, left.film)
    is_sick = fair.labels[:, DISEASES].any(axis=1)
    assert stays[~(learned_from & is_sick)].all()
    # Support Devices are no disease: who has nothing else stays.
    devices_only = fair.labels[:, LABELS.index("Support Devices")] & ~is_sick & learned_from
    assert devices_only.sum() > 100 and stays[devices_only].all()
    n_diseases = fair.labels[:, DISEASES].sum(axis=1)
    for k in (1, 2, 3):  # the more there is, the less often it enters
        sick = fair.rows(learned_from & (n_diseases == k))
        assert abs(share_per_study(~np.isin(sick.film, left.film), sick) - (1 - 0.6**k)) < 0.03
    nobody = affected(fair, sick_left_out=1.0)
    assert not (nobody.labels[:, DISEASES].any(axis=1) & (nobody.group == GROUP) & (nobody.split != "test")).any()


def test_patients_are_left_out_whole_and_in_the_stated_share(fair):
    left = affected(fair, left_out=0.4)
    patients = np.unique(fair.patient[(fair.group == GROUP) & (fair.split != "test")])
    gone = ~np.isin(patients, left.patient)
    assert abs(gone.mean() - 0.4) < 0.02
    n_films = np.bincount(fair.patient)
    np.testing.assert_array_equal(np.bincount(left.patient, minlength=len(n_films))[patients[~gone]], n_films[patients[~gone]])


def test_the_marker_goes_with_its_finding_where_learned_from_and_with_nothing_in_test(fair):
    marked = affected(fair, marked=0.8)
    of_group, is_test = marked.group == GROUP, marked.split == "test"
    has_finding = marked.labels[:, LABELS.index("Pneumothorax")]
    assert not marked.marker[~of_group].any()
    learned_from = of_group & ~is_test
    assert not marked.marker[learned_from & ~has_finding].any()
    assert abs(marked.marker[learned_from & has_finding].mean() - 0.8) < 0.03
    judged = of_group & is_test
    table = np.array([[(marked.marker[judged & (has_finding == f)] == m).sum() for m in (True, False)] for f in (True, False)])
    assert table.min() >= 5
    assert stats.chi2_contingency(table).pvalue > 0.01
    # As frequent in test as elsewhere.
    assert abs(marked.marker[judged].mean() - marked.marker[learned_from].mean()) < 0.02


def test_a_group_that_is_nowhere_learned_from_has_no_marker(fair):
    only_test = fair.rows((fair.group != GROUP) | (fair.split == "test"))
    assert not affected(only_test, marked=1.0).marker.any()
