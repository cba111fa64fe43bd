"""What probes read of one attribute from one representation, beside what its controls read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from biascxr.config import LeakageConfig
from biascxr.containers import Attribute, Cohort
from biascxr.leakage import MACRO, find_probe
from biascxr.leakage.base import Probe
from biascxr.leakage.covariates import AGE, covariate_vectors
from biascxr.leakage.readout import Readout, group_codes, make_folds, read_out
from biascxr.leakage.result import FACT
from biascxr.leakage.reweight import balancing_weights
from biascxr.leakage.scores import confusion_rows, one_vs_rest, roc_rows
from biascxr.leakage.shuffles import refitted, shuffle_test
from biascxr.leakage.strata import strata_of, strata_there_are

N_PERMUTATIONS = 999
MANY_NUMBERS = 50_000_000
# Over several folds a p-value comes from refits alone (see `shuffle_test`): so many per group, that one group of k can still
# reach .05 / k.
REFITS_PER_GROUP = 20


@dataclass
class ReadingRows:
    """Rows of three tables of `LeakageResult`, collected."""

    readings: list[dict] = field(default_factory=list)
    roc: list[dict] = field(default_factory=list)
    confusion: list[dict] = field(default_factory=list)

    def add(self, name: str, rows: list[dict], **facts: object) -> None:
        """Adds rows to a table, each with these facts in front."""
        getattr(self, name).extend(facts | row for row in rows)


class AttributeReader:
    """Reads one attribute from vectors of the cohort's rows.

    Args:
        cohort: the rows.
        attribute: what is read.
        config: folds, shuffles, whether groups are balanced.
        confidence: level of the intervals.
        seed: seed of folds, shuffles, permutations and probes.
    """

    def __init__(self, cohort: Cohort, attribute: Attribute, config: LeakageConfig, *, confidence: float, seed: int) -> None:
        self.cohort, self.attribute, self.config = cohort, attribute, config
        self.confidence, self.seed = confidence, seed
        self.codes = group_codes(cohort, attribute)
        self.patient_id = cohort.table["patient_id"].to_numpy(object)
        self.folds = make_folds(cohort, self.codes, config.leakage_folds, seed=seed)
        self.has_folds = len(self.folds) > 1

    def on_the_split(self) -> AttributeReader:
        """Returns the reader of the cohort's own split, for what was learned from its train rows, as a recipe's vectors are."""
        if not self.has_folds:
            return self
        config = replace(self.config, leakage_folds=1)
        return AttributeReader(self.cohort, self.attribute, config, confidence=self.confidence, seed=self.seed)

    def read(
        self, probe: Probe, vectors: np.ndarray, kept: dict[int, list[np.ndarray]] | None = None, **options: object
    ) -> Readout | None:
        """Returns the scores of a probe on rows that it has not seen; None where there are no two groups to learn.

        Args:
            probe: the probe.
            vectors: `[n, d]`, one per row of the cohort.
            kept: keeps standardised vectors between calls with the same vectors; see `read_out`.
            **options: `shuffled` and `settings` of `read_out`.
        """
        return read_out(
            probe, vectors, self.attribute, self.codes, self.patient_id, self.folds,
            is_balanced=self.config.balance_groups, standardised=kept, seed=self.seed, **options,
        )  # fmt: skip

    def score(self, readout: Readout, **options: object) -> list[dict]:
        """Returns rows of readings.csv: AUROC per group and their mean, with intervals; options as in `one_vs_rest`."""
        facts = {"attribute": self.attribute.name, "probe": readout.probe}
        further = {"validation_auroc": readout.validation_auroc}
        return [facts | row | further for row in one_vs_rest(readout, confidence=self.confidence, **options)]

    def tested(self, readout: Readout) -> list[dict]:
        """Returns the rows of `score` with the p-value of the shuffle test."""
        p_values = shuffle_test(readout, n_permutations=N_PERMUTATIONS, seed=self.seed)
        return [row | {"p_value": p_values[row["group"]]} for row in self.score(readout)]

    def read_representation(
        self, representation: str, vectors: np.ndarray, probes: Sequence[Probe], rows: ReadingRows, *, has_controls: bool
    ) -> dict[str, Readout]:
        """Reads the attribute with every probe.

        Args:
            representation: its name in the tables.
            vectors: `[n, d]`, one per row of the cohort.
            probes: the probes.
            rows: what was found is added to these.
            has_controls: also read shuffled groups, covariates alone, within strata and reweighted, and keep ROC curves and
                confusion matrices.

        Returns:
            The readouts by the name of their probe.
        """
        found: dict[str, Readout] = {}
        # One division's standardised vectors are kept between fits; those of several would be as many copies of all.
        kept: dict[int, list[np.ndarray]] | None = None if self.has_folds and vectors.size > MANY_NUMBERS else {}
        for probe in probes:
            readout = self.read(probe, vectors, kept)
            if readout is None:
                continue
            found[probe.name] = readout
            facts = {"representation": representation, "attribute": self.attribute.name, "probe": probe.name}
            own = self.tested(readout)
            controls = self._controls(probe, readout, vectors, kept) if has_controls else []
            if self.has_folds:
                p_values = {row["group"]: row["p_value"] for row in controls if row["control"] == "shuffled"}
                own = [row | {"p_value": p_values.get(row["group"], row["p_value"])} for row in own]
            rows.add("readings", own + controls, **facts)
            if has_controls:
                rows.add("roc", roc_rows(readout), **facts)
                rows.add("confusion", confusion_rows(readout), **facts)
        if found and has_controls:
            rows.add("readings", self._facts(), representation=representation, attribute=self.attribute.name)
        return found

    def _facts(self) -> list[dict]:
        """Returns how well each recorded fact tells the groups apart by itself, macro: which of them is it that goes with them?

        By logistic regression, whatever the probes: a search for neighbours has nothing but ties in a column of zeros and ones.
        `n_group_patients` is the smallest number of judged patients of a group who share a value of the fact: from the AUROC of
        a column of zeros and ones such numbers could be worked out.
        """
        covariates, probe, rows = covariate_vectors(self.cohort, self.attribute), find_probe("logistic"), []
        for fact in dict.fromkeys(covariates.facts):
            readout = self.read(probe, covariates.of_fact(fact))
            own = [] if readout is None else self.score(readout, control=f"{FACT}{fact}")
            extra = {"probe": probe.name}
            if readout is not None and fact != AGE:
                extra["n_group_patients"] = _smallest_cell(covariates.of_fact(fact)[readout.rows], readout)
            rows += [row | extra for row in own if row["group"] == MACRO]
        return rows

    def _controls(
        self, probe: Probe, readout: Readout, vectors: np.ndarray, kept: dict[int, list[np.ndarray]] | None
    ) -> list[dict]:
        """Returns rows of readings.csv of every control."""
        n_shuffles = self.config.n_shuffles
        if self.has_folds:
            n_shuffles = max(n_shuffles, REFITS_PER_GROUP * len(self.attribute.groups))
        # Settings were chosen on rows that are not judged, so the choice favours no AUROC and need not be made again in every
        # shuffle. Of several folds each judges rows that another one chose on.
        settings = None if self.has_folds else readout.settings
        rows = refitted(
            lambda rng: self.read(probe, vectors, kept, shuffled=rng, settings=settings),
            n_shuffles=n_shuffles,
            seed=self.seed,
            observed=readout,
        )
        covariates = covariate_vectors(self.cohort, self.attribute).vectors
        if covariates.shape[1]:
            merely = self.read(probe, covariates)
            rows += [] if merely is None else self.score(merely, control="covariates")
        for what in strata_there_are(self.cohort, self.attribute):
            strata = strata_of(self.cohort, what, readout.rows)
            rows += self.score(readout, control=f"within_{what}", strata=strata)
        balanced = balancing_weights(self.cohort, self.attribute, readout.rows)
        reweighted = self.score(readout, control="reweighted", weight=balanced.weight)
        return rows + [row | {"setting": balanced.note or row["setting"]} for row in reweighted]


def _smallest_cell(values: np.ndarray, readout: Readout) -> int:
    """Returns the smallest number of patients in a cell of group and value that anybody is in; `values` are `[m, c]`."""
    cell = np.unique(np.column_stack([readout.codes, values]), axis=0, return_inverse=True)[1].ravel()
    patient = np.unique(readout.patient_id.astype(str), return_inverse=True)[1]
    return int(np.bincount(np.unique(np.stack([cell, patient]), axis=1)[0]).min())


def best_on_validation(readouts: dict[str, Readout]) -> str | None:
    """Returns the probe that read best on validation rows, which are not the rows it is judged on; the first without any."""
    if not readouts:
        return None
    return max(readouts, key=lambda name: np.nan_to_num(readouts[name].validation_auroc, nan=-1))
