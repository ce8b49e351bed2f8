"""One page on many cameras that needs no network: the fleet's table, and each camera in detail.

What is known comes in as :class:`CameraFacts`; this module only lays it out. Every rate that comes
in is a fraction, 0 to 1; the page shows percent. The page loads nothing: style and script stand in
it, allowed by their hashes alone, pictures are data URIs, and its content security policy forbids
all else.
"""

from __future__ import annotations

import base64
import hashlib
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from collabteam.monitoring.facts import CameraFacts
from collabteam.monitoring.windows import TimeWindows
from collabteam.reporting import figures, percent
from collabteam.reporting.table1 import table1_rows
from collabteam.storage.files import replacing

SOURCES = {
    "person": "a person",
    "import": "a person, imported",
    "oracle": "simulated reviewer",
    "truth": "hidden truth",
}
"""Who says what a crop really shows, in words."""
_MOST_OPEN = 3
"""Cameras up to which all of them are shown in detail at once."""
_MOST_LISTED = 4
"""Classes of a certificate that the fleet's table names one by one."""
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class FleetRow:
    """One camera in the fleet's table.

    Attributes:
        facts: The camera.
        round: Its last complete round; None without.
        true: Mean over the branches of the recall of *true* on the frozen test set, 0 to 1; None
            without.
        false: The same of *false*.
        lowest: The lowest of all of them, 0 to 1; None without.
        lowest_name: Whose that is, such as ``cyclist, true``.
        coverage: Of the unlabelled pool, 0 to 1; None without.
        certified: Labels of classes that the last certificate covers.
        bound: The lowest certified share of right labels, 0 to 1; None where no class is certified.
    """

    facts: CameraFacts
    round: int | None = None
    true: float | None = None
    false: float | None = None
    lowest: float | None = None
    lowest_name: str = ""
    coverage: float | None = None
    certified: int = 0
    bound: float | None = None

    @property
    def mean(self) -> float | None:
        """Mean recall, as in Table 1."""
        return None if not self.facts.rounds else table1_rows(self.facts.rounds)[-1].test_mean


def fleet_row(facts: CameraFacts) -> FleetRow:
    """What the fleet's table says about a camera."""
    row = FleetRow(facts)
    if facts.rounds:
        last = facts.rounds[-1]
        test = last.recall.test
        row = replace(row, round=last.round, coverage=last.coverage)
        if test is not None:
            known = [
                (recall, name, side)
                for name, branch in test.items()
                for side, recall in branch.sides().items()
                if recall is not None
            ]
            lowest = min(known, default=(None, "", ""))
            row = replace(
                row, true=_mean(known, "true"), false=_mean(known, "false"), lowest=lowest[0],
                lowest_name=f"{lowest[1]}, {lowest[2]}" if known else "",
            )  # fmt: skip
    if facts.certificate is not None:
        passed = [one for one in facts.certificate.classes.values() if one.passed]
        row = replace(
            row, certified=sum(one.released for one in passed),
            bound=min((one.bound for one in passed if one.bound is not None), default=None),
        )  # fmt: skip
    return row


def _mean(known: Sequence[tuple[float, str, str]], side: str) -> float | None:
    values = [recall for recall, _, which in known if which == side]
    return statistics.fmean(values) if values else None


def write_fleet(
    cameras: Iterable[CameraFacts], to: Path, now: datetime | None = None
) -> list[FleetRow]:
    """Write the page; whoever opens it meanwhile sees the old one or the new one.

    Args:
        cameras: In the order in which they shall stand; may be a generator: of each camera only its
            row and its part of the page are kept.
        to: The file.
        now: The time that the page bears; None for that of the clock.

    Returns:
        The rows of the fleet's table.

    Raises:
        UserError: The file cannot be written.
    """
    page, section = (
        _environment().get_template("fleet.html"),
        _environment().get_template("camera.html"),
    )
    rows, sections = [], []
    for facts in cameras:
        row = fleet_row(facts)
        text = section.render(row=row, **_drawn(facts))
        rows.append(replace(row, facts=replace(facts, samples={}, windows=None)))
        sections.append(Markup(text))
    style, script = (
        (_TEMPLATES / name).read_text(encoding="utf-8") for name in ("fleet.css", "fleet.js")
    )
    parts = page.generate(
        rows=rows, sections=sections, style=Markup(style), script=Markup(script),
        style_hash=_hash(style), script_hash=_hash(script), now=now or datetime.now(UTC),
        sums=_sums(rows), overview=_overview(rows), marks=figures.marks(),
        is_open=len(rows) <= _MOST_OPEN,
    )  # fmt: skip
    with replacing(to) as file:
        file.writelines(part.encode() for part in parts)
    return rows


# -- what is drawn ---------------------------------------------------------------------------------


def _drawn(facts: CameraFacts) -> dict[str, Any]:
    """The values that a camera's part of the page needs besides the facts."""
    rounds = facts.rounds
    test = facts.label.test if facts.label else None
    return {
        "facts": facts,
        "table1": table1_rows(rounds),
        "course": figures.course(rounds) if rounds else [],
        "quality": figures.label_quality(test) if test else [],
        "drift": _drift(facts.windows, facts.newest) if facts.windows else [],
        "settings": _flat(rounds[-1].settings) if rounds else {},
    }


def _drift(found: TimeWindows, newest: float | None) -> list[figures.Panel]:
    """Coverage over time; nothing where a single window tells no course."""
    several = max(len(found.by_time), len(found.by_video)) > 1
    return figures.coverage_over_time(found, newest) if several else []


def _overview(rows: Sequence[FleetRow]) -> list[figures.Panel]:
    known = [
        (row, row.mean, row.coverage)
        for row in rows
        if row.mean is not None and row.coverage is not None
    ]
    return figures.overview(
        [row.facts.name for row, _, _ in known],
        [mean for _, mean, _ in known],
        [coverage for _, _, coverage in known],
        [row.facts.by_persons + row.facts.by_oracle for row, _, _ in known],
    )


def _sums(rows: Sequence[FleetRow]) -> dict[str, Any]:
    """What stands above the fleet's table."""
    recalls = [row.mean for row in rows if row.mean is not None]
    labels = [row.facts.label for row in rows if row.facts.label]
    return {
        "cameras": len(rows),
        "trained": sum(row.round is not None for row in rows),
        "problems": sum(bool(row.facts.problem) for row in rows),
        "alarms": sum(row.facts.alarm is True for row in rows),
        "crops": sum(row.facts.crops for row in rows),
        "labelled": sum(sum(label.labelled.values()) for label in labels),
        "certified": sum(row.certified for row in rows),
        "recall": statistics.median(recalls) if recalls else None,
        "by_persons": sum(row.facts.by_persons for row in rows),
        "by_oracle": sum(row.facts.by_oracle for row in rows),
    }


# -- the page --------------------------------------------------------------------------------------


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "pct": percent, "floored": _floored, "count": _count, "picture": _data_uri,
        "svg": figures.svg,
    }  # fmt: skip
    environment.globals |= {
        "swatch": figures.swatch, "SOURCES": SOURCES, "MOST_LISTED": _MOST_LISTED
    }  # fmt: skip
    return environment


def _floored(rate: float) -> str:
    """A bound, rounded to the safe side."""
    return f"{int(rate * 1000 + 1e-9) / 10:.1f}"


def _count(number: int) -> str:
    return f"{number:,}"


def _data_uri(picture: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(picture).decode()}"


def _hash(text: str) -> str:
    """As a content security policy names what may stand in the page."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = (
                ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            )
    return flat
