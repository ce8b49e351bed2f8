"""The review command and its server, as a browser and as other commands meet them."""

from __future__ import annotations

import csv
import http.client
import json
import random
import shutil
import socket
import stat
import subprocess
import threading
import uuid
from collections import Counter
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import logs
import numpy as np
import pytest
from conftest import CLASSES, SMALL, Call, command, environment, one_line, read_json, run
from reviewing import Client, serving, start, verify_all, visitor

from collabteam.catalog import Catalog, Crop, LabelEvent
from collabteam.reviewing.queues.unsure import Unsure
from collabteam.reviewing.review_queue import ReviewState
from collabteam.settings import CameraConfig, ReviewConfig
from collabteam.team.predictions import PredictionStore

PERSON = tuple("reviewer=person" if one == "reviewer=oracle" else one for one in SMALL)


def truth_of(root: Path) -> dict[str, str]:
    return logs.truth_of(Catalog(root / "sim"))


# --- from crops to a team ------------------------------------------------------------------------


def test_a_person_verifies_i0_and_the_team_trains_on_it(root: Path, call: Call) -> None:
    """Review first, then train with the very crops that were verified."""
    truth = truth_of(root)
    with serving(root, "seed_per_class=40") as server:
        client = visitor(server)
        state = client.call("state", queue="seed")
        assert state["queues"][0]["left"] == 120
        assert (
            state["next"]
            == "python -m collabteam.train camera=sim round=0 seed_per_class=40 seed_unknown=0"
        )
        assert verify_all(client, truth) == 3
        end = client.page()
        assert end["crops"] == []
        assert end["queues"][0]["done"] == end["queues"][0]["total"] == 120
        out = server.stop()
    assert "sim: 120 crops verified" in out
    assert "next: python -m collabteam.train camera=sim round=0 seed_per_class=40" in out

    said = call("train", f"root={root}", "camera=sim", "round=0", *PERSON, "optim.epochs=1")
    assert said.code == 0, said.err
    record = read_json(root / "sim" / "round-0" / "round.json")
    assert record["reviewer"] == {"kind": "person", "error_rate": 0.0, "answers": 120}
    i0 = read_json(root / "sim" / "round-0" / "sample.json")["crops"]
    assert record["train_counts"] == {
        name: Counter(truth[crop] for crop in i0)[name] for name in [*CLASSES, "unknown"]
    }


def test_train_first_then_review_means_the_same_crops(root: Path, call: Call) -> None:
    """What ``train`` asks for, with whatever settings, is what the page shows."""
    asked = one_line(call("train", f"root={root}", "camera=sim", *PERSON), "collabteam.review")
    assert "120 of the 120" in asked
    i0 = read_json(root / "sim" / "round-0" / "sample.json")["crops"]
    with serving(root) as server:
        client = visitor(server)
        shown = []
        while (page := client.page(size=100))["crops"]:
            shown += [crop["id"] for crop in page["crops"]]
        assert sorted(shown) == sorted(i0)
        index = Catalog(root / "sim").index()
        proposed = dict(zip(index.crop_id, index.proposed, strict=True))
        assert page["suggested"] == ""
        assert {proposed[crop] for crop in shown[:40]} == {CLASSES[0]}


