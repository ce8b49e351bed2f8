"""Every registered exchange format, with the tool's part played as its documentation says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import pytest
from annotating import TOOLS
from conftest import Call

from collabteam.reviewing.exchange.answers import AnswerCollector, read_text
from collabteam.reviewing.exchange.base import (
    EXCHANGE_FORMATS,
    ExchangeFormat,
    TaskList,
    WrittenTask,
)
from collabteam.testing.exchange_formats import check_exchange_format


@pytest.mark.parametrize("other", [False, True])
@pytest.mark.parametrize("name", EXCHANGE_FORMATS.names())
def test_every_format_conforms(name: str, other: bool) -> None:
    format_class = EXCHANGE_FORMATS.load(name)
    assert format_class.name == name
    check_exchange_format(format_class, lambda file, said: TOOLS[name](file, list(said), other))


# --- the suite notices ---------------------------------------------------------------------------


class Lines(ExchangeFormat):
    """Lines of crop, label and reviewer."""

    name = "lines"
    suffixes = (".txt",)
    answers = "our lines"

    def write(self, tasks: Iterator[WrittenTask], file: TextIO, about: TaskList) -> None:
        for task in tasks:
            file.write(f"#lines {task.crop_id}\n")

    def instructions(self, to: Path, images: Path, count: int) -> list[str]:
        return [f"fill in {to}"]

    def recognises(self, start: bytes) -> bool:
        return start.startswith(b"#lines")

    def read(self, file: Path, answers: AnswerCollector) -> None:
        for number, line in enumerate(read_text(file).splitlines(), 1):
            self.take(f"line {number}", line.split()[1:], answers)

    def take(self, where: str, words: list[str], answers: AnswerCollector) -> None:
        if len(words) == 3:
            answers.answer(where, *words)


def fill_in(file: Path, given: Sequence[tuple[str, str, str]]) -> Path:
    answered = file.with_name("answered")
    answered.write_text("".join(f"#lines {' '.join(words)}\n" for words in given))
    return answered


class Guesses(Lines):
    """Answers where nobody did."""

    def take(self, where: str, words: list[str], answers: AnswerCollector) -> None:
        answers.answer(where, words[0], words[1] if len(words) > 1 else "train", "")


class Forgets(Lines):
    def take(self, where: str, words: list[str], answers: AnswerCollector) -> None:
        if where != "line 3":
            super().take(where, words, answers)


class Breaks(Lines):
    """An IndexError on lines without a crop."""

    def take(self, where: str, words: list[str], answers: AnswerCollector) -> None:
        words[0]
        super().take(where, words, answers)


class Skips(Lines):
    def write(self, tasks: Iterator[WrittenTask], file: TextIO, about: TaskList) -> None:
        super().write((task for task, _ in zip(tasks, range(5), strict=False)), file, about)


def test_a_format_of_ones_own_conforms() -> None:
    check_exchange_format(Lines, fill_in)
    check_exchange_format(Lines)


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (Guesses, AssertionError, "was not answered"),
        (Forgets, AssertionError, "answers did not come back"),
        (Skips, AssertionError, "every task is consumed once"),
        (Breaks, IndexError, "index out of range"),
    ],
)
def test_the_suite_finds_what_is_wrong(
    wrong: type[ExchangeFormat], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        check_exchange_format(wrong, fill_in)


def test_an_own_format_through_the_command(
    root: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks out and answers in, with a class that is nowhere registered."""
    (tmp_path / "lib").mkdir()
    source = Path(__file__).read_text(encoding="utf-8")
    (tmp_path / "lib" / "our_tool.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    base = (f"root={root}", "camera=sim", "format=our_tool:Lines")
    tasks = tmp_path / "tasks.txt"
    said = call("review", *base, f"export={tasks}", "seed_per_class=2")
    assert said.code == 0, said.err
    crops = [line.split()[1] for line in tasks.read_text().splitlines()]
    answered = fill_in(tasks, [(crop, "cyclist", "ben") for crop in crops])
    said = call("review", *base, f"import={answered}")
    assert said.code == 0, said.err
    assert f"{len(crops)} answers taken in" in said.out
