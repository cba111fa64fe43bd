"""A Keras encoder as an ONNX graph for ONNX Runtime, which is faster on a processor (extra `biascxr[onnx]`)."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from biascxr.work import written_whole

if TYPE_CHECKING:
    from biascxr.embeddings.keras_encoder import KerasEncoder

logger = logging.getLogger("biascxr")

MIN_COSINE = 0.9999
MAX_LENGTHENING = 1e-3  # of a vector: a cosine does not see it
N_CHECKED = 4


def is_available() -> bool:
    """Returns whether a Keras model can be exported and run: onnxruntime, onnx and tf2onnx are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("onnxruntime", "onnx", "tf2onnx"))


def export(model, path: Path, *, size: int | None = None) -> None:
    """Writes a Keras model as an ONNX graph, its transitions' pooling before their convolutions.

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
        n_moved = pool_first(graph.graph)
        logger.debug("onnx: %d poolings moved before their convolutions", n_moved)
        onnx.save(graph, unfinished)


def pool_first(graph) -> int:
    """Moves each average pooling before the 1x1 convolution that feeds it: the same function, a quarter of the products.

    Both are linear, and a 1x1 convolution mixes channels where the pooling mixes pixels, so they commute as long as the
    convolution adds no bias that zero padding would dilute: a pooling with padding stays where it is. DenseNet has three such
    pairs, its transitions (Huang et al., CVPR 2017, section 3).

    Args:
        graph: an `onnx.GraphProto`, changed in place.

    Returns:
        Number of pairs exchanged.
    """
    maker = {output: node for node in graph.node for output in node.output}
    readers: dict[str, int] = {}
    for name in [name for node in graph.node for name in node.input] + [output.name for output in graph.output]:
        readers[name] = readers.get(name, 0) + 1
    shapes = {item.name: list(item.dims) for item in graph.initializer}
    n_moved = 0
    for pool in [node for node in graph.node if node.op_type == "AveragePool"]:
        convolution = maker.get(pool.input[0])
        if convolution is None or convolution.op_type != "Conv" or readers[pool.input[0]] != 1:
            continue
        attributes = {a.name: list(a.ints) for a in convolution.attribute if a.ints}
        pads = [list(a.ints) for a in pool.attribute if a.name == "pads"]
        is_plain = (
            shapes.get(convolution.input[1], [0] * 4)[2:] == [1, 1]
            and set(attributes.get("strides", [1])) == {1}
            and set(attributes.get("pads", [0])) == {0}
            and not any(any(p) for p in pads)
            and not any(a.name == "auto_pad" and a.s not in (b"NOTSET", b"VALID") for a in pool.attribute)
            and not any(a.name == "ceil_mode" and a.i for a in pool.attribute)
        )
        if not is_plain:
            continue
        before, between, after = convolution.input[0], pool.input[0], pool.output[0]
        pool.input[0], pool.output[0] = before, between
        convolution.input[0], convolution.output[0] = between, after
        n_moved += 1
    _sort(graph)
    return n_moved


def _sort(graph) -> None:
    """Puts the nodes into an order in which each stands behind what it reads, as ONNX asks for."""
    waiting, known = list(graph.node), {item.name for item in graph.initializer} | {item.name for item in graph.input} | {""}
    ordered = []
    while waiting:
        ready = [node for node in waiting if all(name in known for name in node.input)]
        if not ready:
            raise ValueError("The graph has a cycle, or reads what nothing makes.")
        ordered += ready
        known |= {name for node in ready for name in node.output}
        waiting = [node for node in waiting if not any(node is r for r in ready)]
    del graph.node[:]
    graph.node.extend(ordered)


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
