"""The benchmark of gathering vectors finds every side's vectors the same; what it measures is never tested against a clock."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "vector_gathering.py"


@pytest.mark.slow
def test_the_benchmark_of_gathering_finds_all_ways_equal():
    pytest.importorskip("tensorflow")
    command = [sys.executable, BENCHMARK, "--files", "60", "--rows", "40", "--turns", "1"]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    assert made.stdout.count("the same vectors to the last bit: yes") == 2
    assert "times tf.data interleave (goal 8)" in made.stdout and "peak of resident memory" in made.stdout
