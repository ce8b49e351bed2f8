"""A team's predictions on the pool, stored part by part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from collabteam.catalog import Catalog, CropIndex
from collabteam.errors import UserError
from collabteam.events import Listener
from collabteam.storage.files import damaged, read_json, replacing_folder, write_json, write_parquet

if TYPE_CHECKING:
    # Code that only reads scores need not wait for torch.
    from collabteam.features.images import ImageReader

PART = 4096
"""Crops per file of scores, the most that a kill can lose."""


_UNREADABLE = (OSError, KeyError, TypeError, ValueError, pa.ArrowException)


def _damaged(file: Path, error: Exception) -> UserError:
    remedy = "remove it and run this again, its crops are then scored again"
    return damaged(file, "scores", error, remedy)


class Scorer(Protocol):
    """A team in any engine."""

    def score_rows(
        self, reader: ImageReader, rows: NDArray[np.int64], batch_size: int
    ) -> Iterator[NDArray[np.float32]]:
        """Probabilities (n, B) of these rows, in order, at most ``batch_size`` at a time."""


class PredictionStore:
    """Probabilities of one team, appended part by part: ``scores/part-00000.parquet``, ...

    Parts are written atomically. They are cut at fixed positions among the missing crops, so a team
    scores in the same batches whether it was interrupted or not. On disk a part names its crops, so
    it can be read without the catalog that it was made from; in memory crops are row numbers.

    Args:
        folder: The folder of the parts; scores of another team in it are deleted.
        fingerprint: The fingerprint of the team's round.
        classes: Names of the team's classes.
        index: The camera's N crops.

    Raises:
        UserError: A part is damaged.
    """

    def __init__(
        self, folder: Path, fingerprint: str, classes: list[str], index: CropIndex
    ) -> None:
        self.folder, self.classes, self._names = folder, classes, index.crop_id
        again = f"remove {folder}, and the pool is scored again"
        self.meta = {"team": fingerprint, "classes": ",".join(classes)}
        if not folder.exists() or read_json(folder / "team.json", again) != self.meta:
            with replacing_folder(folder) as fresh:
                write_json(fresh / "team.json", self.meta)
        self._rows: dict[Path, NDArray[np.int32]] = {}  # of each part, -1 for crops not here
        self._scored = np.zeros(len(index), dtype=bool)
        for file in sorted(folder.glob("part-*.parquet")):
            try:
                names = pq.read_table(file, columns=["crop_id"])["crop_id"].combine_chunks()
                rows = self._names.find(names)
            except _UNREADABLE as error:
                raise _damaged(file, error) from error
            self._note(file, rows)

    def _note(self, file: Path, rows: NDArray[np.int64]) -> None:
        self._rows[file] = rows.astype(np.int32)
        self._scored[rows[rows >= 0]] = True

    def missing(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each of these rows still lacks a score."""
        missing: NDArray[np.bool_] = ~self._scored[rows]
        return missing

    def add(self, rows: NDArray[np.int64], prob: NDArray[np.float32]) -> None:
        """Append a part: n rows and their probabilities (n, B)."""
        columns = {name: prob[:, branch] for branch, name in enumerate(self.classes)}
        table = pa.table({"crop_id": self._names[rows].tolist(), **columns})
        # A part that somebody removed leaves a gap; the last number decides.
        last = max(self._rows, default=None)
        number = int(last.stem.removeprefix("part-")) + 1 if last else 0
        file = self.folder / f"part-{number:05d}.parquet"
        write_parquet(file, table)
        self._note(file, rows)

    def fill(
        self,
        catalog: Catalog,
        rows: NDArray[np.int64],
        engine: Scorer,
        batch_size: int,
        listener: Listener,
        title: str,
    ) -> None:
        """Score the missing rows as a stream.

        Args:
            catalog: The catalog with the pictures.
            rows: Rows of the index, ascending.
            engine: The team.
            batch_size: Crops per step.
            listener: Where progress goes.
            title: Title of the work, with ``{}`` for the number of crops.

        Raises:
            UserError: The disk is full; earlier scores are kept.
        """
        rows = rows[self.missing(rows)]
        with listener.stage(title.format(len(rows)), len(rows), "crops") as advance:
            for start in range(0, len(rows), PART):
                chunk = rows[start : start + PART]
                parts = []
                for prob in engine.score_rows(catalog, chunk, batch_size):
                    parts.append(prob)
                    advance(len(prob))
                self.add(chunk, np.concatenate(parts))

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Probabilities (n, B) of n different rows; NaN where there is no score."""
        place = np.full(len(self._scored), -1, dtype=np.int32)
        place[rows] = np.arange(len(rows))
        prob = np.full((len(rows), len(self.classes)), np.nan, dtype=np.float32)
        for file, part in self._rows.items():
            at = np.where(part >= 0, place[part], -1)
            if (at < 0).all():
                continue
            try:
                table = pq.read_table(file, columns=self.classes)
                columns = [table[name].to_numpy().astype(np.float32) for name in self.classes]
                values = np.stack(columns, axis=1)
                # The mean of several networks may leave 0 to 1 by what it rounds.
                if len(values) != len(part) or not ((values > -0.001) & (values < 1.001)).all():
                    raise ValueError("probabilities that are none")
            except _UNREADABLE as error:
                raise _damaged(file, error) from error
            prob[at[at >= 0]] = values[at >= 0]
        return prob
