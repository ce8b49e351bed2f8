"""Who may see the page: one-time addresses, and the sessions that they open."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from collabteam.storage.files import write_text

INVITATION = 3600.0
"""Seconds for which an address that was printed opens the page."""
SESSION = 7 * 86400.0
"""Seconds for which a browser stays known: over a kill of the server, not for ever."""


@dataclass(frozen=True)
class Session:
    """A browser that opened a one-time address.

    Attributes:
        reviewer: Who sits there.
        expires: In Unix seconds.
    """

    reviewer: str
    expires: float


class Sessions:
    """One-time tokens in memory; sessions in a file, so that they outlive a killed server.

    The file holds hashes of the cookies alone: reading it lets nobody in.

    Args:
        file: Where sessions are kept, for the owner alone to read.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._invited: dict[str, Session] = {}
        self._open: dict[str, Session] = {}
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
            self._open = {digest: Session(**session) for digest, session in kept.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            # Whoever was known must open an address again; nothing else is lost.
            self._open = {}

    def invite(self, reviewer: str) -> str:
        """A token that lets a reviewer in once."""
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._invited[_digest(token)] = Session(reviewer, time.time() + INVITATION)
        return token

    def enter(self, token: str) -> str | None:
        """Use up a token.

        Returns:
            The content of the cookie that stands for the session; None if the token is none, was
            used, or is too old.
        """
        with self._lock:
            digest = _find(self._invited, token)
            if digest is None:
                return None
            invited = self._invited.pop(digest)
            if invited.expires < time.time():
                return None
            cookie = secrets.token_urlsafe(32)
            session = Session(invited.reviewer, time.time() + SESSION)
            self._open[_digest(cookie)] = session
            self._save()
            return cookie

    def reviewer(self, cookie: str) -> str | None:
        """Who a cookie belongs to; None if to nobody, or no longer."""
        with self._lock:
            digest = _find(self._open, cookie)
            if digest is None or self._open[digest].expires < time.time():
                return None
            return self._open[digest].reviewer

    def _save(self) -> None:
        now = time.time()
        self._open = {d: session for d, session in self._open.items() if session.expires > now}
        kept = {
            digest: {"reviewer": session.reviewer, "expires": session.expires}
            for digest, session in self._open.items()
        }
        write_text(self._file, json.dumps(kept), private=True)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _find(known: dict[str, Session], secret: str) -> str | None:
    """The entry of a secret, in a time that does not tell how near a wrong one is."""
    digest, found = _digest(secret), None
    for candidate in known:
        if hmac.compare_digest(candidate, digest):
            found = candidate
    return found
