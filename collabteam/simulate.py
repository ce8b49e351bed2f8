"""``python -m collabteam.simulate``: a camera whose every truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from collabteam.boards.plots import contact_sheet
from collabteam.boards.progress import Console
from collabteam.catalog import Catalog
from collabteam.catalog.crops_source import Item, Labels, ingest_source
from collabteam.cli import Command
from collabteam.config import CameraConfig, camera_folder, check_seed
from collabteam.simulator import CLASSES, SimulationConfig, simulate

HELP = """
Make a simulated camera: crops of walkers, cyclists and motorcyclists drawn in code, truth known.

  python -m collabteam.simulate camera=NAME [setting=value ...]

  camera=NAME          the camera; a new name is registered
  crops=6000           number of crops
  crops_per_track=3    mean number of crops of one object
  hours=24             simulated span
  drift=0.3            0: the same all along; 1: the last hour looks very unlike the first
  proposal_error=0.08  share of wrong proposals of the simulated detector
  unknown_share=0.06   share of crops that show none of the classes
  hard_share=0.15      share of hard cases: pushed bicycles, occlusion, tiny, dark, two together
  test_share=0.15      share of tracks set apart as the frozen test set
  root=outputs  seed=0

Then: python -m collabteam.train camera=NAME round=2 experiment=quick reviewer=oracle
"""


@dataclass
class SimulateConfig(SimulationConfig):
    """``collabteam.simulate``: the simulation's settings and where it goes.

    Attributes:
        camera: The camera.
        root: Folder under which every camera has its own.
        seed: Of everything that is drawn.
    """

    camera: CameraConfig = field(default_factory=CameraConfig)
    root: str = "outputs"
    seed: int = 0


class _SimulatedSource:
    """The simulation as a source of crops, and the first few of each kind to look at."""

    def __init__(self, config: SimulateConfig) -> None:
        self.config = config
        self.meaning: Labels = "proposed"
        self.total, self.ignored = config.crops, 0
        self.labels, self.answers = {*CLASSES}, True
        self.shown: dict[str, list[tuple[bytes, str]]] = {}

    def items(self) -> Iterator[Item]:
        """The crops, in the order of simulated time."""
        for crop in simulate(self.config, self.config.seed):
            shown = self.shown.setdefault(crop.truth, [])
            if len(shown) < 36:
                shown.append((crop.jpeg, crop.truth))
            yield Item(
                f"{crop.video} frame {crop.frame}",
                crop.jpeg,
                given={"proposed": crop.proposed, "truth": crop.truth},
                test=crop.split == "test",
                origin={
                    "video": crop.video,
                    "track": crop.track,
                    "frame": crop.frame,
                    "time": crop.time,
                    "box": crop.box,
                },
            )


def run(config: SimulateConfig) -> int:
    """Draw the crops, put them into the catalog, and leave a contact sheet."""
    check_seed(config.seed)
    camera_folder(config.root, config.camera.name)
    catalog = Catalog.register(config.root, config.camera.name, config.camera.classes)
    console = Console()
    source = _SimulatedSource(config)
    with console.stage(f"drawing {config.crops} crops", config.crops, "crops") as advance:
        summary = ingest_source(catalog, source, console.counting(advance))
    to = catalog.folder / "contact-sheet.png"
    contact_sheet([shown for name in sorted(source.shown) for shown in source.shown[name]], to)
    print(
        f"{config.camera.name}: {summary.added} new crops, {summary.total} in all, "
        f"in {catalog.folder}\n"
        f"a look at some of them: {to}\n"
        f"next: python -m collabteam.train camera={config.camera.name} round=2 experiment=quick "
        "reviewer=oracle"
    )
    return 0


main = Command("simulate", SimulateConfig, run, HELP, registers=True)

if __name__ == "__main__":
    main()
