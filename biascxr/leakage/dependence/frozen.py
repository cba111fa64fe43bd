"""The attribute erased below the last layer of a trained head, nothing trained anew: do its predictions change?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from biascxr.containers import UNKNOWN, Attribute
from biascxr.errors import InputError
from biascxr.leakage import MACRO
from biascxr.leakage.dependence.effects import (
    NEGLIGIBLE,
    Effect,
    auroc_of,
    aurocs_of,
    deviations_of,
    equality_contrast,
    group_differences,
    log_loss_of,
    log_losses_of,
    rms_change,
    towards_equality,
)
from biascxr.leakage.dependence.rows import ScoredRows, dependence_table
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.representation.leace import Leace, LeaceSettings
from biascxr.mitigation.training.base import Head
from biascxr.mitigation.vector_table import VectorTable, mean_and_scale, principal_axes

RMS, AUROC, LOSS, DIFFERENCE = "rms_logit_change", "auroc_change", "log_loss_change", "group_difference_change"
MEASURES = (RMS, AUROC, LOSS, DIFFERENCE)


@dataclass(frozen=True)
class LastLayer:
    """A head below and in its last layer: `logit = hidden kernel + bias`.

    Attributes:
        head: the trained head.
        kernel: `[h, L] float64`.
        bias: `[L] float64`.
    """

    head: Head
    kernel: np.ndarray
    bias: np.ndarray

    def hidden(self, vectors: np.ndarray, attributes: pd.DataFrame | None = None) -> np.ndarray:
        """Returns what the last layer takes of these vectors `[n, d]`, dropout off: `[n, h] float32`."""
        from biascxr.models import features_of

        return Head(features_of(self.head.model), demographics=self.head.demographics).predict(vectors, attributes)


@dataclass(frozen=True)
class OpenedHead:
    """A head's last layer, or None with the reason why there is nothing to erase from."""

    layer: LastLayer | None
    reason: str = ""


@dataclass(frozen=True)
class HiddenRows:
    """What the last layer takes, of rows to fit the erasure on and of rows to judge.

    Attributes:
        train: `[m, h]`, of training rows.
        train_labels: `[m, L]` in {0, 1, NaN}.
        train_codes: `[m]`, -1 unknown.
        test: `[n, h]`, of the rows that are judged.
        kernel: `[h, L]`.
        bias: `[L]`.
    """

    train: np.ndarray
    train_labels: np.ndarray
    train_codes: np.ndarray
    test: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray

    def __post_init__(self) -> None:
        width, n_labels = self.kernel.shape
        if self.train.shape[1] != width or self.test.shape[1] != width:
            raise InputError(
                f"train and test must have one column per row of the kernel, {width}; got {self.train.shape[1]} and "
                f"{self.test.shape[1]}."
            )
        if self.bias.shape != (n_labels,) or self.train_labels.shape != (len(self.train), n_labels):
            raise InputError(
                f"bias and train_labels must match {n_labels} findings and {len(self.train)} training rows; got "
                f"{self.bias.shape} and {self.train_labels.shape}."
            )
        if len(self.train_codes) != len(self.train):
            raise InputError(
                f"train_codes must have one value per training row, {len(self.train)}; got {len(self.train_codes)}."
            )


def hidden_of(head: Head) -> OpenedHead:
    """Opens a trained head at its last layer, where that is one dense layer of all findings.

    A head without a hidden layer works too: what its last layer takes is the vector itself.
    """
    import keras

    from biascxr.models.mlp import FINDINGS

    layer = next((one for one in head.model.layers if one.name == FINDINGS), None)
    if not isinstance(layer, keras.layers.Dense):
        return OpenedHead(
            None, f"its last layer is not one dense layer named {FINDINGS!r}, so no logit is linear in one vector"
        )
    if layer.activation is not keras.activations.sigmoid or layer.output is not head.model.output:
        return OpenedHead(None, f"its dense layer {FINDINGS!r} is not the last step to the probabilities")
    kernel = keras.ops.convert_to_numpy(layer.kernel).astype(np.float64)
    bias = keras.ops.convert_to_numpy(layer.bias).astype(np.float64) if layer.use_bias else np.zeros(kernel.shape[1])
    return OpenedHead(LastLayer(head, kernel, bias))


