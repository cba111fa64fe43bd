"""The phantom without films: vectors with known bias, a million rows in seconds, each with its Bayes-optimal score.

phantom = draw_vectors(VectorConfig(mechanism="presentation", strength=0.5))
"""

from __future__ import annotations

import dataclasses
import statistics

import numpy as np

from biascxr.config import SPLITS
from biascxr.errors import InputError, unknown_name
from biascxr.phantom.bayes import MARKER_SHIFT, RowLaw, bayes_scores, biased_law, fair_law
from biascxr.phantom.mechanisms import MECHANISMS
from biascxr.phantom.population import GROUP_SHARES, images_per_patient

FAMILIES = ("linear", "nonlinear")
MAX_PATIENTS, MAX_LABELS, MAX_DIMENSIONS = 5_000_000, 100, 4096
# Corners of a regular tetrahedron with edges of length 1: every two groups are as far apart as every other two.
GROUP_CORNERS = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(8.0)
MAX_GROUP_AUROC = 1.0 - 1e-8  # 1 would need groups infinitely far apart
SHARES_UP_TO = (0.6, 0.7, 0.8)  # of patients: train, validation, calibration; the rest is test
FOLD_HEIGHT = 2.0
ROWS_PER_CHUNK = 65_536
# Each purpose has a generator of its own, so that a change to one leaves the others' draws as they were.
STREAM_PATIENTS, STREAM_LABELS, STREAM_NOISE, STREAM_MECHANISM, STREAM_MIXING = 41, 42, 43, 44, 45


