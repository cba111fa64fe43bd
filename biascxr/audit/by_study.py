"""Images -> studies: one row each."""

from __future__ import annotations

import numpy as np
import pandas as pd

from biascxr.audit.read_cells import n_changing
from biascxr.audit.read_values import Rows
from biascxr.containers import UNKNOWN


def by_study(rows: Rows, names: tuple[str, ...], notes: list[str]) -> Rows:
    """One row per study, in the order of their first images: mean score, highest label, first known value of each name."""
    studies = rows.table.groupby(["recipe", "patient_id", "study_id"], sort=False).ngroup().to_numpy()
    first = np.unique(studies, return_index=True)[1]
    table = rows.table.iloc[first].reset_index(drop=True)
    for name in names:
        values = rows.table[name].to_numpy(object)
        known = values != UNKNOWN
        n = n_changing(studies[known], pd.factorize(values[known])[0])
        if n:
            notes.append(f"{name} differs within {n:,} studies: the first known value is taken.")
        at = np.flatnonzero(known)[np.unique(studies[known], return_index=True)[1]]
        table[name] = UNKNOWN
        table.loc[studies[at], name] = values[at]
    labels = pd.DataFrame(rows.y_true).groupby(studies)
    highest = labels.max().to_numpy()
    n = int((labels.min().to_numpy() < highest).any(axis=1).sum())
    if n:
        notes.append(f"Labels differ between the images of {n:,} studies: a study is positive if one of its images is.")
    notes.append(f"{len(rows.table):,} images became {len(table):,} studies: mean score, highest label.")
    repeated = table.duplicated(["recipe", "study_id"], keep=False)
    table["image_id"] = table["study_id"].mask(repeated, table["patient_id"] + "/" + table["study_id"])
    if repeated.any():
        notes.append("study_id is not unique over patients: a study is known by patient_id and study_id together.")
    scores = pd.DataFrame(rows.scores.astype(np.float64)).groupby(studies).mean().to_numpy()
    return Rows(table, highest, scores, None)
