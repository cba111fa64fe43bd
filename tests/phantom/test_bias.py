"""What each mechanism plants, where, and how much."""

import dataclasses

import numpy as np
import pytest

from biascxr.phantom import LABELS, MECHANISMS, RACES, PhantomConfig, plant
from biascxr.phantom.labels import NO_FINDING


def planted(**settings):
    return plant(PhantomConfig(n_patients=1500, **settings), RACES)


@pytest.mark.parametrize("mechanism", sorted(MECHANISMS))
def test_strength_0_plants_nothing(mechanism):
    population = planted(mechanism=mechanism, strength=0.0)
    assert (population.visibility == 1.0).all()
    np.testing.assert_array_equal(population.recorded, population.labels)


@pytest.mark.parametrize("mechanism", sorted(MECHANISMS))
def test_a_mechanism_touches_the_disadvantaged_group_only_and_never_the_truth(mechanism):
    fair = planted(mechanism=mechanism, strength=0.0, disadvantaged_group=2)
    biased = planted(mechanism=mechanism, strength=0.6, disadvantaged_group=2)
    others, changed = fair.group != 2, []
    for field in dataclasses.fields(fair):
        before, after = getattr(fair, field.name), getattr(biased, field.name)
        np.testing.assert_array_equal(before[others], after[others])
        if not np.array_equal(before, after):
            changed.append(field.name)
    assert changed
    assert set(changed) <= {"visibility", "recorded"}


def test_presentation_dims_by_its_strength():
    population = planted(mechanism="presentation", strength=0.6)
    is_disadvantaged = population.group == 1
    np.testing.assert_allclose(population.visibility[is_disadvantaged], 0.4, rtol=1e-6)
    np.testing.assert_array_equal(population.recorded, population.labels)


def test_annotation_overlooks_positives_of_the_group_in_the_stated_share():
    population = planted(mechanism="annotation", strength=0.4)
    is_disadvantaged = population.group == 1
    findings = np.arange(len(LABELS)) != NO_FINDING
    true, recorded = population.labels[:, findings], population.recorded[:, findings]
    assert not (recorded & ~true).any()
    overlooked = (true & ~recorded)[is_disadvantaged]
    assert abs(overlooked.sum() / true[is_disadvantaged].sum() - 0.4) < 0.05
    assert (population.visibility == 1.0).all()


def test_annotation_at_1_records_the_whole_group_as_no_finding():
    population = planted(mechanism="annotation", strength=1.0)
    is_disadvantaged = population.group == 1
    assert population.recorded[is_disadvantaged, NO_FINDING].all()
    assert population.recorded[is_disadvantaged].sum() == is_disadvantaged.sum()
    assert not population.labels[is_disadvantaged, NO_FINDING].all()


def test_a_stronger_annotation_bias_overlooks_the_same_findings_and_more():
    weak, strong = planted(mechanism="annotation", strength=0.2), planted(mechanism="annotation", strength=0.5)
    findings = np.arange(len(LABELS)) != NO_FINDING
    assert not (strong.recorded & ~weak.recorded)[:, findings].any()
    assert strong.recorded[:, findings].sum() < weak.recorded[:, findings].sum()
