"""Changes of an ONNX graph that leave its function as it is and make it cheaper for ONNX Runtime on a processor.

What an exporter writes for DenseNet is correct, but costs more than it need: a normalisation comes as a product and a sum,
which ONNX Runtime computes in another memory layout than its convolutions and copies there and back; zeros are laid around an
image in a pass of their own; and each transition convolves pixels that its pooling then averages.
"""

from __future__ import annotations

import numpy as np


def rewrite(model) -> dict[str, int]:
    """Makes every change below, in place. A graph with branches or loops is left as it is: they may read any value around them.

    Args:
        model: an `onnx.ModelProto`.

    Returns:
        How often each change was made, by name.
    """
    changes = (join_scale_and_shift, pool_first, pad_in_pool)
    if any(attribute.HasField("g") or attribute.graphs for node in model.graph.node for attribute in node.attribute):
        changes = ()
    return {change.__name__: change(model) for change in changes}


def pool_first(model) -> int:
    """Moves each average pooling before the 1x1 convolution that feeds it: the same function, a quarter of the products.

    Both are linear, and a 1x1 convolution mixes channels where the pooling mixes pixels, so they commute as long as the
    convolution adds no bias that zero padding would dilute: a pooling with padding stays where it is. DenseNet has three such
    pairs, its transitions (Huang et al., CVPR 2017, section 3).

    Args:
        model: an `onnx.ModelProto`, changed in place.

    Returns:
        Number of pairs exchanged.
    """
    graph, n_moved = model.graph, 0
    view = _View(graph)
    for pool in [node for node in graph.node if node.op_type == "AveragePool"]:
        convolution = view.only_maker(pool.input[0], "Conv")
        if convolution is None:
            continue
        settings = _lists(convolution)
        is_plain = (
            view.shape(convolution.input[1])[2:] == [1, 1]
            and set(settings.get("strides", [1])) == {1}
            and set(settings.get("pads", [0])) == {0}
            and not _pads_itself(pool)
        )
        if not is_plain:
            continue
        before, between, after = convolution.input[0], pool.input[0], pool.output[0]
        pool.input[0], pool.output[0] = before, between
        convolution.input[0], convolution.output[0] = between, after
        n_moved += 1
    _sort(graph)
    return n_moved


