"""Leakage chart: how well each attribute can be read from the vectors, beside the shuffled control."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from biascxr.leakage import MACRO, find_probe
from biascxr.report.privacy import MIN_CELL
from biascxr.report.style import ACCENT, PALETTE, QUIET, figure
from biascxr.report.summary import readable


def plot_leakage(leakage: pd.DataFrame, folder: Path) -> Path | None:
    """Draws `leakage.png`: one-vs-rest AUROC per group and macro, with interval; grey is the range of the control."""
    attributes = list(leakage["attribute"].unique())
    if not attributes:
        return None
    shown = leakage[leakage["n_group"] >= MIN_CELL]
    groups = {a: list(shown.loc[shown["attribute"] == a, "group"].unique()) for a in attributes}
    heights = [max(2, len(g)) for g in groups.values()]
    probes = list(leakage["probe"].unique())
    path = folder / "leakage.png"
    options = {"height_ratios": heights, "squeeze": False, "sharex": True}
    size = (7.0, 0.9 + 0.36 * sum(heights))
    with figure(path, rows=len(attributes), size=size, **options) as (made, axes):
        for axis, attribute in zip(axes[:, 0], attributes, strict=True):
            names = groups[attribute]
            for p, probe in enumerate(probes):
                own = shown[(shown["attribute"] == attribute) & (shown["probe"] == probe)]
                real = own[~own["is_control"]].set_index("group").reindex(names)
                control = own[own["is_control"]].set_index("group").reindex(names)
                y = np.arange(len(names)) + (p - (len(probes) - 1) / 2) * 0.34
                axis.hlines(
                    y,
                    control["low"],
                    control["high"],
                    color="#cbd2d9",
                    lw=6,
                    label="shuffled control" if p == 0 else None,
                )
                errors = np.abs(real[["low", "high"]].to_numpy().T - real["auroc"].to_numpy())
                colour = (PALETTE[0], ACCENT, PALETTE[2], PALETTE[3])[p % 4]
                axis.errorbar(real["auroc"], y, xerr=errors, fmt="o", ms=5, lw=1.3, color=colour, label=find_probe(probe).title)
            axis.axvline(0.5, color=QUIET, lw=0.8, ls=":")
            axis.set_yticks(range(len(names)), [f"all groups ({MACRO})" if n == MACRO else n for n in names])
            axis.set_ylim(len(names) - 0.5, -0.5)
            axis.set_title(readable(attribute))
        axes[-1, 0].set_xlabel("one-vs-rest AUROC on the test patients (0.5: cannot be read)")
        handles, texts = axes[0, 0].get_legend_handles_labels()
        made.legend(handles, texts, loc="outside lower center", ncols=3)
    return path