@dataclasses.dataclass(frozen=True)
class VectorConfig:
    """Settings of a vector phantom.

    Args:
        n_patients: number of patients; about 2.1 images each.
        seed: drives everything; the same configuration gives the same bytes.
        mechanism: a key of `MECHANISMS`.
        strength: how much of it, a fraction in [0, 1]; 0 plants nothing.
        separability: s in [0, 1], how well the group can be read from the vector. Two groups' signals are normal with unit
            variance and means `sqrt(2) Phi^-1((1 + s) / 2)` apart, so that the best score tells any two groups apart with
            an AUROC of `(1 + s) / 2`: 0.5 at 0, 1 - 1e-8 at 1. Mechanisms that change how vectors look add to it.
        family: linear, or nonlinear (see `Mixing`).
        dimensions: length d of a vector: one for each label, three for the group, one for the marker, the rest noise.
        n_labels: number of labels L, all of them findings.
        disadvantaged_group: the neutral group (0 largest to 3 smallest) that the mechanism acts on.
        marked_label: the label that a marker goes with under `acquisition`, from 0.

    Raises:
        InputError (a ValueError): where a setting is of the wrong kind or out of its range.
    """

    n_patients: int = 10_000
    seed: int = 0
    mechanism: str = "presentation"
    strength: float = 0.5
    separability: float = 0.75
    family: str = "linear"
    dimensions: int = 64
    n_labels: int = 14
    disadvantaged_group: int = 1
    marked_label: int = 0

    def __post_init__(self) -> None:
        _check_integer("n_patients", self.n_patients, 1, MAX_PATIENTS)
        _check_integer("seed", self.seed, 0, 2**63 - 1)
        _check_integer("n_labels", self.n_labels, 1, MAX_LABELS)
        _check_integer("disadvantaged_group", self.disadvantaged_group, 0, len(GROUP_SHARES) - 1)
        _check_integer("marked_label", self.marked_label, 0, self.n_labels - 1)
        _check_integer("dimensions", self.dimensions, 1, MAX_DIMENSIONS)
        needed = self.n_labels + GROUP_CORNERS.shape[1] + 1
        if self.dimensions < needed:
            raise InputError(
                f"`dimensions` must be at least {needed}: one for each of {self.n_labels} labels, three for the group, one for "
                f"the marker. Received: {self.dimensions}. Ask for more dimensions or fewer labels."
            )
        for name in ("strength", "separability"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0:
                raise InputError(f"`{name}` must be a fraction from 0 to 1. Received: {value!r}.")
        for kind, value, known in (("phantom mechanism", self.mechanism, MECHANISMS), ("family", self.family, FAMILIES)):
            if not isinstance(value, str) or value not in known:
                raise unknown_name(kind, str(value), known)


@dataclasses.dataclass(frozen=True)
class VectorPhantom:
    """One row per image.

    Args:
        config: what it was drawn from.
        image: `[n] int64`, number of the image as drawn; it keeps it when others leave.
        patient: `[n] int64`, number of the patient, likewise.
        group: `[n] int64`, the neutral group, constant for a patient.
        split: `[n] str`, a name in `SPLITS`, constant for a patient.
        labels: `[n, L] bool`, what is true.
        recorded: `[n, L] bool`, what the annotator saw.
        marker: `[n] bool`, whether the row carries the marker.
        vectors: `[n, d] float32`.
        bayes_scores: `[n, L] float64`, P(label is true | vector, group) under the law of the row's own split and group: no
            function of vector and group has a lower expected log loss or Brier score on `labels`.
    """

    config: VectorConfig
    image: np.ndarray
    patient: np.ndarray
    group: np.ndarray
    split: np.ndarray
    labels: np.ndarray
    recorded: np.ndarray
    marker: np.ndarray
    vectors: np.ndarray
    bayes_scores: np.ndarray

    def __post_init__(self) -> None:
        n, n_labels = len(self.image), self.config.n_labels
        for name in ("patient", "group", "split", "marker"):
            if getattr(self, name).shape != (n,):
                raise ValueError(f"VectorPhantom.{name} must have shape {(n,)}; got {getattr(self, name).shape}.")
        for name in ("labels", "recorded", "bayes_scores"):
            if getattr(self, name).shape != (n, n_labels):
                raise ValueError(f"VectorPhantom.{name} must have shape {(n, n_labels)}; got {getattr(self, name).shape}.")
        if self.vectors.shape != (n, self.config.dimensions) or self.vectors.dtype != np.float32:
            raise ValueError(f"VectorPhantom.vectors must be float32 {(n, self.config.dimensions)}; got {self.vectors.shape}.")

    def __len__(self) -> int:
        return len(self.image)


class Mixing:
    """Turns coordinates, each of which means one thing, into vectors in which everything is everywhere, and back.

    Linear: a random rotation. Nonlinear: a rotation, two folds and another rotation. A fold adds `2 cos(a)` of one half of
    the coordinates, a, to the other half and can be taken back exactly, as a is still there (additive coupling: Dinh,
    Krueger and Bengio, NICE, ICLR workshop 2015). To a linear probe an even function is noise. Both are one-to-one, so a
    vector says just what its coordinates say: Bayes-optimal scores are those of the coordinates, in both families. Of the
    nonlinear family a small network reads hardly more than a linear probe from 50,000 rows: optimal is not easily learned.

    Args:
        config: family, dimensions and seed.
    """

    def __init__(self, config: VectorConfig) -> None:
        rng = _stream(config, STREAM_MIXING)
        self.is_nonlinear = config.family == "nonlinear"
        self.first, self.second = (_draw_rotation(config.dimensions, rng) for _ in range(2))

    def mix(self, coordinates: np.ndarray) -> None:
        """Makes vectors of coordinates, in place.

        Args:
            coordinates: `[n, d] float32`.
        """
        first, second = self.first.astype(np.float32), self.second.astype(np.float32)
        for start in range(0, len(coordinates), ROWS_PER_CHUNK):
            mixed = coordinates[start : start + ROWS_PER_CHUNK] @ first
            if self.is_nonlinear:
                left, right = _halves(mixed)
                right += _fold(left)
                left += _fold(right)
                mixed = mixed @ second
            coordinates[start : start + ROWS_PER_CHUNK] = mixed

    def unmix(self, vectors: np.ndarray) -> np.ndarray:
        """Returns the coordinates, `[n, d] float64`: labels, three of the group, the marker, noise. Exact but for rounding.

        Args:
            vectors: `[n, d] float32`.
        """
        mixed = vectors.astype(np.float64)
        if self.is_nonlinear:
            mixed = mixed @ self.second.T
            left, right = _halves(mixed)
            left -= _fold(right)
            right -= _fold(left)
        return mixed @ self.first.T


def draw_vectors(config: VectorConfig) -> VectorPhantom:
    """Draws patients, what is true of their images, what the mechanism did to that, and the vectors.

    All images are drawn, mixed and scored before anybody leaves, and every chance is held against one draw that does not
    depend on it: an image that is there at two strengths differs only in what the mechanism changed, to the last byte, and
    what happens at one strength happens at every larger one.

    Args:
        config: what to draw.
    """
    fair = fair_law(config.n_labels, marked_label=config.marked_label)
    effect = MECHANISMS[config.mechanism].effect(config.strength)
    # Everyone else's rows, the disadvantaged group's that are learned from, and those it is judged on.
    laws = (fair, biased_law(fair, effect, is_learned_from=True), biased_law(fair, effect, is_learned_from=False))
    rows = _draw_rows(config, laws)
    vectors = _draw_coordinates(config, rows, laws)
    scores = np.empty((len(vectors), config.n_labels))
    for index, law in enumerate(laws):
        chosen = np.flatnonzero(rows.law == index)
        scores[chosen] = bayes_scores(vectors[chosen, : config.n_labels], vectors[chosen, _marker_column(config)], law)
    Mixing(config).mix(vectors)

    enters = slice(None) if rows.enters.all() else rows.enters  # a slice copies no gigabytes
    return VectorPhantom(
        config=config,
        image=np.arange(len(vectors))[enters],
        patient=rows.patient[enters],
        group=rows.group[enters],
        split=np.array(SPLITS)[rows.split[enters]],
        labels=rows.labels[enters],
        recorded=rows.recorded[enters],
        marker=rows.marker[enters],
        vectors=vectors[enters],
        bayes_scores=scores[enters],
    )


@dataclasses.dataclass(frozen=True)
class _Rows:
    """What is true of every image; `law` is the number of its law, `split` a number in `SPLITS`."""

    patient: np.ndarray
    group: np.ndarray
    split: np.ndarray
    law: np.ndarray
    labels: np.ndarray
    recorded: np.ndarray
    marker: np.ndarray
    enters: np.ndarray


def _draw_rows(config: VectorConfig, laws: tuple[RowLaw, ...]) -> _Rows:
    fair, n_patients = laws[0], config.n_patients
    effect = MECHANISMS[config.mechanism].effect(config.strength)
    rng = _stream(config, STREAM_PATIENTS)
    patient = np.repeat(np.arange(n_patients), images_per_patient(n_patients, rng))
    group = rng.choice(len(GROUP_SHARES), size=n_patients, p=GROUP_SHARES)[patient]
    split = np.searchsorted(SHARES_UP_TO, (rng.permutation(n_patients) + 0.5) / n_patients)[patient]
    illness = rng.choice(len(fair.class_shares), size=n_patients, p=fair.class_shares)[patient]

    is_disadvantaged, is_test = group == config.disadvantaged_group, split == SPLITS.index("test")
    law = np.where(is_disadvantaged, 1 + is_test, 0)
    n, shape = len(patient), (len(patient), config.n_labels)
    labels = _stream(config, STREAM_LABELS).random(shape, dtype=np.float32) < fair.rates.astype(np.float32)[illness]

    # All draws are taken, used or not, so that one field's value never shifts another's draws.
    rng = _stream(config, STREAM_MECHANISM)
    labels &= ~((rng.random(shape, dtype=np.float32) < effect.absent) & is_disadvantaged[:, None])
    recorded = labels & ~((rng.random(shape, dtype=np.float32) < effect.overlooked) & is_disadvantaged[:, None])
    marker_chances = np.array([own.marker_chances for own in laws])
    marker = rng.random(n) < marker_chances[law, labels[:, config.marked_label].astype(int)]
    left_out = np.array([own.sick_left_out for own in laws], np.float32)[law]
    leaves = (labels & (rng.random(shape, dtype=np.float32) < left_out[:, None])).any(axis=1)
    leaves |= (rng.random(n_patients)[patient] < effect.left_out) & is_disadvantaged & ~is_test
    return _Rows(patient, group, split, law, labels, recorded, marker, ~leaves)


def _draw_coordinates(config: VectorConfig, rows: _Rows, laws: tuple[RowLaw, ...]) -> np.ndarray:
    """Noise, then in place what labels, group and marker add to it: `[n, d] float32`."""
    n_labels, marker_column = config.n_labels, _marker_column(config)
    coordinates = _stream(config, STREAM_NOISE).standard_normal((len(rows.patient), config.dimensions), dtype=np.float32)
    effects = np.array([law.effects for law in laws], dtype=np.float32)
    coordinates[:, :n_labels] += effects[rows.law] * rows.labels
    pair_auroc = min((1.0 + config.separability) / 2.0, MAX_GROUP_AUROC)
    distance = np.sqrt(2.0) * statistics.NormalDist().inv_cdf(pair_auroc)
    coordinates[:, n_labels:marker_column] += (distance * GROUP_CORNERS).astype(np.float32)[rows.group]
    coordinates[:, marker_column] += np.float32(MARKER_SHIFT) * rows.marker
    return coordinates


def _marker_column(config: VectorConfig) -> int:
    return config.n_labels + GROUP_CORNERS.shape[1]


def _draw_rotation(dimensions: int, rng: np.random.Generator) -> np.ndarray:
    """A uniformly random orthogonal matrix: the signs make the decomposition unique, else it would prefer some."""
    q, r = np.linalg.qr(rng.normal(size=(dimensions, dimensions)))
    return q * np.sign(np.diag(r))


def _halves(mixed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Views of two halves of the columns; of an odd number the last is in neither."""
    half = mixed.shape[1] // 2
    return mixed[:, :half], mixed[:, half : 2 * half]


def _fold(half: np.ndarray) -> np.ndarray:
    return FOLD_HEIGHT * np.cos(half)


def _stream(config: VectorConfig, purpose: int) -> np.random.Generator:
    return np.random.default_rng([config.seed, purpose])


def _check_integer(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"`{name}` must be an integer from {low} to {high}. Received: {value!r}.")
