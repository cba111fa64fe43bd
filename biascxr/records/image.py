"""One definition of the stored image: grey -> square -> histogram equalization, 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from biascxr.records import jpeg, png
from biascxr.records.dicom import decode_dicom, is_dicom
from biascxr.records.image_file import ImageError, read_file


@dataclass(frozen=True)
class Film:
    """An image as decoded for a record of a given size.

    Attributes:
        pixels: `[rows, columns] uint8`.
        height: the film's height in rows of `pixels`: their number, or less where decoding at reduced scale left the last
            row partly outside the film (2501 rows at a quarter are 625.25, held by 626).
        width: likewise, in columns.
    """

    pixels: np.ndarray
    height: float
    width: float


def read_grey(path: Path) -> np.ndarray:
    """Reads a JPEG, PNG or DICOM file in full, as 8-bit grey, upright (EXIF). The name's ending does not matter.

    Args:
        path: the file. Colour is made grey as `image_file.luma` says, more than 8 bits as `image_file.to_8_bits` says, DICOM
            as `dicom.decode_dicom` says.

    Returns:
        `[height, width] uint8`.

    Raises:
        ImageError: missing, empty, not an image, truncated, animated, of one grey level, or of a size that no radiograph has;
            the message is the reason.
        InputError: a DICOM file, and pydicom is not installed.
    """
    return read_film(path, size=None).pixels


def read_film(path: Path, *, size: int | None) -> Film:
    """Reads a file as `read_grey` does, but decodes no more than a record of a given size needs.

    A large JPEG is decoded at a half, a quarter or an eighth of its scale, as `jpeg.choose_reduction` says.

    Args:
        path: the file.
        size: side of the record in pixels; None decodes in full.

    Returns:
        The film; `standardise` takes its pixels with its height and width.

    Raises:
        ImageError: see `read_grey`.
        InputError: see `read_grey`.
    """
    data = read_file(path)
    reduction = 1
    if data.startswith(jpeg.MAGIC):
        header = jpeg.read_header(data)
        pixels, reduction = jpeg.decode_jpeg(data, size=size)
    elif data.startswith(png.MAGIC):
        pixels = png.decode_png(data)
    elif is_dicom(data):
        pixels = decode_dicom(data)
    else:
        raise ImageError("not an image (neither JPEG, PNG nor DICOM by its first bytes)")
    if reduction == 1:
        return Film(pixels, *pixels.shape)
    return Film(pixels, header.height / reduction, header.width / reduction)


def read_prepared(path: Path, alteration: Alteration, *, size: int, equalize: bool) -> np.ndarray:
    """Reads a file and brings it into the stored form, altered: what a record holds.

    Where a film is blurred or marked it is decoded in full, so that both mean the same whatever the decoder can do.

    Args:
        path: the file.
        alteration: what is done to it.
        size: see `standardise`.
        equalize: see `standardise`.

    Returns:
        `[size, size] uint8`.

    Raises:
        ImageError: see `read_grey`.
        InputError: see `read_grey`.
    """
    if alteration.degradation > 0 or alteration.marker:
        return prepare(read_grey(path), alteration, size=size, equalize=equalize)
    film = read_film(path, size=size)
    stored = standardise(film.pixels, size=size, equalize=equalize, extent=(film.height, film.width))
    return augment(stored, alteration)


def standardise(image: np.ndarray, *, size: int, equalize: bool, extent: tuple[float, float] | None = None) -> np.ndarray:
    """Brings a grey image into the stored form.

    Args:
        image: `[height, width] uint8`.
        size: height and width of the result, in pixels; the aspect ratio is not kept, as in the seeds.
        equalize: histogram equalization after resizing.
        extent: height and width of the film in pixels of `image`, where its last row and column are partly outside it; see
            `Film`. Default: all of `image`.

    Returns:
        `[size, size] uint8`.
    """
    if extent is None or extent == image.shape:
        resized = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    else:
        # Given factors, OpenCV works with them as they are; given the size, it would stretch the partial pixels to whole ones,
        # a shift of up to 0.4 of a record's pixel at the far edges: 37 dB instead of 50.
        # The size that it derives is rounded to `size`, because the film is twice as large at least.
        height, width = extent
        resized = cv2.resize(image, None, fx=size / width, fy=size / height, interpolation=cv2.INTER_AREA)
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
