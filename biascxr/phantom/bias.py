"""Mechanisms: how a cohort comes to treat one group worse. Each is a function in the table `MECHANISMS`.

A mechanism takes the fair cohort, who is disadvantaged, a strength in [0, 1] and a generator, and returns a changed
cohort. It may change what is drawn (`visibility`) or what is recorded (`recorded`), never what is true (`labels`).
At strength 0 it returns the cohort as it was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from biascxr.phantom.labels import NO_FINDING, with_no_finding
from biascxr.phantom.population import Population

Mechanism = Callable[[Population, np.ndarray, float, np.random.Generator], Population]


def presentation(population: Population, is_disadvantaged: np.ndarray, strength: float, rng: np.random.Generator) -> Population:
    """Findings look fainter in the disadvantaged group: drawn at `1 - strength` of their effect; at 1, invisible.

    Args:
        population: the fair cohort.
        is_disadvantaged: `[n] bool`, one per film.
        strength: fraction of a finding's effect that is lost, in [0, 1].
        rng: unused; nothing here is random.

    Returns:
        The cohort with `visibility` lowered. The labels stay right.
    """
    visibility = np.where(is_disadvantaged[:, None], population.visibility * (1.0 - strength), population.visibility)
    return dataclasses.replace(population, visibility=visibility.astype(np.float32))


def annotation(population: Population, is_disadvantaged: np.ndarray, strength: float, rng: np.random.Generator) -> Population:
    """Findings of the disadvantaged group are overlooked: a share `strength` of its positives is recorded negative.

    No Finding follows from what is recorded, so a film whose diseases were all overlooked is recorded as No Finding:
    the underdiagnosis of Seyyed-Kalantari et al. (Nature Medicine 2021).

    Args:
        population: the fair cohort.
        is_disadvantaged: `[n] bool`, one per film.
        strength: chance that a positive finding is recorded negative, in [0, 1].
        rng: decides which.

    Returns:
        The cohort with `recorded` changed. The films stay as they are.
    """
    # One draw per cell: a larger strength overlooks the same findings and more.
    is_overlooked = (rng.random(population.recorded.shape) < strength) & is_disadvantaged[:, None]
    is_overlooked[:, NO_FINDING] = False
    return dataclasses.replace(population, recorded=with_no_finding(population.recorded & ~is_overlooked))


MECHANISMS: dict[str, Mechanism] = {
    "presentation": presentation,
    "annotation": annotation,
}
