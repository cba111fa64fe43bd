"""Which part of a published method does what? FairREAD, the causal paper and the two-step optimisation, part by part.

    python benchmarks/ablations.py --external --csv A.csv --markdown A.md  # 5 seeds, 8 worlds: half an hour on two
                                                                           # cores; goes on where it stopped
    python benchmarks/ablations.py --quick                                 # 3 seeds, 2 worlds: five minutes

**Lines.** Plain training (`erm`) at 0.5 and at one overall threshold; FairREAD's group thresholds alone, its first stage
(features made orthogonal to those that show the attributes), its second (the recorded attributes fused back in), all of it,
and all of it at 0.5; the causal module without its graph (and so without what is sent through it), without its noise, without
supervised attributes, and whole; the two-step optimisation without its race term, at a tenth of its weights, as published, at
ten times, and with a race head that learns to be right.

**Worlds.** Those of `remedies.py`, linear family: each mechanism of the phantom on one of four groups at strength 0.8, and
nothing planted. And the NIH sample: 14 scores of a public CheXNet as vectors, groups of sex x age at 60, and 0.3 of the women's
recorded positives hidden in what is learned from. NIH has no race, the phantom nothing else.

**Judged** on unbiased films with true labels, as `remedies.py` does, and, of the phantoms, on films of the same law as those
learned from, with recorded labels, as the papers do. On the NIH sample the test labels are as they were recorded.

**Measures**, over groups, means over findings, a patient counts once: ΔEO = max of the gaps of TPR and TNR; ΔAUC; AUROC; the
spread (SD) over groups of the AUROC of a group's positives against everyone else's negatives (BNSP), the causal paper's;
flips: the share of decisions that change where only the recorded attribute is another; FATE_EO and FATE_AUC: relative gain in
AUROC less relative growth of ΔEO or ΔAUC, against `erm`. A maximum of noise is above 0: read changes, not values.

**Intervals**, 95%, of the paired change against `erm` at 0.5 (and of ΔEO also against `erm` with the line's own rule, which
tells what the training adds): Student's over seeds. A phantom's seed has patients, films and initial weights of its own. A seed
of the NIH sample judges another fifth of its patients; as the folds learn from overlapping patients, Nadeau and Bengio's
correction is put on. From fewer than five seeds an interval says little.

**Seen**: *higher* or *lower* where the interval is off zero and the change at least a margin (.02; AUROC and BNSP SD .01);
*same* where it lies within twice the margin; *unclear* otherwise. *Expected* is what `ablation_expectations.yaml` said.

There are more than a thousand intervals: one in twenty of those without effect lies off zero.

**What was cut**: networks are those of `remedies.py`, one hidden layer of 64, and some blocks are smaller (printed).

**`--external`** trains the whole recipes on one made-up hospital and applies them to another one (`ablation_sites.py`).
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

from ablation_lines import ERM, EXPECTATIONS, LINES, NIH, NOTHING, WORLDS, Line, read_expectations
from ablation_measures import measure
from ablation_report import conclusions, markdown, summarise, table_lines
from ablation_worlds import NIH_FOLDER, draw, key_of
from claim_data import PREDICTIONS
from remedies import CODE, ONE_THREAD, ROOT, check_sizes, commit_of_expectations, measure_worlds, some_of
from remedy_methods import CUT, NETWORK
from remedy_worlds import Sizes, WorldKey

import biascxr

FOLDER = ROOT / "output" / "benchmarks" / "ablations"
QUICK_WORLDS = ("annotation", NOTHING)
# What the worlds rest on; the report may change without measuring anew.
WORLD_CODE = (
    *CODE,
    *(f"benchmarks/{name}.py" for name in ("ablation_lines", "ablation_worlds", "ablation_measures", "claim_data")),
)


def measure_world(key: WorldKey, sizes: Sizes, lines: list[Line], path: Path, *, nih: Path) -> float:
    """Measures one world and writes its rows, whole or not at all; returns the seconds it took."""
    import keras

    logging.getLogger("biascxr").setLevel(logging.WARNING)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of every model that is traced anew
    started = time.perf_counter()
    rows = measure(draw(key, sizes, nih), lines)
    unfinished = path.with_suffix(".unfinished")
    rows.to_csv(unfinished, index=False)
    unfinished.rename(path)
    keras.backend.clear_session()
    return time.perf_counter() - started


def what_was_cut() -> str:
    """Says which settings are smaller than the members' own."""
    own = "; ".join(f"{name}: {', '.join(f'{k} {v}' for k, v in settings.items())}" for name, settings in CUT.items())
    return f"Cut to fit: {', '.join(f'{k} {v}' for k, v in NETWORK.items())}; {own}."


