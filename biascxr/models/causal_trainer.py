"""The head with the causal module right on the vector, and what it minimises."""

from __future__ import annotations

import keras
from keras import ops

from biascxr.models.causal_noise import CausalNoise
from biascxr.models.feature_maps import vector_input
from biascxr.models.mlp import FINDINGS
from biascxr.models.trainer import HeadTrainer, weighted_mean


def build_causal_head(n_inputs: int, layer: CausalNoise, *, feature_map: tuple[int, ...] = ()) -> keras.Model:
    """Builds vector (or map) -> `CausalNoise` -> sigmoid.

    Args:
        n_inputs: d, length of the vector.
        layer: a new layer.
        feature_map: see `vector_input`.

    Returns:
        A functional model, `[n, d] float32` -> `[n, L] float32` probabilities. Its last layer, `findings`, is the sigmoid, so
        that what stands below it are the logits.
    """
    vector, features = vector_input(n_inputs, feature_map)
    return keras.Model(vector, keras.layers.Activation("sigmoid", name=FINDINGS)(layer(features)), name="causal_head")


class CausalTrainer(HeadTrainer):
    """`weight x BCE(findings) + supervision of the graph by recorded attributes (+ acyclicity)`.

    Recorded attributes are `x["demographics"] [b, concepts]` in {0, 1, NaN}, ordinal ones in [0, 1], in the order of the
    layer's blocks. They reach the loss alone: the head takes the vector.

    Args:
        head: see `build_causal_head`.
        layer: the `CausalNoise` in it; if `supervised`, its supervision is a part of the loss.
        finding_weight: of the findings' loss; 1.2 as published.
        penalise_cycles: whether cycles of the graph cost, see `CausalNoise.acyclicity_penalty`.
    """

    def __init__(self, head: keras.Model, layer: CausalNoise, *, finding_weight: float, penalise_cycles: bool) -> None:
        super().__init__(head)
        self.layer, self.finding_weight, self.penalise_cycles = layer, finding_weight, penalise_cycles

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the sum of all terms, a scalar."""
        losses = self.finding_weight * self.row_losses(y, y_pred)
        if self.layer.supervised:
            losses = losses + self.layer.supervision_loss(ops.concatenate([y, x["demographics"]], axis=1))
        loss = weighted_mean(losses, sample_weight)
        return loss + self.layer.acyclicity_penalty() if self.penalise_cycles else loss
