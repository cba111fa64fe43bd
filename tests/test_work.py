"""Many jobs: results in order, workers that die, files that are whole or not there."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from work_jobs import Job, do

from biascxr import work
from biascxr.errors import InputError
from biascxr.work import check_scheduler, remove_left_overs, run_jobs, written_whole


@pytest.mark.parametrize("n_workers", [1, 2])
def test_results_come_in_the_jobs_order_and_progress_in_that_of_their_ends(n_workers):
    jobs = [Job(0, 0.4), *(Job(i) for i in range(1, 6))]
    ended = []
    results = list(run_jobs(do, jobs, n_workers=n_workers, progress=lambda job: ended.append(job.number)))
    assert [number for number, _ in results] == list(range(6))
    assert sorted(ended) == list(range(6))
    assert (ended[0] == 0) == (n_workers == 1)
    processes = {process for _, process in results}
    assert (processes == {os.getpid()}) if n_workers == 1 else (os.getpid() not in processes)


def test_no_job_is_no_result():
    assert list(run_jobs(do, [], n_workers=4)) == []


@pytest.mark.parametrize("n_workers", [1, 2])
def test_what_a_user_can_mend_reaches_the_user_as_it_was_said(n_workers):
    jobs = [Job(0), Job(1, act="refuse"), *(Job(i, 0.01) for i in range(2, 50))]
    with pytest.raises(InputError, match="job 1 cannot be done"):
        list(run_jobs(do, jobs, n_workers=n_workers))


def test_a_worker_that_dies_is_said_with_what_to_do():
    jobs = [Job(0), Job(1, act="die"), Job(2), Job(3)]
    with pytest.raises(InputError, match=r"worker's process ended by itself.*fewer --n_workers.*is kept: run again"):
        list(run_jobs(do, jobs, n_workers=2))


def write_pid_and_wait(job):
    folder = Path(os.environ["PID_FOLDER"])
    (folder / f"{os.getpid()}.part").touch()
    (folder / f"{os.getpid()}.part").rename(folder / str(os.getpid()))
    time.sleep(60)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="tells a zombie from a process by /proc")
def test_workers_end_with_the_run_that_started_them(tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "if __name__ == '__main__':\n"
        "    from test_work import Job, write_pid_and_wait; from biascxr.work import run_jobs\n"
        "    list(run_jobs(write_pid_and_wait, [Job(0), Job(1)], n_workers=2))\n"
    )
    (tmp_path / "run.py").write_text(code)
    folder = tmp_path / "pids"
    folder.mkdir()
    run = subprocess.Popen([sys.executable, tmp_path / "run.py"], env=os.environ | {"PID_FOLDER": str(folder)})
    try:
        until(lambda: len([p for p in folder.iterdir() if p.name.isdigit()]) == 2)
        workers = [int(p.name) for p in folder.iterdir()]
        assert all(map(is_running, workers))
    finally:
        run.kill()
        run.wait()
    until(lambda: not any(map(is_running, workers)))


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


class TestFilesAreWholeOrNotThere:
    def test_what_was_written_is_there_and_nothing_else(self, tmp_path):
        with written_whole(tmp_path / "a") as temporary:
            temporary.write_text("whole")
            assert not (tmp_path / "a").exists()
        assert [p.name for p in tmp_path.iterdir()] == ["a"]

    def test_an_error_leaves_what_was_there_before(self, tmp_path):
        (tmp_path / "a").write_text("before")
        with pytest.raises(KeyboardInterrupt), written_whole(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt
        assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "before"}

    def test_two_that_write_the_same_file_do_not_write_into_each_other(self, tmp_path):
        with written_whole(tmp_path / "a") as first:
            first.write_text("first, half")
            with written_whole(tmp_path / "a") as second:
                second.write_text("second")
            assert (tmp_path / "a").read_text() == "second"
            assert first.read_text() == "first, half"
            first.write_text("first")
        assert (tmp_path / "a").read_text() == "first"

    def test_what_a_killed_process_left_is_removed(self, tmp_path):
        generator = written_whole(tmp_path / "a")
        left = generator.__enter__()
        left.write_text("half")
        (tmp_path / "incomplete.0123456789abcdef0123456789abcdef.features.json").touch()
        (tmp_path / "b").touch()
        remove_left_overs(tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_without_dask_the_line_that_installs_it_is_said(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r'pip install "biascxr\[dask\]"'):
        list(run_jobs(do, [Job(0)], scheduler="tcp://127.0.0.1:8786", folder=tmp_path))
    with pytest.raises(InputError, match=r"biascxr\[dask\]"):
        check_scheduler("tcp://127.0.0.1:8786")


def test_a_worker_that_sees_other_files_does_nothing_and_says_so(tmp_path):
    with pytest.raises(InputError, match=r"worker on .* does not see .*same file system") as error:
        work._checked(do, tmp_path / "nowhere" / "beacon", work.installation(), Job(0))
    assert str(tmp_path / "nowhere") in str(error.value)


def test_a_worker_with_other_code_or_libraries_does_nothing_and_says_which(tmp_path):
    with work._beacon(tmp_path) as beacon:
        found = work._installed_here()
        assert work._checked(do, beacon, found, Job(3))[0] == 3
        with pytest.raises(InputError, match=r"numpy \S+ instead of 0\.1,"):
            work._checked(do, beacon, found | {"numpy": "0.1"}, Job(0))
        with pytest.raises(InputError, match=r"biascxr code \w+ instead of abc,"):
            work._checked(do, beacon, found | {"biascxr code": "abc"}, Job(0))
    assert list(tmp_path.iterdir()) == []
