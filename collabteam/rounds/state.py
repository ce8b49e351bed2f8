"""Hashes of a round's inputs, and the check of its settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace

from collabteam.errors import UserError
from collabteam.rounds.records import RoundRecord
from collabteam.settings import AUTO, TrainConfig, changed_settings, from_record


def digest(content: object) -> str:
    """Hash a JSON-able value to sixteen hex digits."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def training_digest(crop_ids: Iterable[object], labels: Iterable[object]) -> str:
    """Hash a training set: its crops and their labels."""
    return digest(sorted(zip(map(str, crop_ids), map(str, labels), strict=True)))


def settled(config: TrainConfig, record: RoundRecord) -> TrainConfig:
    """Put what a finished round chose in place of ``features.backbone=auto`` and ``engine=auto``.

    Args:
        config: All settings.
        record: A round that builds on features.
    """
    before = from_record(TrainConfig, record.settings).features
    features = config.features
    if features.backbone == [AUTO]:
        features = replace(features, backbone=before.backbone)
    if features.engine == AUTO:
        features = replace(features, engine=before.engine)
    return replace(config, features=features)


def check_settings(record: RoundRecord, config: TrainConfig) -> None:
    """Refuse to build on a round that other settings made.

    Raises:
        UserError: Names every differing setting and the two ways on.
    """
    if changed := changed_settings(record.settings, config):
        done = record.round
        of_quick = record.settings.get("seed_unknown") == 250 and "learner" not in record.settings
        hint = "; the recipe quick of earlier versions is experiment=scratch now" * of_quick
        raise UserError(
            f"round {done} of camera {config.camera.name} was made with other settings "
            f"({'; '.join(changed)}): keep those, or start a new camera folder with root=..., or "
            f"take rounds back with rollback=K (rollback={done} keeps round {done} as it is and "
            f"continues with the new settings, rollback=-1 starts over){hint}"
        )
