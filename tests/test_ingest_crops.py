"""Foreign crops into the catalog: what is taken, what is refused, and what a crash leaves."""

from __future__ import annotations

import datetime
import io
import json
import os
import random
import re
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from logs import truth_of
from PIL import Image

from collabteam.catalog import Catalog
from collabteam.catalog import catalog as catalog_module
from collabteam.errors import UserError
from collabteam.sources.crops import IngestSummary, ingest_crops
from collabteam.storage.tables import Table

REPOSITORY = Path(__file__).parents[1]
DATA = Path(os.environ.get("COLLABTEAM_TEST_DATA", REPOSITORY.parent / "shared" / "data"))


def picture(seed: int, size: tuple[int, int] = (12, 10), kind: str = "JPEG") -> bytes:
    """An encoded picture of noise, the same for the same seed."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def write_parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog.register(tmp_path / "outputs", "S1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three cars, two ships (one of them deeper down) and one unknown."""
    crops = tmp_path / "crops"
    for number, name in enumerate(
        ["car/0.jpg", "car/1.JPG", "car/2.png", "ship/0.webp", "ship/day/1.jpg", "unknown/0.jpg"]
    ):
        kind = {"png": "PNG", "webp": "WEBP"}.get(name.split(".")[1], "JPEG")
        write(crops / name, picture(number, kind=kind))
    return crops


def facts(summary: IngestSummary) -> tuple[int, int, int, int, int]:
    """Added, known, duplicates, quarantined and total."""
    faults = len(summary.quarantined)
    return summary.added, summary.known, summary.duplicates, faults, summary.total


def contents(catalog: Catalog) -> dict[str, object]:
    """All that the catalog says, without when it was said."""
    log = catalog.log(["crop_id", "label", "source", "purpose"]).to_pylist()
    quarantine = catalog.folder / "quarantine.jsonl"
    lines = quarantine.read_text().splitlines() if quarantine.exists() else []
    index = catalog.index()
    return {
        "classes": catalog.classes,
        "crops": Counter(index.crop_id.tolist()),
        "images": Counter(catalog.images(range(len(index)))),
        "log": Counter(tuple(said.values()) for said in log),
        "truth": truth_of(catalog),
        "quarantine": Counter(json.loads(line)["source"] for line in lines),
    }


# --- folders ---------------------------------------------------------------------------------


def test_one_subfolder_per_class(catalog: Catalog, folder: Path) -> None:
    write(folder / "car" / "notes.txt", b"")
    write(folder / "boxes.csv", b"")
    write(folder / ".DS_Store", b"")
    write(folder / ".cache" / "0.jpg", picture(99))
    calls: list[tuple[int, int]] = []
    summary = ingest_crops(catalog, folder, "person", lambda *now: calls.append(now))
    assert facts(summary) == (6, 0, 0, 0, 6)
    assert summary.labelled == {"car": 3, "ship": 2, "unknown": 1}
    assert (summary.aside.ignored, summary.test, summary.conflicts) == (2, 0, [])
    assert summary.aside.passed_over == {".DS_Store": 1, ".cache": 1}
    assert calls == [(0, 6), (6, 6)]
    assert catalog.classes == ["car", "ship"]
    index = catalog.index()
    assert Counter(index.human) == summary.labelled
    assert set(index.human_source) == {"person"}
    original = folder / "car" / "2.png"
    assert original.read_bytes() in catalog.images(range(6))  # not encoded again


def test_the_same_folder_again_adds_nothing(catalog: Catalog, folder: Path) -> None:
    first = ingest_crops(catalog, folder, "proposed")
    before = contents(catalog)
    again = ingest_crops(Catalog.open(catalog.folder.parent, "S1"), folder, "proposed")
    assert (first.added, again.added, again.known, again.labelled) == (6, 0, 6, {})
    assert contents(catalog) == before


def test_proposed_then_truth(catalog: Catalog, folder: Path) -> None:
    ingest_crops(catalog, folder, "proposed")
    assert truth_of(catalog) == {}
    summary = ingest_crops(catalog, folder, "truth")
    assert summary.labelled == {"car": 3, "ship": 2, "unknown": 1}
    index = catalog.index()
    assert truth_of(catalog) == dict(zip(index.crop_id, index.proposed, strict=True))
    assert set(index.human) == {""}
    assert len(catalog.log()) == 6  # truth leaves no trace in the log
    assert ingest_crops(catalog, folder, "truth").labelled == {}


