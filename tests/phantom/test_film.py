"""What a film shows."""

import dataclasses

import numpy as np
import pytest

from biascxr.phantom import FINDINGS, FilmSpec, draw_film
from biascxr.phantom.acquisition import PATTERNS, choose_machine
from biascxr.phantom.findings import PAINTERS, RESHAPERS

PLAIN = FilmSpec(
    seed=3,
    index=5,
    patient=2,
    sex="F",
    age=60,
    body_size=0.3,
    view="PA",
    group=0,
    separability=0.0,
    effects={},
    image_size=128,
)


def film(**changes) -> np.ndarray:
    return draw_film(dataclasses.replace(PLAIN, **changes)).astype(np.float64)


def difference(name: str, effect: float) -> float:
    """How much a finding changes the film, in root mean square grey levels."""
    return float(np.sqrt(np.mean((film(effects={name: effect}) - film()) ** 2)))


def test_a_film_is_grey_and_of_the_asked_size():
    pixels = draw_film(PLAIN)
    assert pixels.shape == (128, 128) and pixels.dtype == np.uint8
    assert pixels.std() > 30


def test_lungs_are_darker_than_heart_and_abdomen():
    pixels = film(image_size=256)
    lungs = np.r_[pixels[90:120, 55:80].ravel(), pixels[90:120, 180:200].ravel()].mean()
    assert lungs + 40 < pixels[145:165, 125:140].mean()
    assert lungs + 40 < pixels[225:240, 80:110].mean()


def test_every_finding_has_a_drawing():
    assert set(PAINTERS) | set(RESHAPERS) == set(FINDINGS)


@pytest.mark.parametrize("name", FINDINGS)
def test_a_finding_is_visible_fades_with_its_effect_and_vanishes_at_0(name):
    assert difference(name, 1.0) > 1.0
    assert 0.0 < difference(name, 0.2) < 0.8 * difference(name, 1.0)
    assert difference(name, 0.0) == 0.0


def test_a_second_finding_leaves_the_first_where_it_was():
    lesion = {"Lung Lesion": 1.0}
    change_alone = film(effects=lesion) - film()
    change_beside = film(effects={**lesion, "Support Devices": 1.0}) - film(effects={"Support Devices": 1.0})
    brightest = np.unravel_index(change_alone.argmax(), change_alone.shape)
    assert change_beside[brightest] > 0.5 * change_alone[brightest] > 10


def test_cardiomegaly_widens_the_heart():
    row = slice(75, 85)
    bright = [(film(effects=effects)[row, 30:98] > 150).mean() for effects in ({}, {"Cardiomegaly": 1.0})]
    assert bright[1] > 1.2 * bright[0]


def test_a_pneumothorax_darkens_the_lung_and_an_effusion_whitens_it():
    assert np.quantile(film(effects={"Pneumothorax": 1.0}) - film(), 0.01) < -25
    assert (film(effects={"Pleural Effusion": 1.0}) - film()).max() > 60


def test_sex_age_view_and_body_size_change_the_chest():
    for change in ({"sex": "M"}, {"age": 85}, {"view": "AP"}, {"body_size": 2.0}):
        assert np.abs(film(**change) - film()).mean() > 0.5, change


def test_films_differ_from_exposure_to_exposure_and_chests_from_patient_to_patient():
    again, stranger = film(index=6), film(index=6, patient=9)
    assert np.abs(again - film()).mean() > 1.0
    assert np.abs(stranger - again).mean() > 1.0


def test_at_separability_0_the_group_leaves_no_trace():
    films = [draw_film(dataclasses.replace(PLAIN, group=group, index=7)) for group in range(len(PATTERNS))]
    for other in films[1:]:
        np.testing.assert_array_equal(films[0], other)


def test_at_separability_1_groups_differ_faintly():
    films = [film(group=group, separability=1.0) for group in range(len(PATTERNS))]
    for other in films[1:]:
        assert 0.5 < np.abs(films[0] - other).mean() < 8.0


@pytest.mark.parametrize("separability", [0.0, 0.5, 1.0])
def test_a_films_machine_is_its_groups_own_as_often_as_stated(separability):
    rng = np.random.default_rng(0)
    machines = np.array([choose_machine(rng, group=2, separability=separability) for _ in range(4000)])
    shares = np.bincount(machines, minlength=4) / len(machines)
    expected = np.full(4, (1 - separability) / 4)
    expected[2] += separability
    np.testing.assert_allclose(shares, expected, atol=0.03)
