"""The review page's server: access control, and the HTTP interface of the review session.

Pictures of people are personal data. The server listens on loopback by default, shows nothing to a
browser that has not opened a one-time address, refuses requests from other sites, and identifies
crops by their ids only.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import html
import http.client
import ipaddress
import json
import secrets
import signal
import socket
import threading
import urllib.request
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from collabteam.catalog import Catalog
from collabteam.errors import Terminated, UserError, first_line, plain
from collabteam.events import Listener
from collabteam.reviewing.review_queue import REVIEW_QUEUES
from collabteam.reviewing.session import Refused, ReviewSession
from collabteam.settings import ReviewConfig
from collabteam.storage.files import make_folder, write_text
from collabteam.storage.layout import ReviewFiles
from collabteam.storage.locks import Lock, LockHeld
from collabteam.video.still import StillExtractor
from collabteam.web.limits import AnswerPace, LimitedProtocol
from collabteam.web.sessions import Sessions

_STATIC = Path(__file__).parent / "static"
_CONTENT_TYPES = {
    "review.html": "text/html; charset=utf-8",
    "review.js": "text/javascript; charset=utf-8",
    "review.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_MAX_BYTES = 256 * 1024
"""Maximum size of a request's body; 500 answers take 30 kB."""
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    # Keep pictures out of the browser's cache on disk.
    "cache-control": "no-store",
}
_EVERYWHERE = ("0.0.0.0", "::", "")
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class _RequestGuard:
    """Refuses requests from other sites and for other hosts, and adds the security headers.

    Args:
        app: The application to protect.
        hosts: Accepted values of the ``Host`` header.
        everywhere: Whether the address at which a request arrived is accepted as well.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str], everywhere: bool) -> None:
        self._app, self._hosts, self._everywhere = app, hosts, everywhere

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]
        }

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(n.encode(), text.encode()) for n, text in _HEADERS.items()]
                message["headers"] = [*message["headers"], *own]
            await send(message)

        hosts = self._hosts
        if self._everywhere and scope.get("server"):
            hosts |= {"{}:{}".format(*scope["server"])}
        if (refusal := self._refusal(headers, hosts)) is not None:
            await refusal(scope, receive, guarded)
        else:
            await self._app(scope, receive, guarded)

    def _refusal(self, headers: dict[str, str], hosts: frozenset[str]) -> Response | None:
        host = headers.get("host", "").lower()
        if host not in hosts:
            # DNS rebinding: a foreign name that resolves to this server.
            return _error(421, f"this server is not {host or 'without a name'}")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() not in hosts:
            return _error(403, "a request from another site is refused")
        # Cookies are shared by all ports of a host, so accept only requests from this page and
        # addresses that the user opened.
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            if headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") in (
                "document", None
            ):  # fmt: skip
                return None
            return _error(403, "a request from another site is refused")
        return None


def _error(status: int, text: str) -> JSONResponse:
    # The text may quote characters of the request that cannot be encoded.
    return JSONResponse({"error": text.encode("utf-8", "replace").decode()}, status)


def cookie_name(camera: str) -> str:
    """Name of the session's cookie; it includes the camera, because ports share cookies."""
    return f"collabteam-{hashlib.sha256(camera.encode()).hexdigest()[:12]}"


