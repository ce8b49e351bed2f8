"""Atomic writing of files that survives kills and power cuts.

Each file is written beside its place under a hidden name, flushed to the disk, and renamed. The
hidden file is locked while it is written, so the next writer overwrites the remains of a kill, and
two writers of the same file never share one.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from collabteam.errors import UserError, disk_errors
from collabteam.storage.locks import file_lock

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import ArrayLike


def write_bytes(path: Path, content: bytes, private: bool = False) -> None:
    """Write a file atomically.

    Args:
        path: The file.
        content: All of it.
        private: Whether only its owner may read it.

    Raises:
        UserError: The disk is full.
    """
    with replacing(path, private) as file:
        file.write(content)


def write_text(path: Path, text: str, private: bool = False) -> None:
    """Write a text file in UTF-8 as :func:`write_bytes` does."""
    write_bytes(path, text.encode(), private)


def write_json(path: Path, content: object, private: bool = False) -> None:
    """Write a JSON file as :func:`write_bytes` does.

    Raises:
        ValueError: A number is not finite.
        UserError: The disk is full.
    """
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n", private)


def write_npz(path: Path, arrays: Mapping[str, ArrayLike]) -> None:
    """Write arrays by name as :func:`write_bytes` does; ``numpy.load`` reads them."""
    import numpy as np  # code that only reads records need not wait for it

    with replacing(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table as :func:`write_bytes` does."""
    import pyarrow.parquet as pq

    with replacing(path) as file:
        pq.write_table(table, file)


def read_json(
    path: Path, remedy: str = "move its round's folder away to do the round again"
) -> dict[str, Any]:
    """Read a JSON object that an earlier stage wrote.

    Args:
        path: The file.
        remedy: How a person can repair the damage.

    Raises:
        UserError: The file is missing or broken.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__}")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: expected JSON written by an earlier stage, got {error}: {remedy}"
        ) from error
    return content


@contextmanager
def replacing(path: Path, private: bool = False) -> Iterator[BinaryIO]:
    """Write a file through an open file; a reader sees the old content or the new.

    Args:
        path: The file.
        private: Whether only its owner may read it.

    Yields:
        The new file, open for writing; it takes the place of the old one when the block ends, and
        is discarded if the block raises.

    Raises:
        UserError: The disk is full.
    """
    with (
        _partial(path, f".{path.name}", private) as (_, descriptor),
        os.fdopen(os.dup(descriptor), "wb") as file,
    ):
        yield file


@contextmanager
def replacing_path(path: Path) -> Iterator[Path]:
    """Do the same as :func:`replacing` for libraries that open the file themselves.

    Args:
        path: The file.

    Yields:
        The path to write to: an empty file beside it with the same suffix.

    Raises:
        UserError: The disk is full.
    """
    with _partial(path, f".part-{path.stem}", ending=path.suffix) as (partial, _):
        yield partial


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Make a folder atomically, in place of an existing one; for a single writer.

    Args:
        path: The folder.

    Yields:
        An empty folder beside it, which takes its place when the block ends.

    Raises:
        UserError: The disk is full.
    """
    partial, stale = (path.with_name(f".{path.name}.{word}") for word in ("part", "stale"))
    with disk_errors():
        for left in (partial, stale):
            shutil.rmtree(left, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if path.exists():
            # Renamed first: a kill during the removal must not leave half a folder.
            path.replace(stale)
        partial.replace(path)
        shutil.rmtree(stale, ignore_errors=True)


@contextmanager
def _partial(
    path: Path, name: str, private: bool = False, ending: str = ".part"
) -> Iterator[tuple[Path, int]]:
    """A hidden file beside ``path`` and its descriptor; renamed to ``path`` at the end."""
    with disk_errors(), ExitStack() as stack:
        partial, descriptor = _claim(stack, path, name, ending)
        try:
            if private:
                os.fchmod(descriptor, 0o600)
            os.ftruncate(descriptor, 0)
            yield partial, descriptor
            # By name, for a library may have replaced the file that it was given.
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _claim(stack: ExitStack, path: Path, name: str, ending: str) -> tuple[Path, int]:
    """Claim the usual hidden file, or one for this call alone if another writer holds that."""
    usual = path.with_name(name + ending)
    # A file system without locks raises, too, and then each call gets a file of its own.
    with suppress(OSError):
        descriptor = stack.enter_context(file_lock(usual, wait=False))
        # Its last writer may have renamed it meanwhile.
        if os.path.samestat(os.fstat(descriptor), usual.stat()):
            return usual, descriptor
    own = path.with_name(f"{name}.{uuid.uuid4().hex[:8]}{ending}")
    descriptor = os.open(own, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    stack.callback(os.close, descriptor)
    return own, descriptor
