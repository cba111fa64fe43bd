"""MIMIC-CXR-JPG 2.x, MIMIC-CXR (DICOM) and CXR Foundation's vectors of it, with MIMIC-IV beside: the official files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from biascxr.cohort.base import Layout, ParsedTable, Source, read_labels, require_columns
from biascxr.cohort.chexpert_labels import CHEXPERT_LABELS
from biascxr.cohort.mimic_iv import find_mimic_iv, read_mimic_iv
from biascxr.cohort.selection import FRONTAL_VIEWS, refuse_outside
from biascxr.cohort.tables import find_files, read_header, read_table
from biascxr.config import CohortConfig
from biascxr.containers import UNKNOWN
from biascxr.errors import InputError
from biascxr.run_folder import file_digest

CHECKSUMS = "SHA256SUMS.txt"
ENDINGS = (".jpg", ".dcm", ".tfrecord")
# What MIMIC-IV's tables give, for the sentence that says which one is missing.
GIVEN_BY = {"patients": "sex and age", "admissions": "race and insurance"}


class MimicCxr(Layout):
    """One row per image of the metadata, with labels per study, the split, and what MIMIC-IV recorded of the patient."""

    name: ClassVar[str] = "mimic_cxr"
    required: ClassVar[tuple[str, ...]] = (
        "dicom_id",
        "subject_id",
        "study_id",
        "PerformedProcedureStepDescription",
        "ViewPosition",
        "StudyDate",
        "StudyTime",
    )
    main_files: ClassVar[tuple[str, ...]] = ("mimic-cxr-*-metadata.csv", "mimic-cxr-*-metadata.csv.gz")
    other_files: ClassVar[tuple[str, ...]] = tuple(
        f"mimic-cxr-*-{what}.csv{packed}"
        for what in ("chexpert", "negbio", "split", "test-set-labeled")
        for packed in ("", ".gz")
    )
    label_names: ClassVar[tuple[str, ...]] = CHEXPERT_LABELS
    attributes: ClassVar[dict[str, bool]] = {
        "sex": True,
        "race": True,
        "age_group": False,
        "insurance": False,
        "portable": False,
    }
    card: ClassVar[str] = """\
Source: MIMIC-CXR-JPG 2.x (physionet.org/content/mimic-cxr-jpg), Beth Israel Deaconess Medical Center, Boston, 2011-2016;
  377,110 images of 227,835 studies. With MIMIC-IV (patients, admissions), optionally MIMIC-IV-ED (edstays).
Access: credentialed PhysioNet users who signed the data use agreement. Records, vectors and models made from the data are
  derived data: not to be shared outside the agreement, nor sent to a service that keeps them.
Columns: metadata (dicom_id, subject_id, study_id, PerformedProcedureStepDescription, ViewPosition, StudyDate, StudyTime);
  chexpert or negbio (one row per study, joined on subject_id and study_id); split (joined on dicom_id).
Labels: 14 findings; 1, 0, -1 (uncertain), blank (not mentioned); made from reports by software (CheXpert or NegBio), not by a
  person. No Finding is 1 or blank, never 0, so its blanks are 0 under every policy. Studies without labels are left out.
Reference labels: radiologists' labels of 687 test studies (mimic-cxr-2.1.0-test-set-labeled.csv, joined on study_id;
  Airspace Opacity is Lung Opacity; -1 and blank are not known).
Views: ViewPosition; AP and PA are frontal. AP is mostly portable, of patients too ill to stand, so view, finding and group are
  confounded. portable: the procedure description holds PORTABLE, else fixed; unknown where blank.
Sex: gender of MIMIC-IV's patients, M or F. Age at the study: anchor_age + (year of StudyDate - anchor_year). Ages over 89 are
  hidden in MIMIC-IV (an anchor_age of 91), so every age over 89 is 91 here: 91 stands for "over 89". Dates are shifted.
