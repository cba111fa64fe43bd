"""`logistic`: multinomial logistic regression with a ridge penalty, in single precision and in coordinates of equal curvature.

The objective is scikit-learn's, divided by C times the sum of the weights: the weighted mean of the cross-entropy plus
|W|^2 / (2 C sum of weights), the intercept unpenalised; two groups have one row of coefficients, as `LogisticRegression` has
since version 1.8. What differs is how the minimum is found:

- one pass over the float32 vectors gives objective and gradient together (L-BFGS in scikit-learn takes two, in float64); sums
  over rows are kept in float64;
- L-BFGS runs in coordinates in which the curvature at the start is 1 in every direction. With S the covariance of the vectors
  and P = diag(p) - p p' of the groups' shares, the Hessian at W = 0 is P x S + l (Kronecker product); S is estimated from
  `SAMPLE_PER_COLUMN x d` rows, which suffices for scaling. Its eigenvectors serve every penalty of the path. Where the sample
  is no more uneven than sampling noise makes it, S is taken as a multiple of the identity;
- penalties are solved from the strongest to the weakest, each from the minimum of the one before;
- the squared length of the gradient in those coordinates estimates how far the objective is above its minimum, so the search
  stops by that, relative to the objective, and not by the largest entry of the gradient.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import numba
import numpy as np
from scipy import linalg, optimize, special
from threadpoolctl import threadpool_limits

from biascxr.errors import InputError
from biascxr.leakage.base import Probe
from biascxr.leakage.logistic_pass import pass_over_rows

logger = logging.getLogger("biascxr")

SAMPLE_PER_COLUMN, LOOK_PER_COLUMN = 8, 0.5  # rows; the second only to see whether the first are needed
FEWEST = 100  # rows of either sample, where there are so many
UNEVENNESS = 1.25  # times what noise alone gives
TOLERANCE = 1e-7  # of half the squared gradient, relative to the objective
MAX_STEPS = 1000


@dataclass(frozen=True)
class LogisticFit:
    """A fitted logistic regression.

    Attributes:
        coefficients: `[o, d] float64`; o is 1 for two groups, else k.
        intercept: `[o] float64`.
        objective: the weighted mean of the cross-entropy plus the penalty, as scikit-learn scales it.
        n_steps: steps of L-BFGS.
        is_converged: the gradient is as small as was asked.
    """

    coefficients: np.ndarray
    intercept: np.ndarray
    objective: float
    n_steps: int
    is_converged: bool

    def probabilities(self, vectors: np.ndarray) -> np.ndarray:
        """Returns `[m, k] float64`, of vectors `[m, d] float32`."""
        logits = (vectors @ self.coefficients.T.astype(np.float32)).astype(np.float64) + self.intercept
        if logits.shape[1] == 1:
            return special.expit(np.hstack([-logits, logits]))
        return special.softmax(logits, axis=1)


class Logistic(Probe):
    """Logistic regression with a ridge penalty (scikit-learn's `C`), by L-BFGS."""

    name: ClassVar[str] = "logistic"
    title: ClassVar[str] = "Logistic regression"
    grid: ClassVar[tuple[float, ...]] = (0.01, 0.0001, 0.001, 0.1, 1.0)

    def words(self, setting: float) -> str:
        return f"C = {setting:g}"

    def _scores(self, train, weights, parts, grid, *, validation, seed):
        fits = fit_logistic(train.vectors, train.codes, grid, weights=weights)
        return [[fit.probabilities(part) for part in parts] for fit in fits]


def fit_logistic(
    vectors: np.ndarray, codes: np.ndarray, inverse_penalties: Sequence[float], *, weights: np.ndarray | None = None
) -> tuple[LogisticFit, ...]:
    """Fits one logistic regression per penalty; what has not converged is said in the log.

    Beside the vectors, memory for a sample of `8 d x d` and a few `d x d` is used. Cores are used as numba's settings allow.

    Args:
        vectors: `[n, d] float32`, best of columns with mean 0 and deviation 1.
        codes: `[n] int64`, the group of each row, 0 to k - 1, each with a row at least.
        inverse_penalties: scikit-learn's `C`, in any order; positive.
        weights: `[n]`, positive; None for 1.

    Returns:
        The fits, in the order of the penalties.

    Raises:
        InputError: fewer than two groups, a penalty that is not positive, or vectors that are not finite float32.
    """
    found: dict[float, LogisticFit] = {}
    start = None
    # What is left to BLAS is small; its threads, once awake, would keep the cores from those that pass over the rows.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(numba.get_num_threads()) as pool:
        problem = _problem(vectors, codes, weights, inverse_penalties)
        for inverse_penalty in sorted(set(inverse_penalties)):
            found[inverse_penalty] = start = _minimise(problem, 1 / (inverse_penalty * problem.total), start, pool)
            if not start.is_converged:
                logger.warning(
                    "logistic probe, C = %g: not converged after %d steps; its AUROC is of the last step. Vectors that part "
                    "the groups without error do this where the penalty is weak.",
                    inverse_penalty,
                    start.n_steps,
                )
    return tuple(found[inverse_penalty] for inverse_penalty in inverse_penalties)


@dataclass(frozen=True)
class _Problem:
    """What all penalties share.

    Attributes:
        vectors: `[n, d] float32`.
        codes: `[n] int64`.
        weights: `[n] float64`.
        total: their sum.
        mean: `[d] float64`; taking it off parts the intercept from the coefficients.
        axes: `[d, d] float64`, in columns: eigenvectors of the sample's covariance; None where it is even.
        spread: `[d]`, its eigenvalues.
        group_axes: `[o, o]`, in columns: eigenvectors of the groups' diag(p) - p p'.
        group_spread: `[o]`, its eigenvalues.
    """

    vectors: np.ndarray
    codes: np.ndarray
    weights: np.ndarray
    total: float
    mean: np.ndarray
    axes: np.ndarray | None
    spread: np.ndarray
    group_axes: np.ndarray
    group_spread: np.ndarray

    def on_axes(self, rows: np.ndarray) -> np.ndarray:
        """Returns rows `[o, d]` in the coordinates of the axes."""
        return rows if self.axes is None else rows @ self.axes

    def off_axes(self, rows: np.ndarray) -> np.ndarray:
        """Returns rows `[o, d]` in the columns of the vectors again."""
        return rows if self.axes is None else rows @ self.axes.T


def _problem(vectors: np.ndarray, codes: np.ndarray, weights: np.ndarray | None, penalties: Sequence[float]) -> _Problem:
    n = len(vectors)
    weights = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    shares = np.bincount(codes, weights) / weights.sum()
    if len(shares) < 2 or (shares <= 0).any():
        raise InputError(
            f"codes must number two groups or more from 0 without a gap, each of positive weight; received shares {shares}. "
            "Leave out the groups without rows and number the others anew."
        )
    if not all(penalty > 0 for penalty in penalties):
        raise InputError(
            f"inverse_penalties must be positive; received {tuple(penalties)}. The larger, the weaker the penalty."
        )
    if vectors.dtype != np.float32:
        raise InputError(f"vectors must be float32; received {vectors.dtype}. Convert them beforehand.")
    # Of all rows: off by the noise of a sample's mean, in d columns, intercept and coefficients would not be parted.
    mean = (weights / weights.sum()).astype(np.float32) @ vectors
    if not np.isfinite(mean).all():
        raise InputError("vectors must be finite; received NaN or infinity. Leave those rows out, or fix the encoder.")
    spread, axes = _axes(vectors, weights, mean)
    of_groups = np.diag(shares) - np.outer(shares, shares)
    group_spread, group_axes = (of_groups[:1, :1].ravel(), np.eye(1)) if len(shares) == 2 else linalg.eigh(of_groups)
    return _Problem(
        vectors=np.ascontiguousarray(vectors),
        codes=np.ascontiguousarray(codes, np.int64),
        weights=weights,
        total=float(weights.sum()),
        mean=mean.astype(np.float64),
        axes=None if axes is None else axes.astype(np.float64),
        spread=np.maximum(spread, 0).astype(np.float64),
        group_axes=group_axes,
        group_spread=np.maximum(group_spread, 0),
    )


def _axes(vectors: np.ndarray, weights: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns eigenvalues `[d]` and eigenvectors `[d, d]` that coordinates are scaled by, or None.

    Of m rows whose true covariance is a multiple of the identity, d tr(S^2) / tr(S)^2 is 1 + d / m on average. A sample no
    more uneven than that tells nothing about the axes, and scaling by its noise would make the curvature worse.
    """
    d = vectors.shape[1]
    covariance, n_rows = _covariance(vectors, weights, mean, max(int(LOOK_PER_COLUMN * d), FEWEST))
    own = np.trace(covariance) / d
    unevenness = np.sum(covariance.astype(np.float64) ** 2) / (d * own**2) if own > 0 else 0.0
    if unevenness <= 1 + UNEVENNESS * d / n_rows:
        return np.full(d, own), None
    covariance, _ = _covariance(vectors, weights, mean, max(SAMPLE_PER_COLUMN * d, FEWEST))
    return linalg.eigh(covariance, overwrite_a=True, driver="evd")


def _covariance(vectors: np.ndarray, weights: np.ndarray, mean: np.ndarray, most: int) -> tuple[np.ndarray, int]:
    """Returns the covariance `[d, d]` and number of at most so many rows, taken at even distances."""
    rows = np.unique(np.linspace(0, len(vectors) - 1, min(len(vectors), most)).astype(np.int64))
    own = weights[rows] / weights[rows].sum()
    sample = (vectors[rows] - mean) * np.sqrt(own)[:, None].astype(np.float32)
    return sample.T @ sample, len(rows)


def _minimise(problem: _Problem, penalty: float, start: LogisticFit | None, pool: ThreadPoolExecutor) -> LogisticFit:
    o, d = len(problem.group_spread), len(problem.mean)
    scale = 1 / np.sqrt(problem.group_spread[:, None] * problem.spread + penalty)  # [o, d]
    # The direction in which all logits rise together changes nothing, its gradient is 0: any scale does.
    intercept_scale = 1 / np.sqrt(np.where(problem.group_spread > 1e-9, problem.group_spread, 1))

    def parameters(point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns coefficients `[o, d]` and intercept `[o]`, of vectors as they are."""
        inner, own = point[: o * d].reshape(o, d), point[o * d :]
        coefficients = problem.off_axes(problem.group_axes @ (inner * scale))
        return coefficients, problem.group_axes @ (own * intercept_scale) - coefficients @ problem.mean

    def point_of(fit: LogisticFit) -> np.ndarray:
        inner = problem.on_axes(problem.group_axes.T @ fit.coefficients) / scale
        own = problem.group_axes.T @ (fit.intercept + fit.coefficients @ problem.mean) / intercept_scale
        return np.concatenate([inner.ravel(), own])

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        coefficients, intercept = parameters(point)
        sums = pass_over_rows(problem.vectors, problem.codes, problem.weights, coefficients, intercept, pool=pool)
        mean = sums.divided(problem.total)
        slope = mean.slope - np.outer(mean.by_intercept, problem.mean) + penalty * coefficients
        inner = problem.on_axes(problem.group_axes.T @ slope) * scale
        gradient = np.concatenate([inner.ravel(), problem.group_axes.T @ mean.by_intercept * intercept_scale])
        value = mean.loss + penalty / 2 * np.sum(coefficients**2)
        return value, gradient

    first = np.zeros(o * d + o) if start is None else point_of(start)
    result = _lbfgs(objective, first)
    coefficients, intercept = parameters(result.x)
    is_flat = result.jac @ result.jac / 2 <= 10 * TOLERANCE * result.fun
    return LogisticFit(coefficients, intercept, float(result.fun), int(result.nit), bool(is_flat))


def _lbfgs(objective: Callable, first: np.ndarray) -> optimize.OptimizeResult:
    """Minimises from `first` until half the squared gradient is at most `TOLERANCE` of the objective.

    SciPy's first step has length 1 whatever the gradient. Counted in lengths of the first gradient it is Newton's step, where
    the curvature is 1.
    """
    value, gradient = objective(first)
    unit = np.linalg.norm(gradient)
    start = np.zeros_like(first)
    seen = {start.tobytes(): (value, gradient)}  # of the points since the last step

    def in_units(point: np.ndarray) -> tuple[float, np.ndarray]:
        key = point.tobytes()
        if key not in seen:
            seen[key] = objective(first + unit * point)
        return seen[key][0], unit * seen[key][1]

    def stop_when_flat(intermediate_result: optimize.OptimizeResult) -> None:
        key = intermediate_result.x.tobytes()
        _, slope = seen[key]
        for other in [one for one in seen if one != key]:
            del seen[other]
        if slope @ slope / 2 <= TOLERANCE * intermediate_result.fun:
            raise StopIteration

    if unit**2 / 2 <= TOLERANCE * value:
        return optimize.OptimizeResult(x=first, fun=value, jac=gradient, nit=0)
    options = {"maxiter": MAX_STEPS, "maxfun": 2 * MAX_STEPS, "ftol": 0.0, "gtol": 0.0, "maxcor": 20, "maxls": 30}
    result = optimize.minimize(in_units, start, jac=True, method="L-BFGS-B", callback=stop_when_flat, options=options)
    return optimize.OptimizeResult(x=first + unit * result.x, fun=result.fun, jac=result.jac / unit, nit=result.nit)
