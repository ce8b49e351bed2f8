"""A table for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from collabteam.annotation_tools.spreadsheet import no_formula
from collabteam.errors import first_line
from collabteam.reviewing.exchange.answers import (
    AnswerCollector,
    NotAnAnswerFile,
    read_text,
    shown,
)
from collabteam.reviewing.exchange.base import ExchangeFormat, TaskList, WrittenTask

_COLUMNS = (
    *("crop_id", "image", "suggested", "label", "reviewer"),
    *("camera", "video", "track", "time"),
)


class Csv(ExchangeFormat):
    """One row per crop, with an empty column ``label`` to fill in.

    Answers may be separated by commas, semicolons or tabs.
    """

    name = "csv"
    suffixes = (".csv",)
    answers = "CSV with the columns crop_id and label"
    takes_any_text = True

    def write(self, tasks: Iterator[WrittenTask], file: TextIO, about: TaskList) -> None:
        """Write the table."""
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(_COLUMNS)
        for task in tasks:
            picture = no_formula(f"{about.images}/{task.file}")
            video, track = no_formula(task.video), no_formula(task.track)
            rows.writerow(
                (task.crop_id, picture, task.suggested, "", "", about.camera, video, track,
                 task.time)
            )  # fmt: skip

    def instructions(self, to: Path, images: Path, count: int) -> list[str]:
        """Explain how to fill in the table."""
        return [
            f"{count} crop{'s' * (count != 1)} in {to}, the pictures in {images}",
            "fill in the column 'label', and 'reviewer' if you like; what stays empty is not "
            "answered",
            "when it is done: save it as CSV, in UTF-8",
        ]

    def recognises(self, start: bytes) -> bool:
        """Accept any text."""
        return True

    def read(self, file: Path, answers: AnswerCollector) -> None:
        """Read the rows whose column ``label`` is filled in."""
        text = read_text(file)
        first = text.lstrip().splitlines()[0]
        header: list[str] = []
        try:
            for delimiter in (",", ";", "\t"):
                cells = next(csv.reader([first], delimiter=delimiter))
                header = [cell.strip().lower() for cell in cells]
                if "crop_id" in header:
                    break
            if header.count("crop_id") != 1 or header.count("label") != 1:
                raise NotAnAnswerFile(f"its first line is {shown(first)}")
            # Strict: otherwise an unclosed quote would swallow the lines after it.
            rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
            while not any(map(str.strip, next(rows))):
                pass  # empty lines before the header
            for cells in rows:
                where = f"line {rows.line_num}"
                row = dict(zip(header, map(str.strip, cells), strict=False))
                if any(map(str.strip, cells[len(header) :])):
                    answers.problem(where, f"{len(header)} cells", f"{len(cells)} cells")
                elif row.get("label"):
                    answers.answer(where, row.get("crop_id"), row["label"], row.get("reviewer"))
        except csv.Error as error:
            raise NotAnAnswerFile(f"it is broken CSV ({first_line(error)})") from error
