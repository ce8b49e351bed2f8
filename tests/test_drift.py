"""What the report says of new footage: the test by ranks, who is compared, tables and words."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, Call
from logs import builder
from PIL import Image
from rich.console import Console
from scipy.stats import binom, mannwhitneyu
from test_reporting import plain_rounds, write

from collabteam.catalog import Catalog, Crop, CropIndex, LabelEvent
from collabteam.catalog.records import crops_to_table, events_to_table
from collabteam.errors import UserError
from collabteam.monitoring.drift import (
    ALPHA,
    LEAST_EFFECT,
    LEAST_OBJECTS,
    Drift,
    comparable,
    compare,
    find_drift,
    learned_until,
    rank_test,
)
from collabteam.monitoring.windows import (
    MOST_BINS,
    MOST_VIDEOS,
    TimeWindow,
    last_verdicts,
    time_windows,
)
from collabteam.reporting.figures import coverage_over_time, write_png
from collabteam.reporting.time_windows import render, to_csv, to_json
from collabteam.storage.workspace import Workspace

START = datetime(2024, 5, 6, 5, tzinfo=UTC).timestamp()
HOUR = 3600.0


@dataclass
class RoundRun:
    """A crop and what is said about it."""

    crop: Crop
    events: list[LabelEvent]


def made(
    number: int,
    sure: float | None,
    label: str = "cyclist",
    hour: float = math.nan,
    video: str = "v",
    track: str = "",
    proposed: str = "cyclist",
    run: str = "run",
    round_: int = 2,
) -> RoundRun:
    """A crop with a verdict, or none with ``sure=None``; ``label=""`` is "I don't know"."""
    crop = Crop(f"{number}".encode(), video, track, time=START + HOUR * hour)
    events = [LabelEvent(crop.crop_id, proposed, "detector", "proposal")] if proposed else []
    if sure is not None:
        events.append(LabelEvent(crop.crop_id, label, "team", "verdict", round_, sure, "team", run))
    return RoundRun(crop, events)


def said(
    one: RoundRun, label: str, purpose: str, round_: int = -1, source: str = "person"
) -> RoundRun:
    event = LabelEvent(one.crop.crop_id, label, source, purpose, round_, 0.9, "x")
    return RoundRun(one.crop, [*one.events, event])


def index_of(crops: Sequence[RoundRun]) -> CropIndex:
    events = [event for one in crops for event in one.events]
    tables = crops_to_table([one.crop for one in crops]), events_to_table(events)
    return builder(*tables).index()


def day(
    rng: np.random.Generator, count: int, first: int, hour: float, shift: float = 0.0
) -> list[RoundRun]:
    """``count`` objects of two crops within a day: classes differ in how sure the team is."""
    crops = []
    for number in range(first, first + count):
        name = str(rng.choice(CLASSES, p=(0.3, 0.2, 0.5)))
        quality = rng.normal(CLASSES.index(name), 1) - shift
        sure = float(1 / (1 + math.exp(-quality)))
        label = name if quality > -0.5 else ""
        at = hour + 24 * float(rng.random())
        for k in (0, 1):
            crops.append(
                made(2 * number + k, sure, label, at, f"v{int(at)}", f"t{number}", proposed=name)
            )
    return crops


DRAW = {"crops": [], "seed": 0, "seed_per_class": 0, "seed_unknown": 0, "reviewer": "oracle"}
"""A draw of i0, of no crops."""


def folder_with(path: Path, drawn_from: int) -> Path:
    (path / "round-0").mkdir(parents=True)
    (path / "round-0" / "sample.json").write_text(json.dumps(DRAW | {"drawn_from": drawn_from}))
    return path


# --- the test by ranks ---------------------------------------------------------------------------


def within(hits: int, trials: int, chance: float) -> bool:
    """Whether a count is what a chance gives, in all but one of a hundred thousand runs."""
    low, high = binom.interval(1 - 1e-5, trials, chance)
    return bool(low <= hits <= high)


NULLS = {
    "one stratum": (np.zeros(150), 100),
    "uneven strata": (np.repeat(np.arange(6), (60, 40, 30, 10, 6, 4)), 100),
    "many tiny strata": (np.repeat(np.arange(40), 4), 110),
    "few late": (np.repeat(np.arange(3), 200), 550),
}


@pytest.mark.parametrize("name", NULLS)
@pytest.mark.parametrize("tied", [False, True])
def test_without_a_difference_p_is_uniform(name: str, tied: bool) -> None:
    stratum, early = NULLS[name]
    rng = np.random.default_rng([len(name), tied])
    ps = []
    for _ in range(2000):
        score = rng.normal(size=len(stratum)) + stratum  # strata may differ as they like
        if tied:
            score = np.where(rng.random(len(stratum)) < 0.3, -1, score.round())
        late = rng.permutation(len(stratum)) >= early
        ps.append(rank_test(np.asarray(score, dtype=np.float64), late, stratum).p)
    for level in (0.01, 0.05, 0.2, 0.5, 0.8):
        assert within(int((np.array(ps) <= level).sum()), len(ps), level), level


def test_a_single_stratum_is_the_test_of_mann_and_whitney() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        score, late = rng.normal(size=80).round(1), rng.random(80) < 0.4
        found = rank_test(score, late, np.zeros(80))
        known = mannwhitneyu(
            score[late], score[~late], alternative="less", method="asymptotic", use_continuity=False
        )
        assert found.p == pytest.approx(known.pvalue)
        pairs = (score[late][:, None] < score[~late]) + 0.5 * (score[late][:, None] == score[~late])
        assert found.lower == pytest.approx(pairs.mean())
        assert (found.late, found.early) == (late.sum(), (~late).sum())


def test_p_is_near_that_of_all_ways_to_deal_the_ranks() -> None:
    rng = np.random.default_rng(1)
    stratum = np.repeat(np.arange(4), (40, 30, 20, 10))
    late = np.tile([True, False], 50)
    score = np.where(rng.random(100) < 0.4, -1.0, rng.random(100)) - 0.15 * late
    found = rank_test(score, late, stratum)
    dealt = []
    for _ in range(2000):
        other = late.copy()
        for one in range(4):
            here = stratum == one
            other[here] = rng.permutation(late[here])
        dealt.append(rank_test(score, other, stratum).p)
    assert 0.001 < found.p < 0.3
    assert np.mean(np.array(dealt) <= found.p) == pytest.approx(found.p, abs=0.03)


def test_a_shift_is_found_and_only_downwards() -> None:
    rng = np.random.default_rng(2)
    stratum, late = np.tile([0, 1, 2], 200), np.arange(600) % 4 == 0
    ps = {}
    for shift in (-1.0, 0.3, 0.6):
        ps[shift] = [
            rank_test(rng.normal(size=600) + 5 * stratum - shift * late, late, stratum).p
            for _ in range(200)
        ]
    found = {shift: np.mean(np.array(each) < ALPHA) for shift, each in ps.items()}
    assert found[-1.0] == 0
    assert 0.6 < found[0.3] < found[0.6]
    assert found[0.6] > 0.99


def test_a_changed_mix_of_classes_is_no_shift() -> None:
    rng = np.random.default_rng(3)
    late = np.arange(600) >= 400
    alone, within_class = [], []
    for _ in range(500):
        # The class of which the team is least sure becomes frequent.
        stratum = np.where(rng.random(600) < np.where(late, 0.8, 0.2), 0, 1)
        score = rng.normal(size=600) + 2 * stratum
        within_class.append(rank_test(score, late, stratum).p < 0.05)
        alone.append(rank_test(score, late, np.zeros(600)).p < 0.05)
    assert np.mean(alone) > 0.99
    assert within(sum(within_class), 500, 0.05)


def test_only_the_order_of_scores_counts() -> None:
    rng = np.random.default_rng(4)
    score, late, stratum = rng.random(90), rng.random(90) < 0.5, rng.integers(0, 3, 90)
    found = rank_test(score, late, stratum)
    assert rank_test(np.exp(9 * score), late, stratum) == found
    names = np.array(["a", "b", "c"], dtype=object)[stratum]
    assert rank_test(score, late, names) == found
    order = rng.permutation(90)
    assert rank_test(score[order], late[order], stratum[order]).p == pytest.approx(found.p)


def test_where_nothing_can_be_compared() -> None:
    nothing = (1.0, 0.5, 0, 0)
    for score, late, stratum in (
        ([], [], []),
        ([1.0], [True], [0]),
        ([1.0, 2.0], [True, True], [0, 0]),
        ([1.0, 2.0], [True, False], [0, 1]),
    ):
        found = rank_test(np.array(score), np.array(late, dtype=bool), np.array(stratum))
        assert (found.p, found.lower, found.late, found.early) == nothing
    tied = rank_test(np.ones(6), np.arange(6) < 3, np.zeros(6))
    assert (tied.p, tied.lower, tied.late, tied.early) == (1.0, 0.5, 3, 3)
    with pytest.raises(ValueError, match="NaN"):
        rank_test(np.array([math.nan, 1.0]), np.array([True, False]), np.zeros(2))


# --- who is compared -----------------------------------------------------------------------------


def test_only_the_last_labelling_counts() -> None:
    fresh = [made(n, 0.9, run="new", round_=2) for n in range(5)]
    old = said(made(5, 0.8, run="old", round_=1), "cyclist", "unsure", 1)
    later = said(made(6, 0.7, run="new", round_=2), "cyclist", "audit")
    nothing = made(7, None)
    index = index_of([*fresh, old, later, nothing])
    assert last_verdicts(index).tolist() == [True] * 5 + [False, True, False]
    # An earlier round that labelled later is the last labelling all the same.
    index = index_of([*(made(n, 0.9, round_=0, run="a") for n in range(3)), old])
    assert last_verdicts(index).tolist() == [True] * 3 + [False]
    # Where a person judged everything, what the team said stands.
    judged = [said(one, "cyclist", "audit") for one in fresh]
    assert last_verdicts(index_of(judged)).all()
    assert not last_verdicts(index_of([nothing])).any()
    assert last_verdicts(index_of([])).shape == (0,)


def test_one_crop_of_each_track_stands_for_it() -> None:
    crops = [made(n, n / 100, track=f"t{n // 4}") for n in range(40)]
    index = index_of(crops)
    objects = comparable(index, last_verdicts(index))
    assert len(objects.rows) == 10
    assert sorted(index.track_code[objects.rows].tolist()) == list(range(10))
    assert (objects.score == index.verdict_confidence[objects.rows]).all()
    same = comparable(index, last_verdicts(index), seed=0)
    other = comparable(index, last_verdicts(index), seed=1)
    assert (same.rows == objects.rows).all()
    assert (other.rows != objects.rows).any()


def test_what_trained_is_no_reference_but_increments_and_audits_are() -> None:
    crops = [
        said(made(0, None, track="i0"), "cyclist", "seed"),
        made(1, 0.99, track="i0"),
        said(made(2, 0.99, track="inc"), "cyclist", "increment", 1, "team"),
        said(made(3, 0.9, track="audit"), "pedestrian", "audit"),
        said(made(4, None, track="unsure"), "pedestrian", "unsure", 1),
        made(5, 0.98, track="unsure"),
        said(made(6, None, track="test"), "cyclist", "test"),
        made(7, 0.7, track="test"),
        made(8, 0.6, label="", track="dunno"),
        made(9, None, track="not yet"),
    ]
    index = index_of(crops)
    objects = comparable(index, last_verdicts(index))
    track = [str(name).split("/")[1] for name in index.track[objects.rows]]
    score = dict(zip(track, objects.score.tolist(), strict=True))
    assert score == {"inc": 0.99, "audit": 0.9, "unsure": -1, "test": 0.7, "dunno": -1}


def test_strata_are_proposed_class_and_length_of_track() -> None:
    crops = []
    for at, (proposed, length) in enumerate(
        [("cyclist", 1), ("cyclist", 2), ("pedestrian", 1), ("cyclist", 1), ("", 4), ("", 9)]
    ):
        crops += [made(20 * at + k, 0.9, track=f"t{at}", proposed=proposed) for k in range(length)]
    index = index_of(crops)
    objects = comparable(index, last_verdicts(index))
    a, b, c, d, e, f = objects.stratum.tolist()
    assert a == d
    assert e == f  # four and more
    assert len({a, b, c, e}) == 4


def test_how_far_the_team_has_learned(tmp_path: Path) -> None:
    crops = [made(n, 0.9) for n in range(30)]
    assert learned_until(Workspace(tmp_path / "none"), index_of(crops), 2) == 0
    folder = folder_with(tmp_path, 10)
    assert learned_until(Workspace(folder), index_of(crops), 2) == 10
    crops[14] = said(crops[14], "cyclist", "increment", 2, "team")
    crops[20] = said(crops[20], "cyclist", "increment", 3, "team")
    assert learned_until(Workspace(folder), index_of(crops), 2) == 15
    assert learned_until(Workspace(folder), index_of(crops), 3) == 21
    # What the team of round 1 did not know teaches from round 2 on.
    crops[25] = said(crops[25], "cyclist", "unsure", 1)
    assert learned_until(Workspace(folder), index_of(crops), 1) == 10
    assert learned_until(Workspace(folder), index_of(crops), 2) == 26
    (folder / "round-0" / "sample.json").write_text("{")
    with pytest.raises(UserError, match=r"sample\.json"):
        find_drift(Workspace(folder), index_of(crops))


# --- what is said --------------------------------------------------------------------------------


@pytest.mark.parametrize(("shift", "alarm"), [(0.0, False), (1.0, True), (-1.0, False)])
def test_footage_that_arrived_later(shift: float, alarm: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    before, later = day(rng, 300, 0, 0), day(rng, 120, 300, 24, shift)
    drift = find_drift(Workspace(folder_with(tmp_path, len(before))), index_of([*before, *later]))
    assert drift is not None
    assert (drift.stretch, drift.round, drift.alarm) == ("arrived", 2, alarm)
    assert (drift.objects, drift.before, drift.compared) == (120, 300, 120)
    assert drift.since == min(one.crop.time for one in later)
    assert drift.lower is not None
    assert (drift.lower > 0.55) == alarm
    words = drift.in_words("S1")
    when = f"{datetime.fromtimestamp(drift.since, UTC):%Y-%m-%d %H:%M}"
    assert f"the newest 120 objects (since {when} UTC) are labelled" in words
    if alarm:
        assert (
            "less confidently than the 300 that the team of round 2 learned from (p < 0.0001)"
            in words
        )
        assert "python -m collabteam.review camera=S1 queue=unsure, then train" in words
    else:
        assert words.startswith("no sign of drift: ")
        assert "review" not in words
    labelled = np.mean([one.events[-1].label != "" for one in later])
    assert f"coverage {labelled:.1%} against" in words
    json.dumps(drift.to_json(), allow_nan=False)


def test_alarms_without_drift_are_as_rare_as_promised(tmp_path: Path) -> None:
    folder, alarms = folder_with(tmp_path, 200), 0
    for seed in range(100):
        rng = np.random.default_rng([6, seed])
        drift = find_drift(
            Workspace(folder), index_of([*day(rng, 100, 0, 0), *day(rng, 60, 100, 24)])
        )
        assert drift is not None
        alarms += bool(drift.alarm)
    assert alarms <= binom.ppf(1 - 1e-5, 100, ALPHA)


def test_too_little_to_matter_is_no_alarm() -> None:
    """What significance alone would call drift among very many objects."""
    rng = np.random.default_rng(7)
    n = 40_000
    late, quality = np.arange(n) >= n // 2, rng.normal(size=n)
    sure = 1 / (1 + np.exp(-(quality - 0.05 * late)))
    found = rank_test(sure, late, np.zeros(n))
    assert found.p < ALPHA
    assert found.lower < 0.5 + LEAST_EFFECT
    drift = Drift(
        "arrived", 2, False, 9000, 9000, None, found.p, found.lower, 9000, 0.7, 0.71, None
    )
    assert "a little less confidently" in drift.in_words("S1")
    assert "too little to matter" in drift.in_words("S1")


def test_too_few_objects(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    few = index_of(day(rng, LEAST_OBJECTS + 20, 0, 0))
    drift = find_drift(Workspace(folder_with(tmp_path, len(few))), few)
    assert drift is not None
    assert drift.alarm is None
    assert (drift.objects, drift.before) == (50, 20)
    assert drift.p is None
    assert "too few objects to detect drift: 50 in the newest stretch" in drift.in_words("S1")
    assert "20 before it can be compared, 50 of each are needed" in drift.in_words("S1")
    # None of them has its like before.
    before = [made(n, 0.9, proposed="cyclist", hour=1) for n in range(60)]
    later = [made(n, 0.1, proposed="pedestrian", hour=2) for n in range(60, 120)]
    drift = find_drift(Workspace(tmp_path), index_of([*before, *later]))
    assert drift is not None
    assert drift.alarm is None
    assert find_drift(Workspace(tmp_path), index_of([made(0, None)])) is None
    assert find_drift(Workspace(tmp_path), index_of([])) is None
    single = find_drift(Workspace(tmp_path), index_of([made(0, 0.9)]))
    assert single is not None
    assert single.alarm is None


def test_the_newest_tenth_where_nobody_knows_what_the_team_learned_among(tmp_path: Path) -> None:
    index = index_of(day(np.random.default_rng(16), 200, 0, 0))
    drift = find_drift(Workspace(tmp_path), index)
    assert drift is not None
    assert (drift.stretch, drift.objects, drift.before) == ("newest", 50, 150)
    assert drift.alarm is False


@pytest.mark.parametrize("shift", [0.0, 1.5])
def test_the_newest_tenth_where_nothing_arrived(shift: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    # The order of arrival is not that of time.
    later, before = day(rng, 70, 0, 24, shift), day(rng, 630, 70, 0)
    unknown = [made(5000 + n, 0.01, label="", proposed="cyclist") for n in range(30)]
    index = index_of([*later, *before, *unknown])
    drift = find_drift(Workspace(folder_with(tmp_path, len(index))), index)
    assert drift is not None
    assert (drift.stretch, drift.objects, drift.before) == ("newest", 70, 630)
    assert drift.alarm == (shift > 0)
    assert "the 630 before them" in drift.in_words("S1")


def test_without_any_time(tmp_path: Path) -> None:
    crops = [made(n, n / 300, proposed="cyclist") for n in range(200)]
    drift = find_drift(Workspace(folder_with(tmp_path, 150)), index_of(crops))
    assert drift is not None
    assert (drift.stretch, drift.objects, drift.since) == ("arrived", 50, None)
    assert "the newest 50 objects are labelled" in drift.in_words("S1")
    drift = find_drift(Workspace(folder_with(tmp_path / "all", 200)), index_of(crops))
    assert drift is not None
    assert (drift.stretch, drift.alarm, drift.objects) == ("newest", None, 0)


def test_an_object_that_was_there_before_is_not_new(tmp_path: Path) -> None:
    rng = np.random.default_rng(10)
    before = day(rng, 100, 0, 0)
    again = [made(9000 + n, 0.01, "", 30, *_place(one)) for n, one in enumerate(before[::2])]
    drift = find_drift(Workspace(folder_with(tmp_path, len(before))), index_of([*before, *again]))
    assert drift is not None
    assert drift.stretch == "newest"


def _place(one: RoundRun) -> tuple[str, str]:
    return one.crop.video, one.crop.track


def test_a_changed_mix_is_mentioned_and_no_alarm(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    crops = []
    for n in range(600):
        odds = (0.1, 0.1, 0.8) if n < 400 else (0.6, 0.1, 0.3)
        name = str(rng.choice(CLASSES, p=odds))
        sure = float(rng.random() / 2 + 0.2 * CLASSES.index(name))
        crops.append(made(n, sure, name, n / 100, proposed=name))
    index = index_of(
        [*crops, *(made(n, None, proposed="cyclist", hour=7) for n in range(600, 900))]
    )
    drift = find_drift(Workspace(folder_with(tmp_path, 400)), index)
    assert drift is not None
    assert drift.alarm is False
    assert drift.mix is not None
    assert drift.mix.p is not None
    assert drift.mix.p < ALPHA
    share = np.mean(index.proposed[400:600] == "cyclist")  # what is not labelled yet is no part
    assert drift.mix.stretch["cyclist"] == pytest.approx(share)
    rest = np.mean(index.proposed[400:600] == "pedestrian")  # has moved most
    assert f"the mix has changed, which is not an alarm: {rest:.1%} proposed as" in drift.in_words(
        "c"
    )
    # What i0 took out of a class was there all the same.
    mine = [said(one, "cyclist", "seed") if n % 2 else one for n, one in enumerate(crops[:400])]
    judged = index_of([*mine, *crops[400:]])
    again = find_drift(Workspace(tmp_path), judged)
    assert again is not None
    assert again.mix == drift.mix


def test_coverage_before_is_that_of_their_like() -> None:
    """Per stratum by hand: the reference's coverage, weighted as the stretch is."""
    rng = np.random.default_rng(12)
    index = index_of([*day(rng, 200, 0, 0), *day(rng, 100, 200, 24)])
    objects = comparable(index, last_verdicts(index))
    late = np.zeros(300, dtype=bool)
    late[index.track_code[objects.rows[200:]]] = True
    drift = compare(index, objects, last_verdicts(index), late, 2, "arrived")
    kinds: dict[str, list[bool]] = defaultdict(list)
    for row in objects.rows[:200]:
        kinds[index.proposed[row]].append(index.verdict[row] != "")
    expected = np.mean([np.mean(kinds[index.proposed[row]]) for row in objects.rows[200:]])
    assert drift.coverage_before == pytest.approx(expected)
    assert drift.coverage == pytest.approx((index.verdict[objects.rows[200:]] != "").mean())


