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

from collabteam.errors import UserError
from collabteam.labelling.records import LabelRecord
from collabteam.monitoring.facts import CameraFacts
from collabteam.monitoring.windows import TimeWindow, TimeWindows
from collabteam.reporting import charts
from collabteam.reporting.charts import Bar, Series
from collabteam.reporting.table1 import table1_rows
from collabteam.rounds.records import RoundRecord
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
        sums=_sums(rows), overview=_overview(rows), is_open=len(rows) <= _MOST_OPEN,
    )  # fmt: skip
    try:
        with replacing(to) as file:
            file.writelines(part.encode() for part in parts)
    except OSError as error:
        raise UserError(f"to={to} cannot be written: {error.strerror or error}") from error
    return rows


# -- what is drawn ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """A chart with what stands above and below it.

    Attributes:
        title: Above.
        chart: The ``svg`` element.
        note: Below, ``""`` for nothing.
    """

    title: str
    chart: Markup
    note: str = ""


def _drawn(facts: CameraFacts) -> dict[str, Any]:
    """What a camera's part of the page needs besides the facts."""
    rounds = facts.rounds
    return {
        "facts": facts,
        "table1": table1_rows(rounds),
        "course": _course(rounds) if rounds else [],
        "quality": _quality(facts.label) if facts.label else [],
        "drift": [] if facts.windows is None else _drift(facts.windows, facts.newest),
        "settings": _flat(rounds[-1].settings) if rounds else {},
    }


def _course(rounds: Sequence[RoundRecord]) -> list[Figure]:
    """Recalls of the branches on the frozen test set, and the pool, over the rounds."""
    classes, last = rounds[-1].classes, rounds[-1]
    x = charts.round_axis([record.round for record in rounds])
    if last.recall.test is None:
        note = "no frozen test set: human-labelled crops of the validation folds"
        recalls = [record.recall.human for record in rounds]
    else:
        note = f"{last.test_size:,} crops of the frozen test set, which never train"
        recalls = [record.recall.test or {} for record in rounds]
    figures = []
    lines = {
        side: [
            Series(
                name,
                _by_round(rounds, [one[name].sides()[side] if one else None for one in recalls]),
                number,
            )
            for number, name in enumerate(classes)
        ]
        for side in ("true", "false")
    }
    # Both on one scale, so that they can be compared.
    values = [value for side in lines.values() for one in side for _, value in one.points]
    y = charts.percent_axis("recall, %", values)
    for side, series in lines.items():
        said = f"Recall of {side} by round: " + "; ".join(
            f"{one.name} {', '.join(f'{value:.1f}' for _, value in one.points)}" for one in series
        )
        what = (
            "of its class that a branch calls true"
            if side == "true"
            else ("of all other crops that it calls false")
        )
        figures.append(
            Figure(f"Recall of {side}", charts.chart(said, x, y, series), f"Share {what}; {note}.")
        )
    pool = [
        Series("coverage", _by_round(rounds, [record.coverage for record in rounds]), 0),
        Series("I don't know", _by_round(rounds, [record.abstain_rate for record in rounds]), 1),
    ]
    said = "; ".join(
        f"{one.name} by round: {', '.join(f'{value:.1f}' for _, value in one.points)}"
        for one in pool
    )
    chart = charts.chart(said, x, charts.percent_axis("of the pool, %", [], floor=0), pool)
    figures.append(
        Figure(
            "Coverage and “I don't know”", chart,
            Markup("{}: of the {} crops that nobody has labelled.").format(
                _legend(pool), f"{last.pool_size:,}"
            ),
        )
    )  # fmt: skip
    if len(rounds) > 1:
        figures.append(_increments(rounds, x))
    return figures


def _increments(rounds: Sequence[RoundRecord], x: charts.Axis) -> Figure:
    """How right what the team added was, where truth is known, and as it was estimated before."""
    series = []
    for number, name in enumerate(rounds[-1].classes):
        drawn = [record.increment.get(name) for record in rounds]
        for word, shares in (
            ("estimated", [None if one is None else one.expected_precision for one in drawn]),
            ("measured", [None if one is None else one.precision for one in drawn]),
        ):
            points = _by_round(rounds, shares)
            series.append(Series(f"{name}, {word}", points, number, dashed=word == "estimated"))
    values = [value for one in series for _, value in one.points]
    said = "Precision of the increments by round: " + "; ".join(
        f"{one.name} {', '.join(f'{value:.1f}' for _, value in one.points)}" for one in series
    )
    measured = any(one.points for one in series if not one.dashed)
    note = "Of what the team added to its own training"
    note += ": measured where truth is known; " if measured else "; "
    note += "broken line: estimated from human-labelled folds."
    chart = charts.chart(said, x, charts.percent_axis("right, %", values), series)
    return Figure("Precision of the increments", chart, note)


def _by_round(rounds: Sequence[RoundRecord], shares: Sequence[float | None]) -> list[charts.Point]:
    """The shares that are known, in percent over the rounds."""
    return [
        (record.round, 100 * share)
        for record, share in zip(rounds, shares, strict=True)
        if share is not None
    ]


