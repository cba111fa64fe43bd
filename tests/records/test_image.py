"""Images: the grey levels that Pillow reads; what cannot be used is refused with its reason."""

import errno
import io
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from biascxr.errors import InputError
from biascxr.records import ImageError, decode, read_grey, standardise
from biascxr.records.image import encode


def pillow_grey(path):
    return np.asarray(Image.open(path).convert("RGB").convert("L")).astype(int)


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_grey_levels_are_pillows(tmp_path, grey, colour, ending, mode):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(grey if mode == "L" else colour).save(path)
    ours = read_grey(path)
    assert ours.dtype == np.uint8
    assert ours.shape == grey.shape
    assert np.abs(ours - pillow_grey(path)).max() <= (mode == "RGB")  # luma is rounded, by each in its way


@pytest.mark.parametrize("mode", ["1", "LA", "P", "RGBA"])
def test_other_forms_of_png_are_turned_to_grey(tmp_path, grey, colour, mode):
    path = tmp_path / "a.png"
    source = Image.fromarray(colour if mode in ("P", "RGBA") else grey)
    (source.quantize(64) if mode == "P" else source.convert(mode)).save(path)
    assert Image.open(path).mode == mode
    assert np.abs(read_grey(path) - pillow_grey(path)).max() <= 1


def test_a_progressive_jpeg_and_bytes_after_the_end_do_no_harm(tmp_path, grey):
    path = tmp_path / "a.jpg"
    Image.fromarray(grey).save(path, progressive=True)
    whole = read_grey(path)
    assert np.abs(whole - pillow_grey(path)).max() == 0
    path.write_bytes(path.read_bytes() + b"\0" * 500)
    np.testing.assert_array_equal(read_grey(path), whole)


def test_the_ending_of_the_name_does_not_matter(tmp_path, grey):
    Image.fromarray(grey).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_grey(tmp_path / "a.jpg"), grey)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"^empty file \(zero bytes\)$"),
        (b"this is a note, not a radiograph", "^not an image"),
        (b"GIF89a" + b"\0" * 50, "^not an image"),
        (b"\xff\xd8\xff", "^truncated or damaged jpeg"),
        (b"\x89PNG\r\n\x1a\n", "^truncated or damaged png"),
    ],
)
def test_what_is_no_image_is_refused_with_its_reason(tmp_path, data, reason):
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=reason):
        read_grey(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ImageError, match=r"^missing file$"):
        read_grey(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match=r"^unreadable file: Is a directory"):
        read_grey(tmp_path)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_every_truncation_is_refused(tmp_path, make_image, ending):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(make_image(0, (40, 30))).save(path)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ImageError):
            read_grey(path)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_file_whose_second_half_was_never_written_is_refused(tmp_path, grey, ending):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(grey).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + b"\0" * (len(data) - len(data) // 2))
    with pytest.raises(ImageError, match="damaged"):
        read_grey(path)


def test_a_truncated_progressive_jpeg_is_refused(tmp_path, grey):
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "jpeg", progressive=True)
    path = tmp_path / "a.jpg"
    path.write_bytes(buffer.getvalue()[: 2 * len(buffer.getvalue()) // 3])
    with pytest.raises(ImageError, match="truncated"):
        read_grey(path)


def test_a_damaged_png_is_refused(tmp_path, grey):
    path = tmp_path / "a.png"
    Image.fromarray(grey).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"damaged png"):
        read_grey(path)


@pytest.mark.parametrize("size", [32, 64, 256])
def test_standardising_is_resizing_by_area_then_equalizing(grey, size):
    resized = cv2.resize(grey, (size, size), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(standardise(grey, size=size, equalize=False), resized)
    np.testing.assert_array_equal(standardise(grey, size=size, equalize=True), cv2.equalizeHist(resized))


def test_halving_is_the_mean_of_four_pixels(make_image):
    image = make_image(5, (64, 64))
    mean = image.reshape(32, 2, 32, 2).mean(axis=(1, 3))
    assert np.abs(standardise(image, size=32, equalize=False) - mean).max() <= 0.5


def test_equalizing_uses_all_grey_levels_evenly(make_image):
    dark = make_image(6, (256, 256)) // 4
    equalized = standardise(dark, size=256, equalize=True)
    assert (equalized.min(), equalized.max()) == (0, 255)
    shares = np.histogram(equalized, bins=4, range=(0, 256))[0] / equalized.size
    np.testing.assert_allclose(shares, 0.25, atol=0.06)


def test_a_stored_png_keeps_every_grey_level_and_a_jpeg_nearly(grey):
    np.testing.assert_array_equal(decode(encode(grey, "png")), grey)
    jpeg = encode(grey, "jpeg")
    assert jpeg.startswith(b"\xff\xd8\xff")
    assert np.abs(decode(jpeg).astype(int) - grey).mean() < 2


def test_a_stored_image_that_cannot_be_decoded_is_an_error():
    with pytest.raises(ImageError, match="the record's image cannot be decoded"):
        decode(b"no image")


def test_planted_blur_grows_with_the_image_and_the_marker_too(make_image):
    """The same share of sharpness is lost whatever the size: a film twice as large is blurred twice as wide."""
    from biascxr.records.image import alter

    def width_of_the_edge(side: int) -> int:
        image = np.zeros((side, side), np.uint8)
        image[:, side // 2 :] = 255
        row = alter(image, degradation=1.0, marker=False)[side // 2]
        return np.count_nonzero((row > 20) & (row < 235))

    assert width_of_the_edge(400) > 1.5 * width_of_the_edge(200) > 0
    plain = make_image(0, (90, 70))
    assert alter(plain, degradation=0.0, marker=False) is plain
    marked = [np.count_nonzero(alter(np.full((n, n), 9, np.uint8), degradation=0.0, marker=True) == 255) for n in (400, 200)]
    assert 3 < marked[0] / marked[1] < 5


@pytest.mark.parametrize("fault", [errno.EIO, errno.ESTALE])
def test_a_disk_at_fault_stops_the_work_and_rejects_no_image(fault, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"x")

    def read_bytes(_):
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.raises(InputError, match="The disk answered with an error") as caught:
        read_grey(path)
    assert not isinstance(caught.value, ImageError) and str(tmp_path) not in str(caught.value)
