"""Who is in the data, as the page may show it; shift, the contract's warnings, and what reference labels say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.proportion import proportion_confint

from biascxr.cohort.shift import group_shift
from biascxr.cohort.table_one import table_one
from biascxr.containers import Attribute, Cohort
from biascxr.report import build_report
from biascxr.report.annotation import NO_REFERENCE, annotation_section, overlooked_shares
from biascxr.report.demographics import SPLITS, demographic_rows, patients_by_group, reasons_text
from biascxr.report.page import contract_warnings
from biascxr.report.privacy import MIN_CELL
from biascxr.report.shift import plot_shift, shift_sentences, shown_shift

SEX = Attribute("sex", ("F", "M"), True)
FINDING = {
    "rule": "small_group", "is_error": False, "count": 1, "message": "recorded race ASIAN has 6 patients, fewer than 25.",
    "advice": "Leave it out of gaps.",
}  # fmt: skip


def with_views(cohort: Cohort) -> Cohort:
    rng = np.random.default_rng(2)
    return replace(cohort, table=cohort.table.assign(view=rng.choice(["AP", "PA"], len(cohort))))


def with_reference(cohort: Cohort, *, overlooked: dict[str, float]) -> Cohort:
    """The labels become the truth; of a sex's positives this share is recorded as negative."""
    rng = np.random.default_rng(3)
    share = cohort.table["sex"].map(overlooked).to_numpy()[:, None]
    is_missed = (rng.random(cohort.labels.shape) < share) & (cohort.labels == 1)
    return replace(cohort, labels=np.where(is_missed, 0, cohort.labels).astype(np.float32), reference_labels=cohort.labels)


def test_the_counts_of_the_page_are_those_of_table_one(report_inputs):
    full = table_one(report_inputs.used).set_index(["variable", "level", "statistic"])
    for attribute in report_inputs.used.attributes:
        counts = patients_by_group(report_inputs.used, attribute.name)
        for group in counts.index:
            assert counts.loc[group].tolist() == full.loc[(attribute.name, group, "n"), list(SPLITS)].tolist()


def test_sizes_and_age_are_shown_overall_and_in_each_split(report_inputs):
    rows = {row["variable"]: row for row in demographic_rows(report_inputs.used)}
    table = report_inputs.used.table
    assert rows["patients"]["total"] == "200" and rows["images"]["total"] == "400"
    assert rows["images per patient, median (quartiles)"]["test"] == "2 (2 to 2)"
    ages = table[table["split"] == "test"].groupby("patient_id")["age"].min()
    assert rows["age at the first image, mean (SD), years"]["test"] == f"{ages.mean():.1f} ({ages.std():.1f})"


def test_a_split_of_few_patients_shows_neither_size_nor_age_and_takes_another_with_it(report_inputs):
    table = report_inputs.used.table
    calibration = table["patient_id"][table["split"] == "calibration"].unique()
    moved = table["patient_id"].isin(calibration[5:])
    rows = demographic_rows(replace(report_inputs.used, table=table.assign(split=table["split"].mask(moved, "train"))))
    for row in rows[:4]:
        hidden = [s for s in SPLITS if row[s] == "hidden"]
        assert "calibration" in hidden and len(hidden) == 2, row


def test_an_age_known_of_few_patients_is_hidden_although_the_split_is_not(report_inputs):
    table = report_inputs.used.table
    patients = table["patient_id"][table["split"] == "test"].unique()
    unknown = table["patient_id"].isin(patients[4:])
    rows = demographic_rows(replace(report_inputs.used, table=table.assign(age=table["age"].mask(unknown))))
    assert rows[0]["test"] != "hidden" and rows[3]["test"] == "hidden"


def test_images_of_a_view_that_few_patients_have_are_hidden(report_inputs):
    table = report_inputs.used.table
    few = table["patient_id"].isin(table["patient_id"][table["split"] == "test"].unique()[:5])
    rows = demographic_rows(replace(report_inputs.used, table=table.assign(view=np.where(few, "AP", "PA"))))
    shown = {row["group"]: row for row in rows if row["variable"] == "view (images)"}
    # Ten images, but of five patients.
    assert shown["AP"]["test"] == "<10" and shown["AP"]["total"] in ("hidden", "<10") and shown["PA"]["test"] == "hidden"
    assert "10" not in shown["AP"].values()


def test_why_a_value_is_unknown_is_said_without_small_counts(report_inputs):
    reasons = {"blank": 120, "declined to answer": 34, "unable to obtain": 4}
    assert reasons_text(reasons) == "blank: 120 · declined to answer: hidden · unable to obtain: <10"
    assert reasons_text({}) == ""


