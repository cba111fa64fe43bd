"""Work in parallel: one function over many jobs, in this process, in a pool of processes, or on Dask distributed.

The contract that makes all three the same: a job is a frozen dataclass that can be sent to another process; the function is
importable, and its result small; each job writes a file of its own, by `written_whole`. So a job that is done twice, or
whose worker dies half-way, leaves the same bytes or none.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import logging
import multiprocessing
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from biascxr.errors import InputError
from biascxr.run_folder import PACKAGE, REPORTED_LIBRARIES, code_digest

logger = logging.getLogger("biascxr")

KEPT = "What is finished is kept: run again to go on from there."
CONNECT_SECONDS = 10
# Jobs that go to the scheduler in one message: few enough for Dask not to warn of its size, at 256 rows a job.
JOBS_PER_MESSAGE = 64


def run_jobs(
    function: Callable[[Any], Any],
    jobs: Sequence[Any],
    *,
    n_workers: int = 1,
    scheduler: str | None = None,
    folder: Path | None = None,
    progress: Callable[[Any], None] | None = None,
) -> Iterator[Any]:
    """Calls a function on every job and yields the results in the order of the jobs, whichever is finished first.

    Args:
        function: importable in another process; writes its job's file by `written_whole`, so that doing a job twice does no
            harm.
        jobs: frozen dataclasses that can be sent to another process.
        n_workers: processes on this machine; one stays in this process. Not used with a scheduler.
        scheduler: address of a Dask scheduler (`tcp://host:8786`), or the file that `dask scheduler --scheduler-file` wrote
            (its name ends in `.json`); see `check_scheduler`.
        folder: folder under which all jobs write; a scheduler's workers must see it under the same path, and it is looked
            whether they do.
        progress: called with each job when it is done, in the order in which they are.

    Yields:
        The function's result for each job.

    Raises:
        InputError: as the function raises it; a worker's process ended; Dask is not installed, cannot be reached, or its
            workers see other files or run other code.
    """
    jobs = list(jobs)
    if scheduler is not None:
        finished = _on_dask(function, jobs, scheduler, Path.cwd() if folder is None else folder)
    elif min(n_workers, len(jobs)) > 1:
        finished = _in_pool(function, jobs, min(n_workers, len(jobs)))
    else:
        finished = ((number, function(job)) for number, job in enumerate(jobs))
    early: dict[int, Any] = {}
    due = 0
    with contextlib.closing(finished):
        for number, result in finished:
            if progress is not None:
                progress(jobs[number])
            early[number] = result
            while due in early:
                yield early.pop(due)
                due += 1


def _in_pool(function: Callable, jobs: list, n_workers: int) -> Iterator[tuple[int, Any]]:
    """Yields each job's number and result as they come."""
    # spawn: a forked copy of a process that has started TensorFlow's threads can hang.
    # No max_tasks_per_child: with it the pool can hang on Python 3.11 (CPython issue 115634).
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_workers, mp_context=context, initializer=_end_with_parent) as pool:
        try:
            waiting = {pool.submit(function, job): number for number, job in enumerate(jobs)}
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        except BrokenProcessPool as error:
            raise InputError(
                "A worker's process ended by itself, as when memory runs out: try fewer --n_workers, or a smaller "
                f"--rows_per_shard. {KEPT}"
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """Ends this worker when the process that started it is gone: it would wait for work for ever."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def check_scheduler(address: str) -> None:
    """Looks whether Dask is installed and its scheduler answers, in a second and before any work.

    Raises:
        InputError: it is not, or does not.
    """
    with _connected(address):
        pass


@contextlib.contextmanager
def _connected(address: str):
    """Yields a Dask client."""
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError('--scheduler needs Dask distributed: pip install "biascxr[dask]".') from error
    to_do = (
        "Start it with `dask scheduler --scheduler-file scheduler.json` and its workers with `dask worker --scheduler-file "
        "scheduler.json --nthreads 1`, then give --scheduler scheduler.json or the address that the scheduler prints."
    )
    given: dict[str, Any] = {"address": address}
    if address.endswith(".json"):
        if not Path(address).is_file():  # Dask itself would wait for the file for ever
            raise InputError(f"--scheduler {address}: no such file. {to_do}")
        given = {"scheduler_file": address}
    try:
        client = Client(**given, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"--scheduler {address}: no Dask scheduler answers there. {to_do}") from error
    with client:
        yield client


def _on_dask(function: Callable, jobs: list, address: str, folder: Path) -> Iterator[tuple[int, Any]]:
    """Yields each job's number and result as they come."""
    with _connected(address) as client, _beacon(folder) as beacon:
        from distributed import as_completed as dask_as_completed
        from distributed.client import CancelledError
        from distributed.scheduler import KilledWorker

        threads = client.nthreads()
        if threads:
            logger.info("dask: %d workers with %d threads", len(threads), sum(threads.values()))
        else:
            logger.warning("dask: the scheduler has no worker yet; waiting for the first to come")
        checked = functools.partial(_checked, function, beacon, installation())
        futures = client.map(
            checked,
            jobs,
            key=f"biascxr-{getattr(function, '__name__', 'job')}",
            pure=False,
            retries=2,
            batch_size=JOBS_PER_MESSAGE,
        )
        number_of = {future.key: number for number, future in enumerate(futures)}
        try:
            for done in dask_as_completed(futures, loop=client.loop):
                yield number_of[done.key], done.result()
                done.release()
        except KilledWorker as error:
            raise InputError(
                f"The same job ended {error.allowed_failures + 1} Dask workers, as when memory runs out: give `dask worker` a "
                f"higher --memory-limit, or fewer --nthreads. {KEPT}"
            ) from error
        except CancelledError as error:
            raise InputError(f"The connection to the Dask scheduler {address} was lost. {KEPT}") from error


@contextlib.contextmanager
def _beacon(folder: Path) -> Iterator[Path]:
    """Yields a file in the folder that jobs write to, there for as long as they do."""
    beacon = Path(folder).absolute() / f".seen-by-workers-{uuid.uuid4().hex[:12]}.tmp"
    beacon.touch()
    try:
        yield beacon
    finally:
        beacon.unlink(missing_ok=True)


def _checked(function: Callable, beacon: Path, expected: dict[str, str], job: Any) -> Any:
    """Calls the function on a worker that sees the client's files and would write what the client would.

    Looked for with every job, since workers may join later; a look costs nothing beside a shard.
    """
    host = socket.gethostname()
    if not beacon.exists():
        raise InputError(
            f"The Dask worker on {host} does not see {beacon.parent}: all workers need the same file system as this machine, "
            "under the same paths, for the images and for --output_dir. Mount it there, or choose folders that all share. "
            f"{KEPT}"
        )
    found = _installed_here()
    differing = [f"{name} {found[name]} instead of {expected[name]}" for name in expected if found[name] != expected[name]]
    if differing:
        raise InputError(
            f"The Dask worker on {host} has {', '.join(differing)}, and could write other bytes than this machine: install "
            f"the same versions there and start its workers again. {KEPT}"
        )
    return function(job)


def installation() -> dict[str, str]:
    """Returns what decides a job's bytes on this machine: the code of biascxr (its digest's first digits) and libraries."""
    names = [place.stem for place in PACKAGE.iterdir() if place.suffix == ".py" or (place / "__init__.py").is_file()]
    versions = {"biascxr code": code_digest(names)[:12]}
    for name in (*REPORTED_LIBRARIES, "onnxruntime", "pydicom", "imagecodecs"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "(not installed)"
    return versions


_installed_here = functools.cache(installation)  # once for each worker, not for each job


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; what is written there becomes `path` in one step, or is removed on an error.

    The temporary name is drawn anew each time: where two workers do the same job, as when one was thought lost, neither
    writes into the other's file. What a killed process leaves is removed by `remove_left_overs`.
    """
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_left_overs(folder: Path) -> None:
    """Removes what killed processes left unfinished in a folder: files of `written_whole`, and of TensorFlow Datasets."""
    for path in [*folder.glob("*.tmp"), *folder.glob("incomplete.*")]:
        path.unlink(missing_ok=True)
