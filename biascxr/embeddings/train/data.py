"""What an encoder is trained on: the images of a run's records and what it is to tell of each; checked before any training."""

from __future__ import annotations

import csv
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biascxr.containers import UNKNOWN, Cohort
from biascxr.errors import InputError
from biascxr.records import RecordError, decode, decode_example, read_records, read_rejected
from biascxr.run_folder import STAGES, manifest_of, outputs_digest

logger = logging.getLogger("biascxr")

ATTRIBUTE_OF = {"race": "race", "sex": "sex", "age": "age_group"}  # target -> attribute of the cohort


@dataclass(frozen=True)
class Part:
    """The images of one split that say something about the target.

    Attributes:
        files: shards, in order; only files of this split.
        image_id: `[m] object`.
        patient_id: `[m] object`.
        values: `[m, C] float32`: per class 0 or 1; findings may be NaN, masked.
    """

    files: tuple[Path, ...]
    image_id: np.ndarray
    patient_id: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.image_id)

    @property
    def n_patients(self) -> int:
        """Number of different patients."""
        return len(set(self.patient_id))


@dataclass(frozen=True)
class TrainingData:
    """What an encoder learns from and what chooses its epoch.

    Attributes:
        target: findings, race, sex or age.
        classes: the C findings or groups.
        train: images to learn from.
        validation: images that choose the epoch.
        image_size: height and width of the records' images, in pixels.
        image_format: png or jpeg.
        data_set: the layout of the cohort.
        split_fingerprint: SHA-256 of who is in which split.
        digest: SHA-256 of all of it: records, values, split.
    """

    target: str
    classes: tuple[str, ...]
    train: Part
    validation: Part
    image_size: int
    image_format: str
    data_set: str
    split_fingerprint: str
    digest: str

    @property
    def is_exclusive(self) -> bool:
        """Whether an image is of exactly one class: groups, not findings."""
        return self.target != "findings"


def load_training_data(records: Path, target: str) -> TrainingData:
    """Finds what can be learned about a target from a run's records; reads the tables and one image.

    Args:
        records: the 02_records folder of a run, with its 01_cohort beside it.
        target: findings, race, sex or age.

    Raises:
        InputError: no records, no cohort or another one, no train or validation images, nothing recorded about the target, or
            one class only.
    """
    shards = _read_shards(records)
    cohort = _read_cohort(records, target)
    usable = ~cohort.table["image_id"].isin([row["image_id"] for row in read_rejected(records)]).to_numpy()
    for split in ("train", "validation"):
        _check_count(records, split, shards, int((usable & (cohort.table["split"] == split).to_numpy()).sum()))
    classes, values = _target_values(cohort, target, usable & (cohort.table["split"] == "train").to_numpy())
    parts = {split: _part(cohort, split, shards, usable, values, target) for split in ("train", "validation")}
    _check_classes(target, classes, parts["train"])
    size, image_format = _first_image(parts["train"].files[0])
    split_fingerprint = fingerprint_of_split(cohort)
    digest = hashlib.sha256(repr((target, classes, split_fingerprint)).encode())
    for split, part in parts.items():
        digest.update(repr([(s["name"], s["sha256"]) for s in shards if s["split"] == split]).encode())
        digest.update(repr(part.image_id.tolist()).encode() + np.ascontiguousarray(part.values).tobytes())
    return TrainingData(
        target, classes, parts["train"], parts["validation"], size, image_format, cohort.layout, split_fingerprint,
        digest.hexdigest(),
    )  # fmt: skip


def fingerprint_of_split(cohort: Cohort) -> str:
    """Returns the SHA-256 of a cohort's split: every patient and its part, in the patients' order."""
    patients = cohort.table.drop_duplicates("patient_id")[["patient_id", "split"]].astype(str).sort_values("patient_id")
    lines = "".join(f"{patient}\t{split}\n" for patient, split in patients.itertuples(index=False))
    return hashlib.sha256(lines.encode()).hexdigest()


def _read_shards(records: Path) -> list[dict]:
    """Returns the rows of `shards.csv`: name, split, n_records, sha256. Those of test are listed there and never opened."""
    path = records / "shards.csv"
    if not path.is_file():
        raise InputError(
            f"{records} holds no finished records (no shards.csv). Expected the 02_records folder of a run: make it with "
            "biascxr records --csv_path meta.csv. (A run on precomputed vectors has none.)"
        )
    with open(path, newline="", encoding="utf-8") as file:
        shards = [row | {"path": str(records / row["name"])} for row in csv.DictReader(file)]
    present = sorted({s["split"] for s in shards if int(s["n_records"])})
    for split in ("train", "validation"):
        if split not in present:
            raise InputError(
                f"{records} has no {split} images (it has: {', '.join(present) or 'nothing'}). An encoder learns from the "
                "train patients, the validation patients choose its epoch, and test patients are never read."
            )
    missing = [s["name"] for s in shards if s["split"] in ("train", "validation") and not (records / s["name"]).is_file()]
    if missing:
        raise InputError(f"{records} lacks {len(missing)} shards, first {missing[0]}: run biascxr records again.")
    return shards