def test_what_the_team_does_not_know_teaches_the_next_one(finished: Path, call: Call) -> None:
    folder = finished / "sim"
    truth, last = truth_of(finished), read_json(folder / "round-2" / "round.json")
    index = Catalog(folder).index()
    config = ReviewConfig(camera=CameraConfig("sim", CLASSES))
    catalog = Catalog(folder)
    queue = Unsure().crops(ReviewState(catalog, index, catalog.annotations().answers(), config))
    scores = PredictionStore(
        folder / "round-2" / "scores", last["fingerprint"], last["classes"], index
    )
    asked = scores.of(queue.rows).astype(float)
    assert ((asked > 0.5).sum(axis=1) != 1).all()  # every one is an "I don't know"
    clipped = asked.clip(1e-7, 1 - 1e-7)
    entropy = -(clipped * np.log(clipped) + (1 - clipped) * np.log(1 - clipped)).sum(axis=1)
    assert (np.diff(entropy) <= 1e-9).all()  # the most informative first
    assert len(np.unique(index.track_code[queue.rows])) == len(queue.rows)
    assert [CLASSES[best] for best in asked.argmax(axis=1)] == list(queue.suggested)

    with serving(finished, "queue=unsure") as server:
        client = visitor(server)
        page = client.page("unsure", 20)
        verified = [crop["id"] for crop in page["crops"]]
        # The first of the queue; what the team takes for alike stands together, and no answer is
        # selected.
        assert page["suggested"] == ""
        assert set(verified) == set(index.crop_id[queue.rows[:20]].tolist())
        leaning = dict(zip(index.crop_id[queue.rows].tolist(), queue.suggested, strict=True))
        runs = [leaning[crop] for crop in verified]
        assert sum(one != two for one, two in pairwise(runs)) == len(set(runs)) - 1
        client.commit(page, {crop: truth[crop] for crop in verified})
        assert client.call("state", queue="unsure")["next"].endswith("round=3")
    said = call("train", f"root={finished}", "camera=sim", "round=3", *SMALL)
    assert said.code == 0, said.err
    record = read_json(folder / "round-3" / "round.json")
    taken = sum(row["taken"] for row in record["increment"].values())
    assert record["train_size"] == last["train_size"] + taken + len(verified)
    assert record["train_unsure"] == len(verified)
    assert record["label_noise"] is not None
    # Round 2 was there before and stays what it is.
    assert read_json(folder / "round-2" / "round.json") == last


def test_the_audit_asks_about_the_teams_labels(finished: Path) -> None:
    index = Catalog(finished / "sim").index()
    labelled = {str(i) for i, r in zip(index.crop_id, index.increment_round, strict=True) if r >= 1}
    with serving(finished, "queue=audit", "audit_per_class=3") as server:
        client = visitor(server)
        page = client.page("audit")
        assert page["crops"]
        assert {crop["id"] for crop in page["crops"]} <= labelled
        assert "confidence" not in json.dumps(page)
        wrong = page["crops"][0]["id"]
        answers = {crop["id"]: page["suggested"] for crop in page["crops"]} | {wrong: "unknown"}
        client.commit(page, answers)
    index = Catalog(finished / "sim").index()
    assert index.human[index.crop_id.find([wrong])[0]] == "unknown"


# --- never losing work ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_amid_commits_and_started_again(root: Path, seed: int) -> None:
    """Every page that was sent is in the log exactly once, however often it had to be sent."""
    server = start(root, "seed_per_class=100")
    client, port = visitor(server), server.port
    chance = random.Random(seed)
    pages = [client.page(size=5) for _ in range(40)]
    waiting = {str(uuid.uuid4()): page for page in pages if page["crops"]}
    sent = dict(waiting)
    kills = 0
    while waiting:
        timer = threading.Timer(chance.uniform(0.005, 0.25), server.kill)
        if kills < 3:
            timer.start()
        try:
            for name, page in list(waiting.items()):
                client.commit(page, {c["id"]: page["suggested"] for c in page["crops"]}, name)
                del waiting[name]
        except (OSError, EOFError, AssertionError, http.client.HTTPException):
            assert kills < 3
        timer.join() if timer.is_alive() else timer.cancel()
        if server.process.poll() is not None:
            kills += 1
            # The same port and the same cookie: the tab that is open goes on.
            server = start(root, "seed_per_class=100", port=port)
    server.stop()
    assert kills
    log = Catalog(root / "sim").log().to_pylist()
    said = Counter((event["commit"], event["crop_id"]) for event in log if event["commit"])
    expected = {(name, crop["id"]) for name, page in sent.items() for crop in page["crops"]}
    assert set(said) == expected
    assert set(said.values()) == {1}
    human = Catalog(root / "sim").index().human
    assert (human != "").sum() == len(expected)


