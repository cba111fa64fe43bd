"""The card of an encoder trained here: what it saw, so that no run is audited on patients whom it knows."""

from __future__ import annotations

import hashlib
import json

import keras
import numpy as np

import biascxr
from biascxr.cohort.contract.encoder import patient_digests
from biascxr.embeddings.train.data import TrainingData


def trained_card(data: TrainingData, model: keras.Model, settings: dict, history: list[dict], best: int) -> dict:
    """Returns the card that goes beside the `.keras` file.

    `trained_on_patients` holds the digests of the train patients and of the validation patients, who chose the epoch.

    Args:
        data: what it was trained on.
        model: the encoder that is written.
        settings: everything that decided the result; `settings["augmentation"]` says how images were changed.
        history: one row per epoch.
        best: number of the epoch kept, from 1.

    Returns:
        Plain JSON types; no identifier but digests. `fingerprint` changes with weights, settings and split.
    """
    train, validation = data.train, data.validation
    augmentation = settings["augmentation"]
    said = "none" if augmentation is None else ", ".join(f"{name} {value:g}" for name, value in augmentation.items())
    auroc = history[best - 1]["val_auroc"]
    return {
        "trained_on": (
            f"{data.data_set}: {len(train):,} images of {train.n_patients:,} train patients, target {data.target}; "
            f"{validation.n_patients:,} validation patients chose epoch {best} of {len(history)}; seed {settings['seed']}; "
            f"augmentation: {said}; split {data.split_fingerprint[:12]}"
        ),
        "data_set": data.data_set,
        "target": data.target,
        "classes": list(data.classes),
        "n_patients": train.n_patients,
        "n_images": len(train),
        "n_validation_patients": validation.n_patients,
        "n_validation_images": len(validation),
        "split_fingerprint": data.split_fingerprint,
        "architecture": settings["architecture"],
        "image_size": data.image_size,
        "seed": settings["seed"],
        "epochs": len(history),
        "best_epoch": best,
        "augmentation": augmentation,
        "validation_loss": round(history[best - 1]["val_loss"], 6),
        "validation_macro_auroc": None if np.isnan(auroc) else round(auroc, 4),
        "biascxr_version": biascxr.__version__,
        "settings": json.loads(json.dumps(settings)),
        "fingerprint": _fingerprint(model, settings, data.split_fingerprint),
        "trained_on_patients": patient_digests([*train.patient_id, *validation.patient_id]),
    }


def _fingerprint(model: keras.Model, settings: dict, split: str) -> str:
    digest = hashlib.sha256(json.dumps([settings, split], sort_keys=True).encode())
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()
