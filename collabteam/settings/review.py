"""Settings of ``collabteam.review``."""

from __future__ import annotations

from dataclasses import dataclass

from collabteam.errors import UserError
from collabteam.settings.camera import CommandConfig
from collabteam.settings.fields import setting
from collabteam.settings.names import is_reviewer
from collabteam.settings.seams import REVIEW_QUEUES


@dataclass
class ReviewConfig(CommandConfig):
    """Settings of a review, and of the page."""

    seed: int = setting(
        0, ge=0, help="seed of every draw: i0, test set, audit, and the crops verified twice"
    )
    queue: str = setting(
        "seed",
        choices=REVIEW_QUEUES,
        affects="place",
        help="queue to open first; the page links to the others",
    )
    reviewer: str = setting("", metavar="NAME", help="the reviewer's name; else the system user's")
    seed_per_class: int | None = setting(
        None,
        ge=1,
        metavar="1000",
        help="crops per proposed class in i0; by default as already drawn, or 1000",
    )
    seed_unknown: int | None = setting(
        None,
        ge=0,
        metavar="0",
        help="crops proposed as 'unknown' in i0; by default as already drawn, or 0",
    )
    test_per_class: int = setting(
        200, ge=1, help="objects per proposed class in the frozen test set"
    )
    audit_per_class: int = setting(
        200, ge=1, help="crops per class in queue=audit while no audit is open"
    )
    double: float = setting(
        0.0,
        ge=0,
        le=1,
        help="share of crops that a second reviewer verifies again without seeing the first answer",
    )
    host: str = setting(
        "127.0.0.1",
        affects="place",
        help="address to listen on; other machines can connect unless it is a loopback address",
    )
    port: int = setting(8130, ge=0, le=65535, affects="place", help="port; 0: any free one")
    url: str = setting(
        "",
        affects="place",
        metavar="https://...",
        pattern=r"(https?://[^\s/?#@]+/?)?",
        expected="http://HOST or https://HOST, without a path",
        help="the page's address for reviewers behind a proxy",
    )
    open: bool = setting(True, affects="place", help="open the browser")

    def check_together(self) -> None:
        """Raise unless the reviewer may have that name.

        Raises:
            UserError: The name is not usable.
        """
        super().check_together()
        if self.reviewer and not is_reviewer(self.reviewer):
            raise UserError(
                f"reviewer={self.reviewer!r}: expected up to 64 letters, digits, '_', '.', '@', "
                "'+' or '-', and not 'oracle', which is the simulated reviewer"
            )