def make_app(
    review: ReviewSession,
    sessions: Sessions,
    stills: StillExtractor,
    hosts: frozenset[str],
    secret: str,
    secure: bool,
    everywhere: bool = False,
) -> Starlette:
    """Create the review page's ASGI application.

    Args:
        review: The review session, which gives pages and takes answers.
        sessions: The browser sessions.
        stills: Extracts the frames around the crops.
        hosts: Accepted values of the ``Host`` header.
        secret: Secret with which another process on this machine can request invitations.
        secure: Whether the page is reached over TLS, so that cookies can require it.
        everywhere: Whether the server listens on every address of the machine.

    Returns:
        The application.
    """
    cookie, pace = cookie_name(review.catalog.name), AnswerPace()

    def reviewer_of(request: Request) -> str:
        name = sessions.reviewer(request.cookies.get(cookie, ""))
        if name is None:
            raise HTTPException(401, "open the address that 'python -m collabteam.review' printed")
        return name

    def page(request: Request) -> Response:
        if sessions.reviewer(request.cookies.get(cookie, "")) is None:
            return Response(
                "Open this page through the address that 'python -m collabteam.review' printed. "
                "It works in one browser. Run the command again for another address.\n",
                401, media_type="text/plain",
            )  # fmt: skip
        return _static("review.html")

    def enter(request: Request) -> Response:
        if request.method == "HEAD":  # as previews of links send it; the address stays usable
            return Response(media_type="text/html")
        known = sessions.reviewer(request.cookies.get(cookie, "")) is not None
        content = sessions.enter(request.query_params.get("token", ""))
        if content is None and not known:
            return Response(
                "This address was used before, has expired, or is not the one that was printed: "
                "run 'python -m collabteam.review' again for a new address.\n",
                401, media_type="text/plain",
            )  # fmt: skip
        queue = quote(request.query_params.get("queue", "seed"), safe="")
        # Not a redirect: after a link from another site, browsers would not send the strict cookie
        # with it. They send it when this page loads the next one.
        answer = Response(
            f'<!doctype html><meta http-equiv="refresh" content="0; url=/?queue={queue}">',
            media_type="text/html",
        )
        if content is not None:
            answer.set_cookie(
                cookie, content, max_age=7 * 86400, httponly=True, samesite="strict", secure=secure
            )
        return answer

    async def body_of(request: Request) -> dict[str, Any]:
        # Forms on other sites can send other types without a preflight request.
        if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
            raise HTTPException(415, "expected application/json")
        content = bytearray()
        try:
            async for part in request.stream():
                content += part
                if len(content) > _MAX_BYTES:
                    raise HTTPException(413, f"expected at most {_MAX_BYTES} bytes")
        except ClientDisconnect as error:
            raise HTTPException(400, "the connection ended too early") from error
        try:
            body = json.loads(content.decode())
            if b"\\u" in content:  # halves of characters can be written so, and nothing takes them
                json.dumps(body, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise HTTPException(400, "expected JSON in UTF-8, with whole characters") from error
        if not isinstance(body, dict):
            raise HTTPException(400, "expected a JSON object")
        return body

    def api(work: Callable[[str, dict[str, Any]], dict[str, Any]]) -> Callable[..., Any]:
        async def answer(request: Request) -> Response:
            name = reviewer_of(request)
            body = await body_of(request)
            if body.get("reviewer", name) != name:
                # Another reviewer's address was opened in this browser.
                raise HTTPException(409, f"this browser is {name}'s now")
            return JSONResponse(await run_in_threadpool(work, name, body))

        return answer

    def state(name: str, body: dict[str, Any]) -> dict[str, Any]:
        return review.state(name, _text(body, "tab"), _text(body, "queue"))

    def next_page(name: str, body: dict[str, Any]) -> dict[str, Any]:
        size = body.get("size")
        if not isinstance(size, int):
            raise Refused("expected 'size', a number")
        return review.page(
            name, _text(body, "tab"), _text(body, "queue"), size,
            _held_pages(body.get("hold", {})), body.get("again") is True,
        )  # fmt: skip

    def commit(name: str, body: dict[str, Any]) -> dict[str, Any]:
        answers = body.get("answers")
        if not isinstance(answers, dict):
            raise Refused("expected 'answers', an object of crop and label")
        _texts(list(answers.values()))
        if not pace.take(name, len(answers)):
            raise HTTPException(
                429, "answers come faster than a person gives them: wait a few seconds"
            )
        return review.commit(
            name, _text(body, "commit"), _text(body, "queue"), _text(body, "page"), answers
        )

    def undo(name: str, body: dict[str, Any]) -> dict[str, Any]:
        return review.undo(name, _text(body, "tab"), _text(body, "queue"), _text(body, "commit"))

    def release(name: str, body: dict[str, Any]) -> dict[str, Any]:
        review.release(_text(body, "tab"))
        return {}

    def crop(request: Request) -> Response:
        reviewer_of(request)
        image, kind = review.picture(request.path_params["crop"])
        return Response(image, media_type=kind)

    def frame(request: Request) -> Response:
        reviewer_of(request)
        origin = review.context(request.path_params["crop"])
        box = origin["box"]
        time = float("nan") if origin["time"] is None else origin["time"]
        image = stills.jpeg(origin["video"], origin["frame"], time, tuple(box) if box else None)
        if image is None:
            return _error(404, "the frame is not available: its video was moved or is damaged")
        return Response(image, media_type="image/jpeg")

    def context(request: Request) -> Response:
        reviewer_of(request)
        origin = review.context(request.path_params["crop"])
        origin["still"] = stills.available(origin["video"])
        return JSONResponse(origin)

    async def invite(request: Request) -> Response:
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {secret}".encode()):
            raise HTTPException(401, "expected the secret of this server")
        body = await body_of(request)
        return JSONResponse({"token": sessions.invite(_text(body, "reviewer"))})

    async def refused(request: Request, error: Exception) -> Response:
        return _error(400, str(error))

    async def failed(request: Request, error: Exception) -> Response:
        # Such as a full disk or a damaged table: the page keeps its answers and tries again.
        return _error(503, str(error))

    async def crashed(request: Request, error: Exception) -> Response:
        return _error(500, f"the server failed: {first_line(error)}")

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _error(error.status_code, error.detail)

    def file(name: str) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            reviewer_of(request)
            return _static(name)

        return answer

    app = Starlette(
        routes=[
            Route("/", page),
            Route("/enter", enter),
            Route("/favicon.ico", lambda request: Response(status_code=204)),
            *(Route(f"/static/{name}", file(name)) for name in _CONTENT_TYPES),
            Route("/api/state", api(state), methods=["POST"]),
            Route("/api/page", api(next_page), methods=["POST"]),
            Route("/api/commit", api(commit), methods=["POST"]),
            Route("/api/undo", api(undo), methods=["POST"]),
            Route("/api/release", api(release), methods=["POST"]),
            Route("/api/invite", invite, methods=["POST"]),
            Route("/api/context/{crop}", context),
            Route("/crop/{crop}", crop),
            Route("/frame/{crop}", frame),
        ],
        exception_handlers={
            Refused: refused,
            UserError: failed,
            HTTPException: http_error,
            Exception: crashed,
        },
    )
    app.router.redirect_slashes = False
    app.add_middleware(_RequestGuard, hosts=hosts, everywhere=everywhere)
    return app


def _static(name: str) -> Response:
    return Response((_STATIC / name).read_bytes(), headers={"content-type": _CONTENT_TYPES[name]})


def _text(body: dict[str, Any], name: str) -> str:
    text = body.get(name)
    if not isinstance(text, str) or len(text) > 200 or not text.isprintable():
        raise Refused(f"expected {name!r}, a short text")
    return text


def _held_pages(pages: object) -> dict[str, list[str]]:
    if not isinstance(pages, dict):
        raise Refused("expected 'hold', an object of pages and crops")
    return {str(name)[:64]: _texts(crops) for name, crops in pages.items()}


def _texts(values: object) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise Refused("expected a list of texts")
    return values


# -- serving -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReviewSummary:
    """The result of one run of the review server.

    Attributes:
        verified: Crops that were verified while the server ran.
        kept: Verified crops whose answer is the suggested label.
        left: Crops of the queue that are not verified yet.
        next: The command to run once none are left.
        agreement: ``kappa`` (None if it is not defined), the number of ``crops`` on which it is
            based, and the number of open ``conflicts``.
    """

    verified: int
    kept: int
    left: int
    next: str
    agreement: dict[str, Any]


def serve(
    catalog: Catalog, config: ReviewConfig, reviewer: str, listener: Listener
) -> ReviewSummary | None:
    """Serve the review page until ^C.

    If a server for the camera is running already, ask it to admit this reviewer.

    Args:
        catalog: The camera.
        config: The address to listen on, and the queue.
        reviewer: Name of the reviewer.
        listener: Receives messages and warnings.

    Returns:
        The result; None if another process serves the camera.

    Raises:
        UserError: The port is taken, the queue is empty, or the camera is reviewed from another
            machine.
    """
    queue = REVIEW_QUEUES.load(config.queue)()
    files = catalog.workspace.review
    make_folder(files.folder, private=True)
    try:
        lock = Lock(files.lock, {"command": "review"}, private=True)
    except LockHeld as held:
        # Prepare the queue in this process; the running server reads the result.
        queue.prepare(catalog, config, listener)
        _request_invitation(held, config, reviewer, files, listener)
        return None
    try:
        _forget_ways_in(files)  # of a server that was killed
        with _listen(config) as listening:
            queue.prepare(catalog, config, listener)
            review = ReviewSession(catalog, config)
            _check_not_empty(review, config)
            port = listening.getsockname()[1]
            local, hosts = _addresses(config, port)
            secret, sessions = secrets.token_urlsafe(24), Sessions(files.sessions)
            public = config.url.rstrip("/") or local
            lock.tell({"command": "review", "local": local, "url": public, "secret": secret})
            secure = public.startswith("https:")
            app = make_app(
                review, sessions, StillExtractor(catalog.workspace.videos), hosts, secret, secure,
                config.host in _EVERYWHERE,
            )  # fmt: skip
            if not _is_loopback(config.host):
                listener.warn(
                    f"host={config.host}: other machines can reach this page. It opens only "
                    "through an address printed here (with this machine's name or address in it, "
                    "or given as url=...), but the traffic can be read on the network unless a "
                    "proxy adds TLS (then set url=https://...)"
                )
            whole = _print_address(public, sessions.invite(reviewer), config, reviewer)
            if config.open:  # a browser for terminals returns only when it is left
                threading.Thread(target=_open_browser, args=(whole, files), daemon=True).start()
            listener.say("stop with Ctrl-C; answers are saved in the catalog at once")
            server = uvicorn.Server(
                uvicorn.Config(
                    app, http=LimitedProtocol, log_level="error", access_log=False,
                    server_header=False, lifespan="off", ws="none", proxy_headers=False,
                    timeout_graceful_shutdown=2,
                )
            )  # fmt: skip
            _run(server, listening)
            line = review.state(reviewer, "", config.queue)
            return ReviewSummary(
                *review.verified(), review.left(config.queue), line["next"], line["agreement"]
            )
    finally:
        _forget_ways_in(files)
        lock.release()


def _run(server: uvicorn.Server, listening: socket.socket) -> None:
    """Serve until ^C, which is the usual end.

    Raises:
        Terminated: SIGTERM came.
    """
    ends: list[int] = []

    def end(number: int, frame: object) -> None:
        # An exception amid the start of the server would leave it half made.
        ends.append(number)
        server.should_exit = True

    try:
        before = {one: signal.signal(one, end) for one in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread
        before = {}
    try:
        server.run(sockets=[listening])
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    if signal.SIGTERM in ends:
        raise Terminated


def _forget_ways_in(files: ReviewFiles) -> None:
    for way in files.ways_in():
        way.unlink(missing_ok=True)


def _listen(config: ReviewConfig) -> socket.socket:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, proto)
    except OSError as error:
        raise UserError(
            f"host={config.host}: expected an address of this machine: {error}"
        ) from error
    try:
        # Without this, the port of a killed server stays in use for a minute.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"port {config.port} on {config.host} is taken by another program: choose "
                "another with port=..., or port=0 for any that is free"
            ) from error
        raise UserError(
            f"host={config.host} port={config.port} cannot be listened on: {error.strerror}"
        ) from error
    return listening


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _addresses(config: ReviewConfig, port: int) -> tuple[str, frozenset[str]]:
    """Return the server's local address, and the accepted values of the ``Host`` header."""
    names = {*_LOOPBACK} if _is_loopback(config.host) else set()
    everywhere = config.host in _EVERYWHERE
    if everywhere:
        names |= {*_LOOPBACK, socket.gethostname(), socket.getfqdn()}
        with suppress(OSError):
            names |= {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None)}
    else:
        names.add(f"[{config.host}]" if ":" in config.host else config.host)
    hosts = {f"{name}:{port}".lower() for name in names}
    if port == 80:
        hosts |= {name.lower() for name in names}
    if config.url:
        hosts.add(urlsplit(config.url).netloc.lower())
    local = "127.0.0.1" if everywhere else config.host
    return f"http://{f'[{local}]' if ':' in local else local}:{port}", frozenset(hosts)