# --- tables --------------------------------------------------------------------------------------


def a_camera(hours: float, videos: int, timeless: int = 3) -> CropIndex:
    rng = np.random.default_rng(13)
    crops = []
    for n in range(400):
        label = str(rng.choice([*CLASSES, ""]))
        at = math.nan if n < timeless else hours * float(rng.random())
        video = "" if n % 50 == 7 else f"video{int(rng.integers(videos)):03}"
        crops.append(made(n, float(rng.random()), label, at, video, f"t{n}"))
    return index_of([*crops, made(999, None, hour=1)])


@pytest.mark.parametrize("hours", [0.5, 20, 29, 100, 500, 20_000])
@pytest.mark.parametrize("videos", [3, 60])
def test_tables_against_a_slow_loop(hours: float, videos: int) -> None:
    index = a_camera(hours, videos)
    found = time_windows(index, CLASSES)
    assert found is not None
    rows = np.flatnonzero(index.verdict_round >= 0).tolist()
    assert found.round == 2
    assert 1 <= len(found.by_time) <= MOST_BINS
    starts = [row.since or 0.0 for row in found.by_time]
    assert starts == sorted(starts)

    def check(row: TimeWindow, mine: list[int]) -> None:
        assert row.crops == len(mine)
        for name in CLASSES:
            assert row.labels[name] == sum(index.verdict[k] == name for k in mine)
        sure = [index.verdict_confidence[k] for k in mine if index.verdict[k] != ""]
        assert row.labelled == len(sure)
        assert row.coverage == pytest.approx(len(sure) / len(mine))
        assert row.abstain_rate == pytest.approx(1 - len(sure) / len(mine))
        assert row.confidence == (pytest.approx(np.mean(sure)) if sure else None)

    for row in found.by_time:
        assert row.since is not None
        assert row.since % (3600 * found.hours) == 0
        end = row.since + 3600 * found.hours
        assert row.name == f"{datetime.fromtimestamp(row.since, UTC):%Y-%m-%d %H:%M}"
        check(row, [k for k in rows if row.since <= index.time[k] < end])
    assert found.timeless is not None
    check(found.timeless, [k for k in rows if math.isnan(index.time[k])])
    assert sum(row.crops for row in (*found.by_time, found.timeless)) == len(rows)

    assert sum(row.crops for row in found.by_video) == len(rows)
    named = {row.name: row for row in found.by_video}
    kept = [row for row in found.by_video if "earlier" not in row.name]
    for row in kept:
        video = "" if row.name == "no video" else row.name
        check(row, [k for k in rows if index.video[k] == video])
    if videos > MOST_VIDEOS:
        assert len(kept) == MOST_VIDEOS
        first = found.by_video[0]
        count = len(set(index.video[rows].tolist())) - MOST_VIDEOS
        assert first.name == f"{count} earlier videos"
        own = {"" if row.name == "no video" else row.name for row in kept}
        check(first, [k for k in rows if index.video[k] not in own])
    else:
        assert "no video" in named
    ends = [
        max(
            (index.time[k] for k in rows if (index.video[k] or "no video") == row.name
             and not math.isnan(index.time[k])),
            default=-math.inf,
        )
        for row in kept
    ]  # fmt: skip
    assert ends == sorted(ends)


