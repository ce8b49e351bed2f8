"""The local copy of a camera that lives in an object store.

The tables (crops, labels, truth) are read and written in the store itself. All other files of the
camera (rounds, audits, records of videos, reports) are made in the copy, and the holder of the
camera's lock uploads them after each step, so that another machine can continue from there. The
store is authoritative: the copy may be deleted whenever no command runs.

**Uploads.** The lock is an object, :class:`Lease`, whose generation grows by one each time that it
is taken. A copy that held the last generation may contain work that was not uploaded before a kill,
so it uploads that work the next time. Any other copy is made equal to the store, and
unfinished rounds and audits in it are dropped, because another holder has worked since. An object
is replaced only if it is the one that this copy saw last, so a holder that was frozen for an hour
cannot overwrite the work of the next one.

**Order.** The file that marks a result as complete (``round.json``, ``audit.json``, ...) is
uploaded last and deleted first.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from collabteam.errors import UserError, disk_errors
from collabteam.storage.files import make_folder, parse_json, write_bytes, write_text
from collabteam.storage.layout import LOCK, MANIFEST, is_mark, is_shared, is_under_lock
from collabteam.storage.locks import Lock, LockHeld, file_lock
from collabteam.storage.store import Conflict, Store, say, together

LEASE = 60.0
"""Seconds without a renewal after which another command may take over the lock."""
_SYNCED = ".synced.json"
_SYNCED_LOCK = ".synced.lock"
# The store's clock has whole seconds, and an age is the difference of two of its times.
_CLOCK_STEP = 2.0
# Transfers of more bytes may take more than a few seconds.
_MUCH = 50_000_000


class Lease:
    """The camera's lock in the store: an object that names its holder, renewed while held.

    The holder renews it four times in ``LEASE`` seconds. Another command may take it over when the
    last renewal is older than that, by the store's clock alone. Both are conditional puts, so only
    one of two commands succeeds.

    Args:
        store: The camera's objects.
        owner: Identifies this copy on this machine. It may take a lease that it left behind: the
            caller holds the local lock, which shows that the earlier process has ended.
        note: Shown to other commands.

    Attributes:
        before: Generation and owner of the last holder; 0 and ``""`` if there was none.

    Raises:
        LockHeld: Another command holds it.
        UserError: The store does not answer, or refuses the credentials.
    """

    def __init__(self, store: Store, owner: str, note: dict[str, Any]) -> None:
        # A separate client, because a renewal must not wait for a large object.
        self._store = Store(store.url, request_seconds=LEASE / 6)
        self._guard = threading.RLock()
        found = store.read(LOCK)
        last = _content(found.content) if found else {}
        holder = last.get("holder")
        if holder and last.get("owner") != owner:
            assert found is not None
            age = (store.server_time() - found.modified).total_seconds()
            if age <= LEASE + _CLOCK_STEP:
                raise LockHeld(json.dumps(holder).encode())
        self.before: tuple[int, str] = (int(last.get("generation", 0)), str(last.get("owner", "")))
        signed = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time(), **note}
        self._content: dict[str, Any] = {
            "generation": self.before[0] + 1, "owner": owner, "holder": signed,
            "key": uuid.uuid4().hex, "renewed": 0,
        }  # fmt: skip
        self._etag = found.etag if found else None
        self._renewed = -1.0
        self._lost = not self._put()
        if self._lost:
            now = store.read(LOCK)
            raise LockHeld(json.dumps(_content(now.content if now else b"").get("holder")).encode())
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    @property
    def generation(self) -> int:
        """Number of times that the lock has been taken."""
        return int(self._content["generation"])

    def check(self, ask: bool = False) -> None:
        """Make sure that the lock is still held.

        Args:
            ask: Whether to ask the store although no other command can have taken it over yet.

        Raises:
            UserError: Another command took it over, or the store does not answer.
        """
        with self._guard:
            if not self._lost and (ask or _now() - self._renewed > LEASE):
                self._lost = not self._put()
            if self._lost:
                raise UserError(
                    f"{self._store.url}: another command took over the camera while this one was "
                    f"silent for {LEASE:.0f} seconds: run it again, it continues from what is "
                    "there"
                )

    def _put(self) -> bool:
        """Write the lock; False if another command holds it."""
        self._content["renewed"] += 1  # equal content would have an equal etag
        text = json.dumps(self._content).encode()
        while True:
            began = _now()
            try:
                self._etag = self._store.write(LOCK, text, over=self._etag)
            except Conflict:
                # The response to this put, or to an earlier renewal, may have been lost.
                found = self._store.read(LOCK)
                if found is None or _content(found.content).get("key") != self._content["key"]:
                    return False
                self._etag = found.etag
                if found.content != text:
                    continue
            self._renewed = began
            return True

    def _keep(self) -> None:
        while not self._over.wait(LEASE / 4):
            with self._guard, suppress(UserError):
                if not self._over.is_set() and not self._lost:
                    self._lost = not self._put()

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        self._over.set()
        with self._guard:
            if not self._lost and self._content["holder"]:
                self._content["holder"] = None
                with suppress(UserError):  # the lease then expires
                    self._put()


class Mirror:
    """A camera's folder here and its objects in the store.

    Args:
        folder: The camera's folder here.
        store: The camera's objects.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder, self.store = folder, store
        self._lease: Lease | None = None
        self._lock: Lock | None = None

    # -- the camera's lock -------------------------------------------------------------------------

    def take(self, note: dict[str, Any]) -> None:
        """Take the camera's lock, here and in the store, and download changes.

        Raises:
            LockHeld: Another command holds it.
            UserError: The store does not answer, or the folder cannot be written.
        """
        with self._alone() as state:
            self._lock = Lock(self.folder / LOCK, note)
            try:
                self._lease = Lease(self.store, self._owner(state), note)
                if self._lease.before != (state["held"], self._owner(state)):
                    self._download(state)
                state["held"] = self._lease.generation
            except BaseException:
                self.release()
                raise
        self.push()

    def check(self) -> None:
        """Make sure that the lock is still held, if it was taken.

        Raises:
            UserError: Another command took it over.
        """
        if self._lease is not None:
            self._lease.check()

    def release(self) -> None:
        """Release the lock."""
        if self._lease is not None:
            self._lease.release()
        if self._lock is not None:
            self._lock.release()
        self._lease = self._lock = None

    def _owner(self, state: dict[str, Any]) -> str:
        # The copy itself may be copied, and a machine's image may be started twice.
        return f"{socket.gethostname()} {self.folder} {state['copy']}"

    # -- down and up -------------------------------------------------------------------------------

    def pull(self) -> None:
        """Download changes, unless a command on this machine holds the camera.

        Raises:
            UserError: The store does not answer, or the disk is full.
        """
        with self._alone() as state:
            try:
                lock = Lock(self.folder / LOCK, {"command": "look"})
            except LockHeld:
                return  # the copy is newer
            try:
                found = self.store.read(LOCK)
                last = _content(found.content) if found else {}
                if (last.get("generation"), last.get("owner")) == (
                    state["held"], self._owner(state)
                ):  # fmt: skip
                    self._fetch(MANIFEST, state)
                else:
                    self._download(state)
            finally:
                lock.release()

    def push(self) -> None:
        """Upload the files that have changed since the last time; the lock must be held.

        Raises:
            UserError: The store does not answer, or another command has taken over the camera.
        """
        with self._alone() as state:
            known, here = state["files"], self._files()
            here.pop(MANIFEST, None)  # see write_manifest
            changed = [name for name, stat in here.items() if known.get(name, [""])[1:] != stat]
            gone = [name for name in known if name not in here and name != MANIFEST]
            if not (changed or gone):
                return
            assert self._lease is not None
            self._lease.check(ask=True)
            self._say_if_much("up to", sum(here[name][0] for name in changed))

            def up(name: str) -> None:
                with suppress(FileNotFoundError):  # removed meanwhile
                    known[name] = [self._write(name, known.get(name, [None])[0]), *here[name]]

            def away(name: str) -> None:
                self.store.delete(name)
                del known[name]

            together(up, [name for name in changed if not is_mark(name)])
            for name in sorted((name for name in gone if is_mark(name)), key=_natural)[::-1]:
                away(name)
            together(away, [name for name in gone if not is_mark(name)])
            for name in sorted((name for name in changed if is_mark(name)), key=_natural):
                up(name)

    def publish(self, *files: Path) -> None:
        """Upload files that any command may make again without the lock, such as plots.

        Raises:
            UserError: The store does not answer.
        """
        with self._alone() as state:
            for file in files:
                name, stat = file.relative_to(self.folder).as_posix(), _stat(file)
                found = self.store.read(name)
                with suppress(Conflict):  # another command uploaded it first, which is as good
                    etag = self.store.write(name, file.read_bytes(), found.etag if found else None)
                    state["files"][name] = [etag, *stat]

    def write_manifest(self, text: str) -> None:
        """Write the camera's manifest; if another command has changed it, download that instead.

        Raises:
            UserError: The store does not answer.
        """
        with self._alone() as state:
            with suppress(Conflict):
                etag = state["files"].get(MANIFEST, [None])[0]
                written = self.store.write(MANIFEST, text.encode(), etag)
                write_text(self.folder / MANIFEST, text)
                state["files"][MANIFEST] = [written, *_stat(self.folder / MANIFEST)]
                return
            self._fetch(MANIFEST, state)

    def _write(self, name: str, etag: str | None) -> str:
        """Upload one file in place of the object that was seen last."""
        content = (self.folder / name).read_bytes()
        try:
            return self.store.write(name, content, etag)
        except Conflict:
            # An earlier upload was killed, its response was lost, or there is a new holder.
            assert self._lease is not None
            self._lease.check(ask=True)
            found = self.store.read(name)
            try:
                return self.store.write(name, content, found.etag if found else None)
            except Conflict as error:
                raise UserError(
                    f"{self.store.url}/{name} is being written by another command: run this one "
                    "again, it continues from what is there"
                ) from error

    def _download(self, state: dict[str, Any]) -> None:
        """Make the copy equal to the store."""
        there, known, here = self.store.listing(), state["files"], self._files()
        there = {name: found for name, found in there.items() if is_shared(name)}
        gone = [
            name for name, stat in here.items()
            if name not in there
            and (known.get(name, [""])[1:] == stat or name == MANIFEST or is_under_lock(name))
        ]  # fmt: skip
        wanted = [
            name for name, (etag, _) in there.items()
            if name not in here or known.get(name) != [etag, *here[name]]
        ]  # fmt: skip
        self._say_if_much("down from", sum(there[name][1] for name in wanted))
        for name in sorted(gone, key=lambda name: not is_mark(name)):
            (self.folder / name).unlink(missing_ok=True)
            _remove_empty(self.folder / name, self.folder)
        for name in [name for name in known if name not in there]:
            del known[name]
        together(
            lambda name: self._fetch(name, state),
            [name for name in wanted if not is_mark(name)],
        )
        for name in sorted(filter(is_mark, wanted), key=_natural):
            self._fetch(name, state)

    def _fetch(self, name: str, state: dict[str, Any]) -> None:
        """Download one object; if there is none, remove the file."""
        file, found = self.folder / name, self.store.read(name)
        if found is None:
            file.unlink(missing_ok=True)
            state["files"].pop(name, None)
            return
        if state["files"].get(name, [None])[0] == found.etag and _same_file(
            file, state["files"][name][1:]
        ):
            return
        with disk_errors():
            make_folder(file.parent)
            write_bytes(file, found.content)
            state["files"][name] = [found.etag, *_stat(file)]

    def _say_if_much(self, where: str, size: int) -> None:
        if size > _MUCH:
            say(f"transferring {size / 1e6:.0f} MB of {self.folder.name} {where} {self.store.url}")

    def _files(self) -> dict[str, list[int]]:
        """Size and time of change of every file that belongs in the store, too."""
        found = {}
        for folder, below, files in os.walk(self.folder):
            inside = Path(folder).relative_to(self.folder)
            below[:] = [name for name in below if is_shared((inside / name).as_posix())]
            for name in files:
                path = inside / name
                if is_shared(path.as_posix()) and not (self.folder / path).is_symlink():
                    with suppress(FileNotFoundError):
                        found[path.as_posix()] = _stat(self.folder / path)
        return found

    @contextmanager
    def _alone(self) -> Iterator[dict[str, Any]]:
        """Keep other processes on this machine from synchronising the copy at the same time.

        Yields:
            The last common state of copy and store: ``files`` (etag, size, time of change by name),
            ``held`` (the generation of the lock that this copy held last), ``copy`` and ``store``,
            the address.
        """
        with disk_errors():
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                lock = self.folder / _SYNCED_LOCK
                lock.touch()
            except (FileExistsError, NotADirectoryError, PermissionError) as error:
                raise UserError(
                    f"{self.folder}, the copy of {self.store.url}, cannot be written "
                    f"({error.strerror}): XDG_CACHE_HOME=... keeps it elsewhere"
                ) from error
        with file_lock(lock):
            file = self.folder / _SYNCED
            try:
                state = parse_json(file.read_bytes())
                before = json.dumps(state)
                _check_state(state)
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                state, before = {"copy": uuid.uuid4().hex, "held": 0, "files": {}}, ""
            state["store"] = self.store.url
            try:
                yield state
            finally:
                if (after := json.dumps(state)) != before:
                    write_text(file, after)


