"""What commands print: every line and table goes through here.

Text from outside is nothing but text here, and no width, encoding or missing terminal fails a
command whose work is done.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from collabteam.errors import plain

if TYPE_CHECKING:
    from rich.console import Console

_NARROWEST = 80


def tell(lines: Iterable[str]) -> None:
    """Print lines on standard output.

    Args:
        lines: A line stays one line, whatever text from outside it contains.
    """
    for line in lines:
        print(plain(line))


def console(on_stderr: bool = False, narrowest: int = _NARROWEST) -> Console:
    """Make a console that takes square brackets, ``:names:`` and numbers as they are.

    Args:
        on_stderr: Whether it prints on standard error.
        narrowest: Its least number of columns; a narrower terminal breaks the lines of a table,
            which loses nothing.
    """
    from rich.console import Console

    # The stream of this moment: a job's own output leads to its log for a while.
    stream = sys.stderr if on_stderr else sys.stdout
    made = Console(file=stream, markup=False, emoji=False, highlight=False)
    if made.width < narrowest:
        made.width = narrowest
    return made
