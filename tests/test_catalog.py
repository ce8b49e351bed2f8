"""The catalog: what goes in comes out, whoever writes, and whatever is killed."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import fields
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import builder, truth_of

from collabteam.catalog import Catalog, Crop, CropIndex, LabelEvent
from collabteam.catalog import catalog as catalog_module
from collabteam.catalog.records import (
    HUMAN_SOURCES,
    TRUTH_SCHEMA,
    crops_to_table,
    events_to_table,
)
from collabteam.catalog.texts import LabelsByRow
from collabteam.catalog.truth import append_truth
from collabteam.errors import UserError
from collabteam.storage import tables

CLASSES = ["car", "ship"]
REPOSITORY = Path(__file__).parents[1]


def crop(number: int) -> Crop:
    """The crop of a number: some with a track, some alone, some with a box and a time."""
    return Crop(
        image=b"picture %d" % number,
        video=f"v{number % 2}" if number % 3 else "",
        track=str(number % 4) if number % 3 else "",
        frame=number if number % 3 else -1,
        time=1e9 + number / 7 if number % 5 else math.nan,
        box=(number, 0.5, 10, 20) if number % 2 else None,
    )


def python(code: str, *arguments: object, wait: bool = True) -> subprocess.Popen[str]:
    """Run a script in a process of its own, from the repository's root."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if wait:
        assert process.wait(60) == 0, process.stderr and process.stderr.read()
    return process


# --- crops -----------------------------------------------------------------------------------


def test_a_crops_name_is_pinned() -> None:
    """Catalogs on disk hold these names: a changed recipe would ingest everything again."""
    assert Crop(b"x").crop_id == "703a4bcfbc18e08b8f69bb3b"
    full = Crop(b"x", "v", "7", 3, 1.5, (1, 2, 3, 4))
    assert full.crop_id == "94e2dbec8f3f8ec99743dae0"
    assert full.crop_id == Crop(b"x", "v", "7", 3, 1.5, (1.0, 2.0, 3.0, 4.0)).crop_id


def test_content_and_each_part_of_the_origin_make_the_name() -> None:
    crops = [
        Crop(b"x"),
        Crop(b"y"),
        Crop(b"x", video="a"),
        Crop(b"x", track="a"),
        Crop(b"x", frame=0),
        Crop(b"x", time=0.0),
        Crop(b"x", box=(0, 0, 1, 1)),
    ]
    assert len({one.crop_id for one in crops}) == len(crops)


def test_a_crop_comes_back_as_it_went_in(tmp_path: Path) -> None:
    catalog = Catalog.register(tmp_path, "S1", CLASSES)
    crops = [crop(number) for number in range(12)]
    assert catalog.add_crops(crops) == [(one.crop_id, True) for one in crops]
    assert catalog.images(range(12)) == [one.image for one in crops]
    rows = catalog._crops.read(["crop_id", "image", "video", "track", "frame", "time", "box"])
    for row in rows.to_pylist():
        row["box"] = row["box"] and tuple(row["box"])
        assert row.pop("crop_id") == Crop(**row).crop_id
    index = catalog.index()
    assert index.time.tolist() == pytest.approx([one.time for one in crops], nan_ok=True)
    assert index.track[:2].tolist() == [crops[0].crop_id, "v1/1"]


def test_adding_twice_adds_nothing(tmp_path: Path) -> None:
    catalog = Catalog.register(tmp_path, "S1", CLASSES)
    numbers = [0, 1, 0, 2]
    added = catalog.add_crops(crop(number) for number in numbers)
    assert [is_new for _, is_new in added] == [True, True, False, True]
    version = catalog._crops.version
    again = Catalog.open(tmp_path, "S1")
    assert not any(is_new for _, is_new in again.add_crops(map(crop, numbers)))
    assert again._crops.version == version  # not even an empty commit
    assert len(again) == 3


def test_crops_of_another_process_are_known(tmp_path: Path) -> None:
    first = Catalog.register(tmp_path, "S1", CLASSES)
    first.add_crops([crop(0)])
    Catalog.open(tmp_path, "S1").add_crops([crop(1)])
    assert first.add_crops([crop(1), crop(2)]) == [
        (crop(1).crop_id, False),
        (crop(2).crop_id, True),
    ]
    assert first.images([1, 2]) == [crop(1).image, crop(2).image]


