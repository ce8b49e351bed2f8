"""Compacting: fewer files, the same content; whoever reads, writes or is killed meanwhile."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import Call, command, environment, one_line
from logs import truth_of

from collabteam.catalog import Catalog, Crop, LabelEvent
from collabteam.catalog import catalog as catalog_module
from collabteam.catalog.texts import Encoder, Names, words_of
from collabteam.catalog.truth import append_truth
from collabteam.storage import tables
from collabteam.storage.tables import Table

CLASSES = ["car", "ship"]


def grown(root: Path, name: str = "S1", crops: int = 60) -> Catalog:
    """A camera that grew by many small commits, of crops and of events."""
    catalog = Catalog.register(root, name, CLASSES)
    for number in range(0, crops, 2):
        pair = [Crop(b"%d" % n * 50, "v", str(n // 3)) for n in (number, number + 1)]
        names = [crop_id for crop_id, _ in catalog.add_crops(pair)]
        catalog.append_labels([LabelEvent(n, "car", "detector", "proposal") for n in names])
        append_truth(catalog, [(names[0], "ship")])
    return catalog


def everything(catalog: Catalog) -> str:
    """All that a camera's tables say, in their order; a text, for NaN equals nothing."""
    fresh = Catalog(catalog.workspace)
    rows = range(len(fresh))
    index = fresh.index()
    return repr((
        index.crop_id.tolist(), index.human.tolist(), index.verdict.tolist(),
        fresh.images(rows), fresh.origins(rows), fresh.log().to_pylist(), truth_of(fresh),
    ))  # fmt: skip


def files(catalog: Catalog) -> list[Path]:
    return [file for file in catalog.folder.glob("*.lance/**/*") if file.is_file()]


def test_the_command_says_what_it_saved_and_changes_nothing(tmp_path: Path, call: Call) -> None:
    root = tmp_path / "outputs"
    catalogs = [grown(root, name) for name in ("S1", "S2")]
    before = [everything(catalog) for catalog in catalogs]
    many = [len(files(catalog)) for catalog in catalogs]
    said = call("compact", "-m", f"root={root}", "camera=glob(*)")
    assert said.code == 0, said.err
    for catalog, content, count in zip(catalogs, before, many, strict=True):
        assert everything(catalog) == content
        assert len(files(catalog)) < 16 < count
        assert f"{catalog.name}: done, {count} files are now {len(files(catalog))}" in said.err
    kept = sorted(files(catalogs[0]))
    said = call("compact", f"root={root}", "camera=S1")
    assert said.code == 0
    assert f"S1: {len(kept)} files of " in said.out
    assert f" are now {len(kept)} of " in said.out
    assert sorted(files(catalogs[0])) == kept  # nothing left to do, nothing written
    one_line(call("compact", f"root={root}", "camera=S3"), "S3", "S1")


@pytest.mark.parametrize("seed", range(8))
def test_any_sizes_keep_their_order(seed: int, tmp_path: Path) -> None:
    """Lance by itself puts merged rows behind larger fragments that it leaves alone."""
    rng = random.Random(seed)
    schema = pa.schema([("x", pa.int64())])
    Table.create(tmp_path / "t.lance", schema)
    table, count = Table(tmp_path / "t.lance"), 0
    for _ in range(25):
        size = rng.choice([1, 2, 3, 5, 9, 30, 200])
        table.append(pa.table({"x": np.arange(count, count + size)}))
        count += size
        if rng.random() < 0.2:
            table.compact(rng.choice([4, 10, 50, 1000]))
            assert table.read(["x"])["x"].to_pylist() == list(range(count))
            some = rng.sample(range(count), min(count, 9))
            assert table.take(some, ["x"])["x"].to_pylist() == some
    table.compact(10_000)
    assert len(table._data.get_fragments()) == 1
    assert table.read(["x"])["x"].to_pylist() == list(range(count))


