"""The exceptions with messages for users, errors of the file system, and text from outside."""

from __future__ import annotations

import errno
import os
import pwd
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


class UserError(Exception):
    """Bad input or a state that only the user can change.

    The message is one line: what was expected, what was found, and what to do. Commands print it
    without a traceback and exit with code 2; existing results are unchanged.
    """


class UndecodableCrops(UserError):
    """Pictures of a selection cannot be decoded.

    Attributes:
        faults: The reason by crop.
    """

    def __init__(self, faults: dict[str, str]) -> None:
        self.faults = faults
        crop_id, reason = next(iter(faults.items()))
        more = f"; nor can those of {len(faults) - 1} other crops" if len(faults) > 1 else ""
        super().__init__(f"the picture of crop {crop_id} cannot be opened: {reason}{more}")


class Terminated(KeyboardInterrupt):
    """SIGTERM; what cleans up after Ctrl-C cleans up after it as well."""


def fault_lines(faults: Mapping[str, str]) -> list[str]:
    """Name crops whose picture cannot be opened, in lines for the user; of many, the first.

    Args:
        faults: The reason by crop.
    """
    lines = [f"  crop {crop_id}: {reason}" for crop_id, reason in list(faults.items())[:_NAMED]]
    if len(faults) > _NAMED:
        lines.append(f"  and {len(faults) - _NAMED} other crops")
    return lines


_NAMED = 20  # crops that are named at most
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Lance and safetensors pass on the system's error only as text.
_NO_SPACE_TEXT = tuple(
    text for number in _NO_SPACE for text in (f"(os error {number})", os.strerror(number))
)


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn "no space left" from Python, Arrow or Lance into one line for the user.

    Raises:
        UserError: The disk, the quota or the largest file size is exhausted.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in _NO_SPACE or any(text in str(error) for text in _NO_SPACE_TEXT):
            raise UserError(
                f"the disk is full: {first_line(error)}; free space and run the same command "
                "again: nothing is lost"
            ) from error
        raise


def file_error(path: Path, error: OSError, done: str = "written") -> UserError:
    """Say in one line that a file or folder cannot be used, and whose it is if that is the reason.

    Args:
        path: The file or folder.
        error: What the system says.
        done: What cannot be done: ``written``, ``read``, ``made``, ``used``.
    """
    reason = error.strerror or first_line(error)
    if error.errno == errno.ELOOP:
        reason = "it is a link"
    if error.errno in _REFUSED and (whose := foreign_owner(path)):
        reason += f": {whose}"
    return UserError(f"{path} cannot be {done}: {reason}")


def foreign_owner(path: Path) -> str:
    """Say to whom a path belongs, for a message about a refusal; ``""`` if it is ours.

    Args:
        path: It need not exist, and need not be reachable: the nearest folder above it counts.
    """
    for place in (path, *path.absolute().parents):
        with suppress(OSError):
            owner, own = place.stat().st_uid, os.geteuid()
            if owner == own:
                return ""
            return (
                f"{place} belongs to {user_name(owner)}, and this command runs as "
                f"{user_name(own)}: ask the owner for access, or run it as that user"
            )
    return ""


def user_name(uid: int) -> str:
    """A user for people; a process need not have a name in the user table."""
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"the user with number {uid}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without the locations in Lance's source after it."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    for marker in (", /home/", ", /rustc/", ", /root/"):
        line = line.split(marker)[0]
    return line[:300]


_LONGEST = 4000
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def plain(text: str, longest: int = _LONGEST) -> str:
    """Make a text safe to print as one line.

    Names of files, labels and tracks come from outside. They may hold line breaks, which would
    forge lines, or characters that move the cursor, colour the terminal or turn the direction of
    writing. These are written as ``\\n`` or ``\\x1b``.

    Args:
        text: Any text.
        longest: The number of characters to keep; of a longer text the middle is left out.
    """
    if len(text) > longest:
        text = f"{text[: longest * 3 // 4]} ... {text[-(longest // 4) :]}"
    if text.isprintable():
        return text
    return "".join(
        letter.encode("unicode_escape").decode("ascii")
        if unicodedata.category(letter) in _HIDDEN
        else letter
        for letter in text
    )
