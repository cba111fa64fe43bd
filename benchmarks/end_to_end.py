"""From full-size JPEG radiographs to vectors: how much of the machine's speed does a whole run reach, and how much memory?

    python benchmarks/end_to_end.py                  # 1,600 films of 3000 x 2500, then 55,000 small ones: twenty minutes
    python benchmarks/end_to_end.py --quick          # 320 and 5,500: six minutes
    python benchmarks/end_to_end.py --only speed     # or --only memory

Both parts run `biascxr embeddings` as a user does, processes, imports and the building of the network included.

Speed: the films are those of `ingestion_speed.py`, under as many names as are asked for; the network is a DenseNet121 with
drawn weights. A run decodes all films (records), then embeds all of them, on all cores each time, so that it can at best reach
1 / (1/decoding + 1/inference), each measured alone on all cores, in processes that are warm, before, between and after the
runs. A run of a quarter of the films tells what the start costs: what a run of hundreds of thousands reaches is the speed of
the rest. The goal: at least 0.85 of the best there can be. That the store holds what the network alone gives is checked, to the
last bit.

Memory: small PNG films and a small network, so that many images go through in minutes; each of a run's processes is looked at
ten times a second. The goal: at ten times the images, a peak that is larger by less than 2 KB for each image more. An image is
64 KB there and a vector 4 KB, and its row in the tables about 1 KB: neither images nor vectors are held.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np
import pandas as pd
from embedding_speed import films as made_up_films
from ingestion_speed import SIZE, write_films
from processes import Taken, watched
from training_turns import is_installed, machine

import biascxr
from biascxr.containers import EmbeddingSet
from biascxr.embeddings.graph_encoder import GraphEncoder
from biascxr.records.image import Alteration, encode, read_prepared
from biascxr.run_folder import STAGES

GOAL_SHARE, GOAL_KB = 0.85, 2.0
N_DISTINCT = 48
REACHED = {True: "reached", False: "NOT reached"}


def write_table(folder: Path, files: list[Path], n: int) -> Path:
    """Writes a table of n images, each a name of its own for one of the files, in turns."""
    rows = []
    for i in range(n):
        path = folder / "files" / f"{i // 1000:03d}" / f"{i:06d}{files[0].suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(files[i % len(files)], path)
        rows.append((path.relative_to(folder), i // 2, i, path.stem, "FM"[i // 2 % 2], 40 + i // 2 % 40, i % 2))
    columns = ("path", "subject_id", "study_id", "dicom_id", "gender", "age", "Edema")
    pd.DataFrame(rows, columns=columns).to_csv(folder / "meta.csv", index=False)
    return folder / "meta.csv"


def run(folder: Path, table: Path, weights: str, *flags: str) -> Taken:
    command = [sys.executable, "-m", "biascxr.cli", "embeddings", "--csv_path", str(table), "--output_dir", str(folder)]
    command += ["--weights", weights, "--allow", "near_duplicate_vectors"]  # many names for few films
    return watched([*command, *flags], folder.with_suffix(".log"))


# Speed --------------------------------------------------------------------------------------------------------------------

_WARM: dict[str, GraphEncoder] = {}


def warm(graph: Path) -> None:
    cv2.setNumThreads(1)
    _WARM["graph"] = GraphEncoder(graph)
    _WARM["graph"].encode(np.zeros((1, SIZE, SIZE), np.uint8))


def decode_film(path: Path) -> int:
    return len(encode(read_prepared(path, Alteration(), size=SIZE, equalize=True), "png"))


def embed_film(film: np.ndarray) -> np.ndarray:
    return _WARM["graph"].encode(film[None])[0]


class Alone:
    """Decoding alone and inference alone, in warm processes, one per core."""

    def __init__(self, files: list[Path], graph: Path, n_cores: int) -> None:
        self._files = files
        self._films = [read_prepared(path, Alteration(), size=SIZE, equalize=True) for path in files]
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(n_cores, mp_context=context, initializer=warm, initargs=(graph,))
        self.seconds: dict[str, list[float]] = {"decoding": [], "inference": []}
        self.vectors = np.stack(list(self._pool.map(embed_film, self._films)))
        list(self._pool.map(decode_film, self._files))

    def measure(self, rounds: int) -> None:
        for _ in range(rounds):
            for name, work, given in (
                ("decoding", decode_film, self._files),
                ("inference", embed_film, self._films),
            ):
                start = time.perf_counter()
                for _ in self._pool.map(work, given, chunksize=2):
                    pass
                self.seconds[name].append((time.perf_counter() - start) / len(given))

    def per_film(self, name: str) -> float:
        """Seconds, the mean over all rounds: a run goes through the machine's good and bad moments, too."""
        return float(np.mean(self.seconds[name]))


