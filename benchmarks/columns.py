"""Benchmark text columns in memory: ours (`collabteam/catalog/texts.py`), pyarrow's and polars'.

    python benchmarks/columns.py [--crops 3500000] [--events 7000000] [--turns 3]

The steps are those of the catalog's index: collect a column of the log batch by batch, find the
rows with one text or one of several, select the text of one event per crop, and read some rows as
Python strings; collect the crop ids, and look up ids among them. pyarrow stores such columns as
dictionary arrays (``dictionary_encode``, 32-bit codes) and looks up ids with ``index_in``; polars
stores them as ``Categorical`` or ``String`` and looks up ids with a join. polars is skipped if it
is not installed.

Every step of every library runs in its own process. A figure is the median of the turns; the time
starts after the imports and the creation of the data. ``held`` is the size of the result as the
library reports it; ``peak`` is the most memory that the step used in addition to the data.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys

import numpy as np

DATA = """
import gc, json, resource, sys, time
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
crops, events = int(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(0)
BATCH = 65_536
def batches(kind):
    '''The column as the log's reader gives it.'''
    texts = {
        "label": ["", "cyclist", "motorcyclist", "pedestrian"],
        "commit": [f"page-{n:06d}" for n in range(1000)],
    }[kind]
    texts = pa.array(texts)
    sizes = [min(BATCH, events - start) for start in range(0, events, BATCH)]
    return [texts.take(pa.array(rng.integers(0, len(texts), size))) for size in sizes]
def names(count, start=0):
    '''Names as random as hashes are.'''
    made = np.random.default_rng(start + 1).bytes(12 * count).hex()
    return pa.array([made[at : at + 24] for at in range(0, len(made), 24)])
def draw():
    event = np.where(rng.random(crops) < 0.9, rng.integers(0, events, crops), -1)
    return event.astype(np.int32), rng.integers(0, events, 100_000)
def crop_names():
    return [names(min(BATCH, crops - at), at) for at in range(0, crops, BATCH)]
wanted = ["cyclist", "pedestrian"]
def memory():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024 / 1e6
def reset():
    gc.collect(); pa.default_memory_pool().release_unused()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
"""

LIBRARIES = {
    "ours": """
from collabteam.catalog.texts import Encoder, Names, Numbers, NAME_WORDS, TextColumn, words_of
def collect(parts):
    encoder = Encoder()
    encoder.codes.reserve(events)
    for batch in parts:
        encoder.add(batch)
    return encoder.column()
equal = lambda column: column == "cyclist"
one_of = lambda column: column.is_any(wanted)
def of_crops(column):
    codes = np.zeros(crops, column.codes.dtype)
    has = event_of >= 0
    codes[has] = column.codes[event_of[has]]
    return TextColumn(codes, column.texts)
texts = lambda column: column[some]
def size(result):
    if isinstance(result, Names):
        parts = [result.texts, result.codes, result._rows, result._begin, result._hashes]
        return sum(part.nbytes for part in parts)
    return result.codes.nbytes + result.texts.nbytes
def keep(parts):
    words = Numbers(np.uint64, NAME_WORDS)
    words.reserve(crops)
    for part in parts:
        words.add(words_of(part))
    return Names(words.all())
find = lambda kept, asked: kept.find(asked)
""",
    "pyarrow": """
def collect(parts):
    parts = [batch.dictionary_encode() for batch in parts]
    return pa.chunked_array(parts).unify_dictionaries().combine_chunks()
equal = lambda column: pc.equal(column, "cyclist").to_numpy(zero_copy_only=False)
one_of = lambda column: pc.is_in(column, value_set=pa.array(wanted)).to_numpy(zero_copy_only=False)
of_crops = lambda column: column.take(pa.array(event_of, mask=event_of < 0))
texts = lambda column: column.take(pa.array(some)).to_numpy(zero_copy_only=False)
size = lambda result: result.nbytes
keep = lambda parts: pa.chunked_array(list(parts)).combine_chunks()
find = lambda kept, asked: pc.index_in(asked, value_set=kept).to_numpy(zero_copy_only=False)
""",
    "polars": """
import polars as pl
def collect(parts):
    made = [pl.from_arrow(batch).cast(pl.Categorical) for batch in parts]
    return pl.concat(made, rechunk=True)
equal = lambda column: (column == "cyclist").to_numpy()
one_of = lambda column: column.is_in(wanted).to_numpy()
def of_crops(column):
    event = pl.Series(event_of)
    return column.gather(event.set(event < 0, None))
texts = lambda column: column.gather(some).cast(pl.String).to_numpy()
size = lambda result: result.estimated_size()
def keep(parts):
    name = pl.concat([pl.from_arrow(part) for part in parts], rechunk=True)
    return pl.DataFrame({"name": name}).with_row_index("row")
def find(kept, asked):
    asked = pl.DataFrame({"name": pl.from_arrow(asked)})
    return asked.join(kept, on="name", how="left", maintain_order="left")["row"].to_numpy()
""",
}
"""The same steps, by library."""

STEPS = {
    "collect labels": ('parts = batches("label")', "collect(parts)"),
    "collect commits": ('parts = batches("commit")', "collect(parts)"),
    "where one text": ('column = collect(batches("label"))', "equal(column)"),
    "where one of two": ('column = collect(batches("label"))', "one_of(column)"),
    "of each crop": ('column = collect(batches("label"))', "of_crops(column)"),
    "read 100,000": ('column = collect(batches("label"))', "texts(column)"),
    "collect names": ("parts = crop_names()", "keep(parts)"),
    "find 1,000": ("kept, asked = keep(crop_names()), names(1000)", "find(kept, asked)"),
    "find 10 x 100,000": (
        "kept, asked = keep(crop_names()), crop_names()[0];"
        "asked = asked.take(pa.array(some % len(asked)))",
        "[find(kept, asked) for _ in range(10)]",
    ),
}
"""For each step, the setup code and the timed code."""

RUN = """
def turn():
    global event_of, some
    event_of, some = draw()
    {prepare}
    reset()
    before, began = memory(), time.perf_counter()
    result = {step}
    seconds, most = time.perf_counter() - began, peak()
    held = 0 if isinstance(result, (np.ndarray, list)) else size(result) / 1e6
    return seconds, held, most - before
asked_for, crops, events = (crops, events), 100, 100
turn()  # what is imported or compiled at the first call
crops, events = asked_for
print(json.dumps(turn()))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--crops", type=int, default=3_500_000)
    parser.add_argument("--events", type=int, default=7_000_000)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    libraries = [n for n in LIBRARIES if n == "ours" or importlib.util.find_spec(n)]
    print(f"{given.crops:,} crops, {given.events:,} events; ms, MB held, MB at the peak")
    print(f"{'':18}" + "".join(f"{name:>28}" for name in libraries))
    for name, (prepare, step) in STEPS.items():
        line = f"{name:18}"
        for library in libraries:
            turns = [
                measure_step(library, prepare, step, given.crops, given.events)
                for _ in range(given.turns)
            ]
            seconds, held, most = np.median(turns, axis=0)
            line += f"{1e3 * seconds:12.1f} {held:7.0f} {most:7.0f}"
        print(line, flush=True)


def measure_step(library: str, prepare: str, step: str, crops: int, events: int) -> list[float]:
    """Run one step in a new process; return seconds, MB held and peak MB."""
    script = DATA + LIBRARIES[library] + RUN.format(prepare=prepare, step=step)
    done = subprocess.run(
        [sys.executable, "-c", script, str(crops), str(events)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{library}, {step}: {done.stderr}")
    found: list[float] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
