"""The evaluation: one short function per stage, in order, as in `pipeline`."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import biascxr
from biascxr import pipeline
from biascxr.apply.home import PREDICTIONS, Home, load_recipe, read_home
from biascxr.apply.settings import ApplyConfig, check_settings
from biascxr.config import AuditConfig, to_dict
from biascxr.errors import InputError
from biascxr.pipeline import Run
from biascxr.run_folder import STAGES, RunFolder, describe_run, folder_name, log_to, manifest_of, outputs_digest, run_versions

logger = logging.getLogger("biascxr")

EVALUATED, APPLIED = "evaluated.json", "applied.json"
IN_DISTRIBUTION = "in_distribution"
SIDE_BY_SIDE, EFFECTS = "external.csv", "external_effects.csv"
UNKNOWN_MAKER = "not known here"
NAMED_COLUMNS = ("attributes", "crossings", "adjust")  # audit settings that name columns of a table


def apply_run(config: ApplyConfig) -> Path:
    """Applies a finished run's recipes to another cohort and sets what comes out beside what came out at home.

    Args:
        config: the run, the other table, and what of the data and the audit differs from the run's settings (start from
            `settings_of(run)`).

    Returns:
        The evaluation's folder.

    Raises:
        InputError: the run is not finished or not loadable, the table cannot be used, or a setting that the run fixes was
            changed.
    """
    if config.run is None:
        raise InputError("Name the finished run whose recipes are applied: --run output/demo.")
    home = read_home(config.run)
    check_settings(config, home.settings)
    out = Run(config, RunFolder(config.run_dir()), {})
    log_to(out.folder.path / "run.log")
    logger.info("biascxr %s: recipes of %s applied, in %s", biascxr.__version__, home.folder, out.folder.path)
    describe_run(out.folder.path, config)
    logger.info("apply: the table's split, and what is said of it below, is not used: every image is evaluated")
    pipeline.cohort(out)
    evaluated(out, home)
    settle_audit(out, home)
    check_before_work(out, home)
    pipeline.records(out)
    pipeline.embeddings(out)
    check_vectors(out, home)
    for recipe in home.recipes:
        predictions(out, home, recipe.name)
    audit(out, home)
    report(out, home)
    logger.info("report: %s", out.folder.path / "report.html")
    return out.folder.path


def evaluated(out: Run, home: Home) -> None:
    """The rows and findings that are evaluated, as a cohort of its own; from here on it is the cohort."""
    from biascxr.apply.evaluated import choose_rows, say_evaluated

    whole = out.cohort()

    def build(folder: Path) -> None:
        made, facts = choose_rows(whole, home, out.config.same_patients, min_patients=out.config.audit.min_patients)
        made.save(folder)
        (folder / EVALUATED).write_text(json.dumps(facts.to_dict(), indent=2, ensure_ascii=False), encoding="utf-8")

    out.stages["cohort"] = out.folder.stage(
        "cohort",
        build,
        member="evaluated",
        inputs=out.inputs_of("cohort") | {"run": home.digest("cohort")},
        settings={"same_patients": out.config.same_patients, "min_patients": out.config.audit.min_patients},
        code=("apply", "cohort", "containers"),
        libraries=pipeline.TABLE_LIBRARIES,
    )
    say_evaluated(facts_of(out))


def facts_of(out: Run):
    """Returns what the stage before left out, and why."""
    from biascxr.apply.evaluated import Evaluated

    facts = json.loads((out.stages["cohort"] / EVALUATED).read_text(encoding="utf-8"))
    return Evaluated(**{name: tuple(v) if isinstance(v, list) else v for name, v in facts.items()})


def settle_audit(out: Run, home: Home) -> None:
    """Takes out of the audit what the run's own settings ask for and the table lacks; what the user asks for must be there."""
    asked = out.config.audit
    fitted, _ = fit_audit(asked, out.cohort().attributes)
    inherited = [name for name in NAMED_COLUMNS if getattr(asked, name) == getattr(home.settings.audit, name)]
    settled = replace(asked, **{name: getattr(fitted, name) for name in inherited})
    missing = [value for name in inherited for value in getattr(asked, name) if value not in getattr(settled, name)]
    if missing:
        logger.info("apply: the run's audit looks at %s; the table does not have it, so it is left out", ", ".join(missing))
    out.config = replace(out.config, audit=settled)
    pipeline.check_audit(out)


