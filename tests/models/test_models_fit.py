"""The head's shape, and how it is trained: seeds, early stopping, scalars."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from biascxr.metrics import auroc
from biascxr.models import FitSettings, HeadTrainer, Rows, build_mlp, fit_head

LABELS = ("Edema", "Pneumonia")


def rows(seed: int, n: int = 64):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, (n, 2)).astype(np.float32)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    x[:, :2] += y
    y[rng.random(y.shape) < 0.1] = np.nan
    return x, y


def as_rows(vectors, labels, weights=None) -> Rows:
    weights = np.ones(len(vectors), np.float32) if weights is None else weights
    return Rows(vectors, labels, weights, np.full(len(vectors), -1, np.int32))


def train(seed: int = 0, *, max_epochs: int = 4, patience: int = 20, rate: float = 0.01, validation=None, log_dir=None, **more):
    keras.utils.set_random_seed(seed)
    model = build_mlp(6, 2, hidden=(16,), dropout=0.3)
    history = fit_head(
        HeadTrainer(model), as_rows(*rows(0)), as_rows(*(validation or rows(1))), label_names=LABELS,
        settings=FitSettings(
            learning_rate=rate, batch_size=16, max_epochs=max_epochs, patience=patience, **more.pop("settings", {})
        ),
        seed=seed, log_dir=log_dir, **more,
    )  # fmt: skip
    return model, history


class TestMlp:
    def test_it_is_biascxrs_network(self):
        model = build_mlp(1376, 14, hidden=(512, 256), dropout=0.3)
        kinds = [type(layer).__name__ for layer in model.layers]
        assert kinds == ["InputLayer", "Dense", "Dropout", "Dense", "Dropout", "Dense"]
        dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
        assert [(layer.units, layer.activation.__name__) for layer in dense] == [(512, "relu"), (256, "relu"), (14, "sigmoid")]
        assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [0.3, 0.3]
        assert model.count_params() == 1376 * 512 + 512 + 512 * 256 + 256 + 256 * 14 + 14

    def test_no_hidden_layer_is_a_logistic_regression(self):
        model = build_mlp(4, 1, hidden=(), dropout=0.0)
        assert model.count_params() == 5

    def test_it_gives_probabilities(self):
        scores = build_mlp(6, 2, hidden=(8,), dropout=0.3).predict(rows(0)[0], verbose=0)
        assert scores.shape == (64, 2) and ((scores > 0) & (scores < 1)).all()


def test_gradients_are_scaled_down_to_the_norm_that_is_asked_for():
    """Adam takes the scale of a gradient out, but for its epsilon of 1e-7: gradients far below that no longer move a weight."""
    free, bound = (train(max_epochs=1, settings=settings)[0].get_weights() for settings in ({}, {"clip_norm": 1e-12}))
    keras.utils.set_random_seed(0)
    initial = build_mlp(6, 2, hidden=(16,), dropout=0.3).get_weights()
    moved = [max(np.abs(a - b).max() for a, b in zip(weights, initial, strict=True)) for weights in (free, bound)]
    assert moved[1] < 1e-5 < 1e-3 < moved[0]


def test_what_a_method_does_between_epochs_is_done_and_moves_the_rate_that_trains():
    class Still(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.optimizer.learning_rate = 0.0

    keras.utils.set_random_seed(0)
    initial = build_mlp(6, 2, hidden=(16,), dropout=0.3).get_weights()
    for weights, untouched in zip(train(callbacks=(Still(),))[0].get_weights(), initial, strict=True):
        np.testing.assert_array_equal(weights, untouched)


def test_one_seed_gives_equal_weights_and_another_seed_others():
    first, again, other = (train(seed)[0].get_weights() for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_history_has_a_row_per_epoch_with_losses_and_auroc_per_finding():
    model, history = train()
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert {"loss", "val_loss", "val_auroc", "val_auroc/Edema", "val_auroc/Pneumonia", "is_best"} <= set(history)
    np.testing.assert_allclose(history["val_auroc"], history[["val_auroc/Edema", "val_auroc/Pneumonia"]].mean(axis=1))
    assert history["loss"].notna().all()
    if history["is_best"].iloc[-1]:
        x, y = rows(1)
        assert history["val_auroc/Edema"].iloc[-1] == pytest.approx(auroc(y[:, 0], model.predict(x, verbose=0)[:, 0]))


def validation_loss(model) -> float:
    x, y = rows(1)
    p = model.predict(x, verbose=0).astype(np.float64)
    return float(np.where(np.isnan(y), 0, -np.where(y == 1, np.log(p), np.log(1 - p))).mean())


def test_training_stops_without_a_lower_validation_loss_and_goes_back_to_the_best_epoch():
    model, history = train(max_epochs=200, patience=3, rate=0.05)
    best = history.loc[history["is_best"], "epoch"].item()
    assert len(history) == best + 3 < 200
    assert validation_loss(model) == pytest.approx(history["val_loss"].min(), rel=1e-4)
    assert history["val_loss"].iloc[-1] > history["val_loss"].min()


def test_the_best_epoch_is_kept_when_the_last_pass_comes_before_patience_runs_out():
    model, history = train(max_epochs=15, patience=100, rate=0.1)
    assert len(history) == 15 and not history["is_best"].iloc[-1]
    assert validation_loss(model) == pytest.approx(history["val_loss"].min(), rel=1e-4)


def test_a_finding_without_positives_in_validation_leaves_the_macro_defined():
    x, y = rows(1)
    y = y.copy()
    y[:, 1] = 0
    _, history = train(validation=(x, y), max_epochs=2)
    assert history["val_auroc/Pneumonia"].isna().all()
    np.testing.assert_array_equal(history["val_auroc"], history["val_auroc/Edema"])


def test_a_row_of_twice_the_weight_is_as_two_rows():
    """Checked where it is exact: no dropout, one full batch, plain gradients on the first step."""
    x, y = rows(0)
    weights = np.ones(64, np.float32)
    weights[:10] = 2
    copies = np.r_[np.arange(64), np.arange(10)]
    made = []
    for vectors, labels, w in ((x, y, weights), (x[copies], y[copies], np.ones(74, np.float32))):
        keras.utils.set_random_seed(0)
        model = build_mlp(6, 2, hidden=(), dropout=0.0)
        history = fit_head(
            HeadTrainer(model), as_rows(vectors, labels, w * len(vectors) / w.sum()), as_rows(*rows(1)), label_names=LABELS,
            settings=FitSettings(learning_rate=0.01, batch_size=128, max_epochs=5, patience=9), seed=0,
        )  # fmt: skip
        made.append((model.get_weights(), history["loss"]))
    for a, b in zip(made[0][0], made[1][0], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_scalars_are_written_for_tensorboard_with_auroc_per_finding(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, history = train(log_dir=tmp_path)
    events = EventAccumulator(str(tmp_path / "validation"), size_guidance={"tensors": 0}).Reload()
    tags = set(events.Tags()["tensors"])
    assert {"epoch_loss", "epoch_auroc", "epoch_auroc/Edema"} <= tags
    assert len(events.Tensors("epoch_auroc")) == len(history)
