"""A simulated camera as a source of crops for a catalog."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import fields

from collabteam.settings import SimulationConfig
from collabteam.simulator import CLASSES, simulate
from collabteam.sources.base import Aside, Item, Labels


class SimulatedSource:
    """A source of simulated crops, see :class:`collabteam.sources.base.Source`.

    Args:
        config: Settings of the simulation.
        seed: Seed of the simulation, at least 0.

    Attributes:
        samples: The first few crops of each truth, for a contact sheet.
    """

    def __init__(self, config: SimulationConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self.meaning: Labels = "proposed"
        self.total, self.aside = config.crops, Aside()
        self.labels, self.classes, self.answers = {*CLASSES}, list[str](), True
        # Tracks of simulations with other settings must not get the same names.
        settings = {f.name: getattr(config, f.name) for f in fields(SimulationConfig)}
        text = json.dumps([settings, seed], sort_keys=True)
        self.street = hashlib.blake2b(text.encode(), digest_size=3).hexdigest()
        self.samples: dict[str, list[tuple[bytes, str]]] = {}

    def items(self) -> Iterator[Item]:
        """Yield the crops in the order of simulated time."""
        for crop in simulate(self.config, self.seed):
            samples = self.samples.setdefault(crop.truth, [])
            if len(samples) < 36:
                samples.append((crop.jpeg, crop.truth))
            yield Item(
                f"{crop.video} frame {crop.frame}",
                crop.jpeg,
                given={"proposed": crop.proposed, "truth": crop.truth},
                split=crop.split,
                origin={
                    "video": f"{self.street}/{crop.video}",
                    "track": crop.track,
                    "frame": crop.frame,
                    "time": crop.time,
                    "box": crop.box,
                },
            )
