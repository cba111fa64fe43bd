"""Which remedy closes how much of what a known bias has cost? Every method of the four slots, on made-up vectors.

    python benchmarks/remedies.py             # 5 seeds, both families: an hour on two cores; goes on where it stopped
    python benchmarks/remedies.py --quick     # 3 seeds, the linear family: a quarter of an hour
    python benchmarks/remedies.py --methods refusion,two_step --join benchmarks/results/remedies.csv   # adds or renews rows
    python benchmarks/remedies.py --tune      # chooses settings on development worlds: remedies_settings.yaml

A world is a phantom (`biascxr.phantom.draw_vectors`) in which one mechanism acts on one of four groups at strength 0.8. Every
method is trained as a user would train it, on recorded labels of biased training, validation and calibration films, with the
group as its attribute, and judged on unbiased test films with *true* labels. A patient counts once. Definitions:

**Share closed.** (L(erm) - L(method)) / (L(erm) - L(erm on unbiased films)): 0 for the baseline, 1 for `erm` trained on as many
films without bias; below 0 it harms, above 1 it does better than unbiased films would. The unbiased films are of the same
patients at strength 0, cut at random to the number of biased ones where patients or films were left out.

**L is the loss of the group that the mechanism acts on.** It is the worst group by design; picking the group with the largest
loss on the films it is judged on would pick chance along and regress to the mean, and that of strength 0 has no worst group at
all. (The line of each mechanism says whether it was the worst beside everyone else.) What the others pay stands in a column.

**Three losses**, as a slot can only move some; each method is judged on one and shown on all:
- *log loss* of its probabilities: calibrators are judged on it;
- *recalibrated* log loss, after one Platt scaling for everyone, fitted on the biased calibration films: sampling,
  representation and training. Methods that balance classes move all probabilities away from the prevalence on purpose; without
  this step the log loss would show that alone. It sees no group and is put to `erm` too;
- *decision* loss, the balanced error rate 1 - (TPR + TNR) / 2, mean over findings: thresholds move nothing else.

**Unbiased test films** are those of strength 0, for the same patients. For `prevalence` and `presentation` that is a choice:
the group's findings are rarer, or fainter, in the data learned from and not where the model is used (another period, older
devices), as in Jones et al. (Nature Machine Intelligence 2024). Were they so in use as well, there would be no excess: `erm` on
unbiased films would be the worse model, and what is left is the distance to Bayes, which no training closes (printed). Under
`acquisition` markers are on test films as often as on training films, and go with nothing; so they are in its unbiased training
films; it is judged on the marked finding alone. Labels recorded wrongly and patients left out do not touch test films.

**Where there is nothing to close** (the excess is not above 0 by its interval) a share is noise over noise: "no excess".

**Intervals**, 95%. Seeds are the unit: each has a world of its own, patients, films, initial weights, so how much seeds differ
holds the chance of patients too. The share is a ratio of means over seeds, with Fieller's interval at Student's t. From five
seeds a spread may come out too small by chance; it is not believed below what the patients within the worlds alone give (their
sampling variance, in closed form per patient). Both families of one seed share their patients, so they are averaged first.
There are some 250 intervals: one in twenty of those without effect lies off zero. Hence also a least share of a tenth.

**Seen**: *help* where the interval is above 0, the share at least .10, and the gain larger than what the same method gains in
the same worlds without bias (else *gains anyway*: a better model, no remedy); *harm* where it is below 0 and at most -.10; *no
effect* where it lies within a quarter of the excess of 0; *unclear* otherwise. *Expected* is what `expectations.yaml` said.

**Negative control**: at strength 0 no method should cost more than 0.01 of its loss.

**Leakage**: AUROC of a logistic probe for the group on unbiased test films, from the method's scores; from its vectors too
where it changes them. **Settings** were chosen on development worlds (seed 101, strength 0.5), one for all mechanisms: nobody
knows which one his data have.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from remedy_measures import measure
from remedy_methods import EXPECTATIONS, NETWORK, SETTINGS, Method, all_methods, read_expectations, read_settings
from remedy_report import markdown, print_report
from remedy_tuning import STRENGTH as TUNED_STRENGTH
from remedy_tuning import candidates, choose, development_keys
from remedy_verdicts import references, summarise
from remedy_worlds import NOTHING, Sizes, WorldKey, draw_world

import biascxr
from biascxr.phantom import MECHANISMS
from biascxr.phantom.vectors import FAMILIES

ROOT = Path(__file__).parents[1]
STRENGTH = 0.8
WORLDS_PER_WORKER = 9
FOLDER = ROOT / "output" / "benchmarks" / "remedies"
# Results rest on this code; a world measured by other code is measured anew.
CODE = ("benchmarks/remedy_*.py", "biascxr/mitigation/**/*.py", "biascxr/models/*.py", "biascxr/phantom/*.py")
# One thread for each worker: worlds run beside each other, and small matrices gain nothing from more.
ONE_THREAD = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def fingerprint(sizes: Sizes, methods: list[Method], code: tuple[str, ...] = CODE) -> str:
    """Returns what a world's results rest on, beside the world: code, sizes, methods and their settings."""
    sources = sorted(path for pattern in code for path in ROOT.glob(pattern))
    digest = hashlib.sha256("\n".join(without_docstrings(path.read_text(encoding="utf-8")) for path in sources).encode())
    digest.update(json.dumps([vars(sizes), NETWORK, [[m.name, m.settings] for m in methods]], sort_keys=True).encode())
    return digest.hexdigest()[:12]


