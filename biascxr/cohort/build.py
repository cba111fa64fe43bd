"""From a data set on disk to a `Cohort`: layout, labels, selection, age groups, attributes, split, contract."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from biascxr.age_groups import age_group_names, cut_ages, impossible_ages, impossible_note
from biascxr.cohort.against_rest import set_against_rest
from biascxr.cohort.base import Layout, ParsedTable, Source, require_columns
from biascxr.cohort.conflicts import settle_records
from biascxr.cohort.contract import (
    FILE_RULES,
    RULES,
    Evidence,
    Finding,
    check_contract,
    findings_to_records,
    rules_about,
    settle_findings,
)
from biascxr.cohort.labels import apply_policies, both_classes, choose_labels
from biascxr.cohort.reference import read_reference_labels
from biascxr.cohort.selection import content_of, refuse_outside, select_rows
from biascxr.cohort.split import chosen_source, split_cohort
from biascxr.cohort.tables import find_files, read_table
from biascxr.config import SPLITS, CohortConfig
from biascxr.containers import UNKNOWN, Attribute, Cohort
from biascxr.errors import InputError, unknown_name

logger = logging.getLogger("biascxr")

# In the order in which they are tried: a table of many columns before a form that asks for few.
LAYOUTS = {
    "mimic_cxr": "biascxr.cohort.mimic_cxr:MimicCxr",
    "chexpert": "biascxr.cohort.chexpert:Chexpert",
    "nih": "biascxr.cohort.nih:Nih",
    "midrc": "biascxr.cohort.midrc:Midrc",
    "generic": "biascxr.cohort.generic:Generic",
}

USUAL_ATTRIBUTES = ("sex", "race", "age_group", "insurance")  # where one is absent, the report says so


def load_layout(name: str) -> Layout:
    """Returns the layout of that name."""
    if name not in LAYOUTS:
        raise unknown_name("layout", name, LAYOUTS)
    module, member = LAYOUTS[name].split(":")
    return getattr(importlib.import_module(module), member)()


def find_layout(path: Path, images_root: Path | None, config: CohortConfig) -> tuple[Layout, Source]:
    """Finds which data set lies at a path.

    Args:
        path: a table, or a folder with the official files.
        images_root: folder of the images that the user named, or None.
        config: `layout` names one or is `"auto"`.

    Raises:
        InputError: nothing there, or no layout fits; what each one looks for is named, with the columns found.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"--csv_path {path}: no such file or folder.")
    for companion in config.companions:
        if not companion.exists():
            raise InputError(f"--companions {companion}: no such file or folder.")
    if config.mapping and config.layout not in ("auto", "generic"):
        raise InputError(f"--mapping says how any other table is read; it does not go with --layout {config.layout}.")
    names = [config.layout] if config.layout != "auto" else ["generic"] if config.mapping else list(LAYOUTS)
    for name in names:
        layout = load_layout(name)
        main = layout.locate(path, config)
        if main is None and len(names) == 1 and path.is_file():
            main = path  # its own reading then names the columns that are missing
        if main is not None:
            return layout, Source(main, Path(images_root) if images_root else None, config)
    raise InputError(_not_recognised(path, [load_layout(name) for name in names]))


def _not_recognised(path: Path, layouts: list[Layout]) -> str:
    if path.is_dir():
        for layout in layouts:
            for candidate in find_files([path], layout.main_files):
                frame = read_table(candidate)  # a file of the right name that is no table says so here
                require_columns(frame, layout.required, f"Layout {layout.name!r}", candidate)
        wanted = "; ".join(f"{layout.name}: {' or '.join(layout.main_files)}" for layout in layouts if layout.main_files)
        return f"No data set was recognised in the folder {path}. Looked for {wanted}. Give the table itself with --csv_path."
    found = read_table(path).columns  # a file that is no table says so here
    lacks = "; ".join(f"{layout.name} lacks {', '.join(c for c in layout.required if c not in found)}" for layout in layouts)
    return (
        f"The table's form was not recognised: {lacks}. Found: {', '.join(found)}. Any other table can be read with "
        "--mapping FILE.yaml, which says which column is what."
    )


