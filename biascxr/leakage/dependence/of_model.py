"""One model and one attribute put to every question about dependence that its parts allow."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pandas as pd

from biascxr.containers import UNKNOWN, Attribute, Cohort, EmbeddingSet
from biascxr.leakage import VECTORS
from biascxr.leakage.dependence import (
    HiddenRows,
    ScoredRows,
    dependence_table,
    dose_response,
    frozen_head,
    given_label,
    retrained,
)
from biascxr.leakage.readings import N_PERMUTATIONS, AttributeReader
from biascxr.leakage.recipes import ScoredModel
from biascxr.leakage.strata import strata_of, strata_there_are
from biascxr.mitigation.base import split_data

logger = logging.getLogger("biascxr")

GIVEN = ("age_group", "view")  # held fixed beside the label, where the cohort has them
FEW_PERMUTATIONS = 199
N_RANDOM = 200  # subspaces: enough for a quarter of 5%, at which a verdict asks


def dependence_of(model: ScoredModel, reader: AttributeReader, *, seed: int) -> pd.DataFrame:
    """Do the model's predictions depend on the attribute?

    Args:
        model: its scores, and its last layer where that can be opened.
        reader: the attribute, of the cohort that the predictions are of.
        seed: of permutations and random subspaces.

    Returns:
        Rows of `dependence.csv`: the scores given the label, and given age group and view as well where there are any; and the
        attribute erased below the last layer.
    """
    cohort, predictions = reader.cohort, model.predictions
    rows = pd.Index(cohort.table["image_id"]).get_indexer(predictions.table["image_id"])
    there = strata_there_are(cohort, reader.attribute)
    given = tuple(name for name in GIVEN if name in there)
    scored = ScoredRows(
        scores=predictions.scores.astype(np.float64), labels=predictions.y_true.astype(np.float64), codes=reader.codes[rows],
        patient_id=reader.patient_id[rows], label_names=predictions.label_names, attribute=reader.attribute,
        covariates={name: strata_of(cohort, name, rows) for name in given},
    )  # fmt: skip
    settings = {"recipe": model.name, "confidence": reader.confidence, "seed": seed}
    # The verdict rests on the form with covariates where there are any; the plain one beside it needs fewer permutations.
    tables = [given_label(scored, n_permutations=FEW_PERMUTATIONS if given else N_PERMUTATIONS, **settings)]
    if given:
        tables.append(given_label(scored, given=given, n_permutations=N_PERMUTATIONS, **settings))
    if model.layer is not None:
        train = cohort.split_rows("train")
        hidden = HiddenRows(
            train=model.vectors[train], train_labels=cohort.labels[train], train_codes=reader.codes[train],
            test=model.vectors[rows], kernel=model.layer.kernel, bias=model.layer.bias,
        )  # fmt: skip
        tables.append(frozen_head(hidden, scored, n_random=N_RANDOM, **settings))
    return pd.concat(tables, ignore_index=True)


def trained_anew(
    cohort: Cohort, embeddings: EmbeddingSet, attribute: Attribute, *, confidence: float, seed: int
) -> pd.DataFrame:
    """What do heads lose, and what stays readable, where the attribute is erased from the vectors before they learn? And does
    unfairness follow where heads are made to encode it more or less?

    Returns:
        Rows of `dependence.csv` of the recipe "vectors"; none where a split is empty, as in folds of the
        patients, or there is no finding.
    """
    cohort = _with_attribute(cohort, attribute)
    parts = [split_data(cohort, embeddings, split) for split in ("train", "validation", "test")]
    if min(map(len, parts)) == 0 or not cohort.label_names:
        return dependence_table([])
    logger.info("leakage: heads are trained anew, %s erased, or encoded more and less; this takes minutes", attribute.name)
    common = {"attribute": attribute, "recipe": VECTORS, "confidence": confidence, "seed": seed}
    return pd.concat([retrained(*parts, **common), dose_response(*parts, **common)], ignore_index=True)


def _with_attribute(cohort: Cohort, attribute: Attribute) -> Cohort:
    """Returns the cohort with an attribute that it has as a column only, as the view."""
    if attribute.name in (own.name for own in cohort.attributes):
        return cohort
    values = cohort.table[attribute.name]
    table = cohort.table.assign(**{attribute.name: values.where(values.isin(attribute.groups), UNKNOWN)})
    return replace(cohort, table=table, attributes=(*cohort.attributes, attribute))
