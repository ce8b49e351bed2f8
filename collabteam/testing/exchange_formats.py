"""Conformance of exchange formats.

A test of your own format is one line::

    check_exchange_format(MyFormat, answer=my_tool)
"""

from __future__ import annotations

import random
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from collabteam.catalog import Catalog, Crop
from collabteam.errors import UserError
from collabteam.reviewing.exchange.answers import ImportedAnswers, read_answers
from collabteam.reviewing.exchange.base import ExchangeFormat, Task
from collabteam.reviewing.exchange.tasks import READ_AT_ONCE, write_tasks
from collabteam.settings import UNKNOWN, UNUSABLE
from collabteam.testing.labelled_camera import CLASSES, NAMES, encoded_picture

Tool = Callable[[Path, Sequence[tuple[str, str, str]]], Path]
"""Plays the annotation tool.

It takes a file of tasks and the answers to give (crop, label and reviewer; at most one per crop),
and returns the file that the tool would export.
"""

_DAMAGES = 300
_JUNK = (
    *(b"", b" \n", b"\x00\x01\x02", b"\xff\xd8\xff\xe0JFIF", b"PK\x03\x04 and no more"),
    *(b"PK\x05\x06" + b"\0" * 18, b"[" * 100_000, b"<annotations>" + b"<a>" * 100_000),
    *(b'[{"data": null}]', b'[{"crop_id": ["a"], "label": {"b": 1}}]', b"[1, [], {}]"),
    *(b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>', b'crop_id,label\n"a'),
    *("crop_id,label\n\ud800,x".encode("utf-8", "surrogatepass"), "a".encode("utf-16")),
)


def check_exchange_format(format_class: type[ExchangeFormat], answer: Tool | None = None) -> None:
    """Raise unless an exchange format meets its contract.

    The checks: every task's picture is written once, byte for byte; tasks appear completely or not
    at all and overwrite nothing; answers come back unchanged; a damaged or hostile file gives only
    a message.

    Args:
        format_class: The format.
        answer: Plays the annotation tool. Without it, the suite reads answers only from the tasks
            themselves.

    Raises:
        AssertionError: A check failed; the message says what was expected and found.
    """
    _check_texts(format_class)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        catalog = _make_camera(root / "cameras")
        for suffix in format_class.suffixes:
            out = root / suffix.removeprefix(".")
            out.mkdir()
            _check_targets(format_class, out / f"tasks{suffix}")
            _check_tasks(format_class, catalog, out / f"tasks{suffix}")
            _check_untouched(format_class, catalog, out / f"tasks{suffix}")
            if answer:
                _check_answers(format_class, catalog, out / f"tasks{suffix}", answer)
        _check_failures(format_class, catalog, root / "failures")
        _check_hostile_files(format_class, catalog, root / "hostile", answer)


def _make_camera(root: Path) -> Catalog:
    catalog = Catalog.register(root, "S1", CLASSES)
    catalog.add_crops(
        Crop(encoded_picture(number), NAMES[number % 7], NAMES[number % 5], number, 1e9 + number)
        if number % 3
        else Crop(encoded_picture(number))
        for number in range(READ_AT_ONCE + 10)
    )
    return catalog


def _tasks(catalog: Catalog) -> list[Task]:
    """Make tasks in an order that differs from the catalog's, some without a suggestion."""
    suggested = ["", *catalog.classes, UNKNOWN, UNUSABLE]
    names = catalog.index().crop_id.tolist()[::-1]
    return [Task(name, suggested[place % len(suggested)]) for place, name in enumerate(names)]


def _check_texts(format_class: type[ExchangeFormat]) -> None:
    for name in ("name", "answers", "archive_member"):
        text = getattr(format_class, name, None)
        is_line = isinstance(text, str) and len(text.strip().splitlines()) == 1
        assert is_line, f"{name}: expected a text of one line, got {text!r}"
    suffixes = format_class.suffixes
    are_suffixes = bool(suffixes) and all(
        one.startswith(".") and one == one.lower() for one in suffixes
    )
    assert are_suffixes, f"suffixes: expected endings such as .json, got {suffixes!r}"


def _check_targets(format_class: type[ExchangeFormat], to: Path) -> None:
    check = format_class().check_target
    _must_refuse("another ending", lambda: check(to.with_suffix(".wrong")))
    _must_refuse("a folder that is not there", lambda: check(to.parent / "no" / to.name))
    format_class().check_target(to)
    format_class().check_target(to.with_suffix(to.suffix.upper()))


def _pictures(to: Path) -> dict[str, bytes]:
    """Return the written pictures by file name, without the folder."""
    if to.suffix == ".zip":
        with zipfile.ZipFile(to) as archive:
            names = [name for name in archive.namelist() if name.startswith("images/")]
            assert len(set(names)) == len(names), "a picture is in the archive twice"
            return {name.removeprefix("images/"): archive.read(name) for name in names}
    folder = to.with_name(f"{to.stem}-images")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _check_tasks(format_class: type[ExchangeFormat], catalog: Catalog, to: Path) -> None:
    tasks = _tasks(catalog)
    advanced: list[int] = []
    version = catalog.log_version()
    lines = write_tasks(catalog, tasks, format_class(), to, advanced.append)
    assert sum(advanced) == len(tasks), "expected that every task is consumed once"
    assert catalog.log_version() == version, "writing tasks changed the catalog"
    names = catalog.index().crop_id.tolist()
    images = dict(zip(names, catalog.images(range(len(catalog))), strict=True))
    written = {Path(name).stem: image for name, image in _pictures(to).items()}
    assert written == images, "expected every picture once, byte for byte"
    assert to.is_file(), f"expected the file {to.name}"
    broken = [line for line in lines if not line.strip() or len(line.splitlines()) != 1]
    assert lines, "instructions: expected lines for the user"
    assert not broken, f"instructions: expected lines, got {broken}"
    hidden = [path.name for path in to.parent.rglob(".*")]
    assert not hidden, f"expected no hidden files, got {hidden}"
    before = {path: path.read_bytes() for path in to.parent.rglob("*") if path.is_file()}
    _must_refuse("a second export", lambda: write_tasks(catalog, tasks, format_class(), to))
    after = {path: path.read_bytes() for path in to.parent.rglob("*") if path.is_file()}
    assert after == before, "a second export changed the first one"


def _read(format_class: type[ExchangeFormat], catalog: Catalog, file: Path) -> ImportedAnswers:
    found = read_answers(catalog, file, [format_class()])
    broken = [line for line in found.problems if len(line.splitlines()) != 1]
    assert not broken, f"expected problems of one line each, got {broken}"
    names = set(catalog.index().crop_id.tolist())
    labels = {*catalog.classes, UNKNOWN, UNUSABLE}
    for one in found.accepted:
        assert one.crop_id in names, f"accepted an answer for {one.crop_id!r}, which is no crop"
        assert one.label in labels, f"accepted {one.label!r}, which is no label"
    return found


def _check_untouched(format_class: type[ExchangeFormat], catalog: Catalog, to: Path) -> None:
    """Check that unanswered tasks give back at most their suggestions."""
    found = _read(format_class, catalog, to)
    suggested = {task.crop_id: task.suggested for task in _tasks(catalog)}
    assert not found.problems, f"expected no problems with our own tasks, got {found.problems[0]}"
    for one in found.accepted:
        assert one.label == suggested[one.crop_id], (
            f"crop {one.crop_id}: {one.label!r} was not answered"
        )


def _given(catalog: Catalog) -> list[tuple[str, str, str]]:
    labels = [*catalog.classes, UNKNOWN, UNUSABLE]
    reviewers = ["ann@x.org", "José", "7"]
    return [
        (name, labels[(3 * place + 1) % len(labels)], reviewers[place % 3])
        for place, name in enumerate(catalog.index().crop_id.tolist())
        if place % 4 != 2  # some stay without an answer
    ]


def _check_answers(
    format_class: type[ExchangeFormat], catalog: Catalog, to: Path, answer: Tool
) -> None:
    given = _given(catalog)
    file = answer(to, given)
    found = _read(format_class, catalog, file)
    assert not found.problems, f"expected no problems, got {found.problems[0]}"
    came = {one.crop_id: one for one in found.accepted}
    assert len(came) == len(found.accepted), "an answer came back twice"
    missing = {crop for crop, _, _ in given} - came.keys()
    assert not missing, f"{len(missing)} of {len(given)} answers did not come back"
    more = came.keys() - {crop for crop, _, _ in given}
    assert not more, f"{len(more)} answers came back that were not given"
    for crop_id, label, reviewer in given:
        one = came[crop_id]
        assert one.label == label, f"crop {crop_id}: expected {label!r}, got {one.label!r}"
        assert one.reviewer in ("", reviewer), (
            f"crop {crop_id}: expected reviewer {reviewer!r}, got {one.reviewer!r}"
        )
    # Without a list of formats, the content must identify the format.
    assert format_class().recognises(file.read_bytes().lstrip()[:64]), "its export is unrecognised"


def _check_failures(format_class: type[ExchangeFormat], catalog: Catalog, out: Path) -> None:
    out.mkdir()
    to = out / f"tasks{format_class.suffixes[0]}"
    other = Catalog.register(out.with_name("other cameras"), "S2", CLASSES)
    crops = [Crop(encoded_picture(0)), Crop(b"no picture")]
    other.add_crops(crops)
    tasks = [Task(crop.crop_id) for crop in crops]
    _must_refuse("no tasks", lambda: write_tasks(catalog, [], format_class(), to))
    _must_refuse("a broken picture", lambda: write_tasks(other, tasks, format_class(), to))
    left = [path.name for path in out.iterdir()]
    assert not left, f"a failed export left {left} behind"


def _check_hostile_files(
    format_class: type[ExchangeFormat], catalog: Catalog, out: Path, answer: Tool | None
) -> None:
    out.mkdir()
    to = out / f"tasks{format_class.suffixes[0]}"
    write_tasks(catalog, _tasks(catalog)[:4], format_class(), to)
    names = {task.crop_id for task in _tasks(catalog)[:4]}
    given = [one for one in _given(catalog) if one[0] in names]
    whole = [to.read_bytes(), *([answer(to, given).read_bytes()] if answer else [])]
    chance = random.Random(0)
    contents = list(_JUNK)
    for number in range(_DAMAGES):
        damaged = bytearray(whole[number % len(whole)])
        for _ in range(chance.randint(1, 3)):
            start = chance.randint(0, len(damaged))
            damaged[start : start + chance.randint(0, 8)] = chance.randbytes(chance.randint(0, 4))
        contents.append(bytes(damaged))
    file = out / "answers"
    for content in contents:
        file.write_bytes(content)
        refusal = ""
        try:
            _read(format_class, catalog, file)
        except UserError as error:
            refusal = str(error)
        assert len(refusal.splitlines()) <= 1, f"expected one line, got {refusal}"


def _must_refuse(what: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except UserError:
        return
    raise AssertionError(f"expected a UserError for {what}")
