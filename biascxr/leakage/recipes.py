"""What a trained recipe makes of a vector: what its last, linear step sees, and the scores that come out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from biascxr.containers import Cohort, EmbeddingSet, Predictions
from biascxr.leakage.dependence import LastLayer, OpenedHead, hidden_of
from biascxr.mitigation.trained import TrainedRecipe
from biascxr.mitigation.vector_table import VectorTable

# Longer ones are feature maps: their covariance has too many numbers.
MAX_HIDDEN = 8192


@dataclass(frozen=True)
class ScoredModel:
    """A model's scores, and what is known of how they came about.

    Attributes:
        name: the recipe.
        predictions: of rows that it has not seen.
        vectors: `[n, h] float32`, one per row of the cohort: what the last layer takes, where that is linear; else what the
            head takes. None where the model is not here, and where that is the encoder's vector itself.
        layer: the last layer, where it is linear in `vectors`.
        why_closed: where there is none, the reason.
    """

    name: str
    predictions: Predictions
    vectors: np.ndarray | None = None
    layer: LastLayer | None = None
    why_closed: str = ""


def open_recipe(folder: Path, cohort: Cohort, embeddings: EmbeddingSet) -> ScoredModel:
    """Loads a trained recipe and puts the cohort's vectors through it.

    Args:
        folder: what `TrainedRecipe.save` and `Predictions.save` wrote.
        cohort: rows of `embeddings`, in the same order.
        embeddings: one vector per row.
    """
    trained = TrainedRecipe.load(folder)
    attributes = cohort.table[[a.name for a in cohort.attributes]]
    table = VectorTable.of(embeddings.vectors)
    for transform in trained.representations:
        table = transform.table(table, attributes)
    opened = hidden_of(trained.head)
    if opened.layer is not None and len(opened.layer.kernel) > MAX_HIDDEN:
        opened = OpenedHead(None, f"its last layer takes {len(opened.layer.kernel):,} numbers; more than {MAX_HIDDEN:,}")
    vectors = None
    if opened.layer is not None:
        vectors = opened.layer.hidden(table, attributes)
    elif any(r.name != "none" for r in trained.representations) and table.shape[1] <= MAX_HIDDEN:
        vectors = np.asarray(table)
    predictions = Predictions.load(folder / "predictions.parquet", cohort.attributes).in_split("test")
    return ScoredModel(trained.recipe.name, predictions, vectors, opened.layer, opened.reason)
