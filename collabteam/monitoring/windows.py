"""A team's labels by hour and by video.

Only the last labelling counts: crops that a person has judged since may still carry verdicts of an
earlier team or of other settings, and these are left out. Rates are fractions, 0 to 1. Times are
UTC.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collabteam.catalog import CropIndex
from collabteam.machine import utc_time

MOST_BINS = 30
"""Most rows of the table by hour; beyond that, hours are merged."""
MOST_VIDEOS = 20
"""Videos with a row of their own; earlier ones are summed."""
_HOURS = (1, 2, 3, 6, 12, 24)


@dataclass(frozen=True)
class TimeWindow:
    """A team's verdicts on the crops of one hour or video.

    Attributes:
        name: The hour (``2024-05-06 05:00``), the video, or a description of crops with neither.
        since: Unix seconds: start of the hour, or first crop of the video; None if unknown.
        crops: Crops with a verdict, 0 or more.
        labels: Number of crops per label; the remaining crops are "I don't know".
        confidence: Mean confidence of the labelled crops, 0 to 1; None without any.
    """

    name: str
    since: float | None
    crops: int
    labels: dict[str, int]
    confidence: float | None

    @property
    def labelled(self) -> int:
        """Crops with a label."""
        return sum(self.labels.values())

    @property
    def coverage(self) -> float | None:
        """Share of crops with a label, 0 to 1; None without crops."""
        return self.labelled / self.crops if self.crops else None

    @property
    def abstain_rate(self) -> float | None:
        """Share of "I don't know", 0 to 1; None without crops."""
        return 1 - self.labelled / self.crops if self.crops else None


@dataclass(frozen=True)
class TimeWindows:
    """A camera's last labelling over time.

    Attributes:
        round: The round of the team.
        hours: Width of the rows of ``by_time``.
        by_time: Crops whose time is known, oldest first; hours without crops have no row.
        timeless: Crops of unknown time; None if there are none.
        by_video: All crops by video, oldest first; the first row may sum earlier videos.
    """

    round: int
    hours: int
    by_time: list[TimeWindow]
    timeless: TimeWindow | None
    by_video: list[TimeWindow]


def last_verdicts(index: CropIndex) -> NDArray[np.bool_]:
    """Find the crops with a verdict of the camera's last labelling, shape ``(N,)``.

    A labelling gives a new verdict to every crop that no person has judged, so the last labelling
    is the one that most of those crops carry. Crops that a person judged later keep its verdict.
    Crops that a person judged earlier may carry an older team's verdict, which does not count.
    """
    has = index.verdict_round >= 0
    asked = has & ~index.verified()
    if not asked.any():
        asked = has
    if not asked.any():
        return has
    # If equally frequent, the later round wins; the name makes the order definite.
    runs, first, count = np.unique(
        index.verdict_run[asked].astype(str), return_index=True, return_counts=True
    )
    rounds = index.verdict_round[asked][first]
    last = runs[np.lexsort((runs, rounds, count))[-1]]
    mine: NDArray[np.bool_] = has & (index.verdict_run == last)
    return mine


def time_windows(index: CropIndex, classes: Sequence[str]) -> TimeWindows | None:
    """Tabulate the last labelling.

    Args:
        index: The camera's crops.
        classes: The camera's classes, in the order of display.

    Returns:
        The tables; None without verdicts.
    """
    rows = np.flatnonzero(last_verdicts(index))
    if not rows.size:
        return None
    time = index.time[rows]
    known = np.isfinite(time)
    width, bins = _bins(time[known])
    by_time = [
        _window(
            index, rows[known][bins * width * 3600.0 == since], classes,
            f"{utc_time(since):%Y-%m-%d %H:%M}", since,
        )
        for since in np.unique(bins * width * 3600.0).tolist()
    ]  # fmt: skip
    timeless = None
    if not known.all():
        timeless = _window(index, rows[~known], classes, "time unknown", None)
    number = int(index.verdict_round[rows[0]])
    return TimeWindows(number, width, by_time, timeless, list(_by_video(index, rows, classes)))


def _bins(time: NDArray[np.float64]) -> tuple[int, NDArray[np.int64]]:
    """Hours of the narrowest bins that are few enough, and the bin of each time."""
    hour = np.floor(time / 3600.0).astype(np.int64)
    width, narrower = 1, iter(_HOURS[1:])
    while len(np.unique(hour // width)) > MOST_BINS:
        width = next(narrower, 2 * width)
    return width, hour // width


def _by_video(
    index: CropIndex, rows: NDArray[np.int64], classes: Sequence[str]
) -> Iterator[TimeWindow]:
    names, code = np.unique(index.video[rows].astype(str), return_inverse=True)
    latest, arrived = np.full(len(names), -np.inf), np.zeros(len(names), dtype=np.int64)
    np.fmax.at(latest, code, index.time[rows])
    np.maximum.at(arrived, code, rows)
    # Ordered by the last crop; without times, in the order of arrival.
    order = np.lexsort((arrived, latest))
    own = order[max(0, len(order) - MOST_VIDEOS) :]
    if len(own) < len(order):
        early = rows[~np.isin(code, own)]
        words = f"{len(order) - len(own)} earlier videos"
        yield _window(index, early, classes, words, _earliest(index.time[early]))
    for at in own:
        mine = rows[code == at]
        yield _window(
            index, mine, classes, str(names[at]) or "no video", _earliest(index.time[mine])
        )


def _window(
    index: CropIndex,
    rows: NDArray[np.int64],
    classes: Sequence[str],
    name: str,
    since: float | None,
) -> TimeWindow:
    verdict = index.verdict[rows]
    sure = index.verdict_confidence[rows][verdict != ""]
    return TimeWindow(
        name, since, len(rows), {cls: int((verdict == cls).sum()) for cls in classes},
        float(sure.mean()) if sure.size else None,
    )  # fmt: skip


def _earliest(time: NDArray[np.float64]) -> float | None:
    known = time[np.isfinite(time)]
    return float(known.min()) if known.size else None
