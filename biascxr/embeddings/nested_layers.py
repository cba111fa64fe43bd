"""Layers of a Keras model by name, those inside a model that is a layer of it too, as transfer learning nests them."""

from __future__ import annotations

SEPARATOR = "/"  # Keras allows it in no layer's name


def layer_names(model) -> list[str]:
    """Returns the names of a model's layers in its order, and behind a nested model those inside: `densenet121/relu`."""
    names = []
    for layer in model.layers:
        names.append(layer.name)
        if _is_nested(layer):
            names += [f"{layer.name}{SEPARATOR}{inner}" for inner in layer_names(layer)]
    return names


def output_of(model, name: str):
    """Returns what a layer gives, as a tensor of the model's own graph.

    A nested model has a graph of its own, which the outer one does not enter: it is cut at the layer and called on what the
    outer graph gives to the nested model.

    Args:
        model: a functional or sequential model.
        name: one of `layer_names`.

    Raises:
        ValueError, AttributeError: the layer has no single output there.
    """
    import keras

    first, _, rest = name.partition(SEPARATOR)
    layer = model.get_layer(first)
    if not rest:
        return keras.Layer.output.fget(layer)  # a model's own `output` would be that of its own graph
    cut = keras.Model(layer.inputs, output_of(layer, rest), name=layer.name)
    return cut(keras.Layer.input.fget(layer))


def last_pooling(model) -> str | None:
    """Returns the name of the last global pooling that everything passes which a model says of an image, or None.

    A pooling inside a squeeze-and-excitation block has a way round it, and is no summary of the image.
    """
    for layer in reversed(model.layers):
        is_pool, inside = type(layer).__name__.startswith("Global"), last_pooling(layer) if _is_nested(layer) else None
        if (is_pool or inside) and _all_passes(model, layer):
            return layer.name if is_pool else f"{layer.name}{SEPARATOR}{inside}"
    return None


def _all_passes(model, layer) -> bool:
    import keras

    if isinstance(model, keras.Sequential):  # a chain; where it was loaded, its outputs are not of the graph of its layers' own
        return True
    given = keras.Layer.output.fget(layer)
    if all(output is given for output in model.outputs):
        return True
    try:
        keras.Model(given, model.outputs)
    except ValueError:  # there is a way round it
        return False
    return True


def _is_nested(layer) -> bool:
    """Returns whether a layer is a model with a graph; one that is written as a Python class has none to be cut."""
    import keras

    return isinstance(layer, keras.Model) and bool(getattr(layer, "inputs", None))
