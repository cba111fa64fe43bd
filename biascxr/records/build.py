"""Records stage: images -> sharded TFRecords, in parallel, with every image accounted for."""

from __future__ import annotations

import csv
import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tqdm import tqdm

from biascxr.config import RecordsConfig
from biascxr.containers import Cohort
from biascxr.errors import InputError
from biascxr.records.metadata import write_tfds_metadata
from biascxr.records.shards import ShardJob, ShardReport, plan_shards, write_shard

logger = logging.getLogger("biascxr")

REJECTED_COLUMNS = ("image_id", "path", "reason")


def build_records(cohort: Cohort, config: RecordsConfig, folder: Path, *, n_workers: int | None = None) -> None:
    """Writes the shards of a cohort, `shards.csv`, `rejected.csv` and the TensorFlow Datasets metadata.

    Args:
        cohort: rows whose `path` is an image.
        config: image size, equalization, codec, rows per shard.
        folder: where to write; shards that an interrupted run finished there are kept.
        n_workers: processes; default one per core. The bytes written do not depend on it.
    """
    jobs = plan_shards(cohort, config, folder)
    reports = []
    with tqdm(total=len(cohort), desc="records", unit="image", mininterval=0.5) as bar:
        for job, report in zip(jobs, _run(jobs, n_workers or os.cpu_count() or 1), strict=True):
            reports.append(report)
            bar.update(len(job.image_paths))
    write_rejected(folder, [row for report in reports for row in report.rejected])
    with open(folder / "shards.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "split", "n_records", "sha256"])
        writer.writerows([r.name, r.split, r.n_records, r.sha256] for r in reports)
    write_tfds_metadata(folder, cohort, reports, config)
    for job in jobs:
        job.path.with_suffix(job.path.suffix + ".json").unlink()


def _run(jobs: list[ShardJob], n_workers: int) -> Iterator[ShardReport]:
    """Yields the reports in order."""
    n_workers = min(n_workers, len(jobs))
    if n_workers == 1:
        yield from map(write_shard, jobs)
        return
    # spawn: a forked copy of a process that has started TensorFlow's threads can hang
    with ProcessPoolExecutor(n_workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(write_shard, jobs)


def write_rejected(folder: Path, rows: list[dict]) -> None:
    """Writes `rejected.csv`: which files could not be used, and why."""
    with open(folder / "rejected.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, REJECTED_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def read_rejected(folder: Path) -> list[dict]:
    """Returns the rows of a stage's `rejected.csv`."""
    with open(folder / "rejected.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def check_rejected(folder: Path, n_total: int, max_share: float) -> None:
    """Stops the run when too many files were rejected; otherwise logs how many, by reason.

    Raises:
        InputError: more than `max_share` of `n_total` were rejected, or all of them.
    """
    rejected = read_rejected(folder)
    if not rejected:
        return
    reasons = Counter(row["reason"].split(" (")[0] for row in rejected)
    listed = "; ".join(f"{n:,} {reason}" for reason, n in reasons.most_common(6))
    share = len(rejected) / n_total
    message = f"{len(rejected):,} of {n_total:,} files ({share:.1%}) cannot be used: {listed}. See {folder / 'rejected.csv'}"
    if share > max_share or len(rejected) == n_total:
        raise InputError(
            f"{message}. That is more than --max_rejected_share {max_share:g}: check --images_root and the paths in the "
            "table, or raise the share to go on without these files."
        )
    logger.warning("%s: the run goes on without them.", message)
