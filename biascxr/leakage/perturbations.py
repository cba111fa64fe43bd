"""What is still read from films made worse: blurred, noisy, cropped (after Gichoya et al. 2022, "AI-Vengers").

Low-pass: everything finer than a cut-off is taken from the film. If the attribute is still read at a cut-off at which no
radiologist could read the film, it lies in coarse grey values; if it is lost with little noise, in fine ones.

Reference: Gichoya et al., AI recognition of patient race in medical imaging, Lancet Digital Health 2022. They trained networks
on filtered films (`is_refitted` is nearest to that); here the network is fixed and the probe alone learns, and an ideal filter
stands in place of a soft one, so that "nothing above the cut-off" is exact.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from biascxr.containers import EmbeddingSet
from biascxr.embeddings.base import Encoder
from biascxr.errors import InputError, unknown_name
from biascxr.leakage.blocks import vectors_of_films
from biascxr.leakage.growth import Task
from biascxr.leakage.readout import standardise
from biascxr.mitigation.vector_table import VectorTable

# From weakest to strongest; the first of each leaves the film as it is.
AMOUNTS = MappingProxyType(
    {"low_pass": (256, 100, 50, 25, 10), "noise": (0.0, 0.05, 0.1, 0.25, 0.5), "crop": (1.0, 0.75, 0.5, 0.25)}
)
UNITS = MappingProxyType(
    {
        "low_pass": "diameter kept in the 256 x 256 spectrum",
        "noise": "standard deviation, share of the grey range",
        "crop": "side kept, share of the film's",
    }
)
REFITTED = "_refitted"
FULL_RANGE = 255


def perturb(images: np.ndarray, kind: str, *, amount: float, seed: int | Sequence[int]) -> np.ndarray:
    """Makes films worse.

    - low_pass: an ideal filter. Of the film's spectrum a disc of this diameter stays, in cycles per film's width (twice the
      highest frequency, as the width of a 256 x 256 spectrum is 256). At a film's own width or more nothing is taken, the
      corners of the spectrum neither.
    - noise: independent Gaussian noise on each pixel, its standard deviation a share of 255. The same seed gives the same
      noise, only stronger.
    - crop: the central square of this share of the side, brought back to the film's size (bilinear).

    Args:
        images: `[n, size, size] uint8`.
        kind: low_pass, noise or crop.
        amount: see above.
        seed: of the noise.

    Returns:
        `[n, size, size] uint8`; values are rounded, and cut off at 0 and 255.

    Raises:
        InputError: an unknown kind, an amount out of range, or films of another shape or type.
    """
    if kind not in AMOUNTS:
        raise unknown_name("perturbation", kind, AMOUNTS)
    if images.ndim != 3 or images.shape[1] != images.shape[2] or images.dtype != np.uint8:
        raise InputError(
            f"images: expected square grey films [n, size, size] uint8, as the records hold them; got {images.shape} "
            f"{images.dtype}."
        )
    if kind == "crop":
        return _central(images, amount)
    if not (np.isfinite(amount) and (amount >= 1 if kind == "low_pass" else amount >= 0)):
        least = "a diameter of 1 or more" if kind == "low_pass" else "a deviation of 0 or more"
        raise InputError(f"amount of {kind}: expected {least}; got {amount}.")
    if kind == "low_pass":
        if amount >= images.shape[1]:
            return images.copy()
        return _to_grey(low_passed(images.astype(np.float64), diameter=amount))
    noise = np.random.default_rng(seed).standard_normal(images.shape)
    return _to_grey(images + noise * (amount * FULL_RANGE))


def low_passed(films: np.ndarray, *, diameter: float) -> np.ndarray:
    """Returns films `[n, size, size] float64` with nothing left outside the disc of this diameter in their spectrum."""
    from scipy import fft

    size = films.shape[1]
    down, across = fft.fftfreq(size, 1 / size), fft.rfftfreq(size, 1 / size)  # in cycles per film
    is_kept = np.hypot(down[:, None], across[None, :]) <= diameter / 2
    return fft.irfft2(fft.rfft2(films) * is_kept, s=films.shape[1:])


def _central(images: np.ndarray, share: float) -> np.ndarray:
    import cv2

    size = images.shape[1]
    if not (0 < share <= 1 and round(size * share) >= 2):
        raise InputError(f"amount of crop: expected a share of the side in (0, 1] that leaves 2 pixels or more; got {share}.")
    side = round(size * share)
    if side == size:
        return images.copy()
    start = (size - side) // 2
    cut = images[:, start : start + side, start : start + side]
    return np.stack([cv2.resize(film, (size, size), interpolation=cv2.INTER_LINEAR) for film in cut])


def _to_grey(films: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(films), 0, FULL_RANGE).astype(np.uint8)


def perturbed_vectors(
    encoder: Encoder | None, records: Path, *, image_id: np.ndarray, kind: str, amount: float, batch: int, seed: int
) -> np.ndarray:
    """Encodes films after making them worse; a film's noise follows from the seed and its image_id.

    Args:
        encoder: any encoder of films, as its `EncoderSpec` builds it.
        records: folder of the records stage.
        image_id: `[m]`, the films.
        kind: see `perturb`.
        amount: see `perturb`.
        batch: films per forward pass; the encoder's own.
        seed: of the noise.

    Returns:
        `[m, d] float32`.

    Raises:
        InputError: vectors came ready made, so that there is no encoder; or see `perturb`.
    """
    if encoder is None:
        raise InputError(
            f"where {kind}: expected an encoder, to embed films that were made worse; the vectors came ready made. Leave "
            f"{kind} out, or let the run embed the films."
        )
    seeds = [(seed, zlib.crc32(str(image).encode())) for image in image_id]

    def run(films: np.ndarray, places: np.ndarray) -> list[np.ndarray]:
        made = [perturb(film[None], kind, amount=amount, seed=seeds[i]) for film, i in zip(films, places, strict=True)]
        return [encoder.encode(np.concatenate(made))]

    return vectors_of_films(run, records, image_id=image_id, batch=batch)[0]


def read_perturbed(
    tasks: Sequence[Task],
    embeddings: EmbeddingSet,
    *,
    encoder: Encoder | None,
    records: Path,
    kind: str,
    batch: int,
    amounts: Sequence[float] | None = None,
    is_refitted: bool = False,
) -> list[dict]:
    """Reads the attribute from test films made worse, with a probe that learned from the films as they are.

    A fall has two sources: what the films lost, and that their vectors lie where the probe has not been. `is_refitted` lets it
    learn from films made worse in the same way, and shows the first alone.

    Args:
        tasks: what is read, one or several attributes of the same rows, which are those of the embeddings; films are encoded
            once for all.
        embeddings: vectors of the films as they are, by the same network.
        encoder: the network.
        records: folder of the records stage.
        kind: low_pass, noise or crop.
        batch: films per forward pass.
        amounts: default `AMOUNTS[kind]`.
        is_refitted: also learn from films made worse; all films are then encoded for each amount, not only those judged.

    Returns:
        Rows of `curves.csv` of that kind; refitted ones of the kind `<kind>_refitted`.

    Raises:
        InputError: the vectors are another network's; or see `perturbed_vectors`.
    """
    _check_same_network(encoder, embeddings)
    judged = np.unique(np.concatenate([task.known(fold).test for task in tasks for fold in task.folds]))
    wanted = np.arange(len(embeddings)) if is_refitted else judged
    clean, rows = VectorTable.of(embeddings.vectors), []
    for amount in AMOUNTS[kind] if amounts is None else amounts:
        made = perturbed_vectors(
            encoder, records, image_id=embeddings.image_id[wanted], kind=kind, amount=amount, batch=batch, seed=tasks[0].seed
        )
        both, common = clean.followed_by(VectorTable.of(made)), {"amount": amount, "unit": UNITS[kind]}
        place = np.full(len(embeddings), -1)
        place[wanted] = len(clean) + np.arange(len(wanted))
        for task in tasks:
            parts = {}
            for number, whole in enumerate(task.folds):
                fold = task.known(whole)
                parts[number] = standardise(both, whole.train, [fold.train, fold.validation, place[fold.test]])
            rows.append(task.row(task.read(embeddings.vectors, standardised=parts), kind=kind, **common))
            if is_refitted:
                rows.append(task.row(task.read(made), kind=kind + REFITTED, **common))
    return rows


def _check_same_network(encoder: Encoder | None, embeddings: EmbeddingSet) -> None:
    stated = embeddings.card.get("network")
    own = None if encoder is None else encoder.card().get("network")
    if stated is not None and own is not None and stated != own:
        raise InputError(
            "encoder: expected the network that the vectors were made by; its weights, layer or pixels are others than the "
            "card of the vectors states. Build it from the configuration of the run."
        )
