"""What training methods that take feature maps as well as vectors share: the setting, and its check."""

from __future__ import annotations

import math
from dataclasses import dataclass

from biascxr.errors import InputError
from biascxr.mitigation.training.base import NetworkSettings


@dataclass(frozen=True)
class MapSettings(NetworkSettings):
    """Settings of a network on vectors or feature maps.

    Attributes:
        feature_map: height, width and channels of the map that each vector holds (`[8, 8, 1376]` of CXR Foundation,
            `[8, 8, 1024]` of DenseNet121 at 256x256, embedded with `--pooling none`); empty: it is a vector.
    """

    feature_map: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = self.feature_map
        if sizes and (len(sizes) != 3 or not all(type(size) is int and size > 0 for size in sizes)):
            raise InputError(f"feature_map must be [height, width, channels], whole numbers above 0; got {list(sizes)}.")

    def check_length(self, method: str, n_features: int) -> None:
        """Raises InputError where vectors of this length hold no such map."""
        if self.feature_map and math.prod(self.feature_map) != n_features:
            raise InputError(
                f"{method}.feature_map={list(self.feature_map)} holds {math.prod(self.feature_map)} numbers; the vectors have "
                f"{n_features}. Maps are kept by --pooling none."
            )
