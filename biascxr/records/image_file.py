"""Image files as bytes: what a header claims, and what is refused before a pixel is decoded."""

from __future__ import annotations

import errno
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from biascxr.errors import InputError

# The largest chest detectors are 43 x 43 cm. At 50 micrometres, finer than any (100 to 200 are usual, 18 megapixels at
# most), that is 8600 x 8600, 74 megapixels; a 35 x 43 cm film scanned at 50 micrometres is 60. Decoding more than this
# is what a decompression bomb wants. It also stays below Pillow's own limit (89 megapixels), so Pillow never warns.
MAX_PIXELS = 80_000_000
# An icon or a placeholder, no radiograph; resized to a record it would be one smear.
MIN_SIDE = 16
# More than MAX_PIXELS of 16-bit RGB, uncompressed. A larger file would fill the memory before its header is read.
MAX_BYTES = 512 * 1024**2
# What a disk, mostly one on the network, answers when it is at fault and not the file: tried again, the file may be read.
PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOMEM, errno.EMFILE, errno.ENFILE}

ORIENTATION_TAG = 0x0112  # EXIF 2.32, 4.6.4


class ImageError(InputError):
    """A file cannot be used as an image; the message is the reason that goes into `rejected.csv`."""


@dataclass(frozen=True)
class Header:
    """What an image file says of itself.

    Attributes:
        kind: `"jpeg"`, `"png"` or `"DICOM"`.
        height: rows, as stored.
        width: columns, as stored.
        bits: bits a sample.
        channels: samples a pixel.
        orientation: EXIF orientation, 1 (upright) to 8.
        n_frames: images in the file.
    """

    kind: str
    height: int
    width: int
    bits: int
    channels: int
    orientation: int = 1
    n_frames: int = 1

    def check(self) -> None:
        """Refuses by the header alone, before memory is taken for pixels.

        Raises:
            ImageError: more pixels than any detector has, a side too short to be a radiograph, or several frames.
        """
        if self.n_frames != 1:
            raise ImageError(f"{self.kind} of {self.n_frames} frames (animated or multi-frame); expected one image")
        size = f"{self.kind} of {self.height} x {self.width} pixels (height x width)"
        if self.height * self.width > MAX_PIXELS:
            raise ImageError(f"{size}; expected {MAX_PIXELS:,} pixels at most, more than any detector has")
        if min(self.height, self.width) < MIN_SIDE:
            raise ImageError(f"{size}; expected sides of at least {MIN_SIDE}")


def read_file(path: Path) -> bytes:
    """Returns a file's bytes.

    Raises:
        ImageError: missing, unreadable, empty, no ordinary file, or larger than any image that would be decoded.
        InputError: the disk is at fault and not the file: no reason to go on without it.
    """
    try:
        status = path.stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise ImageError("unreadable file: a pipe or a device")  # reading it could wait for ever
        if status.st_size > MAX_BYTES:
            raise ImageError(f"file of {status.st_size / 1e6:,.0f} MB; expected {MAX_BYTES / 1e6:,.0f} MB at most")
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageError("missing file") from None
    except OSError as error:
        if error.errno in PASSING:
            raise InputError(
                f"The disk answered with an error while images were read ({error.strerror}). Nothing is lost: run again to go "
                "on from the finished shards."
            ) from error
        raise ImageError(f"unreadable file: {error.strerror}") from None
    if not data:
        raise ImageError("empty file (zero bytes)")
    return data


def tiff_number(tiff: bytes, tag: int) -> int | None:
    """Returns a whole number of the first directory of a TIFF structure, as EXIF and MPF segments are, if it is there.

    Reference: TIFF 6.0, section 2.

    Args:
        tiff: the bytes from the byte order mark on.
        tag: number of the wanted entry, of type SHORT or LONG.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return None
    try:
        (place,) = struct.unpack_from(f"{order}I", tiff, 4)
        (n_entries,) = struct.unpack_from(f"{order}H", tiff, place)
        for entry in range(place + 2, place + 2 + 12 * n_entries, 12):
            found, kind = struct.unpack_from(f"{order}HH", tiff, entry)
            if found == tag and kind in (3, 4):
                return struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", tiff, entry + 8)[0]
    except struct.error:  # the directory ends early: as every viewer does, the image is taken without it
        pass
    return None


def exif_orientation(tiff: bytes) -> int:
    """Returns the orientation that an EXIF segment states, 1 (upright) where it states none that exists."""
    orientation = tiff_number(tiff, ORIENTATION_TAG) or 1
    return orientation if 1 <= orientation <= 8 else 1


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turns an image as its EXIF orientation says: `[height, width]`, sides exchanged for 5 to 8.

    Reference: EXIF 2.32, 4.6.4: where row 0 and column 0 of the stored image lie on the upright one.
    """
    if orientation in (5, 6, 7, 8):
        image = image.T
    if orientation in (2, 3, 6, 7):  # after the exchange of sides
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def luma(pixels: np.ndarray, *, is_bgr: bool = True) -> np.ndarray:
    """Turns decoded pixels to grey, the one definition used everywhere: ITU-R BT.601 luma, 0.299 R + 0.587 G + 0.114 B.

    It is what JPEG stores as Y. Alpha is dropped: a pixel's grey does not depend on a mask, and the RGBA files of the NIH set
    are opaque. Gamma and colour profiles are not applied.

    Args:
        pixels: `[height, width]`, or `[height, width, 3 or 4]` with alpha last, `uint8` or `uint16`.
        is_bgr: blue first, as OpenCV decodes; False is red first.
    """
    if pixels.ndim == 2:
        return pixels
    return cv2.cvtColor(pixels[..., :3], cv2.COLOR_BGR2GRAY if is_bgr else cv2.COLOR_RGB2GRAY)


def is_flat(pixels: np.ndarray) -> bool:
    """Returns whether every pixel has one value."""
    return bool(pixels.min() == pixels.max())


def require_contrast(grey: np.ndarray, kind: str) -> np.ndarray:
    """Returns the grey levels as they are, if there are two at least.

    The one rule for JPEG, PNG and DICOM of any depth: a film of one grey level carries no image. It is what a failed export
    leaves; kept, it would teach a classifier that black films have the findings of their reports.

    Args:
        grey: `[height, width]`, at full scale: at a reduced one a few pixels that differ may be gone.
        kind: names the file's kind in the reason.

    Raises:
        ImageError: every pixel has one value.
    """
    if is_flat(grey):
        raise ImageError(f"{kind} without contrast (every pixel has one value)")
    return grey


def to_8_bits(pixels: np.ndarray, kind: str) -> np.ndarray:
    """Brings deeper grey levels to 8 bits: the image's own range is stretched to 0-255, as MIMIC-CXR-JPG was made from DICOM.

    Not `/ 257`: detectors give 10 to 14 bits and files of 16 bits hold them as they are (PadChest's), so that 4096 levels
    would become 16. The levels' order is kept, which is all that histogram equalization looks at.

    Args:
        pixels: `[height, width]`, any number type.
        kind: names the file's kind in the reason.

    Raises:
        ImageError: every pixel has one value, or a value is not finite.
    """
    pixels = pixels.astype(np.float64)
    low, high = pixels.min(), pixels.max()
    if not np.isfinite([low, high]).all():  # NaN is both the least and the greatest
        raise ImageError(f"{kind} whose grey levels are not all finite numbers")
    require_contrast(pixels, kind)
    return np.rint((pixels - low) * (255 / (high - low))).astype(np.uint8)
