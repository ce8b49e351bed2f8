"""An S3 server on loopback, in a process of its own: moto's, and faults that a test asks for.

``python s3_server.py`` prints its port. ``POST /-/faults`` takes JSON:

- ``away``: seconds for which every connection is closed without an answer;
- ``lose``: ``[method, pattern, count, how]``: so many requests whose path matches are done, and
  then the answer is lost (``how`` is ``drop``) or is a server's error (``500``);
- ``careless``: whether conditions of a request are ignored, as old stores do;
- ``hold``: ``[method, pattern]``: requests that wait until there is no ``hold`` any more.

``GET /-/faults`` says which requests wait and how many answers were lost.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class FaultyServer:
    """The server as a WSGI application; one request at a time, so that each is atomic."""

    def __init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._alone = threading.Lock()
        self._away = 0.0
        self._lose: list[Any] = []
        self._hold: list[str] = []
        self._held: set[str] = set()
        self._lost = 0
        self._careless = False

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if path == "/-/faults":
            return self._control(method, environ, start)
        self._wait(method, path)
        if time.monotonic() < self._away:
            return self._drop(environ, start)
        if self._careless:
            environ.pop("HTTP_IF_NONE_MATCH", None)
            environ.pop("HTTP_IF_MATCH", None)
        answer: list[Any] = []
        with self._alone:
            content = b"".join(self._moto(environ, lambda *head: answer.append(head)))
        if self._lose and self._lose[0] == method and re.search(self._lose[1], path):
            how = self._lose[3]
            self._lose[2] -= 1
            self._lost += 1
            if not self._lose[2]:
                self._lose = []
            if how == "drop":
                return self._drop(environ, start)
            answer, content = [("500 Internal Server Error", [("Content-Length", "0")])], b""
        start(*answer[0])
        return [content]

    def _control(
        self, method: str, environ: dict[str, Any], start: Callable[..., Any]
    ) -> list[bytes]:
        if method == "POST":
            asked = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            self._away = time.monotonic() + asked.get("away", 0.0)
            self._lose, self._hold = asked.get("lose", []), asked.get("hold", [])
            self._careless = bool(asked.get("careless"))
            self._lost = 0
        start("200 OK", [])
        return [json.dumps({"held": sorted(self._held), "lost": self._lost}).encode()]

    def _wait(self, method: str, path: str) -> None:
        while self._hold and self._hold[0] == method and re.search(self._hold[1], path):
            self._held.add(path)
            time.sleep(0.01)
        self._held.discard(path)

    @staticmethod
    def _drop(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        start("200 OK", [])
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return []


class Silent(WSGIRequestHandler):
    """Writes no log."""

    def log(self, type: str, message: str, *args: Any) -> None:
        """Nothing."""


if __name__ == "__main__":
    server = make_server(
        "127.0.0.1", 0, FaultyServer(), threaded=True, request_handler=Silent
    )  # fmt: skip
    print(server.server_port, flush=True)
    server.serve_forever()
