"""Folders of crops: which folders are classes, which are splits, and which are neither."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Call, environment, one_line
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from collabteam.catalog import Catalog
from collabteam.errors import UserError
from collabteam.sources.base import Item
from collabteam.sources.crops import check_new_camera, ingest_crops, open_source
from collabteam.sources.walk import is_foreign

MADE = iter(range(10**9))
Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write a picture of its own to each of these places below ``crops``."""

    def put(*places: str) -> Path:
        for place in places:
            path = tmp_path / "crops" / place
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(next(MADE)).integers(0, 255, (8, 8, 3), np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            path.write_bytes(file.getvalue())
        return tmp_path / "crops"

    return put


def items(path: Path, classes: Any = (), **settings: Any) -> dict[str, tuple[str, str]]:
    """Label and split of every picture, by its place in the folder."""
    source = open_source(path, "proposed", classes, **settings)

    def about(item: Item) -> tuple[str, str]:
        return item.given.get("proposed", ""), item.split

    return {str(Path(item.where).relative_to(path)): about(item) for item in source.items()}


def refused(path: Path, *expected: str, classes: Any = ()) -> None:
    with pytest.raises(UserError) as caught:
        open_source(path, "person", classes)
    assert "\n" not in str(caught.value)
    for text in expected:
        assert text in str(caught.value), str(caught.value)


# --- splits ----------------------------------------------------------------------------------


def test_folders_of_splits_are_splits(put: Put, tmp_path: Path, call: Call) -> None:
    path = put(
        *("train/car/0.png", "train/truck/0.png", "val/car/0.png", "Test/car/a/0.png"),
        *("TESTING/truck/0.png", "held-out/truck/0.png", "train/0.png"),
    )
    assert items(path) == {
        "train/0.png": ("", "train"),
        "train/car/0.png": ("car", "train"),
        "train/truck/0.png": ("truck", "train"),
        "val/car/0.png": ("car", "val"),
        "Test/car/a/0.png": ("car", "test"),
        "TESTING/truck/0.png": ("truck", "test"),
        "held-out/truck/0.png": ("truck", "held-out"),
    }
    root = tmp_path / "outputs"
    said = call("ingest", f"root={root}", "camera=S1", f"path={path}", "labels=person")
    assert said.code == 0
    assert "new in the frozen test set: 2" in said.out
    assert "folders of splits: 1 pictures of held-out, 2 pictures of test" in said.out
    catalog = Catalog.open(root, "S1")
    assert catalog.classes == ["car", "truck"]
    index = catalog.index()
    assert (index.test.sum(), index.held_out.sum(), index.verified().sum()) == (2, 3, 6)


@pytest.mark.parametrize(
    "places",
    [
        ("train/car/0.png", "car/0.png", "truck/0.png"),
        ("test/0.png", "car/0.png", "truck/0.png"),
        ("train/car/0.png", "test/truck/0.png", "extra/car/0.png"),
        ("Validation/0.png", "car/0.png"),
        ("train/train/car/0.png", "train/test/car/0.png"),
        ("train/val/car/0.png", "test/car/0.png"),
        ("car/test/0.png", "car/day/0.png", "truck/0.png"),
        ("car/test/0.png", "car/0.png", "truck/0.png"),
        ("train_images/car/0.png", "test_images/car/0.png"),
        ("trainA/0.png", "trainB/0.png", "testA/0.png", "testB/0.png"),
        ("bounding_box_train/0.png", "bounding_box_test/0.png", "query/0.png"),
        ("01 Training/0.png", "02 Testing/0.png"),
        ("car/day_train/0.png", "car/day_test/0.png", "truck/day_test/0.png"),
        ("car/day/train/0.png", "car/day/test/0.png", "truck/0.png"),
        ("train/car/0.png", "train/car/new/Test/0.png", "train/truck/0.png"),
    ],
)
def test_a_mixture_is_refused_with_the_layout(
    places: tuple[str, ...], put: Put, tmp_path: Path, call: Call
) -> None:
    path = put(*places)
    root = tmp_path / "outputs"
    settings = (f"root={root}", "camera=S1", f"path={path}", "labels=person")
    one_line(call("ingest", *settings), "CLASS/*.jpg", "train/CLASS/*.jpg", "test/CLASS/*.jpg")
    assert not (root / "S1").exists()


def test_classes_with_splits_in_them(put: Put) -> None:
    path = put("car/train/0.png", "car/test/0.png", "truck/train/0.png", "truck/Test/0.png")
    assert items(path) == {
        "car/test/0.png": ("car", "test"),
        "car/train/0.png": ("car", "train"),
        "truck/Test/0.png": ("truck", "test"),
        "truck/train/0.png": ("truck", "train"),
    }


def test_a_folder_above_the_dataset_is_not_a_class(put: Put) -> None:
    path = put("site/train/car/0.png", "site/test/truck/0.png", "yard/train/car/0.png")
    refused(path, f"path={path}/site", "no classes")


def test_a_class_that_is_called_like_a_split(put: Put, tmp_path: Path, call: Call) -> None:
    """Trains are things that pass cameras."""
    path = put("train/0.png", "car/0.png", "bus/0.png")
    refused(path, "'camera.classes=[train,...]'")
    as_classes = {"bus/0.png": ("bus", ""), "car/0.png": ("car", ""), "train/0.png": ("train", "")}
    assert items(path, ["train", "car", "bus"]) == as_classes
    root = tmp_path / "outputs"
    settings = (f"root={root}", "camera=S1", f"path={path}", "labels=person")
    assert call("ingest", *settings, "camera.classes=[bus,car,train]").code == 0
    assert call("ingest", *settings).code == 0  # the camera knows its classes now
    assert Catalog.open(root, "S1").index().human.tolist() == ["bus", "car", "train"]


def test_such_a_class_within_splits(put: Put) -> None:
    path = put("train/train/0.png", "train/car/0.png", "test/train/0.png")
    assert items(path, ["train", "car"]) == {
        "test/train/0.png": ("train", "test"),
        "train/car/0.png": ("car", "train"),
        "train/train/0.png": ("train", "train"),
    }
    shutil_path = put("../only/train/train/0.png", "../only/train/car/0.png").parent / "only"
    assert set(items(shutil_path, ["train", "car"]).values()) == {
        ("car", "train"),
        ("train", "train"),
    }


def test_what_looks_like_a_split_and_is_none(put: Put) -> None:
    path = put("trainer/0.png", "contest/0.png", "valve/0.png", "car/train/0.png")
    assert {label for label, _ in items(path).values()} == {"trainer", "contest", "valve", "car"}
    assert {split for _, split in items(path).values()} == {""}
    path = put("../b/test_tube/0.png", "../b/car/0.png").parent / "b"  # a word, but of one split
    assert {label for label, _ in items(path).values()} == {"test_tube", "car"}
    path = put("../c/test_track/0.png", "../c/train_station/0.png").parent / "c"
    refused(path, "'camera.classes=[test_track,...]'")
    assert len(items(path, ["test_track", "train_station"])) == 2


@pytest.mark.parametrize("place", ["images/{}/0.png", "images/{}/car/0.png"])
def test_a_single_folder_above_the_splits_is_no_class(put: Put, place: str) -> None:
    path = put(*(place.format(split) for split in ("train", "val", "test")))
    refused(path, f"name the folder above the splits, such as path={path}/images")
    if "car" not in place:
        assert {label for label, _ in items(path, ["images", "car"]).values()} == {"images"}


def test_a_folder_that_is_called_like_a_split_itself(put: Put, tmp_path: Path, call: Call) -> None:
    path = put("test/car/0.png", "test/truck/0.png", "train/car/0.png", "train/truck/0.png")
    (told,) = open_source(path / "test", "person").aside.remarks
    assert f"{path}/test is called like the split test" in told
    for link, target in (("data", "test"), ("tests", "train")):
        (path.parent / link).symlink_to(path / target)
        (told,) = open_source(path.parent / link, "person").aside.remarks
        assert f"{path.parent}/{link} is called like the split test" in told
    assert open_source(path / "train", "person").aside.remarks == []


def test_a_picture_in_two_splits_is_told(put: Put, tmp_path: Path, call: Call) -> None:
    path = put("train/car/0.png", "train/truck/0.png", "test/car/0.png", "val/car/0.png")
    for source, place in (("test", "train"), ("train", "val")):
        shutil.copy(path / source / "car" / "0.png", path / place / "car" / "1.png")
    said = call("ingest", f"root={tmp_path / 'outputs'}", "camera=S1", f"path={path}")
    assert said.code == 0
    told = "pictures in two splits, which count as test or held out: 1, such as "
    assert f"{told}{path}/train/car/1.png" in said.out
    assert "new in the frozen test set: 1" in said.out


# --- classes that nobody has named -----------------------------------------------------------


def test_unknown_in_other_letters_is_no_class(put: Put, tmp_path: Path, call: Call) -> None:
    path = put("car/0.png", "truck/0.png", "Unknown/0.png")
    settings = (f"root={tmp_path / 'outputs'}", "camera=S1", f"path={path}", "labels=person")
    one_line(call("ingest", *settings), "'Unknown' would become a class: write 'unknown'")
    assert not (tmp_path / "outputs" / "S1").exists()
    assert call("ingest", *settings, "camera.classes=[Unknown,car,truck]").code == 0


def test_classes_that_differ_in_capital_letters_alone_are_told(put: Put, tmp_path: Path) -> None:
    path = put("Car/0.png", "car/0.png", "truck/0.png")
    summary = ingest_crops(Catalog.register(tmp_path / "outputs", "S1"), path, "person")
    assert summary.aside.remarks == ["classes that differ in capital letters alone: Car and car"]


def test_the_name_of_a_class_is_cut_in_messages(put: Put) -> None:
    path = put(f"{'a' * 200}/0.png", "car/0.png")
    with pytest.raises(UserError) as caught:
        check_new_camera("S1", [], open_source(path, "person"))
    assert "at most 64" in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_split_without_pictures_does_not_count(put: Put) -> None:
    path = put("car/0.png", "truck/0.png")
    (path / "test").mkdir()
    assert {label for label, _ in items(path).values()} == {"car", "truck"}
    source = open_source(path, "person")
    assert source.aside.remarks == ["folders without a picture: test"]


WORDS = ["train", "Val", "test", "car", "truck", "dev", "held_out", "nan", "@eaDir", "a b"]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=3), min_size=1, max_size=6))
def test_no_split_ever_becomes_a_class(put: Put, tmp_path: Path, places: list[list[str]]) -> None:
    number = next(MADE)
    path = put(*(f"{number}/{'/'.join([*place, 'x.png'])}" for place in places)) / str(number)
    try:
        source = open_source(path, "proposed")
    except UserError:
        return
    given = {(item.given.get("proposed", ""), item.split, item.where) for item in source.items()}
    for label, split, where in given:
        parts = Path(where).relative_to(path).parts[:-1]
        assert label in ("", "car", "truck", "a b")
        assert "@eaDir" not in parts
        if "test" in parts[:2]:
            assert split == "test"
    assert {label for label, _, _ in given} - {""} == source.labels


