"""DESIGN.md's "Who may import whom", held by reading the imports of every module."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import biascxr

PACKAGE = Path(biascxr.__file__).parent
STAGES = ("cohort", "records", "embeddings", "mitigation", "leakage", "audit", "report")  # left to right
GROUND = {"errors", "config", "verb_config", "containers", "run_folder", "age_groups", "work"}
# These see them all.
TOP = {
    "pipeline", "sweep", "cli", "check", "label_checks", "view_stages", "embedding_stage", "mitigation_stage",
    "embedding_store", "run_checks", "apply", "doctor", "standalone_leakage", "standalone_table",
}  # fmt: skip
# What each part may import from biascxr, beside itself.
ALLOWED = {
    "__init__": set(),
    "errors": set(),
    "run_folder": {"errors", "config"},
    "config": {"errors"},
    "work": {"errors", "run_folder"},
    "verb_config": {"errors", "config"},
    "containers": {"errors", "config"},
    "age_groups": {"errors", "config", "containers"},
    "inspect_tfrecord": {"errors", "records"},
    "tfds_builder": {"records"},
    "metrics": set(),
    "models": GROUND | {"metrics"},
    "audit": GROUND | {"metrics"},
    "phantom": GROUND | {"metrics", "models", *STAGES},  # no stage: it stands left of nothing, and no stage imports it
    **{stage: GROUND | {"metrics", "models", *STAGES[:i]} for i, stage in enumerate(STAGES) if stage != "audit"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    """Returns the package or module right under biascxr that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Returns the dotted names that a module imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def parts_imported(path: Path) -> set[str]:
    """Returns the parts of biascxr that a module imports; `__version__` and the like are no part."""
    parts = {name.split(".")[1] for name in imported(path) if name.startswith("biascxr.")}
    return {part for part in parts if (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").is_file()}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_a_module_imports_only_what_stands_to_its_left(path):
    part = part_of(path)
    if part in TOP:
        return
    assert part in ALLOWED, f"{part} is new: say here what it may import"
    too_far = parts_imported(path) - ALLOWED[part] - {part}
    assert not too_far, f"{path.relative_to(PACKAGE)} imports {sorted(too_far)}"


def test_the_rule_sees_the_imports_that_there_are():
    assert parts_imported(PACKAGE / "pipeline.py") >= {"audit", "report", "phantom", "config"}
    assert parts_imported(PACKAGE / "mitigation" / "training" / "base.py") == {"errors", "mitigation", "models"}
    assert {part_of(p) for p in MODULES} >= {*STAGES, "metrics", "models", "phantom"}


@pytest.mark.parametrize("part", ["models", "metrics", "audit", "cohort", "mitigation", "leakage", "report"])
def test_no_tensorflow_is_named(part):
    """Models, losses and training methods run on Keras's other backends too; the others need none of it."""
    for path in (PACKAGE / part).rglob("*.py"):
        assert not {n for n in imported(path) if n.split(".")[0] == "tensorflow"}, path
        names = {
            n.value.id
            for n in ast.walk(ast.parse(path.read_text()))
            if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)
        }
        assert "tf" not in names, f"{path} uses tf."


@pytest.mark.parametrize(
    "statement",
    [
        "import biascxr",
        "import biascxr.cli",
        "import biascxr.metrics",
        "import biascxr.audit",
        "from biascxr.mitigation import parse_recipes; parse_recipes('median_balance+group_youden', ('erm.batch_size=16',))",
        "import biascxr.leakage, biascxr.report",
        "from biascxr.cli import main; main(['--help'])",
    ],
)
def test_names_and_audits_cost_no_tensorflow(statement):
    check = "; import sys; sys.exit(', '.join({'tensorflow', 'keras', 'jax', 'torch'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", statement + check], capture_output=True, text=True)
    assert run.stderr.strip() == "", f"loaded: {run.stderr}"


def test_the_command_line_and_the_configuration_load_no_pandas():
    check = "import biascxr.cli, biascxr.config, sys; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_nothing_is_unpickled(path):
    assert not {name.split(".")[0] for name in imported(path)} & {"pickle", "joblib", "dill", "cloudpickle", "shelve"}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "safe_mode"):
            assert isinstance(node.value, ast.Constant) and node.value.value == (node.arg == "safe_mode"), f"{path}: {node.arg}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_no_file_grows_beyond_what_can_be_read_in_one_sitting(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 520
