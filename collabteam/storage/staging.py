"""Staging of output that must appear atomically."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from collabteam.errors import UserError, first_line
from collabteam.storage.locks import file_lock


@contextmanager
def write_errors(to: Path) -> Iterator[None]:
    """Turn an error of the file system into one line for the user.

    Raises:
        UserError: The file or folder ``to`` cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{to} cannot be written: {error.strerror or first_line(error)}") from error


@contextmanager
def staging_folder(folder: Path, to: Path) -> Iterator[Path]:
    """A hidden folder for this call alone: empty at the start, deleted at the end.

    Args:
        folder: The hidden folder; the remains of a killed call in it are deleted.
        to: The output, for the message.

    Raises:
        UserError: Another command is using the folder.
    """
    folder.mkdir(exist_ok=True)
    with ExitStack() as stack:
        try:
            descriptor = stack.enter_context(file_lock(folder, wait=False))
            is_ours = os.path.samestat(os.fstat(descriptor), folder.stat())
        except (BlockingIOError, FileNotFoundError):
            is_ours = False  # another command holds it, or has just finished
        if not is_ours:
            raise UserError(f"another command is writing {to}: wait for it")
        for left in folder.iterdir():  # by a killed call
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
