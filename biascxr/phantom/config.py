"""What a phantom cohort is made of, checked when built."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from biascxr.errors import InputError, unknown_name
from biascxr.phantom.forms import FORMS
from biascxr.phantom.labels import FINDINGS
from biascxr.phantom.mechanisms import MECHANISMS
from biascxr.phantom.population import GROUP_SHARES

MIN_IMAGE_SIZE = 64
MAX_IMAGE_SIZE = 2048


@dataclasses.dataclass(frozen=True)
class PhantomConfig:
    """Settings of a made-up cohort. The defaults are the demo's.

    Args:
        n_patients: number of patients; about 2.1 films each, most with one, a few with very many.
        seed: drives everything; the same configuration writes the same bytes.
        mechanism: how the bias is planted: prevalence, presentation, annotation, acquisition, selection or
            under_representation.
        strength: how much of it, a fraction in [0, 1]; 0 plants nothing.
        separability: chance that a film is taken on the machine of the patient's group rather than on any at random,
            in [0, 1]. A probe that sees the machine without error has a one-vs-rest AUROC of about
            1/2 + separability / 2; at 0 the machine tells nothing of the group (a mechanism still may).
        image_size: side of the square films, in pixels.
        disadvantaged_group: the neutral group (0 largest to 3 smallest) that the mechanism acts on.
        marked_finding: the finding that a marker goes with under `acquisition`, one of `FINDINGS`.
        form: the official form that is written, a key of `FORMS`.
        missing_race_share: share of patients with a blank recorded race, in [0, 1].
        uncertain_share: share of positive labels recorded as -1, in [0, 1].
        blank_share: share of negative labels left blank, in [0, 1].

    Raises:
        InputError (a ValueError): where a setting is of the wrong kind or out of its range.
    """

    n_patients: int = 1000
    seed: int = 0
    mechanism: str = "presentation"
    strength: float = 0.75
    separability: float = 0.75
    image_size: int = 320
    disadvantaged_group: int = 1
    marked_finding: str = "Pneumothorax"
    form: str = "generic"
    missing_race_share: float = 0.03
    uncertain_share: float = 0.04
    blank_share: float = 0.5

    def __post_init__(self) -> None:
        _check_integer("n_patients", self.n_patients, 1, 1_000_000)
        _check_integer("seed", self.seed, 0, 2**63 - 1)
        _check_integer("image_size", self.image_size, MIN_IMAGE_SIZE, MAX_IMAGE_SIZE)
        _check_integer("disadvantaged_group", self.disadvantaged_group, 0, len(GROUP_SHARES) - 1)
        for name in ("strength", "separability", "missing_race_share", "uncertain_share", "blank_share"):
            _check_fraction(name, getattr(self, name))
        _check_name("phantom mechanism", self.mechanism, MECHANISMS)
        _check_name("marked finding", self.marked_finding, FINDINGS)
        _check_name("phantom form", self.form, FORMS)


def _check_integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"`{name}` must be an integer from {low} to {high}. Received: {value!r}.")


def _check_fraction(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0:
        raise InputError(f"`{name}` must be a fraction from 0 to 1. Received: {value!r}.")


def _check_name(kind: str, value: object, known: Collection[str]) -> None:
    if not isinstance(value, str) or value not in known:
        raise unknown_name(kind, str(value), known)
