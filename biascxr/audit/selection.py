"""Choosing one of many candidate models: what each rule would choose, and what that choice costs by every other rule.

A rule that is not named is still a rule. Choosing on overall performance is one too, and the only one here that needs no
group labels. Values are of a metric where higher is better, on validation rows; `regret_elsewhere` judges the choices on test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from biascxr.audit.groups import ALL, OVERALL
from biascxr.errors import InputError, unknown_name

VALUE_COLUMNS = ("candidate", "attribute", "group", "value")
# Sums and roots carry rounding errors: criteria closer than this are a tie.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class SelectionRule:
    """A way to choose among candidates.

    Attributes:
        name: as in the tables.
        text: what it does, one line.
        sees_groups: whether it needs the patients' groups.
        criterion: column of the candidates' table that it looks at.
        higher_is_better: whether it takes the largest criterion; otherwise the smallest.
        only_pareto: whether it chooses among Pareto-efficient candidates only.
    """

    name: str
    text: str
    sees_groups: bool
    criterion: str
    higher_is_better: bool
    only_pareto: bool = False


SELECTION_RULES: dict[str, SelectionRule] = {
    rule.name: rule
    for rule in (
        SelectionRule("overall", "The best value over everyone.", False, "overall", True),
        SelectionRule("worst_group", "The best value in the group where it is lowest.", True, "worst", True),
        # Martinez et al., ICML 2020: of the models that no other one dominates in the vector of group values, the one whose
        # worst group does best. They train for it; here it chooses among what was trained.
        SelectionRule("minimax_pareto", "As worst_group, among Pareto-efficient candidates.", True, "worst", True, True),
        # MEDFAIR (Zong et al., ICLR 2023), after Han et al. 2021, who measure from performance and fairness instead.
        SelectionRule("distance_to_optimal", "The nearest to the best value reached in each group.", True, "dto", False),
        SelectionRule("minimum_gap", "The smallest difference between best and worst group.", True, "gap", False),
        SelectionRule("minimum_leakage", "The vectors that groups are least readable from.", True, "leakage", False),
    )
}


@dataclass(frozen=True, eq=False)
class SelectionResult:
    """What each rule chooses.

    Attributes:
        candidates: one row per candidate, by name: `candidate, overall, worst, gap, dto, is_pareto, leakage`, then
            `regret_<rule>`: how much worse its criterion is than the best one's, in the criterion's own units, at least 0.
            NaN where a criterion is undefined.
        chosen: one row per rule: `rule, sees_groups, attribute, candidate, criterion, note`. A rule that cannot choose has
            candidate `""`, criterion NaN, and says why.
    """

    candidates: pd.DataFrame
    chosen: pd.DataFrame


def selection_table(values: pd.DataFrame, *, attribute: str, leakage: Mapping[str, float] | None = None) -> SelectionResult:
    """Applies every rule in `SELECTION_RULES` to the candidates.

    `worst` is the lowest value over groups, `gap` the highest less the lowest, `dto` the Euclidean distance of the group
    values to the best value that any candidate reaches in each group. A candidate is Pareto-efficient if no other one is at
    least as good in every group and better in one. Ties go to the candidate with the better overall value, then to the first
    by name. So `overall` may take a candidate that another one equals overall and beats in a group: it does not look there.

    Args:
        values: columns `candidate, attribute, group, value`, of a metric where higher is better; the value over everyone has
            attribute `"overall"` and group `"all"`. Other attributes' rows are left alone.
        attribute: whose groups are compared.
        leakage: how well groups can be read from each candidate's vectors, lower is better; None: that rule is skipped.

    Returns:
        The candidates with their regrets, and the choices. A group that is undefined for every candidate is left out; a
        candidate that is undefined in another group cannot be chosen by the rules that see groups. The notes say both.

    Raises:
        InputError: a column, attribute or row is missing, or given twice; a candidate has no leakage.

    Reference: Martinez, Bertran and Sapiro, ICML 2020; Han, Baldwin and Cohn 2021 (DTO); Zong, Yang and Hospedales, ICLR 2023.
    """
    candidates, left_out = _candidates(values, attribute, leakage)
    chosen = []
    for rule in SELECTION_RULES.values():
        row = _choose(rule, candidates)
        candidates[f"regret_{rule.name}"] = _regret(rule, candidates)
        note = _note(rule, candidates, left_out, leakage)
        chosen.append({"rule": rule.name, "sees_groups": rule.sees_groups, "attribute": attribute, **row, "note": note})
    return SelectionResult(candidates, pd.DataFrame(chosen))


def regret_elsewhere(
    chosen: pd.DataFrame, test_values: pd.DataFrame, *, leakage: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """What the choices cost on other rows: how far each is from the best candidate there, by its own rule's criterion.

    Args:
        chosen: `SelectionResult.chosen`, from validation rows.
        test_values: as `values` of `selection_table`, of the same candidates on test rows.
        leakage: as in `selection_table`, measured on test rows.

    Returns:
        One row per rule: `rule, sees_groups, attribute, candidate, criterion, best_candidate, best_criterion, regret`, all
        but the first four measured on test rows. Regret is at least 0, NaN where undefined.

    Raises:
        InputError: as `selection_table`, or a chosen candidate has no test values.
    """
    attributes = list(chosen["attribute"].unique())
    if len(attributes) != 1:
        raise InputError(f"chosen must be of one attribute, as selection_table made it; got {attributes}.")
    judged = selection_table(test_values, attribute=attributes[0], leakage=leakage)
    candidates = judged.candidates.set_index("candidate")
    best = judged.chosen.set_index("rule")
    rows = []
    for row in chosen.itertuples():
        rule = SELECTION_RULES[row.rule]
        if row.candidate and row.candidate not in candidates.index:
            raise unknown_name("candidate in test_values (a rule chose it)", row.candidate, candidates.index)
        own = candidates.loc[row.candidate] if row.candidate else None
        rows.append(
            {
                "rule": rule.name,
                "sees_groups": rule.sees_groups,
                "attribute": row.attribute,
                "candidate": row.candidate,
                "criterion": np.nan if own is None else own[rule.criterion],
                "best_candidate": best.loc[rule.name, "candidate"],
                "best_criterion": best.loc[rule.name, "criterion"],
                "regret": np.nan if own is None else own[f"regret_{rule.name}"],
            }
        )
    return pd.DataFrame(rows)


def _candidates(values: pd.DataFrame, attribute: str, leakage: Mapping[str, float] | None) -> tuple[pd.DataFrame, list[str]]:
    """Returns every candidate's criteria, and the groups left out because no candidate has a value there."""
    wide, overall = _wide(values, attribute)
    left_out = [str(g) for g in wide.columns[wide.isna().all()]]
    wide = wide.drop(columns=left_out)
    if wide.shape[1] == 0:
        raise InputError(f"No group of {attribute!r} has a value for any candidate: there is nothing to compare.")
    if leakage is not None:
        for name in wide.index:
            if name not in leakage:
                raise unknown_name("candidate in leakage (values has it)", name, leakage)
    v = wide.to_numpy(np.float64)  # [candidates, groups]; min, max and sums of a row with NaN are NaN
    ideal = np.nanmax(v, axis=0)
    return pd.DataFrame(
        {
            "candidate": wide.index.to_numpy(object),
            "overall": overall.to_numpy(np.float64),
            "worst": v.min(axis=1),
            "gap": np.ptp(v, axis=1),
            "dto": np.sqrt(((ideal - v) ** 2).sum(axis=1)),
            "is_pareto": pareto_efficient(v),
            "leakage": [np.nan if leakage is None else float(leakage[name]) for name in wide.index],
        }
    ), left_out


