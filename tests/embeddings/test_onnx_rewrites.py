"""Changes of an exported graph: made where they keep the function, left where they would not."""

from collections import Counter

import numpy as np
import pytest

from biascxr.embeddings.onnx_rewrites import join_scale_and_shift, pad_in_pool, pool_first, rewrite

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import helper, numpy_helper  # noqa: E402

CHANNELS, SIDE = 5, 8
RNG = np.random.default_rng(0)


def graph_of(nodes, constants, shape=(1, CHANNELS, SIDE, SIDE), outputs=("y",), rank=4):
    return helper.make_model(
        helper.make_graph(
            nodes, "g",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list("abcde"[:rank])) for name in outputs],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 15)], ir_version=8,
    )  # fmt: skip


def outputs_of(model, x):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})


def check_unchanged(model, change, n_expected):
    """Applies a change, and compares what the graph gives before and after it."""
    x = RNG.normal(size=[d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]).astype(np.float32)
    before = outputs_of(model, x)
    assert change(model) == n_expected
    onnx.checker.check_model(model, full_check=True)
    for left, right in zip(outputs_of(model, x), before, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
    return Counter(node.op_type for node in model.graph.node)


def per_channel(n=CHANNELS):
    return RNG.normal(size=(1, n, 1, 1)).astype(np.float32)


@pytest.mark.parametrize("swapped", [False, True], ids=["constant last", "constant first"])
def test_a_product_and_a_sum_per_channel_become_one_normalisation(swapped):
    order = slice(None, None, -1 if swapped else 1)
    nodes = [
        helper.make_node("Mul", ["x", "scale"][order], ["m"]),
        helper.make_node("Add", ["m", "shift"][order], ["a"]),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    model = graph_of(nodes, {"scale": per_channel(), "shift": per_channel()})
    assert check_unchanged(model, join_scale_and_shift, 1) == {"BatchNormalization": 1, "Relu": 1}
    assert not {"scale", "shift"} & {item.name for item in model.graph.initializer}, "constants that nothing reads are left"


@pytest.mark.parametrize(
    ("scale", "shift"),
    [
        (np.ones((1, 1, 1, 1), np.float32), per_channel()),  # one number for all channels
        (per_channel(), RNG.normal(size=(1, CHANNELS, SIDE, SIDE)).astype(np.float32)),  # a sum per pixel
        (per_channel(), RNG.normal(size=SIDE).astype(np.float32)),  # a sum per column
    ],
    ids=["one scale", "per pixel", "per column"],
)
def test_products_and_sums_that_are_no_normalisation_stay(scale, shift):
    nodes = [helper.make_node("Mul", ["x", "scale"], ["m"]), helper.make_node("Add", ["m", "shift"], ["y"])]
    kinds = check_unchanged(graph_of(nodes, {"scale": scale, "shift": shift}), join_scale_and_shift, 0)
    assert kinds == {"Mul": 1, "Add": 1}


@pytest.mark.parametrize(
    ("x", "constant"),
    [
        ((1, 3, 3, 4, 4), (1, 3, 1, 1)),  # volumes: the constant's axis is not the channels'
        ((3, 3, 4), (3, 1, 1)),
        ((1, 1, 4, 4), (1, 3, 1, 1)),  # one channel becomes three
        ((1, 3, 4, 4), (1, 1, 1, 1)),  # one number for all
    ],
    ids=str,
)
def test_what_is_read_must_be_maps_of_as_many_channels(x, constant):
    scale, shift = RNG.normal(size=(2, *constant)).astype(np.float32)
    nodes = [helper.make_node("Mul", ["x", "scale"], ["m"]), helper.make_node("Add", ["m", "shift"], ["y"])]
    check_unchanged(graph_of(nodes, {"scale": scale, "shift": shift}, shape=x, rank=len(x)), join_scale_and_shift, 0)


def test_a_graph_with_a_branch_is_left_as_it_is():
    nodes = [helper.make_node("Mul", ["x", "scale"], ["m"]), helper.make_node("Add", ["m", "shift"], ["y"])]
    model = graph_of(nodes, {"scale": per_channel(), "shift": per_channel()})
    inner = helper.make_graph(
        [helper.make_node("Identity", ["m"], ["i"])],
        "inner", [], [helper.make_tensor_value_info("i", onnx.TensorProto.FLOAT, None)],
    )  # fmt: skip
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("If", ["yes"], ["o"], then_branch=inner, else_branch=inner))
    assert rewrite(model) == {} and model.graph.node[0].op_type == "Mul"


def test_a_product_that_is_read_elsewhere_too_stays():
    nodes = [helper.make_node("Mul", ["x", "scale"], ["m"]), helper.make_node("Add", ["m", "shift"], ["y"])]
    model = graph_of(nodes, {"scale": per_channel(), "shift": per_channel()}, outputs=("y", "m"))
    assert check_unchanged(model, join_scale_and_shift, 0)["Mul"] == 1


def padded_pool(pads, *, kernel=3, before="Relu", value=None, mode="constant", outputs=("y",)):
    nodes = [
        helper.make_node(before, ["x"], ["r"]),
        helper.make_node("Pad", ["r", "pads"] + (["value"] if value is not None else []), ["p"], mode=mode),
        helper.make_node("MaxPool", ["p"], ["y"], kernel_shape=[kernel, kernel], strides=[2, 2]),
    ]
    constants = {"pads": np.array(pads, np.int64)} | ({} if value is None else {"value": np.array(value, np.float32)})
    return graph_of(nodes, constants, outputs=outputs)


@pytest.mark.parametrize("pads", [(0, 0, 1, 1, 0, 0, 1, 1), (0, 0, 2, 0, 0, 0, 1, 2)])
@pytest.mark.parametrize("value", [None, 0.0])
def test_a_pooling_lays_zeros_around_a_relu_by_itself(pads, value):
    model = padded_pool(pads, value=value)
    assert check_unchanged(model, pad_in_pool, 1) == {"Relu": 1, "MaxPool": 1}
    assert not model.graph.initializer, "constants that nothing reads are left; ONNX Runtime would warn of each"


@pytest.mark.parametrize(
    "given",
    [
        {"before": "Neg"},  # below 0, minus infinity and 0 are not the same
        {"value": 1.0},
        {"mode": "edge"},
        {"outputs": ("y", "p")},
        {"kernel": 1},  # a window that holds zeros alone
        {"pads": (0, 1, 1, 1, 0, 0, 1, 1)},  # a channel more
        {"pads": (0, 0, -1, 1, 0, 0, 1, 1)},  # a row taken away
    ],
    ids=lambda given: next(iter(given)),
)
def test_a_padding_that_is_more_than_that_stays(given):
    assert check_unchanged(padded_pool(**{"pads": (0, 0, 1, 1, 0, 0, 1, 1)} | given), pad_in_pool, 0)["Pad"] == 1


@pytest.mark.slow
def test_densenet_is_rewritten_wholly_and_stays_the_same_function(tmp_path):
    keras = pytest.importorskip("keras")
    pytest.importorskip("tf2onnx")
    from biascxr.embeddings import onnx_graph

    model = keras.applications.DenseNet121(weights=None, include_top=False, pooling="avg", input_shape=(64, 64, 1))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):  # as training leaves them; untrained ones have nothing to join
            n = layer.gamma.shape[0]
            scales, shifts = RNG.uniform(0.5, 1.5, (2, n)), RNG.normal(0, 0.3, (2, n))
            layer.set_weights([scales[0], shifts[0], shifts[1], scales[1]])
    onnx_graph.export(model, tmp_path / "graph.onnx")
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "graph.onnx").graph.node)
    # Of 121 normalisations the exporter joins those that a convolution feeds with it, and 62 are left.
    assert kinds["BatchNormalization"] == 62 and not {"Mul", "Add", "Pad"} & set(kinds)
    images = RNG.random((2, 64, 64, 1)).astype(np.float32)
    expected = model.predict(images, verbose=0)
    found = onnx_graph.GraphSession(tmp_path / "graph.onnx")(images)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_every_change_is_counted():
    model = padded_pool((0, 0, 1, 1, 0, 0, 1, 1))
    assert rewrite(model) == {"pool_first": 0, "join_scale_and_shift": 0, "pad_in_pool": 1}
    assert pool_first(model) == 0
