"""What the tests of records share: images in grey and colour, and a cohort of small ones."""

import numpy as np
import pytest

from biascxr.config import SPLITS


@pytest.fixture
def grey(make_image):
    return make_image(0)


@pytest.fixture
def colour(make_image):
    return np.stack([make_image(seed) for seed in (1, 2, 3)], axis=-1)


@pytest.fixture
def cohort(tiny_images, make_cohort):
    """Forty small images in four splits, a part of each split in no whole shard."""
    files = sorted(f.name for f in tiny_images.iterdir())
    split = np.repeat(SPLITS, (20, 6, 4, 10))
    return make_cohort([f.split(".")[0] for f in files], files, tiny_images, split=split)