def test_reasons_do_not_add_up_to_a_total_that_is_hidden(report_inputs):
    table = report_inputs.used.table
    few = table["patient_id"].isin(table["patient_id"].unique()[:4])
    accounting = report_inputs.used.accounting | {"unknown": {"sex": {"blank": 12}}}
    cohort = replace(report_inputs.used, table=table.assign(sex=table["sex"].mask(few, "unknown")), accounting=accounting)
    (row,) = (r for r in demographic_rows(cohort) if (r["variable"], r["group"]) == ("recorded sex", "unknown"))
    assert row["note"] == "blank"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("ASIAN has 6 patients, fewer than 25.", "ASIAN has fewer than 10 patients, fewer than 25."),
        ("3 duplicate images were found.", "fewer than 10 duplicate images were found."),
        ("12 images, 0.9 patients, 1,004 rows.", "12 images, 0.9 patients, 1,004 rows."),
        ("2 findings have one class.", "2 findings have one class."),
    ],
)
def test_a_warning_of_the_contract_names_no_small_number_of_patients(message, shown):
    assert contract_warnings([FINDING | {"message": message}]) == [(shown, FINDING["advice"])]


def test_small_groups_are_not_even_among_everyone_else(report_inputs):
    """Else the difference of a group that is shown would tell of the one that is not."""
    used = with_views(report_inputs.used)
    shown = shown_shift(used, min_patients=5)
    assert "ASIAN" not in set(shown["group"])
    without = used.table.assign(race=used.table["race"].replace("ASIAN", "unknown"))
    race = Attribute("race", ("WHITE", "BLACK"), True)
    expected = group_shift(replace(used, table=without, attributes=(SEX, race)), min_patients=MIN_CELL)
    np.testing.assert_allclose(shown["smd"], expected["smd"])


def test_a_finding_that_few_patients_of_a_group_have_is_hidden_in_two_groups(report_inputs):
    labels = report_inputs.used.labels.copy()
    is_black = (report_inputs.used.table["race"] == "BLACK").to_numpy()
    labels[np.flatnonzero(is_black)[6:], 0] = 0
    labels[np.flatnonzero(is_black)[:6], 0] = 1
    shown = shown_shift(replace(report_inputs.used, labels=labels), min_patients=5)
    edema = shown[(shown["attribute"] == "race") & (shown["variable"] == "Edema")]
    assert len(edema) == 2 and edema[["smd", "value"]].isna().all(axis=None)
    assert shown[(shown["attribute"] == "race") & (shown["variable"] == "age")]["smd"].notna().all()


def test_a_shift_is_said_in_words_with_its_size(report_inputs):
    older = (report_inputs.used.table["sex"] == "M").to_numpy()
    table = report_inputs.used.table
    used = replace(report_inputs.used, table=table.assign(age=table["age"] + 20 * older))
    shift = shown_shift(used, min_patients=25)
    sex, race = shift_sentences(shift)
    own = shift[(shift["attribute"] == "sex") & (shift["variable"] == "age")].iloc[0]
    assert f"1 of 3 comparisons differ beyond chance, most of all age ({own['group']} {own['smd']:+.2f}, mean" in sex
    assert "not proof" in race


def test_the_heat_map_of_shift_is_drawn_and_left_out_where_there_is_nothing(report_inputs, tmp_path):
    assert plot_shift(shown_shift(with_views(report_inputs.used), min_patients=25), tmp_path).is_file()
    nothing = shown_shift(replace(report_inputs.used, attributes=()), min_patients=25)
    assert plot_shift(nothing, tmp_path) is None and shift_sentences(nothing) == []


def test_without_reference_labels_the_page_says_what_cannot_be_seen(report_inputs):
    assert annotation_section(report_inputs.used, confidence=0.95) == {"sentence": NO_REFERENCE, "tables": {}}


def test_the_share_of_overlooked_findings_is_that_of_the_rows(report_inputs):
    cohort = with_reference(report_inputs.used, overlooked={"F": 0.5, "M": 0.0})
    shares = overlooked_shares(cohort, confidence=0.95).set_index(["attribute", "group"])
    for sex in ("F", "M"):
        own = (cohort.table["sex"] == sex).to_numpy()
        positive = cohort.reference_labels[own] == 1
        assert shares.loc[("sex", sex), "n"] == positive.sum()
        assert shares.loc[("sex", sex), "share"] == pytest.approx((cohort.labels[own][positive] == 0).mean())
        patients = cohort.table["patient_id"][own][positive.any(axis=1)]
        assert shares.loc[("sex", sex), "n_patients"] == patients.nunique()
    assert shares.loc[("sex", "F"), "low"] > shares.loc[("sex", "M"), "high"]
    whole = shares.loc[("", "everyone")]
    assert whole["n"] == (cohort.reference_labels == 1).sum()


