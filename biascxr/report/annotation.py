"""What reference labels say about how findings were recorded: the annotation gap between groups."""

from __future__ import annotations

import numpy as np
import pandas as pd

from biascxr.containers import Cohort
from biascxr.metrics import wilson_interval
from biascxr.report.privacy import MIN_CELL, suppress
from biascxr.report.summary import readable

NO_REFERENCE = (
    "No reference labels: bias in how findings were recorded (a group's findings overlooked) cannot be seen on these data; "
    "an audit takes the recorded labels as the truth."
)
EVERYONE = "everyone"


def overlooked_shares(cohort: Cohort, *, confidence: float) -> pd.DataFrame:
    """Measures, per group, the share of reference positives that are recorded as negative.

    All findings together: a positive is an image and a finding. Recorded means after the label policies, as everything else
    is trained and judged; masked labels are left out. Intervals are Wilson's at the effective size, patients as the unit.

    Args:
        cohort: one with `reference_labels`.
        confidence: level of the intervals.

    Returns:
        One row for everyone, then one per attribute and known group: `attribute, group, n` (positives), `n_patients` (with
        one), `share, low, high`. A patient who changes groups counts in each.
    """
    is_positive = (cohort.reference_labels == 1) & ~np.isnan(cohort.labels)
    counts = pd.DataFrame(
        {
            "patient_id": cohort.table["patient_id"].to_numpy(object),
            "positives": is_positive.sum(axis=1),
            "overlooked": (is_positive & (cohort.labels == 0)).sum(axis=1),
        }
    )
    counts = counts[counts["positives"] > 0]
    rows = [{"attribute": "", "group": EVERYONE} | _share(counts, confidence)]
    for attribute in cohort.attributes:
        value = cohort.table[attribute.name].to_numpy(object)[counts.index]
        rows += [{"attribute": attribute.name, "group": g} | _share(counts[value == g], confidence) for g in attribute.groups]
    return pd.DataFrame(rows)


def _share(counts: pd.DataFrame, confidence: float) -> dict:
    """A ratio of sums over patients, whose variance is that of the patients' residuals."""
    per_patient = counts.groupby("patient_id")[["positives", "overlooked"]].sum()
    n, m = int(per_patient["positives"].sum()), len(per_patient)
    if m == 0:
        return {"n": 0, "n_patients": 0, "share": np.nan, "low": np.nan, "high": np.nan}
    share = per_patient["overlooked"].sum() / n
    residuals = per_patient["overlooked"] - share * per_patient["positives"]
    error = np.sqrt((residuals**2).sum() * m / (m - 1)) / n if m > 1 else np.nan
    low, high = wilson_interval(share, error, n, confidence, df=m - 1)
    return {"n": n, "n_patients": m, "share": float(share), "low": float(low), "high": float(high)}


def annotation_section(cohort: Cohort, *, confidence: float) -> dict:
    """Returns what the page says: `sentence`, and per attribute a table of text under `tables`, small groups hidden."""
    if cohort.reference_labels is None:
        return {"sentence": NO_REFERENCE, "tables": {}}
    has_reference = ~np.isnan(cohort.reference_labels).all(axis=1)
    n_patients = cohort.table["patient_id"][has_reference].nunique()
    if n_patients < MIN_CELL:
        return {"sentence": f"Reference labels: of fewer than {MIN_CELL} patients, too few to say anything.", "tables": {}}
    shares = overlooked_shares(cohort, confidence=confidence)
    whole = shares.iloc[0]
    # Beside all rows, few rows without reference labels are a small number too.
    n_without = cohort.table["patient_id"][~has_reference].nunique()
    planted = cohort.accounting.get("planted")
    how_many = f"{has_reference.sum():,} of {len(cohort):,} images"
    if n_without < MIN_CELL:
        how_many = f"{'Nearly all' if n_without else 'All'} {len(cohort):,} images"
    what = (
        "labels as they were before bias was planted: they tell the planted share, not the truth"
        if planted
        else ("reference labels, the truth where it is known")
    )
    sentence = f"{how_many} have {what}. "
    if whole["n_patients"] < MIN_CELL:
        return {"sentence": sentence + f"Fewer than {MIN_CELL} patients are positive in them.", "tables": {}}
    sentence += f"Of the findings positive there, {_interval(whole)} are recorded as negative."
    tables = {}
    for name, own in shares.iloc[1:].groupby("attribute", sort=False):
        patients = suppress(own[["n_patients"]].reset_index(drop=True), has_row_totals=False)["n_patients"]
        tables[readable(name)] = [
            {"group": row.group, "n_patients": n, "share": "–" if row.n_patients < MIN_CELL else _interval(row._asdict())}
            for row, n in zip(own.itertuples(), patients, strict=True)
        ]
    return {"sentence": sentence, "tables": tables}


def _interval(row) -> str:
    return f"{100 * row['share']:.1f}% ({100 * row['low']:.1f}% to {100 * row['high']:.1f}%)"
