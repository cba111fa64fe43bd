"""The embeddings stage of a run: where its vectors come from, and what they are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from biascxr.config import to_dict
from biascxr.embedding_store import open_store, store_digest
from biascxr.run_checks import check_files, check_rejected, keep_vectors, settle_vectors
from biascxr.run_folder import STAGES, file_digest, files_digest, manifest_of, outputs_digest

if TYPE_CHECKING:
    from biascxr.pipeline import Run


@dataclass(frozen=True)
class Source:
    """One way to a run's vectors.

    Attributes:
        make: folder -> `EmbeddingSet`.
        inputs: fingerprints of what it reads, beside the cohort.
        settings: the part of the configuration that it uses.
        code: packages and modules of biascxr whose source decides what it writes.
        libraries: distributions whose version does.
        names_rejected: whether it leaves images out and says which in `rejected.csv`.
    """

    make: Callable[[Path], object]
    inputs: dict
    settings: dict
    code: tuple[str, ...]
    libraries: tuple[str, ...] = field(default=())
    names_rejected: bool = False


def embeddings(run: Run) -> None:
    """Records, or vectors that are there already -> `EmbeddingSet`."""
    source = find_source(run)
    run.stages["embeddings"] = run.folder.stage(
        "embeddings",
        lambda folder: keep_vectors(run, source.make(folder), folder),
        inputs=run.inputs_of("cohort") | source.inputs,
        settings=source.settings,
        code=source.code,
        libraries=source.libraries,
    )
    if source.names_rejected:
        check_rejected(run, "embeddings")
    settle_vectors(run)


def find_source(run: Run) -> Source:
    """Returns the way that the run's flags and table ask for."""
    if run.config.embeddings.embedding_store is not None:
        return from_store(run)
    if run.config.embeddings.vectors is not None:
        return from_set(run)
    return from_files(run) if run.cohort().content == "vector" else from_records(run)


def from_store(run: Run) -> Source:
    """The store of another run."""
    store, precision = run.config.embeddings.embedding_store, run.config.embeddings.store_precision
    cohort = run.cohort()
    return Source(
        lambda folder: open_store(store, cohort, folder, precision),
        inputs={"store": store_digest(store)},
        settings={"store_precision": precision},
        code=("embedding_store", "embeddings/store", "containers", "cohort"),
    )


def from_set(run: Run) -> Source:
    """A file or folder of vectors that name their images."""
    from biascxr.embeddings import gather_from, open_vectors, vector_files

    config, cohort = run.config.embeddings, run.cohort()
    given, length, precision = config.vectors, config.vector_length, config.store_precision
    keep_maps = config.pooling == "none"
    return Source(
        lambda folder: gather_from(open_vectors(given), cohort, folder, length, precision, is_stage=True, keep_maps=keep_maps),
        inputs={"vectors": files_digest(Path("/"), [str(path.absolute()) for path in vector_files(given)])},
        settings={"vector_length": length, "store_precision": precision, "keep_maps": keep_maps},
        code=("embeddings", "records", "containers", "cohort"),
        names_rejected=True,
    )


def from_files(run: Run) -> Source:
    """One file per image, as the table's paths name them."""
    from biascxr.embeddings import gather_vectors

    config, cohort = run.config.embeddings, run.cohort()
    length, precision, keep_maps = config.vector_length, config.store_precision, config.pooling == "none"
    check_files(run, cohort)
    return Source(
        lambda folder: gather_vectors(
            cohort, folder, vector_length=length, precision=precision, is_stage=True, keep_maps=keep_maps
        ),
        inputs={"vectors": files_digest(cohort.images_root, cohort.table["path"])},
        settings={"vector_length": length, "store_precision": precision, "keep_maps": keep_maps},
        code=("embeddings", "records", "containers", "cohort"),
        names_rejected=True,
    )


def from_records(run: Run) -> Source:
    """The run's own records and an encoder."""
    from biascxr.embeddings import find_encoder, weights_files

    config, cohort = run.config.embeddings, run.cohort()
    weights = {f"{number}: {path.name}": file_digest(path) for number, path in enumerate(weights_files(config.weights))}
    earlier = run.folder.path / STAGES["embeddings"]
    return Source(
        lambda folder: embed_records(run, cohort, run.stages["records"], folder, earlier),
        inputs=records_made(run) | weights,
        settings=to_dict(config) | {"seed": run.config.seed if config.weights == "random" else None},
        code=("embeddings", "containers", "cohort"),
        libraries=find_encoder(config.encoder, config.weights).libraries,
    )


def records_made(run: Run) -> dict[str, str]:
    """Returns the fingerprint of the records, not of what they were made from: an image that was only touched changes none."""
    folder = run.stages["records"]
    return {"records": outputs_digest(folder, [name for name in manifest_of(folder)["outputs"] if name != "shard_keys.csv"])}


def embed_records(run: Run, cohort, records: Path, folder: Path, earlier: Path | None = None):
    """Embeds a folder of records with the run's encoder; returns the `EmbeddingSet`."""
    from biascxr.embeddings import build_embeddings

    config = run.config
    return build_embeddings(
        cohort, records, folder, encoder_of(run), n_workers=config.n_workers, scheduler=config.scheduler, earlier=earlier
    )


def encoder_of(run: Run):
    """Returns the `EncoderSpec` of the run's encoder."""
    from biascxr.embeddings import EncoderSpec

    given = run.config.embeddings
    if Path(given.weights).exists():  # a worker may have been started elsewhere
        given = replace(given, weights=str(Path(given.weights).absolute()))
    return EncoderSpec(given, run.config.records.image_size, run.config.seed)


def films_behind(run: Run):
    """Returns the `Films` that the run's vectors were made from; None where they came ready made."""
    from biascxr.leakage.build import Films

    if "records" not in run.stages:
        return None
    spec = encoder_of(run)
    return Films(spec.build(), run.stages["records"], run.config.embeddings.inference_batch)
