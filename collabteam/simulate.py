"""``python -m collabteam.simulate``: a camera whose every truth is known."""

from __future__ import annotations

from dataclasses import dataclass

from collabteam.cli.command import Command, Outcome
from collabteam.settings import CommandConfig, RuntimeConfig, SimulationConfig
from collabteam.settings.fields import group, setting

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
class SimulateConfig(SimulationConfig, CommandConfig):
    """Settings of ``collabteam.simulate``."""

    seed: int = setting(0, ge=0, help="of everything that is drawn")
    runtime: RuntimeConfig = group(RuntimeConfig, preset="core", help="one job of a sweep")


def run(config: SimulateConfig) -> Outcome:
    """Draw the crops, put them into the catalog, and leave a contact sheet."""
    from collabteam.catalog import Catalog
    from collabteam.errors import UserError
    from collabteam.events import counting
    from collabteam.reporting.plots import contact_sheet
    from collabteam.reporting.terminal import Terminal
    from collabteam.simulator import CLASSES
    from collabteam.simulator.source import SimulatedSource
    from collabteam.sources.crops import ingest_source

    if config.camera.classes and set(config.camera.classes) != set(CLASSES):
        raise UserError(
            f"camera {config.camera.name} has the classes {', '.join(config.camera.classes)}, the "
            f"simulation draws {', '.join(CLASSES)}: simulate a camera of another name"
        )
    catalog = Catalog.register(config.root, config.camera.name, config.camera.classes)
    console = Terminal()
    source = SimulatedSource(config, config.seed)
    with console.stage(f"drawing {config.crops} crops", config.crops, "crops") as advance:
        summary = ingest_source(catalog, source, counting(advance))
    to = catalog.workspace.report("contact-sheet.png")
    with catalog.workspace.publishing(to):
        contact_sheet([shown for name in sorted(source.shown) for shown in source.shown[name]], to)
    print(
        f"{config.camera.name}: {summary.added} new crops, {summary.total} in all, "
        f"in {catalog.place}\n"
        f"a look at some of them: {to}\n"
        f"next: python -m collabteam.train camera={config.camera.name} round=2 experiment=quick "
        "reviewer=oracle"
    )
    return Outcome()


main = Command("simulate", SimulateConfig, run, HELP, registers=True, varies="anything")

if __name__ == "__main__":
    main()
