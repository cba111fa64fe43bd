"""Does unfairness grow with how strongly the attribute is encoded? Heads along a range of encoding strength."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from biascxr.containers import Attribute
from biascxr.errors import InputError
from biascxr.leakage import MACRO
from biascxr.leakage.dependence.effects import deviations_of, group_differences, logit_of
from biascxr.leakage.dependence.rows import dependence_table, part_codes
from biascxr.metrics import auroc
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.representation.standardize import Standardize

STRENGTHS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)


def dose_response(
    train: SplitData,
    validation: SplitData,
    test: SplitData,
    *,
    attribute: Attribute,
    recipe: str = "",
    strengths: Sequence[float] = STRENGTHS,
    n_seeds: int = 3,
    units: int = 64,
    max_epochs: int = 20,
    n_permutations: int = 1999,
    confidence: float = 0.95,
    seed: int,
) -> pd.DataFrame:
    """Trains heads whose hidden layer is pushed to encode the attribute more or less, and asks whether unfairness follows.

    A head of one hidden layer has a second output that predicts the attribute. What of its loss reaches the hidden layer is
    scaled by s: at s = 0 the second output only watches; below 0 the layer unlearns the attribute (gradient reversal), above
    0 it learns it. Encoding is the macro AUROC of a logistic probe
    on the trained hidden layer, on test; unfairness the mean absolute difference between
    groups' mean logits within a label value, in deviations of a logit, averaged over findings. Measures: `encoding` and
    `unfairness` at each strength (`label` macro, `group` "s = -1", mean over seeds, low and high the extremes of the
    seeds), and `spearman`, the rank correlation of both over all heads; its p-value permutes strengths as a whole, and its
    interval is Fisher's with the variance of Bonett and Wright (2000), over heads, not patients.

    A correlation says that a shortcut through the attribute is at work; none says that over this range encoding hardly
    mattered. Heads of one strength share their data, so the interval speaks of training, not of other patients.

    Args:
        train: rows to learn from.
        validation: rows for early stopping; on the findings' loss alone.
        test: rows to judge.
        attribute: what is encoded.
        recipe: whose vectors they are.
        strengths: s, three at least, with 0 among them.
        n_seeds: heads per strength.
        units: of the hidden layer.
        max_epochs: at most so many passes.
        n_permutations: draws for the p-value.
        confidence: level of the interval.
        seed: of the first head.

    Returns:
        `dependence.csv` rows with evidence `dose_response`; `n`: heads.

    Raises:
        InputError: fewer than three strengths, or none of them 0.

    Reference: Brown et al., "Detecting shortcut learning for fair medical AI using shortcut testing", Nature Communications
        2023 (ShorT). Differs: on vectors; unfairness within the label in place of a gap of TPR, which moves with the threshold.
    """
    if len(set(strengths)) < 3 or 0 not in strengths:
        raise InputError(f"strengths must be three or more, 0 among them; got {tuple(strengths)}.")
    standard = Standardize().fit(train, np.ones(len(train), np.float32))
    parts = tuple(standard.applied_to(part) for part in (train, validation, test))
    made = np.array(
        [
            [_one_head(parts, attribute, s, units=units, max_epochs=max_epochs, seed=seed + i) for i in range(n_seeds)]
            for s in strengths
        ]
    )  # [strengths, seeds, 2]
    common = {"recipe": recipe, "attribute": attribute.name, "evidence": "dose_response", "label": MACRO}
    table = []
    for s, heads in zip(strengths, made, strict=True):
        for measure, values in zip(("encoding", "unfairness"), heads.T, strict=True):
            row = common | {"measure": measure, "group": f"s = {s:g}", "value": values.mean(), "n": n_seeds}
            table.append(row | {"low": values.min(), "high": values.max()})
    table.append(common | {"measure": "spearman", "group": MACRO} | _correlation(made, n_permutations, confidence, seed))
    return dependence_table(table)


def _correlation(made: np.ndarray, n_permutations: int, confidence: float, seed: int) -> dict[str, float]:
    n = made[..., 0].size
    ranks = [stats.rankdata(made[..., i]).reshape(made.shape[:2]) - (n + 1) / 2 for i in (0, 1)]  # centred
    size = np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum())
    value = float((ranks[0] * ranks[1]).sum() / size)
    rng = np.random.default_rng(seed)
    shuffled = (ranks[1][rng.permutation(len(made))] for _ in range(n_permutations))
    null = np.array([(ranks[0] * own).sum() / size for own in shuffled])
    error = np.sqrt((1 + value**2 / 2) / (n - 3)) if n > 3 else np.nan
    half = stats.norm.ppf((1 + confidence) / 2) * error
    centre = np.arctanh(np.clip(value, -1 + 1e-9, 1 - 1e-9))
    return {
        "value": value, "low": float(np.tanh(centre - half)), "high": float(np.tanh(centre + half)),
        "p_value": float((1 + (np.abs(null) >= abs(value) - 1e-12).sum()) / (1 + n_permutations)), "n": n,
    }  # fmt: skip


def _one_head(parts: Sequence[SplitData], attribute: Attribute, strength: float, *, units: int, max_epochs: int, seed: int):
    """Trains a head and returns its encoding and unfairness on the last part."""
    import keras
    from keras import ops

    from biascxr.models.gradient_reversal import GradientReversal
    from biascxr.models.losses import masked_binary_crossentropy

    keras.utils.set_random_seed(seed)
    train, _, test = parts
    k = len(attribute.groups)
    vector = keras.Input((train.vectors.shape[1],))
    hidden = keras.layers.Dense(units, activation="relu")(vector)
    findings = keras.layers.Dense(train.labels.shape[1], activation="sigmoid", name="findings")(hidden)
    scaled = GradientReversal(0.0)  # passes on the gradient times its strength and -1; built with 0, as it takes none below
    watched = scaled(hidden)
    scaled.strength.assign(-strength)
    groups = keras.layers.Dense(k, activation="softmax", name="groups")(watched)

    def group_loss(truth, predicted):  # rows of unknown group are all 0 and add nothing
        return -ops.sum(truth * ops.log(predicted + 1e-7), axis=-1)

    def finding_loss(truth, predicted):
        return ops.mean(masked_binary_crossentropy(truth, predicted), axis=-1)

    model = keras.Model(vector, {"findings": findings, "groups": groups})
    model.compile(keras.optimizers.Adam(3e-3), {"findings": finding_loss, "groups": group_loss}, jit_compile=False)
    codes = [part_codes(part, attribute) for part in parts]
    data = [
        (np.asarray(part.vectors), {"findings": part.labels, "groups": np.eye(k + 1, dtype=np.float32)[own][:, :k]})
        for part, own in zip(parts, codes, strict=True)
    ]
    stop = keras.callbacks.EarlyStopping("val_findings_loss", mode="min", patience=5, restore_best_weights=True)
    model.fit(*data[0], validation_data=data[1], epochs=max_epochs, batch_size=256, callbacks=[stop], verbose=0)
    features = keras.Model(vector, hidden)
    encoding = _encoding([ops.convert_to_numpy(features(x)) for x, _ in data], codes, parts, k, seed)
    logits = logit_of(ops.convert_to_numpy(model(data[2][0], training=False)["findings"]))
    sizes = [
        np.nanmean([abs(e.value) for e in group_differences(logits[:, j], test.labels[:, j], codes[2], n_groups=k)]) / deviation
        for j, deviation in enumerate(deviations_of(logits))
    ]
    return encoding, float(np.nanmean(sizes))


def _encoding(
    hidden: Sequence[np.ndarray], codes: Sequence[np.ndarray], parts: Sequence[SplitData], k: int, seed: int
) -> float:
    """Returns what a logistic probe, trained anew, reads from the hidden layer: macro AUROC on the last part.

    Not the head's own second output: where the layer unlearns, that output is beaten long before the attribute is gone.
    """
    from biascxr.leakage import ProbeRows, find_probe

    train, validation, test = (
        ProbeRows(x[own >= 0], own[own >= 0], part.patient_id[own >= 0])
        for x, own, part in zip(hidden, codes, parts, strict=True)
    )
    scores = find_probe("logistic").read(train, [test.vectors], n_groups=k, validation=validation, seed=seed).scores[0]
    present = np.unique(test.codes)
    return float(np.nanmean([auroc(test.codes == g, scores[:, g]) for g in present]))
