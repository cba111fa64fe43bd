"""SIGKILL at any moment: what a resumed records stage leaves is what an undisturbed one leaves, byte for byte."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from biascxr.config import SPLITS, RecordsConfig
from biascxr.records import build_records, check_shards

CONFIG = RecordsConfig(image_size=64, rows_per_shard=6)
N_IMAGES = 120

STAGE = """
import sys
import time
from pathlib import Path
from biascxr.config import RecordsConfig
from biascxr.containers import Cohort
from biascxr.records import build_records, shards
from biascxr.run_folder import RunFolder

# Workers import this file too: in each of them every image takes a while, so that some are left on the fastest machine.
read_at_once = shards.read_prepared


def read_slowly(*image, **how):
    time.sleep(0.01)
    return read_at_once(*image, **how)


shards.read_prepared = read_slowly

if __name__ == "__main__":
    cohort, run, n_workers = Cohort.load(Path(sys.argv[1])), RunFolder(Path(sys.argv[2])), int(sys.argv[3])
    config = RecordsConfig(image_size=64, rows_per_shard=6)
    print("started", flush=True)
    run.stage(
        "records", lambda folder: build_records(cohort, config, folder, n_workers=n_workers),
        inputs={}, settings={}, code=("records",),
    )
"""


@pytest.fixture
def cohort(tmp_path, make_image, make_cohort):
    """A hundred and twenty images; every twentieth cannot be used."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(N_IMAGES):
        if i % 20 == 7:
            (folder / f"{i:03d}.png").write_bytes(b"\x89PNG\r\n\x1a\n, and no more")
        else:
            cv2.imwrite(str(folder / f"{i:03d}.png"), make_image(i, (300, 300)))
    files = sorted(f.name for f in folder.iterdir())
    return make_cohort([f.split(".")[0] for f in files], files, folder, split=np.repeat(SPLITS, (72, 12, 12, 24)))


def contents(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.iterdir() if f.name != "manifest.json"}


def shards_in(folder: Path) -> int:
    return sum(path.suffix.startswith(".tfrecord-") for path in folder.iterdir()) if folder.is_dir() else 0


@pytest.mark.slow
@pytest.mark.parametrize(("n_workers", "n_kills"), [(1, 10), (2, 3)])
def test_killed_at_random_moments_and_resumed_the_records_are_those_of_an_undisturbed_run(n_workers, n_kills, cohort, tmp_path):
    wanted = tmp_path / "undisturbed"
    wanted.mkdir()
    build_records(cohort, CONFIG, wanted, n_workers=1)
    n_shards = shards_in(wanted)
    (tmp_path / "cohort").mkdir()
    cohort.save(tmp_path / "cohort")
    (tmp_path / "stage.py").write_text(STAGE)
    run = tmp_path / "run"
    command = [sys.executable, tmp_path / "stage.py", tmp_path / "cohort", run, str(n_workers)]

    # A moment is a random number of finished shards and a random time after that: it means the same on a busy machine. The last
    # two fall into what follows the shards: metadata, lists, manifest.
    rng = np.random.default_rng(n_workers)
    moments = [(after, rng.uniform(0, 0.03)) for after in sorted(rng.integers(0, n_shards, n_kills - 2))]
    moments += [(n_shards, rng.uniform(0, 0.4)) for _ in range(2)]
    there, n_killed = [], 0
    for after, seconds in moments:
        life = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert life.stdout.readline() == "started\n"
        while shards_in(next(run.glob(".02_records-*.partial"), run / "02_records")) < after and life.poll() is None:
            time.sleep(0.002)
        time.sleep(seconds)
        life.send_signal(signal.SIGKILL)
        n_killed += life.wait() == -signal.SIGKILL
        life.stdout.close()
        there.append(shards_in(next(run.glob(".02_records-*.partial"), run / "02_records")))
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    print(f"killed {n_killed} of {n_kills} lives; shards there after each, of {n_shards}: {there}")
    assert n_killed >= n_kills - 2
    assert there == sorted(there)  # nothing that was finished is lost
    assert there[0] < n_shards
    assert os.listdir(run) == ["02_records"]
    assert check_shards(run / "02_records", thorough=True) == []
    assert contents(run / "02_records") == contents(wanted)
