"""Benchmark the catalog at fleet size: 3.5 million crops of one camera, or of 193.

    python benchmarks/catalog.py FOLDER                        # one camera with all of them
    python benchmarks/catalog.py FOLDER --cameras 193          # the paper's fleet
    python benchmarks/catalog.py FOLDER --against CHECKOUT     # beside another version's catalog

The catalogs are created in FOLDER (about 5 GB) and grow from one size to the next. Each size is
measured as it grew, and the last one also after `collabteam.compact`. Pictures are real JPEGs of
about 700 bytes and crop ids are random like hashes. Videos of an hour, tracks of three crops,
frames, times and boxes are like those of footage. The log has a proposal and a prediction of every
crop (a tenth of them "I don't know"), 4,000 verified crops, 600 test crops, and five increments of
3,000.

Each measurement runs in its own process, so its peak memory is not affected by the others. The time
starts after the imports, whose memory is in the first line. The file cache is warm.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

CLASSES = ["cyclist", "motorcyclist", "pedestrian"]
FLEET = 193
COMMIT = 4096
PER_VIDEO = 600
"""Crops per video of one hour."""
BEGAN = 1_700_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="an empty or new folder")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000, 3_500_000])
    parser.add_argument("--cameras", type=int, default=1, help="number of cameras at the last size")
    parser.add_argument("--against", type=Path, help="another checkout of collabteam")
    arguments = parser.parse_args()
    here = Path(__file__).parents[1]
    trees = {"here": here} | ({"against": arguments.against} if arguments.against else {})
    root = arguments.folder / f"{arguments.cameras}-cameras"
    for size in arguments.sizes:
        cameras = max(1, round(arguments.cameras * size / arguments.sizes[-1]))
        began = time.monotonic()
        for number in range(cameras):
            grow(root, number, size // cameras + (number < size % cameras))
        print(f"\n{size:,} crops, {cameras} cameras; made in {time.monotonic() - began:.0f} s")
        report(root, trees, size)
    command = [sys.executable, "-m", "collabteam.compact", "-m", "camera=glob(*)", f"root={root}"]
    began = time.monotonic()
    subprocess.run(command, env=environment(here), check=True, capture_output=True)
    print(f"\npython -m collabteam.compact took {time.monotonic() - began:.0f} s; after it:")
    report(root, trees, arguments.sizes[-1])


# --- a catalog ---------------------------------------------------------------------------------


def grow(root: Path, number: int, size: int) -> None:
    """Grow a camera to a size, with commits like those of `ingest`."""
    from collabteam.catalog import Catalog
    from collabteam.catalog.records import CROP_SCHEMA
    from collabteam.storage.tables import Table

    catalog = Catalog.register(root, f"C{number:03d}", CLASSES)
    table = Table(catalog.folder / "crops.lance")
    first = len(table)
    rng = np.random.default_rng([number, first])
    pictures = jpegs()
    for start in range(first, size, COMMIT):
        row = np.arange(start, min(start + COMMIT, size))
        names = rng.bytes(12 * len(row)).hex()
        ids = [names[at : at + 24] for at in range(0, len(names), 24)]
        left = rng.integers(0, 1800, (len(row), 2)) + 0.5
        side = rng.integers(32, 120, (len(row), 2)).astype(float)
        columns = {
            "crop_id": ids,
            # JPEG readers ignore the appended number, which makes the contents distinct.
            "image": [pictures[n % len(pictures)] + b"%08d" % n for n in row.tolist()],
            "video": [f"C{number:03d}_{n // PER_VIDEO:06d}.mp4" for n in row.tolist()],
            "track": [str(n % PER_VIDEO // 3) for n in row.tolist()],
            "frame": row % PER_VIDEO * 150,
            "time": BEGAN + row * 6.0,
            "box": np.hstack([left, side]).tolist(),
        }
        table.append(pa.table(columns, schema=CROP_SCHEMA))
        for events in votes(ids, rng):
            Table(catalog.folder / "labels.lance").append_few(events)
    if first == 0:
        add_answers(catalog, rng)


def votes(ids: list[str], rng: np.random.Generator) -> Iterator[pa.Table]:
    """Append a detector's proposals and a team's predictions of crops, one commit each."""
    label = np.array(CLASSES, dtype=object)[rng.choice(3, len(ids), p=[0.2, 0.1, 0.7])]
    yield events(ids, label, "detector", "proposal")
    unsure = rng.random(len(ids)) < 0.1
    yield events(ids, np.where(unsure, "", label), "team", "verdict", 5, rng.random(len(ids)))


def add_answers(catalog: object, rng: np.random.Generator) -> None:
    """Append the verified crops, the test set and five increments, from the first crops."""
    from collabteam.storage.tables import Table

    folder: Path = catalog.folder  # type: ignore[attr-defined]
    ids = Table(folder / "crops.lance").read(["crop_id"])["crop_id"].to_pylist()
    ids = [ids[at] for at in rng.permutation(len(ids))]
    parts = [("person", "seed", -1, 4000), ("person", "test", -1, 600)]
    parts += [("team", "increment", k, 3000) for k in range(1, 6)]
    for source, purpose, around, count in parts:
        some, ids = ids[:count], ids[count:]
        label = np.array(CLASSES, dtype=object)[rng.integers(0, 3, len(some))]
        rows = events(some, label, source, purpose, around, rng.random(len(some)))
        Table(folder / "labels.lance").append_few(rows)


def events(
    ids: list[str], label: np.ndarray, source: str, purpose: str, around: int = -1,
    confidence: np.ndarray | float = np.nan,
) -> pa.Table:  # fmt: skip
    from collabteam.catalog.records import LABEL_SCHEMA

    count = len(ids)
    columns = {
        "crop_id": ids, "label": label, "source": [source] * count, "purpose": [purpose] * count,
        "round": [around] * count, "confidence": np.broadcast_to(confidence, count),
        "by": ["" if source == "detector" else "3f9a0c5e11d2"] * count,
        "time": [time.time()] * count, "commit": ["" if source == "detector" else "a1b2c3"] * count,
    }  # fmt: skip
    return pa.table(columns, schema=LABEL_SCHEMA)


def jpegs() -> list[bytes]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(64):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(file, "jpeg")
        found.append(file.getvalue())
    return found


# --- measurements ------------------------------------------------------------------------------

MEASURES = {
    "imports": "pass",
    "open": "catalogs = [Catalog.open(root, name) for name in names]",
    "index": "sizes = [len(Catalog.open(root, name).index()) for name in names]",
    "draw i0": """
