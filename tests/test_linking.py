"""The linker and the vote, on scripted tracks: no picture, no tracker."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from collabteam.video import linking
from collabteam.video.linking import MAX_GAP, LinkedTrack, Linker, kind_of
from collabteam.video.objects import Frame, Objects, iou

WIDTH, HEIGHT = 1000, 600
PIXELS = np.broadcast_to(np.uint8(0), (HEIGHT, WIDTH, 3))
RED, GREEN, GREY = np.eye(3, dtype=np.float32)


@dataclass(frozen=True)
class Track:
    """What a tracker says of one object: a box of 40 x 100 px that moves on a line."""

    number: int
    at: dict[int, tuple[float, float]]  # frame to the middle of the box
    looks: NDArray[np.float32] = field(default_factory=lambda: RED)
    score: float = 0.8
    kind: str = "pedestrian"
    size: tuple[float, float] = (40.0, 100.0)
    turned: int = 10**6  # from this frame on, it looks different

    def look(self, frame: int) -> NDArray[np.float32]:
        return self.looks if frame < self.turned else GREY

    def box(self, frame: int) -> tuple[float, float, float, float]:
        (x, y), (width, height) = self.at[frame], self.size
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2

    def within(self, frames: range) -> Track:
        return replace(self, at={f: p for f, p in self.at.items() if f in frames})

    def parts(self, gap: range, number: int) -> tuple[Track, Track]:
        """What a tracker makes of it that loses it in the gap and then gives it another number."""
        after = replace(self, number=number).within(range(gap.stop, max(self.at) + 1))
        return self.within(range(gap.start)), after


def walk(
    number: int,
    frames: range,
    start: tuple[float, float],
    step: tuple[float, float] = (0, 0),
    looks: NDArray[np.float32] = RED,
) -> Track:
    at = {f: (start[0] + step[0] * i, start[1] + step[1] * i) for i, f in enumerate(frames)}
    return Track(number, at, looks)


def feed(
    linker: Linker, frame: int, tracks: list[Track], rate: float = 10.0, reverse: bool = False
) -> list[LinkedTrack]:
    there = [track for track in tracks if frame in track.at]
    there = there[::-1] if reverse else there
    objects = Objects.of([(*track.box(frame), track.score, track.kind) for track in there])
    numbers = np.array([track.number for track in there], np.int64)
    looks = np.array([track.look(frame) for track in there], np.float32)
    return linker.add(Frame(frame, frame / rate, PIXELS), objects, numbers, looks)


def link(
    tracks: list[Track], reverse: bool = False, linker: Linker | None = None
) -> list[LinkedTrack]:
    linker = linker or Linker(0.3)
    last = max(frame for track in tracks for frame in track.at)
    found = [one for at in range(last + 1) for one in feed(linker, at, tracks, reverse=reverse)]
    return found + linker.finish()


def numbers(found: list[LinkedTrack]) -> list[set[int]]:
    return sorted((set(one.numbers) for one in found), key=min)


# -- gaps ------------------------------------------------------------------------------------------


def test_the_pieces_of_a_walker_are_one_object() -> None:
    pieces = walk(7, range(60), (100, 300), (8, 0)).parts(range(30, 45), 3)
    (one,) = link(list(pieces))
    assert one.numbers == (7, 3)
    assert one.frame.tolist() == [*range(30), *range(45, 60)]
    assert one.number.tolist() == [7] * 30 + [3] * 15
    np.testing.assert_allclose(one.seconds, one.frame / 10)
    np.testing.assert_allclose(one.box[:, 0], 80 + 8 * one.frame, rtol=1e-6)
    assert (one.score == np.float32(0.8)).all()
    assert set(one.kind) == {"pedestrian"}


@pytest.mark.parametrize(("frames", "objects"), [(19, 1), (21, 2)])
def test_gaps_up_to_the_limit_are_bridged(frames: int, objects: int) -> None:
    last = 29 + frames  # so the gap is (frames) tenths of a second
    pieces = walk(1, range(80), (100, 300), (8, 0)).parts(range(30, last), 2)
    assert len(link(list(pieces))) == objects
    assert len(link(list(pieces), linker=Linker(0.3, max_gap=1.0))) == 2
    assert len(link(list(pieces), linker=Linker(0.3, max_gap=3.0))) == 1


def test_one_number_that_comes_back_after_a_long_gap_is_another_object() -> None:
    first, second = link(list(walk(1, range(80), (300, 300)).parts(range(30, 60), 1)))
    assert first.numbers == second.numbers == (1,)
    assert first.frame.max() < 30 <= second.frame.min()


def test_an_hour_is_not_needed_to_let_go() -> None:
    linker = Linker(0.3)
    brief = walk(1, range(20), (200, 300), (8, 0))
    stays = walk(2, range(200), (700, 300))
    when = {}
    for frame in range(200):
        for one in feed(linker, frame, [brief, stays]):
            when[one.numbers] = frame
    assert list(when) == [(1,)]
    assert 1.9 + MAX_GAP < when[1,] / 10 < 1.9 + 2 * MAX_GAP + 2.1
    assert [one.numbers for one in linker.finish()] == [(2,)]
    assert linker.finish() == []
    assert linker.tracks == 2


def test_another_look_or_place_or_size_is_another_object() -> None:
    before, after = walk(1, range(60), (100, 300), (8, 0)).parts(range(30, 40), 2)
    assert len(link([before, after])) == 1
    assert len(link([before, replace(after, looks=GREEN)])) == 2
    assert len(link([before, replace(after, size=(70.0, 175.0))])) == 2
    away = {frame: (x, y + 250) for frame, (x, y) in after.at.items()}
    assert len(link([before, replace(after, at=away)])) == 2


def test_two_who_meet_and_are_lost_are_not_exchanged() -> None:
    # Both look the same; who they are is told by where they go.
    one, one_on = walk(1, range(60), (300, 300), (8, 0)).parts(range(25, 35), 3)
    other, other_on = walk(2, range(60), (780, 310), (-8, 0)).parts(range(25, 35), 4)
    assert numbers(link([one, one_on, other, other_on])) == [{1, 3}, {2, 4}]
    # They stop where they meet; who they are is told by their looks.
    crossing = [
        one,
        replace(other, looks=GREEN),
        replace(one_on, at=dict.fromkeys(range(35, 60), (560.0, 300.0))),
        replace(other_on, at=dict.fromkeys(range(35, 60), (520.0, 300.0)), looks=GREEN),
    ]
    assert numbers(link(crossing)) == [{1, 3}, {2, 4}]


def test_the_nearest_of_two_goes_on() -> None:
    before, after = walk(1, range(60), (100, 300), (8, 0)).parts(range(30, 40), 2)
    rival = replace(after, number=3, at={f: (x, y + 60) for f, (x, y) in after.at.items()})
    assert numbers(link([before, after, rival])) == [{1, 2}, {3}]


def test_who_is_equally_near_is_chosen_by_what_is_seen() -> None:
    before = walk(1, range(30), (300, 300))
    left, right = walk(2, range(35, 60), (280, 300)), walk(3, range(35, 60), (320, 300))
    assert outcome(link([before, left, right])) == outcome(link([before, left, right], True))
    assert len(link([before, left, right])) == 2


def test_who_left_is_not_who_comes_in() -> None:
    leaves = walk(1, range(30), (735, 300), (8, 0))  # the box touches the edge in the end
    enters = walk(2, range(42, 80), (975, 300), (-8, 0))
    assert len(link([leaves, enters])) == 2
    # At the edge, but not across it: somebody stands there and is lost for a while.
    stands = walk(1, range(80), (980, 300)).parts(range(30, 42), 2)
    assert len(link(list(stands))) == 1
    # A flicker while leaving.
    flickers = walk(1, range(38), (680, 300), (8, 0)).parts(range(30, 33), 2)
    assert len(link(list(flickers))) == 1


# -- at the same time ------------------------------------------------------------------------------


def shifted(track: Track, number: int, frames: range, by: float, score: float = 0.4) -> Track:
    at = {f: (x, y + by) for f, (x, y) in track.at.items() if f in frames}
    return replace(track, number=number, at=at, score=score)


@pytest.mark.parametrize("score", [0.4, 0.9])
def test_a_second_box_on_somebody_is_no_second_object(score: float) -> None:
    walker = walk(1, range(80), (100, 300), (8, 0))
    (one,) = link([walker, shifted(walker, 2, range(30, 50), 15, score)])
    assert one.numbers == (1, 2)
    assert one.frame.tolist() == list(range(80))
    assert (one.number == 1).all()


def test_nor_is_a_third() -> None:
    walker = walk(1, range(80), (100, 300), (8, 0))
    second = shifted(walker, 2, range(20, 45), 10)
    (one,) = link([walker, second, shifted(walker, 3, range(30, 60), 15)])
    assert one.numbers == (1, 2, 3)
    assert (one.number == 1).all()


@pytest.mark.parametrize("start", [30, 45])
def test_a_second_box_that_stays_longer_goes_on(start: int) -> None:
    walker = walk(1, range(80), (100, 300), (8, 0))
    first = walker.within(range(50))
    (one,) = link([first, shifted(walker, 2, range(start, 80), 15)])
    assert one.numbers == (1, 2)
    assert one.frame.tolist() == list(range(80))
    assert one.number.tolist() == [1] * 50 + [2] * 30


def test_who_hides_somebody_is_not_taken_for_them() -> None:
    walker = walk(1, range(80), (100, 300), (8, 0))
    first = walker.within(range(50))
    nearer = replace(shifted(walker, 2, range(45, 80), 15), looks=GREEN)
    assert numbers(link([first, nearer])) == [{1}, {2}]


def test_two_tracks_that_take_turns_are_one_object() -> None:
    walker = walk(1, range(80), (100, 300), (8, 0))
    even = replace(walker, at={f: p for f, p in walker.at.items() if f < 20 or f % 4 < 2})
    odd = replace(walker, number=2, at={f: p for f, p in walker.at.items() if f not in even.at})
    (one,) = link([even, odd])
    assert one.frame.tolist() == list(range(80))


def test_people_side_by_side_are_two() -> None:
    one = walk(1, range(80), (100, 300), (8, 0))
    assert len(link([one, walk(2, range(80), (125, 300), (8, 0))])) == 2
    # Somebody comes out from behind somebody else.
    behind = walk(2, range(30, 80), (340, 305), (4, 1))
    assert len(link([one, behind])) == 2


def test_objects_of_no_number_and_empty_frames_are_nothing() -> None:
    linker = Linker(0.3)
    nobody = walk(-1, range(20), (300, 300))
    assert [one for frame in range(40) for one in feed(linker, frame, [nobody])] == []
    assert linker.finish() == []


def test_it_works_without_appearances() -> None:
    nothing = np.zeros(0, np.float32)
    pieces = walk(7, range(60), (100, 300), (8, 0), looks=nothing).parts(range(30, 45), 3)
    assert len(link(list(pieces))) == 1


def test_time_goes_forward() -> None:
    linker = Linker(0.3)
    feed(linker, 3, [])
    with pytest.raises(ValueError, match="after one at"):
        feed(linker, 3, [])


# -- in general ------------------------------------------------------------------------------------


@st.composite
def scenes(draw: st.DrawFn) -> list[Track]:
    """Up to eight pieces of walkers in a small place, with frames missing, some of them doubles."""
    tracks: list[Track] = []
    for number in range(draw(st.integers(1, 8))):
        start = draw(st.integers(0, 60))
        length = draw(st.integers(1, 50))
        gone = draw(st.sets(st.integers(start + 1, start + length), max_size=10))
        if tracks and draw(st.booleans()):
            model = draw(st.sampled_from(tracks))
            first = min(model.at)
            x, y = model.at[first]
            step = draw(st.sampled_from([(8.0, 0.0), (0.0, 3.0), (-8.0, 1.0)]))
            lag = start - first
            place = (x + step[0] * lag + number / 16, y + step[1] * lag + number / 32)
        else:
            place = (draw(st.integers(20, 980)) + number / 16, draw(st.integers(200, 400)) + 0.0)
            step = draw(st.sampled_from([(8.0, 0.0), (0.0, 3.0), (-8.0, 1.0), (0.0, 0.0)]))
        looks = draw(st.sampled_from([RED, GREEN]))
        track = walk(number, range(start, start + length), place, step, looks)
        score = 0.3 + 0.05 * draw(st.integers(0, 12)) + number / 512  # no two are the same
        at = {frame: place for frame, place in track.at.items() if frame not in gone}
        turned = start + draw(st.sampled_from([20, 35, 1000]))
        tracks.append(replace(track, at=at, score=score, turned=turned))
    return tracks


def outcome(found: list[LinkedTrack]) -> set[frozenset[tuple[int, float, float]]]:
    """Objects by what is in them, whatever their numbers and order."""
    return {
        frozenset(zip(one.frame.tolist(), one.box[:, 0].tolist(), one.score.tolist(), strict=True))
        for one in found
    }


@settings(max_examples=150, deadline=None)
@given(scenes())
def test_every_track_is_in_one_object_without_long_gaps(tracks: list[Track]) -> None:
    found = link(tracks)
    for one in found:
        assert (np.diff(one.frame) > 0).all()
        assert (np.diff(one.seconds) <= MAX_GAP).all()
        assert set(one.number.tolist()) <= set(one.numbers)
        for row, (frame, number) in enumerate(zip(one.frame, one.number, strict=True)):
            np.testing.assert_array_equal(
                one.box[row], np.float32(tracks[int(number)].box(int(frame)))
            )
    for track in tracks:
        at = np.array(sorted(track.at))
        owners = sum(track.number in one.numbers for one in found)
        assert owners == 1 + (np.diff(at) / 10 > MAX_GAP).sum()


@settings(max_examples=150, deadline=None)
@given(scenes())
def test_who_was_in_two_places_is_not_one_object(tracks: list[Track]) -> None:
    for one in link(tracks):
        for this in one.numbers:
            for that in one.numbers:
                both = tracks[this].at.keys() & tracks[that].at.keys() & set(one.frame.tolist())
                likeness = [
                    iou(np.float32([tracks[this].box(f)]), np.float32([tracks[that].box(f)]))[0, 0]
                    for f in both
                ]
                assert not both or max(likeness) > 0


@settings(max_examples=150, deadline=None)
@given(scenes(), st.permutations(range(8)))
def test_numbers_and_order_do_not_matter(tracks: list[Track], other: list[int]) -> None:
    renamed = [replace(track, number=other[track.number]) for track in tracks]
    assert outcome(link(tracks)) == outcome(link(renamed, reverse=True))


@settings(max_examples=150, deadline=None)
@given(scenes())
def test_it_does_not_matter_when_one_looks(tracks: list[Track]) -> None:
    found = link(tracks)
    for every in (0.0, inf):  # in every frame; once at the end
        with mock.patch.object(linking, "_LINK_INTERVAL", every):
            linker = Linker(0.3)
            if every == inf:
                linker._due = inf
            assert outcome(link(tracks, linker=linker)) == outcome(found)


# -- the vote --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("votes", "kind"),
    [
        ({"pedestrian": (5, 0.5)}, "pedestrian"),
        ({"pedestrian": (6, 0.5), "cyclist": (4, 0.5)}, "cyclist"),  # the bicycle is often missed
        ({"pedestrian": (8, 0.5), "cyclist": (2, 0.5)}, "pedestrian"),  # pushes it, or walks past
        ({"pedestrian": (8, 0.3), "cyclist": (2, 0.9)}, "cyclist"),  # near at last
        ({"pedestrian": (6, 0.5), "cyclist": (1, 0.5), "motorcyclist": (3, 0.5)}, "motorcyclist"),
        ({"pedestrian": (6, 0.5), "cyclist": (3, 0.5), "motorcyclist": (1, 0.5)}, "cyclist"),
        ({"bicycle": (6, 0.5), "cyclist": (4, 0.5)}, "cyclist"),
        ({"bicycle": (6, 0.5), "pedestrian": (4, 0.5)}, "bicycle"),
        ({"truck": (3, 0.5), "car": (3, 0.5)}, "car"),
        ({"car": (1, 0.0)}, "car"),
    ],
)
def test_the_vote(votes: dict[str, tuple[int, float]], kind: str) -> None:
    kinds = [name for name, (count, _) in votes.items() for _ in range(count)]
    scores = np.float32([score for count, score in votes.values() for _ in range(count)])
    assert kind_of(kinds, scores) == kind
    assert kind_of(np.array(kinds[::-1], object), scores[::-1]) == kind


NAMES = st.sampled_from(["pedestrian", "cyclist", "motorcyclist", "bicycle", "car"])


@given(st.lists(st.tuples(NAMES, st.integers(0, 64)), min_size=1, max_size=40))
def test_the_vote_is_for_somebody_who_ran(ballot: list[tuple[str, int]]) -> None:
    kinds, scores = [kind for kind, _ in ballot], np.float32([s / 64 for _, s in ballot])
    winner = kind_of(kinds, scores)
    assert winner in kinds
    # More of the same does not change it.
    assert kind_of([*kinds, winner], np.append(scores, np.float32(1))) == winner
