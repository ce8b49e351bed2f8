"""Figures as PNG: the course of the rounds, and the quality of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from collabteam.reporting.table1 import short_name
from collabteam.rounds.records import BranchRecall, RoundRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Paul Tol's "muted", told apart with any kind of colour vision; its pale grey is black here. Ten
# colours are many: every class has its own marker too, and its name at the end of its line.
_COLOURS = (
    "#332288",
    "#CC6677",
    "#117733",
    "#88CCEE",
    "#882255",
    "#999933",
    "#AA4499",
    "#44AA99",
    "#DDCC77",
    "#000000",
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")

Line = tuple[list[int], list[float]]
"""Rounds, and percentages where they are known."""
End = tuple[float, int, str, str]
"""The last point of a line, in percent and rounds, and the line's name and colour."""


def plot_rounds(rounds: Sequence[RoundRecord], to: Path) -> None:
    """Draw how a team came along: recall, coverage and precision of its increments, per round.

    Args:
        rounds: Complete rounds, as :func:`collabteam.rounds.records.read_rounds` returns them; at
            least one.
        to: The PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A figure of its own, not pyplot's: no backend is chosen for the whole process.
    figure = Figure(figsize=(13, 9), layout="constrained")
    FigureCanvasAgg(figure)
    classes = rounds[-1].classes
    ((true, false), (pool, precision)) = figure.subplots(2, 2)
    tests = any(record.recall.test is not None for record in rounds)
    lines = "solid: frozen test set, " if tests else "no frozen test set; "
    oracle = any(record.reviewer.kind == "oracle" for record in rounds)
    figure.suptitle(
        f"Camera {rounds[-1].camera}{', simulated reviewer' if oracle else ''}   ({lines}"
        "dashed: validation folds, after round 0 partly the team's own labels)",
        fontsize=12,
    )
    for axes, side in ((true, "true"), (false, "false")):
        _dress(axes, f"Recall of {side}", len(rounds))
        _plot_classes(
            axes,
            classes,
            [_recall(rounds, [r.recall.test for r in rounds], name, side) for name in classes],
            [
                _recall(rounds, [r.recall.validation for r in rounds], name, side)
                for name in classes
            ],
        )
    _dress(pool, "The unlabelled pool", len(rounds))
    rates = (
        ("coverage", [record.coverage for record in rounds]),
        ("I don't know", [record.abstain_rate for record in rounds]),
    )
    ends: list[End] = []
    for at, (name, shares) in enumerate(rates):
        at_round, values = _line(rounds, shares)
        if not values:
            continue
        pool.plot(at_round, values, color=_COLOURS[at], marker=_MARKERS[at], markersize=5)
        ends.append((values[-1], at_round[-1], name, _COLOURS[at]))
    pool.set_ylim(-3, 103)
    _label_ends(pool, ends)

    _dress(precision, "Precision of the increments", len(rounds))
    estimated, measured = [], []
    for name in classes:
        drawn = [record.increment.get(name) for record in rounds]
        estimated.append(
            _line(rounds, [None if one is None else one.expected_precision for one in drawn])
        )
        measured.append(_line(rounds, [None if one is None else one.precision for one in drawn]))
    _plot_classes(precision, classes, measured, estimated)
    notes = []
    if any(at for at, _ in measured):
        notes.append("solid: measured")
    if any(at for at, _ in estimated):
        notes.append("dashed: estimated from human-labelled folds")
    note = ", ".join(notes) or "none known yet"
    precision.set_title(f"Precision of the increments\n{note}", loc="left", fontsize=11)
    figure.savefig(to, dpi=110)


def _recall(
    rounds: Sequence[RoundRecord],
    recalls: Sequence[dict[str, BranchRecall] | None],
    name: str,
    side: str,
) -> Line:
    return _line(rounds, [None if one is None else one[name].sides()[side] for one in recalls])


def _line(rounds: Sequence[RoundRecord], shares: Sequence[float | None]) -> Line:
    """The rounds whose share is known, and the shares in percent."""
    known = [
        (record.round, 100 * share)
        for record, share in zip(rounds, shares, strict=True)
        if share is not None
    ]
    return [at for at, _ in known], [value for _, value in known]


def _dress(axes: Axes, title: str, count: int) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("round")
    axes.set_ylabel("%")
    axes.set_xticks(range(count))
    # A single round would otherwise be an axis without width.
    axes.set_xlim(-0.15, max(count - 1, 1) + 0.15)
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def _plot_classes(
    axes: Axes, classes: Sequence[str], solid: Sequence[Line], dashed: Sequence[Line]
) -> None:
    ends: list[End] = []
    values = [value for _, line in (*solid, *dashed) for value in line]
    for at, name in enumerate(classes):
        colour, marker = _COLOURS[at % len(_COLOURS)], _MARKERS[at % len(_MARKERS)]
        if dashed[at][0]:
            axes.plot(
                *dashed[at],
                color=colour,
                linestyle=(0, (4, 2)),
                linewidth=1,
                marker=marker,
                markersize=4,
                markerfacecolor="white",
            )
        if solid[at][0]:
            axes.plot(*solid[at], color=colour, marker=marker, markersize=5, linewidth=1.8)
        rounds, line = solid[at] if solid[at][0] else dashed[at]
        if rounds:
            ends.append((line[-1], rounds[-1], name, colour))
    low = min(values, default=0.0)
    axes.set_ylim(max(0.0, low - max(1.0, (100 - low) * 0.1)), 100 + max(0.3, (100 - low) * 0.04))
    _label_ends(axes, ends)


def _label_ends(axes: Axes, ends: Sequence[End]) -> None:
    """Name lines at their right end, pushed apart far enough to be read."""
    from matplotlib.colors import to_rgb

    low, high = axes.get_ylim()
    # A line of text is about 5% of the height of a panel.
    gap = (high - low) * 0.052
    ordered = sorted(ends)
    places = _spread([value for value, *_ in ordered], gap, low, high)
    right = max((at for _, at, *_ in ends), default=0) + 0.04 * (axes.get_xlim()[1] + 0.15)
    for (value, at, name, colour), place in zip(ordered, places, strict=True):
        axes.annotate(
            short_name(name),
            (at, value),
            xytext=(right, place),
            # The paler colours are too pale for letters.
            color=tuple(0.7 * part for part in to_rgb(colour)),
            fontsize=9,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.7,
                "relpos": (0, 0.5),
                "shrinkA": 0,
            },
        )


def _spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places near sorted values, at least ``gap`` apart: neighbours in the way share the shift."""
    pools: list[tuple[float, int]] = []
    for k, value in enumerate(values):
        # Less its share of gaps, places need only rise: average whatever falls.
        mean, count = value - k * gap, 1
        while pools and pools[-1][0] > mean:
            before, size = pools.pop()
            mean, count = (before * size + mean * count) / (size + count), size + count
        pools.append((mean, count))
    top = high - (len(values) - 1) * gap
    shifted = [max(low, min(mean, top)) for mean, count in pools for _ in range(count)]
    return [place + k * gap for k, place in enumerate(shifted)]


