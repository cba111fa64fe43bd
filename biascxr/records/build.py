"""Records stage: images -> sharded TFRecords, in parallel, with every image accounted for."""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from biascxr.config import SPLITS, RecordsConfig
from biascxr.containers import Cohort
from biascxr.errors import InputError
from biascxr.records.metadata import write_tfds_metadata
from biascxr.records.shard_list import read_rejected, write_shard_list
from biascxr.records.shards import marker_of, plan_shards, write_shard
from biascxr.work import remove_left_overs, run_jobs

logger = logging.getLogger("biascxr")


def build_records(
    cohort: Cohort,
    config: RecordsConfig,
    folder: Path,
    *,
    n_workers: int | None = None,
    scheduler: str | None = None,
    earlier: Path | None = None,
) -> None:
    """Writes the shards of a cohort, `shards.csv`, `shard_keys.csv`, `rejected.csv` and TensorFlow Datasets' metadata.

    The bytes written depend on neither the number of workers nor where they are.

    Args:
        cohort: rows whose `path` is an image.
        config: image size, equalization, codec, rows per shard.
        folder: where to write; shards that an interrupted run finished there are kept.
        n_workers: processes on this machine; default one per core. Not used with a scheduler.
        scheduler: a Dask scheduler whose workers write the shards; see `biascxr.work.run_jobs`.
        earlier: finished records of an earlier run. A shard whose rows, images, settings and code are still the same is
            linked (or copied) from there, so that one changed image costs one shard.

    Raises:
        InputError: see `biascxr.work.run_jobs`.
    """
    remove_left_overs(folder)
    jobs = plan_shards(cohort, config, folder, earlier=earlier)
    n_former = sum(job.former is not None for job in jobs)
    if n_former:
        logger.info("records: %s of %s shards are as they were and are taken over", f"{n_former:,}", f"{len(jobs):,}")
    with tqdm(total=len(cohort), desc="records", unit="image", mininterval=0.5) as bar:
        reports = list(
            run_jobs(
                write_shard,
                jobs,
                n_workers=n_workers or os.cpu_count() or 1,
                scheduler=scheduler,
                folder=folder,
                progress=lambda job: bar.update(len(job.image_paths)),
            )
        )
    write_tfds_metadata(folder, cohort, [report.shard for report in reports], config)
    write_shard_list(folder, reports)
    for job in jobs:  # what they say stands in the list now
        marker_of(job).unlink(missing_ok=True)
    remove_left_overs(folder)


def check_rejected(folder: Path, cohort: Cohort, max_share: float) -> None:
    """Stops the run when too many files were rejected, or all of a split; otherwise logs how many, by reason.

    Args:
        folder: finished records or vectors, with their `rejected.csv`.
        cohort: the rows that they were made from. A split that has no row in it was never wanted, and is not missed.
        max_share: largest share of rejected rows to go on with.

    Raises:
        InputError: more than `max_share` of the rows were rejected, or all of them, or all of a split.
    """
    rejected = read_rejected(folder)
    if not rejected:
        return
    table = folder / "rejected.csv"
    share = len(rejected) / len(cohort)
    message = f"{len(rejected):,} of {len(cohort):,} files ({share:.1%}) cannot be used: {_by_reason(rejected)}. See {table}"
    if len(rejected) == len(cohort):
        raise InputError(f"{message}. No image is left: check --images_root and the paths in the table.")
    split_of = dict(zip(cohort.table["image_id"], cohort.table["split"], strict=True))
    lost = []
    for split in SPLITS:
        rows = [row for row in rejected if split_of[row["image_id"]] == split]
        if rows and len(rows) == len(cohort.split_rows(split)):
            lost.append(f"{split}: all {len(rows):,} of its files were rejected ({_by_reason(rows)})")
    if lost:
        # Without rows, validation and calibration are drawn from train; the other two are not.
        needs_drawing = any(text.startswith(("train:", "test:")) for text in lost)
        advice = " and have all splits drawn from the others with --split_source random" if needs_drawing else ""
        raise InputError(
            f"No image is left in a split that has to be learned from or judged on. {'; '.join(lost)}. See {table}: complete "
            f"or mend these files, or leave their rows out of the table{advice}."
        )
    if share > max_share:
        raise InputError(
            f"{message}. That is more than --max_rejected_share {max_share:g}: check --images_root and the paths in the "
            "table, or raise the share to go on without these files."
        )
    logger.warning("%s: the run goes on without them.", message)


def _by_reason(rejected: list[dict]) -> str:
    """Returns how many files were rejected for which reason, the six most frequent ones."""
    reasons = Counter(row["reason"].split(" (")[0] for row in rejected)
    return "; ".join(f"{n:,} {reason}" for reason, n in reasons.most_common(6))