Race: race (version 2) or ethnicity (version 1) of admissions, sorted by the printed rules of biascxr/cohort/mimic_race.py, one
  value per patient by conflict_policy; emergency stays where no admission says any. Recorded in the hospital's
  administration; self-report and staff entry are not told apart. Declined, unobtainable and blank are unknown, not OTHER.
Insurance: of the admission nearest in time to the study; may change between studies.
Known biases: one hospital; patients of an emergency department; patients without an admission have no race unless MIMIC-IV-ED
  is given, and differ from the others; labels err more where reports are terse; few patients hold many images.
Citation: Johnson et al., MIMIC-CXR-JPG, arXiv:1901.07042, 2019; Johnson et al., MIMIC-IV, Scientific Data 2023; Goldberger et
  al., PhysioNet, Circulation 2000.
"""

    def locate(self, path: Path, config: CohortConfig) -> Path | None:
        """Returns the metadata; a file of its official name even where its header is not right, so that this is said."""
        found = super().locate(path, config)
        if found is None:
            named = find_files([path], self.main_files)
            found = named[0] if len(named) == 1 else None
        return found

    def matches(self, columns: list[str]) -> bool:
        """A table with a `path` of its own is the user's, not the official one."""
        columns = set(columns)
        return super().matches(columns) and "path" not in columns

    def files(self, source: Source) -> list[Path]:
        """Returns the metadata and whatever was found of labels, split, reference labels and MIMIC-IV."""
        beside = [_companion(source, what) for what in (source.config.labeler, "split", "test-set-labeled")]
        return [source.main, *(path for path in beside if path is not None), *find_mimic_iv(source).found()]

    def fingerprint(self, source: Source) -> dict:
        """Where the images lie, and of which kind, is looked up on disk, so it is part of what the cohort rests on."""
        root, folder, ending, _ = _find_images(source)
        return super().fingerprint(source) | {"images": f"{root}/{folder}", "ending": ending}

    def _parse(self, frame: pd.DataFrame, source: Source) -> ParsedTable:
        keys = ["subject_id", "study_id", "dicom_id"]
        frame[keys] = frame[keys].apply(lambda column: column.str.strip())
        labels, has_labels, notes = _read_study_labels(source, frame, self.label_names)
        excluded = {f"study without {source.config.labeler} labels": int((~has_labels).sum())} if not has_labels.all() else {}
        frame, labels = frame[has_labels].reset_index(drop=True), labels[has_labels].reset_index(drop=True)

        root, folder, ending, more = _find_images(source)
        patient, study, image = (frame[key] for key in keys)
        table = pd.DataFrame({"image_id": image, "study_id": study, "patient_id": patient})
        table["path"] = folder + "p" + patient.str[:2] + "/p" + patient + "/s" + study + "/" + image + ending
        table["view"] = frame["ViewPosition"].str.strip().str.upper()
        table["age"] = np.nan
        table["portable"] = _portable(frame["PerformedProcedureStepDescription"])
        not_said = patient[table["portable"] == UNKNOWN].nunique()
        unknown = {"portable": {"no procedure description": not_said}} if not_said else {}
        files = find_mimic_iv(source)
        recorded = read_mimic_iv(files, frame, source.config.conflict_policy)
        for name, column in recorded.columns.items():
            table[name] = column
        notes += [*more, *(_missing(name) for name in GIVEN_BY if getattr(files, name) is None), *recorded.notes]
        split = _companion(source, "split")
        if split is None:
            notes.append("No mimic-cxr-*-split.csv(.gz) beside the metadata: the official split is not there.")
        else:
            table["split"], more = _read_split(split, frame)
            notes += more
        if source.config.verify_checksums:
            refuse_outside(table["path"], root)
            notes.append(_verify_checksums(table, root, frontal_only=source.config.frontal_only))
        reference, more = _read_reference(_companion(source, "test-set-labeled"), study, self.label_names)
        return ParsedTable(
            table,
            labels,
            root,
            reference_labels=reference,
            conflicting=recorded.conflicting,
            unknown=recorded.unknown | unknown,
            excluded=excluded,
            notes=(*notes, *more),
        )


