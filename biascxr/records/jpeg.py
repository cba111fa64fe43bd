"""JPEG radiographs as 8-bit grey, at reduced scale where the caller needs no more."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
from PIL import Image

from biascxr.records.image_file import (
    Header,
    ImageError,
    exif_orientation,
    is_flat,
    luma,
    require_contrast,
    tiff_number,
    to_8_bits,
    upright,
)

MAGIC = b"\xff\xd8\xff"
_END = b"\xff\xd9"
_START_OF_SCAN = 0xDA
# Start of frame: every coding process. C4, C8 and CC are tables and reserved (ITU-T T.81, table B.1).
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF}
_FLAGS = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
_N_IMAGES_TAG = 0xB001  # CIPA DC-007, multi-picture format


def read_header(data: bytes) -> Header:
    """Reads the header of a JPEG file; see `read_structure`."""
    return read_structure(data)[0]


def read_structure(data: bytes) -> tuple[Header, bool]:
    """Reads the header, and whether the decoder can decode the file at reduced scale (it cannot where it is lossless).

    Raises:
        ImageError: the file ends, or the scan begins, before the size is stated.
    """
    header, is_scalable, orientation, n_frames = None, False, 1, 1
    for marker, segment in _segments(data):
        if marker in _FRAMES and header is None:
            if len(segment) < 6:
                break
            height, width = int.from_bytes(segment[1:3]), int.from_bytes(segment[3:5])
            header, is_scalable = Header("jpeg", height, width, segment[0], segment[5]), marker not in _LOSSLESS
        elif marker == 0xE1 and segment.startswith(b"Exif\0\0"):
            orientation = exif_orientation(segment[6:])
        elif marker == 0xE2 and segment.startswith(b"MPF\0"):
            n_frames = tiff_number(segment[4:], _N_IMAGES_TAG) or 1
    if header is None:
        raise ImageError("truncated or damaged jpeg (its header states no size)")
    return replace(header, orientation=orientation, n_frames=n_frames), is_scalable


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields marker and content of each segment before the first scan (ITU-T T.81, B.1.1)."""
    place = 2
    while (place := data.find(b"\xff", place)) >= 0:
        while place < len(data) and data[place] == 0xFF:  # any number of fill bytes may precede a marker
            place += 1
        if place + 3 > len(data) or data[place] == _START_OF_SCAN:
            return
        marker = data[place]
        if marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD9:  # markers that stand alone
            place += 1
            continue
        length = int.from_bytes(data[place + 1 : place + 3])
        yield marker, data[place + 3 : place + 1 + length]
        place += 1 + max(2, length)


def choose_reduction(height: int, width: int, size: int | None) -> int:
    """Returns by how much to reduce both sides: the most that keeps each at least twice `size`.

    By that rule the record lies 50 dB or more (PSNR, before equalization; tested at 45) from full decoding and resizing by
    area; down to once the size it would be 30 to 38 dB, because resizing would average too few pixels.

    Args:
        height: rows of the file.
        width: columns of the file.
        size: side of the record; None for no reduction.
    """
    if size is None:
        return 1
    return next(k for k in (8, 4, 2, 1) if k == 1 or min(height, width) >= 2 * size * k)


