"""i0: the crops that a person verifies before a team can learn.

The draw is a file, ``round-0/sample.json``, so that reviewing and training mean the same crops,
whichever comes first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collabteam.catalog import Catalog, CropIndex, LabelEvent
from collabteam.errors import UserError
from collabteam.events import Listener
from collabteam.rounds.selection import sample_initial
from collabteam.rounds.state import read_json, round_folder, write_json
from collabteam.settings import TrainConfig


def sample_file(folder: Path) -> Path:
    """Where the draw of i0 stands, by the camera's folder."""
    return round_folder(folder, 0) / "sample.json"


def initial_rows(folder: Path, index: CropIndex) -> NDArray[np.int64]:
    """Rows of the crops of i0, ascending.

    Raises:
        UserError: i0 is not drawn, or the draw's file is broken.
    """
    rows = index.crop_id.find(read_json(sample_file(folder))["crops"])
    return np.unique(rows[rows >= 0])


def draw_initial(catalog: Catalog, config: TrainConfig, listener: Listener) -> None:
    """Draw i0 once: what is drawn already, with these settings, stands.

    Args:
        catalog: The camera, which the caller holds.
        config: ``seed``, ``seed_per_class``, ``seed_unknown``, ``reviewer`` and ``oracle_error``
            count.
        listener: Where it is said that a class has fewer crops than asked for.

    Raises:
        UserError: There are no crops to draw from, or none of a class.
    """
    classes, index = catalog.classes, catalog.index()
    file = sample_file(catalog.folder)
    file.parent.mkdir(exist_ok=True)
    drawn_with = {
        "seed": config.seed, "seed_per_class": config.seed_per_class,
        "seed_unknown": config.seed_unknown, "classes": classes,
        "reviewer": config.reviewer, "oracle_error": config.oracle_error,
    }  # fmt: skip
    if _stands(file, drawn_with, len(index), catalog.name, listener):
        return
    index = _forget_oracle(catalog, index)
    names, crops = index.crop_id, len(index)
    pool = np.flatnonzero(index.trainable())
    verified = index.verified()[pool]
    strata = index.proposed[pool]
    strata[verified] = index.human[pool[verified]]
    tracks = index.track_code[pool]
    del index  # of millions of crops it takes hundreds of MB
    _check_pool(strata, catalog.name, classes)
    chosen = sample_initial(
        strata, verified, tracks,
        classes, config.seed_per_class, [config.seed, 0], config.seed_unknown,
    )  # fmt: skip
    for name, count in zip(*np.unique(strata[chosen], return_counts=True), strict=True):
        if name in classes and count < config.seed_per_class:
            listener.warn(
                f"class {name}: {count} crops for i0 instead of seed_per_class="
                f"{config.seed_per_class}; the camera has no more"
            )
    ids = names[pool[chosen]].tolist()
    write_json(file, {**drawn_with, "drawn_from": crops, "crops": ids})


def _stands(
    file: Path, drawn_with: dict[str, Any], crops: int, camera: str, listener: Listener
) -> bool:
    """Whether i0 is drawn already, with these settings.

    A draw that was taken back serves again unless crops came since: verified labels would make a
    new one differ, and ask a person for more.
    """
    if file.exists():
        drawn = read_json(file)
        if drawn_with.items() <= drawn.items():
            return True
        listener.say(f"i0 of {camera} is drawn anew: its settings changed")
        return False
    earlier = file.parent.parent.glob("rolled-back/round-0.*/sample.json")
    for sample in map(read_json, sorted(earlier, reverse=True)):
        if {**drawn_with, "drawn_from": crops}.items() <= sample.items():
            write_json(file, sample)
            return True
    return False


def _forget_oracle(catalog: Catalog, index: CropIndex) -> CropIndex:
    """Withdraw what a simulated reviewer said before: a new i0 has answers of its own."""
    rows = np.flatnonzero(index.human_source == "oracle")
    if not rows.size:
        return index
    catalog.append_labels(
        [LabelEvent(str(crop_id), "", source="oracle") for crop_id in index.crop_id[rows]]
    )
    return catalog.index()


def _check_pool(strata: NDArray[np.object_], camera: str, classes: list[str]) -> None:
    present = set(strata)
    lacking = [name for name in classes if name not in present]
    if not strata.size:
        raise UserError(f"camera {camera} has no crops outside the test set: ingest some first")
    if lacking and present != {""}:
        has = ", ".join(sorted(name for name in present if name))
        raise UserError(
            f"no crop is proposed or verified as {', '.join(lacking)} "
            f"(there are: {has or 'none'}): ingest some, or leave the class out of "
            "camera.classes"
        )
