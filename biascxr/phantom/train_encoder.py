"""Trains the small encoder that the demo embeds its films with, on another made-up cohort.

The shipped `encoder.keras` and `encoder.card.json` were made by

    python -m biascxr.phantom.train_encoder biascxr/phantom/encoder.keras --n_patients 1600 --seed 20000 --epochs 12

No bias is planted in the training films (strength 0): what the demo finds is planted in the demo's films, not learned here.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

# phantom is no stage: nothing to its right depends on it, so it may use any stage. Here it reads the table, the films and
# the loss as the pipeline does, so that the demo's films look to the encoder as its training films did.
from biascxr.cohort import build_cohort
from biascxr.config import CohortConfig
from biascxr.containers import Cohort
from biascxr.errors import InputError
from biascxr.metrics import auroc
from biascxr.phantom.config import PhantomConfig
from biascxr.phantom.write import make_phantom
from biascxr.records.image import read_grey, standardise

IMAGE_SIZE = 256  # pixels, the pipeline's default
SEED = 20000  # far from the demo's 0 and its neighbours, so that no film is seen twice
STEM = (24, 7, 4)  # channels, kernel, stride: a stride of 4 keeps it fast, a kernel of 7 still sees lines 5 pixels apart
BLOCKS = (((40, 2), (40, 1)), ((64, 2), (64, 1)), ((96, 2), (128, 1)))  # per block: channels and stride of each convolution
BATCH_SIZE, LEARNING_RATE, MAX_SHIFT = 32, 2e-3, 10  # films, of Adam at its first step, pixels


def build_encoder():
    """Builds the network: a strided stem and three blocks of 3 x 3 convolutions.

    The vector holds, per channel, the mean and the maximum over the film of the stem and of each block, and the mean absolute
    response of the stem's filters. The deep blocks tell findings apart. The stem keeps what deep layers average away: the fine
    pattern that a machine leaves all over a film. The last layer, `vector`, brings each number to mean 0 and deviation 1 over
    the training films, as no head is trained well on columns of unequal size.

    Returns:
        A functional `keras.Model`, `[n, 256, 256, 1] float32` in [0, 1] -> `[n, 536] float32`.
    """
    import keras
    from keras import layers, ops

    def convolve(x, channels: int, kernel: int, stride: int):
        return layers.Conv2D(channels, kernel, strides=stride, padding="same", use_bias=False)(x)

    def activate(x):
        return layers.ReLU()(layers.BatchNormalization(momentum=0.95)(x))

    inputs = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 1), name="film")
    response = convolve(inputs, *STEM)
    x = activate(response)
    outputs = [x]
    for block in BLOCKS:
        for channels, stride in block:
            x = activate(convolve(x, channels, 3, stride))
        outputs.append(x)
    pooled = [ops.mean(ops.abs(response), axis=(1, 2))]
    for x in outputs:
        pooled += [ops.mean(x, axis=(1, 2)), ops.max(x, axis=(1, 2))]
    vector = layers.BatchNormalization(momentum=0.95, center=False, scale=False, name="vector")
    return keras.Model(inputs, vector(layers.Concatenate()(pooled)), name="phantom_encoder")


def read_films(cohort: Cohort) -> np.ndarray:
    """Reads a cohort's films in the form the records stage stores them, `[n, 256, 256] uint8`."""
    paths = tqdm(cohort.table["path"], desc="reading films", unit="film")
    return np.stack([standardise(read_grey(cohort.images_root / p), size=IMAGE_SIZE, equalize=True) for p in paths])


def train(films: np.ndarray, cohort: Cohort, *, epochs: int, seed: int):
    """Trains the encoder with a sigmoid per label on top; the split's validation patients choose the epoch.

    The other three splits are all trained on: this cohort is never audited.

    Args:
        films: `[n, 256, 256] uint8`, in the cohort's order.
        cohort: labels `[n, L]` in {0, 1, NaN} and splits.
        epochs: passes over the training films; the learning rate falls to 0 along half a cosine.
        seed: of initial weights, order and shifts.

    Returns:
        The encoder at its best epoch, and that epoch's validation macro AUROC (NaN where no label has both classes).
    """
    import keras

    from biascxr.models import MaskedBinaryCrossentropy

    keras.utils.set_random_seed(seed)
    is_validation = (cohort.table["split"] == "validation").to_numpy()
    held_out = films[is_validation, ..., None].astype(np.float32) / 255.0
    batches = _shifted_batches(films[~is_validation], cohort.labels[~is_validation], seed=seed)
    encoder = build_encoder()
    # Half of the vector is dropped in training: each finding is then read from many of its numbers, not from a few.
    dropped = keras.layers.Dropout(0.5)(encoder.output)
    findings = keras.layers.Dense(len(cohort.label_names), activation="sigmoid", name="findings")(dropped)
    model = keras.Model(encoder.input, findings)
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, epochs * len(batches))
    # Compiling the step takes longer than it saves on a processor.
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=MaskedBinaryCrossentropy(), jit_compile=False)
    best = keras.callbacks.EarlyStopping("val_auroc", mode="max", patience=epochs, restore_best_weights=True)
    watch = _watch(held_out, cohort.labels[is_validation])
    fitted = model.fit(batches, epochs=epochs, callbacks=[watch, best, _progress()], verbose=0)
    aurocs = np.array(fitted.history["val_auroc"])
    return encoder, float("nan") if np.isnan(aurocs).all() else float(np.nanmax(aurocs))