def test_what_was_answered_is_there_after_a_kill(root: Path) -> None:
    server = start(root, "seed_per_class=40")
    client = visitor(server)
    page = client.page(size=40)
    name = str(uuid.uuid4())
    client.commit(page, {c["id"]: page["suggested"] for c in page["crops"]}, name)
    server.kill()
    with serving(root, "seed_per_class=40", port=server.port) as again:
        assert again.port == server.port
        state = client.call("state", queue="seed")
        assert state["queues"][0]["done"] == 40
        assert state["undoable"] == [name]
        back = client.call("undo", commit=name, queue="seed")
        assert back["given"] == {c["id"]: page["suggested"] for c in page["crops"]}
    assert not (Catalog(root / "sim").index().human != "").any()


@pytest.mark.slow
def test_two_reviewers_at_once(root: Path) -> None:
    """They share one server, get different crops, and lose nothing."""
    truth = truth_of(root)
    with serving(root, "seed_per_class=60") as server:
        joined = run("review", root, "camera=sim", "reviewer=ben", "open=false", "queue=seed")
        assert joined.returncode == 0, joined.stderr
        assert "is served already by process" in joined.stderr
        way_in = joined.stdout.split(f":{server.port}")[1].strip()
        ana, ben = visitor(server), Client(server.port)
        assert ben.enter(way_in).status == 200
        assert ben.call("state", queue="seed")["reviewer"] == "ben"
        threads = [
            threading.Thread(target=verify_all, args=(who, truth, "seed", 7)) for who in (ana, ben)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    log = [e for e in Catalog(root / "sim").log().to_pylist() if e["source"] == "person"]
    assert len(log) == 180
    assert len({event["crop_id"] for event in log}) == 180
    assert set(Counter(event["by"] for event in log)) == {"ana", "ben"}


def test_training_and_reviewing_do_not_stand_in_each_others_way(root: Path, call: Call) -> None:
    call("train", f"root={root}", "camera=sim", *PERSON)
    with Catalog(root / "sim").workspace.transaction("train"):
        with serving(root) as server:  # i0 is drawn: nothing is left that needs the camera alone
            assert visitor(server).page()["crops"]
        said = call("review", f"root={root}", "camera=sim", "queue=test", "open=false", "port=0")
        one_line(said, "in use by process", "'train'")


def test_an_open_server_sees_the_team_that_another_command_trained(root: Path, call: Call) -> None:
    with serving(root, "seed_per_class=40") as server:
        client = visitor(server)
        verify_all(client, truth_of(root))
        assert client.call("state", queue="unsure")["empty"]
        said = call("train", f"root={root}", "camera=sim", "round=0", *PERSON)
        assert said.code == 0, said.err
        state = client.call("state", queue="unsure")
        assert state["empty"] == ""
        assert state["next"] == "python -m collabteam.train camera=sim round=1"
        # A second command draws what its queue needs, though the server was there first.
        joined = run("review", root, "camera=sim", "open=false", "queue=test", "test_per_class=300")
        assert joined.returncode == 2
        assert "half" in joined.stderr


def test_answers_are_taken_from_the_reviewer_that_gave_them_alone(root: Path) -> None:
    """Another reviewer's address was opened in the same browser: the first one's work waits."""
    with serving(root, "seed_per_class=40") as server:
        ana = visitor(server)
        page = ana.page(size=5)
        joined = run("review", root, "camera=sim", "reviewer=ben", "open=false")
        ana.enter(joined.stdout.split(f":{server.port}")[1].strip())  # the cookie is ben's now
        body = {
            "commit": "commit-1", "queue": "seed", "page": page["page"], "tab": ana.tab,
            "answers": {c["id"]: page["suggested"] for c in page["crops"]}, "reviewer": "ana",
        }  # fmt: skip
        refused = ana.send("POST", "/api/commit", body)
        assert refused.status == 409
        assert "ben's now" in refused.json["error"]
        assert not (Catalog(root / "sim").index().human != "").any()
        body["reviewer"] = "ben"
        assert ana.send("POST", "/api/commit", body).status == 200


# --- who is let in -------------------------------------------------------------------------------


def test_nobody_gets_in_without_the_address_which_is_good_once(root: Path) -> None:
    with serving(root, "seed_per_class=40") as server:
        stranger = Client(server.port)
        crop = str(Catalog(root / "sim").index().crop_id[0])
        for path in ("/", "/static/review.js", f"/crop/{crop}", f"/api/context/{crop}"):
            assert stranger.send("GET", path).status == 401, path
        for name in ("state", "page", "commit", "undo", "release", "invite"):
            answer = stranger.send("POST", f"/api/{name}", {"queue": "seed", "tab": "t"})
            assert answer.status == 401, name
        for wrong in ("", "x" * 32, "é"):
            path = "/enter?token=" + quote(wrong)
            answer = stranger.send("GET", path)
            assert answer.status == 401
            assert "set-cookie" not in answer.headers
        first = stranger.enter(server.way_in)
        assert first.status == 200
        flags = first.headers["set-cookie"].lower()
        assert "httponly" in flags
        assert "samesite=strict" in flags
        assert stranger.send("GET", "/").status == 200
        second = Client(server.port)
        assert second.enter(server.way_in).status == 401
        assert b"used before" in second.send("GET", server.way_in).body
        # Whoever is in already may open it again, as after a reload.
        assert stranger.send("GET", server.way_in).status == 200
        forged = Client(server.port, stranger.cookie[:-1] + "x")
        assert forged.send("GET", "/").status == 401

        folder = root / "sim" / "review"
        secret = read_json(folder / "lock")["secret"]
        assert stranger.cookie.split("=")[1] not in (folder / "sessions.json").read_text()
        for name in ("lock", "sessions.json"):
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
        wrong_secret = {"Authorization": f"Bearer {secret[:-1]}"}
        answer = stranger.send("POST", "/api/invite", {"reviewer": "eve"}, wrong_secret)
        assert answer.status == 401


FOREIGN = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Content-Type": "text/plain"},
    {"Content-Type": "application/x-www-form-urlencoded"},
]


