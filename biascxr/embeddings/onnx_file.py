"""An ONNX file as encoder, run by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from biascxr.embeddings.base import unknown_layer
from biascxr.embeddings.foreign import ForeignNetwork
from biascxr.embeddings.image_input import ImageInput
from biascxr.errors import InputError

_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64", "tensor(uint8)": "uint8"}
_PIP = "pip install 'biascxr[onnx]'"


class OnnxFile(ForeignNetwork):
    """An ONNX model with one image input.

    The file says the input's layout (channels first or last), channels and size; the records' images are resized to it. How it
    wants its pixels stands in no ONNX file: `weights_source` says it; by default one channel takes grey pixels in [0, 1], three
    channels ImageNet's mean and deviation, and an input of whole numbers 0 to 255.

    The output that `layer` names is read, or the only one, or the only one that is a vector. `layer` may also name a value
    inside the graph (a classifier's output is its scores, not its vector). A map is pooled as `pooling` says.

    A `<name>.card.json` beside the file may say `trained_on`.

    Reference: onnx.ai/onnx/intro/concepts.html.
    """

    name: ClassVar[str] = "onnx"
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime", "numpy")

    def _open(self) -> tuple[ImageInput, str]:
        self._session = _session(self._path, self._path)
        layer, outputs = self._config.layer, [output.name for output in self._session.get_outputs()]
        if layer and layer not in outputs:
            self._session = _session(_with_output(self._path, layer, outputs), self._path)
        return _read_input(self._session, self._path), layer or _read_output(self._session, self._path)

    def _run(self, inputs: np.ndarray) -> np.ndarray:
        from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

        try:
            return self._session.run([self._output], {self._input.argument: inputs})[0]
        except (ort_errors.Fail, ort_errors.InvalidArgument, ort_errors.RuntimeException) as error:
            raise InputError(
                f"--weights {self._path}: ONNX Runtime cannot run it on images of shape {inputs.shape}: "
                f"{str(error).splitlines()[0][:300]}"
            ) from error


def _session(model: Path | bytes, path: Path):
    """Opens a model on the processor; `path` is for the message."""
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"--weights {path}: an ONNX file needs ONNX Runtime: {_PIP}.") from error
    options = onnxruntime.SessionOptions()
    options.use_deterministic_compute = True
    options.log_severity_level = 3  # its warnings about unused initializers are nothing a user can act on
    try:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        # Its errors share no class but Exception; each is about this file.
        raise InputError(f"--weights {path}: ONNX Runtime cannot open this file: {str(error).splitlines()[0][:300]}") from error


def _with_output(path: Path, layer: str, outputs: list[str]) -> bytes:
    """Returns the model with one more output: a value inside its graph."""
    try:
        import onnx
    except ImportError as error:
        raise InputError(
            f"--layer {layer}: {path} has no such output (its outputs: {', '.join(outputs)}); reading a value inside the graph "
            f"needs the onnx library: {_PIP}."
        ) from error
    model = onnx.load(str(path))
    inside = [name for node in model.graph.node for name in node.output if name]
    if layer not in inside:
        raise unknown_layer("output or value", layer, [*inside, *(o for o in outputs if o not in inside)], str(path))
    model.graph.output.append(onnx.ValueInfoProto(name=layer))
    return model.SerializeToString()


def _read_input(session, path: Path) -> ImageInput:
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise InputError(f"--weights {path}: expected one image input; got {', '.join(i.name for i in inputs) or 'none'}.")
    given = inputs[0]
    shape = [side if isinstance(side, int) and side > 0 else None for side in given.shape]  # text names a free axis
    found = ImageInput.of_pixels(given.name, shape, _TYPES.get(given.type, given.type))
    if found is None:
        raise InputError(
            f"--weights {path}: expected square images of 1 or 3 channels, channels first or last; input {given.name!r} is "
            f"{given.type} of shape {given.shape}."
        )
    return found


def _read_output(session, path: Path) -> str:
    outputs = session.get_outputs()
    vectors = outputs if len(outputs) == 1 else [output for output in outputs if len(output.shape) == 2]
    if len(vectors) != 1:
        listed = ", ".join(f"{output.name} {output.shape}" for output in outputs)
        raise InputError(f"--weights {path}: which output is the vector? ({listed}) Name it with --layer.")
    return vectors[0].name