def test_flat_folder_without_labels(catalog: Catalog, tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "flat" / f"{number}.png", picture(number, kind="PNG"))
    summary = ingest_crops(catalog, tmp_path / "flat", "proposed")
    assert (summary.added, summary.labelled, catalog.classes) == (3, {}, [])
    assert len(catalog.log()) == 0


def test_a_correction_and_its_correction(catalog: Catalog, folder: Path) -> None:
    def sort_into(label: str) -> str:
        for old in folder.glob("*/0.jpg"):
            if old.parent.name != "unknown":
                (folder / label).mkdir(exist_ok=True)
                old.rename(folder / label / "0.jpg")
        ingest_crops(catalog, folder, "person")
        return str(catalog.index().human[0])

    assert [sort_into(label) for label in ("car", "ship", "car")] == ["car", "ship", "car"]


def test_duplicates_and_contradictions(catalog: Catalog, folder: Path) -> None:
    same = (folder / "car" / "0.jpg").read_bytes()
    write(folder / "car" / "copy.jpg", same)
    contradiction = write(folder / "ship" / "copy.jpg", same)
    for _ in range(2):
        summary = ingest_crops(catalog, folder, "person")
        assert summary.duplicates == 2
        assert summary.conflicts == [(str(contradiction), "person 'ship', but 'car' before")]
    assert catalog.index().human[0] == "car"
    assert len(catalog.log()) == 6


