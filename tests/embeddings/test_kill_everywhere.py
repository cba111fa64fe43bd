"""Killed before any change to a file, in the middle of one, and again on the way back: the same files in the end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from biascxr import embedding_stage
from biascxr.cli import parse_flags
from biascxr.config import RecordsConfig
from biascxr.embeddings import gather_vectors
from biascxr.embeddings.vectors import VectorSource
from biascxr.pipeline import run_stages
from biascxr.records import build_records

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="lives are forked")

# In a process of its own: this one may have started TensorFlow's threads, of which a fork has none.
HEAD = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from deaths import die_everywhere
from biascxr.containers import Cohort
cohort, given, folder = Cohort.load(Path(sys.argv[2])), Path(sys.argv[3]), Path(sys.argv[4])
"""
EMBEDDINGS = """
from test_build_embeddings import Moments, Stands
from biascxr.embeddings import build, build_embeddings

class Tenth(Moments):
    def encode(self, images):
        return super().encode(images) / 10

def embeds(encoder, maker):
    def work():
        build.made_by = lambda *_: maker  # as the runtime decides it
        build_embeddings(cohort, given, folder, Stands(encoder, 3))
    return work

works = [embeds(Moments(), "Keras"), embeds(Tenth(), "ONNX Runtime")][: int(sys.argv[5])]
print(json.dumps(die_everywhere(works, folder)))
"""
GRAPH = """
from types import SimpleNamespace
from biascxr.embeddings import graph_encoder
from biascxr.work import remove_left_overs, written_whole

def export(model, path, *, size):
    with written_whole(path) as temporary:
        temporary.write_text(model)

def writes(network):
    encoder = SimpleNamespace(model=network, source=SimpleNamespace(name="unit_range"), channels=1, input_size=32)
    def work():
        remove_left_overs(folder)
        graph_encoder.write_graph(encoder, folder / "encoder.onnx", {"fingerprint": network})
    return work

graph_encoder.export = export
print(json.dumps(die_everywhere([writes("one"), writes("another")], folder)))
"""
VECTORS = """
from biascxr.embeddings import precomputed

write = os.pwrite
os.pwrite = lambda *given: (sys.audit("os.pwrite", *given), write(*given))[1]  # Python does not tell of it
precomputed.BLOCK_ROWS, precomputed.STEP_BYTES = 3, 64
work = lambda: precomputed.gather_vectors(cohort, folder, vector_length=None, is_stage=True)
print(json.dumps(die_everywhere([work], folder)))
"""
JOURNAL = """
from deaths import left_by_a_kill, live
from biascxr.embeddings.row_file import Journal

journal = folder / "journal"
Journal(journal, {}).add({"start": 0})
whole = journal.read_bytes()
journal.write_bytes(whole + b'{"sta')
error, moments = live(lambda: Journal(journal, {}).add({"start": 1}), folder)
states = [state["journal"] for state, _ in left_by_a_kill(moments)]
print(json.dumps([error, [state.startswith(whole) for state in states], journal.read_text().splitlines()]))
"""


