"""`biascxr phantom OUTPUT_DIR`: the phantom's own command."""

from __future__ import annotations

from pathlib import Path

import tyro

from biascxr.phantom.config import PhantomConfig
from biascxr.phantom.write import make_phantom


def write_phantom(output_dir: tyro.conf.Positional[Path], config: PhantomConfig) -> None:
    """Writes a made-up cohort with one planted bias: films, meta.csv, truth.csv and phantom.json.

    Args:
        output_dir: new or empty folder.
        config: what to make.
    """
    print(make_phantom(config, output_dir))