def _companion(source: Source, what: str) -> Path | None:
    return source.companion(f"MIMIC-CXR's {what} table", f"mimic-cxr-*-{what}.csv", f"mimic-cxr-*-{what}.csv.gz")


def _missing(name: str) -> str:
    return (
        f"MIMIC-IV's {name} was not found, so there is no {GIVEN_BY[name]}: give it with "
        f"--companions .../mimiciv/2.2/hosp/{name}.csv.gz (or the folder that holds it)."
    )


def _portable(description: pd.Series) -> pd.Series:
    text = description.str.strip().str.upper()
    is_portable = text.str.contains("PORTABLE", regex=False)
    return pd.Series(np.where(is_portable, "portable", np.where(text == "", UNKNOWN, "fixed")), index=text.index)


def _find_images(source: Source) -> tuple[Path, str, str, list[str]]:
    """Returns images_root, the folder in it that holds `p10` and so on (`"files/"` or `""`), the files' ending, and notes."""
    root = source.images_root or source.main.parent
    folder = "" if any(root.glob("p1?")) else "files/"  # the user may have named `files` itself
    if source.config.image_files != "auto":
        return root, folder, f".{source.config.image_files}", []
    seen = {file.suffix.lower() for file in islice(root.glob(f"{folder}p1?/p1*/s5*/*"), 50)}
    ending = next((ending for ending in ENDINGS if ending in seen), None)
    if ending is None:
        return root, folder, ENDINGS[0], [
            f"No image was found below {root / folder}: paths are written as .jpg. Name the folder that holds files/ with "
            "--images_root, or the kind of file with --image_files."
        ]  # fmt: skip
    return root, folder, ending, []


def _read_companion(path: Path, required: tuple[str, ...], keys: tuple[str, ...]) -> pd.DataFrame:
    """Reads a table with one row per key, keys without surrounding blanks."""
    header = read_header(path)
    if header:  # none: what is wrong with the file is said by reading it
        require_columns(pd.DataFrame(columns=header), required, "Layout 'mimic_cxr'", path)
    frame = read_table(path)
    for key in keys:
        frame[key] = frame[key].str.strip()
    n_again = int(frame.duplicated(list(keys)).sum())
    if n_again:
        raise InputError(f"{path}: {n_again:,} rows repeat a {' and '.join(keys)}; expected one row for each.")
    return frame


