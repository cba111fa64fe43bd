"""Who is in the data: Table 1 as the page may show it, bars of patients per group, heat maps of label rates by group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns

from biascxr.cohort.table_one import table_one
from biascxr.config import SPLITS
from biascxr.containers import UNKNOWN, Cohort
from biascxr.report.privacy import MIN_CELL, suppress, suppressed_cells
from biascxr.report.style import PALETTE, figure, file_name
from biascxr.report.summary import readable

TOTAL = "total"
HIDDEN = "hidden"


def patients_by_group(cohort: Cohort, attribute: str) -> pd.DataFrame:
    """Counts patients per group (rows, unknown last) and split (columns). A patient may be in two age groups."""
    groups = [*next(a.groups for a in cohort.attributes if a.name == attribute), UNKNOWN]
    counts = cohort.table.groupby([attribute, "split"])["patient_id"].nunique().unstack(fill_value=0)
    counts = counts.reindex(index=groups, columns=list(SPLITS), fill_value=0)
    return counts if counts.loc[UNKNOWN].sum() else counts.drop(index=UNKNOWN)


def with_totals(counts: pd.DataFrame) -> pd.DataFrame:
    """Adds each group's total over the splits.

    Totals are shown too, as shares and bars, and add up to all patients: they are cells to protect like the others.
    """
    return counts.assign(**{TOTAL: counts.sum(axis=1)})


def demographic_rows(cohort: Cohort) -> list[dict]:
    """Returns the page's Table 1 as text: sizes, age, attributes and views, overall and in each split, small cells hidden.

    The full counts are those of `biascxr.cohort.table_one`; a cell is hidden by the number of patients behind it, whatever it
    shows. Counts of patients add up to all patients, so they are protected together.
    """
    full = table_one(cohort).set_index(["variable", "level", "statistic"])
    rows = _size_rows(cohort, full)
    for attribute in cohort.attributes:
        counts = patients_by_group(cohort, attribute.name)
        rows += _group_rows(readable(attribute.name), with_totals(counts), with_totals(counts))
        if UNKNOWN in counts.index:
            reasons = cohort.accounting.get("unknown", {}).get(attribute.name, {})
            # A number beside a hidden total would give the total away.
            rows[-1]["note"] = reasons_text(reasons) if rows[-1][TOTAL] != HIDDEN else " · ".join(reasons)
    views = cohort.table["view"].replace("", UNKNOWN)
    by_view = cohort.table.assign(view=views).groupby(["view", "split"])["patient_id"]
    patients, images = (
        n.unstack(fill_value=0).reindex(columns=list(SPLITS), fill_value=0) for n in (by_view.nunique(), by_view.size())
    )
    return rows + _group_rows("view (images)", with_totals(images), with_totals(patients))


def _size_rows(cohort: Cohort, full: pd.DataFrame) -> list[dict]:
    """Patients, images and age; a split of few patients shows none of it."""
    columns = {TOTAL: "overall"} | {split: split for split in SPLITS}
    patients, ages = (full.loc[(variable, "", "n"), list(SPLITS)].to_numpy(int)[None] for variable in ("patients", "age"))
    hidden = suppressed_cells(patients, has_column_totals=False)[0]
    hidden_age = hidden | suppressed_cells(ages, has_column_totals=False)[0]
    few = {TOTAL: full.loc[("age", "", "n"), "overall"] < MIN_CELL} | dict(zip(SPLITS, hidden_age, strict=True))

    def row(variable: str, form: str, hide: dict, *keys: tuple[str, str]) -> dict:
        def cell(column: str, split: str) -> str:
            values = [full.loc[(name, "", statistic), column] for name, statistic in keys]
            return HIDDEN if hide[split] else "–" if np.isnan(values).any() else form.format(*values)

        return {"variable": variable, "group": "", "note": ""} | {s: cell(column, s) for s, column in columns.items()}

    whole = {TOTAL: False} | dict(zip(SPLITS, hidden, strict=True))
    per_patient = [("images per patient", name) for name in ("median", "q1", "q3")]
    return [
        row("patients", "{:,.0f}", whole, ("patients", "n")),
        row("images", "{:,.0f}", whole, ("images", "n")),
        row("images per patient, median (quartiles)", "{:.0f} ({:.0f} to {:.0f})", whole, *per_patient),
        row("age at the first image, mean (SD), years", "{:.1f} ({:.1f})", few, ("age", "mean"), ("age", "sd")),
    ]


def _group_rows(variable: str, counts: pd.DataFrame, patients: pd.DataFrame) -> list[dict]:
    """Returns a row of text per group: its share of the total, its count in each split.

    Args:
        variable: shown in the first column.
        counts: what is shown, groups by splits and their total.
        patients: the patients behind each cell, same form: what decides whether it is hidden.
    """
    text, hidden = suppress(patients), suppressed_cells(patients.to_numpy())
    rows = []
    for i, group in enumerate(counts.index):
        shown = {split: text.iloc[i][split] if hidden[i, j] else f"{counts.iloc[i][split]:,}" for j, split in enumerate(SPLITS)}
        share = HIDDEN if hidden[i, -1] else f"{100 * counts.iloc[i][TOTAL] / counts[TOTAL].sum():.1f}%"
        rows.append({"variable": variable, "group": group, "note": "", TOTAL: share} | shown)
    return rows


def reasons_text(reasons: dict[str, int]) -> str:
    """Returns why patients have no value, with counts; small ones, and what would give them away, are hidden."""
    if not reasons:
        return ""
    counts = pd.DataFrame([list(reasons.values())], columns=list(reasons))
    shown = suppress(counts, has_column_totals=False).iloc[0]
    return " · ".join(f"{reason}: {n}" for reason, n in shown.items())


def plot_demographics(cohort: Cohort, folder: Path) -> list[Path]:
    """Draws `demographics/<attribute>.png`: share of patients per group, without the groups whose total Table 1 hides."""
    paths = []
    for attribute in cohort.attributes:
        table = with_totals(patients_by_group(cohort, attribute.name))
        counts = table[TOTAL]
        shown = counts[~suppressed_cells(table.to_numpy())[:, -1] & (counts > 0)]
        path = folder / "demographics" / f"{file_name(attribute.name)}.png"
        with figure(path, size=(4.2, 0.55 + 0.32 * len(shown))) as (_, axis):
            shares = 100 * shown / counts.sum()
            colours = ["#b8c0c8" if g == UNKNOWN else PALETTE[0] for g in shown.index]
            axis.barh(range(len(shown)), shares, color=colours, height=0.72)
            axis.set_yticks(range(len(shown)), shown.index)
            axis.invert_yaxis()
            axis.set_xlabel("patients (%)")
            axis.grid(axis="y", visible=False)
            axis.set_title(readable(attribute.name))
            axis.set_xlim(0, max(shares, default=1) * 1.18)
            for y, (share, n) in enumerate(zip(shares, shown, strict=True)):
                axis.text(share + shares.max() * 0.015, y, f"{n:,}", va="center", fontsize=8)
        paths.append(path)
    return paths


def label_rates(cohort: Cohort, attribute: str) -> pd.DataFrame:
    """Positive rate of each label (rows) in each known group (columns); NaN where fewer than ten patients are positive."""
    groups = next(a.groups for a in cohort.attributes if a.name == attribute)
    rates = {}
    for group in groups:
        mask = (cohort.table[attribute] == group).to_numpy()
        labels, patients = cohort.labels[mask], cohort.table["patient_id"].to_numpy(object)[mask]
        known = ~np.isnan(labels)
        enough = [len(set(patients[labels[:, i] == 1])) >= MIN_CELL for i in range(labels.shape[1])]
        n = known.sum(0)
        rate = np.divide(np.nansum(labels, axis=0), n, out=np.full(len(n), np.nan), where=n > 0)
        rates[group] = np.where(enough, rate, np.nan)
    return pd.DataFrame(rates, index=list(cohort.label_names))


def plot_label_rates(cohort: Cohort, folder: Path) -> Path | None:
    """Draws `demographics/label_rates.png`: per attribute a heat map of label rates, one colour scale for all."""
    if not cohort.attributes:
        return None
    tables = [label_rates(cohort, a.name) for a in cohort.attributes]
    widths = [max(2, t.shape[1]) for t in tables]
    top = max(np.nanmax(100 * t.to_numpy(), initial=1.0) for t in tables)
    path = folder / "demographics" / "label_rates.png"
    size = (2.4 + 0.62 * sum(widths), 1.5 + 0.28 * len(cohort.label_names))
    options = {"width_ratios": widths, "squeeze": False}
    with figure(path, columns=len(tables), size=size, **options) as (_, axes):
        for i, (attribute, table) in enumerate(zip(cohort.attributes, tables, strict=True)):
            axis = axes[0, i]
            sns.heatmap(
                100 * table, ax=axis, cmap="Blues", vmin=0, vmax=top, cbar=False, annot=True, fmt=".0f",
                annot_kws={"fontsize": 7}, linewidths=0.6, linecolor="white", yticklabels=i == 0,
            )  # fmt: skip
            axis.set_title(attribute.name.replace("_", " "))
            axis.tick_params(length=0, labelsize=8)
            axis.set_xticks(axis.get_xticks(), axis.get_xticklabels(), rotation=35, ha="right")
            axis.set_facecolor("#f1f3f5")
    return path
