"""Stages that make i0: draw the crops once, and make sure that each is verified."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collabteam.catalog import Catalog, CropIndex, LabelEvent
from collabteam.errors import UserError
from collabteam.events import Listener
from collabteam.rounds import messages
from collabteam.rounds.initial import initial_rows, read_draw
from collabteam.rounds.oracle import oracle_answers
from collabteam.rounds.selection import sample_initial
from collabteam.settings import TrainConfig
from collabteam.stages import Stage
from collabteam.storage.files import make_folder, write_json


@dataclass(frozen=True)
class Sample:
    """A draw of i0.

    Attributes:
        record: Content of ``sample.json``: the settings of the draw, the number of crops that it
            was drawn from, and the names of the crops.
        per_class: Crops drawn per class; empty if the draw was read back.
    """

    record: dict[str, Any]
    per_class: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class DrawSample(Stage[Sample]):
    """Draw i0 once; the draw is saved in round 0.

    Attributes:
        catalog: The camera, which the caller has locked.
        config: ``seed``, ``seed_per_class``, ``seed_unknown``, ``reviewer`` and ``oracle_error``
            count.
    """

    catalog: Catalog
    config: TrainConfig
    name = "sample"

    def saved(self, listener: Listener) -> Sample | None:
        """Return the draw that these settings made.

        A draw that was rolled back is used again unless crops came since: with the labels verified
        meanwhile, a new draw would differ and ask a person for more answers.
        """
        file, key = self.catalog.workspace.round(0).sample, self._key()
        if file.exists():
            drawn = read_draw(file)
            if key.items() <= drawn.items():
                return Sample(drawn)
            listener.say(messages.sample_is_drawn_again(self.catalog.name))
            return None
        key["drawn_from"] = len(self.catalog.index())
        earlier = (files.sample for files in self.catalog.workspace.rolled_back(0))
        for drawn in (read_draw(file) for file in earlier if file.exists()):
            if key.items() <= drawn.items():
                self.save(Sample(drawn))
                return Sample(drawn)
        return None

    def discard(self) -> None:
        """Withdraw the answers of a simulated reviewer: a new i0 has answers of its own."""
        index = self.catalog.index()
        rows = np.flatnonzero(index.human_source == "oracle")
        self.catalog.append_labels(
            [LabelEvent(str(crop_id), "", source="oracle") for crop_id in index.crop_id[rows]]
        )

    def compute(self, listener: Listener) -> Sample:
        """Draw from the crops outside the test set.

        Raises:
            UserError: There are no crops to draw from, or none of a class.
        """
        classes, config, index = self.catalog.classes, self.config, self.catalog.index()
        names, crops = index.crop_id, len(index)
        pool = np.flatnonzero(index.trainable())
        verified = index.verified()[pool]
        strata = index.proposed[pool]
        strata[verified] = index.human[pool[verified]]
        tracks = index.track_code[pool]
        del index  # for millions of crops it takes hundreds of MB
        _check_pool(strata, self.catalog.name, classes)
        chosen = sample_initial(
            strata, verified, tracks,
            classes, config.seed_per_class, [config.seed, 0], config.seed_unknown,
        )  # fmt: skip
        drawn, counts = np.unique(strata[chosen], return_counts=True)
        return Sample(
            {**self._key(), "drawn_from": crops, "crops": names[pool[chosen]].tolist()},
            {n: c for n, c in zip(drawn.tolist(), counts.tolist(), strict=True) if n in classes},
        )

    def tell(self, output: Sample, listener: Listener) -> None:
        """Warn of classes with fewer crops than asked for."""
        for name, count in output.per_class.items():
            if count < self.config.seed_per_class:
                listener.warn(messages.small_sample(name, count, self.config.seed_per_class))

    def save(self, output: Sample) -> None:
        """Write ``sample.json``."""
        file = self.catalog.workspace.round(0).sample
        make_folder(file.parent)
        write_json(file, output.record)

    def _key(self) -> dict[str, Any]:
        config = self.config
        return {
            "seed": config.seed, "seed_per_class": config.seed_per_class,
            "seed_unknown": config.seed_unknown, "classes": self.catalog.classes,
            "reviewer": config.reviewer, "oracle_error": config.oracle_error,
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class VerifySample(Stage[list[LabelEvent]]):
    """Have the crops of i0 verified; the answers are saved in the log.

    Attributes:
        catalog: The camera, which the caller has locked.
        config: ``reviewer``, ``oracle_error`` and ``seed`` count.
    """

    catalog: Catalog
    config: TrainConfig
    name = "sample"

    def saved(self, listener: Listener) -> list[LabelEvent] | None:
        """Return no answers if none is missing."""
        return None if self._missing(self.catalog.index()).size else []

    def compute(self, listener: Listener) -> list[LabelEvent]:
        """Let the simulated reviewer answer.

        Raises:
            UserError: A person has to verify crops first, or a crop has no hidden truth.
        """
        config, index = self.config, self.catalog.index()
        missing = self._missing(index)
        if config.reviewer != "oracle":
            file = self.catalog.workspace.round(0).sample
            size = len(initial_rows(self.catalog.workspace, index))
            proposed = index.proposed[missing]
            raise UserError(messages.unverified_sample(self.catalog.name, file, size, proposed))
        return oracle_answers(
            self.catalog, index, missing, config.oracle_error, config.seed, "seed"
        )

    def tell(self, output: list[LabelEvent], listener: Listener) -> None:
        """Say that no person was asked."""
        listener.say(messages.simulated_reviewer(self.config.oracle_error))

    def save(self, output: list[LabelEvent]) -> None:
        """Append the answers in one commit."""
        self.catalog.append_labels(output)

    def _missing(self, index: CropIndex) -> NDArray[np.int64]:
        rows = initial_rows(self.catalog.workspace, index)
        missing: NDArray[np.int64] = rows[~index.verified()[rows]]
        return missing


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
