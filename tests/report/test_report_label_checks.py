"""The section on labels: recorded against reference, one policy against another, and what may not be said without them."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from biascxr.report import build_report
from biascxr.report.annotation import NO_REFERENCE
from biascxr.report.label_checks import label_checks, policy_rows, policy_sentence
from biascxr.report.page import hide_few, planted_notes

KEYS = {"recipe": "erm", "label": "macro", "attribute": "sex", "group": "F", "metric": "TPR"}


def policies(*claims: tuple[str, str, str]) -> pd.DataFrame:
    rows = [KEYS | dict(zip(("zeros", "ones", "ignore"), c, strict=True)) | {"survives": len(set(c)) == 1} for c in claims]
    return pd.DataFrame(rows)


def shifted(result, attribute: str, group: str, metric: str, by: float):
    """The same audit, with one macro difference moved."""
    metrics = result.metrics.copy()
    hit = (metrics["label"] == "macro") & (metrics["attribute"] == attribute)
    hit &= (metrics["group"] == group) & (metrics["metric"] == metric) & (metrics["recipe"] == "erm")
    assert hit.sum() == 1
    metrics.loc[hit, ["difference", "difference_low", "difference_high"]] += by
    return replace(result, metrics=metrics)


def page_of(inputs, tmp_path) -> str:
    build_report(inputs, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    return page[page.index('<section id="labels">') : page.index('<section id="remedies">')]


def test_without_reference_labels_the_page_says_what_cannot_be_seen(report_inputs, tmp_path):
    section = page_of(report_inputs, tmp_path)
    assert NO_REFERENCE.replace("'", "&#39;") in section
    assert "judged by reference labels" not in section and "Other policies" not in section


def test_alike_audits_agree_and_a_moved_difference_is_pointed_at(report_inputs):
    same = label_checks(replace(report_inputs, reference=report_inputs.audit))["reference"]
    assert same and not any(row["misleads"] for row in same)
    moved = shifted(report_inputs.audit, "sex", "F", "TPR", 0.9)
    rows = label_checks(replace(report_inputs, reference=moved))["reference"]
    assert [(r["attribute"], r["group"], r["metric"]) for r in rows if r["misleads"]] == [("recorded sex", "F", "TPR")]


def test_the_page_shows_both(report_inputs, tmp_path):
    reference = shifted(report_inputs.audit, "sex", "F", "TPR", 0.9)
    table = policies(("higher", "no claim", "no claim"), ("lower", "lower", "lower"))
    section = page_of(replace(report_inputs, reference=reference, label_policy=table), tmp_path)
    assert section.count("recorded labels say otherwise") == 1
    assert "1 of 2 conclusions depend on whether uncertain labels" in section
    assert "TPR of macro by recorded sex, F" in section


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (None, ""),
        (policies(("lower", "lower", "lower")), "All 1 conclusions are the same"),
        (policies(("lower", "lower", "higher")), "1 of 1 conclusions depend"),
        (pd.DataFrame(columns=[*KEYS, "zeros", "ones", "ignore", "survives"]), "No label is uncertain here"),
    ],
)
def test_the_policies_in_words(table, words):
    assert policy_sentence(table).startswith(words) and (words != "" or policy_sentence(table) == "")


def test_at_most_a_dozen_lost_conclusions_macro_first():
    table = pd.concat([policies(*[("a", "b", "c")] * 20).assign(label="Edema"), policies(("x", "y", "z"))])
    rows = policy_rows(table)
    assert len(rows) == 12 and "macro" in rows[0]["what"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("3 patients are recorded with more than one sex.", "fewer than 10 patients are recorded with more than one sex."),
        ("13 patients and 7 images", "13 patients and fewer than 10 images"),
        ("1,003 patients, 0.5 patients", "1,003 patients, 0.5 patients"),
        ("2 impossible ages; on 3 of 900 images", "fewer than 10 impossible ages; on fewer than 10 of 900 images"),
    ],
)
def test_few_patients_are_not_counted_on_the_page(text, shown):
    assert hide_few(text) == shown


def test_planted_bias_is_said():
    planted = {"mechanism": "annotation", "strength": 0.3, "attribute": "sex", "group": "F", "finding": None}
    (note,) = planted_notes({"planted": [planted]})
    assert note.startswith("Planted on purpose: annotation of strength 0.3 in sex F. The labels as they were")
    assert planted_notes({}) == []
