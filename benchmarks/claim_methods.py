"""The claims of FairREAD and of the causal paper, which are about training and thresholds.

Heads, films and measures are those of `ablations.py`: small networks on vectors, test films of the law learned from with their
recorded labels (as the papers measured), groups of race on the phantoms and of sex x age at 60 on the NIH sample; images count.
What a rule does is measured on `erm` too: a claim for FairREAD that holds there as well is one for the thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ablation_lines import ERM, SAME_LAW, Line
from ablation_measures import fairness, trained_lines
from ablation_worlds import AGE_EDGES, AblationWorld, judged_films
from claim_data import ClaimData, nih_data, phantom_data
from claim_measures import (
    ORDER_CLAIMS,
    RELATIVE,
    SPREAD_CLAIM,
    THRESHOLDS_CLAIM,
    UTILITY_CLAIM,
    Claim,
    claim_row,
    over_patients,
    over_worlds,
)
from remedy_worlds import Sizes, WorldKey

from biascxr.metrics import patient_weights

FAIRREAD, CAUSAL = "fairread", "causal_noise"
HALF, MIN_GAP = "threshold_0.5", "group_min_gap"
RULES = (HALF, MIN_GAP, "group_gmean", "group_youden")


@dataclass(frozen=True)
class Comparison:
    """A claim and the two lines that it is about.

    Attributes:
        claim: what was published.
        before: the line that it is measured against.
        after: the line that it is claimed for.
    """

    claim: Claim
    before: Line
    after: Line

    @property
    def text(self) -> str:
        """What is compared, in a few words."""
        return f"{self.after.name} against {self.before.name}"


def _with_rule(training: str, rule: str) -> Line:
    named = {"refusion": "demographics", "causal_noise": "attributes"}
    return Line(f"{training}+{rule}", training, rule, groups_in=named.get(training, ""))


def comparisons(paper: str) -> list[Comparison]:
    """Returns what is measured of a paper's claims."""
    if paper == CAUSAL:
        causal = _with_rule("causal_noise", HALF)
        return [Comparison(SPREAD_CLAIM, ERM, causal), Comparison(UTILITY_CLAIM, ERM, causal)]
    found = []
    for training in ("refusion", "erm"):
        by = {rule: _with_rule(training, rule) for rule in RULES}
        found.append(Comparison(THRESHOLDS_CLAIM, by[HALF], by[MIN_GAP]))
        found += [Comparison(claim, by[before], by[after]) for (before, after), claim in ORDER_CLAIMS.items()]
    return [*found, Comparison(UTILITY_CLAIM, ERM, _with_rule("refusion", HALF))]


def lines_of(compared: list[Comparison]) -> list[Line]:
    """Returns the lines that are compared, each once."""
    return list({line.name: line for c in compared for line in (c.before, c.after)}.values())


def measured(data: ClaimData, lines: list[Line], seed: int, weights: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Trains the lines and returns each one's measures, `[R]`.

    Args:
        data: films to learn from and test films.
        lines: what is trained; lines with one training share a head.
        seed: of initial weights and order.
        weights: `[R, n]` of the test films.
    """
    films = judged_films(data.test)
    world = AblationWorld(WorldKey("linear", data.name, 0.0, seed), data.films, {SAME_LAW: films})
    found = {}
    for line, trained, _ in trained_lines(world, lines):
        scores = trained.score(films.vectors, films.attributes)
        found[line.name] = fairness(films.labels, scores, trained.decide(scores, films.attributes), films.group, weights)
    return found


def methods_on_worlds(paper: str, mechanism: str, strength: float, n_seeds: int, sizes: Sizes) -> list[dict]:
    """Measures a paper's claims on phantoms of several seeds."""
    compared = there(paper)
    lines, found = lines_of(compared), []
    for seed in range(1, n_seeds + 1) if lines else ():
        data = phantom_data(mechanism, strength, seed, sizes)
        found.append(measured(data, lines, seed, np.ones((1, len(data.test)))))
    rows = []
    for own in compared:
        before, after = (np.array([f[line.name][own.claim.measure][0] for f in found]) for line in (own.before, own.after))
        estimate = over_worlds(own.claim, before, after)
        rows.append(claim_row(f"phantom, {mechanism}", own.claim, own.text, before.mean(), after.mean(), estimate))
    return rows


def methods_on_nih(paper: str, folder: Path, n_seeds: int, n_patients: int | None, n_resamples: int) -> list[dict]:
    """Measures a paper's claims on the NIH sample: patients resampled, the variance over seeds added."""
    compared = there(paper)
    if not compared:
        return []
    data = nih_data(folder, n_patients=n_patients, age_edges=AGE_EDGES)
    resampled = patient_weights(data.test.patient_id, n_resamples, seed=1).astype(np.float64)
    weights = np.concatenate([np.ones((1, len(data.test))), resampled])
    found = [measured(data, lines_of(compared), seed, weights) for seed in range(1, n_seeds + 1)]
    rows = []
    for own in compared:
        before, after = (np.stack([f[line.name][own.claim.measure] for f in found]) for line in (own.before, own.after))
        whole = before[:, 0].mean() if own.claim.kind == RELATIVE else 1.0
        # Where the whole is 0 (at 0.5 nobody may be flagged) there is no share, and `over_patients` says so.
        of_seeds = ((after - before)[:, 0] / (whole or 1.0)).var(ddof=1) / n_seeds if n_seeds > 1 else 0.0
        estimate = over_patients(own.claim, before.mean(axis=0), after.mean(axis=0), of_seeds)
        rows.append(claim_row("NIH sample", own.claim, own.text, before[:, 0].mean(), after[:, 0].mean(), estimate))
    return rows


def there(paper: str) -> list[Comparison]:
    """Returns a paper's comparisons whose training methods are in this version's table."""
    return [own for own in comparisons(paper) if own.before.is_there and own.after.is_there]
