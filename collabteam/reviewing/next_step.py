"""The command that follows when a queue is done."""

from __future__ import annotations

from collabteam.catalog import Catalog
from collabteam.rounds.initial import read_draw
from collabteam.rounds.records import read_rounds


def next_training(catalog: Catalog) -> str:
    """Return the command that trains on the verified crops.

    Raises:
        UserError: A round's record or the draw of i0 is damaged.
    """
    done = len(read_rounds(catalog.workspace))
    command = f"python -m collabteam.train camera={catalog.name} round={done}"
    file = catalog.workspace.round(0).sample
    if not done and file.exists():
        # Name every size: an experiment may set others, and i0 would then be drawn again.
        drawn = read_draw(file)
        command += f" seed={drawn['seed']}" if drawn["seed"] else ""
        command += f" seed_per_class={drawn['seed_per_class']} seed_unknown={drawn['seed_unknown']}"
    return command
