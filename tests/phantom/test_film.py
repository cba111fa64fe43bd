"""What a film shows."""

import dataclasses

import cv2
import numpy as np
import pytest

from biascxr.phantom import FINDINGS, FilmSpec, draw_film
from biascxr.phantom.acquisition import PATTERNS, choose_machine
from biascxr.phantom.film import encode_film
from biascxr.phantom.findings import PAINTERS, RESHAPERS
from biascxr.records.image import standardise

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


def test_lungs_are_darker_than_heart_and_abdomen_and_the_air_beside_the_neck_than_lungs():
    pixels = film(image_size=256)
    lungs = np.r_[pixels[90:120, 60:85].ravel(), pixels[90:120, 175:195].ravel()].mean()
    assert lungs + 40 < pixels[145:165, 125:140].mean()
    assert lungs + 40 < pixels[225:240, 80:110].mean()
    assert pixels[5:15, 40:70].mean() + 20 < lungs


def test_films_have_a_real_films_range_of_tones():
    # The middle 90 % of 53 NIH films' grey values run from 15 to 218 (medians); bright tissue makes most of a film.
    films = np.stack([film(index=index, patient=index, view="AP" if index % 3 == 0 else "PA") for index in range(24)])
    assert np.quantile(films, 0.05) < 45
    assert 110 < np.median(films) < 185
    assert np.quantile(films, 0.95) > 190


@pytest.mark.parametrize("image_size", [64, 100, 511, 2048])
def test_a_film_shows_the_same_chest_at_every_size(image_size):
    everything = {name: 0.8 for name in FINDINGS}
    spec = dataclasses.replace(PLAIN, effects=everything, view="AP", marker=True)
    small, other = (draw_film(dataclasses.replace(spec, image_size=size)) for size in (320, image_size))
    assert other.shape == (image_size, image_size)
    # Noise and letters differ from size to size, what is large does not.
    shrunk = [cv2.resize(pixels, (32, 32), interpolation=cv2.INTER_AREA).ravel() for pixels in (small, other)]
    assert np.corrcoef(*shrunk)[0, 1] > 0.97


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


def test_only_an_effusion_hides_the_costophrenic_angle():
    # The angle: the lung at the chest wall below the dome.
    changes = {name: (film(effects={name: 1.0}) - film())[88:100, 22:106].mean() for name in FINDINGS}
    assert max(changes, key=changes.get) == "Pleural Effusion"


def test_the_same_spec_gives_the_same_bytes():
    for changes in ({}, {"marker": True}, {"effects": {name: 0.7 for name in FINDINGS}, "view": "AP"}):
        spec = dataclasses.replace(PLAIN, **changes)
        assert encode_film(draw_film(spec)) == encode_film(draw_film(spec))


def test_the_marker_changes_a_small_spot_at_the_films_edge_and_nothing_else():
    for index in range(12):
        changed = np.argwhere(film(index=index, marker=True) != film(index=index))
        low, high = changed.min(axis=0) / 128, (changed.max(axis=0) + 1) / 128
        assert low[0] > 0.8 and high[1] < 0.2
        assert np.all(high - low < 0.13)


def test_the_marker_is_plain_after_shrinking_and_equalization_whatever_the_film():
    for index in range(24):
        changes = {"index": index, "patient": index, "view": "AP" if index % 2 else "PA", "image_size": 320}
        spec = dataclasses.replace(PLAIN, **changes, marker=True)
        shown = standardise(draw_film(spec), size=128, equalize=True).astype(float)
        bare = standardise(draw_film(dataclasses.replace(spec, marker=False)), size=128, equalize=True).astype(float)
        plate = (slice(107, 126), slice(1, 21))
        # Black and white side by side, in an area of 20 x 20 pixels.
        assert (shown[plate] < 20).sum() > 30 and (shown[plate] > 200).sum() > 30
        assert np.abs(shown - bare)[plate].mean() > 15 * np.abs(shown - bare)[:100].mean()


def test_markers_stand_a_little_differently_from_film_to_film():
    corners = {tuple(np.argwhere(film(index=i, marker=True) != film(index=i)).min(axis=0)) for i in range(12)}
    assert len(corners) > 3


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
