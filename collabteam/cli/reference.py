"""``python -m collabteam.cli.reference``: write ``docs/settings.md``."""

from __future__ import annotations

from pathlib import Path

from collabteam.cli.commands import commands
from collabteam.cli.help import reference

PAGE = Path("docs") / "settings.md"
"""The page's path in the repository."""


def text() -> str:
    """The text of the page."""
    known = list(commands().values())
    options = {name: files for one in known for name, files in one.options().items()}
    return reference(known, options)


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
