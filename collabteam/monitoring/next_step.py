"""The next command for a camera, decided in one place.

:mod:`collabteam.monitoring.progress` knows a camera's records, :mod:`collabteam.monitoring.facts`
its crops and its log as well. Both describe what they know as a :class:`Standing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Audited = Literal["not", "open", "answered", "failed", "outdated", "passed"]
"""State of the last audit: none yet, unanswered, answered and not judged, refused, passed for an
earlier labelling, passed."""


@dataclass(frozen=True)
class Standing:
    """How far a camera has come. What is not known has its default.

    Attributes:
        camera: The camera's name.
        crops: Whether it has any.
        classes: Whether classes are registered.
        asked: Whether i0 is drawn, or anything is verified.
        round: The last complete round, -1 for none.
        tested: Whether there is a verified frozen test set.
        alarm: Whether the newest stretch is labelled less confidently.
        labelled: By nobody, by an earlier team or by the last one.
        new: Crops that came since the last labelling, 0 or more.
        audited: State of the last audit.
        unanswered: Crops of an open audit without an answer; 0 if not known.
        refused: Classes that the audit refused.
        judge: The command that judges an answered audit, without ``python -m collabteam.``.
    """

    camera: str
    crops: bool = True
    classes: bool = True
    asked: bool = True
    round: int = -1
    tested: bool = True
    alarm: bool = False
    labelled: Literal["not", "earlier", "now"] = "not"
    new: int = 0
    audited: Audited = "not"
    unanswered: int = 0
    refused: tuple[str, ...] = ()
    judge: str = ""


def next_step(now: Standing) -> tuple[str, str]:
    """Choose the next command, and give the reason.

    Args:
        now: How far the camera has come.

    Returns:
        The command without ``python -m collabteam.``, such as ``label camera=S10-08``; and why.
    """
    command, settings, why = _choose(now)
    if now.audited == "answered" and command == "audit":
        return now.judge, why
    return f"{command} camera={now.camera}{settings}", why


def _choose(now: Standing) -> tuple[str, str, str]:
    """Command, settings and reason."""
    if not now.crops:
        return "ingest", " path=...", "no crops yet"
    if not now.classes:
        return "ingest", " path=... 'camera.classes=[a,b]'", "no classes are registered"
    if now.round < 0:
        if not now.asked:
            return "review", "", "no crop is verified yet"
        return "train", " round=0", "verified, and not trained yet"
    if not now.tested:
        return "review", " queue=test", "no frozen test set says how good the team is"
    if now.alarm:
        why = "the newest crops are labelled less confidently than before"
        return "review", " queue=unsure", why
    if now.labelled != "now":
        team = f"the team of round {now.round} has not labelled yet"
        return "label", "", f"{team}, an earlier one has" if now.labelled == "earlier" else team
    if now.new:
        return "label", "", f"{now.new:,} crops came since the last labelling"
    if now.audited == "not":
        return "audit", "", "the labels are not audited"
    if now.audited == "open":
        left = f", {now.unanswered:,} crops are unanswered" if now.unanswered else ""
        return "review", " queue=audit", f"the audit is open{left}"
    if now.audited == "answered":
        return "audit", "", "the audit is answered, and not judged yet"
    if now.audited == "failed":
        named = f" {', '.join(now.refused)}" if now.refused else " some classes"
        why = f"the audit refused{named}: verify more, then train, label and audit again"
        return "review", " queue=unsure", why
    if now.audited == "outdated":
        return "audit", " new=true", "the certificate is of an earlier labelling"
    return "export", " certified=true to=FOLDER", "certified"