def address_of(folder: Path) -> str:
    """The address of the camera that a folder is the copy of; ``""`` if it is not a copy."""
    try:
        state = parse_json((folder / _SYNCED).read_bytes())
    except (OSError, ValueError):
        return ""
    return str(state.get("store", "")) if isinstance(state, dict) else ""


def _now() -> float:
    """Seconds of a clock that also counts while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def _content(text: bytes) -> dict[str, Any]:
    """The lock's content; a damaged lock has no holder."""
    try:
        content = parse_json(text)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _check_state(state: Any) -> None:
    """Raise a plain error if the common state of copy and store is not what was written."""
    for name, (etag, size, changed) in state["files"].items():
        if (str, str, int, int) != (type(name), type(etag), type(size), type(changed)):
            raise ValueError(name)
    if (str, int) != (type(state["copy"]), type(state["held"])):
        raise ValueError("held")


def _natural(name: str) -> list[tuple[int, str]]:
    """A sort key that puts round-10 after round-9."""
    return [(int(part) if part.isdigit() else -1, part) for part in re.split(r"(\d+)", name)]


def _stat(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


def _same_file(file: Path, stat: list[int]) -> bool:
    try:
        return _stat(file) == stat
    except FileNotFoundError:
        return False


def _remove_empty(file: Path, top: Path) -> None:
    for folder in file.parents:
        if folder == top:
            return
        try:
            folder.rmdir()
        except OSError:
            return
