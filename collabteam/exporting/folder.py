"""A dataset's folder: all of it or nothing, and a README.md that says what it is."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np

from collabteam.catalog.catalog import Catalog
from collabteam.errors import UserError, disk_errors
from collabteam.exporting.formats import WRITERS, records
from collabteam.exporting.selection import (
    SOURCES,
    SPLITS,
    TEST,
    TRAIN,
    VAL,
    Certificate,
    Selection,
    newest_certificate,
    validation_part,
)
from collabteam.reviewing.exchange import staging, writing

NOT_CERTIFIED = "not certified: nobody has audited these labels"
README = "README.md"
_VALIDATION = 0.1
"""Share of the crops that train which ``yolo`` sets apart as ``val``."""

_VERSIONS = ("collabteam", "numpy", "pillow", "pyarrow", "pylance")
_WHERE = {
    "imagefolder": "`train/<class>/<crop>.jpg` and the same for every other split; `metadata.csv`",
    "yolo": "`train/<class>/<crop>.jpg`, `val/`, `test/`, for ultralytics' classification; "
    "`metadata.csv`",
    "coco": "`annotations.json` (COCO) and `images/`",
    "parquet": "`crops.parquet`, pictures inside",
    "csv": "`metadata.csv` and `images/`",
    "labelstudio": "`tasks.json` (Label Studio), `interface.xml` and `images/`",
    "cvat": "`dataset.zip` (CVAT for images 1.1, pictures inside) and `labels.json`",
}
_PERSON_AGAIN = (
    "Who takes this back with `python -m collabteam.{command}` makes every label in it a person's "
    "word, the team's included: take out what has `source` `team` first."
)
_NOTES = {
    "imagefolder": [
        '`torchvision.datasets.ImageFolder("{to}/train", allow_empty=True)`: each split has a '
        "folder for every class that occurs, perhaps an empty one, so that classes have the same "
        "numbers.",
    ],
    "yolo": [
        "`yolo classify train model=... data={to}`: train and val share no track; about a tenth "
        "of each class is val, by the hash of the track's name and `seed`.",
    ],
    "coco": [
        "One annotation a picture: the whole picture is its box. Where the object was in the "
        "frame of its video stands in `attributes.frame_box`.",
    ],
    "parquet": [
        "Row groups of 256 crops; the schema's metadata has `classes` (JSON) and `camera`.",
        "`python -m collabteam.ingest camera=ANOTHER path={to}/crops.parquet labels=person` takes "
        "it into another camera, the test set as such; crops that have a box have another name "
        "there, because ingest takes no boxes.",
        _PERSON_AGAIN.format(command="ingest"),
    ],
    "csv": [
        "UTF-8, RFC 4180. A video or track whose name would be a formula in a spreadsheet begins "
        "with `'`.",
        _PERSON_AGAIN.format(command="review import="),
    ],
    "labelstudio": [
        "Start Label Studio with `LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true` and "
        "`LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT` this folder; paste `interface.xml` into Labeling "
        "Interface > Code; add `images` as a local storage, without a sync; import `tasks.json`.",
        "Persons' labels are annotations, the team's are predictions with `score` and "
        "`model_version`.",
    ],
    "cvat": [
        "In a new project, Raw: paste `labels.json`; Actions > Import dataset > CVAT 1.1: "
        "`dataset.zip`.",
        "Persons' tags have `source` `manual`, the team's `auto`. Characters that XML cannot hold "
        "are U+FFFD.",
        _PERSON_AGAIN.format(command="review import="),
    ],
}  # fmt: skip


def export_dataset(
    catalog: Catalog,
    selection: Selection,
    format: str,
    to: Path,
    seed: int = 0,
    licence: str = "",
    command: str = "",
    advance: Callable[[int], None] = lambda count: None,
) -> Selection:
    """Write labelled crops as a dataset, into a folder of its own.

    The folder appears last and whole. Everything is first written into the hidden folder
    ``.NAME.part`` beside it; what a killed call left there, the next one clears away. The same
    labels give the same bytes, whatever the folder is called; ``README.md`` has the date.

    Args:
        catalog: The camera.
        selection: Which crops with what labels; see :func:`select_labels`.
        format: ``imagefolder``, ``coco``, ``yolo``, ``parquet``, ``csv``, ``labelstudio`` or
            ``cvat``.
        to: The folder to make; an empty one may be there.
        seed: Of the split into train and val, which only ``yolo`` makes.
        licence: What ``README.md`` says about rights to the pictures.
        command: What ``README.md`` says about how this was made.
        advance: Called with the number of crops of each part that was written.

    Returns:
        What was written: the selection in the order and with the splits of the format.

    Raises:
        UserError: Nothing is selected, the folder exists and is not empty or cannot be written, a
            picture cannot be opened, or the disk is full; nothing has been written.
    """
    if to.name in ("", ".."):
        raise UserError(f"to={to}: expected the name of a folder to make")
    if not len(selection):
        raise UserError(_nothing(catalog, selection))
    written = _arranged(selection, format, seed)
    with writing(to), disk_errors():
        to.parent.mkdir(parents=True, exist_ok=True)
        with staging(to.with_name(f".{to.name}.part"), to) as hidden:
            _check_free(to)
            folder = hidden / "dataset"
            folder.mkdir()
            crops = records(catalog, written, advance)
            remarks = WRITERS[format](crops, folder, written, catalog.name)
            text = _readme(catalog, written, format, to, licence, command, remarks)
            (folder / README).write_text(text, encoding="utf-8")
            _check_free(to)  # it may have taken a while
            folder.rename(to)
    return written


def left_out(selection: Selection) -> list[str]:
    """Why crops were left out, with counts, the reasons that no crop had not among them."""
    return [f"{count:,}: {reason}" for reason, count in selection.left_out.items() if count]


def _nothing(catalog: Catalog, selection: Selection) -> str:
    command = f"python -m collabteam.review camera={catalog.name}"
    if not len(selection.index):
        return f"camera {catalog.name} has no crops: python -m collabteam.ingest adds some"
    return (
        f"no crop of camera {catalog.name} is to be exported: left out are "
        f"{'; '.join(left_out(selection))}. {command} lets a person label them"
    )


def _check_free(to: Path) -> None:
    if to.is_symlink() or (to.exists() and not (to.is_dir() and not any(to.iterdir()))):
        raise UserError(
            f"to={to} exists already and is not an empty folder: name another one, or move it away"
        )


def _arranged(selection: Selection, format: str, seed: int) -> Selection:
    """In the order and with the splits of a format."""
    if format == "cvat":
        order = np.argsort(selection.index.crop_id[selection.rows].astype(str))
        return replace(
            selection,
            rows=selection.rows[order], label=selection.label[order],
            source=selection.source[order], confidence=selection.confidence[order],
            round=selection.round[order], team=selection.team[order],
            split=selection.split[order],
        )  # fmt: skip
    if format == "yolo":
        trains = np.flatnonzero(selection.split == TRAIN)
        tracks = selection.index.track[selection.rows[trains]]
        part = validation_part(selection.label[trains], tracks, _VALIDATION, seed)
        split = selection.split.copy()
        split[trains[part]] = VAL
        return replace(selection, split=split)
    return selection


# -- README.md ---------------------------------------------------------------------------------


def _readme(
    catalog: Catalog,
    selection: Selection,
    format: str,
    to: Path,
    licence: str,
    command: str,
    remarks: Sequence[str],
) -> str:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    lines = [
        f"# {to.name}: labelled crops of camera {catalog.name}",
        "",
        f"{len(selection):,} crops of {len(selection.index):,}, exported on {now} by collabteam.",
        "",
        f"- What is where: {_WHERE[format]}.",
        f"- Format: `{format}`.",
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
        *([f"- {line}" for line in left_out(selection)] or ["Nothing."]),
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
        *(f"- {note.replace('{to}', str(to))}" for note in _NOTES[format]),
        *(f"- {remark}" for remark in remarks),
        *_columns(format, any("PNG" in remark for remark in remarks)),
    ]
    return "\n".join(lines) + "\n"


def _versions() -> str:
    parts = [f"Python {platform.python_version()}"]
    for name in _VERSIONS:
        try:
            parts.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            parts.append(f"{name} (version unknown)")
    return ", ".join(parts)


def present(selection: Selection) -> tuple[list[str], list[str]]:
    """The sources and the splits that occur, in a fixed order."""
    sources, splits = set(selection.source.tolist()), set(selection.split.tolist())
    return [s for s in SOURCES if s in sources], [s for s in SPLITS if s in splits]


def _class_table(selection: Selection) -> list[str]:
    sources, splits = present(selection)
    rows = [["class", *(f"by {source}" for source in sources), *splits, "all"]]
    rows.append(["---", *["---:"] * (len(rows[0]) - 1)])
    for name in selection.classes:
        counts = [selection.count(name, source=source) for source in sources]
        counts += [selection.count(name, split=split) for split in splits]
        rows.append([name, *(f"{count:,}" for count in [*counts, selection.count(name)])])
    return [f"| {' | '.join(row)} |" for row in rows]


def _by_source(selection: Selection) -> Iterable[str]:
    """What the columns of the table mean, and what to mind."""
    sources, splits = present(selection)
    meaning = {
        "person": "`person`: a person judged the crop",
        "import": "`import`: the label came with the crop from another tool",
        "oracle": "`oracle`: a *simulated* reviewer said it, no person",
        "team": "`team`: the consensus of a team of networks, no person",
        "train": "`train`: everything else",
        "val": "`val`: drawn from what would train, to stop and choose by",
        "test": "`test`: the frozen test set, on which no team has trained",
        "held-out": "`held-out`: other crops of objects that the test set shows; neither train nor "
        "measure on them",
    }
    yield "; ".join(meaning[name] for name in [*sources, *splits]) + "."
    trusted = int(((selection.split == TEST) & (selection.source == "team")).sum())
    if trusted:
        yield ""
        yield (
            f"Of `test`, {trusted:,} labels are the team's: leave them out when you measure "
            "a model."
        )
    missing = [name for name in selection.classes if not selection.count(name)]
    if missing:
        yield ""
        yield f"No crop of this dataset is {' or '.join(missing)}."


def _certified(catalog: Catalog, selection: Selection) -> list[str]:
    certificate = selection.certificate
    if certificate is None:
        try:
            newest = newest_certificate(catalog.folder)
        except UserError as error:
            return [f"Not certified: {error}."]
        if newest is None:
            return [f"{NOT_CERTIFIED.capitalize()}."]
        return [
            f"Not certified as a whole: audit {newest.audit} covers a part of the team's labels "
            f"({', '.join(newest.passed) or 'no class passed'}); `certified=true` exports that."
        ]
    return [*_statement(certificate), *_since(certificate, selection)]


def _statement(certificate: Certificate) -> list[str]:
    lines = [f"Audit {certificate.audit} says:", ""]
    lines += [f"> {line}".rstrip() for line in certificate.statement.splitlines()]
    lines += ["", f"- Passed: {', '.join(certificate.passed)}."]
    if certificate.failed:
        lines.append(f"- Not passed, and not in here: {', '.join(certificate.failed)}.")
    return lines


def _since(certificate: Certificate, selection: Selection) -> list[str]:
    persons = int((selection.source != "team").sum())
    lines = [
        "",
        "The statement is about all crops that the audit froze. In this dataset a person's word "
        f"stands above the frozen label, as it does for {persons:,} of these crops.",
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
    return lines or ["No label in here is a team's."]


def _rights(licence: str) -> list[str]:
    stated = licence.strip() or (
        "Nobody has said under what terms these pictures may be used: ask whoever runs the camera."
    )
    return [
        stated,
        "",
        "The licence of collabteam does not extend to the pictures. They may show persons and "
        "number plates.",
    ]


def _columns(format: str, changed: bool) -> list[str]:
    name = "crop" if format == "parquet" else "crop_id"
    box = {
        "coco": "`frame_box` (left, top, width, height)",
        "parquet": "`box` (left, top, width, height)",
        "labelstudio": "`box` (left, top, width, height)",
    }.get(format, "`box_left`, `box_top`, `box_width`, `box_height`")
    return [
        f"- Of each crop: `{name}`, its name in the catalog; `label`; `split`; `source`; "
        "`confidence`, `round` and `team` (fingerprint) of a team's label; `proposed`, what a "
        "detector said; `video`; `track`, within the video; `frame`, from 0; `time`, in Unix "
        f"seconds; {box}, in pixels of the video's frame. What nobody knows is empty.",
        f"- {'All other pictures' if changed else 'Pictures'} are the catalog's, byte for byte.",
    ]
