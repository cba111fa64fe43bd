"""Shards of the embeddings stage: one shard of records becomes one file of vectors, whoever works on it and in which order."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biascxr.config import EmbeddingsConfig
from biascxr.embeddings.base import Encoder
from biascxr.embeddings.store import KEY_BYTES, KnownVectors, in_precision, maker_of, read_part, row_key, write_part
from biascxr.errors import InputError
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
        from biascxr.embeddings.build import check_encoder
        from biascxr.embeddings.graph_encoder import GraphEncoder

        if self.graph is not None:
            return GraphEncoder(self.graph)
        return check_encoder(self.config)(self.config, image_size=self.image_size, seed=self.seed)


@dataclass(frozen=True)
class EmbedJob:
    """What one worker needs to embed one shard.

    Attributes:
        records: the shard of records.
        part: the file to write.
        encoder: what to build the encoder from.
        made_by: what decides a vector beside its image, see `biascxr.embeddings.store.made_by`.
        encoder_fingerprint: the encoder's own, which a worker's must have.
        earlier: a finished store whose vectors are taken where they were made from the same; None for none.
    """

    records: Path
    part: Path
    encoder: EncoderSpec
    made_by: str
    encoder_fingerprint: str
    earlier: Path | None = None


@dataclass(frozen=True)
class EmbedReport:
    """What came of a shard: its rows, and how many of them were taken from an earlier store."""

    part: Path
    n_rows: int
    n_taken: int


def embed_shard(job: EmbedJob) -> EmbedReport:
    """Embeds one shard, or finds it done by an interrupted run.

    Every forward pass has a full batch, the last one filled up with its last image, and an image's place in it follows from its
    place in the shard alone: a vector's last digits depend on the batch's shape, with some processors on the place in it, too
    (1e-8 was seen), and must not depend on how many images a shard has, or which of them were known. A part holds float32,
    whatever the store's type.

    Raises:
        InputError: the store's type cannot hold a vector.
    """
    if job.part.exists() and maker_of(job.part) == job.made_by:  # another runtime may have worked on it before
        return EmbedReport(job.part, len(read_part(job.part)[0]), 0)
    precision = job.encoder.config.store_precision
    known = KnownVectors.open(job.earlier, precision) if job.earlier is not None else None
    image_ids, keys, rows, n_taken = [], [], [], 0
    for block in batched(read_records(job.records), job.encoder.batch):
        stored = []
        for data in block:
            example = decode_example(data)
            stored.append(example["image"][0])
            image_ids.append(example["image_id"][0].decode())
            keys.append(row_key(stored[-1], job.made_by))
        vectors = [known.get(key) if known is not None else None for key in keys[len(rows) :]]
        n_taken += sum(vector is not None for vector in vectors)
        if any(vector is None for vector in vectors):
            images = [decode(image) for image in stored]
            made = built(job).encode(np.stack(images + [images[-1]] * (job.encoder.batch - len(images))))
            vectors = [new if vector is None else vector for vector, new in zip(vectors, made, strict=False)]
        rows += vectors
    vectors = np.stack(rows) if rows else np.zeros((0, 0), np.float32)
    own_keys = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)
    in_precision(vectors, precision, image_ids)  # what the store cannot hold is said now, not after the last shard
    write_part(job.part, image_ids, own_keys, vectors, made_by=job.made_by)
    return EmbedReport(job.part, len(image_ids), n_taken)


def batched(items: Iterable, n: int) -> Iterator[list]:
    """Yields lists of n items, the last one shorter; `itertools.batched` is Python 3.12's."""
    items = iter(items)
    while block := list(itertools.islice(items, n)):
        yield block


_BUILT: dict[tuple[EncoderSpec, str], Encoder] = {}


def built(job: EmbedJob) -> Encoder:
    """Returns the encoder, built once for all shards that a process works on.

    A worker of a scheduler lives longer than a run: the next one's weights may be others in a file of the same name.

    Raises:
        InputError: what this worker finds under the encoder's name is another one.
    """
    key = (job.encoder, job.encoder_fingerprint)
    if key not in _BUILT:
        encoder = job.encoder.build()
        if encoder.card()["fingerprint"] != job.encoder_fingerprint:
            raise InputError(
                f"The worker on {socket.gethostname()} finds other weights under --weights {job.encoder.config.weights} than "
                "the run does: it needs the same file there, and must not change while a run is at work. With --distribute it "
                "needs as many devices, too."
            )
        keep_encoder(job.encoder, encoder)
    return _BUILT[key]


def keep_encoder(spec: EncoderSpec, encoder: Encoder) -> None:
    """Keeps an encoder that is built already for the shards of this process, in place of an earlier one."""
    _BUILT.clear()
    _BUILT[spec, encoder.card()["fingerprint"]] = encoder
