"""The benchmarks run: on tiny data here; what they measure is printed, never tested against a clock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(script: str, *flags: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(BENCHMARKS / script), *flags], capture_output=True, text=True)


@pytest.mark.slow
def test_the_speed_benchmark_finds_both_sides_equal():
    made = run("audit_speed.py", "--quick", "--rows", "400", "--replicates", "70", "--no-growth")
    assert made.returncode == 0, made.stderr
    assert "largest difference from scikit-learn" in made.stdout and "times faster" in made.stdout


@pytest.mark.slow
def test_the_calibration_benchmark_prints_figures_beside_their_targets():
    made = run("audit_calibration.py", "--worlds", "2", "--part", "gaps,power")
    assert made.returncode == 0, made.stderr
    assert "94..100" in made.stdout and "figures pass" in made.stdout


@pytest.mark.slow
def test_the_phantom_benchmark_finds_the_planted_bias_and_where_labels_mislead():
    made = run("phantom.py", "--audits", "2", "--mechanisms", "annotation")
    assert "NOT MET" not in made.stdout and made.returncode == 0, made.stdout + made.stderr
    assert "annotation, FPR: recorded labels mislead (0% hold the true gap)" in made.stdout


@pytest.mark.parametrize("flags", [["--mechanisms", "nothing"], ["--audits", "0"]])
def test_flags_of_the_phantom_benchmark_that_make_no_sense_are_refused(flags):
    made = run("phantom.py", *flags)
    assert made.returncode == 2 and flags[0] in made.stderr


@pytest.mark.parametrize("flags", [["--worlds", "1"], ["--part", "nothing"], ["--pace"]])
def test_flags_that_make_no_sense_are_refused(flags):
    made = run("audit_calibration.py", *flags)
    assert made.returncode == 2 and flags[0] in made.stderr
