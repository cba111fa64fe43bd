"""`controlled_augmentation`: under-represented cells filled up with augmented views of their own images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from biascxr.errors import InputError
from biascxr.mitigation.base import SplitData
from biascxr.mitigation.cells import Cells
from biascxr.mitigation.sampling.base import BALANCED_ATTRIBUTES, Sample, Sampler, plain_sample


@dataclass(frozen=True)
class ControlledAugmentationSettings:
    """Settings of `controlled_augmentation`; the views are planned and embedded from them before anything is trained.

    Attributes:
        attributes: attributes whose crossing makes the cells; those the cohort lacks are left out.
        max_views: augmented views of one image at most.
        min_cell: a cell with fewer images gets no views and takes no part in the median.
        max_rotation: degrees, either way.
        max_shift: share of the image's side, along both axes.
        max_contrast: change of contrast, a share.
        max_brightness: change of brightness, a share of the grey range.
    """

    attributes: tuple[str, ...] = BALANCED_ATTRIBUTES
    max_views: int = 4
    min_cell: int = 10
    max_rotation: float = 15.0
    max_shift: float = 0.03
    max_contrast: float = 0.15
    max_brightness: float = 0.1

    def __post_init__(self) -> None:
        if self.max_views < 1 or self.min_cell < 1:
            raise InputError(f"max_views and min_cell must be at least 1; got {self.max_views} and {self.min_cell}.")
        if not 0 <= self.max_rotation <= 180:
            raise InputError(f"max_rotation must lie in [0, 180] degrees; got {self.max_rotation}.")
        for name in ("max_shift", "max_contrast", "max_brightness"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must be a share in [0, 1); got {getattr(self, name)}.")


class ControlledAugmentation(Sampler):
    """Fills cells below the median size up to it with augmented views of their own images, each view once at most.

    Rotation, small translation and change of intensity (BiasCXR's report: up to 15 degrees) are done to the *image*, which is
    then embedded again: a vector says nothing of what its image turned by ten degrees would look like. Cells above the median
    keep all their rows (`median_balance` named after it cuts those). Rows with an unknown attribute stay.

    Needs images: where the table points to vectors, `cell_interpolation` is what can be done.

    Differs from BiasCXR, whose code does not contain its report's augmentation: for cells, not for rare labels; the number of
    views of one image is limited; only training images have views, so that none stands on two sides of a split.
    """

    name: ClassVar[str] = "controlled_augmentation"
    Settings: ClassVar[type] = ControlledAugmentationSettings
    uses_views: ClassVar[bool] = True

    def _sample(self, train: SplitData, rng: np.random.Generator) -> Sample:
        is_image = train.view_id == 0
        cells = Cells.of(train.attributes[is_image], self.settings.attributes)
        codes = cells.codes(train.attributes)
        sizes = np.bincount(codes[is_image & (codes >= 0)], minlength=len(cells))
        counted = sizes[sizes >= self.settings.min_cell]
        images = np.flatnonzero(is_image)
        if len(counted) < 2:
            return plain_sample(images, ("fewer than two cells: nothing to balance",))
        target = int(np.median(counted))
        chosen, n_short = [images], 0
        for cell, size in enumerate(sizes):
            views = np.flatnonzero(~is_image & (codes == cell))
            if self.settings.min_cell <= size < target:
                chosen.append(rng.permutation(views)[: target - size])
                n_short += len(views) < target - size
        n_views = sum(map(len, chosen[1:]))
        notes = [f"target: {target} rows a cell; {n_views:,} augmented views of training images added"]
        if n_short:
            notes.append(f"{n_short} cells stay below the target: no more than {self.settings.max_views} views of an image")
        return plain_sample(np.concatenate(chosen), tuple(notes))
