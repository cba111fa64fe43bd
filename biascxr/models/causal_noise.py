"""A layer that writes a vector as blocks of concepts joined by a learned graph, and blurs the blocks of attributes."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from biascxr.models.causal_graph import BlockMasks, acyclicity
from biascxr.models.feature_maps import pool
from biascxr.models.losses import is_known

FIRST_ORDER, SECOND_ORDER = 3.0, 0.5  # the acyclicity penalty is 3 h + 0.5 h^2, as published
SIZES = (
    "n_findings", "attribute_blocks", "n_ordinals", "finding_units", "attribute_units", "ordinal_units", "mask_units",
    "head_hidden", "copies",
)  # fmt: skip
SWITCHES = ("use_graph", "use_noise", "supervised")


@keras.saving.register_keras_serializable(package="biascxr")
class CausalNoise(keras.layers.Layer):
    """Vector -> blocks, one per concept -> causal graph -> noise on the attributes' blocks -> logits of the findings.

    - `e = x W + b` is cut into blocks: one per finding, then those of attributes, then those of ordinal attributes.
    - `z = e (I - A)^-1`: A `[D, D]`, over all dims of all blocks, diagonal 0, is learned and starts at 0. `A[i, j]` is the
      effect of dim i on dim j.
    - `z' = f(z A) + e`: f is a network of each block's own, linear to `mask_units`, ELU, linear back, on its part of z A.
    - In training, `copies` times: noise `N(0, 1) v` is added to the attributes' dims of z', v a dim's running variance; each
      copy is classified, and the logits are averaged. `v <- (2 v + v_batch) / 3` once a batch; the first batch sets it.
    - At prediction z' itself is classified. No attribute is ever an input.

    With `supervised` what is recorded of a patient is sent through the same graph and asked to come back: `supervision_loss`,
    which whoever trains adds to the loss (`CausalTrainer` does). Without, the layer runs in any model under any loss on logits:

    ```python
    logits = CausalNoise(n_findings=14, attribute_blocks=(1, 5), n_ordinals=1)(backbone.output)
    ```

    Args:
        n_findings: L.
        attribute_blocks: number of blocks of each attribute: 1 for two groups, K for K groups.
        n_ordinals: number of ordinal attributes, one block each.
        finding_units: dims of a finding's block.
        attribute_units: dims of an attribute's block.
        ordinal_units: dims of an ordinal attribute's block.
        mask_units: hidden units of each block's f.
        head_hidden: units of the classifier's hidden ELU layers. With none it is linear, and the mean of the noisy logits is
            the clean logit plus noise of a `copies`-th of the variance, whatever the copies: one copy would do.
        copies: noisy copies of a row in training.
        use_graph: whether blocks are joined; else `z' = e`.
        use_noise: whether there is noise in training.
        supervised: whether the layer holds what `supervision_loss` needs; it then takes part in training alone.
        seed: of the noise; None draws one, which `keras.utils.set_random_seed` decides.

    Input: `[n, d]`, or a map `[n, h, w, c]`, whose mean over the places is taken first.
    Output: `[n, L]` logits. It computes in float32 under any precision policy, as a system of equations is solved.

    Raises:
        ValueError: a size below 1, `supervised` without graph or attributes, or an input of another rank.

    Reference: Causal Fairness (NCBI), "Improving Fairness in Medical Imaging Through Causal Learning", as published; the graph
    is that of Yang et al., CausalVAE, CVPR 2021. The repository leaves out the class of the graph and that of
    the classifier: both are made here from the equations, and the classifier's one hidden layer is a choice. As published,
    noise is scaled by the *variance*, not by the standard deviation: dims of a spread below 1 get less than their own, those
    above get more. Differs: no block for "no competing finding"; the variance is divided by n, passes no gradient, and counts
    each row of a batch once, whatever it weighs.
    """

    def __init__(
        self,
        n_findings: int,
        attribute_blocks: tuple[int, ...] = (),
        *,
        n_ordinals: int = 0,
        finding_units: int = 30,
        attribute_units: int = 9,
        ordinal_units: int = 8,
        mask_units: int = 128,
        head_hidden: tuple[int, ...] = (128,),
        copies: int = 10,
        use_graph: bool = True,
        use_noise: bool = True,
        supervised: bool = False,
        seed: int | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs | {"dtype": "float32"})
        self.n_findings, self.n_ordinals, self.copies = n_findings, n_ordinals, copies
        self.attribute_blocks, self.head_hidden = tuple(attribute_blocks), tuple(head_hidden)
        self.finding_units, self.attribute_units, self.ordinal_units = finding_units, attribute_units, ordinal_units
        self.use_graph, self.use_noise, self.supervised = use_graph, use_noise, supervised
        self.mask_units, self.seed = mask_units, seed
        self._check_sizes()
        # Blocks of equal size stand together: (number, dims) of those of findings, attributes and ordinal attributes.
        runs = [(n_findings, finding_units), (sum(self.attribute_blocks), attribute_units), (n_ordinals, ordinal_units)]
        self.n_finding_dims, self.n_dims = n_findings * finding_units, sum(number * units for number, units in runs)
        self.units = np.repeat([units for _, units in runs], [number for number, _ in runs])  # of each concept's block
        self.to_blocks = keras.layers.Dense(self.n_dims, dtype="float32", name="to_blocks")
        if use_graph:
            self.masks = BlockMasks(runs, mask_units, dtype="float32", name="masks")
        if supervised:
            self.label_masks = BlockMasks(runs[1:], mask_units, dtype="float32", name="label_masks")
        hidden = [keras.layers.Dense(n, "elu", dtype="float32", name=f"head_{i}") for i, n in enumerate(self.head_hidden)]
        self.head = [*hidden, keras.layers.Dense(n_findings, dtype="float32", name="logits")]
        self.noise_seed = keras.random.SeedGenerator(seed)

    def _check_sizes(self) -> None:
        for name in SIZES:
            given, least = getattr(self, name), 0 if name == "n_ordinals" else 1
            if min(given if isinstance(given, tuple) else (given,), default=least) < least:
                raise ValueError(f"CausalNoise needs {name} of at least {least}; got {given}.")
        if self.supervised and not (self.use_graph and (self.attribute_blocks or self.n_ordinals)):
            raise ValueError("CausalNoise(supervised=True) needs use_graph=True and attributes, which it supervises.")

    def build(self, input_shape) -> None:
        if len(input_shape) not in (2, 4):
            raise ValueError(f"CausalNoise takes vectors [n, d] or maps [n, h, w, c]; got shape {tuple(input_shape)}.")
        self.to_blocks.build((None, input_shape[-1]))
        for layer, width in zip(self.head, (self.n_dims, *self.head_hidden), strict=True):
            layer.build((None, width))
        if self.use_graph:
            self.graph = self.add_weight(shape=(self.n_dims, self.n_dims), initializer="zeros", name="graph")
            self.masks.build((None, self.n_dims))
        if self.supervised:
            self.label_masks.build((None, self.n_attribute_dims))
        self.variance = self.add_weight(shape=(self.n_attribute_dims,), initializer="zeros", trainable=False, name="variance")
        self.n_batches = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="n_batches")

    @property
    def n_attribute_dims(self) -> int:
        """Dims of the attributes' blocks: the last ones."""
        return self.n_dims - self.n_finding_dims

    def adjacency(self):
        """Returns A, `[D, D]`, its diagonal 0."""
        return self.graph * (1 - ops.eye(self.n_dims))

    def call(self, inputs, training=None):
        """Returns logits `[n, L]`."""
        blocks = self.rebuild(self.to_blocks(pool(inputs)))
        if not (training and self.use_noise and self.n_attribute_dims):
            return self.classify(blocks)
        return ops.mean(self.classify(self.noisy_copies(blocks, self.next_variance(blocks))), axis=0)

    def rebuild(self, e):
        """Returns z', each block rebuilt from its causes, from blocks e: `[n, D] -> [n, D]`."""
        if not self.use_graph:
            return e
        # z (I - A) = e, so z A = z - e: one system of equations gives both.
        z = ops.transpose(ops.solve(ops.transpose(ops.eye(self.n_dims) - self.adjacency()), ops.transpose(e)))
        return self.masks(z - e) + e

    def next_variance(self, blocks):
        """Moves the running variance of the attributes' dims by a batch `[n, D]` and returns it, `[attribute dims]`."""
        seen = ops.var(ops.stop_gradient(blocks[:, self.n_finding_dims :]), axis=0)
        moved = ops.where(self.n_batches == 0, seen, (2 * self.variance + seen) / 3)
        self.variance.assign(moved)
        self.n_batches.assign(self.n_batches + 1)
        return moved

    def noisy_copies(self, blocks, scale):
        """Returns copies whose attributes' dims have noise of standard deviation `scale`: `[n, D] -> [copies, n, D]`."""
        copies = ops.repeat(ops.expand_dims(blocks, 0), self.copies, axis=0)
        shape = (self.copies, ops.shape(blocks)[0], self.n_attribute_dims)
        noise = keras.random.normal(shape, dtype="float32", seed=self.noise_seed) * scale
        return copies + ops.pad(noise, ((0, 0), (0, 0), (self.n_finding_dims, 0)))

    def classify(self, blocks):
        """Returns logits: `[..., D] -> [..., L]`."""
        for layer in self.head:
            blocks = layer(blocks)
        return blocks

    def supervision_loss(self, u):
        """How badly recorded attributes come back from what the graph makes of all that is recorded.

        Each value is repeated over its concept's block; `f_u(u A)`, f_u of the form of f with weights of its own, is compared
        with the attributes' dims of u: binary cross-entropy on logits for attributes, absolute difference for ordinal ones,
        averaged over an attribute's dims and summed over attributes. The published loss has no term for findings, so they have
        no f_u here. An unknown value enters as 0 and is not asked for.

        A dim may be told from the others of its own block, which hold the same value, as only the diagonal of A is closed. And
        nothing here asks the blocks e of the image for the attribute: the two paths share A alone.

        Args:
            u: `[n, concepts] float32`, in block order: findings, attributes' groups in {0, 1}, ordinals in [0, 1]; or NaN.

        Returns:
            `[n]`.

        Raises:
            ValueError: a layer that is not `supervised`.
        """
        if not self.supervised:
            raise ValueError("CausalNoise has a supervision_loss only if it is made with supervised=True.")
        first, n_groups = self.n_finding_dims, sum(self.attribute_blocks) * self.attribute_units
        concept_of_dim = np.repeat(np.arange(len(self.units)), self.units)
        spread = ops.take(u, concept_of_dim, axis=1)  # [n, D]
        filled = ops.where(is_known(spread), spread, ops.zeros_like(spread))
        rebuilt = self.label_masks(ops.matmul(filled, self.adjacency()[:, first:]))  # [n, attribute dims]
        wanted = filled[:, first:]
        told = ops.binary_crossentropy(wanted[:, :n_groups], rebuilt[:, :n_groups], from_logits=True)
        ordered = ops.abs(wanted[:, n_groups:] - rebuilt[:, n_groups:])
        losses = ops.concatenate([told, ordered], axis=1)
        dims = [*(number * self.attribute_units for number in self.attribute_blocks), *[self.ordinal_units] * self.n_ordinals]
        shares = ops.convert_to_tensor(np.repeat(1 / np.array(dims), dims), "float32")  # the mean over each attribute's dims
        return ops.sum(ops.where(is_known(spread[:, first:]), losses * shares, ops.zeros_like(losses)), axis=1)

    def acyclicity_penalty(self):
        """Returns `3 h + h^2 / 2`, a scalar, h of `acyclicity`."""
        h = acyclicity(self.adjacency())
        return FIRST_ORDER * h + SECOND_ORDER * h**2

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.n_findings)

    def get_config(self) -> dict:
        return {**super().get_config(), **{name: getattr(self, name) for name in (*SIZES, *SWITCHES, "seed")}}