def build_cohort(
    csv_path: Path,
    images_root: Path | None,
    config: CohortConfig,
    *,
    seed: int,
    min_patients: int = 25,
    look_at_files: bool = False,
    settle: Callable[[list[Finding]], list[Finding]] = settle_findings,
) -> Cohort:
    """Reads a data set into a `Cohort`.

    Args:
        csv_path: a table, or a folder with a data set's official files.
        images_root: folder that relative paths start from; default: the data set's own.
        config: layout, selection, policies, age bins, split.
        seed: seed of the split.
        min_patients: groups below it are named as small.
        look_at_files: whether the contract looks for missing files and, byte for byte, for copies.
        settle: what is done with findings of the contract; default: warnings are logged, an error stops.

    Raises:
        InputError: the data set cannot be used; the message says why and what to do.
        ContractError: it breaks a rule of the contract.
    """
    layout, source = find_layout(csv_path, images_root, config)
    parsed = layout.parse(source)
    parsed = replace(parsed, labels=parsed.labels.fillna(dict.fromkeys(layout.zero_where_blank, 0.0)))
    parsed, notes = _settled(parsed, layout, config)
    split_from, split_notes = chosen_source(parsed.table, config.split_source)
    evidence = Evidence(parsed=parsed, split_is_used=split_from == "table", min_patients=min_patients)
    # Before anything is built on it: what is wrong is then all said at once.
    of_table = settle(check_contract(evidence, allow=config.allow))

    keep, excluded = _select(parsed, config, split_from)
    table = parsed.table[keep].reset_index(drop=True)
    refuse_outside(table["path"], parsed.images_root)
    impossible = impossible_ages(table["age"])
    table["age"] = table["age"].mask(impossible)
    if table["age"].notna().any():
        table["age_group"] = cut_ages(table["age"], config.age_bins)
    notes += impossible_note(impossible)
    table, regrouped = set_against_rest(table, config.against_rest, list(layout.attributes))
    notes += regrouped

    recorded = choose_labels(parsed.labels, config.labels)[keep]
    y, label_counts = apply_policies(recorded, uncertain=config.uncertain_policy, blank=config.blank_policy)
    has_both, dropped = both_classes(y, list(recorded))
    y, names = y[:, has_both], [n for n, both in zip(recorded, has_both, strict=True) if both]
    attributes, attribute_notes = _attributes(table, layout.attributes, config.age_bins)
    table["split"], more = split_cohort(
        table, y, source=split_from, attributes=tuple(a.name for a in attributes), fractions=config.split_fractions, seed=seed
    )
    notes += dropped + attribute_notes + split_notes + more

    columns = ["image_id", "study_id", "patient_id", "path", "view", "split", "age"]
    accounting = {
        "rows_in_table": len(parsed.table) + sum(parsed.excluded.values()),
        "excluded": excluded,
        "rows_selected": len(table),
        "n_patients": int(table["patient_id"].nunique()),
        "uncertain_policy": config.uncertain_policy,
        "blank_policy": config.blank_policy,
        "labels": label_counts.to_dict("records"),
        "masked_by_group": _masked_by_group(table, y, attributes),
        "unknown": parsed.unknown,
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
        images_root=parsed.images_root,
        accounting=accounting,
        recorded=recorded[names].to_numpy(np.float32),
        reference_labels=_reference(parsed, config, table, keep, names, notes),
    )
    _log(cohort)
    evidence = Evidence(cohort=cohort, min_patients=min_patients, look_at_files=look_at_files)
    rules = [name for name in RULES if look_at_files or name not in FILE_RULES]
    of_cohort = settle(check_contract(evidence, allow=config.allow, rules=rules))
    accounting["findings"] = findings_to_records([*of_table, *of_cohort])
    return cohort


