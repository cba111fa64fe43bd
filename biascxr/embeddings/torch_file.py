"""The tensors of a PyTorch file, as NumPy arrays: `.safetensors` without PyTorch, `.pth`, `.pt` and `.ckpt` with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from biascxr.embeddings.safetensors_file import read_safetensors
from biascxr.errors import InputError

# Where training scripts put the state dict of a checkpoint, in the order looked in.
NESTS = ("state_dict", "model_state_dict", "model", "net", "weights")
_BROKEN = (RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, OSError)


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Reads a state dict.

    PyTorch opens its files with `weights_only=True`, which builds tensors and plain containers and runs no code.

    Args:
        path: a `.safetensors` file, or one that `torch.save` wrote of a state dict, bare or nested as checkpoints nest it.

    Returns:
        Name -> array; floating point as float32.

    Raises:
        InputError: PyTorch is not installed, the file is damaged, or it holds Python objects; the message says how to
            export their tensors.
    """
    tensors = read_safetensors(path) if path.suffix == ".safetensors" else _read_with_torch(path)
    return {
        name: np.ascontiguousarray(values, np.float32 if values.dtype.kind == "f" else None) for name, values in tensors.items()
    }


def _read_with_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"--weights {path}: reading this file needs PyTorch: pip install 'biascxr[torch]'. Or save the state dict as "
            ".safetensors where PyTorch is, which needs nothing here."
        ) from error
    if tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) < (2, 6):
        raise InputError(
            f"--weights {path}: PyTorch {torch.__version__} can be made to run code by a file of weights (CVE-2025-32434): pip "
            "install 'torch>=2.6'."
        )
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except torch.serialization.pickle.UnpicklingError as error:  # what weights_only raises at anything but tensors
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named:
            raise _holds_objects(path, named[1]) from error
        raise _unreadable(path, error) from error
    except _BROKEN as error:
        raise _unreadable(path, error) from error
    found = _tensors_in(loaded, torch)
    if found is None:
        held = f"a dict with {', '.join(map(repr, list(loaded)[:8]))}" if isinstance(loaded, Mapping) else type(loaded).__name__
        raise InputError(
            f"--weights {path}: expected a state dict, bare or under one of {', '.join(map(repr, NESTS))}; got {held}."
        )
    return {
        name: (value.detach().float() if value.is_floating_point() else value.detach()).numpy() for name, value in found.items()
    }


def _tensors_in(loaded: object, torch) -> dict | None:
    """Returns the tensors of a state dict, wherever it lies."""
    if not isinstance(loaded, Mapping):
        return None
    nested = (_tensors_in(loaded[nest], torch) for nest in NESTS if nest in loaded)
    found = next((tensors for tensors in nested if tensors), None)  # a checkpoint may hold its epoch as a tensor beside them
    return found or {name: value for name, value in loaded.items() if isinstance(value, torch.Tensor)} or None


def _holds_objects(path: Path, kind: str) -> InputError:
    """Returns the error for a pickled module, with the line that exports its tensors.

    TorchXRayVision's own files and `torch.save(model, ...)` are such; so is a checkpoint with a NumPy number in it.
    """
    exported = path.with_name(f"{path.name.split('.')[0]}_state_dict.pth")
    line = (
        f"import torch; m = torch.load({str(path)!r}, map_location='cpu', weights_only=False); "
        "m = m.get('state_dict', m.get('model', m)) if isinstance(m, dict) else m; "
        f"torch.save(m if isinstance(m, dict) else m.state_dict(), {str(exported)!r})"
    )
    package = kind.split(".")[0]
    return InputError(
        f"--weights {path} holds Python objects ({kind}), not tensors only, and is not opened: to unpickle is to run the code "
        f"in it. If you trust the file, export its tensors once, where {package} is installed, and give the new file:\n"
        f'    python -c "{line}"\n'
        f"    --weights {exported}"
    )


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {reason[0][:200]}" if reason else type(error).__name__
    return InputError(f"--weights {path} is not a whole PyTorch file ({text}).")
