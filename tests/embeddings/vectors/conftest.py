"""What the tests of sources share: vectors by seed, and files of them in CXR Foundation's form."""

import numpy as np
import pytest

from biascxr.records import encode_example, write_record


def vector_of(seed, length=16):
    return np.random.default_rng(seed).normal(size=length).astype(np.float32)


def record_of(seed, name, length=16):
    return {"embedding": vector_of(seed, length), "image/id": f"gs://bucket/files/p10/{name}.dcm"}


def write_file(path, *records):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        for features in records:
            write_record(file, features if isinstance(features, bytes) else encode_example(features))
    return path


@pytest.fixture(scope="session")
def vector():
    """Function `(seed, length=16) -> [length] float32`."""
    return vector_of


@pytest.fixture(scope="session")
def record():
    """Function `(seed, name, length=16) -> features` of one record that names its image."""
    return record_of


@pytest.fixture(scope="session")
def write():
    """Function `(path, *records) -> path`: features, or bytes as they are, as a TFRecord file."""
    return write_file


@pytest.fixture
def cohort_of(make_cohort, tmp_path):
    """Function `(*image_ids) -> Cohort` whose paths are images that nobody reads."""

    def make(*image_ids):
        return make_cohort(list(image_ids), [f"{i}.jpg" for i in image_ids], tmp_path)

    return make


@pytest.fixture
def gather(tmp_path):
    """Function `(source, cohort, **settings) -> (folder, EmbeddingSet)`."""
    from biascxr.embeddings.precomputed import gather_from

    def run(source, cohort, **settings):
        folder = tmp_path / f"store_{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        return folder, gather_from(source, cohort, folder, **settings)

    return run
