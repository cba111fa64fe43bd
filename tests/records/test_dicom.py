"""DICOM: grey levels by the file's own rules; what cannot be used is refused with its reason."""

import io
import subprocess
import sys

import numpy as np
import pytest
from made_dicom import dicom_bytes

from biascxr.errors import InputError
from biascxr.records import ImageError, read_grey
from biascxr.records.dicom import read_dicom

pydicom = pytest.importorskip("pydicom")


@pytest.fixture
def write(tmp_path):
    def write(data, name="a.dcm"):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


RAMP = np.arange(18 * 24, dtype=np.uint16).reshape(18, 24) * 8 + 100


def stretched(values):
    values = np.asarray(values, float)
    return np.rint((values - values.min()) / (values.max() - values.min()) * 255)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_range_is_stretched_to_eight_bits(write, dtype):
    pixels = (RAMP // 16).astype(dtype)
    image = read_dicom(write(dicom_bytes(pixels)))
    assert image.dtype == np.uint8
    assert (image.min(), image.max()) == (0, 255)
    np.testing.assert_array_equal(image, stretched(pixels))


def test_monochrome1_is_inverted(write):
    one, two = (read_dicom(write(dicom_bytes(RAMP, meaning=m), f"{m}.dcm")) for m in ("MONOCHROME1", "MONOCHROME2"))
    np.testing.assert_array_equal(one, 255 - two)


def compressed(syntax, pixels):
    """Returns the bytes of a DICOM file whose pixels are compressed: RLE by pydicom, the others by Pillow."""
    dataset = pydicom.dcmread(io.BytesIO(dicom_bytes(pixels)))
    if syntax == pydicom.uid.RLELossless:
        dataset.compress(syntax)
    else:
        from PIL import Image

        stream = io.BytesIO()
        options = {"format": "JPEG", "quality": 100} if syntax == pydicom.uid.JPEGBaseline8Bit else {"format": "JPEG2000"}
        if options["format"] == "JPEG2000":
            options |= {"irreversible": False, "no_jp2": True}
        Image.fromarray(pixels).save(stream, **options)
        dataset.PixelData = pydicom.encaps.encapsulate([stream.getvalue()])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("syntax", "dtype", "tolerance"),
    [("RLELossless", np.uint16, 0), ("JPEG2000Lossless", np.uint16, 0), ("JPEGBaseline8Bit", np.uint8, 3)],
)
def test_compressed_pixels_are_those_of_the_uncompressed_file(write, make_image, syntax, dtype, tolerance):
    pixels = make_image(0).astype(dtype) * (1 if dtype == np.uint8 else 16)
    plain = read_dicom(write(dicom_bytes(pixels), "plain.dcm"))
    read = read_dicom(write(compressed(getattr(pydicom.uid, syntax), pixels), "compressed.dcm"))
    assert np.abs(read.astype(int) - plain).max() <= tolerance


def test_compressed_pixels_without_a_decoder_are_refused_and_the_decoder_named(write):
    if pydicom.pixels.get_decoder(pydicom.uid.JPEGLSLossless).is_available:
        pytest.skip("a decoder for JPEG-LS is installed")
    dataset = pydicom.dcmread(io.BytesIO(compressed(pydicom.uid.RLELossless, RAMP)))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
    dataset.save_as(buffer := io.BytesIO(), enforce_file_format=True)
    with pytest.raises(ImageError, match=r"^DICOM whose pixels cannot be decoded .*pylibjpeg"):
        read_dicom(write(buffer.getvalue()))


def test_a_window_clips_what_lies_outside(write):
    # DICOM PS3.3 C.11.2.1.2: below center - 0.5 - (width - 1) / 2 all is black, above center - 0.5 + (width - 1) / 2 white
    center, width = 1000, 1001
    image = read_dicom(write(dicom_bytes(RAMP, WindowCenter=center, WindowWidth=width)))
    low, high = center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    np.testing.assert_array_equal(image, np.rint(255 * (np.clip(RAMP, low, high) - low) / (high - low)))


