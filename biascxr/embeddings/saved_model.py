"""A TensorFlow SavedModel as encoder: CXR Foundation's, which takes serialized Examples, or one that takes images."""

from __future__ import annotations

import logging
from typing import ClassVar

import numpy as np

from biascxr.embeddings.foreign import ForeignNetwork
from biascxr.embeddings.image_input import ImageInput
from biascxr.embeddings.signature import find_signature, read_input, read_output
from biascxr.errors import InputError
from biascxr.records import encode_example
from biascxr.records.image import encode as encode_image

logger = logging.getLogger("biascxr")

FOUNDATION_INPUT = "input_example"
FOUNDATION_PIXELS = 1024  # what CXR Foundation wants at least, height and width


class SavedModel(ForeignNetwork):
    """A SavedModel's signature `serving_default`, or its only one, with one input.

    - Text input: one serialized `tf.train.Example` per image with the PNG under `image/encoded` and `png` under `image/format`,
      as CXR Foundation takes it (`elixr-c-v2-pooled`: `input_example` -> `feature_maps_0`, `[1, 8, 8, 1376]`; its graph takes
      one image at a time, so each is sent alone). An input whose name ends in `_bytes` gets the PNG itself, TensorFlow
      Serving's convention. Such a model resizes and scales for itself; CXR Foundation wants 1024 pixels or more.
    - Integer input: pixels from 0 to 255. Float input: as `weights_source` says, by default as for `keras_file`.

    The output that `layer` names is read; otherwise `embedding` or `feature_maps_0`, otherwise the only one. A map, or a list
    of vectors, is pooled as `pooling` says (CXR Foundation's own 1376-d vector is an average: `--pooling avg`).

    A SavedModel is a program and can read and write files: use one from a source you trust. `<folder>.card.json` beside the
    folder may say `trained_on`.

    Reference: Sellergren et al., Simplified Transfer Learning for Chest Radiography Models Using Less Data, Radiology 2022;
    Xu et al., ELIXR, arXiv 2308.01317; the signature as the quick start of google/cxr-foundation calls it.
    """

    name: ClassVar[str] = "saved_model"
    libraries: ClassVar[tuple[str, ...]] = ("tensorflow", "opencv-python-headless")

    def _open(self) -> tuple[ImageInput, str]:
        import tensorflow as tf

        try:
            # Held on to: the signature alone does not keep its variables alive.
            self._loaded = tf.saved_model.load(str(self._path))
        except (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, tf.errors.OpError) as error:
            text = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
            advice = " Its operations are tensorflow-text's: pip install tensorflow-text." if "Sentencepiece" in text else ""
            raise InputError(f"--weights {self._path}: TensorFlow cannot load this SavedModel: {text}.{advice}") from error
        self._signature_name, self._signature = find_signature(self._loaded, self._path)
        found = read_input(self._signature, self._path)
        if found.argument == FOUNDATION_INPUT and self._image_size < FOUNDATION_PIXELS:
            logger.warning(
                "saved_model: CXR Foundation takes images of %d pixels or more, the records hold %d: set --image_size %d",
                FOUNDATION_PIXELS, self._image_size, FOUNDATION_PIXELS,
            )  # fmt: skip
        return found, read_output(self._signature, self._config.layer, self._path)

    def _prepare(self, images: np.ndarray) -> np.ndarray:
        if self._input.kind == "pixels":
            return super()._prepare(images)
        files = [encode_image(image, "png") for image in images]
        if self._input.kind == "example":
            files = [encode_example({"image/encoded": data, "image/format": "png"}) for data in files]
        return np.array(files, object)

    def _run(self, inputs: np.ndarray) -> np.ndarray:
        import tensorflow as tf

        try:
            return self._signature(**{self._input.argument: tf.constant(inputs)})[self._output].numpy()
        except tf.errors.OpError as error:
            # TensorFlow says where in the graph first, then what, then (after a tab) the node again.
            reason = [line for line in error.message.splitlines() if line.strip() and not line.startswith("\t")][-1]
            given = self._input.describe(self._source, self._image_size)
            raise InputError(
                f"--weights {self._path}: the model cannot take what it is given ({given}): {reason[:300]}"
            ) from error

    def _reading(self) -> tuple:
        return (self._signature_name,)
