"""Programs that are too slow, too many or too fast do not keep a person from the review page."""

from __future__ import annotations

import asyncio
import http.client
import re
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from conftest import command, environment
from reviewing import Client, serving, start, visitor

from collabteam.catalog import Catalog
from collabteam.web import limits
from collabteam.web.limits import ANSWERS_A_SECOND, ANSWERS_AT_ONCE, AnswerPace, LimitedProtocol

LATE = 0.4
"""Seconds that each phase of a request may take in these tests."""


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the length of the body; with many bytes at /large, never at /silent."""
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length, more = length + len(message["body"]), message["more_body"]
    if scope["path"] == "/silent":
        await asyncio.sleep(60)
    body = b"x" * 50_000_000 if scope["path"] == "/large" else str(length).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    for name in ("HEADERS_SECONDS", "BODY_SECONDS", "ANSWER_SECONDS"):
        monkeypatch.setattr(limits, name, LATE)
    monkeypatch.setattr(limits, "MOST_CONNECTIONS", 12)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(echo, http=LimitedProtocol, log_level="critical", lifespan="off", ws="none",
                       timeout_graceful_shutdown=1)
    )  # fmt: skip
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join(10)


def opened(port: int, begin: bytes = b"") -> socket.socket:
    one = socket.create_connection(("127.0.0.1", port), timeout=10)
    one.sendall(begin)
    return one


def seconds_to_end(one: socket.socket, drip: bytes = b"") -> float:
    """Until the server ends the connection, with a byte now and then."""
    began = time.monotonic()
    one.settimeout(0.05)
    while time.monotonic() - began < 10:
        try:
            if not one.recv(1024):
                break
        except TimeoutError:
            pass
        except OSError:
            break
        try:
            one.sendall(drip)
        except OSError:
            break
    return time.monotonic() - began


HEAD = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n"


@pytest.mark.parametrize(
    ("begin", "drip"),
    [
        (b"", b""),  # nothing at all
        (HEAD, b""),
        (HEAD, b"x-a: b\r\n"),  # headers without an end
        (b"G", b"E"),
        (HEAD + b"\r\n", b""),
        (HEAD + b"\r\n", b"x"),  # a body, a byte at a time
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"GET /silent HTTP/1.1\r\nhost: x\r\n\r\n", b""),
        # The next request after one that was answered.
        (b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTT", b"x"),
    ],
)
def test_a_request_has_its_time(port: int, begin: bytes, drip: bytes) -> None:
    with closing(opened(port, begin)) as one:
        assert LATE * 0.5 < seconds_to_end(one, drip) < LATE + 3


def test_an_answer_that_nobody_takes_ends(port: int) -> None:
    with closing(opened(port, b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")) as one:
        time.sleep(LATE + 0.5)
        taken = 0
        try:
            while part := one.recv(1 << 20):
                taken += len(part)
        except OSError:
            pass
        assert taken < 50_000_000


def test_who_is_slow_but_not_too_slow_is_answered(port: int) -> None:
    """Each phase has its own time, and each request as well."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for _ in range(3):
        connection.putrequest("POST", "/")
        connection.putheader("content-length", "4")
        time.sleep(LATE * 0.6)
        connection.endheaders()
        time.sleep(LATE * 0.6)
        connection.send(b"1234")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"4")
        time.sleep(LATE * 1.5)  # a connection may rest between requests
    connection.close()