def test_links_are_followed_but_never_round_and_round(
    catalog: Catalog, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "car").symlink_to(folder / "car")
    (tmp_path / "linked" / "ship").symlink_to(folder / "ship")
    (folder / "car" / "round").symlink_to(tmp_path / "linked")
    (folder / "car" / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    os.mkfifo(folder / "car" / "pipe.jpg")
    summary = ingest_crops(catalog, tmp_path / "linked", "person", follow_links=True)
    assert summary.added == 5
    assert [reason for _, reason in summary.quarantined] == [
        "cannot be read: No such file or directory",
        "no regular file",
    ]


# --- pictures that cannot be used ------------------------------------------------------------


def bomb() -> bytes:
    """A small PNG that unpacks to 60,000 x 60,000 pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(name + body).to_bytes(4, "big")
        return len(body).to_bytes(4, "big") + name + body + crc

    side = (60_000).to_bytes(4, "big")
    rows = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", side + side + bytes([8, 0, 0, 0, 0]))
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


BAD = {
    "empty": (b"", "empty"),
    "text": (b"no picture at all", "not a picture"),
    "half": (picture(1, (64, 64))[:900], "truncated"),
    "half_png": (picture(1, (64, 64), "PNG")[:3000], "cannot be decoded"),
    "bomb": (bomb(), "pixel|60000x60000 px: more than"),
    "wide": (picture(1, (4097, 5)), "4097x5 px: more than 4096 px"),
    "tiny": (picture(1, (3, 50)), "3x50 px: less than 4 px"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
}


def test_unreadable_pictures_are_put_aside_once(catalog: Catalog, folder: Path) -> None:
    for name, (content, _) in BAD.items():
        write(folder / "car" / f"{name}.jpg", content)
    for _ in range(2):
        summary = ingest_crops(catalog, folder, "person")
        reasons = {Path(where).stem: reason for where, reason in summary.quarantined}
        assert reasons.keys() == BAD.keys()
        for name, (_, pattern) in BAD.items():
            assert re.search(pattern, reasons[name]), (name, reasons[name])
        assert summary.total == 6
        lines = (catalog.folder / "quarantine.jsonl").read_text().splitlines()
        assert len(lines) == len(BAD)
    entry = json.loads(lines[0])
    assert entry.keys() == {"source", "reason", "time"}
    assert Path(entry["source"]).is_absolute()


def test_a_torn_line_in_the_quarantine(catalog: Catalog, folder: Path) -> None:
    quarantine = write(catalog.folder / "quarantine.jsonl", b'{"source": "x.jp')
    write(folder / "car" / "bad.jpg", b"")
    ingest_crops(catalog, folder, "person")
    assert json.loads(quarantine.read_text().splitlines()[1])["reason"] == "empty"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_the_formats(catalog: Catalog, tmp_path: Path, kind: str) -> None:
    content = picture(1, kind=kind)
    write(tmp_path / "flat" / "a.jpg", content)  # by content, whatever the name says
    assert ingest_crops(catalog, tmp_path / "flat", "proposed").quarantined == []
    assert catalog.images([0]) == [content]


def test_the_limits_themselves_are_fine(catalog: Catalog, tmp_path: Path) -> None:
    write(tmp_path / "flat" / "a.jpg", picture(1, (4096, 4)))
    write(tmp_path / "flat" / "b.png", picture(1, (4, 4), "PNG"))
    assert ingest_crops(catalog, tmp_path / "flat", "proposed").added == 2


# --- Parquet ---------------------------------------------------------------------------------


def test_every_column_of_a_parquet_file(catalog: Catalog, tmp_path: Path) -> None:
    moment = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)
    path = write_parquet(
        tmp_path / "crops.parquet",
        image=[picture(0), picture(1), picture(2), None],
        label=pa.array(["car", "ship", None, "car"]).dictionary_encode(),
        split=["train", "test", "validation", "test"],
        proposed=["ship", "", "unknown", "car"],
        truth=["car", "ship", "ship", None],
        video=["v", "v", "w", "w"],
        track=[7, 7, 7, None],
        frame=[1.0, None, 3.0, 4.0],
        time=[moment, None, moment, None],
        name=["w", "x", "y", "z"],
    )
    summary = ingest_crops(catalog, path, "person")
    assert facts(summary) == (3, 0, 0, 1, 3)
    assert summary.quarantined == [(f"{path} row 3", "no picture")]
    assert (summary.labelled, summary.test) == ({"car": 1, "ship": 1}, 1)
    index = catalog.index()
    assert index.human.tolist() == ["car", "ship", ""]
    assert index.proposed.tolist() == ["ship", "", "unknown"]
    assert list(truth_of(catalog).values()).count("ship") == 2
    assert index.test.tolist() == [False, True, False]
    assert index.held_out.tolist() == [True, True, False]
    assert index.track.tolist() == ["v/7", "v/7", "w/7"]
    assert index.time.tolist() == pytest.approx(
        [moment.timestamp(), np.nan, moment.timestamp()], nan_ok=True
    )
    assert catalog._crops.read(["frame"])["frame"].to_pylist() == [1, -1, 3]
    before = contents(catalog)
    again = ingest_crops(catalog, path, "person")
    assert (again.added, again.labelled, again.test) == (0, {}, 0)
    assert contents(catalog) == before


def test_a_hugging_face_file(catalog: Catalog, tmp_path: Path) -> None:
    features = {"label": {"names": ["ship", "car"], "_type": "ClassLabel"}, "image": {}}
    table = pa.table(
        {
            "image": [{"bytes": picture(number), "path": None} for number in range(4)],
            "label": [0, 1, 1, -1],
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, tmp_path / "hf.parquet")
    ingest_crops(catalog, tmp_path / "hf.parquet", "truth")
    assert Counter(truth_of(catalog).values()) == {"ship": 1, "car": 2}
    assert catalog.classes == ["car", "ship"]


def test_a_file_with_only_a_truth_column(catalog: Catalog, tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "t.parquet", image=[picture(0), picture(1)], truth=["car", "ship"]
    )
    assert ingest_crops(catalog, path, "truth").labelled == {"car": 1, "ship": 1}
    with pytest.raises(UserError, match="has no labels"):
        ingest_crops(catalog, path, "person")


# --- what is refused, and leaves the catalog alone -------------------------------------------


def bad_source(case: str, base: Path) -> tuple[Path, str, str]:
    """Path, ``labels=`` and what the message must say."""
    two = [picture(0), picture(1)]
    if case == "missing":
        (base / "crops").mkdir()
        return base / "corps", "person", r"does not exist: did you mean .*crops\?"
    if case == "no folder":
        return write(base / "crops.zip", b""), "person", "neither a folder of images nor"
    if case == "no images":
        return write(base / "crops" / "a.txt", b"").parent, "person", "no image: it has 1 files"
    if case == "no parquet":
        return (
            write(base / "a.parquet", b"PAR1 not really"),
            "person",
            "cannot be read as a Parquet file",
        )
    if case == "no image column":
        return write_parquet(base / "a.parquet", picture=two), "person", "columns are picture"
    if case == "image type":
        return write_parquet(base / "a.parquet", image=["a"]), "person", "is string, expected bytes"
    if case == "no rows":
        empty = pa.array([], pa.binary())
        return write_parquet(base / "a.parquet", image=empty), "person", "has no rows"
    if case == "no label":
        return write_parquet(base / "a.parquet", image=two), "truth", "has no labels"
    if case == "flat":
        return write(base / "flat" / "a.jpg", two[0]).parent, "person", "has no labels"
    if case == "bad class":
        path = write_parquet(base / "a.parquet", image=two, label=["a b", "car"])
        return path, "person", "class 'a b': expected letters"
    if case == "one class":
        return write_parquet(base / "a.parquet", image=two, label=["car"] * 2), "person", "least 2"
    if case == "bad frame":
        path = write_parquet(base / "a.parquet", image=two, label=["a", "b"], frame=[[1], [2]])
        return path, "person", "column 'frame' is list<.*>, expected numbers"
    if case == "twice":
        path = write_parquet(base / "a.parquet", image=two, label=["a", "b"], truth=["a", "b"])
        return path, "truth", "drop one"
    if case == "labels":
        return base, "guessed", "expected one of proposed, person, truth"
    raise AssertionError(case)


@pytest.mark.parametrize(
    "case",
    [
        *("missing", "no folder", "no images", "no parquet", "no image column", "image type"),
        *("no rows", "no label", "flat", "bad class", "one class", "bad frame", "twice", "labels"),
    ],
)
def test_what_is_refused(catalog: Catalog, tmp_path: Path, case: str) -> None:
    path, labels, message = bad_source(case, tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        ingest_crops(catalog, path, labels)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert contents(Catalog.open(tmp_path / "outputs", "S1"))["classes"] == []
    assert len(catalog) == 0


def test_labels_of_another_camera(catalog: Catalog, folder: Path, tmp_path: Path) -> None:
    catalog.set_classes(["car", "plane"])
    for source in (
        folder,
        write_parquet(tmp_path / "a.parquet", image=[picture(0)], proposed=["ship"]),
    ):
        with pytest.raises(UserError, match="has no class ship: its classes are car, plane"):
            ingest_crops(catalog, source, "proposed")
    assert len(catalog) == 0


def test_a_camera_in_use(catalog: Catalog, folder: Path) -> None:
    other = Catalog.open(catalog.folder.parent, "S1")
    with other.workspace.transaction("train"), pytest.raises(UserError, match="in use"):
        ingest_crops(catalog, folder, "person")
    with catalog.workspace.transaction("ingest"):
        assert ingest_crops(catalog, folder, "person").added == 6


# --- crashes ---------------------------------------------------------------------------------

INGEST = """
import resource, sys
from collabteam.catalog import Catalog, catalog
from collabteam.sources.crops import ingest_crops
catalog.BATCH_CROPS = 20
print("ready", flush=True)
camera = Catalog.register(sys.argv[1], "S1")
if len(sys.argv) > 3:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    ingest_crops(camera, sys.argv[2], "person")
except Exception as error:
    print(type(error).__name__, error)
else:
    print("done", flush=True)
"""


def start(*arguments: object) -> subprocess.Popen[str]:
    """Begin to ingest in a process of its own; returned when its imports are done."""
    process = subprocess.Popen(
        [sys.executable, "-c", INGEST, *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture(scope="module")
def much(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 rows with every kind of label, some of them double and some of them damaged."""
    rng = random.Random(0)
    numbers = [rng.randrange(380) for _ in range(400)]
    labels = [["car", "ship", "unknown"][number % 3] for number in numbers]
    path = tmp_path_factory.mktemp("much") / "much.parquet"
    return write_parquet(
        path,
        image=[picture(n) if n % 40 else b"damaged %d" % n for n in numbers],
        label=labels,
        proposed=labels[1:] + labels[:1],
        truth=labels,
        split=["test" if n % 7 == 0 else "train" for n in numbers],
        track=[str(n // 5) for n in numbers],
    )


def test_killed_at_any_moment_and_begun_again(much: Path, tmp_path: Path) -> None:
    begun = time.monotonic()
    assert start(tmp_path / "whole", much).communicate()[0] == "done\n"
    whole = contents(Catalog.open(tmp_path / "whole", "S1"))
    lasted = time.monotonic() - begun
    rng = random.Random(1)
    killed = 0
    for attempt in range(2):
        root = tmp_path / f"torn{attempt}"
        for _ in range(5):
            process = start(root, much)
            time.sleep(rng.uniform(0, 0.4 * lasted))
            process.kill()
            killed += process.communicate()[0] == ""
        assert start(root, much).communicate()[0] == "done\n"
        torn = Catalog.open(root, "S1")
        assert contents(torn) == whole
        with torn.workspace.transaction("train"):
            pass
    assert killed  # otherwise this has tested nothing


def test_killed_between_any_two_commits(
    much: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a kill leaves is a prefix of the commits: try them all, without the luck of timing."""

    class Killed(BaseException):
        pass

    append = Table.append
    left = 1000

    def append_or_die(table: Table, rows: pa.Table) -> None:
        nonlocal left
        if not left:
            raise Killed
        left -= bool(len(rows))
        append(table, rows)

    monkeypatch.setattr(Table, "append", append_or_die)
    monkeypatch.setattr(catalog_module, "BATCH_CROPS", 120)
    whole = Catalog.register(tmp_path, "whole")
    ingest_crops(whole, much, "person")
    commits = 1000 - left
    assert commits == 12  # crops, labels and truth, four times
    for done in range(commits):
        left = done
        torn = Catalog.register(tmp_path, f"torn{done}")
        with pytest.raises(Killed):
            ingest_crops(torn, much, "person")
        left = 1000
        summary = ingest_crops(Catalog.open(tmp_path, torn.name), much, "person")
        assert (summary.known > 0) == (done > 0)
        assert contents(torn) == contents(whole)


def test_a_full_disk_loses_nothing(much: Path, tmp_path: Path) -> None:
    assert start(tmp_path / "whole", much).communicate()[0] == "done\n"
    for limit in (0, 2000, 6000):
        said = start(tmp_path / str(limit), much, limit).communicate()[0]
        assert said.startswith("UserError the disk is full: "), said
        assert said.endswith("run the same command again: nothing is lost\n")
        assert said.count("\n") == 1
        assert start(tmp_path / str(limit), much).communicate()[0] == "done\n"
        full, whole = (Catalog.open(tmp_path / name, "S1") for name in (str(limit), "whole"))
        assert contents(full) == contents(whole)


# --- real data -------------------------------------------------------------------------------


def real(name: str) -> Path:
    """A path of the development data, or a skip."""
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is absent: COLLABTEAM_TEST_DATA names the folder with it")
    return DATA / name


def test_eighteen_thousand_crops(catalog: Catalog) -> None:
    path = real("crops/cifar-vehicles.parquet")
    begun = time.process_time()
    summary = ingest_crops(catalog, path, "truth")
    assert time.process_time() - begun < 60  # about 2 s
    assert facts(summary) == (18_000, 0, 0, 0, 18_000)
    assert summary.labelled == {"automobile": 6000, "ship": 6000, "truck": 6000}
    assert summary.test == 3000
    assert catalog.index().held_out.sum() == 3000


def test_a_real_street(catalog: Catalog) -> None:
    summary = ingest_crops(catalog, real("crops/street"), "person")
    assert summary.quarantined == []
    assert summary.added + summary.duplicates > 3000
    assert catalog.classes == ["cyclist", "motorcyclist", "pedestrian"]
    assert len(catalog.images(np.arange(len(catalog)))) == summary.total