def test_commits_are_bounded_by_number_and_by_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_module, "BATCH_CROPS", 10)
    catalog = Catalog.register(tmp_path, "S1", CLASSES)
    start = catalog._crops.version
    catalog.add_crops(map(crop, range(25)))
    assert catalog._crops.version == start + 3
    monkeypatch.setattr(catalog_module, "BATCH_BYTES", 1000)
    catalog.add_crops(Crop(bytes([number]) * 500) for number in range(4))
    assert catalog._crops.version == start + 5
    assert catalog.images(range(25)) == [crop(number).image for number in range(25)]


def test_images_in_the_order_asked_and_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_module, "BATCH_CROPS", 7)
    catalog = Catalog.register(tmp_path, "S1", CLASSES)
    catalog.add_crops(map(crop, range(40)))
    rows = np.random.default_rng(0).integers(0, 40, 60)
    assert catalog.images(rows) == [crop(int(row)).image for row in rows]
    assert catalog.images([]) == []
    for beyond in ([40], [-1]):
        with pytest.raises(IndexError, match="of 40"):
            catalog.images(beyond)


# --- what a crop is called -------------------------------------------------------------------

EVENTS = st.tuples(
    st.integers(0, 11),
    st.sampled_from([*CLASSES, "unknown", ""]),
    st.sampled_from(
        [
            *(("detector", "proposal"), ("person", "seed"), ("person", "test"), ("oracle", "seed")),
            *(("person", "audit"), ("person", "unsure"), ("import", ""), ("ingest", "test")),
            *(("team", "increment"), ("team", "verdict"), ("rollback", "")),
        ]
    ),
    st.integers(-1, 4),
    st.sampled_from(["", "ann", "f1"]),
)


def event(drawn: tuple[int, str, tuple[str, str], int, str], crops: list[Crop]) -> LabelEvent:
    """An event about one of the crops, or a rollback."""
    number, label, (source, purpose), around, by = drawn
    if source == "rollback":
        return LabelEvent("", "", source, purpose, around)
    return LabelEvent(crops[number % len(crops)].crop_id, label, source, purpose, around, by=by)


def expected(crops: list[Crop], log: list[LabelEvent]) -> list[dict[str, object]]:
    """The index by the letter: one event after the other, one dictionary a crop."""
    rows: dict[str, dict[str, object]] = {}
    for one in crops:
        track = f"{one.video}/{one.track}" if one.track else one.crop_id
        rows[one.crop_id] = {"crop_id": one.crop_id, "track": track, "video": one.video}
        rows[one.crop_id]["team"] = []
        rows[one.crop_id] |= {"proposed": "", "human": "", "human_source": "", "test": False}
        rows[one.crop_id] |= {"unsure_round": -1, "audited": False}
    for said in log:
        if said.source == "rollback":
            for row in rows.values():
                row["team"] = [word for word in row["team"] if word.round <= said.round]  # type: ignore[attr-defined]
            continue
        row = rows[said.crop_id]
        if said.source == "detector":
            row["proposed"] = said.label
        if said.source in HUMAN_SOURCES:
            row |= {"human": said.label, "human_source": said.source if said.label else ""}
        if said.source in HUMAN_SOURCES and said.purpose == "unsure":
            row["unsure_round"] = said.round if said.label else -1
        if said.source in HUMAN_SOURCES and said.purpose == "audit":
            row["audited"] = said.label != ""
        if said.purpose == "test":
            row["test"] = True
        if said.source == "team":
            row["team"].append(said)  # type: ignore[attr-defined]
    for row in rows.values():
        team: list[LabelEvent] = row.pop("team")  # type: ignore[assignment]
        joined = [word for word in team if word.purpose == "increment"]
        none = LabelEvent("none", "", "team")
        word = joined[-1] if joined else none
        row |= {"increment_round": word.round, "increment_label": word.label}
        row |= {"increment_by": word.by}
        verdict = ([word for word in team if word.purpose == "verdict"] or [none])[-1]
        row |= {"verdict": verdict.label, "verdict_round": verdict.round}
        row |= {"verdict_by": verdict.by, "verdict_run": verdict.commit}
        tracks = [other["track"] for other in rows.values() if other["test"]]
        row["held_out"] = row["track"] in tracks
    return list(rows.values())