def frozen_head(
    hidden: HiddenRows,
    rows: ScoredRows,
    *,
    recipe: str = "",
    n_random: int = 400,
    confidence: float = 0.95,
    seed: int,
) -> pd.DataFrame:
    """Erases the attribute, given the labels, from what the last layer takes, and compares with erasing anything else.

    Amnesic probing with its control. The erasure is LEACE on the residual of the attribute after the labels
    (`leace`, `within_label`), fitted on the training rows: what is readable of the attribute only because it goes with the
    findings stays, so that a group with more disease may be scored higher for its disease. The control takes out random
    subspaces of the same rank, uniform in the whitened space of the same activations: only directions that vary on the
    training rows count, so that dead units and rank deficiency do not make the control too easy. The answer is whether
    the attribute's directions matter more to the findings than directions in general.

    Measures, per finding and macro (mean over findings): `rms_logit_change` over the judged rows, in units of the logit's
    deviation; `auroc_change` and `log_loss_change` (after less before) for the label; `group_difference_change`: by
    how much the groups' mean logits within a label value moved apart (above 0) or together (`effects.towards_equality`), in
    units of the logit's deviation before. The interval keeps patients together (influence
    values), the erasure taken as given.

    Linear erasure from a layer that a linear layer follows is complete for that layer: no other direction of the same
    information is left for the logit. It does not say what a head trained anew would do (`retrained`).

    Args:
        hidden: activations, kernel and bias; `test` row by row as `rows`.
        rows: the judged rows. Their scores are not used: calibration may have changed them.
        recipe: whose head it is.
        n_random: random subspaces, 200 at least for a p-value of use.
        confidence: level of the intervals.
        seed: of the random subspaces.

    Returns:
        `dependence.csv` rows. `control_low, control_high`: the middle `confidence` of the control. `p_value` of
        `rms_logit_change` macro: share of random subspaces, the attribute's included, that change as much; of a finding: share
        whose *largest* change over the findings is as large, so that the findings' p-values hold jointly; of the other
        measures: share with as large an absolute change, each for itself. `n`: patients.

    Raises:
        InputError: lengths or the findings' numbers differ.

    Reference: Elazar, Ravfogel, Jacovi and Goldberg, "Amnesic probing", TACL 2021, with their control by random directions.
        Differs: LEACE in place of INLP; conditional on the labels; the control is drawn in the whitened space, and the rank
        is the attribute's, not an iteration count.
    """
    if len(hidden.test) != len(rows) or hidden.kernel.shape[1] != len(rows.label_names):
        raise InputError(
            f"hidden.test and kernel must match the {len(rows)} rows and {len(rows.label_names)} findings; got "
            f"{len(hidden.test)} and {hidden.kernel.shape[1]}."
        )
    before = np.asarray(hidden.test, np.float64) @ hidden.kernel + hidden.bias
    eraser = _fit_eraser(hidden, rows.attribute, rows.label_names)
    judged = _Judged(rows, before)
    n_defined = len(np.unique(hidden.train_codes[hidden.train_codes >= 0]))
    if n_defined < 2:
        return judged.table(recipe, None, [], confidence)
    after = np.asarray(eraser.transform(hidden.test), np.float64) @ hidden.kernel + hidden.bias
    rank = eraser.state["left"].shape[1] if "left" in eraser.state else 0
    controls = [judged.values(-taken) for taken in _random_changes(hidden, rank, n_random, seed)]
    return judged.table(recipe, after - before, controls, confidence)


def _fit_eraser(hidden: HiddenRows, attribute: Attribute, label_names: tuple[str, ...]) -> Leace:
    names = np.array([*attribute.groups, UNKNOWN], object)  # code -1 is the last
    number = np.arange(len(hidden.train)).astype(str)
    data = SplitData(
        "train", np.asarray(hidden.train, np.float32), np.asarray(hidden.train_labels, np.float32),
        pd.DataFrame({attribute.name: names[hidden.train_codes]}), number, label_names, number,
    )  # fmt: skip
    settings = LeaceSettings(attributes=(attribute.name,), within_label=True)
    return Leace(settings).fit(data, np.ones(len(number), np.float32))