catalog = Catalog.open(root, names[0])
catalog.workspace.round(0).sample.unlink(missing_ok=True)
clock()
config = TrainConfig(seed_per_class=1000, seed_unknown=250)
Runner(Listener()).run(DrawSample(catalog, config))
""",
    "append": """
catalog = Catalog.open(root, names[0])
clock()
catalog.append_labels(events)
""",
    "append, index read": """
catalog = Catalog.open(root, names[0])
catalog.index()
clock()
catalog.append_labels(events)
""",
    "add crops": """
catalog = Catalog.open(root, names[0])
clock()
catalog.add_crops(crops)
""",
    "index again": """
catalog = Catalog.open(root, names[0])
catalog.index()
catalog.append_labels(events)
clock()
catalog.index()
""",
    "scan": """
catalog = Catalog.open(root, names[0])
for start in range(0, len(catalog), 4096):
    catalog.images(range(start, min(start + 4096, len(catalog))))
""",
}
"""The code of each measurement, by name; ``clock()`` restarts the time."""

SCRIPT = """
import json, os, sys, time
from collabteam.events import Listener
from collabteam.catalog import Catalog, Crop, LabelEvent
from collabteam.settings import TrainConfig
from collabteam.rounds.initial import sample_file
from collabteam.rounds.stages.sample import DrawSample
from collabteam.stages import Runner

root = sys.argv[1]
names = sorted(name for name in os.listdir(root) if name[0] == "C")
ids = json.loads(sys.stdin.read())
events = [LabelEvent(name, "pedestrian", "person", "seed", by="ana") for name in ids]
stamp = os.urandom(8)
crops = [Crop(stamp + b"%d" % n * 80, "new.mp4", str(n)) for n in range(4096)]
began = [0.0, 0.0]
def clock():
    began[:] = time.perf_counter(), time.process_time()
clock()
{measure}
seconds, spent = time.perf_counter() - began[0], time.process_time() - began[1]
status = open("/proc/self/status").read()
print(json.dumps([seconds, spent, int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6]))
"""


def environment(tree: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(tree.resolve()), "OMP_NUM_THREADS": "1"}


def report(root: Path, trees: dict[str, Path], size: int) -> None:
    """Print each measurement for each version; the versions take turns."""
    from collabteam.catalog import Catalog

    folder = min(root.glob("C*"))
    ids = json.dumps(Catalog(folder)._crops.take(range(1000), ["crop_id"])["crop_id"].to_pylist())
    for name, measure in MEASURES.items():
        line = f"{name:18}"
        for label, tree in trees.items():
            found = [measured(root, tree, measure, ids)]
            while len(found) < 3 and sum(one[0] for one in found) < 3:
                found.append(measured(root, tree, measure, ids))
            seconds, spent, peak = np.median(found, axis=0)
            line += f"  {label}: {seconds:7.3f} s, {spent:7.3f} s of a core, {peak:5.0f} MB"
        print(line, flush=True)
    for part in ("", *sorted(path.name for path in folder.glob("*.lance"))):
        files = [file for file in root.glob(f"*/{part}/**/*") if file.is_file()]
        total = sum(file.stat().st_size for file in files)
        versions = sum(file.suffix == ".manifest" for file in files)
        print(
            f"{part or 'all':18}  {len(files)} files, {versions} of them versions, "
            f"{total / 1e6:,.0f} MB, {total / size:.0f} bytes a crop"
        )


def measured(root: Path, tree: Path, measure: str, ids: str) -> list[float]:
    """Run one measurement in a new process; return seconds, CPU seconds and peak MB."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("{measure}", measure), str(root)],
        env=environment(tree), cwd=root, input=ids, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    found: list[float] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
