"""Link tracklets into tracks, so that each object has one track, and vote on its kind.

A tracker loses an object behind a tree or behind another person and starts a new track later. Each
tracklet would put the same object into the pool again, so tracklets are linked afterwards, when it
is known what came next, as AFLink does (Du et al., "StrongSORT: Make DeepSORT Great Again", 2023,
its section on AFLink): ends of tracklets are assigned to starts of others, one to one, at the least
total cost. AFLink learns the cost from times and places. Here the cost has three parts: the
distance between the start of a tracklet and the predicted position of the other, the change in
size, and the difference in appearance. An object that left the view is not linked to one that
enters it.

Two simultaneous tracks of one object, which a second box on it leads to, are merged, too.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import hypot, inf, log

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from collabteam.video.objects import Frame, Objects, area, intersection

MAX_GAP = 2.0
"""Longest gap in seconds over which tracklets are linked. A pedestrian is hidden by a lamp post for
a quarter of a second and by another pedestrian for one or two. Over longer gaps, position and
colours are weak evidence."""

RIDER_SHARE = 1 / 3
"""Share of a track's frames, weighted by score, that makes it a rider, see :func:`kind_of`."""
RIDERS = ("cyclist", "motorcyclist")
"""Kinds that a frame shows only if both the person and the vehicle were detected."""

# Seconds of video between two runs of the linking; the result does not depend on it.
_LINK_INTERVAL = 0.5
# Seconds at the end or start of a tracklet from which its position, speed and size are estimated.
_WINDOW = 1.0
# Minimum frames and seconds for an estimate of speed: with fewer, it would be noise.
_STEPS, _SPAN = 3, 0.25
# Allowed distance between a tracklet's start and its predicted position, in box heights: a
# constant, because boxes of half-hidden people are that far off, ...
_OFFSET = 0.5
# ... plus this much for each second of the gap: a person walks at 1.4 m/s, which is 0.8 heights,
# and may slow down or turn, ...
_OFFSET_PER_SECOND = 0.6
# ... plus this share of the distance that the object covers in the gap at its speed.
_OFFSET_PER_SPEED = 0.5
# Maximum ratio of an object's heights before and after a gap.
_MAX_HEIGHT_RATIO = 1.6
# Maximum total cost. Each of the three parts is at most 1 for two tracklets that can be linked, but
# not all three may be high.
_MAX_COST = 2.0
# Mean IoU at or above which two simultaneous tracklets show one object. Non-maximum suppression
# lets an IoU of up to 0.7 pass in a frame. For any two people in PETS2009 S2.L1, the mean IoU of
# the true boxes over all frames with both is at most 0.06, and over the second in which one hides
# the other, 0.56.
_DUPLICATE_IOU = 0.55
# Seconds within which an object at the edge of the view may flicker; after that it has left. The
# edge is this share of the frame's longer side; leaving is this many heights per second outwards.
_FLICKER, _EDGE, _OUTWARDS = 0.5, 0.01, 0.1


@dataclass(frozen=True)
class LinkedTrack:
    """The track of one object through a video: T frames in time order.

    Attributes:
        numbers: All track numbers that the tracker gave the object, in the order of their start;
            also those of duplicate tracks, even if none of their frames is left.
        number: (T,) int64, the tracker's number in each frame.
        frame: (T,) int64, number of each frame, ascending.
        seconds: (T,) float64, timestamp of each frame, ascending.
        box: (T, 4) float32: left, top, right, bottom in pixels.
        score: (T,) float32, the detector's score, 0 to 1.
        kind: (T,) object, of ``str``: the kind in each frame.
    """

    numbers: tuple[int, ...]
    number: NDArray[np.int64]
    frame: NDArray[np.int64]
    seconds: NDArray[np.float64]
    box: NDArray[np.float32]
    score: NDArray[np.float32]
    kind: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.seconds)


def kind_of(kind: Sequence[str] | NDArray[np.object_], score: NDArray[np.float32]) -> str:
    """Decide the kind of an object by a vote of its frames, weighted by the detector's score.

    A frame shows a rider only if both the person and the vehicle are detected; if the vehicle is
    missed, the same rider is a pedestrian. So a third of the votes is enough for the two kinds of
    riders together, and then the one with more votes wins. A person who pushes a bicycle, or walks
    past one, looks like a rider in some frames, but in less than a third of them, and stays a
    pedestrian. Among all other kinds, the one with the most votes wins.

    Args:
        kind: (T,) kind in each frame; T is at least 1.
        score: (T,) the detector's scores, 0 to 1.

    Returns:
        The kind; of two with equally many votes, the first in alphabetical order.
    """
    names, which = np.unique(np.asarray(kind).astype(str), return_inverse=True)
    # A score of 0 still counts a little, or an object might have no votes.
    votes = np.bincount(which, np.maximum(score, 1e-6), len(names))
    riding = np.isin(names, RIDERS)
    if votes[riding].sum() >= RIDER_SHARE * votes.sum():
        votes[~riding] = 0
    return str(names[votes.argmax()])


