"""Charts of what it means and where it sits: dependence of predictions, growth of the reading, densities of patients."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from biascxr.leakage import MACRO, VECTORS
from biascxr.leakage.result import LeakageResult
from biascxr.report.leakage_lookup import EVIDENCE, READABLE, attributes_of, baseline, measure_words, probe_title
from biascxr.report.leakage_shown import shareable
from biascxr.report.style import ACCENT, INK, LONG_NAME, PALETTE, QUIET, figure, file_name
from biascxr.report.summary import readable

BAND = "#cbd2d9"
SIZE = "rms_logit_change"
REFITTED = "_refitted"
MAX_LINES = 8
KINDS = {
    "training patients": "patients to learn from",
    "components": "leading principal components",
    "block": "where in the encoder",
    "low_pass": "films low-passed",
    "noise": "films with noise",
    "crop": "films cropped",
}
STEM = "pool1"  # DenseNet's first map, before its dense blocks
METHODS = {"pca": "principal components 1 and 2", "pca_3_4": "principal components 3 and 4", "tsne": "t-SNE"}
SHOWN_MODES = {"pca": (1, 2), "pca_3_4": (3, 4)}
DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1)))


@dataclass(frozen=True)
class _Panel:
    """Rows of the dependence table that share an axis."""

    title: str
    unit: str
    centre: float
    rows: pd.DataFrame
    names: list[str]


def plot_dependence(result: LeakageResult, folder: Path, *, attribute: str) -> Path | None:
    """Draws `leakage/dependence_<attribute>.png`: each kind of evidence, with its control (grey) and its margin (dotted).

    The first recipe's, and of heads trained anew on the vectors; means over findings. A panel per kind of evidence; what is
    measured in other units has one of its own.
    """
    result = shareable(result)
    table = result.dependence
    is_own = table["recipe"].isin((baseline(result), VECTORS))
    table = table[is_own & (table["attribute"] == attribute) & (table["label"] == MACRO) & table["evidence"].isin(EVIDENCE)]
    panels = _evidence_panels(table.dropna(subset=["value"]))
    if not panels:
        return None
    columns = min(2, len(panels))
    lines = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    heights = [0.85 + 0.3 * max(2, *(len(panel.names) for panel in line), 0) for line in lines]
    path = folder / "leakage" / f"dependence_{file_name(attribute)}.png"
    size = (max(4.4, 4.1 * columns), 0.25 + sum(heights))
    options = {"squeeze": False, "height_ratios": heights}
    with figure(path, rows=len(lines), columns=columns, size=size, **options) as (_, axes):
        for axis, panel in zip(axes.flat, panels, strict=False):
            _draw_evidence(axis, panel)
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
    return path


def _evidence_panels(table: pd.DataFrame) -> list[_Panel]:
    panels = []
    for evidence, title in EVIDENCE.items():
        own = table[table["evidence"] == evidence]
        is_readable = own["measure"].str.startswith(READABLE)
        if evidence.startswith("given_label"):
            rows = own[own["measure"] == own["measure"].iloc[0]] if len(own) else own
            panels.append(_Panel(title, measure_words("auroc"), 0.5, rows, ["all" if g == MACRO else g for g in rows["group"]]))
            continue
        is_size = own["measure"] == SIZE  # never below 0, and of another scale than the changes
        for rows, name, unit, centre in (
            (own[is_size], title, measure_words(SIZE), 0.0),
            (own[~is_size & ~is_readable], title, "change of the value named", 0.0),
            (own[is_readable], "what probes still read", "AUROC, mean over groups", 0.5),
        ):
            names = ["the logit" if m == SIZE else measure_words(m).replace(", ", ",\n") for m in rows["measure"]]
            panels.append(_Panel(name, unit, centre, rows, names))
    return [panel for panel in panels if len(panel.rows)]


def _draw_evidence(axis, panel: _Panel) -> None:
    rows, y = panel.rows, np.arange(len(panel.rows))
    axis.hlines(y, rows["control_low"], rows["control_high"], color=BAND, lw=8)
    margin = rows["margin"].dropna()
    if len(margin):
        for edge in (panel.centre - margin.iloc[0], panel.centre + margin.iloc[0]):
            axis.axvline(edge, color=ACCENT, lw=1, ls=":")
    axis.axvline(panel.centre, color=INK, lw=0.8)
    axis.hlines(y, rows["low"], rows["high"], color=PALETTE[0], lw=1.6, zorder=3)
    axis.plot(rows["value"], y, "o", ms=5, color=PALETTE[0], zorder=4)
    axis.set_yticks(y, panel.names, fontsize=8 if max(map(len, panel.names)) < 15 else 7)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.set_title(panel.title, fontsize=8.5)
    axis.set_xlabel(panel.unit, fontsize=8)


def plot_curves(result: LeakageResult, folder: Path) -> Path | None:
    """Draws `leakage/curves.png`: AUROC against training patients, components, blocks, and what was done to the films."""
    result = shareable(result)
    table = result.curves.dropna(subset=["auroc"])
    table = table.assign(panel=table["kind"].str.removesuffix(REFITTED), is_refitted=table["kind"].str.endswith(REFITTED))
    kinds = [k for k in KINDS if k in set(table["panel"])]
    if not kinds:
        return None
    colours = {a: PALETTE[i % len(PALETTE)] for i, a in enumerate(attributes_of(result))}
    colours |= {a: QUIET for a in table["attribute"].unique() if a not in colours}
    dashes = {p: DASHES[i % len(DASHES)] for i, p in enumerate(table["probe"].unique())}
    columns = min(2 if len(kinds) < 5 else 3, len(kinds))
    n_rows = -(-len(kinds) // columns)
    path = folder / "leakage" / "curves.png"
    size = (max(4.4, 8.2 / 3 * columns if columns == 3 else 4.0 * columns), 2.6 * n_rows + 0.5)
    with figure(path, rows=n_rows, columns=columns, size=size, squeeze=False, sharey=True) as (made, axes):
        for axis, kind in zip(axes.flat, kinds, strict=False):
            rows = table[table["panel"] == kind]
            for (attribute, probe, is_refitted), own in rows.groupby(["attribute", "probe", "is_refitted"], sort=False):
                own, fill = own.sort_values("amount"), "white" if is_refitted else colours[attribute]
                axis.fill_between(own["amount"], own["low"].astype(float), own["high"].astype(float),
                                  color=colours[attribute], alpha=0.15, lw=0)  # fmt: skip
                axis.plot(own["amount"], own["auroc"], "o", ls=dashes[probe], mfc=fill, color=colours[attribute],
                          ms=3.5, lw=1.4)  # fmt: skip
            axis.axhline(0.5, color=QUIET, lw=0.8, ls=":")
            axis.set_title(KINDS[kind], fontsize=9)
            _name_amounts(axis, kind, rows)
        for axis in axes[:, 0]:
            axis.set_ylabel("AUROC, mean over groups")
        for axis in axes.flat[len(kinds) :]:
            axis.set_visible(False)
        used = list(table["attribute"].unique())
        handles = [Line2D([], [], color=colours[a], marker="o", ms=4, label=readable(a)) for a in used]
        if len(dashes) > 1:
            handles += [Line2D([], [], color=INK, ls=d, label=probe_title(p)) for p, d in dashes.items()]
        if table["is_refitted"].any():
            handles.append(Line2D([], [], color=INK, marker="o", mfc="white", ms=4, label="learned from such films too"))
        made.legend(handles=handles, loc="outside lower center", ncols=4)
    return path


def _name_amounts(axis, kind: str, rows: pd.DataFrame) -> None:
    amounts = sorted(rows["amount"].unique())
    unit = next((u for u in rows["unit"] if isinstance(u, str) and u), "")
    if kind == "block":
        names = rows.drop_duplicates("amount").set_index("amount")["block"]
        axis.set_xticks(amounts, [_block_name(names[a], i + 1) for i, a in enumerate(amounts)], fontsize=6.5)
        return
    if kind in ("training patients", "components"):
        axis.set_xscale("log")
        ticks = amounts[:: max(1, -(-len(amounts) // 5))]
        axis.set_xticks(ticks, [f"{a:,.0f}" for a in ticks], fontsize=7.5)
        axis.minorticks_off()
    axis.set_xlabel(unit or kind.replace("_", " "), fontsize=8)


def _block_name(layer: str, number: int) -> str:
    """Returns what a block is called: DenseNet's by their number from the first dense one on, as papers do."""
    layer = layer.rsplit("/", 1)[-1]  # of a network within a network
    dense = re.fullmatch(r"conv(\d+)_block\d+_concat", layer)
    if dense:
        return f"dense\nblock {int(dense[1]) - 1}"
    return {"vector": "vector", STEM: "stem"}.get(layer, f"block {number}")


