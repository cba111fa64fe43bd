"""Patients, not images, are resampled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biascxr.metrics import patient_weights

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