def _read_cohort(records: Path, target: str) -> Cohort:
    folder = records.absolute().parent / STAGES["cohort"]
    if not (folder / "cohort.json").is_file():
        raise InputError(
            f"Labels, attributes and split of these records come from {STAGES['cohort']} beside them; {folder} holds no "
            "cohort. Give the 02_records folder where its run left it."
        )
    made_from = manifest_of(records).get("made_from", {}).get("inputs", {}).get("cohort")
    if made_from is not None and manifest_of(folder) and made_from != outputs_digest(folder):
        raise InputError(
            f"{records} was made from another cohort than the {STAGES['cohort']} that is beside it now, so their splits may "
            "differ: run biascxr records again."
        )
    try:
        return Cohort.load(folder)
    except IndexError as error:  # no label at all
        raise InputError(f"{folder} has no labels, so --target {target} has nothing to learn with.") from error


def _check_count(records: Path, split: str, shards: list[dict], expected: int) -> None:
    n_records = sum(int(s["n_records"]) for s in shards if s["split"] == split)
    if n_records != expected:
        raise InputError(
            f"{records} holds {n_records:,} {split} images; by the cohort and rejected.csv it should be {expected:,}. They do "
            "not belong together: run biascxr records again."
        )


def _target_values(cohort: Cohort, target: str, is_train: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the classes and `[n, C] float32`; a row of NaN says nothing about the target."""
    if target == "findings":
        known = [(cohort.labels[is_train, i] == v).any() for i in range(len(cohort.label_names)) for v in (0, 1)]
        both = np.array(known, bool).reshape(-1, 2).all(axis=1)
        one_sided = [name for name, has_both in zip(cohort.label_names, both, strict=True) if not has_both]
        if not both.any():
            raise InputError(
                "--target findings: expected findings that are labelled positive on some train images and negative on others; "
                f"got none among {', '.join(cohort.label_names) or 'no labels'}."
            )
        if one_sided:
            logger.warning("train-encoder: left out, not both positive and negative in train: %s", ", ".join(one_sided))
        return tuple(n for n, b in zip(cohort.label_names, both, strict=True) if b), cohort.labels[:, both]
    column = ATTRIBUTE_OF[target]
    attributes = {a.name: a for a in cohort.attributes}
    if column not in attributes:
        raise InputError(
            f"--target {target}: expected at least two known groups of recorded {target}; this cohort has none. "
            f"It can be read as to: {', '.join(('findings', *attributes))}."
        )
    recorded = cohort.table[column].to_numpy(object)
    classes = tuple(g for g in attributes[column].groups if (recorded[is_train] == g).any())
    values = (recorded[:, None] == np.array(classes, object)[None, :]).astype(np.float32)
    values[values.sum(axis=1) == 0] = np.nan
    unlearned = [g for g in attributes[column].groups if g not in classes and g != UNKNOWN]
    if unlearned:
        logger.warning("train-encoder: groups without a train image, not told apart: %s", ", ".join(unlearned))
    return classes, values


def _part(cohort: Cohort, split: str, shards: list[dict], usable: np.ndarray, values: np.ndarray, target: str) -> Part:
    in_split = usable & (cohort.table["split"] == split).to_numpy()
    kept = in_split & ~np.isnan(values).all(axis=1)
    records = cohort.table[kept]
    what = "a label" if target == "findings" else f"a recorded {target} that is learned"
    logger.info(
        "train-encoder: %s: %d images of %d patients; %d left out without %s",
        split, int(kept.sum()), records["patient_id"].nunique(), int((in_split & ~kept).sum()), what,
    )  # fmt: skip
    if not kept.any():
        raise InputError(f"--target {target}: no {split} image has {what}, so nothing can be learned or judged.")
    return Part(
        tuple(Path(s["path"]) for s in shards if s["split"] == split and int(s["n_records"])),
        records["image_id"].to_numpy(object),
        records["patient_id"].to_numpy(object),
        np.ascontiguousarray(values[kept], np.float32),
    )


def _check_classes(target: str, classes: tuple[str, ...], train: Part) -> None:
    if target != "findings" and len(classes) < 2:
        raise InputError(
            f"--target {target}: expected at least two groups among the train patients; got {', '.join(classes) or 'none'} "
            "only."
        )


def _first_image(shard: Path) -> tuple[int, str]:
    try:
        data = decode_example(next(iter(read_records(shard))))["image"][0]
        image = decode(data)
    except (RecordError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{shard.name} cannot be read as a record with an image: {error}.") from error
    if image.shape[0] != image.shape[1]:
        raise InputError(f"{shard.name}: expected square images; got {image.shape[0]} x {image.shape[1]}.")
    return image.shape[0], "png" if data.startswith(b"\x89PNG") else "jpeg"
