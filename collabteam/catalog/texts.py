"""Compact columns of texts: few distinct texts, or names of one length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Texts = npt.NDArray[np.object_]
"""Shape ``(N,)``, of ``str``. Objects, because equal texts then share memory."""

_STRIDE = 65_536
_NAME = 24
"""Length of a crop's name, in bytes."""
NAME_WORDS = _NAME // 8
"""Number of 64-bit words in a crop's name."""
_MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)
"""Odd multipliers of the hash, without a pattern in their bits."""


class TextColumn:
    """Texts that read like an array of ``str`` and take one to four bytes per row.

    An index gives a text or an array of texts, comparing with a text gives a mask, and numpy
    functions take the column as an array of objects.

    Args:
        codes: Shape ``(N,)``: the code of each row's text.
        texts: The distinct texts.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, codes: npt.NDArray[Any], texts: pa.Array) -> None:
        self.codes, self.texts = codes, texts

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N,)``."""
        return self.codes.shape

    @overload
    def __getitem__(self, rows: int | np.integer[Any]) -> str: ...

    @overload
    def __getitem__(self, rows: Any) -> Texts: ...

    def __getitem__(self, rows: Any) -> str | Texts:
        codes: npt.NDArray[Any] = self.codes[rows]
        if not np.ndim(codes):
            return str(self.texts[int(codes)].as_py())
        # Decoding each text once lets equal ones share memory.
        if len(self.texts) <= codes.size:
            decoded: Texts = self._decoded(self.texts)[codes]
            return decoded
        taken = self.texts.take(pa.array(np.ravel(codes), pa.int32()))
        return self._decoded(taken).reshape(np.shape(codes))

    @staticmethod
    def _decoded(texts: pa.Array) -> Texts:
        decoded: Texts = texts.to_numpy(zero_copy_only=False)
        return decoded.astype(object, copy=False)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _STRIDE):
            yield from self[start : start + _STRIDE].tolist()

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        return self[:].astype(object if dtype is None else dtype, copy=False)

    def __eq__(self, other: object) -> npt.NDArray[np.bool_]:  # type: ignore[override]
        if isinstance(other, str):
            equal: npt.NDArray[np.bool_] = self.codes == self.texts.index(other).as_py()
            return equal
        return np.asarray(self[:] == other)

    def __ne__(self, other: object) -> npt.NDArray[np.bool_]:  # type: ignore[override]
        return ~(self == other)

    def astype(self, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return the texts as a numpy array."""
        return self[:].astype(dtype)

    def is_any(self, wanted: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Shape ``(N,)``: whether the text is one of these."""
        chosen = pc.is_in(self.texts, value_set=pa.array(wanted, pa.string()))
        mask: npt.NDArray[np.bool_] = chosen.to_numpy(zero_copy_only=False)[self.codes]
        return mask

    def tolist(self) -> list[str]:
        """Return the texts as a list."""
        texts: list[str] = self[:].tolist()
        return texts


class Numbers:
    """Collects numbers batch by batch.

    Args:
        dtype: The type in which they are stored.
        each: Shape of a row; without it, a row is one number.
    """

    def __init__(self, dtype: npt.DTypeLike, *each: int) -> None:
        self._count = 0
        self._kept = np.empty((0, *each), dtype)

    def __len__(self) -> int:
        return self._count

    def reserve(self, count: int, dtype: npt.DTypeLike | None = None) -> None:
        """Make room for a total of rows, and change the stored type if one is given."""
        kind = self._kept.dtype if dtype is None else np.dtype(dtype)
        if count > len(self._kept) or kind != self._kept.dtype:
            kept = np.empty((max(count, len(self._kept)), *self._kept.shape[1:]), kind)
            kept[: self._count] = self.all()
            self._kept = kept

    def add(self, numbers: pa.Array | npt.NDArray[Any]) -> None:
        """Add the numbers of a batch; integers that do not fit widen the stored type."""
        end = self._count + len(numbers)
        values = np.asarray(numbers)
        if values.dtype.kind == "i" and len(values):
            least = np.min_scalar_type(min(int(values.min()), -1 - int(values.max())))
            self.reserve(0, np.promote_types(least, self._kept.dtype))
        if end > len(self._kept):
            self.reserve(end + end // 8)
        self._kept[self._count : end] = values
        self._count = end

    def all(self) -> npt.NDArray[Any]:
        """Shape ``(N, ...)``: all numbers; later additions do not change the result."""
        return self._kept[: self._count]

    def snapshot(self) -> Numbers:
        """Return the same numbers; both share memory until more are added."""
        same = Numbers(self._kept.dtype)
        same._kept, same._count = self.all(), self._count
        return same

    def only(self, chosen: npt.NDArray[np.bool_]) -> Numbers:
        """Return a copy of some numbers; ``chosen`` has the shape ``(N,)``."""
        some = Numbers(self._kept.dtype)
        some._kept, some._count = self.all()[chosen], int(chosen.sum())
        return some


class Encoder:
    """Collects texts batch by batch as codes of as few bytes as possible; 0 is ``""``.

    Attributes:
        codes: The code of each text that was added.
        texts: The distinct texts, in the order of their codes.
    """

    def __init__(self) -> None:
        self._number = {"": 0}
        self.texts = [""]
        self.codes = Numbers(np.int8)

    def number(self, text: str) -> int:
        """Return the code of a text; a new text gets a new code."""
        number = self._number.setdefault(text, len(self.texts))
        if number == len(self.texts):
            self.texts.append(text)
        return number

    def add(self, column: pa.Array) -> None:
        """Add the texts of a batch."""
        encoded = column.dictionary_encode()
        numbers = [self.number(text) for text in encoded.dictionary.to_pylist()]
        self.codes.add(np.array(numbers, dtype=np.int32)[encoded.indices.to_numpy()])

    def column(self) -> TextColumn:
        """Return all texts; later additions do not change the result."""
        return TextColumn(self.codes.all(), pa.array(self.texts, pa.string()))

    def snapshot(self) -> Encoder:
        """Return the same texts; additions to either do not change the other."""
        return self._with(self.codes.snapshot())

    def only(self, chosen: npt.NDArray[np.bool_]) -> Encoder:
        """Return a copy with some of the rows, under the same codes."""
        return self._with(self.codes.only(chosen))

    def _with(self, codes: Numbers) -> Encoder:
        same = Encoder()
        same._number, same.texts, same.codes = dict(self._number), list(self.texts), codes
        return same


class LabelsByRow:
    """A label for each row, ``""`` for none; rows added later have none at first.

    Args:
        column: Shape ``(N,)``: the initial labels.
    """

    def __init__(self, column: TextColumn | None = None) -> None:
        self._texts = [""] if column is None else column.texts.to_pylist()
        self._number = {text: number for number, text in enumerate(self._texts)}
        self._none = self._number[""]
        self._codes = np.zeros(0, np.int32) if column is None else column.codes.astype(np.int32)

    def __getitem__(self, row: int) -> str:
        return self._texts[self._codes[row]] if row < len(self._codes) else ""

    def __setitem__(self, row: int, label: str) -> None:
        if row >= len(self._codes):
            codes = np.full(row + 1 + row // 8, self._none, dtype=np.int32)
            codes[: len(self._codes)] = self._codes
            self._codes = codes
        number = self._number.setdefault(label, len(self._texts))
        if number == len(self._texts):
            self._texts.append(label)
        self._codes[row] = number


class Names(TextColumn):
    """Names of crops, 24 bytes each, and their rows; takes 60 bytes per name in all.

    A lookup searches a sorted list for the hash of a name and then compares the whole name, so it
    is exact. A million lookups take a tenth of a second.

    Args:
        words: Shape ``(N, 3)``: the names, see :func:`words_of`; if a name occurs twice, its first
            row counts.
    """

    def __init__(self, words: npt.NDArray[np.uint64]) -> None:
        count = len(words)
        offsets = np.arange(0, (count + 1) * _NAME, _NAME, dtype=np.int32)
        texts = pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(words))
        super().__init__(np.arange(count, dtype=np.int32), texts)
        self.words = words
        hashes = _hash(words)
        order = np.argsort(hashes).astype(np.int32)
        hashes = hashes[order]
        if (hashes[1:] == hashes[:-1]).any():
            order = np.argsort(_hash(words), kind="stable").astype(np.int32)
        self._rows = order
        # Where each leading part of a hash begins: the match is a step or two from there.
        bits = max(count.bit_length() - 1, 1)
        self._shift = np.uint64(64 - bits)
        leading = np.arange(1 << bits, dtype=np.uint64) << self._shift
        self._begin = np.searchsorted(hashes, leading).astype(np.int32)
        self._hashes = _upper(hashes)

    def find(self, wanted: pa.Array | Sequence[str]) -> npt.NDArray[np.int64]:
        """Shape ``(K,)``: the row of each of K names, -1 for unknown names."""
        if not isinstance(wanted, pa.Array):
            wanted = pa.array(wanted, pa.string())
        found = np.full(len(wanted), -1, dtype=np.int64)
        asked = np.flatnonzero(np.diff(_offsets(wanted)) == _NAME)
        if not asked.size or not len(self):
            return found
        words = words_of(wanted if len(asked) == len(wanted) else wanted.take(pa.array(asked)))
        hashes = _hash(words)
        place = self._begin[hashes >> self._shift].astype(np.int64)
        halves = _upper(hashes)
        left = np.arange(len(asked))
        while left.size:
            left = left[place[left] < len(self)]
            here = self._hashes[place[left]]
            before = here <= halves[left]
            left = left[before]
            same = here[before] == halves[left]
            row = self._rows[place[left]]
            same[same] = (self.words[row[same]] == words[left[same]]).all(axis=1)
            found[asked[left[same]]] = row[same]
            left = left[~same]
            place[left] += 1
        return found

    def in_order(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Shape ``(K,)``: K rows in ascending order of their names."""
        names = np.ascontiguousarray(self.words[rows]).view(f"S{_NAME}").reshape(-1)
        ordered: npt.NDArray[np.int64] = rows[np.argsort(names)]
        return ordered


def _upper(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
    """Hash names to half a word each: few collide, and whole names are compared afterwards."""
    return (hashes >> np.uint64(32)).astype(np.uint32)


def words_of(names: pa.Array) -> npt.NDArray[np.uint64]:
    """Shape ``(N, 3)``: the bytes of names, as a view of their memory.

    Raises:
        ValueError: A name does not have 24 bytes.
    """
    offsets = _offsets(names)
    if (np.diff(offsets) != _NAME).any():
        raise ValueError(f"expected names of {_NAME} bytes")
    if not len(names):
        return np.zeros((0, NAME_WORDS), dtype=np.uint64)
    content = np.frombuffer(names.buffers()[2], dtype=np.uint8)[offsets[0] : offsets[-1]]
    return content.view(np.uint64).reshape(-1, NAME_WORDS)


def _offsets(names: pa.Array) -> npt.NDArray[np.int32]:
    """Shape ``(N + 1,)``: where each name begins, and where the last one ends."""
    if not len(names):
        return np.zeros(1, dtype=np.int32)
    every = np.frombuffer(names.buffers()[1], dtype=np.int32)
    return every[names.offset : names.offset + len(names) + 1]


def _hash(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    hashes = np.zeros(len(words), dtype=np.uint64)
    for place in range(NAME_WORDS):
        hashes += words[:, place]
        hashes *= _MIX[place]
        hashes ^= hashes >> np.uint64(29)
    return hashes
