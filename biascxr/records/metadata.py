"""TensorFlow Datasets metadata, so that `tfds.builder_from_directory(folder)` reads the records with no code of ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from biascxr.config import SPLITS, RecordsConfig
from biascxr.containers import Cohort
from biascxr.records.shards import ShardReport, dataset_name


def write_tfds_metadata(folder: Path, cohort: Cohort, reports: list[ShardReport], config: RecordsConfig) -> None:
    """Writes `features.json` and `dataset_info.json` beside the shards.

    Args:
        folder: folder of the shards.
        cohort: names of attributes and labels.
        reports: all shards in order; their record counts are the shard lengths.
        config: image size and codec.
    """
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(
                shape=(config.image_size, config.image_size, 1),
                encoding_format=config.image_format,
                doc="8-bit grey radiograph" + (", histogram equalized" if config.equalize else ""),
            ),
            **{name: tfds.features.Text() for name in ("image_id", "study_id", "patient_id", "view")},
            **{a.name: tfds.features.Text(doc=f"recorded groups: {', '.join(a.groups)}") for a in cohort.attributes},
            "age": tfds.features.Scalar(np.float32, doc="years; NaN is unknown"),
            "labels": {
                name: tfds.features.Scalar(np.float32, doc="1 labelled positive, 0 labelled negative, NaN masked")
                for name in cohort.label_names
            },
        }
    )
    template = tfds.core.ShardedFileTemplate(data_dir=folder, dataset_name=dataset_name(cohort), filetype_suffix="tfrecord")
    splits = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[r.n_records for r in reports if r.split == split],
            num_bytes=sum((folder / r.name).stat().st_size for r in reports if r.split == split),
            filename_template=template.replace(split=split),
        )
        for split in SPLITS
        if any(r.split == split for r in reports)
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=splits,
        filename_template=template,
        check_data=False,
        description="Chest radiographs with labels and recorded attributes, written by biascxr.",
        homepage="https://github.com/biascxr/biascxr",
    )
