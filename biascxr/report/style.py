"""One look for every figure: colours, fonts, sizes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

INK = "#1f2933"
QUIET = "#7b8794"
GRID = "#e4e7eb"
BASELINE_COLOUR = "#1f2933"
ACCENT = "#c2410c"
# Okabe and Ito's colours in an order whose neighbours differ in lightness too; told apart with any colour vision.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D31", "#5E4FA2", "#B8B000", "#999999")
LONG_NAME = 18  # letters; more do not fit over a small panel at the usual size
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "*")

_SETTINGS = {
    "figure.dpi": 130,
    "savefig.dpi": 130,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


@contextmanager
def figure(path: Path, *, rows: int = 1, columns: int = 1, size: tuple[float, float], **options) -> Iterator[tuple]:
    """Opens a figure in the house's look; on leaving it is saved as a PNG and closed.

    Args:
        path: where the PNG goes; folders are made.
        rows: rows of panels.
        columns: columns of panels.
        size: width and height in inches.
        **options: for `matplotlib.pyplot.subplots`.

    Yields:
        The figure and its axes (an array unless there is one panel).
    """
    with plt.rc_context(_SETTINGS):
        made, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", **options)
        try:
            yield made, axes
            save(made, path)
        finally:
            plt.close(made)


def save(made: Figure, path: Path) -> None:
    """Saves a figure as PNG without a date, so that the same figure is the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made.savefig(path, metadata={"Software": None})


def recipe_colours(recipes: list[str]) -> dict[str, str]:
    """Returns a colour per recipe: dark for the first (the baseline), then the palette."""
    others = {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(recipes[1:])}
    return {recipes[0]: BASELINE_COLOUR, **others}


def file_name(text: str) -> str:
    """Returns a text as part of a file name: blanks and slashes become underscores."""
    return "".join(c if c.isalnum() or c in "-+." else "_" for c in text)
