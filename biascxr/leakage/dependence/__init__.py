"""Do predictions depend on the attribute, and not only: can it be read from the vector?

given_label(rows, seed=0)                       scores alone: independent of the attribute given the label?
frozen_head(hidden, rows, ...)                  the attribute erased below the last layer, nothing trained anew
retrained(train, validation, test, ...)         heads trained anew on vectors that it was erased from
dose_response(train, validation, test, ...)     heads along a range of encoding strength
"""

from biascxr.leakage.dependence.dose import dose_response
from biascxr.leakage.dependence.frozen import (
    HiddenRows,
    LastLayer,
    OpenedHead,
    frozen_head,
    hidden_of,
)
from biascxr.leakage.dependence.given_label import given_label
from biascxr.leakage.dependence.retrained import retrained
from biascxr.leakage.dependence.rows import ScoredRows, dependence_table
from biascxr.leakage.stratified import StratifiedAuroc, stratified_auroc

__all__ = [
    "HiddenRows",
    "LastLayer",
    "OpenedHead",
    "ScoredRows",
    "StratifiedAuroc",
    "dependence_table",
    "dose_response",
    "frozen_head",
    "given_label",
    "hidden_of",
    "retrained",
    "stratified_auroc",
]
