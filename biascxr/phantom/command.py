"""`biascxr phantom OUTPUT_DIR`: the phantom's own command."""

from __future__ import annotations

from pathlib import Path

import tyro

from biascxr.phantom.config import PhantomConfig
from biascxr.phantom.forms import find_form
from biascxr.phantom.write import TRUTH_FILE, make_phantom


def write_phantom(output_dir: tyro.conf.Positional[Path], config: PhantomConfig) -> None:
    """Writes a made-up cohort with one planted bias, as films and tables of a real data set's form.

    Beside the form's own files: truth.csv (what is true of every film) and phantom.json (what was planted, and in whom).

    Args:
        output_dir: new or empty folder.
        config: what to make.
    """
    table = make_phantom(config, output_dir)
    images_root = find_form(config.form).images_root(output_dir)
    where = f" --images_root {images_root}" if images_root else ""
    # Some mechanisms act on what is learned from only: in a split drawn anew they would be in the test part too.
    split = "" if config.form == "midrc" else " --split_source table"
    print(f"python main.py --csv_path {table}{where}{split}")
    print(f"(the truth: {output_dir / TRUTH_FILE}; --reference_labels takes it where the findings have the same names)")
