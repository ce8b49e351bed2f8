"""One object, one row: joins the pieces of broken tracks and says what was seen.

A tracker loses an object behind a tree or behind somebody else and finds a new one later. Each
piece would put the same object into the pool once more, so pieces are joined afterwards, when
what comes next is known, as AFLink does (Du et al., "StrongSORT: Make DeepSORT Great Again", 2023,
section 3.3): the end of one piece to the start of another, one to one, at the least total cost.
AFLink learns the cost from times and places; here it is made of where the object would be by then,
of its size, and of its appearance. No pixels are needed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from math import hypot, inf, log

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from collabteam.video.objects import Objects, area, intersection, iou

MAX_GAP = 2.0
RIDER_SHARE = 1 / 3
RIDERS = ("cyclist", "motorcyclist")

_WINDOW = 1.0
_OFF = 0.5
_OFF_PER_SECOND = 0.6
_OFF_PER_SPEED = 0.5
_RESIZED = 1.6
_SAME = 0.55
_MOST = 2.0


@dataclass(frozen=True)
class Linked:
    numbers: tuple[int, ...]
    number: NDArray[np.int64]
    frame: NDArray[np.int64]
    seconds: NDArray[np.float64]
    box: NDArray[np.float32]
    score: NDArray[np.float32]
    kind: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.seconds)


def kind_of(kind: NDArray[np.object_], score: NDArray[np.float32]) -> str:
    votes: dict[str, float] = {}
    for name, weight in zip(kind.tolist(), score.tolist(), strict=True):
        votes[name] = votes.get(name, 0.0) + max(weight, 1e-6)
    total = sum(votes.values())
    riding = {name: votes[name] for name in RIDERS if name in votes}
    if sum(riding.values()) >= RIDER_SHARE * total:
        votes = riding
    return max(sorted(votes), key=lambda name: votes[name])


class Linker:
    def __init__(self, max_distance: float = 0.35, max_gap: float = MAX_GAP) -> None:
        self.max_distance, self.max_gap = max_distance, max_gap
        self._growing: dict[int, _Piece] = {}
        self._pieces: list[_Piece] = []
        self._costs = {}
        self._due = -inf
        self.tracks = 0

    def add(self, frame, seconds, objects, numbers, appearance) -> list[Linked]:
        covered = intersection(objects.box, objects.box)
        np.fill_diagonal(covered, 0)
        free = 1 - covered.max(axis=1, initial=0) / np.maximum(area(objects.box), 1e-9)
        weight = objects.score * np.clip(free, 0.05, 1)
        for row in np.flatnonzero(numbers >= 0):
            number = int(numbers[row])
            piece = self._growing.get(number)
            if piece is None or seconds - piece.seconds[-1] > self.max_gap:
                if piece is not None:
                    piece.over = True
                piece = _Piece(number)
                self._growing[number] = piece
                self._pieces.append(piece)
                self.tracks += 1
            piece.add(frame, seconds, objects.box[row], float(objects.score[row]),
                      objects.kind[row], appearance[row], float(weight[row]))
        if seconds < self._due:
            return []
        self._due = seconds + _WINDOW / 2
        return self._settle(seconds)

    def finish(self) -> list[Linked]:
        return self._settle(inf)

    def _settle(self, now: float) -> list[Linked]:
        for number, piece in list(self._growing.items()):
            if piece.seconds[-1] < now - self.max_gap:
                piece.over = True
                del self._growing[number]
        self._pieces.sort(key=lambda piece: piece.key)
        self._find_doubles(now)
        self._join(now)
        return self._emit()

    def _find_doubles(self, now: float) -> None:
        for piece in self._pieces:
            if not piece.tested and (piece.over or piece.first + _WINDOW < now):
                piece.tested = True
                best = _SAME
                for other in self._pieces:
                    if other is piece or other.key >= piece.key or other.seconds[-1] < piece.first:
                        continue
                    value = other.likeness(piece, piece.first + _WINDOW)
                    if value >= best and (value > best or piece.under is None):
                        best, piece.under = value, other
        for piece in self._pieces:
            while piece.under is not None and not piece.double:
                other = piece.under
                if piece.over and piece.seconds[-1] <= other.seconds[-1]:
                    piece.double = piece.likeness_ok(other)
                    if not piece.double:
                        piece.under = None
                elif other.over:
                    if other.double:
                        piece.under = other.under
                        continue
                    ok = piece.likeness_ok(other)
                    piece.under = None
                    if ok:
                        piece.handover = other
                else:
                    break
                break

    def _join(self, now: float) -> None:
        ends = [p for p in self._pieces if p.over and not p.double and not p.ended]
        starts = [p for p in self._pieces if p.tested and not p.double and not p.started]
        edges: dict[tuple[int, int], float] = {}
        for i, e in enumerate(ends):
            for j, s in enumerate(starts):
                c = self._cost(e, s)
                if c < inf:
                    edges[i, j] = c
        # components
        group = list(range(len(ends) + len(starts)))

        def find(x):
            while group[x] != x:
                group[x] = group[group[x]]
                x = group[x]
            return x

        for i, j in edges:
            group[find(len(ends) + j)] = find(i)
        members: dict[int, tuple[list[int], list[int]]] = {}
        for i in range(len(ends)):
            members.setdefault(find(i), ([], []))[0].append(i)
        for j in range(len(starts)):
            members.setdefault(find(len(ends) + j), ([], []))[1].append(j)
        for es, ss in members.values():
            if any(ends[i].seconds[-1] + self.max_gap + _WINDOW >= now for i in es):
                continue
            if any(starts[j].under is not None or starts[j].first + self.max_gap >= now for j in ss):
                continue
            if es and ss:
                m = np.array([[edges.get((i, j), inf) - _MOST for j in ss] for i in es])
                m[~np.isfinite(m)] = 0
                for a, b in zip(*linear_sum_assignment(m), strict=True):
                    if m[a, b] < 0:
                        ends[es[a]].next = starts[ss[b]]
                        starts[ss[b]].follows = True
            for i in es:
                ends[i].ended = True
            for j in ss:
                starts[j].started = True

    def _cost(self, e, s) -> float:
        if s is e:
            return inf
        if s.handover is e:
            return 0.0
        gap = s.first - e.seconds[-1]
        if not 0 < gap <= self.max_gap:
            return inf
        key = (id(e), id(s))
        if key not in self._costs:
            self._costs[key] = self._gap_cost(e, s, gap)
        return self._costs[key]

    def _gap_cost(self, e, s, gap) -> float:
        a, b = e.tail, s.head
        height = (a.height + b.height) / 2
        offs = []
        if a.moves or not b.moves:
            offs.append(hypot(a.x + a.vx * gap - b.x, a.y + a.vy * gap - b.y))
        if b.moves or not a.moves:
            offs.append(hypot(b.x - b.vx * gap - a.x, b.y - b.vy * gap - a.y))
        off = sum(offs) / len(offs) / height
        speed = max(hypot(a.vx, a.vy), hypot(b.vx, b.vy)) / height
        allowed = _OFF + (_OFF_PER_SECOND + _OFF_PER_SPEED * speed) * gap
        resized = abs(log(a.height / b.height)) / log(_RESIZED)
        away = 1 - float(e.appearance @ s.appearance)
        parts = (off / allowed, resized, away / self.max_distance)
        total = sum(parts)
        if DEBUG is not None:
            DEBUG.append((e, s, gap, parts))
        if max(parts) > 1 or total > _MOST:
            return inf
        return total

    def _emit(self) -> list[Linked]:
        found = []
        doubles: dict[int, list[_Piece]] = {}
        for p in self._pieces:
            if p.double:
                root = p
                while root.double:
                    root = root.under
                doubles.setdefault(id(root), []).append(p)
        gone = set()
        for p in self._pieces:
            if p.follows or not p.started or p.double:
                continue
            chain = [p]
            while chain[-1].next is not None:
                chain.append(chain[-1].next)
            if not chain[-1].ended:
                continue
            extra = [d for c in chain for d in doubles.get(id(c), [])]
            found.append(_flat(chain, extra))
            gone |= {id(x) for x in chain + extra}
        if gone:
            self._pieces = [p for p in self._pieces if id(p) not in gone]
            self._costs = {k: c for k, c in self._costs.items() if not gone & set(k)}
        return found


DEBUG = None


def _flat(chain, extra) -> Linked:
    allp = chain + extra
    number = np.concatenate([np.full(len(p.frame), p.number) for p in allp])
    frame = np.concatenate([p.frame for p in allp])
    rank = np.concatenate([np.full(len(p.frame), i >= len(chain)) for i, p in enumerate(allp)])
    score = np.concatenate([p.score for p in allp]).astype(np.float32)
    order = np.lexsort((-score, rank, frame))
    _, f = np.unique(frame[order], return_index=True)
    rows = order[f]
    kind = np.array([k for p in allp for k in p.kind], object)
    return Linked(tuple(dict.fromkeys(p.number for p in allp)), number[rows], frame[rows],
        np.concatenate([p.seconds for p in allp])[rows],
        np.concatenate([np.array(p.box, np.float32) for p in allp])[rows], score[rows], kind[rows])


@dataclass
class _Border:
    x: float
    y: float
    vx: float
    vy: float
    height: float
    moves: bool


class _Piece:
    def __init__(self, number):
        self.number = number
        self.frame, self.seconds, self.box, self.score, self.kind = [], [], [], [], []
        self.sum = 0.0
        self.over = self.tested = self.double = self.started = self.ended = self.follows = False
        self.under = self.handover = self.next = None

    def add(self, frame, seconds, box, score, kind, appearance, weight):
        self.frame.append(frame)
        self.seconds.append(seconds)
        self.box.append(tuple(box.tolist()))
        self.score.append(score)
        self.kind.append(kind)
        self.sum = self.sum + weight * appearance

    @property
    def first(self):
        return self.seconds[0]

    @property
    def key(self):
        return (self.seconds[0], self.box[0], self.score[0], self.kind[0])

    @property
    def appearance(self):
        return self.sum / max(float(np.linalg.norm(self.sum)), 1e-9)

    @property
    def head(self):
        n = bisect_right(self.seconds, self.first + _WINDOW)
        return _border(self.seconds[:n], self.box[:n], 0)

    @property
    def tail(self):
        n = bisect_left(self.seconds, self.seconds[-1] - _WINDOW)
        return _border(self.seconds[n:], self.box[n:], -1)

    def likeness(self, other, until):
        """mean IoU over common frames of self with other until; 0 if common < half of other's rows"""
        n = bisect_right(other.seconds, until)
        a, b = bisect_left(self.seconds, other.first), bisect_right(self.seconds, until)
        f1, f2 = self.frame[a:b], other.frame[:n]
        _, i, j = np.intersect1d(f1, f2, return_indices=True)
        end = min(self.seconds[-1], until)
        m = bisect_right(other.seconds, end)
        if not len(i) or len(i) < m / 2:
            return 0.0
        x = np.array(self.box[a:b])[i]
        y = np.array(other.box[:n])[j]
        return float(_pair_iou(x, y).mean())

    def likeness_ok(self, other):
        return other.likeness(self, min(self.seconds[-1], other.seconds[-1])) >= _SAME


def _pair_iou(x, y):
    low = np.maximum(x[:, :2], y[:, :2])
    high = np.minimum(x[:, 2:], y[:, 2:])
    s = np.maximum(high - low, 0).prod(axis=1)
    return s / np.maximum((x[:, 2:] - x[:, :2]).prod(axis=1) + (y[:, 2:] - y[:, :2]).prod(axis=1) - s, 1e-9)


def _border(seconds, box, at):
    t = np.array(seconds)
    b = np.array(box)
    c = (b[:, :2] + b[:, 2:]) / 2
    height = float(np.median(b[:, 3] - b[:, 1]))
    moves = len(t) >= 3 and t[-1] - t[0] >= 0.25
    if not moves:
        return _Border(*c[at].tolist(), 0.0, 0.0, height, False)
    dt = t - t.mean()
    v = (dt[:, None] * c).sum(axis=0) / (dt**2).sum()
    p = c.mean(axis=0) + v * dt[at]
    return _Border(*p.tolist(), *v.tolist(), height, True)
