"""CXR Foundation's vectors of MIMIC-CXR: one record per film in place of the film, with MIMIC's tables in their own folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np

from biascxr.phantom.acquisition import PATTERNS, choose_machine
from biascxr.phantom.draw import Phantom
from biascxr.phantom.forms.base import STREAM_FORMS, ExpectedCohort
from biascxr.phantom.forms.mimic import Mimic, expected_mimic
from biascxr.phantom.forms.mimic_hospital import plan_hospital
from biascxr.phantom.labels import LABELS
from biascxr.records import encode_example, write_record

FOLDER = "image-embeddings-mimic-cxr/1.0"
CHECKSUMS, LICENCE = "SHA256SUMS.txt", "LICENSE.txt"
VECTOR_LENGTH = 1376
NOISE, PATIENT_NOISE = 0.5, 0.3  # standard deviations per number; a finding in full adds one of 1


class CxrFoundation(Mimic):
    """MIMIC's tables, and a folder of vectors that is given as `--images_root`; no film is drawn."""

    name: ClassVar[str] = "cxr_foundation"
    film_format: ClassVar[str | None] = None

    def film_path(self, phantom: Phantom, index: int) -> str:
        return f"{FOLDER}/{_record_path(phantom, index)}"

    def images_root(self, folder: Path) -> Path | None:
        return folder / FOLDER

    def write_tables(self, phantom: Phantom, folder: Path) -> Path:
        main = super().write_tables(phantom, folder)
        root = folder / FOLDER
        root.mkdir(parents=True)
        (root / LICENCE).write_text("Made up by biascxr; no patient is behind these vectors.\n", encoding="utf-8")
        names = [LICENCE]
        for index, vector in enumerate(vectors(phantom)):
            name = _record_path(phantom, index)
            names.append(name)
            example = encode_example({"embedding": vector, "image/id": f"gs://phantom/{name.removesuffix('.tfrecord')}.dcm"})
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            with (root / name).open("wb") as file:
                write_record(file, example)
        lines = [f"{hashlib.sha256((root / name).read_bytes()).hexdigest()} {name}\n" for name in names]
        (root / CHECKSUMS).write_text("".join(lines), encoding="utf-8")
        return main

    def expected(self, phantom: Phantom) -> ExpectedCohort:
        paths = [_record_path(phantom, index) for index in range(len(phantom))]
        return expected_mimic(phantom, plan_hospital(phantom, version=self.version), paths, images_root=FOLDER)


def vectors(phantom: Phantom) -> np.ndarray:
    """Makes a vector per film: a random linear map of what is on the film, plus noise of the patient and of the film.

    What is on the film: each finding's severity times its visibility, body size, sex, age, view, the marker, and the machine,
    which follows the group as it does on drawn films.

    Returns:
        `[n, 1376] float32`; a film's vector does not change when others leave the cohort.
    """
    config, population = phantom.config, phantom.population
    numbers, of_patient = np.unique(population.patient, return_inverse=True)
    of_patients = np.array([_rng(config.seed, 2, number).standard_normal(VECTOR_LENGTH) for number in numbers])
    noise = PATIENT_NOISE * of_patients[of_patient]
    machine = np.zeros((len(phantom), len(PATTERNS)))
    for row, (film, group) in enumerate(zip(population.film, population.group, strict=True)):
        rng = _rng(config.seed, 1, film)
        machine[row, choose_machine(rng, group=int(group), separability=config.separability)] = 1.0
        noise[row] += NOISE * rng.standard_normal(VECTOR_LENGTH)
    seen = [
        population.severity * population.visibility,
        machine,
        population.body_size[:, None] / 4,
        (population.sex == "F")[:, None],
        (population.age[:, None] - 58) / 36,
        (population.view == "AP")[:, None],
        population.marker[:, None],
    ]
    facts = np.concatenate(seen, axis=1)  # [n, 14 + 4 + 5]
    weights = _rng(config.seed, 0, 0).standard_normal((facts.shape[1], VECTOR_LENGTH))
    return ((facts @ weights) / np.sqrt(len(LABELS)) + noise).astype(np.float32)


def _rng(seed: int, purpose: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, STREAM_FORMS, purpose, int(number)])


def _record_path(phantom: Phantom, index: int) -> str:
    return phantom.population.image_path(index).removesuffix(".jpg") + ".tfrecord"
