"""The review session: who gets which crops, what counts, and what is taken back."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from collabteam.catalog import Catalog, Crop, LabelEvent
from collabteam.catalog.records import REVIEW_PURPOSES
from collabteam.catalog.texts import Names
from collabteam.errors import UserError
from collabteam.events import Listener
from collabteam.reviewing.agreement import cohen_kappa
from collabteam.reviewing.queue_order import is_in_share
from collabteam.reviewing.queues.unsure import Unsure
from collabteam.reviewing.review_queue import (
    REVIEW_QUEUES,
    QueuedCrops,
    ReviewState,
    load_queues,
)
from collabteam.reviewing.session import LEASE, Refused, ReviewSession
from collabteam.settings import CameraConfig, ReviewConfig

CLASSES = ["car", "ship"]
QUIET = Listener()


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def camera(root: str | Path, crops: int = 40, per_track: int = 1) -> Catalog:
    """Half of the crops are proposed as a car, half as a ship."""
    catalog = Catalog.register(root, "S1", CLASSES)
    made = [
        Crop(b"\xff\xd8\xff%d" % n, "v", f"{n // per_track}" if per_track > 1 else "", n, float(n))
        for n in range(crops)
    ]
    catalog.add_crops(made)
    catalog.append_labels(
        [
            LabelEvent(crop.crop_id, CLASSES[n // per_track % 2], "detector", "proposal")
            for n, crop in enumerate(made)
        ]
    )
    return catalog


def opened(catalog: Catalog, queue: str = "seed", **more: object) -> tuple[ReviewSession, Clock]:
    settings_ = {"seed_per_class": 10, **more}
    config = ReviewConfig(camera=CameraConfig("S1", CLASSES), queue=queue, **settings_)  # type: ignore[arg-type]
    REVIEW_QUEUES.load(queue)().prepare(catalog, config, QUIET)
    clock = Clock()
    return ReviewSession(catalog, config, clock), clock


def ids(page: dict) -> list[str]:  # type: ignore[type-arg]
    return [crop["id"] for crop in page["crops"]]


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return camera(tmp_path)


def test_every_queue_has_a_purpose_in_the_log() -> None:
    queues = load_queues()
    assert list(queues) == ["seed", "test", "audit", "unsure", "conflict"]  # as the page lists them
    assert tuple(queue.purpose for queue in queues.values()) == REVIEW_PURPOSES


# --- pages ---------------------------------------------------------------------------------------


def test_a_page_asks_about_one_class(catalog: Catalog) -> None:
    session, _ = opened(catalog)
    index = catalog.index()
    first, second = session.page("ana", "t", "seed", 60), session.page("ana", "t", "seed", 60)
    assert (first["suggested"], second["suggested"]) == ("car", "ship")
    proposed = dict(zip(index.crop_id, index.proposed, strict=True))
    assert {proposed[i] for i in ids(first)} == {"car"}
    assert len(ids(first)) == len(ids(second)) == 10
    assert ids(session.page("ana", "t", "seed", 60)) == []


def test_two_tabs_get_different_crops_and_each_its_own_again(catalog: Catalog) -> None:
    session, _ = opened(catalog)
    ana, ben = session.page("ana", "a", "seed", 4), session.page("ben", "b", "seed", 4)
    assert not set(ids(ana)) & set(ids(ben))
    assert session.page("ana", "a", "seed", 4, again=True)["page"] == ana["page"]
    assert ids(session.page("ben", "b", "seed", 4, again=True)) == ids(ben)
    assert session.state("ana", "a", "seed")["waiting"] == 4


def test_a_closed_tab_leaves_its_page_to_its_reviewer(catalog: Catalog) -> None:
    session, clock = opened(catalog)
    page = session.page("ana", "a", "seed", 4)
    session.release("a")
    assert not set(ids(session.page("ben", "b", "seed", 4))) & set(ids(page))
    assert session.page("ana", "new", "seed", 4)["page"] == page["page"]
    session.release("new")
    clock.now += LEASE / 2
    session.state("ben", "b", "seed")
    clock.now += LEASE / 2 + 1
    assert set(ids(page)) <= set(ids(session.page("cid", "c", "seed", 10)))


def test_a_tab_that_gives_signs_of_life_keeps_its_page(catalog: Catalog) -> None:
    session, clock = opened(catalog)
    page = session.page("ana", "a", "seed", 4)
    for _ in range(5):
        clock.now += LEASE * 0.9
        session.state("ana", "a", "seed")
    assert not set(ids(page)) & set(ids(session.page("ben", "b", "seed", 60)))


def test_a_session_that_was_killed_gives_the_same_page_to_the_same_tab(catalog: Catalog) -> None:
    """Same crops, same name: the draft in the browser is found again."""
    session, _ = opened(catalog)
    page = session.page("ana", "a", "seed", 4)
    opened_again, _ = opened(catalog)
    again = opened_again.page("ana", "a", "seed", 4, again=True)
    assert (again["page"], ids(again)) == (page["page"], ids(page))


def test_what_a_tab_holds_goes_to_nobody_else_after_a_restart(catalog: Catalog) -> None:
    session, _ = opened(catalog)
    held = ids(session.page("ana", "a", "seed", 4))
    opened_again, _ = opened(catalog)
    page = opened_again.page("ana", "a", "seed", 4, hold={"a page": [*held, "no such crop"]})
    assert not set(ids(page)) & set(held)
    assert not set(ids(opened_again.page("ben", "b", "seed", 60))) & set(held)


def test_what_was_not_answered_comes_last(catalog: Catalog) -> None:
    session, _ = opened(catalog)
    page = session.page("ana", "a", "seed", 4)
    answered, left = ids(page)[0], ids(page)[1:]
    session.commit("ana", "commit-1", "seed", page["page"], {answered: "car"})
    seen = []
    while len(seen) < 16:
        page = session.page("ana", "a", "seed", 4)
        assert not set(ids(page)) & {answered, *left}
        session.commit(
            "ana", f"commit-{len(seen)}a", "seed", page["page"], dict.fromkeys(ids(page), "car")
        )
        seen += ids(page)
    assert sorted(ids(session.page("ana", "a", "seed", 4))) == sorted(left)


# --- answers -------------------------------------------------------------------------------------


def test_a_page_is_taken_in_once_in_one_commit(catalog: Catalog) -> None:
    session, _ = opened(catalog)
    page = session.page("ana", "a", "seed", 4)
    before = catalog.log_version()
    for _ in range(3):
        said = session.commit(
            "ana", "commit-1", "seed", page["page"], dict.fromkeys(ids(page), "ship")
        )
    assert catalog.log_version() == before + 1
    assert said["queues"][0] == {
        "name": "seed", "title": "i0: what the team learns from", "total": 20, "done": 4, "left": 16
    }  # fmt: skip
    log = [e for e in catalog.log().to_pylist() if e["commit"] == "commit-1"]
    assert {(e["by"], e["purpose"], e["label"], e["source"]) for e in log} == {
        ("ana", "seed", "ship", "person")
    }
    assert [e["crop_id"] for e in log] == ids(page)
    # A session that was opened since knows it, too.
    again, _ = opened(catalog)
    again.commit("ana", "commit-1", "seed", page["page"], dict.fromkeys(ids(page), "ship"))
    assert catalog.log_version() == before + 1


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({}, "got 0"),
        ({"no such crop": "car"}, "does not know 1"),
        ({"": "car"}, "does not know 1"),
        ("train", "no class train"),
        ("", "no label"),
    ],
)
def test_answers_that_make_no_sense_change_nothing(
    catalog: Catalog, answers: dict[str, str] | str, said: str
) -> None:
    session, _ = opened(catalog)
    page = session.page("ana", "a", "seed", 4)
    if isinstance(answers, str):
        answers = dict.fromkeys(ids(page), answers)
    before = catalog.log_version()
    with pytest.raises(Refused, match=said):
        session.commit("ana", "commit-1", "seed", page["page"], answers)
    assert catalog.log_version() == before
    with pytest.raises(Refused, match="no queue"):
        session.page("ana", "a", "sed", 4)


def test_a_known_name_is_confirmed_only_for_the_same_commit(catalog: Catalog) -> None:
    session, _ = opened(catalog)
    page = session.page("ana", "a", "seed", 4)
    answers = dict.fromkeys(ids(page), "car")
    session.commit("ana", "commit-1", "seed", page["page"], answers)
    before = catalog.log_version()
    swapped = dict(reversed(answers.items()))
    first, *rest = answers
    following = ids(session.page("ana", "a", "seed", 1))[0]
    for again in (session, opened(catalog)[0]):  # also after a restart
        assert again.commit("ana", "commit-1", "seed", page["page"], swapped)["stored"] == 4
        for who, queue, said in (
            ("ben", "seed", answers),
            ("ana", "unsure", answers),
            ("ana", "conflict", answers),
            ("ana", "seed", {**answers, first: "ship"}),
            ("ana", "seed", dict.fromkeys(rest, "car")),
            ("ana", "seed", {**answers, following: "car"}),
            ("ana", "seed", {**answers, "no such crop": "car"}),
            ("ana", "seed", {}),
        ):
            with pytest.raises(Refused, match="of this name was saved before"):
                again.commit(who, "commit-1", queue, page["page"], said)
    assert catalog.log_version() == before
    assert session.verified()[0] == 4
    session.undo("ana", "a", "seed", "commit-1")  # a late repetition brings nothing back
    assert session.commit("ana", "commit-1", "seed", page["page"], answers)["stored"] == 4
    assert not (catalog.index().human == "car").any()


@pytest.mark.parametrize("queue", ["seed", "unsure", "conflict", "test", "audit"])
def test_crops_that_are_in_no_queue_and_were_never_lent_are_refused(
    catalog: Catalog, queue: str
) -> None:
    index = catalog.index()
    frozen = str(index.crop_id[39])
    catalog.append_labels(
        [LabelEvent.test_mark(frozen), LabelEvent(frozen, "ship", "person", "test", by="ben")]
    )
    session, _ = opened(catalog)
    queued = set(ids(session.page("ana", "a", "seed", 60, hold={"": [frozen]})))
    queued |= set(ids(session.page("ana", "b", "seed", 60)))
    free = next(name for name in index.crop_id.tolist() if name not in queued | {frozen})
    before = catalog.log_version()
    strangers = [free] if queue == "test" else [free, frozen]
    for number, crop in enumerate(strangers):
        with pytest.raises(Refused, match=f"1 of the crops are not in the {queue} queue"):
            session.commit("ana", f"commit-{number}", queue, "", {crop: "car"})
    with pytest.raises(Refused, match="not in"):
        session.commit("ana", "commit-9", queue, "", dict.fromkeys([*queued, free], "car"))
    assert catalog.log_version() == before
    assert catalog.index().human[39] == "ship"


def test_what_was_lent_is_taken_in_after_its_queue_has_changed(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a round ends while its unsure crops are on a screen; but a test label stays."""
    rows = [np.arange(4)]

    def crops(self: object, state: ReviewState) -> QueuedCrops:
        return QueuedCrops(rows[0], ["car"] * len(rows[0]), "", 0)

    monkeypatch.setattr(Unsure, "crops", crops)
    session, _ = opened(catalog)
    page = session.page("ana", "a", "unsure", 60)
    assert len(page["crops"]) == 4
    rows[0] = np.arange(10, 14)
    first, second, third, fourth = ids(page)
    catalog.append_labels([LabelEvent.test_mark(fourth)])
    session.commit("ana", "commit-1", "unsure", page["page"], {first: "car", second: "ship"})
    with pytest.raises(Refused, match="1 of the crops are not in the unsure queue"):
        session.commit("ana", "commit-2", "unsure", page["page"], {third: "car", fourth: "car"})
    assert catalog.index().human[:4].tolist() == ["car", "ship", "", ""]