def _quality(label: LabelRecord) -> list[Figure]:
    """What the confidence is worth on the frozen test set; empty where ``label`` kept nothing."""
    test = label.test
    if test is None or test.reliability is None or test.risk_coverage is None:
        return []
    figures = []
    x = charts.percent_axis("what the branch says, %", [], floor=0)
    y = charts.percent_axis("what is true, %", [], floor=0)
    for number, (name, pair) in enumerate(test.reliability.items()):
        error = test.calibration_error[name]
        series = [
            Series(
                f"{name}, {word} calibration", _points(bins.confidence, bins.share), number,
                dashed=word == "before",
            )
            for word, bins in (("before", pair.before), ("after", pair.after))
        ]  # fmt: skip
        text = ", ".join(
            f"{word} {100 * value:.1f}"
            for word, value in (("before", error.before), ("after", error.after))
            if value is not None
        )
        figures.append(
            Figure(
                f"Reliability: {name}",
                charts.chart(
                    f"Reliability of {name}; calibration error {text}", x, y, series, diagonal=True
                ),
                f"Calibration error {text} points (broken line: before).",
            )
        )
    area = test.risk_coverage_area
    points = _points(test.risk_coverage.coverage, test.risk_coverage.risk)
    x = charts.percent_axis("labelled, the surest first, %", [], floor=0)
    y = charts.rising_axis("wrong among them, %", max((risk for _, risk in points), default=0))
    figures.append(
        Figure(
            "Risk over coverage",
            charts.chart(
                f"Share of wrong labels over coverage, area {area:.4f}", x, y,
                [Series("wrong", points, 0, marks=False)],
            ),
            f"Area under the curve {area:.4f}; less is better.",
        )
    )  # fmt: skip
    return figures


def _points(right: Sequence[float], up: Sequence[float]) -> list[charts.Point]:
    """Fractions as places in percent."""
    return [(100 * x, 100 * y) for x, y in zip(right, up, strict=True)]


def _drift(found: TimeWindows, newest: float | None) -> list[Figure]:
    """Coverage by hour and by video, where there are several."""
    figures = []
    if len(found.by_time) > 1:
        width = 3600.0 * found.hours
        left = [row.since or 0.0 for row in found.by_time]
        x = charts.time_axis(left[0], left[-1] + width)
        by = "hour" if found.hours == 1 else f"{found.hours} hours"
        figures.append(_windows(f"Coverage by {by}", x, left, width, found.by_time, newest))
    if len(found.by_video) > 1:
        left = [k - 0.5 for k in range(len(found.by_video))]
        x = charts.Axis("video, the newest last", -0.5, len(left) - 0.5, [])
        figures.append(_windows("Coverage by video", x, left, 1.0, found.by_video, None))
    return figures


def _windows(
    title: str,
    x: charts.Axis,
    left: Sequence[float],
    width: float,
    rows: Sequence[TimeWindow],
    newest: float | None,
) -> Figure:
    """Coverage and "I don't know" before the number of crops."""
    breaks = [k for k in range(1, len(left)) if left[k] - left[k - 1] > 1.5 * width]
    series = [
        Series(
            name, [(at + width / 2, 100 * share) for at, share in zip(left, shares, strict=True)],
            number, breaks=breaks,
        )
        for number, (name, shares) in enumerate(
            (
                ("coverage", [row.coverage or 0.0 for row in rows]),
                ("I don't know", [row.abstain_rate or 0.0 for row in rows]),
            )
        )
    ]  # fmt: skip
    most = max(row.crops for row in rows)
    bars = [Bar(at, at + width, 30 * row.crops / most) for at, row in zip(left, rows, strict=True)]
    said = f"{title}: " + ", ".join(f"{value:.0f}" for _, value in series[0].points)
    shaded = "; shaded ground: the newest stretch" if newest is not None else ""
    return Figure(
        title,
        charts.chart(
            said, x, charts.percent_axis("of the crops, %", [], floor=0), series, bars, shade=newest
        ),
        Markup("{}; bars: crops, the highest {}{}.").format(_legend(series), f"{most:,}", shaded),
    )


def _legend(series: Sequence[Series]) -> Markup:
    """The names of series behind their marks."""
    return Markup(", ").join(
        Markup('<span class="key">{}{}</span>').format(
            charts.swatch(one.style, one.dashed), one.name
        )
        for one in series
    )


def _overview(rows: Sequence[FleetRow]) -> list[Figure]:
    """Each camera as a mark: recall over coverage and over clicks; empty if that says nothing."""
    known = [row for row in rows if row.mean is not None and row.coverage is not None]
    if len(known) < 2:
        return []
    recalls = [100 * (row.mean or 0) for row in known]
    coverages = [100 * (row.coverage or 0) for row in known]
    clicks = [float(row.facts.by_persons + row.facts.by_oracle) for row in known]
    y = charts.percent_axis("mean recall, %", recalls)
    figures = []
    for what, x, values in (
        ("coverage", charts.percent_axis("coverage, %", coverages), coverages),
        ("verifications", charts.rising_axis("verifications", max(clicks)), clicks),
    ):
        marks = [
            Series(row.facts.name, [(value, recall)], 0, line=False)
            for row, value, recall in zip(known, values, recalls, strict=True)
        ]
        title = f"Mean recall over {what}"
        figures.append(Figure(f"{title}, one mark a camera", charts.chart(title, x, y, marks)))
    return figures


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
        "pct": _percent, "floored": _floored, "count": _count, "picture": _data_uri
    }  # fmt: skip
    environment.globals |= {
        "swatch": charts.swatch, "SOURCES": SOURCES, "MOST_LISTED": _MOST_LISTED
    }  # fmt: skip
    return environment


def _percent(rate: float | None, digits: int = 1) -> str:
    return "-" if rate is None else f"{100 * rate:.{digits}f}"


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
