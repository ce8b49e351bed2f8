"""Benchmark 3,000 verifications in a browser: pages per second, latency, memory; or a screenshot.

    python benchmarks/review.py                          # the figures
    python benchmarks/review.py --screenshot docs/review.png

The script draws a simulated camera, starts ``python -m collabteam.review`` on it and controls the
page in headless Chromium by keyboard. It makes two marks on every page and presses Enter as soon as
the page accepts it; a person also needs time to look.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from collabteam.catalog import Catalog

REPOSITORY = Path(__file__).parents[1]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


def command(name: str, *settings: str) -> list[str]:
    return [sys.executable, "-m", f"collabteam.{name}", *settings]


def ready(page: Page) -> None:
    page.locator('html[data-next="ready"], html[data-next="none"]').wait_for(state="attached")


def memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]


def verify(page: Page, pid: int, folder: Path) -> None:
    crops, pages, blocked = 0, 0, []
    began = time.perf_counter()
    first, memory = memory_mb(pid), []
    while page.locator("[data-testid=done]").count() == 0:
        ready(page)
        crops += page.locator("[data-testid=cell]:visible").count()
        pages += 1
        at = page.locator("html").get_attribute("data-page")
        page.keyboard.press("Home")
        page.keyboard.press("2")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("0")
        page.wait_for_timeout(200)  # the page ignores an earlier Enter as a key bounce
        pressed = time.perf_counter()
        page.keyboard.press("Enter")
        page.locator(f'html:not([data-page="{at}"])').wait_for(state="attached")
        blocked.append((time.perf_counter() - pressed) * 1e3)
        memory.append(memory_mb(pid))
    took = time.perf_counter() - began
    page.locator("[data-testid=unsent]").wait_for(state="hidden")
    shown = page.evaluate(
        "performance.getEntriesByName('enter-to-grid').map(entry => entry.duration)"
    )
    calls = page.evaluate(
        "performance.getEntriesByType('resource')"
        ".filter(entry => entry.name.endsWith('/api/commit')).map(entry => entry.duration)"
    )
    heap = page.evaluate("performance.memory.usedJSHeapSize") / 2**20
    stored = int((Catalog(folder).index().human != "").sum())
    print(f"{crops} crops shown, {stored} verified in the log, {pages} pages, {took:.1f} s")
    print(f"{pages / took:.2f} pages/s, {crops / took:.0f} crops/s, marks and pauses included")
    for name, values in (
        ("Enter to the next grid, in the page", shown),
        ("the same, seen by the driver", blocked),
        ("commit, request to answer", calls),
    ):
        ordered = sorted(values)
        p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
        print(f"{name}: median {statistics.median(ordered):.0f} ms, p99 {p99:.0f} ms")
    print(
        f"server {first:.0f} MB at first, {max(memory):.0f} MB at most; page's heap {heap:.1f} MB"
    )


def screenshot(page: Page, to: Path) -> None:
    ready(page)
    page.keyboard.press("Home")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("2")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("0")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    page.screenshot(path=to)
    print(f"wrote {to}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crops", type=int, default=3000, help="crops to verify, of three classes")
    parser.add_argument("--screenshot", type=Path, help="write a screenshot of the page instead")
    parser.add_argument("--dark", action="store_true", help="screenshot of the dark theme")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("needs Chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        root = f"root={folder}/outputs"
        crops = 600 if arguments.screenshot else arguments.crops * 4
        subprocess.run(
            command("simulate", root, "camera=S10-08", f"crops={crops}"), cwd=REPOSITORY,
            check=True, capture_output=True,
        )  # fmt: skip
        per_class = 100 if arguments.screenshot else arguments.crops // 3
        server = subprocess.Popen(
            command("review", root, "camera=S10-08", "reviewer=ana", "open=false", "port=0",
                    f"seed_per_class={per_class}"),
            cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            server.stdout.readline()
            address = server.stdout.readline().strip()
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
                page = browser.new_page(
                    viewport={"width": 1366, "height": 768},
                    color_scheme="dark" if arguments.dark else "light",
                )
                page.goto(address)
                page.locator("[data-testid=cell]").first.wait_for()
                page.evaluate("performance.setResourceTimingBufferSize(100000)")
                if arguments.screenshot:
                    screenshot(page, arguments.screenshot)
                else:
                    verify(page, server.pid, Path(folder) / "outputs" / "S10-08")
                browser.close()
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
