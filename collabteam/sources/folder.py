"""A folder of pictures as a source: flat, a folder per class, or a folder per split with these."""

from __future__ import annotations

import re
import stat
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from collabteam.errors import UserError, plain
from collabteam.settings import UNKNOWN, UNUSABLE, is_class_name
from collabteam.sources.base import (
    EXTENSIONS,
    LARGEST_FILE,
    Aside,
    Item,
    Labels,
    Meaning,
    called_like_a_split,
)
from collabteam.sources.columns import Row
from collabteam.sources.vocabulary import HELD_OUT, TEST, TRAIN, is_missing, split_of, splits_in
from collabteam.sources.walk import Found, is_gone, joined, reason_of

CROP_NAME = re.compile(r"[0-9a-f]{24}")
"""Name of a crop, by which exports call its picture."""

Parts = tuple[str, ...]
Layout = Literal["classes", "splits", "classes of splits", "flat"]


@dataclass(frozen=True)
class Records:
    """What a table of one of our exports says about the pictures beside it.

    Attributes:
        by_file: By the picture's place below the folder.
        by_crop: By the name of the crop, for pictures that somebody has moved.
        layout: How the folder is arranged.
        classes: The classes in order, if the export names them.
        name: The table, for messages.
    """

    by_file: dict[Parts, Row]
    by_crop: dict[str, Row]
    layout: Layout
    classes: list[str]
    name: str


NO_RECORDS = Records({}, {}, "classes", [], "")


