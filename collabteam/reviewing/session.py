"""A review session: it hands out pages of crops and takes in answers.

The session only lends pages; the log is the record. A session that is killed and opened again knows
all answers. It accepts answers to a page that was lent before the kill, because answers name their
crops. The interface uses the names of crops; the session itself uses row numbers.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collabteam.audits.records import open_audit
from collabteam.catalog import Catalog, CropIndex, LabelEvent
from collabteam.catalog.annotations import Answers
from collabteam.errors import UserError
from collabteam.pictures import UndecodablePicture, as_png, portable
from collabteam.reviewing.agreement import cohen_kappa
from collabteam.reviewing.exchange.base import Task
from collabteam.reviewing.queue_order import is_in_share
from collabteam.reviewing.review_queue import QueuedCrops, ReviewQueue, ReviewState, load_queues
from collabteam.settings import ReviewConfig

LEASE = 600.0
"""Seconds without a request after which a tab's pages go to others."""
MOST_CROPS = 500
"""The largest number of crops on one page."""
# A page shows results of commands on other machines after at most this many seconds.
_PULL_SECONDS = 30.0
_CACHE_BYTES = 96 * 2**20
_COMMIT = re.compile(r"[A-Za-z0-9-]{8,64}")
_SHOWN = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp")
"""Media types that browsers show without conversion."""


class Refused(Exception):
    """An invalid request; the page shows the message."""


@dataclass
class Page:
    """Crops that one tab has on screen.

    Attributes:
        id: Name of the page. The same crops give the same name, so that a draft is found again.
        tab: The tab that shows the page; ``""`` once it was closed.
        reviewer: The reviewer's name.
        suggested: The label that the page asks about.
        crops: Row numbers of the crops not yet answered.
        round: The round whose team gave the suggestion, -1 for none.
        seen: When the tab last sent a request, on the session's clock.
        given: The answers by row number, if the page was answered and taken back.
    """

    id: str
    tab: str
    reviewer: str
    suggested: str
    crops: list[int]
    round: int
    seen: float
    given: dict[int, str] = field(default_factory=dict)


class _Line:
    """The crops of one queue, and which of them are done or are verified twice."""

    def __init__(
        self, queue: ReviewQueue, crops: QueuedCrops, index: CropIndex, config: ReviewConfig
    ) -> None:
        self.purpose, self.crops, self.rows = queue.purpose, crops, crops.rows
        self.preselects = queue.preselects
        self.position = {row: number for number, row in enumerate(crops.rows.tolist())}
        self.suggested = np.array([*crops.suggested, ""], dtype=object)[:-1]
        self.done = np.zeros(len(crops.rows), dtype=bool)
        self.twice = np.zeros(len(crops.rows), dtype=bool)
        if config.double and queue.purpose != "conflict":
            names = index.crop_id[crops.rows].tolist()
            self.twice[:] = [is_in_share(name, config.double, config.seed) for name in names]

    def positions(self, rows: Iterable[int]) -> list[int]:
        """Return the positions in the queue of those crops that are in it."""
        return [self.position[row] for row in rows if row in self.position]


