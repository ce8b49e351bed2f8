"""Write a dataset's folder, completely or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from collabteam.catalog.catalog import Catalog
from collabteam.errors import UserError, disk_errors
from collabteam.exporting.base import ExportFormat, WriteReport
from collabteam.exporting.crops import ExportedCrop, read_crops
from collabteam.exporting.readme import README, dataset_readme
from collabteam.exporting.selection import Selection
from collabteam.storage.staging import staging_folder, write_errors


def export_dataset(
    catalog: Catalog,
    selection: Selection,
    format: ExportFormat,
    to: Path,
    seed: int = 0,
    licence: str = "",
    command: str = "",
    advance: Callable[[int], None] = lambda count: None,
) -> Selection:
    """Write labelled crops as a dataset, into a new folder.

    The folder appears last and complete: everything is first written into a hidden folder beside
    it, and the next call deletes the remains of a killed one. The same labels give the same bytes,
    whatever the folder's name; only ``README.md`` has the date.

    Args:
        catalog: The camera.
        selection: The crops and their labels; see :func:`select_labels`.
        format: An instance of one of ``EXPORT_FORMATS``.
        to: The folder to make; an empty one may exist.
        seed: Seed of the format's random draws, such as a split into train and val.
        licence: Statement for ``README.md`` about rights to the pictures.
        command: The command line, for ``README.md``.
        advance: Called after each written part with its number of crops.

    Returns:
        The written selection, in the order and with the splits of the format.

    Raises:
        UndecodableCrops: Pictures cannot be opened; it names all of them, and nothing has been
            written. The selection without them can be exported.
        UserError: Nothing is selected, the folder exists and is not empty or cannot be written, or
            the disk is full; nothing has been written.
    """
    if to.name in ("", ".."):
        raise UserError(f"to={to}: expected the name of a folder to make")
    if any("\ud800" <= letter <= "\udfff" for letter in to.name):
        raise UserError(f"to={to}: expected a name in UTF-8, which the files can repeat")
    if not len(selection):
        raise UserError(_nothing(catalog, selection))
    written = format.arrange(selection, seed)
    with write_errors(to), disk_errors():
        to.parent.mkdir(parents=True, exist_ok=True)
        with staging_folder(to, alone=True) as hidden:
            _check_free(to)
            folder = hidden / "dataset"
            folder.mkdir()
            converted = 0

            def crops() -> Iterator[ExportedCrop]:
                nonlocal converted
                for crop in read_crops(catalog, written, advance):
                    converted += crop.converted
                    yield crop

            report = format.write(crops(), folder, written, catalog.name)
            if converted:
                report = WriteReport(report.remarks, report.converted + converted)
                report.remarks.append(
                    "Written as upright PNG, because programs do not agree about pictures that are "
                    "turned, transparent, animated, or of more than 8 bits a colour: "
                    f"{converted} of the pictures."
                )
            text = dataset_readme(catalog, written, format, to, licence, command, report)
            (folder / README).write_text(text, encoding="utf-8")
            _check_free(to)  # another process may have made it meanwhile
            folder.rename(to)
    return written


def _nothing(catalog: Catalog, selection: Selection) -> str:
    command = f"python -m collabteam.review camera={catalog.name}"
    if not len(selection.index):
        return f"camera {catalog.name} has no crops: python -m collabteam.ingest adds some"
    return (
        f"no crop of camera {catalog.name} is to be exported: left out are "
        f"{'; '.join(selection.left_out_lines())}. {command} lets a person label them"
    )


def _check_free(to: Path) -> None:
    if to.is_symlink() or (to.exists() and not (to.is_dir() and not any(to.iterdir()))):
        raise UserError(
            f"to={to} exists already and is not an empty folder: name another one, or move it away"
        )