def test_a_large_commit_amid_small_ones_stays_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log of clicks, merged as it grows, around one labelling of everything."""
    monkeypatch.setattr(tables, "_MOST_FRAGMENTS", 4)
    monkeypatch.setattr(tables, "_SMALL_FRAGMENT", 10)
    catalog = Catalog.register(tmp_path, "S1", CLASSES)
    [(name, _)] = catalog.add_crops([Crop(b"x")])
    expected: list[int] = []
    for size in (1, 2, 40, 1, 1, 1, 1, 1, 25, 3, 1, 1, 1, 1, 1, 1):
        numbers = range(len(expected), len(expected) + size)
        catalog.append_labels([LabelEvent(name, "car", "person", round=n) for n in numbers])
        expected += numbers
        assert catalog.log(["round"])["round"].to_pylist() == expected
    assert len(catalog._labels._data.get_fragments()) <= 5


def test_whoever_holds_an_earlier_version_goes_on(tmp_path: Path) -> None:
    catalog = grown(tmp_path)
    readers = [Catalog(catalog.workspace) for _ in range(4)]
    index, log = catalog.index(), catalog.log()
    catalog.compact()
    assert readers[0].images([3, 59, 0]) == catalog.images([3, 59, 0])
    assert readers[1].index().crop_id.tolist() == index.crop_id.tolist()
    assert readers[2].log().drop_columns("confidence").equals(log.drop_columns("confidence"))
    assert readers[3]._labels.read(["crop_id"]).equals(log.select(["crop_id"]))
    # And adds to it, with the names that it had read before.
    name = str(index.crop_id[0])
    catalog.append_labels([LabelEvent(name, "ship", "person")])
    readers[0].append_labels([LabelEvent(name, "car", "person")])
    [(_, is_new)] = readers[1].add_crops([Crop(b"new")])
    assert is_new
    assert len(catalog.index()) == 61
    assert catalog.index().human[0] == "car"


def test_what_a_killed_commit_left_is_removed(tmp_path: Path) -> None:
    catalog = grown(tmp_path)
    content = everything(catalog)
    left = [catalog.folder / "crops.lance" / "data" / f"{'01' * 24}.lance"]
    left.append(catalog.folder / "labels.lance" / "data" / f"{'10' * 24}.lance")
    left.append(catalog.folder / "crops.lance" / "data" / ".tmpUf0iCh")
    left.append(catalog.folder / "crops.lance" / "_versions" / ".tmp_9.manifest_0b1c")
    for file in left:
        file.write_bytes(b"half a file")
    catalog.compact()
    assert not any(file.exists() for file in left)
    assert everything(catalog) == content


KILLED = """
import os, signal, sys
from pathlib import Path
from collabteam.catalog import Catalog
from collabteam.storage.tables import Table

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

merge = Table._merge
if sys.argv[2] == "merged":
    Table._merge = lambda self, rows, advance: merge(self, rows, die)
elif sys.argv[2] == "committed":
    Table._merge = lambda self, rows, advance: (merge(self, rows, advance), die())
catalog = Catalog(Path(sys.argv[1]))
print("ready", flush=True)
catalog.compact()
"""


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path: Path) -> None:
    catalog = grown(tmp_path, crops=120)
    rng = random.Random(0)
    for moment in ["merged", "committed", *["any"] * 6]:
        for n in range(4):
            [(name, _)] = catalog.add_crops([Crop(b"%d" % n, "w", moment)])
            catalog.append_labels([LabelEvent(name, "car", "person", round=n)])
        content = everything(catalog)
        before = len(files(catalog))
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(catalog.folder), moment], env=environment(),
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if moment == "any":
            time.sleep(rng.random() * 0.1)
            process.kill()
        process.wait(60)
        assert everything(catalog) == content
        if moment != "any":  # what was merged lies there in vain, and so does what it replaces
            assert process.returncode == -signal.SIGKILL
            assert len(files(catalog)) > before
    catalog.compact()
    assert everything(catalog) == content
    assert len(files(catalog)) < 16
    names = [part.data_files()[0].path for part in catalog._crops._data.get_fragments()]
    catalog._crops.refresh()
    data = (catalog.folder / "crops.lance" / "data").iterdir()
    names = [part.data_files()[0].path for part in catalog._crops._data.get_fragments()]
    assert sorted(file.name for file in data) == sorted(names)


WRITES = """
import sys
from pathlib import Path
from collabteam.catalog import Catalog, Crop, LabelEvent
catalog = Catalog(Path(sys.argv[1]))
for number in range(40):
    [(name, _)] = catalog.add_crops([Crop(b"%d" % number, sys.argv[2])])
    catalog.append_labels([LabelEvent(name, "car", "person", round=number, by=sys.argv[2])])
