"""Predictions on the pool, part by part."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collabteam.catalog import Catalog, Crop, CropIndex
from collabteam.errors import UserError
from collabteam.team.predictions import PredictionStore

CLASSES = ["a", "b"]


@pytest.fixture(scope="module")
def index() -> CropIndex:
    """Nine crops."""
    with tempfile.TemporaryDirectory() as root:
        catalog = Catalog.register(root, "S1", CLASSES)
        catalog.add_crops(Crop(bytes([n])) for n in range(9))
        return catalog.index()


PROB = np.arange(18, dtype=np.float32).reshape(9, 2) / 18


def test_a_removed_part_is_scored_again_and_spoils_no_other(
    index: CropIndex, tmp_path: Path
) -> None:
    scores = PredictionStore(tmp_path / "scores", "team", CLASSES, index)
    for part in np.split(np.arange(9), 3):
        scores.add(part, PROB[part])
    (tmp_path / "scores" / "part-00001.parquet").unlink()

    again = PredictionStore(tmp_path / "scores", "team", CLASSES, index)
    missing = np.flatnonzero(again.missing(np.arange(9)))
    assert missing.tolist() == [3, 4, 5]
    again.add(missing, PROB[missing])
    for store in (again, PredictionStore(tmp_path / "scores", "team", CLASSES, index)):
        np.testing.assert_array_equal(store.of(np.arange(9)), PROB)


def test_scores_of_another_team_are_thrown_away(index: CropIndex, tmp_path: Path) -> None:
    folder, row = tmp_path / "scores", np.array([4])
    PredictionStore(folder, "one", CLASSES, index).add(row, PROB[row])
    assert not PredictionStore(folder, "one", CLASSES, index).missing(row).any()
    assert PredictionStore(folder, "two", CLASSES, index).missing(row).all()


def test_parts_name_their_crops_as_they_always_did(index: CropIndex, tmp_path: Path) -> None:
    """Cameras that were trained long ago hold such files; a crop that is gone is passed over."""
    folder = tmp_path / "scores"
    PredictionStore(folder, "team", CLASSES, index)
    names = [*index.crop_id[[7, 2]].tolist(), "0" * 24]
    table = pa.table({"crop_id": names, "a": [0.1, 0.2, 0.3], "b": [0.4, 0.5, 0.6]})
    pq.write_table(table, folder / "part-00000.parquet")
    scores = PredictionStore(folder, "team", CLASSES, index)
    assert scores.missing(np.arange(9)).tolist() == [n not in (2, 7) for n in range(9)]
    found = scores.of(np.array([2, 3, 7]))
    assert found[[0, 2]].tolist() == np.float32([[0.2, 0.5], [0.1, 0.4]]).tolist()
    assert np.isnan(found[1]).all()
    scores.add(np.array([0]), PROB[:1])
    written = pq.read_table(folder / "part-00001.parquet")
    assert written.column_names == ["crop_id", "a", "b"]
    assert written["crop_id"].to_pylist() == [index.crop_id[0]]


def test_a_broken_part_says_what_to_do(index: CropIndex, tmp_path: Path) -> None:
    folder = tmp_path / "scores"
    PredictionStore(folder, "team", CLASSES, index).add(np.array([1]), PROB[1:2])
    (folder / "part-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="remove it and run this again"):
        PredictionStore(folder, "team", CLASSES, index)


@pytest.mark.parametrize("value", [2.0, -0.5, float("nan"), float("inf")])
def test_numbers_that_are_no_probabilities_are_damage(
    index: CropIndex, tmp_path: Path, value: float
) -> None:
    store = PredictionStore(tmp_path / "scores", "team", CLASSES, index)
    rows = np.arange(2)
    store.add(rows, np.float32([[0.5, 0.5], [value, 0.5]]))
    with pytest.raises(UserError, match=r"part-00000\.parquet.* damaged"):
        store.of(rows)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(0, 8), min_size=1, unique=True), max_size=4), st.data())
def test_what_was_added_comes_back_by_row(
    index: CropIndex, parts: list[list[int]], data: st.DataObject
) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        scores = PredictionStore(folder / "scores", "team", CLASSES, index)
        expected = np.full((9, 2), np.nan, dtype=np.float32)
        for number, rows in enumerate(parts):
            expected[rows] = PROB[rows] / (number + 1)
            scores.add(np.array(rows), expected[rows])
        asked = data.draw(st.lists(st.integers(0, 8), unique=True))
        for store in (scores, PredictionStore(folder / "scores", "team", CLASSES, index)):
            np.testing.assert_array_equal(store.of(np.array(asked, dtype=int)), expected[asked])
            assert (store.missing(np.arange(9)) == np.isnan(expected[:, 0])).all()
    finally:
        shutil.rmtree(folder)