# --- folders that are nobody's ---------------------------------------------------------------

SERVERS = [
    *("@eaDir", "#recycle", "#snapshot", ".snapshot", "~snapshot", "$RECYCLE.BIN", "lost+found"),
    *("System Volume Information", "__MACOSX", ".Trash-1000", ".Trashes", ".thumbs", "@Recycle"),
    *("@GMT-2026.01.01-00.00.00", ".@__thumb", "RECYCLER", ".AppleDouble", ".ipynb_checkpoints"),
    *("LOST.DIR", "FOUND.001", "trashbox", "_gsdata_"),
]
FILES = ["._0.png", ".DS_Store", "Thumbs.db", "desktop.ini", ".0.png.swp", "ehthumbs.db"]


def test_folders_and_files_of_servers_are_passed_over_and_counted(
    put: Put, tmp_path: Path, call: Call
) -> None:
    for name in (*SERVERS, *FILES):
        assert is_foreign(name), name
        assert is_foreign(name.upper()), name
    path = put(
        *(f"{top}{name}/0.png/SYNOPHOTO_THUMB_M.png" for name in SERVERS for top in ("", "car/")),
        *("car/0.png", "car/._0.png", "car/._1.png", "truck/0.png"),
    )
    for name in FILES[1:]:
        (path / "car" / name).write_bytes(b"x")
    assert set(items(path)) == {"car/0.png", "truck/0.png"}
    settings = (f"root={tmp_path / 'outputs'}", "camera=S1", f"path={path}", "labels=person")
    said = call("ingest", *settings)
    assert said.code == 0
    count = 2 * len(SERVERS) + 2 + len(FILES[1:])
    assert f"passed over, hidden or of a file server: {count} (" in said.out
    assert "2 x #recycle" in said.out


