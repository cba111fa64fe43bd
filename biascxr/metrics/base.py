"""The metrics by name: what each reads, which patients it rests on, which interval it gets, which way is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One metric of a group.

    Attributes:
        function: `"module:function"`, called `(y_true, score or decision, weight)`; of a group against the others
            `(y_true, score, in_group, weight)`.
        reads: what its second argument is.
        among: whose patients it rests on: those with a positive (negative) image, the smaller of both, or all.
        interval: its form: `"rate"` Wilson at the effective sample size; `"auroc"` clustered DeLong on the logit scale;
            `"mean"` t with the cluster-robust standard error; `"logit"` and `"t"`: a t quantile times the spread over the
            resamples, on the logit scale (values in (0, 1)) or as it is; `"calibration"`: such a t below the debiased and
            above the raw calibration error, between which the truth lies.
        better: which way is better for the patients, as far as it can be said.
        depends_on_prevalence: whether groups of different prevalence differ in it although the scores mean the same.
        of_group: defined for a group against its background only.
    """

    function: str
    reads: Literal["decision", "score"]
    among: Literal["positive", "negative", "both", "known"]
    interval: Literal["rate", "auroc", "mean", "logit", "t", "calibration"]
    better: Literal["higher", "lower", "neither"]
    depends_on_prevalence: bool = False
    of_group: bool = False

    def load(self) -> Callable[..., float]:
        """Returns the function."""
        module, name = self.function.split(":")
        return getattr(import_module(module), name)


_RATES, _RANKS, _CALIBRATION = ("biascxr.metrics." + m for m in ("classification", "ranking", "calibration"))

METRICS: dict[str, Metric] = {
    "AUROC": Metric(f"{_RANKS}:auroc", "score", "both", "auroc", "higher"),
    "AUPRC": Metric(f"{_RANKS}:auprc", "score", "positive", "logit", "higher", True),
    "TPR": Metric(f"{_RATES}:true_positive_rate", "decision", "positive", "rate", "higher"),
    "FPR": Metric(f"{_RATES}:false_positive_rate", "decision", "negative", "rate", "lower"),
    "TNR": Metric(f"{_RATES}:true_negative_rate", "decision", "negative", "rate", "higher"),
    "FNR": Metric(f"{_RATES}:false_negative_rate", "decision", "positive", "rate", "lower"),
    "PPV": Metric(f"{_RATES}:positive_predictive_value", "decision", "known", "rate", "higher", True),
    "NPV": Metric(f"{_RATES}:negative_predictive_value", "decision", "known", "rate", "higher", True),
    "selection_rate": Metric(f"{_RATES}:selection_rate", "decision", "known", "rate", "neither", True),
    "accuracy": Metric(f"{_RATES}:accuracy", "decision", "known", "rate", "higher", True),
    "balanced_accuracy": Metric(f"{_RATES}:balanced_accuracy", "decision", "both", "logit", "higher"),
    "Brier": Metric(f"{_CALIBRATION}:brier_score", "score", "known", "mean", "lower", True),
    "log_loss": Metric(f"{_CALIBRATION}:log_loss", "score", "known", "mean", "lower", True),
    "ECE": Metric(f"{_CALIBRATION}:expected_calibration_error", "score", "known", "calibration", "lower"),
    "ECE_debiased": Metric(f"{_CALIBRATION}:debiased_calibration_error", "score", "known", "calibration", "lower"),
    "calibration_in_the_large": Metric(f"{_CALIBRATION}:calibration_in_the_large", "score", "both", "t", "neither"),
    "calibration_slope": Metric(f"{_CALIBRATION}:calibration_slope", "score", "both", "t", "neither"),
    "BNSP_AUROC": Metric(f"{_RANKS}:bnsp_auroc", "score", "positive", "logit", "higher", of_group=True),
    "BPSN_AUROC": Metric(f"{_RANKS}:bpsn_auroc", "score", "negative", "logit", "higher", of_group=True),
}
