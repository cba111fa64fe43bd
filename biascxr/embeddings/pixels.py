"""How a network wants its pixels: channels, size, range and normalisation, one row per source of weights.

A weights file does not hold them, and a network fed with another range gives numbers that look like any other.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from biascxr.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
NOT_STATED = "not stated by the weights file"


@dataclass(frozen=True)
class Source:
    """One convention of pixels, under the name of those who trained networks with it.

    Attributes:
        name: key in `SOURCES`.
        channels: numbers of channels that its networks take; the grey image is repeated.
        size: height and width in pixels that its networks were trained at; None is the records' own.
        low: value of black (0), before normalisation.
        high: value of white (255), before normalisation.
        mean: per channel, subtracted.
        deviation: per channel, divided by.
        trained_on: what its networks were trained on, for the card.
    """

    name: str
    channels: tuple[int, ...]
    size: int | None = None
    low: float = 0.0
    high: float = 1.0
    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None
    trained_on: str = NOT_STATED

    def to_input(self, images: np.ndarray, *, channels: int, size: int | None = None) -> np.ndarray:
        """Turns stored grey images into a network's input.

        Args:
            images: `[n, h, w] uint8`.
            channels: of the network; one of `self.channels`.
            size: height and width of the network's input, in pixels; default: that of the images.

        Returns:
            `[n, size, size, channels] float32`, channels last.
        """
        batch = images.astype(np.float32)
        if size is not None:
            batch = resize(batch, size)
        batch = batch / 255.0
        if (self.low, self.high) != (0.0, 1.0):
            batch = batch * np.float32(self.high - self.low) + np.float32(self.low)
        batch = np.repeat(batch[..., None], channels, axis=-1)  # [n, h, w] -> [n, h, w, channels]
        if self.mean is not None:
            batch = (batch - np.float32(self.mean)) / np.float32(self.deviation)
        return batch

    def describe(self, *, channels: int, size: int) -> str:
        """Returns the convention in words, for the card."""
        normalised = f", mean {self.mean} and deviation {self.deviation}" if self.mean is not None else ""
        plural = "" if channels == 1 else "s"
        return f"{self.name}: {channels} channel{plural}, {size} x {size}, {self.low:g} to {self.high:g}{normalised}"


_TXRV = "chest X-rays (TorchXRayVision; the file does not say which of NIH, PadChest, CheXpert, MIMIC-CXR, Google, OpenI, RSNA)"

SOURCES = {
    source.name: source
    for source in (
        # Keras's DenseNets: fully convolutional, run at the size of the records.
        Source("imagenet", (3,), mean=IMAGENET_MEAN, deviation=IMAGENET_DEVIATION),
        Source("unit_range", (1, 3)),
        # torchvision/models/densenet.py: ImageClassification(crop_size=224), its default mean and std.
        Source("torchvision", (3,), 224, mean=IMAGENET_MEAN, deviation=IMAGENET_DEVIATION),
        # Rajpurkar et al., CheXNet, arXiv 1711.05225, section 3; arnoweng/CheXNet and jrzech/reproduce-chexnet do the same.
        Source("chexnet", (3,), 224, 0.0, 1.0, IMAGENET_MEAN, IMAGENET_DEVIATION, "NIH ChestX-ray14 (CheXNet)"),
        # torchxrayvision/utils.py, normalize: (2 x / 255 - 1) 1024; models.py, input_resolution 224.
        Source("torchxrayvision", (1,), 224, -1024.0, 1024.0, trained_on=_TXRV),
    )
}


def source_for(named: str, channels: int, *, weights: str) -> Source:
    """Returns the convention for a network that does not tell more than its channels.

    Args:
        named: the user's choice, a key of `SOURCES`, or `auto`: grey pixels in [0, 1] for one channel, ImageNet's mean and
            deviation for three.
        channels: of the network's input.
        weights: the file, for the message.

    Raises:
        InputError: the named convention has another number of channels.
    """
    source = SOURCES[named] if named != "auto" else SOURCES["unit_range" if channels == 1 else "imagenet"]
    if channels not in source.channels:
        fitting = [name for name, other in SOURCES.items() if channels in other.channels]
        raise InputError(
            f"--weights_source {source.name} is for {' or '.join(map(str, source.channels))} channels; the network in "
            f"{weights} takes {channels}. Give one of: auto, {', '.join(fitting)}."
        )
    return source


def resize(batch: np.ndarray, size: int) -> np.ndarray:
    """Resizes images bilinearly as Pillow and PyTorch do: when shrinking, the filter is as wide as the step (antialiased).

    Args:
        batch: `[n, s, s] float32`.
        size: height and width of the result, in pixels.

    Returns:
        `[n, size, size] float32`; the batch itself where nothing changes.
    """
    if batch.shape[1:] == (size, size):
        return batch
    rows = _resizing(batch.shape[1], size)
    columns = _resizing(batch.shape[2], size)
    return rows @ batch @ columns.T  # [size, s] @ [n, s, s] @ [s, size]


@functools.cache
def _resizing(n_in: int, n_out: int) -> np.ndarray:
    """Returns the matrix `[n_out, n_in] float32` of a bilinear resize along one axis: rows are triangles that sum to 1."""
    step = n_in / n_out
    centre = (np.arange(n_out)[:, None] + 0.5) * step
    distance = np.abs(np.arange(n_in)[None, :] + 0.5 - centre) / max(step, 1.0)
    weights = np.clip(1 - distance, 0, None)
    matrix = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    matrix.flags.writeable = False
    return matrix
