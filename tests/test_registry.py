"""Implementations of a seam are found by name, by entry point and by import path."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from collabteam.errors import UserError
from collabteam.registry import Registry

PACKAGE = {
    "seam/__init__.py": "",
    "seam/base.py": "from abc import ABC, abstractmethod\n\n\nclass Shape(ABC):\n"
    "    @abstractmethod\n    def corners(self) -> int: ...\n",
    "seam/shapes/__init__.py": "",
    "seam/shapes/square.py": "from seam.base import Shape\n\n\nclass Square(Shape):\n"
    "    def corners(self) -> int:\n        return 4\n",
    "seam/shapes/_support.py": "raise RuntimeError('never imported')\n",
    "elsewhere.py": "from seam.base import Shape\n\n\nclass Triangle(Shape):\n"
    "    def corners(self) -> int:\n        return 3\n\n\nclass Stone:\n    pass\n",
}


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[object]:
    for name, text in PACKAGE.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] in ("seam", "elsewhere")]:
        monkeypatch.delitem(sys.modules, name)
    return Registry("shape", "seam.base:Shape", "seam.shapes")


def test_modules_of_the_package_are_implementations(shapes: Registry[object]) -> None:
    assert shapes.names() == ["square"]
    assert "seam.shapes.square" not in sys.modules  # listing imports nothing
    assert shapes.load("square")().corners() == 4  # type: ignore[attr-defined]


def test_a_class_elsewhere_is_named_by_its_path(shapes: Registry[object]) -> None:
    assert shapes.load("elsewhere:Triangle")().corners() == 3  # type: ignore[attr-defined]
    for path in ("elsewhere:Stone", "elsewhere:Nothing", "nowhere:Triangle"):
        with pytest.raises(UserError, match="shape"):
            shapes.load(path)


def test_an_entry_point_is_an_implementation(
    shapes: Registry[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    point = metadata.EntryPoint("triangle", "elsewhere:Triangle", "collabteam.shape")
    monkeypatch.setattr(
        metadata, "entry_points", lambda group: [point] if group == "collabteam.shape" else []
    )
    assert shapes.names() == ["square", "triangle"]
    assert shapes.load("triangle")().corners() == 3  # type: ignore[attr-defined]


def test_a_wrong_name_is_answered_with_the_nearest(shapes: Registry[object]) -> None:
    shapes.check("square", "drawing.shape")
    with pytest.raises(UserError, match=r"drawing\.shape=sqare: no such shape; expected square"):
        shapes.check("sqare", "drawing.shape")


def test_it_needs_nothing_heavy() -> None:
    code = "import sys, collabteam.registry; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
