"""What `remedies.py` has measured, as the last paragraph of each method's docstring.

    python benchmarks/remedy_docs.py          # writes them, from results/remedies.csv
    python benchmarks/remedy_docs.py --check  # says which ones are not what the results say; exit 1 if any

A test checks the same, so that what a method's documentation says of its effect is what was measured.
"""

from __future__ import annotations

import argparse
import ast
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from remedy_methods import VARIANTS
from remedy_report import overall
from remedy_worlds import NOTHING

from biascxr.mitigation import SLOTS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "remedies.csv"
MARK = "Measured on made-up vectors"
WIDTH = 128
SAYS = {"help": "helps under", "harm": "harms under", "gains anyway": "gains, with bias or without, under",
        "no_effect": "no effect under", "unclear": "unclear under"}  # fmt: skip


def sentence(rows: pd.DataFrame) -> str:
    """Says what was seen of a method under each mechanism.

    Args:
        rows: its rows of the results, over all families.
    """
    planted, control = rows[rows["mechanism"] != NOTHING], rows[rows["mechanism"] == NOTHING]
    parts = []
    for seen, says in SAYS.items():
        own = planted[planted["seen"] == seen]
        if len(own):
            with_share = seen in ("help", "harm", "gains anyway")
            named = [f"{r['mechanism']} ({r['share']:+.2f})" if with_share else r["mechanism"] for r in own.to_dict("records")]
            parts.append(f"{says} {_listed(named)}")
    for row in control[control["seen"] == "harm"].to_dict("records"):
        parts.append(f"costs {row['loss_change']:.3f} of its loss where there is no bias")
    return "; ".join(parts)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def paragraphs(table: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Returns, for each (module, class), the paragraph of its docstring."""
    table = overall(table)
    found: dict[tuple[str, str], list[str]] = {}
    for method in table["method"].drop_duplicates():
        member, settings = VARIANTS.get(method, (method, {}))
        place = next(t[member] for t in SLOTS.values() if member in t)
        module, name = place.split(":")
        given = ", ".join(f"{k}={v}" for k, v in settings.items())
        said = sentence(table[table["method"] == method])
        if said:
            found.setdefault((module, name), []).append(f"With {given}: {said}" if given else said)
    head = f"{MARK} (benchmarks/results/remedies.md; share of what a bias has cost that is closed):"
    return {place: f"{head} {'. '.join(said)}." for place, said in found.items()}


def documented(source: str, name: str, paragraph: str) -> str:
    """Returns a module's source with the paragraph as the last one of a class's docstring, in place of an earlier one."""
    node = next(n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == name)
    text, lines = ast.get_docstring(node, clean=False), source.splitlines(keepends=True)
    first, last = node.body[0].lineno - 1, node.body[0].end_lineno
    body = text.split(f"\n\n    {MARK}")[0].rstrip()
    wrapped = textwrap.fill(paragraph, WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
    lines[first:last] = [f'    """{body}\n\n{wrapped}\n    """\n']
    return "".join(lines)


def stale(table: pd.DataFrame) -> Iterator[tuple[Path, str]]:
    """Yields each module whose docstrings are not what the results say, with the source that would be."""
    wanted: dict[str, dict[str, str]] = {}
    for (module, name), paragraph in paragraphs(table).items():
        wanted.setdefault(module, {})[name] = paragraph
    for module, classes in wanted.items():
        path = ROOT / f"{module.replace('.', '/')}.py"
        source = updated = path.read_text(encoding="utf-8")
        for name, paragraph in classes.items():
            updated = documented(updated, name, paragraph)
        if updated != source:
            yield path, updated


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    found = list(stale(pd.read_csv(RESULTS)))
    for path, updated in found:
        print(f"{path.relative_to(ROOT)}: {'not what the results say' if check else 'written'}")
        if not check:
            path.write_text(updated, encoding="utf-8")
    return int(check and bool(found))


if __name__ == "__main__":
    sys.exit(main())
