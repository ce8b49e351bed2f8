"""An object store as a root: addresses, the client, retries, and errors that a user can act on.

All other code works with folders on this machine: :mod:`collabteam.storage.mirror` uploads and
downloads the files of a folder, while tables are read and written in the store itself.
"""

from __future__ import annotations

import math
import os
import random
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

import lance
import obstore
import pyarrow as pa
from lance.commit import CommitConflictError
from lance.fragment import write_fragments
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from collabteam.errors import UserError, first_line, plain
from collabteam.storage.layout import TABLE

if TYPE_CHECKING:
    from obstore import PutMode

PATIENCE = 60.0
"""Seconds of retries for a store that does not answer."""
_SILENCE = 4.0
_WORKERS = 8
# For one request: longer than a slow line takes for one object. A request that hangs is repeated.
_REQUEST_SECONDS = 120.0
# Number of appends that may overtake a merge before it gives up.
_COMMITS = 5

Result = TypeVar("Result")

# Servers that did not answer in time. Until they answer, no request waits for them again.
_gave_up: set[str] = set()

# Lance passes on the store's responses only as text. Its text and the client's come from the same
# Rust crate, so these patterns serve both; the client's exception types would serve only one.
_STATUS = re.compile(r"status code: (\d{3})|StatusCode\((\d{3})\)")
_NO_CREDENTIALS = re.compile(r"failed to get aws credentials|169\.254\.|no credentials", re.I)
_AWAY = re.compile(
    r"error sending request|connection (?:refused|reset|closed)|(?<!_)timed? ?out|broken pipe"
    r"|error decoding response body|request or response body error|unexpected end|dns error",
    re.I,
)


class Conflict(Exception):
    """Another writer changed an object first."""


@dataclass(frozen=True)
class StoredObject:
    """An object as it was found.

    Attributes:
        content: Its bytes.
        etag: Changes with the content.
        modified: When it was written, by the store's clock.
    """

    content: bytes
    etag: str
    modified: datetime


