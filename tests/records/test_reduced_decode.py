"""Decoding at reduced scale: the record that full decoding would give, but for less than 45 dB of difference."""

import cv2
import numpy as np
import pytest
from PIL import Image

from biascxr.phantom.film import FilmSpec, draw_film
from biascxr.records import ImageError, read_grey, standardise
from biascxr.records.image import Alteration, augment, prepare, read_film, read_prepared
from biascxr.records.jpeg import choose_reduction

GOAL_DB = 45.0
PLAIN = Alteration()


def psnr(a, b):
    """Peak signal-to-noise ratio of two 8-bit images in dB."""
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2))


def write_large(path, film, shape):
    """Writes a film as a detector of this many pixels would give it: enlarged, noisy, quality 95 as MIMIC-CXR-JPG."""
    large = cv2.resize(film, shape[::-1], interpolation=cv2.INTER_CUBIC)
    noise = cv2.randn(np.empty(shape, np.float32), 0, 3)
    cv2.imwrite(str(path), np.clip(large + noise, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 95])
    return path


def phantom_film():
    who = {"sex": "F", "age": 60, "body_size": 0.0, "view": "PA", "group": 0, "separability": 0.5}
    return draw_film(FilmSpec(seed=1, index=0, patient=0, effects={}, image_size=512, marker=True, **who))


@pytest.fixture(autouse=True)
def _noise_is_always_the_same():
    cv2.setRNGSeed(5)


@pytest.fixture(scope="module")
def odd_film(tmp_path_factory):
    """A film whose sides are no multiple of 2, 4 or 8: 813 x 1061."""
    cv2.setRNGSeed(5)
    return write_large(tmp_path_factory.mktemp("odd") / "a.jpg", phantom_film(), (813, 1061))


@pytest.mark.parametrize(
    ("shape", "size", "reduction"),
    [
        ((3000, 2500), None, 1),
        ((3000, 2500), 256, 4),  # at an eighth 312 columns would be left, fewer than 512
        ((3056, 2544), 224, 4),
        ((2048, 2048), 256, 4),
        ((2047, 3000), 256, 2),
        ((4300, 4300), 256, 8),
        ((1024, 1024), 256, 2),
        ((512, 512), 256, 1),
        ((200, 300), 256, 1),
    ],
)
def test_each_side_stays_at_least_twice_the_records(shape, size, reduction):
    assert choose_reduction(*shape, size) == choose_reduction(*shape[::-1], size) == reduction


