"""What the end-to-end tests share: the commands, a simulated camera, and a trained one."""

from __future__ import annotations

import atexit
import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from forking import WHENEVER, Forked, Forker

# Tests run side by side, a processor each; torch's threads would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A command in this process sets it (collabteam.environment.settle), and so would change what the
# commands of later tests find.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

REPOSITORY = Path(__file__).parents[1]
CLASSES = ["cyclist", "motorcyclist", "pedestrian"]
CROPS = 600
THREE = ["east", "gate", "north"]

SMALL = (
    "experiment=scratch",
    "reviewer=oracle",
    "team.backbone=test_resnet",
    "data.image_size=24",
    "optim.epochs=8",
    "optim.epochs_later=2",
    "seed_per_class=40",
    "seed_unknown=0",
    "increment_per_class=4",
    "quantile=0.5",
    "trainer.threads=1",
    "trainer.precision=fp32",
    "logger=none",
)
"""A team that is trained within two seconds a round and is sure enough to draw increments."""


SLOWEST = (
    "test_launchers.py", "test_resume.py", "test_launchers_end.py", "test_notebooks.py",
    "test_train.py", "test_store.py", "test_frozen.py", "test_learners.py", "test_engine.py",
    "test_ingest_video.py", "test_sweep.py", "test_export.py", "test_label.py",
    "test_environment.py", "test_extending.py", "test_docs.py", "test_campaign.py",
)  # fmt: skip
"""Files that take a minute or more, the longest first."""


_WORKER_GB = 6
"""Memory of a process that runs tests, at most, and of the commands that it starts."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process more than there are processors: tests wait for kills, browsers and servers."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return max(1, min((os.cpu_count() or 1) + 1, round(memory / _WORKER_GB)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: the last one to begin keeps one process busy alone."""
    items.sort(key=lambda item: SLOWEST.index(item.path.name) if item.path.name in SLOWEST else 99)


_AT_FIRST = dict(os.environ)
_before = dict(os.environ)
"""The variables when this test began."""


def note_environment() -> None:
    """What libraries have set until now, as they were imported, is nothing that a command gets."""
    _before.clear()
    _before.update(os.environ)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture of the test."""
    note_environment()


def environment() -> dict[str, str]:
    """Of a command: as before all tests, with what this test changes, less the user's W&B."""
    clean = {name: text for name, text in _AT_FIRST.items() if not name.startswith(WHENEVER)}
    for name, text in os.environ.items():
        if name.startswith(WHENEVER) or _before.get(name) != text:
            clean[name] = text
    for name in _before.keys() - os.environ.keys():
        clean.pop(name, None)
    return _for_commands(clean)


def _for_commands(variables: Mapping[str, str]) -> dict[str, str]:
    clean = {name: text for name, text in variables.items() if not name.startswith("WANDB_")}
    return {**clean, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "COLUMNS": "120",
            "RAY_worker_niceness": "0"}  # fmt: skip


def command(name: str, *settings: str) -> list[str]:
    return [sys.executable, "-m", f"collabteam.{name}", *settings]


@cache
def _forker() -> Forker:
    made = Forker(_for_commands(_AT_FIRST))
    atexit.register(made.close)
    return made


def start(
    name: str,
    folder: Path,
    *settings: str,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    session: bool = False,
    fresh: bool = False,
) -> Forked | subprocess.Popen[str]:
    """A command in a process of its own, in a folder; what it imports may be imported already.

    It is fresh if asked, or if a variable is set that an import might read.
    """
    env = environment()
    if not fresh and _forker().takes(env):
        words = list(settings)
        return _forker().start(f"collabteam.{name}", words, folder, env, stdout, stderr, session)
    return subprocess.Popen(
        command(name, *settings), cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=stdout,
        stderr=stderr, text=True, start_new_session=session,
    )  # fmt: skip


