"""Table 1: who is in the data, by split or by the groups of one attribute, with what is missing.

Full counts, small groups included: a file for the machine that holds the data. What may leave it is made in
`biascxr.report.demographics`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from biascxr.cohort.shift import differences_from_others, first_images
from biascxr.config import SPLITS
from biascxr.containers import UNKNOWN, Cohort
from biascxr.errors import unknown_name

OVERALL = "overall"
KEYS = ("variable", "level", "unit", "statistic")
PATIENTS, IMAGES = "patients", "images"
IN_SEVERAL = "patients, in each group they have an image of"
AS_READ = "patients of the table as read, before selection"


def table_one(cohort: Cohort, *, by: str | None = None) -> pd.DataFrame:
    """Describes patients, images, age, attributes, views and labels as recorded.

    Args:
        cohort: the rows to describe.
        by: an attribute, for a column per group; default: a column per split.

    Returns:
        Columns `variable, level, unit, statistic`, then `overall` and one per split, or per group (`unknown` last, if there
        is one); by groups also `smd <group>`: the standardised difference of each known group from everyone else (all other
        known groups), beside means and shares. Every cell is a number, a row holds one statistic: `n`, `share` (of the
        column's patients or images), `mean`, `sd` (n - 1), `median`, `q1`, `q3`. `unit` says what is counted: patients for
        age (at the first image) and attributes, images for views and labels. Labels are counted as recorded (positive,
        negative, uncertain, blank), where the cohort holds them so, else after policies (positive, negative, masked).
        Levels `unknown: <reason>` count patients of the table as read, before selection, and only overall.

    Raises:
        InputError: `by` is no attribute of the cohort.
    """
    columns = {OVERALL: cohort} | {name: cohort.rows(ids) for name, ids in _images_of_columns(cohort, by).items()}
    described = {name: _describe(part, cohort) for name, part in columns.items()}
    table = pd.DataFrame(described, index=pd.MultiIndex.from_tuples(described[OVERALL], names=KEYS))
    if by is not None:
        table = table.drop(index=by, level="variable")
        table = pd.concat([table, _differences(table, next(a.groups for a in cohort.attributes if a.name == by))], axis=1)
    return _with_reasons(table, cohort).reset_index()


def _images_of_columns(cohort: Cohort, by: str | None) -> dict[str, np.ndarray]:
    attributes = {a.name: a for a in cohort.attributes}
    if by is not None and by not in attributes:
        raise unknown_name("attribute", by, attributes)
    names = SPLITS if by is None else (*attributes[by].groups, UNKNOWN)
    found = {name: cohort.table["image_id"][cohort.table[by or "split"] == name].to_numpy() for name in names}
    return {name: ids for name, ids in found.items() if name != UNKNOWN or len(ids)}


def _describe(part: Cohort, whole: Cohort) -> dict[tuple[str, str, str, str], float]:
    """Returns one column by (variable, level, unit, statistic); levels are those of the whole cohort."""
    table = part.table
    per_patient = table["patient_id"].value_counts().to_numpy()
    ages = table["age"].to_numpy(np.float64)[first_images(table)]
    n_patients, n_images = len(per_patient), len(table)
    column: dict[tuple[str, str, str, str], float] = {
        ("patients", "", PATIENTS, "n"): n_patients,
        ("images", "", IMAGES, "n"): n_images,
    }

    def count(variable: str, level: str, unit: str, n: int, total: int) -> None:
        column[variable, level, unit, "n"] = n
        column[variable, level, unit, "share"] = n / total if total else np.nan

    for name, quantile in (("median", 0.5), ("q1", 0.25), ("q3", 0.75)):
        column["images per patient", "", IMAGES, name] = np.quantile(per_patient, quantile) if n_patients else np.nan
    column["age", "", PATIENTS, "n"] = len(ages)
    column["age", "", PATIENTS, "mean"] = ages.mean() if len(ages) else np.nan
    column["age", "", PATIENTS, "sd"] = ages.std(ddof=1) if len(ages) > 1 else np.nan
    count("age", UNKNOWN, PATIENTS, n_patients - len(ages), n_patients)
    for attribute in whole.attributes:
        own = table.groupby(attribute.name)["patient_id"].nunique()
        for group in (*attribute.groups, UNKNOWN):
            unit = PATIENTS if attribute.constant else IN_SEVERAL
            count(attribute.name, group, unit, int(own.get(group, 0)), n_patients)
    own = table["view"].value_counts()
    for view in sorted(set(whole.table["view"]), key=lambda v: (v == "", v)):
        count("view", view or UNKNOWN, IMAGES, int(own.get(view, 0)), n_images)
    levels = {level: is_so.sum(axis=0) for level, is_so in _label_levels(part).items()}
    for i, label in enumerate(whole.label_names):
        for level, counts in levels.items():
            count(label, level, IMAGES, int(counts[i]), n_images)
    return column


def _label_levels(cohort: Cohort) -> dict[str, np.ndarray]:
    """Returns which labels are of each kind, `[n, L] bool`."""
    if cohort.recorded is None:
        own = cohort.labels
        return {"positive": own == 1, "negative": own == 0, "masked": np.isnan(own)}
    own = cohort.recorded
    return {"positive": own == 1, "negative": own == 0, "uncertain": own == -1, "blank": np.isnan(own)}


def _differences(table: pd.DataFrame, groups: tuple[str, ...]) -> pd.DataFrame:
    """Returns the columns `smd <group>`, NaN beside statistics that have none."""
    totals = {unit: table.loc[(variable, "", unit, "n"), list(groups)].to_numpy(np.float64)
              for variable, unit in (("patients", PATIENTS), ("images", IMAGES))}  # fmt: skip
    totals[IN_SEVERAL] = totals[PATIENTS]
    found = pd.DataFrame(np.nan, index=table.index, columns=[f"smd {g}" for g in groups])
    for key in table.index:
        own = table.loc[key, list(groups)].to_numpy(np.float64)
        if key[3] == "share":
            found.loc[key] = differences_from_others(own, own * (1 - own), totals[key[2]], ddof=0)
        elif key[3] == "mean":
            n, spread = (table.loc[(*key[:3], name), list(groups)].to_numpy(np.float64) for name in ("n", "sd"))
            found.loc[key] = differences_from_others(own, spread**2, n, ddof=1)
    return found


def _with_reasons(table: pd.DataFrame, cohort: Cohort) -> pd.DataFrame:
    """Adds, after each attribute's unknown patients, why they are unknown."""
    parts, reasons = [], cohort.accounting.get("unknown", {})
    for variable, own in table.groupby(level="variable", sort=False):
        parts.append(own)
        counts = reasons.get(variable, {})
        keys = [(variable, f"{UNKNOWN}: {reason}", AS_READ, "n") for reason in counts]
        if keys:
            index = pd.MultiIndex.from_tuples(keys, names=KEYS)
            parts.append(pd.DataFrame({OVERALL: list(counts.values())}, index=index, dtype=np.float64))
    return pd.concat(parts)[table.columns]
