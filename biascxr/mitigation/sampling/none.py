"""`none`: every training row once."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from biascxr.mitigation.base import SplitData
from biascxr.mitigation.sampling.base import Sample, Sampler, plain_sample


class NoSampling(Sampler):
    """Leaves the training split as it is."""

    name: ClassVar[str] = "none"

    def _sample(self, train: SplitData, rng: np.random.Generator) -> Sample:
        return plain_sample(np.arange(len(train)))
