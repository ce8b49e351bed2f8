"""What the tests of sweeps share: a sweep, its table, and the moment when it trains."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from conftest import command, environment, read_json
from conftest import run as run_alone


def sweep(root: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    return run_alone("train", root, "-m", *settings)


def row(out: str, camera: str) -> str:
    """The row of a camera in the table, with the lines that it goes on over."""
    lines = out.splitlines()
    start = next(n for n, line in enumerate(lines) if line.split()[:1] == [camera])
    end = next(
        n for n in range(start + 1, len(lines)) if not lines[n].strip() or lines[n][2:3] != " "
    )
    return " ".join(" ".join(lines[start:end]).split())


def start_sweep(root: Path, *settings: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command("train", f"root={root}", "-m", *settings),
        cwd=root.parent, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def until_training(root: Path, process: subprocess.Popen[bytes]) -> int:
    """Wait until some camera has its first fold; the process that works on it."""
    # A cluster of Ray that starts beside other work takes minutes.
    end = time.monotonic() + 300
    while time.monotonic() < end:
        assert process.poll() is None, "over before it could be killed"
        for file in root.glob("*/round-0/folds.json"):
            holder = read_json(file.parents[1] / "lock")
            return int(holder["pid"])
        time.sleep(0.02)
    raise AssertionError("nothing was trained")
