"""The shape of a chest, before anything is drawn."""

import dataclasses
import itertools

import numpy as np
import pytest

from biascxr.phantom.anatomy import LEFT, N_RIBS, RIGHT, as_exposed, draw_anatomy
from biascxr.phantom.shapes import enlarge_heart, fracture_ribs, widen_mediastinum


def patient(**changes):
    return draw_anatomy(np.random.default_rng(0), **{"sex": "M", "age": 50, "body_size": 0.0, **changes})


def cardiothoracic_ratio(anatomy) -> float:
    return anatomy.heart_half_width / anatomy.half_width


def mean_over_exposures(view: str, field: str) -> float:
    return float(np.mean([getattr(as_exposed(patient(), np.random.default_rng(i), view=view), field) for i in range(50)]))


def test_the_heart_takes_less_than_half_of_a_healthy_chest_and_more_in_cardiomegaly():
    assert cardiothoracic_ratio(patient()) < 0.5
    assert cardiothoracic_ratio(enlarge_heart(patient(), 0.8, np.random.default_rng(1))) > 0.55


def test_ap_films_magnify_the_heart_show_a_shallower_breath_and_the_shoulder_blades():
    assert mean_over_exposures("AP", "heart_half_width") > 1.05 * mean_over_exposures("PA", "heart_half_width")
    assert mean_over_exposures("AP", "dome_left_y") < mean_over_exposures("PA", "dome_left_y") - 0.02
    assert mean_over_exposures("AP", "scapula") > 0.9 > 0.3 > mean_over_exposures("PA", "scapula")


def test_arms_hang_beside_the_chest_on_ap_films_only():
    assert mean_over_exposures("AP", "arms") > 0.5 > mean_over_exposures("PA", "arms") == 0.0


def test_ribs_run_from_spine_to_chest_wall_and_fall_outwards_one_below_the_other():
    chest = patient()
    for side in (RIGHT, LEFT):
        ribs = [chest.rib(side, index) for index in range(N_RIBS)]
        for path in ribs:
            distance = side * (path[:, 0] - chest.center_x)
            assert np.all(np.diff(distance) > 0)
            assert path[-1, 1] > path[0, 1] + 0.05
        for upper, lower in itertools.pairwise(ribs):
            assert np.all(lower[:, 1] > upper[:, 1] + 0.05)


def test_two_exposures_of_a_patient_differ_a_little():
    one, two = (as_exposed(patient(), np.random.default_rng(i), view="PA") for i in (1, 2))
    assert one != two
    assert abs(one.dome_left_y - two.dome_left_y) < 0.06
    assert one.half_width == two.half_width


def test_the_right_diaphragm_stands_higher_and_falls_to_the_wall():
    chest = patient()
    assert chest.dome_right_y < chest.dome_left_y
    for side in (RIGHT, LEFT):
        top = chest.diaphragm(chest.center_x + side * 0.19, side)
        assert chest.diaphragm(chest.center_x + side * chest.half_width, side) > top + 0.08


def test_only_women_have_breast_shadows_and_bone_thins_with_age():
    assert patient(sex="M").breast == 0.0 < patient(sex="F").breast
    assert patient(age=88).bone < patient(age=30).bone


@pytest.mark.parametrize("reshape", [enlarge_heart, widen_mediastinum])
def test_at_effect_0_a_shape_is_unchanged(reshape):
    assert reshape(patient(), 0.0, np.random.default_rng(1)) == patient()


def test_broken_ribs_are_neighbours_on_one_side_and_step_with_the_effect():
    weak, strong = (fracture_ribs(patient(), effect, np.random.default_rng(1)).breaks for effect in (0.2, 1.0))
    assert 3 <= len(strong) <= 6
    assert len({rib_break.side for rib_break in strong}) == 1
    assert [rib_break.rib for rib_break in strong] == list(range(strong[0].rib, strong[0].rib + len(strong)))
    for one, other in zip(weak, strong, strict=True):
        assert other.step == pytest.approx(5 * one.step)
        assert dataclasses.replace(other, step=one.step, gap=one.gap) == one