def test_hours_are_put_together_only_where_there_are_too_many() -> None:
    for count, width in ((MOST_BINS, 1), (MOST_BINS + 1, 2), (2 * MOST_BINS + 2, 3)):
        crops = [made(n, 0.9, hour=n + 1) for n in range(count)]  # 06:00 is even and thrice two
        found = time_windows(index_of(crops), CLASSES)
        assert found is not None
        assert found.hours == width
    # Hours without crops take no room.
    crops = [made(n, 0.9, hour=1000 * n) for n in range(MOST_BINS)]
    found = time_windows(index_of(crops), CLASSES)
    assert found is not None
    assert found.hours == 1
    assert len(found.by_time) == MOST_BINS


def test_no_verdicts_no_tables() -> None:
    assert time_windows(index_of([made(0, None)]), CLASSES) is None
    assert time_windows(index_of([]), CLASSES) is None


def test_csv_and_json_hold_the_tables() -> None:
    found = time_windows(a_camera(5, 3), CLASSES)
    assert found is not None
    lines = list(csv.DictReader(io.StringIO(to_csv(found))))
    data = json.loads(json.dumps(to_json(found), allow_nan=False))
    rows = [*found.by_time, found.timeless, *found.by_video]
    assert [line["by"] for line in lines] == ["time"] * (len(found.by_time) + 1) + ["video"] * len(
        found.by_video
    )
    records = [*data["by_time"], data["timeless"], *data["by_video"]]
    for line, record, row in zip(lines, records, rows, strict=True):
        assert row is not None
        assert line["name"] == record["name"] == row.name
        assert int(line["crops"]) == record["crops"] == row.crops
        assert float(line["coverage"]) == record["coverage"] == row.coverage
        assert record["labels"] == row.labels
        assert {name: int(line[f"label/{name}"]) for name in CLASSES} == row.labels
        assert line["since"] == (record["since"] or "")
    assert records[0]["since"] == "2024-05-06T05:00:00Z"
    assert lines[len(found.by_time)]["since"] == ""


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("classes", [CLASSES, [f"a-rather-long-name-{n}" for n in range(12)]])
def test_tables_fit(width: int, classes: list[str]) -> None:
    found = time_windows(a_camera(40, 60), classes)
    assert found is not None
    console = Console(width=width, file=io.StringIO(), color_system=None)
    render(found, console)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "\u2026" not in text
    assert "time unknown" in text
    for row in (*found.by_time, *found.by_video):
        assert row.name in text
    assert ("motorc" in text) == (classes == CLASSES)


