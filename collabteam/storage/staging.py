"""Staging: the hidden folders in which all output is made before it appears.

A staging folder lies beside its target. Its name is random, it is made exclusively and only its
owner can enter it, so nothing that others planted is ever written, followed or removed. A mark in
it, locked while its process lives, tells what a kill left from what belongs to somebody: only
folders of ours that carry the mark, and that no process holds, are removed.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from collabteam.errors import UserError, file_error
from collabteam.storage.locks import file_lock

_NAME = re.compile(r"\..*\.[0-9a-f]{16}\.part")
_MARK = ".collabteam-staging"
_SAYS = "collabteam makes this output here. It removes the folder if the command was killed.\n"
_LONGEST = 200
"""Bytes of the target's name in that of the folder: names on disk have at most 255."""
_cleaned: set[Path] = set()
"""Folders in which this process has looked for what killed calls left."""


@contextmanager
def write_errors(to: Path) -> Iterator[None]:
    """Turn an error of the file system into one line for the user.

    Raises:
        UserError: The file or folder ``to`` cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise file_error(to, error) from error


@contextmanager
def staging_folder(to: Path, alone: bool = False) -> Iterator[Path]:
    """A hidden folder for this call alone, beside its output: deleted at the end.

    What killed calls left beside the output is deleted, too; each process looks once in a folder,
    because a folder of a camera may hold a file for each of many thousand videos.

    Args:
        to: The output. Its folder must be there.
        alone: Whether nobody else may make the same output at the same time.

    Yields:
        The folder. It holds nothing but a hidden mark.

    Raises:
        UserError: Another command is making the same output.
        OSError: The folder cannot be made.
    """
    with ExitStack() as stack:
        folder = _make(stack, to)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        if alone or to.parent not in _cleaned:
            _cleaned.add(to.parent)
            if _clean(folder, to.name) and alone:
                raise UserError(f"another command is writing {to}: wait for it")
        yield folder


def _make(stack: ExitStack, to: Path) -> Path:
    """Make a folder with a locked mark in it."""
    name = os.fsdecode(os.fsencode(to.name)[:_LONGEST])
    while True:
        folder = to.with_name(f".{name}.{secrets.token_hex(8)}.part")
        try:
            folder.mkdir(0o700)
        except FileExistsError:
            continue
        # Another call may take a folder without a mark for what a kill left.
        with suppress(FileNotFoundError):
            mark = os.open(folder / _MARK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                # A file system without locks raises; nobody can then take it for a kill's.
                with suppress(OSError):
                    stack.enter_context(file_lock(folder / _MARK))
                os.write(mark, (_SAYS + to.name).encode("utf-8", "surrogateescape"))
            finally:
                os.close(mark)
            return folder


def _clean(own: Path, name: str) -> bool:
    """Delete what killed calls left beside a folder.

    Args:
        own: The folder.
        name: Name of its target.

    Returns:
        Whether another process is making the same target.
    """
    is_busy = False
    with suppress(OSError), os.scandir(own.parent) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name) and entry.name != own.name:
                with suppress(OSError):
                    is_busy |= _clean_one(entry, name)
    return is_busy


def _clean_one(entry: os.DirEntry[str], name: str) -> bool:
    """Delete one folder if a killed call of ours left it; return whether it is a live one's."""
    status = entry.stat(follow_symlinks=False)
    if not entry.is_dir(follow_symlinks=False) or status.st_uid != os.geteuid():
        return False
    mark = Path(entry.path, _MARK)
    if not os.path.lexists(mark):
        mark.parent.rmdir()  # killed before it had a mark; fails unless the folder is empty
        return False
    # Without O_NONBLOCK, a pipe of that name would be waited for.
    descriptor = os.open(mark, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        said = os.read(descriptor, 4096).decode("utf-8", "surrogateescape")
    finally:
        os.close(descriptor)
    if not said.startswith(_SAYS):
        return False
    try:
        with file_lock(mark, wait=False, make=False):
            shutil.rmtree(entry.path)
    except BlockingIOError:
        return said.removeprefix(_SAYS) == name
    return False