def read_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    parser.add_argument("--quick", action="store_true", help=f"3 seeds, {' and '.join(QUICK_WORLDS)}")
    parser.add_argument("--seeds", type=int, help="worlds of each kind (default: 5)")
    parser.add_argument("--worlds", type=some_of(WORLDS), help="some of them, separated by commas")
    parser.add_argument("--lines", type=some_of(tuple(line.name for line in LINES)), help="likewise; erm is always there")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the patients, to try things")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="worlds at a time")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where each world's rows are kept")
    parser.add_argument("--nih", type=Path, default=NIH_FOLDER, help="folder of the NIH sample; left out where it is not there")
    parser.add_argument("--external", action="store_true", help="also train on one made-up hospital and apply to another")
    parser.add_argument("--csv", type=Path, help="write the table")
    parser.add_argument("--markdown", type=Path, help="write the table for the documentation")
    read = parser.parse_args(arguments)
    read.worlds = read.worlds or list(QUICK_WORLDS if read.quick else WORLDS)
    read.seeds = read.seeds if read.seeds is not None else 3 if read.quick else 5
    if read.lines == [ERM.name]:
        parser.error(f"--lines {ERM.name}: it is what others are compared with; name another line too")
    check_sizes(parser, read)
    return read


def main(arguments: list[str] | None = None) -> int:
    read = read_arguments(arguments)
    expectations, sizes = read_expectations(), Sizes().scaled(read.scale)
    wanted = [line for line in LINES if line == ERM or read.lines is None or line.name in read.lines]
    lines = [line for line in wanted if line.is_there]
    os.environ |= ONE_THREAD | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    print(f"biascxr {biascxr.__version__}; {commit_of_expectations(EXPECTATIONS)}")
    print(f"patients: {', '.join(f'{name} {n:,}' for name, n in vars(sizes).items())}; about 2.1 films each")
    print(what_was_cut())
    if len(lines) < len(wanted):
        print(f"NOT THERE in this version: {', '.join(line.name for line in wanted if not line.is_there)}")
    worlds = read.worlds
    if NIH in worlds and not (read.nih / PREDICTIONS).is_file():
        print(f"NIH sample: {read.nih / PREDICTIONS} is not there; nothing is said of real films")
        worlds = [world for world in worlds if world != NIH]
    started = time.perf_counter()
    if worlds:
        keys = [key_of(world, seed) for seed in range(1, read.seeds + 1) for world in worlds]
        job = functools.partial(measure_world, nih=read.nih)
        found = measure_worlds(keys, sizes, lines, read.folder, read.workers, job=job, code=WORLD_CODE)
        table = summarise(found, expectations)
        print("\n".join([*table_lines(table), "", *conclusions(table)]))
        if read.csv:
            read.csv.parent.mkdir(parents=True, exist_ok=True)
            table.round(4).to_csv(read.csv, index=False)
        if read.markdown:
            read.markdown.parent.mkdir(parents=True, exist_ok=True)
            read.markdown.write_text(markdown(table, expectations, what_was_cut()), encoding="utf-8")
    if read.external:
        from ablation_sites import external_evaluation, site_lines

        with tempfile.TemporaryDirectory() as folder:
            print("\n".join(site_lines(external_evaluation(Path(folder), sizes))))
    print(f"\n{time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
