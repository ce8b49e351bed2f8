"""Table 1 of the paper, and what stands beside it, from the ``round.json`` of every round.

Nothing here computes a score: rounds record, this module lays out. Every rate that comes in or
goes out is a fraction, 0 to 1, except in what :func:`render` prints, which is in percent.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from collabteam.errors import UserError

if TYPE_CHECKING:
    from collabteam.storage.workspace import Workspace

Round = dict[str, Any]
"""What one ``round.json`` holds (``docs/round.schema.json``)."""
Recalls = dict[str, dict[str, float | None]]
"""Per class, ``true`` and ``false``: the branch's recall of each, 0 to 1."""

_KEYS = (
    "schema",
    "camera",
    "round",
    "fingerprint",
    "classes",
    "train_size",
    "train_counts",
    "reviewer",
    "recall",
    "test_size",
    "coverage",
    "abstain_rate",
    "pool_size",
    "coverage_test",
    "consensus_accuracy_test",
    "increment",
    "label_noise",
    "voting",
    "seconds",
    "training_digest",
    "expected_precision",
    "unknown",
    "peak_memory_mb",
    "versions",
    "settings",
    "finished",
)
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


def read_rounds(workspace: Workspace) -> list[Round]:
    """Complete rounds of one camera, in order.

    Reading stops at the first round without a ``round.json``: what comes after it is not part of
    the chain that led to the team.

    Args:
        workspace: The camera's files.

    Returns:
        What each ``round.json`` holds; empty if no round is complete.

    Raises:
        UserError: A ``round.json`` cannot be read or is not one.
    """
    rounds: list[Round] = []
    while (path := workspace.round(len(rounds)).record).is_file():
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise _broken(path, " ".join(str(error).split()), len(rounds)) from error
        if problem := _problem(record, rounds):
            raise _broken(path, problem, len(rounds))
        rounds.append(record)
    return rounds


def _broken(path: Path, problem: str, number: int) -> UserError:
    return UserError(
        f"{path} is broken ({problem}): restore it, or delete {path.parent.name} and every later "
        f"round folder and train again with round={number}"
    )


def _problem(record: object, before: Sequence[Round]) -> str:
    """Why a record cannot be shown, or an empty string."""
    if not isinstance(record, dict):
        return f"expected an object, got {type(record).__name__}"
    if missing := [key for key in _KEYS if key not in record]:
        return f"no {', '.join(missing)}"
    if record["schema"] != 1:
        return f"schema {record['schema']!r}, expected 1"
    if record["round"] != len(before):
        return f"it says round {record['round']!r}, expected {len(before)}"
    if before and record["classes"] != before[0]["classes"]:
        return f"classes {record['classes']!r}, expected {before[0]['classes']!r} as in round 0"
    try:
        for row in table1_rows([record]):
            asdict(row)
        _csv_record(record)
    except (AttributeError, KeyError, TypeError, ZeroDivisionError) as error:
        return f"unexpected content, {type(error).__name__}: {error}"
    return ""


def table1_rows(rounds: Sequence[Round]) -> list[Row]:
    """The paper's Table 1, one row per round.

    Args:
        rounds: Complete rounds, as :func:`read_rounds` returns them.

    Example:
        >>> recall = {"car": {"true": 0.9, "false": 1.0}, "bus": {"true": 0.7, "false": 1.0}}
        >>> scores = {"test": None, "validation": recall, "human": recall, "folds": []}
        >>> row, = table1_rows([{"round": 2, "classes": ["car", "bus"], "recall": scores}])
        >>> row.row, round(row.validation_mean, 3), row.test_mean
        ('i0+...+i2', 0.9, None)
    """
    rows = []
    for record in rounds:
        classes, recall = record["classes"], record["recall"]
        validation = _recalls(recall["validation"], classes)
        human = _recalls(recall["human"], classes)
        test = None if recall["test"] is None else _recalls(recall["test"], classes)
        rows.append(
            Row(
                row=_label(record["round"]),
                round=record["round"],
                test=test,
                test_mean=None if test is None else _mean(test),
                validation=validation,
                validation_mean=_mean(validation),
                human=human,
                human_mean=_mean(human),
            )
        )
    return rows


def _recalls(recall: Recalls, classes: Sequence[str]) -> Recalls:
    return {name: {side: recall[name][side] for side in _SIDES} for name in classes}


def _mean(recall: Recalls) -> float:
    values = [v for sides in recall.values() for v in sides.values() if v is not None]
    return sum(values) / max(1, len(values))


def _label(number: int) -> str:
    if number == 0:
        return "i0 (human)"
    return "i0+i1" if number == 1 else f"i0+...+i{number}"