def join_scale_and_shift(model) -> int:
    """Writes `x * scale + shift`, one scale and shift a channel, as one BatchNormalization of mean 0 and variance 1.

    ONNX Runtime's optimizer knows it as such, leaves it in the layout of the convolutions around it, and joins the ReLU behind
    it. Without, a DenseNet121 whose statistics are those of training copies every feature map of 62 normalisations twice.

    Args:
        model: an `onnx.ModelProto`, changed in place.

    Returns:
        Number of products and sums joined.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    view, n_channels = _View(graph), _channels(model)
    joined, gone = {}, set()  # by the values they make, which nothing else makes
    for add in [node for node in graph.node if node.op_type == "Add"]:
        for value, other in (tuple(add.input), tuple(add.input)[::-1]):
            shift, product = view.per_channel(other), view.only_maker(value, "Mul")
            if shift is None or product is None:
                continue
            given = [(v, view.per_channel(o)) for v, o in (tuple(product.input), tuple(product.input)[::-1])]
            source, scale = next(((v, s) for v, s in given if s is not None), (None, None))
            if scale is None or not len(scale) == len(shift) == n_channels.get(source):
                continue
            arrays = {"scale": scale, "shift": shift, "mean": np.zeros_like(scale), "variance": np.ones_like(scale)}
            names = {name: f"{add.output[0]}/{name}" for name in arrays}
            graph.initializer.extend(numpy_helper.from_array(array, names[name]) for name, array in arrays.items())
            joined[add.output[0]] = helper.make_node(
                "BatchNormalization", [source, *names.values()], [add.output[0]], name=f"{add.name}/joined", epsilon=0.0
            )
            gone.add(product.output[0])
            break
    nodes = [joined.get(node.output[0], node) for node in graph.node if node.output[0] not in gone]
    _replace_nodes(graph, nodes)
    return len(joined)


def pad_in_pool(model) -> int:
    """Lets a maximum pooling lay zeros around a ReLU's output by itself, in place of a padding before it.

    The pooling's own padding is minus infinity in place of 0; both are the same where every window holds a number of at least
    0, which a ReLU's output is. Windows must be larger than the padding, so that each holds one.

    Args:
        model: an `onnx.ModelProto`, changed in place.

    Returns:
        Number of paddings taken in.
    """
    from onnx import helper

    graph, gone = model.graph, set()
    view = _View(graph)
    for pool in [node for node in graph.node if node.op_type == "MaxPool"]:
        pad = view.only_maker(pool.input[0], "Pad")
        if pad is None or view.only_maker(pad.input[0], "Relu", shared=True) is None or _pads_itself(pool):
            continue
        mode = next((a.s for a in pad.attribute if a.name == "mode"), b"constant")
        values = [view.array(name) for name in pad.input[1:]]
        if mode != b"constant" or len(values) not in (1, 2) or any(v is None for v in values) or np.any(values[1:]):
            continue
        amounts = values[0].reshape(2, -1)
        kernel = _lists(pool).get("kernel_shape", [])
        is_around = amounts.shape[1] == 2 + len(kernel) and not amounts[:, :2].any() and (amounts >= 0).all()
        if not is_around or not (amounts[:, 2:] < np.array(kernel)).all():
            continue
        pool.input[0] = pad.input[0]
        for attribute in [a for a in pool.attribute if a.name in ("pads", "auto_pad")]:
            pool.attribute.remove(attribute)
        pool.attribute.append(helper.make_attribute("pads", [int(n) for n in amounts[:, 2:].ravel()]))
        gone.add(pad.output[0])
    _replace_nodes(graph, [node for node in graph.node if node.output[0] not in gone])
    return len(gone)


class _View:
    """Who makes and who reads each value of a graph, and its constants."""

    def __init__(self, graph) -> None:
        self._constants = {item.name: item for item in graph.initializer}
        self._maker = {output: node for node in graph.node for output in node.output}
        self._n_readers: dict[str, int] = {}
        for name in [name for node in graph.node for name in node.input] + [output.name for output in graph.output]:
            self._n_readers[name] = self._n_readers.get(name, 0) + 1

    def only_maker(self, name: str, op_type: str, *, shared: bool = False):
        """Returns the node of a type that makes a value, or None; None too where others read the value, unless `shared`."""
        node = self._maker.get(name)
        is_free = shared or self._n_readers.get(name) == 1
        return node if node is not None and node.op_type == op_type and is_free else None

    def shape(self, name: str) -> list[int]:
        """Returns a constant's shape, or an empty list."""
        return list(self._constants[name].dims) if name in self._constants else []

    def array(self, name: str) -> np.ndarray | None:
        """Returns a constant, or None."""
        from onnx import numpy_helper

        return numpy_helper.to_array(self._constants[name]) if name in self._constants else None

    def per_channel(self, name: str) -> np.ndarray | None:
        """Returns a constant of shape `[1, C, 1, 1]` or `[C, 1, 1]` float32 as `[C]`, or None."""
        shape = self.shape(name)
        if shape[-2:] != [1, 1] or len(shape) not in (3, 4) or (len(shape) == 4 and shape[0] != 1):
            return None
        array = self.array(name)
        return array.reshape(-1) if array.dtype == np.float32 else None


def _channels(model) -> dict[str, int]:
    """Returns the channels of each value that is known to be maps `[n, c, h, w]`, by its name."""
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model).graph
    shapes = {v.name: v.type.tensor_type.shape.dim for v in (*graph.input, *graph.value_info, *graph.output)}
    return {name: shape[1].dim_value for name, shape in shapes.items() if len(shape) == 4}


def _lists(node) -> dict[str, list[int]]:
    """Returns a node's settings that are lists of whole numbers."""
    return {a.name: list(a.ints) for a in node.attribute if a.ints}


def _pads_itself(pool) -> bool:
    """Returns whether a pooling has padding of its own, or windows that reach beyond the image."""
    pads = any(_lists(pool).get("pads", []))
    automatic = any(a.name == "auto_pad" and a.s not in (b"NOTSET", b"VALID") for a in pool.attribute)
    return pads or automatic or any(a.name == "ceil_mode" and a.i for a in pool.attribute)


def _sort(graph) -> None:
    """Puts the nodes into an order in which each stands behind what it reads, as ONNX asks for."""
    waiting, known = list(graph.node), {item.name for item in graph.initializer} | {item.name for item in graph.input} | {""}
    ordered = []
    while waiting:
        ready = [node for node in waiting if all(name in known for name in node.input)]
        if not ready:
            raise ValueError("The graph has a cycle, or reads what nothing makes.")
        ordered += ready
        known |= {name for node in ready for name in node.output}
        waiting = [node for node in waiting if not any(node is r for r in ready)]
    _replace_nodes(graph, ordered)


def _replace_nodes(graph, nodes: list) -> None:
    """Makes these the graph's nodes, and takes out constants that none of them reads."""
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name not in read:
            del graph.initializer[index]
