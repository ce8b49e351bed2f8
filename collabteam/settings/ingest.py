"""Settings of ``collabteam.ingest``."""

from __future__ import annotations

from dataclasses import dataclass

from collabteam.errors import UserError
from collabteam.settings.camera import CommandConfig
from collabteam.settings.fields import group, setting
from collabteam.settings.machine import RuntimeConfig
from collabteam.settings.names import check_classes


@dataclass
class DetectorConfig:
    """The detector of objects in frames."""

    kind: str = setting(
        "yolo",
        affects="crops",
        choices={
            "yolo": "ultralytics (AGPL-3.0, the extra 'video')",
            "torchvision": "detection models (BSD-3-Clause, always installed)",
        },
        help="the library",
    )
    weights: str = setting(
        "yolov8n.pt",
        affects="crops",
        is_path=True,
        help="the weights' file: .pt, .onnx or .tflite; for torchvision a state dict",
    )
    model: str = setting(
        "fasterrcnn_mobilenet_v3_large_fpn",
        affects="crops",
        help="the torchvision model that the weights belong to",
    )
    image_size: int = setting(
        768,
        ge=32,
        le=4096,
        affects="crops",
        help="longer side in pixels to which frames are scaled for the detector",
    )
    confidence: float = setting(
        0.3, ge=0, le=1, affects="crops", help="score below which detections are left out"
    )
    batch_size: int = setting(
        1,
        ge=1,
        le=100_000,
        affects="speed",
        help="frames per forward pass; 1 is fastest on a CPU, a GPU wants 16 or more",
    )


@dataclass
class CutConfig:
    """Crops out of frames."""

    margin: float = setting(
        0.1, ge=0, le=1, affects="crops", help="rim around the box, as a share of its longer side"
    )
    min_size: int = setting(
        32, ge=4, affects="crops", help="longer side in pixels that a box must have, without rim"
    )
    min_frames: int = setting(
        5,
        ge=1,
        affects="crops",
        help="analysed frames in which an object must be seen; briefer tracks are mostly errors",
    )
    jpeg_quality: int = setting(92, ge=1, le=100, affects="crops", help="quality of the JPEG files")


@dataclass
class IngestConfig(CommandConfig):
    """Settings of ``collabteam.ingest``."""

    source: str = setting(
        "crops",
        choices={"crops": "a folder of images or a Parquet file", "video": "footage"},
        affects="place",
        help="what ingest reads",
    )
    path: str = setting(
        "",
        affects="place",
        metavar="DIR|FILE|URL",
        is_path=True,
        help="crops: a folder, flat or with a subfolder per class (or train/CLASS, test/CLASS), a "
        "folder that export made, or a .parquet file with the column image (and label, track, "
        "video, time, split), or crop_id and label for known crops; video: a file, a folder, a "
        "pattern in quotes, or a stream",
    )
    follow_links: bool = setting(
        False, affects="place", help="follow links in the folder that lead out of it"
    )
    labels: str = setting(
        "proposed",
        choices={
            "proposed": "by a detector",
            "person": "verified by a person",
            "truth": "hidden truth; only the simulated reviewer and measurements see it",
        },
        help="origin of the labels of source=crops",
    )
    fps: float = setting(
        10.0, ge=0, le=100_000, affects="crops", help="frames analysed per second; 0: all"
    )
    limit: float = setting(
        0.0, ge=0, affects="place", help="seconds after which to stop reading a stream; 0: never"
    )
    detector: DetectorConfig = group(DetectorConfig, help="objects in frames")
    tracker: str = setting(
        "strongsort",
        affects="crops",
        help="any tracker of boxmot (AGPL-3.0, the extra 'video'), or sort (Apache-2.0, the "
        "extra 'footage'), which uses boxes alone",
    )
    reid: str = setting(
        "",
        affects="crops",
        metavar="FILE",
        is_path=True,
        help="re-identification weights for the tracker, .onnx or .pt; without them colour "
        "histograms serve",
    )
    keep_unknown: list[str] = setting(
        [],
        affects="crops",
        metavar="[bicycle,car]",
        help="detector classes to keep as 'unknown', though the camera has no class for them",
    )
    crops_per_track: int = setting(
        3, ge=1, affects="crops", help="crops to keep of each object: the best, spread over time"
    )
    cut: CutConfig = group(CutConfig, help="crops out of frames")
    workers: int = setting(1, ge=1, le=1024, affects="speed", help="videos at the same time")
    preview: bool = setting(
        False,
        affects="place",
        help="for each video, write a clip with the objects drawn in and a contact sheet",
    )
    runtime: RuntimeConfig = group(RuntimeConfig, preset="core", help="one job of a sweep")

    def check_together(self) -> None:
        """Raise unless there is something to read and the classes, if given, make a team.

        Raises:
            UserError: ``path`` is missing, or the camera's name or classes are not usable.
        """
        super().check_together()
        if self.camera.classes:
            check_classes(self.camera.classes)
        if not self.path:
            wanted = {
                "crops": "a folder of images or a .parquet file",
                "video": "a video, a folder of videos, a pattern such as 'footage/*.mp4', or a "
                "stream",
            }
            raise UserError(f"path is not given: expected {wanted[self.source]}")