def _check_not_empty(review: ReviewSession, config: ReviewConfig) -> None:
    """Check that the queue has any crops.

    Raises:
        UserError: The queue has never had a crop; the message says how to get some.
    """
    name = review.catalog.name
    if review.total(config.queue):
        return
    raise UserError(
        f"queue={config.queue} of camera {name} is empty: {review.why_empty(config.queue)}"
    )


def _print_address(address: str, token: str, config: ReviewConfig, reviewer: str) -> str:
    """Print the whole address, and return it."""
    whole = f"{address}/enter?token={token}&queue={quote(config.queue)}"
    print(
        plain(f"{config.camera.name}, queue {config.queue}, for {reviewer}, works in one browser:")
    )
    print(f"  {whole}", flush=True)
    return whole


def _open_browser(address: str, files: ReviewFiles) -> None:
    """Open an address through a private file: every user can read a browser's arguments."""
    way = files.way_in(secrets.token_hex(4))
    target = html.escape(address, quote=True)
    with suppress(OSError, UserError, webbrowser.Error):  # the address was printed
        write_text(
            way,
            '<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
            f'<meta http-equiv="refresh" content="0; url={target}">\n',
            private=True,
        )
        webbrowser.open(way.resolve().as_uri())


def _request_invitation(
    held: LockHeld, config: ReviewConfig, reviewer: str, files: ReviewFiles, listener: Listener
) -> None:
    """Ask the running server to invite this reviewer."""
    holder = held.holder
    if "secret" not in holder:
        raise UserError(
            f"the review of camera {config.camera.name} is being started by "
            f"{held.describe()}: try again in a few seconds"
        )
    try:
        request = urllib.request.Request(
            f"{holder['local']}/api/invite",
            json.dumps({"reviewer": reviewer}).encode(),
            {"content-type": "application/json", "authorization": f"Bearer {holder['secret']}"},
        )
        # Without a proxy, because the address is on this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=5) as answer:
            token, url = str(json.loads(answer.read())["token"]), str(holder["url"])
    except (KeyError, ValueError, TypeError, OSError, http.client.HTTPException) as error:
        raise UserError(
            f"camera {config.camera.name} is being reviewed by {held.describe()}, which this "
            f"command cannot reach ({error}): run the command on that machine, or stop that process"
        ) from error
    listener.say(
        f"{config.camera.name} is served already by {held.describe()}; its settings apply (double, "
        "audit_per_class, host, port, url)"
    )
    whole = _print_address(url, token, config, reviewer)
    if config.open:
        _open_browser(whole, files)
