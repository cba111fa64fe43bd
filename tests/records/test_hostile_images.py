"""Hostile files: each is named and refused, by its header where that is enough; none stops the run, none is replaced."""

import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from made_dicom import dicom_bytes
from PIL import Image

from biascxr.config import SPLITS, RecordsConfig
from biascxr.records import ImageError, build_records, decode_example, read_grey, read_records, read_rejected
from biascxr.records.image import read_film
from biascxr.records.image_file import MAX_BYTES, MAX_PIXELS, Header


def film(shape=(160, 200)):
    noise = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 20, 220, cv2.NORM_MINMAX).astype(np.uint8)


def flat(level, dtype=np.uint8):
    return np.full((160, 200), level, dtype)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def saved(pixels, form, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def jpeg(pixels=None, **options):
    return saved(film() if pixels is None else pixels, "jpeg", **options)


def png(pixels=None, **options):
    return saved(film() if pixels is None else pixels, "png", **options)


def jpeg_claiming(height, width, **options):
    """A JPEG of 160 x 200 pixels whose frame header says otherwise."""
    data = bytearray(jpeg(**options))
    place = data.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def png_claiming(height, width, *, bits=8, rows=None):
    """A PNG of 160 x 200 pixels whose header, checksum and all, says otherwise; or one with the given raw rows."""
    data = png()
    if rows is not None:
        data = data[:33] + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return data[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)) + data[33:]


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def frames(form):
    images = [Image.fromarray(film()), Image.fromarray(255 - film())]
    return saved(images[0], form, save_all=True, append_images=images[1:])


def dicom(pixels=None, **more):
    pixels = film().astype(np.uint16) * 16 if pixels is None else pixels
    return dicom_bytes(pixels, PatientName="Nobody^Known", PatientID="PATIENT-4711", **more)


