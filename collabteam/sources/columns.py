"""The columns of a table of crops besides the pictures: checked, cleaned and converted.

A table is read twice: :meth:`Columns.survey` sees every row before anything is written, so that a
table with a value that cannot be used is refused as a whole; :meth:`Columns.rows` then gives them.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from collabteam.catalog.times import END, UNITS, units
from collabteam.errors import UserError
from collabteam.settings import UNKNOWN, UNUSABLE
from collabteam.sources.base import Aside, Labels, Meaning, shown
from collabteam.sources.vocabulary import SPLITS_EXPECTED, is_missing, split_of_cell

LABELS = ("label", "proposed", "truth")
ORIGIN = ("video", "track", "frame", "time")
_BOX = ("box_left", "box_top", "box_width", "box_height")
_OURS = frozenset(("label", "source", "confidence", "round", "team"))
"""Columns that the table of every export has, besides the crop's name and its origin."""
_SOURCES = ("person", "import", "oracle", "team")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d{1,18}")
_ARROW_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_TIMES = "Unix seconds (or milli-, micro- or nanoseconds) from 1970 until 2100"

_Numbers = npt.NDArray[np.int64] | npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        given: Labels by meaning.
        split: ``train``, ``val``, ``test``, ``held-out``, ``pool`` or ``""``.
        origin: The known ones of ``video``, ``track``, ``frame``, ``time`` and ``box``.
        crop_id: The crop's name; ``""`` if the table has none.
        before: What earlier versions read differently in the origin: they took times in any unit,
            and spelled-out missing values as names. A camera may have the crop with that origin.
    """

    given: dict[Meaning, str]
    split: str
    origin: dict[str, Any]
    crop_id: str
    before: dict[str, Any] = field(default_factory=dict)


class Columns:
    """Reads the columns of one table.

    The table of one of our exports names for each label who gave it. There the team's labels are
    proposals whatever the user says, and persons', imported and simulated ones stay what they are.

    Args:
        path: The table, for messages.
        names: All of its columns.
        asked: The meaning of its labels, as the user says.
        classes: The camera's classes, if known: their names are labels even if they read like a
            missing value.
        aside: Takes what is left aside.
        class_names: Names by number, of columns that Hugging Face calls ``ClassLabel``.
        export: Whether it lies in a folder that may be one of our exports.

    Attributes:
        ours: Whether it is the table of one of our exports.
        surveyed: The columns to read for the survey.
        used: The columns to read afterwards, without the picture.
        labels: All labels that occur, of any meaning; complete after the survey.
        answers: Whether labels of the meaning asked for occur.

    Raises:
        UserError: A column occurs twice, or two columns mean the same.
    """

    def __init__(
        self,
        path: str,
        names: Sequence[str],
        asked: Labels,
        classes: Collection[str],
        aside: Aside,
        class_names: Mapping[str, list[str]] | None = None,
        export: bool = False,
    ) -> None:
        self._path, self._asked, self._aside = path, asked, aside
        self._classes = {*classes, UNKNOWN, UNUSABLE}
        self._class_names = class_names or {}
        crop = "crop" if "crop" in names and "crop_id" not in names else "crop_id"
        self.ours = export and crop in names and _OURS.issubset(names)
        self._crop = crop if self.ours else "crop_id"
        wanted = {self._crop, *LABELS, "split"}
        # For other tables than ours, the name alone determines the crop and its origin.
        if self.ours or "crop_id" not in names:
            wanted |= {*ORIGIN}
        if self.ours:
            wanted |= {"source", "box", *_BOX}
        self._tells_sources = not self.ours and asked == "person" and _OURS.issubset(names)
        self.used = [name for name in dict.fromkeys(names) if name in wanted]
        self.surveyed = [*self.used, *(["source"] if self._tells_sources else [])]
        for name in [*self.surveyed, "image"]:
            if names.count(name) > 1:
                raise self._error(f" has {names.count(name)} columns {name!r}: keep one of them")
        if asked in names and "label" in names and not self.ours:
            raise self._error(
                f" has the columns 'label' and {asked!r}, which mean the same with "
                f"labels={asked}: drop one"
            )
        if not self.ours:
            self._check_names(names, wanted)
        self.labels: set[str] = set()
        self.answers = False
        self._surveyed = 0
        self._of_teams = 0
        self._no_splits: Counter[str] = Counter()
        self._without_split = 0
        self._units: dict[str, str] = {}
        self._steps = 0.0  # between two times that a column of 32-bit fractions can hold

    def _check_names(self, names: Sequence[str], wanted: Collection[str]) -> None:
        """Refuse names that are ours but for their spelling; tell which columns are not read.

        Raises:
            UserError: There is one: its content must not be lost in silence.
        """
        others = [name for name in names if name not in (*wanted, *self.surveyed, "image")]
        for name in others:
            meant = unicodedata.normalize("NFKC", name).strip().casefold()
            if meant in wanted or meant == "image":
                raise self._error(
                    f" has a column {shown(name)}, which is not read: call it {meant!r}, or drop it"
                )
        if others:
            listed = ", ".join(shown(name, 40) for name in others[:8])
            more = f" and {len(others) - 8} more" if len(others) > 8 else ""
            self._aside.remarks.append(f"columns of {self._path} that are not read: {listed}{more}")

    def _error(self, said: str) -> UserError:
        return UserError(f"path={self._path}{said}")

    def _bad(self, name: str, value: str, row: int, expected: str) -> UserError:
        at = f" in row {self._surveyed + row}" if row >= 0 else ""
        return self._error(f": column {name!r} has {value}{at}, expected {expected}")

    # -- the first pass ----------------------------------------------------------------------

    def survey(self, batch: pa.RecordBatch) -> None:
        """Check the next rows, and note their labels, splits and unit of time.

        Raises:
            UserError: A value cannot be used.
        """
        for name in self.used:
            if name in LABELS:
                self._survey_labels(batch, name)
            elif name == "split":
                self._survey_splits(batch)
            elif name == "time":
                self._survey_times(batch)
            elif name == "source":
                self._survey_sources(batch)
            elif name == "frame":
                self._frames(batch)
            elif name == "box":
                self._boxes(batch)
            elif name in _BOX:
                self._numbers(batch, name)
            else:
                self._texts(batch, name)
        if self._tells_sources:
            self._of_teams += pc.sum(pc.equal(self._texts(batch, "source"), "team")).as_py() or 0
        self._surveyed += batch.num_rows

    def finish(self) -> None:
        """End the survey.

        Raises:
            UserError: A split is not known, or times are in several units.
        """
        self._surveyed = 0
        if self._no_splits:
            cases = self._no_splits.most_common(5)
            listed = ", ".join(f"{shown(text)} ({count:,} rows)" for text, count in cases)
            more = f" and {len(self._no_splits) - 5} others" if len(self._no_splits) > 5 else ""
            raise self._error(
                f": column 'split' has {listed}{more}, expected {SPLITS_EXPECTED}, or nothing"
            )
        if self._without_split:
            self._aside.remarks.append(
                f"rows of {self._path} without a split, which may train: {self._without_split:,}"
            )
        if len(self._units) > 1:
            listed = " and ".join(f"{unit} ({value})" for unit, value in self._units.items())
            raise self._error(f": column 'time' mixes {listed}: expected one unit")
        if self._of_teams:
            self._aside.remarks.append(
                f"{self._of_teams:,} labels of {self._path} are a team's by the column 'source', "
                "and become a person's, as labels=person says: with the export's folder as path, "
                "they stay proposals"
            )
        for unit in self._units:
            if unit != "seconds":
                self._aside.remarks.append(f"column 'time' of {self._path} was read as {unit}")
            if (steps := self._steps / UNITS[unit]) > 1:
                self._aside.remarks.append(
                    f"column 'time' of {self._path} has 32-bit fractions, which hold a time to "
                    f"{steps:.0f} seconds: write 64-bit ones"
                )

    def _survey_labels(self, batch: pa.RecordBatch, name: str) -> None:
        raw = self._raw_texts(batch, name)
        for entry in pc.value_counts(raw).to_pylist():
            text = entry["values"] or ""
            if not self._is_none(name, text):
                self.labels.add(text)
                self.answers |= name in ("label", self._asked)
            elif text:
                self._aside.unlabelled[text] += entry["counts"]

    def _survey_splits(self, batch: pa.RecordBatch) -> None:
        for entry in pc.value_counts(self._raw_texts(batch, "split")).to_pylist():
            text = entry["values"] or ""
            if is_missing(text):
                self._without_split += entry["counts"]
            elif not split_of_cell(text):
                self._no_splits[text] += entry["counts"]

    def _survey_sources(self, batch: pa.RecordBatch) -> None:
        for text in pc.unique(self._texts(batch, "source")).to_pylist():
            if text not in (*_SOURCES, ""):
                raise self._bad("source", shown(text), -1, f"one of {', '.join(_SOURCES)}")

    def _survey_times(self, batch: pa.RecordBatch) -> None:
        column = self._flat(batch, "time")
        values, known = self._numbers(batch, "time")
        # 0 is 1970 in every unit.
        places = np.flatnonzero(known & (values != 0))
        if pa.types.is_timestamp(column.type):
            unit = _ARROW_UNITS[column.type.unit]
            outside = (values < 0) | (values >= END * UNITS[unit])
            found = np.where(outside, -1, 0)
            shown_as = column.cast(pa.timestamp(column.type.unit))
        else:
            found = np.zeros(len(values), dtype=np.int64)
            found[places] = units(values[places].astype(np.float64))
            if pa.types.is_float32(column.type) and places.size:
                self._steps = max(self._steps, float(np.spacing(np.float32(values.max()))))
        for code in np.unique(found[places]).tolist():
            place = int(places[found[places] == code][0])
            value = str(values[place])
            if code < 0:
                if pa.types.is_timestamp(column.type):
                    value = _as_text(shown_as[place], value)
                raise self._bad("time", value, place, _TIMES)
            if not pa.types.is_timestamp(column.type):
                self._units.setdefault([*UNITS][code], value)

    # -- the second pass ---------------------------------------------------------------------

    def rows(self, batch: pa.RecordBatch) -> Iterator[Row]:
        """Yield the rows of a batch that was surveyed before."""
        columns: dict[str, list[Any]] = {}
        for name in self.used:
            if name == "frame":
                columns[name] = self._frames(batch)
            elif name == "time":
                columns[name] = self._times(batch)
            elif name == "box":
                columns[name] = self._boxes(batch)
            elif name in _BOX:
                numbers, known = self._numbers(batch, name)
                columns[name] = [
                    float(side) if there else None
                    for side, there in zip(numbers.tolist(), known.tolist(), strict=True)
                ]
            else:
                columns[name] = self._texts(batch, name).to_pylist()
        before = self._read_before(batch, columns)
        for place in range(batch.num_rows):
            yield self._row(
                {name: column[place] for name, column in columns.items()},
                {name: was[place] for name, was in before.items() if was[place] is not None},
            )

    def _read_before(
        self, batch: pa.RecordBatch, columns: Mapping[str, list[Any]]
    ) -> dict[str, list[Any]]:
        """Return what earlier versions read, by column; None where it is the same."""
        before: dict[str, list[Any]] = {}
        for name in ("video", "track"):
            if name in columns and "" in columns[name]:
                raw = self._raw_texts(batch, name).to_pylist()
                before[name] = [
                    (was or None) if not now else None
                    for was, now in zip(raw, columns[name], strict=True)
                ]
        if "time" in columns and self._unit(batch) != "seconds":
            values, known = self._numbers(batch, "time")
            is_moment = pa.types.is_timestamp(self._flat(batch, "time").type)
            before["time"] = [
                float(value) if there and not is_moment else None
                for value, there in zip(values.tolist(), known.tolist(), strict=True)
            ]
        return before

    def _row(self, fields: dict[str, Any], before: dict[str, Any]) -> Row:
        origin = {name: fields[name] for name in ORIGIN if fields.get(name) not in (None, "")}
        sides = fields.get("box") or [fields.get(name) for name in _BOX]
        if all(side is not None for side in sides):
            origin["box"] = tuple(sides)
        return Row(
            self._given(fields), split_of_cell(fields.get("split", "")), origin,
            fields.get(self._crop, ""), before,
        )  # fmt: skip

    def _given(self, fields: dict[str, Any]) -> dict[Meaning, str]:
        given: dict[Meaning, str] = {}
        if fields.get("proposed"):
            given["proposed"] = fields["proposed"]
        if fields.get("truth"):
            given["truth"] = fields["truth"]
        if fields.get("label"):
            meaning: Meaning = self._asked
            if self.ours and fields["source"] == "team":
                meaning = "proposed"
            elif self.ours and meaning == "person":
                meaning = cast(Meaning, fields["source"] or "person")
            given[meaning] = fields["label"]
        return given

    # -- columns of one batch ----------------------------------------------------------------

    def _flat(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        """Return a column without dictionaries and extension types."""
        return decoded(batch.column(batch.schema.get_field_index(name)))

    def _raw_texts(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        """Return a column as text, as it is spelled."""
        column = self._flat(batch, name)
        kind = column.type
        names = self._class_names.get(name)
        if names is not None and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            column = _named(column, names)
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            column = pc.cast(column, pa.large_binary())
        elif pa.types.is_nested(kind) or (name in LABELS and pa.types.is_temporal(kind)):
            raise self._error(f": column {name!r} is {kind}, expected text")
        elif name in LABELS and (pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
            column = pc.cast(self._whole(column, name), pa.large_string())
        elif not pa.types.is_large_string(kind):
            try:
                column = pc.cast(column, pa.large_string())
            except pa.ArrowException as error:
                raise self._error(f": column {name!r} is {kind}, expected text") from error
        if not pa.types.is_large_string(column.type):
            return self._decoded(column, name)
        try:
            column.validate(full=True)
        except pa.ArrowException:  # the file says that it is text, and Arrow believes it
            return self._decoded(column.view(pa.large_binary()), name)
        return column

    def _whole(self, column: pa.Array, name: str) -> pa.Array:
        """Check numbers that are labels: scores and shares are none."""
        numbers = pc.cast(column, pa.float64())
        known = numbers.fill_null(math.nan).to_numpy(zero_copy_only=False)
        wrong = ~np.isnan(known) & (known != np.floor(known)) | np.isinf(known)
        if (places := np.flatnonzero(wrong)).size:
            place = int(places[0])
            raise self._bad(name, str(known[place]), place, "text or whole numbers")
        return numbers

    def _decoded(self, column: pa.Array, name: str) -> pa.Array:
        texts: list[str | None] = []
        for place, value in enumerate(column.to_pylist()):
            try:
                texts.append(None if value is None else value.decode())
            except UnicodeDecodeError:
                raise self._bad(name, ascii(value[:40]), place, "text in UTF-8") from None
        return pa.array(texts, pa.large_string())

    def _texts(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        """Return a column as text, with ``""`` for missing values however they are spelled."""
        encoded = pc.fill_null(self._raw_texts(batch, name), "").dictionary_encode()
        texts = encoded.dictionary.to_pylist()
        cleaned = ["" if self._is_none(name, text) else text for text in texts]
        return pa.array(cleaned, pa.large_string()).take(encoded.indices)

    def _is_none(self, name: str, text: str) -> bool:
        if self.ours:  # a name in it is a name, however it reads
            return not text
        if name == "track" and text == "-1":  # so trackers number what is in no track
            return True
        if name in LABELS and text in self._classes:
            return False
        return is_missing(text) or (name in self._class_names and text.startswith(_NO_CLASS))

    def _numbers(self, batch: pa.RecordBatch, name: str) -> tuple[_Numbers, npt.NDArray[np.bool_]]:
        """Return a column's numbers, and which of them are known; the others are 0."""
        column = self._flat(batch, name)
        kind = column.type
        if pa.types.is_timestamp(kind) and name == "time":
            column = column.view(pa.int64())
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            column = self._parsed(self._texts(batch, name), name)
        elif pa.types.is_null(kind) or pa.types.is_decimal(kind):
            column = pc.cast(column, pa.float64())
        elif pa.types.is_unsigned_integer(kind):
            large = pc.greater(column, pa.scalar(2**62, pa.uint64()))
            if (place := large.index(True).as_py()) >= 0:
                raise self._bad(name, str(column[place]), place, "a smaller number")
        elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            expected = "numbers or timestamps" if name == "time" else "numbers"
            raise self._error(f": column {name!r} is {kind}, expected {expected}")
        known = pc.is_valid(column).to_numpy(zero_copy_only=False)
        values: _Numbers = np.zeros(len(column), dtype=np.int64)
        if pa.types.is_floating(column.type):
            values = np.zeros(len(column), dtype=np.float64)
        values[known] = column.drop_null().to_numpy(zero_copy_only=False)
        if values.dtype == np.float64:
            known = known & ~np.isnan(values)
            values[~known] = 0
            if (endless := np.flatnonzero(~np.isfinite(values))).size:
                place = int(endless[0])
                raise self._bad(name, str(values[place]), place, "a number")
        return values, known

    def _parsed(self, texts: pa.Array, name: str) -> pa.Array:
        values: list[float | int | None] = []
        whole = True
        for place, text in enumerate(texts.to_pylist()):
            text = text.strip()
            if not text:
                values.append(None)
            elif _WHOLE.fullmatch(text):
                values.append(int(text))
            elif _NUMBER.fullmatch(text):
                values.append(float(text))
                whole = False
            else:
                expected = _TIMES if name == "time" else "a number"
                raise self._bad(name, shown(text), place, expected)
        return pa.array(values if whole else [v if v is None else float(v) for v in values],
                        pa.int64() if whole else pa.float64())  # fmt: skip

    def _frames(self, batch: pa.RecordBatch) -> list[int | None]:
        values, known = self._numbers(batch, "frame")
        wrong = (values < -1) | (values != np.floor(values)) | (np.abs(values) > 2**53)
        if (places := np.flatnonzero(wrong)).size:
            place = int(places[0])
            value = str(values[place])
            raise self._bad("frame", value, place, "whole numbers from 0")
        pairs = zip(values.astype(np.int64).tolist(), known.tolist(), strict=True)
        return [value if there else None for value, there in pairs]

    def _times(self, batch: pa.RecordBatch) -> list[float | None]:
        values, known = self._numbers(batch, "time")
        factor = UNITS[self._unit(batch)]
        if values.dtype == np.float64:
            seconds = values / factor
        elif factor <= 10**6:
            seconds = values * (10**6 // factor) / 1e6
        else:
            seconds = values // (factor // 10**6) / 1e6
        pairs = zip(seconds.tolist(), known.tolist(), strict=True)
        return [value if there else None for value, there in pairs]

    def _unit(self, batch: pa.RecordBatch) -> str:
        kind = self._flat(batch, "time").type
        if pa.types.is_timestamp(kind):
            return _ARROW_UNITS[kind.unit]
        return next(iter(self._units), "seconds")

    def _boxes(self, batch: pa.RecordBatch) -> list[list[float] | None]:
        column = self._flat(batch, "box")
        try:
            boxes = pc.cast(column, pa.list_(pa.float64())).to_pylist()
        except pa.ArrowException as error:
            raise self._error(f": column 'box' is {column.type}, expected lists") from error
        for place, box in enumerate(boxes):
            if box and (len(box) != 4 or not all(s is not None and np.isfinite(s) for s in box)):
                raise self._bad("box", str(box)[:60], place, "four numbers")
        return [box or None for box in boxes]


_NO_CLASS = "class number "


def _named(column: pa.Array, names: list[str]) -> pa.Array:
    """Convert class numbers to names; -1 means none, and so does NaN."""
    texts: list[str | None] = []
    for number in column.to_pylist():
        if number is None or math.isnan(number) or number == -1:
            texts.append(None)
        elif 0 <= number < len(names) and number == int(number):
            texts.append(names[int(number)])
        else:
            texts.append(f"{_NO_CLASS}{number:g}")
    return pa.array(texts, pa.large_string())


def decoded(column: pa.Array) -> pa.Array:
    """Return an array without dictionaries, run lengths, extension types and views."""
    while True:
        kind = column.type
        if isinstance(kind, pa.DictionaryType):
            column = column.dictionary_decode()
        elif isinstance(kind, pa.BaseExtensionType):
            column = column.storage
        elif isinstance(kind, pa.RunEndEncodedType):
            column = pc.run_end_decode(column)
        elif kind == pa.string_view():
            return pc.cast(column, pa.large_string())
        elif kind == pa.binary_view() or pa.types.is_fixed_size_binary(kind):
            return pc.cast(column, pa.large_binary())
        else:
            return column


def _as_text(moment: pa.Scalar, otherwise: str) -> str:
    """Format a time of a timestamp column; years beyond Python's are numbers."""
    try:
        return str(moment)
    except (ValueError, OverflowError):
        return otherwise
