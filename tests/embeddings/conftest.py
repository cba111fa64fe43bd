"""What the encoder tests share: a small network in the place of a deep one."""

import sys

import numpy as np
import pytest

from biascxr.config import EmbeddingsConfig
from biascxr.embeddings import find_encoder

# torchvision imports triton where it is; triton's LLVM and TensorFlow's crash each other in one process. Nothing here needs it.
sys.modules.setdefault("triton", None)

SIZE = 32
BATCH = 4


@pytest.fixture(scope="session")
def stand_in():
    """Function `(channels=1, pooling="max", size=32, head=0) -> Model`: two convolutions, the first 7x7 as DenseNet121's; with
    `pooling="none"` its output is a map, 11 x 11 x 6."""
    keras = pytest.importorskip("keras")

    def make(channels=1, pooling="max", size=SIZE, head=0):
        image = keras.Input((size, size, channels))
        x = keras.layers.Conv2D(8, 7, strides=2, activation="relu")(image)
        x = keras.layers.Conv2D(6, 3, activation="relu", name="maps")(x)
        if pooling == "none":
            return keras.Model(image, x)
        pool = keras.layers.GlobalMaxPooling2D if pooling == "max" else keras.layers.GlobalAveragePooling2D
        x = pool()(x)
        return keras.Model(image, keras.layers.Dense(head)(x) if head else x)

    return make


@pytest.fixture(scope="session")
def make_encoder():
    """Function `(weights, seed=0, size=32, batch=4, pooling="max") -> Encoder`, found as a run finds it."""

    def make(weights, *, seed=0, size=SIZE, batch=BATCH, pooling="max"):
        config = EmbeddingsConfig(weights=str(weights), inference_batch=batch, pooling=pooling)
        return find_encoder(config.encoder, config.weights)(config, image_size=size, seed=seed)

    return make


@pytest.fixture
def images(make_image):
    """One batch, `[4, 32, 32] uint8`."""
    return np.stack([make_image(seed, (SIZE, SIZE)) for seed in range(BATCH)])
