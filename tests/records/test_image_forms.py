"""The forms an image file may have: whatever the form, the same film gives the same grey."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from biascxr.records import ImageError, read_grey
from biascxr.records.image_file import tiff_number, upright


def luma_601(rgb):
    return rgb.astype(float) @ (0.299, 0.587, 0.114)


def as_exif(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colour_is_made_grey_by_bt601_luma(tmp_path, colour, mode):
    Image.fromarray(colour).convert(mode).save(tmp_path / "a.png")
    assert np.abs(read_grey(tmp_path / "a.png") - luma_601(colour)).max() <= 0.51


def test_a_transparent_pixel_keeps_its_grey(tmp_path, grey, colour):
    alpha = np.zeros_like(grey)
    for ending, pixels in (("grey", [grey]), ("colour", [colour[..., i] for i in range(3)])):
        Image.merge("LA" if len(pixels) == 1 else "RGBA", [Image.fromarray(p) for p in (*pixels, alpha)]).save(
            tmp_path / f"{ending}.png"
        )
    np.testing.assert_array_equal(read_grey(tmp_path / "grey.png"), grey)
    assert np.abs(read_grey(tmp_path / "colour.png") - luma_601(colour)).max() <= 0.51


def test_a_grey_film_stored_as_colour_is_the_same_film(tmp_path, grey):
    for mode in ("RGB", "RGBA", "LA", "P"):
        Image.fromarray(grey).convert(mode).save(tmp_path / f"{mode}.png")
        np.testing.assert_array_equal(read_grey(tmp_path / f"{mode}.png"), grey)


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_colour_jpegs_are_grey_as_pillow_shows_them(tmp_path, colour, mode):
    path = tmp_path / "a.jpg"
    Image.fromarray(colour).convert(mode).save(path, quality=98, subsampling=0)
    shown = np.asarray(Image.open(path).convert("RGB"))
    # the stored Y is read as it is; Pillow's goes through rounded and clipped RGB
    assert np.abs(read_grey(path) - luma_601(shown)).max() <= 2
    assert np.abs(read_grey(path) - luma_601(colour)).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_exif_orientation_turns_as_pillow_turns(tmp_path, grey, orientation, ending):
    path = tmp_path / f"a.{ending}"
    Image.fromarray(grey).save(path, exif=as_exif(orientation))
    np.testing.assert_array_equal(read_grey(path), np.asarray(ImageOps.exif_transpose(Image.open(path))))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_is_another_turn(orientation):
    square = np.arange(9).reshape(3, 3)
    turned = [upright(square, n) for n in range(1, 9)]
    assert sum(np.array_equal(t, turned[orientation - 1]) for t in turned) == 1


@pytest.mark.parametrize("exif", [b"", b"MM\0*", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\x05\x01\x12", b"nonsense" * 9])
def test_a_damaged_exif_segment_leaves_the_film_as_it_is(tmp_path, grey, exif):
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(grey).save(tmp_path / "b.png", exif=b"Exif\0\0" + exif)
    np.testing.assert_array_equal(read_grey(tmp_path / "b.png"), read_grey(tmp_path / "a.png"))
    assert tiff_number(exif, 0x0112) is None


@pytest.mark.parametrize("depth", [10, 12, 14, 16])
def test_deep_pngs_are_stretched_from_their_own_range(tmp_path, grey, depth):
    """The same film comes out whatever depth a 16-bit file holds: / 257 would leave 16 levels of a detector's 4096."""
    deep = grey.astype(np.uint16) << (depth - 8)
    Image.fromarray(deep).save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == "I;16"
    stretched = (grey.astype(float) - grey.min()) / (int(grey.max()) - int(grey.min())) * 255
    assert np.abs(read_grey(tmp_path / "a.png") - stretched).max() <= 0.501


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_deep_colour_and_alpha_are_grey_too(tmp_path, grey, channels):
    import cv2

    deep = grey.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "grey.png")
    if channels == 2:  # OpenCV writes none of this form: the grey file's rows, with a sample of alpha beside each
        write_grey_alpha_16(tmp_path / "a.png", deep)
    else:
        layers = [deep] * 3 + [np.full_like(deep, 9)] * (channels == 4)
        cv2.imwrite(str(tmp_path / "a.png"), np.stack(layers, axis=-1))
    assert np.abs(read_grey(tmp_path / "a.png").astype(int) - read_grey(tmp_path / "grey.png")).max() <= 1


def write_grey_alpha_16(path, deep):
    import struct
    import zlib

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    samples = np.stack([deep, np.full_like(deep, 9)], axis=-1).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", deep.shape[1], deep.shape[0], 16, 4, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


@pytest.mark.parametrize("lossless", [False, True])
def test_deep_jpegs_are_stretched_from_their_own_range(tmp_path, grey, lossless):
    imagecodecs = pytest.importorskip("imagecodecs")
    deep = grey.astype(np.uint16) * 16
    data = imagecodecs.jpeg_encode(deep, bitspersample=12, **({"lossless": True} if lossless else {"level": 100}))
    (tmp_path / "a.jpg").write_bytes(data)
    Image.fromarray(deep).save(tmp_path / "a.png")
    assert np.abs(read_grey(tmp_path / "a.jpg").astype(int) - read_grey(tmp_path / "a.png")).max() <= (0 if lossless else 1)
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2] + data[-2:])
    with pytest.raises(ImageError, match="damaged jpeg"):
        read_grey(tmp_path / "a.jpg")


def test_a_deep_jpeg_without_a_decoder_says_what_to_install(tmp_path, grey, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "jpeg")
    data = bytearray(buffer.getvalue())
    data[data.index(b"\xff\xc0") + 4] = 12
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(ImageError, match=r"^jpeg of 12 bits a pixel; decoding it needs: pip install imagecodecs$"):
        read_grey(tmp_path / "a.jpg")