class Linker:
    """Links tracklets to tracks, one frame at a time, and returns each track when it is complete.

    The result depends only on the content of the tracklets, not on the time of the calls nor on the
    tracker's numbers. Memory holds the objects in view and those that left it within the last 2
    ``max_gap`` + 1.5 seconds; longer only while several tracklets compete and one is still open.

    Args:
        max_distance: Cosine distance of appearance at or above which two tracklets are never
            linked; see :class:`collabteam.video.appearance.Appearance`.
        max_gap: Longest gap in seconds over which tracklets are linked, including tracklets with
            the same tracker number.

    Attributes:
        tracks: Number of tracklets so far.
    """

    def __init__(self, max_distance: float, max_gap: float = MAX_GAP) -> None:
        self.max_distance, self.max_gap = max_distance, max_gap
        self.tracks = 0
        self._now = -inf
        self._due = -inf
        self._growing: dict[int, _Tracklet] = {}
        self._tracklets: list[_Tracklet] = []
        self._costs: dict[tuple[int, int], float] = {}

    def add(
        self,
        frame: Frame,
        objects: Objects,
        numbers: NDArray[np.int64],
        appearance: NDArray[np.float32],
    ) -> list[LinkedTrack]:
        """Add the objects of the next frame.

        Args:
            frame: The frame; only the size of its image is used.
            objects: N objects in the frame.
            numbers: (N,) track number of each object from the tracker, without repetitions; -1 for
                an object without a track.
            appearance: (N, D) unit vectors; D is 0 if there are none.

        Returns:
            Tracks that are complete; each track is returned once.

        Raises:
            ValueError: The frame is not later than the previous one.
        """
        if not frame.seconds > self._now:
            raise ValueError(f"frame at {frame.seconds} s after one at {self._now} s")
        self._now = frame.seconds
        height, width = frame.image.shape[:2]
        covered = intersection(objects.box, objects.box)
        np.fill_diagonal(covered, 0)
        free = 1 - covered.max(axis=1, initial=0) / np.maximum(area(objects.box), 1e-9)
        # A half-hidden object looks like the one that hides it: weigh it less.
        weight = np.maximum(objects.score * free, 0.01)
        for row in np.flatnonzero(numbers >= 0):
            number = int(numbers[row])
            tracklet = self._growing.get(number)
            if tracklet is None or self._is_over(tracklet, self._now):
                if tracklet is not None:
                    tracklet.over = True
                tracklet = _Tracklet(number, self.max_gap + _WINDOW)
                self._growing[number] = tracklet
                self._tracklets.append(tracklet)
                self.tracks += 1
            tracklet.add(frame, objects, int(row), weight[row] * appearance[row], (width, height))
        if self._now < self._due:
            return []
        self._due = self._now + _LINK_INTERVAL
        return self._link(self._now)

    def finish(self) -> list[LinkedTrack]:
        """Return all remaining tracks at the end of the video."""
        return self._link(inf)

    def _is_over(self, tracklet: _Tracklet, now: float) -> bool:
        return now - tracklet.last > self.max_gap

    def _link(self, now: float) -> list[LinkedTrack]:
        for number, tracklet in list(self._growing.items()):
            if self._is_over(tracklet, now):
                tracklet.over = True
                del self._growing[number]
        # The order decides ties, so it must not depend on the tracker's numbers.
        self._tracklets.sort(key=lambda tracklet: tracklet.key)
        self._find_duplicates(now)
        self._assign(now)
        return self._take()

    # -- duplicate tracks of one object ------------------------------------------------------------

    def _find_duplicates(self, now: float) -> None:
        """Find tracklets that start on top of another one, and judge them when either ends.

        A second box on one object becomes a track of its own. The tracklet is a duplicate if it
        overlaps the other until its own end. If the other one ends first, the tracklet continues
        it. Until one of them ends, the start of the tracklet is not assigned.
        """
        for tracklet in self._tracklets:
            if not tracklet.seen and (
                tracklet.over or now - tracklet.first > self.max_gap + _WINDOW
            ):
                tracklet.seen = True
                mean_iou = {
                    other: other.mean_iou(tracklet, tracklet.first + _WINDOW)
                    for other in self._tracklets
                    if other.key < tracklet.key and other.last >= tracklet.first
                }
                best = max(mean_iou, key=lambda other: mean_iou[other], default=None)
                if best is not None and mean_iou[best] >= _DUPLICATE_IOU:
                    tracklet.overlaps = best
        for tracklet in self._tracklets:
            while tracklet.overlaps is not None and not tracklet.duplicate:
                other = tracklet.overlaps
                if tracklet.over and tracklet.last <= other.last:
                    tracklet.duplicate = other.mean_iou(tracklet, tracklet.last) >= _DUPLICATE_IOU
                    tracklet.overlaps = other if tracklet.duplicate else None
                elif other.over and other.duplicate:
                    tracklet.overlaps = other.overlaps
                elif other.over:
                    tracklet.overlaps = None
                    if other.mean_iou(tracklet, other.last) >= _DUPLICATE_IOU:
                        tracklet.continues = other
                else:
                    break

    # -- ends to starts ----------------------------------------------------------------------------

    def _assign(self, now: float) -> None:
        """Assign ends to starts wherever later frames cannot change the outcome.

        Ends and starts that can be linked, directly or through others, are assigned together. This
        has to wait until all starts within reach of each end are known, and all ends within reach
        of each start.
        """
        ends = [one for one in self._tracklets if one.over and not one.duplicate and not one.ended]
        starts = [
            one for one in self._tracklets if one.seen and not one.duplicate and not one.started
        ]
        cost = np.full((len(ends), len(starts)), inf)
        for row, end in enumerate(ends):
            for column, start in enumerate(starts):
                cost[row, column] = self._cost(end, start)
        for rows, columns in _connected_groups(cost < inf):
            if any(now - ends[row].last <= 2 * self.max_gap + _WINDOW for row in rows):
                continue
            if any(starts[column].overlaps is not None for column in columns):
                continue
            gain = np.maximum(_MAX_COST + 1e-6 - cost[np.ix_(rows, columns)], 0)
            for row, column in zip(*linear_sum_assignment(gain, maximize=True), strict=True):
                if gain[row, column] > 0:
                    ends[rows[row]].next = starts[columns[column]]
                    starts[columns[column]].follows = True
            for row in rows:
                ends[row].ended = True
            for column in columns:
                starts[column].started = True

    def _cost(self, end: _Tracklet, start: _Tracklet) -> float:
        """Cost of a link: 0 for a perfect fit, at most ``_MAX_COST``; infinite if impossible."""
        gap = start.first - end.last
        if start.continues is not end and not 0 < gap <= self.max_gap:
            return inf
        pair = (id(end), id(start))
        if pair not in self._costs:
            self._costs[pair] = self._cost_over(gap, end, start)
        return self._costs[pair]

    def _cost_over(self, gap: float, end: _Tracklet, start: _Tracklet) -> float:
        away = end.whole.distance(start.early) / self.max_distance
        if start.continues is end:
            # The position fits, but so would that of another object that hides this one.
            return away if away <= 1 else inf
        if gap > _FLICKER and (end.left or start.entered):
            return inf
        one, other = end.tail, start.head
        height = (one.height + other.height) / 2
        # Predict from the end forwards and from the start backwards, where the speed is known.
        offs = []
        if one.moves or not other.moves:
            offs.append(hypot(one.x + one.vx * gap - other.x, one.y + one.vy * gap - other.y))
        if other.moves or not one.moves:
            offs.append(hypot(other.x - other.vx * gap - one.x, other.y - other.vy * gap - one.y))
        speed = max(hypot(one.vx, one.vy), hypot(other.vx, other.vy)) / height
        parts = (
            sum(offs) / len(offs) / height
            / (_OFFSET + (_OFFSET_PER_SECOND + _OFFSET_PER_SPEED * speed) * gap),
            abs(log(one.height / other.height)) / log(_MAX_HEIGHT_RATIO),
            away,
        )  # fmt: skip
        return sum(parts) if max(parts) <= 1 and sum(parts) <= _MAX_COST else inf

    def _take(self) -> list[LinkedTrack]:
        """Remove and return the tracks whose start and end are both decided."""
        duplicates: dict[_Tracklet, list[_Tracklet]] = {}
        for tracklet in self._tracklets:
            if tracklet.duplicate:
                duplicates.setdefault(tracklet.root, []).append(tracklet)
        found: list[LinkedTrack] = []
        gone: set[_Tracklet] = set()
        for tracklet in self._tracklets:
            if tracklet.duplicate or tracklet.follows or not tracklet.started:
                continue
            chain = [tracklet]
            while (following := chain[-1].next) is not None:
                chain.append(following)
            if chain[-1].ended:
                extra = [duplicate for part in chain for duplicate in duplicates.get(part, [])]
                found.append(_flatten(chain, extra))
                gone.update(chain, extra)
        self._tracklets = [tracklet for tracklet in self._tracklets if tracklet not in gone]
        forgotten = {id(tracklet) for tracklet in gone}
        self._costs = {
            pair: cost for pair, cost in self._costs.items() if forgotten.isdisjoint(pair)
        }
        return found


