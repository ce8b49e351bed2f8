"""``README.md`` of an exported dataset: its content, and how far to trust the labels."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from collabteam.audits.records import Certificate
from collabteam.catalog.catalog import Catalog
from collabteam.errors import UserError
from collabteam.exporting.base import ExportFormat, WriteReport
from collabteam.exporting.selection import (
    TEST,
    Selection,
    newest_certificate,
)
from collabteam.machine import utc_stamp

README = "README.md"
NOT_CERTIFIED = "not certified: these labels have not been audited"

_VERSIONS = ("collabteam", "numpy", "pillow", "pyarrow", "pylance")


def dataset_readme(
    catalog: Catalog,
    selection: Selection,
    format: ExportFormat,
    to: Path,
    licence: str,
    command: str,
    report: WriteReport,
) -> str:
    """Return the text of ``README.md``.

    Args:
        catalog: The camera.
        selection: The crops as the format arranged them.
        format: The format.
        to: The dataset's folder.
        licence: The user's statement about rights to the pictures, ``""`` for none.
        command: The command line of the export, ``""`` if there was none.
        report: The format's report about the written crops.
    """
    now = utc_stamp()
    lines = [
        f"# {to.name}: labelled crops of camera {catalog.name}",
        "",
        f"{len(selection):,} crops of {len(selection.index):,}, exported on {now} by collabteam.",
        "",
        f"- Files: {format.layout}.",
        f"- Format: `{format.name}`.",
        *([f"- Made by: `{command}`"] if command else []),
        f"- Versions: {_versions()}.",
        "",
        "## Classes",
        "",
        *_class_table(selection),
        "",
        *_by_source(selection),
        "",
        "## Left out",
        "",
        *([f"- {line}" for line in selection.left_out_lines()] or ["Nothing."]),
        "",
        "## How right the labels are",
        "",
        *_certified(catalog, selection),
        "",
        "## Teams",
        "",
        *_teams(selection),
        "",
        "## Rights",
        "",
        *_rights(licence),
        "",
        "## Notes on the format",
        "",
        *(f"- {note.replace('{to}', str(to))}" for note in format.notes),
        *(f"- {remark}" for remark in report.remarks),
        *_columns(format, report.converted > 0),
    ]
    return format.front_matter(selection) + "\n".join(lines) + "\n"


def _versions() -> str:
    parts = [f"Python {platform.python_version()}"]
    for name in _VERSIONS:
        try:
            parts.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            parts.append(f"{name} (version unknown)")
    return ", ".join(parts)


def _class_table(selection: Selection) -> list[str]:
    sources, splits = selection.sources_present(), selection.splits_present()
    rows = [["class", *(f"by {source}" for source in sources), *splits, "all"]]
    rows.append(["---", *["---:"] * (len(rows[0]) - 1)])
    for name in selection.classes:
        counts = [selection.count(name, source=source) for source in sources]
        counts += [selection.count(name, split=split) for split in splits]
        rows.append([name, *(f"{count:,}" for count in [*counts, selection.count(name)])])
    return [f"| {' | '.join(row)} |" for row in rows]


def _by_source(selection: Selection) -> Iterable[str]:
    """Explain the table's columns, and add warnings."""
    sources, splits = selection.sources_present(), selection.splits_present()
    meaning = {
        "person": "`person`: a person verified the crop",
        "import": "`import`: the label came with the crop from another tool",
        "oracle": "`oracle`: the label comes from a *simulated* reviewer, not a person",
        "team": "`team`: the consensus of a team of networks, not a person",
        "train": "`train`: all other crops",
        "val": "`val`: drawn from `train`, for early stopping and for choosing a model",
        "test": "`test`: the frozen test set, on which no team has trained",
        "held-out": "`held-out`: other crops of objects that the test set shows; neither train nor "
        "measure on them",
    }
    yield "; ".join(meaning[name] for name in [*sources, *splits]) + "."
    trusted = int(((selection.split == TEST) & (selection.source == "team")).sum())
    if trusted:
        yield ""
        yield (
            f"{trusted:,} labels of `test` are the team's: leave them out when you measure a model."
        )
    missing = [name for name in selection.classes if not selection.count(name)]
    if missing:
        yield ""
        yield f"No crop of this dataset is {' or '.join(missing)}."


