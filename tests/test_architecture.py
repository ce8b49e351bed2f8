"""The rules of import that keep the code readable from left to right, held on the source itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "collabteam").rglob("*.py"))

RANK = {
    "environment": 0,
    "errors": 0,
    "events": 1,
    "machine": 1,
    "pictures": 1,
    "registry": 1,
    "settings": 2,
    "annotation_tools": 3,
    "storage": 3,
    "catalog": 4,
    "stages": 5,
    "features": 5,
    "sources": 5,
    "video": 6,
    "simulator": 6,
    "team": 6,
    "learners": 7,
    "rounds": 8,
    "labelling": 9,
    "audits": 10,
    "exporting": 11,
    "monitoring": 11,
    "reviewing": 11,
    "web": 12,
    "reporting": 13,
    "cli": 14,
    "commands": 15,
    "testing": 15,
    "facade": 16,
}
"""A part imports itself and lower ranks; parts of the same rank do not know each other."""


def _name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(file): file for file in FILES}


def _part(module: str) -> str:
    """The part of the program that a module belongs to."""
    names = module.split(".")
    if len(names) == 1:
        return "facade"
    parts = ("environment", "errors", "events", "machine", "pictures", "registry", "stages")
    if names[1] in parts:
        return names[1]
    is_package = len(names) > 2 or MODULES[module].name == "__init__.py"
    return names[1] if is_package else "commands"


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _statements(node: ast.AST, at_import: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements below a node; with ``at_import`` those alone that run on import."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if at_import and (later or _is_type_checking(child)):
            continue
        yield from _statements(child, at_import)


@cache
def _imports(module: str, at_import: bool = False) -> frozenset[str]:
    """Full names of what a module imports; a name in a package may be a submodule."""
    found = set()
    for statement in _statements(_tree(module), at_import):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
            continue
        base = statement.module or ""
        if statement.level:
            is_package = MODULES[module].name == "__init__.py"
            above = module.split(".")[: None if is_package else -1]
            above = above[: len(above) - statement.level + 1]
            base = ".".join([*above, *([base] if base else [])])
        for alias in statement.names:
            whole = f"{base}.{alias.name}"
            found.add(whole if whole in MODULES else base)
    return frozenset(found)


def _importers(package: str) -> set[str]:
    return {
        module
        for module in MODULES
        for name in _imports(module)
        if name == package or name.startswith(f"{package}.")
    }


def _reached(module: str) -> set[str]:
    """All that importing a module brings in, through our own modules and the packages above."""
    seen: set[str] = set()
    left = [module]
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in MODULES:
            left += _imports(name, at_import=True)
            left += [name.rsplit(".", 1)[0]] if "." in name else []
    return seen


def _packages(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def test_the_source_is_found() -> None:
    assert {"collabteam", "collabteam.team.voting", "collabteam.rounds.loop"} <= MODULES.keys()
    assert "collabteam.team.voting" in _imports("collabteam.rounds.selection")
    assert "torch" in _packages(_reached("collabteam.features.backbones"))


def test_hydra_appears_at_the_edge_alone() -> None:
    assert _importers("hydra") | _importers("omegaconf") == {
        "collabteam.cli.command",
        "collabteam.cli.sweep",
    }


def test_wandb_appears_in_one_file() -> None:
    assert _importers("wandb") == {"collabteam.reporting.wandb_runs"}
    assert _importers("wandb_workspaces") == {"collabteam.reporting.wandb_workspace"}


def test_only_one_file_speaks_to_object_stores() -> None:
    assert _importers("obstore") == {"collabteam.storage.store"}


def test_nothing_outside_storage_speaks_to_the_copy_of_a_store() -> None:
    for part in ("mirror", "store"):
        importers = _importers(f"collabteam.storage.{part}")
        assert all(module.startswith("collabteam.storage.") for module in importers), importers


NAMES_OF_FILES = re.compile(
    r"\.lance|\.safetensors|(^|/)(round|fold)-($|\d|[/*])|camera\.yaml|rolled-back"
    r"|(round|audit|certificate|label|sample|increment|folds|logged)\.json|release\.parquet"
)
"""Parts of names that no text but a file's name has."""
FOLDERS = {"audits", "branches", "incoming", "openvino", "review", "scores", "videos"}
"""Names that are words as well: only where a path is made of them."""
MAKE_PATHS = {"glob", "rglob", "joinpath", "with_name"}
ALIAS = ("collabteam.reporting.wandb_runs", "round-")
"""An alias of artifacts on W&B, which is no file."""


def _docstrings(tree: ast.Module) -> set[ast.AST]:
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                found.add(statement.value)
    return found


