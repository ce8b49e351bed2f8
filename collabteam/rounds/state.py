"""The folder of a round: what is complete, what made it, and how to take it back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from collabteam.errors import UserError
from collabteam.reporting.table1 import Round
from collabteam.settings import TrainConfig
from collabteam.storage.tables import write_atomically


def round_folder(camera_folder: Path, number: int) -> Path:
    """Where a round lives."""
    return camera_folder / f"round-{number}"


def write_json(file: Path, content: object) -> None:
    """Write a JSON file so that it is there whole or not at all, also after a power cut."""
    write_atomically(file, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(
    file: Path, remedy: str = "move its round's folder away to do the round again"
) -> dict[str, Any]:
    """Read a JSON file that an earlier stage wrote.

    Args:
        file: The file.
        remedy: What a person can do if it is broken.

    Raises:
        UserError: It is missing or broken.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__}")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file}: expected JSON written by an earlier stage, got {error}: {remedy}"
        ) from error
    return content


def result_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings that make a round what it is; not where it runs, how far, or who watches."""
    settings = asdict(config)
    for name in ("root", "round", "rollback", "trainer", "logger", "runtime"):
        del settings[name]
    del settings["data"]["eval_batch_size"]
    del settings["camera"]["footage"]
    return settings


def digest(content: object) -> str:
    """Sixteen hex digits that stand for a JSON-able value."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def training_digest(crop_ids: Iterable[object], labels: Iterable[object]) -> str:
    """Stands for a training set: which crops, called what."""
    return digest(sorted(zip(map(str, crop_ids), map(str, labels), strict=True)))


def check_settings(record: Round, config: TrainConfig) -> None:
    """Refuse to build on a round that other settings made.

    Raises:
        UserError: Names every differing setting and the two ways on.
    """
    old, new = _flat(record["settings"]), _flat(result_settings(config))
    changed = [
        f"{name} {old.get(name, 'unset')} -> {new.get(name, 'unset')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name, "unset") != new.get(name, "unset")
    ]
    if changed:
        done = record["round"]
        raise UserError(
            f"round {done} of camera {config.camera.name} was made with other settings "
            f"({'; '.join(changed)}): keep those, or begin a new camera folder with root=..., or "
            f"take rounds back with rollback=K (rollback={done} keeps round {done} as it is and "
            "goes on with the new settings, rollback=-1 begins anew)"
        )


def roll_back(camera_folder: Path, to: int) -> list[int]:
    """Move every round after ``to`` aside; nothing is deleted.

    The last round goes first, so that a kill in between leaves rounds without a gap.

    Returns:
        The rounds that were moved, highest first.
    """
    numbers = sorted(
        (
            int(folder.name.removeprefix("round-"))
            for folder in camera_folder.glob("round-*")
            if folder.name.removeprefix("round-").isdigit()
        ),
        reverse=True,
    )
    moved = [number for number in numbers if number > to]
    attic = camera_folder / "rolled-back"
    for number in moved:
        attic.mkdir(exist_ok=True)
        taken = len(list(attic.glob(f"round-{number}.*")))
        round_folder(camera_folder, number).replace(attic / f"round-{number}.{taken}")
    return moved


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat
