"""Holds a finished demo run against what the project promises: findings learned, planted bias found, group readable."""

import json
import sys
from pathlib import Path

import pandas as pd

run = Path(sys.argv[1])
metrics = pd.read_csv(run / "06_audit" / "metrics.csv")
readings = pd.read_csv(run / "05_leakage" / "readings.csv")
group = json.loads((run / "00_phantom" / "phantom.json").read_text())["disadvantaged_race"]

macro = metrics[(metrics["recipe"] == "erm") & (metrics["label"] == "macro")]
overall = macro[(macro["attribute"] == "overall") & (macro["metric"] == "AUROC")].iloc[0]
planted = macro[(macro["attribute"] == "race") & (macro["group"] == group) & (macro["metric"] == "AUROC")].iloc[0]
probe = readings.query("representation == 'vectors' and attribute == 'race' and probe == 'logistic' and group == 'macro'")
real, control = (probe[probe["control"] == name].iloc[0] for name in ("none", "shuffled"))

print(f"macro AUROC of erm {overall['value']:.3f} over {overall['n_labels']} findings (at least 0.75)")
print(
    f"planted in {group}: macro AUROC minus everyone else {planted['difference']:+.3f} "
    f"({planted['difference_low']:+.3f} to {planted['difference_high']:+.3f}; below 0)"
)
print(f"race probe {real['auroc']:.3f} ({real['low']:.3f} to {real['high']:.3f}), shuffled at most {control['high']:.3f}")
for name in ("report.html", "model_card.md", "config.yaml", "versions.json", "run.log"):
    assert (run / name).stat().st_size > 0, name
assert overall["value"] >= 0.75
assert planted["difference_high"] < 0
assert real["low"] > control["high"]
