"""Who rides: what must hold for any boxes, and scenes as a street shows them."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collabteam.video.objects import Objects, intersection
from collabteam.video.riders import PARTS, RIDER, fuse

Row = tuple[float, float, float, float, float, str]

# -- what holds for any boxes ----------------------------------------------------------------------

_VEHICLES = tuple(RIDER)
_RIDERS = tuple(RIDER.values())


@st.composite
def rows(draw: st.DrawFn, kinds: tuple[str, ...] = (*PARTS, "car")) -> list[Row]:
    """Boxes that crowd and repeat; many of them persons who sit on vehicles."""
    found: list[Row] = []
    for _ in range(draw(st.integers(0, 6))):
        left, top = draw(st.integers(0, 60)), draw(st.integers(0, 60))
        width, height = draw(st.integers(1, 60)), draw(st.integers(1, 60))
        score = draw(st.sampled_from([0.25, 0.5, 0.75]))
        kind = draw(st.sampled_from(kinds))
        found.append((left, top, left + width, top + height, score, kind))
        if kind in _VEHICLES and "person" in kinds:
            for _ in range(draw(st.integers(0, 2))):
                aside, lift = draw(st.integers(-9, 9)), draw(st.integers(0, height // 2))
                tall = draw(st.integers(height // 2 + 1, 2 * height))
                bottom = top + height - lift
                found.append(
                    (left + aside, bottom - tall, left + aside + width, bottom, score, "person")
                )
    return draw(st.permutations(found))


def seen(objects: Objects) -> list[Row]:
    found = zip(objects.box.tolist(), objects.score.tolist(), objects.kind.tolist(), strict=True)
    return [(*box, score, kind) for box, score, kind in found]


@given(rows(), st.randoms(use_true_random=False))
def test_the_order_of_the_input_plays_no_role(given_rows: list[Row], random: object) -> None:
    shuffled = list(given_rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert seen(fuse(Objects.of(given_rows))) == seen(fuse(Objects.of(shuffled)))


def test_the_order_plays_no_role_in_ties() -> None:
    """One vehicle of two kinds, and two persons who fit it equally well, all equally sure."""
    scene = [
        (0, 40, 80, 100, 0.5, "bicycle"),
        (0, 40, 80, 100, 0.5, "motorcycle"),
        (0, 0, 70, 80, 0.5, "person"),
        (10, 0, 80, 80, 0.5, "person"),
        (120, 0, 180, 80, 0.5, "person"),
        (100, 40, 180, 100, 0.5, "bicycle"),
        (102, 40, 182, 100, 0.5, "motorcycle"),
    ]
    found = {tuple(seen(fuse(Objects.of(list(rows))))) for rows in permutations(scene)}
    assert len(found) == 1
    assert len(found.pop()) == 2


@given(rows())
def test_nobody_is_lost_and_nothing_is_used_twice(given_rows: list[Row]) -> None:
    before, after = Objects.of(given_rows), fuse(Objects.of(given_rows))
    was, now = Counter(before.kind.tolist()), Counter(after.kind.tolist())
    riders = [row for row in seen(after) if row[5] in _RIDERS]
    assert now["person"] == 0
    assert now["car"] == was["car"]
    assert now["pedestrian"] + len(riders) <= was["person"]
    for vehicle, rider in RIDER.items():
        assert now[rider] + now[vehicle] <= was[vehicle]
    # Pedestrians and vehicles that nobody rides are what came, each at most as often as it came.
    came = Counter(given_rows)
    stayed = Counter(
        (*row[:5], "person" if row[5] == "pedestrian" else row[5])
        for row in seen(after)
        if row[5] not in _RIDERS
    )
    assert all(count <= came[row] for row, count in stayed.items())
    # Every person is still there: walking, or inside the box of a rider.
    persons = before[before.kind == "person"]
    whole = np.isin(after.kind, [*_RIDERS, "pedestrian"])
    for person in range(len(persons)):
        box = persons.box[person]
        inside = (after.box[whole, :2] <= box[:2]) & (after.box[whole, 2:] >= box[2:])
        assert inside.all(axis=1).any()


@given(rows())
def test_a_rider_is_the_union_of_a_person_and_a_vehicle(given_rows: list[Row]) -> None:
    before = Objects.of(given_rows)
    for *box, score, kind in seen(fuse(before)):
        if kind not in _RIDERS:
            continue
        inside = (before.box[:, :2] >= box[:2]).all(axis=1)
        inside &= (before.box[:, 2:] <= box[2:]).all(axis=1)
        parts = before[inside]
        vehicle = {rider: vehicle for vehicle, rider in RIDER.items()}[kind]
        assert vehicle in parts.kind
        assert score in parts.score[parts.kind == "person"]
        union = [*parts.box[:, :2].min(axis=0).tolist(), *parts.box[:, 2:].max(axis=0).tolist()]
        assert union == box


@given(
    rows(),
    st.sampled_from([0.25, 0.5, 2.0, 4.0, 16.0]),
    st.integers(-500, 500),
    st.integers(-500, 500),
)
def test_size_and_place_in_the_frame_play_no_role(
    given_rows: list[Row], scale: float, right: int, down: int
) -> None:
    shift = np.array([right, down, right, down], np.float32)
    before = Objects.of(given_rows)
    moved = Objects((before.box + shift) * np.float32(scale), before.score, before.kind)
    after, expected = fuse(moved), fuse(before)
    assert after.kind.tolist() == expected.kind.tolist()
    np.testing.assert_array_equal(after.box, (expected.box + shift) * np.float32(scale))


@given(rows(kinds=("person", "car")))
def test_without_vehicles_all_persons_are_pedestrians(given_rows: list[Row]) -> None:
    renamed = [(*row[:5], row[5].replace("person", "pedestrian")) for row in given_rows]
    assert sorted(seen(fuse(Objects.of(given_rows)))) == sorted(renamed)


@given(rows())
def test_what_is_fused_stays_as_it_is(given_rows: list[Row]) -> None:
    once = fuse(Objects.of(given_rows))
    assert seen(fuse(once)) == seen(once)


@settings(max_examples=30)
@given(rows())
def test_the_types_are_those_of_objects(given_rows: list[Row]) -> None:
    after = fuse(Objects.of(given_rows))
    assert after.box.dtype == after.score.dtype == np.float32
    assert after.kind.dtype == object
    assert after.box.shape == (len(after), 4)
    assert all(type(kind) is str for kind in after.kind)


# -- scenes, in centimetres as a camera would see them at the height of a bicycle ------------------

_GROUND = 300.0


def person(middle: float, feet: float = 0, tall: float = 175, wide: float = 50) -> Row:
    """Who is ``tall`` from foot to head, with the feet so high above the ground."""
    bottom = _GROUND - feet
    return (middle - wide / 2, bottom - tall, middle + wide / 2, bottom, 0.9, "person")


def vehicle(
    middle: float, kind: str = "bicycle", wide: float = 170, high: float = 105, score: float = 0.8
) -> Row:
    return (middle - wide / 2, _GROUND - high, middle + wide / 2, _GROUND, score, kind)


def from_the_front(middle: float, kind: str = "bicycle", score: float = 0.8) -> Row:
    return vehicle(middle, kind, wide=60, high=110, score=score)


def kinds(*given_rows: Row) -> list[str]:
    return sorted(fuse(Objects.of(list(given_rows))).kind.tolist())


def test_who_rides() -> None:
    assert kinds(person(490, feet=25, tall=145, wide=80), vehicle(500)) == ["cyclist"]
    assert kinds(person(500, feet=25, tall=145), from_the_front(505)) == ["cyclist"]
    rider = person(490, feet=30, tall=130, wide=80)
    assert kinds(rider, vehicle(500, "motorcycle", wide=200, high=115)) == ["motorcyclist"]
    # Hidden behind the fairing from the chest down.
    upper_body = person(500, feet=90, tall=70, wide=70)
    assert kinds(upper_body, from_the_front(500, "motorcycle")) == ["motorcyclist"]


def test_the_rider_of_a_scene_is_the_union_with_the_score_of_the_person() -> None:
    rider = fuse(Objects.of([person(500, feet=25, tall=145), vehicle(500, score=0.4)]))
    assert seen(rider) == [(415, 130, 585, 300, pytest.approx(0.9), "cyclist")]


@pytest.mark.parametrize(
    "beside",
    [
        pytest.param([person(530), from_the_front(480)], id="from the front"),
        pytest.param([person(545), vehicle(500)], id="from the side, at the handlebar"),
        pytest.param([person(545, feet=4), vehicle(500)], id="a little on the far side"),
        pytest.param([person(545, feet=-8), vehicle(500)], id="on the near side"),
        pytest.param([person(500, feet=-10), vehicle(500)], id="on the near side, in the middle"),
        pytest.param([person(570, feet=5), vehicle(500)], id="in front of the wheel"),
    ],
)
def test_who_pushes_a_bicycle_walks(beside: list[Row]) -> None:
    assert kinds(*beside) == ["bicycle", "pedestrian"]


@pytest.mark.parametrize("middle", [420, 460, 500, 540, 580])
def test_who_passes_in_front_of_a_parked_motorcycle_walks(middle: float) -> None:
    parked = vehicle(500, "motorcycle", wide=200, high=115)
    # Nearer to the camera: larger, the feet further down.
    passer_by = person(middle, feet=-30, tall=195, wide=60)
    assert kinds(passer_by, parked) == ["motorcycle", "pedestrian"]


def test_who_passes_far_behind_walks() -> None:
    for far in (person(480, feet=40, tall=50, wide=20), person(500, feet=75, tall=35, wide=15)):
        assert kinds(far, vehicle(500)) == ["bicycle", "pedestrian"]


def test_who_stands_near_the_camera_walks() -> None:
    assert kinds(person(500, feet=15, tall=260), vehicle(500)) == ["bicycle", "pedestrian"]


def test_two_riders_side_by_side_keep_their_own() -> None:
    riders = [person(x, feet=25, tall=145) for x in (500, 580)]
    both = fuse(Objects.of([*riders, from_the_front(502), from_the_front(578)]))
    assert both.kind.tolist() == ["cyclist", "cyclist"]
    assert both.box[:, [0, 2]].tolist() == [[472, 532], [548, 608]]


def test_one_vehicle_carries_one_rider_and_leaves_the_neighbour_walking() -> None:
    rider, walker = person(500, feet=25, tall=145), person(570)
    assert kinds(rider, walker, from_the_front(502)) == ["cyclist", "pedestrian"]


@pytest.mark.parametrize("kind", RIDER)
def test_two_on_a_vehicle_are_one_rider(kind: str) -> None:
    rider = person(510, feet=30, tall=130, wide=60)
    passenger = person(455, feet=35, tall=135, wide=55)
    fused = fuse(Objects.of([rider, passenger, vehicle(500, kind, wide=200, high=115)]))
    assert seen(fused) == [(400, 130, 600, 300, pytest.approx(0.9), RIDER[kind])]


def test_the_upper_body_of_a_rider_is_no_second_person() -> None:
    rider = person(500, feet=25, tall=140, wide=70)
    left, top, right, _, _, _ = rider
    again: Row = (left + 2, top + 1, right - 3, top + 60, 0.4, "person")
    assert kinds(rider, again, from_the_front(500, "motorcycle")) == ["motorcyclist"]


def test_a_vehicle_that_is_taken_for_two_kinds_is_of_the_surer_one() -> None:
    rider = person(500, feet=25, tall=145)
    twice = [vehicle(500, "bicycle", score=0.6), vehicle(503, "motorcycle", score=0.5)]
    assert kinds(rider, *twice) == ["cyclist"]
    twice = [vehicle(500, "bicycle", score=0.5), vehicle(503, "motorcycle", score=0.6)]
    assert kinds(rider, *twice) == ["motorcyclist"]
    assert kinds(*twice) == ["motorcycle"]


def test_what_is_parked_and_what_drives_by_stays() -> None:
    car: Row = (100, 150, 400, 300, 0.9, "car")
    assert kinds(vehicle(500), car) == ["bicycle", "car"]
    walker, rider = person(900), person(600, feet=25, tall=145)
    assert kinds(car, walker, rider, vehicle(600)) == ["car", "cyclist", "pedestrian"]
    assert kinds() == []


def test_a_parked_bicycle_does_not_keep_a_rider_who_passes() -> None:
    rider, parked = person(520, feet=25, tall=145, wide=80), vehicle(600)
    fused = fuse(Objects.of([rider, vehicle(530), parked]))
    assert sorted(fused.kind) == ["bicycle", "cyclist"]
    assert fused.box[fused.kind == "bicycle"].tolist() == [list(parked[:4])]


def test_riders_that_a_real_detector_saw() -> None:
    """YOLOv8n on five scooters from the front and on a cyclist among two pedestrians."""
    scooters = [
        (229, 200, 304, 320, 0.79, "motorcycle"),
        (433, 204, 513, 335, 0.72, "motorcycle"),
        (351, 203, 438, 339, 0.70, "motorcycle"),
        (589, 216, 657, 346, 0.63, "motorcycle"),
        (689, 211, 764, 346, 0.59, "motorcycle"),
    ]
    riders = [
        (230, 156, 302, 295, 0.69, "person"),
        (425, 160, 514, 302, 0.64, "person"),
        (688, 173, 768, 319, 0.63, "person"),
        (584, 164, 662, 318, 0.61, "person"),
        (347, 160, 430, 302, 0.54, "person"),
    ]
    upper_bodies = [(349, 160, 425, 222, 0.44, "person"), (590, 165, 658, 231, 0.36, "person")]
    fused = fuse(Objects.of([*scooters, *riders, *upper_bodies]))
    assert fused.kind.tolist() == ["motorcyclist"] * 5
    # Each box is a scooter's and the rider's above it: no two were mixed up.
    assert (intersection(fused.box, fused.box) > 0).sum() == 5 + 2

    street: list[Row] = [
        (913, 190, 1055, 513, 0.89, "person"),
        (1180, 184, 1279, 553, 0.89, "person"),
        (734, 164, 812, 319, 0.77, "person"),
        (733, 233, 808, 350, 0.69, "bicycle"),
        (808, 207, 843, 269, 0.56, "bicycle"),
        (734, 240, 789, 348, 0.44, "bicycle"),
    ]
    assert kinds(*street) == ["bicycle", "cyclist", "pedestrian", "pedestrian"]
