"""Writes a phantom: films, `meta.csv` (what a user has) and the truth (what a user never has)."""

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
from biascxr.phantom.bias import MECHANISMS
from biascxr.phantom.config import PhantomConfig
from biascxr.phantom.film import FilmSpec, draw_film, encode_film
from biascxr.phantom.labels import FINDINGS, LABELS, as_reported
from biascxr.phantom.population import GROUP_SHARES, Population, assign_races, draw_population

META_FILE, TRUTH_FILE, SUMMARY_FILE = "meta.csv", "truth.csv", "phantom.json"
CHUNK = 32  # films per task: long enough to hide the hand-over, short enough for a lively bar
STREAM_RACES, STREAM_POPULATION, STREAM_MECHANISM, STREAM_REPORTS = 1, 2, 3, 4


def make_phantom(config: PhantomConfig, output_dir: Path, *, n_workers: int | None = None) -> Path:
    """Makes a cohort with known bias: films in MIMIC-CXR's folders, a table in BiasCXR's form, and the truth.

    The same configuration gives the same bytes, whatever `n_workers`.

    Args:
        config: what to make.
        output_dir: folder to write into; made where missing, must be empty.
        n_workers: processes to draw with; default: one per core, and none beside this one for a few films.

    Returns:
        Path of `meta.csv`. Beside it: `files/` with the films, `truth.csv` (labels, severities and group of every
        film), `phantom.json` (configuration, races, disadvantaged group).

    Raises:
        InputError: where `output_dir` is not an empty folder or `n_workers` is not a positive number.
    """
    output_dir = Path(output_dir)
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise InputError(f"`output_dir` must be a new or empty folder. Received: {output_dir}, which is not empty.")
    if n_workers is not None and n_workers < 1:
        raise InputError(f"`n_workers` must be 1 or more, or None for one per core. Received: {n_workers!r}.")
    race_of_group = assign_races(_stream(config, STREAM_RACES))
    population = plant(config, race_of_group)
    _write_films(film_specs(config, population), population, output_dir, n_workers=n_workers)
    _write_truth(population, output_dir / TRUTH_FILE)
    _write_summary(config, population, race_of_group, output_dir / SUMMARY_FILE)
    # Last, so that a folder with a meta.csv is whole.
    return _write_meta(config, population, output_dir / META_FILE)


def plant(config: PhantomConfig, race_of_group: tuple[str, ...]) -> Population:
    """Draws the fair cohort and lets the mechanism act on it."""
    fair = draw_population(
        config.n_patients,
        _stream(config, STREAM_POPULATION),
        race_of_group=race_of_group,
        missing_race_share=config.missing_race_share,
    )
    is_disadvantaged = fair.group == config.disadvantaged_group
    return MECHANISMS[config.mechanism](fair, is_disadvantaged, config.strength, _stream(config, STREAM_MECHANISM))


def film_specs(config: PhantomConfig, population: Population) -> list[FilmSpec]:
    """What to draw on each film: `visibility` scales the severity of every finding."""
    effects = population.severity * population.visibility
    return [
        FilmSpec(
            seed=config.seed,
            index=i,
            patient=int(population.patient[i]),
            sex=str(population.sex[i]),
            age=int(population.age[i]),
            body_size=float(population.body_size[i]),
            view=str(population.view[i]),
            group=int(population.group[i]),
            separability=float(config.separability),
            effects={name: float(effects[i, LABELS.index(name)]) for name in FINDINGS},
            image_size=config.image_size,
        )
        for i in range(len(population))
    ]


def _stream(config: PhantomConfig, purpose: int) -> np.random.Generator:
    return np.random.default_rng([config.seed, purpose])


def _start_worker() -> None:
    # The processes are the parallelism; OpenCV's own threads would only contend with them.
    cv2.setNumThreads(1)


def _write_chunk(tasks: list[tuple[FilmSpec, str]]) -> int:
    for spec, path in tasks:
        Path(path).write_bytes(encode_film(draw_film(spec)))
    return len(tasks)


def _write_films(specs: list[FilmSpec], population: Population, output_dir: Path, *, n_workers: int | None) -> None:
    tasks = []
    for i, spec in enumerate(specs):
        path = output_dir / population.image_path(i)
        path.parent.mkdir(parents=True, exist_ok=True)
        tasks.append((spec, str(path)))
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


def _write_meta(config: PhantomConfig, population: Population, path: Path) -> Path:
    reported = as_reported(
        population.recorded,
        _stream(config, STREAM_REPORTS),
        uncertain_share=config.uncertain_share,
        blank_share=config.blank_share,
    )
    columns = ["subject_id", "study_id", "dicom_id", "path", "ViewPosition", "gender", "race", "age", "insurance"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, *LABELS])
        for i in range(len(population)):
            cells = ["" if np.isnan(value) else f"{value:.1f}" for value in reported[i]]
            writer.writerow(
                [
                    population.subject_id[i],
                    population.study_id[i],
                    population.dicom_id[i],
                    population.image_path(i),
                    population.view[i],
                    population.sex[i],
                    population.race[i],
                    population.age[i],
                    population.insurance[i],
                    *cells,
                ]
            )
    return path


def _write_truth(population: Population, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["dicom_id", "group", *LABELS, *(f"severity of {name}" for name in FINDINGS)])
        severity = np.delete(population.severity, LABELS.index("No Finding"), axis=1)
        for i in range(len(population)):
            labels = [f"{float(value):.1f}" for value in population.labels[i]]
            row = [population.dicom_id[i], population.group[i], *labels, *(f"{value:.3f}" for value in severity[i])]
            writer.writerow(row)


def _write_summary(config: PhantomConfig, population: Population, race_of_group: tuple[str, ...], path: Path) -> None:
    summary = {
        "config": dataclasses.asdict(config),
        "race_of_group": {str(group): race for group, race in enumerate(race_of_group)},
        "disadvantaged_group": config.disadvantaged_group,
        "disadvantaged_race": race_of_group[config.disadvantaged_group],
        "mechanism": config.mechanism,
        "strength": config.strength,
        "truth_file": TRUTH_FILE,
        "n_patients": config.n_patients,
        "n_films": len(population),
        "n_films_of_group": {str(group): int((population.group == group).sum()) for group in range(len(GROUP_SHARES))},
    }
    path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
