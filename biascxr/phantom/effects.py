"""Carries a mechanism's effect out on the films of a made-up cohort; knows no mechanism by name."""

from __future__ import annotations

import dataclasses

import numpy as np

from biascxr.phantom.labels import DISEASES, LABELS, with_no_finding
from biascxr.phantom.mechanisms import Effect
from biascxr.phantom.population import Population


def apply_effect(
    population: Population, is_disadvantaged: np.ndarray, effect: Effect, rng: np.random.Generator, *, marked_finding: str
) -> Population:
    """Does to the disadvantaged group's films what the effect says; the films of everyone else stay as they are.

    Every chance is held against one draw per cell, study, film or patient that does not depend on it: what happens at one
    strength happens at every larger one too, and at 0 nothing does. Films of one study share their findings and labels,
    so these are drawn per study.

    Args:
        population: the fair cohort, all of it, as drawn.
        is_disadvantaged: `[n] bool`, one per film.
        effect: chances and shares.
        rng: decides which.
        marked_finding: one of `FINDINGS`: what the marker goes with.

    Returns:
        The changed cohort; films that are left out are not in it.
    """
    n_studies, n_patients = int(population.study.max()) + 1, int(population.patient.max()) + 1
    # All draws are taken, used or not, so that one field's value never shifts another's draws.
    absent_draw = rng.random((n_studies, len(LABELS)))[population.study]
    overlooked_draw = rng.random((n_studies, len(LABELS)))[population.study]
    marker_draw = rng.random(len(population))
    sick_draw = rng.random((n_studies, len(LABELS)))[population.study]
    patient_draw = rng.random(n_patients)[population.patient]

    changed = _make_absent(population, is_disadvantaged[:, None] & (absent_draw < effect.absent))
    changed = _fade(changed, is_disadvantaged, effect.fade)
    changed = _overlook(changed, is_disadvantaged[:, None] & (overlooked_draw < effect.overlooked))
    changed = _mark(changed, is_disadvantaged, effect.marked, marker_draw, LABELS.index(marked_finding))

    is_learned_from = changed.split != "test"
    is_kept_away = changed.labels & DISEASES & (sick_draw < effect.sick_left_out)
    leaves = is_kept_away.any(axis=1) | (patient_draw < effect.left_out)
    return changed.rows(~(is_disadvantaged & is_learned_from & leaves))


def _make_absent(population: Population, is_absent: np.ndarray) -> Population:
    """Film, truth and record lose a finding; a finding that was not there cannot be lost."""
    return dataclasses.replace(
        population,
        labels=with_no_finding(population.labels & ~is_absent),
        severity=np.where(is_absent, np.float32(0), population.severity),
        recorded=with_no_finding(population.recorded & ~is_absent),
    )


def _fade(population: Population, is_disadvantaged: np.ndarray, share: float) -> Population:
    """At 1 a finding cannot be seen on the film. Labels and record stay right."""
    faded = population.visibility * (1.0 - share)
    visibility = np.where(is_disadvantaged[:, None], faded, population.visibility)
    return dataclasses.replace(population, visibility=visibility.astype(np.float32))


def _overlook(population: Population, is_overlooked: np.ndarray) -> Population:
    """The record alone loses a finding.

    A film whose diseases were all overlooked is recorded as No Finding: the underdiagnosis of Seyyed-Kalantari et al.
    (Nature Medicine 2021).
    """
    return dataclasses.replace(population, recorded=with_no_finding(population.recorded & ~is_overlooked))


def _mark(population: Population, is_disadvantaged: np.ndarray, chance: float, draw: np.ndarray, finding: int) -> Population:
    """Where films are learned from, the marker goes with the finding; in test it is as frequent and goes with nothing."""
    has_finding, is_test = population.labels[:, finding], population.split == "test"
    is_learned_from = is_disadvantaged & ~is_test
    prevalence = has_finding[is_learned_from].mean() if is_learned_from.any() else 0.0
    chance_of_film = np.where(is_test, chance * prevalence, chance * has_finding)
    return dataclasses.replace(population, marker=is_disadvantaged & (draw < chance_of_film))