def _parts_of_paths(tree: ast.Module) -> Iterator[ast.expr]:
    """Expressions that become a part of a path."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            yield node.right
        called = node.func if isinstance(node, ast.Call) else None
        if isinstance(called, ast.Attribute) and called.attr in MAKE_PATHS:
            yield from node.args


OF_OTHERS = "collabteam.features.weights"
"""Reads weights that timm or a package wrote."""


@pytest.mark.parametrize("module", [m for m in MODULES if ".storage" not in m and m != OF_OTHERS])
def test_only_storage_spells_the_names_of_a_cameras_files(module: str) -> None:
    tree = _tree(module)
    prose = _docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in prose:
            found = NAMES_OF_FILES.search(node.value)
            if (module, node.value) == ALIAS:
                continue
            assert not found, f"{module}:{node.lineno} spells {found}"
    for part in _parts_of_paths(tree):
        for node in ast.walk(part):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                names = set(node.value.split("/"))
                assert not names & FOLDERS, f"{module}:{node.lineno} spells {node.value!r}"


@pytest.mark.parametrize(
    ("package", "module"),
    [("ultralytics", "collabteam.video.yolo"), ("boxmot", "collabteam.video.tracking")],
)
def test_a_package_under_the_agpl_appears_in_one_file(package: str, module: str) -> None:
    assert _importers(package) == {module}
    assert package not in _packages(set(_imports(module, at_import=True)))  # when used


def test_commands_alone_import_reporting() -> None:
    """Training, labelling and the review page tell a listener, and work without any view."""
    importers = _importers("collabteam.reporting")
    assert {_part(module) for module in importers} <= {"reporting", "cli", "commands"}


OPTIONAL = {"av", "boxmot", "cv2", "onnxruntime", "supervision", "trackers", "ultralytics"}
OPTIONAL |= {"nncf", "openvino", "wandb_workspaces", "datasets"}
"""Packages of extras, or brought by such a package."""
HEAVY = {"hydra", "lightning", "matplotlib", "numpy", "omegaconf", "pyarrow", "rich", "torch"}
HEAVY |= {"scipy", "torchvision", "wandb", "yaml", "importlib"}
"""Packages that ``--help``, or a command that does not use them, must not wait for."""
LATE_IMPORTS_OF_OWN = 58
"""Imports of our own modules when a function is called, so that ``--help`` stays fast. The number
may shrink."""


def _late(module: str) -> Iterator[tuple[int, str]]:
    """Line and name of everything that is imported when a function is called."""

    def walk(node: ast.AST, is_called: bool) -> Iterator[ast.Import | ast.ImportFrom]:
        for child in ast.iter_child_nodes(node):
            if is_called and isinstance(child, ast.Import | ast.ImportFrom):
                yield child
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(child, is_called or is_function)

    for statement in walk(_tree(module), False):
        names = (
            [alias.name for alias in statement.names]
            if isinstance(statement, ast.Import)
            else [statement.module or ""]
        )
        for name in names:
            yield statement.lineno, name


@pytest.mark.parametrize("module", MODULES)
def test_late_imports_are_for_optional_and_heavy_packages(module: str) -> None:
    for line, name in _late(module):
        package = name.split(".")[0]
        if package == "collabteam":
            assert _part(module) in ("commands", "cli"), f"{module}:{line} imports {name} late"
        else:
            assert package in OPTIONAL | HEAVY, f"{module}:{line} imports {name} late"


def test_late_imports_of_our_own_modules_become_fewer() -> None:
    found = [
        (module, line, name)
        for module in MODULES
        for line, name in _late(module)
        if name.split(".")[0] == "collabteam"
    ]
    assert len(found) <= LATE_IMPORTS_OF_OWN, found
    assert len(found) == LATE_IMPORTS_OF_OWN, "fewer than before: lower the number"


ARITHMETIC = [
    "collabteam.team.voting",
    "collabteam.rounds.selection",
    "collabteam.rounds.evaluation",
    "collabteam.labelling.calibration",
    "collabteam.audits.certificate",
    *(module for module in MODULES if module.startswith("collabteam.catalog")),
]


@pytest.mark.parametrize("module", ARITHMETIC)
def test_arithmetic_and_catalog_know_nothing_of_training(module: str) -> None:
    heavy = {"torch", "lightning", "timm", "torchvision", "torchmetrics"}
    assert not heavy & _packages(set(_imports(module)))
    assert not heavy & _packages(_reached(module))


TRUTH = "collabteam.catalog.truth"


def test_hidden_truth_has_few_readers() -> None:
    assert _importers(TRUTH) == {
        "collabteam.rounds.oracle",
        "collabteam.rounds.stages.evaluate",
        "collabteam.labelling.stages.measure",
        "collabteam.sources.crops",
    }


@pytest.mark.parametrize(
    "module",
    [m for m in MODULES if m.startswith("collabteam.team")]
    + ["collabteam.rounds.selection", "collabteam.rounds.evaluation", "collabteam.catalog"]
    + ["collabteam.labelling.calibration", "collabteam.audits.certificate"],
)
def test_what_trains_and_selects_cannot_see_the_truth(module: str) -> None:
    assert TRUTH not in _imports(module)
    assert TRUTH not in _reached(module)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    part = _part(module)
    assert part in RANK, f"{module}: give {part} a rank"
    for name in sorted(_imports(module)):
        if name.split(".")[0] != "collabteam":
            continue
        assert name in MODULES, f"{module} imports {name}, which is not there"
        other = _part(name)
        assert other == part or RANK[other] < RANK[part], f"{module} imports {name}"


def test_no_imports_go_in_a_circle() -> None:
    left = {module: set(_imports(module, at_import=True)) & MODULES.keys() for module in MODULES}
    while free := [module for module, needs in left.items() if not needs]:
        for module in free:
            del left[module]
        for needs in left.values():
            needs.difference_update(free)
    assert not left, f"in a circle, or behind one: {left}"


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_a_drawer_for_the_rest(module: str) -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not drawers & {name.strip("_") for name in module.split(".")}


@pytest.mark.parametrize("module", MODULES)
def test_every_function_names_its_arguments(module: str) -> None:
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            assert node.args.kwarg is None, f"{module}:{node.lineno} takes **{node.args.kwarg.arg}"


def test_nothing_in_training_couples_the_branches() -> None:
    """Clipping the global gradient norm would; the modules' docstrings may speak of it."""
    words = {"gradient_clip_val", "gradient_clip_algorithm", "clip_gradients", "clip_grad_norm_"}
    for module in MODULES:
        for node in ast.walk(_tree(module)):
            name = getattr(node, "arg", None) or getattr(node, "attr", None)
            assert name not in words, f"{module}:{node.lineno}"
