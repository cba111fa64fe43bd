"""Augmented views from a table of images to a trained recipe: planned, recorded, embedded, sampled."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from biascxr.cli import parse_flags
from biascxr.containers import VIEW_COLUMNS, EmbeddingSet, Predictions, ViewPlan
from biascxr.pipeline import Run, run_stages
from biascxr.view_stages import view_key

N_PATIENTS, SIZE = 90, 32
RECIPE = "controlled_augmentation(attributes=[sex], min_cell=3, max_views=2)"


@pytest.fixture(scope="module")
def images(tmp_path_factory, biascxr_table) -> Path:
    """A table of small films, one woman for each four men, and an encoder: eight fixed filters, averaged over the film."""
    import keras

    folder = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    has_edema = rng.random(N_PATIENTS) < 0.5
    for i, is_wet in enumerate(has_edema):
        film = cv2.GaussianBlur(rng.integers(0, 256, (48, 40)).astype(np.uint8), (0, 0), 1 + 2 * is_wet)
        cv2.imwrite(str(folder / f"image_{i:03d}.png"), film)
    sexes = ["F" if i % 5 == 0 else "M" for i in range(N_PATIENTS)]
    table = biascxr_table(N_PATIENTS, ending="png", gender=sexes, Edema=has_edema.astype(int).astype(str), Cardiomegaly=None)
    table.to_csv(folder / "meta.csv", index=False)
    film = keras.Input((SIZE, SIZE, 1))
    maps = keras.layers.Conv2D(8, 5, activation="relu", kernel_initializer=keras.initializers.RandomNormal(seed=0))(film)
    keras.Model(film, keras.layers.GlobalAveragePooling2D()(maps)).save(folder / "encoder.keras")
    return folder


def train(images: Path, folder: Path) -> Run:
    flags = ["--csv_path", str(images / "meta.csv"), "--weights", str(images / "encoder.keras"), "--image_size", str(SIZE),
             "--labels", "Edema", "--recipes", RECIPE, "--output_dir", str(folder),
             "--settings", "erm.max_epochs=2", "erm.batch_size=16"]  # fmt: skip
    return run_stages(parse_flags(flags), until="mitigation")


@pytest.fixture(scope="module")
def run(images, tmp_path_factory) -> Run:
    return train(images, tmp_path_factory.mktemp("run"))


@pytest.mark.slow
def test_views_are_embedded_as_images_and_only_training_patients_of_the_rare_cell_have_some(images, run):
    import keras

    from biascxr.mitigation import parse_recipes

    key = view_key(parse_recipes(RECIPE)[1])
    cohort, embeddings = run.embedded()
    plan = ViewPlan.load(run.stages[f"cohort/{key}"]).table
    views = EmbeddingSet.load(run.stages[f"embeddings/{key}"])
    assert len(plan) == len(views) > 0

    own = cohort.table.set_index("image_id").loc[plan["image_id"]]
    assert set(own["split"]) == {"train"} and set(own["sex"]) == {"F"}

    # An image's own vector follows from its film alone, and a view's from its film and its changes: done here by hand.
    encoder = keras.models.load_model(images / "encoder.keras")
    row = plan.iloc[0]
    film = cv2.imread(str(images / f"{row['image_id']}.png"), cv2.IMREAD_GRAYSCALE)
    film = cv2.equalizeHist(cv2.resize(film, (SIZE, SIZE), interpolation=cv2.INTER_AREA))
    turn = cv2.getRotationMatrix2D(((SIZE - 1) / 2, (SIZE - 1) / 2), row["rotation"], 1.0)
    turn[:, 2] += row["shift_x"] * SIZE, row["shift_y"] * SIZE
    turned = cv2.warpAffine(film, turn, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    grey = turned.astype(np.float32)
    lit = np.clip(np.rint((grey - grey.mean()) * row["contrast"] + grey.mean() + 255 * row["brightness"]), 0, 255)
    expected = encoder.predict(np.stack([film, lit])[..., None] / 255.0, verbose=0)
    of_image = embeddings.vectors[list(embeddings.image_id).index(row["image_id"])]
    at = [(i, v) for i, v in zip(views.image_id, views.view_id, strict=True)].index((row["image_id"], row["view_id"]))
    np.testing.assert_allclose(of_image, expected[0], atol=1e-5)
    np.testing.assert_allclose(views.vectors[at], expected[1], atol=1e-5)
    assert np.abs(expected[0] - expected[1]).max() > 1e-4
    assert (plan[list(VIEW_COLUMNS)].std() > 0).all()


@pytest.mark.slow
def test_the_recipe_learns_from_the_views_and_a_second_run_does_nothing_again(images, run):
    folder = next(path for stage, path in run.stages.items() if stage.startswith("mitigation/controlled"))
    erm = run.stages["mitigation/erm"]
    with_views, plain = (Predictions.load(f / "predictions.parquet", run.cohort().attributes) for f in (folder, erm))
    assert not np.array_equal(with_views.scores, plain.scores)
    balance = pd.read_csv(folder / "balance.csv").query("attribute == 'sex'").set_index("when")
    is_train = run.cohort().table["split"] == "train"
    sizes = run.cohort().table.loc[is_train, "sex"].value_counts()
    # The rare cell is filled up to the median of the two sizes, by views alone: the images themselves all stay.
    assert balance.loc["after", "n_rows"] == sizes["M"] + sizes.median() // 1 and balance.loc["after", "max_copies"] == 1
    made = {stage: (path / "manifest.json").stat().st_mtime_ns for stage, path in run.stages.items()}
    again = train(images, run.folder.path)
    assert {stage: (path / "manifest.json").stat().st_mtime_ns for stage, path in again.stages.items()} == made


@pytest.mark.slow
def test_a_changed_film_changes_its_vector_and_those_of_its_views_and_no_other(images, run):
    from biascxr.mitigation import parse_recipes

    key = view_key(parse_recipes(RECIPE)[1])
    image_id = ViewPlan.load(run.stages[f"cohort/{key}"]).table["image_id"].iloc[0]

    def made(of: Run) -> list[tuple[np.ndarray, np.ndarray]]:
        found = [EmbeddingSet.load(of.stages[stage]) for stage in ("embeddings", f"embeddings/{key}")]
        return [(vectors.image_id == image_id, np.array(vectors.vectors)) for vectors in found]

    before = made(run)
    path = images / f"{image_id}.png"
    cv2.imwrite(str(path), np.rot90(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), 2))
    for (is_its, old), (_, new) in zip(before, made(train(images, run.folder.path)), strict=True):
        assert is_its.any() and not (old[is_its] == new[is_its]).all(axis=1).any()
        np.testing.assert_array_equal(old[~is_its], new[~is_its])
