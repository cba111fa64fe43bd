"""`leace`: least-squares concept erasure, the smallest affine change after which no linear model can read an attribute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.mitigation.base import SplitData
from biascxr.mitigation.representation.base import AffineRepresentation
from biascxr.mitigation.representation.concept import NO_GROUPS, Concept, ConceptSettings, identity
from biascxr.mitigation.vector_table import principal_axes, weighted_cross_covariance, weighted_mean, weighted_variance

# A column whose deviation is below this share of its mean is constant; one step of float32 in one row of a million is above.
CONSTANT = 1e-11
# A canonical correlation below this is none.
CORRELATION_TOLERANCE = 1e-8
# Combinations of concept columns with less of their variance than this left (they sum to 0; labels may explain them all).
CONCEPT_TOLERANCE = 1e-9


@dataclass(frozen=True)
class LeaceSettings(ConceptSettings):
    """Settings of `leace`, with those of `ConceptSettings`.

    Attributes:
        within_label: erase only what is readable given the labels, and keep what goes through them alone.
    """

    within_label: bool = False


class Leace(AffineRepresentation):
    """LEACE: the affine map nearest to the identity that leaves no covariance between vector and attribute.

    Formula, for vectors X, the centred one-hot Z of the groups and W = (S_xx)^(-1/2) (pseudo-inverse):

        r(x) = x - W^+ P W (x - E X),   P the orthogonal projection on the columns of W S_xz.

    Reference: Belrose et al., "LEACE: Perfect linear concept erasure in closed form", NeurIPS 2023, theorem 4.3 and
    equation 1. By the theorem it is the nearest in every inner product at once, hence also after any scaling of the columns;
    we compute it on the correlation matrix, so that the sizes of the columns do not decide what counts as rounding.

    Added here: weights; several attributes, their one-hots side by side or crossed; unknown groups, whose rows are part of
    S_xx and E X and are transformed like everyone, but add nothing to S_xz. Differs from the authors' software
    (`concept-erasure`): all in float64, since float32 loses small directions and leaves up to a thousandth of the covariance;
    S_xx is not shrunk; and what is removed is spanned by S_xz itself, not by its part within the kept eigenvectors (the
    same in exact arithmetic), so that no covariance stays behind whatever is taken for rounding.

    `within_label`: Z is replaced by what is left of it after weighted least squares on the labels. Each label gives a 0/1
    column and, where some of it is masked, a second that says so (masked entries are 0 in the first). The partial
    covariance of vector and attribute given the labels is then zero; what is readable of the attribute only because it goes
    with the labels stays.

    Guaranteed, on the weighted training rows of known group: zero covariance, hence equal group means, and no linear model
    is better than a constant under any convex loss (there, section 3). Within the label: zero partial covariance only,
    pooled over the labels' values and not for each, and as far as the attribute depends on the labels additively. Not
    guaranteed: nonlinear models may still read the attribute, since differing spreads or shapes of the groups are not
    touched; and on other rows group means differ by what estimation leaves, of order sqrt(d / n) in units of the deviation,
    which a probe trained on such rows can find. n should be well above d.

    When it helps: the head reads the attribute linearly from the vector and uses it where it should not (a shortcut), above
    all where training data tie it to a finding and the data of use do not. When it harms: marginal erasure also takes what
    of a finding is readable along the attribute's directions, so that where prevalence differs between groups the finding
    itself becomes harder to read (`within_label` keeps that); and with n not above d it erases, besides, directions that
    told the groups apart in the training rows by chance.

    Measured on made-up vectors (benchmarks/results/remedies.md; share of what a bias has cost that is closed): helps under
    prevalence (+0.77), presentation (+0.26), annotation (+0.73), acquisition (+0.53) and selection (+0.73). With
    within_label=true: helps under prevalence (+0.81), presentation (+0.27), annotation (+0.52), acquisition (+0.54) and
    selection (+0.88).
    """

    name: ClassVar[str] = "leace"
    Settings: ClassVar[type] = LeaceSettings

    def _fit(self, train: SplitData, weights: np.ndarray) -> dict[str, np.ndarray]:
        concept = Concept.of(self.name, self.settings, train.attributes, weights)
        width = train.vectors.shape[1]
        if len(concept) == 0:
            self.notes = (f"{self.name}: {NO_GROUPS}",)
            return identity(width)
        columns = concept.encode(train.attributes)
        deviations = _deviations(columns, weights)
        if self.settings.within_label:
            columns = _within_labels(columns, concept, train, weights)
        columns = whiten(columns, deviations, weights)
        mean = weighted_mean(train.vectors, weights)
        deviation = np.sqrt(weighted_variance(train.vectors, weights, mean))
        varies = deviation > CONSTANT * np.abs(mean)
        scale, inverse = np.where(varies, deviation, 1), np.where(varies, 1 / np.where(varies, deviation, 1), 0)
        values, axes = principal_axes(train.vectors, weights, mean, inverse)  # of the correlation matrix
        cross = weighted_cross_covariance(train.vectors, columns, weights, mean)
        left, right = erase(axes / np.sqrt(values), cross * inverse[:, None])
        left, right = left * inverse[:, None], right * scale
        given = " given the labels" if self.settings.within_label else ""
        self.notes = (f"{self.name}: {left.shape[1]} of {width} directions taken out for {concept.title}{given}",)
        return {"mean": mean, "left": left, "right": right, "offset": mean} if left.shape[1] else identity(width)


def erase(whitener: np.ndarray, cross: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns LEACE's projection in low-rank form, `P' = left right` for row vectors.

    Args:
        whitener: `[d, rank]`; the vectors times it have unit covariance. It is W up to a rotation, which P does not see.
        cross: `[d, k]`, covariance of the vectors with concept columns that have unit covariance among each other (`whiten`).

    Returns:
        left `[d, r]` and right `[r, d]`, r at most k, with `right left = I`: a row loses `(x - mean) left right`.
    """
    basis, correlations, turn = np.linalg.svd(whitener.T @ cross, full_matrices=False)
    found = correlations > CORRELATION_TOLERANCE
    return whitener @ basis[:, found], (turn[found] / correlations[found, None]) @ cross.T


def whiten(columns: np.ndarray, deviations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns combinations of concept columns that are uncorrelated and of variance 1; the space they span is the same.

    Args:
        columns: `[n, k]`, centred.
        deviations: `[k]`, above 0: their scale before anything was taken out of them.
        weights: `[n]`.

    Returns:
        `[n, r]`, r below k: the columns of one attribute sum to 0, and groups that labels explain are left out.
    """
    columns = columns / deviations
    values, vectors = np.linalg.eigh((columns * weights[:, None]).T @ columns / weights.sum())
    kept = values > CONCEPT_TOLERANCE
    return columns @ (vectors[:, kept] / np.sqrt(values[kept]))


def _deviations(columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.sqrt(weights @ np.square(columns) / weights.sum())


def _within_labels(columns: np.ndarray, concept: Concept, train: SplitData, weights: np.ndarray) -> np.ndarray:
    """Returns what is left of the columns after weighted least squares on the labels, over each attribute's known rows."""
    masked = np.isnan(train.labels)
    design = np.column_stack([np.ones(len(train)), np.where(masked, 0, train.labels), masked[:, masked.any(axis=0)]])
    left = np.zeros_like(columns)
    for codes, block in zip(concept.codes(train.attributes), concept.blocks(), strict=True):
        known = codes >= 0
        root = np.sqrt(weights[known, None])
        fitted, *_ = np.linalg.lstsq(root * design[known], root * columns[known, block], rcond=None)
        left[known, block] = columns[known, block] - design[known] @ fitted
    return left