def test_names_with_brackets_are_shown_as_they_are() -> None:
    crops = [made(0, 0.9, hour=1, video="[red]a[/red]"), made(1, 0.9, label="", video="x" * 40)]
    found = time_windows(index_of(crops), CLASSES)
    assert found is not None
    console = Console(width=80, file=io.StringIO(), color_system=None)
    render(found, console)
    assert isinstance(console.file, io.StringIO)
    assert "[red]a[/red]" in console.file.getvalue()
    assert "..." + "x" * 17 in console.file.getvalue()


@pytest.mark.parametrize(
    "index",
    [a_camera(40, 60), a_camera(0.5, 1), a_camera(9000, 3), a_camera(9, 30, timeless=400)],
    ids=["many", "one-hour", "gaps", "no-time"],
)
@pytest.mark.parametrize("newest", [None, START + 600])
def test_plot(index: CropIndex, newest: float | None, tmp_path: Path) -> None:
    found = time_windows(index, CLASSES)
    assert found is not None
    panels = coverage_over_time(found, newest)
    assert panels
    for panel in panels:
        for series in panel.series[:2]:
            for (_, value), (low, high) in zip(series.points, series.intervals, strict=True):
                assert 0 <= low <= value <= high <= 100
    write_png("Camera S1", panels, tmp_path / "stretches.png", columns=1)
    with Image.open(tmp_path / "stretches.png") as image:
        assert image.format == "PNG"
        assert image.width > 700
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 20


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def camera(tmp_path: Path) -> Catalog:
    """A camera whose team was never trained, with crops that nobody has labelled."""
    catalog = Catalog.register(tmp_path / "outputs", "S1", CLASSES)
    rounds = [record | {"camera": "S1"} for record in plain_rounds(3, CLASSES)]
    write(catalog.folder, rounds)
    (catalog.folder / "round-0" / "sample.json").write_text(json.dumps(DRAW | {"drawn_from": 400}))
    return catalog


