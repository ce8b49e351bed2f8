"""The exception with messages for users, and its use for a full disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Bad input or a state that only the user can change.

    The message is one line: what was expected, what was found, and what to do. Commands print it
    without a traceback and exit with code 2; existing results are unchanged.
    """


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


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without the locations in Lance's source after it."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    for marker in (", /home/", ", /rustc/", ", /root/"):
        line = line.split(marker)[0]
    return line[:300]
