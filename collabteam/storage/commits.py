"""The record of a table's commits: it shows that a table lost some.

Lance opens the newest version whose manifest it finds. If that file is lost, the version before is
opened, and everything that was added since has vanished without a word. So each commit to a table
on a disk is noted in a file beside its versions, once it is on the disk: the number of the version,
its rows, and a hash of its manifest. A table that has less than its record says is damaged.

In an object store, the record is one small object beside the table's, with the newest commit alone:
a conditional put after each commit, and a get when the table is opened. It has no hash, because a
store checks its objects itself.

The record lies in the table's folder, so a folder that is restored as a whole is right again. A
table without a record, as earlier versions made it, is compared with Lance's own hint of the newest
version. A kill between a commit and its note leaves a note of an earlier version, which is right,
too. A line that is torn or has a wrong checksum does not count.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from collabteam.errors import UserError
from collabteam.storage.files import open_own, parse_json, write_bytes
from collabteam.storage.store import Conflict, Store

RECORD = "commits"
_HINT = "latest_version_hint.json"
_TAIL = 4096
_LARGE = 65_536
_LAST = 2**64 - 1
# Notes of others that may overtake one in a store; the last of them is later.
_ATTEMPTS = 5


@dataclass(frozen=True)
class Commit:
    """A version of a table.

    Attributes:
        version: Its number.
        rows: Its rows; -1 if they are not known.
        manifest: Hash of its manifest; ``""`` if it is not known.
    """

    version: int
    rows: int = -1
    manifest: str = ""


def last_commit(table: Path) -> Commit | None:
    """Read the newest commit that was noted; None if none was.

    Args:
        table: The table's folder.

    Raises:
        UserError: The record is damaged.
    """
    try:
        with open(table / RECORD, "rb", opener=open_own) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            lines = file.read().splitlines()
    except OSError:
        return _hinted(table)
    return _newest(lines, str(table))


def _newest(lines: list[bytes], table: str) -> Commit:
    found = [commit for commit in map(_parse, lines) if commit is not None]
    if not found:
        raise UserError(
            f"{table}/{RECORD} is damaged: it names no commit of the table; restore {table} from a "
            "backup, or delete this one file if the table is known to be whole"
        )
    return max(found, key=lambda commit: (commit.version, commit.rows))


def record_of(table: Path) -> Path:
    """The file that :func:`last_commit` reads."""
    record = table / RECORD
    return record if os.path.lexists(record) else table / "_versions" / _HINT


def _hinted(table: Path) -> Commit | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        version = parse_json((table / "_versions" / _HINT).read_bytes())["version"]
        if type(version) is int:
            return Commit(version)
    return None


def _parse(line: bytes) -> Commit | None:
    content, _, checksum = line.rpartition(b" ")
    if checksum != b"%08x" % zlib.crc32(content):
        return None
    try:
        version, rows, manifest = content.decode().split(" ")
        return Commit(int(version), int(rows), manifest)
    except ValueError:
        return None


def note_commit(table: Path, version: int, rows: int) -> None:
    """Note a commit that is on the disk; several processes may do so at the same time.

    Args:
        table: The table's folder.
        version: Its version.
        rows: Its rows.
    """
    line = _line(Commit(version, rows, manifest_hash(table, version)))
    # The commit stands in any case. An older note is right, too: it only shows less.
    with (
        suppress(OSError),
        open(table / RECORD, "ab", buffering=0, opener=open_own) as file,
    ):
        # On a line of its own, whatever a power cut left of the last one.
        file.write(b"\n" + line)


def _line(commit: Commit) -> bytes:
    content = f"{commit.version} {commit.rows} {commit.manifest}".encode()
    return content + b" %08x\n" % zlib.crc32(content)


class StoredRecord:
    """The record of a table in an object store.

    Args:
        store: The table's objects.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._etag: str | None = None

    def last_commit(self) -> Commit | None:
        """Read the newest commit that was noted; None if none was.

        Raises:
            UserError: The record is damaged, or the store does not answer.
        """
        found = self._store.read(RECORD)
        self._etag = found.etag if found else None
        return _newest(found.content.splitlines(), self._store.url) if found else None

    def note(self, version: int, rows: int) -> None:
        """Note a commit that stands, unless a later one is noted."""
        line = _line(Commit(version, rows, "-"))
        # The commit stands in any case. An older note is right, too: it only shows less.
        with suppress(UserError):
            for _ in range(_ATTEMPTS):
                try:
                    self._etag = self._store.write(RECORD, line, self._etag)
                    return
                except Conflict:
                    last = self.last_commit()
                    if last is not None and last.version >= version:
                        return


def shorten(table: Path) -> None:
    """Drop all but the last note if there are many; no other process may commit meanwhile."""
    file = table / RECORD
    with suppress(OSError):
        if file.stat().st_size > _LARGE:
            with file.open("rb") as opened:
                opened.seek(-_TAIL, os.SEEK_END)
                kept = opened.read().splitlines()[1:]
            write_bytes(file, b"\n".join([*kept, b""]))


def manifest_file(table: Path, version: int) -> Path | None:
    """The file of a version; None if it is gone."""
    names = (f"{_LAST - version:020}.manifest", f"{version}.manifest")
    files = (str(table / "_versions" / name) for name in names)
    return next((Path(file) for file in files if os.path.isfile(file)), None)  # noqa: PTH113


def newest_version(table: Path) -> int:
    """Number of the newest version that has a file, damaged or not; 0 if there is none."""
    names: list[str] = []
    with suppress(OSError):
        names = [file.stem for file in (table / "_versions").glob("*.manifest")]
    numbers = [int(name) for name in names if name.isdecimal()]
    return max((_LAST - n if n > _LAST // 2 else n for n in numbers), default=0)


def manifest_hash(table: Path, version: int) -> str:
    """Hash of the file of a version, in hexadecimal; ``-`` if it is gone."""
    file = manifest_file(table, version)
    if file is None:
        return "-"
    try:
        return hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()
    except OSError:
        return "-"
