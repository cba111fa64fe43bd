"""How fast do full-size JPEG radiographs become equalized 256 x 256 records, and how much of the film is lost on the way?

    python benchmarks/ingestion_speed.py             # 48 films of 3000 x 2500, one thread and one per core: three minutes
    python benchmarks/ingestion_speed.py --quick     # 12 films, one minute

The films are a phantom's, drawn at 1024 x 1024, enlarged, with quantum noise (its variance in proportion to the grey level),
and saved as MIMIC-CXR-JPG is: 8-bit grey, quality 95. The time of decoding follows their size, so the noise is set for the
1.6 MB (million bytes) that a file of MIMIC-CXR-JPG has on average. Source: physionet.org/content/mimic-cxr-jpg/2.1.0 states
"Total uncompressed size: 570.3 GB" and 377,110 images; its units are powers of 1024 (its IMAGE_FILENAMES, with 79 bytes for
each image, stands there with 28.4 MB), and its tables are 0.1 GB of it. With more noise Huffman decoding, which no side can
skip, takes a larger share of every side's time, and all ratios come nearer to 1 (`--noise 4` shows it). The files lie in a
temporary folder (`TMPDIR` chooses where) and are in the page cache: no disk is measured.

Sides, each from the path of a file to 256 x 256 equalized grey, in turns, each side's fastest round counted, by the clock; the
seconds of CPU beside it hardly depend on what else the machine does:

- biascxr: `read_prepared`, which decodes at a quarter of the scale where that leaves twice the record's size;
- Pillow, in full: decode, resize by BOX (the mean of the area), `ImageOps.equalize`: the peer of the goal, 1.5 times as fast;
- Pillow, draft: the same with libjpeg-turbo's reduced decode, which a Pillow user can ask for by hand;
- OpenCV, in full: decode, INTER_AREA, equalizeHist;
- entropy decoding alone: OpenCV's decode at an eighth. It computes one number a block, the mean, in place of a transform, so
  that nearly all of its time is Huffman decoding, which no reader of the whole file can skip: the goal, within 1.3 times of it.

Fidelity is PSNR at 256 x 256, before equalization, against OpenCV in full (goal 45 dB for the worst film). Equalization makes
any difference larger, one of rounding too: the equalized figure of Pillow in full, which is no less right, stands beside ours.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps
from training_turns import machine

import biascxr
from biascxr.phantom.film import FilmSpec, draw_film
from biascxr.records.image import Alteration, read_grey, read_prepared, standardise

SHAPE, SIZE = (3000, 2500), 256
GOAL_PILLOW, GOAL_ENTROPY, GOAL_DB = 1.5, 1.3, 45.0
NOISE = 2.4  # standard deviation in grey levels at white


def write_films(folder: Path, n: int, noise: float = NOISE) -> list[Path]:
    paths = []
    for i in range(n):
        who = {"sex": "FM"[i % 2], "age": 40 + i % 50, "body_size": 0.0, "view": ("PA", "AP")[i // 2 % 2]}
        spec = FilmSpec(
            seed=0, index=i, patient=i, group=i % 4, separability=0.5, effects={}, image_size=1024, marker=False, **who
        )
        film = cv2.resize(draw_film(spec), SHAPE[::-1], interpolation=cv2.INTER_CUBIC).astype(np.float32)
        film += np.random.default_rng(i).standard_normal(SHAPE, dtype=np.float32) * np.sqrt(film / 255) * noise
        paths.append(folder / f"{i:03d}.jpg")
        cv2.imwrite(str(paths[-1]), np.clip(np.rint(film), 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 95])
    return paths


def ours(path: Path, *, equalize: bool = True) -> np.ndarray:
    return read_prepared(path, Alteration(), size=SIZE, equalize=equalize)


def pillow(path: Path, *, equalize: bool = True, reduction: int = 1) -> np.ndarray:
    with Image.open(path) as image:
        if reduction > 1:
            image.draft("L", (image.width // reduction, image.height // reduction))
        image = image.convert("L").resize((SIZE, SIZE), Image.Resampling.BOX)
    return np.asarray(ImageOps.equalize(image) if equalize else image)


def pillow_draft(path: Path) -> np.ndarray:
    return pillow(path, reduction=4)


def opencv(path: Path) -> np.ndarray:
    grey = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
    return cv2.equalizeHist(cv2.resize(grey, (SIZE, SIZE), interpolation=cv2.INTER_AREA))


def entropy(path: Path) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)


SIDES: dict[str, Callable[[Path], np.ndarray]] = {
    "biascxr": ours,
    "Pillow, in full": pillow,
    "Pillow, draft": pillow_draft,
    "OpenCV, in full": opencv,
    "entropy decoding alone": entropy,
}


def race(paths: list[Path], *, threads: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Returns each side's seconds, by the clock and of CPU, for all films; a busy machine only ever adds to them."""
    best = dict.fromkeys(SIDES, (np.inf, np.inf))
    with ThreadPoolExecutor(threads) as pool:  # all sides let other threads run while they decode
        for _ in range(rounds):
            for name, side in SIDES.items():
                start, cpu = time.perf_counter(), time.process_time()
                for _ in pool.map(side, paths):
                    pass
                taken = time.perf_counter() - start, time.process_time() - cpu
                best[name] = min(best[name][0], taken[0]), min(best[name][1], taken[1])
    return best


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(float) - b.astype(float)) ** 2)
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def fidelity(paths: list[Path]) -> float:
    """Prints how far each side's records lie from those of decoding in full, and returns the worst of ours in dB."""
    found: dict[str, list[float]] = {name: [] for name in ("biascxr", "Pillow", "biascxr, equalized", "Pillow, equalized")}
    for path in paths:
        grey = read_grey(path)
        plain, equalized = (standardise(grey, size=SIZE, equalize=e) for e in (False, True))
        boxed = pillow(path, equalize=False)
        found["biascxr"].append(psnr(ours(path, equalize=False), plain))
        found["Pillow"].append(psnr(boxed, plain))
        found["biascxr, equalized"].append(psnr(ours(path), equalized))
        found["Pillow, equalized"].append(psnr(cv2.equalizeHist(boxed), equalized))
    print(f"\n{'PSNR against OpenCV in full':34}{'worst dB':>10}{'median dB':>11}")
    for name, values in found.items():
        print(f"{name + (', in full' if name == 'Pillow' else ''):34}{min(values):10.1f}{np.median(values):11.1f}")
    return min(found["biascxr"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--films", type=int)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--noise", type=float, default=NOISE, help="standard deviation in grey levels at white")
    flags = parser.parse_args()
    n_films = flags.films or (12 if flags.quick else 48)
    if n_films < 1 or flags.rounds < 1:
        parser.error("--films and --rounds must be at least 1")
    versions = (f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "opencv-python-headless", "pillow"))
    print("python", platform.python_version(), "biascxr", biascxr.__version__, *versions)
    print(machine())
    cv2.setNumThreads(1)  # as the records stage works: parallel over films, not inside one

    reached = {True: "reached", False: "NOT reached"}
    with tempfile.TemporaryDirectory() as name:
        paths = write_films(Path(name), n_films, flags.noise)
        n_bytes = sum(path.stat().st_size for path in paths)
        bits = 8 * n_bytes / len(paths) / np.prod(SHAPE)
        print(
            f"\n{n_films} JPEGs of {SHAPE[0]} x {SHAPE[1]}, {n_bytes / len(paths) / 1e6:.2f} MB each, {bits:.2f} bits a pixel"
        )
        for threads in sorted({1, len(os.sched_getaffinity(0))}):
            seconds = race(paths, threads=threads, rounds=flags.rounds)
            title = f"{threads} thread{'s' if threads > 1 else ''}"
            print(f"\n{title:26}{'ms a film':>10}{'films/s':>9}{'biascxr is x':>14}{'CPU ms a film':>15}{'biascxr is x':>14}")
            for side, (clock, cpu) in seconds.items():
                ratios = clock / seconds["biascxr"][0], cpu / seconds["biascxr"][1]
                print(f"{side:26}{1e3 * clock / n_films:10.1f}{n_films / clock:9.1f}{ratios[0]:14.2f}"
                      f"{1e3 * cpu / n_films:15.1f}{ratios[1]:14.2f}")  # fmt: skip
            mine = seconds["biascxr"][0]
            ratio, share = seconds["Pillow, in full"][0] / mine, mine / seconds["entropy decoding alone"][0]
            print(f"{ratio:.2f} times Pillow in full (goal {GOAL_PILLOW}): {reached[ratio >= GOAL_PILLOW]}")
            print(
                f"{share:.2f} times the entropy decoding alone (goal within {GOAL_ENTROPY}): {reached[share <= GOAL_ENTROPY]}"
            )
        worst = fidelity(paths)
    print(f"worst film {worst:.1f} dB (goal {GOAL_DB:g}): {reached[worst >= GOAL_DB]}")
    if worst < GOAL_DB:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
