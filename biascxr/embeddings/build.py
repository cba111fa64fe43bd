"""Embeddings stage: records -> vectors, one shard at a time, into a store in the table's order."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import importlib.metadata
import logging
import os
import shutil
from pathlib import Path

import numpy as np
from tqdm import tqdm

from biascxr.containers import Cohort, EmbeddingSet
from biascxr.embeddings import onnx_graph
from biascxr.embeddings.base import Encoder, is_saved_model
from biascxr.embeddings.graph_encoder import remove_graph, write_graph
from biascxr.embeddings.keras_encoder import KerasEncoder
from biascxr.embeddings.shards import EmbedJob, EncoderSpec, embed_shard, keep_encoder
from biascxr.embeddings.store import KEYS, VECTORS, assemble, made_by
from biascxr.errors import InputError, unknown_name
from biascxr.records import require_shards
from biascxr.work import remove_left_overs, run_jobs

logger = logging.getLogger("biascxr")

GRAPH, BEFORE = "encoder.onnx", "before"

ENCODERS = {
    "densenet121": "biascxr.embeddings.densenet:DenseNet121",
    "densenet169": "biascxr.embeddings.densenet:DenseNet169",
    "densenet201": "biascxr.embeddings.densenet:DenseNet201",
    "keras_file": "biascxr.embeddings.keras_file:KerasFile",
    "saved_model": "biascxr.embeddings.saved_model:SavedModel",
    "onnx": "biascxr.embeddings.onnx_file:OnnxFile",
}
# Encoders whose weights are a whole network, and what --weights must be for them.
WHOLE_NETWORKS = {
    "keras_file": "MODEL.keras",
    "onnx": "MODEL.onnx",
    "saved_model": "FOLDER (of a TensorFlow SavedModel, with its saved_model.pb)",
}


def find_encoder(name: str, weights: str) -> type[Encoder]:
    """Returns the encoder class of that name.

    Args:
        name: key in `ENCODERS`.
        weights: a `.keras` or `.onnx` file or a SavedModel's folder holds a whole network, so it decides the encoder
            whatever the name.

    Raises:
        InputError: an unknown name, with the nearest known one; an encoder of whole networks without one.
    """
    if weights.endswith(".keras"):
        name = "keras_file"
    elif weights.endswith(".onnx"):
        name = "onnx"
    elif is_saved_model(weights):
        name = "saved_model"
    elif name in WHOLE_NETWORKS:
        raise InputError(f"--encoder {name} needs --weights {WHOLE_NETWORKS[name]}; got {weights!r}.")
    if name not in ENCODERS:
        raise unknown_name("encoder", name, ENCODERS)
    module, member = ENCODERS[name].split(":")
    return getattr(importlib.import_module(module), member)


def build_embeddings(
    cohort: Cohort,
    records: Path,
    folder: Path,
    spec: EncoderSpec,
    *,
    n_workers: int | None = None,
    scheduler: str | None = None,
    earlier: Path | None = None,
) -> EmbeddingSet:
    """Embeds every record and writes the store.

    Args:
        cohort: gives the order of the rows; images that the records stage rejected are not in the result.
        records: folder of the records stage.
        folder: where the store is made; shards that an interrupted run finished there are kept.
        spec: from which the encoder is built.
        n_workers: processes where ONNX Runtime computes (default: one per core); Keras uses all cores in one process.
        scheduler: a Dask scheduler whose workers embed the shards; see `biascxr.work.run_jobs`.
        earlier: a finished store. A vector whose stored image and encoder are still the same is taken from there.

    Returns:
        The vectors, rows in the cohort's order.

    Raises:
        InputError: the encoder cannot be built, a shard of records is missing or damaged, or a worker is gone.
    """
    records, folder = records.absolute(), folder.absolute()
    earlier = None if earlier is None else earlier.absolute()
    require_shards(records)
    remove_left_overs(folder)
    earlier = set_aside(folder) or earlier
    encoder = spec.build()
    spec, card = choose_runtime(spec, encoder, folder)
    card |= {"made_by": made_by(card, encoder.libraries)}
    if spec.graph is None:
        keep_encoder(spec, encoder)
        n_workers = 1
    with open(records / "shards.csv", newline="", encoding="utf-8") as file:
        shards = [row for row in csv.DictReader(file) if int(row["n_records"])]
    jobs = [
        EmbedJob(records / s["name"], folder / f"{s['name']}.npz", spec, card["made_by"], card["fingerprint"], earlier)
        for s in shards
    ]
    n_records = {s["name"]: int(s["n_records"]) for s in shards}
    n_images, n_taken = sum(n_records.values()), 0
    with tqdm(total=n_images, desc="embeddings", unit="image", mininterval=0.5) as bar:
        for report in run_jobs(
            embed_shard,
            jobs,
            n_workers=n_workers or os.cpu_count() or 1,
            scheduler=scheduler,
            folder=folder,
            progress=lambda job: bar.update(n_records[job.records.name]),
        ):
            n_taken += report.n_taken
    if n_taken:
        logger.info("embeddings: %s of %s vectors are as they were and are taken over", f"{n_taken:,}", f"{n_images:,}")
    parts = [job.part for job in jobs]
    image_ids = assemble(cohort, parts, folder, vector_length=card["vector_length"])
    for part in parts:
        part.unlink()
    remove_graph(folder / GRAPH)
    shutil.rmtree(folder / BEFORE, ignore_errors=True)
    vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
    constant = int((column_spans(vectors) == 0).sum())
    if constant:
        logger.info("embeddings: %d of %d columns are constant over all images", constant, vectors.shape[1])
    return EmbeddingSet(image_ids, np.zeros(len(image_ids), np.int32), vectors, card)


def set_aside(folder: Path) -> Path | None:
    """Moves aside what a run made that was stopped between its last shard and the end of the stage; returns where it lies."""
    before = folder / BEFORE
    if (folder / KEYS).is_file() and ((folder / VECTORS).is_file() or (before / VECTORS).is_file()):
        before.mkdir(exist_ok=True)
        for name in (VECTORS, KEYS):  # the keys last: where they are, the move is not finished
            if (folder / name).is_file():
                os.replace(folder / name, before / name)
    return before if (before / KEYS).is_file() else None


def column_spans(vectors: np.ndarray) -> np.ndarray:
    """Returns each column's largest less smallest value, `[d]`, read in pieces: a mapped array need not fit in memory."""
    low = np.full(vectors.shape[1], np.inf, np.float32)
    high = -low
    for start in range(0, len(vectors), 8192):
        piece = vectors[start : start + 8192]
        np.minimum(low, piece.min(axis=0), out=low)
        np.maximum(high, piece.max(axis=0), out=high)
    return high - low if len(vectors) else np.zeros(vectors.shape[1], np.float32)


