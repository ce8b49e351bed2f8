"""Checks of names: cameras, roots, classes, labels, reviewers."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from collabteam.errors import UserError, plain

UNKNOWN = "unknown"
"""Label of a crop that shows none of the team's classes."""
UNUSABLE = "unusable"
"""Label of a crop that no person can judge; it never trains and never counts in figures."""

_REVIEWER = re.compile(r"[\w.@+-]{1,64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_OBJECT = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9_.=-]*")
# Hydra reads these as a number, a truth value or null; in a sweep even if they are quoted.
_NO_TEXT = re.compile(r"[\d_.]+(e-?[\d_]+)?|true|false|null|nan|inf", re.IGNORECASE)


def is_reviewer(name: str) -> bool:
    """Whether a person may have this name; ``oracle`` is the simulated reviewer."""
    return _REVIEWER.fullmatch(name) is not None and name != "oracle"


def is_camera_name(name: str) -> bool:
    """Whether a camera may have this name."""
    return _NAME.fullmatch(name) is not None and _NO_TEXT.fullmatch(name) is None


def check_camera_name(name: str) -> None:
    """Raise unless a camera may have this name.

    Raises:
        UserError: It is not up to 64 letters, digits, ``_``, ``.`` or ``-``.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"camera={plain(repr(name), 200)} is not a camera name: expected up to 64 letters, "
            "digits, '_', '.' or '-', beginning with a letter or digit"
        )
    if _NO_TEXT.fullmatch(name):
        raise UserError(
            f"camera={name} reads as a number or a truth value, not as a name: put a letter in "
            f"front, such as c{name}"
        )


def check_classes(classes: list[str]) -> None:
    """Raise unless the classes can make a team.

    Raises:
        UserError: Fewer than two classes, a repeated one, or a reserved or unusable name.
    """
    if len(classes) < 2:
        raise UserError(
            f"a team needs at least 2 classes, got {len(classes)} "
            f"({', '.join(plain(name, 80) for name in classes) or 'none'}): name them with "
            "'camera.classes=[a,b]'"
        )
    counts = Counter(classes)
    for name in classes:
        if counts[name] > 1:
            raise UserError(f"class {plain(name, 80)!r} is named twice in camera.classes")
        if name in (UNKNOWN, UNUSABLE):
            raise UserError(f"class name {name!r} is reserved: it means 'none of the classes'")
        if not _NAME.fullmatch(name):
            raise UserError(
                f"class {plain(repr(name), 80)}: expected letters, digits, '_', '.' or '-', at "
                "most 64, the first a letter or digit"
            )


def home_path(path: str) -> str:
    """Put the home folder in place of a ``~`` at the start of a path, as a shell does.

    Args:
        path: A path or an address.

    Raises:
        UserError: The user has no home folder.
    """
    if not path.startswith("~"):
        return path
    whole = os.path.expanduser(path)  # noqa: PTH111 - a name without such a user stays as it is
    if whole.startswith("~") and path.split("/")[0] == "~":
        raise UserError(f"{path}: this user has no home folder: name the folder without '~'")
    return whole


def is_class_name(name: str) -> bool:
    """Whether a class may have this name."""
    return _NAME.fullmatch(name) is not None and name not in (UNKNOWN, UNUSABLE)


def check_root(root: str | Path) -> None:
    """Raise unless cameras may lie under this root.

    Args:
        root: A folder, or ``s3://bucket/prefix``.

    Raises:
        UserError: It is another kind of address, or one without a bucket.
    """
    if not str(root) or any("\ud800" <= letter <= "\udfff" for letter in str(root)):
        raise UserError(f"root={str(root)!r}: expected a folder whose name is text in UTF-8")
    scheme, separator, rest = str(root).partition("://")
    parts = rest.removesuffix("/").split("/")
    if separator and (scheme != "s3" or not all(_OBJECT.fullmatch(part) for part in parts)):
        raise UserError(
            f"root={root}: expected a folder, or s3://bucket/prefix of letters, digits, '_', '.', "
            "'=' and '-'"
        )