def _shifted_batches(films: np.ndarray, labels: np.ndarray, *, seed: int):
    """Batches of films moved by up to `MAX_SHIFT` pixels in each direction, in a new order each epoch."""
    import keras

    rng = np.random.default_rng(seed)

    class Batches(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__()
            self._order = rng.permutation(len(films))

        def __len__(self) -> int:
            return -(-len(films) // BATCH_SIZE)

        def __getitem__(self, index: int):
            rows = self._order[index * BATCH_SIZE : (index + 1) * BATCH_SIZE]
            batch = np.stack([_shift(films[row], *rng.integers(0, 2 * MAX_SHIFT + 1, 2)) for row in rows])
            return batch[..., None].astype(np.float32) / 255.0, labels[rows]

        def on_epoch_end(self) -> None:
            self._order = rng.permutation(len(films))

    return Batches()


def _shift(film: np.ndarray, down: int, right: int) -> np.ndarray:
    """A window of a film whose edges are repeated outwards; `MAX_SHIFT` down and right is the film itself."""
    padded = np.pad(film, MAX_SHIFT, mode="edge")
    return padded[down : down + IMAGE_SIZE, right : right + IMAGE_SIZE]


def _watch(films: np.ndarray, labels: np.ndarray):
    """Adds the macro AUROC of held-out films to the scalars of each epoch; NaN where no label has both classes."""
    import keras

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
            scores = keras.ops.convert_to_numpy(self.model(films, training=False))
            values = np.array([auroc(labels[:, i], scores[:, i]) for i in range(labels.shape[1])])
            logs["val_auroc"] = float("nan") if np.isnan(values).all() else float(np.nanmean(values))

    return Watch()


def _progress():
    import keras

    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: print(
            f"epoch {epoch + 1}: loss {logs['loss']:.4f}, validation macro AUROC {logs['val_auroc']:.3f}", flush=True
        )
    )


def train_encoder(output: Path, *, n_patients: int = 1600, seed: int = SEED, epochs: int = 12) -> Path:
    """Draws a cohort without planted bias, trains an encoder on it, and writes it with its card.

    Args:
        output: the `.keras` file; `<name>.card.json` is written beside it.
        n_patients: patients drawn; about 2.1 films each.
        seed: of the cohort and of the training; never the demo's.
        epochs: passes over the films.

    Returns:
        `output`.

    Raises:
        InputError: `output` does not end in `.keras`, or the seed is that of the demo.
    """
    import keras

    output = Path(output)
    if output.suffix != ".keras":
        raise InputError(f"`output` must be a file that ends in .keras. Received: {output}.")
    if seed == PhantomConfig().seed:
        raise InputError(f"`seed` must not be the demo's ({seed}): the demo would be embedded by what was trained on it.")
    if epochs < 1:
        raise InputError(f"`epochs` must be 1 or more. Received: {epochs}.")
    with tempfile.TemporaryDirectory() as folder:
        table = make_phantom(PhantomConfig(n_patients=n_patients, seed=seed, strength=0.0), Path(folder) / "phantom")
        cohort = build_cohort(table, None, CohortConfig(uncertain_policy="ignore"), seed=seed)
        encoder, auroc = train(read_films(cohort), cohort, epochs=epochs, seed=seed)
    output.parent.mkdir(parents=True, exist_ok=True)
    encoder.save(output)
    cohort_in_words = f"phantom seed {seed}, {n_patients:,} patients, {len(cohort):,} films, mechanism strength 0"
    flags = f"--n_patients {n_patients} --seed {seed} --epochs {epochs}"
    card = {
        "trained_on": f"made-up films ({cohort_in_words})",
        "phantom_seed": seed,
        "n_patients": n_patients,
        "n_films": len(cohort),
        "mechanism_strength": 0.0,
        "command": f"python -m biascxr.phantom.train_encoder {output} {flags}",
        "keras_version": keras.__version__,
        "validation_macro_auroc": None if np.isnan(auroc) else round(auroc, 4),
    }
    output.with_suffix(".card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return output


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m biascxr.phantom.train_encoder OUTPUT.keras [--n_patients N] [--seed S] [--epochs E]`."""
    parser = argparse.ArgumentParser(prog="python -m biascxr.phantom.train_encoder", description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, metavar="OUTPUT.keras")
    parser.add_argument("--n_patients", type=int, default=1600, help="patients drawn (default: 1600)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"seed of films and training (default: {SEED})")
    parser.add_argument("--epochs", type=int, default=12, help="passes over the films (default: 12)")
    chosen = parser.parse_args(arguments)
    print(train_encoder(chosen.output, n_patients=chosen.n_patients, seed=chosen.seed, epochs=chosen.epochs))


if __name__ == "__main__":
    main()
