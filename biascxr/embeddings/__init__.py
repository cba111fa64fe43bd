"""Embeddings stage: records (or files that hold a vector already) -> `EmbeddingSet`."""

from biascxr.embeddings.base import Encoder, check_weights_path
from biascxr.embeddings.build import ENCODERS, build_embeddings, find_encoder
from biascxr.embeddings.precomputed import gather_vectors, read_vector

__all__ = ["ENCODERS", "Encoder", "build_embeddings", "check_weights_path", "find_encoder", "gather_vectors", "read_vector"]
