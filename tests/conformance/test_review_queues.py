"""Every registered review queue, on a camera without a team and on a trained one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, Call, environment, one_line
from reviewing import serving, visitor

from collabteam.catalog import Catalog, LabelEvent
from collabteam.reviewing.review_queue import (
    REVIEW_QUEUES,
    QueuedCrops,
    ReviewQueue,
    ReviewState,
)
from collabteam.testing.review_queues import check_review_queue, make_reviewed_camera


@pytest.mark.parametrize("name", REVIEW_QUEUES.names())
def test_every_queue_conforms(name: str) -> None:
    queue_class = REVIEW_QUEUES.load(name)
    crops = check_review_queue(queue_class)
    assert queue_class.purpose == name
    assert (len(crops.rows) > 0) == (name != "unsure")  # there is no team


@pytest.mark.parametrize("name", REVIEW_QUEUES.names())
def test_every_queue_conforms_where_a_team_has_voted(finished: Path, name: str) -> None:
    catalog = Catalog(finished / "sim")
    crops = check_review_queue(REVIEW_QUEUES.load(name), catalog)
    assert (len(crops.rows) > 0) == (name != "conflict")  # nobody has reviewed


def test_conflicts_are_those_where_reviewers_differ(tmp_path: Path) -> None:
    catalog = make_reviewed_camera(tmp_path)
    crops = check_review_queue(REVIEW_QUEUES.load("conflict"), catalog)
    index = catalog.index()
    tracks = [track.rpartition("/")[2] for track in index.track[crops.rows].tolist()]
    assert tracks == ["13", "14"]


# --- the suite notices ---------------------------------------------------------------------------


class Newest(ReviewQueue):
    """The newest crops that nobody has verified, one of each track."""

    title = "the newest crops"
    purpose = "seed"

    def crops(self, state: ReviewState) -> QueuedCrops:
        rows = self.choose(state)
        return QueuedCrops(rows, [""] * len(rows), "python -m collabteam.report")

    def choose(self, state: ReviewState) -> np.ndarray:
        index = state.index
        rows = np.flatnonzero(index.trainable())[::-1]
        _, first = np.unique(index.track_code[rows], return_index=True)
        rows = rows[np.sort(first)]
        known = np.isin(index.track_code[rows], index.track_code[index.verified()])
        return rows[~known | index.verified()[rows]]

    def why_empty(self, camera: str) -> str:
        return "there are no crops"


class All(Newest):
    def choose(self, state: ReviewState) -> np.ndarray:
        return np.arange(len(state.index))


class SameTrack(Newest):
    def choose(self, state: ReviewState) -> np.ndarray:
        return np.flatnonzero(state.index.trainable())


class Twice(Newest):
    def choose(self, state: ReviewState) -> np.ndarray:
        return np.repeat(super().choose(state), 2)


class Writes(Newest):
    def choose(self, state: ReviewState) -> np.ndarray:
        rows = super().choose(state)
        if len(rows):
            crop_id = str(state.index.crop_id[rows[0]])
            state.catalog.append_labels([LabelEvent(crop_id, "car", "person", "seed")])
        return rows


class Shuffles(Newest):
    def choose(self, state: ReviewState) -> np.ndarray:
        return np.random.default_rng().permutation(super().choose(state))


class GrowsTheTestSet(Newest):
    purpose = "test"


class NoPurpose(Newest):
    purpose = "fun"


def test_a_queue_of_ones_own_conforms() -> None:
    assert len(check_review_queue(Newest).rows)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (All, "objects that the test set shows"),
        (SameTrack, "of a track that is in the queue already"),
        (Twice, "are there twice"),
        (Writes, "changed the log"),
        (Shuffles, "the same order"),
        (GrowsTheTestSet, "not in the test set"),
        (NoPurpose, "purpose: expected one of seed"),
    ],
)
def test_the_suite_finds_what_is_wrong(wrong: type[ReviewQueue], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_review_queue(wrong)


FOREIGN = """
import numpy as np
from collabteam.reviewing.review_queue import QueuedCrops, ReviewQueue

class Newest(ReviewQueue):
    title = "the newest crops"
    purpose = "seed"

    def crops(self, state):
        rows = np.arange(len(state.index))[::-1]
        return QueuedCrops(rows, [""] * len(rows), "python -m collabteam.report")

    def why_empty(self, camera):
        return "there are no crops"
"""


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a package that is not ours; commands in this process find it."""
    folder = tmp_path / "lib"
    folder.mkdir()
    (folder / "our_queue.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.mark.usefixtures("library")
def test_an_own_queue_through_the_command(root: Path, tmp_path: Path, call: Call) -> None:
    base = (f"root={root}", "camera=sim", "queue=our_queue:Newest")
    tasks, answers = tmp_path / "tasks.csv", tmp_path / "answers.csv"
    said = call("review", *base, f"export={tasks}", "format=csv")
    assert said.code == 0, said.err
    index = Catalog(root / "sim").index()
    crop = tasks.read_text().splitlines()[1].split(",")[0]
    assert crop == index.crop_id[len(index) - 1]
    answers.write_text(f"crop_id,label,reviewer\n{crop},cyclist,ben\n")
    said = call("review", *base, f"import={answers}")
    assert "1 answers taken in" in said.out
    one_line(call("review", *base[:2], "queue=sed"), "queue=sed", "no such review queue", "seed")


def test_an_own_queue_cannot_grow_the_test_set(
    root: Path, library: Path, tmp_path: Path, call: Call
) -> None:
    wrong = FOREIGN.replace('purpose = "seed"', 'purpose = "test"')
    (library / "wrong_queue.py").write_text(wrong)
    base = (f"root={root}", "camera=sim", "queue=wrong_queue:Newest")
    said = call("review", *base, f"export={tmp_path / 'tasks.csv'}", "format=csv")
    one_line(said, "queue=wrong_queue:Newest", "another purpose")
    assert not (tmp_path / "tasks.csv").exists()


def test_an_own_queue_on_the_page(
    root: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{REPOSITORY}{os.pathsep}{library}"
    monkeypatch.setattr("conftest.environment", lambda: {**environment(), "PYTHONPATH": path})
    name = "our_queue:Newest"
    with serving(root, f"queue={name}") as server:
        client = visitor(server)
        state = client.call("state", queue=name)
        assert state["queues"][-1]["title"] == "the newest crops"
        page = client.page(name, 3)
        assert len(page["crops"]) == 3
        client.commit(page, {crop["id"]: "cyclist" for crop in page["crops"]})
        assert client.call("state", queue=name)["queues"][-1]["done"] == 3
    log = Catalog(root / "sim").log().to_pylist()
    assert {event["purpose"] for event in log if event["by"] == "ana"} == {"seed"}