class Store:
    """Objects below one address; names are relative to it.

    Args:
        url: ``s3://bucket/prefix``.
        request_seconds: Longest time that one request may take.
    """

    def __init__(self, url: str, request_seconds: float = _REQUEST_SECONDS) -> None:
        self.url = url
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self.bucket = f"s3://{bucket}"
        self.endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
        over_http = self.endpoint.startswith("http://")
        self._objects = S3Store(
            bucket,
            prefix=prefix or None,
            client_options={
                "allow_http": over_http,
                "connect_timeout": timedelta(seconds=5),
                "timeout": timedelta(seconds=request_seconds),
            },
            # patiently() does the retries.
            retry_config={"max_retries": 1, "retry_timeout": timedelta(seconds=10)},
        )
        self.lance_options = {
            "allow_http": str(over_http).lower(),
            "client_max_retries": "1",
            "client_retry_timeout": "10",
            "connect_timeout": "5s",
            "timeout": f"{request_seconds:.0f}s",
        }

    # -- patience ----------------------------------------------------------------------------------

    def patiently(self, operation: Callable[[], Result]) -> Result:
        """Run an operation on the store, and repeat it while the store does not answer.

        Args:
            operation: Must be safe to repeat.

        Raises:
            UserError: The store does not answer for ``PATIENCE`` seconds, has no such bucket, or
                refuses the credentials. All other exceptions of the operation pass through.
        """
        began = time.monotonic()
        until = began + (0.0 if self.endpoint in _gave_up else PATIENCE)
        pause, told = 0.2, False
        while True:
            try:
                result = operation()
            except (AlreadyExistsError, PreconditionError):
                raise
            except (BaseError, OSError, ValueError, RuntimeError) as error:
                if not self._is_away(error):
                    raise
                if time.monotonic() + pause > until:
                    _gave_up.add(self.endpoint)
                    raise UserError(
                        f"{self.url} does not answer{self._at()} ({_short(error)}): once it is "
                        "back, run the same command again to continue; nothing is lost"
                    ) from error
            else:
                _gave_up.discard(self.endpoint)
                return result
            if time.monotonic() - began > _SILENCE and not told:
                told = True
                say(f"{self.url} does not answer{self._at()}, retrying for a minute")
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def _at(self) -> str:
        return f" at {self.endpoint}" if self.endpoint else ""

    def _is_away(self, error: Exception) -> bool:
        """Whether the store is unavailable, so that a retry may help.

        Raises:
            UserError: Only the user can help.
        """
        text = str(error)
        if "NoSuchBucket" in text or "InvalidBucketName" in text:
            raise UserError(
                f"there is no bucket {self.bucket}{self._at()}: create it, or correct root="
            ) from error
        if _NO_CREDENTIALS.search(text):
            raise UserError(
                f"{self.url}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and "
                "AWS_ENDPOINT_URL unless the store is Amazon's"
            ) from error
        match = _STATUS.search(text)
        status = int(match[1] or match[2]) if match else 0
        if status in (401, 403):
            code = re.search(r"<Code>(\w+)</Code>", text)
            raise UserError(
                f"{self.url} is forbidden to these credentials{self._at()} "
                f"({code[1] if code else status}): check AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, and that they may list, read, write and delete there"
            ) from error
        if status in (301, 307, 400) and re.search("Redirect|AuthorizationHeader|region", text):
            raise UserError(
                f"{self.url} lies in another region: set AWS_REGION ({_short(error)})"
            ) from error
        if status == 501:
            raise UserError(self._no_conditions()) from error
        if status in (408, 429) or status >= 500 or (not status and _AWAY.search(text)):
            return True
        if "invalid path" in text:
            raise UserError(
                f"{self.url} holds an object whose name no file can have ({_short(error)}): delete "
                "it, or move it elsewhere"
            ) from error
        if isinstance(error, BaseError):
            raise UserError(f"{self.url} cannot be used{self._at()} ({_short(error)})") from error
        return False

    # -- objects -----------------------------------------------------------------------------------

    def read(self, name: str) -> StoredObject | None:
        """One object; None if no object has this name."""

        def get() -> StoredObject | None:
            try:
                answer = obstore.get(self._objects, name)
                meta = answer.meta
                return StoredObject(
                    bytes(answer.bytes()), meta["e_tag"] or "", meta["last_modified"]
                )
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise
                return None

        return self.patiently(get)

    def write(self, name: str, content: bytes, over: str | None = None) -> str:
        """Write one object unless another writer has changed it.

        Args:
            name: Its name.
            content: Its bytes.
            over: Etag of the object that it replaces; None to make a new object.

        Returns:
            Its etag.

        Raises:
            Conflict: The object has changed. This call itself may have changed it, if the store's
                response was lost.
        """
        mode: PutMode = "create" if over is None else {"e_tag": over}
        try:
            return self.patiently(
                lambda: obstore.put(self._objects, name, content, mode=mode, use_multipart=False)
            )["e_tag"] or ""  # fmt: skip
        except (AlreadyExistsError, PreconditionError) as error:
            raise Conflict(name) from error
        except FileNotFoundError as error:  # the object to replace was deleted
            raise Conflict(name) from error

    def check_conditions(self) -> None:
        """Make sure that the store refuses to create an object that already exists.

        Only this keeps two writers apart.

        Raises:
            UserError: The store does not refuse.
        """
        name = f".{uuid.uuid4().hex}"
        self.write(name, b"1")
        try:
            self.write(name, b"2")
        except Conflict:
            return
        finally:
            self.delete(name)
        raise UserError(self._no_conditions())

    def _no_conditions(self) -> str:
        return (
            f"{self.url}: the store{self._at()} does not support conditional writes "
            "(If-None-Match, If-Match), without which two writers would overwrite each other: use "
            "one that does, such as Amazon S3 or MinIO, or a folder"
        )

    def delete(self, name: str) -> None:
        """Remove an object, if there is one of that name."""
        self.patiently(lambda: obstore.delete(self._objects, name))

    def listing(self) -> dict[str, tuple[str, int]]:
        """Etag and size by name of every object that belongs to no table."""
        top = self.patiently(lambda: obstore.list_with_delimiter(self._objects))
        found = {meta["path"]: (meta["e_tag"] or "", meta["size"]) for meta in top["objects"]}

        def below(prefix: str) -> None:
            inside = self.patiently(lambda: obstore.list(self._objects, prefix).collect())
            found.update((meta["path"], (meta["e_tag"] or "", meta["size"])) for meta in inside)

        together(below, [name for name in top["common_prefixes"] if not name.endswith(TABLE)])
        return without_folder_marks(found)

    def copy(self, name: str, to: Store, but: str) -> None:
        """Copy the objects below a name to the same name elsewhere in the bucket.

        The data does not pass through this machine. Existing objects are replaced.

        Args:
            name: The name.
            to: The objects of the other place.
            but: The end of the path of an object that is left out.
        """
        bucket = Store(self.bucket)
        source, target = (one.url.removeprefix(f"{self.bucket}/") for one in (self, to))
        found = self.patiently(lambda: obstore.list(self._objects, name).collect())

        def copy_one(path: str) -> None:
            self.patiently(
                lambda: obstore.copy(bucket._objects, f"{source}/{path}", f"{target}/{path}")
            )

        together(copy_one, [meta["path"] for meta in found if not meta["path"].endswith(but)])

    def sizes(self, name: str) -> list[int]:
        """Bytes of every object below a name."""
        found = self.patiently(lambda: obstore.list(self._objects, name).collect())
        return [meta["size"] for meta in found]

    def folders(self) -> list[str]:
        """The first part of every name that has more than one."""
        page = self.patiently(lambda: obstore.list_with_delimiter(self._objects))
        return sorted(page["common_prefixes"])

    def server_time(self) -> datetime:
        """The time by the store's own clock, in whole seconds."""
        self.patiently(lambda: obstore.put(self._objects, ".clock", os.urandom(8)))
        return self.patiently(lambda: obstore.head(self._objects, ".clock"))["last_modified"]


