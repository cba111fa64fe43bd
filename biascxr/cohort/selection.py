"""Selection: which rows stay, with every exclusion counted by its reason."""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from biascxr.containers import UNKNOWN
from biascxr.errors import InputError

FRONTAL_VIEWS = ("AP", "PA")
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
VECTOR_ENDINGS = (".npy", ".tfrecord")


def select_rows(table: pd.DataFrame, *, frontal_only: bool) -> tuple[np.ndarray, dict[str, int]]:
    """Chooses the rows to use. A row is counted under the first reason that excludes it.

    Args:
        table: rows in the common form.
        frontal_only: leave out views other than AP and PA; a blank view is kept.

    Returns:
        `[n] bool`, and the number of excluded rows by reason.
    """
    is_lateral = (table["view"] != "") & ~table["view"].isin(FRONTAL_VIEWS)
    lacks_id = (table[["image_id", "study_id", "patient_id", "path"]] == "").any(axis=1)
    reasons = {
        "no image, study, patient id or path": lacks_id,
        "image listed before": table["image_id"].mask(lacks_id).duplicated(),  # a row without a path takes no one's place
        "not a frontal view (AP, PA)": is_lateral if frontal_only else is_lateral & False,
    }
    keep = np.ones(len(table), bool)
    excluded = {}
    for reason, applies in reasons.items():
        hit = keep & applies.to_numpy(bool)
        excluded[reason] = int(hit.sum())
        keep &= ~hit
    return keep, {reason: n for reason, n in excluded.items() if n}


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


def settle_conflicts(table: pd.DataFrame, name: str) -> tuple[pd.Series, str | None]:
    """Makes a constant attribute constant: a patient recorded with two values becomes unknown, and is counted.

    Blank records of a patient take the value of the other records.

    Args:
        table: rows with `patient_id` and the attribute.
        name: the attribute, one that does not change within a patient.

    Returns:
        The settled values, and a note where there was a conflict.
    """
    known = table[name].where(table[name] != UNKNOWN)
    by_patient = known.groupby(table["patient_id"])
    conflicting = by_patient.nunique() > 1
    settled = by_patient.first().where(~conflicting)
    note = None
    if conflicting.any():
        note = f"{int(conflicting.sum())} patients are recorded with more than one {name}: treated as unknown."
    return table["patient_id"].map(settled).fillna(UNKNOWN), note