def to_csv(rounds: Sequence[Round]) -> str:
    """Everything that :func:`render` shows, as CSV: one line per round.

    Rates are fractions in full precision; what is not known is an empty field. Columns of a class
    are named like ``test/pedestrian/true`` and ``increment/pedestrian/taken``.

    Args:
        rounds: Complete rounds, as :func:`read_rounds` returns them.
    """
    if not rounds:
        return ""
    records = [_csv_record(record) for record in rounds]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _csv_record(record: Round) -> dict[str, Any]:
    row = table1_rows([record])[0]
    out: dict[str, Any] = {
        "camera": record["camera"],
        "round": row.round,
        "row": row.row,
        "reviewer": record["reviewer"]["kind"],
        "reviewer_error_rate": record["reviewer"]["error_rate"],
        "train_size": record["train_size"],
        "test_size": record["test_size"],
        "pool_size": record["pool_size"],
    }
    blocks = (
        ("test", row.test, row.test_mean),
        ("validation", row.validation, row.validation_mean),
        ("human", row.human, row.human_mean),
    )
    for name, recall, mean in blocks:
        for cls in record["classes"]:
            for side in _SIDES:
                out[f"{name}/{cls}/{side}"] = None if recall is None else recall[cls][side]
        out[f"{name}/mean"] = mean
    for key in ("coverage", "abstain_rate", "coverage_test", "consensus_accuracy_test"):
        out[key] = record[key]
    for cls in record["classes"]:
        taken = record["increment"].get(cls)
        for key in _INCREMENT_KEYS:
            out[f"increment/{cls}/{key}"] = None if taken is None else taken[key]
    out["label_noise"] = record["label_noise"]
    return out


def to_json(rounds: Sequence[Round]) -> dict[str, Any]:
    """Table 1 and the rounds behind it, as plain data for ``json.dumps``.

    Args:
        rounds: Complete rounds, as :func:`read_rounds` returns them.

    Returns:
        ``camera`` (None without a round), ``classes``, ``table1`` (one :class:`Row` per round) and
        ``rounds`` (every ``round.json`` as it is).
    """
    return {
        "camera": rounds[0]["camera"] if rounds else None,
        "classes": list(rounds[0]["classes"]) if rounds else [],
        "table1": [asdict(row) for row in table1_rows(rounds)],
        "rounds": list(rounds),
    }


def render(rounds: Sequence[Round], console: Console) -> None:
    """Print Table 1 and the course of the rounds, in percent.

    Classes that do not fit side by side go into further tables below.

    Args:
        rounds: Complete rounds, as :func:`read_rounds` returns them.
        console: Where to; 60 columns or more.
    """
    if not rounds:
        console.print("No complete round yet.")
        return
    last, rows = rounds[-1], table1_rows(rounds)
    labels, classes = [row.row for row in rows], last["classes"]
    console.print(f"Camera {last['camera']}: {len(rounds)} round(s)", style="bold")
    for record in rounds:
        if record["reviewer"]["kind"] == "oracle":
            rate = _percent(record["reviewer"]["error_rate"])
            console.print(
                "Simulated reviewer: the human labels below are answers from hidden truth "
                f"(error rate {rate}%), no person gave them."
            )
            break

    if any(row.test is not None for row in rows):
        _print_by_class(
            console,
            "Table 1, frozen test set: recall in %",
            f"{last['test_size']} human-labelled crops that never train.",
            labels,
            classes,
            ("true", "false"),
            lambda k, cls: _sides(rows[k].test, cls),
            [_percent(row.test_mean) for row in rows],
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
            [_percent(row.human_mean) for row in rows],
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
        [_percent(row.validation_mean) for row in rows],
    )
    _print_course(console, labels, rounds)
    if any(record["increment"] for record in rounds):
        _print_by_class(
            console,
            "Increments: crops taken, precision in %",
            "prec.: where the truth is known; est.: estimated from human-labelled folds; "
            "*: fewer candidates than asked for.",
            labels[1:],
            classes,
            ("taken", "prec.", "est."),
            lambda k, cls: _increment(rounds[k + 1]["increment"].get(cls)),
            None,
        )


def _print_course(console: Console, labels: Sequence[str], rounds: Sequence[Round]) -> None:
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
        rates = ("coverage", "abstain_rate", "consensus_accuracy_test")
        table.add_row(
            label,
            str(record["train_size"]),
            *(_percent(record[key]) for key in rates),
            # Wrong labels are few: one more digit than the rest.
            _percent(record["label_noise"], digits=2),
        )
    console.print("\nRounds: crops, and rates in %", style="bold")
    console.print(table)
    console.print(
        "coverage, I don't know: of the unlabelled pool; consensus accuracy: on the frozen test "
        "set; wrong labels: where the truth is known.",
        style="italic",
    )
    for label, record in zip(labels, rounds, strict=True):
        if unknown := record["unknown"]:
            console.print(
                f"{label}: of {unknown['pool']} pool objects of none of the classes the team does "
                f"not know {_percent(unknown['abstain_rate'])}%; the increment took "
                f"{unknown['increment']}.",
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
    return [_percent(None if recall is None else recall[cls][side]) for side in _SIDES]


def _increment(taken: dict[str, Any] | None) -> list[str]:
    if taken is None:
        return ["-", "-", "-"]
    count = f"{taken['taken']}{'*' if taken['shortfall'] else ''}"
    return [count, _percent(taken["precision"]), _percent(taken["expected_precision"])]


def _percent(rate: float | None, digits: int = 1) -> str:
    return "-" if rate is None else f"{100 * rate:.{digits}f}"
