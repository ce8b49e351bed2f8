"""``python -m collabteam.simulate``: make a camera with a known truth for every crop."""

from __future__ import annotations

from dataclasses import dataclass

from collabteam.cli.command import Command
from collabteam.cli.outcome import Outcome
from collabteam.errors import UserError
from collabteam.events import Listener, counting
from collabteam.reporting.output import tell
from collabteam.settings import CommandConfig, RuntimeConfig, SimulationConfig
from collabteam.settings.fields import group, setting


@dataclass
class SimulateConfig(SimulationConfig, CommandConfig):
    """Settings of ``collabteam.simulate``."""

    seed: int = setting(0, ge=0, help="seed of all draws")
    runtime: RuntimeConfig = group(RuntimeConfig, preset="core", help="one job of a sweep")


def run(config: SimulateConfig, listener: Listener) -> Outcome:
    """Draw the crops, put them into the catalog, and leave a contact sheet."""
    from collabteam.catalog import Catalog
    from collabteam.simulator import CLASSES
    from collabteam.simulator.source import SimulatedSource
    from collabteam.sources.crops import ingest_source
    from collabteam.video.contact_sheet import contact_sheet

    if config.camera.classes and set(config.camera.classes) != set(CLASSES):
        raise UserError(
            f"camera {config.camera.name} has the classes {', '.join(config.camera.classes)}, the "
            f"simulation draws {', '.join(CLASSES)}: simulate a camera of another name"
        )
    catalog = Catalog.register(config.root, config.camera.name, config.camera.classes)
    source = SimulatedSource(config, config.seed)
    with listener.stage(f"drawing {config.crops} crops", config.crops, "crops") as advance:
        summary = ingest_source(catalog, source, counting(advance))
    to = catalog.workspace.report("contact-sheet.png")
    with catalog.workspace.publishing(to):
        samples = [sample for name in sorted(source.samples) for sample in source.samples[name]]
        contact_sheet(samples, to)
    tell(
        (
            f"{config.camera.name}: {summary.added} new crops, {summary.total} in all, "
            f"in {catalog.place}",
            f"a look at some of them: {to}",
            f"next: python -m collabteam.train camera={config.camera.name} "
            "experiment=quick reviewer=oracle",
        )
    )
    return Outcome()


main = Command(
    "simulate",
    SimulateConfig,
    run,
    about="Make a simulated camera: crops of walkers, cyclists and motorcyclists drawn in code, "
    "truth known.",
    usage=(("camera=NAME [setting=value ...]", ""),),
    then="python -m collabteam.train camera=NAME experiment=quick reviewer=oracle",
    cameras="new",
    varies="anything",
)

if __name__ == "__main__":
    main()
