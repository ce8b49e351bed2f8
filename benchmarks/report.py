"""Benchmark the fleet report on many cameras: seconds, memory, page size; or take a screenshot.

    python benchmarks/report.py                              # the figures, for 193 cameras
    python benchmarks/report.py --screenshot docs/fleet.png  # a screenshot, with 5 cameras

The script draws four small simulated cameras with different seeds, trains them, labels with three
and audits two. These four and an untrained camera are copied in turn. The time grows with the size
of a camera's catalog, which ``--crops`` sets.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
TEAM = (
    "experiment=scratch", "reviewer=oracle", "team.backbone=test_resnet", "data.image_size=24",
    "optim.epochs=12", "optim.epochs_later=3", "seed_per_class=120", "seed_unknown=20",
    "increment_per_class=20", "quantile=0.5", "trainer.threads=1", "logger=none", "round=3",
)  # fmt: skip


def run(name: str, *settings: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"collabteam.{name}", *settings], capture_output=True, text=True
    )
    # An audit that certifies nothing ends with 1.
    if done.returncode not in (0, 1):
        sys.exit(done.stderr)


def models(root: Path, crops: int) -> list[Path]:
    """Create cameras in every state, from certified to untrained."""
    for number, stage in enumerate(("audit", "audit", "label", "train", "")):
        camera = (f"root={root}", f"camera=model{number}")
        drift = f"drift={0.2 * number:.1f}"
        run("simulate", *camera, f"crops={crops}", f"seed={number}", drift)
        if stage:
            run("train", *camera, *TEAM, f"seed={number}")
        if stage in ("label", "audit"):
            run("label", *camera, "trainer.threads=1")
        if stage == "audit":
            run("audit", *camera, "reviewer=oracle", f"precision={0.8 - 0.1 * number:.1f}")
        print(f"{camera[1]}: {stage or 'nothing'} done", flush=True)
    return sorted(root.iterdir())


def copy(model: Path, to: Path) -> None:
    """Copy a camera under another name; only files with the camera's name are rewritten."""
    shutil.copytree(model, to, copy_function=os.link)
    manifest = (
        (model / "camera.yaml").read_text().replace(f"name: {model.name}", f"name: {to.name}")
    )
    (to / "camera.yaml").unlink()
    (to / "camera.yaml").write_text(manifest)


def measured(root: Path, page: Path) -> tuple[float, float]:
    """Run the command; return its seconds from start to end, and its peak memory in MiB."""
    settings = (f"root={root}", "camera=glob(*)", "format=html", f"to={page}")
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "collabteam.report", *settings])
    _, status, used = os.wait4(child.pid, 0)
    if status:
        sys.exit("the report failed")
    return time.perf_counter() - began, used.ru_maxrss / 1024


def in_browser(page: Path, screenshot: str) -> float:
    """Open the page in a browser and return the seconds until it is rendered."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        tab = chromium.new_page(viewport={"width": 1366, "height": 1100})
        began = time.perf_counter()
        tab.goto(page.as_uri())
        tab.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
        took = time.perf_counter() - began
        if screenshot:
            tab.screenshot(path=screenshot)
            with Image.open(screenshot) as picture:
                picture.quantize(128, Image.Quantize.MAXCOVERAGE).save(screenshot, optimize=True)
        chromium.close()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cameras", type=int, default=0, help="193, or 5 for a screenshot")
    parser.add_argument("--crops", type=int, default=1500)
    parser.add_argument("--screenshot", default="")
    args = parser.parse_args()
    count = args.cameras or (5 if args.screenshot else 193)
    with tempfile.TemporaryDirectory() as base:
        made = models(Path(base) / "models", args.crops)
        root, page = Path(base) / "outputs", Path(base) / "report.html"
        root.mkdir()
        for number in range(count):
            copy(made[number % len(made)], root / f"S10-{number + 1:02d}")
        took, memory = measured(root, page)
        print(
            f"{count} cameras of {args.crops} crops: {took:.1f} s, peak memory {memory:.0f} MiB, a "
            f"page of {page.stat().st_size / 1e6:.1f} MB that is rendered in the browser after "
            f"{in_browser(page, args.screenshot):.1f} s"
        )


if __name__ == "__main__":
    main()
