"""Where in the network does the attribute appear? Each block of a convolutional encoder is read by the same probe.

What an early block holds is what any film shows in its grey values and edges; what only late blocks hold, the network made.
Block lengths differ (64 to 1,024 numbers in DenseNet121), so part of a rise from block to block is mere length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from biascxr.containers import EmbeddingSet
from biascxr.embeddings.base import Encoder
from biascxr.embeddings.keras_encoder import KerasEncoder
from biascxr.errors import InputError
from biascxr.leakage.growth import Task
from biascxr.records import decode, decode_example, read_records
from biascxr.records.shard_list import read_shard_list

LAST = "vector"  # the name of what the encoder itself gives
STEM, DENSE_BLOCK = "pool1", re.compile(r"conv(\d+)_block\d+_concat")
# They change the map's size for the next convolution's sake, and compute nothing.
PADDING = ("ZeroPadding2D", "Cropping2D", "InputLayer")


def read_blocks(task: Task, blocks: dict[str, EmbeddingSet]) -> list[dict]:
    """Reads the attribute from the vectors of each block.

    Args:
        task: what is read; its rows are those of every block's vectors.
        blocks: see `block_vectors`.

    Returns:
        Rows of `curves.csv` of the kind "block": `amount` counts from 1, `block` is the layer's name.
    """
    return [
        task.row(task.read(block.vectors), kind="block", amount=number, unit="block", block=name)
        for number, (name, block) in enumerate(blocks.items(), start=1)
    ]


def block_vectors(encoder: Encoder | None, records: Path, *, image_id: np.ndarray, batch: int) -> dict[str, EmbeddingSet]:
    """Runs the network over the films once and keeps one vector per block.

    Args:
        encoder: a Keras network (`densenet121`, `keras_file`, ...) as its `EncoderSpec` builds it, without a graph.
        records: folder of the records stage.
        image_id: `[n]`, the films wanted, in this order.
        batch: films per forward pass.

    Returns:
        Per block, from the first to the last, its map's global maximum or mean, whichever the encoder itself ends in (mean
        where it has none), `[n, channels] float32`; then `vector`, what the encoder itself gives. Sum of DenseNet121's: 3,904
        numbers a film.

    Raises:
        InputError: the encoder is no Keras network, or has no maps of a fixed size; a film is not among the records.
    """
    import keras

    _check_is_keras(encoder)
    maps = block_maps(encoder.model)
    if not maps:
        raise InputError(
            f"where blocks: expected a convolutional network whose maps have a fixed size; {encoder.card()['weights']} has "
            "none. Leave blocks out, or save the network with the records' --image_size as its input's."
        )
    pooling = pooling_of(encoder)
    pool = keras.layers.GlobalMaxPooling2D if pooling == "max" else keras.layers.GlobalAveragePooling2D
    outputs = {name: pool(data_format="channels_last")(tensor) for name, tensor in maps.items()}
    card = encoder.card()
    if card.get("map_shape") is None:
        outputs[LAST] = encoder.model.outputs[0]
    network = keras.Model(encoder.model.inputs[0], list(outputs.values()))
    found = vectors_of_films(
        lambda films, _: network.predict_on_batch(encoder.prepare(films)), records, image_id=image_id, batch=batch
    )
    views = np.zeros(len(image_id), np.int32)
    return {
        name: EmbeddingSet(image_id, views, vectors, card | {"layer": name, "pooling": pooling})
        for name, vectors in zip(outputs, found, strict=True)
    }


def _check_is_keras(encoder: Encoder | None) -> None:
    if isinstance(encoder, KerasEncoder):
        return
    what = "the vectors came ready made" if encoder is None else f"{encoder.name} runs as its own file says"
    raise InputError(
        f"where blocks: expected a Keras network as encoder, whose layers can be read; {what}. Leave blocks out, or give "
        "--weights a .keras file or the PyTorch weights of a DenseNet, and let the run embed the films."
    )


def pooling_of(encoder: KerasEncoder) -> str:
    """Returns "max" where the card says so, or the network's last global pooling is a maximum; otherwise "avg"."""
    from biascxr.embeddings.nested_layers import last_pooling

    stated = encoder.card().get("pooling")
    if stated in ("max", "avg"):
        return stated
    name = last_pooling(encoder.model)
    layer = encoder.model
    for part in name.split("/") if name else ():
        layer = layer.get_layer(part)
    return "max" if type(layer).__name__.startswith("GlobalMax") else "avg"


