"""The manifest of a camera, ``camera.yaml``: its only reader, and the cameras below a folder.

Anybody may have written the file, so it is read with limits: a regular file, short, plain YAML,
neither deep nor with many aliases. Nothing in it is resolved against the environment.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from collabteam.errors import UserError, file_error, plain
from collabteam.settings import check_classes, is_camera_name
from collabteam.storage.layout import MANIFEST

_MOST_BYTES = 65_536
_DEEPEST = 8
_MOST_ALIASES = 16


@dataclass(frozen=True)
class Found:
    """The cameras below a folder.

    Attributes:
        cameras: The manifest of each camera, by name in ascending order.
        passed_over: Folders that have a manifest and no camera's name, such as ``k (1)``, and what
            to do about each.
    """

    cameras: dict[str, Path]
    passed_over: dict[str, str]


def find_manifests(folder: Path) -> Found:
    """Find the cameras below a folder; no manifest is read.

    Args:
        folder: A root on this machine, which need not exist.

    Raises:
        UserError: The root belongs to somebody else and cannot be read.
    """
    found = Found({}, {})
    try:
        with os.scandir(folder) as entries:
            closed = [
                entry.name
                for entry in entries
                if is_camera_name(entry.name) and entry.is_dir() and not _may_look(entry.path)
            ]
    except PermissionError as error:
        raise file_error(folder, error, "read") from error
    except OSError:
        return found
    # What is in them only their owners know; who asks for one by name is told so.
    found.cameras.update((name, folder / name / MANIFEST) for name in sorted(closed))
    for file in sorted(folder.glob(f"*/{MANIFEST}")):
        name = file.parent.name
        if name.startswith("."):  # a copy that is being made
            continue
        if is_camera_name(name):
            found.cameras[name] = file
        else:
            found.passed_over[name] = no_cameras_name(str(file.parent), name)
    return Found(dict(sorted(found.cameras.items())), found.passed_over)


def no_cameras_name(place: str, name: str) -> str:
    """Say why a folder with a manifest is passed over.

    Args:
        place: Its path or address.
        name: Its name.
    """
    return (
        f"{place}: passed over, because {name!r} is not a camera's name: move it elsewhere if it "
        f"is a copy, or rename it, also in its {MANIFEST}"
    )


def _may_look(folder: str) -> bool:
    return os.access(folder, os.R_OK | os.X_OK)


def read_manifest(path: Path) -> list[str]:
    """Read the classes in a camera's manifest; there may be none yet.

    Args:
        path: The file, in the camera's folder.

    Raises:
        UserError: It is missing or damaged, or another camera's.
    """
    import yaml

    name = path.parent.name
    try:
        content = _load(_text(path))
        if not isinstance(content, Mapping) or not {"name", "classes"} <= content.keys():
            raise ValueError("one without name and classes")
        if content["name"] != name:
            raise ValueError(f"the name {content['name']!r}")
        classes = content["classes"]
        if not isinstance(classes, list) or not all(isinstance(one, str) for one in classes):
            raise ValueError("classes that are not a list of names")
        if classes:
            check_classes(classes)
    except PermissionError as error:
        raise file_error(path, error, "read") from error
    # PyYAML raises all of these for strange scalars, such as '!!int ""' or '2026-02-31'.
    except (
        *(OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError),
        *(UserError, yaml.YAMLError),
    ) as error:
        reason = plain(" ".join(str(error).split()), 200)
        raise UserError(
            f"{path} is damaged: expected a camera's name and classes, got {reason}; write two "
            f"lines again, 'name: {name}' and 'classes: [...]'"
        ) from error
    return list(classes)


def _text(path: Path) -> str:
    # Without waiting, since opening a pipe would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("something that is not a file")
        content = b""
        while part := os.read(descriptor, _MOST_BYTES + 1 - len(content)):
            content += part
    finally:
        os.close(descriptor)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"more than {_MOST_BYTES} bytes")
    return content.decode("utf-8")


def _load(text: str) -> object:
    """Read plain YAML.

    Raises:
        ValueError: It is too deep or has too many aliases.
        yaml.YAMLError: It is not YAML.
    """
    import yaml

    depth = aliases = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        if depth > _DEEPEST or aliases > _MOST_ALIASES:
            raise ValueError("YAML that is too deep or has too many aliases")
    content: object = yaml.safe_load(text)
    return content
