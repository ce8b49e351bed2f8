"""A command: how many crops of each class a camera has."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from collabteam.cli.command import Command
from collabteam.cli.outcome import Outcome
from collabteam.events import Listener
from collabteam.settings import CommandConfig
from collabteam.settings.fields import setting


@dataclass
class CountConfig(CommandConfig):
    """Settings of ``count``."""

    at_least: int = setting(1, ge=1, help="leave out classes with fewer crops")


def run(config: CountConfig, listener: Listener) -> Outcome:
    """Print one line a class."""
    from collabteam.catalog import Catalog

    index = Catalog.open(config.root, config.camera.name).index()
    for name, count in sorted(Counter(index.proposed).items()):
        if count >= config.at_least:
            print(f"{count:6} {name or 'no proposal'}")
    return Outcome(f"{len(index)} crops")


main = Command(
    "count",
    CountConfig,
    run,
    about="Count the crops of each class that a detector proposed.",
    usage=(("camera=NAME", ""),),
)

if __name__ == "__main__":
    main()
