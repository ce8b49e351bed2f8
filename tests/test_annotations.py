"""The reader of the log, against a slow one that looks at one event after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import builder

from collabteam.catalog import NONE, UNLABELLED, Crop, LabelEvent, annotations, class_numbers
from collabteam.catalog.annotations import Annotations, Answers
from collabteam.catalog.records import HUMAN_SOURCES, UNDO, crops_to_table, events_to_table

CLASSES = ["car", "ship"]
CROPS = [Crop(b"%d" % number, "v", str(number // 2)) for number in range(5)]
NAMES = [crop.crop_id for crop in CROPS]
REVIEWERS = ["ana", "ben", "cid"]


# --- a log as commands and reviewers write it ----------------------------------------------------

LABELS = st.sampled_from([*CLASSES, "unknown", "unusable"])
SOME = st.lists(st.integers(0, len(CROPS) - 1), min_size=1, max_size=3, unique=True)
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("page"), st.sampled_from(REVIEWERS), SOME, LABELS,
            st.sampled_from(["seed", "audit", "unsure", "conflict"]), st.integers(-1, 2),
        ),
        st.tuples(st.just("undo"), st.integers(0, 8)),
        st.tuples(
            st.just("word"), st.sampled_from(["import", "oracle", "person", "detector"]), SOME,
            st.one_of(LABELS, st.just("")), st.sampled_from(["seed", "audit", "conflict", ""]),
            st.sampled_from(["", *REVIEWERS]),
        ),
        st.tuples(
            st.just("team"), st.sampled_from(["increment", "verdict"]), SOME,
            st.sampled_from([*CLASSES, ""]), st.integers(0, 3), st.sampled_from(["f1", "f2"]),
        ),
        st.tuples(st.just("rollback"), st.integers(-1, 3)),
        st.tuples(st.just("test"), SOME),
    ),
    max_size=16,
)  # fmt: skip
"""What happens to a camera, one thing after the other."""


def undoing(log: Sequence[LabelEvent], name: str) -> list[LabelEvent]:
    """What an undo writes: each crop's word is withdrawn, and what stood before is said again."""
    page = [event for event in log if event.commit == name]
    taken_back = {*undone(log), name}
    events = []
    for crop_id in dict.fromkeys(event.crop_id for event in page):
        again = [event for event in standing(log, crop_id, taken_back) if event.source != "oracle"]
        first = page[0]
        undo = UNDO + name
        events.append(LabelEvent(crop_id, "", "person", first.purpose, by=first.by, commit=undo))
        events += [
            LabelEvent(
                word.crop_id, word.label, word.source, word.purpose, word.round, by=word.by,
                commit=undo,
            )
            for word in again
        ]  # fmt: skip
    return events


def written(steps: Sequence[tuple[Any, ...]]) -> list[list[LabelEvent]]:
    """The commits that these steps leave in the log."""
    commits: list[list[LabelEvent]] = []
    for number, (kind, *rest) in enumerate(steps):
        log = [event for commit in commits for event in commit]
        pages = list(dict.fromkeys(e.commit for e in log if e.commit.startswith("page")))
        if kind == "page":
            by, some, label, purpose, round_ = rest
            name = f"page-{number}"
            commits.append([
                LabelEvent(NAMES[n], label, "person", purpose, round_, by=by, commit=name)
                for n in some
            ])  # fmt: skip
        elif kind == "undo" and pages:
            commits.append(undoing(log, pages[rest[0] % len(pages)]))
        elif kind == "word":
            source, some, label, purpose, by = rest
            commits.append([LabelEvent(NAMES[n], label, source, purpose, by=by) for n in some])
        elif kind == "team":
            purpose, some, label, round_, by = rest
            commits.append([
                LabelEvent(NAMES[n], label, "team", purpose, round_, (number % 10) / 10, by, "run")
                for n in some
            ])  # fmt: skip
        elif kind == "rollback":
            commits.append([LabelEvent("", "", "rollback", round=rest[0])])
        elif kind == "test":
            commits.append([LabelEvent(NAMES[n], "", "ingest", "test") for n in rest[0]])
    return commits


