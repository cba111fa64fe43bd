"""Shards: the unit of work. One shard is a pure function of its row list, written to a temporary name and renamed."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from biascxr.config import SPLITS, RecordsConfig
from biascxr.containers import Cohort
from biascxr.records.image import Alteration, ImageError, encode, prepare, read_grey
from biascxr.records.tfrecord import encode_example, write_record


@dataclass(frozen=True)
class ShardJob:
    """What one worker needs to write one shard.

    Attributes:
        path: the shard's file.
        split: the split all its rows belong to.
        image_paths: `[m]` files to read.
        features: `[m]` the features beside the image, per row.
        alterations: `[m]` what is done to the image beside standardising it, per row.
        config: size, equalization, codec.
    """

    path: Path
    split: str
    image_paths: list[Path]
    features: list[dict]
    alterations: list[Alteration]
    config: RecordsConfig


@dataclass(frozen=True)
class ShardReport:
    """What came of a shard: its records, its checksum, and the images it could not use."""

    name: str
    split: str
    n_records: int
    sha256: str
    rejected: list[dict]


def dataset_name(cohort: Cohort) -> str:
    """Returns the name under which TensorFlow Datasets knows these records."""
    return f"biascxr_{cohort.layout}"


def plan_shards(cohort: Cohort, config: RecordsConfig, folder: Path) -> list[ShardJob]:
    """Divides a cohort into shards, in table order within each split, whatever the number of workers."""
    text_columns = ["image_id", "study_id", "patient_id", "view", *(a.name for a in cohort.attributes)]
    table = cohort.table
    changes = {f.name: table[f.name] for f in fields(Alteration) if f.name in table}
    alterations = (
        [Alteration(**row) for row in pd.DataFrame(changes).to_dict("records")] if changes else [Alteration()] * len(table)
    )
    jobs = []
    for split in SPLITS:
        rows = cohort.split_rows(split)
        if len(rows) == 0:
            continue
        n_shards = -(-len(rows) // config.rows_per_shard)
        for index, part in enumerate(np.array_split(rows, n_shards)):
            features = []
            for row, labels in zip(table.iloc[part].to_dict("records"), cohort.labels[part], strict=True):
                record = {name: str(row[name]) for name in text_columns}
                record["age"] = float(row["age"])
                record |= {f"labels/{name}": float(v) for name, v in zip(cohort.label_names, labels, strict=True)}
                features.append(record)
            name = f"{dataset_name(cohort)}-{split}.tfrecord-{index:05d}-of-{n_shards:05d}"
            paths = [cohort.images_root / p for p in table["path"].iloc[part]]
            jobs.append(ShardJob(folder / name, split, paths, features, [alterations[row] for row in part], config))
    return jobs


def write_shard(job: ShardJob) -> ShardReport:
    """Writes one shard, or finds it already written by an interrupted run.

    An image that cannot be used is left out and reported with its reason; it is never replaced.
    """
    done = job.path.with_suffix(job.path.suffix + ".json")
    if done.exists():
        report = ShardReport(**json.loads(done.read_text(encoding="utf-8")))
        if job.path.exists() and _sha256(job.path) == report.sha256:
            return report
    cv2.setNumThreads(1)  # parallel over shards, not inside one
    rejected, n_records = [], 0
    temporary = job.path.with_name(f"{job.path.name}.tmp")
    with open(temporary, "wb") as file:
        for path, features, alteration in zip(job.image_paths, job.features, job.alterations, strict=True):
            try:
                image = prepare(read_grey(path), alteration, size=job.config.image_size, equalize=job.config.equalize)
            except ImageError as error:
                rejected.append({"image_id": features["image_id"], "path": str(path), "reason": str(error)})
                continue
            write_record(file, encode_example({**features, "image": encode(image, job.config.image_format)}))
            n_records += 1
    report = ShardReport(job.path.name, job.split, n_records, _sha256(temporary), rejected)
    os.replace(temporary, job.path)
    done.write_text(json.dumps(asdict(report)), encoding="utf-8")
    return report


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
