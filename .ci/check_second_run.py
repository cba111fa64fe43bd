"""Runs a finished run's command again: every stage must be reused, and TensorFlow must not be imported."""

import sys
import time
from pathlib import Path

from biascxr.cli import run_command

started = time.perf_counter()
assert run_command(sys.argv[2:]) == 0  # sys.argv[1] is main.py
seconds = time.perf_counter() - started
loaded = [name for name in ("tensorflow", "keras") if name in sys.modules]
assert not loaded, f"the second run imported {loaded}"
log = Path(sys.argv[sys.argv.index("--output_dir") + 1], "run.log").read_text(encoding="utf-8")
last_run = log.rsplit(": run in ", 1)[1]
assert "done in" not in last_run, last_run
print(f"second run: every stage reused, no TensorFlow, {seconds:.1f} s (promised: 10 s)")
assert seconds < 10
