"""How a network from another tool takes images: what its file says of layout, channels and size, and the batch made so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from biascxr.embeddings.pixels import Source, source_for
from biascxr.errors import InputError

WHOLE_NUMBERS = Source("whole numbers", (1, 3), low=0.0, high=255.0)
PIXEL_TYPES = ("uint8", "int32", "int64", "float16", "float32", "float64")


@dataclass(frozen=True)
class ImageInput:
    """How a network takes images.

    Attributes:
        argument: the input's name.
        kind: `"example"` (serialized `tf.train.Example`), `"png"` (the file's bytes) or `"pixels"`.
        batch: images at a time; None for any number.
        channels: of pixels.
        size: height and width of pixels; None where they are free.
        channels_last: `(h, w, c)`, not `(c, h, w)`.
        has_channels: a grey image may have no axis for them.
        dtype: of pixels.
    """

    argument: str
    kind: str
    batch: int | None
    channels: int = 1
    size: int | None = None
    channels_last: bool = True
    has_channels: bool = True
    dtype: str = "float32"

    @classmethod
    def of_pixels(cls, argument: str, shape: list[int | None], dtype: str) -> ImageInput | None:
        """Tells the layout from the input's shape.

        Args:
            argument: the input's name.
            shape: `[batch, h, w]`, `[batch, h, w, c]` or `[batch, c, h, w]`; None where an axis is free.
            dtype: NumPy's name of the type.

        Returns:
            The input; None where it takes no square images of 1 or 3 channels.
        """
        if len(shape) == 3:
            channels, sides, last = 1, shape[1:], True
        elif len(shape) == 4 and shape[3] in (1, 3):
            channels, sides, last = shape[3], shape[1:3], True
        elif len(shape) == 4 and shape[1] in (1, 3):
            channels, sides, last = shape[1], shape[2:], False
        else:
            return None
        known = {side for side in sides if side is not None}
        if len(known) > 1 or dtype not in PIXEL_TYPES:
            return None
        return cls(argument, "pixels", shape[0], channels, next(iter(known), None), last, len(shape) == 4, dtype)

    def source(self, named: str, *, weights: str) -> Source:
        """Returns how the network wants its pixels: files and whole numbers as they are, otherwise as `source_for` says.

        Args:
            named: the setting `weights_source`.
            weights: the file, for the message.

        Raises:
            InputError: a convention is named for a network that scales for itself, or it has other channels.
        """
        if self.kind == "pixels" and np.dtype(self.dtype).kind == "f":
            return source_for(named, self.channels, weights=weights)
        if named != "auto":
            what = f"pixels as {self.dtype}" if self.kind == "pixels" else "files"
            raise InputError(
                f"--weights_source {named}: the network in {weights} takes {what}, scaled by itself; leave it out."
            )
        return WHOLE_NUMBERS

    def pixels(self, images: np.ndarray, source: Source) -> np.ndarray:
        """Turns `[n, s, s] uint8` images into the input's array, resized where network or source has a size of its own."""
        batch = source.to_input(images, channels=self.channels, size=self.size or source.size)
        if np.dtype(self.dtype).kind != "f":
            batch = np.rint(batch)
        batch = batch.astype(self.dtype, copy=False)
        if not self.has_channels:
            return batch[..., 0]
        return batch if self.channels_last else np.ascontiguousarray(np.moveaxis(batch, -1, 1))

    def describe(self, source: Source, image_size: int) -> str:
        """Returns how the network gets its pixels, for the card; `image_size` is the records'."""
        if self.kind != "pixels":
            what = "tf.train.Example with a PNG" if self.kind == "example" else "PNG"
            return f"{what}: 1 channel, {image_size} x {image_size}, 0 to 255"
        layout = "" if self.channels_last else ", channels first"
        return source.describe(channels=self.channels, size=self.size or source.size or image_size) + layout