def measure_speed(folder: Path, n_films: int) -> bool:
    files = write_films(folder, N_DISTINCT)
    # In a process of its own: Keras and PyTorch shall not be in this one, whose memory and threads the others share.
    write = "import sys; from pathlib import Path; from embedding_speed import write_network; write_network(Path(sys.argv[1]))"
    here = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
    subprocess.run([sys.executable, "-c", write, str(folder)], check=True, env=here)
    n_cores = len(os.sched_getaffinity(0))
    alone = Alone(files, folder / "network.onnx", n_cores)
    alone.measure(2)
    taken = {}
    for n in (n_films // 4, n_films):
        place = folder / str(n)
        place.mkdir()
        table = write_table(place, files, n)
        taken[n] = run(
            folder / f"run-{n}", table, str(folder / "network.keras"), "--layer", "avg_pool", "--rows_per_shard", "64"
        )
        alone.measure(1)
    alone.measure(1)
    (few, first), (many, last) = taken.items()
    best = 1 / (alone.per_film("decoding") + alone.per_film("inference"))
    rest = (many - few) / (last.seconds - first.seconds)
    print(f"\nFull-size JPEGs to vectors, {n_cores} cores{'':8}{'films/s':>10}{'of the best':>13}")
    for title, rate in (
        ("decoding alone", 1 / alone.per_film("decoding")),
        ("inference alone", 1 / alone.per_film("inference")),
        ("one after the other: the best", best),
        (f"a run of {few:,}, start included", few / first.seconds),
        (f"a run of {many:,}, start included", many / last.seconds),
        ("a run without its start", rest),
    ):
        print(f"{title:42}{rate:10.2f}{rate / best:13.2f}")
    print(f"start: {last.seconds - many / rest:.0f} s; 377,110 films would take {377_110 / rest / 3600:.1f} h")
    print(f"{rest / best:.2f} of the best there can be (goal {GOAL_SHARE}): {REACHED[rest / best >= GOAL_SHARE]}")
    store = EmbeddingSet.load(folder / f"run-{many}" / STAGES["embeddings"])
    number = np.array([int(Path(name).stem) % N_DISTINCT for name in store.image_id])
    is_same = len(store.vectors) == many and np.array_equal(store.vectors, alone.vectors[number])
    print(f"the store holds what the network alone gives, to the last bit: {'yes' if is_same else 'NO'}")
    return is_same


# Memory -------------------------------------------------------------------------------------------------------------------


def write_small_network(path: Path) -> None:
    import keras

    keras.utils.set_random_seed(0)
    image = x = keras.Input((SIZE, SIZE, 1))
    for channels in (8, 16, 32):
        x = keras.layers.Conv2D(channels, 3, strides=4, activation="relu")(x)
    keras.Model(image, keras.layers.GlobalAveragePooling2D(name="vector")(keras.layers.Conv2D(1024, 1)(x))).save(path)


def measure_memory(folder: Path, n_images: int) -> bool:
    files = []
    for i, film in enumerate(made_up_films(N_DISTINCT)):
        files.append(folder / f"{i:03d}.png")
        cv2.imwrite(str(files[-1]), film)
    write_small_network(folder / "network.keras")
    taken = {}
    for n in (n_images // 10, n_images):
        place = folder / str(n)
        place.mkdir()
        table = write_table(place, files, n)
        taken[n] = run(folder / f"run-{n}", table, str(folder / "network.keras"), "--layer", "vector")
    (few, first), (many, last) = taken.items()
    growth = 1024 * (last.peak_mb - first.peak_mb) / (many - few)
    print(f"\n{'PNGs of 256 x 256, a small network':42}{'images/s':>10}{'peak MB, all processes':>25}")
    for n, one in taken.items():
        print(f"{f'a run of {n:,}':42}{n / one.seconds:10.0f}{one.peak_mb:25.0f}")
    print(f"{growth:.2f} KB more for each image more (goal under {GOAL_KB:g}): {REACHED[growth < GOAL_KB]}")
    return len(EmbeddingSet.load(folder / f"run-{many}" / STAGES["embeddings"]).vectors) == many


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--films", type=int, help="full-size films of the larger run")
    parser.add_argument("--images", type=int, help="small images of the larger run")
    parser.add_argument("--only", choices=("speed", "memory"))
    flags = parser.parse_args()
    n_films = flags.films or (320 if flags.quick else 1_600)
    n_images = flags.images or (5_000 if flags.quick else 50_000)
    if n_films < 4 * N_DISTINCT or n_images < 1_000:
        parser.error(f"--films must be at least {4 * N_DISTINCT} and --images at least 1000")
    if not is_installed("onnxruntime") or not is_installed("tf2onnx"):
        raise SystemExit('ONNX Runtime or the exporter is not installed: pip install "biascxr[onnx]"')
    names = ("numpy", "opencv-python-headless", "keras", "tensorflow", "onnxruntime")
    versions = (f"{name} {importlib.metadata.version(name)}" for name in names)
    print("python", platform.python_version(), "biascxr", biascxr.__version__, *versions)
    print(machine())
    parts = {"speed": (measure_speed, n_films), "memory": (measure_memory, n_images)}
    is_right = True
    for name, (measure, n) in parts.items():
        if flags.only in (None, name):
            with tempfile.TemporaryDirectory() as place:
                is_right = measure(Path(place), n) and is_right
    if not is_right:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
