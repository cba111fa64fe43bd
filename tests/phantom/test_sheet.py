"""Sheets of films to be looked at."""

import numpy as np
import pytest
from PIL import Image

from biascxr.errors import InputError
from biascxr.phantom import FINDINGS
from biascxr.phantom.sheet import FILM_SIDE, GAP, TITLE_HEIGHT, contact_sheet, film_title, phantom_films, sheet_spec

SPECS = [sheet_spec(0, i, image_size=64) for i in range(24)]


def grey(level: int, side: int = 64) -> np.ndarray:
    return np.full((side, side), level, np.uint8)


def test_24_films_show_every_finding_alone_normal_chests_both_sexes_both_views_young_and_old():
    alone = {next(iter(spec.effects)) for spec in SPECS if len(spec.effects) == 1}
    assert alone == set(FINDINGS)
    assert sum(not spec.effects for spec in SPECS) >= 4
    assert any(len(spec.effects) > 1 for spec in SPECS)
    for sex in "FM":
        for view in ("AP", "PA"):
            ages = [spec.age for spec in SPECS if (spec.sex, spec.view) == (sex, view)]
            assert min(ages) < 50 < max(ages)


def test_titles_name_findings_age_sex_and_view():
    assert film_title(SPECS[0]) == "No Finding · 24 F · PA"
    assert all(name in film_title(spec) for spec in SPECS for name in spec.effects)


def test_same_seed_same_films_other_seed_other_films():
    films, titles = phantom_films(3, 4, image_size=64)
    again, _ = phantom_films(3, 4, image_size=64)
    others, _ = phantom_films(4, 4, image_size=64)
    assert len(films) == len(titles) == 4
    np.testing.assert_array_equal(films, again)
    assert np.abs(np.stack(films).astype(float) - np.stack(others)).mean() > 2


def test_a_sheet_holds_its_films_in_rows_under_their_titles(tmp_path):
    path = contact_sheet(
        [grey(60 * i) for i in range(5)], [f"film {i}" for i in range(5)], tmp_path / "new" / "a.png", columns=3
    )
    sheet = np.asarray(Image.open(path))
    width, height = FILM_SIDE + GAP, FILM_SIDE + GAP + TITLE_HEIGHT
    assert sheet.shape == (2 * height + GAP, 3 * width + GAP)
    for i in range(5):
        left, top = GAP + (i % 3) * width, GAP + (i // 3) * height
        assert np.all(sheet[top + TITLE_HEIGHT : top + height - GAP, left : left + FILM_SIDE] == 60 * i)
        assert sheet[top : top + TITLE_HEIGHT, left : left + FILM_SIDE].max() > 200
    assert sheet[height + GAP :, 2 * width + GAP :].max() < 30


def test_a_title_too_long_is_cut_at_its_film(tmp_path):
    sheet = np.asarray(Image.open(contact_sheet([grey(0), grey(0)], ["long " * 40, ""], tmp_path / "a.png")))
    assert sheet[: GAP + TITLE_HEIGHT, GAP + FILM_SIDE :].max() < 30


@pytest.mark.parametrize(
    ("images", "titles", "columns", "message"),
    [
        ([], [], 6, "equally many"),
        ([grey(0)], ["a", "b"], 6, "1 and 2"),
        ([grey(0)], ["a"], 0, "`columns` must be 1 or more"),
        ([np.zeros((8, 8, 3), np.uint8)], ["a"], 6, r"images\[0\].*\(8, 8, 3\)"),
        ([np.zeros((8, 8))], ["a"], 6, "float64"),
    ],
)
def test_what_cannot_be_shown_is_refused(images, titles, columns, message, tmp_path):
    with pytest.raises(InputError, match=message):
        contact_sheet(images, titles, tmp_path / "a.png", columns=columns)
    assert not (tmp_path / "a.png").exists()
