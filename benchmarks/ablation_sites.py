"""External evaluation for `ablations.py`: whole recipes trained on one made-up hospital, applied to another one.

Both are halves of the patients of one phantom, so that a vector means the same in both. At home one group's findings are
overlooked (`annotation` at 0.8: labels are the recorded ones, in the test part too). Away nothing is planted, labels are
true, and the largest group has lost most of its patients. Recorded sex and age are drawn at random and say nothing. The runs
are those of a user: tables of the BiasCXR form, vectors in a file (`--vectors`), `biascxr apply`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from ablation_lines import ERM, LINES, Line
from ablation_worlds import STRENGTH, key_of
from remedy_worlds import Sizes

from biascxr.apply.stages import SIDE_BY_SIDE
from biascxr.cli import main as biascxr
from biascxr.cli import parse_flags
from biascxr.cohort.chexpert_labels import CHEXPERT_LABELS
from biascxr.errors import InputError
from biascxr.phantom import VectorPhantom, draw_vectors
from biascxr.pipeline import run

MECHANISM, SEED = "annotation", 1
KEPT_OF_LARGEST = 0.3  # share of the largest group's patients that the other hospital has
WHOLE = ("fairread", "causal_noise", "two_step")
ATTRIBUTES = ("race", "sex", "age_group")
STREAM_RECORDS = 88
LEAN = ("--metrics", "AUROC", "TPR", "FPR", "--n_replicates", "200", "--n_permutations", "0", "--age_bins", "0", "60")


@dataclass(frozen=True)
class Site:
    """A hospital on disk.

    Attributes:
        table: CSV, one row per image.
        vectors: `.npz` with `image_ids` and `embeddings`.
    """

    table: Path
    vectors: Path


def write_sites(folder: Path, sizes: Sizes) -> tuple[Site, Site]:
    """Writes both hospitals; returns home and away."""
    config = replace(key_of(MECHANISM, SEED).config(sizes), n_patients=2 * round(sizes.train / 0.6))
    biased, fair = draw_vectors(config), draw_vectors(replace(config, strength=0.0))
    rng = np.random.default_rng([SEED, STREAM_RECORDS])
    is_home = rng.random(config.n_patients) < 0.5
    is_kept = rng.random(config.n_patients) < KEPT_OF_LARGEST
    home = np.flatnonzero(is_home[biased.patient])
    away = np.flatnonzero(~is_home[fair.patient] & (is_kept[fair.patient] | (fair.group > 0)))
    return (
        _write(folder / "home", biased, home, biased.recorded[home], rng),
        _write(folder / "away", fair, away, fair.labels[away], rng),
    )


def _write(folder: Path, world: VectorPhantom, rows: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Site:
    folder.mkdir(parents=True)
    n = world.config.n_patients
    sex, age = rng.choice(["F", "M"], n), rng.integers(20, 90, n)
    patient, image = world.patient[rows], np.array([f"{folder.name}{i}" for i in world.image[rows]])
    table = pd.DataFrame(
        {"subject_id": [f"{folder.name}{p}" for p in patient], "study_id": image, "dicom_id": image, "path": image}
        | {"gender": sex[patient], "age": age[patient], "race": [f"group {g}" for g in world.group[rows]]}
        | {name: own.astype(int) for name, own in zip(CHEXPERT_LABELS, labels.T, strict=False)}
    )
    table.assign(path=table["path"] + ".png").to_csv(folder / "meta.csv", index=False)
    np.savez(folder / "vectors.npz", image_ids=image, embeddings=world.vectors[rows])
    return Site(folder / "meta.csv", folder / "vectors.npz")


def external_evaluation(folder: Path, sizes: Sizes) -> pd.DataFrame:
    """Trains at home, applies away and reads what the audit set side by side.

    Args:
        folder: new or empty; tables, the run and the evaluation are written there.
        sizes: how many patients; each hospital has about as many as a world learns from and a few more.

    Returns:
        One row per line of the whole recipes that are there: `delta_eo_home, delta_eo_away` (the larger gap over race of TPR
        and FPR, of their means over findings: less than the mean of gaps in the table of worlds) and `auroc_home, auroc_away`.

    Raises:
        InputError: the evaluation ended with an error, which it printed.
    """
    home, away = write_sites(folder, sizes)
    lines = [line for line in LINES if line == ERM or (line.name in WHOLE and line.is_there)]
    recipes = ", ".join(line.text(ATTRIBUTES) for line in lines)
    flags = ["--csv_path", str(home.table), "--vectors", str(home.vectors), "--output_dir", str(folder / "run")]
    # The recipe `erm` is part of every run; a small one, as nothing is read of it.
    run(parse_flags([*flags, "--recipes", recipes, *LEAN, "--settings", "erm.max_epochs=1"]), until="mitigation")
    flags = ["--csv_path", str(away.table), "--vectors", str(away.vectors), "--output_dir", str(folder / "applied")]
    ended = biascxr(["apply", "--run", str(folder / "run"), *flags])
    if ended != 0:
        raise InputError(f"`biascxr apply` ended with {ended}; the lines above say why.")
    return sides(pd.read_csv(folder / "applied" / "06_audit" / SIDE_BY_SIDE), lines)


def sides(side_by_side: pd.DataFrame, lines: list[Line]) -> pd.DataFrame:
    """Returns ΔEO over race and macro AUROC at home and away, a row for each line.

    Args:
        side_by_side: `external.csv` of an evaluation.
        lines: those of its recipes that are wanted.
    """
    macro = side_by_side[side_by_side["label"] == "macro"]
    rows = []
    for line in lines:
        own = macro[macro["recipe"] == line.recipe(ATTRIBUTES).name]
        gaps = own[(own["attribute"] == "race") & (own["group"] == "gap") & own["metric"].isin(["TPR", "FPR"])]
        auroc = own[(own["metric"] == "AUROC") & (own["group"] == "all") & (own["quantity"] == "value")]
        row = {"line": line.name}
        for side, name in (("value_in", "home"), ("value_out", "away")):
            row |= {f"delta_eo_{name}": gaps[side].max(), f"auroc_{name}": auroc[side].iloc[0]}
        rows.append(row)
    return pd.DataFrame(rows)


def site_lines(found: pd.DataFrame) -> list[str]:
    """Returns the evaluation as lines of text."""
    lines = [
        f"\nexternal: learned where findings of group 1 are overlooked ({STRENGTH:g}), applied where nothing is planted",
        f"  {'line':<16}{'ΔEO home':>10}{'away':>8}{'AUROC home':>13}{'away':>8}",
    ]
    for row in found.to_dict("records"):
        values = f"{row['delta_eo_home']:>10.3f}{row['delta_eo_away']:>8.3f}{row['auroc_home']:>13.3f}{row['auroc_away']:>8.3f}"
        lines.append(f"  {row['line']:<16}{values}")
    return lines
