"""Access to the review page: one-time tokens, and the browser sessions that they open."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from collabteam.errors import UserError
from collabteam.settings import is_reviewer
from collabteam.storage.files import read_json, write_text

INVITATION = 3600.0
"""Lifetime in seconds of a printed address."""
SESSION = 7 * 86400.0
"""Lifetime in seconds of a browser's session; it survives a restart of the server."""


@dataclass(frozen=True)
class Session:
    """The session of a browser that opened a one-time address.

    Attributes:
        reviewer: Name of the reviewer who uses the browser.
        expires: End of the session in Unix seconds.
    """

    reviewer: str
    expires: float


class Sessions:
    """Keeps one-time tokens in memory, and sessions in a file that survives a killed server.

    The file stores only hashes of the cookies, so it does not grant access.

    Args:
        file: File of the sessions; only its owner can read it.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._invited: dict[str, Session] = {}
        self._open: dict[str, Session] = {}
        try:
            kept = read_json(file)
            self._open = {digest: Session(**session) for digest, session in kept.items()}
            for digest, one in self._open.items():
                if not digest.isascii() or type(one.expires) is not float:
                    raise TypeError("digest or expires")
                if type(one.reviewer) is not str or not is_reviewer(one.reviewer):
                    raise TypeError("reviewer")
        except (UserError, TypeError):
            # Reviewers have to open a new address; nothing else is lost.
            self._open = {}

    def invite(self, reviewer: str) -> str:
        """Create a token that admits a reviewer once."""
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._invited[_digest(token)] = Session(reviewer, time.time() + INVITATION)
        return token

    def enter(self, token: str) -> str | None:
        """Exchange a token for a session.

        Args:
            token: A token from :meth:`invite`.

        Returns:
            Value of the session's cookie; None if the token is invalid, used or expired.
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
        """Return the reviewer of a cookie; None if the cookie is invalid or expired."""
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
    """Find the entry of a secret in constant time, to prevent timing attacks."""
    digest, found = _digest(secret), None
    for candidate in known:
        if hmac.compare_digest(candidate, digest):
            found = candidate
    return found
