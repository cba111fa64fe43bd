"""Rules about the image files themselves: they are there, and no two are the same bytes."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd

from biascxr.cohort.contract.base import Evidence, Finding
from biascxr.cohort.contract.words import counted, percent, some
from biascxr.containers import Cohort
from biascxr.run_folder import file_digest

N_THREADS = 8  # a network disk answers several questions at a time; on a local one threads cost twice the time of none
AT_ONCE = 512
BLOCK = 1 << 14  # bytes from the middle of a file: headers are alike, the middle of an image is not


def missing_files(evidence: Evidence) -> list[Finding]:
    """Finds images whose file is not there: an error where none is (images_root is then wrong), else a warning."""
    cohort = evidence.cohort
    paths = _full_paths(cohort)
    missing = _sizes(paths) < 0
    n = int(missing.sum())
    if not n:
        return []
    if n == len(cohort):
        message = f"None of the {counted(n, 'file')} that the table names is there."
        advice = (
            "Give --images_root the folder that its paths start from (or --allow missing_files, to look at the table alone)."
        )
    else:
        message = f"{counted(n, 'image')} without a file ({percent(n / len(cohort))} of all)."
        advice = "The records stage leaves them out and names each in rejected.csv; if you have them, complete the download."
    return [Finding("missing_files", n == len(cohort), n, message, advice, some(paths[missing]))]


def copied_files(evidence: Evidence) -> list[Finding]:
    """Finds files of the same bytes under different paths: an error where copies lie in different splits.

    Files of one size are compared by a block from their middle, and whole only where that agrees. Only when
    `look_at_files` asks for it. Files that cannot be read are the records stage's to name.
    """
    if not evidence.look_at_files:
        return []
    cohort = evidence.cohort
    unique = np.flatnonzero(~cohort.table["path"].duplicated().to_numpy())  # one file listed twice is duplicate_images'
    files = pd.DataFrame({"row": unique, "path": _full_paths(cohort)[unique]})
    files["key"] = _sizes(files["path"].to_numpy()).astype(str)
    files = _alike(files[~files["key"].isin(["-1", "0"])])  # an empty file is no image
    for digest in (_middle_digest, _whole_digest):
        found = zip(files["key"], _each(digest, files["path"]), strict=True)
        keys = [None if own is None else f"{key} {own}" for key, own in found]
        files = _alike(files.assign(key=pd.Series(keys, index=files.index, dtype=object)).dropna(subset="key"))
    files["split"] = cohort.table["split"].to_numpy()[files["row"]]
    crosses = files.groupby("key")["split"].transform("nunique") > 1
    findings = []
    if crosses.any():
        findings.append(_copies(cohort, files[crosses], "in another split", is_error=True))
    if not crosses.all():
        findings.append(_copies(cohort, files[~crosses], "in the same split", is_error=False))
    return findings


def _copies(cohort: Cohort, files: pd.DataFrame, where: str, *, is_error: bool) -> Finding:
    n = len(files)
    advice = (
        "A film that is trained on and tested flatters the model: leave copies out of the table."
        if is_error
        else "A film listed under several names counts several times: leave copies out of the table."
    )
    rows = files.sort_values("key")["row"]
    message = f"{counted(n, 'image')} whose file is, byte for byte, that of an image {where}."
    return Finding("copied_files", is_error, n, message, advice, some(cohort.table["path"].iloc[rows]))


def _alike(files: pd.DataFrame) -> pd.DataFrame:
    return files[files["key"].duplicated(keep=False)]


def _full_paths(cohort: Cohort) -> np.ndarray:
    root = os.path.join(cohort.images_root, "")
    return np.array([os.path.join(root, path) for path in cohort.table["path"]], object)


def _sizes(paths: np.ndarray) -> np.ndarray:
    """Returns the size of each file in bytes, `[n] int64`; -1 where there is no such file."""
    return np.array(_each(_size, paths), np.int64)


def _size(path: str) -> int:
    try:
        status = os.stat(path)
    except OSError:
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def _middle_digest(path: str) -> str | None:
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(max(0, (os.fstat(file.fileno()).st_size - BLOCK) // 2))
            return hashlib.sha256(file.read(BLOCK)).hexdigest()
    except OSError:
        return None


def _whole_digest(path: str) -> str | None:
    try:
        return file_digest(path)
    except OSError:
        return None


def _each(function: Callable, paths: Iterable[str]) -> list:
    """Calls a function on every path, in threads, some hundred paths at a time: a call alone is shorter than its dispatch."""
    paths = list(paths)
    with ThreadPoolExecutor(N_THREADS) as pool:
        parts = pool.map(lambda start: [function(p) for p in paths[start : start + AT_ONCE]], range(0, len(paths), AT_ONCE))
        return [answer for part in parts for answer in part]