def fit_audit(audit: AuditConfig, attributes: tuple) -> tuple[AuditConfig, bool]:
    """Restricts an audit to the attributes that a cohort has.

    Returns:
        The audit, and whether attributes were asked for and none is left (no attribute named would mean all).
    """
    from biascxr.audit.adjust import LABEL
    from biascxr.audit.groups import CROSSING

    known = [a.name for a in attributes]
    kept = {
        "attributes": tuple(a for a in audit.attributes if a in known),
        "crossings": tuple(c for c in audit.crossings if all(part.strip() in known for part in c.split(CROSSING))),
        "adjust": tuple(a for a in audit.adjust if a in (LABEL, "view", *known)),
    }
    return replace(audit, **kept), bool(audit.attributes) and not kept["attributes"]


def check_before_work(out: Run, home: Home) -> None:
    """Finds what would fail after hours of reading images: another encoder, a recipe that does not load.

    Raises:
        InputError: either of them.
    """
    config, content = out.config, out.cohort().content
    reads_images = content == "image" and config.embeddings.vectors is None
    if reads_images and home.has_precomputed_vectors:
        raise InputError(
            f"The run {home.folder} was trained on vectors that were made elsewhere, and the table points to images. Make "
            "their vectors with the same encoder, and let the table or --vectors point to those."
        )
    if reads_images and not manifest_of(out.folder.path / STAGES["embeddings"]):
        from biascxr.embeddings import check_encoder

        check_weights_file(config)
        encoder = check_encoder(config.embeddings)(config.embeddings, image_size=config.records.image_size, seed=config.seed)
        check_fingerprint(encoder.card(), home)
    for recipe in home.recipes:
        if not manifest_of(out.folder.path / STAGES["mitigation"] / folder_name(recipe.name)):
            load_recipe(home, recipe.name)


def check_weights_file(config: ApplyConfig) -> None:
    """Raises InputError where the encoder's weights file is not where the run found it."""
    from biascxr.embeddings import check_weights_path

    try:
        check_weights_path(config.embeddings.weights)
    except InputError as error:
        raise InputError(f"{error} It is the run's encoder: say where it is now with --weights FILE.") from error


def check_fingerprint(card: dict, home: Home) -> None:
    """Raises InputError unless an encoder is the one that made the run's vectors, whatever computes it here and there."""
    name = "network" if "network" in card else "fingerprint"
    if card[name] != home.card.get(name):
        raise InputError(
            f"The encoder is not the one that the run {home.folder} was trained with: the weights of "
            f"{card['encoder']} ({card['weights']}) have another fingerprint. Give the same weights "
            "file; a run of an earlier biascxr is to be made again."
        )
    here, there = (c.get("mixed_precision", "off") for c in (card, home.card))
    if here != there:
        raise InputError(
            f"The vectors that the run {home.folder} was trained with were computed with mixed_precision {there}, these with "
            f"{here}: they must be of one kind."
        )


def check_vectors(out: Run, home: Home) -> None:
    """Compares the vectors' length and maker with the run's.

    Raises:
        InputError: another length, or another encoder.
    """
    from biascxr.containers import EmbeddingSet

    made = EmbeddingSet.load(out.stages["embeddings"])
    length = home.card["vector_length"]
    if made.vectors.shape[1] != length:
        raise InputError(
            f"The run {home.folder} was trained on vectors of {length} numbers; the table's have {made.vectors.shape[1]}. They "
            "must be made by the same encoder."
        )
    if can_be_compared(made.card, home.card):
        check_fingerprint(made.card, home)
        logger.info("apply: the vectors are made by the run's own encoder")
    else:
        logger.warning("apply: the vectors have the run's length; who made them is not known here and cannot be checked")


