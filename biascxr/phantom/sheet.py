"""A contact sheet of films: the phantom's looks, to be judged by eye beside a sheet of real ones.

contact_sheet(*phantom_films(0, 24), Path("phantom.png"))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from biascxr.errors import InputError
from biascxr.phantom.film import FilmSpec, draw_film
from biascxr.phantom.labels import FINDINGS

FILM_SIDE, GAP, TITLE_HEIGHT = 300, 8, 24  # pixels on the sheet
BACKGROUND, INK = 12, 235  # grey values
AGES = (24, 71, 46, 88, 33, 60)


def contact_sheet(images: Sequence[np.ndarray], titles: Sequence[str], path: Path, *, columns: int = 6) -> Path:
    """Writes films side by side as one PNG, each under its title.

    Args:
        images: films, each `[height, width] uint8`; shown as squares of 300 pixels, as the records store them.
        titles: one per film; one too long for its film is cut.
        path: the PNG to write; its folder is made where missing.
        columns: films per row.

    Returns:
        `path`.

    Raises:
        InputError: there are no films, as many titles as films are not given, a film is not grey, or `columns` is below 1.
    """
    if len(images) == 0 or len(images) != len(titles):
        raise InputError(
            f"`images` and `titles` must be equally many, at least one. Received: {len(images)} and {len(titles)}."
        )
    if columns < 1:
        raise InputError(f"`columns` must be 1 or more. Received: {columns!r}.")
    width, height = FILM_SIDE + GAP, FILM_SIDE + TITLE_HEIGHT + GAP
    n_rows = -(-len(images) // columns)
    sheet = Image.new("L", (columns * width + GAP, n_rows * height + GAP), BACKGROUND)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for i, (image, title) in enumerate(zip(images, titles, strict=True)):
        if image.ndim != 2 or image.dtype != np.uint8:
            raise InputError(f"`images[{i}]` must be [height, width] uint8. Received: {image.shape} {image.dtype}.")
        left, top = GAP + (i % columns) * width, GAP + (i // columns) * height
        while pen.textlength(title, font=font) > FILM_SIDE:
            title = title.removesuffix("…")[:-1] + "…"
        pen.text((left, top + 2), title, fill=INK, font=font)
        film = Image.fromarray(image).resize((FILM_SIDE, FILM_SIDE), Image.Resampling.LANCZOS)
        sheet.paste(film, (left, top + TITLE_HEIGHT))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, format="PNG")
    return path


def phantom_films(seed: int, n: int = 24, *, image_size: int = 512) -> tuple[list[np.ndarray], list[str]]:
    """Draws films for a sheet: every finding by itself, in turn with films without any and with several.

    Sexes and views alternate and ages go round, so that 24 films show both sexes, AP and PA, young and old.

    Args:
        seed: of the films.
        n: how many; 16 or more show all 13 findings.
        image_size: side in pixels.

    Returns:
        Films, `[image_size, image_size] uint8` each, and their titles: findings, age, sex, view.
    """
    specs = [sheet_spec(seed, i, image_size=image_size) for i in range(n)]
    return [draw_film(spec) for spec in specs], [film_title(spec) for spec in specs]


def sheet_spec(seed: int, index: int, *, image_size: int) -> FilmSpec:
    """What film number `index` of a sheet shows; the effect of each finding is between 0.6 and 1."""
    rng = np.random.default_rng([seed, index])
    every_fifth, place = divmod(index, 5)
    if place == 0:
        shown: tuple[str, ...] = ()
    else:
        alone = 4 * every_fifth + place - 1
        # After each finding alone, two at a time.
        shown = (
            (FINDINGS[alone],)
            if alone < len(FINDINGS)
            else tuple(FINDINGS[k] for k in sorted(rng.choice(len(FINDINGS), 2, replace=False)))
        )
    return FilmSpec(
        seed=seed,
        index=index,
        patient=index,
        sex="FM"[index % 2],
        age=AGES[(index + index // len(AGES)) % len(AGES)],
        body_size=float(np.clip(rng.normal(), -2, 2.5)),
        view=("PA", "PA", "AP", "AP")[index % 4],
        group=int(rng.integers(4)),
        separability=0.9,
        effects={name: float(rng.uniform(0.6, 1.0)) for name in shown},
        image_size=image_size,
    )


def film_title(spec: FilmSpec) -> str:
    """Findings, age, sex and view of a film, such as `Edema + Pneumonia · 71 M · AP`."""
    return f"{' + '.join(spec.effects) or 'No Finding'} · {spec.age} {spec.sex} · {spec.view}"
