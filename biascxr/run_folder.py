"""The folder of a run: each stage is written whole or not at all, and done again only when something changed.

A stage writes into a temporary folder that is renamed when it is complete. Its `manifest.json` holds the fingerprint of
what it was made from: its inputs, its part of the configuration, the code of its package and the library versions that
shape its output. The temporary folder's name carries that fingerprint, so a killed stage can go on from its finished parts.
"""

from __future__ import annotations

import glob
import hashlib
import importlib.metadata
import json
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import biascxr
from biascxr.config import RunConfig, to_yaml

logger = logging.getLogger("biascxr")

PACKAGE = Path(__file__).parent
REPORTED_LIBRARIES = (
    "tensorflow",
    "keras",
    "tensorflow-datasets",
    "numpy",
    "pandas",
    "scikit-learn",
    "opencv-python-headless",
)
STAGES = {
    "phantom": "00_phantom",
    "cohort": "01_cohort",
    "records": "02_records",
    "embeddings": "03_embeddings",
    "mitigation": "04_mitigation",
    "leakage": "05_leakage",
    "audit": "06_audit",
    "report": "07_report",
    "sweep": "08_sweep",
}


# What can be a folder's name as it stands: no separator, no way up, short enough for a partial folder's suffix.
PLAIN_NAME = re.compile(r"(?!.*\.\.)[\w.+\-=,()\[\]@]{1,150}")


def folder_name(name: str) -> str:
    """Returns the folder of a recipe: its own name where that can be one, else a short form that no other recipe has."""
    if PLAIN_NAME.fullmatch(name):
        return name
    plain = re.sub(r"[^\w+\-=,()\[\]@]", "_", name)[:100]
    return f"{plain}~{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_digest(names: Iterable[str]) -> str:
    """Returns the SHA-256 over the source of packages or modules of biascxr (`"cohort"`, `"containers"`, ...)."""
    digest = hashlib.sha256()
    for name in sorted(names):
        place = PACKAGE / name
        files = sorted(f for f in place.rglob("*") if f.suffix in (".py", ".j2", ".css")) if place.is_dir() else []
        for file in files or [place.with_suffix(".py")]:
            digest.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """Returns the installed versions of these distributions, without importing them."""
    return {name: importlib.metadata.version(name) for name in names}


class RunFolder:
    """Runs stages into `output/<run>/`, reusing those whose fingerprint has not changed.

    Args:
        path: the run's folder; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)

    def stage(
        self,
        name: str,
        build: Callable[[Path], None],
        *,
        inputs: dict,
        settings: dict,
        code: Iterable[str],
        libraries: Iterable[str] = (),
        member: str = "",
    ) -> Path:
        """Makes a stage's folder, or finds it already made.

        Args:
            name: the stage, a key of `STAGES`.
            build: writes the stage's files into the folder it is given. That folder may hold finished parts of an
                interrupted run with the same fingerprint.
            inputs: fingerprints of what the stage reads.
            settings: the part of the configuration that it uses.
            code: packages and modules of biascxr whose source decides what it writes.
            libraries: distributions whose version decides what it writes.
            member: sub-folder, for a stage that is made in several parts (a recipe of mitigation).

        Returns:
            The finished folder.
        """
        fingerprint = {
            "inputs": inputs,
            "settings": settings,
            "code": code_digest(code),
            "libraries": library_versions(libraries),
        }
        key = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()
        final = self.path / STAGES[name] / member
        title = f"{name} {member}".strip()
        if manifest_of(final).get("fingerprint") == key:
            logger.info("%s: unchanged, reused", title)
            return final

        partial = final.with_name(f".{final.name}-{key[:12]}.partial")
        for stale in final.parent.glob(f".{glob.escape(final.name)}-*.partial"):
            if stale != partial:
                shutil.rmtree(stale)
        if partial.exists():
            logger.info("%s: going on from an interrupted run", title)
        partial.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        build(partial)
        seconds = time.perf_counter() - started
        manifest = {"stage": title, "fingerprint": key, "made_from": fingerprint, "seconds": round(seconds, 2)}
        members = members_of(partial)
        manifest["outputs"] = {
            f.relative_to(partial).as_posix(): file_digest(f)
            for f in sorted(partial.rglob("*"))
            if f.is_file() and not any(m in f.parents for m in members)
        }
        manifest["outputs"].pop("manifest.json", None)  # there if an earlier run was killed just before the rename
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")
        if final.exists():
            for kept in members_of(final):  # stages of their own, which say themselves whether they are up to date
                if not (partial / kept.name).exists():
                    os.replace(kept, partial / kept.name)
            (final / "manifest.json").unlink(missing_ok=True)  # first: what is half removed must not be taken for whole
            shutil.rmtree(final)
        os.replace(partial, final)
        logger.info("%s: done in %.1f s", title, seconds)
        return final


def members_of(folder: Path) -> list[Path]:
    """Returns the sub-folders that are stages of their own, such as the views beside the images' records."""
    return [path.parent for path in folder.glob("*/manifest.json")]


def manifest_of(folder: Path) -> dict:
    """Returns a stage folder's manifest, or an empty dict where there is none."""
    path = folder / "manifest.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def outputs_digest(folder: Path, names: Iterable[str] | None = None) -> str:
    """Returns one fingerprint of what a stage wrote, for the stage to its right.

    Args:
        folder: a finished stage's folder.
        names: only these files (default: all), so that a stage follows only what it reads.
    """
    outputs = manifest_of(folder)["outputs"]
    chosen = {name: outputs[name] for name in (names or outputs)}
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


def files_digest(root: Path, paths: Iterable[str]) -> str:
    """Returns one fingerprint of files, from their sizes and times of change.

    Reading 200 GB of radiographs to find that nothing changed would take as long as using them.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            status = os.stat(root / path)
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        except OSError:
            digest.update(f"{path}\0missing\n".encode())
    return digest.hexdigest()


def run_versions() -> dict[str, str]:
    """Returns the versions a run depends on, without importing the libraries."""
    python = ".".join(map(str, sys.version_info[:3]))
    return {"biascxr": biascxr.__version__, "python": python, **library_versions(REPORTED_LIBRARIES)}


def describe_run(folder: Path, config: RunConfig) -> None:
    """Writes `config.yaml` (what the run used; `--config` on it repeats the run) and `versions.json`."""
    (folder / "config.yaml").write_text(to_yaml(replace(config, output_dir=folder)), encoding="utf-8")
    (folder / "versions.json").write_text(json.dumps(run_versions(), indent=2), encoding="utf-8")


def log_to(path: Path) -> None:
    """Sends the log to a file as well; a file that an earlier run in this process used is let go."""
    for handler in [h for h in logger.handlers if isinstance(h, logging.FileHandler)]:
        logger.removeHandler(handler)
        handler.close()
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger.addHandler(handler)