def _labels_of(path: Path, frame: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    try:
        return read_labels(frame, names)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _read_study_labels(
    source: Source, frame: pd.DataFrame, names: tuple[str, ...]
) -> tuple[pd.DataFrame, pd.Series, list[str]]:
    """Returns the labels of each image's study `[n, 14]`, which images have any `[n] bool`, and notes."""
    path = _companion(source, source.config.labeler)
    if path is None:
        raise InputError(
            f"No labels: mimic-cxr-2.0.0-{source.config.labeler}.csv.gz is not beside {source.main}. Give it with "
            "--companions, or choose the other software's labels with --labeler chexpert|negbio."
        )
    keys = ("subject_id", "study_id")
    studies = _read_companion(path, (*keys, *names), keys)
    labels = _labels_of(path, studies, list(names))
    row = pd.Index(studies["subject_id"] + "/" + studies["study_id"]).get_indexer(frame["subject_id"] + "/" + frame["study_id"])
    if (row < 0).all():
        raise InputError(f"{path}: none of its {len(studies):,} studies is in {source.main.name}; are they of one release?")
    n_without_image = len(studies) - len(np.unique(row[row >= 0]))
    notes = [f"{n_without_image:,} studies of {path.name} have no image in the metadata."] if n_without_image else []
    of_images = labels.reindex(row).set_axis(frame.index)  # row -1: NaN
    return of_images, pd.Series(row >= 0, index=frame.index), notes


def _read_split(path: Path, frame: pd.DataFrame) -> tuple[pd.Series, list[str]]:
    """Returns each image's part of the official split, `""` where it has none, and notes."""
    keys = ("dicom_id", "study_id", "subject_id")
    table = _read_companion(path, (*keys, "split"), ("dicom_id",)).set_index("dicom_id")
    row = table.index.get_indexer(frame["dicom_id"])
    found = row >= 0
    others = table["subject_id"].str.strip().to_numpy(object)[row[found]] != frame["subject_id"].to_numpy(object)[found]
    if others.any():
        raise InputError(f"{path}: {int(others.sum()):,} images belong to another subject_id than in the metadata.")
    values = np.append(table["split"].str.strip().str.lower().to_numpy(object), "")
    split = pd.Series(values[row], index=frame.index)
    n_none = int((split == "").sum())
    return split, [f"{n_none:,} images are in no part of the official split ({path.name})."] if n_none else []


def _read_reference(path: Path | None, study: pd.Series, names: tuple[str, ...]) -> tuple[pd.DataFrame | None, list[str]]:
    """Returns the radiologists' labels of each image's study, in {0, 1, NaN}, and a note on how many studies they cover."""
    if path is None:
        return None, []
    table = _read_companion(path, ("study_id",), ("study_id",))
    if "Lung Opacity" not in table:  # the radiologists' word for it
        table = table.rename(columns={"Airspace Opacity": "Lung Opacity"})
    found = [name for name in names if name in table]
    if not found:
        raise InputError(f"{path} has no column named as a finding. Found: {', '.join(table)}. Expected: {', '.join(names)}.")
    labels = _labels_of(path, table, found).replace(-1.0, np.nan).set_axis(table["study_id"])
    covered = study[study.isin(labels.index)].nunique()
    note = f"Radiologists' labels of {path.name} cover {covered:,} studies ({len(found)} findings)."
    return (labels.reindex(study).set_axis(study.index) if covered else None), [note]


def _verify_checksums(table: pd.DataFrame, root: Path, *, frontal_only: bool) -> str:
    """Compares the files of the rows to be used with the list of checksums in their folder or above, and says so.

    Raises:
        InputError: no list, or files that are not on it, are missing, or differ; the first of each are named.
    """
    path = next((folder / CHECKSUMS for folder in (root, *root.absolute().parents[:2]) if (folder / CHECKSUMS).is_file()), None)
    if path is None:
        raise InputError(f"--verify_checksums: no {CHECKSUMS} in {root} or the two folders above it.")
    lines = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8-sig").splitlines())
    expected = {parts[1].strip().removeprefix("*"): parts[0].lower() for parts in lines if len(parts) == 2}
    above = root.absolute().relative_to(path.parent.absolute()).as_posix()
    used = table["view"].isin((*FRONTAL_VIEWS, "")) | (not frontal_only)
    names = {p: p if above == "." else f"{above}/{p}" for p in table["path"][used].unique()}

    with ThreadPoolExecutor() as pool:
        digests = dict(
            zip(names, pool.map(lambda p: file_digest(root / p) if (root / p).is_file() else "", names), strict=True)
        )
    # CXR Foundation has vectors of frontal images only: an image of unknown view that is neither there nor on the list
    # is left to the records and embeddings stages, which name it as missing.
    blank = set(table["path"][table["view"] == ""])
    left = {p for p in names if p in blank and names[p] not in expected and not digests[p]}
    problems = {
        "not on the list": [p for p in names if names[p] not in expected and p not in left],
        "missing on disk": [p for p in names if names[p] in expected and not digests[p]],
        "different from the list": [p for p in names if digests[p] and expected.get(names[p], digests[p]) != digests[p]],
    }
    if any(problems.values()):
        said = "; ".join(f"{len(found):,} {what}" for what, found in problems.items() if found)
        raise InputError(
            f"--verify_checksums: of {len(names):,} files, against {path}: {said}. Download these again.",
            examples=[f"{what}: {name}" for what, found in problems.items() for name in found[:3]],
        )
    also = f"; {len(left):,} of unknown view are neither there nor on the list" if left else ""
    return f"{len(names) - len(left):,} files agree with {path.name}{also}."
