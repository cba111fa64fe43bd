"""Learning from labels that are wrong at known rates, which differ between groups."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from biascxr.models.losses import is_known
from biascxr.models.trainer import HeadTrainer, weighted_mean


def corrected_labels(y, group, false_negative_rate: np.ndarray, false_positive_rate: np.ndarray):
    """Returns unbiased estimates of the true labels: `(y - b) / (1 - a - b)`, a and b the rates of the row's group.

    With `a = P(recorded 0 | true 1)` and `b = P(recorded 1 | true 0)` their mean over what may have been recorded is the true
    label. They leave [0, 1]: for a = 0.5, b = 0 a recorded positive counts as 2 positives and -1 negative.

    Binary cross-entropy is linear in the label, so that on these it *is* the surrogate loss of Natarajan et al. (NeurIPS
    2013, lemma 1) `[(1 - r_other) l(t, y) - r_y l(t, not y)] / (1 - a - b)`, r_1 = a and r_0 = b, whose mean over the noise is
    the loss on the true label, whatever t.

    Args:
        y: `[b, L]` recorded labels in {0, 1, NaN}; masked ones stay so.
        group: `[b] int32`; a row of unknown group, -1, keeps its labels.
        false_negative_rate: `[K, L] float32`, a of each group and label.
        false_positive_rate: `[K, L] float32`, b; a + b < 1.
    """
    codes = ops.arange(len(false_negative_rate), dtype="int32")
    own = ops.cast(ops.equal(ops.expand_dims(ops.cast(group, "int32"), 1), ops.expand_dims(codes, 0)), "float32")  # [b, K]
    a, b = (ops.matmul(own, ops.convert_to_tensor(rate, "float32")) for rate in (false_negative_rate, false_positive_rate))
    return (ops.convert_to_tensor(y, "float32") - b) / (1 - a - b)


class NoiseCorrectedTrainer(HeadTrainer):
    """Minimises the mean over rows of the surrogate loss.

    Args:
        head: see `build_mlp`.
        false_negative_rate: `[K, L]`, see `corrected_labels`.
        false_positive_rate: `[K, L]`.
    """

    def __init__(self, head: keras.Model, false_negative_rate: np.ndarray, false_positive_rate: np.ndarray) -> None:
        super().__init__(head)
        self.rates = (np.asarray(false_negative_rate, np.float32), np.asarray(false_positive_rate, np.float32))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the weighted mean of the surrogate losses, a scalar; it may be negative."""
        return weighted_mean(self.row_losses(corrected_labels(y, x["group"], *self.rates), y_pred), sample_weight)

    def row_losses(self, y, y_pred):
        """Returns `[b]`: cross-entropy on corrected labels, summed over the known ones and divided by L.

        Put together from those on 1 and on 0, as PyTorch's takes no label outside [0, 1].
        """
        known = is_known(y)
        share = ops.where(known, y, ops.zeros_like(y))
        on_one, on_zero = (ops.binary_crossentropy(ops.full_like(y_pred, value), y_pred) for value in (1, 0))
        return ops.mean(ops.where(known, share * on_one + (1 - share) * on_zero, ops.zeros_like(y_pred)), axis=-1)

    def corrected_criterion(self, criterion: Callable) -> Callable:
        """Returns a criterion of early stopping on corrected labels: on recorded ones it would choose what fits the noise.

        Args:
            criterion: `(labels, scores, groups) -> float`, linear in the labels as those of `CRITERIA` are; so its mean over
                the noise is the criterion on the true labels.
        """

        def corrected(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> float:
            return criterion(ops.convert_to_numpy(corrected_labels(labels, groups, *self.rates)), scores, groups)

        return corrected
