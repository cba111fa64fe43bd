"""SIGKILL at any moment: what a resumed embeddings stage leaves is what an undisturbed one leaves, byte for byte."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def flags(tiny_images, biascxr_table, write_table, stand_in, tmp_path):
    """What is said to `biascxr`: forty images in ten shards or so, and a small network."""
    table = biascxr_table(40, path=[f"image_{i:03d}.{('png', 'jpg')[i % 2]}" for i in range(40)])
    stand_in().save(tmp_path / "network.keras")
    given = {"csv_path": write_table(table), "images_root": tiny_images, "weights": tmp_path / "network.keras"}
    given |= {"image_size": 32, "rows_per_shard": 4, "inference_batch": 3}
    return ["embeddings", *(str(word) for name, value in given.items() for word in (f"--{name}", value))]


def contents(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.iterdir() if f.name != "manifest.json"}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="lives are forked")
@pytest.mark.parametrize(("runtime", "n_workers", "n_kills"), [("keras", 1, 10), ("onnxruntime", 2, 6)])
def test_killed_at_random_moments_and_resumed_the_vectors_are_those_of_an_undisturbed_run(
    runtime, n_workers, n_kills, flags, tmp_path
):
    if runtime == "onnxruntime":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("tf2onnx")
    command = [sys.executable, Path(__file__).with_name("lives.py"), tmp_path, str(n_workers), str(n_kills), *flags]
    command += ["--runtime", runtime, "--n_workers", str(n_workers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    undisturbed, *killed, last = json.loads(done.stdout.splitlines()[-1])
    print(f"{undisturbed['steps']} steps undisturbed; killed: {killed}; last: {last}")

    assert undisturbed["end"] == last["end"] == 0, done.stderr
    # The last moments may lie behind the end of a life that found its graph and parts made.
    assert [life["end"] for life in killed][: n_kills - 2] == [-signal.SIGKILL] * (n_kills - 2), done.stderr
    parts = [life["finished"] for life in killed if life["finished"] >= 0]
    assert parts == sorted(parts)  # nothing that was finished is lost
    assert 0 < len(parts) < n_kills  # some were killed before the shards were put together, and some after
    wanted, found = tmp_path / "undisturbed", tmp_path / "killed"
    assert sorted(os.listdir(found)) == sorted(os.listdir(wanted))
    assert {"vectors.npy", "keys.npy", "index.parquet", "card.json"} <= contents(wanted / "03_embeddings").keys()
    assert contents(found / "03_embeddings") == contents(wanted / "03_embeddings")
