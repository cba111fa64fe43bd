"""Where CheXpert's files lie after download: tables beside one another, images by path, CheXpert Plus's labels apart."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

from biascxr.cohort.base import Source, require_columns
from biascxr.cohort.tables import find_files, read_header, read_table
from biascxr.errors import InputError

TABLES = ("train.csv", "valid.csv", "test.csv")
PLUS_PATH = "path_to_image"
PLUS_LABELS = "report_fixed.json"  # CheXbert's labels of whole reports, one JSON object a line
FILM = ["split", "patient", "study", "film"]
PATH_FORM = (
    r"(?i)^(?:.*/)?(?P<split>train|valid|test)/(?P<rest>(?P<patient>patient\d+)/(?P<study>study\d+)/(?P<film>[^/]+)\.\w+)$"
)
IMAGE_FOLDERS = ("chexpert", "train", "valid", "test", "png")


def is_plus(main: Path) -> bool:
    """Returns whether a table is CheXpert Plus's."""
    return PLUS_PATH in read_header(main)


def tables_beside(main: Path) -> list[Path]:
    """Returns `train.csv`, `valid.csv` and `test.csv` of one folder, those there are; a table of another name stands alone."""
    if main.name.lower() not in TABLES:
        return [main]
    there = {file.name.lower(): file for file in main.parent.iterdir() if file.is_file()}
    return [there[name] for name in TABLES if name in there]


def path_parts(paths: pd.Series, table: Path) -> pd.DataFrame:
    """Takes paths such as `CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg` apart.

    Returns:
        `split, rest` (what follows the split), `patient, study, film` (without its ending), `[n] str` each.

    Raises:
        InputError: a path has another form.
    """
    parts = paths.str.strip().str.extract(PATH_FORM)
    wrong = parts["film"].isna()
    if wrong.any():
        raise InputError(
            f"{table.name}: {int(wrong.sum()):,} paths are not of CheXpert's form; "
            "expected .../train/patient00001/study1/view1_frontal.jpg.",
            examples=paths[wrong].head(3),
        )
    return parts


def image_roots(source: Source) -> list[Path]:
    """Returns the folders that images may lie below: the user's, else the table's and the one above."""
    return [source.images_root] if source.images_root else [source.main.parent, source.main.parent.parent]


def image_folders(source: Source) -> list[str]:
    """Returns the names of the folders that may hold images."""
    folders = [f.name for root in image_roots(source) if root.is_dir() for f in root.iterdir() if f.is_dir()]
    return sorted(name for name in folders if name.lower().startswith(IMAGE_FOLDERS))


def find_images(paths: pd.Series, parts: pd.DataFrame, roots: list[Path]) -> tuple[pd.Series, Path]:
    """Finds where the recorded paths lie on this disk.

    Tried in each root: the path as recorded (the root is the folder above the data set), without the data set's folder,
    CheXpert Plus's PNG archive, and the full size's archives, which put patients into "batch" folders of their own. The
    place is taken that has most of the first films of each part of the split, the earlier one among equals.

    Returns:
        Paths relative to a root, and that root; the paths as recorded and the first root where nothing was found.
    """
    sample = parts.drop_duplicates("split").index
    best, n_best = (paths, roots[0]), 0
    for root in roots:
        for place in _places(root):
            n_found = sum((root / path).is_file() for path in place(paths.loc[sample], parts.loc[sample]))
            if n_found > n_best:
                best, n_best = (place(paths, parts), root), n_found
            if n_best == len(sample):
                return best
    return best


def _places(root: Path) -> Iterable[Callable[[pd.Series, pd.DataFrame], pd.Series]]:
    yield lambda paths, parts: paths
    yield lambda paths, parts: parts["split"] + "/" + parts["rest"]
    for folder in ("", "PNG/", "PNG/PNG/"):
        yield (
            lambda paths, parts, folder=folder: (
                folder + parts["split"] + "/" + parts["rest"].str.replace(r"\.\w+$", ".png", regex=True)
            )
        )
    folders = [f for batch in sorted(root.glob("*batch*")) for f in (*batch.glob("patient*"), *batch.glob("*/patient*"))]
    batch = {folder.name: folder.parent.relative_to(root).as_posix() + "/" for folder in folders}
    yield lambda paths, parts: (parts["patient"].map(lambda p: batch.get(p, "")) + parts["rest"]).where(
        parts["patient"].isin(batch), paths
    )


def plus_label_files(source: Source) -> list[Path]:
    """Returns the files that CheXpert Plus's labels are taken from: CheXpert's tables, else CheXbert's labels of the report.

    Raises:
        InputError: several files fit.
    """
    for places, labels in ((source.config.companions, "*_fixed.json"), ([source.main.parent], PLUS_LABELS)):
        for patterns in (TABLES[:2], (labels,)):
            found = find_files(places, patterns)
            is_ambiguous = len(found) > len({f.name.lower() for f in found}) or (patterns == (labels,) and len(found) > 1)
            if is_ambiguous:
                raise InputError(
                    f"Several files could hold CheXpert Plus's labels: {', '.join(map(str, found[:4]))}. "
                    "Name the one to use: --companions FILE."
                )
            if found:
                return found
    return []


def read_label_file(file: Path, names: Iterable[str]) -> pd.DataFrame:
    """Reads `split, patient, study, film` and the labels there are, text as in the tables, from a CSV or JSON lines.

    Raises:
        InputError: the file cannot be read, or has no paths or no labels.
    """
    is_json = file.suffix.lower() == ".json"
    frame = _read_json_lines(file) if is_json else read_table(file)
    path = PLUS_PATH if is_json else "Path"
    require_columns(frame, [path], "CheXpert Plus's labels", file)
    present = [name for name in names if name in frame]
    if not present:
        raise InputError(f"{file} holds none of CheXpert's labels. Found: {', '.join(map(str, frame.columns))}.")
    return pd.concat([path_parts(frame[path], file)[FILM], frame[present]], axis=1)


def _read_json_lines(file: Path) -> pd.DataFrame:
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read as one JSON object a line: {error}") from error
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(
            f"{file} cannot be read as one JSON object a line: it holds {'something else' if rows else 'nothing'}."
        )
    frame = pd.DataFrame(rows, dtype=object)
    return frame.map(lambda cell: "" if pd.api.types.is_scalar(cell) and pd.isna(cell) else str(cell))
