"""The page of leakage on anybody's vectors: self-contained, with charts where tables have rows, and no small group."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from leakage_tables import made_up_tables

from biascxr.leakage.result import COLUMNS, LeakageResult
from biascxr.report import leakage_evidence_plots, leakage_plots, style, write_leakage
from biascxr.report.leakage_anew import plot_dose
from biascxr.report.leakage_section import leakage_figures

FACTS = {"encoder": "made up", "images": 1200, "test patients": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_leakage(made_up_tables(("race",)), tmp_path_factory.mktemp("leakage") / "out", title="made-up", facts=FACTS)


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_loads_nothing_from_elsewhere(page):
    targets = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'\s>]+)""", page)
    assert len(targets) > 8 and all(t.startswith(("#", "data:")) for t in targets)


def test_every_chart_whose_table_has_rows_is_on_the_page(page, folder):
    drawn = {p.relative_to(folder).as_posix() for p in folder.rglob("*.png")}
    assert drawn == {"leakage.png"} | {
        f"leakage/{name}.png"
        for name in (
            "controls", "recipes", "curves", "roc_race", "confusion_race", "dependence_race", "dose_race",
                "panels_attribute_pca",
            "panels_attribute_pca_3_4", "panels_attribute_tsne", "panels_label_pca", "panels_label_pca_3_4",
            "panels_label_tsne",
        )
    }  # fmt: skip
    assert page.count("data:image/png") == len(drawn)


def test_no_chart_is_drawn_of_a_table_without_rows(tmp_path):
    assert leakage_figures(LeakageResult.of(), tmp_path) == {}
    whole = made_up_tables(("sex",), has_recipe=False)
    only = LeakageResult.of(readings=whole.readings.to_dict("records"), verdicts=whole.verdicts.to_dict("records"))
    assert set(leakage_figures(only, tmp_path)) == {"leakage", "leakage_controls"}


def test_small_counts_are_hidden_and_large_ones_have_commas(page):
    assert "<td>1,200</td>" in page and "<td>&lt;10</td>" in page and "<td>6</td>" not in page


def test_the_words_stand_before_the_charts(page):
    section = page[page.index('<section id="leakage">') :]
    assert section.index("Recorded race: encoded, predictions depend on it.") < section.index("<figure>")
    assert section.count("Dependence is not harm") == 1


def test_no_value_is_shown_as_nan(page):
    assert re.findall(r"\bnan\b|\bNaN\b|>\s*None\s*<", re.sub(r"data:image/png;base64,[^\"]*", "", page)) == []


def test_the_tables_lie_beside_the_page_complete(folder):
    for name in COLUMNS:
        assert (folder / f"{name}.csv").is_file()
    assert "ASIAN" in set(pd.read_csv(folder / "readings.csv")["group"])


def test_a_page_that_fails_leaves_the_earlier_one(folder, monkeypatch):
    before = (folder / "report.html").read_bytes()
    monkeypatch.setattr("biascxr.report.leakage_page.leakage_figures", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_leakage(made_up_tables(("sex",)), folder, title="x", facts={})
    assert (folder / "report.html").read_bytes() == before and [p.name for p in folder.parent.iterdir()] == ["out"]


def test_no_text_in_a_chart_is_cut_off_or_lies_on_another_title(tmp_path, monkeypatch):
    """Titles, axis labels and tick labels end inside the picture; titles of one picture do not overlap."""
    found = []

    def look(made, path):
        made.draw_without_rendering()
        for axis in (a for a in made.axes if a.get_visible()):
            texts = [axis._left_title, axis.xaxis.label, axis.yaxis.label, *axis.get_yticklabels()]
            texts += [made._supxlabel] if made._supxlabel else []
            for text in (t for t in texts if t.get_text()):
                box = text.get_window_extent()
                if box.x0 < -1 or box.x1 > made.bbox.x1 + 1:
                    found.append((path.name, text.get_text()))
        titles = [a._left_title.get_window_extent() for a in made.axes if a.get_visible() and a._left_title.get_text()]
        found.extend((path.name, "titles") for i, t in enumerate(titles) for u in titles[:i] if t.overlaps(u))

    monkeypatch.setattr(style, "save", look)
    result = made_up_tables(("race", "view"))
    leakage_plots.plot_controls(result, tmp_path)
    leakage_plots.plot_leakage(result, tmp_path)
    leakage_plots.plot_confusion(result, tmp_path, attribute="race")
    leakage_evidence_plots.plot_dependence(result, tmp_path, attribute="race")
    leakage_evidence_plots.plot_curves(result, tmp_path)
    leakage_evidence_plots.plot_panels(result, tmp_path, kind="attribute", method="pca")
    assert plot_dose(result, tmp_path, attribute="race").name == "dose_race.png"
    assert found == []
    undefined = result.dependence["measure"].eq("unfairness") & result.dependence["group"].eq("s = -2")
    result.dependence.loc[undefined, "value"] = np.nan  # as where no test row has a label
    assert plot_dose(result, tmp_path, attribute="race") is not None
    alone = made_up_tables(("race",))
    leakage_plots.plot_controls(alone, tmp_path)
    leakage_plots.plot_leakage_roc(alone, tmp_path, attribute="race")
    assert found == []


@pytest.mark.parametrize(
    ("layer", "name"),
    [("conv2_block6_concat", "dense\nblock 1"), ("densenet121/conv5_block16_concat", "dense\nblock 4"), ("pool1", "stem"),
     ("densenet121/pool1", "stem"), ("vector", "vector"), ("re_lu_2", "block 3"), ("conv2_block3_out", "block 3")],
)  # fmt: skip
def test_blocks_are_named_as_papers_do(layer, name):
    assert leakage_evidence_plots._block_name(layer, 3) == name


def test_the_cells_of_a_panel_are_evenly_spaced_where_some_were_left_out():
    cells = leakage_evidence_plots._cells(pd.Series([0.5, 2.5, 3.5, 0.5]))
    np.testing.assert_allclose(cells.centres, [0.5, 1.5, 2.5, 3.5])
    np.testing.assert_allclose(cells.edges, [0, 1, 2, 3, 4])
