"""Rules about images as the table lists them: each once."""

from __future__ import annotations

import posixpath

import pandas as pd

from biascxr.cohort.contract.base import Evidence, Finding
from biascxr.cohort.contract.words import counted, some
from biascxr.cohort.split import SPLIT_NAMES


def duplicate_images(evidence: Evidence) -> list[Finding]:
    """Finds an image_id listed twice, and one file listed under several image_ids.

    A file that stands for two patients, or in two parts of a split that is in use, is an error: nobody can say whose it is,
    or it is trained on and tested. Cells left blank are counted elsewhere (selection leaves such rows out).
    """
    table = evidence.parsed.table
    return [*_listed_again(table[table["image_id"] != ""]), *_shared_files(evidence)]


def _listed_again(table: pd.DataFrame) -> list[Finding]:
    again = table["image_id"].duplicated()
    n = int(again.sum())
    if not n:
        return []
    images = table.loc[again, "image_id"].drop_duplicates()
    listed = table.loc[table["image_id"].isin(images), ["image_id", "patient_id"]].drop_duplicates()
    n_patients = int((listed["image_id"].value_counts() > 1).sum())
    whose = f", {counted(n_patients, 'image')} of them under more than one patient" if n_patients else ""
    return [
        Finding(
            "duplicate_images",
            is_error=False,
            count=n,
            message=f"{counted(n, 'row')} with an image_id that was listed before{whose}.",
            advice="The first row of an image is kept, the others are left out. If they say different things, mend the table.",
            examples=some(images),
        )
    ]


def _shared_files(evidence: Evidence) -> list[Finding]:
    table = evidence.parsed.table
    table = table[(table["path"] != "") & (table["image_id"] != "")].drop_duplicates("image_id")
    path = _plain(table["path"])
    shared = path.duplicated(keep=False)
    if not shared.any():
        return []
    rows = table[shared].assign(path=path[shared])
    crosses = _has_several(rows["path"], rows["patient_id"])
    where = "patients"
    if evidence.split_is_used and "split" in rows:
        part = rows["split"].map(SPLIT_NAMES).fillna(rows["split"])
        crosses |= _has_several(rows["path"], part.mask(part == ""))
        where = "patients or splits"
    across, within = rows[crosses], rows[~crosses]
    found = []
    if len(across):
        found.append(
            Finding(
                "duplicate_images",
                is_error=True,
                count=len(across),
                message=f"{counted(len(across), 'image')} in different {where} with a path that another one has too.",
                advice="One file cannot be two patients'. Mend the column of paths, or leave these rows out of the table.",
                examples=some(across["image_id"]),
            )
        )
    if len(within):
        found.append(
            Finding(
                "duplicate_images",
                is_error=False,
                count=len(within),
                message=f"{counted(len(within), 'image')} with a path that another one of the same patient has too.",
                advice="A file listed twice counts twice. List each file once.",
                examples=some(within["image_id"]),
            )
        )
    return found


def _plain(path: pd.Series) -> pd.Series:
    """Returns paths of which equal ones are the same text (`./a.jpg` is `a.jpg`)."""
    odd = path.str.contains("./", regex=False) | path.str.contains("//", regex=False)
    return path.where(~odd, path[odd].map(posixpath.normpath).reindex(path.index)) if odd.any() else path


def _has_several(key: pd.Series, value: pd.Series) -> pd.Series:
    """Returns which rows have a key that comes with several values, blanks (NaN) apart."""
    return value.groupby(key).transform("nunique") > 1
