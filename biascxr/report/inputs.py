"""Everything the report is made from, read once."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from biascxr.audit import AuditResult
from biascxr.containers import Cohort, Predictions
from biascxr.leakage.result import LeakageResult

BLANK_RATES = {name: [""] for name in ("flip_rate", "to_positive", "to_negative")}  # a group may be called "NA"


@dataclass(frozen=True)
class ReportInputs:
    """What the stages to the left have found.

    Attributes:
        cohort: all selected rows.
        used: the rows that have a vector.
        card: the encoder's card.
        predictions: test predictions per recipe, `erm` first.
        recipes: per recipe its methods, settings and notes.
        balance: per recipe the table of group balance before and after sampling.
        flips: for recipes that use attributes, how many decisions change with them.
        leakage: what can be read from the vectors, its controls, and whether predictions depend on it.
        audit: metrics, gaps, comparisons.
        reference: the same on reference labels, where there are any; else None.
        recorded_alike: the audit on the recorded labels of the rows and findings that have reference labels; else None.
        label_policy: conclusions under each policy for uncertain labels, where that was asked for; else None.
        rejected: number of files that could not be used, by reason.
        truth: what was planted, where the cohort is made up; else None.
        config: the configuration.
        versions: versions of libraries.
    """

    cohort: Cohort
    used: Cohort
    card: dict
    predictions: dict[str, Predictions]
    recipes: dict[str, dict]
    balance: dict[str, pd.DataFrame]
    flips: dict[str, pd.DataFrame]
    leakage: LeakageResult
    audit: AuditResult
    reference: AuditResult | None
    recorded_alike: AuditResult | None
    label_policy: pd.DataFrame | None
    rejected: dict[str, int]
    truth: dict | None
    config: dict
    versions: dict[str, str]

    @classmethod
    def gather(
        cls,
        *,
        cohort: Cohort,
        used: Cohort,
        card: dict,
        predictions: dict[str, Predictions],
        recipe_folders: dict[str, Path],
        leakage: Path,
        audit: Path,
        rejected: Path,
        truth: Path | None,
        config: dict,
        versions: dict[str, str],
    ) -> ReportInputs:
        """Reads the files of the finished stages (folders, except for what is already loaded)."""
        with open(rejected / "rejected.csv", newline="", encoding="utf-8") as file:
            reasons = Counter(row["reason"].split(" (")[0] for row in csv.DictReader(file))
        policies, reference = audit / "label_policy.csv", audit / "reference"
        return cls(
            cohort=cohort,
            used=used,
            card=card,
            predictions=predictions,
            recipes={n: json.loads((f / "recipe.json").read_text(encoding="utf-8")) for n, f in recipe_folders.items()},
            balance={n: pd.read_csv(f / "balance.csv") for n, f in recipe_folders.items()},
            flips={
                n: pd.read_csv(f / "flips.csv", dtype={"value": str}, keep_default_na=False, na_values=BLANK_RATES)
                for n, f in recipe_folders.items()
                if (f / "flips.csv").is_file()
            },
            leakage=LeakageResult.load(leakage),
            audit=AuditResult.load(audit),
            reference=AuditResult.load(reference) if reference.is_dir() else None,
            recorded_alike=AuditResult.load(reference / "recorded") if reference.is_dir() else None,
            label_policy=pd.read_csv(policies, keep_default_na=False) if policies.is_file() else None,
            rejected=dict(reasons.most_common()),
            truth=json.loads(truth.read_text(encoding="utf-8")) if truth else None,
            config=config,
            versions=versions,
        )

    @property
    def baseline(self) -> str:
        """Name of the recipe that the others are compared with."""
        return next(iter(self.predictions))

    @property
    def audited(self) -> list[str]:
        """Names of the audited attributes, in order."""
        found = self.audit.metrics["attribute"].unique()
        return [a for a in found if a != "overall"]