def test_the_names_of_a_page_are_looked_up_once(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, _ = opened(catalog)
    page = session.page("ana", "a", "seed", 8)
    looked: list[int] = []
    find = Names.find

    def counting(self: Names, names: Sequence[str]) -> NDArray[np.int64]:
        looked.append(len(names))
        return find(self, names)

    monkeypatch.setattr(Names, "find", counting)
    session.commit("ana", "commit-1", "seed", page["page"], dict.fromkeys(ids(page), "car"))
    assert looked == [8]


def test_an_answer_alone_puts_nothing_into_the_test_set(catalog: Catalog) -> None:
    session, _ = opened(catalog)
    page = session.page("ana", "a", "seed", 4)
    with pytest.raises(Refused, match="not in the test queue"):
        session.commit("ana", "commit-1", "test", page["page"], dict.fromkeys(ids(page), "car"))
    assert not catalog.index().test.any()


def test_what_another_command_says_is_seen(catalog: Catalog) -> None:
    session, _ = opened(catalog)
    page = session.page("ana", "a", "seed", 10)
    other = Catalog(catalog.workspace)
    other.append_labels([LabelEvent(i, "car", "person") for i in ids(page)])
    said = session.state("ana", "a", "seed")
    assert (said["queues"][0]["done"], said["queues"][0]["left"]) == (10, 10)


# --- a second reviewer ---------------------------------------------------------------------------


def test_a_share_is_verified_twice_unseen_and_conflicts_are_settled(tmp_path: Path) -> None:
    catalog = camera(tmp_path, 400)
    session, _ = opened(catalog, seed_per_class=100, double=0.25)
    while ids(page := session.page("ana", "a", "seed", 50)):
        session.commit(
            "ana",
            f"ana-{page['page']}",
            "seed",
            page["page"],
            dict.fromkeys(ids(page), page["suggested"]),
        )
    assert session.state("ana", "a", "seed")["queues"][0]["left"] == 0
    due = session.state("ben", "b", "seed")["queues"][0]["left"]
    assert 30 <= due <= 70
    again: list[str] = []
    differing = []
    while ids(page := session.page("ben", "b", "seed", 50)):
        other = CLASSES[page["suggested"] == "car"]
        answers = dict.fromkeys(ids(page), page["suggested"]) | {ids(page)[0]: other}
        session.commit("ben", f"ben-{page['page']}", "seed", page["page"], answers)
        differing.append(ids(page)[0])
        again += ids(page)
    assert len(again) == len(set(again)) == due
    assert set(again) == {i for i in again if is_in_share(i, 0.25, 0)}
    assert session.state("cid", "c", "seed")["queues"][0]["left"] == 0  # twice is enough

    said = session.agreement()
    assert said["crops"] == due
    assert said["conflicts"] == len(differing) == 2
    both = [session.answers.unseen(row) for row in catalog.index().crop_id.find(again).tolist()]
    firsts, seconds = [said["ana"] for said in both], [said["ben"] for said in both]
    assert said["kappa"] == pytest.approx(cohen_kappa_score(firsts, seconds))

    page = session.page("ana", "a", "conflict", 50)
    assert sorted(ids(page)) == sorted(differing)
    assert page["suggested"] == ""
    assert all(set(crop["said"]) == {"ana", "ben"} for crop in page["crops"])
    session.commit(
        "ana", "settled-1", "conflict", page["page"], dict.fromkeys(ids(page), "unknown")
    )
    settled = session.agreement()
    assert (settled["conflicts"], settled["crops"]) == (0, due)
    assert settled["kappa"] == said["kappa"]  # what was said knowing of the other is no agreement
    index = catalog.index()
    assert {h for i, h in zip(index.crop_id, index.human, strict=True) if i in differing} == {
        "unknown"
    }
    # Open conflicts come back when the answer is taken back, also for a session opened since.
    session.undo("ana", "a", "conflict", "settled-1")
    assert session.agreement()["conflicts"] == 2
    assert opened(catalog, seed_per_class=100, double=0.25)[0].agreement() == session.agreement()


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), max_size=30))
def test_kappa_is_cohens(pairs: list[tuple[str, str]]) -> None:
    ours = cohen_kappa(pairs)
    if not pairs or len({label for pair in pairs for label in pair}) == 1:
        assert ours is None
    else:
        assert ours == pytest.approx(cohen_kappa_score(*zip(*pairs, strict=True)))