def test_the_window_applies_after_rescaling(write):
    rescaled = read_dicom(
        write(dicom_bytes(RAMP, RescaleSlope=2, RescaleIntercept=-50, WindowCenter=1950, WindowWidth=2001), "b.dcm")
    )
    low, high = 1950 - 0.5 - 1000, 1950 - 0.5 + 1000
    np.testing.assert_array_equal(rescaled, np.rint(255 * (np.clip(2.0 * RAMP - 50, low, high) - low) / (high - low)))


def test_a_lookup_table_of_the_file_is_applied(write):
    table = pydicom.Dataset()
    table.LUTDescriptor = [4, 0, 16]
    table.add_new(0x00283006, "US", [0, 50, 1000, 4000])
    pixels = np.arange(18 * 24, dtype=np.uint16).reshape(18, 24) % 4
    image = read_dicom(write(dicom_bytes(pixels, VOILUTSequence=[table])))
    np.testing.assert_array_equal(image, stretched(np.array([0, 50, 1000, 4000])[pixels]))


@pytest.mark.parametrize("name", ["a.dcm", "a.DCM", "a", "a.jpg"])
def test_read_grey_knows_dicom_by_its_mark(write, name):
    path = write(dicom_bytes(RAMP), name)
    np.testing.assert_array_equal(read_grey(path), read_dicom(path))


def test_a_jpeg_named_dcm_is_read_as_the_jpeg_it_is(tmp_path, make_image):
    from PIL import Image

    Image.fromarray(make_image(0)).save(tmp_path / "a.jpg")
    whole = read_grey(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").rename(tmp_path / "a.dcm")
    np.testing.assert_array_equal(read_grey(tmp_path / "a.dcm"), whole)
    with pytest.raises(ImageError, match=r"^not a DICOM file"):
        read_dicom(tmp_path / "a.dcm")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"^empty file"),
        (b"a note", "^not a DICOM file"),
        (b"\0" * 128 + b"DICM", "^truncated or damaged DICOM"),
        (dicom_bytes(RAMP)[:-5], "^truncated or damaged DICOM"),
        (dicom_bytes(RAMP)[:200], "^truncated or damaged DICOM"),
        (dicom_bytes(np.full((18, 24), 7, np.uint16)), "^DICOM without contrast"),
        (dicom_bytes(np.zeros((3, 4, 3), np.uint8), meaning="RGB"), "^DICOM image of RGB; expected MONOCHROME1 or MONOCHROME2"),
    ],
    ids=["empty", "text", "mark only", "cut in the pixels", "cut in the header", "constant", "colour"],
)
def test_what_is_no_grey_radiograph_is_refused_with_its_reason(write, data, reason):
    with pytest.raises(ImageError, match=reason):
        read_dicom(write(data))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"^missing file$"):
        read_dicom(tmp_path / "a.dcm")


def test_several_frames_are_refused(write):
    data = dicom_bytes(np.concatenate([RAMP, RAMP]), NumberOfFrames=2, Rows=18)
    with pytest.raises(ImageError, match=r"^DICOM of 2 frames \(animated or multi-frame\); expected one image$"):
        read_dicom(write(data))


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_an_image_or_a_reason_never_a_crash(write):
    data, rng = (
        dicom_bytes(RAMP, WindowCenter=1000, WindowWidth=900, RescaleSlope=1, RescaleIntercept=0),
        np.random.default_rng(0),
    )
    n_refused = 0
    for _ in range(300):
        damaged = bytearray(data[: rng.integers(140, len(data) + 1)])
        for place in rng.integers(132, len(damaged), rng.integers(0, 4)):
            damaged[place] = rng.integers(256)
        try:
            assert read_dicom(write(bytes(damaged))).dtype == np.uint8
        except ImageError as error:
            n_refused += 1
            assert str(error)
    assert n_refused > 100


def test_without_pydicom_the_message_says_what_to_install(write):
    path = write(dicom_bytes(RAMP))
    program = (
        f"import sys; sys.modules['pydicom'] = None\nfrom pathlib import Path\nfrom biascxr.records.image import read_grey\n\
try: read_grey(Path({str(path)!r}))\nexcept Exception as error: print(type(error).__name__, error)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.strip() == 'InputError Reading DICOM (.dcm) files needs pydicom: pip install "biascxr[dicom]".'
    assert InputError is not ImageError
