"""A run that starts from vectors that are there already: an embedding store in place of records and embeddings."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from biascxr.errors import InputError
from biascxr.run_folder import STAGES, file_digest, files_digest

logger = logging.getLogger("biascxr")

STORE_FILES = ("vectors.npy", "index.parquet", "card.json")


def check_store(store: Path) -> None:
    """Raises InputError for a folder that is not an embedding store."""
    missing = [name for name in STORE_FILES if not (store / name).is_file()]
    if missing:
        raise InputError(
            f"--embedding_store {store} lacks {', '.join(missing)}. A store is the 03_embeddings folder of a run: vectors.npy "
            "(float32 or float16, one row per image), index.parquet (image_id, view_id) and card.json (encoder, is_trained, "
            "trained_on, vector_length, ...)."
        )


def cohort_of_store(store: Path) -> Path | None:
    """Returns the cohort folder of the run that a store belongs to, or None where it belongs to none."""
    folder = store.absolute().parent / STAGES["cohort"]
    return folder if (folder / "cohort.json").is_file() else None


def copy_cohort(source: Path, folder: Path) -> None:
    """Copies a finished cohort, its tables included, into a stage's folder."""
    for path in _cohort_files(source):
        shutil.copyfile(path, folder / path.name)


def cohort_digests(source: Path) -> dict[str, str]:
    """Returns a fingerprint of each file that `copy_cohort` copies; a cohort that no run has made has no manifest of them."""
    return {path.name: file_digest(path) for path in _cohort_files(source)}


def _cohort_files(source: Path) -> list[Path]:
    return [path for path in sorted(source.iterdir()) if path.is_file() and path.name != "manifest.json"]


def store_digest(store: Path) -> str:
    """Returns a fingerprint of a store's files."""
    return files_digest(store, STORE_FILES)


def open_store(store: Path, cohort, folder: Path, precision: str = "float32"):
    """Brings a store's vectors of a cohort's images into a stage's folder; the file is linked where all are used.

    Args:
        store: a folder with `STORE_FILES`.
        cohort: the rows; images without a vector are left out and counted.
        folder: the stage's folder.
        precision: float16 rounds a float32 store; a float16 store stays one, since its digits do not come back.

    Returns:
        The `EmbeddingSet`, in the cohort's order.

    Raises:
        InputError: the store cannot be read, has no vector of the cohort's images, or one that float16 cannot hold.
    """
    from biascxr.containers import EmbeddingSet
    from biascxr.embeddings.store import in_precision

    try:
        found = EmbeddingSet.load(store)
    except (ValueError, KeyError, OSError) as error:
        what = f"index.parquet lacks the column {error}" if isinstance(error, KeyError) else error
        raise InputError(f"--embedding_store {store} cannot be read: {what}.") from error
    check_contents(store, found)
    position = {image: row for row, image in enumerate(found.image_id) if found.view_id[row] == 0}
    wanted = cohort.table["image_id"].to_numpy(object)
    rows = np.array([position.get(image, -1) for image in wanted])
    kept, n_missing = rows[rows >= 0], int((rows < 0).sum())
    if len(kept) == 0:
        raise InputError(f"--embedding_store {store} holds no vector of this table's images: their image_ids do not match.")
    if n_missing:
        logger.warning("embeddings: %d of %d images have no vector in the store and are left out", n_missing, len(rows))
    stored = found.vectors.dtype.name
    precision = "float16" if "float16" in (precision, stored) else "float32"
    if np.array_equal(kept, np.arange(len(found))) and precision == stored:
        link_or_copy(store / "vectors.npy", folder / "vectors.npy")
    else:
        made = np.lib.format.open_memmap(
            folder / "vectors.npy", mode="w+", dtype=np.dtype(precision), shape=(len(kept), found.vectors.shape[1])
        )
        for start in range(0, len(kept), 8192):
            part = kept[start : start + 8192]
            made[start : start + 8192] = in_precision(found.vectors[part], precision, found.image_id[part])
        made.flush()
    write_rejected(folder, cohort, rows)
    vectors = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False)
    card = found.card | {"store_precision": precision}
    return replace(found, image_id=wanted[rows >= 0], view_id=np.zeros(len(kept), np.int32), vectors=vectors, card=card)


def check_contents(store: Path, found) -> None:
    """Raises InputError where a store's parts do not fit together, or a vector is not a number."""
    if not isinstance(found.card, dict):
        raise InputError(f"--embedding_store {store}: card.json must hold names and values; got a {type(found.card).__name__}.")
    missing = {"encoder", "fingerprint", "is_trained", "trained_on", "vector_length", "weights"} - set(found.card)
    if missing:
        raise InputError(f"--embedding_store {store}: card.json lacks {', '.join(sorted(missing))}.")
    n, length = found.vectors.shape
    if length != found.card["vector_length"]:
        said = found.card["vector_length"]
        raise InputError(f"--embedding_store {store}: vectors of {length} numbers; card.json says {said}.")
    stored = found.vectors.dtype.name
    if found.card.get("store_precision", stored) != stored:
        said = found.card["store_precision"]
        raise InputError(f"--embedding_store {store}: vectors of {stored}; card.json says {said}.")
    images = pd.Series(found.image_id[found.view_id == 0])
    if images.duplicated().any():
        raise InputError(f"--embedding_store {store}: {int(images.duplicated().sum())} image_ids are there twice.")
    n_broken = sum(int((~np.isfinite(found.vectors[i : i + 8192]).all(axis=1)).sum()) for i in range(0, n, 8192))
    if n_broken:
        raise InputError(f"--embedding_store {store}: {n_broken} of {n} vectors hold NaN or infinity; leave those rows out.")


def link_or_copy(source: Path, target: Path) -> None:
    """Links a file, or copies it where the two are on different disks."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_rejected(folder: Path, cohort, rows: np.ndarray) -> None:
    """Writes which images have no vector, as the stages that read files do."""
    from biascxr.records import write_rejected as write

    missing = cohort.table.loc[rows < 0, ["image_id", "path"]].assign(reason="no vector in the embedding store")
    write(folder, missing.to_dict("records"))
