"""What a launcher leaves behind when it ends, and what it says where it cannot start."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import (
    SMALL,
    command,
    environment,
    one_line,
)
from sweeping import row, start_sweep, sweep, until_training

from collabteam.catalog import Catalog
from collabteam.storage.workspace import CameraInUse


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_long_jobs_end_with_their_driver(root: Path, launcher: str) -> None:
    """Within seconds, and not when their minutes of work are done."""
    process = start_sweep(
        root, "camera=sim", "round=0", *SMALL, "optim.epochs=2000", f"hydra/launcher={launcher}"
    )
    until_training(root, process)
    process.kill()
    process.wait()
    end = time.monotonic() + 10
    while True:
        try:
            with Catalog.open(root, "sim").workspace.transaction("test"):
                return
        except CameraInUse:
            assert time.monotonic() < end, "its job goes on alone"
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local", "ray"])
def test_sigterm_to_the_driver_alone(root: Path, launcher: str) -> None:
    """It ends the workers, the idle one too, and the table says what is done."""
    Catalog.register(root, "bare", ["car", "ship"])
    process = subprocess.Popen(
        command("train", f"root={root}", "-m", "camera=bare,sim", "round=0", *SMALL,
                "optim.epochs=5000", f"hydra/launcher={launcher}", "runtime.jobs=2"),
        cwd=root.parent, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    until_training(root, process)
    while not list(root.glob(".sweeps/*/0.outcome")):
        time.sleep(0.1)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers or launcher == "basic"
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "Traceback" not in err
    assert "bare has no crops" in row(out, "bare")
    assert "continues from there" in row(out, "sim")
    assert "train: 0 done, 0 skipped, 2 failed; run the same command again" in out
    assert err.splitlines()[-1].startswith("train: ended by SIGTERM")
    left = psutil.wait_procs(workers, timeout=10)[1]
    assert not left, [one.cmdline() for one in left]


@pytest.mark.slow
def test_an_idle_worker_ends_with_a_driver_that_was_killed(root: Path) -> None:
    Catalog.register(root, "bare", ["car", "ship"])
    process = start_sweep(root, "camera=bare,sim", "round=0", *SMALL, "optim.epochs=5000",
                     "hydra/launcher=joblib", "runtime.jobs=2")  # fmt: skip
    until_training(root, process)
    while not list(root.glob(".sweeps/*/0.outcome")):
        time.sleep(0.1)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert not psutil.wait_procs(workers, timeout=15)[1]


# --- what cannot start --------------------------------------------------------------------------

NOT_INSTALLED = """
import runpy, sys
sys.modules[sys.argv[1]] = None
sys.argv = ["collabteam.train", *sys.argv[2:]]
runpy.run_module("collabteam.train", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("package", "launcher", "extra"),
    [("ray", "ray", "ray"), ("joblib", "joblib", "joblib"),
     ("submitit", "submitit_slurm", "submitit")],
)  # fmt: skip
def test_a_launcher_that_is_not_installed(
    root: Path, package: str, launcher: str, extra: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NOT_INSTALLED, package, "-m", f"root={root}", "camera=sim",
         "round=0", f"hydra/launcher={launcher}", *SMALL],
        cwd=root.parent, env=environment(), capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"pip install 'collabteam[{extra}]'" in row(done.stdout, "sim")
    assert "Traceback" not in done.stderr


def test_a_cluster_that_does_not_answer(root: Path) -> None:
    done = sweep(
        root, "camera=sim", "round=0", *SMALL, "hydra/launcher=ray",
        "hydra.launcher.ray.init.address=127.0.0.1:1",
    )  # fmt: skip
    assert done.returncode == 1
    assert "no Ray cluster answers at 127.0.0.1:1" in row(done.stdout, "sim")


@pytest.mark.slow
def test_a_cluster_that_was_there_before(root: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cluster = subprocess.Popen(
        [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block",
         f"--port={port}", "--num-cpus=2", "--include-dashboard=false"],
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(120):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        done = sweep(
            root, "camera=sim", "round=0", *SMALL, "optim.epochs=1", "hydra/launcher=ray",
            f"hydra.launcher.ray.init.address=127.0.0.1:{port}",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert cluster.poll() is None  # and it is left running
    finally:
        cluster.terminate()
        cluster.wait(60)


def test_the_same_sweep_twice_at_once(root: Path) -> None:
    settings = ("camera=sim", "round=0", *SMALL, "optim.epochs=5000")
    first = start_sweep(root, *settings)
    try:
        until_training(root, first)
        one_line(sweep(root, *settings), "this sweep is already running", "'train'")
    finally:
        first.kill()
        first.wait()