def plot_panels(result: LeakageResult, folder: Path, *, kind: str, method: str) -> Path | None:
    """Draws `leakage/panels_<kind>_<method>.png`: where a group's patients lie on two components, as shares of the group.

    Args:
        result: the tables; only cells of ten patients or more are there, the rest is white.
        folder: where to write.
        kind: attribute or label; of labels, those that differ most along the leading components.
        method: of `METHODS`.
    """
    result = shareable(result)
    table = result.panels[(result.panels["kind"] == kind) & (result.panels["method"] == method)]
    if table.empty:
        return None
    largest = result.modes.groupby("by")["ks"].max()
    names = list(table["by"].unique())
    if kind == "label":
        names = sorted(names, key=lambda name: -largest.get(name, 0.0))
    names = names[:MAX_LINES]
    groups = {name: list(table.loc[table["by"] == name, "group"].unique()) for name in names}
    columns = max(2, *map(len, groups.values()))
    path = folder / "leakage" / f"panels_{kind}_{method}.png"
    size = (0.5 + min(1.5, 7.7 / columns) * columns, 0.5 + 1.55 * len(names))
    with figure(path, rows=len(names), columns=columns, size=size, squeeze=False) as (made, axes):
        for row, name in zip(axes, names, strict=True):
            own = table[table["by"] == name]
            x, y = (_cells(own[c]) for c in ("x", "y"))
            top = (own["n_patients"] / own.groupby("group")["n_patients"].transform("sum")).max()
            for axis, group in zip(row, groups[name], strict=False):
                density = own[own["group"] == group].pivot_table(index="y", columns="x", values="n_patients", aggfunc="sum")
                density = density.reindex(index=y.centres, columns=x.centres)
                axis.pcolormesh(x.edges, y.edges, density / np.nansum(density), cmap="viridis_r", vmin=0, vmax=top)
                axis.set_title(
                    f"{group}{_ks_note(result.modes, method, name, group)}", fontsize=7.5 if len(group) < LONG_NAME else 5.5
                )
            for axis in row:
                axis.set(xticks=[], yticks=[])
                axis.grid(visible=False)
            for axis in row[len(groups[name]) :]:
                axis.set_visible(False)
            row[0].set_ylabel(readable(name) if kind == "attribute" else name, fontsize=8)
        made.supxlabel(METHODS[method], fontsize=8)
    return path


