"""`jtt`: just train twice; what the first head gets wrong counts more for the second."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.errors import InputError
from biascxr.mitigation.training.base import Head, NetworkMethod, NetworkSettings, TrainingTask
from biascxr.mitigation.training.erm import Erm


@dataclass(frozen=True)
class JttSettings(NetworkSettings):
    """Settings of `jtt`, beside the network's.

    Attributes:
        first_epochs: passes of the first head, few: it should have learned what is easy and no more. The paper uses 1 to 60.
        up_weight: how often a wrong label counts for the second head, 1 for `erm`. The paper uses 6 to 100.
    """

    first_epochs: int = 5
    up_weight: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.first_epochs < 1:
            raise InputError(f"first_epochs must be at least 1; got {self.first_epochs}.")
        if not self.up_weight >= 1:
            raise InputError(f"up_weight must be at least 1; got {self.up_weight}.")


class Jtt(NetworkMethod):
    """Two rounds: `erm` for a few passes, then `erm` anew with the training rows that the first got wrong weighted up.

    Follows Liu et al., "Just Train Twice: Improving Group Robustness without Training Group Information", ICML 2021, Algorithm
    1: a label is wrong where (score >= 0.5) differs from it. Differs: a weight stands for `up_weight` copies of a row, which is
    the same in expectation; with many findings a row has one weight, the mean over its known labels of `up_weight` where wrong
    and 1 where right (a row is in a batch once, for all its labels; for one finding it is the paper's); the first head is the
    best by validation of its few passes. The second starts from other initial weights than the first.

    It sees no attribute in training. The paper chooses epochs and weights by the worst group on validation rows whose groups
    are known: `criterion=worst_group_loss` does so for the epochs.

    When it helps: a shortcut learned first, so that the error set is rich in the rows where it fails. When it harms: wrong
    labels are in the error set too and are weighted up; with rare findings and a threshold at 0.5 the error set is little else
    than the positives, so that it acts as class weighting, and probabilities rise above the prevalence: calibrate them. And
    early stopping by the mean loss of validation rows in which the shortcut holds goes back to epochs that use it.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    acquisition (+0.16) and selection (+0.19); harms under presentation (-0.22); no effect under prevalence and annotation.
    """

    name: ClassVar[str] = "jtt"
    Settings: ClassVar[type] = JttSettings

    def _fit(self, task: TrainingTask) -> Head:
        train, seed = task.train, other_seed(task.seed)
        first = Erm(self._first_settings()).fit(train, task.weights, task.validation, seed=seed)
        scores = first.predict(train.vectors, train.attributes)
        factors, is_wrong = error_weights(train.labels, scores, self.settings.up_weight)
        head = super()._fit(dataclasses.replace(task, weights=task.weights * factors))
        share = is_wrong.sum() / max(1, (~np.isnan(train.labels)).sum())
        note = f"error set of the first head: {share:.1%} of the known labels, weight {self.settings.up_weight:g}"
        return dataclasses.replace(head, notes=(*head.notes, note))

    def _first_settings(self) -> NetworkSettings:
        chosen = {f.name: getattr(self.settings, f.name) for f in dataclasses.fields(NetworkSettings)}
        n = self.settings.first_epochs
        return NetworkSettings(**chosen | {"max_epochs": n, "patience": n})


def error_weights(labels: np.ndarray, scores: np.ndarray, up_weight: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns what each row's weight is multiplied by, and which labels are in the error set.

    Args:
        labels: `[n, L]` in {0, 1, NaN}.
        scores: `[n, L]` probabilities.
        up_weight: of a wrong label.

    Returns:
        factors `[n] float32`, the mean over known labels of `up_weight` or 1, 1 for a row without any; errors `[n, L] bool`.
    """
    known = ~np.isnan(labels)
    is_wrong = known & ((scores >= 0.5) != (labels == 1))
    share = is_wrong.sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return (1 + (up_weight - 1) * share).astype(np.float32), is_wrong


def other_seed(seed: int) -> int:
    """Returns a seed that follows from this one, for the first of two rounds."""
    return int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
