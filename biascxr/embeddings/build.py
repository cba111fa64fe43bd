"""Embeddings stage: records -> vectors, one shard at a time, into a store in the table's order."""

from __future__ import annotations

import csv
import importlib
import logging
import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from biascxr.containers import Cohort, EmbeddingSet
from biascxr.embeddings.base import Encoder
from biascxr.errors import InputError, unknown_name
from biascxr.records import decode, decode_example, read_records

logger = logging.getLogger("biascxr")

ENCODERS = {
    "densenet121": "biascxr.embeddings.densenet121:DenseNet121",
    "keras_file": "biascxr.embeddings.keras_file:KerasFile",
}


def find_encoder(name: str, weights: str) -> type[Encoder]:
    """Returns the encoder class of that name.

    Args:
        name: key in `ENCODERS`.
        weights: a `.keras` file holds a whole model, so it is `keras_file` whatever the name.

    Raises:
        InputError: an unknown name, with the nearest known one; `keras_file` without a `.keras` file.
    """
    if weights.endswith(".keras"):
        name = "keras_file"
    elif name == "keras_file":
        raise InputError(f"--encoder keras_file needs --weights MODEL.keras; got {weights!r}.")
    if name not in ENCODERS:
        raise unknown_name("encoder", name, ENCODERS)
    module, member = ENCODERS[name].split(":")
    return getattr(importlib.import_module(module), member)


def build_embeddings(cohort: Cohort, records: Path, folder: Path, encoder: Encoder, *, batch: int) -> EmbeddingSet:
    """Embeds every record and writes the store.

    Args:
        cohort: gives the order of the rows; images that the records stage rejected are not in the result.
        records: folder of the records stage.
        folder: where the store is made; shards that an interrupted run finished there are kept.
        encoder: the network.
        batch: images per forward pass, always full (the last batch is padded, the padding dropped).

    Returns:
        The vectors, rows in the cohort's order.
    """
    with open(records / "shards.csv", newline="", encoding="utf-8") as file:
        shards = list(csv.DictReader(file))
    image_ids: list[str] = []
    parts: list[Path] = []
    with tqdm(total=sum(int(s["n_records"]) for s in shards), desc="embeddings", unit="image", mininterval=0.5) as bar:
        for shard in shards:
            examples = [decode_example(data) for data in read_records(records / shard["name"])]
            image_ids += [e["image_id"][0].decode() for e in examples]
            part = folder / f"{shard['name']}.vectors.npy"
            parts.append(part)
            if part.exists():
                bar.update(len(examples))
                continue
            vectors = np.empty((len(examples), encoder.vector_length), np.float32)
            for start in range(0, len(examples), batch):
                images = np.stack([decode(e["image"][0]) for e in examples[start : start + batch]])
                n = len(images)
                padded = np.concatenate([images, np.repeat(images[-1:], batch - n, axis=0)])
                vectors[start : start + n] = encoder.encode(padded)[:n]
                bar.update(n)
            temporary = part.with_suffix(".tmp")
            with open(temporary, "wb") as file:
                np.save(file, vectors)
            os.replace(temporary, part)
    return _assemble(cohort, np.array(image_ids, object), parts, folder, encoder.card())


def _assemble(cohort: Cohort, image_ids: np.ndarray, parts: list[Path], folder: Path, card: dict) -> EmbeddingSet:
    """Puts the shards' vectors into the cohort's row order."""
    position = {image_id: row for row, image_id in enumerate(image_ids)}
    kept = [i for i in cohort.table["image_id"] if i in position]
    target = np.empty(len(image_ids), np.int64)
    target[[position[i] for i in kept]] = np.arange(len(kept))
    store = np.lib.format.open_memmap(
        folder / "vectors.npy", mode="w+", dtype=np.float32, shape=(len(kept), card["vector_length"])
    )
    start = 0
    for part in parts:
        vectors = np.load(part, allow_pickle=False)
        store[target[start : start + len(vectors)]] = vectors
        start += len(vectors)
    store.flush()
    for part in parts:
        part.unlink()
    vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
    constant = int((np.ptp(vectors, axis=0) == 0).sum())
    if constant:
        logger.info("embeddings: %d of %d columns are constant over all images", constant, vectors.shape[1])
    return EmbeddingSet(np.array(kept, object), np.zeros(len(kept), np.int32), vectors, card)
