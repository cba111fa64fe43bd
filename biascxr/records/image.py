"""One definition of the stored image: grey -> square -> histogram equalization, 8 bits."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from biascxr.errors import InputError

_MAGIC = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png"}
_END = {"jpeg": b"\xff\xd9", "png": b"IEND\xaeB`\x82"}


class ImageError(InputError):
    """A file cannot be used as an image; the message is the reason that goes into `rejected.csv`."""


def read_file(path: Path) -> bytes:
    """Returns a file's bytes.

    Raises:
        ImageError: missing, unreadable or empty.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageError("missing file") from None
    except OSError as error:
        raise ImageError(f"unreadable file: {error.strerror}") from None
    if not data:
        raise ImageError("empty file (zero bytes)")
    return data


def read_grey(path: Path) -> np.ndarray:
    """Reads a JPEG, PNG or DICOM file as 8-bit grey.

    Args:
        path: the file. RGB, RGBA and palette images are turned to grey (ITU-R 601 luma); DICOM as `read_dicom` says.

    Returns:
        `[height, width] uint8`.

    Raises:
        ImageError: missing, empty, not an image, truncated, or a JPEG or PNG of more than 8 bits.
    """
    data = read_file(path)
    kind = next((kind for magic, kind in _MAGIC.items() if data.startswith(magic)), None)
    if kind is None:
        from biascxr.records.dicom import decode_dicom, is_dicom

        if is_dicom(data):
            return decode_dicom(data)
        raise ImageError("not an image (neither JPEG, PNG nor DICOM by its first bytes)")
    # OpenCV fills what a truncated file lacks with grey and says nothing. A file that does not end as its format
    # should is decoded by Pillow first, which refuses truncated data and allows harmless bytes after the end.
    if _END[kind] not in data[-32:]:
        try:
            Image.open(io.BytesIO(data)).load()
        except (OSError, SyntaxError, ValueError) as error:
            raise ImageError(f"truncated or damaged {kind} ({error})") from None
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:  # a header that claims more pixels than OpenCV takes
        raise ImageError(f"damaged {kind} ({error.err})") from None
    if image is None:
        raise ImageError(f"damaged {kind} (cannot be decoded)")
    if image.dtype != np.uint8:
        raise ImageError(f"{image.dtype.itemsize * 8} bits a pixel; expected 8")
    if image.ndim == 2:
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGRA2GRAY if image.shape[2] == 4 else cv2.COLOR_BGR2GRAY)


def standardise(image: np.ndarray, *, size: int, equalize: bool) -> np.ndarray:
    """Brings a grey image into the stored form.

    Args:
        image: `[height, width] uint8`.
        size: height and width of the result, in pixels; the aspect ratio is not kept, as in the seeds.
        equalize: histogram equalization after resizing.

    Returns:
        `[size, size] uint8`.
    """
    resized = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return cv2.equalizeHist(resized) if equalize else resized


@dataclass(frozen=True)
class Alteration:
    """What is done to an image beside standardising it: planted bias before, an augmented view's changes after.

    Attributes:
        degradation: see `alter`.
        marker: see `alter`.
        rotation: see `augment`, as are the others.
        shift_x: likewise.
        shift_y: likewise.
        contrast: likewise.
        brightness: likewise.
    """

    degradation: float = 0.0
    marker: bool = False
    rotation: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    contrast: float = 1.0
    brightness: float = 0.0


def prepare(image: np.ndarray, alteration: Alteration, *, size: int, equalize: bool) -> np.ndarray:
    """Brings an image as read into the stored form, altered: `[height, width] uint8` -> `[size, size] uint8`."""
    altered = alter(image, degradation=alteration.degradation, marker=alteration.marker)
    return augment(standardise(altered, size=size, equalize=equalize), alteration)


def augment(image: np.ndarray, change: Alteration) -> np.ndarray:
    """Turns, moves and lights a stored image, as BiasCXR's report augments: rotation, small translation, intensity.

    After histogram equalization, which would undo any change of intensity. What comes in from outside the image is its
    reflection: black corners would be a mark that a classifier could learn.

    Args:
        image: `[size, size] uint8`.
        change: `rotation` in degrees, counter-clockwise about the centre; `shift_x`, `shift_y` in shares of the side, right and
            down; `contrast`, a factor about the image's mean; `brightness`, a share of 255 to add.

    Returns:
        `[size, size] uint8`, the image itself where nothing changes.
    """
    if (change.rotation, change.shift_x, change.shift_y) != (0, 0, 0):
        height, width = image.shape
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), change.rotation, 1.0)
        matrix[:, 2] += change.shift_x * width, change.shift_y * height
        image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    if (change.contrast, change.brightness) != (1, 0):
        mean = image.mean()
        changed = (image.astype(np.float32) - mean) * change.contrast + mean + 255 * change.brightness
        image = np.clip(np.rint(changed), 0, 255).astype(np.uint8)
    return image


def alter(image: np.ndarray, *, degradation: float, marker: bool) -> np.ndarray:
    """Carries out planted bias on an image as read.

    Args:
        image: `[height, width] uint8`.
        degradation: share of sharpness to lose, in [0, 1]: a Gaussian blur of up to 2% of the shorter side.
        marker: stamp a bright square with a dark edge near the upper left corner, 7% of the shorter side.

    Returns:
        `[height, width] uint8`, the image itself where there is nothing to do.
    """
    side = min(image.shape)
    if degradation > 0:
        image = cv2.GaussianBlur(image, (0, 0), 0.02 * degradation * side)
    if marker:
        image = image.copy()
        low, size = round(0.04 * side), max(3, round(0.07 * side))
        image[low : low + size, low : low + size] = 0
        edge = max(1, size // 7)
        image[low + edge : low + size - edge, low + edge : low + size - edge] = 255
    return image


def encode(image: np.ndarray, image_format: str) -> bytes:
    """Compresses a grey image: `"png"` (level 3, lossless) or `"jpeg"` (quality 95)."""
    options = [cv2.IMWRITE_PNG_COMPRESSION, 3] if image_format == "png" else [cv2.IMWRITE_JPEG_QUALITY, 95]
    done, data = cv2.imencode(".png" if image_format == "png" else ".jpg", image, options)
    if not done:
        raise ValueError(f"OpenCV could not encode an image of shape {image.shape} as {image_format}.")
    return data.tobytes()


def decode(data: bytes) -> np.ndarray:
    """Decompresses a stored image: `[size, size] uint8`."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise ImageError("the record's image cannot be decoded")
    return image
