"""The causal layer against its equations, by hand and in numpy; behind backbones and in models that are not ours."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from biascxr.models import CausalNoise
from biascxr.models.causal_graph import BlockMasks, acyclicity
from biascxr.models.fit import compilation

SMALL = {"finding_units": 3, "attribute_units": 2, "ordinal_units": 2, "mask_units": 5, "head_hidden": (4,), "seed": 1}
D_FINDINGS, D_ATTRIBUTES = 2 * 3, 4 * 2 + 2  # two findings; sex, a race of three groups, an age


def made(d: int | None = 7, **settings) -> CausalNoise:
    """A small layer of two findings, built for vectors of d numbers."""
    keras.utils.set_random_seed(0)
    layer = CausalNoise(2, (1, 3), n_ordinals=1, **SMALL | settings)
    if d:
        layer.build((None, d))
    return layer


def with_graph(layer: CausalNoise, scale: float = 0.1) -> CausalNoise:
    """Gives the layer a full graph; its diagonal must not count."""
    layer.graph.assign(scale * np.random.default_rng(3).normal(size=layer.graph.shape))
    return layer


def vectors(n: int = 9, d: int = 7, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def to_numpy(x) -> np.ndarray:
    return ops.convert_to_numpy(x)


class TestPlainForm:
    def test_without_noise_and_with_a_graph_of_zeros_the_classifier_sees_the_blocks_as_they_are(self):
        layer, x = made(use_noise=False), vectors()
        np.testing.assert_array_equal(to_numpy(layer(x, training=True)), to_numpy(layer.classify(layer.to_blocks(x))))

    def test_without_a_graph_too_and_a_graph_that_is_not_zero_changes_the_logits(self):
        plain, x = made(use_graph=False), vectors()
        np.testing.assert_array_equal(to_numpy(plain(x)), to_numpy(plain.classify(plain.to_blocks(x))))
        layer = made()
        before = to_numpy(layer(x))
        assert np.abs(to_numpy(with_graph(layer)(x)) - before).max() > 1e-3

    def test_a_map_is_its_mean_over_the_places(self):
        layer, maps = with_graph(made()), np.random.default_rng(1).normal(size=(4, 2, 3, 7)).astype(np.float32)
        np.testing.assert_allclose(to_numpy(layer(maps)), to_numpy(layer(maps.mean(axis=(1, 2)))), atol=1e-6)


class TestGraph:
    def test_blocks_are_rebuilt_from_what_numpy_says_their_causes_are(self):
        layer = with_graph(made())
        e, graph = vectors(5, layer.n_dims), to_numpy(layer.graph).astype(float)
        np.fill_diagonal(graph, 0)
        causes = e @ np.linalg.inv(np.eye(len(graph)) - graph) @ graph
        expected = to_numpy(layer.masks(causes.astype(np.float32))) + e
        np.testing.assert_allclose(to_numpy(layer.rebuild(e)), expected, atol=1e-5)

    def test_the_gradient_reaches_every_effect_but_those_of_a_dim_on_itself(self):
        model = keras.Sequential([keras.Input((7,)), made(d=None, use_noise=False)])
        model.compile(optimizer=keras.optimizers.SGD(1.0), loss="mse", run_eagerly=True)
        model.train_on_batch(vectors(), np.ones((9, 2), np.float32))
        moved = to_numpy(model.layers[0].graph)
        assert (np.diag(moved) == 0).all()
        assert (moved[~np.eye(len(moved), dtype=bool)] != 0).mean() > 0.9

    def test_a_block_is_rebuilt_from_its_own_part_alone_by_its_own_network(self):
        masks = BlockMasks([(2, 3), (1, 2)], 4)
        masks.build((None, 8))
        x = vectors(6, 8)
        whole = to_numpy(masks(x))
        (first, second), start = (masks.kernels[0], masks.kernels[1]), 3  # the second block of three dims
        hidden = x[:, start : start + 3] @ to_numpy(first[0])[1] + to_numpy(first[1])[1]
        hidden = np.where(hidden > 0, hidden, np.expm1(hidden))
        expected = hidden @ to_numpy(second[0])[1] + to_numpy(second[1])[1]
        np.testing.assert_allclose(whole[:, start : start + 3], expected, atol=1e-6)
        x[:, start : start + 3] += 1
        changed = (to_numpy(masks(x)) != whole).any(axis=0)
        np.testing.assert_array_equal(changed, [False] * 3 + [True] * 3 + [False] * 2)


class TestNoise:
    def test_it_is_off_at_prediction_and_leaves_the_state_alone(self):
        layer, x = with_graph(made()), vectors()
        np.testing.assert_array_equal(to_numpy(layer(x)), to_numpy(layer.classify(layer.rebuild(layer.to_blocks(x)))))
        assert int(layer.n_batches) == 0 and not to_numpy(layer.variance).any()

    def test_it_touches_the_blocks_of_attributes_alone(self):
        layer, blocks = made(), vectors(5, D_FINDINGS + D_ATTRIBUTES)
        copies = to_numpy(layer.noisy_copies(blocks, np.ones(D_ATTRIBUTES, np.float32)))
        np.testing.assert_array_equal(copies[..., :D_FINDINGS], np.repeat(blocks[None, :, :D_FINDINGS], 10, axis=0))
        assert (copies[..., D_FINDINGS:] != blocks[:, D_FINDINGS:]).all()

    def test_its_standard_deviation_is_the_variance_of_a_dim(self):
        layer, blocks = made(copies=400), np.zeros((50, D_FINDINGS + D_ATTRIBUTES), np.float32)
        scale = np.linspace(0, 3, D_ATTRIBUTES).astype(np.float32)
        noise = to_numpy(layer.noisy_copies(blocks, scale))[..., D_FINDINGS:]
        np.testing.assert_allclose(noise.std(axis=(0, 1)), scale, rtol=0.03)
        np.testing.assert_allclose(noise.mean(axis=(0, 1)), 0, atol=0.1)

    def test_logits_in_training_are_the_mean_over_ten_noisy_copies(self):
        x, layer, again = vectors(), made(), made()
        blocks = layer.rebuild(layer.to_blocks(x))
        copies = to_numpy(layer.noisy_copies(blocks, layer.next_variance(blocks)))
        assert copies.shape == (10, 9, D_FINDINGS + D_ATTRIBUTES)
        expected = np.mean([to_numpy(layer.classify(copy)) for copy in copies], axis=0)
        np.testing.assert_allclose(to_numpy(again(x, training=True)), expected, atol=1e-5)
        assert np.abs(expected - to_numpy(layer(x))).max() > 1e-3

    def test_a_seed_decides_it_and_every_batch_gets_another(self):
        x = vectors()
        layer, again, other = made(), made(), made(seed=2)
        first = to_numpy(layer(x, training=True))
        np.testing.assert_array_equal(to_numpy(again(x, training=True)), first)
        assert (to_numpy(other(x, training=True)) != first).any()
        assert (to_numpy(layer(x, training=True)) != first).any()

    def test_the_first_batch_sets_the_variance_and_each_later_one_is_a_third_of_it(self):
        layer, expected = made(), None
        for seed in range(4):
            x = vectors(seed=seed) * (seed + 1)
            layer(x, training=True)
            seen = to_numpy(layer.to_blocks(x))[:, D_FINDINGS:].var(axis=0)
            expected = seen if expected is None else (2 * expected + seen) / 3
            np.testing.assert_allclose(to_numpy(layer.variance), expected, rtol=1e-5)


class TestAcyclicity:
    @staticmethod
    def ordered(m: int = 13) -> np.ndarray:
        """Effects of earlier dims on later ones, the dims then shuffled."""
        rng = np.random.default_rng(0)
        order = rng.permutation(m)
        return np.triu(rng.normal(size=(m, m)), 1)[np.ix_(order, order)].astype(np.float32)

    def test_it_is_exactly_0_without_a_cycle_and_above_with_one_of_any_length(self):
        graph = self.ordered()
        assert float(acyclicity(ops.convert_to_tensor(graph))) == 0.0
        tail, head = np.argwhere(graph)[0]
        graph[head, tail] = 0.5
        assert float(acyclicity(ops.convert_to_tensor(graph))) > 0
        ring = np.roll(np.eye(6, dtype=np.float32), 1, axis=1)
        assert float(acyclicity(ops.convert_to_tensor(ring))) > 0
        ring[0, 1] = 0
        assert float(acyclicity(ops.convert_to_tensor(ring))) == 0.0

    @pytest.mark.parametrize("m", [1, 2, 7, 16, 23])
    def test_it_is_the_trace_of_the_matrix_power_less_m(self, m):
        graph = np.random.default_rng(m).normal(size=(m, m)).astype(np.float32)
        expected = np.trace(np.linalg.matrix_power(np.eye(m) + graph.astype(float) ** 2 / m, m)) - m
        np.testing.assert_allclose(float(acyclicity(ops.convert_to_tensor(graph))), expected, rtol=1e-4)

    def test_a_small_one_keeps_its_digits(self):
        graph = np.array([[0, 1e-4], [1e-4, 0]], np.float32)
        np.testing.assert_allclose(float(acyclicity(ops.convert_to_tensor(graph))), 2 * (1e-8 / 2) ** 2, rtol=1e-4)

    def test_the_penalty_is_3_h_and_half_its_square(self):
        layer = with_graph(made(), 0.5)
        h = float(acyclicity(layer.adjacency()))
        assert h > 0.1 and float(layer.acyclicity_penalty()) == pytest.approx(3 * h + 0.5 * h * h, rel=1e-5)
        layer.graph.assign(np.eye(layer.n_dims))
        assert float(layer.acyclicity_penalty()) == 0


class TestSupervision:
    U = np.array([[1, 0, 1, 0, 1, 0, 0.25], [0, 1, 0, 0, 0, 1, 1.0]], np.float32)  # 2 findings, sex, race of 3, age

    def test_it_is_cross_entropy_and_absolute_difference_worked_out_in_numpy(self):
        layer = with_graph(made(supervised=True))
        graph = to_numpy(layer.graph) * (1 - np.eye(layer.n_dims, dtype=np.float32))
        spread = np.repeat(self.U, [3, 3, 2, 2, 2, 2, 2], axis=1)
        rebuilt = to_numpy(layer.label_masks((spread @ graph)[:, D_FINDINGS:]))
        wanted = spread[:, D_FINDINGS:]
        p = 1 / (1 + np.exp(-rebuilt[:, :8]))
        bce = -(wanted[:, :8] * np.log(p) + (1 - wanted[:, :8]) * np.log(1 - p))
        expected = bce[:, :2].mean(axis=1) + bce[:, 2:].mean(axis=1) + np.abs(wanted - rebuilt)[:, 8:].mean(axis=1)
        np.testing.assert_allclose(to_numpy(layer.supervision_loss(self.U)), expected, rtol=1e-4)

    def test_an_unknown_attribute_adds_nothing_and_an_unknown_label_counts_as_0(self):
        layer, u = with_graph(made(supervised=True)), self.U.copy()
        u[0, 2:], u[1, 0] = np.nan, np.nan
        losses = to_numpy(layer.supervision_loss(u))
        assert losses[0] == 0
        as_0 = self.U.copy()
        as_0[1, 0] = 0
        np.testing.assert_array_equal(losses[1], to_numpy(layer.supervision_loss(as_0))[1])

    def test_it_teaches_the_graph_and_its_own_networks_and_stays_finite_where_nothing_is_known(self):
        class Supervised(keras.Model):
            def __init__(self, layer):
                super().__init__()
                self.layer = layer

            def call(self, u, training=None):
                return self.layer.supervision_loss(u)

        for u, moves in ((self.U[:1], True), (np.full_like(self.U, np.nan), False)):
            layer = with_graph(made(supervised=True))
            before = [to_numpy(w) for w in layer.trainable_weights]
            model = Supervised(layer)
            model.compile(optimizer=keras.optimizers.SGD(0.1), loss=lambda _, losses: ops.sum(losses), run_eagerly=True)
            with pytest.warns(UserWarning, match="Gradients do not exist"):  # the path of the image plays no part here
                model.train_on_batch(u, np.zeros(len(u), np.float32))
            moved = {w.path for w, b in zip(layer.trainable_weights, before, strict=True) if (to_numpy(w) != b).any()}
            assert all(np.isfinite(to_numpy(w)).all() for w in layer.trainable_weights)
            wanted = {layer.graph.path} | {w.path for w in layer.label_masks.trainable_weights}
            assert moved == (wanted if moves else set())


class TestOnBackbones:
    """One layer that sits on any backbone's vector, in models that are not ours."""

    @staticmethod
    def dense_blocks() -> tuple:
        """Convolutions that see all maps before them, and end in a map."""
        image = x = keras.Input((16, 16, 1))
        for _ in range(2):
            new = keras.layers.Conv2D(4, 3, padding="same")(keras.layers.BatchNormalization()(x))
            x = keras.layers.Concatenate()([x, keras.layers.ReLU()(new)])
        return image, keras.layers.AveragePooling2D(4)(x)

    @staticmethod
    def perceptron() -> tuple:
        image = keras.Input((16, 16, 1))
        return image, keras.layers.Dense(12, activation="relu")(keras.layers.Flatten()(image))

    @pytest.mark.parametrize("backbone", ["dense_blocks", "perceptron"])
    def test_it_learns_in_a_model_of_anybodys_and_comes_back_from_disk(self, backbone, tmp_path):
        image, features = getattr(self, backbone)()
        model = keras.Model(image, made(d=None)(features))
        rng = np.random.default_rng(0)
        x, y = rng.random((8, 16, 16, 1)).astype(np.float32), rng.integers(0, 2, (8, 2)).astype(np.float32)
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        model.compile(optimizer="adam", loss=loss, **compilation())
        layer = model.layers[-1]
        before = [to_numpy(w) for w in layer.trainable_weights]
        model.fit(x, y, epochs=2, verbose=0)  # one step moves the graph, one more the networks, which saw 0 before
        for weight, start in zip(layer.trainable_weights, before, strict=True):
            assert (to_numpy(weight) != start).any(), weight.path
        assert int(layer.n_batches) == 2
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
        np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
        np.testing.assert_array_equal(to_numpy(again.layers[-1].variance), to_numpy(layer.variance))

    def test_its_settings_come_back(self):
        layer = made(copies=3, use_noise=False, supervised=True)
        assert CausalNoise.from_config(layer.get_config()).get_config() == layer.get_config()
        assert layer.get_config()["attribute_blocks"] == (1, 3)