"""
READS = """
import sys
from pathlib import Path
from collabteam.catalog import Catalog
kept = Catalog(Path(sys.argv[1]))
while not Path(sys.argv[2]).exists():
    for catalog in (kept, Catalog(Path(sys.argv[1]))):
        index = catalog.index()
        names = index.crop_id.tolist()
        assert len(set(names)) == len(names) >= 60
        assert len(catalog.images(range(0, len(names), 3))) == -(-len(names) // 3)
        said = catalog.log(["by", "round"]).to_pylist()
        for by in "ab":
            own = [event["round"] for event in said if event["by"] == by]
            assert own == list(range(len(own))), own
"""


@pytest.mark.slow
def test_readers_and_writers_at_the_same_time(tmp_path: Path) -> None:
    catalog = grown(tmp_path)
    first = catalog.index().crop_id.tolist()
    stop = tmp_path / "stop"

    def start(code: str, *arguments: object) -> subprocess.Popen[str]:
        texts = [sys.executable, "-c", code, str(catalog.folder), *map(str, arguments)]
        return subprocess.Popen(texts, env=environment(), stderr=subprocess.PIPE, text=True)

    writers, reader = [start(WRITES, by) for by in "ab"], start(READS, stop)
    rounds = 0
    while any(writer.poll() is None for writer in writers):
        catalog.compact()
        rounds += 1
        time.sleep(0.02)
    stop.touch()
    for process in (*writers, reader):
        assert process.wait(60) == 0, process.stderr and process.stderr.read()
    assert rounds > 3
    index = Catalog(catalog.workspace).index()
    assert index.crop_id[:60].tolist() == first
    assert len(index) == 140
    assert (index.human != "").sum() == 80


def test_the_command_may_be_repeated_after_a_kill(tmp_path: Path) -> None:
    catalog = grown(tmp_path / "outputs", crops=20)
    content = everything(catalog)
    process = subprocess.Popen(
        command("compact", f"root={tmp_path / 'outputs'}", "camera=S1"),
        cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = subprocess.run(
        command("compact", f"root={tmp_path / 'outputs'}", "camera=S1"),
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert everything(catalog) == content


# --- names -----------------------------------------------------------------------------------


def test_names_are_found_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where all hashes are alike."""
    rng = random.Random(1)
    every = [f"{rng.getrandbits(96):024x}" for _ in range(3000)]
    here, elsewhere = every[:2000], every[2000:]
    asked = [*elsewhere[:500], *here[::-1], "", "short", elsewhere[-1][:23] + "ü"]
    expected = [*[-1] * 500, *range(1999, -1, -1), -1, -1, -1]
    for names in (here, here[:1], []):
        found = Names(words_of(pa.array(names, pa.string()))).find(asked)
        assert found.tolist() == [row if row < len(names) else -1 for row in expected]
    twice = Names(words_of(pa.array([*here[:9], *here[:9]])))
    assert twice.find(here[:9]).tolist() == list(range(9))
    monkeypatch.setattr("collabteam.catalog.texts._MIX", np.zeros(3, dtype=np.uint64))
    alike = Names(words_of(pa.array(here[:40])))
    assert alike.find([elsewhere[0], *here[:40]]).tolist() == [-1, *range(40)]
    with pytest.raises(ValueError, match="24 bytes"):
        words_of(pa.array(["short"]))


def test_new_crops_are_known_before_they_are_sorted_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_module, "BATCH_CROPS", 5)
    monkeypatch.setattr("collabteam.catalog.index._FEW_CROPS", 12)
    catalog = Catalog.register(tmp_path, "S1", CLASSES)
    crops = [Crop(b"%d" % number) for number in range(60)]
    for number in range(0, 60, 10):
        added = catalog.add_crops([*crops[max(0, number - 15) : number], *crops[number:][:10]])
        assert [is_new for _, is_new in added] == [False] * min(number, 15) + [True] * 10
    assert catalog.index().crop_id.tolist() == [crop.crop_id for crop in crops]


def test_a_column_of_texts_reads_like_an_array() -> None:
    texts = ["b", "", "a", "b", "c"]
    encoder = Encoder()
    encoder.add(pa.array(texts[:2]))
    encoder.add(pa.array(texts[2:]))
    column, array = encoder.column(), np.array(texts, dtype=object)
    assert column.codes.dtype == np.int8
    assert column.tolist() == list(column) == np.asarray(column).tolist() == texts
    assert (column[0], column[-1], column.shape) == ("b", "c", (5,))
    for rows in (slice(1, 3), [4, 0], np.array([True, False, True, False, True]), None):
        assert np.array_equal(column[rows], array[rows])
    for other in ("b", "", "nothing", array[::-1]):
        assert ((column == other) == (array == other)).all()
        assert ((column != other) == (array != other)).all()
    assert column.is_any(["a", "c", "x"]).tolist() == [False, False, True, False, True]
    assert np.where(column == "b", "B", column).tolist() == ["B", "", "a", "B", "c"]
    encoder.add(pa.array([f"{number}" for number in range(300)]))
    assert encoder.column().codes.dtype == np.int16
    assert encoder.column().tolist() == texts + [f"{number}" for number in range(300)]
    assert column.tolist() == texts
