"""``python -m collabteam.simulate``: a camera whose every truth is known."""

from __future__ import annotations

from dataclasses import dataclass, field

from collabteam.cli import Command
from collabteam.config import CameraConfig
from collabteam.simulator import SimulationConfig

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


def run(config: SimulateConfig) -> int:
    """Draw the crops, put them into the catalog, and leave a contact sheet."""
    from collabteam.boards.plots import contact_sheet
    from collabteam.boards.progress import Console
    from collabteam.catalog import Catalog, Crop, LabelEvent
    from collabteam.catalog.truth import append_truth
    from collabteam.config import check_seed
    from collabteam.errors import UserError
    from collabteam.simulator import CLASSES, SimulatedCrop, simulate

    check_seed(config.seed)
    classes = config.camera.classes or list(CLASSES)
    if set(classes) != set(CLASSES):
        raise UserError(
            f"camera {config.camera.name} has the classes {', '.join(classes)}, the simulation draws "
            f"{', '.join(CLASSES)}: simulate another camera"
        )
    catalog = Catalog.register(config.root, config.camera.name, classes)
    console = Console()
    sheet: dict[str, list[tuple[bytes, str]]] = {}

    def commit(batch: list[SimulatedCrop]) -> int:
        added = catalog.add_crops(
            Crop(c.jpeg, c.video, c.track, c.frame, c.time, c.box) for c in batch
        )
        known = {event for event in said if event[0] in {crop_id for crop_id, _ in added}}
        events = []
        for (crop_id, _), crop in zip(added, batch, strict=True):
            if (crop_id, crop.proposed) not in known:
                events.append(LabelEvent(crop_id, crop.proposed, "detector", "proposal"))
            if crop.split == "test" and (crop_id, "") not in known:
                events.append(LabelEvent(crop_id, "", "ingest", "test"))
        catalog.append_labels(events)
        append_truth(catalog, [(i, c.truth) for (i, _), c in zip(added, batch, strict=True)])
        return sum(new for _, new in added)

    new = 0
    with catalog.lock("simulate"):
        said = {(event.crop_id, event.label) for event in catalog.events()}
        with console.stage(f"drawing {config.crops} crops", config.crops, "crops") as advance:
            batch: list[SimulatedCrop] = []
            for crop in simulate(config, config.seed):
                batch.append(crop)
                shown = sheet.setdefault(crop.truth, [])
                if len(shown) < 36:
                    shown.append((crop.jpeg, crop.truth))
                if len(batch) == 1024:
                    new += commit(batch)
                    batch = []
                advance(1)
            if batch:
                new += commit(batch)
        to = catalog.folder / "contact-sheet.png"
        contact_sheet([picture for name in sorted(sheet) for picture in sheet[name]], to)
    console.say(
        f"{config.camera.name}: {new} new crops, {len(catalog)} in all, in {catalog.folder}\n"
        f"a look at them: {to}\n"
        f"next: python -m collabteam.train camera={config.camera.name} round=2 experiment=quick "
        "reviewer=oracle"
    )
    return 0


main = Command("simulate", SimulateConfig, run, HELP, registers=True)

if __name__ == "__main__":
    main()
