"""Track objects from frame to frame: one interface for the trackers of two packages.

boxmot is licensed under the AGPL-3.0 and comes with the extra ``video``. Only this file imports it,
and only when one of its trackers is used. The package trackers is licensed under the Apache-2.0.
"""

from __future__ import annotations

import logging
import math
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from collabteam.errors import UserError, first_line
from collabteam.video.appearance import (
    NETWORK_DISTANCE,
    Appearance,
    ColourHistograms,
    OnnxNetwork,
    unit,
)
from collabteam.video.objects import Objects

SORT = "sort"
"""The name of the one tracker that does not come from boxmot."""

_LOST_SECONDS = 0.5
"""Seconds for which StrongSORT and SORT keep a lost track. The linker bridges longer gaps with
knowledge of what comes after: with 3 seconds, tracks of two persons in PETS2009 S2.L1 become
one."""
_CONFIRM_SECONDS = 0.3
"""Seconds during which a new track has to be detected in every frame to be confirmed, but at most
the 3 frames of DeepSORT (Wojke et al., 2017, section 2.1): at 5 frames per second, fast objects are
gone after 3 frames."""
_BOXMOT_RATE = 30.0
"""Frames per second for which boxmot's default settings are made."""


class Tracker(Protocol):
    """Tracks the objects of one video.

    Attributes:
        max_distance: Threshold of its embeddings, see
            :class:`collabteam.video.appearance.Appearance`.
    """

    max_distance: float

    def update(
        self, objects: Objects, image: NDArray[np.uint8]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Process the next frame.

        Args:
            objects: N objects in the frame; their kinds are not used, because a rider's may change
                from frame to frame.
            image: (H, W, 3), RGB.

        Returns:
            (N,) track number of each object, -1 for an object that is not confirmed or not tracked;
            and (N, D) unit vectors of appearance.
        """
        ...


def open_tracker(name: str, reid: str, rate: float) -> Tracker:
    """Create a tracker for one video.

    StrongSORT (Du et al., 2023) is set up for fixed cameras over streets: no compensation of camera
    motion, no second threshold after the detector's, and motion in seconds rather than frames, so
    that it can track fast objects at 5 frames per second. boxmot's other trackers keep boxmot's
    settings except for camera motion and frame rate. Without re-identification weights they use
    boxes only, because their settings are made for networks.

    Args:
        name: ``sort``, or one of boxmot's, such as ``strongsort``, ``bytetrack`` or ``botsort``.
        reid: File of a re-identification network: ``.onnx``, or a checkpoint ``.pt`` that boxmot
            knows by its name, such as ``osnet_x0_25_msmt17.pt``. A ``.pt`` file is unpickled: use
            only files that you trust. If empty, colour histograms are used.
        rate: Frames per second of the frames that will be passed.

    Returns:
        The tracker.

    Raises:
        UserError: The name or the weights are wrong, or a package is missing.
    """
    if not (math.isfinite(rate) and rate > 0):
        raise UserError(f"frame rate {rate}: expected a number above 0")
    if name == SORT:
        if find_spec("trackers") is None:
            raise UserError(
                "tracker=sort needs the package trackers: pip install 'collabteam[footage]'"
            )
        return _Sort(_open_appearance(reid), rate)
    _check_boxmot(f"tracker={name}")
    names = _boxmot_names()
    if name not in names:
        raise UserError(f"tracker={name}: expected one of {', '.join(sorted([SORT, *names]))}")
    return _Boxmot(name, _open_appearance(reid), rate, by_network=bool(reid))


def _check_boxmot(what: str) -> None:
    if find_spec("boxmot") is None:
        raise UserError(
            f"{what} needs boxmot (AGPL-3.0): pip install 'collabteam[video]', or choose "
            "tracker=sort, which needs 'collabteam[footage]' alone"
        )


def _boxmot_names() -> list[str]:
    _silence_boxmot()
    from boxmot.trackers.registry import TRACKER_DEFINITIONS

    # The detectors here give no masks.
    return [
        name for name, one in TRACKER_DEFINITIONS.items() if not one.capabilities.requires_masks
    ]


def _silence_boxmot() -> None:
    import boxmot.utils  # noqa: F401 -- it sets the log level once, on import

    logging.getLogger("boxmot").setLevel(logging.ERROR)


def _ignore_environment() -> None:
    """Keep variables of the environment out of boxmot's trackers.

    StrongSORT asks for ``GITHUB_ACTIONS``, and where it is ``true``, confirms each box at once.
    """
    from boxmot.trackers.box.strongsort import track

    module: Any = track
    module.os = SimpleNamespace(getenv=lambda name, default=None: default)


def _open_appearance(reid: str) -> Appearance:
    if not reid:
        return ColourHistograms()
    path = Path(reid)
    # Checked here, because boxmot would download missing weights into its own folder.
    if not path.is_file():
        raise UserError(f"reid={reid} is no file: expected weights, .onnx or .pt, or nothing")
    if path.suffix == ".onnx":
        return OnnxNetwork(path)
    if path.suffix == ".pt":
        _check_boxmot(f"reid={reid}")
        return _BoxmotNetwork(path)
    raise UserError(f"reid={reid}: expected weights that end in .onnx or .pt")


class _BoxmotNetwork:
    """A re-identification network that boxmot builds from a checkpoint."""

    max_distance = NETWORK_DISTANCE

    def __init__(self, path: Path) -> None:
        _silence_boxmot()
        import torch
        from boxmot.reid.core.registry import ReIDModelRegistry
        from boxmot.reid.core.runtime import ReID

        try:
            if ReIDModelRegistry.get_model_name(path) is None:
                raise ValueError("boxmot knows no network by this name")
            # A torch.device: given a name, boxmot hides all GPUs from this process.
            self._network: Any = ReID(weights=path.resolve(), device=torch.device("cpu")).model
        except Exception as error:  # unpickling and building raise many types
            raise UserError(
                f"reid={path}: expected a checkpoint of a network that boxmot knows by the file's "
                f"name, such as osnet_x0_25_msmt17.pt: {first_line(error)}"
            ) from error

    def embed(self, image: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.float32]:
        if not len(box):
            return np.zeros((0, 0), np.float32)
        return unit(self._network.get_features(box, _bgr(image)))


def _bgr(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import cv2

    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.uint8)


def _frames(seconds: float, rate: float) -> int:
    return max(1, round(seconds * rate))


class _Boxmot:
    """One of boxmot's trackers."""

    def __init__(self, name: str, appearance: Appearance, rate: float, by_network: bool) -> None:
        from boxmot.trackers.config import load_tracker_defaults
        from boxmot.trackers.factory import create_tracker
        from boxmot.trackers.registry import get_tracker_class
        from boxmot.trackers.specs import TrackerSpec

        _ignore_environment()
        self.max_distance = appearance.max_distance
        self._appearance, self._rate, self._frame = appearance, rate, 0
        known = load_tracker_defaults(name)
        overrides: dict[str, Any] = {
            "variable_dt": bool(get_tracker_class(name).supports_variable_dt)
        }
        overrides |= {"use_cmc": False, "cmc_off": True, "frame_rate": max(1, round(rate))}
        overrides |= {
            option: _frames(frames / _BOXMOT_RATE, rate)
            for option, frames in known.items()
            if option.endswith("max_age")
        }
        if name == "strongsort":
            overrides |= {
                "min_conf": 0.0,
                "max_cos_dist": appearance.max_distance,
                "max_age": _frames(_LOST_SECONDS, rate),
                "n_init": min(3, _frames(_CONFIRM_SECONDS, rate)),
                # Distance IoU works for fast objects whose boxes do not overlap between frames.
                "asso_func": "diou",
                "max_iou_dist": 0.6,
            }
        elif not by_network:
            overrides["use_embeddings"] = False
        options = tuple(sorted((key, value) for key, value in overrides.items() if key in known))
        self._tracker: Any = create_tracker(TrackerSpec(name, options=options))
        if hasattr(self._tracker, "cmc"):
            self._tracker.cmc = None
        self._embeds = bool(self._tracker.requirements.embeddings)
        self._needs_frame = bool(self._tracker.requirements.frame)

    def update(
        self, objects: Objects, image: NDArray[np.uint8]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        import torch
        from boxmot.structures import Boxes, Detections

        vectors = self._appearance.embed(image, objects.box)
        numbers = np.full(len(objects), -1, np.int64)
        # boxmot rejects a whole frame if one box is empty.
        sound = np.flatnonzero((objects.box[:, 2:] > objects.box[:, :2]).all(axis=1))
        detections = Detections(
            geometry=Boxes(torch.from_numpy(objects.box[sound])),
            scores=torch.from_numpy(np.clip(objects.score[sound], 0, 1)),
            # One class for all: a cyclist whose bicycle was missed is still the same object.
            class_ids=torch.zeros(len(sound), dtype=torch.int64),
            sample_id="frame",
            embeddings=torch.from_numpy(vectors[sound]) if self._embeds and len(sound) else None,
        )
        found = self._tracker.update(
            detections,
            _bgr(image) if self._needs_frame else None,
            timestamp_s=self._frame / self._rate if self._tracker.variable_dt else None,
        )
        self._frame += 1
        rows = found.detection_indices.numpy()
        numbers[sound[rows[rows >= 0]]] = found.track_ids.numpy()[rows >= 0]
        return numbers, vectors


class _Sort:
    """SORT from the package trackers; it uses boxes only."""

    def __init__(self, appearance: Appearance, rate: float) -> None:
        from trackers import SORTTracker

        self.max_distance = appearance.max_distance
        self._appearance = appearance
        self._tracker: Any = SORTTracker(
            lost_track_buffer=round(30 * _LOST_SECONDS),  # always in frames at 30 per second
            frame_rate=rate,
            track_activation_threshold=0.0,
            minimum_consecutive_frames=min(3, _frames(_CONFIRM_SECONDS, rate)),
            # The longer the time between frames, the less the boxes of one object overlap.
            minimum_iou_threshold=min(max(0.03 * rate, 0.1), 0.3),
        )

    def update(
        self, objects: Objects, image: NDArray[np.uint8]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        from supervision import Detections

        found = self._tracker.update(
            Detections(xyxy=objects.box.astype(np.float64), confidence=objects.score)
        )
        numbers = np.asarray(found.tracker_id, np.int64).reshape(len(objects))
        return numbers, self._appearance.embed(image, objects.box)