def without_docstrings(source: str) -> str:
    """Returns what a module does: its syntax tree, without what is written about it."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        is_documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None
        if is_documented:
            node.body = node.body[1:]
    return ast.dump(tree)


def measure_world(key: WorldKey, sizes: Sizes, methods: list[Method], path: Path) -> float:
    """Measures one world and writes its rows, whole or not at all; returns the seconds it took."""
    import keras

    logging.getLogger("biascxr").setLevel(logging.WARNING)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of every model that is traced anew
    started = time.perf_counter()
    rows = measure(draw_world(key, sizes), methods)
    unfinished = path.with_suffix(".unfinished")
    rows.to_csv(unfinished, index=False)
    unfinished.rename(path)
    keras.backend.clear_session()
    return time.perf_counter() - started


def measure_worlds(
    keys: list[WorldKey],
    sizes: Sizes,
    methods: list[Method],
    folder: Path,
    workers: int,
    *,
    job: Callable[[WorldKey, Sizes, list[Method], Path], float] = measure_world,
    code: tuple[str, ...] = CODE,
) -> pd.DataFrame:
    """Measures the worlds that are not in the folder yet, and reads all of them.

    Args:
        keys: the worlds.
        sizes: how many patients.
        methods: what is measured in each; a name and settings are all that is looked at here.
        folder: where each world's rows are kept.
        workers: worlds at a time.
        job: measures one world as `measure_world` does; a function of a module, for other processes to find.
        code: files that the results rest on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mark = fingerprint(sizes, methods, code)
    paths = {key: folder / f"{key.name}-{mark}.csv" for key in keys}
    missing = [key for key in keys if not paths[key].is_file()]
    print(f"{len(keys)} worlds, {len(keys) - len(missing)} of them measured before, in {folder}; {workers} workers", flush=True)
    started = time.perf_counter()

    def tell(done: int, key: WorldKey, seconds: float) -> None:
        left = (time.perf_counter() - started) / done * (len(missing) - done)
        print(f"{done:>4} of {len(missing)}  {key.name:<42} {seconds:4.0f} s, {left / 60:.0f} min left", flush=True)

    if workers == 1:
        for done, key in enumerate(missing, start=1):
            tell(done, key, job(key, sizes, methods, paths[key]))
    else:
        # New workers now and then: TensorFlow keeps what it has traced. (`max_tasks_per_child` would do it too, and hangs in
        # Python 3.11 once all workers have reached it: github.com/python/cpython/issues/115634.)
        done = 0
        for batch in batched(missing, WORLDS_PER_WORKER * workers):
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                jobs = {pool.submit(job, key, sizes, methods, paths[key]): key for key in batch}
                for finished in as_completed(jobs):
                    done += 1
                    tell(done, jobs[finished], finished.result())
    return pd.concat([pd.read_csv(path) for path in paths.values()], ignore_index=True)


def batched(keys: list[WorldKey], n: int) -> list[list[WorldKey]]:
    return [keys[start : start + n] for start in range(0, len(keys), n)]


def keys_of(families: list[str], mechanisms: list[str], n_seeds: int) -> list[WorldKey]:
    """Returns the held-out worlds; the one without bias first, which all mechanisms are compared with."""
    places = [(NOTHING, 0.0), *((mechanism, STRENGTH) for mechanism in mechanisms)]
    seeds = range(1, n_seeds + 1)
    return [WorldKey(family, name, strength, seed) for seed in seeds for name, strength in places for family in families]


