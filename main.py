"""`python main.py --csv_path meta.csv`: the whole run, from a table of chest X-rays to output/<run>/report.html."""

import sys

from biascxr.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command())