def test_one_too_many_ends_the_connection_that_waits_longest(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HEADERS_SECONDS", 30.0)
    monkeypatch.setattr(limits, "ANSWER_SECONDS", 30.0)
    busy = opened(port, b"GET /silent HTTP/1.1\r\nhost: x\r\n\r\n")
    time.sleep(0.1)
    idle = []
    for _ in range(40):
        idle.append(opened(port, b"GET"))
        time.sleep(0.01)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    for _ in range(3):  # a person among them is answered
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"0"
    alive = []
    for one in [busy, *idle]:
        one.settimeout(0.02)
        try:
            alive.append(one.recv(10) != b"")
        except TimeoutError:
            alive.append(True)
        except OSError:
            alive.append(False)
    assert alive[0]  # it has asked, and waits for its answer
    assert sum(alive) <= 12
    assert alive[-5:] == [True] * 5
    for one in [busy, *idle]:
        one.close()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_answers_have_a_pace_for_each_reviewer() -> None:
    clock = Clock()
    pace = AnswerPace(clock)
    taken = 0
    while pace.take("ana", 500):
        taken += 500
    assert taken == ANSWERS_AT_ONCE
    assert pace.take("ben", 500)
    assert not pace.take("ana", 500)
    clock.now += 500 / ANSWERS_A_SECOND
    assert pace.take("ana", 500)
    assert not pace.take("ana", 1)
    clock.now += 3600
    taken = sum(pace.take("ana", 60) for _ in range(1000)) * 60
    assert taken == ANSWERS_AT_ONCE
    # Faster than the page lets anybody press Enter, with more crops than fit on most screens.
    pace, clock.now = AnswerPace(clock), 0.0
    for _ in range(10_000):
        assert pace.take("ana", 120)
        clock.now += 0.2


@pytest.fixture(scope="module")
def root(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(simulated, tmp_path_factory.mktemp("limits") / "outputs"))


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[Client]:
    with serving(root, "seed_per_class=40") as server:
        head = Client(server.port).send("HEAD", server.way_in)
        assert (head.status, head.body) == (200, b"")
        assert "set-cookie" not in head.headers
        yield visitor(server)  # HEAD did not use the address up


def test_a_flood_of_answers_is_held_back_and_costs_none(client: Client, root: Path) -> None:
    page = client.page(size=60)
    crops = [crop["id"] for crop in page["crops"]]
    statuses, body = [], {"queue": "seed", "page": page["page"], "answers": dict.fromkeys(crops)}
    for number in range(400):
        body["answers"] = dict.fromkeys(crops, ("cyclist", "pedestrian")[number % 2])
        answer = client.send("POST", "/api/commit", {**body, "commit": f"commit-{number:04d}"})
        statuses.append(answer.status)
        if answer.status == 429:
            break
    assert statuses[-1] == 429
    assert set(statuses[:-1]) == {200}
    assert len(statuses) * 60 > ANSWERS_AT_ONCE
    assert "faster than a person" in answer.json["error"]
    log = Catalog(root / "sim").annotations().answers()
    assert len(log.pages) == len(statuses) - 1
    time.sleep(0.3)
    again = client.send("POST", "/api/commit", {**body, "commit": f"commit-{number:04d}"})
    assert again.status == 200


LONE = b'"\\ud83d"'


@pytest.mark.parametrize("name", ["state", "page", "commit", "undo", "release", "invite"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"queue": %s, "tab": "t", "size": 5}',
        b'{"queue": "seed", "tab": %s, "size": 5}',
        b'{"queue": "seed", "tab": "t", "size": 5, "hold": {%s: ["a"]}}',
        b'{"queue": "seed", "tab": "t", "size": 5, "hold": {"": [%s]}}',
        b'{"queue": "seed", "tab": "t", "page": "p", "commit": "commit-77", "answers": {%s: "a"}}',
        b'{"queue": "seed", "tab": "t", "page": "p", "commit": "commit-77", "answers": {"a": %s}}',
        b'{"queue": "seed", "tab": "t", "page": %s, "commit": "commit-77", "answers": {}}',
        b'{"queue": "seed", "tab": "t", "page": "p", "commit": %s, "answers": {}}',
        b'{"queue": "seed", "tab": "t", "size": 5, "reviewer": %s}',
        b'{"queue": "seed", "tab": "t", "size": 5, "more": [{"deep": [%s]}]}',
    ],
)
def test_halves_of_characters_are_answered_in_one_line(
    client: Client, name: str, body: bytes
) -> None:
    for lone in (LONE, b'"\\uDC00x"', b'"\xed\xa0\xbd"'):
        answer = client.send("POST", f"/api/{name}", body % lone)
        assert answer.status in (400, 401), answer.body
        assert "\n" not in answer.json["error"]
    whole = client.send(
        "POST", "/api/state", b'{"queue": "seed", "tab": "\\ud83d\\ude00 \xc3\xa9"}'
    )
    assert whole.status == 200


def test_a_body_that_breaks_off_is_no_failure_of_the_server(root: Path) -> None:
    server = start(root, camera="sim")
    try:
        client = visitor(server)
        head = (
            f"POST /api/commit HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\ncookie: {client.cookie}"
            "\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"
        )
        opened(server.port, head.encode()).close()
        time.sleep(0.5)
        assert client.call("state", queue="seed")["camera"] == "sim"
    finally:
        server.process.terminate()
        _, err = server.process.communicate(timeout=30)
    assert "Traceback" not in err


@pytest.mark.parametrize("wait", [False, True])
def test_sigterm_ends_the_page_and_leaves_no_way_in(
    simulated: Path, tmp_path: Path, wait: bool
) -> None:
    """Also while the server is only starting."""
    root = Path(shutil.copytree(simulated, tmp_path / "outputs"))
    server = start(root, camera="sim")
    if wait:
        visitor(server)
    way = root / "sim" / "review" / "open-0123abcd.html"
    way.write_text("the token of an invitation")
    server.process.terminate()
    _, err = server.process.communicate(timeout=30)
    assert server.process.returncode == 143, err
    assert err.splitlines()[-1].startswith("review: ended by SIGTERM; run the same command")
    assert not re.search("Traceback|Exception ignored|RuntimeWarning", err)
    assert not way.exists()


def test_the_browsers_arguments_do_not_hold_the_token(simulated: Path, tmp_path: Path) -> None:
    """Every user of a machine can read them; the file that they name only its owner."""
    root = Path(shutil.copytree(simulated, tmp_path / "outputs"))
    browser, noted = tmp_path / "browser", tmp_path / "arguments"
    browser.write_text(f'#!/bin/sh\necho "$@" > {noted}.part\nmv {noted}.part {noted}\n')
    browser.chmod(0o755)
    words = ("review", f"root={root}", "camera=sim", "port=0", "open=true")
    how: Any = {"cwd": tmp_path, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    how["env"] = {**environment(), "BROWSER": f"{browser} %s"}

    def check(address: str) -> None:
        token = re.search(r"token=([\w-]+)", address)
        assert token is not None
        until = time.monotonic() + 30
        while not noted.exists() and time.monotonic() < until:
            time.sleep(0.05)
        arguments = noted.read_text()
        noted.unlink()
        assert token[1] not in arguments
        (way,) = (root / "sim" / "review").glob("open-*.html")
        assert way.resolve().as_uri() == arguments.strip()
        assert stat.S_IMODE(way.stat().st_mode) == 0o600
        assert address.replace("&", "&amp;") in way.read_text()
        way.unlink()

    server = subprocess.Popen(command(*words, "reviewer=ana"), **how)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        check(server.stdout.readline().strip())
        joined = subprocess.run(command(*words, "reviewer=ben"), check=True, timeout=60, **how)
        check(joined.stdout.splitlines()[-1].strip())
        (root / "sim" / "review" / "open-12345678.html").touch()
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=30)
    assert not list((root / "sim" / "review").glob("open-*.html"))
