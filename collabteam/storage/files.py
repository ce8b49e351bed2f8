"""Files: written whole or not at all, safe against kills and power cuts, and read with suspicion.

Each file is made in a staging folder beside its place (:mod:`collabteam.storage.staging`), flushed
to the disk, and renamed. A link in its place is replaced, never followed. What is read back may be
damaged in any way: each fault is one line that names the file and what helps.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from collabteam.errors import UserError, disk_errors, file_error, first_line
from collabteam.storage.staging import staging_folder, write_errors

_CHUNK = 2**20

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import ArrayLike, NDArray


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
        UserError: The file is missing or damaged.
    """
    try:
        content = parse_json(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__}")
    except (OSError, ValueError) as error:
        raise damaged(path, "JSON written by an earlier stage", error, remedy) from error
    return content


def parse_json(text: bytes | str) -> Any:
    """Parse JSON as we write it, however it was damaged.

    Raises:
        ValueError: It is no JSON, a number is not finite, or it is nested too deeply.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return json.loads(text, parse_constant=_not_finite, parse_float=_finite)
    except (RecursionError, MemoryError) as error:
        raise ValueError("brackets that are nested too deeply") from error


def _finite(text: str) -> float:
    return value if math.isfinite(value := float(text)) else _not_finite(text)


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"{text[:20]}, which is no finite number")


def read_npz(path: Path, names: Sequence[str], remedy: str) -> dict[str, NDArray[Any]]:
    """Read arrays that :func:`write_npz` wrote.

    Args:
        path: The file.
        names: The arrays to read; those that the file lacks are left out.
        remedy: How a person can repair the damage.

    Raises:
        UserError: The file is missing or damaged.
    """
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as kept:
            return {name: kept[name] for name in names if name in kept}
    # Headers, archives and compression each have errors of their own.
    except Exception as error:
        raise damaged(path, "arrays written by an earlier stage", error, remedy) from error


def file_digest(path: Path) -> str:
    """Hash of what a file holds, in hexadecimal; equal networks have equal hashes.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no file of its kind.
    """
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        if path.suffix == ".safetensors":
            # The library writes the entries of the header in any order.
            size = int.from_bytes(file.read(8), "little")
            if size > path.stat().st_size:
                raise ValueError("a header that is longer than the file")
            digest.update(json.dumps(parse_json(file.read(size)), sort_keys=True).encode())
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def damaged(path: Path, expected: str, error: BaseException | str, remedy: str) -> UserError:
    """Say in one line that a file is damaged.

    Args:
        path: The file.
        expected: What it should hold.
        error: What was found.
        remedy: How a person can repair the damage.
    """
    if isinstance(error, PermissionError):
        return file_error(path, error, "read")
    found = error if isinstance(error, str) else " ".join(first_line(error).split())
    return UserError(f"{path}: expected {expected}, got {found}; the file is damaged: {remedy}")


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
        UserError: The file cannot be written, or the disk is full.
    """
    mode = 0o600 if private else 0o666
    with (
        replacing_path(path) as part,
        open(part, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file,
    ):
        yield file


@contextmanager
def replacing_path(path: Path) -> Iterator[Path]:
    """Do the same as :func:`replacing` for libraries that open the file themselves.

    Args:
        path: The file.

    Yields:
        The path to write to, of the same name, in a folder that holds nothing else.

    Raises:
        UserError: The file cannot be written, or the disk is full.
    """
    with _staged(path) as part:
        yield part
        with write_errors(path), disk_errors():
            sync(part)
            part.replace(path)
            sync(path.parent)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Make a folder atomically, in place of an existing one; for a single writer.

    Args:
        path: The folder.

    Yields:
        An empty folder, which takes its place when the block ends.

    Raises:
        UserError: The folder cannot be written, or the disk is full.
    """
    make_folder(path.parent)
    with _staged(path) as part:
        part.mkdir()
        yield part
        with write_errors(path), disk_errors():
            for made in (*part.rglob("*"), part):
                sync(made)
            if os.path.lexists(path):
                # Renamed first: a kill during the removal must not leave half a folder.
                path.replace(part.with_name("stale"))
            part.replace(path)
            sync(path.parent)


def make_folder(path: Path, private: bool = False) -> None:
    """Make a folder and those above it, unless it is there.

    Args:
        path: The folder.
        private: Whether only its owner may look into it.

    Raises:
        UserError: It cannot be made, or the disk is full.
    """
    with disk_errors():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(0o700 if private else 0o777, exist_ok=True)
        except OSError as error:
            raise file_error(path, error, "made") from error


def open_own(path: str, flags: int) -> int:
    """Open a file for ``open(..., opener=)``, but not through a link that others planted."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


@contextmanager
def _staged(path: Path) -> Iterator[Path]:
    """A path of the same name in a staging folder."""
    with ExitStack() as stack:
        with write_errors(path), disk_errors():
            folder = stack.enter_context(staging_folder(path))
        with disk_errors():
            yield folder / path.name


def sync(path: Path) -> None:
    """Flush a file or the entries of a folder to the disk.

    Raises:
        OSError: The content of a file cannot be written.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    except OSError:
        # Some file systems cannot flush folders; they keep entries in order or not at all.
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)
