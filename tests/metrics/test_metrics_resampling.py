"""Patients, not images, are resampled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biascxr.metrics import patient_weights, resample_patients
from biascxr.metrics.sorted_pass import LANES

PATIENTS = np.array(["b", "a", "b", "c", "a", "b"], object)


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=30), st.integers(0, 100))
@settings(deadline=None, max_examples=50)
def test_all_images_of_a_patient_come_and_go_together(patients, seed):
    patients = np.array(patients)
    weights = patient_weights(patients, 20, seed=seed)
    assert weights.shape == (20, len(patients))
    for patient in set(patients):
        own = weights[:, patients == patient]
        assert (own == own[:, :1]).all()


def test_each_resample_draws_as_many_patients_as_there_are():
    weights = patient_weights(PATIENTS, 50, seed=0)
    _, first = np.unique(PATIENTS.astype(str), return_index=True)
    np.testing.assert_array_equal(weights[:, first].sum(1), np.full(50, 3))
    np.testing.assert_array_equal(weights, np.round(weights))


def test_a_patient_is_drawn_once_on_average():
    weights = patient_weights(PATIENTS, 4000, seed=0)
    np.testing.assert_allclose(weights.mean(0), 1, atol=0.06)  # 4 standard errors: sqrt(2/3 / 4000) = .013
    assert weights.var(axis=0) == pytest.approx(2 / 3, abs=0.08)  # multinomial: 1 - 1/3


def test_same_seed_same_draw_and_another_seed_another():
    np.testing.assert_array_equal(patient_weights(PATIENTS, 9, seed=1), patient_weights(PATIENTS, 9, seed=1))
    assert (patient_weights(PATIENTS, 9, seed=1) != patient_weights(PATIENTS, 9, seed=2)).any()


def test_the_draw_does_not_depend_on_the_type_of_the_identifiers():
    numbers = np.array([2, 1, 2, 3, 1, 2])
    np.testing.assert_array_equal(patient_weights(numbers, 9, seed=1), patient_weights(PATIENTS, 9, seed=1))


def test_the_draw_does_not_depend_on_the_order_of_the_rows():
    order = np.random.default_rng(0).permutation(len(PATIENTS))
    shuffled = patient_weights(PATIENTS[order], 9, seed=1)
    np.testing.assert_array_equal(shuffled, patient_weights(PATIENTS, 9, seed=1)[:, order])


@given(st.lists(st.integers(0, 12), min_size=1, max_size=30), st.integers(1, 150))
@settings(deadline=None, max_examples=50)
def test_the_first_weighting_is_the_data_as_they_are_and_the_rest_are_the_resamples(patients, n_replicates):
    resamples = resample_patients(np.array(patients), n_replicates, seed=5)
    n_patients = len(set(patients))
    assert resamples.n_patients == n_patients and resamples.n_replicates == n_replicates
    assert resamples.lanes.shape == (-(-(n_replicates + 1) // LANES), n_patients, LANES)
    assert resamples.lanes.dtype == np.uint8
    weights = resamples.weights()
    assert weights.shape == (n_replicates + 1, len(patients)) and (weights[0] == 1).all()
    np.testing.assert_array_equal(weights[1:], patient_weights(np.array(patients), n_replicates, seed=5))
    assert resamples.lanes.sum() == n_patients * (n_replicates + 1)  # lanes past the last resample are empty
    for row, patient in enumerate(patients):
        of_patient = resamples.lanes[:, resamples.patient[row]].ravel()[: n_replicates + 1]
        np.testing.assert_array_equal(weights[:, row], of_patient)
        assert resamples.patient[row] == sorted(set(map(str, patients))).index(str(patient))


def test_more_resamples_begin_with_the_same_ones():
    """A run with more replicates refines an interval, it does not draw another one."""
    few, many = (patient_weights(PATIENTS, r, seed=3) for r in (10, 200))
    np.testing.assert_array_equal(many[:10], few)


def test_no_rows_give_no_weights():
    assert resample_patients(np.array([], object), 5, seed=0).weights().shape == (6, 0)


@pytest.mark.parametrize("missing", [None, np.nan])
def test_a_row_without_a_patient_is_an_error(missing):
    with pytest.raises(ValueError, match="patient_id must name the patient of every row; it is missing in 2 rows"):
        resample_patients(np.array(["a", missing, "b", missing], object), 5, seed=0)
