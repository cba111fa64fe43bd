"""The tensors of a PyTorch file, as NumPy arrays: `.safetensors` without PyTorch, `.pth`, `.pt` and `.ckpt` with it."""

from __future__ import annotations

import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from biascxr.embeddings.safetensors_file import read_safetensors
from biascxr.errors import InputError

# Where training scripts put the state dict of a checkpoint, in the order looked in.
NESTS = ("state_dict", "model_state_dict", "model", "net", "weights")
PROTOCOL = 2  # of pickles, the one that `torch.save` writes and `weights_only` reads
# What a file of tensors and plain containers names to be built.
TENSORS = re.compile(
    r"collections\.(OrderedDict|Counter)|torch\.\w+|torch\.(_utils|_tensor|storage)\.\w+|torch\.nn\.parameter\.\w+"
)
N_PICKLES = 5  # in a file as PyTorch wrote them before 1.6: three about the file, the object, the keys of its storages
MAX_PICKLE_BYTES = 1 << 28  # without the tensors' numbers
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
        protocol, objects = _pickled(path)
        if protocol > PROTOCOL:  # PyTorch names an operation of it, and neither the protocol nor what is in the file
            raise (_holds_objects(path, objects[0]) if objects else _other_protocol(path, protocol)) from error
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


def _pickled(path: Path) -> tuple[int, list[str]]:
    """Tells what a PyTorch file's pickle is, by its operations; none of them is carried out.

    Args:
        path: the file, a zip archive or, as before PyTorch 1.6, pickles one after the other.

    Returns:
        The pickle protocol, 0 where not one pickle is whole; the names of what they build beside tensors and plain containers,
        in order.
    """
    protocol, names, n_whole = 0, [], 0
    texts: list[object] = []  # what was put on the stack, and only where it is a text: a name is two of them
    memo: dict[int, object] = {}
    try:
        with _pickle_of(path) as (file, n_pickles):
            for _ in range(n_pickles):
                for operation, argument, _ in pickletools.genops(file):
                    if operation.name == "PROTO":
                        protocol = max(protocol, argument)
                    elif operation.name == "GLOBAL":
                        names.append(argument.replace(" ", "."))
                    elif operation.name == "STACK_GLOBAL":
                        names.append(".".join(map(str, texts[-2:])))
                        texts.append(None)
                    elif operation.name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
                        memo[len(memo) if argument is None else argument] = texts[-1] if texts else None
                    elif operation.name in ("GET", "BINGET", "LONG_BINGET"):
                        texts.append(memo.get(argument))
                    elif operation.name not in ("FRAME", "MARK"):
                        texts.append(argument if isinstance(argument, str) else None)
                n_whole += 1
                texts.clear()
                memo.clear()
    except (ValueError, LookupError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
        if n_whole == 0:
            return 0, []
    return protocol, [name for name in names if not TENSORS.fullmatch(name)]


@contextmanager
def _pickle_of(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Opens the pickle of a PyTorch file; yields it and how many pickles there are in it."""
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            yield file, N_PICKLES
        return
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if entry.filename.rpartition("/")[2] == "data.pkl"]
        if len(entries) != 1 or entries[0].file_size > MAX_PICKLE_BYTES:
            raise ValueError("not one pickle of a size that PyTorch writes")
        with archive.open(entries[0]) as file:
            yield file, 1


def _holds_objects(path: Path, kind: str) -> InputError:
    """Returns the error for a pickled module, with the line that exports its tensors.

    TorchXRayVision's own files and `torch.save(model, ...)` are such; so is a checkpoint with a NumPy number in it.
    """
    return InputError(
        f"--weights {path} holds Python objects ({kind}), not tensors only, and is not opened: to unpickle is to run the code "
        f"in it. If you trust the file, export its tensors once, where {kind.split('.')[0]} is installed, and give the new "
        f"file:\n{_exporting(path)}"
    )


def _other_protocol(path: Path, protocol: int) -> InputError:
    """Returns the error for tensors in a pickle that PyTorch reads only together with the code in it."""
    return InputError(
        f"--weights {path} is written in pickle protocol {protocol}, which PyTorch opens only by running the code in it; "
        f"tensors alone are read from protocol {PROTOCOL}, torch.save's own. If you trust the file, write its tensors anew "
        f"once, and give the new file:\n{_exporting(path)}"
    )


def _exporting(path: Path) -> str:
    """Returns the command that exports a file's tensors, and the flag that then gives them."""
    exported = path.with_name(f"{path.name.split('.')[0]}_state_dict.pth")
    line = (
        f"import torch; m = torch.load({str(path)!r}, map_location='cpu', weights_only=False); "
        "m = m.get('state_dict', m.get('model', m)) if isinstance(m, dict) else m; "
        f"torch.save(m if isinstance(m, dict) else m.state_dict(), {str(exported)!r})"
    )
    return f'    python -c "{line}"\n    --weights {exported}'


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {reason[0][:200]}" if reason else type(error).__name__
    return InputError(f"--weights {path} is not a whole PyTorch file ({text}).")
