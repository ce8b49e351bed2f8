"""Cells of our CSV tables: none is a formula in any language, and each comes back as it was."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collabteam.annotation_tools.spreadsheet import no_formula, without_escape
from collabteam.exporting.crops import ExportedCrop
from collabteam.exporting.metadata_table import MetadataTable
from collabteam.monitoring.windows import TimeWindow, TimeWindows
from collabteam.reporting.time_windows import to_csv

SIGNS = "=+-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u2212"
BEFORE = (
    "",
    " ",
    "\xa0",
    "\u3000",
    '"',
    "'",
    "\ufeff",
    "\xad",
    "\u061c",
    "\u180e",
    "\u2066",
    "\u3164",
)
FORMULAS = [
    *(f"{before}{sign}1+1" for sign in SIGNS for before in BEFORE),
    *("\tx", "\rx", "\nx", " \t=1", "a;=1+1", "a; =1+1", "a\t=1", "a,\"=1", "a|@x", "a\n-1", ";=1"),
]  # fmt: skip


def begins_formula(cell: str) -> bool:
    unseen = "".join(BEFORE).replace("'", "")
    return cell.lstrip(unseen).startswith((*SIGNS, "\t", "\r", "\n"))


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_is_a_formula(text: str) -> None:
    escaped = no_formula(text)
    assert not begins_formula(escaped)
    for separator in ";,|\t\r\n":
        parts = escaped.split(separator)
        assert not any(part.lstrip(" \xa0\u3000\ufeff\"'")[:1] in SIGNS and part[:1] != "'"
                       for part in parts if part.strip(" \"'\xa0\u3000\ufeff"))  # fmt: skip
    assert without_escape(escaped) == text


@pytest.mark.parametrize(
    "text", ["", "a-b.mp4", "x=1", "a;b", "it's", "'quoted'", "2026-01-01", "a@b"]
)
def test_what_is_no_formula_stays(text: str) -> None:
    assert no_formula(text) == text == without_escape(text)


@given(st.text(st.sampled_from("=+-@;,|\t\r\n \"'ab\u3000\uff1d"), max_size=12))
@example(";\t=")
@example("'\tx")
@example("''=")
def test_it_comes_back_as_it_was(text: str) -> None:
    assert without_escape(no_formula(text)) == text


def test_every_text_of_a_table_is_escaped() -> None:
    stream = io.StringIO()
    crop = ExportedCrop(
        crop_id="0" * 24, image=b"", extension="png", width=1, height=1, label="car",
        split="train", source="person", confidence=None, round=None, team="", proposed="\uff1dp",
        video="=v", track="a;=t", frame=None, time=None, box=None,
    )  # fmt: skip
    MetadataTable(stream).add(crop, "images/0.png")
    (row,) = csv.DictReader(io.StringIO(stream.getvalue()))
    assert (row["proposed"], row["video"], row["track"]) == ("'\uff1dp", "'=v", "a;'=t")


def test_the_table_by_video_is_escaped() -> None:
    window = TimeWindow("=cmd()", None, 1, {"car": 1}, 0.5)
    text = to_csv(TimeWindows(0, 1, [], None, [window]))
    (row,) = csv.DictReader(io.StringIO(text))
    assert row["name"] == "'=cmd()"