def read(log: Sequence[LabelEvent]) -> Annotations:
    return builder(crops_to_table(CROPS), events_to_table(log)).annotations()


# --- the slow reader -----------------------------------------------------------------------------


def undone(log: Sequence[LabelEvent]) -> set[str]:
    return {e.commit.removeprefix(UNDO) for e in log if e.commit.startswith(UNDO)}


def standing(
    log: Sequence[LabelEvent],
    crop_id: str,
    taken_back: set[str],
    sources: Sequence[str] = ("person", "import"),
    audit: bool = False,
) -> list[LabelEvent]:
    """What stands on a crop: a dictionary of last words, oldest first."""
    last: dict[Any, LabelEvent] = {}
    for event in log:
        if event.crop_id != crop_id or event.source not in sources:
            continue
        if event.commit.startswith(UNDO) or event.commit in taken_back:
            continue
        if audit and event.purpose != "audit" and event.label:
            continue
        key = event.by if audit else (event.by, event.purpose == "conflict")
        last.pop(key, None)
        if event.label:
            last[key] = event
    return list(last.values())


def as_events(words: Sequence[annotations.Annotation]) -> list[tuple[Any, ...]]:
    return [(NAMES[w.row], w.label, w.by, w.source, w.purpose, w.round) for w in words]


def plain(events: Sequence[LabelEvent]) -> list[tuple[Any, ...]]:
    return [(e.crop_id, e.label, e.by, e.source, e.purpose, e.round) for e in events]


def check_answers(answers: Answers, log: Sequence[LabelEvent]) -> None:
    """Every question about reviewers' words, against the slow reader."""
    taken_back = undone(log)
    persons = [e for e in log if e.source in ("person", "import")]
    rows = np.arange(len(NAMES))
    found = [standing(log, name, taken_back) for name in NAMES]
    unseen = [{w.by: w.label for w in words if w.purpose != "conflict"} for words in found]
    for row, words in enumerate(found):
        assert as_events(answers.about(row)) == plain(words)
        assert answers.last(row) == (answers.about(row) or [None])[-1]
        assert answers.unseen(row) == unseen[row]
        assert answers.is_disputed(row) == (len({*unseen[row].values()}) > 1)
        for by in REVIEWERS:
            settled = [w.label for w in words if w.by == by and w.purpose == "conflict"]
            assert answers.settled_by(row, by) == (settled or [""])[-1]
    assert answers.is_answered(rows).tolist() == [bool(words) for words in found]
    assert answers.is_settled(rows).tolist() == [
        bool(words) and words[-1].purpose == "conflict" for words in found
    ]
    for by in REVIEWERS:
        assert answers.lacks_second(rows, by).tolist() == [
            len(said) == 1 and by not in said for said in unseen
        ]
    pairs = [sorted(said.items())[:2] for said in unseen if len(said) > 1]
    assert sorted(answers.pairs()) == sorted((first[1], second[1]) for first, second in pairs)
    # Whoever ever spoke about a crop counts, also if it was taken back.
    spoke: dict[str, set[str]] = {}
    shared: dict[str, None] = {}
    for event in persons:
        if not event.commit.startswith(UNDO):
            spoke.setdefault(event.crop_id, set()).add(event.by)
            if len(spoke[event.crop_id]) > 1:
                shared[event.crop_id] = None
    assert [NAMES[row] for row in answers.shared()] == list(shared)
    pages = {e.commit: (e.by, e.purpose) for e in reversed(persons) if e.commit.startswith("page")}
    assert dict(answers.pages) == pages
    assert answers.undone == taken_back
    for name, (by, purpose) in pages.items():
        page = answers.page(name)
        said = {e.crop_id: e.label for e in log if e.commit == name}
        assert (page.by, page.purpose) == (by, purpose)
        assert {NAMES[row]: label for row, label in page.answers.items()} == said
        assert plain(answers.undoing(name)) == plain(undoing(log, name))
    ordered = list(dict.fromkeys(e.commit for e in persons if e.commit in pages))
    for by, purpose in set(pages.values()):
        assert answers.undoable(by, purpose) == [
            name for name in ordered if pages[name] == (by, purpose) and name not in taken_back
        ]


