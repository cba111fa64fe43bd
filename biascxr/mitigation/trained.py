"""A trained recipe: vectors (and attributes, where it uses them) in, probabilities and decisions out; saved and loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from biascxr.errors import InputError
from biascxr.mitigation.decision import Calibrator, DecisionRule
from biascxr.mitigation.recipes import Recipe
from biascxr.mitigation.representation.base import AffineRepresentation, Representation
from biascxr.mitigation.training.base import Head
from biascxr.mitigation.training.demographics import DemographicInputs
from biascxr.mitigation.vector_table import VectorTable

RECIPE_FILE = "recipe.json"


@dataclass(frozen=True)
class TrainedRecipe:
    """What one recipe learned.

    Attributes:
        recipe: the methods and their settings.
        label_names: the L findings.
        n_features: d, length of the vectors it takes.
        representations: fitted transforms, in order.
        head: the trained head.
        calibrators: fitted calibrators, in order.
        rule: the fitted decision rule.
        facts: what else stands in `recipe.json`: seed, notes by slot.
    """

    recipe: Recipe
    label_names: tuple[str, ...]
    n_features: int
    representations: list[Representation]
    head: Head
    calibrators: list[Calibrator]
    rule: DecisionRule
    facts: dict

    @property
    def score_uses_attributes(self) -> bool:
        """Whether a probability depends on what was recorded about the patient."""
        return (
            self.head.demographics is not None
            or any(r.uses_attributes for r in self.representations)
            or any(c.is_per_group for c in self.calibrators)
        )

    @property
    def uses_attributes(self) -> bool:
        """Whether a probability or a decision depends on what was recorded about the patient."""
        return self.score_uses_attributes or self.rule.is_per_group

    def score(self, vectors: np.ndarray | VectorTable, attributes: pd.DataFrame) -> np.ndarray:
        """Returns calibrated probabilities.

        Args:
            vectors: `[n, d]`, as the encoder gives them.
            attributes: `[n]` rows, one column per attribute; read only where the recipe uses them.

        Returns:
            `[n, L] float32`.
        """
        return self.calibrate(self.raw_scores(vectors, attributes), attributes)

    def raw_scores(self, vectors: np.ndarray | VectorTable, attributes: pd.DataFrame) -> np.ndarray:
        """Returns the head's probabilities before calibration: `[n, L] float32`; arguments as in `score`."""
        if vectors.shape[1] != self.n_features:
            raise InputError(
                f"Recipe {self.recipe.name} was trained on vectors of {self.n_features} numbers; got {vectors.shape[1]}. Use "
                "the encoder that it was trained with."
            )
        table = VectorTable.of(vectors)
        for transform in self.representations:
            table = transform.table(table, attributes)
        return self.head.predict(table, attributes)

    def calibrate(self, scores: np.ndarray, attributes: pd.DataFrame) -> np.ndarray:
        """Puts the calibrators to scores `[n, L]`, in order."""
        for calibrator in self.calibrators:
            scores = calibrator.calibrate(scores, attributes, self.label_names)
        return scores

    def decide(self, scores: np.ndarray, attributes: pd.DataFrame) -> np.ndarray:
        """Returns decisions `[n, L] float32` in {0, 1, NaN} on calibrated probabilities."""
        return self.rule.decide(scores, attributes, self.label_names)

    def save(self, folder: Path) -> None:
        """Writes every part, and `recipe.json`, from which `load` puts them together again.

        `classifier.keras` holds the representations and the head as one Keras model, vectors -> probabilities before
        calibration; it is not written where a representation needs attributes.
        """
        for index, transform in enumerate(self.representations):
            transform.save(folder / f"representation_{index}_{transform.name}.npz")
        self.head.save(folder)
        for index, calibrator in enumerate(self.calibrators):
            calibrator.save(folder / f"calibration_{index}_{calibrator.name}.csv")
        self.rule.save(folder / "thresholds.csv")
        if all(isinstance(r, AffineRepresentation) for r in self.representations):
            self.as_keras().save(folder / "classifier.keras")
        demographics = self.head.demographics
        described = {
            "name": self.recipe.name,
            "slots": self.recipe.describe(),
            "label_names": self.label_names,
            "n_features": self.n_features,
            "demographics": None if demographics is None else demographics.groups,
            "coding": None if demographics is None else demographics.coding,
            "uses_attributes": self.uses_attributes,
            **self.facts,
        }
        (folder / RECIPE_FILE).write_text(json.dumps(described, indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> TrainedRecipe:
        """Reads what `save` wrote.

        Raises:
            InputError: the folder holds no trained recipe.
        """
        if not (folder / RECIPE_FILE).is_file():
            raise InputError(f"{folder} holds no trained recipe ({RECIPE_FILE} is not there).")
        facts = json.loads((folder / RECIPE_FILE).read_text(encoding="utf-8"))
        recipe = Recipe.from_description(facts.pop("name"), facts.pop("slots"))
        demographics, coding = facts.pop("demographics"), facts.pop("coding", None)
        if demographics is not None:
            groups = {name: tuple(own) for name, own in demographics.items()}
            demographics = DemographicInputs(groups, coding or "one_hot")
        *calibrators, rule = recipe.members("decision")
        facts.pop("uses_attributes")
        return cls(
            recipe=recipe,
            label_names=tuple(facts.pop("label_names")),
            n_features=facts.pop("n_features"),
            representations=[
                r.load(folder / f"representation_{i}_{r.name}.npz") for i, r in enumerate(recipe.members("representation"))
            ],
            head=Head.load(folder, demographics),
            calibrators=[c.load(folder / f"calibration_{i}_{c.name}.csv") for i, c in enumerate(calibrators)],
            rule=rule.load(folder / "thresholds.csv"),
            facts=facts,
        )

    def as_keras(self) -> object:
        """Returns the representations and the head as one Keras model: vectors -> probabilities."""
        from biascxr.models import chain_affine

        return chain_affine([r.as_map() for r in self.representations if r.name != "none"], self.head.model)