@pytest.fixture
def all_deaths(tmp_path):
    """Function `(code, cohort, given, *arguments) -> (what went wrong, number of states)`."""

    def tries(code, cohort, given, *arguments):
        for name in ("cohort", "stage"):
            (tmp_path / name).mkdir()
        cohort.save(tmp_path / "cohort")
        places = [Path(__file__).parent, tmp_path / "cohort", given, tmp_path / "stage"]
        done = subprocess.run(
            [sys.executable, "-c", HEAD + code, *map(str, (*places, *arguments))],
            capture_output=True,
            text=True,
            timeout=900,
            env=os.environ | {"TQDM_DISABLE": "1"},
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return tries


@pytest.mark.slow
@pytest.mark.parametrize(
    ("splits", "n_runtimes", "n_states"),
    [(("train", "test", "train"), 1, 30), (("train",) * 3, 2, 90)],
    ids=["two shards", "one shard, two runtimes"],
)
def test_wherever_embedding_is_killed_it_comes_to_the_same_files(
    splits, n_runtimes, n_states, tiny_images, make_cohort, tmp_path, all_deaths
):
    files = sorted(path.name for path in tiny_images.iterdir())[: len(splits)]
    cohort = make_cohort([name.split(".")[0] for name in files], files, tiny_images, split=list(splits))
    (tmp_path / "records").mkdir()
    build_records(cohort, RecordsConfig(image_size=32), tmp_path / "records", n_workers=1)
    wrong, n_found = all_deaths(EMBEDDINGS, cohort, tmp_path / "records", n_runtimes)
    assert wrong == []
    assert n_found >= n_states  # so many states were met when this was written, and a fifth more


def test_wherever_the_writing_of_a_graph_is_killed_no_other_graph_is_taken_for_it(make_cohort, tmp_path, all_deaths):
    wrong, n_found = all_deaths(GRAPH, make_cohort(["a"], ["a.png"], tmp_path), tmp_path)
    assert wrong == []
    assert n_found >= 8


@pytest.mark.parametrize("n_bad", [0, 2])
def test_wherever_gathering_is_killed_it_comes_to_the_same_files(n_bad, make_cohort, tmp_path, all_deaths):
    (tmp_path / "vectors").mkdir()
    names = [f"image_{i}" for i in range(8)]
    for i, name in enumerate(names):
        np.save(tmp_path / "vectors" / f"{name}.npy", np.full(8, np.nan if i % 4 == 1 and n_bad else i, np.float32))
    cohort = make_cohort(names, [f"{name}.npy" for name in names], tmp_path / "vectors", content="vector")
    wrong, n_found = all_deaths(VECTORS, cohort, tmp_path / "vectors")
    assert wrong == []
    assert n_found >= 15


@pytest.mark.parametrize("given", ["one file per image", "a set"])
def test_what_was_gathered_is_not_gathered_again_where_a_run_was_stopped_behind_it(given, biascxr_table, tmp_path, monkeypatch):
    names = [f"image_{i}" for i in range(40)]
    vectors = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    vectors[3] = np.nan
    biascxr_table(40, dicom_id=names, path=[f"{name}.npy" for name in names]).to_csv(tmp_path / "meta.csv", index=False)
    flags = ["--csv_path", str(tmp_path / "meta.csv"), "--images_root", str(tmp_path)]
    if given == "a set":
        np.savez(tmp_path / "set.npz", image_ids=np.array(names), embeddings=vectors)
        flags += ["--vectors", str(tmp_path / "set.npz")]
    else:
        for name, vector in zip(names, vectors, strict=True):
            np.save(tmp_path / f"{name}.npy", vector)

    def run(folder):
        run_stages(parse_flags([*flags, "--output_dir", str(tmp_path / folder)]), until="embeddings")
        made = tmp_path / folder / "03_embeddings"
        return {path.name: path.read_bytes() for path in made.iterdir() if path.name != "manifest.json"}

    def stop(*_):
        raise KeyboardInterrupt

    expected = run("undisturbed")
    assert len(expected["vectors.npy"]) == 128 + 39 * 8 * 4 and b"image_3," in expected["rejected.csv"]
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(embedding_stage, "keep_vectors", stop)
        run("stopped")
    monkeypatch.setattr(VectorSource, "read", stop)
    assert run("stopped") == expected


def test_outside_a_stage_a_changed_source_is_gathered_again(make_cohort, tmp_path):
    cohort = make_cohort(["a"], ["a.npy"], tmp_path, content="vector")
    for value in (1.0, 2.0):
        np.save(tmp_path / "a.npy", np.full(8, value, np.float32))
        assert (gather_vectors(cohort, tmp_path, vector_length=None).vectors == value).all()


def test_a_journal_that_is_gone_on_with_loses_no_entry_at_any_moment(make_cohort, tmp_path, all_deaths):
    error, has_all, lines = all_deaths(JOURNAL, make_cohort(["a"], ["a.png"], tmp_path), tmp_path)
    assert error == ""
    assert len(has_all) >= 4 and all(has_all)
    assert lines == ["{}", '{"start": 0}', '{"start": 1}']
