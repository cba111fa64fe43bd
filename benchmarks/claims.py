"""Published claims, each beside what can be measured here, with an interval and a verdict.

    python benchmarks/claims.py                   # 5 seeds, all papers: half an hour on two cores
    python benchmarks/claims.py --paper biascxr   # BiasCXR's alone: about 10 minutes
    python benchmarks/claims.py --quick           # 3 seeds, one phantom: a few minutes

BiasCXR (github.com/aahmadnejad/BiasCXR; PDF report) compares two networks on one test set: one trained on MIMIC-CXR as it is,
one after balancing the cells of sex x race x age to their median size. Here both are trained as there (512-256, batches of 16,
one epoch, demographics as inputs, thresholds at 0.5), on `median_balance` (its code) and on `cluster_downsample` (its paper),
with what its code lacks: no copy of a training film among the test films, no patient on both sides, several seeds, intervals.

- **Arithmetic**: what follows from MIMIC-CXR's published marginals, with no model at all.
- **Phantom**: made-up vectors with race alone (sex and age are not in them, so claims on these cannot be tested there): with
  nothing planted but unequal group sizes; with patients of one group left out (what balancing is meant for); with findings that
  one group has less often. Test films are of the same law and labels are the recorded ones, as BiasCXR measured. Intervals:
  Student's over seeds, each a world of its own; Fieller's for a ratio.
- **NIH sample**: 22,433 films of test patients with sex, age and no race. As vectors the 14 logits of a public
  CheXNet that never saw these patients: real scores of real films, and a head on them can do little else than weigh them anew.
  A network on images is not tested: no trained encoder of films comes with this package. Intervals: patients resampled, the
  same for both models, and the variance over seeds (initial weights, draws) added. Balancing alone is also done on all 112,120.

FairREAD's and the causal paper's claims, which are about training and thresholds, stand in `claim_methods.py`; data, intervals
and verdicts are the same.

The numbers are another data set's. That they differ says little; that a claimed effect has the other sign, or is not there at
all where its cause is known to be, says more.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from claim_data import NIH, PREDICTIONS, WHOLE_TABLE, ClaimData, nih_data, nih_table, phantom_data
from claim_measures import CLAIMS, NOT_LOWER, RELATIVE, claim_row, measures, over_patients, over_worlds
from claim_methods import CAUSAL, FAIRREAD, comparisons, methods_on_nih, methods_on_worlds, there
from remedy_verdicts import Estimate
from remedy_worlds import NOTHING, Sizes

import biascxr
from biascxr.metrics import gini_coefficient, patient_weights
from biascxr.mitigation import SLOTS, SplitData, balance_table, parse_recipes, resolve, train_recipe

BIASCXR = "biascxr"
PAPERS = (BIASCXR, FAIRREAD, CAUSAL)
BALANCERS = ("median_balance", "cluster_downsample")
# BiasCXR's network and rule, as in the preset `biascxr`, for both of its models.
NETWORK = "erm(demographics=[sex, race, age_group], batch_size=16, max_epochs=1, patience=1) + threshold_0.5"
WORLDS = ((NOTHING, 0.0), ("under_representation", 0.8), ("prevalence", 0.8))
# Shares of MIMIC-CXR's 371,858 images: Seyyed-Kalantari et al., Nature Medicine 2021, table 1. The counts of these authors' own
# test split (github.com/LalehSeyyed/CheXclusion, MIMIC/results31: 25,338 images of known race, 36,415 of known age) agree
# to .02: race .661, .197, .070, .043, .027, .002; age .022, .199, .374, .336, .069. They too allow +22%, and .478 for three.
RACE = {"White": 0.6764, "Black": 0.1859, "Hispanic": 0.0641, "Other": 0.0383, "Asian": 0.0324, "Native": 0.0029}
AGE = {"0-20": 0.0220, "20-40": 0.1951, "40-60": 0.3720, "60-80": 0.3412, "80+": 0.0696}
N_RESAMPLES = 300
N_NIH_PATIENTS = 6187


def arithmetic() -> list[tuple[str, str, str, str]]:
    """Returns (claim, claimed, what follows from the marginals, verdict)."""
    age = np.array(list(AGE.values())) / sum(AGE.values())
    entropy = float(-(age * np.log(age)).sum())
    most = np.log(len(age)) / entropy - 1
    needed = np.log(len(age)) / 1.37
    lines = [
        (
            "entropy of age", "+37%",
            f"{entropy:.3f} nats before; five bins hold log 5 = {np.log(5):.3f} at most: {most:+.0%} at most. For +37% it "
            f"would have to be {needed:.3f} or less before",
            "cannot hold" if most < 0.37 else "can hold",
        )
    ]  # fmt: skip
    choices = {
        "all six": list(RACE),
        "without Native": [r for r in RACE if r != "Native"],
        "White, Black, Hispanic, Asian": ["White", "Black", "Hispanic", "Asian"],
        "White, Black, Asian": ["White", "Black", "Asian"],
    }
    for title, names in choices.items():
        value = gini_coefficient(np.array([RACE[n] for n in names]))
        says = "follows, if these are all" if abs(value - 0.48) < 0.01 else "does not follow"
        lines.append(("Gini of race before", ".48", f"{value:.3f} for {title}", says))
    return lines


def predictions(data: ClaimData, sampler: str, seed: int) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Trains BiasCXR's network on a sample; returns scores and decisions on the test films, and the balance table."""
    text = f"{sampler} + {NETWORK}" if sampler != "none" else NETWORK
    trained, sample = train_recipe(
        parse_recipes(text)[-1], data.films.cohort, data.films.parts["train"], data.films.parts, seed=seed
    )
    scores = trained.score(data.test.vectors, data.test.attributes)
    decisions = trained.decide(scores, data.test.attributes)
    return scores, decisions, balance_table(data.films.parts["train"], sample)


