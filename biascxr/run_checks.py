"""What can be found wrong with a run before, between and behind its stages; each says what to do about it."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from biascxr.config import BiasConfig, RunConfig
from biascxr.embedding_store import check_store, cohort_of_store
from biascxr.errors import InputError, unknown_name
from biascxr.work import check_scheduler

if TYPE_CHECKING:
    from biascxr.pipeline import Run

FINDINGS = "findings.json"


def check_request(config: RunConfig) -> tuple:
    """Finds what could not be done, in a second and not after hours of work; returns the recipes.

    Raises:
        InputError: something the user gave cannot be used.
    """
    from biascxr.embeddings import check_encoder, check_weights_path
    from biascxr.mitigation import parse_recipes

    store = config.embeddings.embedding_store
    if store is not None:
        check_store(store)
        check_store_and_run(config)
    has_cohort = config.demo or (store is not None and cohort_of_store(store) is not None)
    if config.csv_path is None and not has_cohort:
        raise InputError("Give a table with --csv_path meta.csv, or --demo for a made-up cohort.")
    if config.csv_path is not None and not config.csv_path.exists():
        raise InputError(f"--csv_path {config.csv_path}: no such file or folder.")
    if not config.demo and (config.bias.mechanism, config.bias.strength) != (BiasConfig().mechanism, BiasConfig().strength):
        raise InputError("--mechanism and --strength are the demo's; --plant plants bias on a table's rows (see --help).")
    if config.bias.plant:
        from biascxr.phantom.plant import Planting

        for text in config.bias.plant:
            Planting.parse(text)
    # What can be found wrong in a second is found before the hours of work, not after them.
    check_encoder(config.embeddings)
    check_weights_path(config.embeddings.weights)
    if config.scheduler is not None:
        check_scheduler(config.scheduler)
    return parse_recipes(config.mitigation.recipes, config.mitigation.settings)


def check_store_and_run(config: RunConfig) -> None:
    """Raises InputError for a store that this run would write over, or for settings that a store's own cohort does not take."""
    store = config.embeddings.embedding_store
    if store.resolve().parent == config.run_dir().resolve():
        raise InputError(
            f"--embedding_store {store} is this run's own and would be written over: leave it out, and the run goes on from "
            "its own vectors; or name another --output_dir."
        )
    if config.csv_path is None and not config.demo:
        own = (config.cohort, config.bias)
        given = [f.name for part in own for f in fields(part) if getattr(part, f.name) != f.default]
        if given:
            raise InputError(
                f"Without --csv_path the cohort is that of the store's run, as it is; --{given[0]} would change it. Give the "
                "table with --csv_path too."
            )


def check_audit(run: Run) -> None:
    """Raises InputError for an audit that could not be done, as soon as the attributes are known."""
    from biascxr.audit import check_audit as check

    check(run.cohort(), run.config.audit)


def check_leakage(run: Run) -> None:
    """Raises InputError for what the leakage stage could not do, as soon as the cohort is known.

    Raises:
        InputError: an unknown probe or attribute, an encoder that is not there, or films are needed and there are none.
    """
    from biascxr.leakage import PROBES

    config, cohort = run.config.leakage, run.cohort()
    for name in config.probes:
        if name not in PROBES:  # looked up, not loaded: a run that changes nothing loads no probe
            raise unknown_name("probe", name, PROBES)
    if config.leakage_attributes:
        from biascxr.leakage.build import attributes_to_read

        attributes_to_read(cohort, config.leakage_attributes)
    for path in config.attribute_encoders:
        if not path.is_file():
            raise InputError(f"--attribute_encoders {path}: no such file; train one with biascxr train-encoder --target race.")
    given = run.config.embeddings
    has_films = cohort.content == "image" and given.embedding_store is None and given.vectors is None
    for flag, asked in (("where", config.where), ("attribute_encoders", config.attribute_encoders)):
        if asked and not has_films:
            raise InputError(f"--{flag} looks at the films again, and this run has vectors only. Leave it out.")


def check_files(run: Run, cohort) -> None:
    """Warns of files that are not there, and stops where none is, before anything is read."""
    from biascxr.cohort.contract import Evidence, check_contract, settle_findings

    settle_findings(check_contract(Evidence(cohort=cohort), rules=["missing_files"], allow=run.config.cohort.allow))


def check_rejected(run: Run, stage: str) -> None:
    """Stops the run when too many files, or all of a split, could not be used; the stage is kept, so a higher share goes on."""
    from biascxr.records import check_rejected as check

    check(run.stages[stage], run.cohort(), run.config.records.max_rejected_share)


def keep_vectors(run: Run, made, folder: Path) -> None:
    """Saves the vectors, and what the contract finds in them."""
    from biascxr.cohort.contract import Evidence, check_contract, findings_to_records, rules_about

    made.save(folder)
    evidence = Evidence(cohort=run.cohort().rows(made.image_id), embeddings=made)
    found = check_contract(evidence, rules=rules_about("embeddings"))
    (folder / FINDINGS).write_text(json.dumps(findings_to_records(found), indent=2), encoding="utf-8")


def settle_vectors(run: Run) -> None:
    """Says what the contract found in the vectors, and stops where it is an error."""
    from biascxr.cohort.contract import allow_findings, findings_from_records, settle_findings

    rows = json.loads((run.stages["embeddings"] / FINDINGS).read_text(encoding="utf-8"))
    settle_findings(allow_findings(findings_from_records(rows), run.config.cohort.allow))