def test_other_sites_get_nothing(root: Path) -> None:
    with serving(root, "seed_per_class=40") as server:
        client = visitor(server)
        body = {"queue": "seed", "tab": "t"}
        own = {"Origin": f"http://127.0.0.1:{server.port}", "Sec-Fetch-Site": "same-origin"}
        assert client.send("POST", "/api/state", body, own).status == 200
        for headers in FOREIGN:
            assert client.send("POST", "/api/state", body, headers).status in (403, 415), headers
        for host in ("evil.example", f"evil.example:{server.port}", "127.0.0.1:1", ""):
            assert client.send("GET", "/", headers={"Host": host}).status == 421, host
        crop = client.page(size=1)["crops"][0]["id"]
        embedded = {
            "Sec-Fetch-Site": "cross-site",
            "Sec-Fetch-Mode": "no-cors",
            "Sec-Fetch-Dest": "image",
        }
        assert client.send("GET", f"/crop/{crop}", headers=embedded).status == 403
        # A link on another page leads in, but shows nothing that it can read.
        link = {
            "Sec-Fetch-Site": "cross-site",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "document",
        }
        assert client.send("GET", "/", headers=link).status == 200
        framed = {**link, "Sec-Fetch-Dest": "iframe"}
        assert client.send("GET", "/", headers=framed).status == 403


def test_every_answer_carries_the_security_headers(root: Path) -> None:
    with serving(root, "seed_per_class=40") as server:
        client = visitor(server)
        crop = client.page(size=1)["crops"][0]["id"]
        for path in ("/", "/static/review.js", "/static/review.css", f"/crop/{crop}", "/nothing"):
            headers = client.send("GET", path).headers
            assert "default-src 'none'" in headers["content-security-policy"], path
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert "server" not in headers