def as_rows(index: CropIndex) -> list[dict[str, object]]:
    """The index, one dictionary a crop, without what ``expected`` does not give."""
    left_out = ("time", "track_code", "verdict_confidence")
    names = [field.name for field in fields(index) if field.name not in left_out]
    columns = [getattr(index, name).tolist() for name in names]
    assert all(len(column) == len(index) for column in columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 12), st.lists(EVENTS, max_size=25))
def test_the_index_is_what_the_log_says(count: int, drawn: list[tuple]) -> None:  # type: ignore[type-arg]
    crops = [crop(number) for number in range(count)]
    log = [event(one, crops) for one in drawn]
    index = builder(crops_to_table(crops), events_to_table(log)).index()
    assert as_rows(index) == expected(crops, log)
    same = index.track[:, None] == index.track[None]
    assert (same == (index.track_code[:, None] == index.track_code[None])).all()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.integers(0, 11), max_size=6)),
        st.tuples(st.just("say"), st.lists(EVENTS, max_size=6)),
        st.tuples(st.just("open"), st.just([])),
    ),
    max_size=10,
)


@settings(deadline=None, max_examples=25)
@given(STEPS)
def test_any_order_of_adding_and_saying(steps: list[tuple[str, list]]) -> None:  # type: ignore[type-arg]
    with tempfile.TemporaryDirectory() as root:
        catalog = Catalog.register(root, "S1", CLASSES)
        crops: list[Crop] = []
        log: list[LabelEvent] = []
        for step, drawn in steps:
            if step == "add":
                new = [crop(number) for number in dict.fromkeys(drawn)]
                known = {one.crop_id for one in crops}  # a time of NaN equals nothing
                new = [one for one in new if one.crop_id not in known]
                added = catalog.add_crops(map(crop, drawn))
                assert sum(is_new for _, is_new in added) == len(new)
                crops += new
            elif step == "say" and crops:
                events = [event(one, crops) for one in drawn]
                assert catalog.append_labels(events) == len(events)
                log += events
            elif step == "open":
                catalog = Catalog.open(root, "S1")
            assert as_rows(catalog.index()) == expected(crops, log)
        assert catalog.images(range(len(crops))) == [one.image for one in crops]


def test_a_rollback_voids_the_later_rounds_before_it_only(tmp_path: Path) -> None:
    catalog = Catalog.register(tmp_path, "S1", CLASSES)
    [(name, _)] = catalog.add_crops([crop(0)])

    def say(label: str, around: int) -> str:
        catalog.append_labels([LabelEvent(name, label, "team", "increment", around)])
        return str(catalog.index().training_labels(np.array([0]))[0])

    assert say("car", 1) == "car"
    assert say("ship", 2) == "ship"
    catalog.append_labels([LabelEvent("", "", "rollback", round=1)])
    assert catalog.index().increment_label[0] == "car"
    assert catalog.index().increment_round[0] == 1
    assert say("ship", 2) == "ship"  # round 2 done again
    catalog.append_labels([LabelEvent("", "", "rollback", round=0)])
    assert catalog.index().increment_label[0] == ""
    catalog.append_labels([LabelEvent(name, "car", "person", "seed")])
    assert say("ship", 1) == "car"  # a person's word stands above a later one of the team


def test_a_log_of_single_clicks_stays_short_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_MOST_FRAGMENTS", 8)
    catalog = Catalog.register(tmp_path, "S1", CLASSES)
    [(name, _)] = catalog.add_crops([crop(0)])
    other = Catalog.open(tmp_path, "S1")
    for number in range(30):
        writer = other if number % 3 else catalog
        writer.append_labels([LabelEvent(name, "car", "person", round=number)])
        assert len(writer._labels._data.get_fragments()) <= 9
    assert catalog.log(["round"])["round"].to_pylist() == list(range(30))