# --- taking back ---------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["commit", "commit", "undo", "open"]),
        st.sampled_from(["ana", "ben"]),
        st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True),
        st.sampled_from([*CLASSES, "unknown", "unusable"]),
        st.integers(0, 3),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=40)
@given(STEPS)
def test_the_log_says_what_was_answered_and_not_taken_back(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    """Against a list of pages: the last one that stands decides, whatever was taken back."""
    with tempfile.TemporaryDirectory() as root:
        catalog = camera(root, 6)
        every = catalog.index().crop_id.tolist()
        session, _ = opened(catalog, seed_per_class=3)
        stands: dict[str, tuple[str, dict[str, str]]] = {}
        for number, (step, who, rows, label, back) in enumerate(steps):
            mine = [name for name, (by, _) in stands.items() if by == who]
            if step == "commit":
                answers = {every[row]: label for row in rows}
                session.commit(who, f"commit-{number}", "seed", "", answers)
                stands[f"commit-{number}"] = (who, answers)
            elif step == "undo" and mine:
                name = mine[-1 - back % len(mine)]
                page = session.undo(who, "t", "seed", name)
                assert page["given"] == stands.pop(name)[1]
                session.undo(who, "t", "seed", name)
            elif step == "open":
                session, _ = opened(catalog, seed_per_class=3)
            assert session.answers.undoable("ana", "seed") == [
                name for name, (by, _) in stands.items() if by == "ana"
            ]
            # Each reviewer's last word, and of these the one that was said last.
            expected = dict.fromkeys(every, "")
            for _, answers in stands.values():
                expected |= answers
            index = catalog.index()
            assert dict(zip(index.crop_id, index.human, strict=True)) == expected


def test_only_ones_own_pages_can_be_taken_back(catalog: Catalog) -> None:
    session, _ = opened(catalog)
    page = session.page("ana", "a", "seed", 4)
    session.commit("ana", "commit-1", "seed", page["page"], dict.fromkeys(ids(page), "car"))
    for who, name in (("ben", "commit-1"), ("ana", "commit-2")):
        with pytest.raises(Refused, match="no such page"):
            session.undo(who, "b", "seed", name)
    assert session.verified() == (4, 4)
    session.undo("ana", "a", "seed", "commit-1")
    assert session.verified() == (0, 0)


# --- draws ---------------------------------------------------------------------------------------


def test_the_test_set_is_drawn_once_and_shares_no_track_with_training(tmp_path: Path) -> None:
    catalog = camera(tmp_path, 120, per_track=3)
    session, _ = opened(catalog)
    page = session.page("ana", "a", "seed", 60)
    session.commit("ana", "commit-1", "seed", page["page"], dict.fromkeys(ids(page), "car"))
    i0 = {task.crop_id for task in session.open_tasks("seed")} | set(ids(page))
    tested, _ = opened(catalog, "test", test_per_class=6)
    index = catalog.index()
    assert index.test.sum() == 12
    assert len(set(index.track[index.test])) == 12
    assert not set(index.track[index.test]) & {
        t for i, t in zip(index.crop_id, index.track, strict=True) if i in i0
    }
    version = catalog.log_version()
    opened(catalog, "test", test_per_class=6)
    assert catalog.log_version() == version
    while ids(page := tested.page("ana", "a", "test", 60)):
        tested.commit(
            "ana", f"t-{page['page']}", "test", page["page"], dict.fromkeys(ids(page), "car")
        )
    index = catalog.index()
    assert (index.human[index.test] == "car").all()
    # A draw of i0 that comes later keeps away from it.
    assert not set(i0) & set(index.crop_id[index.test])


def test_the_audit_is_a_random_sample_that_hides_the_confidence(catalog: Catalog) -> None:
    index = catalog.index()
    drawn = [
        LabelEvent(str(i), CLASSES[n % 2], "team", "increment", 1, 0.9, by="f")
        for n, i in enumerate(index.crop_id)
    ]
    catalog.append_labels(drawn)
    session, _ = opened(catalog, "audit", audit_per_class=7)
    page = session.page("ana", "a", "audit", 60)
    assert len(ids(page)) == 7
    assert set(page["crops"][0]) == {"id", "mates"}
    label = {e.crop_id: e.label for e in drawn}
    assert {label[i] for i in ids(page)} == {page["suggested"]}
    # Every crop has its chance, whatever the order in which the crops came.
    chosen = np.zeros(40)
    for seed in range(60):
        other, _ = opened(catalog, "audit", audit_per_class=7, seed=seed)
        chosen += np.isin(index.crop_id, [one.crop_id for one in other.open_tasks("audit")])
    assert chosen.sum() == 60 * 14
    assert chosen.min() > 5
    assert chosen.max() < 40


def test_ten_thousand_crops_are_no_burden(tmp_path: Path) -> None:
    catalog = camera(tmp_path, 10_000)
    session, _ = opened(catalog, seed_per_class=5000)
    seen: set[str] = set()
    for number in range(40):
        page = session.page("ana", "a", "seed", 250)
        assert not seen & set(ids(page))
        seen |= set(ids(page))
        said = session.commit(
            "ana", f"commit-{number}", "seed", page["page"], dict.fromkeys(ids(page), "car")
        )
    assert len(seen) == 10_000
    assert said["queues"][0]["left"] == 0
    assert session.page("ana", "a", "seed", 250)["crops"] == []


# --- what a review of the page found --------------------------------------------------------------


def test_undo_leaves_what_others_said_for_other_purposes(catalog: Catalog) -> None:
    """One says it of an unsure crop, another too, a third settles: the second takes back."""
    crop = str(catalog.index().crop_id[0])
    said = [("bob", "unsure", "car"), ("ana", "unsure", "ship"), ("cyd", "conflict", "car")]
    for who, queue, label in said:
        answer = LabelEvent(crop, label, "person", queue, by=who, commit=f"commit-{who}")
        catalog.append_labels([answer])
    session, _ = opened(catalog)
    assert catalog.index().unsure_round[0] == -1  # there was no team yet
    catalog.append_labels([LabelEvent(crop, "car", "person", "unsure", 0, by="bob")])
    session.undo("ana", "t", "unsure", "commit-ana")
    index = catalog.index()
    assert (index.unsure_round[0], index.human[0]) == (0, "car")


def test_the_test_set_never_takes_more_than_half_of_a_class(tmp_path: Path) -> None:
    catalog = camera(tmp_path, 60)  # 30 objects a class
    with pytest.raises(UserError, match=r"more than half of the car objects.*test_per_class=7"):
        opened(catalog, "test", test_per_class=16)
    assert not catalog.index().test.any()
    opened(catalog, "test", test_per_class=15)
    assert catalog.index().test.sum() == 30


def test_a_track_of_mixed_proposals_gives_the_test_set_one_crop(tmp_path: Path) -> None:
    catalog = camera(tmp_path, 120, per_track=3)
    index = catalog.index()
    catalog.append_labels(
        [
            LabelEvent(str(i), CLASSES[n % 2], "detector", "proposal")
            for n, i in enumerate(index.crop_id)
        ]
    )
    opened(catalog, "test", test_per_class=15)
    index = catalog.index()
    assert index.test.sum() == len(set(index.track[index.test])) == 30


def test_a_held_page_keeps_its_name_and_what_is_left_of_it_comes_again(catalog: Catalog) -> None:
    session, _ = opened(catalog)
    page = session.page("ana", "a", "seed", 5)
    again, _ = opened(catalog)  # the server was started anew
    again.page("ana", "a", "seed", 5, hold={page["page"]: ids(page), "": ["nobody's crop"]})
    answered, left = ids(page)[:3], set(ids(page)[3:])
    again.commit("ana", "commit-1", "seed", page["page"], dict.fromkeys(answered, "car"))
    seen: set[str] = set()
    while ids(page := again.page("ana", "a", "seed", 5)) and not left <= seen:
        seen |= set(ids(page))
        again.commit(
            "ana", f"c-{page['page']}", "seed", page["page"], dict.fromkeys(ids(page), "car")
        )
    assert left <= seen


def test_what_is_held_of_another_queue_is_not_lent_in_this_one(catalog: Catalog) -> None:
    index = catalog.index()
    catalog.append_labels(
        [LabelEvent(str(i), "car", "team", "increment", 1) for i in index.crop_id[:10]]
    )
    session, _ = opened(catalog, "audit", audit_per_class=5)
    strangers = [str(i) for i in index.crop_id[20:25]]
    page = session.page("ana", "a", "audit", 60, hold={"": strangers})
    assert not set(ids(page)) & set(strangers)
    with pytest.raises(Refused, match="not in the audit queue"):
        session.commit("ana", "commit-1", "audit", "", dict.fromkeys(strangers, "car"))
    assert not catalog.index().audited.any()


def test_a_conflict_is_settled_by_an_import_once(catalog: Catalog) -> None:
    session, _ = opened(catalog)
    crop = ids(session.page("ana", "a", "seed", 1))[0]
    for who, label in (("ana", "car"), ("ben", "ship")):
        session.commit(who, f"commit-{who}", "seed", "", {crop: label})
    assert session.take_in("conflict", [(crop, "car", "ana")]) == (1, [])
    assert session.agreement()["conflicts"] == 0
    assert session.take_in("conflict", [(crop, "car", "ana")]) == (0, [])


def test_an_open_session_sees_a_new_draw_and_keeps_step_with_merges(tmp_path: Path) -> None:
    catalog = camera(tmp_path, 400)
    session, _ = opened(catalog, seed_per_class=10)
    assert session.total("seed") == 20
    (catalog.folder / "round-0" / "sample.json").unlink()
    opened(catalog, seed_per_class=150)  # as another command draws i0 anew
    assert session.state("ana", "a", "seed")["queues"][0]["total"] == 300
    loads = []
    reload = session._load
    session._load = lambda: (loads.append(1), reload())  # type: ignore[method-assign, func-returns-value, assignment]
    for number in range(76):  # the log merges its small commits on the way
        page = session.page("ana", "a", "seed", 4)
        session.commit(
            "ana", f"commit-{number}", "seed", page["page"], dict.fromkeys(ids(page), "car")
        )
    assert loads == []
    assert opened(catalog, seed_per_class=150)[0].total("seed") == 300
    assert (catalog.index().human != "").sum() == 300