@pytest.mark.parametrize(("size", "reduction"), [(256, 1), (200, 2), (100, 4), (50, 8)])
def test_reduced_pixels_are_those_of_pillows_reduced_decode(odd_film, size, reduction):
    film = read_film(odd_film, size=size)
    peer = Image.open(odd_film)
    peer.draft("L", (peer.width // reduction, peer.height // reduction))
    np.testing.assert_array_equal(film.pixels, np.asarray(peer))
    assert film.pixels.shape == (-(-813 // reduction), -(-1061 // reduction))
    assert (film.height, film.width) == (813 / reduction, 1061 / reduction)


@pytest.mark.parametrize("shape", [(3000, 2500), (2051, 2501), (2140, 1763), (1031, 1025), (4200, 4100)])
def test_a_synthetic_film_keeps_45_db(tmp_path, shape):
    path = write_large(tmp_path / "a.jpg", phantom_film(), shape)
    assert read_film(path, size=256).pixels.size < np.prod(shape) / 3
    whole = standardise(read_grey(path), size=256, equalize=False)
    assert psnr(read_prepared(path, PLAIN, size=256, equalize=False), whole) >= GOAL_DB


@pytest.mark.parametrize("shape", [(3000, 2500), (2544, 3056), (2051, 2501), (4200, 4100)])
def test_real_radiographs_keep_45_db(nih_folder, tmp_path, shape):
    for source in sorted((nih_folder / "images").iterdir())[::150]:
        path = write_large(tmp_path / source.name, cv2.imread(str(source), cv2.IMREAD_GRAYSCALE), shape)
        whole = standardise(read_grey(path), size=256, equalize=False)
        assert psnr(read_prepared(path, PLAIN, size=256, equalize=False), whole) >= GOAL_DB


def test_a_part_of_a_pixel_at_the_edge_is_not_stretched_to_a_whole_one(odd_film):
    """At an eighth 1061 columns are 132.6, held by 133; taken for 133, the far edge would lie 0.14 of a record's pixel off."""
    film = read_film(odd_film, size=50)
    whole = standardise(read_grey(odd_film), size=50, equalize=False)
    careful = standardise(film.pixels, size=50, equalize=False, extent=(film.height, film.width))
    careless = standardise(film.pixels, size=50, equalize=False)
    assert careful.shape == (50, 50)
    assert psnr(careful, whole) > psnr(careless, whole) + 6


def test_every_size_of_film_gives_records_of_one_size():
    for height in range(512, 640):
        for k in (2, 4, 8):
            rows = np.zeros((-(-height // k), 600 // k), np.uint8)
            size = height // k // 2
            resized = standardise(rows, size=size, equalize=False, extent=(height / k, 600 / k))
            assert resized.shape == (size, size)


@pytest.mark.parametrize("alteration", [Alteration(degradation=0.4), Alteration(marker=True)], ids=["blurred", "marked"])
def test_a_blurred_or_marked_film_is_decoded_in_full(odd_film, alteration):
    in_full = prepare(read_grey(odd_film), alteration, size=64, equalize=True)
    np.testing.assert_array_equal(read_prepared(odd_film, alteration, size=64, equalize=True), in_full)
    film = read_film(odd_film, size=64)
    reduced = prepare(film.pixels, alteration, size=64, equalize=True)
    assert not np.array_equal(reduced, in_full)  # so the first line can fail


def test_an_augmented_view_is_the_plain_record_augmented(odd_film):
    change = Alteration(rotation=7.0, shift_x=0.02, contrast=1.1)
    plain = read_prepared(odd_film, PLAIN, size=64, equalize=True)
    np.testing.assert_array_equal(read_prepared(odd_film, change, size=64, equalize=True), augment(plain, change))


def test_where_nothing_is_reduced_a_record_is_what_it_was(tmp_path, make_image):
    pixels = make_image(0, (500, 400))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif(6))
    for name in ("a.png", "turned.jpg"):
        in_full = read_grey(tmp_path / name)
        np.testing.assert_array_equal(read_film(tmp_path / name, size=32).pixels, in_full)
        record = read_prepared(tmp_path / name, PLAIN, size=32, equalize=True)
        np.testing.assert_array_equal(record, standardise(in_full, size=32, equalize=True))


def test_colour_and_progressive_films_are_reduced_alike(tmp_path, odd_film):
    whole = Image.open(odd_film)
    in_full = standardise(read_grey(odd_film), size=64, equalize=False)
    for name, image, options in (("rgb", whole.convert("RGB"), {}), ("progressive", whole, {"progressive": True})):
        image.save(tmp_path / name, "jpeg", quality=95, **options)
        assert read_film(tmp_path / name, size=64).pixels.shape == (-(-813 // 4), -(-1061 // 4))
        assert psnr(read_prepared(tmp_path / name, PLAIN, size=64, equalize=False), in_full) >= GOAL_DB


def exif(orientation):
    made = Image.Exif()
    made[0x0112] = orientation
    return made


def test_a_damaged_large_film_is_refused_at_reduced_scale_too(odd_film, tmp_path):
    data = odd_film.read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: 2 * len(data) // 3] + b"\xff\xd9")
    with pytest.raises(ImageError, match="truncated or damaged jpeg"):
        read_prepared(tmp_path / "a.jpg", PLAIN, size=64, equalize=True)
