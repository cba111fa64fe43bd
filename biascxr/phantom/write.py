"""Writes a phantom: films and tables in an official form (what a user has), and the truth (what a user never has)."""

from __future__ import annotations

import concurrent.futures
import csv
import dataclasses
import json
import multiprocessing
import os
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from biascxr.errors import InputError
from biascxr.phantom.config import PhantomConfig
from biascxr.phantom.draw import Phantom, draw_phantom, film_specs
from biascxr.phantom.film import FilmSpec, draw_film, encode_film
from biascxr.phantom.forms import find_form
from biascxr.phantom.labels import FINDINGS, LABELS, NO_FINDING
from biascxr.phantom.mechanisms import MECHANISMS
from biascxr.phantom.population import GROUP_SHARES

META_FILE, TRUTH_FILE, SUMMARY_FILE = "meta.csv", "truth.csv", "phantom.json"
CHUNK = 32  # films per task: long enough to hide the hand-over, short enough for a lively bar


def make_phantom(config: PhantomConfig, output_dir: Path, *, n_workers: int | None = None) -> Path:
    """Makes a cohort with known bias: films and tables as the data set of that form has them, and the truth.

    The same configuration gives the same bytes, whatever `n_workers`.

    Args:
        config: what to make.
        output_dir: folder to write into; made where missing, must be empty.
        n_workers: processes to draw with; default: one per core, and none beside this one for a few films.

    Returns:
        Path of the form's main table (`meta.csv` in the generic form). Beside the form's files: `truth.csv` (group,
        marker, labels and severities of every film), `phantom.json` (configuration, races, disadvantaged group).

    Raises:
        InputError: where `output_dir` is not an empty folder or `n_workers` is not a positive number.
    """
    output_dir = Path(output_dir)
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise InputError(f"`output_dir` must be a new or empty folder. Received: {output_dir}, which is not empty.")
    if n_workers is not None and n_workers < 1:
        raise InputError(f"`n_workers` must be 1 or more, or None for one per core. Received: {n_workers!r}.")
    phantom, form = draw_phantom(config), find_form(config.form)
    output_dir.mkdir(parents=True, exist_ok=True)
    if form.film_format is not None:
        paths = [output_dir / form.film_path(phantom, index) for index in range(len(phantom))]
        _write_films(film_specs(phantom), paths, n_workers=n_workers)
    _write_truth(phantom, form.image_ids(phantom), output_dir / TRUTH_FILE)
    _write_summary(phantom, output_dir / SUMMARY_FILE)
    # Last, so that a folder with its main table is whole.
    return form.write_tables(phantom, output_dir)


def _start_worker() -> None:
    # The processes are the parallelism; OpenCV's own threads would only contend with them.
    cv2.setNumThreads(1)


def _write_chunk(tasks: list[tuple[FilmSpec, Path]]) -> int:
    for spec, path in tasks:
        pixels = draw_film(spec)
        path.write_bytes(encode_film(pixels) if path.suffix == ".jpg" else cv2.imencode(path.suffix, pixels)[1].tobytes())
    return len(tasks)


def _write_films(specs: list[FilmSpec], paths: list[Path], *, n_workers: int | None) -> None:
    for folder in {path.parent for path in paths}:
        folder.mkdir(parents=True, exist_ok=True)
    tasks = list(zip(specs, paths, strict=True))
    chunks = [tasks[start : start + CHUNK] for start in range(0, len(tasks), CHUNK)]
    workers = min(n_workers or os.cpu_count() or 1, len(chunks))
    with tqdm(total=len(tasks), desc="drawing films", unit="film") as bar:
        if workers == 1:
            for chunk in chunks:
                bar.update(_write_chunk(chunk))
            return
        # Spawn, not fork: a parent that has loaded TensorFlow holds threads that a fork would freeze.
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
            for future in concurrent.futures.as_completed([pool.submit(_write_chunk, chunk) for chunk in chunks]):
                bar.update(future.result())


def _write_truth(phantom: Phantom, image_ids: np.ndarray, path: Path) -> None:
    """One row per film: `dicom_id`, the id that the form knows it by, group, marker, labels and severities."""
    population = phantom.population
    severities = np.delete(population.severity, NO_FINDING, axis=1)
    columns = {
        "dicom_id": population.dicom_id,
        "image_id": image_ids,
        "group": population.group,
        "marker": population.marker.astype(int),
    }
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, *LABELS, *(f"severity of {name}" for name in FINDINGS)])
        for *cells, labels, severity in zip(*columns.values(), population.labels, severities, strict=True):
            writer.writerow([*cells, *(f"{float(value):.1f}" for value in labels), *(f"{value:.3f}" for value in severity)])


def _write_summary(phantom: Phantom, path: Path) -> None:
    config, population = phantom.config, phantom.population
    summary = {
        "config": dataclasses.asdict(config),
        "race_of_group": {str(group): race for group, race in enumerate(phantom.race_of_group)},
        "disadvantaged_group": config.disadvantaged_group,
        "disadvantaged_race": phantom.race_of_group[config.disadvantaged_group],
        "mechanism": config.mechanism,
        "strength": config.strength,
        "shows": MECHANISMS[config.mechanism].shows,
        "shows_on": config.marked_finding if config.mechanism == "acquisition" else "macro",
        "truth_file": TRUTH_FILE,
        "n_patients": len(np.unique(population.patient)),  # fewer than asked for where patients were left out
        "n_films": len(population),
        "n_films_of_group": {str(group): int((population.group == group).sum()) for group in range(len(GROUP_SHARES))},
    }
    path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
