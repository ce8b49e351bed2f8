"""Cameras of other users, and processes without a home folder or a name in the user table."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SMALL, Trained, environment

from collabteam.catalog import Catalog
from collabteam.errors import UserError, file_error
from collabteam.monitoring.facts import camera_facts
from collabteam.monitoring.progress import progress
from collabteam.storage.roots import cache_folder

AS_NOBODY = """
import importlib, os, shutil, sys
from pathlib import Path
warm, mine, uid, *lines = sys.argv[1:]
def run(words):
    name, *settings = words.split()
    sys.argv = [name, *settings]
    from hydra.core.config_store import ConfigStore
    ConfigStore.instance().repo.pop("camera", None)
    try:
        importlib.import_module(f"collabteam.{name}").main()
    except SystemExit as ended:
        return ended.code or 0
# What is imported may lie where only root may read.
for line in lines:
    run(line.replace("{}", warm))
shutil.rmtree(warm)
os.setgroups([])
os.setgid(int(uid))
os.setuid(int(uid))
for name in ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME"):
    os.environ.pop(name, None)
for line in lines:
    print("\\n@@", flush=True)
    code = run(line.replace("{}", mine))
    sys.stderr.flush()
    print("@@", code, flush=True)
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
UID = 61_234


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may enter; those of pytest are private."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def _as_nobody(folder: Path, warm: Path, *lines: str) -> list[tuple[int, str]]:
    """Exit code and output of commands by a user without name and home.

    Args:
        folder: ``{}`` in the lines.
        warm: A copy of it, on which root runs the same lines before.
        lines: Command and settings.
    """
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(warm), str(folder), str(UID), *lines],
        env=environment(), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    said = done.stdout.split("\n@@\n")[1:]
    assert len(said) == len(lines), done.stdout
    return [(int(text.rsplit("@@ ", 1)[1].split()[0]), text.rsplit("@@ ", 1)[0]) for text in said]


@as_root
@pytest.mark.slow
def test_a_camera_of_another_user_is_read_or_says_whose_it_is(
    trained: Trained, place: Path
) -> None:
    """Reports and exports elsewhere work; what must write names the owner and changes nothing."""
    base, warm = place / "a", place / "warm"
    base.mkdir()
    shutil.copytree(trained.root, base / "o")
    shutil.copytree(base, warm)
    (base / "out").mkdir()
    (warm / "out").mkdir()
    os.chown(base / "out", UID, UID)
    Catalog.register(base / "o", "shut", ["car", "ship"]).workspace.folder.chmod(0o700)
    lines = (
        "report root={}/o camera=sim",
        "export root={}/o camera=sim to={}/out/e",
        "report root={}/o camera=glob(*) format=html to={}/out/r.html",
        "label root={}/o camera=sim trainer.threads=1",
        "export root={}/o camera=sim to={}/o/e",
        "report root={}/o camera=shut",
        "export root={}/o camera=shut to={}/out/f",
    )
    report, export, page, label, inside, shut, shut_export = _as_nobody(base, warm, *lines)
    assert report[0] == export[0] == page[0] == 0
    whose = "belongs to user root, and this command runs as the user with number 61234"
    assert f"no files are written: {base}/o/sim {whose}" in report[1]
    assert (base / "out" / "e" / "README.md").is_file()
    assert "damaged: shut" in page[1]
    for code, text in (label, inside, shut, shut_export):
        assert code == 2, text
        assert whose in text
        assert "Traceback" not in text
        assert "move" not in text
    assert not (base / "o" / "e").exists()
    assert not (base / "o" / "sim" / "table1.csv").exists()


@as_root
@pytest.mark.slow
def test_a_process_without_home_and_name_works_on_a_local_root(
    simulated: Path, place: Path
) -> None:
    base, warm = place / "a", place / "warm"
    shutil.copytree(simulated, base / "o")
    shutil.copytree(base, warm)
    for file in (base, *base.rglob("*")):
        os.chown(file, UID, UID)
    lines = (
        f"train root={{}}/o camera=sim round=0 logger=wandb logger.mode=offline {' '.join(SMALL)}",
        "label root={}/o camera=sim trainer.threads=1",
        "report root={}/o camera=sim",
        "review root={}/o camera=sim export={}/t.csv format=csv queue=unsure reviewer=x",
        "export root={}/o camera=sim to={}/e",
        "ingest root={}/o camera=new path={}/e",
        "report root=s3://bucket/x camera=sim",
    )
    *local, store = _as_nobody(base, warm, *lines)
    for code, text in local:
        assert code == 0, text
    assert store[0] == 2
    assert "no home folder" in store[1]
    assert "Traceback" not in store[1]
    assert (base / "e").stat().st_uid == UID


def test_a_copy_of_a_store_needs_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    with pytest.raises(UserError, match=r"no home folder .* XDG_CACHE_HOME"):
        cache_folder()


def test_a_closed_folder_of_a_round_stops_no_other_camera(
    simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's round, which this one may not look into."""
    root = Path(shutil.copytree(simulated, tmp_path / "o"))
    is_file = Path.is_file

    def closed(path: Path) -> bool:
        if path.parent.name == "round-0":
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", closed)
    assert "round-0/round.json cannot be read: Permission denied" in progress(root / "sim").state
    facts = camera_facts(root, "sim", 0)
    assert "round-0/round.json cannot be read: Permission denied" in facts.problem


@as_root
def test_the_owner_may_be_nobody_in_the_user_table(tmp_path: Path) -> None:
    """And what belongs to us is not blamed on an owner."""
    refused = PermissionError(13, "Permission denied")
    (tmp_path / "k").mkdir()
    os.chown(tmp_path / "k", UID, UID)
    line = str(file_error(tmp_path / "k" / "none" / "x", refused))
    assert f"{tmp_path}/k belongs to the user with number {UID}" in line
    assert str(file_error(tmp_path / "x", refused)).endswith(
        "x cannot be written: Permission denied"
    )