def can_be_compared(card: dict, other: dict) -> bool:
    """Whether both makers of vectors are known."""
    return UNKNOWN_MAKER not in (card["fingerprint"], other["fingerprint"])


def predictions(out: Run, home: Home, name: str) -> None:
    """One recipe as it was trained, on the evaluated rows: heads, calibrators and thresholds are the run's."""

    def build(folder: Path) -> None:
        made, applied = predict(out, home, name)
        made.save(folder / PREDICTIONS)
        (folder / APPLIED).write_text(json.dumps(applied, indent=2, ensure_ascii=False), encoding="utf-8")

    trained_parts = tuple(
        file
        for file in manifest_of(home.recipe_folder(name))["outputs"]
        if file.endswith((".json", ".h5", ".npz")) or file.startswith(("calibration_", "thresholds"))
    )  # a .keras archive carries a date, and holds what these hold
    stage = f"mitigation/{folder_name(name)}"
    out.stages[stage] = out.folder.stage(
        "mitigation",
        build,
        member=folder_name(name),
        inputs=out.inputs_of("cohort", "embeddings")
        | {"recipe": home.digest(stage, trained_parts), "run": home.digest("cohort")},
        settings={},
        code=("apply", "mitigation", "models", "metrics", "containers"),
        libraries=("keras", "tensorflow", "scikit-learn"),
    )
    applied = applied_of(out, name)
    if applied["n_images_unseen"]:
        groups = ", ".join(g for own in applied["unseen"].values() for g in own)
        logger.info("apply: %s uses groups; those that the run did not have get its answer for unknown: %s", name, groups)
    for attribute in applied["not_recorded"]:
        logger.info("apply: %s uses %s, which the table does not have: everyone gets its answer for unknown", name, attribute)


def predict(out: Run, home: Home, name: str):
    """Returns a recipe's predictions of the evaluated rows, and what of their groups it does not know."""
    from biascxr.apply.evaluated import answered_as_unknown, as_the_run_knows, attributes_used
    from biascxr.containers import Predictions

    trained = load_recipe(home, name)
    cohort, vectors = out.embedded()
    attributes = as_the_run_knows(cohort.table, home.cohort.attributes)
    scores = trained.score(vectors.vectors, attributes)
    decisions = trained.decide(scores, attributes)  # of all findings: some rules look at all of a row's scores
    columns = [trained.label_names.index(label) for label in cohort.label_names]
    own = [a.name for a in cohort.attributes]
    table = cohort.table[["image_id", "study_id", "patient_id", "split", "view", *own]].copy()
    for place, (column, value) in enumerate({"recipe": name, "seed": trained.facts["seed"], "fold": 0}.items(), start=4):
        table.insert(place, column, value)
    made = Predictions(
        table=table,
        y_true=cohort.labels,
        scores=scores[:, columns],
        label_names=cohort.label_names,
        attributes=cohort.attributes,
        decisions=decisions[:, columns],
    )
    used = attributes_used(trained, [a.name for a in home.cohort.attributes])
    return made, answered_as_unknown(cohort, home.cohort.attributes, used)


def applied_of(out: Run, name: str) -> dict:
    """Returns what `predict` counted for a recipe."""
    return json.loads((out.stages[f"mitigation/{folder_name(name)}"] / APPLIED).read_text(encoding="utf-8"))


def predictions_out(out: Run, home: Home) -> dict:
    """Returns the predictions of the evaluated rows, by recipe."""
    from biascxr.containers import Predictions

    attributes = out.cohort().attributes
    folders = {r.name: out.stages[f"mitigation/{folder_name(r.name)}"] for r in home.recipes}
    return {name: Predictions.load(folder / PREDICTIONS, attributes) for name, folder in folders.items()}


