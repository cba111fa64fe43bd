"""A Keras encoder as an ONNX graph for ONNX Runtime, which is faster on a processor (extra `biascxr[onnx]`)."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from biascxr.embeddings.onnx_rewrites import rewrite
from biascxr.work import written_whole

if TYPE_CHECKING:
    from biascxr.embeddings.keras_encoder import KerasEncoder

logger = logging.getLogger("biascxr")

EXPORTERS = ("onnx", "tf2onnx")  # whose versions decide the graph
MIN_COSINE = 0.9999
MAX_LENGTHENING = 1e-3  # of a vector: a cosine does not see it
N_CHECKED = 4


def is_available() -> bool:
    """Returns whether a Keras model can be exported and run: onnxruntime, onnx and tf2onnx are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("onnxruntime", "onnx", "tf2onnx"))


def export(model, path: Path, *, size: int | None = None) -> None:
    """Writes a Keras model as an ONNX graph, rewritten into a cheaper one of the same function.

    Args:
        model: images `[n, h, w, c] float32` -> vectors `[n, d]`.
        path: the file to write.
        size: height and width of its input where the model leaves them open.
    """
    import onnx

    shape = [size if side is None else side for side in model.input_shape[1:]]
    model(np.zeros((1, *shape), np.float32))  # Keras exports only a model that has been called
    with written_whole(path) as unfinished:
        model.export(unfinished, format="onnx", verbose=False)
        graph = onnx.load(unfinished)
        logger.debug("onnx: changes made: %s", rewrite(graph))
        onnx.save(graph, unfinished)


class GraphSession:
    """An ONNX graph on one thread of the processor; several processes use several cores.

    Args:
        path: the graph.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # fp32 throughout: nothing lets the provider choose another precision.
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        """Returns the vectors `[n, d] float32` of a network's input `[n, h, w, c] float32`."""
        return np.asarray(self._session.run(None, {self._input: batch})[0], np.float32)


def smallest_cosine(encoder: KerasEncoder, session: GraphSession, *, seed: int = 0) -> float:
    """Returns the smallest cosine between an encoder's vectors and its graph's, over made-up films; NaN where lengths differ.

    Args:
        encoder: the Keras encoder.
        session: its graph.
        seed: of the films: noise smoothed at several scales, so that both coarse and fine filters answer.
    """
    import cv2

    rng, side = np.random.default_rng(seed), encoder.input_size
    noise = rng.normal(size=(N_CHECKED, side, side)).astype(np.float32)
    films = np.stack([cv2.GaussianBlur(film, (0, 0), 2.0**scale) for scale, film in enumerate(noise)])
    films = np.rint(127.5 + 127.5 * films / np.abs(films).max(axis=(1, 2), keepdims=True)).astype(np.uint8)
    batch = encoder.prepare(films)
    ours, theirs = np.asarray(encoder.model.predict_on_batch(batch), np.float64), session(batch).astype(np.float64)
    ours_long, theirs_long = np.linalg.norm(ours, axis=1), np.linalg.norm(theirs, axis=1)
    is_sound = np.isfinite(ours).all() and np.isfinite(theirs).all() and (ours_long * theirs_long > 0).all()
    if not is_sound or np.abs(theirs_long / ours_long - 1).max() > MAX_LENGTHENING:
        return float("nan")
    return float(((ours * theirs).sum(axis=1) / (ours_long * theirs_long)).min())
