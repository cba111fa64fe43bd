"""A gathering that is killed goes on where it was, to the same bytes; and memory does not grow with the number of files."""

import json
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from biascxr.embeddings import precomputed
from biascxr.embeddings.row_file import Journal, RowFile
from biascxr.embeddings.vectors.per_image import FilePerImage

N = 50


@pytest.fixture
def fifty(tmp_path, write, record, make_cohort):
    """A cohort of 50 files, three of them bad."""
    ids = [f"img-{i:02d}" for i in range(N)]
    for i, name in enumerate(ids):
        write(tmp_path / "files" / f"{name}.tfrecord", record(i, name, 15 if i == 7 else 16))
    (tmp_path / "files" / f"{ids[20]}.tfrecord").unlink()
    (tmp_path / "files" / f"{ids[33]}.tfrecord").write_bytes(b"")
    return make_cohort(ids, [f"{i}.tfrecord" for i in ids], tmp_path / "files", content="vector")


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(precomputed, "BLOCK_ROWS", 6)
    monkeypatch.setattr(precomputed, "STEP_BYTES", 4 * 64)  # four rows


def gathered(cohort, folder):
    folder.mkdir(exist_ok=True)
    precomputed.gather_vectors(cohort, folder, vector_length=None)
    return {f.name: f.read_bytes() for f in folder.iterdir()}


KILL = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    import numpy as np
    from biascxr.embeddings import precomputed, row_file
    from test_gathering_goes_on import cohort_in

    precomputed.BLOCK_ROWS, precomputed.STEP_BYTES = 6, 256
    cohort, folder = cohort_in(Path(sys.argv[2])), Path(sys.argv[3])

    def gather():
        precomputed.gather_vectors(cohort, folder, vector_length=None)
        return {f.name: f.read_bytes() for f in folder.iterdir()}

    def hook(owner, name, last, share):
        # the process is killed in the middle of the last of these calls, when this share of its bytes is written
        whole, calls = getattr(owner, name), 0
        def call(first, *rest, **named):
            nonlocal calls
            calls += 1
            if calls < last:
                return whole(first, *rest, **named)
            if name == "_write_all":
                whole(first, rest[0][: int(len(rest[0]) * share)], *rest[1:])
            elif name == "add":
                with open(first._path, "a") as file:
                    file.write('{"start": ')
            elif share == 1:
                whole(first, *rest, **named)
            os.kill(os.getpid(), signal.SIGKILL)
        setattr(owner, name, call)

    folder.mkdir()
    expected = gather()
    moments = [(row_file, "_write_all", k, 0.6) for k in (1, 2, 3, 5, 8, 13)]
    moments += [(row_file.Journal, "add", k, 0) for k in (1, 2, 6)]
    moments += [(Path, "replace", 1, 0), (Path, "replace", 1, 1), (Path, "unlink", 2, 1)]
    for owner, name, last, share in moments:
        for file in folder.iterdir():
            file.unlink()
        child = os.fork()
        if child == 0:
            hook(owner, name, last, share)
            gather()
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if gather() != expected:
            sys.exit(f"other files after a kill in {name} number {last}")
        if not os.WIFSIGNALED(status):
            sys.exit(f"not killed in {name} number {last}")