def _certified(catalog: Catalog, selection: Selection) -> list[str]:
    certificate = selection.certificate
    if certificate is None:
        why = not_certified(catalog)
        return [f"{why[0].upper()}{why[1:]}."]
    return [*_statement(certificate), *_since(certificate, selection)]


def not_certified(catalog: Catalog) -> str:
    """Say in one line, without a full stop, what the last audit found about a camera's labels.

    Args:
        catalog: A camera of which all labels are exported, not only certified ones.
    """
    try:
        newest = newest_certificate(catalog.workspace)
    except UserError as error:
        return f"not certified: {error}"
    if newest is None:
        return NOT_CERTIFIED
    passed = newest.classes_that(passed=True)
    failed = [name for name, found in newest.classes.items() if found.passed is False]
    if not passed:
        return (
            f"not certified: audit {newest.audit} failed ({', '.join(failed) or 'no class passed'})"
        )
    but = f", and {', '.join(failed)} failed" if failed else ""
    return (
        f"not certified as a whole: audit {newest.audit} covers a part of the team's labels "
        f"({', '.join(passed)}){but}; certified=true exports that part"
    )


def _statement(certificate: Certificate) -> list[str]:
    lines = [f"Audit {certificate.audit} says:", ""]
    lines += [f"> {line}".rstrip() for line in certificate.statement.splitlines()]
    lines += ["", f"- Passed: {', '.join(certificate.classes_that(passed=True))}."]
    if failed := certificate.classes_that(passed=False):
        lines.append(f"- Not passed and left out: {', '.join(failed)}.")
    return lines


def _since(certificate: Certificate, selection: Selection) -> list[str]:
    persons = int((selection.source != "team").sum())
    lines = [
        "",
        "The statement is about all crops that the audit froze. In this dataset a person's label "
        f"replaces the frozen one, as it does for {persons:,} of these crops.",
    ]
    unsure = sum(n for reason, n in selection.left_out.items() if "min_confidence" in reason)
    if unsure:
        lines.append(
            f"`min_confidence` left out {unsure:,} of them; the statement says nothing about the "
            "rest alone."
        )
    return lines


def _teams(selection: Selection) -> list[str]:
    chosen = selection.source == "team"
    pairs = zip(selection.round[chosen].tolist(), selection.team[chosen].tolist(), strict=True)
    counts: dict[tuple[int, str], int] = {}
    for pair in pairs:
        counts[pair] = counts.get(pair, 0) + 1
    lines = [
        f"- round {number}, fingerprint `{team}`: {count:,} labels"
        for (number, team), count in sorted(counts.items())
    ]
    return lines or ["No label in this dataset comes from a team."]


def _rights(licence: str) -> list[str]:
    stated = licence.strip() or (
        "The terms of use of these pictures are not stated: ask the operator of the camera."
    )
    return [
        stated,
        "",
        "The licence of collabteam does not cover the pictures. They may show persons and "
        "number plates.",
    ]


def _columns(format: ExportFormat, converted: bool) -> list[str]:
    return [
        f"- Each crop has `{format.crop_column}`, its name in the catalog; `label`; `split`; "
        "`source`; `confidence`, `round` and `team` (fingerprint) of a team's label; `proposed`, "
        "the detector's proposal; `video`; `track`, within the video; `frame`, from 0; `time`, in "
        f"Unix seconds; {format.box_columns}, in pixels of the video's frame. An unknown "
        "value is empty.",
        f"- {'All other pictures' if converted else 'Pictures'} are the catalog's, byte for byte.",
    ]
