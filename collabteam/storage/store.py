"""An object store as a root: addresses, the client, patience, and errors that a person can act on.

Everything else speaks of folders on this machine; :mod:`collabteam.storage.mirror` brings files of
a folder up and down, and tables are read and written in the store itself.
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

from collabteam.errors import UserError, first_line
from collabteam.storage.layout import TABLE

if TYPE_CHECKING:
    from obstore import PutMode

PATIENCE = 60.0
"""Seconds for which a store that does not answer is asked again."""
_SILENCE = 4.0
_WORKERS = 8
# Of one request. Longer than a slow line takes for one object; whatever hangs is asked again.
_REQUEST_SECONDS = 120.0
# How often a merge may be overtaken by appends before it gives way.
_COMMITS = 5

Result = TypeVar("Result")

# Servers that somebody has waited for in vain, and that nobody waits for again meanwhile.
_gave_up: set[str] = set()

# Where Lance and the client say in text alone what the store answered.
_STATUS = re.compile(r"status code: (\d{3})|StatusCode\((\d{3})\)")
_NO_CREDENTIALS = re.compile(r"failed to get aws credentials|169\.254\.|no credentials", re.I)
_AWAY = re.compile(
    r"error sending request|connection (?:refused|reset|closed)|(?<!_)timed? ?out|broken pipe"
    r"|error decoding response body|request or response body error|unexpected end|dns error",
    re.I,
)


class Conflict(Exception):
    """Somebody else changed an object first."""


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
            # Retried by patiently(), which knows what it is about.
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
        """Do something with the store, again and again while it does not answer.

        Args:
            operation: May be done any number of times.

        Raises:
            UserError: It does not answer for ``PATIENCE`` seconds, there is no such bucket, or it
                does not let us in. Whatever else the operation raises is raised as it is.
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
                        f"{self.url} does not answer{self._at()} ({_short(error)}): when it is "
                        "there again the same command goes on; nothing is lost"
                    ) from error
            else:
                _gave_up.discard(self.endpoint)
                return result
            if time.monotonic() - began > _SILENCE and not told:
                told = True
                say(f"{self.url} does not answer{self._at()}, asking again for a minute")
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def _at(self) -> str:
        return f" at {self.endpoint}" if self.endpoint else ""

    def _is_away(self, error: Exception) -> bool:
        """Whether trying again may help.

        Raises:
            UserError: Only the user can help.
        """
        text = str(error)
        if "NoSuchBucket" in text or "InvalidBucketName" in text:
            raise UserError(
                f"there is no bucket {self.bucket}{self._at()}: make it, or correct root="
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
        if isinstance(error, BaseError):
            raise UserError(f"{self.url} cannot be used{self._at()} ({_short(error)})") from error
        return False

    # -- objects -----------------------------------------------------------------------------------

    def read(self, name: str) -> StoredObject | None:
        """One object; None if there is none of this name."""

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
        """Write one object where nobody else has changed it.

        Args:
            name: Its name.
            content: Its bytes.
            over: The etag of what it replaces; None for nothing: a new object.

        Returns:
            Its etag.

        Raises:
            Conflict: The object is not what it replaces. That may have been this very call: an
                answer of the store may be lost on the way.
        """
        mode: PutMode = "create" if over is None else {"e_tag": over}
        try:
            return self.patiently(
                lambda: obstore.put(self._objects, name, content, mode=mode, use_multipart=False)
            )["e_tag"] or ""  # fmt: skip
        except (AlreadyExistsError, PreconditionError) as error:
            raise Conflict(name) from error
        except FileNotFoundError as error:  # what it replaces is gone
            raise Conflict(name) from error

    def check_conditions(self) -> None:
        """Make sure that the store refuses to write what is there already.

        Everything that keeps two writers apart rests on that.

        Raises:
            UserError: It does not.
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
            f"{self.url}: the store{self._at()} does not do conditional writes (If-None-Match, "
            "If-Match), without which two writers would overwrite each other: use one that does, "
            "such as Amazon S3 or MinIO, or a folder"
        )

    def delete(self, name: str) -> None:
        """Remove one object; none of that name is fine."""
        self.patiently(lambda: obstore.delete(self._objects, name))

    def listing(self) -> dict[str, tuple[str, int]]:
        """Etag and size of every object but those of tables, by name."""
        top = self.patiently(lambda: obstore.list_with_delimiter(self._objects))
        found = {meta["path"]: (meta["e_tag"] or "", meta["size"]) for meta in top["objects"]}

        def below(prefix: str) -> None:
            inside = self.patiently(lambda: obstore.list(self._objects, prefix).collect())
            found.update((meta["path"], (meta["e_tag"] or "", meta["size"])) for meta in inside)

        together(below, [name for name in top["common_prefixes"] if not name.endswith(TABLE)])
        return found

    def copy(self, name: str, to: Store) -> None:
        """Copy what lies below a name to the same name elsewhere in the bucket.

        The data does not pass through this machine. What is there already is replaced.
        """
        bucket = Store(self.bucket)
        source, target = (one.url.removeprefix(f"{self.bucket}/") for one in (self, to))
        found = self.patiently(lambda: obstore.list(self._objects, name).collect())

        def copy_one(path: str) -> None:
            self.patiently(
                lambda: obstore.copy(bucket._objects, f"{source}/{path}", f"{target}/{path}")
            )

        together(copy_one, [meta["path"] for meta in found])

    def sizes(self, name: str) -> list[int]:
        """Bytes of every object below a name."""
        found = self.patiently(lambda: obstore.list(self._objects, name).collect())
        return [meta["size"] for meta in found]

    def folders(self) -> list[str]:
        """The first part of every name that has more than one."""
        page = self.patiently(lambda: obstore.list_with_delimiter(self._objects))
        return sorted(page["common_prefixes"])

    def server_time(self) -> datetime:
        """What the store's own clock says, to the second."""
        self.patiently(lambda: obstore.put(self._objects, ".clock", os.urandom(8)))
        return self.patiently(lambda: obstore.head(self._objects, ".clock"))["last_modified"]


def say(text: str) -> None:
    """Tell a person what takes its time."""
    print(text, file=sys.stderr, flush=True)


def together(function: Callable[[Result], object], items: Iterable[Result]) -> None:
    """Call a function on many things, a few at a time; the first exception is raised."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        try:
            for future in [pool.submit(function, item) for item in items]:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _short(error: Exception) -> str:
    """What happened, without the request's address and the client's innards."""
    text = str(error)
    if match := _STATUS.search(text):
        return f"status {match[1] or match[2]}"
    found = _AWAY.search(text)
    return found[0] if found else first_line(error)


# -- Lance on a store ------------------------------------------------------------------------------


def append_once(data: lance.LanceDataset, rows: pa.Table, store: Store) -> lance.LanceDataset:
    """Append rows in one commit; exactly once, whatever answer of the store is lost.

    A commit is a conditional put. If its answer is lost nobody knows whether it was made, so each
    has a name, and the table's own history tells.

    Args:
        data: The table as it was seen last.
        rows: What to append.
        store: Where it lies.

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
                # Without retries of Lance's own: these would not know their own lost commit.
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

    The merged table is committed as one that replaces just the version it was made of. An append
    that comes in between makes it fail and is then put behind what was merged; an append that comes
    after it starts anew. So the order of the rows stays in either case. Where somebody else merged
    meanwhile, or nobody lets us, the table is left as it is.

    Args:
        data: The table.
        largest: Rows below which a fragment is small, and most rows of a merged one.
        store: Where it lies.
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
            return data  # merged by somebody else, or by this very commit, whose answer was lost
        operation = lance.LanceOperation.Overwrite(data.lance_schema, merged + now[len(before) :])
        try:
            return lance.LanceDataset.commit(data, operation, int(data.version), max_retries=0)
        except (OSError, ValueError, RuntimeError) as error:
            if not isinstance(error, OSError) or not _is_conflict(error):
                return data  # the rows are safe as they are, and the next one tries again
        store.patiently(data.checkout_latest)
    return data


def _rewrite(
    data: lance.LanceDataset, numbers: list[int], largest: int
) -> list[lance.FragmentMetadata]:
    chosen = [one for one in data.get_fragments() if one.fragment_id in numbers]
    # Few at a time, for pictures are heavy.
    rows = data.scanner(
        fragments=chosen, scan_in_order=True, batch_size=1024, batch_readahead=2,
        fragment_readahead=2,
    ).to_reader()  # fmt: skip
    return list(write_fragments(rows, data, mode="append", max_rows_per_file=largest))


def _paths(fragment: lance.FragmentMetadata) -> list[str]:
    """What tells a fragment from others for good; its number may be given anew."""
    return [file.path for file in fragment.files]


def _is_conflict(error: OSError) -> bool:
    return isinstance(error, CommitConflictError) or "ncompatible transaction" in str(error)
