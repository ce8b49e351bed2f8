"""What a root in an object store costs, against one on disk.

    python benchmarks/store.py             # a server on loopback, 4,000 crops, about a minute

The server is moto's, in a process of its own (``tests/s3_server.py``): a Python program on the same
processors, with no network between. The ratios tell how many more steps the store takes, not how
long they take in a real one. Of each step the fastest of ``--turns`` is taken, disk and store in
turn.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np

from collabteam import Catalog
from collabteam.catalog import Crop, LabelEvent

CLASSES = ["cyclist", "pedestrian"]


def server() -> subprocess.Popen[str]:
    """The server, with a bucket, named in the environment."""
    script = Path(__file__).parents[1] / "tests" / "s3_server.py"
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    address = f"http://127.0.0.1:{int(process.stdout.readline())}"
    os.environ |= {
        "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1",
    }  # fmt: skip
    urllib.request.urlopen(urllib.request.Request(f"{address}/bucket", method="PUT"))
    return process


def said(crop_ids: list[str]) -> list[LabelEvent]:
    return [LabelEvent(crop_id, CLASSES[0], source="person") for crop_id in crop_ids]


def steps(root: str, crops: int, turn: int) -> dict[str, Callable[[], object]]:
    """What is measured, in this order, on a camera of its own."""
    rng = np.random.default_rng(0)
    pictures = [rng.bytes(4096) for _ in range(crops)]
    catalog = Catalog.register(root, f"turn-{turn}", CLASSES)
    ids: list[str] = []

    def add() -> None:
        ids.extend(crop_id for crop_id, _ in catalog.add_crops(map(Crop, pictures)))

    def one_by_one() -> None:
        for crop_id in ids[:100]:
            catalog.append_labels(said([crop_id]))

    def hold() -> None:
        with catalog.workspace.transaction("measure"):
            (catalog.folder / "label.json").write_text("{}")

    return {
        f"add {crops} crops of 4 kB": add,
        "append 1,000 labels at once": lambda: catalog.append_labels(said(ids[:1000])),
        "append 100 labels one by one": one_by_one,
        "index()": catalog.index,
        f"read {crops} pictures": lambda: catalog.images(range(crops)),
        "read 256 pictures here and there": lambda: catalog.images(
            rng.choice(crops, 256, replace=False)
        ),
        "open the camera": lambda: Catalog.open(root, catalog.name),
        "lock, one small file, let go": hold,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crops", type=int, default=4000)
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    process = server()
    try:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
            roots = {"disk": f"{folder}/outputs", "store": "s3://bucket/outputs"}
            taken: dict[str, dict[str, list[float]]] = {}
            for turn in range(asked.turns):
                for name, root in roots.items():
                    for step, do in steps(root, asked.crops, turn).items():
                        began = time.perf_counter()
                        do()
                        passed = time.perf_counter() - began
                        taken.setdefault(step, {}).setdefault(name, []).append(passed)
    finally:
        process.kill()
        process.wait()
    print(f"{'':36}{'disk, ms':>10}{'store, ms':>11}{'ratio':>8}")
    for step, of in taken.items():
        disk, store = min(of["disk"]), min(of["store"])
        print(f"{step:36}{1e3 * disk:10.1f}{1e3 * store:11.1f}{store / disk:8.1f}")


if __name__ == "__main__":
    main()
