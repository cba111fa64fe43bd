"""From a table on disk to a `Cohort`: layout, labels, selection, age groups, attributes, split."""

from __future__ import annotations

import importlib
import logging
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from biascxr.age_groups import age_group_names, cut_ages
from biascxr.cohort.base import ATTRIBUTES, Layout
from biascxr.cohort.labels import apply_policies, choose_labels, drop_one_class_labels
from biascxr.cohort.selection import content_of, select_rows, settle_conflicts
from biascxr.cohort.split import split_cohort
from biascxr.config import SPLITS, CohortConfig
from biascxr.containers import UNKNOWN, Attribute, Cohort
from biascxr.errors import InputError

logger = logging.getLogger("biascxr")

LAYOUTS = {
    "nih": "biascxr.cohort.nih:Nih",
    "generic": "biascxr.cohort.generic:Generic",
}


def load_layout(name: str) -> Layout:
    """Returns the layout of that name."""
    module, member = LAYOUTS[name].split(":")
    return getattr(importlib.import_module(module), member)()


def read_table(csv_path: Path) -> pd.DataFrame:
    """Reads a CSV (plain or gzip) with every cell as text.

    Raises:
        InputError: the file is missing, empty, not a CSV, or has rows longer than its header.
    """
    try:
        frame = pd.read_csv(csv_path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"--csv_path {csv_path}: no such file.") from error
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise InputError(f"--csv_path {csv_path} cannot be read as a CSV table: {error}") from error
    if frame.empty:
        raise InputError(f"--csv_path {csv_path} has a header and no rows.")
    if not isinstance(frame.index, pd.RangeIndex):  # pandas then takes the first cells as row names and shifts the rest
        raise InputError(
            f"--csv_path {csv_path}: its rows have more cells than its header has names "
            f"({frame.index.nlevels + frame.shape[1]} against {frame.shape[1]}); give every column a name."
        )
    return frame


def find_layout(frame: pd.DataFrame, name: str = "auto") -> Layout:
    """Returns the named layout, or the one whose required columns the table has.

    Raises:
        InputError: no layout fits; what each one lacks is named, with the columns found.
    """
    if name != "auto":
        return load_layout(name)
    layouts = [load_layout(key) for key in LAYOUTS]
    for layout in layouts:
        if layout.matches(frame.columns):
            return layout
    lacks = "; ".join(f"{layout.name} lacks {', '.join(c for c in layout.required if c not in frame)}" for layout in layouts)
    raise InputError(f"The table's form was not recognised: {lacks}. Found: {', '.join(map(str, frame.columns))}.")


def build_cohort(csv_path: Path, images_root: Path | None, config: CohortConfig, *, seed: int) -> Cohort:
    """Reads a table into a `Cohort`.

    Args:
        csv_path: the table.
        images_root: folder that relative paths start from; default: the table's folder.
        config: selection, policies, age bins, split.
        seed: seed of the split.

    Raises:
        InputError: the table cannot be used; the message says why and what to do.
    """
    frame = read_table(csv_path)
    images_root = Path(images_root) if images_root else Path(csv_path).parent
    layout = find_layout(frame, config.layout)
    parsed = layout.parse(frame, images_root)
    notes = list(parsed.notes)

    labels = choose_labels(parsed.labels, config.labels)
    keep, excluded = select_rows(parsed.table, frontal_only=config.frontal_only)
    if not keep.any():
        raise InputError(f"No row is left after selection: {excluded}.")
    table = parsed.table[keep].reset_index(drop=True)
    y, label_counts = apply_policies(labels[keep], uncertain=config.uncertain_policy, blank=config.blank_policy)
    y, names, dropped = drop_one_class_labels(y, list(labels))
    notes += dropped

    if table["age"].notna().any():
        table["age_group"] = cut_ages(table["age"], config.age_bins)
    attributes, attribute_notes = _attributes(table, config.age_bins)
    notes += attribute_notes
    table["split"], split_notes = split_cohort(
        table, y, source=config.split_source, fractions=config.split_fractions, seed=seed
    )
    notes += split_notes + _split_class_notes(table, y, names)

    columns = ["image_id", "study_id", "patient_id", "path", "view", "split", "age"]
    accounting = {
        "rows_in_table": len(frame),
        "excluded": excluded,
        "rows_selected": len(table),
        "n_patients": int(table["patient_id"].nunique()),
        "uncertain_policy": config.uncertain_policy,
        "blank_policy": config.blank_policy,
        "labels": label_counts.to_dict("records"),
        "masked_by_group": _masked_by_group(table, y, attributes),
        "notes": notes,
        "card": layout.card,
    }
    cohort = Cohort(
        table=table[columns + [a.name for a in attributes]],
        labels=y,
        label_names=tuple(names),
        attributes=attributes,
        layout=layout.name,
        content=content_of(table["path"]),
        images_root=images_root,
        accounting=accounting,
    )
    _log(cohort)
    return cohort


