"""DICOM radiographs as 8-bit grey. pydicom is an optional extra: `pip install "biascxr[dicom]"`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from biascxr.errors import InputError
from biascxr.records.image import ImageError, read_file


def is_dicom(data: bytes) -> bool:
    """Returns whether a file's bytes carry DICOM's mark after its preamble of 128 bytes."""
    return data[128:132] == b"DICM"


def read_dicom(path: Path) -> np.ndarray:
    """Reads a DICOM radiograph as 8-bit grey.

    Modality LUT or rescaling, then VOI LUT or window (the first, where there are several), as the file says; MONOCHROME1
    (white is low) is inverted, so that bone is bright; the range is stretched to 0-255, as MIMIC-CXR-JPG was made.

    Returns:
        `[height, width] uint8`.

    Raises:
        ImageError: missing, truncated, not DICOM, or no grey image; the message is the reason.
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
        meaning = str(dataset.get("PhotometricInterpretation", "none"))
        if meaning not in ("MONOCHROME1", "MONOCHROME2"):
            raise ImageError(f"DICOM image of {meaning}; expected MONOCHROME1 or MONOCHROME2")
        pixels = dataset.pixel_array
        if pixels.ndim != 2:
            raise ImageError(f"DICOM of shape {pixels.shape}; expected one image [height, width]")
        pixels = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset).astype(np.float64)
    except ImageError:
        raise
    except (NotImplementedError, RuntimeError) as error:  # a compressed form, and the decoder for it is not installed
        raise ImageError(f"DICOM whose pixels cannot be decoded ({' '.join(str(error).split())[:200]})") from None
    except Exception as error:  # on damaged bytes pydicom raises errors of its own and nearly every built-in one
        # its text is left out: it may quote the header, which names the patient
        raise ImageError(f"truncated or damaged DICOM ({type(error).__name__})") from None
    low, high = pixels.min(initial=np.inf), pixels.max(initial=-np.inf)
    if not (np.isfinite(low) and np.isfinite(high) and high > low):
        raise ImageError("DICOM without contrast (every pixel has one value)")
    grey = np.rint((pixels - low) * (255 / (high - low))).astype(np.uint8)
    return 255 - grey if meaning == "MONOCHROME1" else grey
