"""What a SavedModel's signature takes and gives: how its one input wants images, and which output is the vector."""

from __future__ import annotations

from pathlib import Path

from biascxr.embeddings.base import unknown_layer
from biascxr.embeddings.image_input import ImageInput
from biascxr.errors import InputError

SIGNATURE = "serving_default"
# What CXR Foundation calls its answer, the vector and ELIXR-C's map; read before any other output.
KNOWN_OUTPUTS = ("embedding", "feature_maps_0")


def find_signature(loaded, path: Path) -> tuple[str, object]:
    """Returns the name and the function of `serving_default`, or of the only signature.

    Args:
        loaded: what `tf.saved_model.load` returned.
        path: the folder, for the message.

    Raises:
        InputError: there is none, or several and none of that name.
    """
    signatures = dict(getattr(loaded, "signatures", {}))
    if SIGNATURE in signatures:
        return SIGNATURE, signatures[SIGNATURE]
    if len(signatures) != 1:
        raise InputError(
            f"--weights {path}: expected a SavedModel with the signature {SIGNATURE!r} or only one; got "
            f"{', '.join(map(repr, signatures)) or 'none'}. Export it with signatures={{{SIGNATURE!r}: ...}}."
        )
    return next(iter(signatures.items()))


def read_input(signature, path: Path) -> ImageInput:
    """Tells from a signature how it takes images.

    Args:
        signature: the function.
        path: the folder, for the message.

    Raises:
        InputError: several inputs, or one that is neither text nor square images of 1 or 3 channels.
    """
    inputs = signature.structured_input_signature[1]
    if len(inputs) != 1:
        raise InputError(f"--weights {path}: expected one image input; got {', '.join(sorted(inputs)) or 'none'}.")
    ((argument, spec),) = inputs.items()
    shape = spec.shape.as_list() if spec.shape.rank is not None else None
    if spec.dtype.name == "string" and (shape is None or len(shape) == 1):
        # One at a time, whatever the signature says: CXR Foundation's says any number, and fails on more than one.
        return ImageInput(argument, "png" if argument.endswith("_bytes") else "example", 1)
    found = ImageInput.of_pixels(argument, shape, spec.dtype.name) if shape is not None else None
    if found is None:
        raise InputError(
            f"--weights {path}: expected serialized tf.train.Examples (text, one axis) or square images of 1 or 3 channels; "
            f"input {argument!r} is {spec.dtype.name} of shape {shape}."
        )
    return found


def read_output(signature, named: str | None, path: Path) -> str:
    """Returns the name of the output to read.

    Args:
        signature: the function.
        named: the user's choice.
        path: the folder, for the message.

    Raises:
        InputError: no output of that name, or several and none named.
    """
    outputs = {name: spec.shape for name, spec in signature.structured_outputs.items()}
    if named:
        if named not in outputs:
            raise unknown_layer("output", named, list(outputs), str(path))
        return named
    known = next((name for name in KNOWN_OUTPUTS if name in outputs), None)
    if known is None and len(outputs) != 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in outputs.items())
        raise InputError(f"--weights {path}: several outputs ({listed}); name the one to read with --layer.")
    return known or next(iter(outputs))
