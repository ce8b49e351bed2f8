"""CVAT for images 1.1."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO
from xml.sax.saxutils import quoteattr

from collabteam.annotation_tools.cvat import (
    ANNOTATIONS,
    NotAnnotations,
    annotations_head,
    labels_json,
    read_annotations,
)
from collabteam.errors import first_line
from collabteam.reviewing.exchange.answers import (
    AnswerCollector,
    NotAnAnswerFile,
    check_size,
    read_content,
    shown,
)
from collabteam.reviewing.exchange.base import ExchangeFormat, Task, TaskList, WrittenTask

_ARCHIVES = (b"PK\x03\x04", b"PK\x05\x06")


class Cvat(ExchangeFormat):
    """``NAME.zip`` with the pictures or ``NAME.xml`` without, and ``NAME-labels.json``.

    CVAT does not distinguish an uploaded tag from a confirmed one, so every tag is an answer. An
    image with two tags has no answer.
    """

    name = "cvat"
    suffixes = (".zip", ".xml")
    answers = "CVAT's annotations.xml or the zip with it"
    archive_member = ANNOTATIONS

    def arrange(self, tasks: Sequence[Task]) -> Sequence[Task]:
        """Sort by name, because CVAT numbers the pictures of an archive in this order."""
        return sorted(tasks, key=lambda task: task.crop_id)

    def companion(self, to: Path, labels: Sequence[str]) -> tuple[Path, str]:
        """Return the file with the labels of a project."""
        return _labels_file(to), labels_json(labels)

    def write(self, tasks: Iterator[WrittenTask], file: TextIO, about: TaskList) -> None:
        """Write ``annotations.xml``; suggestions are tags of the source ``auto``."""
        file.write(annotations_head(about.camera, about.labels, about.count))
        for number, task in enumerate(tasks):
            file.write(
                f'  <image id="{number}" name={quoteattr(task.file)} width="{task.width}" '
                f'height="{task.height}">\n'
            )
            if task.suggested and task.preselect:
                file.write(f'    <tag label={quoteattr(task.suggested)} source="auto"></tag>\n')
            file.write("  </image>\n")
        file.write("</annotations>\n")

    def instructions(self, to: Path, images: Path, count: int) -> list[str]:
        """Explain how to set up a project."""
        extra = _labels_file(to)
        packed = to.suffix.lower() == ".zip"
        told = f"the labels in {extra}" if packed else f"pictures in {images}, labels in {extra}"
        opened = (
            f"in the project: Actions > Import dataset > CVAT 1.1: {to.name}"
            if packed
            else f"in the project: a new task with all files of {images.name}; then in the task: "
            f"Actions > Upload annotations > CVAT 1.1: {to.name}"
        )
        return [
            f"{count} crop{'s' * (count != 1)} in {to}, {told}",
            f"in CVAT: a new project, Raw: paste {extra.name}",
            opened,
            "one tag per picture; a suggestion that stays counts as confirmed, so remove those "
            "that no person has checked",
            "when it is done: Actions > Export task dataset > CVAT for images 1.1",
        ]

    def recognises(self, start: bytes) -> bool:
        """Accept XML or a zip."""
        return start[:1] == b"<" or start[:4] in _ARCHIVES

    def read(self, file: Path, answers: AnswerCollector) -> None:
        """Read the tags of all images from ``annotations.xml`` or the zip that holds it."""
        with file.open("rb") as stream:
            is_archive = stream.read(4) in _ARCHIVES
        if is_archive:
            _read_archive(file, answers)
        else:
            _read_xml([read_content(file)], answers)


def _labels_file(to: Path) -> Path:
    return to.with_name(f"{to.stem}-labels.json")


def _read_archive(file: Path, answers: AnswerCollector) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            found = [
                entry
                for entry in archive.infolist()
                if entry.filename.rsplit("/", 1)[-1] == ANNOTATIONS
            ]
            if len(found) != 1:
                raise NotAnAnswerFile(f"the zip holds {len(found) or 'no'} {ANNOTATIONS}")
            # zipfile unpacks no more of an entry than its declared size.
            check_size(found[0].file_size)
            with archive.open(found[0]) as stream:
                _read_xml(iter(lambda: stream.read(2**16), b""), answers)
    except (
        *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError),
        *(RuntimeError, NotImplementedError, ValueError),  # encrypted, or packed in another way
    ) as error:
        raise NotAnAnswerFile(f"the zip cannot be unpacked ({first_line(error)})") from error


def _read_xml(chunks: Iterable[bytes], answers: AnswerCollector) -> None:
    """Collect the answers while parsing."""
    try:
        for image in read_annotations(chunks):
            where = f"line {image.line}"
            crop_id = image.name.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
            if len(image.tags) > 1:
                both = " and ".join(map(shown, image.tags[:2]))
                answers.problem(where, f"one tag for image {shown(image.name)}", both)
            elif image.tags:
                answers.answer(where, crop_id, image.tags[0])
    except NotAnnotations as error:
        raise NotAnAnswerFile(str(error)) from error
