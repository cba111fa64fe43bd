"""The ground floor: pure functions of labels, scores, decisions and weights. No stage, no TensorFlow."""

from biascxr.metrics.balance import effective_n, gini_coefficient, normalized_entropy
from biascxr.metrics.classification import (
    auroc,
    auroc_replicates,
    false_negative_rate,
    false_positive_rate,
    rate_replicates,
    roc_curve_on_grid,
    true_negative_rate,
    true_positive_rate,
)
from biascxr.metrics.intervals import (
    expected_noise_gap,
    gap_change_interval,
    logit_t_interval,
    max_t_gap_interval,
    mover_difference,
    noise_corrected_gap,
    percentile_interval,
    wilson_interval,
)
from biascxr.metrics.resampling import patient_weights
from biascxr.metrics.thresholds import decide, fixed_fpr_threshold, youden_threshold

__all__ = [
    "auroc",
    "auroc_replicates",
    "decide",
    "effective_n",
    "expected_noise_gap",
    "false_negative_rate",
    "false_positive_rate",
    "fixed_fpr_threshold",
    "gap_change_interval",
    "gini_coefficient",
    "logit_t_interval",
    "max_t_gap_interval",
    "mover_difference",
    "noise_corrected_gap",
    "normalized_entropy",
    "patient_weights",
    "percentile_interval",
    "rate_replicates",
    "roc_curve_on_grid",
    "true_negative_rate",
    "true_positive_rate",
    "wilson_interval",
    "youden_threshold",
]
