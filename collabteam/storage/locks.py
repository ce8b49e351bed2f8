"""File locks of the operating system; their content names the holder to other commands."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from collabteam.errors import UserError, file_error

# A lock is never taken through a link: the note would replace the content of somebody's file.
# Without O_NONBLOCK, a pipe of that name would be waited for.
_OWN = os.O_NOFOLLOW | os.O_NONBLOCK
# Descriptors of the locks that this process holds.
_held: set[int] = set()


def _forget_locks() -> None:
    """In a forked child, release the parent's locks: they must end with the parent."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget_locks)


class LockHeld(Exception):
    """Another command holds the lock.

    Attributes:
        holder: The holder's note, with at least ``pid``, ``host`` and ``since`` (Unix seconds);
            empty if it has taken the lock but has not written its note yet.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__("the lock is held")
        try:
            holder = json.loads(content)
            self.holder: dict[str, Any] = holder if isinstance(holder, dict) else {}
        except (ValueError, RecursionError):
            self.holder = {}

    def describe(self) -> str:
        """The holder in words."""
        try:
            since = datetime.datetime.fromtimestamp(self.holder["since"]).strftime("%H:%M:%S")
            who = f"process {self.holder['pid']} on host {self.holder['host']}"
            return f"{who} ({self.holder['command']!r}, since {since})"
        except (ValueError, KeyError, TypeError, OverflowError, OSError):
            return "another process"


class Lock:
    """An exclusive lock on a file, held until :meth:`release` or the end of the process.

    The lock belongs to the operating system, so it ends with the process in every case and is never
    stale. The file's content only names the holder to others.

    Args:
        path: The file; created if missing.
        note: Shown to others with the process, the host and the time; must be JSON-able.
        private: Whether only the file's owner may read the note.

    Raises:
        LockHeld: Another command holds it.
        UserError: The file cannot be written or locked.
    """

    def __init__(self, path: Path, note: dict[str, Any], private: bool = False) -> None:
        mode = 0o600 if private else 0o666
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _OWN, mode)
        except OSError as error:
            raise file_error(path, error) from error
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._descriptor)
            raise UserError(f"{path} is not a file: move it away, a lock is made in its place")
        # The note would replace the content of the other name.
        self._has_note = status.st_nlink == 1
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            content = os.read(self._descriptor, 4096)
            os.close(self._descriptor)
            raise LockHeld(content) from error
        except OSError as error:
            os.close(self._descriptor)
            raise UserError(
                f"{path.parent} cannot be locked: {error.strerror}: expected a file system with "
                "locks"
            ) from error
        if private:
            os.fchmod(self._descriptor, mode)
        _held.add(self._descriptor)
        self.tell(note)

    def tell(self, note: dict[str, Any]) -> None:
        """Replace the note that others read."""
        if not self._has_note:
            return
        signed = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time(), **note}
        os.ftruncate(self._descriptor, 0)
        with suppress(OSError):  # on a full disk the lock still holds, without a note
            os.pwrite(self._descriptor, json.dumps(signed).encode(), 0)

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        if self._descriptor in _held:
            _held.discard(self._descriptor)
            os.close(self._descriptor)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on a file; a missing file is not locked."""
    try:
        with file_lock(path, shared=True, wait=False, make=False):
            return False
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False


@contextmanager
def file_lock(
    path: Path, shared: bool = False, wait: bool = True, make: bool = True
) -> Iterator[int]:
    """Hold a lock on a file until the block ends; the content is not changed.

    Args:
        path: The file.
        shared: Whether other shared holders are allowed at the same time.
        wait: Whether to wait until others release it.
        make: Whether to create a missing file.

    Yields:
        The descriptor of the file, open until the block ends.

    Raises:
        BlockingIOError: It is held, and ``wait`` is false.
        OSError: The file cannot be opened or locked.
    """
    flags = os.O_RDWR | os.O_CREAT if make else os.O_RDONLY
    descriptor = os.open(path, flags | _OWN, 0o666)
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)