def test_several_writers_lose_nothing_and_keep_their_order(tmp_path: Path) -> None:
    catalog = Catalog.register(tmp_path, "S1", CLASSES)
    [(name, _)] = catalog.add_crops([crop(0)])
    code = """
import sys
from collabteam.catalog import Catalog, LabelEvent
from collabteam.storage import tables
tables._MOST_FRAGMENTS = 5
catalog = Catalog.open(sys.argv[1], "S1")
for number in range(25):
    catalog.append_labels([LabelEvent(sys.argv[2], "car", "person", round=number, by=sys.argv[3])])
"""
    writers = [python(code, tmp_path, name, by, wait=False) for by in "abc"]
    for writer in writers:
        assert writer.wait(60) == 0, writer.stderr and writer.stderr.read()
    log = catalog.log(["by", "round"]).to_pylist()
    assert len(log) == 75
    for by in "abc":
        assert [said["round"] for said in log if said["by"] == by] == list(range(25))


def test_wrong_events_are_refused_whole(tmp_path: Path) -> None:
    catalog = Catalog.register(tmp_path, "S1", CLASSES)
    [(name, _)] = catalog.add_crops([crop(0)])
    good = LabelEvent(name, "car", "person")
    with pytest.raises(ValueError, match="not in"):
        catalog.append_labels([good, LabelEvent("f" * 24, "car", "person")])
    with pytest.raises(UserError, match="no class plane: its classes are car, ship"):
        catalog.append_labels([good, LabelEvent(name, "plane", "person")])
    assert len(catalog.log()) == 0
    with pytest.raises(ValueError, match="source='me'"):
        LabelEvent(name, "car", "me")
    with pytest.raises(ValueError, match="purpose='fun'"):
        LabelEvent(name, "car", "person", "fun")
    with pytest.raises(ValueError, match="team's"):
        LabelEvent(name, "car", "person", "increment")
    with pytest.raises(ValueError, match="crop_id=''"):
        LabelEvent("", "car", "person")


def test_a_large_index_is_fast() -> None:
    count, events = 100_000, 150_000
    rng = np.random.default_rng(0)
    ids = pa.array([f"{number:024x}" for number in rng.permutation(count)])
    empty = pa.array([""] * count)
    crops = pa.table({"crop_id": ids, "video": empty, "track": empty, "time": rng.random(count)})
    source = np.array(["detector", "person", "team"], dtype=object)[rng.integers(0, 3, events)]
    log = pa.table(
        {
            "crop_id": ids.take(pa.array(rng.integers(0, count, events))),
            "label": np.array(CLASSES, dtype=object)[rng.integers(0, 2, events)],
            "source": source,
            "purpose": np.where(source == "team", "increment", ""),
            "round": rng.integers(0, 5, events),
            "confidence": rng.random(events),
            "by": pa.array([""] * events),
            "commit": pa.array([""] * events),
        }
    )
    start = time.process_time()
    assert len(builder(crops, log).index()) == count
    assert time.process_time() - start < 1  # 0.07 s on one idle core


# --- hidden truth ----------------------------------------------------------------------------


def test_truth_keeps_the_first_word(tmp_path: Path) -> None:
    catalog = Catalog.register(tmp_path, "S1", CLASSES)
    a, b, c, d = (name for name, _ in catalog.add_crops(map(crop, range(4))))
    assert truth_of(catalog) == {}
    assert append_truth(catalog, [(a, "car"), (b, "ship"), (a, "ship")]) == 2
    assert append_truth(catalog, [(a, "ship"), (c, "unknown")]) == 1
    assert truth_of(catalog) == {a: "car", b: "ship", c: "unknown"}
    # As two processes that wrote at once.
    again = {"crop_id": [d, a, d], "label": ["ship", "ship", "car"]}
    catalog.workspace.table("truth").append(pa.table(again, schema=TRUTH_SCHEMA))
    assert truth_of(catalog) == {a: "car", b: "ship", c: "unknown", d: "ship"}
    assert append_truth(catalog, [(d, "car")]) == 0
    with pytest.raises(UserError, match="no class plane"):
        append_truth(catalog, [(catalog.add_crops([crop(5)])[0][0], "plane")])
    with pytest.raises(ValueError, match="1 crops are not in"):
        append_truth(catalog, [("e", "car")])


