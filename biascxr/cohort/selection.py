"""Selection: which rows stay, with every exclusion counted by its reason."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from biascxr.errors import InputError

FRONTAL_VIEWS = ("AP", "PA")
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".dcm")
VECTOR_ENDINGS = (".npy", ".npz", ".tfrecord")


def select_rows(
    table: pd.DataFrame, *, frontal_only: bool, needs_split: bool = False, left_out: dict[str, frozenset[str]] | None = None
) -> tuple[np.ndarray, dict[str, int]]:
    """Chooses the rows to use. A row is counted under the first reason that excludes it.

    Args:
        table: rows in the common form.
        frontal_only: leave out views other than AP and PA; a blank view is kept.
        needs_split: leave out rows that are in no part of the data set's own split.
        left_out: patients to leave out, by reason.

    Returns:
        `[n] bool`, and the number of excluded rows by reason.
    """
    is_lateral = (table["view"] != "") & ~table["view"].isin(FRONTAL_VIEWS)
    lacks_id = (table[["image_id", "study_id", "patient_id", "path"]] == "").any(axis=1)
    reasons = {
        "no image, study, patient id or path": lacks_id,
        "image listed before": table["image_id"].mask(lacks_id).duplicated(),  # a row without a path takes no one's place
        "not a frontal view (AP, PA)": is_lateral if frontal_only else is_lateral & False,
        "in no part of the data set's split": (table["split"] == "") if needs_split else is_lateral & False,
        **{reason: table["patient_id"].isin(patients) for reason, patients in (left_out or {}).items()},
    }
    keep = np.ones(len(table), bool)
    excluded = {}
    for reason, applies in reasons.items():
        hit = keep & applies.to_numpy(bool)
        excluded[reason] = int(hit.sum())
        keep &= ~hit
    return keep, {reason: n for reason, n in excluded.items() if n}


def refuse_outside(paths: pd.Series, images_root: Path) -> None:
    """Refuses paths that lead out of the images' folder: a table must not make a run read other files of the machine.

    Only the words of the path are looked at; a folder inside may be a link to another disk.

    Raises:
        InputError: a path is absolute and not below `images_root`, or climbs out of it with `..`.
    """
    if paths.str.contains("\0", regex=False).any():
        raise InputError("A path in the table holds a NUL character: the file is damaged, or is no text.")
    root = os.path.join(os.path.abspath(images_root), "")
    suspicious = paths[paths.str.startswith(("/", "\\", "~")) | paths.str.contains("..", regex=False)]
    outside = [p for p in suspicious if not os.path.normpath(os.path.join(root, p)).startswith(root)]
    if outside:
        raise InputError(
            f"{len(outside):,} paths lead out of images_root ({images_root}). Give --images_root the folder that holds all "
            "images, or mend the table.",
            examples=outside[:3],
        )


def content_of(paths: pd.Series) -> str:
    """Returns `"image"` or `"vector"`, told by the endings of the paths.

    Raises:
        InputError: an ending that is neither, or a mixture of both.
    """
    endings = paths.map(lambda path: PurePosixPath(path).suffix.lower())
    counts = endings.value_counts()
    unknown = sorted(set(counts.index) - {*IMAGE_ENDINGS, *VECTOR_ENDINGS})
    if unknown:
        raise InputError(
            f"Column 'path' holds files ending in {unknown[0]!r} ({int(counts[unknown[0]])} rows); expected images "
            f"({', '.join(IMAGE_ENDINGS)}) or precomputed vectors ({', '.join(VECTOR_ENDINGS)})."
        )
    has_images, has_vectors = (any(e in counts for e in group) for group in (IMAGE_ENDINGS, VECTOR_ENDINGS))
    if has_images and has_vectors:
        raise InputError(f"Column 'path' mixes images and precomputed vectors ({counts.to_dict()}); give one kind.")
    return "vector" if has_vectors else "image"
