"""The notebooks run from top to bottom as they are."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SAYS = {
    "catalog": ("500 crops of ", "of the frozen test set", " files are now "),
    "fleet": ("Table 1, frozen test set", "i0+i1"),
    "selection": ("crops in the pool", "paper, min", "margin "),
    "table1": ("Table 1, frozen test set", "i0+i1"),
}
"""What must stand in the output of each."""


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROPS", "500")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    printed = [
        output["text"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream"
    ]
    for expected in SAYS[path.stem]:
        assert any(expected in text for text in printed), expected
