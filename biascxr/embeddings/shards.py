"""Shards of the embeddings stage: one shard of records becomes one file of vectors, whoever works on it and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biascxr.config import EmbeddingsConfig
from biascxr.embeddings.base import Encoder
from biascxr.embeddings.store import KEY_BYTES, KnownVectors, read_part, row_key, write_part
from biascxr.records import decode, decode_example, read_records


@dataclass(frozen=True)
class EncoderSpec:
    """From which a worker builds the run's encoder for itself.

    Attributes:
        config: encoder, weights, pooling, batch.
        image_size: of the records, in pixels.
        seed: of random weights.
        graph: the encoder's ONNX graph where ONNX Runtime computes it; everything is then read from there.
    """

    config: EmbeddingsConfig
    image_size: int
    seed: int
    graph: Path | None = None

    @property
    def batch(self) -> int:
        """Images per forward pass. ONNX Runtime on one thread is fastest with one: what it works on stays in the cache."""
        return self.config.inference_batch if self.graph is None else 1

    def build(self) -> Encoder:
        """Builds the encoder."""
        from biascxr.embeddings.build import find_encoder
        from biascxr.embeddings.graph_encoder import GraphEncoder

        if self.graph is not None:
            return GraphEncoder(self.graph)
        return find_encoder(self.config.encoder, self.config.weights)(self.config, image_size=self.image_size, seed=self.seed)


@dataclass(frozen=True)
class EmbedJob:
    """What one worker needs to embed one shard.

    Attributes:
        records: the shard of records.
        part: the file to write.
        encoder: what to build the encoder from.
        fingerprint: of the encoder and of what computes it, see `biascxr.embeddings.store.made_by`.
        earlier: a finished store whose vectors are taken where they were made from the same; None for none.
    """

    records: Path
    part: Path
    encoder: EncoderSpec
    fingerprint: str
    earlier: Path | None = None


@dataclass(frozen=True)
class EmbedReport:
    """What came of a shard: its rows, and how many of them were taken from an earlier store."""

    part: Path
    n_rows: int
    n_taken: int


def embed_shard(job: EmbedJob) -> EmbedReport:
    """Embeds one shard, or finds it done by an interrupted run.

    Every forward pass has a full batch, the last one filled up with its last image: a vector's last digits depend on the
    batch's shape, and must not depend on how many images a shard has, or which of them were known.
    """
    if job.part.exists():
        image_ids, _, _ = read_part(job.part)
        return EmbedReport(job.part, len(image_ids), 0)
    known = KnownVectors.open(job.earlier) if job.earlier is not None else None
    image_ids, keys, images, waiting = [], [], [], []
    rows: dict[int, np.ndarray] = {}
    encoder, batch, n_taken = None, job.encoder.batch, 0
    for index, data in enumerate(read_records(job.records)):
        example = decode_example(data)
        stored = example["image"][0]
        image_ids.append(example["image_id"][0].decode())
        keys.append(row_key(stored, job.fingerprint))
        vector = known.get(keys[-1]) if known is not None else None
        if vector is not None:
            rows[index], n_taken = vector, n_taken + 1
            continue
        images.append(decode(stored))
        waiting.append(index)
        if len(images) == batch:
            encoder = encoder or built(job.encoder)
            rows |= zip(waiting, encoder.encode(np.stack(images)), strict=True)
            images, waiting = [], []
    if images:
        encoder = encoder or built(job.encoder)
        full = np.stack(images + [images[-1]] * (batch - len(images)))
        rows |= zip(waiting, encoder.encode(full)[: len(images)], strict=True)
    vectors = np.stack([rows[i] for i in range(len(image_ids))]) if rows else np.zeros((0, 0), np.float32)
    write_part(job.part, image_ids, np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES), vectors)
    return EmbedReport(job.part, len(image_ids), n_taken)


_BUILT: dict[EncoderSpec, Encoder] = {}


def built(spec: EncoderSpec) -> Encoder:
    """Returns the encoder, built once for all shards that a process works on."""
    if spec not in _BUILT:
        keep_encoder(spec, spec.build())
    return _BUILT[spec]


def keep_encoder(spec: EncoderSpec, encoder: Encoder) -> None:
    """Keeps an encoder that is built already for the shards of this process, in place of an earlier one."""
    _BUILT.clear()
    _BUILT[spec] = encoder
