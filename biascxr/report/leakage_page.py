"""The page of `biascxr leakage` on anybody's vectors: `report.html`, its figures and its tables, without a run."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import jinja2

import biascxr
from biascxr.leakage.result import LeakageResult
from biascxr.report.leakage_lookup import attributes_of
from biascxr.report.leakage_section import leakage_answers, leakage_figures, leakage_section
from biascxr.report.page import data_uri, hide_few
from biascxr.report.privacy import MIN_CELL, SUPPRESSED
from biascxr.report.summary import readable

logger = logging.getLogger("biascxr")


def write_leakage(
    result: LeakageResult, folder: Path, *, title: str, facts: dict[str, str | int], banners: Sequence[str] = ()
) -> Path:
    """Writes tables, figures and page into a folder; files of an earlier run there are replaced.

    Everything is made in a folder beside it first, so that a page that fails leaves the earlier one whole.

    Args:
        result: what was found.
        folder: where to write; made where it is not there.
        title: what the vectors are, for people; no path and no identifier.
        facts: what went in, name and value, as the page lists it. Whole numbers are counts: those of 1 to 9 are hidden.
        banners: warnings that stand above everything, such as that the encoder is not trained.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        result.save(partial)
        build_leakage_page(result, partial, title=title, facts=facts, banners=banners)
        shutil.copytree(partial, folder, dirs_exist_ok=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for line in [*banners, *leakage_answers(result)]:
        logger.info("%s", line)
    logger.info("report: %s", folder / "report.html")
    return folder


def build_leakage_page(
    result: LeakageResult, folder: Path, *, title: str, facts: dict[str, str | int], banners: Sequence[str] = ()
) -> Path:
    """Draws the figures and writes `report.html`; arguments as in `write_leakage`.

    Returns:
        The page's path.
    """
    figures = leakage_figures(result, folder)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("biascxr", "report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    context = {
        "version": biascxr.__version__,
        "title": title,
        "banners": list(banners),
        "facts": {name: _fact(value) for name, value in facts.items()},
        "attributes": [readable(a) for a in attributes_of(result)],
        "answers": leakage_answers(result),
        "leakage": leakage_section(result),
        "figures": {key: data_uri(path) for key, path in figures.items()},
        "readable": readable,
        "min_cell": MIN_CELL,
    }
    page = folder / "report.html"
    page.write_text(environment.get_template("leakage_page.html.j2").render(context), encoding="utf-8")
    return page


def _fact(value: str | int) -> str:
    if isinstance(value, str):
        return hide_few(value)
    return SUPPRESSED if 0 < value < MIN_CELL else f"{value:,}"