def fill(catalog: Catalog, crops: Sequence[RoundRun]) -> None:
    catalog.add_crops(one.crop for one in crops)
    catalog.append_labels([event for one in crops for event in one.events])


def test_a_report_before_any_label(camera: Catalog, call: Call) -> None:
    fill(camera, [made(n, None, hour=1) for n in range(3)])
    root = camera.folder.parent
    told = call("report", f"root={root}", "camera=S1")
    assert (told.code, told.err) == (0, "")
    assert f"wrote table1.csv, table1.json and table1.png in {camera.folder}" in told.out
    assert "drift" not in told.out
    assert not list(camera.folder.glob("stretches.*"))
    data = json.loads(call("report", f"root={root}", "camera=S1", "format=json").out)
    assert sorted(data) == ["camera", "classes", "rounds", "table1"]


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_a_report_after_new_footage_was_labelled(shift: float, camera: Catalog, call: Call) -> None:
    rng = np.random.default_rng(14)
    fill(camera, [*day(rng, 200, 0, 0), *day(rng, 100, 200, 24, shift)])
    root = camera.folder.parent
    before = {path.name for path in camera.folder.iterdir()}
    piped = call("report", f"root={root}", "camera=S1", "format=json")
    assert {path.name for path in camera.folder.iterdir()} == before
    data = json.loads(piped.out)
    assert sorted(data) == ["camera", "classes", "rounds", "stretches", "table1"]
    drift = data["stretches"]["drift"]
    assert drift["alarm"] == (shift > 0)
    assert (drift["objects"], drift["before"]) == (100, 200)

    told = call("report", f"root={root}", "camera=S1")
    assert (told.code, told.err) == (0, "")
    words = ("less confidently than", "camera=S1 queue=unsure") if shift else ("no sign of drift",)
    for text in words:
        assert text in told.out
    assert "Table 1" in told.out
    assert told.out.index("Table 1") < told.out.index("What the team of round 2 said, by 2 hours")
    wrote = "wrote table1.csv, table1.json, table1.png, stretches.csv and stretches.png in"
    assert f"{wrote} {camera.folder}" in told.out
    assert json.loads((camera.folder / "table1.json").read_text()) == data
    with (camera.folder / "stretches.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert sum(int(line["crops"]) for line in lines if line["by"] == "time") == 600
    assert sum(int(line["crops"]) for line in lines if line["by"] == "video") == 600
    assert (camera.folder / "stretches.png").read_bytes().startswith(b"\x89PNG")


def test_the_statistic_is_the_same_in_every_report(camera: Catalog) -> None:
    rng = np.random.default_rng(15)
    fill(camera, [*day(rng, 200, 0, 0), *day(rng, 100, 200, 24)])
    first = find_drift(camera.workspace, camera.index())
    assert find_drift(camera.workspace, Catalog(camera.folder).index()) == first