def without_folder_marks(found: dict[str, tuple[str, int]]) -> dict[str, tuple[str, int]]:
    """Leave out the objects that consoles and file systems make to show an empty folder.

    Their names end in a slash, which the client drops.

    Args:
        found: Etag and size by name.
    """
    folders = {""}
    for name in found:
        while name := name.rpartition("/")[0]:
            folders.add(name)
    return {
        name: (etag, size)
        for name, (etag, size) in found.items()
        if name not in folders and (size or "." in name.rpartition("/")[2])
    }


def say(text: str) -> None:
    """Tell the user why an operation takes a while."""
    print(plain(text), file=sys.stderr, flush=True)


def together(function: Callable[[Result], object], items: Iterable[Result]) -> None:
    """Call a function on many items, a few at a time; raises the first exception."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        try:
            for future in [pool.submit(function, item) for item in items]:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _short(error: Exception) -> str:
    """The error without the request's address and details of the client."""
    text = str(error)
    if match := _STATUS.search(text):
        return f"status {match[1] or match[2]}"
    found = _AWAY.search(text)
    return found[0] if found else first_line(error)


# -- Lance on a store ------------------------------------------------------------------------------


def append_once(data: lance.LanceDataset, rows: pa.Table, store: Store) -> lance.LanceDataset:
    """Append rows in one commit, exactly once even if an answer of the store is lost.

    A commit is a conditional put. If its answer is lost, the outcome is unknown; each commit has a
    unique name, so the table's history shows whether it succeeded.

    Args:
        data: The table as last seen.
        rows: The rows to append.
        store: The store that holds it.

    Returns:
        The table with the rows.
    """
    written = store.patiently(
        lambda: write_fragments(rows, data, mode="append", return_transaction=True)
    )
    first, is_unsure = int(data.version), False

    def commit() -> lance.LanceDataset:
        nonlocal is_unsure
        pause = 0.01
        while True:
            if is_unsure:
                data.checkout_latest()  # type: ignore[no-untyped-call]
                later = int(data.version) - first
                history = data.get_transactions(later) if later else []
                if any(done is not None and done.uuid == written.uuid for done in history):
                    return data
            is_unsure = True
            named = lance.Transaction(int(data.version), written.operation, written.uuid)
            try:
                # Lance's own retries are off: they do not recognise their own lost commit.
                return lance.LanceDataset.commit(data, named, max_retries=0)
            except OSError as error:
                if not _is_conflict(error):
                    raise
            time.sleep(pause * random.random())
            pause = min(2 * pause, 1.0)

    return store.patiently(commit)


def merge_small(
    data: lance.LanceDataset,
    largest: int,
    store: Store,
    advance: Callable[[int], None] | None = None,
) -> lance.LanceDataset:
    """Merge neighbouring small fragments; others may append meanwhile.

    The merged table is committed as a replacement of exactly the version that it was made from. An
    append in between makes the commit fail and is then placed after the merged rows; the writer of
    an append after the commit retries it. The order of the rows stays in either case. If another
    process merged meanwhile, or the store refuses, the table is left as it is.

    Args:
        data: The table.
        largest: A fragment of fewer rows is small; a merged one has at most this many.
        store: The store that holds it.
        advance: Called with the number of rows just merged.

    Returns:
        The table, merged or as it was.
    """
    before = [fragment.metadata for fragment in data.get_fragments()]
    merged = []
    for is_small, run in groupby(before, key=lambda metadata: metadata.num_rows < largest):
        members = list(run)
        rows = sum(member.num_rows for member in members)
        if is_small and math.ceil(rows / largest) < len(members):
            numbers = [member.id for member in members]
            members = store.patiently(partial(_rewrite, data, numbers, largest))
            if advance:
                advance(rows)
        merged += members
    if len(merged) == len(before):
        return data
    for _ in range(_COMMITS):
        now = [fragment.metadata for fragment in data.get_fragments()]
        if list(map(_paths, now[: len(before)])) != list(map(_paths, before)):
            return data  # merged by another process, or by this commit after its response was lost
        operation = lance.LanceOperation.Overwrite(data.lance_schema, merged + now[len(before) :])
        try:
            return lance.LanceDataset.commit(data, operation, int(data.version), max_retries=0)
        except (OSError, ValueError, RuntimeError) as error:
            if not isinstance(error, OSError) or not _is_conflict(error):
                return data  # the rows are safe as they are, and the next merge tries again
        store.patiently(data.checkout_latest)
    return data


def _rewrite(
    data: lance.LanceDataset, numbers: list[int], largest: int
) -> list[lance.FragmentMetadata]:
    chosen = [one for one in data.get_fragments() if one.fragment_id in numbers]
    # A few rows at a time, because pictures take much memory.
    rows = data.scanner(
        fragments=chosen, scan_in_order=True, batch_size=1024, batch_readahead=2,
        fragment_readahead=2,
    ).to_reader()  # fmt: skip
    return list(write_fragments(rows, data, mode="append", max_rows_per_file=largest))


def _paths(fragment: lance.FragmentMetadata) -> list[str]:
    """Paths that identify a fragment permanently; its number may be reused."""
    return [file.path for file in fragment.files]


def _is_conflict(error: OSError) -> bool:
    return isinstance(error, CommitConflictError) or "ncompatible transaction" in str(error)
