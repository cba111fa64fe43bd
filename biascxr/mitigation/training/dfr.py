"""`dfr`: deep feature reweighting; the last layer is fitted anew on calibration rows, groups and labels balanced."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import sklearn

from biascxr.errors import InputError
from biascxr.mitigation.training.base import Head, NetworkMethod, NetworkSettings, TrainingTask

# `LogisticRegression` names its penalty in another way since scikit-learn 1.8.
IS_NEW = tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 8)
PENALTIES = {
    "l1": {"solver": "liblinear"} | ({"l1_ratio": 1.0} if IS_NEW else {"penalty": "l1"}),
    "l2": {"solver": "lbfgs", "max_iter": 1000},
}


@dataclass(frozen=True)
class DfrSettings(NetworkSettings):
    """Settings of `dfr`, beside the network's.

    Attributes:
        c: inverse strength of the penalty on the refitted layer, as scikit-learn's `C`; the paper chooses among 0.01 to 1.
        penalty: `l1`, the paper's, or `l2`.
        n_refits: balanced subsamples whose coefficients are averaged; the paper's text has 10, its code 20.
        min_cell: rows that a group must have with the finding and as many without it; for a finding where it has fewer, the
            group stands aside.
    """

    c: float = 1.0
    penalty: str = "l1"
    n_refits: int = 10
    min_cell: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.c > 0:
            raise InputError(f"c must be above 0; got {self.c}.")
        if min(self.n_refits, self.min_cell) < 1:
            raise InputError(f"n_refits and min_cell must be at least 1; got {self.n_refits} and {self.min_cell}.")
        if self.penalty not in PENALTIES:
            raise InputError(f"penalty must be l1 or l2; got {self.penalty!r}.")


class Dfr(NetworkMethod):
    """`erm`, whose last layer is then fitted anew, for each finding on rows where (group, label value) are equally many.

    Follows Kirichenko et al., "Last Layer Re-Training is Sufficient for Robustness to Spurious Correlations", ICLR 2023,
    in its form on held-out rows: features before the last layer are standardised; as many rows as the smallest cell has are
    drawn from each cell, `n_refits` times; a penalised logistic regression is fitted to each draw, and the mean coefficients
    become the layer, standardisation folded in. Differs: the rows are one half of the calibration patients and never those of
    early stopping; `c` is a setting, not tuned; standardised by the refit rows; one binary regression for each finding.

    Rows of unknown group and masked labels are left out. A group with too few rows of either value is left out for that finding
    (with one of its cells empty, the others balanced would teach that the group never has it). Where fewer than two groups
    remain, the finding keeps its `erm` weights; the notes name it.

    When it helps: the features hold what is needed, and the last layer leans on a shortcut. When it harms: few balanced rows
    for many features are a noisier layer than `erm`'s; and it predicts for a prevalence of one half, so that probabilities are
    far above a rare finding's prevalence until they are calibrated.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): harms under
    presentation (-0.76); unclear under prevalence, annotation, acquisition and selection; costs 0.018 of its loss where there
    is no bias.
    """

    name: ClassVar[str] = "dfr"
    Settings: ClassVar[type] = DfrSettings
    uses_calibration: ClassVar[bool] = True

    def _fit(self, task: TrainingTask) -> Head:
        from biascxr.models import features_of, predict_rows
        from biascxr.models.mlp import FINDINGS

        head = super()._fit(task)
        train, calibration = task.train, task.calibration
        if len(calibration) == 0:
            return dataclasses.replace(head, notes=(*head.notes, "no calibration rows: last layer as in erm"))
        cells = self._cells(train)
        rows = self._rows(calibration, np.ones(len(calibration), np.float32), cells, head.demographics)
        features = predict_rows(features_of(head.model), rows).astype(np.float64)
        layer = head.model.get_layer(FINDINGS)
        kernel, bias = layer.get_weights()
        kept, notes = [], []
        for index, label in enumerate(train.label_names):
            labels, rng = rows.labels[:, index], np.random.default_rng([task.seed, index])
            chosen, aside = usable_groups(labels, rows.groups, self.settings.min_cell)
            if len(chosen) < 2:
                kept.append(label)
                continue
            if aside:
                notes.append(f"{label}: too few rows of {', '.join(cells.names[g] for g in aside)}, left out of the refit")
            kernel[:, index], bias[index] = refit(features, labels, rows.groups, chosen, self.settings, rng)
        if kept:
            notes.append(f"fewer than two groups with enough rows of both values, last layer as in erm: {', '.join(kept)}")
        layer.set_weights([kernel, bias])
        return dataclasses.replace(head, notes=(*head.notes, *notes))


def usable_groups(labels: np.ndarray, groups: np.ndarray, min_cell: int) -> tuple[list[int], list[int]]:
    """Returns the groups `[n]` that have `min_cell` rows of both values of a label `[n]`, and the groups that have not."""
    found = np.unique(groups[groups >= 0])
    smaller = {int(g): min(((groups == g) & (labels == value)).sum() for value in (0, 1)) for g in found}
    return [g for g, n in smaller.items() if n >= min_cell], [g for g, n in smaller.items() if n < min_cell]


def refit(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, chosen: list[int], settings: DfrSettings,
    rng: np.random.Generator,
) -> tuple[np.ndarray, float]:  # fmt: skip
    """Fits one finding's last layer on balanced rows.

    Args:
        features: `[n, h] float64`.
        labels: `[n]` in {0, 1, NaN}.
        groups: `[n]`.
        chosen: the groups that are balanced; each has rows of both values.
        settings: see `DfrSettings`.
        rng: what draws the subsamples.

    Returns:
        Coefficients `[h]` on the features as they are, and the intercept.
    """
    from sklearn.linear_model import LogisticRegression

    cells = [np.flatnonzero((groups == g) & (labels == value)) for g in chosen for value in (0, 1)]
    size = min(map(len, cells))
    used = np.concatenate(cells)
    mean, scale = features[used].mean(axis=0), features[used].std(axis=0)
    scale[scale == 0] = 1
    total, intercept = np.zeros(features.shape[1]), 0.0
    for _ in range(settings.n_refits):
        rows = np.concatenate([rng.choice(cell, size, replace=False) for cell in cells])
        model = LogisticRegression(C=settings.c, random_state=int(rng.integers(2**31)), **PENALTIES[settings.penalty])
        model.fit((features[rows] - mean) / scale, labels[rows])
        total += model.coef_[0] / scale / settings.n_refits
        intercept += model.intercept_[0] / settings.n_refits
    return total, float(intercept - total @ mean)