def _connected_groups(joined: NDArray[np.bool_]) -> list[tuple[list[int], list[int]]]:
    """Group rows and columns of a matrix that are connected through true entries."""
    left_rows, left_columns = set(range(joined.shape[0])), set(range(joined.shape[1]))
    groups = []
    while left_rows or left_columns:
        rows = {left_rows.pop()} if left_rows else set()
        columns = set() if rows else {left_columns.pop()}
        before = -1
        while len(rows) + len(columns) > before:
            before = len(rows) + len(columns)
            columns |= set(np.flatnonzero(joined[list(rows)].any(axis=0)).tolist())
            rows |= set(np.flatnonzero(joined[:, list(columns)].any(axis=1)).tolist())
        left_rows -= rows
        left_columns -= columns
        groups.append((sorted(rows), sorted(columns)))
    return groups


def _flatten(chain: list[_Tracklet], extra: list[_Tracklet]) -> LinkedTrack:
    tracklets = chain + extra
    lengths = [len(tracklet.seconds) for tracklet in tracklets]
    frame = np.concatenate([np.array(tracklet.frame, np.int64) for tracklet in tracklets])
    score = np.concatenate([np.array(tracklet.score, np.float32) for tracklet in tracklets])
    second = np.repeat([0] * len(chain) + [1] * len(extra), lengths)
    # For a frame in several tracklets, prefer the track's own to a duplicate, then the best score.
    order = np.lexsort((-score, second, frame))
    rows = order[np.unique(frame[order], return_index=True)[1]]
    kinds = np.array([kind for tracklet in tracklets for kind in tracklet.kind], object)
    return LinkedTrack(
        numbers=tuple(dict.fromkeys(tracklet.number for tracklet in tracklets)),
        number=np.repeat([tracklet.number for tracklet in tracklets], lengths)[rows],
        frame=frame[rows],
        seconds=np.concatenate([np.array(tracklet.seconds) for tracklet in tracklets])[rows],
        box=np.concatenate([tracklet.boxes(0, None) for tracklet in tracklets])[rows].astype(
            np.float32
        ),
        score=score[rows],
        kind=kinds[rows],
    )