def _wide(values: pd.DataFrame, attribute: str) -> tuple[pd.DataFrame, pd.Series]:
    """Returns `[candidates, groups]` and `[candidates]` overall, both by candidate's name."""
    for name in VALUE_COLUMNS:
        if name not in values:
            raise unknown_name("column of the candidates' values", name, values.columns)
    if len(values) == 0:
        raise InputError("There is no candidate to choose from.")
    if attribute == OVERALL or attribute not in set(values["attribute"]):
        raise unknown_name("attribute in the candidates' values", attribute, set(values["attribute"]) - {OVERALL})
    values = values.assign(candidate=values["candidate"].astype(str), group=values["group"].astype(str))
    everyone = values[(values["attribute"] == OVERALL) & (values["group"] == ALL)]
    rows = values[values["attribute"] == attribute]
    for part in (everyone, rows):
        twice = part[part.duplicated(["candidate", "group"])]
        if len(twice):
            raise InputError(
                f"Candidate {twice['candidate'].iloc[0]!r} has two values in group {twice['group'].iloc[0]!r}: give one metric "
                "of one label."
            )
    names, groups = sorted(set(values["candidate"])), sorted(set(rows["group"]))
    given = set(zip(rows["candidate"], rows["group"], strict=True)) | {(c, ALL) for c in everyone["candidate"]}
    missing = [(c, g) for c in names for g in (ALL, *groups) if (c, g) not in given]
    if missing:
        raise InputError(
            f"Every candidate needs a value over everyone (attribute 'overall', group 'all') and in every group of "
            f"{attribute!r}, NaN where undefined; lacking {len(missing)}, first {missing[0]}."
        )
    wide = rows.pivot(index="candidate", columns="group", values="value").loc[names, groups]
    return wide, everyone.set_index("candidate")["value"].loc[names]