def block_maps(model) -> dict:
    """Returns the map that each block ends in, by its layer's name, as tensors of the model's own graph, in its order.

    A DenseNet's are the first pooling and the last concatenation of every dense block; what follows them (batch norm, the
    transition) belongs to the next. Of any other network: the last map of each size, of those that a smaller map is computed
    from; and the last of all. A nested model that has more of them than the outer one is entered.

    Args:
        model: a functional Keras model, maps channels last.
    """
    import keras

    best = _own_maps(model)
    for layer in model.layers:
        if not isinstance(layer, keras.Model) or not getattr(layer, "inputs", None):
            continue
        inner = block_maps(layer)
        if len(inner) > len(best):
            cut = keras.Model(layer.inputs, list(inner.values()), name=f"{layer.name}_blocks")
            made = cut(keras.Layer.input.fget(layer))
            tensors = made if isinstance(made, (list, tuple)) else [made]
            best = {f"{layer.name}/{name}": tensor for name, tensor in zip(inner, tensors, strict=True)}
    return best


def _own_maps(model) -> dict:
    layers = [layer for layer in model.layers if type(layer).__name__ not in PADDING]
    maps = {layer.name: tensor for layer in layers if (tensor := _map_of(layer)) is not None}
    dense = {match[1]: name for name in maps if (match := DENSE_BLOCK.fullmatch(name))}  # the last one of a block stays
    if dense:
        names = [STEM] * (STEM in maps) + list(dense.values())
        return {name: maps[name] for name in names}
    is_left = _names_that_are_left(model, maps)
    last_of_size = {tuple(tensor.shape[1:3]): name for name, tensor in maps.items() if name in is_left}
    return {name: maps[name] for name in maps if name in last_of_size.values()}


def _names_that_are_left(model, maps: dict) -> set[str]:
    """Returns the layers whose map a smaller map is computed from at once, but for padding, and those of the smallest size."""
    name_of = {id(tensor): name for name, tensor in maps.items()}
    for layer in model.layers:  # padding passes its input on
        if type(layer).__name__ in PADDING[:2] and (name := name_of.get(id(layer.input))):
            name_of[id(layer.output)] = name
    area = {name: tensor.shape[1] * tensor.shape[2] for name, tensor in maps.items()}
    left = {name for name, size in area.items() if size == min(area.values())}
    for layer in model.layers:
        if layer.name in maps:
            given = [name_of.get(id(tensor)) for tensor in _inputs_of(layer)]
            left |= {name for name in given if name is not None and area[name] > area[layer.name]}
    return left


def _map_of(layer):
    """Returns what a layer gives where that is a map of more than one pixel, its size known; otherwise None."""
    import keras

    try:
        output = keras.Layer.output.fget(layer) if isinstance(layer, keras.Model) else layer.output
    except (AttributeError, ValueError):  # used twice
        return None
    shape = getattr(output, "shape", ())
    is_map = len(shape) == 4 and None not in shape[1:] and shape[1] * shape[2] > 1
    return output if is_map else None


def _inputs_of(layer) -> Sequence:
    import keras

    try:
        given = keras.Layer.input.fget(layer) if isinstance(layer, keras.Model) else layer.input
    except (AttributeError, ValueError):
        return ()
    return given if isinstance(given, (list, tuple)) else (given,)


def vectors_of_films(
    run: Callable[[np.ndarray, np.ndarray], Sequence[np.ndarray]], records: Path, *, image_id: np.ndarray, batch: int
) -> list[np.ndarray]:
    """Runs a network over films; every pass has a full batch, the last one filled up with its last film.

    Args:
        run: films `[batch, size, size] uint8` and their places in `image_id` `[batch]` -> arrays `[batch, ...]`.
        records: folder of the records stage.
        image_id: `[n]`, the films, in the order of the result.
        batch: films per pass.

    Returns:
        Per array of `run`, `[n, ...] float32`.
    """
    made: list[np.ndarray] = []
    for places, films in film_batches(records, image_id=image_id, batch=batch):
        filled = np.r_[: len(films), np.full(batch - len(films), len(films) - 1)].astype(int)
        for number, values in enumerate(run(films[filled], places[filled])):
            values = np.asarray(values)[: len(films)]
            if len(made) <= number:
                made.append(np.empty((len(image_id), *values.shape[1:]), np.float32))
            made[number][places] = values
    return made


def film_batches(records: Path, *, image_id: np.ndarray, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields films of the records as `(places in image_id [b], films [b, size, size] uint8)`, in the records' order.

    Raises:
        InputError: an image is not among the records, or a shard is missing or damaged.
    """
    place = {image: i for i, image in enumerate(image_id)}
    places, films = [], []
    for shard in read_shard_list(records):
        for data in read_records(records / shard.name) if shard.n_records and place else ():
            example = decode_example(data)
            found = place.pop(example["image_id"][0].decode(), None)
            if found is None:
                continue
            places.append(found)
            films.append(decode(example["image"][0]))
            if len(films) == batch:
                yield np.array(places), np.stack(films)
                places, films = [], []
    if films:
        yield np.array(places), np.stack(films)
    if place:
        raise InputError(
            f"image_id: expected films of the records; {len(place):,} of {len(image_id):,} are not in {records}. Take the "
            "embeddings that were made from these records.",
            examples=list(place)[:3],
        )