def decode_jpeg(data: bytes, *, size: int | None = None) -> tuple[np.ndarray, int]:
    """Decodes the bytes of a JPEG file.

    Grey is the stored Y (see `luma`); CMYK goes by Pillow's RGB. 12 and 16 bits need the package imagecodecs. A turned file
    (EXIF) is decoded in full: on a reduced one the incomplete pixels would come to lie at the wrong edge.

    A header that claims more pixels than were stored is refused. One that claims fewer reads like a cropped film: no byte of
    the file contradicts it, short of decoding it twice.

    Args:
        data: the file.
        size: side of the record that will be made; None decodes in full.

    Returns:
        `[ceil(height / k), ceil(width / k)] uint8`, and k, by which it was reduced: 1, 2, 4 or 8.

    Raises:
        ImageError: refused by its header, truncated, damaged, of one grey level, or more than 8 bits and no decoder for them.
    """
    header, is_scalable = read_structure(data)
    header.check()
    if header.bits != 8:
        return upright(_decode_deep(data, header), header.orientation), 1
    # OpenCV fills what a truncated file lacks with grey and says nothing. A file that does not end as its format
    # should is decoded by Pillow first, which refuses truncated data and allows harmless bytes after the end.
    if header.channels == 4 or _END not in data[-32:]:
        try:
            with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
                image.load()
                rgb = np.asarray(image.convert("RGB")) if header.channels == 4 else None
        except (OSError, SyntaxError, ValueError) as error:
            raise ImageError(f"truncated or damaged jpeg ({error})") from None
        if rgb is not None:
            return upright(require_contrast(luma(rgb, is_bgr=False), "jpeg"), header.orientation), 1
    is_full = not is_scalable or header.orientation != 1
    reduction = 1 if is_full else choose_reduction(header.height, header.width, size)
    image = _decode(data, reduction)
    if image.shape != (-(-header.height // reduction), -(-header.width // reduction)):
        raise ImageError("damaged jpeg (what was decoded is not of the size that its header states)")
    if _ends_early(data, image, header, reduction):
        raise ImageError(
            f"truncated or damaged jpeg (its data end before the {header.height} x {header.width} pixels of its header)"
        )
    if is_flat(image):
        require_contrast(image if reduction == 1 else _decode(data, 1), "jpeg")
    return upright(image, header.orientation), reduction


def _decode(data: bytes, reduction: int) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS[reduction] | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError(f"damaged jpeg ({error.err})") from None
    if image is None:
        raise ImageError("damaged jpeg (cannot be decoded)")
    return image


def _ends_early(data: bytes, image: np.ndarray, header: Header, reduction: int) -> bool:
    """Returns whether the data end before the last pixel, as where a header claims too many, or where an end was sewn on.

    libjpeg then fills the rest with 128 and warns where nobody reads it. If the last block is so, the file is decoded once
    more with bytes added before its end: a decoder that has all its blocks never sees them, another one draws them.
    """
    rows, columns = ((side - 1) // 8 * 8 // reduction for side in (header.height, header.width))
    if not (image[rows:, columns:] == 128).all():
        return False
    if reduction == 8:  # of a progressive file an eighth shows the first scan only, and the bytes are added to the last
        image, reduction = _decode(data, 1), 1
    return not np.array_equal(_decode(_with_more(data), reduction), image)


def _with_more(data: bytes) -> bytes:
    end = data.rfind(_END)
    return data[:end] + bytes(range(1, 200)) + data[end:]


def _decode_deep(data: bytes, header: Header) -> np.ndarray:
    """Decodes 12 or 16 bits a sample, which neither OpenCV nor Pillow does."""
    try:
        import imagecodecs
    except ImportError:
        # rejected one by one, unlike DICOM without pydicom: single strays in folders of 8-bit files must not stop a run
        raise ImageError(f"jpeg of {header.bits} bits a pixel; decoding it needs: pip install imagecodecs") from None
    if _END not in data[-32:]:
        raise ImageError("truncated jpeg (its end is missing)")
    try:
        pixels, once_more = imagecodecs.jpeg_decode(data), imagecodecs.jpeg_decode(_with_more(data))
    except (RuntimeError, ValueError) as error:
        raise ImageError(f"truncated or damaged jpeg ({type(error).__name__})") from None
    if pixels.shape[:2] != (header.height, header.width) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ImageError(f"damaged jpeg (decoded to {pixels.shape}; its header states {header.height} x {header.width})")
    if not np.array_equal(pixels, once_more):  # see _ends_early; these are too few to mind the time
        raise ImageError("truncated or damaged jpeg (its data end early)")
    return to_8_bits(luma(pixels, is_bgr=False), "jpeg")
