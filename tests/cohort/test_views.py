"""Augmented views follow from the table and a seed alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from biascxr.cohort.views import image_and_view, plan_views, views_as_cohort
from biascxr.containers import Attribute, Cohort, ViewPlan

LIMITS = {"max_rotation": 15.0, "max_shift": 0.03, "max_contrast": 0.15, "max_brightness": 0.1}


@pytest.fixture
def cohort() -> Cohort:
    """Training images: 40 of A, 20 of B, 12 of C, 4 of D, 5 unknown; and 30 of B that are tested on."""
    race = ["A"] * 40 + ["B"] * 20 + ["C"] * 12 + ["D"] * 4 + ["unknown"] * 5 + ["B"] * 30
    n = len(race)
    table = pd.DataFrame(
        {"image_id": [f"i{i}" for i in range(n)], "study_id": "s", "patient_id": [f"p{i}" for i in range(n)],
         "path": [f"{i}.png" for i in range(n)], "view": "PA", "split": ["train"] * 81 + ["test"] * 30, "age": 50.0,
         "race": race}
    )  # fmt: skip
    labels = np.random.default_rng(0).integers(0, 2, (n, 2)).astype(np.float32)
    return Cohort(table, labels, ("x", "y"), (Attribute("race", ("A", "B", "C", "D"), True),), "generic", "image", ".")


def plan(cohort: Cohort, *, seed: int = 0, **changes) -> ViewPlan:
    return plan_views(cohort, **({"attributes": ("race", "sex"), "max_views": 4, "min_cell": 10} | LIMITS | changes), seed=seed)


def test_only_training_images_of_under_represented_cells_get_views(cohort):
    made = plan(cohort)  # cells of 40, 20, 12 images: the median is 20; four of D are too few
    of = cohort.table.set_index("image_id").loc[made.table["image_id"]]
    assert set(of["race"]) == {"C"} and set(of["split"]) == {"train"}
    assert len(made) == 12, "one view each brings 12 to 24, which is enough for 20"


def test_a_cell_far_below_the_median_gets_several_views_but_no_more_than_the_limit(cohort):
    rows = np.r_[np.arange(40), np.arange(40, 60), np.arange(60, 72), np.arange(81, 111)]
    more = cohort.rows(cohort.table["image_id"].to_numpy(object)[rows])
    table = more.table.assign(race=["A"] * 40 + ["B"] * 20 + ["D"] * 12 + ["B"] * 30)
    table.loc[table.index >= 72, "split"] = "train"  # B now has 50
    larger = Cohort(table, more.labels, more.label_names, more.attributes, "generic", "image", ".")
    views = plan(larger).table.groupby("image_id").size()
    assert set(views) == {3}, "12 images to 40: 28 more, three each"
    assert set(plan(larger, max_views=2).table.groupby("image_id").size()) == {2}


def test_changes_stay_within_their_limits_and_use_them(cohort):
    table = plan(cohort, max_views=4).table
    assert table["rotation"].abs().max() <= 15 and table["rotation"].abs().max() > 5
    for name, centre, limit in (("shift_x", 0, 0.03), ("shift_y", 0, 0.03), ("contrast", 1, 0.15), ("brightness", 0, 0.1)):
        assert (table[name] - centre).abs().max() <= limit and (table[name] - centre).abs().max() > limit / 4, name
    still = plan(cohort, max_rotation=0.0, max_shift=0.0, max_contrast=0.0, max_brightness=0.0).table
    assert (still[["rotation", "shift_x", "shift_y", "brightness"]] == 0).all(axis=None) and (still["contrast"] == 1).all()


def test_one_seed_gives_one_plan_and_it_comes_back_from_disk(cohort, tmp_path):
    first, again, other = plan(cohort), plan(cohort), plan(cohort, seed=1)
    pd.testing.assert_frame_equal(first.table, again.table)
    assert not np.array_equal(first.table["rotation"], other.table["rotation"])
    first.save(tmp_path)
    pd.testing.assert_frame_equal(ViewPlan.load(tmp_path).table, first.table)


def test_nothing_is_planned_without_two_cells(cohort):
    assert len(plan(cohort, attributes=("insurance",))) == 0
    assert len(plan(cohort, min_cell=30)) == 0


def test_a_view_is_its_images_row_under_a_name_that_leads_back(cohort):
    made = plan(cohort)
    views = views_as_cohort(cohort, made)
    image_id, view_id = image_and_view(views.table["image_id"].to_numpy(object))
    np.testing.assert_array_equal(image_id, made.table["image_id"])
    np.testing.assert_array_equal(view_id, made.table["view_id"])
    own = cohort.rows(np.unique(image_id.astype(str)))
    for name in ("path", "patient_id", "race"):
        assert dict(zip(image_id, views.table[name], strict=True)) == dict(
            zip(own.table["image_id"], own.table[name], strict=True)
        )
    labels = dict(zip(cohort.table["image_id"], map(tuple, cohort.labels), strict=True))
    assert [labels[i] for i in image_id] == list(map(tuple, views.labels))
    np.testing.assert_array_equal(views.table["rotation"], made.table["rotation"])


def test_a_plan_with_a_view_twice_is_refused(cohort):
    table = plan(cohort).table
    with pytest.raises(ValueError, match="each view once"):
        ViewPlan(pd.concat([table, table]))
    with pytest.raises(ValueError, match=r"lacks the columns \['rotation'\]"):
        ViewPlan(table.drop(columns="rotation"))
