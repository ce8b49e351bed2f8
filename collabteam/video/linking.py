"""One object, one row: joins the pieces of broken tracks, and says what was seen.

A tracker loses an object behind a tree or behind somebody else and finds a new one later. Each
piece would put the same object into the pool once more, so pieces are joined afterwards, when what
came next is known, as AFLink does (Du et al., "StrongSORT: Make DeepSORT Great Again", 2023, its
section on AFLink): ends of pieces to starts of others, one to one, at the least total cost. AFLink
learns the cost from times and places; here it is made of how far a piece begins from where
the other would be by then, of the change in size, and of the difference in appearance. Who left
the view is not joined to who comes in.

Two tracks of one thing at the same time, which second boxes on somebody lead to, become one too.
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
"""Seconds over which pieces are joined. A walker is behind a lamp post for a quarter of a second
and behind another walker for one or two; beyond, place and colours prove little."""

RIDER_SHARE = 1 / 3
"""Share of an object's frames, weighted by score, that make it a rider, see :func:`kind_of`."""
RIDERS = ("cyclist", "motorcyclist")
"""Kinds that show in a frame only if a person and a vehicle are both found there."""

# Seconds of video between two looks at what can be joined; no result depends on it.
_EVERY = 0.5
# Seconds at its end or start that tell a piece's place, direction and size.
_WINDOW = 1.0
# Frames and seconds that a direction needs at least: of fewer, it would be noise.
_STEPS, _SPAN = 3, 0.25
# How far from where it is expected a piece may begin, in box heights: this much at once, as boxes
# of half hidden people are that far off, ...
_OFF = 0.5
# ... this much more for every second of the gap: a person walks at 1.4 m/s, which is 0.8 heights,
# and may slow down or turn; ...
_OFF_PER_SECOND = 0.6
# ... and for who is faster, this share of the way made meanwhile.
_OFF_PER_SPEED = 0.5
# Ratio of an object's heights before and after a gap, at most.
_RESIZED = 1.6
# Each of the three parts of a cost is at most 1 for two pieces that can be one object; together
# they may not all be bad.
_MOST = 2.0
# Mean IoU from which on two pieces show one thing at the same time. Non-maximum suppression lets
# pass an IoU of up to 0.7 in a frame; of any two people in PETS2009 S2.L1, the true boxes have at
# most 0.06 on the mean of all frames with both, and 0.56 in the second when one hides the other.
_SAME = 0.55
# Seconds within which an object at the edge of the view flickers; after that it has left. Edges
# are this share of the frame's longer side; leaving is so many heights per second outwards.
_FLICKER, _RIM, _OUTWARDS = 0.5, 0.01, 0.1


