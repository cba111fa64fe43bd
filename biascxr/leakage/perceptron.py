"""`perceptron`: one hidden layer, as in the MIMIC Racial Fairness notebook."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from biascxr.leakage.base import Probe, ProbeRows

DROPOUT, HIDDEN = 0.5, 512
LEARNING_RATE, BATCH_SIZE, MAX_EPOCHS, PATIENCE = 1e-3, 256, 100, 5
HELD_OUT = 0.1  # share of the training patients that stops the training where there are no validation rows
READ_BATCH = 4096
SMALLEST = 1e-7  # probability, under the logarithm


class Perceptron(Probe):
    """Dropout .5, 512 ReLU units, batch normalisation, softmax; stopped early by the cross-entropy on validation rows.

    Architecture and early stopping are the notebook's; learning rate, batch size and patience, which it leaves open or to
    Keras, are Adam's 1e-3, 256 rows and 5 epochs. Where there are no validation rows, a tenth of the training patients is held
    out for stopping and not learned from. Groups that count alike do so in both losses.
    """

    name: ClassVar[str] = "perceptron"
    title: ClassVar[str] = "Perceptron"

    def _scores(self, train, weights, parts, grid, *, validation, seed):
        stopping, learnt = validation, np.arange(len(train))
        if validation is None:
            held = _held_out(train, seed)
            stopping = ProbeRows(train.vectors[held], train.codes[held], train.patient_id[held]) if held.any() else None
            learnt = np.flatnonzero(~held)
        model = _fit(train, learnt, weights, stopping, seed)
        return [[_read(model, part) for part in parts] for _ in grid]


def _held_out(train: ProbeRows, seed: int) -> np.ndarray:
    """Returns `[n] bool`: the rows of a tenth of the patients; of nobody where a group would have no row left to learn from."""
    patients, of_row = np.unique(train.patient_id.astype(str), return_inverse=True)
    drawn = np.random.default_rng(seed).permutation(len(patients))[: round(HELD_OUT * len(patients))]
    held = np.isin(of_row, drawn)
    return held if len(np.unique(train.codes[~held])) == train.codes.max() + 1 else np.zeros(len(train), bool)


def _fit(train: ProbeRows, learnt: np.ndarray, weights: np.ndarray, stopping: ProbeRows | None, seed: int):
    """Returns the fitted network, `[n, d] float32 -> [n, k]`; trained as the heads of the remedies are."""
    import keras

    from biascxr.models.fit import FitSettings, fit_head
    from biascxr.models.trainer import HeadTrainer

    class Trainer(HeadTrainer):
        """Softmax cross-entropy in place of a binary one per label."""

        def row_losses(self, y, y_pred):
            return keras.losses.categorical_crossentropy(y, y_pred)

    n_groups = int(train.codes.max()) + 1
    draw = np.random.SeedSequence(seed).generate_state(4).tolist()  # the layers' own seeds: Keras's global one stays as it is
    vector = keras.Input((train.vectors.shape[1],), name="vector")
    x = keras.layers.Dropout(DROPOUT, seed=draw[0])(vector)
    x = keras.layers.Dense(HIDDEN, activation="relu", kernel_initializer=keras.initializers.GlorotUniform(draw[1]))(x)
    x = keras.layers.BatchNormalization()(x)
    last = keras.layers.Dense(n_groups, activation="softmax", kernel_initializer=keras.initializers.GlorotUniform(draw[2]))
    model = keras.Model(vector, last(x))
    # The weight of a group in training, so that what stops is what is minimised.
    of_group = np.array([weights[train.codes == g][0] for g in range(n_groups)])

    def weighted_loss(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> float:
        losses = -np.log(np.maximum(np.sum(labels * scores, axis=1), SMALLEST))
        return float(np.average(losses, weights=labels @ of_group))

    fit_head(
        Trainer(model),
        _rows(train.vectors, np.eye(n_groups)[train.codes], weights, learnt),
        _rows(train.vectors, np.eye(n_groups)[train.codes], weights, learnt)
        if stopping is None
        else _rows(stopping.vectors, np.eye(n_groups)[stopping.codes], of_group[stopping.codes], np.arange(len(stopping))),
        label_names=tuple(str(g) for g in range(n_groups)),
        settings=FitSettings(LEARNING_RATE, BATCH_SIZE, MAX_EPOCHS if stopping is not None else PATIENCE, PATIENCE),
        seed=draw[3],
        criterion=weighted_loss,
    )
    return model


def _rows(vectors: np.ndarray, labels: np.ndarray, weights: np.ndarray, rows: np.ndarray):
    """Returns the rows as training takes them; `labels [n, k]`, one per group. Nothing is copied where all are wanted."""
    from biascxr.models.batches import Rows

    own = vectors if len(rows) == len(vectors) else vectors[rows]
    return Rows(own, labels[rows].astype(np.float32), weights[rows].astype(np.float32), np.zeros(len(rows), np.int32))


def _read(model, vectors: np.ndarray) -> np.ndarray:
    import keras

    parts = [
        # A direct call: `predict` would build a data pipeline for each part.
        keras.ops.convert_to_numpy(model(vectors[start : start + READ_BATCH], training=False))
        for start in range(0, len(vectors), READ_BATCH)
    ]
    return np.concatenate([np.zeros((0, model.output_shape[-1])), *parts]).astype(np.float64)
