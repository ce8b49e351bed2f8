"""The one exception that a person is meant to read, and how a full disk becomes it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Bad input or a state that only the user can change.

    The message is one line that says what was expected, what came, and what to do. Commands
    print it without a traceback and exit with code 2; nothing that was there has been changed.
    """


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Lance and safetensors hand on what the system said as text only.
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


def first_line(error: BaseException) -> str:
    """The first line of what went wrong, without the places in Lance's source that follow."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    for marker in (", /home/", ", /rustc/", ", /root/"):
        line = line.split(marker)[0]
    return line[:300]
