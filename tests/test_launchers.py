"""A sweep gives what its cameras give alone, on every launcher, and after kills."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from conftest import (
    SMALL,
    THREE,
    fingerprints,
    run,
    run_fresh,
)
from sweeping import row, start_sweep, sweep, until_training

from collabteam.catalog import Catalog

ROUND = ("round=1", *SMALL, "optim.epochs=4", "optim.epochs_later=1", "quantile=0.25")
"""A round that draws increments of every camera, in half the time."""


def increments(root: Path, camera: str) -> dict[str, tuple[int, str]]:
    """What the team of the round before called the crops that joined."""
    index = Catalog.open(root, camera).index()
    drawn = index.increment_round >= 0
    return {
        str(name): (int(number), str(label))
        for name, number, label in zip(
            index.crop_id[drawn],
            index.increment_round[drawn],
            index.increment_label[drawn],
            strict=True,
        )
    }


@pytest.fixture(scope="session")
def one_at_a_time(
    three: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, tuple[int, str]]]:
    """The increments of each camera, trained alone by the sweep's own command without ``-m``."""
    root = tmp_path_factory.mktemp("alone") / "outputs"
    for camera in THREE:
        shutil.copytree(three / camera, root / camera)
        done = run("train", root, f"camera={camera}", *ROUND)
        assert done.returncode == 0, done.stderr
    found = {camera: increments(root, camera) for camera in THREE}
    assert all(found.values())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local", "ray"])
def test_cameras_as_one_at_a_time(
    three: Path,
    one_at_a_time: dict[str, dict[str, tuple[int, str]]],
    tmp_path: Path,
    launcher: str,
) -> None:
    root = tmp_path / "outputs"
    for camera in THREE:
        shutil.copytree(three / camera, root / camera)
    settings = ("camera=glob(*)", *ROUND, f"hydra/launcher={launcher}", "runtime.jobs=2")
    done = run_fresh("train", root, "-m", *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert {camera: increments(root, camera) for camera in THREE} == one_at_a_time
    for camera in THREE:
        assert f"{camera} done" in row(done.stdout, camera)
        assert f"{camera}: " in done.stderr  # its line while it ran
    assert "train: 3 done, 0 skipped, 0 failed" in done.stdout
    # Nothing by date, and nothing beside the cameras but the sweep's own folder.
    assert {path.name for path in root.iterdir()} == {*THREE, ".sweeps"}
    assert len(list((root / ".sweeps").glob("train-*"))) == 1
    before = {camera: fingerprints(root / camera) for camera in THREE}
    if launcher != "ray":
        again = sweep(root, *settings)
        assert "train: 0 done, 3 skipped, 0 failed" in again.stdout
        assert {camera: fingerprints(root / camera) for camera in THREE} == before
        assert len(list((root / ".sweeps").glob("train-*"))) == 1


# --- what is killed ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_the_driver_is_killed(
    three: Path,
    one_at_a_time: dict[str, dict[str, tuple[int, str]]],
    tmp_path: Path,
    launcher: str,
) -> None:
    root = Path(shutil.copytree(three, tmp_path / "outputs"))
    settings = ("camera=east,gate", *ROUND, f"hydra/launcher={launcher}", "runtime.jobs=2")
    process = start_sweep(root, *settings)
    until_training(root, process)
    process.kill()
    process.wait()
    done = sweep(root, *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    for camera in ("east", "gate"):
        assert increments(root, camera) == one_at_a_time[camera]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_a_worker_is_killed(
    three: Path,
    one_at_a_time: dict[str, dict[str, tuple[int, str]]],
    tmp_path: Path,
    launcher: str,
) -> None:
    """Its launcher starts it again, or the sweep does; the other camera is unharmed."""
    root = Path(shutil.copytree(three, tmp_path / "outputs"))
    settings = ("camera=east,gate", *ROUND, f"hydra/launcher={launcher}", "runtime.jobs=2")
    process = start_sweep(root, *settings)
    worker = until_training(root, process)
    assert worker != process.pid
    os.kill(worker, signal.SIGKILL)
    assert process.wait(240) == 0
    for camera in ("east", "gate"):
        assert increments(root, camera) == one_at_a_time[camera]