def test_pictures_are_served_by_id_alone(root: Path) -> None:
    catalog = Catalog(root / "sim")
    with serving(root, "seed_per_class=40") as server:
        client = visitor(server)
        crop = client.page(size=1)["crops"][0]["id"]
        answer = client.send("GET", f"/crop/{crop}")
        index = catalog.index()
        row = int(np.flatnonzero(index.crop_id == crop)[0])
        assert answer.body == catalog.images([row])[0]
        assert answer.headers["content-type"] == "image/jpeg"
        paths = (
            "/crop/../camera.yaml", "/crop/..%2fcamera.yaml", "/crop/%2fetc%2fpasswd",
            "/static/../server.py", "/static/..%2f..%2ferrors.py", "/crop/" + "0" * 24,
            "/frame/" + "0" * 24, "/api/context/x",
        )  # fmt: skip
        for path in paths:
            answer = client.send("GET", path)
            assert answer.status in (400, 404), path
            assert b"classes" not in answer.body


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"1", b'{"queue": 1, "tab": "t"}', b'{"tab": "t"}', b"\xff",
     b'{"queue": "seed", "tab": "' + b"t" * 300 + b'"}', b" " * 300_000,
     b'{"queue": "seed", "tab": "t", "size": "many"}',
     b'{"queue": "seed", "tab": "t", "size": 5, "hold": "all"}'],
)  # fmt: skip
def test_nonsense_is_answered_in_one_line(served: Client, body: bytes) -> None:
    for name in ("page", "commit", "undo"):
        answer = served.send("POST", f"/api/{name}", body)
        assert answer.status in (400, 413)
        assert "\n" not in answer.json["error"]


@pytest.fixture(scope="module")
def served(simulated: Path, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """A visitor of a server whose camera nobody changes."""
    root = Path(shutil.copytree(simulated, tmp_path_factory.mktemp("served") / "outputs"))
    with serving(root, "seed_per_class=40") as server:
        yield visitor(server)


def test_other_machines_only_where_asked_and_with_a_warning(root: Path) -> None:
    with serving(root, "seed_per_class=40") as server:
        hosts = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)}
        for host in hosts - {"127.0.0.1", "127.0.1.1", "::1"}:
            with pytest.raises(OSError):  # noqa: PT011 - refused, unreachable: whatever it is
                socket.create_connection((host, server.port), timeout=1).close()
    with serving(root, "seed_per_class=40", "host=0.0.0.0") as server:
        assert Client(server.port).send("GET", "/").status == 401
        assert visitor(server).send("GET", "/").status == 200
        server.process.send_signal(2)
        _, err = server.process.communicate(timeout=30)
        assert "other machines can reach this page" in err


# --- what is wrong -------------------------------------------------------------------------------


def test_bad_input_is_one_line(root: Path, call: Call) -> None:
    base = (f"root={root}", "open=false", "port=0")
    one_line(call("review", *base, "camera=sin"), "sin")
    one_line(call("review", *base, "camera=sim", "queue=sed"), "queue=sed", "expected seed")
    one_line(call("review", *base, "camera=sim", "queue=audit"), "no team has labelled", "round=1")
    one_line(call("review", *base, "camera=sim", "queue=unsure"), "no team has voted", "round=0")
    one_line(call("review", *base, "camera=sim", "queue=conflict"), "double=0.1")
    one_line(call("review", *base, "camera=sim", "queue=test", "test_per_class=999"), "half")
    one_line(call("review", *base, "camera=sim", "reviewer='a b'"), "reviewer=")
    one_line(call("review", *base, "camera=sim", "reviewer=oracle"), "simulated")
    one_line(call("review", *base, "camera=sim", "double=2"), "double=2", "0 to 1")
    one_line(call("review", *base, "camera=sim", "host=203.0.113.9"), "host=203.0.113.9")
    one_line(call("review", *base, "camera=sim", "url=review.example.org"), "url=")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = call("review", *base[:2], "camera=sim", f"port={port}")
        one_line(said, f"port {port}", "taken", "port=0")
    empty = Catalog.register(root, "empty", CLASSES)
    one_line(call("review", *base, "camera=empty"), "no crops")
    assert len(empty) == 0


def test_a_broken_picture_is_said_to_be_broken(root: Path, call: Call) -> None:
    catalog = Catalog.register(root, "odd", CLASSES)
    crops = [Crop(b"no picture at all"), Crop(b"BM" + b"\0" * 30), Crop(b"II*\0 half a TIFF")]
    catalog.add_crops(crops)
    catalog.append_labels(
        [LabelEvent(c.crop_id, CLASSES[n], "detector", "proposal") for n, c in enumerate(crops)]
    )
    with serving(root, camera="odd") as server:
        client = visitor(server)
        page = client.page()
        for n in (0, 2):
            answer = client.send("GET", f"/crop/{crops[n].crop_id}")
            assert answer.status == 400
            assert "broken" in answer.json["error"]
        client.commit(page, {crop["id"]: "unusable" for crop in page["crops"]})
    assert Catalog(root / "odd").index().human[0] == "unusable"


