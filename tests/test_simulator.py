"""The simulated camera: exactness, determinism, set rates, drift and readable images."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from collabteam import simulator
from collabteam.errors import UserError
from collabteam.simulator import CLASSES, SimulatedCrop, SimulationConfig, simulate


def tracks_of(config: SimulationConfig, seed: int = 0) -> list[simulator.Track]:
    """Everything that is decided about tracks, without drawing them."""
    return [
        simulator.plan_track(config, slot, np.random.default_rng([seed, slot.index]))
        for slot in simulator.plan_slots(config, seed)
    ]


def labels_of(tracks: Iterable[simulator.Track]) -> list[tuple[str, str]]:
    """Truth and proposed label of every crop."""
    return [(track.truth, label) for track in tracks for label in track.proposed]


def brightness(crops: Iterable[SimulatedCrop]) -> float:
    """Mean grey value of the crops, 0 to 255."""
    means = [np.asarray(Image.open(io.BytesIO(c.jpeg)).convert("L")).mean() for c in crops]
    return float(np.mean(means))


@pytest.fixture(scope="module")
def crops() -> list[SimulatedCrop]:
    """A small simulation drawn in one process."""
    return list(simulate(SimulationConfig(crops=91), seed=4, workers=1))


def test_the_same_crops_come_from_one_and_two_workers(crops: list[SimulatedCrop]) -> None:
    assert list(simulate(SimulationConfig(crops=91), seed=4, workers=2)) == crops


def test_another_seed_gives_other_crops(crops: list[SimulatedCrop]) -> None:
    other = next(simulate(SimulationConfig(crops=91), seed=5, workers=1))
    assert other.jpeg != crops[0].jpeg


@pytest.mark.parametrize("count", [1, 7, 50])
def test_the_number_of_crops_is_exact(count: int) -> None:
    config = SimulationConfig(crops=count, crops_per_track=4)
    assert len(list(simulate(config, seed=1, workers=1))) == count


def test_images_decode_and_fit_their_boxes(crops: list[SimulatedCrop]) -> None:
    for crop in crops:
        with Image.open(io.BytesIO(crop.jpeg)) as image:
            assert image.format == "JPEG"
            assert image.mode == "RGB"
            assert 10 <= min(image.size) <= max(image.size) <= 160
            x, y, width, height = crop.box
            assert image.size == (width, height)
            assert 0 <= x <= 1280 - width
            assert 0 <= y <= 720 - height
    assert np.mean([max(c.box[2:]) for c in crops]) > 40


def test_labels_times_and_splits_are_well_formed(crops: list[SimulatedCrop]) -> None:
    labels = {*CLASSES, "unknown"}
    by_track: dict[str, list[SimulatedCrop]] = {}
    for crop in crops:
        assert {crop.truth, crop.proposed} <= labels
        assert 1714971600.0 <= crop.time <= 1714971600.0 + 24 * 3600
        by_track.setdefault(crop.track, []).append(crop)
    for members in by_track.values():
        assert len({(c.split, c.truth, c.video) for c in members}) == 1
        assert members[0].split in ("pool", "test")
        frames = [c.frame for c in members]
        assert frames == sorted(set(frames))
    starts = [members[0].time for members in by_track.values()]
    assert starts == sorted(starts)
    assert len({(c.video, c.frame, c.track) for c in crops}) == len(crops)


def test_rates_are_near_what_is_set() -> None:
    config = SimulationConfig(
        crops=24000, proposal_error=0.2, unknown_share=0.1, hard_share=0.3, test_share=0.25
    )
    tracks = tracks_of(config)
    labels = labels_of(tracks)
    assert len(labels) == 24000
    assert np.mean([truth != label for truth, label in labels]) == pytest.approx(0.2, abs=0.02)
    unknown = [label for truth, label in labels if truth == "unknown"]
    assert len(unknown) / len(labels) == pytest.approx(0.1, abs=0.015)
    assert unknown.count("unknown") / len(unknown) == pytest.approx(0.5, abs=0.06)
    known = [track for track in tracks if track.truth != "unknown"]
    assert np.mean([track.hard != "" for track in known]) == pytest.approx(0.3, abs=0.03)
    assert np.mean([track.split == "test" for track in tracks]) == pytest.approx(0.25, abs=0.03)
    counts = Counter(truth for truth, _ in labels)
    assert counts["pedestrian"] > counts["cyclist"] > counts["motorcyclist"]


def test_no_error_and_no_unknown_gives_the_truth() -> None:
    config = SimulationConfig(crops=3000, proposal_error=0.0, unknown_share=0.0)
    assert all(truth == label for truth, label in labels_of(tracks_of(config)))


def test_pushed_bicycles_are_pedestrians_often_proposed_as_cyclists() -> None:
    config = SimulationConfig(crops=20000, proposal_error=0.2, hard_share=0.3)
    pushed = [track for track in tracks_of(config) if track.hard == "pushing"]
    assert {track.truth for track in pushed} == {"pedestrian"}
    wrong = Counter(label for truth, label in labels_of(pushed) if label != truth)
    assert wrong["cyclist"] > 3 * wrong["motorcyclist"]


def test_tracks_vary_in_length_around_the_mean() -> None:
    lengths = [slot.length for slot in simulator.plan_slots(SimulationConfig(crops=9000), 0)]
    assert np.mean(lengths) == pytest.approx(3.0, abs=0.15)
    assert (min(lengths), max(lengths)) == (1, 5)


def test_drift_changes_the_class_mix_and_no_drift_does_not() -> None:
    def change(drift: float) -> float:
        tracks = tracks_of(SimulationConfig(crops=12000, drift=drift))
        edge = len(tracks) // 6
        first, last = (
            np.mean([t.truth == "motorcyclist" for t in part])
            for part in (tracks[:edge], tracks[-edge:])
        )
        return float(last - first)

    assert change(1.0) > 0.2
    assert abs(change(0.0)) < 0.07


def test_drift_darkens_the_last_hours_and_no_drift_does_not() -> None:
    def change(drift: float) -> float:
        config = SimulationConfig(crops=200, crops_per_track=1, drift=drift)
        drawn = list(simulate(config, seed=2, workers=1))
        return brightness(drawn[-50:]) - brightness(drawn[:50])

    assert change(1.0) < -25.0
    assert abs(change(0.0)) < 18.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crops": 0}, "crops=0: expected 1 to 100000000"),
        ({"crops": 2.5}, "crops=2.5: expected a whole number, 1 to 100000000"),
        ({"hours": 0.0}, "hours=0.0: expected 0.01 to 10000"),
        ({"drift": float("nan")}, "drift=nan: expected 0 to 1"),
        ({"test_share": "x"}, "test_share=x: expected a number, 0 to 0.9"),
    ],
)
def test_bad_settings_are_named_at_once(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        simulate(SimulationConfig(**values))


def test_bad_seeds_and_workers_are_named_at_once() -> None:
    config = SimulationConfig(crops=3)
    with pytest.raises(ValueError, match="seed must be a whole number >= 0, got -1"):
        simulate(config, seed=-1)
    with pytest.raises(ValueError, match="workers must be a whole number >= 1, got 0"):
        simulate(config, workers=0)
