"""Read the answers that another annotation tool or a spreadsheet exported."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from collabteam.catalog.catalog import Catalog
from collabteam.errors import UserError, first_line
from collabteam.reviewing.exchange.base import EXCHANGE_FORMATS, ExchangeFormat
from collabteam.settings import UNKNOWN, UNUSABLE

LARGEST_TEXT = 256 * 2**20
"""The largest unpacked size of a file of answers, in bytes."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_START = 64  # number of bytes by which a format is recognised


@dataclass(frozen=True)
class ImportedAnswer:
    """One person's answer about one crop, as read from a file.

    Attributes:
        crop_id: The crop, one of the catalog.
        label: A class of the camera, ``unknown`` or ``unusable``.
        reviewer: The reviewer's name; ``""`` if the file does not name one.
        where: Its place in the file, such as ``line 3`` or ``task 17``.
    """

    crop_id: str
    label: str
    reviewer: str
    where: str


@dataclass(frozen=True)
class ImportedAnswers:
    """The answers in a file.

    Attributes:
        accepted: In the order of the file; each reviewer has at most one answer for a crop.
        problems: A line for each skipped entry: its place, what was expected and what was found.
    """

    accepted: list[ImportedAnswer]
    problems: list[str]


class NotAnAnswerFile(Exception):
    """The file is not a list of answers; the message says why."""


