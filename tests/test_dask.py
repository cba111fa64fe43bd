"""Shards on Dask distributed: a worker killed in mid-run loses nothing, and what cannot work is said."""

import json
import logging
import os
import signal
import time
import warnings
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import pytest
from work_jobs import Job, do

from biascxr import work
from biascxr.config import RecordsConfig
from biascxr.errors import InputError
from biascxr.records import build, build_records, check_shards, shards
from biascxr.records.shards import write_shard
from biascxr.work import check_scheduler, run_jobs

distributed = pytest.importorskip("distributed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Port 8787 is already in use")]

SMALL = RecordsConfig(image_size=32, rows_per_shard=2)


@pytest.fixture(scope="module", autouse=True)
def quiet_dask():
    """A killed worker is what these tests are about; Dask's own log of it would hide what fails."""
    loggers = [logging.getLogger(name) for name in ("distributed", "tornado", "asyncio")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    for each, level in zip(loggers, levels, strict=True):
        each.setLevel(level)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        silence_logs=logging.CRITICAL + 1,
        local_directory=str(tmp_path_factory.mktemp("dask")),
    ) as made:
        yield made


@pytest.fixture
def cohort(tiny_images, make_cohort):
    files = sorted(f.name for f in tiny_images.iterdir())
    return make_cohort([f.split(".")[0] for f in files], files, tiny_images)


def built(cohort, folder, **options) -> dict[str, bytes]:
    folder.mkdir()
    build_records(cohort, SMALL, folder, **options)
    assert check_shards(folder, thorough=True) == []
    return {f.name: f.read_bytes() for f in folder.iterdir()}


def test_results_come_in_the_jobs_order(cluster, tmp_path):
    ended = []
    jobs = [Job(0, 0.5), *(Job(i) for i in range(1, 150))]  # more than go to the scheduler in one message
    results = run_jobs(do, jobs, scheduler=cluster.scheduler_address, folder=tmp_path, progress=ended.append)
    assert [number for number, _ in results] == list(range(150))
    assert len(ended) == 150 and ended[0].number != 0
    assert list(tmp_path.iterdir()) == []


def write_slowly(job):
    """A worker that takes a twentieth of a second for each image, so that it is killed inside a shard."""

    def read_slowly(*args, **settings):
        time.sleep(0.05)
        return read_prepared(*args, **settings)

    read_prepared = shards.read_prepared
    with patch.object(shards, "read_prepared", read_slowly):
        return write_shard(job)


def test_a_worker_killed_in_mid_run_loses_no_shard_and_changes_no_byte(cluster, cohort, tmp_path, monkeypatch):
    wanted = built(cohort, tmp_path / "here", n_workers=1)
    n_shards = sum(".tfrecord" in name for name in wanted)
    there_at_kill = []

    class Bar(nullcontext):
        def update(self, n):
            if not there_at_kill:  # the first shard is done
                there_at_kill.extend((tmp_path / "dask").glob("*.tfrecord-*-of-?????"))
                os.kill(next(iter(cluster.workers.values())).process.pid, signal.SIGKILL)

    monkeypatch.setattr(build, "tqdm", lambda **options: Bar(Bar()))
    monkeypatch.setattr(build, "write_shard", write_slowly)
    assert built(cohort, tmp_path / "dask", scheduler=cluster.scheduler_address) == wanted
    assert 0 < len(there_at_kill) < n_shards == 20


def test_a_scheduler_may_be_named_by_its_file(cluster, tmp_path):
    (tmp_path / "scheduler.json").write_text(json.dumps({"type": "Scheduler", "address": cluster.scheduler_address}))
    check_scheduler(str(tmp_path / "scheduler.json"))
    results = run_jobs(do, [Job(4)], scheduler=str(tmp_path / "scheduler.json"), folder=tmp_path)
    assert [number for number, _ in results] == [4]


def test_what_a_user_can_mend_reaches_the_user_as_it_was_said(cluster, tmp_path):
    with pytest.raises(InputError, match="job 1 cannot be done"):
        list(run_jobs(do, [Job(0), Job(1, act="refuse")], scheduler=cluster.scheduler_address, folder=tmp_path))


def test_a_job_that_ends_every_worker_is_said_with_what_to_do(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    with pytest.raises(InputError, match=r"same job ended 1 Dask workers.*--memory-limit.*is kept: run again"):
        list(run_jobs(do, [Job(0, act="die")], scheduler=cluster.scheduler_address, folder=tmp_path))


def test_a_scheduler_that_goes_away_is_said_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(work, "CONNECT_SECONDS", 0.5)
    own = distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None)
    jobs = [Job(i, 0.2) for i in range(20)]
    with pytest.raises(InputError, match=r"connection to the Dask scheduler .* was lost\. What is finished is kept"):
        list(run_jobs(do, jobs, scheduler=own.scheduler_address, folder=tmp_path, progress=lambda job: own.close()))


def test_workers_that_see_other_files_stop_the_run_and_say_so(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(work, "_beacon", lambda folder: nullcontext(Path("/not/mounted/here/beacon")))
    with pytest.raises(InputError, match=r"worker on \S+ does not see /not/mounted/here: all workers need the same file"):
        list(run_jobs(do, [Job(0)], scheduler=cluster.scheduler_address, folder=tmp_path))


def test_workers_with_another_version_stop_the_run_and_say_so(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(work, "installation", lambda: {"numpy": "0.1"})
    with pytest.raises(InputError, match=r"has numpy \S+ instead of 0\.1"):
        list(run_jobs(do, [Job(0)], scheduler=cluster.scheduler_address, folder=tmp_path))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("tcp://127.0.0.1:9", r"no Dask scheduler answers there\. Start it with `dask scheduler"),
        ("nowhere.json", r"nowhere\.json: no such file\. Start it with `dask scheduler"),
    ],
)
def test_no_scheduler_there_is_said_with_what_to_do(address, message, monkeypatch):
    monkeypatch.setattr(work, "CONNECT_SECONDS", 0.5)
    with pytest.raises(InputError, match=message):
        check_scheduler(address)
