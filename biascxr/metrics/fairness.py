"""Fairness metrics: how far apart the groups are on one metric.

First functions of the groups' values `[k]`, then functions of labels, scores or decisions, and groups. Rows whose group is
None, NaN or `"unknown"` are left out. A group on which the metric is undefined (no positives for a TPR) is left out as well,
and with fewer than two groups left the result is NaN: it says nothing about the groups that it could not measure, so the
audit reports every group's value and n beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np

from biascxr.metrics.calibration import expected_calibration_error
from biascxr.metrics.classification import (
    false_positive_rate,
    positive_predictive_value,
    selection_rate,
    true_negative_rate,
    true_positive_rate,
)
from biascxr.metrics.ranking import auroc, cross_auroc

# How a missing group reads as text, in NumPy and pandas, and as cohorts write it.
NO_GROUP = ("nan", "NaN", "NaT", "<NA>", "unknown")


def _defined(values: np.ndarray) -> np.ndarray:
    """Returns the values that are not NaN, or none at all if there are fewer than two."""
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    return values if len(values) > 1 else values[:0]


def gap(values: np.ndarray) -> float:
    """Max-min gap `max_g v_g - min_g v_g`. Noise alone makes it larger than 0, most of all with many or small groups.

    Args:
        values: `[k]`, one value per group; NaN is left out, so the audit reports each group's n beside the gap.

    Returns:
        A value of at least 0; NaN with fewer than two defined values.

    Reference: Hardt et al., NeurIPS 2016 for two groups; fairlearn's `difference(method="between_groups")` for more.
    """
    values = _defined(values)
    return float(values.max() - values.min()) if len(values) else float("nan")


def ratio(values: np.ndarray) -> float:
    """Min-max ratio `min_g v_g / max_g v_g`, for metrics that are at least 0.

    Args:
        values: `[k]`, one value per group, at least 0; NaN is left out.

    Returns:
        A value in [0, 1], 1 where all groups are equal; NaN with fewer than two defined values, or where the largest is 0.

    Reference: Feldman et al., Certifying and removing disparate impact, KDD 2015 (the four-fifths rule).
    """
    values = _defined(values)
    return float(values.min() / values.max()) if len(values) and values.max() != 0 else float("nan")


def spread(values: np.ndarray) -> float:
    """Spread over groups: the standard deviation `sqrt(sum_g (v_g - vbar)^2 / k)`, each group counted once.

    Args:
        values: `[k]`, one value per group; NaN is left out.

    Returns:
        A value of at least 0, at most half the gap; NaN with fewer than two defined values.

    Reference: Wang and Deng, Mitigating bias in face recognition, CVPR 2020 (standard deviation over groups).
    """
    values = _defined(values)
    # Equal values have a mean that may be off by rounding; their spread is 0.
    return float((values - values[0]).std()) if len(values) else float("nan")


def noise_corrected_spread(values: np.ndarray, standard_errors: np.ndarray) -> float:
    """Spread of the groups' true values: `sqrt(max(0, var(v) - mean_g(se_g^2)))`, with `var` over k - 1.

    The variance of measured values is that of the true ones plus the mean sampling variance, if groups are independent.

    Args:
        values: `[k]`, one value per group.
        standard_errors: `[k]`; a group where either is NaN is left out.

    Returns:
        A value of at least 0; NaN with fewer than two groups left.

    Reference: Hedges and Olkin, Statistical Methods for Meta-Analysis, 1985 (variance between studies, unweighted).
    """
    values, errors = np.asarray(values, np.float64), np.asarray(standard_errors, np.float64)
    measured = ~np.isnan(values) & ~np.isnan(errors)
    if measured.sum() < 2:
        return float("nan")
    values = values[measured]
    return float(np.sqrt(max(0.0, (values - values[0]).var(ddof=1) - (errors[measured] ** 2).mean())))


def worst_group(values: np.ndarray, higher_is_better: bool = True) -> int:
    """The position of the worst value: `argmin_g v_g`, or `argmax_g v_g` where low is good; of several, the first.

    Args:
        values: `[k]`, one value per group; NaN is left out.
        higher_is_better: whether a high value is good, as for an AUROC.

    Returns:
        A position in `values`; -1 with fewer than two defined values.

    Reference: Sagawa et al., ICLR 2020 (worst-group performance).
    """
    values = np.asarray(values, np.float64)
    if not len(_defined(values)):
        return -1
    return int(np.nanargmin(values) if higher_is_better else np.nanargmax(values))


def _group_masks(group: np.ndarray) -> list[np.ndarray]:
    """Returns one `[n] bool` per known group, in the order of their names."""
    values = np.asarray(group, object)
    names = values.astype(str)
    known = ~np.isin(names, NO_GROUP) & np.array([value is not None for value in values], bool)
    return [known & (names == name) for name in np.unique(names[known])]


def _gap_of(metric: Callable[..., float], y_true, score_or_decision, group, weight, **settings) -> float:
    """Returns the gap of a metric over the known groups."""
    y_true, value = np.asarray(y_true), np.asarray(score_or_decision)
    weight = np.ones(len(y_true)) if weight is None else np.asarray(weight, np.float64)
    masks = _group_masks(group)
    return gap(np.array([metric(y_true[own], value[own], weight[own], **settings) for own in masks]))


def demographic_parity_difference(
    y_true: np.ndarray, decision: np.ndarray, group: np.ndarray, weight: np.ndarray | None = None
) -> float:
    """Demographic parity difference: the gap of selection rates, `max_g P(flagged | g) - min_g P(flagged | g)`.

    Groups whose prevalence differs cannot have it at 0 under a classifier that is always right.

    Args:
        y_true: `[n]` in {0, 1, NaN}; a row with an unknown label is left out.
        decision: `[n]` in {0, 1, NaN}.
        group: `[n]`, the group's name per row; None, NaN or `"unknown"` is left out.
        weight: `[n]`, at least 0; default 1.

    Returns:
        A value in [0, 1], 0 is fair; NaN with fewer than two groups.

    Reference: Dwork et al., ITCS 2012; fairlearn's function of this name.
    """
    return _gap_of(selection_rate, y_true, decision, group, weight)


def equal_opportunity_difference(
    y_true: np.ndarray, decision: np.ndarray, group: np.ndarray, weight: np.ndarray | None = None, *, on: str = "TPR"
) -> float:
    """Equal opportunity difference: the gap of TPRs (FairREAD's EOpp1), or of TNRs (its EOpp0).

    `max_g P(flagged | y = 1, g) - min_g P(flagged | y = 1, g)`; on TNR, `P(not flagged | y = 0, g)`.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        decision: `[n]` in {0, 1, NaN}.
        group: `[n]`, the group's name per row; None, NaN or `"unknown"` is left out.
        weight: `[n]`, at least 0; default 1.
        on: `"TPR"` or `"TNR"`.

    Returns:
        A value in [0, 1], 0 is fair; NaN where fewer than two groups have positives (on TNR: negatives).

    Raises:
        ValueError: for another `on`.

    Reference: Hardt et al., NeurIPS 2016; on both classes, Gao et al., FairREAD, arXiv:2412.16373.
    """
    metrics = {"TPR": true_positive_rate, "TNR": true_negative_rate}
    if on not in metrics:
        raise ValueError(f"on must be 'TPR' or 'TNR'; got {on!r}.")
    return _gap_of(metrics[on], y_true, decision, group, weight)


def equalized_odds_difference(
    y_true: np.ndarray, decision: np.ndarray, group: np.ndarray, weight: np.ndarray | None = None
) -> float:
    """Equalized odds difference: the larger of the gap of TPRs and the gap of TNRs (which is the gap of FPRs).

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        decision: `[n]` in {0, 1, NaN}.
        group: `[n]`, the group's name per row; None, NaN or `"unknown"` is left out.
        weight: `[n]`, at least 0; default 1.

    Returns:
        A value in [0, 1], 0 is fair; NaN where either gap is undefined.

    Reference: Hardt et al., NeurIPS 2016; as a maximum, fairlearn's function of this name and FairREAD's EO.
    """
    gaps = [equal_opportunity_difference(y_true, decision, group, weight, on=on) for on in ("TPR", "TNR")]
    return float(np.max(gaps))  # NaN if one is


def predictive_parity_difference(
    y_true: np.ndarray, decision: np.ndarray, group: np.ndarray, weight: np.ndarray | None = None
) -> float:
    """Predictive parity difference: the gap of PPVs, `max_g P(y = 1 | flagged, g) - min_g P(y = 1 | flagged, g)`.

    PPV depends on prevalence: groups with the same TPR and FPR differ in it where their prevalence does.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        decision: `[n]` in {0, 1, NaN}.
        group: `[n]`, the group's name per row; None, NaN or `"unknown"` is left out.
        weight: `[n]`, at least 0; default 1.

    Returns:
        A value in [0, 1], 0 is fair; NaN where fewer than two groups have a flagged row.

    Reference: Chouldechova, Big Data 2017.
    """
    return _gap_of(positive_predictive_value, y_true, decision, group, weight)


def auroc_gap(y_true: np.ndarray, score: np.ndarray, group: np.ndarray, weight: np.ndarray | None = None) -> float:
    """AUROC gap: `max_g AUROC_g - min_g AUROC_g`, each group ranked among itself (`cross_auroc_gap` ranks across groups).

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`; any monotone score.
        group: `[n]`, the group's name per row; None, NaN or `"unknown"` is left out.
        weight: `[n]`, at least 0; default 1.

    Returns:
        A value in [0, 1], 0 is fair; NaN where fewer than two groups have both classes.

    Reference: Zong et al., MEDFAIR, ICLR 2023.
    """
    return _gap_of(auroc, y_true, score, group, weight)


def calibration_gap(
    y_true: np.ndarray, score: np.ndarray, group: np.ndarray, weight: np.ndarray | None = None, *, n_bins: int = 15
) -> float:
    """Calibration gap: `max_g ECE_g - min_g ECE_g` over the same fixed bins for all groups.

    Noise makes the ECE of a small group too high, so groups of unequal size have a gap without being treated unequally.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`, probabilities.
        group: `[n]`, the group's name per row; None, NaN or `"unknown"` is left out.
        weight: `[n]`, at least 0; default 1.
        n_bins: number of equal-width bins on [0, 1].

    Returns:
        A value in [0, 1], 0 is fair; NaN with fewer than two groups.

    Reference: Zong et al., MEDFAIR, ICLR 2023.
    """
    return _gap_of(expected_calibration_error, y_true, score, group, weight, n_bins=n_bins)


def underdiagnosis_gap(y_true: np.ndarray, decision: np.ndarray, group: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Underdiagnosis gap: the gap of the FPR of "No Finding".

    `max_g P(called No Finding | has a finding, g) - min_g P(called No Finding | has a finding, g)`: the share of ill
    patients who are called healthy and would not be treated. Where a table has no such label, see `derived_no_finding`.

    Args:
        y_true: `[n]` in {0, 1, NaN}, the label "No Finding": 1 is healthy.
        decision: `[n]` in {0, 1, NaN}, the decision on "No Finding": 1 is called healthy.
        group: `[n]`, the group's name per row; None, NaN or `"unknown"` is left out.
        weight: `[n]`, at least 0; default 1.

    Returns:
        A value in [0, 1], 0 is fair; NaN where fewer than two groups have a row with a finding.

    Reference: Seyyed-Kalantari et al., Nature Medicine 2021.
    """
    return _gap_of(false_positive_rate, y_true, decision, group, weight)


def _check_pathologies(values: np.ndarray, what: str) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"{what} must have shape [n, P], one column per pathology and at least one; got {values.shape}.")
    return values