def finish(process: Forked | subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for a command; one that takes more than five minutes is killed, and raises."""
    try:
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode is not None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run(name: str, root: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    """A command as a person runs it, in a process of its own, beside the root."""
    return finish(start(name, root.parent, f"root={root}", *settings))


def run_fresh(name: str, root: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    """The same with the start of Python and the imports: in a process that nothing was before."""
    return subprocess.run(
        command(name, f"root={root}", *settings), cwd=root.parent, env=environment(),
        capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@dataclass
class Said:
    """What a command returned and printed."""

    code: int
    out: str
    err: str


Call = Callable[..., Said]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """A command in this very process, which spares it the start of Python and torch."""

    def call(name: str, *settings: str) -> Said:
        from hydra.core.config_store import ConfigStore

        main = importlib.import_module(f"collabteam.{name}").main
        # Cameras of an earlier call must not be known to this one.
        ConfigStore.instance().repo.pop("camera", None)
        monkeypatch.setattr(sys, "argv", [f"collabteam.{name}", *settings])
        monkeypatch.setenv("COLUMNS", "120")
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        code = ended.value.code
        assert code is None or isinstance(code, int)
        return Said(code or 0, printed.out, printed.err)

    return call


def one_line(said: Said | subprocess.CompletedProcess[str], *expected: str) -> str:
    """The line of a refusal; checks that it is one, says what is expected, and ends with 2."""
    code, err = (said.code, said.err) if isinstance(said, Said) else (said.returncode, said.stderr)
    assert code == 2, err
    assert "Traceback" not in err
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    for text in expected:
        assert text in lines[0], err
    return lines[0]


def fingerprints(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file of a folder: its content's hash and when it was written. The lock is none."""
    return {
        str(path.relative_to(folder)): (
            hashlib.blake2b(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("lock", "labels.lock")
    }  # fmt: skip


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def records(folder: Path) -> list[dict[str, Any]]:
    """Every ``round.json`` of a camera, without what no two runs have in common."""
    found = []
    for number in range(len(list(folder.glob("round-*/round.json")))):
        record = read_json(folder / f"round-{number}" / "round.json")
        for name in ("seconds", "peak_memory_mb", "finished"):
            del record[name]
        found.append(record)
    return found


def said_of_crops(folder: Path) -> list[tuple[Any, ...]]:
    """The log of labels without the times, as often as each thing was said."""
    from collabteam.catalog import Catalog

    columns = ("crop_id", "label", "source", "purpose", "round", "confidence", "by")
    log = Catalog(folder).log(columns).to_pylist()
    return sorted(tuple(map(str, said.values())) for said in log)


def probabilities(folder: Path) -> dict[str, dict[str, tuple[float, ...]]]:
    """Per round, what the team thinks of every crop of the pool."""
    import pyarrow.parquet as pq

    found: dict[str, dict[str, tuple[float, ...]]] = {}
    for file in sorted(folder.glob("round-*/scores/part-*.parquet")):
        rows = pq.read_table(file).to_pylist()
        known = found.setdefault(file.parts[-3], {})
        for row in rows:
            crop_id = row.pop("crop_id")
            assert crop_id not in known, "scored twice"
            known[crop_id] = tuple(row.values())
    return found


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A camera ``sim`` of 600 crops that nobody has trained on; copy it before you change it."""
    root = tmp_path_factory.mktemp("simulated") / "outputs"
    done = run("simulate", root, "camera=sim", f"crops={CROPS}")
    assert done.returncode == 0, done.stderr
    assert f"sim: {CROPS} new crops, {CROPS} in all, in {root}/sim" in done.stdout
    assert "next: python -m collabteam.train camera=sim" in done.stdout
    return root


@dataclass
class Trained:
    """A root, and what the command said that trained its camera."""

    root: Path
    out: str
    err: str
    seconds: float

    @property
    def folder(self) -> Path:
        return self.root / "sim"


@pytest.fixture(scope="session")
def trained(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Rounds 0 to 2 of ``sim`` by the command itself; copy it before you change it."""
    root = tmp_path_factory.mktemp("trained") / "outputs"
    shutil.copytree(simulated, root)
    began = time.monotonic()
    done = run_fresh("train", root, "camera=sim", "round=2", *SMALL)
    assert done.returncode == 0, done.stderr
    return Trained(root, done.stdout, done.stderr, time.monotonic() - began)


@pytest.fixture
def root(simulated: Path, tmp_path: Path) -> Path:
    """A copy of the simulated camera."""
    return Path(shutil.copytree(simulated, tmp_path / "outputs"))


@pytest.fixture
def finished(trained: Trained, tmp_path: Path) -> Path:
    """A copy of the trained camera: its root."""
    return Path(shutil.copytree(trained.root, tmp_path / "outputs"))


@pytest.fixture(scope="session")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three simulated cameras, each with a seed of its own; copy before use."""
    from collabteam.catalog import Catalog
    from collabteam.settings import SimulationConfig
    from collabteam.simulator.source import SimulatedSource
    from collabteam.sources.crops import ingest_source

    root = tmp_path_factory.mktemp("three") / "outputs"
    for number, camera in enumerate(THREE):
        source = SimulatedSource(SimulationConfig(crops=600), number)
        ingest_source(Catalog.register(root, camera), source, lambda done, total: None)
    return root
