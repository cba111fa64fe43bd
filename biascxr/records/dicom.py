"""DICOM radiographs as 8-bit grey. pydicom is an optional extra: `pip install "biascxr[dicom]"`."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from biascxr.errors import InputError
from biascxr.records.image_file import Header, ImageError, read_file, to_8_bits

if TYPE_CHECKING:
    from pydicom import Dataset

# What grey levels are computed with: each must be a finite number, and a factor must not be 0.
_NUMBERS = ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth")


def is_dicom(data: bytes) -> bool:
    """Returns whether a file's bytes carry DICOM's mark after its preamble of 128 bytes."""
    return data[128:132] == b"DICM"


def read_dicom(path: Path) -> np.ndarray:
    """Reads a DICOM radiograph as 8-bit grey.

    Modality LUT or rescaling, then VOI LUT or window (the first, where there are several), as the file says; MONOCHROME1
    (white is low) is inverted, so that bone is bright; the range is stretched to 0-255, as MIMIC-CXR-JPG was made. The
    Presentation LUT Shape is not read: for MONOCHROME1 it says the same inversion once more (DICOM PS3.3, C.8.11.3.1.2).
    Compressed pixels are decoded by the plugins that pydicom finds: RLE, JPEG baseline and JPEG 2000 need nothing beside
    Pillow; lossless JPEG and JPEG-LS need pylibjpeg or GDCM, which the reason names where they are missing.

    Returns:
        `[height, width] uint8`.

    Raises:
        ImageError: missing, truncated, not DICOM, several frames, no grey image, one grey level (in the file, or within its
            window), a rescale or window that is no number, or a header that does not fit the pixels; the message is the reason.
        InputError: pydicom is not installed.
    """
    data = read_file(path)
    if not is_dicom(data):
        raise ImageError("not a DICOM file (no DICM mark after 128 bytes)")
    return decode_dicom(data)


def decode_dicom(data: bytes) -> np.ndarray:
    """Decodes the bytes of a DICOM file; see `read_dicom`."""
    try:
        import pydicom
        from pydicom.pixels import apply_modality_lut, apply_voi_lut
    except ImportError as error:
        # no ImageError: it is the same for all files, and no reason to reject them one by one
        raise InputError('Reading DICOM (.dcm) files needs pydicom: pip install "biascxr[dicom]".') from error
    try:
        dataset = pydicom.dcmread(io.BytesIO(data))
        if "PixelData" not in dataset:
            raise ImageError("truncated or damaged DICOM (no pixel data)")
        meaning = _check_header(dataset)
        pixels = dataset.pixel_array
        if pixels.ndim != 2:
            raise ImageError(f"DICOM of shape {pixels.shape}; expected one image [height, width]")
        pixels = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset)
        grey = to_8_bits(pixels, "DICOM")
    except ImageError:
        raise
    except (NotImplementedError, RuntimeError) as error:  # a compressed form, and the decoder for it is not installed
        raise ImageError(f"DICOM whose pixels cannot be decoded ({' '.join(str(error).split())[:200]})") from None
    except Exception as error:  # on damaged bytes pydicom raises errors of its own and nearly every built-in one
        # its text is left out: it may quote the header, which names the patient
        raise ImageError(f"truncated or damaged DICOM ({type(error).__name__})") from None
    return 255 - grey if meaning == "MONOCHROME1" else grey


def _check_header(dataset: Dataset) -> str:
    """Refuses by the header alone, before pixels are decoded; returns the photometric interpretation."""
    meaning = str(dataset.get("PhotometricInterpretation", "none"))
    if meaning not in ("MONOCHROME1", "MONOCHROME2"):
        raise ImageError(f"DICOM image of {meaning}; expected MONOCHROME1 or MONOCHROME2")
    bits, n_frames = int(dataset.BitsAllocated), int(dataset.get("NumberOfFrames") or 1)
    Header("DICOM", int(dataset.Rows), int(dataset.Columns), bits, 1, n_frames=n_frames).check()
    for name in _NUMBERS:
        for value in np.atleast_1d(dataset.get(name, [])):
            if value is not None and not math.isfinite(float(value)):
                raise ImageError(f"DICOM whose {name} is {float(value)}; expected a number")
    if dataset.get("RescaleSlope") is not None and float(dataset.RescaleSlope) == 0:
        raise ImageError("DICOM whose RescaleSlope is 0: every pixel would have one value")
    if not dataset.file_meta.TransferSyntaxUID.is_compressed:
        n_bytes, row = len(dataset.PixelData), dataset.Columns * bits // 8
        # pydicom itself refuses too few bytes; a row too many is no padding, the header states too few rows
        if n_bytes - dataset.Rows * row >= row:
            raise ImageError(f"DICOM of {dataset.Rows} x {dataset.Columns} pixels by its header, but {n_bytes:,} bytes of them")
    return meaning