def derived_no_finding(scores: np.ndarray) -> np.ndarray:
    """A score of "No Finding" for tables without that label: `1 - max_p s_p`. Mark it as derived wherever it is shown.

    Args:
        scores: `[n, P]`, probabilities of the pathologies; leave out labels that are none, such as support devices.

    Returns:
        `[n] float64`; NaN where a score is.

    Reference: the label is that of Irvin et al., CheXpert, AAAI 2019; the score is ours.
    """
    return 1 - _check_pathologies(scores, "scores").max(axis=1)


def derived_no_finding_label(y_true: np.ndarray) -> np.ndarray:
    """The label "No Finding" from those of the pathologies: 1 if all are 0, 0 if any is 1, else NaN.

    Args:
        y_true: `[n, P]` in {0, 1, NaN}.

    Returns:
        `[n] float64`; NaN where no pathology is labelled positive and at least one is unknown.

    Reference: Irvin et al., CheXpert, AAAI 2019.
    """
    y_true = _check_pathologies(y_true, "y_true")
    return np.where((y_true == 1).any(axis=1), 0.0, np.where((y_true == 0).all(axis=1), 1.0, np.nan))


def cross_auroc_gap(y_true: np.ndarray, score: np.ndarray, group: np.ndarray, weight: np.ndarray | None = None) -> float:
    """xAUC gap: `max_ab |xAUC_ab - xAUC_ba|` over pairs of groups.

    It sees what AUROCs within groups cannot: that one group's scores are shifted against another's. Pairs where either xAUC
    is undefined are left out.

    Args:
        y_true: `[n]` in {0, 1, NaN}.
        score: `[n]`; any monotone score.
        group: `[n]`, the group's name per row; None, NaN or `"unknown"` is left out.
        weight: `[n]`, at least 0; default 1.

    Returns:
        A value in [0, 1], 0 is fair; NaN where no two groups have both classes each.

    Reference: Kallus and Zhou, NeurIPS 2019 (ΔxAUC).
    """
    disparities = np.array(
        [
            abs(cross_auroc(y_true, score, a, b, weight) - cross_auroc(y_true, score, b, a, weight))
            for a, b in combinations(_group_masks(group), 2)
        ]
    )
    defined = disparities[~np.isnan(disparities)]
    return float(defined.max()) if len(defined) else float("nan")


def fate(
    performance_before: float, performance_after: float, gap_before: float, gap_after: float, *, gap_before_low: float
) -> float:
    """FATE: relative gain in performance less relative growth of the gap, of a remedy against its baseline.

    `(P_after - P_before) / P_before - (gap_after - gap_before) / gap_before`. Above 0 the remedy gained more than it cost.
    A baseline whose gap is not off zero has no relative change of gap: dividing by noise could give any number.

    Args:
        performance_before: of the baseline, high is good (an AUROC or accuracy), above 0.
        performance_after: of the remedy.
        gap_before: of the baseline.
        gap_after: of the remedy.
        gap_before_low: lower end of the interval of `gap_before`.

    Returns:
        A relative change; NaN where an argument is NaN, `gap_before_low <= 0`, or either of the baseline's values is 0.

    Reference: Xu et al., FairAdaBN, MICCAI 2023, equation of FATE with lambda = 1.
    """
    if not gap_before_low > 0 or gap_before == 0 or performance_before == 0:
        return float("nan")
    gain = (performance_after - performance_before) / performance_before
    growth = (gap_after - gap_before) / gap_before
    return float(gain - growth)
