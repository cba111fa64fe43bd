"""Files found by name: in folders, below them, and never among images."""

import pytest

from biascxr.cohort.base import Source
from biascxr.cohort.tables import find_files, read_header
from biascxr.config import CohortConfig
from biascxr.errors import InputError


@pytest.fixture
def tree(tmp_path):
    for name in (
        "jpg/2.1.0/metadata.csv.gz", "jpg/2.1.0/files/p10/metadata.csv.gz", "iv/2.2/hosp/Patients.csv", "iv/2.2/notes.txt",
        "deep/a/b/c/d/e/patients.csv",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a,b\n1,2\n")
    return tmp_path


def test_by_pattern_without_regard_to_case(tree):
    assert [f.name for f in find_files([tree / "iv"], ["patients.csv*"])] == ["Patients.csv"]


def test_images_are_not_looked_through(tree):
    assert [f.parent.name for f in find_files([tree], ["metadata.csv*"])] == ["2.1.0"]


def test_depth_is_bounded(tree):
    assert find_files([tree / "deep/a"], ["patients.csv"]) and not find_files([tree / "deep"], ["patients.csv"])
    assert [f.name for f in find_files([tree], ["patients.csv"])] == ["Patients.csv"]


def test_a_file_given_is_matched_itself(tree):
    given = tree / "iv/2.2/hosp/Patients.csv"
    assert find_files([given], ["patients.csv"]) == [given]
    assert find_files([given], ["admissions.csv"]) == []


def test_a_place_that_is_not_there_holds_nothing(tree):
    assert find_files([tree / "nowhere"], ["*"]) == []


def test_dots_and_brackets_of_a_pattern_are_plain(tree):
    assert find_files([tree / "iv"], ["patients_csv", "patients.c[s]v"]) == []


def test_a_header_of_something_else_has_no_columns(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff")
    (tmp_path / "empty").write_bytes(b"")
    assert read_header(tmp_path / "a.png") == read_header(tmp_path / "empty") == []


class TestCompanions:
    def source(self, tree, *companions):
        return Source(tree / "jpg/2.1.0/metadata.csv.gz", None, CohortConfig(companions=companions))

    def test_beside_the_table_and_not_above_it(self, tree):
        assert self.source(tree).companion("patients", "patients.csv") is None
        (tree / "jpg/2.1.0/patients.csv").write_text("a\n1\n")
        assert self.source(tree).companion("patients", "patients.csv").name == "patients.csv"

    def test_those_named_by_the_user_come_first(self, tree):
        own = tree / "deep/a/b/c/d/e/patients.csv"
        (tree / "jpg/2.1.0/patients.csv").write_text("a\n1\n")
        assert self.source(tree, own).companion("patients", "patients.csv") == own

    def test_a_link_to_a_folder_is_the_same_folder(self, tree):
        (tree / "iv/latest").symlink_to(tree / "iv/2.2")
        assert self.source(tree, tree / "iv").companion("patients", "patients.csv").name == "Patients.csv"

    def test_two_that_fit_are_not_chosen_between(self, tree):
        (tree / "iv/2.2/patients.csv").write_text("a\n1\n")
        with pytest.raises(InputError, match=r"Several files could be patients: .*Name the one to use: --companions FILE"):
            self.source(tree, tree / "iv").companion("patients", "patients.csv")


def test_a_folder_of_very_many_files_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr("biascxr.cohort.tables.MAX_ENTRIES", 5)
    for i in range(20):
        (tmp_path / f"{i}.png").write_text("")
    (tmp_path / "table.csv").write_text("a\n1\n")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "table.csv").write_text("a\n1\n")
    assert find_files([tmp_path], ["table.csv"]) == [tmp_path / "table.csv"]
