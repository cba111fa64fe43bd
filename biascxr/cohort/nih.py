"""NIH ChestX-ray14: the official `Data_Entry_2017*.csv`, as downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pandas as pd

from biascxr.age_groups import read_ages
from biascxr.cohort.base import Layout, ParsedTable, read_sex
from biascxr.errors import InputError

NO_FINDING = "No Finding"


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
    card: ClassVar[str] = """\
Source: NIH Clinical Center, ChestX-ray14 (nihcc.app.box.com/v/ChestXray-NIHCC); 112,120 frontal images, 30,805 patients.
Access: no restriction on use; cite the paper and credit the NIH Clinical Center.
Columns: Image Index, Finding Labels (joined by |), Follow-up #, Patient ID, Patient Age, Patient Gender, View Position;
  two header cells hold a comma, so the header has 11 cells.
Labels: 14 findings, each 0 or 1 (never blank or uncertain), text-mined from reports; error rates differ by finding.
Sex: M or F as recorded. Age: years; older files write 058Y and hold impossible ages. Race and insurance: not in the table.
Views: AP and PA. AP films are mostly of patients too ill to stand, so view and finding are confounded.
Known biases: a tenth of the patients hold half of the images; follow-up films of one patient are not independent.
Citation: Wang et al., ChestX-ray8, CVPR 2017.
"""

    def _parse(self, frame: pd.DataFrame, images_root: Path) -> ParsedTable:
        names = frame["Image Index"].str.strip()
        ages, notes = read_ages(frame["Patient Age"])
        table = pd.DataFrame(
            {
                "image_id": names.str.replace(r"\.(png|jpe?g)$", "", regex=True),
                # A follow-up number is one visit, and in this data set one visit is one image.
                "study_id": names.str.replace(r"\.(png|jpe?g)$", "", regex=True),
                "patient_id": frame["Patient ID"].str.strip(),
                "path": _locate(names, images_root),
                "view": frame["View Position"].str.strip().str.upper(),
                "age": ages,
                "sex": read_sex(frame["Patient Gender"]),
            }
        )
        findings = frame["Finding Labels"].str.split("|")
        unknown = sorted({f.strip() for row in findings for f in row} - {*self.label_names, NO_FINDING})
        if unknown:
            raise InputError(
                f"Finding Labels holds {unknown[0]!r}, which is none of: {', '.join((*self.label_names, NO_FINDING))}."
            )
        sets = [{f.strip() for f in row} for row in findings]
        labels = pd.DataFrame({name: [float(name in s) for s in sets] for name in self.label_names})
        return ParsedTable(table, labels, tuple(notes))


def _locate(names: pd.Series, images_root: Path) -> pd.Series:
    """Finds the images where the official archives unpack to: `images_root` itself, or `images_001/images` and so on."""
    if names.empty or (images_root / names.iloc[0]).is_file():
        return names
    files = (file for ending in ("png", "jpg") for file in images_root.glob(f"images*/**/*.{ending}"))
    places = {file.name: file.relative_to(images_root).as_posix() for file in files}
    return names.map(lambda name: places.get(name, name))
