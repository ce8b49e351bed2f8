"""Tasks for other labelling tools, and their answers: nothing lost, nothing believed blindly."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import jsonschema
import pytest
from annotating import TOOLS, annotated
from conftest import REPOSITORY, fingerprints
from cvat_sdk import models
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from collabteam.catalog import Catalog, Crop
from collabteam.errors import UserError
from collabteam.reviewing.exchange import answers as reading
from collabteam.reviewing.exchange import tasks as writing
from collabteam.reviewing.exchange.answers import (
    ImportedAnswer,
    ImportedAnswers,
    read_answers,
)
from collabteam.reviewing.exchange.base import EXCHANGE_FORMATS, Task
from collabteam.storage.staging import staging_folder

CLASSES = ["car", "ship"]
LABELS = [*CLASSES, "unknown", "unusable"]
KINDS = [("JPEG", ".jpg"), ("PNG", ".png"), ("WEBP", ".webp"), ("GIF", ".gif"), ("BMP", ".bmp")]
FILES = {"labelstudio": "tasks.json", "cvat": "tasks.zip", "csv": "tasks.csv"}


def write_tasks(
    catalog: Catalog,
    tasks: list[Task],
    format: str,
    to: Path,
    advance: Callable[[int], None] = lambda count: None,
) -> list[str]:
    return writing.write_tasks(catalog, tasks, EXCHANGE_FORMATS.load(format)(), to, advance)


def picture(number: int) -> bytes:
    """One of five formats, each of another size and colour."""
    buffer = io.BytesIO()
    colour = (number * 40 % 256, 80, 20)
    Image.new("RGB", (20 + number, 10), colour).save(buffer, KINDS[number % len(KINDS)][0])
    return buffer.getvalue()


def make(root: Path, count: int = 10) -> Catalog:
    """A camera; the first crops have a track and a time, the last have not."""
    catalog = Catalog.register(root / "outputs", "S1", CLASSES)
    catalog.add_crops(
        Crop(picture(number), "v&1", "t<1>", number, 1.5e9 + number / 2)
        if number < 6
        else Crop(picture(number))
        for number in range(count)
    )
    return catalog


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Nobody writes into it: several tests may share it."""
    return make(tmp_path_factory.mktemp("camera"))


def ids(catalog: Catalog) -> list[str]:
    return list(catalog.index().crop_id.tolist())


def tasks_of(catalog: Catalog) -> list[Task]:
    """In an order that is none of the catalog's; some without a suggestion."""
    suggested = ["car", "ship", "", "unknown", "unusable"]
    names = reversed(ids(catalog))
    return [Task(name, suggested[place % 5]) for place, name in enumerate(names)]


def stored(catalog: Catalog) -> dict[str, bytes]:
    """What the pictures must be called, and what must be in them."""
    images = catalog.images(range(len(catalog)))
    names = [name + KINDS[number % len(KINDS)][1] for number, name in enumerate(ids(catalog))]
    return dict(zip(names, images, strict=True))