def test_masked_labels_are_neither_recorded_nor_overlooked(report_inputs):
    cohort = with_reference(report_inputs.used, overlooked={"F": 0.5, "M": 0.5})
    masked = replace(cohort, labels=np.where(cohort.labels == 0, np.nan, cohort.labels).astype(np.float32))
    assert (overlooked_shares(masked, confidence=0.95)["share"] == 0).all()


def test_one_finding_in_one_image_each_has_wilsons_interval(report_inputs):
    cohort = with_reference(report_inputs.used, overlooked={"F": 0.3, "M": 0.3})
    first = cohort.rows(cohort.table.drop_duplicates("patient_id")["image_id"].to_numpy())
    first = replace(first, reference_labels=first.reference_labels.copy())
    first.reference_labels[:, 1] = 0
    whole = overlooked_shares(first, confidence=0.95).iloc[0]
    assert whole["n"] == whole["n_patients"]
    expected = proportion_confint(round(whole["share"] * whole["n"]), whole["n"], method="wilson")
    # Not exactly: the variance between patients has m - 1 in its denominator.
    np.testing.assert_allclose([whole["low"], whole["high"]], expected, atol=0.002)


def test_images_that_repeat_a_patient_do_not_narrow_the_interval(report_inputs):
    cohort = with_reference(report_inputs.used, overlooked={"F": 0.3, "M": 0.3})
    copies = [cohort.table.assign(image_id=cohort.table["image_id"] + f"copy{c}") for c in range(4)]
    often = replace(
        cohort,
        table=pd.concat(copies, ignore_index=True),
        labels=np.vstack([cohort.labels] * 4),
        reference_labels=np.vstack([cohort.reference_labels] * 4),
    )
    once, repeated = (overlooked_shares(c, confidence=0.95) for c in (cohort, often))
    kept = once["share"].between(0, 1, inclusive="neither") & (once["n"] > 50)
    width, repeated_width = (t["high"][kept] - t["low"][kept] for t in (once, repeated))
    assert kept.sum() >= 4
    assert (repeated_width > 0.85 * width).all()


def test_a_group_of_few_reference_positives_has_no_share(report_inputs):
    cohort = with_reference(report_inputs.used, overlooked={"F": 0.3, "M": 0.3})
    section = annotation_section(cohort, confidence=0.95)
    rows = {row["group"]: row for row in section["tables"]["recorded race"]}
    assert rows["ASIAN"]["share"] == "–" and rows["ASIAN"]["n_patients"] == "<10"
    assert rows["BLACK"]["n_patients"] == "hidden" and "%" in rows["BLACK"]["share"]
    assert section["sentence"].startswith("Nearly all 400") or section["sentence"].startswith("All 400")


def test_reference_labels_of_a_few_patients_say_nothing(report_inputs):
    cohort = with_reference(report_inputs.used, overlooked={"F": 0.3, "M": 0.3})
    reference = cohort.reference_labels.copy()
    reference[10:] = np.nan  # two images a patient: five patients
    section = annotation_section(replace(cohort, reference_labels=reference), confidence=0.95)
    assert section["tables"] == {} and "fewer than 10 patients" in section["sentence"]


def test_the_page_shows_warnings_shift_and_the_annotation_gap(report_inputs, tmp_path):
    accounting = report_inputs.cohort.accounting | {"findings": [FINDING], "unknown": {"race": {"blank": 31}}}
    used = with_views(with_reference(report_inputs.used, overlooked={"F": 0.5, "M": 0.0}))
    used = replace(used, accounting=accounting)
    build_report(replace(report_inputs, cohort=used, used=used), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    who = page[page.index('<section id="who">') : page.index('<section id="good">')]
    assert "ASIAN has fewer than 10 patients" in who and "Leave it out of gaps." in who
    assert "By recorded sex," in who and "Standardised difference" in who
    labels = page[page.index('<section id="labels">') : page.index('<section id="remedies">')]
    assert "recorded as negative" in labels and NO_REFERENCE not in labels
    assert (tmp_path / "demographics" / "shift.png").is_file()