def _attributes(table: pd.DataFrame, age_bins: tuple[float, ...]) -> tuple[tuple[Attribute, ...], list[str]]:
    """Finds the attributes that can be audited; settles constant ones in `table`."""
    attributes, notes = [], []
    for name, constant in ATTRIBUTES.items():
        if name not in table:
            notes.append(f"No {name.replace('_', ' ')} in this table: it is not audited.")
            continue
        if constant:
            table[name], note = settle_conflicts(table, name)
            notes += [note] if note else []
        known = table.loc[table[name] != UNKNOWN, name]
        patients = table.loc[known.index].groupby(name)["patient_id"].nunique()
        if len(patients) < 2:
            notes.append(f"{name}: fewer than two known groups ({', '.join(patients.index) or 'none'}); not audited.")
            continue
        order = age_group_names(age_bins) if name == "age_group" else patients.sort_values(ascending=False).index
        attributes.append(Attribute(name, tuple(g for g in order if g in patients.index), constant))
    return tuple(attributes), notes


def _split_class_notes(table: pd.DataFrame, labels: np.ndarray, names: list[str]) -> list[str]:
    notes = []
    for split in SPLITS:
        part = labels[(table["split"] == split).to_numpy()]
        lacking = [n for i, n in enumerate(names) if not ((part[:, i] == 1).any() and (part[:, i] == 0).any())]
        if lacking:
            consequence = "cannot be measured (NaN)" if split == "test" else "cannot be fitted"
            notes.append(f"One class only in {split}: {', '.join(lacking)}; what needs both classes there {consequence}.")
    return notes


def _masked_by_group(table: pd.DataFrame, labels: np.ndarray, attributes: tuple[Attribute, ...]) -> list[dict]:
    masked = pd.Series(np.isnan(labels).mean(axis=1))
    return [
        {"attribute": a.name, "group": group, "masked_share": float(masked[(table[a.name] == group).to_numpy()].mean())}
        for a in attributes
        for group in (*a.groups, UNKNOWN)
        if (table[a.name] == group).any()
    ]


def _log(cohort: Cohort) -> None:
    account = cohort.accounting
    left_out = "".join(f"; {n:,} left out: {reason}" for reason, n in account["excluded"].items())
    logger.info(
        "cohort: %s rows in the table (layout %s)%s; %s images of %s patients used",
        f"{account['rows_in_table']:,}",
        cohort.layout,
        left_out,
        f"{len(cohort):,}",
        f"{account['n_patients']:,}",
    )
    sizes = cohort.table["split"].value_counts()
    logger.info("cohort: images per split: %s", ", ".join(f"{s} {sizes[s]:,}" for s in SPLITS))
    for row in account["masked_by_group"]:
        if row["masked_share"] > 0:
            logger.info("cohort: %s %s: %.1f%% of labels masked", row["attribute"], row["group"], 100 * row["masked_share"])
    for note in account["notes"]:
        logger.info("cohort: %s", note)
