"""`inlp`: iterative nullspace projection; what one linear classifier after another reads of an attribute is projected away."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.errors import InputError
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.representation.base import AffineRepresentation
from biascxr.mitigation.representation.concept import NO_GROUPS, Concept, ConceptSettings, identity
from biascxr.mitigation.vector_table import weighted_mean, weighted_variance

HELD_OUT = 0.25  # share of the patients on whom classifiers are judged
MAX_STEPS = 200  # of L-BFGS; a direction need not be the best one to be worth projecting away
CONSTANT = 1e-6  # a column whose deviation is below this share of its mean is rounding
RANK_TOLERANCE = 1e-6  # a direction that is this small a share of the largest lies in what was projected away already


@dataclass(frozen=True)
class InlpSettings(ConceptSettings):
    """Settings of `inlp`, with those of `ConceptSettings`.

    Attributes:
        n_iterations: at most so many rounds; each takes out (groups - 1) directions per attribute.
        min_gain: an attribute is done once a classifier's balanced accuracy on held-out training patients is less than this
            above chance.
        max_rows: classifiers see at most so many training rows, drawn at random.
        inverse_penalty: of the classifiers, scikit-learn's `C`.
    """

    n_iterations: int = 20
    min_gain: float = 0.02
    max_rows: int = 10_000
    inverse_penalty: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1 <= self.min_gain < 1:
            raise InputError(f"min_gain must lie in [-1, 1); got {self.min_gain}.")
        if min(self.n_iterations, self.max_rows) < 1 or not self.inverse_penalty > 0:
            raise InputError(f"n_iterations and max_rows must be >= 1 and inverse_penalty above 0; got {self}.")


class Inlp(AffineRepresentation):
    """INLP: fit a linear classifier of the attribute, project onto the nullspace of its weights, and again.

    Formula: with U an orthonormal basis of the rows of all classifiers' weights, x -> x - U U' x; the nullspaces intersect,
    so one projection stands for all rounds. Reference: Ravfogel et al., "Null It Out: Guarding Protected Attributes by
    Iterative Nullspace Projection", ACL 2020, algorithm 1.

    As there: each round's classifier is trained on what the rounds before have left. Differs: classifiers are scikit-learn's
    multinomial logistic regression with balanced groups and training weights, on columns scaled to deviation 1 (the
    projection is orthogonal in these units, and the vectors are scaled back); it stops by balanced accuracy on held-out
    training patients, since plain accuracy calls a small group unreadable. Several attributes take turns within a round.

    Rows of unknown group train and judge nothing, and are projected like everyone. An attribute without two groups among
    both the fitted and the held-out patients cannot be judged and is left alone, with a note.

    Guaranteed: the classifiers that were trained read nothing any more. Not guaranteed: that a new one reads nothing, on
    these rows (`leace` gives that) or on others; and nothing about nonlinear ones.

    When it helps: as `leace`; it goes on until the attribute is no longer readable from held-out patients. When it harms: it
    takes out more directions than `leace` (which needs one per group, less one), each without regard to what else it
    carries, so that findings are lost with the attribute.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    prevalence (+0.39), annotation (+0.60) and acquisition (+0.59); no effect under presentation; unclear under selection; costs
    0.012 of its loss where there is no bias.
    """

    name: ClassVar[str] = "inlp"
    Settings: ClassVar[type] = InlpSettings

    def _fit(self, train: SplitData, weights: np.ndarray) -> dict[str, np.ndarray]:
        concept, width = Concept.of(self.name, self.settings, train.attributes, weights), train.vectors.shape[1]
        if len(concept) == 0:
            self.notes = (f"{self.name}: {NO_GROUPS}",)
            return identity(width)
        mean = weighted_mean(train.vectors, weights)
        deviation = np.sqrt(weighted_variance(train.vectors, weights, mean))
        varies = deviation > CONSTANT * np.abs(mean)
        scale = np.where(varies, deviation, 1)
        inverse = np.where(varies, 1 / scale, 0)

        rng, codes = np.random.default_rng(self.seed), np.stack(concept.codes(train.attributes))
        rows = np.flatnonzero((codes >= 0).any(axis=0))
        if len(rows) > self.settings.max_rows:
            rows = np.sort(rng.choice(rows, self.settings.max_rows, replace=False))
        patients = np.unique(train.patient_id[rows].astype(str))
        held_out = rng.permutation(patients)[: round(HELD_OUT * len(patients))]
        is_held_out = np.isin(train.patient_id[rows].astype(str), held_out)
        vectors = ((train.vectors[rows] - mean) * inverse).astype(np.float32)
        targets = {own.title: codes[i, rows] for i, own in enumerate(concept.cells)}
        basis, notes = self._directions(vectors, targets, weights[rows], is_held_out)
        notes.append(f"{basis.shape[1]} of {width} directions taken out")
        if len(rows) < len(train):
            notes.append(f"classifiers saw {len(rows)} of {len(train)} rows")
        self.notes = tuple(f"{self.name}: {note}" for note in notes)
        if basis.shape[1] == 0:
            return identity(width)
        return {"mean": mean, "left": basis * inverse[:, None], "right": basis.T * scale, "offset": mean}

    def _directions(
        self, vectors: np.ndarray, targets: dict[str, np.ndarray], weights: np.ndarray, is_held_out: np.ndarray
    ) -> tuple[np.ndarray, list[str]]:
        """Returns an orthonormal basis `[d, k]` of what is projected away, and notes; `vectors` are changed in place."""
        basis, notes = np.zeros((vectors.shape[1], 0)), []
        open_ones = dict(targets)
        for done in range(self.settings.n_iterations):
            found = []
            for title, codes in list(open_ones.items()):
                coefficients, gain = self._classifier(vectors, codes, weights, is_held_out)
                if np.isnan(gain):
                    notes.append(f"{title} was left alone: fewer than two groups among fitted or held-out patients")
                elif gain < self.settings.min_gain:
                    notes.append(f"{title} could no longer be read (rounds: {done}; gain over chance: {gain:.3f})")
                else:
                    found.append(coefficients)
                    continue
                del open_ones[title]
            new = _outside(basis, np.concatenate(found).T) if found else basis[:, :0]
            if new.shape[1] == 0:
                return basis, notes
            basis = np.concatenate([basis, new], axis=1)
            vectors -= (vectors @ new.astype(np.float32)) @ new.T.astype(np.float32)
        notes += [f"{title} was still being read (rounds: {self.settings.n_iterations})" for title in open_ones]
        return basis, notes

    def _classifier(
        self, vectors: np.ndarray, codes: np.ndarray, weights: np.ndarray, is_held_out: np.ndarray
    ) -> tuple[np.ndarray, float]:
        """Returns weights `[r, d]` that span what the classifier reads, and its balanced accuracy above chance, or NaN."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        fitted, judged = (codes >= 0) & ~is_held_out, (codes >= 0) & is_held_out
        groups = np.unique(codes[judged])
        if min(len(groups), len(np.unique(codes[fitted]))) < 2:
            return np.zeros((0, vectors.shape[1])), float("nan")
        model = LogisticRegression(C=self.settings.inverse_penalty, class_weight="balanced", max_iter=MAX_STEPS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(vectors[fitted], codes[fitted], sample_weight=weights[fitted])
        read = model.predict(vectors[judged])
        recalls = [(read[codes[judged] == group] == group).mean() for group in groups]
        coefficients = model.coef_.astype(np.float64)
        if len(coefficients) > 1:  # of k > 2 groups they sum to 0, and span k - 1 directions whatever rounding says
            coefficients = (coefficients - coefficients.mean(axis=0))[1:]
        return coefficients, float(np.mean(recalls)) - 1 / len(groups)


def _outside(basis: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Returns an orthonormal basis `[d, r]` of what the directions `[d, m]` add to a basis `[d, k]`."""
    if basis.shape[1] == basis.shape[0]:
        return basis[:, :0]
    sizes = np.linalg.norm(directions, axis=0)
    directions = directions[:, sizes > 0] / sizes[sizes > 0]
    for _ in range(2):  # once more: one pass leaves rounding along the basis
        directions = directions - basis @ (basis.T @ directions)
    vectors, values, _ = np.linalg.svd(directions, full_matrices=False)
    return vectors[:, values > RANK_TOLERANCE]
