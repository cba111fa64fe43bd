"""Encoders trained here: `biascxr train-encoder`, the Dnet_disease and Dnet_race of the MIMIC Racial Fairness code.

A DenseNet on the records' images, global max pooling, dropout, Adam; binary cross-entropy over the findings, or categorical
cross-entropy over the groups of recorded race, sex or age. The seed decides every number: first weights by themselves, and
order, augmentation and dropout as functions of (seed, epoch), so that a training killed after any epoch goes on to the same
weights.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import nullcontext
from pathlib import Path

import pandas as pd

from biascxr.config import to_dict
from biascxr.embeddings.train.data import TrainingData, load_training_data
from biascxr.errors import InputError
from biascxr.run_folder import file_digest, library_versions
from biascxr.verb_config import TrainEncoderConfig

logger = logging.getLogger("biascxr")

NOT_DECIDING = (
    "records",
    "run",
    "output",
    "overwrite",
    "augment",
    "max_rotation",
    "max_shift",
    "max_contrast",
    "max_brightness",
)


def train_encoder(config: TrainEncoderConfig) -> Path:
    """Trains an encoder on a run's records, or goes on from a training that was interrupted.

    Args:
        config: target, records, network and how it is trained.

    Returns:
        The `.keras` file: a plain Keras model in float32 whose layer `vector` is read by `--weights`; `<name>.card.json` beside
        it, and in `<name>.training` TensorBoard's scalars and `history.csv`.

    Raises:
        InputError: the records cannot be learned from, or what is at the output was made by other settings.
    """
    data = load_training_data(config.records_dir(), config.target)
    _check(config, data)

    from biascxr.embeddings.train.state import TrainingState

    output = config.encoder_path()
    folder = output.with_suffix(".training")
    strategy = _strategy(config)
    settings = deciding_settings(config, data, n_devices=1 if strategy is None else strategy.num_replicas_in_sync)
    if _is_made(output, settings):
        logger.info("train-encoder: %s was made by these settings already, reused", output)
        return output
    state = TrainingState(folder / "checkpoint", settings)
    _clear_or_refuse(output, state, overwrite=config.overwrite)
    history = _fit(config, data, strategy, state, folder / "tensorboard")
    pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
    _write_encoder(config, data, state, settings, history, output)
    state.discard()
    return output


def deciding_settings(config: TrainEncoderConfig, data: TrainingData, *, n_devices: int) -> dict:
    """Returns everything that decides the weights, as plain JSON types: settings, data, versions, devices."""
    chosen = {name: value for name, value in to_dict(config).items() if name not in NOT_DECIDING}
    limits = {n: getattr(config, n) for n in ("max_rotation", "max_shift", "max_contrast", "max_brightness")}
    return chosen | {
        "augmentation": limits if config.augment else None,
        "data": data.digest,
        "n_devices": n_devices,
        "versions": library_versions(("keras", "tensorflow")),
    }


def _check(config: TrainEncoderConfig, data: TrainingData) -> None:
    n = len(data.train)
    if n < config.batch_size:
        raise InputError(f"batch_size must be at most the {n} train images that there are; got {config.batch_size}.")
    if config.choose_by == "auroc":
        values = data.validation.values
        if not ((values == 0).any(axis=0) & (values == 1).any(axis=0)).any():
            raise InputError(
                "choose_by auroc: expected validation images with and without a class; got one kind only. Use choose_by loss."
            )


def _strategy(config: TrainEncoderConfig):
    """Returns the strategy that spreads a batch over devices, or None; on a GPU, asks for operations that repeat themselves."""
    import tensorflow as tf

    n_gpus = len(tf.config.list_physical_devices("GPU"))
    if n_gpus:
        # Otherwise sums on a GPU come in any order, and a training that was interrupted would end with other weights.
        tf.config.experimental.enable_op_determinism()
    tf.random.set_seed(config.seed)  # tf.data's shuffle mixes the process's seed into its own
    if config.distribute == "off":
        return None
    strategy = tf.distribute.MirroredStrategy()
    if config.batch_size < strategy.num_replicas_in_sync:
        n_devices = strategy.num_replicas_in_sync
        raise InputError(f"batch_size must be at least the {n_devices} devices of --distribute; got {config.batch_size}.")
    return strategy


def _is_made(output: Path, settings: dict) -> bool:
    card = output.with_suffix(".card.json")
    if not (output.is_file() and card.is_file()):
        return False
    try:
        stated = json.loads(card.read_text(encoding="utf-8"))
    except ValueError:
        return False
    is_same = isinstance(stated, dict) and stated.get("settings") == json.loads(json.dumps(settings))
    return is_same and stated.get("sha256") == file_digest(output)


def _clear_or_refuse(output: Path, state, *, overwrite: bool) -> None:
    """Discards what is at the output, where asked to; otherwise raises InputError for what other settings made."""
    if overwrite:
        if state.exists() and not state.is_of_these_settings():
            state.discard()
        return
    if state.exists():
        state.check()
    elif output.exists():
        raise InputError(
            f"output {output} is there already and was not made by these settings; give another --output, or --overwrite to "
            "replace it."
        )


def _fit(config: TrainEncoderConfig, data: TrainingData, strategy, state, log_dir: Path) -> list[dict]:
    """Trains what is left to train; returns the history of all epochs."""
    import keras
    import tensorflow as tf

    from biascxr.embeddings.precision import dtype_policy
    from biascxr.embeddings.train.augment import Limits
    from biascxr.embeddings.train.batches import Batching, training_batches, validation_batches
    from biascxr.embeddings.train.callbacks import DropoutSeeds, Judge, Keeper
    from biascxr.models import MaskedBinaryCrossentropy

    with dtype_policy(config.mixed_precision), strategy.scope() if strategy is not None else nullcontext():
        model = _network(config, data)
        loss = keras.losses.CategoricalCrossentropy() if data.is_exclusive else MaskedBinaryCrossentropy()
        # XLA makes training on a processor many times slower.
        model.compile(optimizer=keras.optimizers.Adam(config.learning_rate), loss=loss, jit_compile=False)
        model.optimizer.build(model.trainable_variables)
    history = state.restore(model) if state.exists() else []
    if history:
        logger.info("train-encoder: going on after epoch %d of an interrupted training", len(history))
    limits = Limits(config.max_rotation, config.max_shift, config.max_contrast, config.max_brightness)
    batching = Batching(config.batch_size, config.shuffle_buffer, config.seed, limits if config.augment else None)
    n_steps = batching.n_steps(len(data.train))
    logger.info("train-encoder: %s, %d parameters; %d steps an epoch", config.architecture, model.count_params(), n_steps)
    if len(history) == config.epochs:  # killed between the last epoch and the file
        return history
    callbacks = [
        DropoutSeeds(config.seed),
        Judge(data, validation_batches(data, config.batch_size)),
        keras.callbacks.TensorBoard(log_dir, write_graph=False, profile_batch=0),
        Keeper(state, history, epochs=config.epochs, n_steps=n_steps, choose_by=config.choose_by),
    ]
    batches = training_batches(data, batching, first_epoch=len(history), epochs=config.epochs)
    try:
        model.fit(
            batches, initial_epoch=len(history), epochs=config.epochs, steps_per_epoch=n_steps, callbacks=callbacks,
            shuffle=False, verbose=0,
        )  # fmt: skip
    except (tf.errors.DataLossError, tf.errors.NotFoundError, tf.errors.FailedPreconditionError) as error:
        raise _unreadable(error) from error
    except tf.errors.InvalidArgumentError as error:
        if not any(word in error.message for word in ("Invalid PNG", "JPEG", "Shape of tensor", "Could not parse example")):
            raise
        raise _unreadable(error) from error
    return history


def _unreadable(error) -> InputError:
    reason = error.message.splitlines()[0].split(" [Op")[0]
    return InputError(
        f"The records cannot be read to their end: {reason}. Look at them with biascxr inspect --verify, and make them again "
        "with biascxr records."
    )


def _network(config: TrainEncoderConfig, data: TrainingData):
    from biascxr.embeddings.train.network import build_network

    return build_network(
        config.architecture, image_size=data.image_size, n_classes=len(data.classes), target=config.target,
        dropout=config.dropout, norm_momentum=config.norm_momentum, seed=config.seed,
    )  # fmt: skip


def _write_encoder(config, data: TrainingData, state, settings: dict, history: list[dict], output: Path) -> None:
    """Writes the best epoch as a model of its own, in float32 whatever it was trained in, and its card; both appear whole."""
    from biascxr.embeddings.precision import dtype_policy
    from biascxr.embeddings.train.card import trained_card
    from biascxr.embeddings.train.keras_archive import save_reproducibly

    best, weights = state.best_weights()
    with dtype_policy("off"):
        model = _network(config, data)
    model.set_weights(weights)
    save_reproducibly(model, output)
    card = trained_card(data, model, settings, history, best) | {"sha256": file_digest(output)}
    card_file = output.with_suffix(".card.json")
    card_temporary = card_file.with_name(f".{card_file.name}.tmp")
    card_temporary.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    os.replace(card_temporary, card_file)
    logger.info(
        "train-encoder: %s holds epoch %d of %d (validation macro AUROC %s). Use it with --weights %s",
        output, best, len(history), card["validation_macro_auroc"], output,
    )  # fmt: skip