class TestErrors:
    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"attribute_blocks": (1, 0)}, r"attribute_blocks of at least 1; got \(1, 0\)"),
            ({"copies": 0}, "copies of at least 1; got 0"),
            ({"n_ordinals": -1}, "n_ordinals of at least 0; got -1"),
            ({"supervised": True}, "needs use_graph=True and attributes"),
            ({"supervised": True, "attribute_blocks": (1,), "use_graph": False}, "needs use_graph=True and attributes"),
        ],
    )
    def test_wrong_sizes_are_named(self, wrong, message):
        with pytest.raises(ValueError, match=message):
            CausalNoise(2, **wrong)

    def test_what_cannot_be_asked_says_why(self):
        with pytest.raises(ValueError, match="only if it is made with supervised=True"):
            made().supervision_loss(TestSupervision.U)
        with pytest.raises(ValueError, match=r"vectors \[n, d\] or maps \[n, h, w, c\]; got shape \(None, 5, 7\)"):
            made(d=None).build((None, 5, 7))

    def test_without_attributes_it_still_has_a_graph_between_findings(self):
        keras.utils.set_random_seed(0)
        layer, x = CausalNoise(2, finding_units=3, mask_units=5), vectors()
        layer.build((None, 7))
        plain = to_numpy(layer(x, training=True))
        np.testing.assert_array_equal(plain, to_numpy(layer(x)))
        assert np.abs(to_numpy(with_graph(layer)(x)) - plain).max() > 1e-3
