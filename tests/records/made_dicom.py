"""DICOM files that tests make."""

import io

import numpy as np
import pytest


def dicom_bytes(pixels, *, meaning="MONOCHROME2", is_rle=False, **more):
    """Returns the bytes of a DICOM file that holds these pixels.

    Args:
        pixels: `[height, width]` or `[height, width, samples]`, unsigned whole numbers.
        meaning: photometric interpretation.
        is_rle: compressed, by run lengths.
        more: elements by keyword; they are set last, so that a header may claim what the pixels are not.
    """
    pydicom = pytest.importorskip("pydicom")
    pixels = np.asarray(pixels)
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.SOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else pixels.shape[2]
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    bits = 8 * pixels.dtype.itemsize
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits, bits - 1, 0
    dataset.PhotometricInterpretation = meaning
    dataset["PixelData"] = pydicom.DataElement("PixelData", "OW" if bits > 8 else "OB", pixels.tobytes())
    if is_rle:
        dataset.compress(pydicom.uid.RLELossless)
    for name, value in more.items():
        setattr(dataset, name, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
