"""Shards: the unit of work. One shard is a pure function of its row list, written to a temporary name and renamed.

The rows of a split, in table order, are cut into blocks of `rows_per_shard`; the last block holds what is left. So rows that
are appended leave all full shards of their split as they were, and their number, which is a part of every shard's name, is no
part of its key: taken over, they only get other names. A row that goes, or comes in between, moves all later ones of its split.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from biascxr.config import SPLITS, RecordsConfig
from biascxr.containers import Cohort
from biascxr.errors import InputError
from biascxr.records.image import Alteration, ImageError, encode, read_prepared
from biascxr.records.shard_list import Shard, ShardReport, reports_of
from biascxr.records.tfrecord import encode_example, write_record
from biascxr.run_folder import code_digest, file_digest
from biascxr.work import written_whole

# Libraries that read, resize and compress images; those of DICOM are extras, and an image that none of them could read is
# tried again when one is installed.
LIBRARIES = ("numpy", "opencv-python-headless", "pillow")
DICOM_LIBRARIES = ("pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "python-gdcm", "imagecodecs")


@dataclass(frozen=True)
class ShardJob:
    """What one worker needs to write one shard. Columns, not a dict per row: jobs of a whole data set are in memory at once.

    Attributes:
        path: the shard's file.
        split: the split all its rows belong to.
        images_root: folder that the images' paths start from.
        image_paths: `[m]` files to read.
        texts: per text feature its `[m]` values.
        age: `[m] float64` years; NaN is unknown.
        labels: `[m, L] float32`.
        label_names: `[L]`.
        alterations: `[m]` what is done to the image beside standardising it, per row.
        config: size, equalization, codec.
        key: see `shard_key`.
        former: a file with an equal key, and what is known of it.
    """

    path: Path
    split: str
    images_root: Path
    image_paths: list[str]
    texts: dict[str, list[str]]
    age: np.ndarray
    labels: np.ndarray
    label_names: tuple[str, ...]
    alterations: list[Alteration]
    config: RecordsConfig
    key: str = ""
    former: tuple[Path, ShardReport] | None = field(default=None, repr=False)

    def features(self, row: int) -> dict:
        """Returns the features beside the image of one row, from 0."""
        labels = zip(self.label_names, self.labels[row].tolist(), strict=True)
        texts = {name: values[row] for name, values in self.texts.items()}
        return texts | {"age": float(self.age[row])} | {f"labels/{name}": value for name, value in labels}


def dataset_name(cohort: Cohort) -> str:
    """Returns the name under which TensorFlow Datasets knows these records."""
    return f"biascxr_{cohort.layout}"


def plan_shards(cohort: Cohort, config: RecordsConfig, folder: Path, *, earlier: Path | None = None) -> list[ShardJob]:
    """Cuts each split into blocks of `rows_per_shard` rows in table order, whatever the number of workers.

    Args:
        cohort: rows whose `path` is an image.
        config: image size, equalization, codec, rows per shard.
        folder: where the shards go.
        earlier: finished records of an earlier run, whose shards with an equal key are taken over.
    """
    folder = folder.absolute()  # a worker may have been started elsewhere
    table, alterations = cohort.table, _alterations(cohort.table)
    text_columns = ("image_id", "study_id", "patient_id", "view", *(a.name for a in cohort.attributes))
    # Besides an earlier run's: those of this folder, where a run was stopped between its last shard and the stage's end.
    known = [(place, reports_of(place)) for place in (folder, earlier) if place is not None]
    made_by = _made_by()
    jobs = []
    for split in SPLITS:
        rows = cohort.split_rows(split)
        blocks = [rows[start : start + config.rows_per_shard] for start in range(0, len(rows), config.rows_per_shard)]
        for index, part in enumerate(blocks):
            own = table.iloc[part]
            job = ShardJob(
                path=folder / f"{dataset_name(cohort)}-{split}.tfrecord-{index:05d}-of-{len(blocks):05d}",
                split=split,
                images_root=cohort.images_root.absolute(),
                image_paths=[str(path) for path in own["path"]],
                texts={name: [str(value) for value in own[name]] for name in text_columns},
                age=own["age"].to_numpy(np.float64),
                labels=cohort.labels[part],
                label_names=tuple(cohort.label_names),
                alterations=[alterations[row] for row in part] if alterations else [Alteration()] * len(part),
                config=config,
            )
            key = shard_key(job, made_by)
            found = ((place, find(key, job.texts["image_id"])) for place, find in known)
            former = next(((place / report.shard.name, report) for place, report in found if report), None)
            jobs.append(replace(job, key=key, former=former))
    return jobs


def _alterations(table: pd.DataFrame) -> list[Alteration]:
    """Returns what is done to each row's image, or an empty list where the table asks for nothing."""
    changes = [f.name for f in fields(Alteration) if f.name in table]
    return [Alteration(**row) for row in table[changes].to_dict("records")] if changes else []


