"""Which rows and findings of the other cohort are evaluated, and what of it the run's recipes know."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from biascxr.apply.home import Home
from biascxr.cohort.contract import Evidence, check_contract, findings_to_records, rules_about, settle_findings
from biascxr.config import SPLITS
from biascxr.containers import UNKNOWN, Attribute, Cohort
from biascxr.errors import InputError
from biascxr.mitigation.cells import chosen_attributes

logger = logging.getLogger("biascxr")

*_, TEST = SPLITS
LEARNED_FROM = "patient that the run learned from"
# Notes of the cohort stage about a split that nothing here looks at.
ABOUT_THE_SPLIT = ("Splits were drawn", "The table's own split")
FEW = 10


@dataclass(frozen=True)
class Evaluated:
    """What is evaluated, and what is left out.

    Attributes:
        are_same_patients: whether patient numbers are those of the run.
        n_images_in_both: images of the table that are the run's own.
        n_patient_ids_in_both: patient numbers that both have, whoever they are.
        n_images_left_out: images of patients that the run learned from.
        n_patients_left_out: those patients.
        n_test_patients_in_both: evaluated patients who are also among the run's test patients.
        labels: the findings of both, in the run's order and words.
        labels_of_run: findings that only the run has.
        labels_of_table: findings that only the table has.
        labels_of_one_class: findings of the run that the table records, but positive or negative only.
    """

    are_same_patients: bool
    n_images_in_both: int
    n_patient_ids_in_both: int
    n_images_left_out: int
    n_patients_left_out: int
    n_test_patients_in_both: int
    labels: tuple[str, ...]
    labels_of_run: tuple[str, ...]
    labels_of_table: tuple[str, ...]
    labels_of_one_class: tuple[str, ...]

    def to_dict(self) -> dict:
        """Returns plain types for JSON."""
        return asdict(self)


def choose_rows(whole: Cohort, home: Home, same_patients: str, *, min_patients: int) -> tuple[Cohort, Evaluated]:
    """Leaves out whom the run learned from and the findings that it does not know; all that is left is test.

    Args:
        whole: the other cohort, as the cohort stage made it; its split is not looked at.
        home: the run.
        same_patients: `"yes"`, `"no"` or `"auto"`: yes where an image of the table is one of the run's.
        min_patients: groups below it are named as small.

    Returns:
        The cohort to evaluate, its findings in the run's order and words, and what was done.

    Raises:
        InputError: no finding in common, or no patient is left.
    """
    pairs = shared_labels(home.cohort.label_names, whole.label_names)
    if not pairs:
        raise InputError(
            f"No finding is in both. The run {home.folder} knows: {', '.join(home.cohort.label_names)}. The table has: "
            f"{', '.join(whole.label_names)}. Findings are matched by name; --mapping FILE.yaml says what "
            "a table's columns are called here."
        )
    own, table = home.cohort.table, whole.table
    n_images = int(table["image_id"].isin(own["image_id"]).sum())
    are_same = {"yes": True, "no": False}.get(same_patients, n_images > 0)
    is_known = table["patient_id"].isin(own["patient_id"])
    learned = own.loc[own["split"] != TEST, "patient_id"]
    out = table["patient_id"].isin(learned).to_numpy() if are_same else np.zeros(len(table), bool)
    if out.all():
        raise InputError(
            f"Nothing is left to evaluate: the run {home.folder} learned from every patient of the table (train, validation or "
            "calibration). Use other patients; --same_patients no says that equal numbers are other people."
        )
    kept = whole.rows(table["image_id"].to_numpy(object)[~out])
    columns = [j for _, j in pairs]
    names = tuple(home.cohort.label_names[i] for i, _ in pairs)
    known = {_plain(row["label"]) for row in whole.accounting["labels"]}
    only_run = [n for i, n in enumerate(home.cohort.label_names) if i not in {i for i, _ in pairs}]
    facts = Evaluated(
        are_same_patients=are_same,
        n_images_in_both=n_images,
        n_patient_ids_in_both=int(table.loc[is_known, "patient_id"].nunique()),
        n_images_left_out=int(out.sum()),
        n_patients_left_out=int(table.loc[out, "patient_id"].nunique()),
        n_test_patients_in_both=int(table.loc[is_known & ~out, "patient_id"].nunique()) if are_same else 0,
        labels=names,
        labels_of_run=tuple(n for n in only_run if _plain(n) not in known),
        labels_of_table=tuple(n for j, n in enumerate(whole.label_names) if j not in columns),
        labels_of_one_class=tuple(n for n in only_run if _plain(n) in known),
    )
    made = replace(
        kept,
        table=kept.table.assign(split=TEST),
        labels=kept.labels[:, columns],
        label_names=names,
        attributes=_attributes(kept),
        recorded=None if kept.recorded is None else kept.recorded[:, columns],
        reference_labels=None if kept.reference_labels is None else kept.reference_labels[:, columns],
    )
    small = check_contract(Evidence(cohort=made, min_patients=min_patients), rules=["small_group"])
    advice = f"Below {min_patients} patients a group's numbers are marked and take no part in gaps."
    small = settle_findings(replace(f, message=f.message.replace(" in test", ""), advice=advice) for f in small)
    account = whole.accounting
    excluded = {LEARNED_FROM: facts.n_images_left_out} if facts.n_images_left_out else {}
    of_table = [f for f in account.get("findings", []) if f["rule"] not in (*rules_about("cohort"), "patient_in_two_splits")]
    account = account | {
        "excluded": account["excluded"] | excluded,
        "rows_selected": len(made),
        "n_patients": int(made.table["patient_id"].nunique()),
        "notes": [note for note in account["notes"] if not note.startswith(ABOUT_THE_SPLIT)],
        "findings": [*of_table, *findings_to_records(small)],
    }
    return replace(made, accounting=account), facts


def shared_labels(run: tuple[str, ...], table: tuple[str, ...]) -> list[tuple[int, int]]:
    """Returns (place in the run, place in the table) of each finding that both have, in the run's order.

    Names are compared without case, `_` being a blank: Pleural_Thickening and Pleural Thickening are one.
    """
    places = {_plain(name): j for j, name in enumerate(table)}
    return [(i, places[_plain(name)]) for i, name in enumerate(run) if _plain(name) in places]


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())


def _attributes(cohort: Cohort) -> tuple[Attribute, ...]:
    """The attributes that still have two known groups among these rows."""
    found = [replace(a, groups=tuple(g for g in a.groups if (cohort.table[a.name] == g).any())) for a in cohort.attributes]
    return tuple(a for a in found if len(a.groups) > 1)


def say_evaluated(facts: Evaluated) -> None:
    """Logs what is evaluated; counts of one to nine patients are not given."""
    say = logger.info
    say("apply: %d findings in both: %s", len(facts.labels), ", ".join(facts.labels))
    for names, why in (
        (facts.labels_of_run, "not in the table"),
        (facts.labels_of_one_class, "of one class only in the table"),
        (facts.labels_of_table, "not in the run"),
    ):
        if names:
            say("apply: left out, %s: %s", why, ", ".join(names))
    if facts.n_images_left_out:
        say("apply: %s patients are left out: the run learned from them", few(facts.n_patients_left_out))
    if facts.n_patient_ids_in_both and not facts.are_same_patients:
        logger.warning("apply: %s", same_numbers(facts))


def same_numbers(facts: Evaluated) -> str:
    """Says that patient numbers agree although nobody says that the people do."""
    return (
        f"{few(facts.n_patient_ids_in_both)} patient numbers of the table are also numbers of the run, and no image is in "
        "both: they are taken for other people. If they are the same people, say --same_patients yes, so that those the run "
        "learned from are left out."
    )


def few(n: int) -> str:
    """Returns a number of people as text: one to nine are fewer than ten."""
    return f"fewer than {FEW}" if 0 < n < FEW else f"{n:,}"


def as_the_run_knows(table: pd.DataFrame, attributes: tuple[Attribute, ...]) -> pd.DataFrame:
    """Returns the run's attributes of these rows: a group that the run did not have is `"unknown"`, as is what is not recorded.

    Args:
        table: `[n]` rows of the other cohort.
        attributes: the run's.
    """
    index = pd.RangeIndex(len(table))
    columns = {
        a.name: table[a.name].where(table[a.name].isin(a.groups), UNKNOWN).to_numpy(object) if a.name in table else UNKNOWN
        for a in attributes
    }
    return pd.DataFrame(columns, index=index)


def attributes_used(trained, available: list[str]) -> tuple[str, ...]:
    """Returns the attributes that a trained recipe's scores or decisions depend on.

    Args:
        trained: the `TrainedRecipe`.
        available: the attributes that the run had.
    """
    used: list[str] = list(trained.head.demographics.groups) if trained.head.demographics is not None else []
    for transform in trained.representations:
        if transform.uses_attributes:
            used += chosen_attributes(transform.name, getattr(transform.settings, "attributes", ()), available)
    for member in (*trained.calibrators, trained.rule):
        if member.is_per_group:
            used += member.fitted_cells.attributes
    return tuple(dict.fromkeys(used))


def answered_as_unknown(cohort: Cohort, attributes: tuple[Attribute, ...], used: tuple[str, ...]) -> dict:
    """Counts the rows that get a recipe's answer for an unknown group.

    Args:
        cohort: the evaluated rows.
        attributes: the run's.
        used: those that the recipe uses.

    Returns:
        `uses`; per used attribute the groups `unseen` in the run, with their patients; `not_recorded`, the used attributes that
        the table does not have in two groups; `n_images_unseen` and `n_images_unknown` over all used attributes.
    """
    table, known = cohort.table, {a.name: a.groups for a in attributes}
    own = {a.name for a in cohort.attributes}
    unseen, unknown = np.zeros(len(table), bool), np.zeros(len(table), bool)
    groups: dict[str, dict[str, int]] = {}
    for name in used:
        values = table[name] if name in own else pd.Series(UNKNOWN, index=table.index)
        is_new = (values != UNKNOWN) & ~values.isin(known.get(name, ()))
        counts = table[is_new].groupby(values[is_new])["patient_id"].nunique()
        if len(counts):
            groups[name] = {str(group): int(n) for group, n in counts.items()}
        unseen |= is_new.to_numpy(bool)
        unknown |= (values == UNKNOWN).to_numpy(bool)
    return {
        "uses": list(used),
        "unseen": groups,
        "not_recorded": [name for name in used if name not in own],
        "n_images_unseen": int(unseen.sum()),
        "n_images_unknown": int((unknown & ~unseen).sum()),
    }
