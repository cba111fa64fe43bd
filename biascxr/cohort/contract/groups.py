"""Rules about groups: enough patients to compare, and the same mix in every split."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from biascxr.cohort.contract.base import Evidence, Finding
from biascxr.cohort.shift import differences_from_others
from biascxr.config import SPLITS
from biascxr.containers import Attribute
from biascxr.metrics import adjust_p_values

FEW = 10  # patients; a smaller count does not leave the machine
ALPHA = 0.001  # every run asks; chance alone is to answer in one of a thousand
# Austin (2009): a standardised difference below 0.1 is negligible. Without a floor a large data set always differs.
MIN_DIFFERENCE = 0.1
MIN_EXPECTED = 5  # Cochran's rule for a chi-square


def small_group(evidence: Evidence) -> list[Finding]:
    """Finds known groups with too few patients in test; a finding per attribute.

    The message gives no exact number: one beside a hidden cell of Table 1 would give that one away by subtraction.
    """
    table = evidence.cohort.table
    test = table[table["split"] == "test"]
    findings = []
    for attribute in evidence.cohort.attributes:
        n = test.groupby(attribute.name)["patient_id"].nunique().reindex(attribute.groups, fill_value=0)
        small = n[n < evidence.min_patients]
        if small.empty:
            continue
        words = [f"{group} (fewer than {FEW if size < FEW else evidence.min_patients})" for group, size in small.items()]
        findings.append(
            Finding(
                "small_group",
                is_error=False,
                count=len(small),
                message=f"Groups of {attribute.name.replace('_', ' ')} with few patients in test: {', '.join(words)}.",
                advice=f"Below {evidence.min_patients} patients a group's numbers are marked and take no part in gaps. A "
                "larger test part (--split_fractions), wider age bins (--age_bins) or more data would help.",
                examples=tuple(f"{group}: {size}" for group, size in small.items()),
            )
        )
    return findings


def split_mix(evidence: Evidence) -> list[Finding]:
    """Finds attributes whose groups are mixed otherwise in one split than in the others.

    Per attribute Pearson's chi-square over patients of known groups (at the first image, where a group changes with time),
    Holm over attributes, and a floor on the size of the difference, since in a large data set any difference is significant.
    """
    by_age = evidence.cohort.table.sort_values("age", kind="stable")  # unknown ages last
    compared = [(a, *_compare(by_age, a, max(evidence.min_patients, 1))) for a in evidence.cohort.attributes]
    p_adjusted = adjust_p_values(np.array([p for _, p, _, _ in compared]), "holm")
    differ = [
        (attribute.name, words)
        for (attribute, _, difference, words), p in zip(compared, p_adjusted, strict=True)
        if p < ALPHA and difference >= MIN_DIFFERENCE
    ]
    if not differ:
        return []
    named = "; ".join(f"{name.replace('_', ' ')} ({words})" for name, words in differ)
    return [
        Finding(
            "split_mix",
            is_error=False,
            count=len(differ),
            message=f"Splits differ in who is in them: {named}.",
            advice="Thresholds and models fitted on one mix are judged on another. --split_source random draws parts that are "
            "alike; with the data set's own split, read averages over everyone with that in mind.",
        )
    ]


def _compare(by_age: pd.DataFrame, attribute: Attribute, min_patients: int) -> tuple[float, float, str]:
    """Returns the p-value, the largest standardised difference of a split from all others, and where it is, in words.

    Splits of fewer than `min_patients` take no part. Groups too rare for the chi-square are taken together.
    """
    patients = by_age[by_age[attribute.name].isin(attribute.groups)].drop_duplicates("patient_id")
    counts = pd.crosstab(patients["split"], patients[attribute.name])
    counts = counts.reindex(index=SPLITS, columns=attribute.groups, fill_value=0)
    counts = counts[counts.sum(axis=1) >= min_patients]
    if len(counts) < 2:
        return np.nan, 0.0, ""
    of_split, of_group = counts.sum(axis=1).to_numpy(), counts.sum(axis=0)
    rare = of_group * of_split.min() / of_split.sum() < MIN_EXPECTED
    tested = counts.loc[:, ~rare]
    pooled = counts.loc[:, rare].sum(axis=1)
    if pooled.sum() * of_split.min() / of_split.sum() >= MIN_EXPECTED:
        tested = tested.assign(**{"the rare groups": pooled})
    if tested.shape[1] < 2:
        return np.nan, 0.0, ""
    p = stats.chi2_contingency(tested.to_numpy(), correction=False).pvalue
    shares = tested.to_numpy() / of_split[:, None]
    differences = np.stack([differences_from_others(s, s * (1 - s), of_split, ddof=0) for s in shares.T], axis=1)
    differences = np.nan_to_num(differences)
    row, column = np.unravel_index(np.abs(differences).argmax(), differences.shape)
    own, of_own = tested.iloc[row, column], of_split[row]
    others, of_others = tested.iloc[:, column].sum() - own, of_split.sum() - of_own
    words = f"{tested.columns[column]} in {tested.index[row]}"
    if min(own, of_own - own, others, of_others - others) >= FEW:
        words += f": {own / of_own:.0%} of patients, {others / of_others:.0%} in the other splits"
    return float(p), float(np.abs(differences).max()), words
