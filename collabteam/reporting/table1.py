"""Table 1 of the paper, and what stands beside it, from the ``round.json`` of every round.

Nothing here computes a score: rounds record, this module lays out. Every rate that comes in or
goes out is a fraction, 0 to 1, except in what :func:`render` prints, which is in percent.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from collabteam.reporting import percent
from collabteam.rounds.records import BranchRecall, ClassIncrement, RoundRecord, mean_of

Recalls = dict[str, dict[str, float | None]]
"""Per class, ``true`` and ``false``: the branch's recall of each, 0 to 1."""

_INCREMENT_KEYS = ("candidates", "taken", "shortfall", "precision", "expected_precision")
_SIDES = ("true", "false")
_NAME_WIDTH = 20


@dataclass(frozen=True)
class Row:
    """One row of Table 1: the team as it stood after one round.

    Attributes:
        row: What it was trained on: ``i0 (human)``, ``i0+i1``, ``i0+...+i2``.
        round: The round's number, 0 or more.
        test: Recall on the frozen, human-labelled test set; None where the camera has none.
        test_mean: Mean of all of ``test``, 0 to 1.
        validation: Recall on the validation folds. After round 0 these labels are partly the
            team's own.
        validation_mean: Mean of all of ``validation``, 0 to 1.
        human: Recall on the human-labelled crops of the same folds.
        human_mean: Mean of all of ``human``, 0 to 1.
    """

    row: str
    round: int
    test: Recalls | None
    test_mean: float | None
    validation: Recalls
    validation_mean: float
    human: Recalls
    human_mean: float


def table1_rows(rounds: Sequence[RoundRecord]) -> list[Row]:
    """The paper's Table 1, one row per round.

    Args:
        rounds: Complete rounds, as :func:`collabteam.rounds.records.read_rounds` returns them.

    """
    rows = []
    for record in rounds:
        classes, recall = record.classes, record.recall
        validation = _plain(recall.validation, classes)
        human = _plain(recall.human, classes)
        test = None if recall.test is None else _plain(recall.test, classes)
        rows.append(
            Row(
                row=_label(record.round),
                round=record.round,
                test=test,
                test_mean=None if recall.test is None else mean_of(recall.test) or 0.0,
                validation=validation,
                validation_mean=mean_of(recall.validation) or 0.0,
                human=human,
                human_mean=mean_of(recall.human) or 0.0,
            )
        )
    return rows


def _plain(recall: dict[str, BranchRecall], classes: Sequence[str]) -> Recalls:
    return {name: recall[name].sides() for name in classes}


def _label(number: int) -> str:
    if number == 0:
        return "i0 (human)"
    return "i0+i1" if number == 1 else f"i0+...+i{number}"


def to_csv(rounds: Sequence[RoundRecord]) -> str:
    """Everything that :func:`render` shows, as CSV: one line per round.

    Rates are fractions in full precision; what is not known is an empty field. Columns of a class
    are named like ``test/pedestrian/true`` and ``increment/pedestrian/taken``.

    Args:
        rounds: Complete rounds, as :func:`collabteam.rounds.records.read_rounds` returns them.
    """
    if not rounds:
        return ""
    records = [_csv_record(record) for record in rounds]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _csv_record(record: RoundRecord) -> dict[str, Any]:
    row = table1_rows([record])[0]
    out: dict[str, Any] = {
        "camera": record.camera,
        "round": row.round,
        "row": row.row,
        "reviewer": record.reviewer.kind,
        "reviewer_error_rate": record.reviewer.error_rate,
        "train_size": record.train_size,
        "test_size": record.test_size,
        "pool_size": record.pool_size,
    }
    blocks = (
        ("test", row.test, row.test_mean),
        ("validation", row.validation, row.validation_mean),
        ("human", row.human, row.human_mean),
    )
    for name, recall, mean in blocks:
        for cls in record.classes:
            for side in _SIDES:
                out[f"{name}/{cls}/{side}"] = None if recall is None else recall[cls][side]
        out[f"{name}/mean"] = mean
    out["coverage"] = record.coverage
    out["abstain_rate"] = record.abstain_rate
    out["coverage_test"] = record.coverage_test
    out["consensus_accuracy_test"] = record.consensus_accuracy_test
    for cls in record.classes:
        drawn = record.increment.get(cls)
        values: dict[str, Any] = {} if drawn is None else drawn.model_dump()
        for key in _INCREMENT_KEYS:
            out[f"increment/{cls}/{key}"] = values.get(key)
    out["label_noise"] = record.label_noise
    return out


def to_json(rounds: Sequence[RoundRecord]) -> dict[str, Any]:
    """Table 1 and the rounds behind it, as plain data for ``json.dumps``.

    Args:
        rounds: Complete rounds, as :func:`collabteam.rounds.records.read_rounds` returns them.

    Returns:
        ``camera`` (None without a round), ``classes``, ``table1`` (one :class:`Row` per round) and
        ``rounds`` (every ``round.json`` as it is).
    """
    return {
        "camera": rounds[0].camera if rounds else None,
        "classes": rounds[0].classes if rounds else [],
        "table1": [asdict(row) for row in table1_rows(rounds)],
        "rounds": [record.to_json() for record in rounds],
    }


