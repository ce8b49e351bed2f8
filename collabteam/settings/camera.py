"""A camera, and the settings that every command on one takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from collabteam.settings.fields import REQUIRED, group, setting
from collabteam.settings.names import check_camera_name, check_root


@dataclass
class FootageConfig:
    """Footage of a camera; only ``ingest source=video`` reads these settings."""

    start: str = setting(
        "",
        metavar="%Y%m%d_%H%M%S",
        help="strptime format of the recording's start in a file's name; without it the "
        "container's creation_time counts",
    )
    timezone: str = setting(
        "UTC", help="time zone of the time in the file's name, such as Europe/Madrid"
    )
    region: list[Any] = setting(
        [],
        metavar="[[0,0.4],[1,0.4],[1,1],[0,1]]",
        help="corners [x,y] of the polygon in which objects count, as fractions of the frame; an "
        "object is inside if the middle of its lower edge is",
    )
    mask: str = setting(
        "",
        metavar="FILE",
        is_path=True,
        help="an image stretched over the frame; objects on its black parts do not count",
    )


@dataclass
class CameraConfig:
    """A camera and the classes that its team tells apart."""

    name: str = setting(
        "", metavar="NAME", help="the camera's name, also that of its folder under root"
    )
    classes: list[str] = setting(
        [], metavar="[a,b]", help="the team's classes, at least two, in the order of the branches"
    )
    footage: FootageConfig = group(FootageConfig, affects="crops", help="footage (source=video)")


@dataclass
class CommandConfig:
    """Settings that every command on one camera takes."""

    camera: CameraConfig = group(CameraConfig, preset=REQUIRED, help="the camera")
    root: str = setting(
        "outputs",
        affects="place",
        is_path=True,
        help="folder, or s3://bucket/prefix, under which every camera has its own",
    )

    def check_together(self) -> None:
        """Raise unless the camera can have a folder under the root.

        Raises:
            UserError: The name or the address is not usable.
        """
        check_camera_name(self.camera.name)
        check_root(self.root)
