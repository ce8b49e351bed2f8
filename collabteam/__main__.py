"""``python -m collabteam``: the same as the console script ``collabteam``."""

from __future__ import annotations

from collabteam.cli.console import main

if __name__ == "__main__":
    main()
