"""A running review server, and a client that behaves as the page does."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conftest import start as start_command
from forking import Forked

ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)(/enter\?token=[\w-]+&queue=\w+)")


@dataclass
class Server:
    """A review server in a process of its own."""

    process: Forked | subprocess.Popen[str]
    port: int
    way_in: str

    def stop(self, sent: int = signal.SIGINT) -> str:
        """What it says in the end."""
        self.process.send_signal(sent)
        out, _ = self.process.communicate(timeout=30)
        return out

    def kill(self) -> None:
        self.stop(signal.SIGKILL)


def start(root: Path, *settings: str, camera: str = "sim", port: int = 0) -> Server:
    """Start a server; it is there when this returns."""
    given = {part.split("=")[0] for part in settings}
    settings += tuple(
        default
        for default in (f"port={port}", "reviewer=ana")
        if default.split("=")[0] not in given
    )
    process = start_command(
        "review", root.parent, f"root={root}", f"camera={camera}", "open=false", *settings
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    line = process.stdout.readline()
    match = ADDRESS.search(line)
    if match is None:
        process.kill()
        raise AssertionError(f"no address: {line!r} {process.stderr.read()}")
    return Server(process, int(match[1]), match[2])


@contextmanager
def serving(root: Path, *settings: str, camera: str = "sim", port: int = 0) -> Iterator[Server]:
    """A server that ends with the block."""
    server = start(root, *settings, camera=camera, port=port)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()


@dataclass
class Answer:
    """What the server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """A browser without a screen: a cookie and a tab."""

    port: int
    cookie: str = ""
    tab: str = field(default_factory=lambda: uuid.uuid4().hex)

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        sent = {"Host": f"127.0.0.1:{self.port}"}
        if self.cookie:
            sent["Cookie"] = self.cookie
        content = None
        if body is not None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        sent |= headers or {}
        try:
            connection.request(method, path, content, sent)
            answer = connection.getresponse()
            named = {name.lower(): text for name, text in answer.getheaders()}
            return Answer(answer.status, named, answer.read())
        finally:
            connection.close()

    def enter(self, way_in: str) -> Answer:
        answer = self.send("GET", way_in)
        if "set-cookie" in answer.headers:
            self.cookie = answer.headers["set-cookie"].split(";")[0]
        return answer

    def call(self, name: str, **body: Any) -> Any:
        """One request of the page, which must be answered."""
        answer = self.send("POST", f"/api/{name}", {"tab": self.tab, **body})
        assert answer.status == 200, answer.body
        return answer.json

    def page(self, queue: str = "seed", size: int = 60, **more: Any) -> Any:
        return self.call("page", queue=queue, size=size, **more)

    def commit(self, page: Any, answers: dict[str, str], name: str = "") -> Any:
        return self.call(
            "commit", commit=name or str(uuid.uuid4()), queue=page["queue"], page=page["page"],
            answers=answers,
        )  # fmt: skip


def visitor(server: Server) -> Client:
    """Somebody who opened the printed address."""
    client = Client(server.port)
    assert client.enter(server.way_in).status == 200
    assert client.cookie
    return client


def verify_all(client: Client, truth: dict[str, str], queue: str = "seed", size: int = 60) -> int:
    """Verify a queue to its end; returns the number of pages."""
    pages = 0
    while (page := client.page(queue, size))["crops"]:
        client.commit(page, {crop["id"]: truth[crop["id"]] for crop in page["crops"]})
        pages += 1
    return pages


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
