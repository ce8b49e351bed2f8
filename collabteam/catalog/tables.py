"""One append-only Lance table, and errors that a person can act on."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

import lance
import pyarrow as pa

from collabteam.catalog.store import Store, append_once, merge_small
from collabteam.errors import UserError, disk_errors, first_line

Result = TypeVar("Result")

# A log that grows by single clicks has as many fragments as clicks, and every commit writes the
# list of them all: 1,000 one-row commits take 50 MB and 5 ms each unless they are merged.
_MOST_FRAGMENTS = 64
# Fragments of fewer rows count as small and are merged; rewriting larger ones would cost more.
_SMALL_FRAGMENT = 16_384


class Table:
    """A Lance table whose rows are only ever added; row numbers therefore never change.

    Args:
        path: The table's folder.

    Raises:
        UserError: There is no such table, or it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._store = Store.of(path)
        with self._damage():
            address, options = _address(path, self._store)
            self._data = self._reach(lambda: lance.dataset(address, storage_options=options))

    def _reach(self, operation: Callable[[], Result]) -> Result:
        """Read something, again and again while the store it is in does not answer."""
        return operation() if self._store is None else self._store.patiently(operation)

    @staticmethod
    def create(path: Path, schema: pa.Schema) -> None:
        """Make an empty table unless it is there already.

        Raises:
            UserError: The disk is full.
        """
        store = Store.of(path)
        address, options = _address(path, store)

        def write() -> None:
            lance.write_dataset(
                schema.empty_table(), address, mode="create", storage_options=options
            )

        try:
            with disk_errors():
                write() if store is None else store.patiently(write)
        except OSError as error:
            if "already exists" not in str(error):
                raise

    def add_missing_texts(self, schema: pa.Schema) -> None:
        """Give a table that an earlier version made the text columns that came since, empty.

        Raises:
            UserError: The disk is full, or the table is damaged.
        """
        missing = [name for name in schema.names if name not in self._data.schema.names]
        if missing:
            with self._damage(), disk_errors(), self._merging(fcntl.LOCK_EX):
                self._data.checkout_latest()  # type: ignore[no-untyped-call]
                if set(missing) - set(self._data.schema.names):  # nobody else was quicker
                    self._data.add_columns(dict.fromkeys(missing, "''"))

    @contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            lances = (OSError, ValueError, RuntimeError, pa.ArrowException)
            # A panic inside Lance is no Exception, and has a name but no importable class.
            if not isinstance(error, lances) and type(error).__name__ != "PanicException":
                raise
            place, _ = _address(self.path, self._store)
            raise UserError(
                f"{place} cannot be used ({first_line(error)}): if it is damaged, restore it from "
                f"a backup, or move the folder {place.rpartition('/')[0]} away and ingest again"
            ) from error

    @property
    def version(self) -> int:
        """Number of the last commit that this object has seen."""
        return int(self._data.version)

    def refresh(self) -> None:
        """See what others have committed in the meantime."""
        with self._damage():
            self._reach(self._data.checkout_latest)

    def __len__(self) -> int:
        with self._damage():
            return int(self._reach(self._data.count_rows))

    def append(self, rows: pa.Table) -> None:
        """Add rows in one atomic commit; others may append at the same time.

        Raises:
            UserError: The disk is full; the table is as it was.
        """
        if rows.num_rows == 0:
            return
        with self._damage(), disk_errors():
            if self._store is None:
                self._data = lance.write_dataset(rows, self._data, mode="append")
            else:
                self._data = append_once(self._data, rows, self._store)

    def append_few(self, rows: pa.Table) -> None:
        """Add rows as :meth:`append` does, and merge the commits once there are many small ones.

        A table that merges takes all its rows this way: an append that commits while others are
        merged would end up before them, and the order of the rows is what a log is about.

        Raises:
            UserError: The disk is full; the table is as it was.
        """
        with self._merging(fcntl.LOCK_SH):
            self.append(rows)
        sizes = [fragment.metadata.num_rows for fragment in self._data.get_fragments()]
        if sum(size < _SMALL_FRAGMENT for size in sizes) <= _MOST_FRAGMENTS:
            return
        if self._store is not None:
            self._data = merge_small(self._data, _SMALL_FRAGMENT, self._store)
            return
        # Not now, if anybody is appending, or if the disk is full: the rows are safe as they are.
        unfit = suppress(OSError, ValueError, RuntimeError)
        with unfit, self._merging(fcntl.LOCK_EX | fcntl.LOCK_NB):
            self._data.checkout_latest()  # type: ignore[no-untyped-call]
            self._data.optimize.compact_files(target_rows_per_fragment=_SMALL_FRAGMENT)

    @contextmanager
    def _merging(self, operation: int) -> Iterator[None]:
        """Shared by those who append, exclusive to the one who merges; in a store, commits are."""
        if self._store is not None:
            yield
            return
        with self._damage(), disk_errors():
            descriptor = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, operation)
            yield
        finally:
            os.close(descriptor)

    def read(self, columns: Sequence[str]) -> pa.Table:
        """All rows of some columns, in the order in which they were added."""
        with self._damage():
            return self._reach(
                lambda: self._data.to_table(columns=list(columns), scan_in_order=True)
            )

    def take(self, rows: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """Some rows by number, in the order asked; a number may be repeated.

        Raises:
            IndexError: A row is negative or beyond the end.
            UserError: The table is damaged.
        """
        if len(rows) and max(rows) >= len(self):
            self.refresh()
        if len(rows) and (min(rows) < 0 or max(rows) >= len(self)):
            raise IndexError(f"rows {min(rows)} to {max(rows)} of {len(self)} in {self.path}")
        with self._damage():
            return self._reach(lambda: self._data.take(list(rows), columns=list(columns)))


def _address(path: Path, store: Store | None) -> tuple[str, dict[str, str] | None]:
    """What Lance is told: where a table is, and how to reach it."""
    return (str(path), None) if store is None else (store.url, store.lance_options)


def write_atomically(path: Path, text: str, private: bool = False) -> None:
    """Write a small text file with :func:`replacing`."""
    with replacing(path, private) as file:
        file.write(text.encode())


@contextmanager
def replacing(path: Path, private: bool = False) -> Iterator[BinaryIO]:
    """Write a file so that a reader sees the old one or the new one, never a part.

    Args:
        path: The file.
        private: Whether its owner alone may read it.

    Yields:
        The new file, open for writing; it takes the place of the old one when the block ends.

    Raises:
        UserError: The disk is full.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    mode = 0o600 if private else 0o666
    with disk_errors():
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