def reader_versions() -> dict[str, str | None]:
    """Returns the versions of all libraries that read images, None where one is not installed: with it, more could be read."""
    versions = {}
    for name in LIBRARIES + DICOM_LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def _made_by() -> str:
    """Returns the code and the libraries that decide a shard's bytes, as text."""
    return json.dumps([code_digest(("records",)), reader_versions()])


def shard_key(job: ShardJob, made_by: str) -> str:
    """Returns the SHA-256 of everything that a shard is made from: equal keys, equal bytes, whatever the shard is called.

    Args:
        job: the shard's rows and settings.
        made_by: the code and the libraries, as text.

    Of the images, their paths, sizes and times of change: reading them would take as long as using them.
    """
    config = {name: value for name, value in asdict(job.config).items() if name not in ("rows_per_shard", "max_rejected_share")}
    described = [made_by, job.split, config, job.texts, job.label_names, str(job.images_root)]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    digest.update(job.age.tobytes() + np.ascontiguousarray(job.labels, np.float32).tobytes())
    digest.update(repr(job.alterations).encode())
    for path in job.image_paths:
        try:
            status = os.stat(os.path.join(job.images_root, path))
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{path}\0missing\n".encode())
    return digest.hexdigest()


def write_shard(job: ShardJob) -> ShardReport:
    """Writes one shard, or finds it already written: by an interrupted run here, or by an earlier one elsewhere.

    An image that cannot be used is left out and reported with its reason; it is never replaced.
    """
    report = _finished(job) or _taken_over(job) or _made(job)
    with written_whole(marker_of(job)) as temporary:
        temporary.write_text(json.dumps(asdict(report)), encoding="utf-8")
    return report


def marker_of(job: ShardJob) -> Path:
    """Returns the file that says what a finished shard holds, there until the stage is."""
    return job.path.with_name(f"{job.path.name}.json")


def _finished(job: ShardJob) -> ShardReport | None:
    try:
        saved = json.loads(marker_of(job).read_text(encoding="utf-8"))
        report = ShardReport(**saved | {"shard": Shard(**saved["shard"])})
        return report if report.key == job.key and file_digest(job.path) == report.shard.sha256 else None
    except (OSError, ValueError, TypeError, KeyError):  # no marker, or none that this version wrote
        return None


def _taken_over(job: ShardJob) -> ShardReport | None:
    """Links (or copies) a former shard with an equal key, if it is what it was when it was written."""
    if job.former is None:
        return None
    path, report = job.former
    try:
        if file_digest(path) != report.shard.sha256:
            return None
        if path != job.path:
            with written_whole(job.path) as temporary:
                try:
                    os.link(path, temporary)
                except OSError:  # another file system, or one without links
                    shutil.copyfile(path, temporary)
    except OSError:
        return None
    return replace(report, shard=replace(report.shard, name=job.path.name))


def _made(job: ShardJob) -> ShardReport:
    if job.key and shard_key(job, _made_by()) != job.key:
        raise InputError(
            f"On {socket.gethostname()}, the images of a shard are others than where the run was started (by size or time, or "
            "not there at all), or other versions of the libraries that read them are installed. All workers need the same "
            "files under the same paths and the same versions; and images must not change while a run is at work."
        )
    cv2.setNumThreads(1)  # parallel over shards, not inside one
    rejected, n_records = [], 0
    with written_whole(job.path) as temporary:
        with open(temporary, "wb") as file:
            for row, (name, alteration) in enumerate(zip(job.image_paths, job.alterations, strict=True)):
                path, features = job.images_root / name, job.features(row)
                try:
                    image = read_prepared(path, alteration, size=job.config.image_size, equalize=job.config.equalize)
                except ImageError as error:
                    rejected.append({"image_id": features["image_id"], "path": str(path), "reason": str(error)})
                    continue
                write_record(file, encode_example({**features, "image": encode(image, job.config.image_format)}))
                n_records += 1
        shard = Shard(job.path.name, job.split, n_records, temporary.stat().st_size, file_digest(temporary))
    return ShardReport(shard, job.key, rejected)
