"""Who is in a phantom cohort."""

import numpy as np
import pytest

from biascxr.phantom import GROUP_SHARES, LABELS, RACES, images_per_patient
from biascxr.phantom.labels import NO_FINDING
from biascxr.phantom.population import DISEASES, assign_races, draw_population

SPLIT_SHARES = {"train": 0.6, "validation": 0.1, "calibration": 0.1, "test": 0.2}


@pytest.fixture(scope="module")
def population():
    return draw_population(6000, np.random.default_rng(0), race_of_group=RACES, missing_race_share=0.05)


@pytest.mark.parametrize("attribute", ["sex", "race", "group", "subject_id", "body_size", "split"])
def test_a_patient_keeps_one(population, attribute):
    pairs = set(zip(population.patient.tolist(), getattr(population, attribute).tolist(), strict=True))
    assert len(pairs) == len(set(population.patient.tolist())) == 6000


def test_identifiers_have_mimics_form_and_are_unique(population):
    subjects, studies = np.unique(population.subject_id), np.unique(population.study_id)
    assert len(subjects) == 6000
    assert subjects.min() >= 10_000_000 and subjects.max() <= 19_999_999
    assert studies.min() >= 50_000_000 and studies.max() <= 59_999_999
    assert len(np.unique(population.dicom_id)) == len(population)


@pytest.mark.parametrize("attribute", ["patient", "age", "view", "labels", "severity", "recorded"])
def test_films_of_a_study_share(population, attribute):
    _, first, study = np.unique(population.study_id, return_index=True, return_inverse=True)
    values = getattr(population, attribute)
    np.testing.assert_array_equal(values, values[first][study])
    np.testing.assert_array_equal(population.study, study_numbers(population.study_id))