def _random_changes(hidden: HiddenRows, rank: int, n_random: int, seed: int):
    """Yields what each random subspace takes off the logits, `[n, L]`."""
    table, weights = VectorTable.of(np.asarray(hidden.train, np.float32)), np.ones(len(hidden.train))
    mean, scale = mean_and_scale(table, weights)
    values, axes = principal_axes(table, weights, mean, scale)
    whitened = ((np.asarray(hidden.test, np.float64) - mean) * scale) @ (axes / np.sqrt(values))
    # The kernel as seen from there: logit = whitened (W^+ kernel) + a constant.
    kernel = (axes * np.sqrt(values)).T @ (hidden.kernel * np.where(scale > 0, 1 / np.where(scale > 0, scale, 1), 0)[:, None])
    rng = np.random.default_rng(seed)
    for _ in range(n_random):
        basis, _ = np.linalg.qr(rng.normal(size=(len(values), min(rank, len(values)))))
        yield (whitened @ basis) @ (basis.T @ kernel)


class _Judged:
    """The rows and their logits before `[n, L]`, with what is the same for every change of them."""

    def __init__(self, rows: ScoredRows, before: np.ndarray) -> None:
        self.rows, self.before = rows, before
        self.deviations = deviations_of(before)
        columns = range(before.shape[1])
        self.differences = [self._differences(before[:, j], j) for j in columns]
        self.contrasts = np.stack([equality_contrast(self.differences[j], rows.labels[:, j], rows.codes) for j in columns])
        self.aurocs = aurocs_of(rows.labels, before)
        self.losses = log_losses_of(rows.labels, before)

    def _differences(self, logit: np.ndarray, finding: int) -> list[Effect]:
        k = len(self.rows.attribute.groups)
        return group_differences(logit, self.rows.labels[:, finding], self.rows.codes, n_groups=k)

    def values(self, change: np.ndarray) -> dict[str, np.ndarray]:
        """Returns per measure `[L]` what a change of the logits `[n, L]` comes to."""
        after = self.before + change
        return {
            RMS: np.sqrt(np.mean(change**2, axis=0)) / self.deviations,
            AUROC: aurocs_of(self.rows.labels, after) - self.aurocs,
            LOSS: log_losses_of(self.rows.labels, after) - self.losses,
            DIFFERENCE: np.einsum("ln,nl->l", self.contrasts, change) / self.deviations,
        }

    def effects(self, change: np.ndarray) -> dict[str, list[Effect]]:
        """Returns per measure and finding the value of `values`, with its influence values."""
        labels, patients = self.rows.labels, self.rows.patient_id
        made = {measure: [] for measure in MEASURES}
        for j, deviation in enumerate(self.deviations):
            old, new, label = self.before[:, j], self.before[:, j] + change[:, j], labels[:, j]
            made[RMS].append(rms_change(old, new))
            made[AUROC].append(auroc_of(label, new, patients).minus(auroc_of(label, old, patients)))
            made[LOSS].append(log_loss_of(label, new).minus(log_loss_of(label, old)))
            made[DIFFERENCE].append(towards_equality(self.differences[j], self._differences(new, j)).times(1 / deviation))
        return made

    def table(
        self, recipe: str, change: np.ndarray | None, controls: list[dict[str, np.ndarray]], confidence: float
    ) -> pd.DataFrame:
        """Puts the values beside their controls; `change` is None where there was no group to erase."""
        patient = np.unique(self.rows.patient_id.astype(str), return_inverse=True)[1]
        common = {"recipe": recipe, "attribute": self.rows.attribute.name, "evidence": "frozen_head", "group": MACRO}
        common["n"] = int(patient.max(initial=-1)) + 1
        effects = None if change is None else self.effects(change)
        table = []
        for measure in MEASURES:
            random = np.array([control[measure] for control in controls])  # [R, L]
            for j, label in enumerate((*self.rows.label_names, MACRO)):
                row = common | {"measure": measure, "label": label}
                if effects is not None:
                    own = effects[measure]
                    effect = Effect.mean(own) if label == MACRO else own[j]
                    row["value"] = effect.value
                    row["low"], row["high"] = effect.interval(patient, confidence)
                if len(random) and np.isfinite(row["value"]):
                    drawn = np.nanmean(random, axis=1) if label == MACRO else random[:, j]
                    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
                    row["control_low"], row["control_high"] = np.quantile(drawn, tails)
                    # A change below rounding is none: nothing erased is nothing changed, as of every random subspace of rank 0.
                    drawn = np.nanmax(random, axis=1) if measure == RMS and label != MACRO else drawn
                    as_large = np.abs(drawn) >= abs(row["value"]) - NEGLIGIBLE
                    row["p_value"] = (1 + as_large.sum()) / (1 + len(drawn))
                table.append(row)
        return dependence_table(table)
