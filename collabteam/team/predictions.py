"""What a team says about the pool, kept part by part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from collabteam.catalog import Catalog, CropIndex
from collabteam.errors import UserError
from collabteam.events import Listener
from collabteam.storage.files import read_json, replacing_folder, write_json, write_parquet

if TYPE_CHECKING:
    # Whoever only reads scores need not wait for torch.
    from collabteam.team.team import ImageReader

PART = 4096
"""Crops per file of scores: what a kill can cost at most."""


class Scorer(Protocol):
    """A team, in whatever engine."""

    def score_rows(
        self, reader: ImageReader, rows: NDArray[np.int64], batch_size: int
    ) -> Iterator[NDArray[np.float32]]:
        """Probabilities (n, B) of these rows, in order, at most ``batch_size`` at a time."""


class PredictionStore:
    """Probabilities of one team, appended part by part: ``scores/part-00000.parquet``, ...

    A part is there whole or not at all. Parts are cut at fixed places of what is missing, so a
    team scores in the same batches whether it was interrupted or not.

    Args:
        folder: Where the parts lie; scores of another team are thrown away.
        fingerprint: Of the team's round.
        classes: Names of the team's classes.

    Raises:
        UserError: A part is broken.
    """

    def __init__(self, folder: Path, fingerprint: str, classes: list[str]) -> None:
        self.folder, self.classes = folder, classes
        self.meta = {"team": fingerprint, "classes": ",".join(classes)}
        if not folder.exists() or read_json(folder / "team.json") != self.meta:
            with replacing_folder(folder) as fresh:
                write_json(fresh / "team.json", self.meta)
        self.files = sorted(folder.glob("part-*.parquet"))
        self.ids: set[str] = set()
        for file in self.files:
            try:
                self.ids.update(pq.read_table(file, columns=["crop_id"])["crop_id"].to_pylist())
            except (OSError, pa.ArrowException) as error:
                raise UserError(
                    f"{file}: expected scores, got {error}: remove it and run this again, its "
                    "crops are then scored again"
                ) from error

    def missing(self, crop_ids: NDArray[Any]) -> NDArray[np.bool_]:
        """Which of these crops have no score yet."""
        return np.array([str(crop_id) not in self.ids for crop_id in crop_ids], dtype=bool)

    def add(self, crop_ids: NDArray[Any], prob: NDArray[np.float32]) -> None:
        """Append a part: names of n crops and their probabilities (n, B)."""
        columns = {name: prob[:, branch] for branch, name in enumerate(self.classes)}
        table = pa.table({"crop_id": [str(i) for i in crop_ids], **columns})
        # A part that somebody removed leaves a gap; the last number decides.
        number = int(self.files[-1].stem.removeprefix("part-")) + 1 if self.files else 0
        file = self.folder / f"part-{number:05d}.parquet"
        write_parquet(file, table)
        self.files.append(file)
        self.ids.update(table["crop_id"].to_pylist())

    def fill(
        self,
        catalog: Catalog,
        index: CropIndex,
        rows: NDArray[np.int64],
        engine: Scorer,
        batch_size: int,
        listener: Listener,
        title: str,
    ) -> None:
        """Score what is missing, as a stream.

        Args:
            catalog: Where the pictures are.
            index: The catalog's crops.
            rows: Which of them, ascending.
            engine: The team.
            batch_size: Crops per step.
            listener: Where progress goes.
            title: What is done, with a place for the number of crops: ``{}``.

        Raises:
            UserError: The disk is full; what was scored before is kept.
        """
        rows = rows[self.missing(index.crop_id[rows])]
        with listener.stage(title.format(len(rows)), len(rows), "crops") as advance:
            for start in range(0, len(rows), PART):
                chunk = rows[start : start + PART]
                parts = []
                for prob in engine.score_rows(catalog, chunk, batch_size):
                    parts.append(prob)
                    advance(len(prob))
                self.add(index.crop_id[chunk], np.concatenate(parts))

    def of(
        self, index: CropIndex, pool: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows of the pool, ascending, and their probabilities (n, B); all must be scored."""
        rows = np.flatnonzero(pool)
        position = {str(index.crop_id[row]): n for n, row in enumerate(rows)}
        prob = np.full((len(rows), len(self.classes)), np.nan, dtype=np.float32)
        for file in self.files:
            table = pq.read_table(file)
            at = [position.get(i, -1) for i in table["crop_id"].to_pylist()]
            here = np.array(at, dtype=np.int64)
            values = np.stack([table[name].to_numpy() for name in self.classes], axis=1)
            prob[here[here >= 0]] = values[here >= 0]
        return rows, prob
