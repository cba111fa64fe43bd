"""Who is in a phantom cohort."""

import numpy as np
import pytest

from biascxr.phantom import GROUP_SHARES, LABELS, RACES
from biascxr.phantom.labels import NO_FINDING
from biascxr.phantom.population import DISEASES, assign_races, draw_population


@pytest.fixture(scope="module")
def population():
    return draw_population(6000, np.random.default_rng(0), race_of_group=RACES, missing_race_share=0.05)


@pytest.mark.parametrize("attribute", ["sex", "race", "group", "subject_id", "body_size"])
def test_a_patient_keeps_one(population, attribute):
    pairs = set(zip(population.patient.tolist(), getattr(population, attribute).tolist(), strict=True))
    assert len(pairs) == len(set(population.patient.tolist())) == 6000


def test_identifiers_have_mimics_form_and_are_unique(population):
    subjects, studies = np.unique(population.subject_id), np.unique(population.study_id)
    assert len(subjects) == 6000
    assert subjects.min() >= 10_000_000 and subjects.max() <= 19_999_999
    assert studies.min() >= 50_000_000 and studies.max() <= 59_999_999
    assert len(np.unique(population.dicom_id)) == len(population)


def test_patients_come_once_to_many_times_and_never_younger(population):
    films = np.bincount(population.patient)
    assert films.min() == 1
    assert np.median(films) == 1
    assert films.max() >= 7
    # Films of a patient stand in the order of the visits.
    same_patient = np.diff(population.patient) == 0
    assert (np.diff(population.age)[same_patient] >= 0).all()
    assert (np.diff(population.age)[same_patient] > 0).any()
    assert population.age.min() >= 18 and population.age.max() <= 90


def test_groups_have_unequal_sizes_and_some_race_is_missing(population):
    _, first = np.unique(population.patient, return_index=True)
    shares = np.bincount(population.group[first]) / len(first)
    np.testing.assert_allclose(shares, GROUP_SHARES, atol=0.03)
    assert abs((population.race[first] == "").mean() - 0.05) < 0.015


def test_every_finding_is_common_enough_to_learn(population):
    for column, name in enumerate(LABELS):
        prevalence = population.labels[:, column].mean()
        assert 0.08 <= prevalence <= 0.40, name
        if name in DISEASES:
            assert abs(prevalence - DISEASES[name].prevalence) < 0.03, name


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
    rates = [population.labels[population.group == group].mean() for group in range(len(GROUP_SHARES))]
    assert max(rates) - min(rates) < 0.02


def test_medicare_goes_with_age(population):
    is_medicare = population.insurance == "Medicare"
    assert is_medicare[population.age >= 70].mean() > 0.5 > 0.3 > is_medicare[population.age < 60].mean()


def test_which_race_a_group_stands_for_differs_between_seeds():
    assigned = {assign_races(np.random.default_rng(seed)) for seed in range(30)}
    assert len(assigned) > 5
    assert all(sorted(races) == sorted(RACES) for races in assigned)