def second_half_lost(data, end):
    return data[: len(data) // 2] + end


BOMB = r"of 20000 x 20000 pixels \(height x width\); expected 80,000,000 pixels at most"
SMALL = r"of 1 x 1 pixels \(height x width\); expected sides of at least 16"
FLAT = r"without contrast \(every pixel has one value\)"
EARLY = "truncated or damaged jpeg .its data end before"
# what the file is called -> how it is made, and the reason for which it is refused
HOSTILE = {
    "truncated.jpg": (lambda: jpeg()[:-400], "truncated or damaged jpeg"),
    "truncated.png": (lambda: png()[:-400], "truncated or damaged png"),
    "truncated.dcm": (lambda: dicom()[:-400], "truncated or damaged DICOM"),
    "half_with_an_end.jpg": (lambda: second_half_lost(jpeg(), b"\xff\xd9"), EARLY),
    "half_with_an_end.png": (lambda: second_half_lost(png(), chunk(b"IEND", b"")), "damaged png"),
    "empty.jpg": (bytes, r"empty file \(zero bytes\)"),
    "empty.dcm": (bytes, r"empty file \(zero bytes\)"),
    "one_pixel.jpg": (lambda: jpeg(film((1, 1))), "jpeg " + SMALL),
    "one_pixel.png": (lambda: png(film((1, 1))), "png " + SMALL),
    "one_pixel.dcm": (lambda: dicom(np.ones((1, 1), np.uint16)), "DICOM " + SMALL),
    "one_row.png": (lambda: png(film((1, 200))), "png of 1 x 200 pixels"),
    "bomb.png": (lambda: png_claiming(20_000, 20_000, bits=1, rows=b"\0" * 2501 * 20_000), "png " + BOMB),
    "bomb.jpg": (lambda: jpeg_claiming(20_000, 20_000), "jpeg " + BOMB),
    "bomb.dcm": (lambda: dicom(is_rle=True, Rows=20_000, Columns=20_000), "DICOM " + BOMB),
    "a_text.png": (lambda: b"a note of the ward, not a film", "not an image"),
    "a_page.jpg": (lambda: b"<!DOCTYPE html><title>404 Not Found</title>", "not an image"),
    "a_gif.jpg": (lambda: saved(film(), "gif"), "not an image"),
    "a_mark_only.dcm": (lambda: b"\0" * 128 + b"DICM", "truncated or damaged DICOM"),
    "animated.png": (lambda: frames("png"), r"png of 2 frames \(animated or multi-frame\)"),
    "two_images.jpg": (lambda: frames("mpo"), r"jpeg of 2 frames \(animated or multi-frame\)"),
    "cine.dcm": (lambda: dicom(NumberOfFrames=2, Rows=80), r"DICOM of 2 frames \(animated or multi-frame\)"),
    "slope_nan.dcm": (lambda: dicom(RescaleSlope="nan", RescaleIntercept=0), "DICOM whose RescaleSlope is nan"),
    "slope_huge.dcm": (
        lambda: dicom(RescaleSlope="1e308", RescaleIntercept=0),
        "DICOM whose grey levels are not all finite numbers",
    ),
    "slope_inf.dcm": (lambda: dicom(RescaleSlope="inf", RescaleIntercept=0), "DICOM whose RescaleSlope is inf"),
    "slope_0.dcm": (lambda: dicom(RescaleSlope=0, RescaleIntercept=0), "DICOM whose RescaleSlope is 0"),
    "intercept.dcm": (lambda: dicom(RescaleSlope=1, RescaleIntercept="nan"), "DICOM whose RescaleIntercept is nan"),
    "window.dcm": (lambda: dicom(WindowCenter=[9, 9], WindowWidth=["9", "nan"]), "DICOM whose WindowWidth is nan"),
    "constant.dcm": (lambda: dicom(flat(7, np.uint16)), "DICOM " + FLAT),
    "constant_8_bits.dcm": (lambda: dicom(flat(0)), "DICOM " + FLAT),
    "constant_inverted.dcm": (lambda: dicom(flat(7, np.uint16), meaning="MONOCHROME1"), "DICOM " + FLAT),
    "constant_in_its_window.dcm": (lambda: dicom(WindowCenter=60_000, WindowWidth=100), "DICOM " + FLAT),
    "constant_deep.png": (lambda: png(flat(700, np.uint16)), "png " + FLAT),
    "black.png": (lambda: png(flat(0)), "png " + FLAT),
    "white.png": (lambda: png(flat(255)), "png " + FLAT),
    "one_colour.png": (lambda: png(np.full((160, 200, 3), (9, 90, 200), np.uint8)), "png " + FLAT),
    "one_bit.png": (lambda: png(Image.new("1", (200, 160), 1)), "png " + FLAT),
    "constant_under_alpha.png": (lambda: png(np.dstack([flat(9), flat(9), flat(9), film()])), "png " + FLAT),
    "black.jpg": (lambda: jpeg(flat(0)), "jpeg " + FLAT),
    "mid_grey.jpg": (lambda: jpeg(flat(128)), "jpeg " + FLAT),
    "one_colour.jpg": (lambda: jpeg(np.full((160, 200, 3), (9, 90, 200), np.uint8)), "jpeg " + FLAT),
    "constant_cmyk.jpg": (lambda: jpeg(Image.new("CMYK", (200, 160), (9, 9, 9, 9))), "jpeg " + FLAT),
    "constant_turned.jpg": (lambda: jpeg(flat(7), exif=turned()), "jpeg " + FLAT),
    "claims_more_rows.jpg": (lambda: jpeg_claiming(320, 200), EARLY),
    "claims_a_few_more_rows.jpg": (lambda: jpeg_claiming(168, 200), EARLY),
    "claims_more_columns.jpg": (lambda: jpeg_claiming(160, 400), EARLY),
    "claims_more_progressive.jpg": (lambda: jpeg_claiming(320, 200, progressive=True), EARLY),
    "claims_no_rows.jpg": (lambda: jpeg_claiming(0, 200), "jpeg of 0 x 200 pixels"),
    "claims_more_rows.png": (lambda: png_claiming(200, 200), "damaged png"),
    "claims_more_columns.png": (lambda: png_claiming(160, 300), "damaged png"),
    "claims_more_rows.dcm": (lambda: dicom(Rows=320), "truncated or damaged DICOM"),
    "claims_fewer_rows.dcm": (lambda: dicom(Rows=80), "DICOM of 80 x 200 pixels by its header, but 64,000 bytes"),
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")

    def write(name):
        if not (folder / name).exists():
            (folder / name).write_bytes(HOSTILE[name][0]())
        return folder / name

    return write


@pytest.mark.parametrize("size", [None, 24, 10], ids=["in full", "at a half", "at an eighth"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_its_reason(hostile, name, size):
    path = hostile(name)
    with pytest.raises(ImageError, match=f"^{HOSTILE[name][1]}") as caught:
        read_film(path, size=size)
    assert "4711" not in str(caught.value) and "Nobody" not in str(caught.value)


@pytest.mark.parametrize("name", ["bomb.png", "bomb.jpg", "bomb.dcm", "one_pixel.png", "animated.png", "two_images.jpg"])
def test_what_a_header_gives_away_is_never_decoded(hostile, name, monkeypatch):
    path = hostile(name)

    def decoding(*_, **__):
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(cv2, "imdecode", decoding)
    monkeypatch.setattr(Image, "open", decoding)
    if name.endswith("dcm"):
        monkeypatch.setattr(pytest.importorskip("pydicom").Dataset, "pixel_array", property(decoding))
    with pytest.raises(ImageError):
        read_grey(path)


def test_the_largest_film_there_is_passes_and_the_limit_is_exact():
    Header("png", 8600, 8600, 16, 1).check()  # 43 x 43 cm at 50 micrometres
    Header("png", MAX_PIXELS // 8000, 8000, 8, 1).check()
    with pytest.raises(ImageError, match="10001 x 8000"):
        Header("png", MAX_PIXELS // 8000 + 1, 8000, 8, 1).check()
    assert MAX_PIXELS < Image.MAX_IMAGE_PIXELS  # so that Pillow, which reads odd files, has nothing to warn of


def test_a_file_larger_than_any_image_and_a_pipe_are_not_read(tmp_path):
    with open(tmp_path / "huge.png", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ImageError, match=r"^file of 537 MB; expected 537 MB at most"):
        read_grey(tmp_path / "huge.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match=r"^unreadable file: a pipe or a device"):
        read_grey(tmp_path / "pipe.png")


@pytest.mark.parametrize("size", [None, 24, 10])
@pytest.mark.parametrize("corner", [slice(16, None), slice(-9, None)])
def test_a_film_that_is_mid_grey_where_a_decoder_would_fill_in_is_no_truncated_one(tmp_path, size, corner):
    pixels = film((160, 200))
    pixels[corner, corner] = 128
    (tmp_path / "a.jpg").write_bytes(jpeg(pixels, quality=100))
    assert (read_grey(tmp_path / "a.jpg")[-8:, -8:] == 128).all()
    assert read_film(tmp_path / "a.jpg", size=size).pixels[-1, -1] == 128


@pytest.mark.parametrize("size", [None, 24, 10], ids=["in full", "at a half", "at an eighth"])
@pytest.mark.parametrize("form", ["jpg", "png", "dcm"])
def test_a_film_with_two_grey_levels_is_a_film_at_whatever_scale_it_is_read(tmp_path, size, form):
    pixels = flat(100)
    pixels[80:82, 96:98] = 106  # over a block of 8 x 8 pixels a mean of 100.4: gone at an eighth of a JPEG's scale
    data = {"jpg": lambda: jpeg(pixels, quality=100), "png": lambda: png(pixels), "dcm": lambda: dicom(pixels)}[form]()
    (tmp_path / f"a.{form}").write_bytes(data)
    is_flat_as_read = np.ptp(read_film(tmp_path / f"a.{form}", size=size).pixels) == 0
    assert is_flat_as_read == ((form, size) == ("jpg", 10))


def test_no_hostile_file_stops_a_run_or_is_replaced(hostile, make_cohort, tmp_path):
    pytest.importorskip("pydicom")
    good = [f"good_{i}.png" for i in range(len(HOSTILE))]
    names = [name for pair in zip(good, HOSTILE, strict=True) for name in pair]
    folder = hostile("empty.jpg").parent
    for name in good:
        (folder / name).write_bytes(png())
    for name in HOSTILE:
        hostile(name)
    split = np.resize(np.repeat(SPLITS, 2), len(names))
    (tmp_path / "records").mkdir()
    build_records(
        make_cohort(names, names, folder, split=split),
        RecordsConfig(image_size=32, rows_per_shard=8),
        tmp_path / "records",
        n_workers=1,
    )
    reasons = {row["image_id"]: row["reason"] for row in read_rejected(tmp_path / "records")}
    assert sorted(reasons) == sorted(HOSTILE)
    shards = [f for f in (tmp_path / "records").iterdir() if ".tfrecord" in f.name]
    written = [decode_example(data)["image_id"][0].decode() for shard in shards for data in read_records(shard)]
    assert sorted(written) == sorted(good)