def test_truth_that_is_known_need_not_be_read_again(tmp_path: Path) -> None:
    catalog = Catalog.register(tmp_path, "S1", CLASSES)
    a, b = (name for name, _ in catalog.add_crops(map(crop, range(2))))
    known = LabelsByRow()
    assert append_truth(catalog, [(b, "car")], known) == 1
    assert append_truth(catalog, [(b, "ship"), (a, "ship")], known) == 1
    assert [known[row] for row in range(3)] == ["ship", "car", ""]


def test_importing_the_catalog_is_light_and_leaves_truth_alone() -> None:
    process = python("import sys, collabteam.catalog; print(*sys.modules)")
    assert process.stdout is not None
    loaded = process.stdout.read().split()
    # Not pandas: Lance imports it where it is installed.
    heavy = ("torch", "lightning", "hydra", "omegaconf", "wandb", "PIL")
    assert not set(heavy) & set(loaded)
    assert "collabteam.catalog.truth" not in loaded


# --- cameras ---------------------------------------------------------------------------------


def test_registering_and_opening(tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    catalog = Catalog.register(root, "S10-08")
    assert (catalog.name, catalog.folder, catalog.classes) == ("S10-08", root / "S10-08", [])
    assert len(catalog.index()) == 0
    assert Catalog.register(root, "S10-08", CLASSES).classes == CLASSES
    assert Catalog.register(root, "S10-08").classes == CLASSES
    assert Catalog.register(root, "S10-08", CLASSES[::-1]).classes == CLASSES
    assert Catalog.open(root, "S10-08").classes == CLASSES
    manifest = yaml.safe_load((root / "S10-08" / "camera.yaml").read_text())
    assert manifest == {"name": "S10-08", "classes": CLASSES}
    with pytest.raises(UserError, match="has the classes car, ship, not car, plane"):
        Catalog.register(root, "S10-08", ["car", "plane"])
    with pytest.raises(UserError, match="at least 2"):
        Catalog.register(root, "S2", ["car"])
    assert not (root / "S2").exists()
    with pytest.raises(UserError, match="is not a camera name"):
        Catalog.register(root, "../S2")


def test_a_name_that_yaml_would_take_for_something_else(tmp_path: Path) -> None:
    for name in ("no", "0x1F", "2026-11-22"):
        Catalog.register(tmp_path, name, ["yes", "1.0"])
        assert Catalog.open(tmp_path, name).classes == ["yes", "1.0"]


@pytest.mark.parametrize("name", ["007", "12", "1e3", "1.5", "true", "NULL", "nan"])
def test_a_name_that_hydra_would_take_for_something_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"such as c{name}"):
        Catalog.register(tmp_path / "outputs", name)
    assert not (tmp_path / "outputs").exists()


def test_a_camera_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="known are none"):
        Catalog.open(tmp_path / "nowhere", "S10-8")
    for name in ("A", "S10-08"):
        Catalog.register(tmp_path, name)
    with pytest.raises(UserError) as caught:
        Catalog.open(tmp_path, "S10-8")
    assert str(caught.value) == (
        f"no camera 'S10-8' under {tmp_path}: known are S10-08, A; "
        "'ingest camera=S10-8' registers it"
    )


def test_a_registration_that_was_killed_is_completed(tmp_path: Path) -> None:
    catalog = Catalog.register(tmp_path, "S1", CLASSES)
    (catalog.folder / "camera.yaml").unlink()
    with pytest.raises(UserError, match="no camera"):
        Catalog.open(tmp_path, "S1")
    assert Catalog.register(tmp_path, "S1", CLASSES).classes == CLASSES


@pytest.mark.parametrize("content", ["", "classes: [", "name: S2\nclasses: []", "name: S1", "- 1"])
def test_a_damaged_manifest(tmp_path: Path, content: str) -> None:
    manifest = Catalog.register(tmp_path, "S1", CLASSES).folder / "camera.yaml"
    manifest.write_text(content)
    with pytest.raises(UserError, match=r"camera\.yaml is damaged") as caught:
        Catalog.open(tmp_path, "S1")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("table", ["crops", "labels", "truth"])
@pytest.mark.parametrize("content", [b"", b"ab", b"x" * 500])
def test_a_damaged_table(tmp_path: Path, table: str, content: bytes) -> None:
    catalog = Catalog.register(tmp_path, "S1", CLASSES)
    for manifest in (catalog.folder / f"{table}.lance").glob("_versions/*.manifest"):
        manifest.write_bytes(content)
    with pytest.raises(UserError, match=rf"{table}\.lance.* is damaged: .*backup") as caught:
        Catalog.open(tmp_path, "S1")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"x" * 500])
