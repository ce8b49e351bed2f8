"""Walk through a user's folder: what is in it, and what is not the user's, not readable or reached
twice."""

from __future__ import annotations

import errno
import os
import re
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from collabteam.errors import plain
from collabteam.sources.base import Aside

# Folders of file servers and systems: thumbnails, recycle bins, snapshots and indices. Hidden ones
# and those that begin with '@' (Synology, QNAP, Samba's snapshots) need no name here.
_SYSTEM = frozenset(
    (
        *(
            "#recycle",
            "#snapshot",
            "#snapshots",
            "#archive",
            "~snapshot",
            "$recycle.bin",
            "$extend",
        ),
        *("lost+found", "__macosx", "icon\r"),
        *("system volume information", "network trash folder", "temporary items"),
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),
        *("lost.dir", "trashbox", "_gsdata_"),
    )
)
_FOUND = re.compile(r"found\.\d{3}", re.IGNORECASE)  # what a check of the disk put together again


def is_foreign(name: str) -> bool:
    """Whether a file or folder of this name is hidden or a system's, not the user's."""
    if name in ("RECYCLER", "RECYCLED"):  # of old Windows; in other letters it may be a class
        return True
    if _FOUND.fullmatch(name):
        return True
    return name.startswith((".", "@")) or name.casefold() in _SYSTEM


@dataclass
class Found:
    """The result of a walk.

    Attributes:
        files: Names of files that may be regular ones, as parts below the folder: the files of a
            folder before its subfolders, both sorted.
        folders: All folders, as parts below the folder.
        passed_over: Files and folders that are hidden or a system's, by name.
        links: Links that lead out of the folder and were not followed.
        again: Folders that are reached a second time, and the name under which they are taken.
        unreadable: Folders that this user may not read, and the reason.
    """

    files: list[tuple[str, ...]] = field(default_factory=list)
    folders: list[tuple[str, ...]] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    links: list[tuple[str, ...]] = field(default_factory=list)
    again: list[tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=list)
    unreadable: list[tuple[tuple[str, ...], str]] = field(default_factory=list)

    def aside(self, top: Path) -> Aside:
        """Return what was left aside below the folder ``top``, in words."""
        return Aside(
            passed_over=Counter({plain(name): n for name, n in self.passed_over.items()}),
            links=[joined(parts) for parts in self.links],
            unreadable=[
                (plain(str(top.joinpath(*parts))), reason) for parts, reason in self.unreadable
            ],
        )

    def twice(self) -> str:
        """Say which folders are reached twice; ``""`` if none is."""
        cases = [f"{joined(again)} (as {joined(first)})" for again, first in self.again]
        more = f" and {len(cases) - 8} more" if len(cases) > 8 else ""
        listed = f"the same folder twice, taken once: {', '.join(cases[:8])}{more}"
        return listed if cases else ""


def walk(top: Path, wanted: Callable[[str], bool], follow_links: bool) -> Found:
    """Find all files below a folder.

    A folder counts once, however many links lead to it: under its own name if that is below
    ``top``, else under that of the first link.

    Args:
        top: The folder; it may be a link itself.
        wanted: Whether a file of this name is of interest; only then does a link to it count.
        follow_links: Whether to follow links that lead out of the folder.

    Raises:
        OSError: The folder itself cannot be read.
    """
    real_top = os.path.realpath(top)
    found = Found()
    tree: dict[tuple[str, ...], tuple[list[str], list[str]]] = {}
    taken: dict[str, tuple[str, ...]] = {real_top: ()}
    links: deque[tuple[tuple[str, ...], str]] = deque()

    def read(parts: tuple[str, ...]) -> None:
        """Read a folder and the folders below it, but not those behind links."""
        waiting = [parts]
        while waiting:
            here = waiting.pop()
            files, folders = tree.setdefault(here, ([], []))
            try:
                with os.scandir(top.joinpath(*here)) as entries:
                    there = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                if not here:
                    raise
                found.unreadable.append((here, reason_of(error)))
                continue
            for entry in there:
                below = (*here, entry.name)
                if is_foreign(entry.name):
                    found.passed_over["._*" if entry.name.startswith("._") else entry.name] += 1
                    continue
                is_link = entry.is_symlink()
                target = os.path.realpath(entry.path) if is_link else ""
                leads_out = is_link and not follow_links and not _is_within(target, real_top)
                try:
                    is_folder = entry.is_dir()
                except OSError as error:
                    # The name of a picture says that it is no folder; who reads it says the rest.
                    if not is_gone(error) and not leads_out and not wanted(entry.name):
                        found.unreadable.append((below, reason_of(error)))
                        continue
                    is_folder = False  # links that lead to themselves
                if leads_out:
                    if is_folder or wanted(entry.name):
                        found.links.append(below)
                elif is_folder and is_link:
                    links.append((below, target))
                elif is_folder:
                    folders.append(entry.name)
                    real = os.path.realpath(entry.path)
                    if real in taken:  # behind a link that leads to a folder above
                        found.again.append((below, taken[real]))
                        folders.pop()
                    else:
                        taken[real] = below
                        waiting.append(below)
                else:
                    files.append(entry.name)

    read(())
    while links:
        below, target = links.popleft()
        if target in taken:
            found.again.append((below, taken[target]))
            continue
        taken[target] = below
        tree[below[:-1]][1].append(below[-1])
        read(below)
    found.unreadable.sort()
    found.links.sort()
    found.again.sort()
    _in_order(tree, found)
    return found


def _in_order(tree: dict[tuple[str, ...], tuple[list[str], list[str]]], found: Found) -> None:
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        here = waiting.pop()
        files, folders = tree[here]
        found.folders.append(here)
        found.files += [(*here, name) for name in sorted(files)]
        waiting += [(*here, name) for name in sorted(folders, reverse=True)]


def _is_within(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")


def joined(parts: tuple[str, ...]) -> str:
    """Format the place of a file below a folder for messages."""
    return plain("/".join(parts) or ".")


def reason_of(error: OSError) -> str:
    """What the system says, for messages."""
    return error.strerror or type(error).__name__


def is_gone(error: OSError) -> bool:
    """Whether an error says that nothing is there, as behind a broken link.

    Every other error may pass: this user may not read it yet, or a file server does not answer.
    """
    return error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
