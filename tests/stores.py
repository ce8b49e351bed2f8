"""Roots in the object store of :mod:`s3_server`, as tests see them without collabteam."""

from __future__ import annotations

from pathlib import Path

import obstore
from obstore.store import S3Store

BUCKET = "cameras"


def objects(root: str) -> S3Store:
    """The objects of a root, where the environment names the server."""
    return S3Store(BUCKET, prefix=root.split("/", 3)[3], client_options={"allow_http": True})


def bring(local: Path, root: str) -> None:
    """Copy a root on disk into the store, as any tool for S3 would."""
    to = objects(root)
    for file in sorted(local.rglob("*")):
        if file.is_file() and file.name != "lock" and not file.name.endswith(".lock"):
            obstore.put(to, file.relative_to(local).as_posix(), file)