@dataclass(frozen=True)
class _Endpoint:
    """End or start of a tracklet: middle of the box in pixels, speed in pixels per second."""

    x: float
    y: float
    vx: float
    vy: float
    height: float
    moves: bool


class _Mean:
    """Weighted mean of unit vectors."""

    def __init__(self) -> None:
        self.sum: NDArray[np.float64] = np.zeros(0)

    def add(self, vector: NDArray[np.float32]) -> None:
        self.sum = self.sum + vector if self.sum.size else vector.astype(np.float64)

    def distance(self, other: _Mean) -> float:
        """Cosine distance, 0 to 2; 0 if there is nothing to compare."""
        length = float(np.linalg.norm(self.sum) * np.linalg.norm(other.sum))
        return 1 - float(self.sum @ other.sum) / length if length else 0.0


class _Tracklet:
    """The detections that the tracker gave one number, without long gaps, and their links."""

    def __init__(self, number: int, early: float) -> None:
        self.number = number
        self.frame, self.seconds = array("q"), array("d")
        self.score, self.kind = array("f"), list[str]()
        self._box = array("f")
        self._early = early
        self._size = (0, 0)
        self.whole, self.early = _Mean(), _Mean()
        self.over = self.seen = self.duplicate = False
        self.overlaps: _Tracklet | None = None
        self.continues: _Tracklet | None = None
        self.started = self.ended = self.follows = False
        self.next: _Tracklet | None = None

    def add(
        self,
        frame: Frame,
        objects: Objects,
        row: int,
        appearance: NDArray[np.float32],
        size: tuple[int, int],
    ) -> None:
        self.frame.append(frame.number)
        self.seconds.append(frame.seconds)
        self._box.extend(objects.box[row].tolist())
        self.score.append(float(objects.score[row]))
        self.kind.append(str(objects.kind[row]))
        self._size = size
        self.whole.add(appearance)
        # The start is judged on this window alone, so later frames must not change it.
        if frame.seconds - self.first <= self._early:
            self.early.add(appearance)

    def boxes(self, start: int, stop: int | None) -> NDArray[np.float64]:
        """Return the (n, 4) boxes of the frames from ``start`` to before ``stop``."""
        end = None if stop is None else 4 * stop
        return np.array(self._box[4 * start : end], np.float64).reshape(-1, 4)

    @property
    def first(self) -> float:
        return self.seconds[0]

    @property
    def last(self) -> float:
        return self.seconds[-1]

    @cached_property
    def key(self) -> tuple[float, ...]:
        return (self.first, *self._box[:4], self.score[0])

    @property
    def root(self) -> _Tracklet:
        """The tracklet that this one duplicates, which is not a duplicate itself."""
        return self.overlaps.root if self.duplicate and self.overlaps is not None else self

    # Read only after the start, or the end, is complete, so the cached values stay valid.

    @cached_property
    def head(self) -> _Endpoint:
        stop = bisect_right(self.seconds, self.first + _WINDOW)
        return _endpoint(np.array(self.seconds[:stop]), self.boxes(0, stop), 0)

    @cached_property
    def tail(self) -> _Endpoint:
        start = bisect_left(self.seconds, self.last - _WINDOW)
        return _endpoint(np.array(self.seconds[start:]), self.boxes(start, None), -1)

    @cached_property
    def left(self) -> bool:
        """Whether the object left the view."""
        return self._crosses(self.boxes(len(self.seconds) - 1, None)[0], self.tail, 1)

    @cached_property
    def entered(self) -> bool:
        """Whether the object entered the view."""
        return self._crosses(self.boxes(0, 1)[0], self.head, -1)

    def _crosses(self, box: NDArray[np.float64], endpoint: _Endpoint, sense: int) -> bool:
        width, height = self._size
        rim = _EDGE * max(self._size)
        x, y = sense * endpoint.vx / endpoint.height, sense * endpoint.vy / endpoint.height
        return bool(
            (box[0] < rim and x < -_OUTWARDS)
            or (box[1] < rim and y < -_OUTWARDS)
            or (box[2] > width - rim and x > _OUTWARDS)
            or (box[3] > height - rim and y > _OUTWARDS)
        )

    def mean_iou(self, other: _Tracklet, until: float) -> float:
        """Mean IoU of this tracklet with another at the same times, 0 to 1.

        The boxes of this tracklet are interpolated in frames without a detection, because two
        tracks of one object may also take turns.

        Args:
            other: A tracklet that starts during this one.
            until: Last time in seconds to compare, if this tracklet does not end before.
        """
        both = bisect_right(other.seconds, min(until, self.last))
        at = np.array(other.seconds[:both])
        start = max(bisect_right(self.seconds, at[0]) - 1, 0)
        stop = bisect_left(self.seconds, at[-1]) + 1
        known, own = np.array(self.seconds[start:stop]), self.boxes(start, stop)
        own = np.stack([np.interp(at, known, own[:, side]) for side in range(4)], axis=1)
        others = other.boxes(0, both)
        low, high = np.maximum(own[:, :2], others[:, :2]), np.minimum(own[:, 2:], others[:, 2:])
        shared = np.maximum(high - low, 0).prod(axis=1)
        union = (own[:, 2:] - own[:, :2]).prod(axis=1) - shared
        union += (others[:, 2:] - others[:, :2]).prod(axis=1)
        return float((shared / np.maximum(union, 1e-9)).mean())


def _endpoint(seconds: NDArray[np.float64], box: NDArray[np.float64], at: int) -> _Endpoint:
    middle = (box[:, :2] + box[:, 2:]) / 2
    height = max(float(np.median(box[:, 3] - box[:, 1])), 1.0)
    if len(seconds) < _STEPS or seconds[-1] - seconds[0] < _SPAN:
        return _Endpoint(float(middle[at, 0]), float(middle[at, 1]), 0.0, 0.0, height, False)
    # Fit a straight line, because single boxes jump.
    time = seconds - seconds.mean()
    speed = time @ middle / (time @ time)
    place = middle.mean(axis=0) + speed * time[at]
    return _Endpoint(
        float(place[0]), float(place[1]), float(speed[0]), float(speed[1]), height, True
    )
