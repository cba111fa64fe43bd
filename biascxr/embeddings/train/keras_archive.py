"""Keras files that are a function of the model: the same model, the same bytes, so that a file's digest names its weights."""

from __future__ import annotations

import json
import os
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

_SHARED = re.compile(r'("shared_object_id": )(\d+)')
_TIME = (1980, 1, 1, 0, 0, 0)  # the first that a ZIP file can state


def save_reproducibly(model: keras.Model, path: Path) -> None:
    """Writes a model in Keras's own format, without what differs from one saving to the next.

    That is, in Keras 3: the time of saving (in `metadata.json`, and of each part of the ZIP file), and the numbers that parts
    of the configuration share, which are addresses in memory; they are counted from 1 in the order in which they appear.

    Args:
        model: the model.
        path: the `.keras` file; it appears whole, or not at all.
    """
    # Fixed names: what a killed process leaves is written over by the next one that saves this file.
    saved, made = path.with_name(f".{path.name}.saved.keras"), path.with_name(f".{path.name}.tmp")
    try:
        model.save(saved)
        with zipfile.ZipFile(saved) as given, zipfile.ZipFile(made, "w") as written:
            for name in sorted(given.namelist()):
                written.writestr(zipfile.ZipInfo(name, _TIME), _without_chance(name, given.read(name)))
        os.replace(made, path)
    finally:
        saved.unlink(missing_ok=True)
        made.unlink(missing_ok=True)


def _without_chance(name: str, content: bytes) -> bytes:
    if name == "metadata.json":
        stated = json.loads(content)
        stated.pop("date_saved", None)
        return json.dumps(stated).encode()
    if name == "config.json":
        numbers: dict[str, int] = {}
        return _SHARED.sub(lambda m: m[1] + str(numbers.setdefault(m[2], len(numbers) + 1)), content.decode()).encode()
    return content
