"""The run's folder: a stage is whole or not there, and done again exactly when something changed."""

import pytest

from biascxr import run_folder
from biascxr.run_folder import STAGES, RunFolder, code_digest, file_digest, files_digest, manifest_of, outputs_digest


class Stage:
    """A stage that writes one file and counts how often it was built."""

    def __init__(self, folder):
        self.run = RunFolder(folder)
        self.built = 0

    def make(self, *, text="hello", name="cohort", **changes):
        def build(folder):
            self.built += 1
            (folder / "table.csv").write_text(text)

        settings = {"inputs": {"csv": "abc"}, "settings": {"seed": 0}, "code": ("containers",), "libraries": ("numpy",)}
        return self.run.stage(name, build, **(settings | changes))


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path / "run")


def leftovers(folder):
    return sorted(p.name for p in folder.rglob("*.partial"))


def test_a_stage_is_reused_when_nothing_changed(stage):
    first = stage.make()
    assert first == stage.run.path / "01_cohort"
    assert (first / "table.csv").read_text() == "hello"
    written = (first / "table.csv").stat().st_mtime_ns
    assert stage.make(text="other") == first
    assert stage.built == 1
    assert (first / "table.csv").stat().st_mtime_ns == written


def test_another_process_reuses_it_too(stage):
    stage.make()
    again = Stage(stage.run.path)
    again.make()
    assert again.built == 0


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": {"csv": "abd"}},
        {"inputs": {"csv": "abc", "more": "x"}},
        {"settings": {"seed": 1}},
        {"code": ("containers", "config")},
        {"libraries": ("numpy", "pandas")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_stage_is_built_again_when_something_changed(stage, change):
    stage.make()
    folder = stage.make(text="new", **change)
    assert stage.built == 2
    assert (folder / "table.csv").read_text() == "new"
    assert leftovers(stage.run.path) == []


def test_a_stage_is_built_again_when_its_code_changed(stage, tmp_path, monkeypatch):
    package = tmp_path / "package"
    (package / "part").mkdir(parents=True)
    (package / "part" / "a.py").write_text("x = 1\n")
    (package / "part" / "page.html.j2").write_text("<p>\n")
    monkeypatch.setattr(run_folder, "PACKAGE", package)
    for n_built, (name, text) in enumerate([("a.py", "x = 1\n"), ("a.py", "x = 2\n"), ("page.html.j2", "<div>\n")], start=1):
        (package / "part" / name).write_text(text)
        for _ in range(2):
            stage.make(code=("part",))
            assert stage.built == n_built


def test_a_stage_is_built_again_when_a_library_changed(stage, monkeypatch):
    stage.make()
    monkeypatch.setattr(run_folder, "library_versions", lambda names: dict.fromkeys(names, "99"))
    stage.make()
    assert stage.built == 2


def test_code_digest_follows_the_place_as_well_as_the_text(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "PACKAGE", tmp_path)
    (tmp_path / "a.py").write_text("x = 1\n")
    one = code_digest(["a"])
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert code_digest(["b"]) != one


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_half_written_stands_where_a_stage_should(stage, error):
    def fails(folder):
        (folder / "half.csv").write_text("half")
        raise error

    with pytest.raises(error):
        stage.run.stage("cohort", fails, inputs={}, settings={}, code=("config",))
    assert not (stage.run.path / "01_cohort").exists()


def test_a_failed_rebuild_leaves_the_finished_stage_as_it_was(stage):
    folder = stage.make()

    def fails(partial):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage.run.stage("cohort", fails, inputs={}, settings={}, code=("config",))
    assert (folder / "table.csv").read_text() == "hello"
    stage.make()
    assert stage.built == 1


def test_a_stage_goes_on_from_its_finished_parts(stage):
    parts = []

    def build(folder):
        for name in ("a", "b", "c"):
            if (folder / name).exists():
                continue
            if name == "c" and len(parts) == 2:
                parts.append("stop")
                raise KeyboardInterrupt
            parts.append(name)
            (folder / name).write_text(name)

    arguments = {"inputs": {"x": "1"}, "settings": {}, "code": ("config",)}
    with pytest.raises(KeyboardInterrupt):
        stage.run.stage("records", build, **arguments)
    folder = stage.run.stage("records", build, **arguments)
    assert parts == ["a", "b", "stop", "c"]
    assert sorted(f.name for f in folder.iterdir()) == ["a", "b", "c", "manifest.json"]


def test_parts_made_from_other_inputs_are_not_gone_on_from(stage):
    def stops(folder):
        (folder / "part").write_text("old")
        raise KeyboardInterrupt

    seen = []
    with pytest.raises(KeyboardInterrupt):
        stage.run.stage("records", stops, inputs={"x": "1"}, settings={}, code=("config",))
    stage.run.stage("records", lambda folder: seen.extend(folder.iterdir()), inputs={"x": "2"}, settings={}, code=("config",))
    assert seen == []
    assert leftovers(stage.run.path) == []


def test_members_of_a_stage_do_not_disturb_each_other(stage):
    stage.make(name="mitigation", member="erm")
    folder = stage.make(name="mitigation", member="standardize+erm", settings={"seed": 5})
    assert folder == stage.run.path / "04_mitigation" / "standardize+erm"
    stage.make(name="mitigation", member="erm")
    stage.make(name="mitigation", member="standardize+erm", settings={"seed": 5})
    assert stage.built == 2


def test_the_manifest_says_what_a_stage_was_made_from(stage):
    folder = stage.make()
    manifest = manifest_of(folder)
    assert manifest["stage"] == "cohort"
    assert manifest["made_from"]["inputs"] == {"csv": "abc"}
    assert manifest["made_from"]["settings"] == {"seed": 0}
    assert set(manifest["made_from"]["libraries"]) == {"numpy"}
    assert manifest["outputs"] == {"table.csv": file_digest(folder / "table.csv")}
    assert manifest_of(stage.run.path) == {}


def test_the_outputs_digest_follows_the_outputs_and_nothing_else(stage, tmp_path):
    one = outputs_digest(stage.make())
    assert outputs_digest(Stage(tmp_path / "other").make(settings={"seed": 9})) == one
    assert outputs_digest(Stage(tmp_path / "third").make(text="bye")) != one
    assert outputs_digest(stage.make(), ["table.csv"]) == one


def test_a_run_killed_between_the_manifest_and_the_rename_gives_the_same_digest(stage, tmp_path, monkeypatch):
    whole = outputs_digest(Stage(tmp_path / "other").make())

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_folder.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            stage.make()
    assert outputs_digest(stage.make()) == whole


def test_a_stage_that_was_half_removed_for_another_is_not_taken_for_whole(stage, monkeypatch):
    table = stage.make() / "table.csv"

    def killed(folder):
        (folder / "table.csv").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run_folder.shutil, "rmtree", killed)
        stage.make(settings={"seed": 1})
    assert not table.exists()
    stage.make()
    assert table.read_text() == "hello"


def test_files_are_followed_by_size_time_and_presence(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"123")
    one = files_digest(tmp_path, ["a.jpg", "b.jpg"])
    assert files_digest(tmp_path, ["a.jpg", "b.jpg"]) == one
    (tmp_path / "b.jpg").write_bytes(b"1")
    two = files_digest(tmp_path, ["a.jpg", "b.jpg"])
    (tmp_path / "a.jpg").write_bytes(b"1234")
    assert len({one, two, files_digest(tmp_path, ["a.jpg", "b.jpg"])}) == 3


def test_folders_are_numbered_in_the_order_of_the_run():
    assert list(STAGES.values()) == sorted(STAGES.values())
    assert all(folder.split("_", 1)[1] == name for name, folder in STAGES.items())
