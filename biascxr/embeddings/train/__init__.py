"""Encoders trained here, on the records of a run: `biascxr train-encoder`."""

from biascxr.embeddings.train.run import train_encoder

__all__ = ["train_encoder"]