class FolderSource:
    """The pictures of a folder; see :class:`~.base.Source`.

    The folders at the top are classes, or splits with a folder per class in each; the camera's
    classes decide where a name could be either.

    Args:
        path: The folder.
        found: All of its files.
        labels: Meaning of the labels.
        classes: The camera's classes, if known.
        aside: Takes what is left aside.
        records: The table of one of our exports, if the folder is one.

    Raises:
        UserError: The folder holds no picture, or splits and classes are mixed.
    """

    def __init__(
        self,
        path: Path,
        found: Found,
        labels: Labels,
        classes: Collection[str],
        aside: Aside,
        records: Records = NO_RECORDS,
    ) -> None:
        self.meaning: Labels = labels
        self.aside = aside
        self._path, self._records = path, records
        self._pictures = [p for p in found.files if p[-1].lower().endswith(EXTENSIONS)]
        self.aside.ignored = len(found.files) - len(self._pictures)
        if not self._pictures:
            others = [f"it has {aside.ignored} files of other kinds"] if aside.ignored else []
            if tables := [parts for parts in found.files if parts[-1].endswith(".parquet")]:
                others = [f"name one of its tables, such as {joined(tables[0])}"]
            told = "; ".join([*others, *aside.instead()])
            raise UserError(
                f"path={path} holds no image{told and f': {told}'}; expected .jpg, .png, .webp, ..."
            )
        if records.name:
            self._check_table()
        given = {label for row in records.by_file.values() for label in row.given.values()}
        known = {*classes, *records.classes, *given, UNKNOWN, UNUSABLE}
        folders = _Folders.of(self._pictures, found)
        self._layout = records.layout if records.name else _layout(path, folders, known)
        self._known = known
        self._check_again(found)
        labelled = [self._label(parts) for parts in self._pictures if not self._row(parts)]
        self.labels = (set(labelled) | given) - {""}
        self.answers = bool(self.labels)
        if self.labels:
            self._closed_classes(found)
        self._tell(found, labelled)
        self.total = len(self._pictures)
        extra = sorted(self.labels - {*records.classes, UNKNOWN, UNUSABLE})
        self.classes = [*records.classes, *extra] if records.classes else []

    def _check_table(self) -> None:
        """Refuse an export whose table lost crops; tell what somebody has put beside them.

        Raises:
            UserError: It is one.
        """
        others = [
            parts[-1].rpartition(".")[0] for parts in self._pictures if self._row(parts) is None
        ]
        added = [name for name in others if name not in self._records.by_crop]
        if lost := [name for name in added if CROP_NAME.fullmatch(name)]:
            raise UserError(
                f"path={self._path}: {self._records.name} has no row for {len(lost):,} crops, such "
                f"as {lost[0]}, and does not say who labelled them: export again, or remove it to "
                "take all labels from the folders"
            )
        if added:
            self.aside.remarks.append(
                f"pictures that {self._records.name} does not name: {len(added):,}"
            )

    # -- where the label and the split stand -----------------------------------------------------

    def _place(self, parts: Parts) -> int:
        """Number of the folder that names the class, -1 for none."""
        return {"classes": 0, "splits": 1, "classes of splits": 0, "flat": -1}[self._layout]

    def _label(self, parts: Parts) -> str:
        """Return the class that a picture's folders name; ``""`` for none."""
        place = self._place(parts)
        name = parts[place] if 0 <= place < len(parts) - 1 else ""
        return "" if name not in self._known and is_missing(name) else name

    def _split(self, parts: Parts) -> str:
        place = {"splits": 0, "classes of splits": 1}.get(self._layout, -1)
        return split_of(parts[place]) if 0 <= place < len(parts) - 1 else ""

    def _row(self, parts: Parts) -> Row | None:
        """Return what the export's table says about a picture in its place."""
        return self._records.by_file.get(parts)

    def _check_again(self, found: Found) -> None:
        """Refuse a folder that is reached as two splits.

        Raises:
            UserError: There is one.
        """
        for again, first in found.again:
            splits = [self._split((*parts, "", "")) for parts in (again, first)]
            if first and splits[0] != splits[1]:
                raise UserError(
                    f"path={self._path}: {joined(again)} and {joined(first)} are one folder, and "
                    "no crop can be in two splits: remove the link"
                )

    def _closed_classes(self, found: Found) -> None:
        """Take the names of classes that this user may not read; else they could never be added."""
        for parts, _ in found.unreadable:
            name = self._label((*parts, ""))
            if len(parts) == self._place(parts) + 1 and is_class_name(name):
                self.labels.add(name)

    # -- what is told ----------------------------------------------------------------------------

    def _tell(self, found: Found, labelled: list[str]) -> None:
        tell = self.aside.remarks
        place = 1 if self._layout == "splits" else 0
        for parts in self._pictures:
            if self._layout != "flat" and len(parts) > place + 1 and not self._row(parts):
                name = parts[place]
                if name not in self._known and is_missing(name):
                    self.aside.unlabelled[name] += 1
        if self._layout in ("classes of splits", "splits") and not self._records.name:
            counts = Counter(self._split(parts) or "no split" for parts in self._pictures)
            tell.append(
                "folders of splits: "
                + ", ".join(f"{count} pictures of {name}" for name, count in sorted(counts.items()))
            )
        if self._layout not in ("classes of splits", "splits") and not self._records.name:
            tell += called_like_a_split(
                self._path, self._path.absolute().name, self._path.resolve().name
            )
        loose = sum(len(parts) == 1 for parts in self._pictures)
        if loose and self.labels and not self._records.name:
            tell.append(f"without a label, beside the folders of classes: {loose} pictures")
        filled = {parts[:depth] for parts in self._pictures for depth in range(len(parts))}
        closed = {parts for parts, _ in found.unreadable}
        empty = [
            parts for parts in found.folders
            if len(parts) == place + 1 and parts not in filled and parts not in closed
        ]  # fmt: skip
        if twice := found.twice():
            tell.append(twice)
        if empty and self.labels and not self._records.name:
            tell.append(f"folders without a picture: {', '.join(map(joined, empty[:8]))}")
        if missing := len(self._records.by_file.keys() - set(self._pictures)):
            tell.append(f"in {self._records.name}, but without a picture: {missing} crops")

    # -- pictures --------------------------------------------------------------------------------

    def items(self) -> Iterator[Item]:
        """Yield the pictures, by folder and name."""
        for parts in self._pictures:
            path = self._path.joinpath(*parts)
            image, fault, closed = b"", "", False
            try:
                status = path.stat()
                if not stat.S_ISREG(status.st_mode):  # reading a pipe might never end
                    fault = "no regular file"
                elif status.st_size > LARGEST_FILE:
                    fault = f"larger than {LARGEST_FILE // 2**20} MB"
                else:
                    image = path.read_bytes()
            except OSError as error:
                fault = f"cannot be read: {reason_of(error)}"
                closed = not is_gone(error)
            row = self._row(parts) or self._moved(parts)
            # A file name that is not valid text must not break printing the summary.
            yield Item(
                plain(str(path)), image, fault, row.given, row.split, row.origin, row.crop_id,
                closed,
            )  # fmt: skip

    def _moved(self, parts: Parts) -> Row:
        """Return what the folders say; a moved picture of our exports keeps its origin."""
        label = self._label(parts)
        crop = parts[-1].rpartition(".")[0]
        before = self._records.by_crop.get(crop)
        # Without its table, an export still names its crops: the catalog may know them.
        crop = crop if before or CROP_NAME.fullmatch(crop) else ""
        given: dict[Meaning, str] = {self.meaning: label} if label else {}
        if before is None:
            return Row(given, self._split(parts), {}, crop)
        if label in ("", *before.given.values()):  # it still is what the table says of it
            given = before.given
        return Row(given, self._split(parts) or before.split, before.origin, crop)