@dataclass(frozen=True)
class _Cells:
    """Cells along one axis: `centres [k]` and `edges [k + 1]`."""

    centres: np.ndarray
    edges: np.ndarray


def _cells(values: pd.Series) -> _Cells:
    """Returns the evenly spaced cells whose centres the values are; cells between them that were left out are filled in."""
    found = np.unique(values.to_numpy(float))
    step = np.diff(found).min() if len(found) > 1 else 1.0
    numbers = np.round((found - found[0]) / step).astype(int)
    centres = found[0] + step * np.arange(numbers[-1] + 1)
    centres[numbers] = found  # exactly the table's values, so that looking them up finds them
    return _Cells(centres, found[0] + step * (np.arange(len(centres) + 1) - 0.5))


def _ks_note(modes: pd.DataFrame, method: str, by: str, group: str) -> str:
    """Says how far the group lies from the others along the two components; a star: it stands after correction."""
    own = modes[(modes["by"] == by) & (modes["group"] == group) & modes["mode"].isin(SHOWN_MODES.get(method, ()))]
    told = [
        f"{r.ks:.2f}{'*' if r.p_adjusted < 0.05 else ''}" for r in own.dropna(subset=["ks"]).sort_values("mode").itertuples()
    ]
    return f"\nKS {' / '.join(told)}" if told else ""
