"""Checks of a round that need no network, so they can fail before PyTorch is imported."""

from __future__ import annotations

from collabteam.catalog import Catalog
from collabteam.errors import UserError
from collabteam.events import Listener
from collabteam.rounds.records import RoundRecord, read_rounds
from collabteam.rounds.stages.sample import DrawSample, VerifySample
from collabteam.rounds.state import check_settings, settled
from collabteam.settings import TrainConfig, check
from collabteam.stages import Runner


def check_ready(config: TrainConfig, listener: Listener) -> list[RoundRecord]:
    """Raise if the command cannot bring the camera to its round.

    If a person verifies i0, it is drawn here, so that the error says what to verify.

    Args:
        config: All settings.
        listener: Receives messages about the draw.

    Returns:
        The rounds that are complete.

    Raises:
        UserError: A setting cannot work, the camera is missing or has no crops, the last round was
            made with other settings, or crops of i0 are not verified.
    """
    check(config)
    catalog = Catalog.open(config.root, config.camera.name)
    rounds = read_rounds(catalog.workspace)
    if config.rollback is not None:
        return rounds
    if rounds:
        check_settings(rounds[-1], settled(config, rounds[-1]))
        return rounds
    if not len(catalog):
        raise UserError(
            f"camera {catalog.name} has no crops: python -m collabteam.ingest "
            f"camera={catalog.name} path=..."
        )
    if config.reviewer == "person":
        catalog.set_classes(config.camera.classes)
        with catalog.workspace.transaction("train"):
            runner = Runner(listener)
            runner.run(DrawSample(catalog, config))
            runner.run(VerifySample(catalog, config))
    return rounds