def choose_runtime(spec: EncoderSpec, encoder: Encoder, folder: Path) -> tuple[EncoderSpec, dict]:
    """Decides what computes the vectors: Keras, or ONNX Runtime where it is installed and gives the same.

    Args:
        spec: of the encoder.
        encoder: the encoder, built.
        folder: where the graph is written for the workers.

    Returns:
        The spec that workers build theirs from, and the card, whose `runtime` says what computes.
    """
    card, wanted = encoder.card(), spec.config.runtime
    if not isinstance(encoder, KerasEncoder):
        if wanted == "onnxruntime":
            raise InputError(f"--runtime onnxruntime is for Keras networks; {card['encoder']} has a runtime of its own.")
        return spec, card
    if wanted == "keras" or (wanted == "auto" and (not onnx_graph.is_available() or has_gpu())):
        return spec, card | {"runtime": "keras"}
    if not onnx_graph.is_available():
        raise InputError('--runtime onnxruntime needs ONNX Runtime and the exporter: pip install "biascxr[onnx]".')
    graph = folder / GRAPH
    card |= {"runtime": f"onnxruntime {importlib.metadata.version('onnxruntime')}"}
    try:
        write_graph(encoder, graph, card)
        cosine = onnx_graph.smallest_cosine(encoder, onnx_graph.GraphSession(graph))
    except Exception as error:  # an exporter fails in as many ways as there are layers
        if wanted == "onnxruntime":
            raise InputError(
                f"--runtime onnxruntime: this network cannot be exported ({type(error).__name__}: {error})."
            ) from error
        logger.warning("embeddings: Keras computes; this network cannot be exported to ONNX (%s)", type(error).__name__)
        return spec, encoder.card() | {"runtime": "keras"}
    if not cosine >= onnx_graph.MIN_COSINE:
        message = f"ONNX Runtime's vectors differ from Keras's (cosine {cosine:.6f}, at least {onnx_graph.MIN_COSINE})"
        if wanted == "onnxruntime":
            raise InputError(f"--runtime onnxruntime: {message}.")
        logger.warning("embeddings: %s; Keras computes", message)
        return spec, encoder.card() | {"runtime": "keras"}
    logger.info("embeddings: %s computes, as Keras would (cosine at least %.6f)", card["runtime"], cosine)
    return dataclasses.replace(spec, graph=graph), card


def has_gpu() -> bool:
    """Returns whether Keras sees a GPU."""
    import keras

    return bool(keras.distribution.list_devices("gpu"))
