"""Several records of one patient that should agree, and what is made of it when they do not."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from biascxr.containers import UNKNOWN


@dataclass(frozen=True)
class Settled:
    """One value per patient.

    Attributes:
        values: indexed by patient; `"unknown"` where nothing was recorded, or where the policy leaves it so.
        conflicting: the patients recorded with several values.
    """

    values: pd.Series
    conflicting: frozenset[str]

    def of(self, patient_id: pd.Series) -> pd.Series:
        """Returns each row's value; `"unknown"` for patients without a record."""
        return patient_id.map(self.values).fillna(UNKNOWN)


def settle_records(patient_id: pd.Series, values: pd.Series, policy: str) -> Settled:
    """Makes one value of several records.

    Records that say nothing (`"unknown"`) never stand against those that say something.

    Args:
        patient_id: `[m]`, one entry per record, in the order of time.
        values: `[m]`, what each record says.
        policy: where a patient's records differ: `"majority"` takes the most frequent value (`"unknown"` in a tie),
            `"first"` the first; `"unknown"` and `"drop"` give `"unknown"` (the caller drops).
    """
    records = pd.DataFrame({"patient": patient_id.to_numpy(object), "value": values.to_numpy(object)})
    known = records[records["value"] != UNKNOWN]
    counts = known.groupby(["patient", "value"], sort=False).size().rename("n").reset_index()
    first = known.drop_duplicates("patient").set_index("patient")["value"]
    n_values = counts.groupby("patient").size()
    conflicting = n_values.index[n_values > 1]
    settled = first.copy()
    if policy == "majority":
        top = counts[counts["n"] == counts.groupby("patient")["n"].transform("max")]
        is_tie = top["patient"].duplicated(keep=False)
        settled = top[~is_tie].set_index("patient")["value"].reindex(first.index).fillna(UNKNOWN)
    elif policy in ("unknown", "drop"):
        settled[settled.index.isin(conflicting)] = UNKNOWN
    silent = pd.Index(records["patient"].unique()).difference(settled.index)
    settled = pd.concat([settled, pd.Series(UNKNOWN, index=silent, dtype=object)])
    return Settled(settled, frozenset(conflicting))
