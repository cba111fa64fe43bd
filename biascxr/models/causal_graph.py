"""What a graph between blocks of numbers is made of: networks that rebuild each block, and a measure of cycles."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops


class BlockMasks(keras.layers.Layer):
    """A network of its own for each block, linear, ELU, linear back: `[n, D] -> [n, D]`.

    Blocks of equal size are computed at once: a call for each of twenty blocks would cost more than the numbers.

    Args:
        runs: (number, dims) of blocks that stand side by side.
        hidden: units of each network.
    """

    def __init__(self, runs: list[tuple[int, int]], hidden: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.runs, self.hidden = [run for run in runs if run[0]], hidden

    def build(self, input_shape) -> None:
        # Fans are those of one block: of a stack [blocks, in, out] Keras would read the number of blocks as a window's size.
        self.kernels = []
        for number, units in self.runs:
            for name, n_in, n_out in (("in", units, self.hidden), ("back", self.hidden, units)):
                limit = float(np.sqrt(6 / (n_in + n_out)))
                start = keras.initializers.RandomUniform(-limit, limit)
                kernel = self.add_weight(shape=(number, n_in, n_out), initializer=start, name=f"{name}_{number}x{units}")
                bias = self.add_weight(shape=(number, n_out), initializer="zeros", name=f"{name}_{number}x{units}_bias")
                self.kernels.append((kernel, bias))

    def call(self, inputs):
        parts, start = [], 0
        for (number, units), first, second in zip(self.runs, self.kernels[::2], self.kernels[1::2], strict=True):
            x = ops.reshape(inputs[:, start : start + number * units], (-1, number, units))
            hidden = ops.elu(ops.einsum("nbu,buh->nbh", x, first[0]) + first[1])
            x = ops.einsum("nbh,bhu->nbu", hidden, second[0]) + second[1]
            parts.append(ops.reshape(x, (-1, number * units)))
            start += number * units
        return ops.concatenate(parts, axis=1) if parts else inputs


def acyclicity(graph):
    """Returns `h = tr((I + A∘A / m)^m) - m` of A `[m, m]`: 0 where its arrows make no cycle, above 0 where they do.

    `tr((A∘A)^k)` sums the weights of all closed walks of k steps, so h weighs those of 1 to m steps. The power is taken by
    repeated squaring of what stands beside I, `(I + P)^2 - I = 2 P + P P`, so that a small h keeps its digits and no cycle is
    exactly 0.

    Reference: Yu et al., DAG-GNN, ICML 2019, theorem 1, with alpha = 1 / m.
    """
    m = graph.shape[0]
    step = graph * graph / m
    beside = step
    for bit in bin(m)[3:]:  # the binary digits of m behind the first
        beside = 2 * beside + ops.matmul(beside, beside)
        if bit == "1":
            beside = beside + step + ops.matmul(beside, step)
    return ops.trace(beside)