class AnswerCollector:
    """Collects the answers in a file, and checks them against the camera.

    Args:
        catalog: The camera.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._labels = (*catalog.classes, UNKNOWN, UNUSABLE)
        # Problems as texts, and answers as place, crop, label and reviewer, in the file's order.
        self._found: list[str | tuple[str, object, object, object]] = []

    def problem(self, where: str, expected: str, came: str) -> None:
        """Record that an entry was skipped.

        Args:
            where: Its place in the file.
            expected: What was expected, in words.
            came: What was found, in words or formatted by :func:`shown`.
        """
        self._found.append(f"{where}: expected {expected}, got {came}")

    def answer(self, where: str, crop_id: object, label: object, reviewer: object = "") -> None:
        """Record an answer, to be checked later; a wrong one becomes a problem.

        Args:
            where: Its place in the file.
            crop_id: The crop's name.
            label: The answer.
            reviewer: The reviewer, a text or a number; None or ``""`` if the file names none.
        """
        self._found.append((where, crop_id, label, reviewer))

    def result(self) -> ImportedAnswers:
        """Check all answers. If a reviewer gave two answers for a crop, the first one counts."""
        known = self._known()
        accepted: dict[tuple[str, str], ImportedAnswer] = {}
        problems: list[str] = []
        for one in self._found:
            if isinstance(one, str):
                problems.append(one)
                continue
            checked = self._checked(*one, known)
            if isinstance(checked, str):
                problems.append(checked)
                continue
            before = accepted.setdefault((checked.crop_id, checked.reviewer), checked)
            if before is not checked:
                whose = f"of {checked.reviewer!r} " if checked.reviewer else ""
                problems.append(
                    f"{checked.where}: expected one answer {whose}for crop {checked.crop_id}, got "
                    f"another, {checked.label!r}; {before.label!r} in {before.where} stands"
                )
        return ImportedAnswers(list(accepted.values()), problems)

    def _known(self) -> set[str]:
        """Return the named crops that the camera has."""
        named = (one[1] for one in self._found if isinstance(one, tuple))
        # Arrow rejects lone surrogates, and no crop has such a name.
        names = list({name for name in named if isinstance(name, str) and name.isascii()})
        rows = self._catalog.index().crop_id.find(names)
        return {name for name, row in zip(names, rows.tolist(), strict=True) if row >= 0}

    def _checked(
        self, where: str, crop_id: object, label: object, reviewer: object, known: set[str]
    ) -> ImportedAnswer | str:
        """Return the answer, or the problem with it."""
        if reviewer is None:
            reviewer = ""
        elif isinstance(reviewer, int) and not isinstance(reviewer, bool):
            reviewer = str(reviewer)
        if not isinstance(crop_id, str) or crop_id not in known:
            expected, came = f"the name of a crop of camera {self._catalog.name}", crop_id
        elif not isinstance(label, str) or label not in self._labels:
            expected, came = f"one of {', '.join(self._labels)} for crop {crop_id}", label
        elif not isinstance(reviewer, str) or not reviewer.isprintable():
            expected, came = f"the name of the reviewer of crop {crop_id}", reviewer
        else:
            return ImportedAnswer(crop_id, label, reviewer, where)
        return f"{where}: expected {expected}, got {shown(came)}"


def shown(value: object) -> str:
    """Format any value as one short line."""
    if value is None:
        return "nothing"
    text = repr(value) if isinstance(value, str | int | float) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def read_answers(
    catalog: Catalog, file: Path, formats: Sequence[ExchangeFormat] | None = None
) -> ImportedAnswers:
    """Read the answers that another annotation tool or a spreadsheet exported.

    The format is recognised by the content. Crops without an answer are skipped silently.

    Only the file itself is read: paths and addresses in it are not followed. The catalog does not
    change.

    Args:
        catalog: The camera.
        file: The exported file.
        formats: The formats to try; all registered ones by default.

    Returns:
        The accepted answers, and the problems.

    Raises:
        UserError: The file cannot be read, or is not a list of answers.
    """
    if formats is None:
        formats = [EXCHANGE_FORMATS.load(name)() for name in EXCHANGE_FORMATS.names()]
    formats = sorted(formats, key=lambda format: format.takes_any_text)
    answers = AnswerCollector(catalog)
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # reading a pipe would never end
            raise NotAnAnswerFile("it is a folder" if file.is_dir() else "it is not a regular file")
        start = _start_of(file)
        for format in formats:
            if format.recognises(start):
                format.read(file, answers)
                return answers.result()
        raise NotAnAnswerFile("no format begins like this")
    except NotAnAnswerFile as error:
        *others, last = (format.answers for format in formats)
        expected = f"{', '.join(others)}, or {last}" if others else last
        raise UserError(
            f"{file} is not a list of answers: {error}; expected {expected}: export it again"
        ) from error
    except FileNotFoundError as error:
        raise UserError(f"{file} does not exist: name the file that the tool exported") from error
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise UserError(f"{file} cannot be read: {reason}; expected a file of answers") from error


def _start_of(file: Path) -> bytes:
    """Return the first bytes of a file after any white space."""
    with file.open("rb") as stream:
        start = stream.read(2**16).removeprefix(_BYTE_ORDER_MARK).lstrip()
        while not start and stream.tell() <= LARGEST_TEXT and (more := stream.read(2**16)):
            start = more.lstrip()
        check_size(0 if start else stream.tell())
    if not start:
        raise NotAnAnswerFile("it is empty")
    return start[:_START]


def check_size(size: int) -> None:
    """Refuse a file of answers that is too large.

    Raises:
        NotAnAnswerFile: It has more bytes than ``LARGEST_TEXT``.
    """
    if size > LARGEST_TEXT:
        raise NotAnAnswerFile(f"it is larger than {LARGEST_TEXT // 2**20} MB")


def read_content(file: Path) -> bytes:
    """Read the whole file.

    Raises:
        NotAnAnswerFile: It is too large.
        OSError: It cannot be read.
    """
    with file.open("rb") as stream:
        data = stream.read(LARGEST_TEXT + 1)
    check_size(len(data))
    return data


def read_text(file: Path) -> str:
    """Read the whole file as text, without a byte order mark.

    Raises:
        NotAnAnswerFile: It is too large, or not UTF-8 text.
        OSError: It cannot be read.
    """
    data = read_content(file)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotAnAnswerFile(f"byte {error.start} is not UTF-8 text") from error
    if "\0" in text:
        raise NotAnAnswerFile("it is binary")
    return text