@dataclass
class _Folders:
    """The names of folders at the top, and of those below each, as far as they matter.

    Attributes:
        below: By name of the folder at the top: the names of the folders in it.
        loose: Folders at the top with pictures directly in them.
        deep: Names of the folders below those of the second level.
    """

    below: dict[str, set[str]] = field(default_factory=dict)
    loose: set[str] = field(default_factory=set)
    deep: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, pictures: list[Parts], found: Found) -> _Folders:
        folders = cls()
        # A folder that cannot be read counts as one with a picture.
        for parts in [*pictures, *((*closed, "") for closed, _ in found.unreadable)]:
            if len(parts) < 2:
                continue
            below = folders.below.setdefault(parts[0], set())
            if len(parts) > 2:
                below.add(parts[1])
            elif parts[1]:
                folders.loose.add(parts[0])
            folders.deep.update(name for name in parts[2:-1] if name)
        return folders


def _layout(path: Path, folders: _Folders, known: Collection[str]) -> Layout:
    """Choose between the layouts; the camera's classes count before the names of splits.

    Raises:
        UserError: It is a mixture.
    """
    tops = sorted(folders.below)
    seconds = set().union(*folders.below.values()) if tops else set()
    splits = [name for name in tops if split_of(name)]
    if splits == tops and tops:
        as_classes = set(tops) <= set(known)
        if not as_classes or (seconds and seconds <= set(known) and not folders.loose):
            inner = sorted(name for name in seconds if split_of(name) and name not in known)
            if inner:
                raise _mixture(path, inner, splits, "inside folders of splits")
            _check_deep(path, folders, known)
            return "splits"
    undecided = [name for name in splits if name not in known] or _spelled_out(tops, known)
    if undecided:
        others = [name for name in tops if name not in undecided]
        raise _mixture(path, undecided, others, "beside others" if others else "at the top")
    inner = sorted(name for name in seconds if split_of(name))
    if not inner:
        if spelled_out := _spelled_out(sorted(seconds), known):
            others = sorted(seconds.difference(spelled_out))
            raise _mixture(path, spelled_out, others, "in folders of classes")
        _check_deep(path, folders, known)
        return "classes"
    if len(inner) == len(seconds) and not folders.loose and all(folders.below.values()):
        # A single class makes no team, but a dataset often lies in a single folder.
        if folders.deep or (len(tops) == 1 and tops[0] not in known):
            at = Path(path, tops[0])
            raise UserError(
                f"path={path}: {', '.join(map(plain, tops[:5]))} hold folders of splits "
                f"({', '.join(map(plain, inner[:5]))}) and are no classes: name the folder above "
                f"the splits, such as path={plain(str(at))}"
            )
        return "classes of splits"
    if any(split_of(name) in (TEST, HELD_OUT) for name in inner):
        raise _mixture(path, inner, sorted(seconds - {*inner}), "in folders of classes")
    return "classes"


def _check_deep(path: Path, folders: _Folders, known: Collection[str]) -> None:
    """Refuse test pictures so deep in the folders that they would train.

    Raises:
        UserError: There are some.
    """
    names = sorted(folders.deep.difference(known))
    if apart := [name for name in names if split_of(name) in (TEST, HELD_OUT)]:
        raise _mixture(path, apart, [], "deep in folders of classes")


def _spelled_out(names: list[str], known: Collection[str]) -> list[str]:
    """Return the names that hold words of splits, if these set training and test pictures apart."""
    found = {name: splits_in(name) for name in names if name not in known}
    apart = set().union(*found.values()) if found else set()
    return [name for name in found if found[name]] if {TRAIN, TEST} <= apart else []


def _mixture(path: Path, splits: list[str], others: list[str], where: str) -> UserError:
    first = plain(splits[0])
    named = ", ".join(map(plain, splits[:5]))
    beside = f" ({', '.join(map(plain, others[:5]))})" if others else ""
    return UserError(
        f"path={path}: folders called like splits ({named}) {where}{beside}: expected "
        "CLASS/*.jpg, or train/CLASS/*.jpg and test/CLASS/*.jpg below the path; if "
        f"{first} is a class, name the classes: 'camera.classes=[{first},...]'"
    )