class ReviewSession:
    """Hands out pages of crops and takes answers in; safe to call from several threads.

    Args:
        catalog: The camera.
        config: Has the queues' sizes, ``double`` and the seed.
        clock: Returns seconds that never decrease.

    Raises:
        UserError: A file of the camera is damaged.
    """

    def __init__(
        self, catalog: Catalog, config: ReviewConfig, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.catalog, self.config = catalog, config
        self._pictures = Catalog(catalog.workspace)
        self._clock = clock
        self._pulled = clock()
        self._lock = threading.RLock()
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._cached = 0
        self._queues = load_queues(config.queue)
        self._pages: dict[str, list[Page]] = {name: [] for name in self._queues}
        self._skipped: dict[tuple[str, str], set[int]] = {}
        # By queue: every crop that this session has lent, for answers that come late.
        self._lent: dict[str, set[int]] = {name: set() for name in self._queues}
        # By page: the number of crops, and of those whose answer was the suggestion.
        self._taken_in: dict[str, tuple[int, int]] = {}
        self._load()

    # -- state -------------------------------------------------------------------------------

    def _load(self) -> None:
        """Read the log and rebuild the queues."""
        self._version = self.catalog.log_version()
        self._size = self.catalog.log_size()
        self._files = self._stages()
        self.index = self.catalog.index()
        annotations = self.catalog.annotations()
        self.answers = annotations.answers()
        self._mates = np.bincount(self.index.track_code, minlength=1)
        self._lines: dict[str, _Line] = {}
        self._audited: dict[str, Answers] = {}
        for name, queue in self._queues.items():
            crops = queue.crops(self._state())
            if queue.purpose == "test" and not self.index.test[crops.rows].all():
                # An answer would put them into the test set permanently.
                raise UserError(
                    f"queue={name} is for the frozen test set, but shows other crops: its class "
                    "needs another purpose"
                )
            if queue.purpose == "audit":
                # An audit asks again about crops that have other answers.
                self._audited[name] = annotations.audit_answers(crops.since)
            self._open_line(name, crops)

    def _state(self) -> ReviewState:
        return ReviewState(self.catalog, self.index, self.answers, self.config)

    def _open_line(self, name: str, crops: QueuedCrops) -> None:
        self._lines[name] = _Line(self._queues[name], crops, self.index, self.config)
        self._mark(name, crops.rows)

    def _refresh(self) -> None:
        """Take in the events and results that other commands have added."""
        if self._clock() - self._pulled > _PULL_SECONDS:
            self.catalog.workspace.refresh()
            self._pulled = self._clock()
        if self.catalog.log_version() != self._version or self._stages() != self._files:
            self._load()

    def _stages(self) -> tuple[int, ...]:
        """Return numbers that change when i0 is drawn, a round ends, or an audit begins or ends."""
        workspace = self.catalog.workspace
        drawn = workspace.round(0).sample
        finished = [k for k in workspace.round_numbers() if workspace.round(k).record.exists()]
        return (
            drawn.stat().st_mtime_ns if drawn.exists() else 0,
            len(finished),
            open_audit(workspace),
        )

    def _mark(self, name: str, rows: NDArray[np.int64]) -> None:
        """Mark which of these crops are done in a queue."""
        line = self._lines[name]
        positions = line.positions(rows.tolist())
        here = line.rows[positions]
        if line.purpose == "conflict":
            line.done[positions] = self.answers.is_settled(here)
        else:
            line.done[positions] = self._answers_in(name).is_answered(here)

    def _answers_in(self, name: str) -> Answers:
        """Return the answers that count for a queue."""
        return self._audited.get(name, self.answers)

    def _answer(self, queue: str, row: int, reviewer: str) -> str:
        """Return a reviewer's answer in a queue, ``""`` for none."""
        answers = self._answers_in(queue)
        if self._lines[queue].purpose == "conflict":
            return answers.settled_by(row, reviewer)
        return answers.unseen(row).get(reviewer, "")

    def _names(self, rows: Iterable[int]) -> list[str]:
        names: list[str] = self.index.crop_id[np.array(list(rows), dtype=np.int64)].tolist()
        return names

    def _row(self, crop_id: str) -> int:
        row = int(self.index.crop_id.find([crop_id])[0])
        if row < 0:
            raise Refused(f"camera {self.catalog.name} has no such crop")
        return row

    def _said(self, events: Sequence[LabelEvent], rows: NDArray[np.int64]) -> None:
        """Append events to the log, and update the session's state with them.

        Args:
            events: The events.
            rows: Row number of each one's crop: names are looked up once for each request.
        """
        try:
            self.catalog.append_labels(events, rows)
        except ValueError as error:
            raise Refused(str(error)) from error
        after = self.catalog.log_version()
        size = self.catalog.log_size()
        for answers in (self.answers, *self._audited.values()):
            answers.add(events, rows)
        rows = np.unique(rows)
        for name, queue in self._queues.items():
            self._mark(name, rows)
            queued = self._lines[name].position.keys()
            if queue.membership_changed(self._state(), queued, rows.tolist()):
                self._open_line(name, queue.crops(self._state()))
        # If the log grew by these events alone, the state is current up to this version, which may
        # come from a merge of small commits. Otherwise the next request reads the rest.
        if size == self._size + len(events):
            self._version = after
        self._size = size

    # -- pages -------------------------------------------------------------------------------

    def _held(self, queue: str) -> dict[int, Page]:
        """Return the crops that are on a screen now, and their pages."""
        now = self._clock()
        self._pages[queue] = [
            page for page in self._pages[queue] if page.crops and now - page.seen < LEASE
        ]
        return {row: page for page in self._pages[queue] for row in page.crops}

    def _touch(self, tab: str) -> None:
        for pages in self._pages.values():
            for page in pages:
                if page.tab == tab:
                    page.seen = self._clock()

    def _twice(self, queue: str, reviewer: str) -> NDArray[np.int64]:
        """Positions of crops that one other reviewer has verified and this one must verify too."""
        line = self._lines[queue]
        positions = np.flatnonzero(line.twice & line.done)
        lacks = self._answers_in(queue).lacks_second(line.rows[positions], reviewer)
        return positions[lacks]

    def page(
        self,
        reviewer: str,
        tab: str,
        queue: str,
        size: int,
        hold: Mapping[str, Sequence[str]] | None = None,
        again: bool = False,
    ) -> dict[str, Any]:
        """Lend a tab a page of crops.

        Args:
            reviewer: The reviewer's name.
            tab: Name of the tab.
            queue: Name of a queue.
            size: The largest number of crops on the page.
            hold: Crops that the tab has on screen, by page; under ``""``, crops whose answers it
                has not yet delivered.
            again: Whether to return a page that the tab has already.

        Returns:
            The response of ``/api/page``: the page (without crops if none are left) and the queues.

        Raises:
            Refused: There is no such queue.
            UserError: A file of the camera is damaged.
        """
        with self._lock:
            self._check(queue)
            self._refresh()
            self._touch(tab)
            held = self._held(queue)
            for name, crops in (hold or {}).items():
                rows = self.index.crop_id.find(list(crops))
                held |= self._hold(queue, tab, reviewer, name, rows[rows >= 0].tolist(), held)
            known = [p for p in self._pages[queue] if p.reviewer == reviewer]
            closed = [page for page in known if not page.tab]
            own = [page for page in known if page.tab == tab] if again else []
            if own or closed:
                page = (own or closed)[0]
                page.tab, page.seen = tab, self._clock()
            else:
                chosen = self._choose(queue, reviewer, held, min(max(1, size), MOST_CROPS))
                page = self._lend(queue, tab, reviewer, chosen)
            self._read_ahead(page.crops)
            return self._shown(queue, page) | self._progress(reviewer, queue)

    def _hold(
        self,
        queue: str,
        tab: str,
        reviewer: str,
        name: str,
        crops: Sequence[int],
        held: dict[int, Page],
    ) -> dict[int, Page]:
        """Lend a tab the crops that it shows already, as after a restart; return these crops."""
        for waiting in self._pages[queue]:
            # On a reload, the notice that the tab closed may come after its first request.
            if not waiting.tab and waiting.reviewer == reviewer and {*waiting.crops} <= {*crops}:
                waiting.tab = tab
        free = [
            row
            for row in crops[: 4 * MOST_CROPS]
            if row in self._lines[queue].position
            and row not in held
            and not self._answer(queue, row, reviewer)  # the answer has arrived
        ]
        if not free:
            return {}
        page = self._lend(queue, tab, reviewer, free, name)
        return dict.fromkeys(page.crops, page)

    def _choose(self, queue: str, reviewer: str, held: Iterable[int], size: int) -> list[int]:
        """Choose the next crops of the queue: all with one suggestion, if they start with it.

        Otherwise crops of the same suggestion stand together, so that one look judges a run.
        """
        line = self._lines[queue]
        free = ~line.done
        free[self._twice(queue, reviewer)] = True
        free[line.positions(held)] = False
        skipped = self._skipped.setdefault((queue, reviewer), set())
        passed = free.copy()
        passed[line.positions(skipped)] = False
        if not passed.any():
            skipped.clear()
            passed = free
        positions = np.flatnonzero(passed)
        if positions.size and line.preselects:
            positions = positions[line.suggested[positions] == line.suggested[positions[0]]]
        positions = positions[:size]
        if not line.preselects:
            _, kind = np.unique(line.suggested[positions].astype(str), return_inverse=True)
            positions = positions[np.argsort(kind, kind="stable")]
        rows: list[int] = line.rows[positions].tolist()
        return rows

    def _lend(self, queue: str, tab: str, reviewer: str, crops: list[int], name: str = "") -> Page:
        if not name:
            content = " ".join(self._names(crops))
            name = hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
        asked, round_ = self._suggestion(queue, crops), self._lines[queue].crops.round
        page = Page(name, tab, reviewer, asked, crops, round_, self._clock())
        if crops:
            self._pages[queue].append(page)
            self._lent[queue].update(crops)
        return page

    def _suggestion(self, queue: str, crops: Sequence[int]) -> str:
        """Return the label that a page asks about; ``""`` if its crops have several."""
        line = self._lines[queue]
        asked = {str(line.suggested[line.position[i]]) if i in line.position else "" for i in crops}
        return asked.pop() if len(asked) == 1 else ""

    def _shown(self, queue: str, page: Page) -> dict[str, Any]:
        crops = []
        mates = self._mates[self.index.track_code[page.crops]] - 1 if page.crops else ()
        for row, name, others in zip(page.crops, self._names(page.crops), mates, strict=True):
            crop: dict[str, Any] = {"id": name, "mates": int(others)}
            if self._lines[queue].purpose == "conflict":
                crop["said"] = self.answers.unseen(row)
            crops.append(crop)
        given = dict(zip(self._names(page.given), page.given.values(), strict=True))
        return {
            "page": page.id,
            "queue": queue,
            "suggested": page.suggested if self._lines[queue].preselects else "",
            "sorted": not self._lines[queue].preselects,
            "crops": crops,
            "given": given,
        }

    # -- answers -----------------------------------------------------------------------------

    def commit(
        self, reviewer: str, name: str, queue: str, page: str, answers: dict[str, str]
    ) -> dict[str, Any]:
        """Save the answers of a page, exactly once.

        Args:
            reviewer: The reviewer's name.
            name: Name of the commit, chosen by the page. The same commit is saved once; a name that
                was used for another one is refused.
            queue: Name of a queue.
            page: Name of the page.
            answers: The label of each crop.

        Returns:
            The response of ``/api/commit``.

        Raises:
            Refused: There is no such queue, crop or label, there are no answers, a crop was neither
                lent nor is it in the queue, or the name belongs to another commit.
            UserError: The disk is full; nothing was saved.
        """
        with self._lock:
            self._check(queue)
            self._refresh()
            if not _COMMIT.fullmatch(name):
                raise Refused("the commit has no proper name")
            found = self.index.crop_id.find(list(answers))
            rows = found.tolist()
            purpose = self._lines[queue].purpose
            if name in self.answers.pages:
                known = self.answers.page(name)
                same = dict(zip(rows, answers.values(), strict=True)) == known.answers
                if not same or (known.by, known.purpose) != (reviewer, purpose):
                    raise Refused(
                        "a commit of this name was saved before, with other answers or for another "
                        "queue or reviewer: nothing was changed"
                    )
            else:
                unknown = rows.count(-1)
                if unknown or not answers or len(answers) > MOST_CROPS:
                    raise Refused(
                        f"expected answers for 1 to {MOST_CROPS} crops of camera "
                        f"{self.catalog.name}, got {len(answers)}, of which it does not know "
                        f"{unknown}"
                    )
                strangers = {*rows} - self._lines[queue].position.keys()
                if purpose not in ("test", "audit"):
                    # A queue may change while its crops are on a screen. But an answer to a crop
                    # of the test set would change its label, and for those two purposes it would
                    # put a crop into the test set permanently, or count in an audit whose sample
                    # does not have the crop.
                    shown = self._lent[queue]
                    strangers = {r for r in strangers if r not in shown or self.index.test[r]}
                if strangers:
                    raise Refused(f"{len(strangers)} of the crops are not in the {queue} queue")
                if "" in answers.values():
                    raise Refused("a crop has no label")
                try:
                    self.catalog.check_labels(answers.values())
                except UserError as error:
                    raise Refused(str(error)) from error
                now = time.time()
                lent = [p.round for p in self._pages[queue] if p.id == page]
                round_ = lent[0] if lent else self._lines[queue].crops.round
                self._said(
                    [
                        LabelEvent(
                            crop_id, label, "person", purpose, round_, by=reviewer, commit=name,
                            time=now,
                        )
                        for crop_id, label in answers.items()
                    ],
                    found,
                )  # fmt: skip
                line = self._lines[queue]
                kept = sum(
                    row in line.position and line.suggested[line.position[row]] == label
                    for row, label in zip(rows, answers.values(), strict=True)
                )
                self._taken_in[name] = len(answers), kept
            self._return(queue, reviewer, page, {*rows})
            return {"commit": name, "stored": len(answers)} | self._progress(reviewer, queue)

    def _return(self, queue: str, reviewer: str, page: str, answered: set[int]) -> None:
        """End the loan of a page; its unanswered crops come again at the end of the queue."""
        for lent in self._pages[queue]:
            if lent.id == page and lent.reviewer == reviewer:
                left = [row for row in lent.crops if row not in answered]
                self._skipped.setdefault((queue, reviewer), set()).update(left)
                lent.crops = []
            else:
                lent.crops = [row for row in lent.crops if row not in answered]

    def undo(self, reviewer: str, tab: str, queue: str, name: str) -> dict[str, Any]:
        """Take back a page; a repeated call changes nothing.

        Args:
            reviewer: The reviewer who verified it.
            tab: The tab that gets the page.
            queue: Name of a queue.
            name: Name of the commit.

        Returns:
            The response of ``/api/undo``: the page as it was answered.

        Raises:
            Refused: There is no such commit of this reviewer.
            UserError: The disk is full; nothing was taken back.
        """
        with self._lock:
            self._check(queue)
            self._refresh()
            if self.answers.pages.get(name) != (reviewer, self._lines[queue].purpose):
                raise Refused("there is no such page to take back")
            if name not in self.answers.undone:
                undoing = self.answers.undoing(name)
                self._said(undoing, self.index.crop_id.find([one.crop_id for one in undoing]))
            given = self.answers.page(name).answers
            for lent in self._pages[queue]:
                lent.crops = [row for row in lent.crops if row not in given]
            page = self._lend(queue, tab, reviewer, list(given))
            page.given = given
            self._read_ahead(page.crops)
            return self._shown(queue, page) | self._progress(reviewer, queue)

    def release(self, tab: str) -> None:
        """Release the pages of a closed tab to the same reviewer, and later to any reviewer."""
        with self._lock:
            for pages in self._pages.values():
                for page in pages:
                    if page.tab == tab:
                        page.tab = ""

    # -- other tools -------------------------------------------------------------------------

    def open_tasks(self, queue: str) -> list[Task]:
        """Return the remaining crops of a queue as tasks."""
        with self._lock:
            line = self._lines[queue]
            names = self._names(line.rows[~line.done])
            suggested = map(str, line.suggested[~line.done])
            return [
                Task(name, asked, line.preselects)
                for name, asked in zip(names, suggested, strict=True)
            ]

    def take_in(self, queue: str, answers: Sequence[tuple[str, str, str]]) -> tuple[int, list[str]]:
        """Save the answers from another tool in one commit; answers in the log are not repeated.

        Args:
            queue: The queue for which the crops were verified.
            answers: Crop, label and reviewer.

        Returns:
            The number of new answers, and the crops left out because they are not in this queue.

        Raises:
            UserError: The disk is full; nothing was saved.
        """
        with self._lock:
            self._refresh()
            line, now = self._lines[queue], time.time()
            rows = self.index.crop_id.find([crop_id for crop_id, _, _ in answers])
            foreign, new, places = [], [], []
            for place, (crop_id, label, reviewer) in enumerate(answers):
                row = int(rows[place])
                if row not in line.position:
                    foreign.append(crop_id)
                elif self._answer(queue, row, reviewer) != label:
                    places.append(place)
                    new.append(
                        LabelEvent(
                            crop_id, label, "import", line.purpose, line.crops.round, by=reviewer,
                            time=now,
                        )
                    )  # fmt: skip
            self._said(new, rows[places])
            return len(new), foreign

    # -- progress ----------------------------------------------------------------------------

    def state(self, reviewer: str, tab: str, queue: str) -> dict[str, Any]:
        """Return the response of ``/api/state``, and renew the loans of the tab.

        Raises:
            Refused: There is no such queue.
            UserError: A file of the camera is damaged.
        """
        with self._lock:
            self._check(queue)
            self._refresh()
            self._touch(tab)
            return {
                "camera": self.catalog.name,
                "reviewer": reviewer,
                "classes": self.catalog.classes,
                "queue": queue,
            } | self._progress(reviewer, queue)

    def _progress(self, reviewer: str, queue: str) -> dict[str, Any]:
        held = self._held(queue)
        queues = []
        for name, line in self._lines.items():
            twice = len(self._twice(name, reviewer))
            done = int(line.done.sum())
            queues.append(
                {
                    "name": name,
                    "title": self._queues[name].title,
                    "total": len(line.rows),
                    "done": done,
                    "left": len(line.rows) - done + twice,
                }
            )
        return {
            "queues": queues,
            "agreement": self.agreement(),
            "undoable": self.answers.undoable(reviewer, self._lines[queue].purpose)[-50:],
            "waiting": sum(page.reviewer != reviewer for page in held.values()),
            "next": self._lines[queue].crops.next,
            "empty": "" if self.total(queue) else self.why_empty(queue),
        }

    def agreement(self) -> dict[str, Any]:
        """Return Cohen's kappa over all crops that two persons verified, and the open conflicts."""
        pairs = self.answers.pairs()
        line = self._lines["conflict"]
        return {
            "kappa": cohen_kappa(pairs),
            "crops": len(pairs),
            "conflicts": int((~line.done).sum()),
        }

    def verified(self) -> tuple[int, int]:
        """Count the crops verified in this session, and those whose answer was the suggestion."""
        with self._lock:
            stand = [self._taken_in[name] for name in self._taken_in.keys() - self.answers.undone]
            return sum(crops for crops, _ in stand), sum(kept for _, kept in stand)

    def why_empty(self, queue: str) -> str:
        """Say why a queue may have no crops, and which command adds some."""
        return self._queues[queue].why_empty(self.catalog.name)

    def total(self, queue: str) -> int:
        """Count the crops of a queue."""
        with self._lock:
            return len(self._lines[queue].rows)

    def left(self, queue: str) -> int:
        """Count the crops of a queue that are not verified yet."""
        with self._lock:
            return int((~self._lines[queue].done).sum())

    # -- pictures ----------------------------------------------------------------------------

    def _read_ahead(self, rows: Sequence[int]) -> None:
        """Read a page's pictures together: the browser requests all of them at once."""
        new = [row for row in rows if row not in self._cache]
        for row, image in zip(new, self._pictures.images(new), strict=True):
            self._cache[row] = image
            self._cached += len(image)
        while self._cached > _CACHE_BYTES and len(self._cache) > 1:
            _, image = self._cache.popitem(last=False)
            self._cached -= len(image)

    def picture(self, crop_id: str) -> tuple[bytes, str]:
        """Return a crop's picture and its media type.

        Raises:
            Refused: There is no such crop, or it cannot be shown.
            UserError: The table is damaged.
        """
        with self._lock:
            row = self._row(crop_id)
            self._read_ahead([row])
            image = self._cache[row]
        try:
            shown = portable(image)
            if shown.media_type in _SHOWN:
                return shown.image, shown.media_type
            return as_png(image), "image/png"
        except UndecodablePicture as error:
            raise Refused(f"the picture is broken: {error}") from error

    def context(self, crop_id: str) -> dict[str, Any]:
        """Return the origin of a crop, and the other crops of its track in order of time.

        Raises:
            Refused: There is no such crop.
            UserError: The table is damaged.
        """
        with self._lock:
            row = self._row(crop_id)
            index = self.index
            mates = np.flatnonzero(index.track_code == index.track_code[row])
            mates = mates[np.argsort(index.time[mates], kind="stable")]
            (origin,) = self._pictures.origins([row])
            self._read_ahead(mates[:24].tolist())
        return {
            "id": crop_id,
            **origin,
            "time": None if np.isnan(origin["time"]) else origin["time"],
            "mates": self._names(mates[mates != row][:24]),
        }

    def _check(self, queue: str) -> None:
        if queue not in self._queues:
            raise Refused(f"no queue {queue!r}: expected one of {', '.join(self._queues)}")
