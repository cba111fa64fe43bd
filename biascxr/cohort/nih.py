"""NIH ChestX-ray14: the official `Data_Entry_2017*.csv`, as downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pandas as pd

from biascxr.age_groups import parse_ages
from biascxr.cohort.base import Layout, ParsedTable, Source, read_sex
from biascxr.cohort.tables import entries_of
from biascxr.errors import InputError

NO_FINDING = "No Finding"
SPLIT_LISTS = {"train": "train_val_list*.txt", "test": "test_list*.txt"}


class Nih(Layout):
    """One row per image; findings joined by `|`; sex and age, no race."""

    name: ClassVar[str] = "nih"
    required: ClassVar[tuple[str, ...]] = (
        "Image Index",
        "Finding Labels",
        "Patient ID",
        "Patient Age",
        "Patient Gender",
        "View Position",
    )
    main_files: ClassVar[tuple[str, ...]] = ("Data_Entry_2017*.csv", "Data_Entry_2017*.csv.gz", "Data_Entry*.csv")
    other_files: ClassVar[tuple[str, ...]] = tuple(SPLIT_LISTS.values())
    label_names: ClassVar[tuple[str, ...]] = (
        "Atelectasis",
        "Cardiomegaly",
        "Effusion",
        "Infiltration",
        "Mass",
        "Nodule",
        "Pneumonia",
        "Pneumothorax",
        "Consolidation",
        "Edema",
        "Emphysema",
        "Fibrosis",
        "Pleural_Thickening",
        "Hernia",
    )
    attributes: ClassVar[dict[str, bool]] = {"sex": True, "age_group": False}
    zero_where_blank: ClassVar[tuple[str, ...]] = ()
    card: ClassVar[str] = """\
Source: NIH Clinical Center, ChestX-ray14 (nihcc.app.box.com/v/ChestXray-NIHCC); 112,120 frontal images, 30,805 patients.
Access: no restriction on use; cite the paper and credit the NIH Clinical Center.
Columns: Image Index, Finding Labels (joined by |), Follow-up #, Patient ID, Patient Age, Patient Gender, View Position;
  two header cells hold a comma, so the header has 11 cells. train_val_list.txt and test_list.txt beside it give the
  official split.
Labels: 14 findings, each 0 or 1 (never blank or uncertain), text-mined from reports; error rates differ by finding.
Sex: M or F as recorded. Age: years; older files write 058Y and hold impossible ages. Race and insurance: not in the table.
Views: AP and PA. AP films are mostly of patients too ill to stand, so view and finding are confounded.
Known biases: a tenth of the patients hold half of the images; follow-up films of one patient are not independent.
Citation: Wang et al., ChestX-ray8, CVPR 2017.
"""

    def files(self, source: Source) -> list[Path]:
        """Returns the table and the lists of the official split, where both are there."""
        return [source.main, *_split_lists(source).values()]

    def fingerprint(self, source: Source) -> dict:
        """Unpacking an archive later changes where images are found, so its folder is part of what the cohort rests on."""
        root = _images_root(source)
        return super().fingerprint(source) | {"image_folders": sorted(p.name for p in root.glob("images*") if p.is_dir())}

    def _parse(self, frame: pd.DataFrame, source: Source) -> ParsedTable:
        names = frame["Image Index"].str.strip()
        root = _images_root(source)
        image_id = names.str.replace(r"\.(png|jpe?g)$", "", regex=True)
        table = pd.DataFrame(
            {
                "image_id": image_id,
                # A follow-up number is one visit, and in this data set one visit is one image.
                "study_id": image_id,
                "patient_id": frame["Patient ID"].str.strip(),
                "path": _find_images(names, root),
                "view": frame["View Position"].str.strip().str.upper(),
                "age": parse_ages(frame["Patient Age"]),
                "sex": read_sex(frame["Patient Gender"]),
            }
        )
        notes = []
        lists = _split_lists(source)
        if len(lists) == len(SPLIT_LISTS):
            table["split"], notes = _official_split(names, lists)
        elif lists:
            notes = [f"Of the lists of the official split only {next(iter(lists.values())).name} was found: it is not used."]
        return ParsedTable(table, self._labels(frame["Finding Labels"]), root, notes=tuple(notes))

    def _labels(self, findings: pd.Series) -> pd.DataFrame:
        """Reads texts such as `Edema|Hernia`; there are a few hundred different ones among 112,120."""
        codes, texts = pd.factorize(findings)
        sets = [{part.strip() for part in text.split("|")} for text in texts]
        unknown = sorted(set().union(*sets) - {*self.label_names, NO_FINDING})
        if unknown:
            raise InputError(
                f"Finding Labels holds {unknown[0]!r}, which is none of: {', '.join((*self.label_names, NO_FINDING))}."
            )
        of_text = pd.DataFrame({name: [float(name in s) for s in sets] for name in self.label_names})
        return of_text.iloc[codes].reset_index(drop=True)


def _images_root(source: Source) -> Path:
    return source.images_root or source.main.parent


def _split_lists(source: Source) -> dict[str, Path]:
    found = {split: source.companion(f"the {split} list", pattern) for split, pattern in SPLIT_LISTS.items()}
    return {split: path for split, path in found.items() if path is not None}


def _official_split(names: pd.Series, lists: dict[str, Path]) -> tuple[pd.Series, list[str]]:
    """Returns `"train"`, `"test"` or `""` per image, and a note on images that are in neither list."""
    members = {}
    for name, path in lists.items():
        try:
            members[name] = set(path.read_text(encoding="utf-8-sig").split())
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path} cannot be read as a list of images: {error}") from error
    n_both = len(members["train"] & members["test"])
    if n_both:
        raise InputError(
            f"{n_both:,} images are in both lists of the official split: {', '.join(p.name for p in lists.values())}."
        )
    split = pd.Series("", index=names.index)
    for name, images in members.items():
        split[names.isin(images)] = name
    n_neither = int((split == "").sum())
    return split, [f"{n_neither:,} images are in neither list of the official split."] if n_neither else []


def _find_images(names: pd.Series, root: Path) -> pd.Series:
    """Finds the images where the official archives unpack to: `root` itself, or `images_001/images` and so on."""
    here = {file.name for file in entries_of(root)}
    away = ~names.isin(here)
    if not away.any():
        return names
    files = (file for ending in ("png", "jpg") for file in root.glob(f"images*/**/*.{ending}"))
    places = {file.name: file.relative_to(root).as_posix() for file in files}
    return names.mask(away, names.map(lambda name: places.get(name, name)))
