"""Draws a made-up cohort: who is in it, what the mechanism did to it, and what the labeller left of it."""

from __future__ import annotations

import dataclasses

import numpy as np

from biascxr.phantom.config import PhantomConfig
from biascxr.phantom.effects import apply_effect
from biascxr.phantom.film import FilmSpec
from biascxr.phantom.labels import FINDINGS, LABELS, as_reported
from biascxr.phantom.mechanisms import MECHANISMS
from biascxr.phantom.population import Population, assign_races, draw_population

# Each purpose has a generator of its own, so that a change to one leaves the others' draws as they were.
STREAM_RACES, STREAM_POPULATION, STREAM_MECHANISM, STREAM_REPORTS = 1, 2, 3, 4


@dataclasses.dataclass(frozen=True)
class Phantom:
    """A made-up cohort, not yet drawn on film nor written to disk.

    Args:
        config: what it was made from.
        race_of_group: recorded race of each neutral group.
        population: one row per film, with the bias planted.
        reported: `[n, 14] float32` in {1, 0, -1, NaN}, columns in the order of `LABELS`: what the labeller read in the
            study's report; films of one study share it. NaN is a blank cell.
    """

    config: PhantomConfig
    race_of_group: tuple[str, ...]
    population: Population
    reported: np.ndarray

    def __len__(self) -> int:
        return len(self.population)


def draw_phantom(config: PhantomConfig) -> Phantom:
    """Draws the fair cohort, lets the mechanism act on it, and reports it.

    Args:
        config: what to make; the same configuration gives the same cohort.

    Returns:
        A `Phantom`. A row that is in the cohort at two strengths differs only in what the mechanism changed.
    """
    race_of_group = assign_races(_stream(config, STREAM_RACES))
    fair = draw_population(
        config.n_patients,
        _stream(config, STREAM_POPULATION),
        race_of_group=race_of_group,
        missing_race_share=config.missing_race_share,
    )
    population = apply_effect(
        fair,
        fair.group == config.disadvantaged_group,
        MECHANISMS[config.mechanism].effect(config.strength),
        _stream(config, STREAM_MECHANISM),
        marked_finding=config.marked_finding,
    )
    return Phantom(config, race_of_group, population, _report(config, population, n_studies=int(fair.study[-1]) + 1))


def film_specs(phantom: Phantom) -> list[FilmSpec]:
    """Returns what to draw on each film: `visibility` scales the severity of every finding."""
    config, population = phantom.config, phantom.population
    effects = population.severity * population.visibility
    return [
        FilmSpec(
            seed=config.seed,
            # The number in the cohort as drawn: a film does not change when another leaves.
            index=int(population.film[i]),
            patient=int(population.patient[i]),
            sex=str(population.sex[i]),
            age=int(population.age[i]),
            body_size=float(population.body_size[i]),
            view=str(population.view[i]),
            group=int(population.group[i]),
            separability=float(config.separability),
            effects={name: float(effects[i, LABELS.index(name)]) for name in FINDINGS},
            image_size=config.image_size,
            marker=bool(population.marker[i]),
        )
        for i in range(len(population))
    ]


def _report(config: PhantomConfig, population: Population, *, n_studies: int) -> np.ndarray:
    # One report per study, and one for those that left too: who leaves changes nobody else's draws.
    recorded = np.zeros((n_studies, len(LABELS)), dtype=bool)
    recorded[population.study] = population.recorded
    reported = as_reported(
        recorded,
        _stream(config, STREAM_REPORTS),
        uncertain_share=config.uncertain_share,
        blank_share=config.blank_share,
    )
    return reported[population.study]


def _stream(config: PhantomConfig, purpose: int) -> np.random.Generator:
    return np.random.default_rng([config.seed, purpose])
