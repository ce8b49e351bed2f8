"""One append-only Lance table, and errors that a user can act on."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import lance
import pyarrow as pa
from lance.optimize import Compaction, CompactionOptions

from collabteam.errors import UserError, disk_errors, file_error, first_line
from collabteam.storage.commits import (
    RECORD,
    Commit,
    StoredRecord,
    last_commit,
    manifest_file,
    manifest_hash,
    newest_version,
    note_commit,
    record_of,
    shorten,
)
from collabteam.storage.files import sync
from collabteam.storage.layout import TABLES_LOCK
from collabteam.storage.locks import file_lock
from collabteam.storage.staging import write_errors
from collabteam.storage.store import Store, append_once, merge_small, together

Result = TypeVar("Result")

# A log that grows by single answers has one fragment per answer, and every commit writes the list
# of all fragments: 1,000 one-row commits take 50 MB and 5 ms each unless they are merged.
_MOST_FRAGMENTS = 64
# Fragments of fewer rows count as small and are merged; rewriting larger ones would cost more.
_SMALL_FRAGMENT = 16_384
# Rows of a few columns that are read at a time.
_BLOCK = 65_536
# Number of merges that may overtake a reader before its failure counts as damage.
_OVERTAKEN = 5
# Age from which no commit in a store builds on a version: commits are retried for minutes at most.
_SETTLED = timedelta(hours=1)
# What the system refuses. Moving the folder away would be the wrong advice.
_NOT_DAMAGE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE, errno.EIO)


class Table:
    """An append-only Lance table; row numbers therefore never change.

    Args:
        path: The table's folder on this machine.
        store: The object store that holds the table, if any.
        before_append: Called before rows are added; raises to forbid it.

    Raises:
        UserError: There is no such table, or it is damaged.
    """

    def __init__(
        self,
        path: Path,
        store: Store | None = None,
        before_append: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = path
        self._store = store
        self._before_append = before_append
        # Before the table is opened, because others may commit in between.
        self._record = None if store is None else StoredRecord(store)
        last = last_commit(path) if self._record is None else self._record.last_commit()
        if last is not None and store is None:
            self._check_manifest(last)
        try:
            with self._damage():
                self._data = self._reach(self._open)
        except UserError as error:
            if store is None:
                self._check_unconfirmed(last, error)
            raise
        self._seen = self.version
        self._synced = self._last_fragment()
        if last is not None:
            self._compare(last)

    def _open(self) -> lance.LanceDataset:
        address, options = _address(self.path, self._store)
        data = lance.dataset(address, storage_options=options)
        if data.version < 1:  # what Lance makes of a file of zeros
            raise ValueError("the file of its newest version is damaged")
        return data

    def _check_unconfirmed(self, last: Commit | None, error: UserError) -> None:
        """Say so if a power cut broke the file of a commit before anybody was told of it.

        Raises:
            UserError: Only a commit is damaged that was never confirmed.
        """
        newest = newest_version(self.path)
        if last is None or last.rows < 0 or newest <= last.version:
            return
        if (unread := manifest_file(self.path, newest)) and manifest_file(self.path, last.version):
            raise UserError(
                f"{unread} is damaged ({first_line(error.__cause__ or error)}): delete it; nothing "
                f"that was confirmed is lost, it is in version {last.version} of the table"
            ) from error

    def _compare(self, last: Commit) -> None:
        """Compare the table with the newest commit that was noted.

        Raises:
            UserError: The table has lost rows.
        """
        version, rows = self.version, len(self)
        if version < last.version or rows < last.rows:
            noted = f", {last.rows} rows" if last.rows >= 0 else ""
            place, _ = _address(self.path, self._store)
            record = record_of(self.path) if self._store is None else f"{place}/{RECORD}"
            raise UserError(
                f"{place} is damaged: commits are lost (expected at least version "
                f"{last.version}{noted}, as {record} says; got version {version}, {rows} rows): "
                f"restore {place} from a backup, or delete {record} to go on without what is lost"
            )

    def _check_manifest(self, last: Commit) -> None:
        """Compare the file of the newest version with its hash, before Lance reads it.

        Of some damage Lance prints a panic before it raises.

        Raises:
            UserError: The file has changed.
        """
        if newest_version(self.path) != last.version or not last.manifest.isalnum():
            return
        if manifest_hash(self.path, last.version) not in (last.manifest, "-"):
            raise UserError(
                f"{manifest_file(self.path, last.version)} is damaged: it is not what was written; "
                f"restore {self.path} from a backup"
            )

    def _check_seen(self) -> None:
        """Raise if the table has less than this object has seen: files were lost meanwhile."""
        if self.version < self._seen:
            raise UserError(
                f"{_address(self.path, self._store)[0]} is damaged: version {self._seen} was there "
                f"a moment ago, now there is version {self.version}: restore it from a backup"
            )
        self._seen = self.version

    def _latest(self) -> None:
        self._reach(self._data.checkout_latest)
        self._check_seen()

    def _last_fragment(self) -> int:
        return max((part.fragment_id for part in self._data.get_fragments()), default=-1)

    def _settle(self) -> None:
        """Flush what the last commit made to the disk, then note the commit."""
        if self._record is not None:
            self._record.note(self.version, int(self._data.count_rows()))
            return
        made = [part for part in self._data.get_fragments() if part.fragment_id > self._synced]
        _flush(self.path, self.version, [path for part in made for path in _data_files(part)])
        self._synced = self._last_fragment()
        note_commit(self.path, self.version, int(self._data.count_rows()))

    def _reach(self, operation: Callable[[], Result]) -> Result:
        """Run a read operation, with retries while the table's store does not answer."""
        return operation() if self._store is None else self._store.patiently(operation)

    @staticmethod
    def create(path: Path, schema: pa.Schema, store: Store | None = None) -> None:
        """Create an empty table unless it exists.

        Args:
            path: The table's folder on this machine.
            schema: Its columns.
            store: The object store that holds it, if any.

        Raises:
            UserError: The disk is full.
        """
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
            return
        if store is None:
            _flush(path, 1, [])
            note_commit(path, 1, 0)
        else:
            StoredRecord(store).note(1, 0)

    def add_missing_texts(self, schema: pa.Schema) -> None:
        """Add empty text columns that an earlier version's table lacks.

        Raises:
            UserError: The disk is full, or the table is damaged.
        """
        missing = [name for name in schema.names if name not in self._data.schema.names]
        if missing:
            with self._damage(), disk_errors(), self._merging():
                self._data.checkout_latest()  # type: ignore[no-untyped-call]
                if set(missing) - set(self._data.schema.names):  # no other process added them first
                    self._data.add_columns(dict.fromkeys(missing, "''"))
                    self._synced = -1  # each fragment has a new file
                    self._settle()

    @contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except BlockingIOError:  # the lock is held
            raise
        except BaseException as error:
            lances = (OSError, ValueError, RuntimeError, pa.ArrowException)
            # A panic inside Lance is not an Exception, and its class cannot be imported.
            if not isinstance(error, lances) and type(error).__name__ != "PanicException":
                raise
            place, _ = _address(self.path, self._store)
            number = re.search(r"\(os error (\d+)\)", str(error))
            if self._store is None and number and int(number[1]) in _NOT_DAMAGE:
                refused = OSError(int(number[1]), os.strerror(int(number[1])))
                raise file_error(self.path, refused, "used") from error
            raise UserError(
                f"{place} cannot be used ({first_line(error)}): if it is damaged, restore it from "
                f"a backup, or move the folder {place.rpartition('/')[0]} away and ingest again"
            ) from error

    @property
    def version(self) -> int:
        """Number of the last commit that this object has seen."""
        return int(self._data.version)

    def refresh(self) -> None:
        """Read the newest version of the table."""
        # Retried, because the version found may be removed before it is read.
        self._following(self._data.checkout_latest)
        self._check_seen()

    def _following(self, read: Callable[[], Result]) -> Result:
        """Read, and retry with the newest version if a merge removed this one's files.

        Rows keep their numbers, so the newest version holds the same rows and perhaps more.
        """
        for _ in range(_OVERTAKEN):
            version = self.version
            try:
                with self._damage():
                    return self._reach(read)
            except UserError:
                with self._damage():
                    self._latest()
                if self.version == version:
                    raise
        with self._damage():
            return self._reach(read)

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
        self._before_append()
        self._check_seen()
        with self._merging(shared=True), self._damage(), disk_errors():
            if self._store is None:
                self._data = lance.write_dataset(rows, self._data, mode="append")
            else:
                self._data = append_once(self._data, rows, self._store)
            self._settle()
        self._seen = self.version

    def append_few(self, rows: pa.Table) -> None:
        """Add rows as :meth:`append` does, and merge the commits once there are many small ones.

        Raises:
            UserError: The disk is full; the table is as it was.
        """
        self.append(rows)
        if len(self._unmerged(_SMALL_FRAGMENT)) <= _MOST_FRAGMENTS:
            return
        if self._store is not None:
            self._data = merge_small(self._data, _SMALL_FRAGMENT, self._store)
            self._settle()
            return
        # Skipped while others append or if the disk is full: the rows are already safe.
        unfit = suppress(_Busy, OSError, ValueError, RuntimeError)
        with unfit, self._merging(wait=False):
            self._merge(_SMALL_FRAGMENT)

    def compact(self, rows: int, advance: Callable[[int], None] | None = None) -> None:
        """Merge fragments of fewer rows, and remove the files that the newest version lacks.

        Readers of an older version continue with the newest, see :meth:`_following`. Writers wait,
        except for a table in a store: there, files that were replaced within the last hour stay
        until a later call, because a commit may still build on them. A kill at any moment leaves
        the rows as they are, and files for a later call to remove.

        Args:
            rows: Fragments of at least this many rows stay as they are.
            advance: Called with the number of rows just merged.

        Raises:
            UserError: The disk is full, the table is damaged, or the store does not answer.
        """
        with self._merging(), self._damage(), disk_errors():
            if self._store is not None:
                self._reach(self._data.checkout_latest)
                self._data = merge_small(self._data, rows, self._store, advance)
                self._settle()
                self._reach(lambda: self._clean(_SETTLED, everything=False))
                return
            self._merge(rows, advance)
            # No other process writes, so files without a version come from killed commits.
            self._clean(timedelta(0), everything=True)

    def _clean(self, age: timedelta, everything: bool) -> None:
        self._data.cleanup_old_versions(
            age, delete_unverified=everything, error_if_tagged_old_versions=False
        )

    @contextmanager
    def still(self) -> Iterator[None]:
        """Keep the table from being merged, so that its files stay where they are."""
        with self._merging(shared=True):
            yield

    def _unmerged(self, rows: int) -> dict[int, int]:
        """Number and row count of each fragment, from the first with fewer rows than this on."""
        sizes = {part.fragment_id: part.metadata.num_rows for part in self._data.get_fragments()}
        first = next((number for number, size in sizes.items() if size < rows), None)
        return {n: size for n, size in sizes.items() if first is not None and n >= first}

    def _merge(self, rows: int, advance: Callable[[int], None] | None = None) -> None:
        """Merge fragments of fewer rows; the caller is alone, and the order stays.

        Lance sorts fragments by number, and merged ones get new numbers, so they end up after all
        unmerged ones. To keep the order, all fragments after the first small one are merged.
        """
        self._data.checkout_latest()  # type: ignore[no-untyped-call]
        unmerged = self._unmerged(rows)
        if len(unmerged) < 2:
            return
        others = [part.fragment_id for part in self._data.get_fragments()]
        options: CompactionOptions = {
            "target_rows_per_fragment": max(rows, 1 + max(unmerged.values())),
            "excluded_fragment_ids": [number for number in others if number not in unmerged],
        }
        plan = Compaction.plan(self._data, options)
        if [part.id for task in plan.tasks for part in task.fragments] != list(unmerged):
            return
        merged = []
        for task in plan.tasks:  # one by one: side by side they would be numbered as they end
            merged.append(task.execute(self._data))
            if advance:
                advance(sum(unmerged[part.id] for part in task.fragments))
        Compaction.commit(self._data, merged)
        self._data.checkout_latest()  # type: ignore[no-untyped-call]
        self._settle()
        shorten(self.path)

    @contextmanager
    def _merging(self, shared: bool = False, wait: bool = True) -> Iterator[None]:
        """The lock of all tables: shared by appends, exclusive to a merge; none in a store.

        An append that commits during a merge would end up before the merged rows.
        """
        if self._store is not None:
            yield
            return
        file = self.path.with_name(TABLES_LOCK)
        with ExitStack() as stack:
            with write_errors(file), disk_errors():
                try:
                    stack.enter_context(file_lock(file, shared, wait))
                except BlockingIOError as error:
                    if wait:
                        raise
                    raise _Busy from error
            yield

    def read(self, columns: Sequence[str]) -> pa.Table:
        """All rows of some columns, in the order in which they were added."""
        return self._following(
            lambda: self._data.to_table(columns=list(columns), scan_in_order=True)
        )

    def batches(self, columns: Sequence[str], first: int, end: int) -> Iterator[pa.RecordBatch]:
        """Rows ``first`` to ``end`` (exclusive) of some columns, in order, a batch at a time.

        Raises:
            UserError: The table is damaged.
        """
        for start in range(first, end, _BLOCK):
            rows = range(start, min(start + _BLOCK, end))
            # As one batch, because small slices keep much larger buffers in memory.
            table = self._following(partial(self._scan, columns, rows))
            yield from table.combine_chunks().to_batches()
        pa.default_memory_pool().release_unused()

    def _scan(self, columns: Sequence[str], rows: range) -> pa.Table:
        return self._data.to_table(
            columns=list(columns), offset=rows.start, limit=len(rows), scan_in_order=True
        )

    def holding(self, column: str, names: set[str]) -> set[str]:
        """The subset of names that a column holds, including rows that others just added."""
        # Names with other characters would need quoting, and no crop has such a name.
        quoted = ",".join(f"'{name}'" for name in names if name.isalnum())
        if not quoted:
            return set()
        self.refresh()
        chosen = f"{column} IN ({quoted})"
        found = self._following(lambda: self._data.to_table(columns=[column], filter=chosen))
        return set(found[column].to_pylist())

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
        return self._following(lambda: self._data.take(list(rows), columns=list(columns)))


class _Busy(Exception):
    """Another process holds the lock of the tables."""


def _data_files(part: lance.LanceFragment) -> list[str]:
    return [file.path for file in part.metadata.files]


def _flush(path: Path, version: int, files: list[str]) -> None:
    """Flush a version of a table to the disk: its data, its manifest and their folders.

    Raises:
        OSError: The disk fails.
    """
    manifest = manifest_file(path, version)
    made = [path / "data" / name for name in files] + ([manifest] if manifest else [])
    folders = dict.fromkeys(file.parent for file in made)

    def flush(one: Path) -> None:
        with suppress(FileNotFoundError):  # a merge by another process has replaced it
            sync(one)

    # At the same time: the disk then writes all of it at once.
    together(flush, [*made, *folders])


def _address(path: Path, store: Store | None) -> tuple[str, dict[str, str] | None]:
    """Address and options by which Lance reaches a table."""
    return (str(path), None) if store is None else (store.url, store.lance_options)