def test_a_damaged_log_is_said_and_costs_nothing(root: Path) -> None:
    with serving(root, "seed_per_class=40") as server:
        client = visitor(server)
        page = client.page(size=5)
        versions = root / "sim" / "labels.lance" / "_versions"
        versions.rename(versions.with_name("gone"))
        answers = {crop["id"]: page["suggested"] for crop in page["crops"]}
        body = {
            "commit": "commit-1",
            "queue": "seed",
            "page": page["page"],
            "tab": client.tab,
            "answers": answers,
        }
        failed = client.send("POST", "/api/commit", body)
        assert failed.status == 503
        assert "labels.lance" in failed.json["error"]
        versions.with_name("gone").rename(versions)
        assert client.send("POST", "/api/commit", body).status == 200
    assert (Catalog(root / "sim").index().human != "").sum() == 5


def test_help_names_the_settings() -> None:
    said = subprocess.run(
        command("review", "--help"), env=environment(), capture_output=True, text=True, check=True
    )
    for name in ("queue=", "reviewer=", "double=", "export=", "import=", "host="):
        assert name in said.stdout


# --- other tools ---------------------------------------------------------------------------------


def test_out_to_another_tool_and_back(root: Path, tmp_path: Path, call: Call) -> None:
    """Tasks as CSV, filled in with the truth by somebody else, one line of it wrong."""
    base, truth = (f"root={root}", "camera=sim"), truth_of(root)
    tasks = tmp_path / "tasks.csv"
    said = call("review", *base, f"export={tasks}", "format=csv", "seed_per_class=40")
    assert said.code == 0, said.err
    assert "120" in said.out
    assert "import=FILE" in said.out
    assert len(list((tmp_path / "tasks-images").iterdir())) == 120
    with tasks.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    index = Catalog(root / "sim").index()
    i0 = {row["crop_id"] for row in rows}
    outside = next(str(i) for i in index.crop_id if i not in i0)
    lines = [f"{row['crop_id']},{truth[row['crop_id']]},ben" for row in rows]
    lines[3] = lines[3].replace(",", ",zebra", 1)
    lines += [f"{outside},{CLASSES[0]},ben", f"{'0' * 24},{CLASSES[0]},ben"]
    lines[5] = lines[5].replace(",ben", ",oracle")
    answers = tmp_path / "answers.csv"
    answers.write_text("crop_id,label,reviewer\n" + "\n".join(lines) + "\n")
    back = call("review", *base, f"import={answers}")
    assert back.code == 1
    assert "118 answers taken in, 0 known before" in back.out
    assert "left out: 4" in back.out
    for problem in ("zebra", f"crop {outside} is not in queue seed", "0" * 24, "'oracle'"):
        assert problem in back.out
    assert "left in queue seed: 2" in back.out
    index = Catalog(root / "sim").index()
    assert Counter(index.human_source)["import"] == 118
    again = call("review", *base, f"import={answers}")
    assert "0 answers taken in, 118 known before" in again.out
    # What is left goes out again, and nothing else.
    more = call("review", *base, f"export={tmp_path / 'more.json'}")
    assert more.code == 0, more.err
    assert len(read_json(tmp_path / "more.json")) == 2


def test_what_is_no_list_of_answers_is_one_line(root: Path, tmp_path: Path, call: Call) -> None:
    base = (f"root={root}", "camera=sim")
    odd = tmp_path / "odd.json"
    for content in (b"", b"{", b'{"a": 1}', b"\x00\x01\x02", b"a;b\n1;2\n"):
        odd.write_bytes(content)
        one_line(call("review", *base, f"import={odd}"), str(odd))
    one_line(call("review", *base, f"import={tmp_path / 'none.json'}"), "does not exist")
    one_line(call("review", *base, "export=tasks.txt", "format=csv"), "tasks.txt")
    one_line(call("review", *base, "export=a.json", "import=b.json"), "two commands")
    one_line(call("review", *base, "export=tasks.json", "format=voc"), "format=voc")
    assert not (root / "sim" / "round-0").exists()  # nothing was drawn for it
