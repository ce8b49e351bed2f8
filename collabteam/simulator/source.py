"""A simulated camera as a source of crops for a catalog."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import fields

from collabteam.settings import SimulationConfig
from collabteam.simulator import CLASSES, simulate
from collabteam.sources.crops import Item, Labels


class SimulatedSource:
    """The simulation as a source of crops for a catalog.

    Args:
        config: What the camera sees.
        seed: Of everything that is drawn.

    Attributes:
        shown: The first few crops of each truth, to look at.
    """

    def __init__(self, config: SimulationConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self.meaning: Labels = "proposed"
        self.total, self.ignored = config.crops, 0
        self.labels, self.answers = {*CLASSES}, True
        # Other settings make other streets, whose tracks must not be taken for these.
        settings = {f.name: getattr(config, f.name) for f in fields(SimulationConfig)}
        text = json.dumps([settings, seed], sort_keys=True)
        self.street = hashlib.blake2b(text.encode(), digest_size=3).hexdigest()
        self.shown: dict[str, list[tuple[bytes, str]]] = {}

    def items(self) -> Iterator[Item]:
        """The crops, in the order of simulated time."""
        for crop in simulate(self.config, self.seed):
            shown = self.shown.setdefault(crop.truth, [])
            if len(shown) < 36:
                shown.append((crop.jpeg, crop.truth))
            yield Item(
                f"{crop.video} frame {crop.frame}",
                crop.jpeg,
                given={"proposed": crop.proposed, "truth": crop.truth},
                test=crop.split == "test",
                origin={
                    "video": f"{self.street}/{crop.video}",
                    "track": crop.track,
                    "frame": crop.frame,
                    "time": crop.time,
                    "box": crop.box,
                },
            )