def test_names_that_are_no_servers(put: Put) -> None:
    for name in (
        "car",
        "recycle",
        "trash",
        "snapshot",
        "eaDir",
        "car@home",
        "a#1",
        "Thumbs",
        "recycled",
    ):
        assert not is_foreign(name)


def test_a_folder_that_stands_for_no_label(put: Put) -> None:
    path = put("nan/0.png", "nan/1.png", "car/0.png", "truck/0.png", "None/0.png")
    source = open_source(path, "person")
    assert source.labels == {"car", "truck"}
    assert source.aside.unlabelled == {"nan": 2, "None": 1}
    assert [item.given for item in source.items()][-1] == {"person": "truck"}
    assert open_source(path, "person", ["car", "truck", "None"]).labels == {"car", "truck", "None"}


def test_pictures_beside_the_classes_are_told(put: Put) -> None:
    path = put("car/0.png", "truck/0.png", "0.png", "1.png")
    told = open_source(path, "person").aside.remarks
    assert told == ["without a label, beside the folders of classes: 2 pictures"]


# --- what this user may not read -------------------------------------------------------------


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Close folders and files to this process, whoever runs the tests: root reads everything."""

    def close(*paths: Path) -> None:
        names = {str(path) for path in paths}
        scandir, read = os.scandir, Path.read_bytes

        def denied(path: Any) -> None:
            if str(path) in names:
                raise PermissionError(13, "Permission denied", str(path))

        def checked(path: Any = ".") -> Any:
            denied(path)
            return scandir(path)

        def read_bytes(self: Path) -> bytes:
            denied(self)
            return read(self)

        monkeypatch.setattr(os, "scandir", checked)
        monkeypatch.setattr(Path, "read_bytes", read_bytes)

    return close


@pytest.mark.parametrize("place", ["truck", "car/day", "train/truck", "test"])
def test_a_closed_folder_is_named_and_the_rest_is_taken(
    place: str, put: Put, tmp_path: Path, call: Call, closed: Callable[..., None]
) -> None:
    top = place.split("/")[0]
    below = "train/" if top in ("train", "test") else ""
    path = put(f"{below}car/0.png", f"{below}bus/0.png", f"{place}/0.png", f"{below}bus/1.png")
    closed(path / place)
    settings = (f"root={tmp_path / 'outputs'}", "camera=S1", f"path={path}", "labels=person")
    said = call("ingest", *settings)
    assert said.code == 1
    assert "S1: 3 new crops" in said.out
    assert "not readable for this user, left out: 1" in said.out
    assert f"{path}/{place}: Permission denied" in said.out
    assert "Traceback" not in said.err
    # A class that is closed today is a class: it could not be added later.
    truck = ["truck"] if place.endswith("truck") else []
    assert Catalog.open(tmp_path / "outputs", "S1").classes == ["bus", "car", *truck]


def test_closed_files_are_named_and_not_kept_aside(
    put: Put, tmp_path: Path, call: Call, closed: Callable[..., None]
) -> None:
    path = put("car/0.png", "car/1.png", "truck/0.png", "truck/1.png")
    closed(path / "car" / "1.png", path / "truck" / "0.png")
    settings = (f"root={tmp_path / 'outputs'}", "camera=S1", f"path={path}", "labels=person")
    said = call("ingest", *settings)
    assert said.code == 1
    assert "left out: 2" in said.out
    assert "unusable" not in said.out
    assert not (tmp_path / "outputs" / "S1" / "quarantine.jsonl").exists()


def test_closed_altogether(
    put: Put, tmp_path: Path, call: Call, closed: Callable[..., None]
) -> None:
    path = put("car/0.png", "truck/0.png")
    settings = (f"root={tmp_path / 'outputs'}", "camera=S1", f"path={path}")
    closed(path / "car", path / "truck")
    one_line(call("ingest", *settings), "2 folders cannot be read", "car: Permission denied")
    closed(path)
    one_line(call("ingest", *settings), f"path={path} cannot be read: Permission denied")
    assert not (tmp_path / "outputs" / "S1").exists()


CLOSED = """
import os, sys
from collabteam.sources.crops import open_source
os.setgroups([]); os.setgid(65534); os.setuid(65534)
source = open_source(sys.argv[1], "person")
closed = [item.where for item in source.items() if item.closed]
print(sorted(source.labels), source.total, source.aside.unreadable, closed)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_of_somebody_else(put: Put, tmp_path: Path) -> None:
    path = put("car/0.png", "truck/0.png", "bus/0.png", ".store/0.png")
    (path / "link.png").symlink_to(".store/0.png")  # a picture and no class, though it is closed
    for parent in (tmp_path, *tmp_path.parents):
        if parent == Path(parent.anchor) or oct(parent.stat().st_mode)[-1] in "57":
            continue
        if not str(parent).startswith(str(tmp_path.parents[1])):
            pytest.skip("the temporary folder is closed to others")
        parent.chmod(0o755)
    for closed in ("truck", ".store"):
        (path / closed).chmod(0o700)
    done = subprocess.run(
        [sys.executable, "-c", CLOSED, str(path)],
        cwd="/", env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    folders = f"[('{path}/truck', 'Permission denied')]"
    expected = f"['bus', 'car', 'truck'] 3 {folders} ['{path}/link.png']\n"
    assert done.stdout == expected, done.stderr


# --- links -----------------------------------------------------------------------------------


@pytest.fixture
def linked(put: Put, tmp_path: Path) -> Path:
    """A folder whose class ``truck`` is its own, and whose others are links that lead out of it."""
    path = put("truck/0.png", "truck/1.png", "../real/car/0.png", "../real/loose.png")
    (path / "car").symlink_to("../real/car")
    (path / "auto").symlink_to(tmp_path / "real" / "car")
    (path / "truck" / "far.png").symlink_to("../../real/loose.png")
    (path / "truck" / "notes").symlink_to("../../real/loose.png")  # no picture by its name
    return path


def test_links_that_lead_out_are_followed_when_asked(
    linked: Path, tmp_path: Path, call: Call
) -> None:
    settings = (f"root={tmp_path / 'outputs'}", "camera=S1", f"path={linked}", "labels=person")
    classes = "camera.classes=[auto,car,truck]"
    one_line(call("ingest", *settings), "at least 2 classes", "follow_links=true", "car")
    assert not (tmp_path / "outputs" / "S1").exists()
    said = call("ingest", *settings, classes)
    assert (said.code, "S1: 2 new crops" in said.out) == (0, True)
    assert (
        "links that lead out of the folder, not followed: 3 (auto, car, truck/far.png)" in said.out
    )
    assert "follow_links=true" in said.out
    said = call("ingest", *settings, classes, "follow_links=true")
    assert (said.code, "S1: 2 new crops, 2 known" in said.out) == (0, True)
    assert "the same folder twice, taken once: car (as auto)" in said.out


def test_only_links_that_are_not_followed(put: Put) -> None:
    path = put("../real/car/0.png").parent / "set"
    path.mkdir()
    (path / "car").symlink_to("../real/car")
    refused(path, "holds no image", "1 links lead out", "(car)", "follow_links=true")


def test_a_folder_of_its_own_counts_before_links_to_it(put: Put) -> None:
    path = put("z/0.png", "b/0.png")
    (path / "a").symlink_to("z")
    (path / "b" / "z").symlink_to("../z")
    (path / "b" / "up").symlink_to("..")
    (path / "me").symlink_to("me")
    assert items(path) == {"z/0.png": ("z", ""), "b/0.png": ("b", "")}
    (told,) = [r for r in open_source(path, "proposed").aside.remarks if "twice" in r]
    assert told == "the same folder twice, taken once: a (as z), b/up (as .), b/z (as z)"


def test_a_hidden_store_behind_links(put: Put) -> None:
    path = put(".store/1/0.png", ".store/2/0.png")
    (path / "car").symlink_to(".store/1")
    (path / "truck").symlink_to(".store/2")
    assert items(path) == {"car/0.png": ("car", ""), "truck/0.png": ("truck", "")}


def test_one_folder_in_two_splits_is_refused(put: Put) -> None:
    path = put("train/car/0.png", "val/truck/0.png")
    (path / "test").symlink_to("val")
    refused(path, "test and val are one folder", "two splits")


def test_a_link_as_the_path_itself(put: Put, tmp_path: Path) -> None:
    put("car/0.png", "truck/0.png")
    (tmp_path / "link").symlink_to("crops")
    assert len(items(tmp_path / "link")) == 2


def names() -> Iterator[str]:
    yield "line\nbreak"
    yield "\x1b[31mred"
    yield "caf\udce9"
    yield "n" * 200


def test_odd_names_below_the_classes_stay_on_their_line(put: Put) -> None:
    path = put("car/0.png", "truck/0.png")
    for name in names():
        (path / "car" / f".{name}").write_bytes(b"")
        (path / f"empty{name}"[:200]).mkdir()
        (path / "car" / f"{name}.png").write_bytes(b"")
    source = open_source(path, "person")
    told = [*source.aside.remarks, *source.aside.passed_over, *(i.where for i in source.items())]
    for text in told:
        assert text.isprintable(), ascii(text)
        text.encode()


def test_a_path_that_is_too_deep(put: Put) -> None:
    path = put("car/0.png", "truck/0.png")
    here = os.open(path / "car", os.O_RDONLY)
    try:
        for _ in range(40):
            os.mkdir("d" * 150, dir_fd=here)
            inner = os.open("d" * 150, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
    finally:
        os.close(here)
    catalog_like = open_source(path, "person")
    assert len(catalog_like.aside.unreadable) == 1
    assert "File name too long" in catalog_like.aside.unreadable[0][1]


def test_the_summary_of_the_python_interface(put: Put, tmp_path: Path) -> None:
    path = put("car/0.png", "truck/0.png", "@eaDir/0.png")
    (path / "notes.txt").write_text("")
    summary = ingest_crops(Catalog.register(tmp_path / "root", "S1"), path, "person")
    assert (summary.aside.ignored, summary.aside.passed_over) == (1, {"@eaDir": 1})