def commit_of_expectations(expectations: Path = EXPECTATIONS) -> str:
    """Says since when a file of expectations is committed, or that it is not."""
    path = str(expectations.relative_to(ROOT))
    try:
        changed = subprocess.run(["git", "status", "--porcelain", path], cwd=ROOT, capture_output=True, text=True).stdout
        last = subprocess.run(["git", "log", "-1", "--format=%h of %ci", "--", path], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return "expectations: no git here to tell when they were committed"
    if changed.strip() or not last.stdout.strip():
        return f"{expectations.name} IS NOT COMMITTED as it stands: what follows is no test of it"
    return f"expectations: commit {last.stdout.strip()}"


def tune(arguments: argparse.Namespace, sizes: Sizes, methods: list[Method]) -> int:
    """Chooses the settings and writes them."""
    tried = [candidate for method in methods for candidate in candidates(method)]
    keys = development_keys(arguments.families, arguments.mechanisms)
    found = measure_worlds(keys, sizes, tried, arguments.folder, arguments.workers)
    text = choose(found, methods)
    arguments.settings.write_text(text, encoding="utf-8")
    print(f"\n{text}\nwritten to {arguments.settings}")
    return 0


def some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Returns what reads names separated by commas, each one of those known, for `argparse`."""
    known = list(known)

    def read(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",")]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of: {', '.join(known)}")
        return names

    return read


def check_sizes(parser: argparse.ArgumentParser, read: argparse.Namespace) -> None:
    """Ends with a message where seeds, workers or the share of patients cannot be used."""
    if read.seeds < 1 or read.workers < 1 or not 0 < read.scale <= 1:
        parser.error("--seeds and --workers must be at least 1 and --scale in (0, 1]")


def read_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    parser.add_argument("--quick", action="store_true", help="3 seeds, the linear family")
    parser.add_argument("--tune", action="store_true", help="choose settings on development worlds")
    parser.add_argument("--seeds", type=int, help="worlds of each kind (default: 5)")
    parser.add_argument("--families", type=some_of(FAMILIES), help="some of them, separated by commas")
    parser.add_argument("--mechanisms", type=some_of(MECHANISMS), default=list(MECHANISMS), help="likewise")
    parser.add_argument("--methods", help="likewise; all by default")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the patients, to try things")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="worlds at a time")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where each world's rows are kept")
    parser.add_argument("--settings", type=Path, default=SETTINGS, help="the settings chosen by --tune")
    parser.add_argument("--join", type=Path, help="an earlier table whose rows of other methods are kept")
    parser.add_argument("--csv", type=Path, help="write the table")
    parser.add_argument("--markdown", type=Path, help="write the table for the documentation")
    read = parser.parse_args(arguments)
    read.expectations = read_expectations()
    read.known = all_methods(read.expectations.not_measured)
    read.methods = read.methods.split(",") if read.methods else list(read.known)
    unknown = sorted(set(read.methods) - set(read.known))
    if unknown:
        parser.error(f"--methods: {unknown[0]!r} is none of: {', '.join(read.known)}")
    read.families = read.families or (["linear"] if read.quick else list(FAMILIES))
    read.seeds = read.seeds if read.seeds is not None else 3 if read.quick else 5
    check_sizes(parser, read)
    return read


def main(arguments: list[str] | None = None) -> int:
    read = read_arguments(arguments)
    chosen, expectations = read_settings(read.settings), read.expectations
    methods = [read.known[name].having(chosen.get(name, {})) for name in read.methods]
    sizes = Sizes().scaled(read.scale)
    os.environ |= ONE_THREAD | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    print(f"biascxr {biascxr.__version__}, {', '.join(_versions())}")
    print(f"patients: {', '.join(f'{name} {n:,}' for name, n in vars(sizes).items())}; about 2.1 films each")
    if read.tune:
        return tune(read, sizes, [read.known[name] for name in read.methods])
    print(commit_of_expectations())
    if not chosen:
        print(f"no {read.settings.name}: every method with its defaults")
    print(f"settings chosen at strength {TUNED_STRENGTH:g} and other seeds; held-out worlds at strength {STRENGTH:g}")
    started = time.perf_counter()
    found = measure_worlds(keys_of(read.families, read.mechanisms, read.seeds), sizes, methods, read.folder, read.workers)
    table, context = summarise(found, methods, expectations), references(found)
    if read.join:
        table = joined(pd.read_csv(read.join), table, list(read.known))
    print_report(table, context)
    print(f"\n{time.perf_counter() - started:.0f} s")
    if read.csv:
        read.csv.parent.mkdir(parents=True, exist_ok=True)
        table.round(4).to_csv(read.csv, index=False)
    if read.markdown:
        read.markdown.parent.mkdir(parents=True, exist_ok=True)
        read.markdown.write_text(markdown(table, context, expectations), encoding="utf-8")
    return 0


def joined(earlier: pd.DataFrame, table: pd.DataFrame, known: list[str]) -> pd.DataFrame:
    """Puts new rows among those of other methods of an earlier run, whose worlds were drawn from the same seeds.

    Args:
        earlier: its table.
        table: the new one, of some methods.
        known: all methods, in the order wanted.
    """
    kept = earlier[~earlier["method"].isin(table["method"]) & earlier["method"].isin(known)]
    both = pd.concat([kept, table], ignore_index=True)
    order = {name: place for place, name in enumerate(known)}
    places = {name: list(table[name].drop_duplicates()) for name in ("mechanism", "family")}
    keys = [both["method"].map(order), *(both[name].map(places[name].index) for name in ("family", "mechanism"))]
    return both.iloc[np.lexsort(keys)].reset_index(drop=True)


def _versions() -> list[str]:
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in ("keras", "tensorflow", "scikit-learn", "fairlearn", "imbalanced-learn", "numpy"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} missing")
    return found


if __name__ == "__main__":
    sys.exit(main())
