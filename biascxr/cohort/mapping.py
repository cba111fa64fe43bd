"""A small YAML file that says which column of any table is what: read, checked, and put to the table.

PadChest (`PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz`), for example:

    image_id: ImageID
    patient_id: PatientID
    study_id: StudyID
    path: "{ImageDir}/{ImageID}"
    view: {column: Projection, values: {PA: PA, AP: AP, AP_horizontal: AP}, other: not frontal}
    sex: PatientSex_DICOM
    age: {birth_year: PatientBirth, study_date: StudyDate_DICOM}
    attributes: {modality: {column: Modality_DICOM, constant: false}}
    labels: {column: Labels, names: {No Finding: normal, Cardiomegaly: cardiomegaly, Effusion: pleural effusion}}

A text is a column's name, or a template of names in braces. `{column, values, other}` translates what is recorded: a text
that `values` does not list is an error, unless `other` says what it becomes. Labels are a column each (1, 0, -1, blank, or
translated to these), or one column that lists them: with `separator`, or as a list in Python's or JSON's writing.
"""

from __future__ import annotations

import ast
import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from biascxr.cohort.base import read_labels
from biascxr.errors import InputError, unknown_name

REQUIRED = ("image_id", "patient_id", "path", "labels")
KEYS = (*REQUIRED, "study_id", "view", "sex", "age", "attributes", "split")
OWN_COLUMNS = ("image_id", "study_id", "patient_id", "path", "view", "split", "age", "sex", "age_group")
YEAR_OF_DATE = r"^(\d{4})(?:(?:\D?\d\d\D?\d\d(?!\d).*)|\.0)?$"  # 20140915, 2014-09-15 10:30, 2014, 2014.0


@dataclass(frozen=True)
class Cells:
    """Where a text per row comes from.

    Attributes:
        key: where in the mapping it stands, for messages.
        text: a column's name, or a template such as `"{ImageDir}/{ImageID}"`.
        values: what recorded texts become; None leaves them as they are.
        other: what texts that `values` does not list become; None makes them an error. A blank stays blank.
    """

    key: str
    text: str
    values: dict[str, str] | None = None
    other: str | None = None

    def columns(self) -> list[str]:
        """Returns the columns that are read."""
        return re.findall(r"\{([^{}]+)\}", self.text) or [self.text]

    def read(self, frame: pd.DataFrame) -> pd.Series:
        """Returns the texts, `[n] str`; blank where any column of a template is.

        Raises:
            InputError: a recorded text is not listed in `values`, and there is no `other`.
        """
        columns = self.columns()
        parts = {name: frame[name].str.strip() for name in columns}
        text = parts[self.text] if self.text in parts else self._filled(parts)
        if self.values is None:
            return text
        is_foreign = ~text.isin(["", *self.values])
        if is_foreign.any() and self.other is None:
            raise unknown_name(f"value of {self.text} (--mapping, {self.key}.values)", text[is_foreign].iloc[0], self.values)
        return text.map({"": "", **self.values}).mask(is_foreign, self.other)

    def _filled(self, parts: dict[str, pd.Series]) -> pd.Series:
        pieces = re.split(r"\{([^{}]+)\}", self.text)  # literal, column, literal, column, ..., literal
        filled = pd.Series(pieces[0], index=next(iter(parts.values())).index, dtype=object)
        for name, literal in zip(pieces[1::2], pieces[2::2], strict=True):
            filled = filled + parts[name].astype(object) + literal
        is_blank = np.any([part == "" for part in parts.values()], axis=0)
        return filled.mask(is_blank, "")


@dataclass(frozen=True)
class BirthYear:
    """Age as the study's year less the year of birth; it may be one year too high."""

    birth_year: str
    study_date: str

    def columns(self) -> list[str]:
        """Returns the columns that are read."""
        return [self.birth_year, self.study_date]

    def read(self, frame: pd.DataFrame) -> pd.Series:
        """Returns ages in years, `[n] float64`, NaN where either is blank."""
        return _year(frame[self.study_date]) - _year(frame[self.birth_year])