"""


def cohort_in(folder):
    """The cohort of `fifty`, for a process of its own."""
    import pandas as pd

    from biascxr.containers import Attribute, Cohort

    ids = [f"img-{i:02d}" for i in range(N)]
    names = dict.fromkeys(("image_id", "study_id", "patient_id"), ids)
    table = pd.DataFrame(
        {**names, "path": [f"{i}.tfrecord" for i in ids], "view": "PA", "split": "train", "age": 50.0, "sex": "F"}
    )
    labels = np.zeros((N, 1), np.float32)
    return Cohort(table, labels, ("Edema",), (Attribute("sex", ("F", "M"), True),), "generic", "vector", folder)


def test_killed_at_twelve_moments_it_goes_on_to_the_same_bytes(fifty, tmp_path):
    places = [Path(__file__).parent, tmp_path / "files", tmp_path / "out"]
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(KILL), *map(str, places)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_finished_blocks_are_not_read_again(fifty, small_blocks, tmp_path, monkeypatch):
    undisturbed = gathered(fifty, tmp_path / "a")
    read = []
    whole = FilePerImage._rows

    def count(self, start, stop, into):
        if len(read) == 9:
            raise KeyboardInterrupt
        read.append(start)
        return whole(self, start, stop, into)

    monkeypatch.setattr(FilePerImage, "_rows", count)
    with pytest.raises(KeyboardInterrupt):
        gathered(fifty, tmp_path / "b")
    read_before, read[:] = list(read), []
    monkeypatch.setattr(FilePerImage, "_rows", lambda *a: (read.append(a[1]), whole(*a))[1])
    assert gathered(fifty, tmp_path / "b") == undisturbed
    assert read_before == [0, 4, 6, 10, 12, 16, 18, 22, 24]  # blocks of six rows, read by fours; the fifth is unfinished
    assert read[0] == 24 and read == sorted(read)


def test_a_block_that_is_not_on_disk_after_all_is_read_again(fifty, small_blocks, tmp_path, monkeypatch):
    undisturbed = gathered(fifty, tmp_path / "a")
    monkeypatch.setattr(precomputed, "_keep_rows", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        gathered(fifty, tmp_path / "b")
    monkeypatch.undo()
    store = tmp_path / "b" / "all.npy"
    data = bytearray(store.read_bytes())
    data[128 + 64 * 10 : 128 + 64 * 12] = bytes(128)  # as after a power failure
    store.write_bytes(data)
    assert gathered(fifty, tmp_path / "b") == undisturbed


def test_a_journal_of_other_work_is_not_gone_on_with(tmp_path):
    path = tmp_path / "journal"
    Journal(path, {"n": 1}).add({"start": 0})
    assert Journal(path, {"n": 1}).entries == [{"start": 0}]
    with open(path, "a") as file:
        file.write('{"start": 1')  # half a line
    journal = Journal(path, {"n": 1})
    journal.add({"start": 2})
    assert Journal(path, {"n": 1}).entries == [{"start": 0}, {"start": 2}]
    assert Journal(path, {"n": 2}).entries == []
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"n": 2}]


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (20, 7)])
def test_a_row_file_is_the_npy_file_of_the_same_rows(tmp_path, shape):
    vectors = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    order = np.random.default_rng(1).permutation(len(vectors))
    with RowFile(tmp_path / "a.npy", shape) as file:
        assert file.is_new
        for part in np.array_split(order, 3):
            file.write(part, vectors[part])
        np.testing.assert_array_equal(file.read(order), vectors[order])
    np.save(tmp_path / "b.npy", vectors)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    with RowFile(tmp_path / "a.npy", shape) as file:
        assert not file.is_new
    with RowFile(tmp_path / "a.npy", (shape[0] + 1, shape[1])) as file:
        assert file.is_new


def test_memory_does_not_grow_with_the_number_of_files(tmp_path, write, record, make_cohort, monkeypatch):
    monkeypatch.setattr(precomputed, "STEP_BYTES", 1 << 18)
    ids = [f"{i}" for i in range(1200)]
    for i, name in enumerate(ids):
        write(tmp_path / f"{name}.tfrecord", record(0, name, 15 if i % 7 == 0 else 1376))
    peaks = []
    for n in (300, 1200):
        cohort = make_cohort(ids[:n], [f"{i}.tfrecord" for i in ids[:n]], tmp_path, content="vector")
        (tmp_path / f"store_{n}").mkdir()
        tracemalloc.start()
        precomputed.gather_vectors(cohort, tmp_path / f"store_{n}", vector_length=None)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 900 vectors more are 5 MB; what grows is their names, paths and reasons
    assert peaks[1] - peaks[0] < 900 * 1200, peaks