def predictions_in(out: Run, home: Home) -> dict:
    """Returns the run's own test predictions of the findings that are evaluated, by recipe."""
    names = out.cohort().label_names

    def restricted(made):
        columns = [made.label_names.index(label) for label in names]
        decisions = None if made.decisions is None else made.decisions[:, columns]
        return replace(
            made, y_true=made.y_true[:, columns], scores=made.scores[:, columns], label_names=names, decisions=decisions
        )

    return {r.name: restricted(home.test_predictions(r.name)) for r in home.recipes}


def audit(out: Run, home: Home) -> None:
    """The audit of the evaluated rows, the same of the run's own test rows, and the two side by side."""
    config = out.config.audit

    def build(folder: Path) -> None:
        from biascxr.audit import audit as audit_predictions
        from biascxr.audit.external import compare_cohorts
        from biascxr.label_checks import audit_on_reference

        away, own = predictions_out(out, home), predictions_in(out, home)
        audit_predictions(away, config, seed=out.config.seed).save(folder)
        at_home, has_none = fit_audit(config, home.cohort.attributes)
        if has_none:
            own = {name: replace(p, attributes=()) for name, p in own.items()}
        (folder / IN_DISTRIBUTION).mkdir(exist_ok=True)
        audit_predictions(own, at_home, seed=out.config.seed).save(folder / IN_DISTRIBUTION)
        tables = compare_cohorts(own, away, config, seed=out.config.seed)
        tables.side_by_side.to_csv(folder / SIDE_BY_SIDE, index=False)
        tables.effects.to_csv(folder / EFFECTS, index=False)
        audit_on_reference(out.cohort(), list(away.values()), config, folder, seed=out.config.seed)

    stages = [f"mitigation/{folder_name(r.name)}" for r in home.recipes]
    out.stages["audit"] = out.folder.stage(
        "audit",
        build,
        inputs=out.inputs_of("cohort")
        | {stage: outputs_digest(out.stages[stage], (PREDICTIONS,)) for stage in stages}
        | {f"run {stage}": home.digest(stage, (PREDICTIONS,)) for stage in stages}
        | {"run": home.digest("cohort")},
        settings=to_dict(config) | {"seed": out.config.seed},
        code=("apply", "audit", "metrics", "containers", "label_checks"),
        libraries=("numpy", "scipy", "pandas", "numba"),
    )


def report(out: Run, home: Home) -> None:
    """The page: here and at home, side by side."""
    config = to_dict(out.config)
    for name in ("config", "output_dir", "n_workers", "scheduler"):
        config.pop(name)

    def build(folder: Path) -> None:
        from biascxr.audit.external import read_tables
        from biascxr.records import read_rejected
        from biascxr.report.external_page import ExternalInputs, build_external_page

        facts, (cohort, vectors) = facts_of(out), out.embedded()
        rejected = read_rejected(out.stages["records" if "records" in out.stages else "embeddings"])
        build_external_page(
            ExternalInputs(
                tables=read_tables(out.stages["audit"] / SIDE_BY_SIDE, out.stages["audit"] / EFFECTS),
                home=predictions_in(out, home),
                away=predictions_out(out, home),
                home_layout=home.cohort.layout,
                cohort=cohort,
                rejected=[row["reason"] for row in rejected],
                facts=facts.to_dict(),
                applied={r.name: applied_of(out, r.name) for r in home.recipes},
                rules={r.name: r.methods("decision")[-1] for r in home.recipes},
                card=vectors.card,
                is_known_maker=can_be_compared(vectors.card, home.card),
                is_demo=home.is_demo,
                has_reference=(out.stages["audit"] / "reference").is_dir(),
                config=config,
                versions=run_versions(),
            ),
            folder,
        )

    stages = [f"mitigation/{folder_name(r.name)}" for r in home.recipes]
    out.stages["report"] = out.folder.stage(
        "report",
        build,
        inputs=out.inputs_of("cohort", "embeddings", "audit", *stages) | {"run": home.digest("cohort")},
        settings={"config": config, "versions": run_versions()},
        code=("apply", "report", "metrics", "audit", "containers", "cohort"),
        libraries=("matplotlib", "seaborn", "jinja2"),
    )
    shutil.copyfile(out.stages["report"] / "report.html", out.folder.path / "report.html")
