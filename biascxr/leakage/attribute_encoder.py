"""Dnet_race: the image network that was trained for the attribute itself, the upper bound beside probes on frozen vectors.

Reference: the MIMIC Racial Fairness code, whose Dnet_race is a DenseNet121 with a softmax over recorded race, and whose table
of AUROCs `seed_table` reproduces in form.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from biascxr.config import EmbeddingsConfig
from biascxr.containers import Attribute, Cohort
from biascxr.errors import InputError
from biascxr.leakage.blocks import film_batches, vectors_of_films
from biascxr.leakage.readout import Readout, group_codes

ENCODER = "encoder"  # its name among the probes
SEED_COLUMNS = MappingProxyType({"logistic": "LR", "knn": "KNN", "linear_svm": "SVM", "perceptron": "Perceptron"})


def read_with_encoder(path: Path, cohort: Cohort, records: Path, *, batch: int = 4) -> Readout:
    """Reads the attribute that an encoder was trained for from the test films, by its own last layer.

    Args:
        path: the `.keras` file that `biascxr train-encoder --target race` (or sex, age) wrote, its card beside it.
        cohort: attributes and split; each of its test films is among the records.
        records: folder of the records stage.
        batch: films per forward pass.

    Returns:
        The readout of the probe "encoder": scores are the probabilities of its softmax, NaN for a group that it was not
        trained to tell. `setting` says whether it learned from this cohort's own patients.

    Raises:
        InputError: no card, or one of another kind; it was trained on test patients, or does not say on whom; the cohort does
            not have the attribute, or no test film with a known group.
    """
    card = _read_card(path)
    attribute = _attribute_of(card, cohort, path)
    setting = _whom_it_learned_from(card, cohort, path)
    codes = group_codes(cohort, attribute)
    test = cohort.split_rows("test")
    rows = test[codes[test] >= 0]
    if len(rows) == 0:
        raise InputError(f"cohort: expected test films whose recorded {attribute.name} is known; got none.")
    image_id = cohort.table["image_id"].to_numpy(object)[rows]
    told = _probabilities(path, card, records, image_id, batch)
    scores = np.full((len(rows), len(attribute.groups)), np.nan)
    for column, name in enumerate(card["classes"]):
        scores[:, attribute.groups.index(name)] = told[:, column]
    stated = card.get("validation_macro_auroc")
    return Readout(
        attribute=attribute,
        probe=ENCODER,
        rows=rows,
        codes=codes[rows],
        scores=scores,
        fold=np.zeros(len(rows), np.int64),
        patient_id=cohort.table["patient_id"].to_numpy(object)[rows],
        setting=setting,
        validation_auroc=float("nan") if stated is None else float(stated),
    )


def _probabilities(path: Path, card: dict, records: Path, image_id: np.ndarray, batch: int) -> np.ndarray:
    from biascxr.embeddings.keras_file import KerasFile

    _, films = next(film_batches(records, image_id=image_id, batch=1))
    # The last layer bears the target's name; read like any layer of a file, it gets its pixels as when it was trained.
    config = EmbeddingsConfig(weights=str(path), layer=card["target"], inference_batch=batch)
    network = KerasFile(config, image_size=films.shape[1], seed=0)
    if network.vector_length != len(card["classes"]):
        raise InputError(
            f"{path}: expected a last layer of {len(card['classes'])} groups, as its card states; it has "
            f"{network.vector_length}. Give the file and the card that train-encoder wrote together."
        )
    return vectors_of_films(lambda images, _: [network.encode(images)], records, image_id=image_id, batch=batch)[0]


def _read_card(path: Path) -> dict:
    from biascxr.embeddings.base import card_path

    file = card_path(path)
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: expected the card that train-encoder wrote beside it, {file.name}; it cannot be read ({error}). Without "
            "it nobody knows what the network tells apart and on whom it was trained."
        ) from error
    if not isinstance(card, dict) or not {"target", "classes"} <= set(card):
        raise InputError(f"{file}: expected a card of biascxr train-encoder, with target and classes. Train the encoder anew.")
    return card


def _attribute_of(card: dict, cohort: Cohort, path: Path) -> Attribute:
    from biascxr.embeddings.train.data import ATTRIBUTE_OF

    if card["target"] not in ATTRIBUTE_OF:
        raise InputError(
            f"{path}: expected an encoder that was trained for an attribute (--target {', '.join(ATTRIBUTE_OF)}); this one was "
            f"trained for {card['target']}."
        )
    name = ATTRIBUTE_OF[card["target"]]
    attribute = next((a for a in cohort.attributes if a.name == name), None)
    if attribute is None:
        raise InputError(f"{path} tells apart groups of recorded {name}; this cohort has none.")
    foreign = [group for group in card["classes"] if group not in attribute.groups]
    if foreign:
        raise InputError(
            f"{path}: expected groups of recorded {name} as the cohort has them ({', '.join(attribute.groups)}); it tells "
            f"{', '.join(foreign)} too. Read the cohort with the layout and grouping that it was trained with."
        )
    return attribute


def _whom_it_learned_from(card: dict, cohort: Cohort, path: Path) -> str:
    """Returns in words whose films the encoder learned from; raises InputError where test patients may be among them."""
    from biascxr.cohort.contract import patient_digests

    if "trained_on_patients" not in card:
        raise InputError(
            f"{path}: expected a card that lists the patients it was trained on (trained_on_patients); without, its AUROC on "
            "test films may be memory. Train it with biascxr train-encoder on this run's records."
        )
    learned = set(card["trained_on_patients"])
    table = cohort.table
    seen = learned & set(patient_digests(table["patient_id"][table["split"] == "test"].astype(str)))
    if seen:
        raise InputError(
            f"{path}: expected an encoder that never saw a test patient; it was trained on {len(seen):,} of them. Train it "
            "with biascxr train-encoder on this run's records, or give the run the split that it was trained with."
        )
    own = set(patient_digests(table["patient_id"][table["split"].isin(("train", "validation"))].astype(str)))
    if learned <= own:
        return "trained on this cohort's train patients"
    if learned & own:
        return "trained on this cohort's train patients and on others"
    return "trained on other patients than this cohort's"


def seed_table(readings: pd.DataFrame, *, attribute: str = "race") -> pd.DataFrame:
    """Returns the AUROCs of the encoder and of each probe per group, in the form of the MIMIC Racial Fairness code.

    Args:
        readings: `readings.csv`; its readings of the vectors as the encoder gave them, without controls.
        attribute: which.

    Returns:
        One row per group, in the readings' order; columns `Dnet_<attribute>`, LR, KNN, SVM, Perceptron, those that there are.
    """
    own = readings[(readings["attribute"] == attribute) & (readings["control"] == "none") & (readings["group"] != "macro")]
    own = own[(own["representation"] == "vectors") | (own["probe"] == ENCODER)]
    titles = {ENCODER: f"Dnet_{attribute}", **SEED_COLUMNS}
    own = own[own["probe"].isin(list(titles))]
    table = own.pivot(index="group", columns="probe", values="auroc")
    table = table.reindex(index=own["group"].unique(), columns=[probe for probe in titles if probe in table])
    return table.rename(columns=titles).rename_axis(index="group", columns=None)
