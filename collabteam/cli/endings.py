"""How a command ends: its exit code, one line for every error, and output that nobody reads.

=====  ==============================================================================
code   meaning
=====  ==============================================================================
0      done, or there was nothing to do
1      it worked, and the answer is no: an audit failed, or some inputs or cameras did
2      wrong input, or a state that only the user can change
70     a fault of collabteam, described in a file
130    interrupted by Ctrl-C
143    ended by SIGTERM
=====  ==============================================================================
"""

from __future__ import annotations

import atexit
import errno
import io
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from collabteam.cli.words import roots
from collabteam.errors import (
    Terminated,
    UserError,
    disk_errors,
    file_error,
    first_line,
    plain,
)
from collabteam.machine import utc_stamp
from collabteam.storage.roots import work_folder

FAULT = 70
"""Exit code of a fault of collabteam (``EX_SOFTWARE`` of BSD)."""

_ENVIRONMENT = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR),
    *(errno.EISDIR, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.ENOMEM),
    *(errno.EAGAIN, errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO),
}
_VERSIONS = ("collabteam", "hydra-core", "lightning", "numpy", "pyarrow", "pylance", "torch")
_SECRET = re.compile(r"(?<=//)[^/@\s'\"]+(?=@)|(?<=[?&](?:key|sig|pwd)=)[^&\s'\"]+|"
                     r"(?<=[?&]token=)[^&\s'\"]+|(?<=[?&]password=)[^&\s'\"]+")  # fmt: skip


def complain(command: str, text: str) -> None:
    """Print one line about a command on standard error.

    Args:
        command: The command's name.
        text: One line; it may contain text from outside.
    """
    print(plain(f"{command}: {text}"), file=sys.stderr)


def ending(command: str, words: Sequence[str], work: Callable[[Sequence[str]], int]) -> int:
    """Do a command's work and return its exit code; no exception leaves this function.

    Args:
        command: The command's name.
        words: The command line.
        work: The work; takes the words and returns the exit code.
    """
    guard_outlets()
    try:
        _have_temporary_folder(words)
        with ended_by_sigterm(), disk_errors():
            code = work(words)
            sys.stdout.flush()
        return code
    except UserError as error:
        complain(command, str(error))
        return 2
    except KeyboardInterrupt as error:
        how = "ended by SIGTERM" if isinstance(error, Terminated) else "interrupted"
        complain(command, f"{how}; run the same command again to continue")
        return 143 if isinstance(error, Terminated) else 130
    except Exception as error:
        if reason := outer_reason(error):
            complain(command, reason)
            return 2
        complain(command, _fault(command, words, error))
        return FAULT


def _have_temporary_folder(words: Sequence[str]) -> None:
    """Make a folder for temporary files under the root, if the system has none to write in."""
    with suppress(FileNotFoundError):
        tempfile.gettempdir()
        return
    for root in _folders(words):
        with suppress(OSError):
            made = tempfile.mkdtemp(prefix=".temporary-", dir=Path(root).absolute())
            os.environ["TMPDIR"] = tempfile.tempdir = made
            os.environ.setdefault("MPLCONFIGDIR", made)
            atexit.register(shutil.rmtree, made, ignore_errors=True)
            return


def outer_reason(error: BaseException) -> str:
    """Why the machine, and not collabteam, is the cause of an exception; ``""`` if it is not."""
    if isinstance(error, FileNotFoundError) and "temporary directory" in str(error):
        return f"{error.strerror}: set TMPDIR to a folder that can be written"
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return f"the memory does not suffice: {first_line(error)}"
    if isinstance(error, OSError) and error.errno in _ENVIRONMENT:
        if isinstance(error.filename, str | bytes | os.PathLike) and error.filename:
            return str(file_error(Path(os.fsdecode(error.filename)), error, "used"))
        return error.strerror or first_line(error)
    return ""


def _fault(command: str, words: Sequence[str], error: Exception) -> str:
    """Write the report on a fault, below the root if it can be; return the line about it."""
    line = f"a fault of collabteam: {type(error).__name__}: {first_line(error)}"
    report = "\n".join(
        (
            f"a fault of collabteam in the command {command}, {utc_stamp()}",
            "",
            *(repr(word) for word in words),
            "",
            *_versions(),
            "",
            "".join(traceback.format_exception(error)),
        )
    )
    content = _SECRET.sub("***", report).encode("utf-8", "backslashreplace")
    for folder in (*_folders(words), None):
        with suppress(OSError):
            descriptor, name = tempfile.mkstemp(".txt", f"fault-{command}-", folder)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            return f"{line}; its report, to send to the maintainers: {name}"
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{line} ({place.filename}:{place.lineno}); no folder could take its report"


def _folders(words: Sequence[str]) -> list[str]:
    with suppress(UserError):
        return [str(work_folder(root)) for root in roots(words)]
    return []


def _versions() -> Iterator[str]:
    yield f"Python {platform.python_version()}, {platform.platform()}"
    for name in _VERSIONS:
        with suppress(metadata.PackageNotFoundError):
            yield f"{name} {metadata.version(name)}"


# -- output ----------------------------------------------------------------------------------------


class _Outlet(io.FileIO):
    """A standard stream that fails at most once; what nobody reads any more is dropped."""

    def write(self, content: Any) -> int:
        """Write, or lead all that follows to nowhere."""
        try:
            return super().write(content)
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            # Of a failure of standard error nobody can be told.
            if not isinstance(error, BrokenPipeError) and self.fileno() != 2:
                raise
            return len(memoryview(content).cast("B"))


def guard_outlets() -> None:
    """Let output fail no work: not for its encoding, nor because its reader has gone."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # closed; the next file to be opened would take its place
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()
    # A test, a notebook or another program may have put something else in their place.
    if type(sys.stdout) is io.TextIOWrapper and sys.stdout is sys.__stdout__:
        sys.stdout = _outlet(sys.stdout)
    if type(sys.stderr) is io.TextIOWrapper and sys.stderr is sys.__stderr__:
        sys.stderr = _outlet(sys.stderr)


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def _outlet(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    with suppress(OSError):
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Outlet(stream.fileno(), "w", closefd=False)),
        stream.encoding,
        "backslashreplace",
        line_buffering=stream.line_buffering,
    )


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C would, by an exception."""

    def end(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not stop the clean-up
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
