"""What a Keras network computes in: the policies of precision by the setting's names, and a network rebuilt under one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from biascxr.errors import InputError

# What numbers in a network are computed in, by the names of `--mixed_precision`.
POLICIES = {"off": "float32", "float16": "mixed_float16", "bfloat16": "mixed_bfloat16"}


@contextmanager
def dtype_policy(setting: str) -> Iterator[None]:
    """Builds layers under a policy of precision, and puts the process's own back afterwards.

    Args:
        setting: off, float16 or bfloat16.
    """
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(POLICIES[setting])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def rebuilt(model, setting: str, *, weights: str):
    """Returns a network of the same layers and weights that computes in another precision.

    Weights stay float32 and each layer casts them as it computes; what makes the network's output computes in float32: a
    pooling at the end keeps the digits of its mean.

    Args:
        model: a functional or sequential Keras model, whose layers compute in float32 where the setting is not off.
        setting: off (a copy), float16 or bfloat16.
        weights: where the network is from, for the message.

    Raises:
        InputError: the network names the precision of its layers itself, or cannot be built from its own description.
    """
    config = model.get_config()
    if setting != "off":
        own = sorted(set(_policies(config)) - {"float32"})
        if own:
            raise InputError(
                f"--mixed_precision {setting}: the network in {weights} says itself what its layers compute in "
                f"({', '.join(own)}). Leave the flag out: it computes so without."
            )
        config = _of_model(config, POLICIES[setting])
    try:
        with dtype_policy(setting):
            made = type(model).from_config(config)
        made.set_weights(model.get_weights())
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(
            f"The network in {weights} cannot be built again from its description, as --mixed_precision and --distribute need "
            f"({type(error).__name__}: {error}). Leave them out."
        ) from error
    return made


def _is_policy(value: object) -> bool:
    return isinstance(value, dict) and str(value.get("class_name", "")).endswith(("DTypePolicy", "DTypePolicyMap"))


def _policies(value: object) -> Iterator[str]:
    """Yields the names of all policies in a serialized network."""
    if _is_policy(value):
        yield str(value["config"].get("name", value["class_name"]))
    elif isinstance(value, dict):
        for item in value.values():
            yield from _policies(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _policies(item)


def _under(value: object, policy: str) -> object:
    """Returns a serialized layer with another policy, inner layers too; input layers have none, and stay what they are."""
    if _is_policy(value):
        return value | {"config": value["config"] | {"name": policy}}
    if isinstance(value, dict):
        return {key: _under(item, policy) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_under(item, policy) for item in value)
    return value


def _of_model(config: dict, policy: str) -> dict:
    """Returns a serialized model, or one inside another, whose layers have the policy but for those that make its output."""
    last = _names(config["output_layers"]) if "output_layers" in config else {config["layers"][-1]["config"]["name"]}
    layers = []
    for layer in config["layers"]:
        if layer["config"].get("name") not in last:
            layers.append(_under(layer, policy))
        elif "layers" in layer["config"]:
            layers.append(layer | {"config": _of_model(layer["config"], policy)})
        else:
            layers.append(layer)
    return config | {"layers": layers}


def _names(value: object) -> set[str]:
    """Returns the texts in nested lists."""
    if isinstance(value, str):
        return {value}
    return set().union(*map(_names, value)) if isinstance(value, (list, tuple)) else set()
