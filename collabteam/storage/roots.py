"""Roots: a folder, or an address in a store, under which every camera has its own folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

from collabteam.errors import UserError
from collabteam.settings import check_root, home_path


def cache_folder() -> Path:
    """The folder of this machine's copies of cameras in object stores."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(home) if home else Path.home() / ".cache") / "collabteam"
    except RuntimeError as error:  # no HOME, and no entry in the user table
        raise UserError(
            "this process has no home folder for the copy of a camera in an object store: name a "
            "folder with XDG_CACHE_HOME=..."
        ) from error


def store_address(root: str | Path) -> str:
    """The address of a root in an object store, without a slash at the end; ``""`` for a folder.

    Raises:
        UserError: The root is another kind of address, or one without a bucket.
    """
    check_root(root)
    return str(root).removesuffix("/") if "://" in str(root) else ""


def root_folder(root: str | Path) -> Path:
    """The folder of a root on this machine; for an object store, the folder of its copies.

    Args:
        root: A folder, or ``s3://bucket/prefix``.

    Raises:
        UserError: It is another kind of address, or one without a bucket.
    """
    if not (address := store_address(root)):
        return Path(home_path(str(root)))
    # Buckets of the same name on different servers are different buckets.
    server = os.environ.get("AWS_ENDPOINT_URL", "").partition("://")[2].strip("/") or "aws"
    inside = address.partition("://")[2]
    return cache_folder() / re.sub(r"[^A-Za-z0-9_.-]", "_", server) / inside


def work_folder(root: str | Path) -> Path:
    """Folder for files that belong to a root and to this machine alone, such as those of sweeps.

    Args:
        root: A folder, or ``s3://bucket/prefix``.
    """
    return Path("outputs") if store_address(root) else root_folder(root)
