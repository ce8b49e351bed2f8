"""A camera's files: their paths, their transactions, and the copy of an object store.

A root is a folder or an address such as ``s3://bucket/prefix``. A camera in an object store has a
copy on this machine, and every path of a :class:`Workspace` is a path on this machine. Other code
need not distinguish the two: the end of a transaction uploads the files that it made.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from collabteam.errors import UserError, disk_errors, file_error
from collabteam.settings import check_camera_name, is_camera_name
from collabteam.storage.commits import RECORD as COMMITS
from collabteam.storage.files import make_folder, write_bytes, write_text
from collabteam.storage.layout import MANIFEST, CameraFiles, TableName
from collabteam.storage.locks import Lock, LockHeld
from collabteam.storage.manifest import Found, find_manifests, no_cameras_name
from collabteam.storage.mirror import Mirror, address_of
from collabteam.storage.roots import root_folder, store_address
from collabteam.storage.staging import staging_folder, write_errors
from collabteam.storage.store import Store, together
from collabteam.storage.tables import Table


class CameraInUse(UserError):
    """Another command holds the camera."""


@dataclass(frozen=True)
class StorageSize:
    """Size of a camera's tables on the disk or in the store.

    Attributes:
        files: Number of files.
        bytes: Their sizes together.
    """

    files: int
    bytes: int


class Workspace(CameraFiles):
    """The files of one camera, with transactions.

    Any number of processes may read and append to the tables at the same time; a command that needs
    exclusive access opens a :meth:`transaction`.

    Args:
        folder: The camera's folder on this machine.
        address: ``s3://bucket/prefix/camera`` if the folder is a copy of it, ``""`` if the camera
            lives in the folder; None to ask the folder itself.

    Attributes:
        folder: The camera's folder on this machine.
        name: The camera.
        place: Where the camera lives, for people: a folder or an address.
    """

    def __init__(self, folder: Path, address: str | None = None) -> None:
        super().__init__(folder)
        self.name = folder.name
        self._address = address_of(folder) if address is None else address
        self.place = self._address or str(folder)
        self._lock: Lock | None = None
        self._depth = 0

    def __reduce__(self) -> tuple[type[Workspace], tuple[Path, str]]:
        return Workspace, (self.folder.absolute(), self._address)

    @cached_property
    def _mirror(self) -> Mirror | None:
        # Made on demand: paths need no client of the store, which takes 10 ms to make.
        return Mirror(self.folder, Store(self._address)) if self._address else None

    @classmethod
    def at(cls, root: str | Path, camera: str) -> Workspace:
        """The workspace of a camera, which need not exist.

        Args:
            root: A folder, or ``s3://bucket/prefix``.
            camera: The camera's name.

        Raises:
            UserError: The name or the root cannot be used.
        """
        check_camera_name(camera)
        address = store_address(root)
        return cls(root_folder(root) / camera, f"{address}/{camera}" if address else "")

    def place_of(self, file: Path) -> str:
        """Path or address of a file of the camera, for people."""
        return f"{self.place}/{file.relative_to(self.folder).as_posix()}"

    # -- transactions ------------------------------------------------------------------------------

    @contextmanager
    def transaction(self, command: str) -> Iterator[None]:
        """Hold the camera; the end stores all new files where the camera lives.

        Transactions of the same object may be nested. The end of an inner one uploads the files
        made until then; the end of the outermost one releases the camera, also after an exception.
        The lock belongs to the operating system, so it ends with the process in every case. In an
        object store there is also a lease, which ends a minute after the process.

        Args:
            command: The command's name, for the message to others.

        Raises:
            CameraInUse: Another command holds the camera; names it and its start.
            UserError: The folder cannot be written, or the store does not answer.
        """
        if self._depth == 0:
            self._take(command)
        self._depth += 1
        try:
            yield
            self._upload()
        except BaseException:
            if self._depth == 1:
                with suppress(UserError):  # the first error is more useful
                    self._upload()
            raise
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._release()

    def _take(self, command: str) -> None:
        try:
            if self._mirror is None:
                self._lock = Lock(self.lock, {"command": command})
            else:
                self._mirror.take({"command": command})
        except LockHeld as held:
            raise CameraInUse(
                f"camera {self.name} is in use by {held.describe()}: wait for it or stop it"
            ) from held

    def _upload(self) -> None:
        if self._mirror is not None:
            self._mirror.push()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
        self._lock = None
        if self._mirror is not None:
            self._mirror.release()

    def _check_held(self) -> None:
        """During a transaction, make sure that no other command has taken over the camera."""
        if self._depth and self._mirror is not None:
            self._mirror.check()

    @contextmanager
    def publishing(self, *files: Path) -> Iterator[list[Path]]:
        """Make files that any command may make again without a transaction, such as plots.

        Args:
            files: The end of the block stores them where the camera lives.

        Yields:
            The files, to which the block may add.

        Raises:
            UserError: The store does not answer.
        """
        made = list(files)
        yield made
        if self._mirror is not None:
            self._mirror.publish(*made)

    def check_reachable(self) -> None:
        """Raise if the folder belongs to somebody else and may not be read.

        Raises:
            UserError: Says who owns it.
        """
        try:
            self.manifest.stat()
        except PermissionError as error:
            raise file_error(self.manifest, error, "read") from error
        except OSError:
            pass

    def refresh(self) -> None:
        """Download the files that others have made in the meantime.

        Raises:
            UserError: The store does not answer, or the disk is full.
        """
        if self._mirror is not None:
            self._mirror.pull()

    # -- registration ------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the folder of a new camera.

        Raises:
            UserError: It cannot be made, or the store has no conditional writes.
        """
        make_folder(self.folder)
        if self._mirror is not None:
            self._mirror.store.check_conditions()

    def write_manifest(self, text: str) -> None:
        """Write the manifest; in a store, if another process wrote one first, read that instead.

        Raises:
            UserError: The store does not answer, or the disk is full.
        """
        if self._mirror is None:
            write_text(self.manifest, text)
        else:
            self._mirror.write_manifest(text)

    # -- tables ------------------------------------------------------------------------------------

    def table(self, name: TableName) -> Table:
        """Open a table.

        Raises:
            UserError: There is no such table, or it is damaged.
        """
        return Table(self.table_folder(name), self._table_store(name), self._check_held)

    def create_table(self, name: TableName, schema: pa.Schema) -> None:
        """Create an empty table unless it exists.

        Raises:
            UserError: The disk is full.
        """
        Table.create(self.table_folder(name), schema, self._table_store(name))

    def _table_store(self, name: TableName) -> Store | None:
        return Store(f"{self._address}/{self.table_folder(name).name}") if self._address else None

    def table_size(self, *names: TableName) -> StorageSize:
        """Size of tables where the camera lives."""
        sizes: list[int] = []
        for name in names:
            folder = self.table_folder(name)
            if self._mirror is not None:
                sizes += self._mirror.store.sizes(folder.name)
                continue
            for file in folder.glob("**/*"):
                with suppress(FileNotFoundError):  # a writer replaced it
                    if file.is_file():
                        sizes.append(file.stat().st_size)
        return StorageSize(len(sizes), sum(sizes))

    @property
    def keeps_replaced_files(self) -> bool:
        """Whether files that a merge of tables replaced stay until a later merge, as in a store."""
        return bool(self._address)

    def copy_tables(
        self, to: Workspace, names: tuple[TableName, ...], finish: Callable[[Workspace], None]
    ) -> None:
        """Make another camera with tables of this one.

        Files that never change are hard links, so a copy on a disk takes almost no space; a store
        makes the copies itself.

        Args:
            to: The other camera, which must not exist yet.
            names: The tables.
            finish: Completes the new camera, manifest last. Its argument is the workspace to
                complete; on a disk that is moved into place at the end, or dropped if another
                process was first.

        Raises:
            UserError: The disk is full, or ``to`` is neither on this machine nor in the same
                bucket.
        """
        mine, theirs = self._mirror, to._mirror
        if (mine and mine.store.bucket) != (theirs and theirs.store.bucket):
            raise UserError(
                f"{self.place} cannot be copied to {to.place}: expected another root on the same "
                "machine, or in the same bucket"
            )
        if mine is not None and theirs is not None:
            for name in names:
                # Others may commit meanwhile: their note would tell of a version that is left out.
                mine.store.copy(self.table_folder(name).name, theirs.store, f"/{COMMITS}")
            finish(to)
            return
        make_folder(to.folder.parent)
        with write_errors(to.folder), disk_errors(), staging_folder(to.folder) as folder:
            hidden = Workspace(folder / to.name, "")
            hidden.folder.mkdir()
            for name in names:
                with self.table(name).still():
                    shutil.copytree(
                        self.table_folder(name), hidden.table_folder(name), copy_function=_link
                    )
            finish(hidden)
            with suppress(OSError):  # another process was first
                hidden.folder.rename(to.folder)