@dataclass(frozen=True)
class Diagram:
    """How often a branch was right, by what it said; bins without crops are left out.

    Attributes:
        confidence: Mean probability of *true* in each bin, 0 to 1.
        share: Share of crops that are true in each bin, 0 to 1.
        count: Crops in each bin.
        error: Expected calibration error, 0 to 1; None if it cannot be told.
    """

    confidence: Sequence[float]
    share: Sequence[float]
    count: Sequence[int]
    error: float | None


def plot_label_quality(
    title: str,
    diagrams: dict[str, tuple[Diagram, Diagram]],
    curve: tuple[Sequence[float], Sequence[float]],
    area: float,
    to: Path,
) -> None:
    """Draw what a team's confidence is worth: reliability per class, and risk over coverage.

    Args:
        title: Camera, round and number of crops.
        diagrams: Per class before and after calibration.
        curve: Coverage and risk, 0 to 1 each.
        area: Under the curve.
        to: The PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * (len(diagrams) + 1), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    panels = figure.subplots(1, len(diagrams) + 1, squeeze=False)[0]
    for at, (name, pair) in enumerate(diagrams.items()):
        axes = panels[at]
        axes.plot([0, 100], [0, 100], color="#aaaaaa", linewidth=1)
        for diagram, style, word in zip(pair, (":", "-"), ("before", "after"), strict=True):
            error = "" if diagram.error is None else f", error {100 * diagram.error:.1f}"
            axes.plot(
                [100 * value for value in diagram.confidence],
                [100 * value for value in diagram.share],
                style, color=_COLOURS[at % len(_COLOURS)], marker=_MARKERS[at % len(_MARKERS)],
                markersize=5, alpha=1 if style == "-" else 0.6, label=f"{word}{error}",
            )  # fmt: skip
        axes.set_title(f"{short_name(name)}: what it says, what is true", loc="left", fontsize=11)
        axes.set_xlabel("probability that the branch gives, %")
        axes.set_ylabel("share that is true, %")
        axes.legend(loc="upper left", frameon=False, fontsize=9)
    axes = panels[-1]
    coverage, risk = curve
    axes.plot([100 * value for value in coverage], [100 * value for value in risk], color="#332288")
    axes.set_title(f"Risk over coverage (area {area:.4f})", loc="left", fontsize=11)
    axes.set_xlabel("labelled, % of all crops, the surest first")
    axes.set_ylabel("wrong among these, %")
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.savefig(to, dpi=110)