def in_folder(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- out -------------------------------------------------------------------------------------

LABEL_STUDIO = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["data"],
        "additionalProperties": False,
        "properties": {
            "data": {
                "type": "object",
                "required": ["image", "crop_id", "camera", "video", "track", "time"],
                "additionalProperties": {"type": "string"},
                "properties": {"image": {"pattern": r"^/data/local-files/\?d=[^\s#&+]+$"}},
            },
            "predictions": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["result"],
                    "properties": {
                        "model_version": {"type": "string"},
                        "result": {
                            "type": "array",
                            "minItems": 1,
                            "items": {
                                "type": "object",
                                "required": ["id", "from_name", "to_name", "type", "value"],
                                "properties": {
                                    "id": {"type": "string"},
                                    "type": {"const": "choices"},
                                    "value": {
                                        "type": "object",
                                        "required": ["choices"],
                                        "additionalProperties": False,
                                        "properties": {
                                            "choices": {
                                                "type": "array",
                                                "minItems": 1,
                                                "maxItems": 1,
                                                "items": {"type": "string"},
                                            }
                                        },
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}
"""Label Studio's 'basic JSON format' with predictions, as its documentation gives it.

Its own checker (label-studio-sdk) cannot be installed beside collabteam: it wants another NumPy.
"""


def test_label_studio_gets_tasks_that_fit_its_interface(catalog: Catalog, tmp_path: Path) -> None:
    folder = tmp_path / "a folder & more"
    folder.mkdir()
    tasks = tasks_of(catalog)
    lines = write_tasks(catalog, tasks, "labelstudio", folder / "my tasks+1.json")
    written = json.loads((folder / "my tasks+1.json").read_text(encoding="utf-8"))
    jsonschema.validate(written, LABEL_STUDIO)
    assert [task["data"]["crop_id"] for task in written] == [task.crop_id for task in tasks]

    interface = ElementTree.fromstring((folder / "my tasks+1-interface.xml").read_text())
    assert interface.tag == "View"
    image, choices = interface.find("Image"), interface.find("Choices")
    assert image is not None
    assert choices is not None
    assert choices.get("choice") == "single"
    assert choices.get("toName") == image.get("name")
    allowed = [choice.get("value") for choice in choices.iter("Choice")]
    assert allowed == LABELS
    pictures = stored(catalog)
    assert in_folder(folder / "my tasks+1-images") == pictures
    for task, one in zip(tasks, written, strict=True):
        assert str(image.get("value")).removeprefix("$") in one["data"]
        # Label Studio looks for the file below the folder that the lines name.
        address = urlsplit(one["data"]["image"])
        assert address.path == "/data/local-files/"
        file = folder / parse_qs(address.query)["d"][0]
        assert file.read_bytes() == pictures[file.name]
        assert file.stem == task.crop_id
        results = [r for made in one.get("predictions", []) for r in made["result"]]
        assert [r["value"]["choices"][0] for r in results] == [task.suggested] * bool(
            task.suggested
        )
        for result in results:
            assert result["from_name"] == choices.get("name")
            assert result["to_name"] == image.get("name")
    first = next(t["data"] for t in written if t["data"]["crop_id"] == ids(catalog)[1])
    assert (first["camera"], first["video"], first["track"]) == ("S1", "v&1", "v&1/t<1>")
    assert first["time"] == "2017-07-14T02:40:00.500+00:00"
    assert {t["data"]["track"] for t in written if not t["data"]["time"]} == {""}

    said = "\n".join(lines)
    assert "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true" in said
    assert f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT='{folder}'" in said
    assert str(folder / "my tasks+1-images") in said
    assert all(len(line.splitlines()) == 1 for line in lines)


@pytest.mark.parametrize(("format", "name"), [("labelstudio", "t.json"), ("cvat", "t.xml")])
def test_other_tools_preselect_no_doubts(
    catalog: Catalog, tmp_path: Path, format: str, name: str
) -> None:
    """What the team leans to, but does not know, would be taken over unseen."""
    tasks = [replace(task, preselect=False) for task in tasks_of(catalog)]
    assert any(task.suggested for task in tasks)
    write_tasks(catalog, tasks, format, tmp_path / name)
    text = (tmp_path / name).read_text(encoding="utf-8")
    assert "predictions" not in text
    assert "<tag" not in text


@pytest.mark.parametrize("name", ["tasks.zip", "tasks.xml"])
def test_cvat_gets_pictures_tags_and_labels(catalog: Catalog, tmp_path: Path, name: str) -> None:
    tasks = tasks_of(catalog)
    lines = write_tasks(catalog, tasks, "cvat", tmp_path / name)
    if name == "tasks.zip":
        with zipfile.ZipFile(tmp_path / name) as archive:
            assert archive.testzip() is None
            content = {entry: archive.read(entry) for entry in archive.namelist()}
        text = content.pop("annotations.xml")
        pictures = {entry.removeprefix("images/"): image for entry, image in content.items()}
        assert all(entry.startswith("images/") for entry in content)
        assert not (tmp_path / "tasks-images").exists()
    else:
        text = (tmp_path / name).read_bytes()
        pictures = in_folder(tmp_path / "tasks-images")
    assert pictures == stored(catalog)

    root = ElementTree.fromstring(text)
    assert root.tag == "annotations"
    assert root.findtext("version") == "1.1"
    assert root.findtext("meta/task/mode") == "annotation"
    assert root.findtext("meta/task/size") == str(len(tasks))
    assert [label.findtext("name") for label in root.iterfind("meta/task/labels/label")] == LABELS
    suggested = {task.crop_id: task.suggested for task in tasks}
    images = root.findall("image")
    # The numbers are those that CVAT gives to the pictures of an archive, sorted by name.
    names = [str(image.get("name")) for image in images]
    assert names == sorted(pictures)
    assert [image.get("id") for image in images] == [str(number) for number in range(len(names))]
    for image, file in zip(images, names, strict=True):
        with Image.open(io.BytesIO(pictures[file])) as opened:
            assert (image.get("width"), image.get("height")) == tuple(map(str, opened.size))
        tag = suggested[Path(file).stem]
        assert [one.get("label") for one in image.iterfind("tag")] == [tag] * bool(tag)

    labels = json.loads((tmp_path / "tasks-labels.json").read_text())
    for label in labels:
        models.PatchedLabelRequest(**label)  # CVAT's own checks of name and attributes
        assert label["type"] == "tag"
    assert [label["name"] for label in labels] == LABELS
    assert any("tasks-labels.json" in line for line in lines)


def test_a_spreadsheet_gets_rows(catalog: Catalog, tmp_path: Path) -> None:
    tasks = tasks_of(catalog)
    write_tasks(catalog, tasks, "csv", tmp_path / "tasks.csv")
    with (tmp_path / "tasks.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["crop_id"], row["suggested"], row["label"]) for row in rows] == [
        (task.crop_id, task.suggested, "") for task in tasks
    ]
    assert in_folder(tmp_path / "tasks-images") == stored(catalog)
    for row in rows:
        assert (tmp_path / row["image"]).stem == row["crop_id"]
        assert (tmp_path / row["image"]).is_file()


def test_a_stereo_camera_takes_jpegs(tmp_path: Path) -> None:
    """Pillow calls them MPO."""
    catalog = Catalog.register(tmp_path, "S1", CLASSES)
    buffer = io.BytesIO()
    left, right = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    left.save(buffer, "MPO", save_all=True, append_images=[right])
    catalog.add_crops([Crop(buffer.getvalue())])
    write_tasks(catalog, [Task(ids(catalog)[0])], "csv", tmp_path / "t.csv")
    assert [path.suffix for path in (tmp_path / "t-images").iterdir()] == [".jpg"]


def test_a_video_is_no_formula(tmp_path: Path) -> None:
    catalog = Catalog.register(tmp_path, "S1", CLASSES)
    catalog.add_crops([Crop(picture(0), "=cmd()", "1")])
    write_tasks(catalog, [Task(ids(catalog)[0])], "csv", tmp_path / "t.csv")
    assert "'=cmd()" in (tmp_path / "t.csv").read_text()


@pytest.mark.parametrize("format", FILES)
def test_few_pictures_at_a_time_and_the_catalog_stays(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    before = fingerprints(catalog.folder)
    monkeypatch.setattr(writing, "READ_AT_ONCE", 3)
    asked: list[int] = []
    read = catalog.images
    monkeypatch.setattr(catalog, "images", lambda rows: asked.append(len(rows)) or read(rows))
    advanced: list[int] = []
    write_tasks(catalog, tasks_of(catalog), format, tmp_path / FILES[format], advanced.append)
    assert asked == advanced == [3, 3, 3, 1]
    read_answers(catalog, tmp_path / FILES[format])
    assert fingerprints(catalog.folder) == before


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    catalog = make(tmp_path)
    catalog.add_crops([Crop(b"no picture")])
    tasks = tasks_of(catalog)[1:]
    bare = Catalog.register(tmp_path / "outputs", "bare")
    out = tmp_path / "out"
    out.mkdir()
    for call, expected in (
        ((catalog, tasks, "cvat", out / "t.json"), ".zip or .xml"),
        ((catalog, tasks, "csv", out / "t"), "ends with .csv"),
        ((catalog, tasks, "csv", out / "no" / "t.csv"), "there is no folder"),
        ((catalog, [], "csv", out / "t.csv"), "no crop of camera S1 is to be judged"),
        ((bare, tasks, "csv", out / "t.csv"), "has no classes yet"),
        ((catalog, [Task(tasks[0].crop_id, "plane")], "csv", out / "t.csv"), "no class plane"),
        ((catalog, tasks_of(catalog), "csv", out / "t.csv"), "cannot be opened"),
        ((catalog, tasks_of(catalog), "cvat", out / "t.zip"), "cannot be opened"),
    ):
        with pytest.raises(UserError, match=expected) as refused:
            write_tasks(*call)
        assert len(str(refused.value).splitlines()) == 1
    for wrong in ([*tasks, tasks[0]], [Task("0" * 24)]):
        with pytest.raises(ValueError, match=r"twice|not in"):
            write_tasks(catalog, wrong, "csv", out / "t.csv")
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("format", "name", "there"),
    [
        ("labelstudio", "t.json", "t.json"),
        ("labelstudio", "t.json", "t-images/kept"),
        ("labelstudio", "t.json", "t-interface.xml"),
        ("cvat", "t.zip", "t.zip"),
        ("cvat", "t.zip", "t-labels.json"),
        ("cvat", "t.xml", "t-images/kept"),
        ("csv", "t.csv", "t.csv"),
    ],
)
def test_nothing_that_is_there_is_overwritten(
    catalog: Catalog, tmp_path: Path, format: str, name: str, there: str
) -> None:
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        write_tasks(catalog, tasks_of(catalog), format, tmp_path / name)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / there]
    assert (tmp_path / there).read_text() == "mine"


def test_a_finished_export_is_not_written_again(catalog: Catalog, tmp_path: Path) -> None:
    for format, name in FILES.items():
        write_tasks(catalog, tasks_of(catalog), format, tmp_path / f"{format}-{name}")
    before = fingerprints(tmp_path)
    for format, name in FILES.items():
        with pytest.raises(UserError, match="exists already"):
            write_tasks(catalog, tasks_of(catalog), format, tmp_path / f"{format}-{name}")
    assert fingerprints(tmp_path) == before
    assert not list(tmp_path.rglob(".*"))


KILLED = """
import os, signal, sys
from pathlib import Path
from collabteam.catalog import Catalog
from collabteam.reviewing.exchange import tasks
from collabteam.reviewing.exchange.base import EXCHANGE_FORMATS, Task
from collabteam.storage.staging import staging_folder
root, to, format, point = sys.argv[1:]
catalog = Catalog.open(root, "S1")
left = [int(point)]
def die(*_):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
rename = Path.rename
Path.rename = lambda self, target: (die(), rename(self, target))[1]
tasks.READ_AT_ONCE = 4
todo = [Task(name, "car") for name in catalog.index().crop_id]
tasks.write_tasks(catalog, todo, EXCHANGE_FORMATS.load(format)(), Path(to), die)
"""


@pytest.mark.parametrize(("format", "point"), [("csv", 1), ("labelstudio", 5), ("cvat", 4)])
def test_killed_at_any_moment_a_second_run_works(
    catalog: Catalog, tmp_path: Path, format: str, point: int
) -> None:
    """While pictures are written (csv), between the renames (labelstudio), before the last."""
    to = tmp_path / FILES[format]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, catalog.folder.parent, to, format, str(point)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    left = {path.name for path in tmp_path.iterdir()}
    assert [name for name in left if re.fullmatch(r"\.tasks\.[0-9a-f]{16}\.part", name)]
    assert ("tasks-images" in left) == (format == "labelstudio")
    assert not to.exists()
    write_tasks(catalog, tasks_of(catalog), format, to)
    assert not list(tmp_path.rglob(".*"))
    if format != "cvat":
        assert in_folder(tmp_path / "tasks-images") == stored(catalog)
    assert read_answers(catalog, to).problems == []


def test_pictures_of_a_finished_export_are_never_taken_for_leavings(
    catalog: Catalog, tmp_path: Path
) -> None:
    """Killed at the very last step, and then an export of the same name in another format."""
    write_tasks(catalog, tasks_of(catalog), "labelstudio", tmp_path / "t.json")
    (tmp_path / "t-images" / ".unfinished").write_text("t.json")
    with pytest.raises(UserError, match="t-images exists already"):
        write_tasks(catalog, tasks_of(catalog), "csv", tmp_path / "t.csv")
    assert len(list((tmp_path / "t-images").iterdir())) == len(catalog) + 1
    (tmp_path / "t.json").unlink()
    write_tasks(catalog, tasks_of(catalog), "csv", tmp_path / "t.csv")


@pytest.mark.parametrize("stranger", ["notes.txt", "sub/" + "0" * 24 + ".jpg", "0" * 24 + ".jpg"])
def test_somebody_elses_pictures_are_not_taken_for_leavings(
    catalog: Catalog, tmp_path: Path, stranger: str
) -> None:
    """A folder of that name is removed only if nothing in it can be a person's."""
    mine = tmp_path / "t-images" / stranger
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    names_another = stranger == "0" * 24 + ".jpg"
    (tmp_path / "t-images" / ".unfinished").write_text("u.csv" if names_another else "t.csv")
    with pytest.raises(UserError, match="t-images exists already"):
        write_tasks(catalog, tasks_of(catalog), "csv", tmp_path / "t.csv")
    assert mine.read_text() == "mine"


def test_two_at_once(catalog: Catalog, tmp_path: Path) -> None:
    with staging_folder(tmp_path / "t"), staging_folder(tmp_path / "another"):
        with pytest.raises(UserError, match="another command is writing"):
            write_tasks(catalog, tasks_of(catalog), "csv", tmp_path / "t.csv")
        assert not (tmp_path / "t.csv").exists()
    write_tasks(catalog, tasks_of(catalog), "csv", tmp_path / "t.csv")


def test_a_place_that_cannot_be_written(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"x\.csv cannot be written: File name too long"):
        write_tasks(catalog, tasks_of(catalog), "csv", tmp_path / f"{'x' * 255}.csv")

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="the disk is full"):
        write_tasks(catalog, tasks_of(catalog), "csv", tmp_path / "u.csv")
    assert list(tmp_path.iterdir()) == []


# --- there and back --------------------------------------------------------------------------

WORDS = st.dictionaries(
    st.tuples(st.integers(0, 9), st.sampled_from(["ann@x.org", "José", "7"])),
    st.sampled_from(LABELS),
    max_size=20,
)


@settings(deadline=None, max_examples=25)
@given(WORDS, st.lists(st.sampled_from(["", *LABELS]), min_size=10, max_size=10), st.booleans())
def test_every_tool_gives_the_same_answers_back(
    catalog: Catalog, words: dict[tuple[int, str], str], suggested: list[str], other: bool
) -> None:
    names = ids(catalog)
    tasks = [Task(name, label) for name, label in zip(names, suggested, strict=True)]
    said = [(names[number], label, by) for (number, by), label in words.items()]
    # CVAT has one answer a picture, and does not say whose.
    single = [(crop, label, "") for crop, label in {c: w for c, w, _ in reversed(said)}.items()]
    with tempfile.TemporaryDirectory() as folder:
        for format, tool in TOOLS.items():
            file = Path(folder) / format / FILES[format]
            file.parent.mkdir()
            write_tasks(catalog, tasks, format, file)
            given = single if format == "cvat" else said
            answers = read_answers(catalog, tool(file, given, other))
            assert answers.problems == []
            came = [(answer.crop_id, answer.label, answer.reviewer) for answer in answers.accepted]
            assert sorted(came) == sorted(given), format


def test_what_nobody_touched(catalog: Catalog, tmp_path: Path) -> None:
    """A suggestion is no answer, but in CVAT, where a tag that stays is one."""
    tasks = tasks_of(catalog)
    for format, name in FILES.items():
        file = tmp_path / f"{format}-{name}"
        write_tasks(catalog, tasks, format, file)
        answers = read_answers(catalog, file)
        assert answers.problems == []
        came = {answer.crop_id: answer.label for answer in answers.accepted}
        suggested = {task.crop_id: task.suggested for task in tasks if task.suggested}
        assert came == (suggested if format == "cvat" else {})


# --- back ------------------------------------------------------------------------------------


def read(catalog: Catalog, folder: Path, content: str | bytes) -> ImportedAnswers:
    """The answers in a file whose name says nothing."""
    file = folder / "answers"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    answers = read_answers(catalog, file)
    assert all(len(problem.splitlines()) == 1 for problem in answers.problems)
    return answers


def test_label_studio_skipped_and_several_annotators(catalog: Catalog, tmp_path: Path) -> None:
    a, b, c, d, *_ = ids(catalog)
    renamed = annotated("car", 9)
    renamed["result"][0]["from_name"] = "choice"
    ours = annotated("ship", 9)
    ours["result"].insert(0, {**ours["result"][0], "from_name": "weather"})
    ours["result"].insert(0, {"type": "textarea", "from_name": "note", "value": {"text": ["x"]}})
    exported = [
        {"id": 17, "data": {"crop_id": a}, "annotations": [annotated("car"), annotated("ship", 2)]},
        {
            "id": 18,
            "data": {"crop_id": b},
            "annotations": [annotated("car", was_cancelled=True), annotated("unknown", None)],
        },
        {"id": 19, "data": {"crop_id": c}, "annotations": [renamed]},
        {"id": 20, "data": {"crop_id": d}, "annotations": [ours, {"id": 3, "result": []}]},
        {"id": 21, "data": {"crop_id": d}, "annotations": []},
        {"id": 22, "data": {"crop_id": d}, "predictions": [annotated("car")]},
    ]
    assert read(catalog, tmp_path, json.dumps(exported)) == ImportedAnswers(
        [
            ImportedAnswer(a, "car", "ann@x.org", "task 17"),
            ImportedAnswer(a, "ship", "2", "task 17"),
            ImportedAnswer(b, "unknown", "", "task 18"),
            ImportedAnswer(c, "car", "9", "task 19"),
            ImportedAnswer(d, "ship", "9", "task 20"),
        ],
        [],
    )


def test_label_studios_faults_are_told_and_the_rest_is_taken(
    catalog: Catalog, tmp_path: Path
) -> None:
    a, b, *_ = ids(catalog)
    two = annotated("car")
    two["result"][0]["value"]["choices"].append("ship")
    twice = annotated("car")
    twice["result"] *= 2
    wrong: list[tuple[Any, str]] = [
        (annotated("plane"), "task 1: expected one of car, ship, unknown, unusable for crop"),
        (annotated("car", [1]), "task 1: expected the name of the reviewer of crop"),
        (annotated("car", {"email": "a\nb"}), r"'a\nb'"),
        (annotated("car", {"email": "\ud800"}), r"'\ud800'"),
        (annotated(3), "unusable for crop " + a + ", got 3"),  # type: ignore[arg-type]
        (two, "task 1: expected one choice for crop '" + a + "', got 2 choices"),
        (twice, "got 2 results"),
        ({"result": [{"type": "choices", "value": [1]}]}, "expected one choice"),
        ({"result": [3]}, "expected a list of results in the annotation, got a list"),
        ({"result": "car"}, "got 'car'"),
        (5, "task 1: expected an annotation, got 5"),
    ]
    for annotation, expected in wrong:
        exported = [
            {"id": 1, "data": {"crop_id": a}, "annotations": [annotation]},
            {"id": 2, "data": {"crop_id": b}, "annotations": [annotated("car")]},
        ]
        answers = read(catalog, tmp_path, json.dumps(exported))
        assert answers.accepted == [ImportedAnswer(b, "car", "ann@x.org", "task 2")]
        (problem,) = answers.problems
        assert expected in problem
    for entry, expected in (
        ("text", "entry 1: expected a task, got 'text'"),
        ({"data": {}, "annotations": [annotated("car")]}, "a crop of camera S1, got nothing"),
        ({"data": {"crop_id": [a]}, "annotations": [annotated("car")]}, "got a list"),
        ({"data": [a], "annotations": []}, "entry 1: expected 'data' with crop_id"),
        ({"data": {"crop_id": a}, "annotations": {}}, "got a dict"),
        ({"crop_id": a, "label": {"choices": ["car", "ship"]}}, "got a dict"),
    ):
        exported = [entry, {"crop_id": b, "label": "ship", "annotator": 4}]
        answers = read(catalog, tmp_path, json.dumps(exported))
        assert answers.accepted == [ImportedAnswer(b, "ship", "4", "entry 2")]
        (problem,) = answers.problems
        assert expected in problem


def test_the_same_reviewer_twice(catalog: Catalog, tmp_path: Path) -> None:
    a, b, *_ = ids(catalog)
    stands = f"for crop {a}, got another, 'ship'; 'car' in"
    task = {"id": 3, "data": {"crop_id": a}, "annotations": [annotated("car"), annotated("ship")]}
    other = {"id": 4, "data": {"crop_id": b}, "annotations": [annotated("ship")]}
    answers = read(catalog, tmp_path, json.dumps([task, other]))
    assert [answer.label for answer in answers.accepted] == ["car", "ship"]
    assert answers.problems == [
        f"task 3: expected one answer of 'ann@x.org' {stands} task 3 stands"
    ]

    table = f"crop_id,label,reviewer\n{a},car,x\n{a},ship,x\n{a},ship,y\n{b},car,\n{b},car,\n"
    answers = read(catalog, tmp_path, table)
    assert [(answer.label, answer.reviewer) for answer in answers.accepted] == [
        ("car", "x"),
        ("ship", "y"),
        ("car", ""),
    ]
    assert answers.problems == [
        f"line 3: expected one answer of 'x' {stands} line 2 stands",
        f"line 6: expected one answer for crop {b}, got another, 'car'; 'car' in line 5 stands",
    ]

    tag = '<tag label="{}"/>'
    text = "<annotations>" + "".join(
        f'\n<image name="{folder}/{a}.jpg">{tag.format(label)}</image>'
        for folder, label in (("one", "car"), ("two", "ship"))
    )
    answers = read(catalog, tmp_path, text + "</annotations>")
    assert answers.accepted == [ImportedAnswer(a, "car", "", "line 2")]
    assert answers.problems == [f"line 3: expected one answer {stands} line 2 stands"]


def test_cvats_images(catalog: Catalog, tmp_path: Path) -> None:
    a, b, c, d, e, *_ = ids(catalog)
    text = f"""<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><task><name>t</name></task><image name="{e}.jpg"><tag label="car"/></image></meta>
<image id="0" name="deep/er/{a}.tar.jpg"><tag label="car" source="file"></tag></image>
<image id="1" name="C:\\crops\\{b}.png"><tag label="ship"/><box label="car" xtl="1"/></image>
<image id="2" name="{c}"><box label="car" xtl="1"><tag label="ship"/></box></image>
<image id="3" name="{c}.jpg"><tag label="car"/><tag label="car"/></image>
<image id="4" name="{c}.jpg"><tag label="plane"/></image>
<image id="5" name="{c}.jpg"><tag/></image>
<image id="6" name="../../etc/passwd"><tag label="car"/></image>
<image id="7"><tag label="car"/></image>
<image id="8" name="{d}.webp"><tag label="unusable"/></image>
</annotations>"""
    answers = read(catalog, tmp_path, text.replace(".tar.jpg", ".jpg"))
    assert answers.accepted == [
        ImportedAnswer(a, "car", "", "line 4"),
        ImportedAnswer(b, "ship", "", "line 5"),
        ImportedAnswer(d, "unusable", "", "line 12"),
    ]
    one_of = f"expected one of car, ship, unknown, unusable for crop {c}, got"
    crop = "expected the name of a crop of camera S1, got"
    assert answers.problems == [
        f"line 7: expected one tag for image '{c}.jpg', got 'car' and 'car'",
        f"line 8: {one_of} 'plane'",
        f"line 9: {one_of} nothing",
        f"line 10: {crop} 'passwd'",
        f"line 11: {crop} ''",
    ]


def test_what_spreadsheets_make_of_a_table(catalog: Catalog, tmp_path: Path) -> None:
    a, b, c, *_ = ids(catalog)
    clean = ImportedAnswers(
        [ImportedAnswer(a, "car", "", "line 2"), ImportedAnswer(b, "ship", "", "line 3")], []
    )
    for table in (
        f"crop_id,label\n{a},car\n{b},ship",
        f"\ufeffcrop_id;label\r\n{a};car\r\n{b};ship\r\n",
        f'"Label"\t" CROP_ID "\n"car"\t"{a}"\nship \t {b}\n',
        f"note,label,crop_id\n,car,{a}\nx;y,ship,{b}\n,,{c}\n,,\n\n,\n",
        f"crop_id,label,reviewer,\n{a},car,,,,\n{b},ship\n{c}\n",
    ):
        assert read(catalog, tmp_path, table) == clean
    shifted = read(catalog, tmp_path, f" \n\ncrop_id,label\n{a},car\n")
    assert shifted == ImportedAnswers([ImportedAnswer(a, "car", "", "line 4")], [])
    quoted = read(catalog, tmp_path, f'note,crop_id,label\n"two\nlines",{a},car\n')
    assert quoted.accepted == [ImportedAnswer(a, "car", "", "line 3")]


def test_a_tables_faults_are_told_and_the_rest_is_taken(catalog: Catalog, tmp_path: Path) -> None:
    a, b, *_ = ids(catalog)
    long = "x" * 1000
    table = f"label,crop_id\ncar,{a}\nplane,{b}\nship,{long}\nship\nship,{b},3\nCar,{b}\nship,{b}\n"
    answers = read(catalog, tmp_path, table)
    assert answers.accepted == [
        ImportedAnswer(a, "car", "", "line 2"),
        ImportedAnswer(b, "ship", "", "line 8"),
    ]
    one_of = f"expected one of car, ship, unknown, unusable for crop {b}, got"
    crop = "expected the name of a crop of camera S1, got"
    assert answers.problems == [
        f"line 3: {one_of} 'plane'",
        f"line 4: {crop} '{'x' * 56}...",
        f"line 5: {crop} nothing",
        "line 6: expected 2 cells, got 3 cells",
        f"line 7: {one_of} 'Car'",
    ]


BOMB = """<?xml version="1.0"?>
<!DOCTYPE annotations [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<annotations><image name="&b;"><tag label="car"/></image></annotations>"""
FOREIGN = """<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>
<annotations><image name="&e;"/></annotations>"""


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "empty"),
        ("\ufeff \n", "empty"),
        ("[1, 2", "broken JSON"),
        ("[" * 100_000, "broken JSON"),
        ("[" + "9" * 5000 + "]", "broken JSON"),
        ('{"data": {}}', "one JSON object"),
        ("[1, [], {}]", "none of its entries"),
        ('[{"image": "a.jpg", "choice": "car"}]', "none of its entries"),
        ("<html></html>", "begins with <html>"),
        ("<annotations><image", "broken XML"),
        ("<annotations>&undefined;</annotations>", "broken XML"),
        ('<?xml version="1.0" encoding="no-such"?><annotations/>', "broken XML"),
        ("<annotations><track label='car'/></annotations>", "no <image>"),
        ("<annotations>" + "<a>" * 100_000, "nested deeper"),
        (BOMB, "document type"),
        (FOREIGN, "document type"),
        ("\x00\x01\x02", "binary"),
        (b"\xff\xd8\xff\xe0JFIF", "not UTF-8"),
        ("crop_id,label\n".encode("utf-16"), "not UTF-8"),
        ("crop,label\na,car\n", "first line is 'crop,label'"),
        ("crop_id,suggested\n", "first line is 'crop_id,suggested'"),
        ("crop_id,label,label\na,car,ship\n", "first line is"),
        ('crop_id,label\n"a,car\nb,ship\n', "broken CSV"),
        ("crop_id,label\n" + "x" * 200_000 + ",car\n", "broken CSV"),
        ("just some text", "first line is 'just some text'"),
        (b"PK\x03\x04 and no more", "cannot be unpacked"),
        (b"PK\x05\x06" + b"\0" * 18, "no annotations.xml"),
    ],
)
def test_what_is_no_list_of_answers(
    catalog: Catalog, tmp_path: Path, content: str | bytes, expected: str
) -> None:
    with pytest.raises(UserError, match=expected) as refused:
        read(catalog, tmp_path, content)
    message = str(refused.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 600
    for part in (
        *(str(tmp_path / "answers"), "Label Studio's export as JSON", "export it again"),
        *("expected CVAT's annotations.xml", "or CSV with the columns crop_id and label"),
    ):
        assert part in message


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_zips_that_are_no_export_of_cvat(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = b'<annotations><image name="x.jpg"/></annotations>'
    assert read(catalog, tmp_path, zipped({"task/annotations.xml": good})) == ImportedAnswers(
        [], []
    )
    flags = bytearray(zipped({"annotations.xml": good}))
    flags[6] |= 1  # encrypted, says the entry; the directory behind it says so, too
    flags[flags.rindex(b"PK\x01\x02") + 8] |= 1
    for content, expected in (
        (zipped({"picture": b"x"}), "no annotations.xml"),
        (zipped({"a/annotations.xml": good, "b/annotations.xml": good}), "2 annotations.xml"),
        (zipped({"annotations.xml": BOMB.encode()}), "document type"),
        (zipped({"annotations.xml": b""}), "broken XML"),
        (bytes(flags), "cannot be unpacked"),
        (zipped({"annotations.xml": good})[:-30], "cannot be unpacked"),
    ):
        with pytest.raises(UserError, match=expected):
            read(catalog, tmp_path, content)
    # A few kilobytes that unpack to far more are refused before a byte is unpacked.
    monkeypatch.setattr(reading, "LARGEST_TEXT", 2**20)
    with pytest.raises(UserError, match="larger than 1 MB"):
        read(catalog, tmp_path, zipped({"annotations.xml": good + b" " * 2**21}))
    with pytest.raises(UserError, match="larger than 1 MB"):
        read(catalog, tmp_path, b" " * (2**20 + 1))


def test_what_is_no_file(catalog: Catalog, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, expected in (
        (tmp_path / "missing.json", "does not exist"),
        (tmp_path, "is a folder"),
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path / "pipe" / "below", "cannot be read"),
    ):
        with pytest.raises(UserError, match=expected) as refused:
            read_answers(catalog, path)
        assert len(str(refused.value).splitlines()) == 1


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_damaged_file_never_breaks_the_reader(catalog: Catalog, data: st.DataObject) -> None:
    """A byte changed, a piece taken out: answers, problems or one line, and only true crops."""
    a = ids(catalog)[0]
    table = f"crop_id,label,reviewer\n{a},car,ann\n".encode()
    xml = f'<annotations><image name="{a}.jpg"><tag label="car"/></image></annotations>'.encode()
    task = {"id": 1, "data": {"crop_id": a}, "annotations": [annotated("car")]}
    whole = [table, xml, zipped({"annotations.xml": xml}), json.dumps([task]).encode()]
    content = bytearray(data.draw(st.sampled_from(whole)))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        stop = start + data.draw(st.integers(0, 8))
        content[start:stop] = data.draw(st.binary(max_size=4))
    with tempfile.TemporaryDirectory() as folder:
        try:
            answers = read(catalog, Path(folder), bytes(content))
        except UserError as error:
            answers = ImportedAnswers([], [str(error)])
    assert all(answer.crop_id == a and answer.label in LABELS for answer in answers.accepted)
    assert all(len(problem.splitlines()) == 1 for problem in answers.problems)
