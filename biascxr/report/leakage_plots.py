"""Charts of what can be read: AUROC per group, against its controls, ROC curves, confusion, and what recipes change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from biascxr.leakage import MACRO, PROBES, VECTORS
from biascxr.leakage.result import LeakageResult
from biascxr.report.leakage_lookup import (
    attributes_of,
    chosen_probe,
    controls_of,
    probe_title,
    reading,
    reading_rows,
)
from biascxr.report.leakage_shown import shareable
from biascxr.report.style import ACCENT, GRID, INK, LONG_NAME, PALETTE, QUIET, figure, file_name, recipe_colours
from biascxr.report.summary import readable

BAND = "#cbd2d9"
PROBE_COLOURS = dict(zip((*PROBES, "encoder"), (PALETTE[0], ACCENT, PALETTE[2], PALETTE[3], INK), strict=True))
ACROSS = 4  # panels in a row
CONTROL_NAMES = {
    "none": "from the vectors",
    "covariates": "recorded facts alone, no film",
    "reweighted": "reweighted alike",
    "within_label": "within the same labels",
    "within_view": "within the same view",
    "within_age_group": "within the age group",
    "within_sex": "within the recorded sex",
    "within_portable": "within portable or not",
}


def plot_leakage(result: LeakageResult, folder: Path) -> Path | None:
    """Draws `leakage.png`: one-vs-rest AUROC per group and macro, with interval; grey is the range of the control."""
    result = shareable(result)
    table = result.readings[result.readings["representation"] == VECTORS].dropna(subset=["auroc"])
    table = table[table["control"].isin(("none", "shuffled"))]
    groups = {a: _groups(table, a) for a in attributes_of(result)}
    groups = {a: g for a, g in groups.items() if g}
    if not groups:
        return None
    probes = [p for p in PROBE_COLOURS if p in set(table["probe"])]
    heights = [max(2.0, len(g) * (0.5 + 0.25 * len(probes))) for g in groups.values()]
    path = folder / "leakage.png"
    options = {"height_ratios": heights, "squeeze": False, "sharex": True}
    with figure(path, rows=len(groups), size=(7.2, 0.9 + 0.3 * sum(heights)), **options) as (made, axes):
        for axis, (attribute, names) in zip(axes[:, 0], groups.items(), strict=True):
            own = table[table["attribute"] == attribute].set_index(["probe", "control", "group"])
            step = 0.76 / len(probes)
            for p, probe in enumerate(probes):
                y = np.arange(len(names)) + (p - (len(probes) - 1) / 2) * step
                real, control = (_picked(own, probe, c, names) for c in ("none", "shuffled"))
                axis.hlines(y, control["low"], control["high"], color=BAND, lw=6)
                _dots(axis, real, y, PROBE_COLOURS[probe])
            axis.axvline(0.5, color=QUIET, lw=0.8, ls=":")
            axis.set_yticks(range(len(names)), ["all groups (macro)" if n == MACRO else n for n in names])
            axis.set_ylim(len(names) - 0.5, -0.5)
            axis.set_title(readable(attribute))
        axes[-1, 0].set_xlabel("one-vs-rest AUROC on the test patients (0.5: cannot be read)")
        handles = [Line2D([], [], color=PROBE_COLOURS[p], marker="o", ms=5, lw=1.3, label=probe_title(p)) for p in probes]
        handles.append(Line2D([], [], color=BAND, lw=6, label="attribute shuffled among patients"))
        made.legend(handles=handles, loc="outside lower center", ncols=3)
    return path


def plot_controls(result: LeakageResult, folder: Path) -> Path | None:
    """Draws `leakage/controls.png`: each attribute's macro AUROC, and what its controls leave of it, for the chosen probe."""
    result = shareable(result)
    panels = {}
    for attribute in attributes_of(result):
        best = reading(result, VECTORS, attribute, chosen_probe(result, VECTORS, attribute))
        if best is not None and pd.notna(best["auroc"]):
            rows = controls_of(result, best)
            rows = rows.assign(place=rows["control"].map(_place)).sort_values("place", kind="stable").dropna(subset=["auroc"])
            panels[attribute] = rows
    if not panels:
        return None
    used = list(dict.fromkeys(rows["probe"].iloc[0] for rows in panels.values()))
    columns = min(2, len(panels))
    n_rows = -(-len(panels) // columns)
    path = folder / "leakage" / "controls.png"
    tallest = max(len(rows) for rows in panels.values())
    options = {"squeeze": False, "sharex": True}
    size = (4.1 * columns, (0.6 + 0.21 * tallest) * n_rows + 0.3)
    with figure(path, rows=n_rows, columns=columns, size=size, **options) as (made, axes):
        for axis, (attribute, rows) in zip(axes.flat, panels.items(), strict=False):
            band = rows[rows["control"] == "shuffled"]
            shown = rows[rows["control"] != "shuffled"]
            names = [CONTROL_NAMES.get(c, c.replace("_", " ")) for c in shown["control"]]
            y = np.arange(len(shown))
            if len(band):
                axis.axvspan(band.iloc[0]["low"], band.iloc[0]["high"], color=BAND, alpha=0.7, lw=0)
            overall = shown.iloc[0]["auroc"]
            axis.hlines(y[1:], shown["auroc"].iloc[1:], overall, color=GRID, lw=2.5, zorder=1)
            axis.axvline(overall, color=INK, lw=0.8, ls=":")
            axis.axvline(0.5, color=QUIET, lw=0.8, ls=":")
            for place, (_, row) in zip(y, shown.iterrows(), strict=True):
                _dots(axis, row.to_frame().T, [place], INK if place == 0 else PALETTE[0])
            axis.set_yticks(y, names)
            axis.set_ylim(len(shown) - 0.4, -0.6)
            probe = "" if len(used) == 1 else f", {probe_title(shown.iloc[0]['probe'])}"
            axis.set_title(f"{readable(attribute)}{probe}", fontsize=9 if not probe else 7.5)
            axis.tick_params(labelbottom=True)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        by = f" by {probe_title(used[0])}" if len(used) == 1 else ""
        said = f"AUROC, mean over groups{by}", "(grey: attribute shuffled among patients)"
        made.supxlabel((" " if columns > 1 else "\n").join(said), fontsize=9)
    return path


def plot_leakage_roc(result: LeakageResult, folder: Path, *, attribute: str) -> Path | None:
    """Draws `leakage/roc_<attribute>.png`: one panel per group, one curve per probe, on the fixed grid."""
    result = shareable(result)
    table = result.roc[(result.roc["representation"] == VECTORS) & (result.roc["attribute"] == attribute)]
    table = table.dropna(subset=["tpr"])
    if table.empty:
        return None
    groups, probes = list(table["group"].unique()), [p for p in PROBE_COLOURS if p in set(table["probe"])]
    columns = min(ACROSS, len(groups))
    n_rows = -(-len(groups) // columns)
    path = folder / "leakage" / f"roc_{file_name(attribute)}.png"
    size = (max(3.4, 1.95 * columns), 2.05 * n_rows + 0.45)
    options = {"squeeze": False, "sharex": True, "sharey": True}
    with figure(path, rows=n_rows, columns=columns, size=size, **options) as (made, axes):
        for axis, group in zip(axes.flat, groups, strict=False):
            own = table[table["group"] == group]
            axis.plot([0, 1], [0, 1], color=QUIET, lw=0.8, ls=":")
            for probe in probes:
                curve = own[own["probe"] == probe].sort_values("fpr")
                axis.plot(curve["fpr"], curve["tpr"], color=PROBE_COLOURS[probe], lw=1.6, label=probe_title(probe))
            axis.set_title(group, fontsize=9 if len(group) < LONG_NAME else 6.5)
            axis.set_aspect("equal")
            axis.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
            axis.set_yticks([0, 0.5, 1], ["0", ".5", "1"])
        for axis in axes.flat[len(groups) :]:
            axis.set_visible(False)
        made.supxlabel("share of the others read as the group (FPR)", fontsize=8)
        axes[0, 0].set_ylabel("TPR")
        made.legend(
            *axes.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=4 if columns > 2 else 2
        )  # fmt: skip
    return path


def plot_confusion(result: LeakageResult, folder: Path, *, attribute: str) -> Path | None:
    """Draws `leakage/confusion_<attribute>.png`: what films of each recorded group are read as, by the chosen probe."""
    result = shareable(result)
    probe = chosen_probe(result, VECTORS, attribute)
    table = result.confusion
    table = table[(table["representation"] == VECTORS) & (table["attribute"] == attribute) & (table["probe"] == probe)]
    if table.empty or table["share"].isna().all():
        return None
    order = list(dict.fromkeys([*table["group"], *table["read_as"]]))
    rows = [g for g in order if g in set(table["group"])]
    columns = [g for g in order if g in set(table["read_as"])]
    shares = table.pivot(index="group", columns="read_as", values="share").loc[rows, columns]
    path = folder / "leakage" / f"confusion_{file_name(attribute)}.png"
    size = (2.6 + 0.62 * max(3, len(columns)), 1.9 + 0.42 * max(2, len(rows)))
    with figure(path, size=size) as (_, axis):
        axis.imshow(shares.to_numpy(float), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for i, group in enumerate(rows):
            for j, read_as in enumerate(columns):
                share = shares.loc[group, read_as]
                text, colour = ("–", QUIET) if pd.isna(share) else (f"{share:.2f}", "white" if share > 0.6 else INK)
                axis.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
        axis.set_xticks(range(len(columns)), columns, fontsize=7.5, rotation=30, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(rows)), rows, fontsize=7.5)
        axis.set_xlabel("read as")
        axis.set_ylabel("recorded as")
        axis.set_title(f"{readable(attribute)}:\n{probe_title(probe)}", fontsize=9)
        axis.grid(visible=False)
    return path


def plot_recipes(result: LeakageResult, folder: Path) -> Path | None:
    """Draws `leakage/recipes.png`: macro AUROC from the vectors as they are and from each recipe's own, by attribute.

    The large dot is the probe that validation chose, small ones are the others: erasure that stops a linear probe may leave
    enough for another.
    """
    result = shareable(result)
    representations = [VECTORS, *(r for r in result.readings["representation"].unique() if r != VECTORS)]
    rows = result.readings[(result.readings["control"] == "none") & (result.readings["group"] == MACRO)]
    rows = rows[rows["probe"] != "encoder"].dropna(subset=["auroc"])
    attributes = [a for a in attributes_of(result) if a in set(rows["attribute"])]
    if len(representations) < 2 or not attributes:
        return None
    colours = recipe_colours(representations)
    path = folder / "leakage" / "recipes.png"
    step = 0.8 / len(representations)
    size = (7.2, 1.1 + 0.28 * len(representations) * len(attributes))
    with figure(path, size=size) as (made, axis):
        for r, representation in enumerate(representations):
            for a, attribute in enumerate(attributes):
                own = reading_rows(result, representation, attribute)
                own = rows.loc[rows.index.intersection(own.index)]
                y = a + (r - (len(representations) - 1) / 2) * step
                is_chosen = own["probe"] == chosen_probe(result, representation, attribute)
                others = own[~is_chosen]
                axis.plot(others["auroc"], np.full(len(others), y), "o", ms=3.5, color=colours[representation], alpha=0.6)
                _dots(axis, own[is_chosen], np.full(is_chosen.sum(), y), colours[representation])
        axis.axvline(0.5, color=QUIET, lw=0.8, ls=":")
        axis.set_yticks(range(len(attributes)), [readable(a) for a in attributes])
        axis.set_ylim(len(attributes) - 0.5, -0.5)
        for edge in np.arange(len(attributes) - 1) + 0.5:
            axis.axhline(edge, color=GRID, lw=0.8)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel("AUROC, mean over groups (0.5: cannot be read)")
        named = {VECTORS: "vectors as they are"}
        handles = [Line2D([], [], color=c, marker="o", ms=5, lw=1.3, label=named.get(r, r)) for r, c in colours.items()]
        made.legend(handles=handles, loc="outside lower center", ncols=1 if max(map(len, colours)) > 40 else 2)
    return path


def _groups(table: pd.DataFrame, attribute: str) -> list[str]:
    """Returns the groups that have a value, macro last."""
    names = list(table.loc[(table["attribute"] == attribute) & (table["control"] == "none"), "group"].unique())
    return [n for n in names if n != MACRO] + ([MACRO] if MACRO in names else [])


def _picked(own: pd.DataFrame, probe: str, control: str, names: list[str]) -> pd.DataFrame:
    if (probe, control) not in own.index.droplevel("group"):
        return pd.DataFrame(np.nan, index=names, columns=["auroc", "low", "high"])
    return own.sort_index().loc[(probe, control)].reindex(names)[["auroc", "low", "high"]]


def _place(control: str) -> int:
    """Order of the rows: the reading, then its controls as listed, strata that are not listed after them."""
    order = ["none", "shuffled", "covariates", *(c for c in CONTROL_NAMES if c.startswith("within_"))]
    return {"reweighted": 99}.get(control, order.index(control) if control in order else 50)


def _dots(axis, rows: pd.DataFrame, y, colour: str) -> None:
    value, low, high = (rows[c].to_numpy(float) for c in ("auroc", "low", "high"))
    axis.hlines(y, low, high, color=colour, lw=1.4, zorder=3)
    axis.plot(value, y, "o", ms=5, color=colour, zorder=4)
