"""What tests share: the real NIH sample, a few small images, tables in the BiasCXR form."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # tests compare bytes made on the CPU

import cv2
import numpy as np
import pandas as pd
import pytest

NIH = Path(__file__).parents[2] / "shared" / "data" / "nih"


@pytest.fixture(scope="session")
def nih_folder() -> Path:
    """Folder of the real NIH sample, which lies beside the repository."""
    if not NIH.is_dir():
        pytest.skip(f"the NIH sample is not at {NIH}")
    return NIH


def smooth_image(seed: int, shape: tuple[int, int] = (90, 70)) -> np.ndarray:
    """Returns a grey image with structure at the scale of a few pixels, `uint8`."""
    noise = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 20, 220, cv2.NORM_MINMAX).astype(np.uint8)


@pytest.fixture(scope="session")
def make_image():
    """Function `(seed, shape) -> [height, width] uint8`: a grey image with structure."""
    return smooth_image


@pytest.fixture
def tiny_images(tmp_path) -> Path:
    """A folder with 40 small images, `image_000.png`, `image_001.jpg`, ..., of differing shapes."""
    folder = tmp_path / "tiny_images"
    folder.mkdir()
    for i in range(40):
        cv2.imwrite(str(folder / f"image_{i:03d}.{('png', 'jpg')[i % 2]}"), smooth_image(i, (60 + i, 90 - i)))
    return folder


@pytest.fixture(scope="session")
def biascxr_table():
    """Function `(n_patients=..., images_per_patient=..., ending=..., seed=..., **columns)`: a table in the BiasCXR form.

    Every cell is text. Keyword columns replace or add columns; None leaves one out.
    """

    def make(n_patients: int = 40, *, images_per_patient: int = 1, ending: str = "jpg", seed: int = 0, **columns):
        rng = np.random.default_rng(seed)
        patient = np.repeat(np.arange(n_patients), images_per_patient)
        n = len(patient)

        def of_patient(values):
            return rng.choice(values, n_patients)[patient]

        frame = pd.DataFrame(
            {
                "subject_id": [f"1{p:07d}" for p in patient],
                "study_id": [f"5{i:07d}" for i in range(n)],
                "dicom_id": [f"image_{i:03d}" for i in range(n)],
                "path": [f"image_{i:03d}.{ending}" for i in range(n)],
                "ViewPosition": rng.choice(["AP", "PA"], n),
                "gender": of_patient(["M", "F"]),
                "race": of_patient(["WHITE", "BLACK/AFRICAN AMERICAN", "ASIAN"]),
                "age": rng.integers(20, 90, n_patients)[patient].astype(str),
                "insurance": of_patient(["Medicare", "Other"]),
                "Cardiomegaly": rng.choice(["0", "1"], n),
                "Edema": rng.choice(["0.0", "1.0", "-1.0", ""], n, p=[0.5, 0.3, 0.1, 0.1]),
                "No Finding": rng.choice(["1", ""], n),
            }
        )
        for name, values in columns.items():
            if values is None:
                frame = frame.drop(columns=name)
            else:
                frame[name] = values
        return frame.astype(str)

    return make


@pytest.fixture
def write_table(tmp_path):
    """Function `(frame, name="meta.csv") -> Path`: the table as a CSV file."""

    def write(frame: pd.DataFrame, name: str = "meta.csv") -> Path:
        path = tmp_path / name
        frame.to_csv(path, index=False)
        return path

    return write


@pytest.fixture(scope="session")
def make_cohort():
    """Function `(image_ids, paths, images_root, *, split=..., content=...) -> Cohort`: two findings, one attribute.

    Every image is another patient's; `split` is one name or one name per image.
    """
    from biascxr.containers import Attribute, Cohort

    def make(image_ids, paths, images_root, *, split="train", content="image"):
        n = len(image_ids)
        table = pd.DataFrame(
            {
                "image_id": image_ids,
                "study_id": [f"s{i}" for i in range(n)],
                "patient_id": [f"p{i}" for i in range(n)],
                "path": [str(p) for p in paths],
                "view": "PA",
                "split": split,
                "age": [float(20 + i) if i % 5 else np.nan for i in range(n)],
                "sex": [("F", "M", "unknown")[i % 3] for i in range(n)],
            }
        )
        labels = np.array([[i % 2, np.nan if i % 3 == 0 else (i // 2) % 2] for i in range(n)], np.float32)
        return Cohort(
            table=table,
            labels=labels,
            label_names=("Edema", "Pleural Effusion"),
            attributes=(Attribute("sex", ("F", "M"), True),),
            layout="generic",
            content=content,
            images_root=Path(images_root),
        )

    return make
