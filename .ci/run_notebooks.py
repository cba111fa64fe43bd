"""Executes every notebook from top to bottom in its own folder, two at a time; a cell that raises fails the check."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def execute(path: Path) -> str:
    """Returns what was run, in words."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(path.parent)}}).execute()
    n_pictures = sum("image/png" in o.get("data", {}) for c in notebook.cells for o in c.get("outputs", []))
    return f"{path}: {len(notebook.cells)} cells, {n_pictures} pictures"


with ThreadPoolExecutor(2) as pool:
    for line in pool.map(execute, sorted(Path("notebooks").glob("*.ipynb"))):
        print(line)
