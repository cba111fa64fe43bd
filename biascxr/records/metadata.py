"""TensorFlow Datasets metadata, so that `tfds.builder_from_directory(folder)` reads the records with no code of ours.

`tfds.load(name, data_dir=...)` looks for `data_dir/name/version`; `link_for_tfds` puts a link there, and the builder script
`biascxr/tfds_builder.py` a copy.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from biascxr.config import SPLITS, RecordsConfig
from biascxr.containers import Cohort
from biascxr.errors import InputError
from biascxr.records.shard_list import Shard
from biascxr.records.shards import dataset_name

INFO = "dataset_info.json"
TEXTS = {
    "image_id": "key of the row in the cohort; an augmented view's is its image's, #view and its number",
    "study_id": "study that the image belongs to",
    "patient_id": "patient that the image is of; a patient is in one split only",
    "view": "projection as recorded (AP, PA, ...); empty where it is not",
}


def write_tfds_metadata(folder: Path, cohort: Cohort, shards: list[Shard], config: RecordsConfig) -> None:
    """Writes `features.json` and `dataset_info.json` beside the shards.

    Args:
        folder: folder of the shards.
        cohort: names of attributes and labels.
        shards: all shards in order; their record counts are the shard lengths.
        config: image size and codec.
    """
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(
                shape=(config.image_size, config.image_size, 1),
                encoding_format=config.image_format,
                doc=f"8-bit grey radiograph, {_preparation(config)}",
            ),
            **{name: tfds.features.Text(doc=doc) for name, doc in TEXTS.items()},
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
            shard_lengths=[s.n_records for s in shards if s.split == split],
            num_bytes=sum(s.n_bytes for s in shards if s.split == split),
            filename_template=template.replace(split=split),
        )
        for split in SPLITS
        if any(s.split == split for s in shards)
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=splits,
        filename_template=template,
        check_data=False,
        description=(
            f"Chest radiographs, {_preparation(config)}, with labels and recorded attributes; layout {cohort.layout}, written "
            "by biascxr. Derived data: the terms of the data set they were made from hold for them too."
        ),
        homepage="https://github.com/biascxr/biascxr",
    )


def _preparation(config: RecordsConfig) -> str:
    return f"{config.image_size} x {config.image_size} by area" + (", then histogram equalized" if config.equalize else "")


def link_for_tfds(folder: Path, data_dir: Path) -> str:
    """Makes a folder of records known under TensorFlow Datasets' own paths, by a link: nothing is copied.

    Args:
        folder: finished records, such as `output/<run>/02_records`.
        data_dir: where TensorFlow Datasets looks, for instance `~/tensorflow_datasets`; made if it is not there.

    Returns:
        The name for `tfds.load(name, data_dir=data_dir)`, such as `biascxr_mimic_cxr:1.0.0`.

    Raises:
        InputError: no records there, or `data_dir` holds other records under that name.
    """
    try:
        info = json.loads((folder / INFO).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{folder} is no folder of records: it has no {INFO}. Give the 02_records of a run.") from error
    link = data_dir.expanduser() / info["name"] / info["version"]
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.unlink(missing_ok=True)  # a link to a run that is gone
        link.symlink_to(folder.resolve(), target_is_directory=True)
    if not link.samefile(folder):
        raise InputError(f"{link} holds other records already ({link.resolve()}): remove it, or name another data_dir.")
    return f"{info['name']}:{info['version']}"