@dataclass(frozen=True)
class LinkedTrack:
    """One object that was followed through a video: T frames in which it was seen, in time order.

    Attributes:
        numbers: All numbers that the tracker gave it, first the one it began with; those of second
            tracks of the same thing too, even if no frame is left of them.
        number: (T,) int64, the number in each frame.
        frame: (T,) int64, number of each frame, rising.
        seconds: (T,) float64, rising.
        box: (T, 4) float32: left, top, right, bottom in pixels.
        score: (T,) float32, 0 to 1.
        kind: (T,) object, of ``str``: what it was taken for in each frame.
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
    """What an object is, by a vote of its frames, each weighted by the detector's score.

    A rider shows as one only where both the person and the vehicle are found; where the vehicle is
    missed, the same rider is a pedestrian. So a third of the votes is enough for riders (together,
    and then the stronger of the two kinds). Somebody who pushes a bicycle, or walks past one, is
    taken for a rider now and then, but not in a third of the frames, and stays a pedestrian. All
    other kinds: the most votes win.

    Args:
        kind: (T,) what it was taken for in each frame; at least one.
        score: (T,) the detector's scores, 0 to 1.

    Returns:
        The kind; of two with equally many votes, the one that sorts first.
    """
    names, which = np.unique(np.asarray(kind).astype(str), return_inverse=True)
    # A score of 0 is a vote all the same, or an object might have none.
    votes = np.bincount(which, np.maximum(score, 1e-6), len(names))
    riding = np.isin(names, RIDERS)
    if votes[riding].sum() >= RIDER_SHARE * votes.sum():
        votes[~riding] = 0
    return str(names[votes.argmax()])


class Linker:
    """Makes objects of tracks, one frame at a time, and lets go of each object when it is over.

    Everything is decided by what the tracks show, not by when it is asked for, nor by the numbers
    that the tracker gave. Memory holds what is in view and what left it within twice ``max_gap``
    and 1.5 seconds; longer only where several pieces compete, and one of them is still open.

    Args:
        max_distance: Cosine distance of appearances from which on two pieces are never joined; see
            :class:`collabteam.video.appearance.Appearance`.
        max_gap: Seconds over which pieces are joined, also pieces that the tracker gave one number.

    Attributes:
        tracks: How many pieces there were so far.
    """

    def __init__(self, max_distance: float, max_gap: float = MAX_GAP) -> None:
        self.max_distance, self.max_gap = max_distance, max_gap
        self.tracks = 0
        self._now = -inf
        self._due = -inf
        self._growing: dict[int, _Piece] = {}
        self._pieces: list[_Piece] = []
        self._costs: dict[tuple[int, int], float] = {}

    def add(
        self,
        frame: Frame,
        objects: Objects,
        numbers: NDArray[np.int64],
        appearance: NDArray[np.float32],
    ) -> list[LinkedTrack]:
        """Take the objects of the next frame.

        Args:
            frame: The frame; of its picture, only the size counts.
            objects: N objects in it.
            numbers: (N,) the tracker's number of each, each at most once; -1 for none.
            appearance: (N, D) unit vectors; D is 0 if there are none.

        Returns:
            Objects that are over, none of which comes again.

        Raises:
            ValueError: The frame is not later than the last one.
        """
        if not frame.seconds > self._now:
            raise ValueError(f"frame at {frame.seconds} s after one at {self._now} s")
        self._now = frame.seconds
        height, width = frame.image.shape[:2]
        covered = intersection(objects.box, objects.box)
        np.fill_diagonal(covered, 0)
        free = 1 - covered.max(axis=1, initial=0) / np.maximum(area(objects.box), 1e-9)
        # What is half hidden looks like what hides it.
        weight = np.maximum(objects.score * free, 0.01)
        for row in np.flatnonzero(numbers >= 0):
            number = int(numbers[row])
            piece = self._growing.get(number)
            if piece is None or self._is_over(piece, self._now):
                if piece is not None:
                    piece.over = True
                piece = _Piece(number, self.max_gap + _WINDOW)
                self._growing[number] = piece
                self._pieces.append(piece)
                self.tracks += 1
            piece.add(frame, objects, int(row), weight[row] * appearance[row], (width, height))
        if self._now < self._due:
            return []
        self._due = self._now + _EVERY
        return self._look(self._now)

    def finish(self) -> list[LinkedTrack]:
        """The end: all objects that are left."""
        return self._look(inf)

    def _is_over(self, piece: _Piece, now: float) -> bool:
        return now - piece.last > self.max_gap

    def _look(self, now: float) -> list[LinkedTrack]:
        for number, piece in list(self._growing.items()):
            if self._is_over(piece, now):
                piece.over = True
                del self._growing[number]
        # One order for the same tracks, whatever their numbers: equal costs are decided by it.
        self._pieces.sort(key=lambda piece: piece.key)
        self._find_doubles(now)
        self._join(now)
        return self._take()

    # -- two tracks of one thing -------------------------------------------------------------------

    def _find_doubles(self, now: float) -> None:
        """Find pieces that begin on top of another one, and judge them when either is over.

        A second box on somebody becomes a track of its own. It is a double if it stays on the other
        to its end; and if it is the other that ends first, it goes on where that one ends. Until
        then nothing is decided about its start.
        """
        for piece in self._pieces:
            if not piece.seen and (piece.over or now - piece.first > self.max_gap + _WINDOW):
                piece.seen = True
                likeness = {
                    other: other.likeness(piece, piece.first + _WINDOW)
                    for other in self._pieces
                    if other.key < piece.key and other.last >= piece.first
                }
                best = max(likeness, key=lambda other: likeness[other], default=None)
                if best is not None and likeness[best] >= _SAME:
                    piece.under = best
        for piece in self._pieces:
            while piece.under is not None and not piece.double:
                other = piece.under
                if piece.over and piece.last <= other.last:
                    piece.double = other.likeness(piece, piece.last) >= _SAME
                    piece.under = other if piece.double else None
                elif other.over and other.double:
                    piece.under = other.under
                elif other.over:
                    piece.under = None
                    if other.likeness(piece, other.last) >= _SAME:
                        piece.heir_of = other
                else:
                    break

    # -- ends to starts ----------------------------------------------------------------------------

    def _join(self, now: float) -> None:
        """Assign ends to starts wherever nothing that is still to come can change the outcome.

        Ends and starts that can be joined, directly or through others, are assigned together. That
        has to wait until each end has seen all starts within reach, and each start all ends.
        """
        ends = [one for one in self._pieces if one.over and not one.double and not one.ended]
        starts = [one for one in self._pieces if one.seen and not one.double and not one.started]
        cost = np.full((len(ends), len(starts)), inf)
        for row, end in enumerate(ends):
            for column, start in enumerate(starts):
                cost[row, column] = self._cost(end, start)
        for rows, columns in _groups(cost < inf):
            if any(now - ends[row].last <= 2 * self.max_gap + _WINDOW for row in rows):
                continue
            if any(starts[column].under is not None for column in columns):
                continue
            gain = np.maximum(_MOST + 1e-6 - cost[np.ix_(rows, columns)], 0)
            for row, column in zip(*linear_sum_assignment(gain, maximize=True), strict=True):
                if gain[row, column] > 0:
                    ends[rows[row]].next = starts[columns[column]]
                    starts[columns[column]].follows = True
            for row in rows:
                ends[row].ended = True
            for column in columns:
                starts[column].started = True

    def _cost(self, end: _Piece, start: _Piece) -> float:
        """What joining costs: 0 for a perfect fit to ``_MOST``; infinite if it cannot be."""
        gap = start.first - end.last
        if start.heir_of is not end and not 0 < gap <= self.max_gap:
            return inf
        pair = (id(end), id(start))
        if pair not in self._costs:
            self._costs[pair] = self._cost_over(gap, end, start)
        return self._costs[pair]

    def _cost_over(self, gap: float, end: _Piece, start: _Piece) -> float:
        away = end.whole.distance(start.early) / self.max_distance
        if start.heir_of is end:
            # It is where it should be, but so would be who hides the other.
            return away if away <= 1 else inf
        if gap > _FLICKER and (end.left or start.entered):
            return inf
        one, other = end.tail, start.head
        height = (one.height + other.height) / 2
        # From the end forwards and from the start backwards, as far as they have a direction.
        offs = []
        if one.moves or not other.moves:
            offs.append(hypot(one.x + one.vx * gap - other.x, one.y + one.vy * gap - other.y))
        if other.moves or not one.moves:
            offs.append(hypot(other.x - other.vx * gap - one.x, other.y - other.vy * gap - one.y))
        speed = max(hypot(one.vx, one.vy), hypot(other.vx, other.vy)) / height
        parts = (
            sum(offs) / len(offs) / height
            / (_OFF + (_OFF_PER_SECOND + _OFF_PER_SPEED * speed) * gap),
            abs(log(one.height / other.height)) / log(_RESIZED),
            away,
        )  # fmt: skip
        return sum(parts) if max(parts) <= 1 and sum(parts) <= _MOST else inf

    def _take(self) -> list[LinkedTrack]:
        """Take out the objects of which both ends are known."""
        doubles: dict[_Piece, list[_Piece]] = {}
        for piece in self._pieces:
            if piece.double:
                doubles.setdefault(piece.root, []).append(piece)
        found: list[LinkedTrack] = []
        gone: set[_Piece] = set()
        for piece in self._pieces:
            if piece.double or piece.follows or not piece.started:
                continue
            chain = [piece]
            while (following := chain[-1].next) is not None:
                chain.append(following)
            if chain[-1].ended:
                extra = [double for part in chain for double in doubles.get(part, [])]
                found.append(_flatten(chain, extra))
                gone.update(chain, extra)
        self._pieces = [piece for piece in self._pieces if piece not in gone]
        forgotten = {id(piece) for piece in gone}
        self._costs = {
            pair: cost for pair, cost in self._costs.items() if forgotten.isdisjoint(pair)
        }
        return found


def _groups(joined: NDArray[np.bool_]) -> list[tuple[list[int], list[int]]]:
    """Rows and columns of a matrix that hang together through true entries; each is in one."""
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


def _flatten(chain: list[_Piece], extra: list[_Piece]) -> LinkedTrack:
    pieces = chain + extra
    lengths = [len(piece.seconds) for piece in pieces]
    frame = np.concatenate([np.array(piece.frame, np.int64) for piece in pieces])
    score = np.concatenate([np.array(piece.score, np.float32) for piece in pieces])
    second = np.repeat([0] * len(chain) + [1] * len(extra), lengths)
    # Where several pieces have a frame, the object's own goes before a double, then the surest.
    order = np.lexsort((-score, second, frame))
    rows = order[np.unique(frame[order], return_index=True)[1]]
    kinds = np.array([kind for piece in pieces for kind in piece.kind], object)
    return LinkedTrack(
        numbers=tuple(dict.fromkeys(piece.number for piece in pieces)),
        number=np.repeat([piece.number for piece in pieces], lengths)[rows],
        frame=frame[rows],
        seconds=np.concatenate([np.array(piece.seconds) for piece in pieces])[rows],
        box=np.concatenate([piece.boxes(0, None) for piece in pieces])[rows].astype(np.float32),
        score=score[rows],
        kind=kinds[rows],
    )


@dataclass(frozen=True)
class _Border:
    """Where a piece ends or starts: middle of the box and speed in pixels (per second)."""

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


class _Piece:
    """What a tracker gave one number, without long gaps, and what was found out about it."""

    def __init__(self, number: int, early: float) -> None:
        self.number = number
        self.frame, self.seconds = array("q"), array("d")
        self.score, self.kind = array("f"), list[str]()
        self._box = array("f")
        self._early = early
        self._size = (0, 0)
        self.whole, self.early = _Mean(), _Mean()
        self.over = self.seen = self.double = False
        self.under: _Piece | None = None
        self.heir_of: _Piece | None = None
        self.started = self.ended = self.follows = False
        self.next: _Piece | None = None

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
        # The start is judged when this much is known of a piece, whether or not it goes on.
        if frame.seconds - self.first <= self._early:
            self.early.add(appearance)

    def boxes(self, start: int, stop: int | None) -> NDArray[np.float64]:
        """(n, 4) of the frames from ``start`` to before ``stop``."""
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
    def root(self) -> _Piece:
        """The piece that this one is a double of, and no double itself."""
        return self.under.root if self.double and self.under is not None else self

    # Asked for when the start is known, or the end, so they do not change any more.

    @cached_property
    def head(self) -> _Border:
        stop = bisect_right(self.seconds, self.first + _WINDOW)
        return _border(np.array(self.seconds[:stop]), self.boxes(0, stop), 0)

    @cached_property
    def tail(self) -> _Border:
        start = bisect_left(self.seconds, self.last - _WINDOW)
        return _border(np.array(self.seconds[start:]), self.boxes(start, None), -1)

    @cached_property
    def left(self) -> bool:
        """Whether it went out of the view."""
        return self._crosses(self.boxes(len(self.seconds) - 1, None)[0], self.tail, 1)

    @cached_property
    def entered(self) -> bool:
        """Whether it came into the view."""
        return self._crosses(self.boxes(0, 1)[0], self.head, -1)

    def _crosses(self, box: NDArray[np.float64], border: _Border, sense: int) -> bool:
        width, height = self._size
        rim = _RIM * max(self._size)
        x, y = sense * border.vx / border.height, sense * border.vy / border.height
        return bool(
            (box[0] < rim and x < -_OUTWARDS)
            or (box[1] < rim and y < -_OUTWARDS)
            or (box[2] > width - rim and x > _OUTWARDS)
            or (box[3] > height - rim and y > _OUTWARDS)
        )

    def likeness(self, other: _Piece, until: float) -> float:
        """Mean IoU of another's boxes with where this piece was at the same times, 0 to 1.

        Where it was in frames in which it was not found is interpolated: two tracks of one thing
        may also take turns.

        Args:
            other: A piece that begins while this one lasts.
            until: When to stop, unless this piece ends before.
        """
        both = bisect_right(other.seconds, min(until, self.last))
        at = np.array(other.seconds[:both])
        start = max(bisect_right(self.seconds, at[0]) - 1, 0)
        stop = bisect_left(self.seconds, at[-1]) + 1
        known, mine = np.array(self.seconds[start:stop]), self.boxes(start, stop)
        mine = np.stack([np.interp(at, known, mine[:, side]) for side in range(4)], axis=1)
        theirs = other.boxes(0, both)
        low, high = np.maximum(mine[:, :2], theirs[:, :2]), np.minimum(mine[:, 2:], theirs[:, 2:])
        shared = np.maximum(high - low, 0).prod(axis=1)
        union = (mine[:, 2:] - mine[:, :2]).prod(axis=1) - shared
        union += (theirs[:, 2:] - theirs[:, :2]).prod(axis=1)
        return float((shared / np.maximum(union, 1e-9)).mean())


def _border(seconds: NDArray[np.float64], box: NDArray[np.float64], at: int) -> _Border:
    middle = (box[:, :2] + box[:, 2:]) / 2
    height = max(float(np.median(box[:, 3] - box[:, 1])), 1.0)
    if len(seconds) < _STEPS or seconds[-1] - seconds[0] < _SPAN:
        return _Border(float(middle[at, 0]), float(middle[at, 1]), 0.0, 0.0, height, False)
    # A straight line through all of it, as single boxes jump.
    time = seconds - seconds.mean()
    speed = time @ middle / (time @ time)
    place = middle.mean(axis=0) + speed * time[at]
    return _Border(float(place[0]), float(place[1]), float(speed[0]), float(speed[1]), height, True)