def render(rounds: Sequence[RoundRecord], console: Console) -> None:
    """Print Table 1 and the course of the rounds, in percent.

    Classes that do not fit side by side go into further tables below.

    Args:
        rounds: Complete rounds, as :func:`collabteam.rounds.records.read_rounds` returns them.
        console: Where to; 60 columns or more.
    """
    if not rounds:
        console.print("No complete round yet.")
        return
    last, rows = rounds[-1], table1_rows(rounds)
    labels, classes = [row.row for row in rows], last.classes
    console.print(f"Camera {last.camera}: {len(rounds)} round(s)", style="bold")
    for record in rounds:
        if record.reviewer.kind == "oracle":
            rate = percent(record.reviewer.error_rate)
            console.print(
                "Simulated reviewer: the human labels below are answers from hidden truth "
                f"(error rate {rate}%), no person gave them."
            )
            break

    if any(row.test is not None for row in rows):
        _print_by_class(
            console,
            "Table 1, frozen test set: recall in %",
            f"{last.test_size} human-labelled crops that never train.",
            labels,
            classes,
            ("true", "false"),
            lambda k, cls: _sides(rows[k].test, cls),
            [percent(row.test_mean) for row in rows],
        )
    else:
        _print_by_class(
            console,
            "Table 1, human-labelled crops of the validation folds: recall in %",
            "Shown because this camera has no frozen test set.",
            labels,
            classes,
            ("true", "false"),
            lambda k, cls: _sides(rows[k].human, cls),
            [percent(row.human_mean) for row in rows],
        )
    _print_by_class(
        console,
        "Table 1, validation folds: recall in %",
        "After round 0 the labels of the folds are partly the team's own: this says how far the "
        "team agrees with itself and is no accuracy.",
        labels,
        classes,
        ("true", "false"),
        lambda k, cls: _sides(rows[k].validation, cls),
        [percent(row.validation_mean) for row in rows],
    )
    _print_course(console, labels, rounds)
    if any(record.increment for record in rounds):
        _print_by_class(
            console,
            "Increments: crops taken, precision in %",
            "prec.: where the truth is known; est.: estimated from human-labelled folds; "
            "*: fewer candidates than asked for.",
            labels[1:],
            classes,
            ("taken", "prec.", "est."),
            lambda k, cls: _increment(rounds[k + 1].increment.get(cls)),
            None,
        )


def _print_course(console: Console, labels: Sequence[str], rounds: Sequence[RoundRecord]) -> None:
    table = _table("trained on")
    for header in (
        "training\ncrops",
        "coverage",
        "I don't\nknow",
        "consensus\naccuracy",
        "wrong labels\nin training",
    ):
        table.add_column(header, justify="right", no_wrap=True)
    for label, record in zip(labels, rounds, strict=True):
        table.add_row(
            label,
            str(record.train_size),
            percent(record.coverage),
            percent(record.abstain_rate),
            percent(record.consensus_accuracy_test),
            # Wrong labels are few: one more digit than the rest.
            percent(record.label_noise, digits=2),
        )
    console.print("\nRounds: crops, and rates in %", style="bold")
    console.print(table)
    console.print(
        "coverage, I don't know: of the unlabelled pool; consensus accuracy: on the frozen test "
        "set; wrong labels: where the truth is known.",
        style="italic",
    )
    for label, record in zip(labels, rounds, strict=True):
        if unknown := record.unknown:
            console.print(
                f"{label}: of {unknown.pool} pool objects of none of the classes the team does "
                f"not know {percent(unknown.abstain_rate)}%; the increment took "
                f"{unknown.increment}.",
                style="italic",
            )


def _print_by_class(
    console: Console,
    title: str,
    caption: str,
    labels: Sequence[str],
    classes: Sequence[str],
    heads: Sequence[str],
    values: Callable[[int, str], Sequence[str]],
    means: Sequence[str] | None,
) -> None:
    """Print a table with a group of columns per class, in as many pieces as the width asks for.

    A group is ONE column of the library with its own fixed spacing, so that the class name stands
    once above its group instead of over each of its columns.
    """
    group = 7 * len(heads) - 2
    # Each column costs its text, a space on either side and a divider; the edges are two more.
    room = console.width - max(len(text) for text in [*labels, "trained on"]) - 4
    pieces: list[list[str]] = [[]]
    used = 0
    for cls in classes:
        width = max(group, len(short_name(cls))) + 3
        if pieces[-1] and used + width > room:
            pieces.append([])
            used = 0
        pieces[-1].append(cls)
        used += width
    if means and used + len("of all") + 3 > room and len(pieces[-1]) > 1:
        pieces.append([pieces[-1].pop()])
    for at, piece in enumerate(pieces):
        is_last = at == len(pieces) - 1
        console.print(
            f"\n{title} ({at + 1}/{len(pieces)})" if len(pieces) > 1 else f"\n{title}",
            style="bold",
        )
        table = _table("\ntrained on")
        for cls in piece:
            header = f"{short_name(cls)}\n{_group(heads)}"
            table.add_column(header, justify="center", no_wrap=True)
        if means and is_last:
            table.add_column("mean\nof all", justify="right", no_wrap=True)
        for k, text in enumerate(labels):
            cells = [_group(values(k, cls)) for cls in piece]
            table.add_row(text, *cells, *([means[k]] if means and is_last else []))
        console.print(table)
    console.print(caption, style="italic")


def _table(first: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(first, no_wrap=True)
    return table


def _group(texts: Sequence[str]) -> str:
    return "  ".join(f"{text:>5}" for text in texts)


def short_name(name: str) -> str:
    """Class name for where room is short: at most 20 characters."""
    return name if len(name) <= _NAME_WIDTH else name[: _NAME_WIDTH - 3] + "..."


def _sides(recall: Recalls | None, cls: str) -> list[str]:
    return [percent(None if recall is None else recall[cls][side]) for side in _SIDES]


def _increment(drawn: ClassIncrement | None) -> list[str]:
    if drawn is None:
        return ["-", "-", "-"]
    count = f"{drawn.taken}{'*' if drawn.shortfall else ''}"
    return [count, percent(drawn.precision), percent(drawn.expected_precision)]