def recount(cohort: Cohort, config: CohortConfig, *, min_patients: int) -> Cohort:
    """Counts a cohort's labels and asks the contract anew, after its rows or labels were changed on purpose."""
    recorded = pd.DataFrame(cohort.recorded, columns=list(cohort.label_names))
    _, counts = apply_policies(recorded, uncertain=config.uncertain_policy, blank=config.blank_policy)
    findings = settle_findings(
        check_contract(
            Evidence(cohort=cohort, min_patients=min_patients),
            allow=config.allow,
            rules=[name for name in rules_about("cohort") if name not in FILE_RULES],
        )
    )
    of_table = [f for f in cohort.accounting["findings"] if f["rule"] not in rules_about("cohort")]
    changed = {
        "labels": counts.to_dict("records"),
        "masked_by_group": _masked_by_group(cohort.table, cohort.labels, cohort.attributes),
        "findings": [*of_table, *findings_to_records(findings)],
    }
    return replace(cohort, accounting=cohort.accounting | changed)


def _settled(parsed: ParsedTable, layout: Layout, config: CohortConfig) -> tuple[ParsedTable, list[str]]:
    """Makes constant attributes constant, row by row, where the layout has not done so from the records it joins."""
    table, notes, conflicting = parsed.table.copy(), list(parsed.notes), dict(parsed.conflicting)
    for name in (n for n, constant in layout.attributes.items() if constant and n in table):
        settled = settle_records(table["patient_id"], table[name], config.conflict_policy)
        table[name] = settled.of(table["patient_id"])
        patients = settled.conflicting | conflicting.get(name, frozenset())
        if patients:
            conflicting[name] = patients
            became = {
                "unknown": "treated as unknown",
                "majority": "their most frequent value was taken (a tie is unknown)",
                "first": "their first value was taken",
                "drop": "left out",
            }[config.conflict_policy]
            notes.append(f"{len(patients):,} patients are recorded with more than one {name}: {became}.")
    return replace(parsed, table=table, conflicting=conflicting), notes


def _select(parsed: ParsedTable, config: CohortConfig, split_from: str) -> tuple[np.ndarray, dict[str, int]]:
    left_out = {}
    if config.conflict_policy == "drop":
        left_out = {f"patient recorded with more than one {name}": p for name, p in parsed.conflicting.items()}
    keep, excluded = select_rows(
        parsed.table, frontal_only=config.frontal_only, needs_split=split_from == "table", left_out=left_out
    )
    excluded = {**parsed.excluded, **excluded}
    if not keep.any():
        raise InputError(f"No row is left after selection: {excluded}.")
    return keep, excluded


def _reference(
    parsed: ParsedTable, config: CohortConfig, table: pd.DataFrame, keep: np.ndarray, names: list[str], notes: list[str]
) -> np.ndarray | None:
    """Returns reference labels `[n, L]` of the user's own table, else of the data set's, NaN where there are none."""
    if config.reference_labels is not None:
        found = read_reference_labels(config.reference_labels, table, names)
        n_rows = int(found.notna().any(axis=1).sum())
        notes.append(
            f"Reference labels of {config.reference_labels.name}: {found.shape[1]} of {len(names)} findings, on {n_rows:,} of "
            f"{len(table):,} images."
        )
    elif parsed.reference_labels is not None:
        found = parsed.reference_labels[keep].reset_index(drop=True)
    else:
        return None
    values = found.reindex(columns=names).to_numpy(np.float32)
    return None if np.isnan(values).all() else values


def _attributes(
    table: pd.DataFrame, declared: dict[str, bool], age_bins: tuple[float, ...]
) -> tuple[tuple[Attribute, ...], list[str]]:
    """Finds the attributes that can be audited: those with at least two known groups."""
    attributes, notes = [], []
    absent = [n for n in dict.fromkeys((*USUAL_ATTRIBUTES, *declared)) if n not in table]
    notes += [f"No {name.replace('_', ' ')} in this table: it is not audited." for name in absent]
    for name, constant in declared.items():
        if name in absent:
            continue
        known = table.loc[table[name] != UNKNOWN, name]
        patients = table.loc[known.index].groupby(name)["patient_id"].nunique()
        if len(patients) < 2:
            notes.append(f"{name}: fewer than two known groups ({', '.join(patients.index) or 'none'}); not audited.")
            continue
        order = list(patients.sort_values(ascending=False).index)
        if name == "age_group":
            by_age = age_group_names(age_bins)
            order = [*by_age, *(g for g in order if g not in by_age)]
        attributes.append(Attribute(name, tuple(g for g in order if g in patients.index), constant))
    return tuple(attributes), notes


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