def _link(source: str, to: str) -> None:
    if Path(source).name == COMMITS:  # it grows
        shutil.copy2(source, to)
        return
    try:
        os.link(source, to)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, to)


def registered(root: str | Path) -> dict[str, Workspace]:
    """Every registered camera under a root, by name in ascending order.

    Args:
        root: A folder, or ``s3://bucket/prefix``.

    Raises:
        UserError: The root cannot be used, or the store does not answer or refuses access.
    """
    address = store_address(root)
    found = find_stored(root) if address else find_manifests(root_folder(root))
    return {
        name: Workspace(file.parent, f"{address}/{name}" if address else "")
        for name, file in found.cameras.items()
    }


def find_stored(root: str | Path) -> Found:
    """Find the cameras below an address, and bring their manifests to this machine.

    Args:
        root: ``s3://bucket/prefix``.

    Raises:
        UserError: The root cannot be used, or the store does not answer or refuses access.
    """
    folder, address = root_folder(root), store_address(root)
    store = Store(address)
    found = Found({}, {})

    def look(name: str) -> None:
        manifest = store.read(f"{name}/{MANIFEST}")
        if manifest is None:
            return
        if not is_camera_name(name):
            found.passed_over[name] = no_cameras_name(f"{address}/{name}", name)
            return
        file = found.cameras[name] = folder / name / MANIFEST
        if not file.exists() or file.read_bytes() != manifest.content:
            make_folder(file.parent)
            write_bytes(file, manifest.content)

    together(look, (name for name in store.folders() if not name.startswith(".")))
    return Found(dict(sorted(found.cameras.items())), dict(sorted(found.passed_over.items())))