def test_damaged_data(tmp_path: Path, content: bytes) -> None:
    catalog = Catalog.register(tmp_path, "S1", CLASSES)
    catalog.add_crops([crop(0)])
    for data in (catalog.folder / "crops.lance").glob("data/*"):
        data.write_bytes(content)
    catalog = Catalog.open(tmp_path, "S1")
    for read in (catalog.index, lambda: catalog.images([0])):
        with pytest.raises(UserError, match=r"crops\.lance cannot be used"):
            read()


# --- the lock --------------------------------------------------------------------------------

HOLD = """
import sys, time
from collabteam.catalog import Catalog
with Catalog.open(sys.argv[1], "S1").workspace.transaction("train"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_the_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    catalog = Catalog.register(tmp_path, "S1", CLASSES)
    holder = python(HOLD, tmp_path, 60, wait=False)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        start = time.monotonic()
        with pytest.raises(UserError) as caught, catalog.workspace.transaction("report"):
            pass
        assert time.monotonic() - start < 1
        text = str(caught.value)
        assert text.startswith(f"camera S1 is in use by process {holder.pid} on host ")
        assert "('train', since " in text
        assert text.endswith("): wait for it or stop it")
        catalog.add_crops([crop(0)])  # the lock keeps commands apart, not readers and the review
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with catalog.workspace.transaction("report"):
        assert json.loads((catalog.folder / "lock").read_text())["pid"] == os.getpid()


def test_the_lock_within_one_process(tmp_path: Path) -> None:
    catalog = Catalog.register(tmp_path, "S1", CLASSES)
    other = Catalog.open(tmp_path, "S1")
    with catalog.workspace.transaction("train"):
        with catalog.workspace.transaction("ingest"):
            pass
        with pytest.raises(UserError, match="in use"), other.workspace.transaction("label"):
            pass
    with pytest.raises(KeyError), catalog.workspace.transaction("train"):
        raise KeyError
    with other.workspace.transaction("label"):
        pass


def test_a_forked_child_does_not_outlive_its_parents_lock(tmp_path: Path) -> None:
    catalog = Catalog.register(tmp_path, "S1", CLASSES)
    code = HOLD.replace(
        "    print",
        "    import os\n    child = os.fork()\n    if child == 0: time.sleep(60)\n"
        "    print(child)\n"
        "    print",
    )
    holder = python(code, tmp_path, 60, wait=False)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        assert holder.stdout.readline() == "held\n"
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with catalog.workspace.transaction("report"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_lock_without_a_signature(tmp_path: Path) -> None:
    catalog = Catalog.register(tmp_path, "S1", CLASSES)
    with catalog.workspace.transaction("train"):
        (catalog.folder / "lock").write_text("")
        other = Catalog.open(tmp_path, "S1").workspace.transaction("label")
        with pytest.raises(UserError, match="in use by another process: wait"), other:
            pass


def test_a_log_of_an_earlier_version_is_read_and_grows(tmp_path: Path) -> None:
    """Logs without the column ``commit`` get it, empty, and lose nothing."""
    catalog = Catalog.register(tmp_path, "S1", CLASSES)
    catalog.add_crops([crop(0), crop(1)])
    catalog.append_labels([LabelEvent(crop(0).crop_id, CLASSES[0], "person", by="ann")])
    shutil.rmtree(catalog.folder / "labels.lance")
    old = events_to_table([LabelEvent(crop(0).crop_id, CLASSES[0], "person", by="ann")])
    lance.write_dataset(old.drop_columns(["commit"]), str(catalog.folder / "labels.lance"))
    catalog = Catalog.open(tmp_path, "S1")
    catalog.append_labels([LabelEvent(crop(1).crop_id, CLASSES[1], "person", commit="p1")])
    assert catalog.log(["by", "commit"]).to_pylist() == [
        {"by": "ann", "commit": ""}, {"by": "", "commit": "p1"}
    ]  # fmt: skip
    assert catalog.index().human.tolist() == [CLASSES[0], CLASSES[1]]