def pareto_efficient(values: np.ndarray) -> np.ndarray:
    """Which rows no other row dominates: at least as good everywhere and better somewhere.

    Args:
        values: `[n, k]`, higher is better. A row with NaN is not efficient and dominates none.

    Returns:
        `[n] bool`.
    """
    # NaN compares as False: such a row is at least as good as none.
    at_least = (values[:, None] >= values[None]).all(axis=2)  # [i, j]: i at least as good as j in every column
    better = (values[:, None] > values[None]).any(axis=2)
    return ~(at_least & better).any(axis=0) & ~np.isnan(values).any(axis=1)


def _badness(rule: SelectionRule, candidates: pd.DataFrame) -> np.ndarray:
    """The criterion, turned so that lower is better."""
    values = candidates[rule.criterion].to_numpy(np.float64)
    return -values if rule.higher_is_better else values


def _eligible(rule: SelectionRule, candidates: pd.DataFrame) -> np.ndarray:
    eligible = ~np.isnan(_badness(rule, candidates))
    return eligible & candidates["is_pareto"].to_numpy() if rule.only_pareto else eligible


def _choose(rule: SelectionRule, candidates: pd.DataFrame) -> dict:
    eligible, badness = _eligible(rule, candidates), _badness(rule, candidates)
    if not eligible.any():
        return {"candidate": "", "criterion": np.nan}
    best = candidates[eligible & (badness <= badness[eligible].min() + _ROUNDING)]
    first = best.sort_values(["overall", "candidate"], ascending=[False, True]).iloc[0]
    return {"candidate": first["candidate"], "criterion": first[rule.criterion]}


def _regret(rule: SelectionRule, candidates: pd.DataFrame) -> np.ndarray:
    """How much worse each criterion is than the best one.

    The best worst group among Pareto-efficient candidates is the best of all: whoever has it is efficient or dominated by one
    that has it too. So no candidate has a regret below 0.
    """
    eligible, badness = _eligible(rule, candidates), _badness(rule, candidates)
    if not eligible.any():
        return np.full(len(candidates), np.nan)
    regret = badness - badness[eligible].min()
    return np.where(np.abs(regret) <= _ROUNDING, 0.0, regret)


def _note(rule: SelectionRule, candidates: pd.DataFrame, left_out: list[str], leakage: Mapping[str, float] | None) -> str:
    if rule.criterion == "leakage" and leakage is None:
        return "skipped: no leakage was given"
    notes = []
    if rule.criterion in ("worst", "gap", "dto") and left_out:
        notes.append(f"groups left out, undefined for every candidate: {', '.join(left_out)}")
    undefined = candidates.loc[np.isnan(candidates[rule.criterion].to_numpy(np.float64)), "candidate"]
    if len(undefined):
        notes.append(f"undefined, so not to be chosen: {', '.join(undefined)}")
    return "; ".join(notes)
