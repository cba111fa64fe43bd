"""The leakage stage: what probes and controls read from the vectors, and whether predictions depend on it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from biascxr.config import LeakageConfig
from biascxr.containers import UNKNOWN, Attribute, Cohort, EmbeddingSet
from biascxr.errors import InputError, unknown_name
from biascxr.leakage import VECTORS, find_probe
from biascxr.leakage.dependence.of_model import dependence_of, trained_anew
from biascxr.leakage.growth import Task, by_components, by_training_patients
from biascxr.leakage.modes import compare_modes
from biascxr.leakage.panels import density_panels
from biascxr.leakage.readings import AttributeReader, ReadingRows, best_on_validation
from biascxr.leakage.readout import Readout
from biascxr.leakage.recipes import ScoredModel
from biascxr.leakage.result import COLUMNS, LeakageResult
from biascxr.leakage.verdicts import verdict

logger = logging.getLogger("biascxr")

# Below so many numbers (rows x columns) BLAS threads wait for each other longer than they work: on the demo's vectors and
# two busy cores, one thread took 2.5 s where two took 26 s.
SMALL_PROBLEM = 20_000_000
MAP_ROWS = 256
ALPHA = 0.05  # of a verdict's tests, whatever the level of the intervals


@dataclass(frozen=True)
class Films:
    """The films behind the vectors, for what looks at them again.

    Attributes:
        encoder: the network that made the vectors; None where they came ready made.
        records: folder of the records stage.
        batch: films per forward pass.
    """

    encoder: object | None
    records: Path
    batch: int


def attributes_to_read(cohort: Cohort, wanted: Sequence[str] = ()) -> tuple[Attribute, ...]:
    """Returns the attributes to read: those wanted; by default the cohort's own, and the view where there are two.

    Raises:
        InputError: a name is neither an attribute of the cohort nor its view.
    """
    own = {attribute.name: attribute for attribute in cohort.attributes}
    views = sorted(set(cohort.table["view"]) - {"", UNKNOWN})
    if "view" not in own and len(views) > 1:
        own["view"] = Attribute("view", tuple(views), constant=False)
    for name in wanted:
        if name not in own:
            raise unknown_name("attribute", name, own)
    return tuple(own[name] for name in wanted) if wanted else tuple(own.values())


def measure_leakage(
    cohort: Cohort,
    embeddings: EmbeddingSet,
    config: LeakageConfig,
    *,
    confidence: float = 0.95,
    attributes: Sequence[Attribute] | None = None,
    models: Iterable[ScoredModel] = (),
    films: Films | None = None,
    seed: int,
) -> LeakageResult:
    """How well can each attribute be read, from what, and does it matter to predictions?

    Args:
        cohort: rows of `embeddings`, in the same order.
        embeddings: one vector per row.
        config: probes, folds, controls, what else is asked.
        confidence: level of the intervals.
        attributes: what is read; default: `attributes_to_read`.
        models: models with scores of rows of the cohort; each is asked for when its turn comes, and held alone.
        films: needed for what `config.where` and `config.attribute_encoders` name.
        seed: seed of folds, shuffles, permutations, probes.
    """
    attributes = attributes_to_read(cohort, config.leakage_attributes) if attributes is None else tuple(attributes)
    stage = _Stage(cohort, embeddings, config, attributes, confidence=confidence, seed=seed)
    threads = 1 if embeddings.vectors.size < SMALL_PROBLEM else None
    with threadpool_limits(limits=threads, user_api="blas"), tqdm(desc="leakage", unit="step") as bar:
        for reader in stage.readers:
            stage.read_vectors(reader)
            bar.update()
        for path in config.attribute_encoders:
            stage.read_with_encoder(path, films)
        for model in models:
            if model.why_closed:
                logger.info("leakage: nothing is erased below the last layer of %s: %s", model.name, model.why_closed)
            for reader in stage.readers:
                stage.judge(model, reader)
                bar.update()
        stage.judge_without_a_model()
        stage.look_at_modes()
        if config.where:
            stage.look_where(films)
    result = stage.result()
    for row in result.verdicts.itertuples():
        logger.info("leakage: %s, %s: %s. %s", row.recipe, row.attribute, row.verdict, row.reason)
    return result


def pooled(embeddings: EmbeddingSet) -> EmbeddingSet:
    """Returns feature maps as their mean over places, `[n, channels]`; vectors as they are."""
    shape = embeddings.card.get("map_shape")
    if shape is None:
        return embeddings
    channels, n = shape[-1], len(embeddings)
    made = np.empty((n, channels), np.float32)
    for start in range(0, n, MAP_ROWS):
        block = np.asarray(embeddings.vectors[start : start + MAP_ROWS], np.float32)
        made[start : start + MAP_ROWS] = block.reshape(len(block), -1, channels).mean(axis=1)
    return replace(embeddings, vectors=made)


def _check_films(films: Films | None, flag: str) -> None:
    if films is None:
        raise InputError(f"{flag} looks at the films again, and this run has vectors only. Leave it out, or start from images.")


class _Stage:
    """The tables as they grow."""

    def __init__(
        self,
        cohort: Cohort,
        embeddings: EmbeddingSet,
        config: LeakageConfig,
        attributes: Sequence[Attribute],
        *,
        confidence: float,
        seed: int,
    ) -> None:
        embeddings = pooled(embeddings)
        self.cohort, self.embeddings, self.config, self.seed = cohort, embeddings, config, seed
        self.confidence = confidence
        self.vectors = np.asarray(embeddings.vectors)
        self.probes = [find_probe(name) for name in config.probes]
        self.readers = [AttributeReader(cohort, a, config, confidence=confidence, seed=seed) for a in attributes]
        self.rows = ReadingRows()
        self.readouts: dict[str, dict[str, Readout]] = {}
        self.dependence: list[pd.DataFrame] = []
        self.verdicts: list[dict] = []
        self.curves: list[dict] = []
        self.modes: list[dict] = []
        self.panels: list[dict] = []

    def read_vectors(self, reader: AttributeReader) -> None:
        """Every probe and control on the vectors as the encoder gave them; curves and heads trained anew where asked."""
        name = reader.attribute.name
        self.readouts[name] = reader.read_representation(VECTORS, self.vectors, self.probes, self.rows, has_controls=True)
        if not self.readouts[name]:
            logger.info("leakage: %s has fewer than two known groups to learn from; not read", name)
            return
        if self.config.curves:
            task = self.task(reader)
            self.curves += by_training_patients(task, self.vectors) + by_components(task, self.vectors)
        if self.config.dependence == "full":
            table = trained_anew(self.cohort, self.embeddings, reader.attribute, confidence=self.confidence, seed=self.seed)
            self.dependence.append(table)

    def task(self, reader: AttributeReader) -> Task:
        """Returns the reading that curves repeat: by the probe that read best on validation rows."""
        probe = find_probe(best_on_validation(self.readouts[reader.attribute.name]))
        return Task(
            probe, reader.attribute, reader.codes, reader.patient_id, reader.folds, reader.score,
            is_balanced=self.config.balance_groups, seed=self.seed,
        )  # fmt: skip

    def read_with_encoder(self, path: Path, films: Films | None) -> None:
        """The upper bound: a network trained for the attribute itself."""
        from biascxr.leakage.attribute_encoder import read_with_encoder

        _check_films(films, f"--attribute_encoders {path}")
        readout = read_with_encoder(path, self.cohort, films.records, batch=films.batch)
        for reader in self.readers:
            if reader.attribute.name == readout.attribute.name:
                self.rows.add("readings", reader.tested(readout), representation=VECTORS)

    def judge(self, model: ScoredModel, reader: AttributeReader) -> None:
        """Reads the attribute from what the model makes of the vectors, asks whether its scores depend on it, and decides."""
        name = reader.attribute.name
        if not self.readouts[name]:
            return
        representation = VECTORS
        if model.vectors is not None:
            own = reader.on_the_split()
            if own.read_representation(model.name, model.vectors, self.probes, self.rows, has_controls=False):
                representation = model.name
        table = pd.DataFrame(columns=list(COLUMNS["dependence"]))
        if self.config.dependence != "off":
            table = dependence_of(model, reader, seed=self.seed)
            self.dependence.append(table)
        self._decide(model.name, name, representation, table)

    def judge_without_a_model(self) -> None:
        """Decides what can be said of the vectors alone, where no model has been judged."""
        if not self.verdicts:
            for name, found in self.readouts.items():
                if found:
                    self._decide(VECTORS, name, VECTORS, pd.DataFrame(columns=list(COLUMNS["dependence"])))

    def _decide(self, recipe: str, attribute: str, representation: str, dependence: pd.DataFrame) -> None:
        readings = pd.DataFrame(self.rows.readings)
        own = readings[(readings["representation"] == representation) & (readings["attribute"] == attribute)]
        own = own[own["probe"].isin(self.config.probes)]  # the upper bound reads films, which the head does not see
        row = verdict(own, dependence, margin=self.config.leakage_margin, alpha=ALPHA)
        self.verdicts.append(row | {"recipe": recipe})

    def look_at_modes(self) -> None:
        """Where groups lie along the vectors' main directions."""
        common = {"attributes": [reader.attribute for reader in self.readers], "seed": self.seed}
        self.modes = compare_modes(self.cohort, self.vectors, **common)
        self.panels = density_panels(self.cohort, self.vectors, has_tsne=self.config.tsne, **common)

    def look_where(self, films: Films | None) -> None:
        """Blocks of the encoder, and films made worse."""
        from biascxr.leakage.blocks import block_vectors, read_blocks
        from biascxr.leakage.perturbations import read_perturbed

        _check_films(films, f"--where {' '.join(self.config.where)}")
        readers = [reader for reader in self.readers if self.readouts[reader.attribute.name]]
        if "blocks" in self.config.where:
            blocks = block_vectors(films.encoder, films.records, image_id=self.embeddings.image_id, batch=films.batch)
            for reader in readers:
                self.curves += read_blocks(self.task(reader), blocks)
        for kind in self.config.where:
            if kind != "blocks":
                self.curves += read_perturbed(
                    [self.task(reader) for reader in readers], self.embeddings, encoder=films.encoder, records=films.records,
                    kind=kind, batch=films.batch,
                )  # fmt: skip

    def result(self) -> LeakageResult:
        """Returns the tables."""
        made = LeakageResult.of(
            readings=self.rows.readings, roc=self.rows.roc, confusion=self.rows.confusion, verdicts=self.verdicts,
            curves=self.curves, modes=self.modes, panels=self.panels,
        )  # fmt: skip
        tables = [table for table in self.dependence if len(table)]
        return made if not tables else made.with_dependence(pd.concat(tables, ignore_index=True))
