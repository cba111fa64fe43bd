"""The records as a TensorFlow Datasets builder, for `tfds build` and `tfds.load`: a copy under TensorFlow Datasets' own paths.

Reading needs none of it: `tfds.builder_from_directory(folder)` reads a run's records where they are, and
`biascxr.records.link_for_tfds` makes them known to `tfds.load` by a link. The copy is for a place that outlives the run, or has
no links: `data_dir/biascxr_records/<name>/1.0.0`, with the same features, splits and image bytes, in TensorFlow Datasets' own
order and shards. It is derived data as the records are: the terms of the data set they were made from hold for it too.

    from biascxr.tfds_builder import RecordsFolder
    config = RecordsFolder(name="mine", folder="output/mine/02_records")
    tfds.load("biascxr_records", split="train", builder_kwargs={"config": config})

and from then on, with no code of ours, `tfds.load("biascxr_records/mine", split="train")`. Or from the command line (the
program `tfds` of version 4.9.10 does nothing without two packages that it does not ask for: `pip install apache-beam
mlcroissant`):

    tfds build biascxr_records --imports biascxr.tfds_builder \\
        --config '{"name": "mine", "folder": "output/mine/02_records"}'

Once built, load by the name: a call with a config asks for the run's records, as they were. `tfds build --overwrite` builds
anew from records that have changed. The name `demo` is taken by `output/demo/02_records`. This module imports TensorFlow
Datasets; nothing else in biascxr imports this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tensorflow_datasets as tfds

from biascxr.records.shard_list import require_shards


@dataclass
class RecordsFolder(tfds.core.BuilderConfig):
    """Which records: those of a run.

    Attributes:
        folder: finished records, such as `output/<run>/02_records`.
    """

    folder: str = ""


class BiascxrRecords(tfds.core.GeneratorBasedBuilder):
    """Chest radiographs of one run's records; features and splits are the folder's own."""

    VERSION = tfds.core.Version("1.0.0")
    # Found by itself too, but in 4.9.10 with a package that TensorFlow Datasets does not ask for (importlib_resources).
    code_path = tfds.core.Path(__file__)
    BUILDER_CONFIGS = (RecordsFolder(name="demo", description="what --demo left", folder="output/demo/02_records"),)

    def _info(self) -> tfds.core.DatasetInfo:
        """Returns what the folder's own metadata say.

        Raises:
            InputError: no records there, or a shard is missing or half.
        """
        require_shards(Path(self.builder_config.folder))
        source = self._source().info
        return tfds.core.DatasetInfo(
            builder=self, description=source.description, features=source.features, homepage=source.homepage
        )

    def _source(self) -> tfds.core.DatasetBuilder:
        return tfds.builder_from_directory(self.builder_config.folder)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[str, dict]]]:
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(split) for split in self._source().info.splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        """Yields a record's image_id and features; its image as it is stored, so that none is compressed a second time."""
        stored = self._source().as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        for record in tfds.as_numpy(stored):
            yield record["image_id"].decode(), record