def study_numbers(study_id: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... in the order in which the studies come."""
    numbers = {}
    return np.array([numbers.setdefault(study, len(numbers)) for study in study_id.tolist()])


def test_a_tenth_of_the_patients_holds_half_of_the_images():
    counts = np.sort(images_per_patient(10_000, np.random.default_rng(0)))[::-1]
    assert 2.0 <= counts.mean() <= 2.2
    assert 0.48 <= counts[:1000].sum() / counts.sum() <= 0.55
    assert np.median(counts) == 1 and counts[-1] == 1 and counts[0] == 200


@pytest.mark.parametrize("n_patients", [1, 2, 7, 40, 1000])
def test_a_small_cohort_has_its_tail_too_and_every_seed_as_many_images(n_patients):
    counts = [images_per_patient(n_patients, np.random.default_rng(seed)) for seed in range(3)]
    assert all(len(c) == n_patients and c.min() >= 1 and c.max() <= 200 for c in counts)
    assert len({c.sum() for c in counts}) == 1
    assert n_patients != 1000 or 2000 <= counts[0].sum() <= 2300
    assert n_patients < 40 or len({tuple(c) for c in counts}) == 3  # who has how many is drawn


def test_the_tail_falls_as_a_power():
    # Images of a million patients: P(k or more) = 0.5 k^-1.3, read off the counts.
    counts = images_per_patient(1_000_000, np.random.default_rng(0))
    for k in (2, 5, 20, 100, 200):
        assert abs((counts >= k).mean() / (0.5 * k**-1.3) - 1) < 0.01


def test_images_are_studies_over_years_with_now_and_then_a_second_film(population):
    films = np.bincount(population.patient)
    studies = np.array([len(np.unique(s)) for s in np.split(population.study, np.cumsum(films)[:-1])])
    assert studies.max() > 100
    films_of_study = np.bincount(population.study)
    assert set(films_of_study) == {1, 2}
    assert 0.03 < (films_of_study == 2).mean() < 0.15
    assert (films[studies == 1] <= 2).all()


def test_nobody_grows_younger_and_who_comes_often_grows_older(population):
    # Films of a patient stand in the order of the visits.
    same_patient = np.diff(population.patient) == 0
    assert (np.diff(population.age)[same_patient] >= 0).all()
    assert population.age.min() >= 18 and population.age.max() == 90
    films = np.bincount(population.patient)
    first = np.cumsum(films) - films
    years = population.age[first + films - 1] - population.age[first]
    assert years.max() <= 20
    assert (years[films >= 20] >= 1).mean() > 0.5 > (years[films == 2] >= 1).mean() > 0


@pytest.mark.parametrize("n_patients", [10, 40, 1000])
def test_splits_are_60_10_10_20_of_the_patients(n_patients):
    drawn = draw_population(n_patients, np.random.default_rng(3), race_of_group=RACES, missing_race_share=0)
    for split, share in SPLIT_SHARES.items():
        assert len(np.unique(drawn.patient[drawn.split == split])) == round(share * n_patients)
    assert set(drawn.split) == set(SPLIT_SHARES)


def test_splits_have_like_shares_of_groups_and_of_images(population):
    for split, share in SPLIT_SHARES.items():
        in_split = population.split == split
        assert abs(in_split.mean() - share) < 0.06
        _, first = np.unique(population.patient[in_split], return_index=True)
        groups = np.bincount(population.group[in_split][first], minlength=4) / len(first)
        np.testing.assert_allclose(groups, GROUP_SHARES, atol=0.03)


def test_rows_are_taken_by_mask_and_by_number(population):
    chosen = population.view == "AP"
    by_mask, by_number = population.rows(chosen), population.rows(np.flatnonzero(chosen))
    assert len(by_mask) == chosen.sum()
    for name in ("film", "dicom_id", "labels", "marker"):
        np.testing.assert_array_equal(getattr(by_mask, name), getattr(population, name)[chosen])
        np.testing.assert_array_equal(getattr(by_mask, name), getattr(by_number, name))


def test_the_fair_cohort_has_no_marker(population):
    assert not population.marker.any()
    np.testing.assert_array_equal(population.film, np.arange(len(population)))


def test_groups_have_unequal_sizes_and_some_race_is_missing(population):
    _, first = np.unique(population.patient, return_index=True)
    shares = np.bincount(population.group[first]) / len(first)
    np.testing.assert_allclose(shares, GROUP_SHARES, atol=0.03)
    assert abs((population.race[first] == "").mean() - 0.05) < 0.015


def test_every_finding_is_common_enough_to_learn(population):
    # The first film of each patient: the many films of a few would count the same patient again and again.
    first = np.unique(population.patient, return_index=True)[1]
    for column, name in enumerate(LABELS):
        prevalence = population.labels[first, column].mean()
        assert 0.08 <= prevalence <= 0.40, name
        if name in DISEASES:
            assert abs(prevalence - DISEASES[name].prevalence) < 0.02, name


def test_no_finding_is_true_exactly_where_no_disease_is(population):
    diseases = [i for i, name in enumerate(LABELS) if name not in ("No Finding", "Support Devices")]
    np.testing.assert_array_equal(population.labels[:, NO_FINDING], ~population.labels[:, diseases].any(axis=1))


def test_severity_is_positive_exactly_where_a_finding_is_true(population):
    findings = np.delete(population.labels, NO_FINDING, axis=1)
    severity = np.delete(population.severity, NO_FINDING, axis=1)
    np.testing.assert_array_equal(severity > 0, findings)
    assert severity.max() <= 1.0 and severity[findings].min() >= 0.55


def test_findings_go_together_and_come_back(population):
    edema, effusion = (population.labels[:, LABELS.index(name)] for name in ("Edema", "Pleural Effusion"))
    assert effusion[edema].mean() > 1.5 * effusion[~edema].mean()
    # Two studies of one patient agree more often than two of different patients.
    new_study = np.diff(population.study_id) != 0
    same_patient = (np.diff(population.patient) == 0) & new_study
    again = edema[1:][same_patient & edema[:-1]].mean()
    assert again > 1.5 * edema.mean()


def test_the_fair_cohort_gives_no_group_more_disease(population):
    first = np.unique(population.patient, return_index=True)[1]
    labels, groups = population.labels[first], population.group[first]
    rates = [labels[groups == group].mean() for group in range(len(GROUP_SHARES))]
    assert max(rates) - min(rates) < 0.02


def test_medicare_goes_with_age(population):
    is_medicare = population.insurance == "Medicare"
    assert is_medicare[population.age >= 70].mean() > 0.5 > 0.3 > is_medicare[population.age < 60].mean()


def test_which_race_a_group_stands_for_differs_between_seeds():
    assigned = {assign_races(np.random.default_rng(seed)) for seed in range(30)}
    assert len(assigned) > 5
    assert all(sorted(races) == sorted(RACES) for races in assigned)
