"""Scores of the pool, part by part."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from collabteam.catalog import Catalog, Crop
from collabteam.team.predictions import PredictionStore


def test_a_removed_part_is_scored_again_and_spoils_no_other(tmp_path: Path) -> None:
    catalog = Catalog.register(tmp_path, "S1", ["a", "b"])
    catalog.add_crops(Crop(bytes([n])) for n in range(9))
    index = catalog.index()
    prob = np.arange(18, dtype=np.float32).reshape(9, 2) / 18
    scores = PredictionStore(tmp_path / "scores", "team", ["a", "b"])
    for part in np.split(np.arange(9), 3):
        scores.add(index.crop_id[part], prob[part])
    (tmp_path / "scores" / "part-00001.parquet").unlink()

    again = PredictionStore(tmp_path / "scores", "team", ["a", "b"])
    missing = np.flatnonzero(again.missing(index.crop_id))
    assert missing.tolist() == [3, 4, 5]
    again.add(index.crop_id[missing], prob[missing])
    rows, found = PredictionStore(tmp_path / "scores", "team", ["a", "b"]).of(
        index, np.ones(9, dtype=bool)
    )
    assert rows.tolist() == list(range(9))
    np.testing.assert_array_equal(found, prob)


def test_scores_of_another_team_are_thrown_away(tmp_path: Path) -> None:
    scores = PredictionStore(tmp_path / "scores", "one", ["a", "b"])
    scores.add(np.array(["x"], dtype=object), np.zeros((1, 2), dtype=np.float32))
    assert (
        not PredictionStore(tmp_path / "scores", "one", ["a", "b"]).missing(np.array(["x"])).any()
    )
    assert PredictionStore(tmp_path / "scores", "two", ["a", "b"]).missing(np.array(["x"])).all()
