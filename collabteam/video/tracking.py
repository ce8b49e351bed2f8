"""Following objects from frame to frame: the trackers of two packages behind one small door.

boxmot is under the AGPL-3.0 and comes with the extra ``video``; only this file knows it, and
imports it when one of its trackers is asked for. The package trackers is under the Apache-2.0.
"""

from __future__ import annotations

import logging
import math
from importlib.util import find_spec
from pathlib import Path
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
"""The name of the tracker that is not boxmot's."""

_KEPT = 0.5
"""Seconds for which StrongSORT and SORT keep a lost track. The linker sees over longer gaps, and
knows what comes after: with 3 seconds, tracks of two persons in PETS2009 S2.L1 become one."""
_CONFIRMED = 0.3
"""Seconds in which a new track has to be found in every frame, but no more than the 3 frames of
DeepSORT (Wojke et al., 2017, section 2.1): at 5 frames per second, fast ones are gone by then."""
_BOXMOT_RATE = 30.0
"""Frames per second for which boxmot's own settings are made."""


class Tracker(Protocol):
    """Follows the objects of one video.

    Attributes:
        max_distance: Of its appearances, see :class:`collabteam.video.appearance.Appearance`.
    """

    max_distance: float

    def update(
        self, objects: Objects, image: NDArray[np.uint8]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Go on to the next frame.

        Args:
            objects: N objects in it; their kinds play no role, as a rider's may change from frame
                to frame.
            image: (H, W, 3), RGB.

        Returns:
            (N,) number of each object's track, -1 for none: it is new and perhaps an error, or not
            followed; and its appearance, (N, D) unit vectors.
        """
        ...


def open_tracker(name: str, reid: str, rate: float) -> Tracker:
    """Make a tracker for one video.

    StrongSORT (Du et al., 2023) is set up for fixed cameras and what detectors find in streets: no
    compensation of the camera's motion, no second threshold after the detector's, and motion in
    seconds rather than frames, so that fast objects are followed at 5 frames per second, too.
    boxmot's other trackers keep boxmot's settings but for the camera's motion and the frame rate;
    without re-identification weights they go by boxes alone, as their settings are made for
    networks.

    Args:
        name: ``sort``, or one of boxmot's, such as ``strongsort``, ``bytetrack`` or ``botsort``.
        reid: File of a re-identification network: ``.onnx``, or a checkpoint ``.pt`` that boxmot
            knows by its name, such as ``osnet_x0_25_msmt17.pt`` (unpickled: only from a source that
            you trust). Empty: histograms of colours serve.
        rate: Frames per second that it will see.

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
    _quieten_boxmot()
    from boxmot.trackers.registry import TRACKER_DEFINITIONS

    # Outlines are nothing that the detectors here give.
    return [
        name for name, one in TRACKER_DEFINITIONS.items() if not one.capabilities.requires_masks
    ]


def _quieten_boxmot() -> None:
    import boxmot.utils  # noqa: F401 -- it sets its level when it is imported, and not again

    logging.getLogger("boxmot").setLevel(logging.ERROR)


def _open_appearance(reid: str) -> Appearance:
    if not reid:
        return ColourHistograms()
    path = Path(reid)
    # Never left to boxmot, which would download what is missing into its own folder.
    if not path.is_file():
        raise UserError(f"reid={reid} is no file: expected weights, .onnx or .pt, or nothing")
    if path.suffix == ".onnx":
        return OnnxNetwork(path)
    if path.suffix == ".pt":
        _check_boxmot(f"reid={reid}")
        return _BoxmotNetwork(path)
    raise UserError(f"reid={reid}: expected weights that end in .onnx or .pt")


class _BoxmotNetwork:
    """A checkpoint of one of the networks that boxmot can build."""

    max_distance = NETWORK_DISTANCE

    def __init__(self, path: Path) -> None:
        _quieten_boxmot()
        import torch
        from boxmot.reid.core.registry import ReIDModelRegistry
        from boxmot.reid.core.runtime import ReID

        try:
            if ReIDModelRegistry.get_model_name(path) is None:
                raise ValueError("boxmot knows no network by this name")
            # A torch.device, as boxmot answers a name by hiding all GPUs from this process.
            self._network: Any = ReID(weights=path.resolve(), device=torch.device("cpu")).model
        except Exception as error:  # whatever unpickling and building run into
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

        self.max_distance = appearance.max_distance
        self._appearance, self._rate, self._frame = appearance, rate, 0
        known = load_tracker_defaults(name)
        wanted: dict[str, Any] = {"variable_dt": bool(get_tracker_class(name).supports_variable_dt)}
        wanted |= {"use_cmc": False, "cmc_off": True, "frame_rate": max(1, round(rate))}
        wanted |= {
            option: _frames(frames / _BOXMOT_RATE, rate)
            for option, frames in known.items()
            if option.endswith("max_age")
        }
        if name == "strongsort":
            wanted |= {
                "min_conf": 0.0,
                "max_cos_dist": appearance.max_distance,
                "max_age": _frames(_KEPT, rate),
                "n_init": min(3, _frames(_CONFIRMED, rate)),
                # Distance IoU: boxes of somebody fast need not even touch.
                "asso_func": "diou",
                "max_iou_dist": 0.6,
            }
        elif not by_network:
            wanted["use_embeddings"] = False
        options = tuple(sorted((key, value) for key, value in wanted.items() if key in known))
        self._tracker: Any = create_tracker(TrackerSpec(name, options=options))
        if hasattr(self._tracker, "cmc"):
            self._tracker.cmc = None
        self._embeds = bool(self._tracker.requirements.embeddings)
        self._looks = bool(self._tracker.requirements.frame)

    def update(
        self, objects: Objects, image: NDArray[np.uint8]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        import torch
        from boxmot.structures import Boxes, Detections

        vectors = self._appearance.embed(image, objects.box)
        numbers = np.full(len(objects), -1, np.int64)
        # boxmot refuses a whole frame for one box without an inside.
        sound = np.flatnonzero((objects.box[:, 2:] > objects.box[:, :2]).all(axis=1))
        detections = Detections(
            geometry=Boxes(torch.from_numpy(objects.box[sound])),
            scores=torch.from_numpy(np.clip(objects.score[sound], 0, 1)),
            # One class: a cyclist whose bicycle was missed is no other object.
            class_ids=torch.zeros(len(sound), dtype=torch.int64),
            sample_id="frame",
            embeddings=torch.from_numpy(vectors[sound]) if self._embeds and len(sound) else None,
        )
        found = self._tracker.update(
            detections,
            _bgr(image) if self._looks else None,
            timestamp_s=self._frame / self._rate if self._tracker.variable_dt else None,
        )
        self._frame += 1
        rows = found.detection_indices.numpy()
        numbers[sound[rows[rows >= 0]]] = found.track_ids.numpy()[rows >= 0]
        return numbers, vectors


class _Sort:
    """SORT, of the package trackers: it looks at boxes alone."""

    def __init__(self, appearance: Appearance, rate: float) -> None:
        from trackers import SORTTracker

        self.max_distance = appearance.max_distance
        self._appearance = appearance
        self._tracker: Any = SORTTracker(
            lost_track_buffer=round(30 * _KEPT),  # in frames of 30 per second, whatever the rate
            frame_rate=rate,
            track_activation_threshold=0.0,
            minimum_consecutive_frames=min(3, _frames(_CONFIRMED, rate)),
            # Boxes of one object overlap less, the more time there is between frames.
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