# --- what reviewers said -------------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(STEPS)
def test_what_stands_of_what_reviewers_said(steps: list[tuple[Any, ...]]) -> None:
    log = [event for commit in written(steps) for event in commit]
    check_answers(read(log).answers(), log)


@pytest.mark.parametrize("tail", [0, 16_384], ids=["sorted again", "searched behind"])
@settings(deadline=None, max_examples=60)
@given(steps=STEPS, known=st.integers(0, 16))
def test_what_is_said_later_counts_as_if_it_had_been_read(
    tail: int, steps: list[tuple[Any, ...]], known: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(annotations, "_TAIL", tail)
        commits = written(steps)
        log = [event for commit in commits[:known] for event in commit]
        before = read(log)
        answers = before.answers()
        for commit in commits[known:]:
            answers.add(commit)
            log += commit
            check_answers(answers, log)
        # What an answer adds is no part of the log that was read.
        assert len(before) == sum(map(len, commits[:known]))


def test_a_page_is_taken_back_by_its_name() -> None:
    """Whoever wrote the undo need not name every crop of the page again."""
    page = [LabelEvent(name, "car", "person", "seed", by="ana", commit="page-1") for name in NAMES]
    undo = LabelEvent(NAMES[0], "", "person", "seed", by="ana", commit=f"{UNDO}page-1")
    answers = read(page).answers()
    assert answers.is_answered(np.arange(len(NAMES))).all()
    answers.add([undo])
    for undone_page in (answers, read([*page, undo]).answers(), read([undo, *page]).answers()):
        assert not undone_page.is_answered(np.arange(len(NAMES))).any()
        assert undone_page.undoable("ana", "seed") == []


@settings(deadline=None, max_examples=100)
@given(STEPS, st.integers(0, 16), st.booleans())
def test_an_audit_counts_what_was_said_after_it_began(
    steps: list[tuple[Any, ...]], begun: int, simulated: bool
) -> None:
    commits = written(steps)
    since = sum(map(len, commits[:begun]))
    log = [event for commit in commits for event in commit]
    sources = HUMAN_SOURCES if simulated else ("person", "import")
    later = read(log[:since]).audit_answers(since, simulated)
    later.add(log[since:])
    for answers in (read(log).audit_answers(since, simulated), later):
        for row, name in enumerate(NAMES):
            words = standing(log[since:], name, undone(log[since:]), sources, audit=True)
            assert as_events(answers.about(row)) == plain(words)


def test_an_audit_knows_no_conflicts() -> None:
    """There a reviewer has one word; elsewhere the one that was said unseen stays."""
    said = LabelEvent(NAMES[0], "car", "person", "audit", by="ana")
    withdrawn = LabelEvent(NAMES[0], "", "person", "conflict", by="ana")
    log = read([said, withdrawn])
    assert log.audit_answers(0).last(0) is None
    assert log.answers().unseen(0) == {"ana": "car"}


@settings(deadline=None, max_examples=100)
@given(STEPS)
def test_answers_are_counted_once(steps: list[tuple[Any, ...]]) -> None:
    log = [event for commit in written(steps) for event in commit]
    assert read(log).count_answers() == Counter(
        (e.source, e.by, e.purpose)
        for e in log
        if e.source in HUMAN_SOURCES and e.label and not e.commit.startswith(UNDO)
    )


# --- what a crop is called -----------------------------------------------------------------------


def last(events: Sequence[LabelEvent]) -> LabelEvent | None:
    return events[-1] if events else None


@settings(deadline=None, max_examples=150)
@given(STEPS)
def test_the_last_word_of_each_source(steps: list[tuple[Any, ...]]) -> None:
    log = [event for commit in written(steps) for event in commit]
    said = read(log)
    kept = [
        event
        for place, event in enumerate(log)
        if event.source != "team"
        or all(e.round >= event.round for e in log[place:] if e.source == "rollback")
    ]
    for row, name in enumerate(NAMES):
        mine = [event for event in kept if event.crop_id == name]
        every = [event for event in log if event.crop_id == name]
        human = [event for event in mine if event.source in HUMAN_SOURCES]
        expected = {
            said.human: last(human),
            said.proposal: last([e for e in mine if e.source == "detector"]),
        }
        for question, event in expected.items():
            found = question()
            assert found.label[row] == (event.label if event else "")
            assert bool(found.said()[row]) == (event is not None)
        for purpose in ("seed", "audit", "unsure", "conflict"):
            event = last([e for e in human if e.purpose == purpose])
            assert said.human(purpose).label[row] == (event.label if event else "")
            stands = bool(event and event.label)
            assert bool(said.human(purpose).labelled().said()[row]) == stands
        for purpose in ("increment", "verdict"):
            event = last([e for e in mine if e.source == "team" and e.purpose == purpose])
            found = said.team(purpose)
            values = found.label[row], found.round[row], found.text("by")[row]
            assert values == ((event.label, event.round, event.by) if event else ("", -1, ""))
            if event:
                assert found.confidence[row] == event.confidence
        assert bool(said.in_test_set()[row]) == any(e.purpose == "test" for e in every)
        event = last([e for e in every if (e.source, e.purpose) == ("person", "seed")])
        assert said.of("person", "seed").label[row] == (event.label if event else "")
        for label in CLASSES:
            event = last([e for e in every if e.source == "team" and e.label == label])
            asked = np.array([label if other == name else "" for other in NAMES], dtype=object)
            found = said.team_said(asked)
            assert bool(found.said()[row]) == (event is not None)
            assert found.said().sum() == (event is not None)
            if event:
                assert (found.round[row], found.confidence[row]) == (event.round, event.confidence)


@settings(deadline=None, max_examples=150)
@given(STEPS)
def test_the_last_word_is_the_last_one_that_stands(steps: list[tuple[Any, ...]]) -> None:
    """An undo is written out, so whoever reads the last word alone agrees with who knows undos."""
    steps = [step for step in steps if step[0] in ("page", "undo")]
    log = [event for commit in written(steps) for event in commit]
    said = read(log)
    answers = said.answers()
    for row in range(len(NAMES)):
        word = answers.last(row)
        assert said.human().label[row] == (word.label if word else "")


# --- the questions of the index ------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(STEPS, st.sets(st.integers(0, len(CROPS) - 1)))
def test_questions_about_crops(steps: list[tuple[Any, ...]], used: set[int]) -> None:
    log = [event for commit in written(steps) for event in commit]
    index = builder(crops_to_table(CROPS), events_to_table(log)).index()
    in_use = np.isin(np.arange(len(index)), sorted(used))
    rows = np.arange(len(index))
    tested = {CROPS[row].track for row in rows if index.test[row]}
    for row in rows:
        human, label = index.human[row], index.human[row] or index.increment_label[row]
        trainable = CROPS[row].track not in tested and human != "unusable"
        assert index.verified()[row] == (human != "")
        assert index.judged()[row] == (human in (*CLASSES, "unknown"))
        assert index.test_set()[row] == (index.test[row] and human in (*CLASSES, "unknown"))
        assert index.trainable()[row] == trainable
        assert index.pool(in_use)[row] == (trainable and row not in used)
        assert index.unverified()[row] == (human == "" and not index.test[row])
        released = human == "" and not index.test[row] and index.verdict[row] == "ship"
        assert index.released(["ship"])[row] == released
        assert index.training_labels(rows)[row] == label
        target = {"car": NONE, "ship": 0, "unknown": NONE, "unusable": UNLABELLED, "": UNLABELLED}
        assert index.targets(rows, ["ship"])[row] == target[label]


def test_none_unlabelled_and_each_class_are_different_targets() -> None:
    labels = np.array(["ship", "car", "unknown", "plane", "unusable", ""], dtype=object)
    assert class_numbers(labels, CLASSES).tolist() == [1, 0, NONE, NONE, UNLABELLED, UNLABELLED]
    assert len({NONE, UNLABELLED, 0}) == 3
