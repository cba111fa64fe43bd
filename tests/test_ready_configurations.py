"""The configurations in configs/ are read, name what there is, and are what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from biascxr.cli import parse_flags
from biascxr.cohort.chexpert_labels import CHEXPERT_LABELS
from biascxr.config import SweepConfig
from biascxr.mitigation import parse_recipes
from biascxr.phantom.plant import Planting

READY = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


def read(path: Path) -> SweepConfig:
    return parse_flags(["--config", str(path), "--csv_path", "chexpert"], kind=SweepConfig)


def test_fairreads_four_findings_are_there():
    found = [read(path).cohort.labels for path in READY if path.name.startswith("fairread")]
    assert sorted(found) == [("Cardiomegaly",), ("Fracture",), ("Pleural Effusion",), ("Pneumonia",)]


@pytest.mark.parametrize("path", READY, ids=lambda p: p.name)
def test_a_configuration_names_recipes_findings_and_groups_that_there_are(path):
    config = read(path)
    assert str(config.csv_path) == "chexpert" and config.folds == 5
    recipes = parse_recipes(config.mitigation.recipes, config.mitigation.settings)
    assert recipes[0].name == "erm" and len(recipes) > 1
    assert set(config.cohort.labels) <= set(CHEXPERT_LABELS)
    for planting in map(Planting.parse, config.bias.plant):
        assert planting.attribute == "race" and planting.group in ("WHITE", "not WHITE")
        assert planting.finding in (None, *config.cohort.labels)


@pytest.mark.parametrize("path", READY, ids=lambda p: p.name)
def test_a_configuration_says_how_it_is_run(path):
    assert f"biascxr sweep --config configs/{path.name} " in path.read_text(encoding="utf-8")
