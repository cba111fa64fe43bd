"""PNG radiographs as 8-bit grey."""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import cv2
import numpy as np
from PIL import Image

from biascxr.records.image_file import Header, ImageError, exif_orientation, luma, require_contrast, to_8_bits, upright

MAGIC = b"\x89PNG\r\n\x1a\n"
_END = b"IEND\xaeB`\x82"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type: grey, RGB, palette, grey and alpha, RGBA


def read_header(data: bytes) -> Header:
    """Reads the header of a PNG file, and from its other chunks the orientation and whether it is animated.

    Raises:
        ImageError: the file does not begin with the header that PNG prescribes.
    """
    if data[12:16] != b"IHDR" or len(data) < 33 or data[25] not in _CHANNELS:
        raise ImageError("truncated or damaged png (no valid header)")
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    header = Header("png", height, width, bits, _CHANNELS[colour])
    place = 33
    while place + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        name, content = data[place + 4 : place + 8], data[place + 8 : place + 8 + min(length, 1 << 16)]
        if name == b"acTL" and len(content) >= 4:  # animation control (PNG, third edition, 11.3.6.1)
            header = replace(header, n_frames=int.from_bytes(content[:4]))
        elif name == b"eXIf":
            header = replace(header, orientation=exif_orientation(content))
        place += 12 + length
    return header


def decode_png(data: bytes) -> np.ndarray:
    """Decodes the bytes of a PNG file: grey, grey with alpha, RGB, RGBA or palette, of 1 to 16 bits.

    16 bits are brought to 8 as `to_8_bits` says. A header that claims more than was stored is refused; one that claims fewer
    rows reads like a cropped film (as with JPEG), though its checksum would have to be forged too.

    Returns:
        `[height, width] uint8`.

    Raises:
        ImageError: refused by its header, truncated, damaged, or of one grey level.
    """
    header = read_header(data)
    header.check()
    # OpenCV may fill what a truncated file lacks and say nothing; Pillow refuses it, and allows bytes after the end.
    if _END not in data[-32:]:
        try:
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                image.load()
        except (OSError, SyntaxError, ValueError) as error:
            raise ImageError(f"truncated or damaged png ({error})") from None
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ImageError(f"damaged png ({error.err})") from None
    if pixels is None or pixels.shape[:2] != (header.height, header.width):
        raise ImageError("damaged png (cannot be decoded)")
    grey = luma(pixels)
    grey = to_8_bits(grey, "png") if grey.dtype == np.uint16 else require_contrast(grey, "png")
    return upright(grey, header.orientation)