def measured(data: ClaimData, sampler: str, seed: int, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Returns every measure of a sampler's model, `[R]` each, and those of the training rows, `[1]`."""
    scores, decisions, balance = predictions(data, sampler, seed)
    groups = {name: data.test.attributes[name].to_numpy(str) for name in data.test.attributes}
    return measures(data.test.labels, scores, decisions, groups, weights) | evenness(balance)


def evenness(balance: pd.DataFrame) -> dict[str, np.ndarray]:
    """Returns Gini and entropy of each attribute's groups after sampling; the entropy in units of its maximum."""
    after = balance[balance["when"] == "after"].set_index("attribute")
    found = {f"Gini, {name}": after.loc[name, "gini"] for name in after.index}
    found |= {f"entropy, {name}": after.loc[name, "normalized_entropy"] for name in after.index}
    return {name: np.array([value]) for name, value in found.items()}


def on_worlds(mechanism: str, strength: float, n_seeds: int, sizes: Sizes) -> list[dict]:
    """Measures every claim that applies on phantoms of several seeds."""
    by: dict[str, list[dict]] = {name: [] for name in ("none", *BALANCERS)}
    for seed in range(1, n_seeds + 1):
        data = phantom_data(mechanism, strength, seed, sizes)
        once = np.ones((1, len(data.test)))
        for name, found in by.items():
            found.append(measured(data, name, seed, once))
    rows = []
    for claim in CLAIMS:
        if claim.measure not in by["none"][0]:
            continue
        values = {name: np.array([found[claim.measure][0] for found in own]) for name, own in by.items()}
        for name in BALANCERS:
            estimate = over_worlds(claim, values["none"], values[name])
            rows.append(claim_row(f"phantom, {mechanism}", claim, name, values["none"].mean(), values[name].mean(), estimate))
    return rows


def on_nih(folder: Path, n_seeds: int, n_patients: int | None) -> list[dict]:
    """Measures every claim that applies on the NIH sample."""
    data = nih_data(folder, n_patients=n_patients)
    resampled = patient_weights(data.test.patient_id, N_RESAMPLES, seed=1).astype(np.float64)
    weights = np.concatenate([np.ones((1, len(data.test))), resampled])
    by = {name: [measured(data, name, seed, weights) for seed in range(1, n_seeds + 1)] for name in ("none", *BALANCERS)}
    rows = []
    for claim in CLAIMS:
        if claim.measure not in by["none"][0]:
            continue
        values = {name: np.stack([np.broadcast_to(f[claim.measure], len(weights)) for f in own]) for name, own in by.items()}
        for name in BALANCERS:
            before, after = values["none"], values[name]
            of_seed = (after[:, 0] - before[:, 0]) / (before[:, 0].mean() if claim.kind == RELATIVE else 1)
            of_seeds = of_seed.var(ddof=1) / n_seeds if n_seeds > 1 else 0.0
            estimate = over_patients(claim, before.mean(axis=0), after.mean(axis=0), of_seeds)
            rows.append(claim_row("NIH sample", claim, name, before[:, 0].mean(), after[:, 0].mean(), estimate))
    return rows


def balance_of(table: SplitData, seed: int) -> list[dict]:
    """What BiasCXR's own balancing does to the groups of a whole table: no model, no vectors, nothing to estimate."""
    found = {}
    for name in ("none", "median_balance"):
        sample = resolve("sampling", SLOTS["sampling"], name)().sample(table, seed=seed)
        found[name] = evenness(balance_table(table, sample))
    rows = []
    for claim in CLAIMS:
        if claim.measure in found["none"]:
            before, after = (float(found[name][claim.measure][0]) for name in ("none", "median_balance"))
            value = after / before - 1
            rows.append(claim_row("NIH, all films", claim, "median_balance", before, after, Estimate(value, value, value)))
    return rows


def print_rows(rows: list[dict]) -> None:
    """Prints the measured claims, a line each."""
    shown = None
    width = max((len(row["compared"]) for row in rows), default=0) + 2
    for row in rows:
        if row["data"] != shown:
            shown = row["data"]
            print(f"\n{shown}")
            print(f"  {'measure':<44}{'compared':<{width}}{'claimed':>16}{'before':>9}{'after':>9}  measured (95%)")
        form = "+.0%" if row["kind"] == RELATIVE else "+.3f"
        low, high = format(row["claimed_low"], form), format(row["claimed_high"], form)
        claimed = low if low == high else f"{low} to {high}"
        claimed = f"at least {low}" if row["kind"] == NOT_LOWER else claimed
        interval = "-" if np.isnan(row["low"]) else f"{row['measured']:{form}} ({row['low']:{form}} to {row['high']:{form}})"
        numbers = f"{claimed:>16}{row['before']:>9.3f}{row['after']:>9.3f}"
        print(f"  {row['measure']:<44}{row['compared']:<{width}}{numbers}  {interval}: {row['verdict']}")


def print_arithmetic() -> None:
    """Prints what follows from the marginals alone."""
    print("\narithmetic, from the marginals of MIMIC-CXR")
    for what, claimed, follows, says in arithmetic():
        print(f"  {what}, claimed {claimed}: {follows}: {says}")


def rows_of(paper: str, flags: argparse.Namespace, n_seeds: int) -> list[dict]:
    """Measures a paper's claims, and prints them as they come."""
    print(f"\n== {paper} ==")
    if paper == BIASCXR:
        print_arithmetic()
    elif missing := sorted({c.after.training for c in comparisons(paper)} - {c.after.training for c in there(paper)}):
        print(f"NOT THERE in this version: {', '.join(missing)}")
    rows, sizes = [], Sizes().scaled(flags.scale)
    for mechanism, strength in WORLDS[1:2] if flags.quick else WORLDS:
        if paper == BIASCXR:
            made = on_worlds(mechanism, strength, n_seeds, sizes)
        else:
            made = methods_on_worlds(paper, mechanism, strength, n_seeds, sizes)
        print_rows(made)
        rows += made
    if not (flags.nih / PREDICTIONS).is_file():
        print(f"\nNIH sample: {flags.nih / PREDICTIONS} is not there; nothing is said of real films")
        return rows
    n_patients = None if flags.scale == 1 else round(N_NIH_PATIENTS * flags.scale)
    if paper == BIASCXR:
        made = on_nih(flags.nih, n_seeds, n_patients)
        made += balance_of(nih_table(flags.nih), 1) if (flags.nih / WHOLE_TABLE).is_file() else []
    else:
        made = methods_on_nih(paper, flags.nih, n_seeds, n_patients, N_RESAMPLES)
    print_rows(made)
    return rows + made


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paper", choices=[*PAPERS, "all"], default="all", help="whose claims")
    parser.add_argument("--quick", action="store_true", help="3 seeds, one phantom")
    parser.add_argument("--seeds", type=int, help="of each phantom, and of the networks on the NIH sample (default: 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the patients, to try things")
    parser.add_argument("--nih", type=Path, default=NIH, help="folder of the NIH sample; left out where it is not there")
    parser.add_argument("--csv", type=Path, help="write the measured claims")
    flags = parser.parse_args(arguments)
    n_seeds = flags.seeds if flags.seeds is not None else 3 if flags.quick else 5
    if n_seeds < 1 or not 0 < flags.scale <= 1:
        parser.error("--seeds must be at least 1 and --scale in (0, 1]")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    logging.getLogger("biascxr").setLevel(logging.WARNING)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of every model that is traced anew
    print(f"biascxr {biascxr.__version__}, {n_seeds} seeds")
    started, rows = time.perf_counter(), []
    for paper in PAPERS if flags.paper == "all" else [flags.paper]:
        rows += [{"paper": paper, **row} for row in rows_of(paper, flags, n_seeds)]
    print("\nNot tested: race on real films (NIH has none), networks on images, MIMIC-CXR itself.")
    print(f"{time.perf_counter() - started:.0f} s")
    if flags.csv:
        flags.csv.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(rows).round(4).to_csv(flags.csv, index=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