@dataclass(frozen=True)
class LabelColumns:
    """A column per finding."""

    cells: dict[str, Cells]

    def columns(self) -> list[str]:
        """Returns the columns that are read."""
        return [name for cells in self.cells.values() for name in cells.columns()]

    def read(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Returns `[n, L]` in {1, 0, -1, NaN}."""
        texts = pd.DataFrame({name: cells.read(frame) for name, cells in self.cells.items()}, index=frame.index)
        return read_labels(texts, texts.columns)


@dataclass(frozen=True)
class LabelList:
    """One column that lists the findings of an image; a blank cell says nothing of any of them.

    Attributes:
        column: the column.
        names: what each finding is called in the lists; any of several names will do.
        separator: what stands between entries; None reads lists in Python's or JSON's writing.
    """

    column: str
    names: dict[str, tuple[str, ...]]
    separator: str | None = None

    def columns(self) -> list[str]:
        """Returns the columns that are read."""
        return [self.column]

    def read(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Returns `[n, L]` in {1, 0, NaN}.

        Raises:
            InputError: a cell is no list, or a name is in none of them.
        """
        codes, texts = pd.factorize(frame[self.column])
        entries = [self._entries(text) for text in texts]
        listed = set().union(*(e for e in entries if e is not None))
        for name in (n for names in self.names.values() for n in names if n not in listed):
            nearest = difflib.get_close_matches(name, sorted(listed), n=1)
            raise InputError(
                f"--mapping, labels.names: {name!r} is listed in no cell of {self.column}."
                f"{f' Did you mean {nearest[0]!r}?' if nearest else ''} Mend the name or leave it out."
            )
        of_text = {
            finding: [np.nan if e is None else float(not e.isdisjoint(names)) for e in entries]
            for finding, names in self.names.items()
        }
        return pd.DataFrame(of_text).iloc[codes].set_index(frame.index)

    def _entries(self, text: str) -> set[str] | None:
        text = text.strip()
        if text == "":
            return None
        if self.separator is not None:
            return {entry.strip() for entry in text.split(self.separator)}
        try:
            entries = ast.literal_eval(text) if text.startswith("[") else None
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            entries = None
        if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
            raise InputError(
                f"Column {self.column} holds {text[:60]!r}; expected a list such as \"['edema', 'normal']\". "
                "Where a character divides the entries, say which in the mapping: labels.separator."
            )
        return {entry.strip() for entry in entries}


@dataclass(frozen=True)
class TableMapping:
    """Which column is what; `attributes` has what patients can be grouped by beside sex and age, `constant` which of
    these are constant for a patient."""

    name: str
    cells: dict[str, Cells]
    labels: LabelColumns | LabelList
    age: Cells | BirthYear | None = None
    attributes: dict[str, Cells] = field(default_factory=dict)
    constant: dict[str, bool] = field(default_factory=dict)

    def check_columns(self, frame: pd.DataFrame) -> None:
        """Raises InputError for a column that the table has not; the nearest one is named."""
        parts = {
            **self.cells,
            "age": self.age,
            **{f"attributes.{n}": c for n, c in self.attributes.items()},
            "labels": self.labels,
        }
        for key, part in parts.items():
            for column in part.columns() if part is not None else ():
                if column not in frame:
                    raise unknown_name(f"column (--mapping {self.name}, {key})", column, map(str, frame.columns))

    def sentence(self) -> str:
        """Returns what is read from where, for the notes."""
        said = [f"{key} from {cells.text}" for key, cells in {**self.cells, **self.attributes}.items()]
        if self.age is not None:
            said.append(f"age from {' and '.join(self.age.columns())}")
        said.append(f"labels from {', '.join(dict.fromkeys(self.labels.columns()))}")
        return f"Columns were read as the mapping {self.name} says: {'; '.join(said)}."


class _TextLoader(yaml.BaseLoader):
    """Every scalar stays text (else Yes, No and 0123 would change on the way), and no key may stand twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise yaml.YAMLError(f"the key {twice[0]!r} stands twice")
        return super().construct_mapping(node, deep=deep)


def read_mapping(path: Path, usual: dict[str, bool] | None = None) -> TableMapping:
    """Reads a mapping.

    Args:
        path: the YAML file.
        usual: attributes whose constancy is known where the mapping does not say it; others are then not constant.

    Raises:
        InputError: the file cannot be read, a key is unknown (the nearest one is named), or a value has another form.
    """
    try:
        tree = yaml.load(Path(path).read_text(encoding="utf-8-sig"), Loader=_TextLoader)
    except OSError as error:
        raise InputError(f"--mapping {path}: {error.strerror or error}.") from error
    except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:  # TypeError: a mapping as a key
        raise InputError(f"--mapping {path} is not valid YAML: {error}") from error
    tree = _mapping(tree, "the file", KEYS)
    missing = [key for key in REQUIRED if key not in tree]
    if missing:
        raise InputError(f"--mapping {path} lacks {', '.join(missing)}; needed are {', '.join(REQUIRED)}.")
    plain = ("image_id", "study_id", "patient_id", "path", "view", "sex", "split")
    attributes = _mapping(tree.get("attributes", {}), "attributes")
    for name in attributes:
        if name in OWN_COLUMNS or "/" in name:
            raise InputError(f"--mapping, attributes.{name}: this name is taken, or holds a '/'; choose another.")
    usual = usual or {}
    return TableMapping(
        name=Path(path).name,
        cells={key: _cells(tree[key], key) for key in plain if key in tree},
        labels=_labels(tree["labels"]),
        age=_age(tree["age"]) if "age" in tree else None,
        attributes={name: _cells(value, f"attributes.{name}", "constant") for name, value in attributes.items()},
        constant={name: _is_constant(value, name, usual.get(name, False)) for name, value in attributes.items()},
    )


def _mapping(value: object, key: str, known: tuple[str, ...] | None = None) -> dict:
    if not isinstance(value, dict):
        raise InputError(f"--mapping: {key} must hold `name: value` lines; got {value!r}.")
    for name in value:
        if known is not None and name not in known:
            raise unknown_name(f"key of {key} (--mapping)", str(name), known)
    return value


def _text(value: object, key: str) -> str:
    if not isinstance(value, str) or not value:
        raise InputError(f"--mapping: {key} must be a text; got {value!r}.")
    return value


def _cells(value: object, key: str, *more_keys: str) -> Cells:
    if isinstance(value, str):
        return Cells(key, _text(value, key))
    tree = _mapping(value, key, ("column", "values", "other", *more_keys))
    if "other" in tree and "values" not in tree:
        raise InputError(f"--mapping: {key}.other says what the rest becomes, so it needs {key}.values.")
    values = _mapping(tree["values"], f"{key}.values") if "values" in tree else None
    for recorded, becomes in (values or {}).items():
        if not isinstance(becomes, str):
            raise InputError(f"--mapping: {key}.values.{recorded} must be a text; got {becomes!r}.")
    return Cells(key, _text(tree.get("column"), f"{key}.column"), values, tree.get("other"))


def _is_constant(value: object, name: str, usual: bool) -> bool:
    said = value.get("constant") if isinstance(value, dict) else None
    if said not in (None, "true", "false"):
        raise InputError(f"--mapping: attributes.{name}.constant must be true or false; got {said!r}.")
    return usual if said is None else said == "true"


def _age(value: object) -> Cells | BirthYear:
    if isinstance(value, dict) and "column" not in value:
        tree = _mapping(value, "age", ("birth_year", "study_date", "column"))
        return BirthYear(*(_text(tree.get(key), f"age.{key}") for key in ("birth_year", "study_date")))
    return _cells(value, "age")


def _labels(value: object) -> LabelColumns | LabelList:
    tree = _mapping(value, "labels")
    if not tree:
        raise InputError("--mapping: labels must name at least one finding.")
    if "names" not in tree:
        return LabelColumns({name: _cells(cells, f"labels.{name}") for name, cells in tree.items()})
    _mapping(tree, "labels", ("column", "separator", "names"))
    names = {name: name for name in tree["names"]} if isinstance(tree["names"], list) else tree["names"]
    if not names:
        raise InputError("--mapping: labels.names must name at least one finding.")
    listed = {name: tuple(n) if isinstance(n, list) else (n,) for name, n in _mapping(names, "labels.names").items()}
    for name, texts in listed.items():
        for text in texts:
            _text(text, f"labels.names.{name}")
    separator = _text(tree["separator"], "labels.separator") if "separator" in tree else None
    return LabelList(_text(tree.get("column"), "labels.column"), listed, separator)


def _year(column: pd.Series) -> pd.Series:
    text = column.str.strip()
    year = text.str.extract(YEAR_OF_DATE)[0]
    wrong = (text != "") & year.isna()
    if wrong.any():
        raise InputError(
            f"Column {column.name} holds {text[wrong].iloc[0]!r} ({int(wrong.sum()):,} such cells); expected a year or a date "
            "that begins with it (1950, 20140915, 2014-09-15)."
        )
    return year.astype(np.float64)
