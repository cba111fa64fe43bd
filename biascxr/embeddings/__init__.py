"""Embeddings stage: records (or files that hold a vector already) -> `EmbeddingSet`."""

from biascxr.embeddings.base import Encoder, check_weights_path, weights_files
from biascxr.embeddings.build import ENCODERS, build_embeddings, check_encoder, find_encoder
from biascxr.embeddings.precomputed import gather_from, gather_vectors, read_vector
from biascxr.embeddings.shards import EncoderSpec
from biascxr.embeddings.vectors import open_vectors, vector_files

__all__ = [
    "ENCODERS",
    "Encoder",
    "EncoderSpec",
    "build_embeddings",
    "check_encoder",
    "check_weights_path",
    "find_encoder",
    "gather_from",
    "gather_vectors",
    "open_vectors",
    "read_vector",
    "vector_files",
    "weights_files",
]
