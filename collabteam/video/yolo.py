"""Networks of ultralytics (AGPL-3.0). Only this file imports the package, and only when it is used.

By default, ultralytics goes online when imported, sends telemetry, downloads missing weights, calls
pip for missing packages and writes into the home folder. It also changes the environment, torch's
number of threads, ``torch.save`` and numpy's print options for the whole process. ONNX Runtime
sends telemetry, too. This module prevents all of that, unless other code in the process imported
the packages first.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from collabteam.environment import isolated
from collabteam.errors import UserError, first_line
from collabteam.settings import DetectorConfig
from collabteam.video.network import Raw

_RUNTIME = {".pt": None, ".onnx": "onnxruntime", ".tflite": "ai-edge-litert"}
"""The package that runs a weights file, by the file's extension."""
_WITH_BOXES = ("detect", "segment", "pose")
_IMPORT_LOCK = threading.Lock()


class Yolo:
    """A network that ultralytics runs.

    A ``.pt`` file is a pickle, and a pickle can run any code when it is opened. Releases of
    ultralytics that know ``ULTRALYTICS_SAFE_LOAD`` load only their own and torch's classes from it.
    With older releases, or with that variable set to 0, open only files that you trust. ``.onnx``
    and ``.tflite`` files hold no code. If they were exported with a fixed size, they resize every
    image to it.

    Args:
        config: The weights file, the image size and the confidence.

    Attributes:
        names: The kinds of objects that the network knows, by class number.

    Raises:
        UserError: A package or the file is missing, or the file holds no detection weights.
    """

    names: dict[int, str]

    def __init__(self, config: DetectorConfig):
        path = Path(config.weights)
        extension = path.suffix.lower()
        if extension not in _RUNTIME:
            raise UserError(
                f"detector.weights={config.weights}: expected a file that ends with "
                f"{', '.join(_RUNTIME)}"
            )
        if importlib.util.find_spec("ultralytics") is None:
            raise UserError(
                "detector.kind=yolo needs ultralytics (AGPL-3.0): pip install 'collabteam[video]', "
                "or set detector.kind=torchvision"
            )
        if not path.is_file():
            raise UserError(
                f"detector.weights={config.weights}: no such file: {path.resolve()}; put it there "
                "or give another path; YOLO's are at "
                "https://github.com/ultralytics/assets/releases"
            )
        runtime = _RUNTIME[extension]
        if runtime and importlib.util.find_spec(runtime.replace("-", "_")) is None:
            raise UserError(
                f"detector.weights={config.weights} needs {runtime}: pip install {runtime}"
            )
        self._image_size, self._confidence = config.image_size, config.confidence
        with _offline():
            from ultralytics.models import YOLO

            logging.getLogger("ultralytics").setLevel(logging.ERROR)
            try:
                # A full path: given only a known name, ultralytics replaces an unreadable file.
                self._model: Any = YOLO(str(path.resolve()))
                task = self._model.task
                if task in _WITH_BOXES:
                    # The first call chooses the device and threads, and fails if it cannot run.
                    self.predict([np.zeros((32, config.image_size, 3), np.uint8)], [])
                self.names = dict(self._model.names)
            except Exception as error:  # of many types, by format and fault
                raise UserError(_reason(error, config.weights, path)) from error
        if task not in _WITH_BOXES:
            raise UserError(
                f"detector.weights={config.weights}: expected weights that find boxes "
                f"({', '.join(_WITH_BOXES)}), got {task}"
            )

    def predict(self, images: Sequence[NDArray[np.uint8]], numbers: list[int]) -> list[Raw]:
        """Detect objects in images of one size.

        Args:
            images: Each (H, W, 3) uint8, RGB.
            numbers: Class numbers to find; all if empty.

        Returns:
            For each image, (N, 4) boxes in pixels, (N,) scores and (N,) class numbers.
        """
        results = self._model.predict(
            [np.ascontiguousarray(image[..., ::-1]) for image in images],  # ultralytics expects BGR
            imgsz=self._image_size,
            conf=self._confidence,
            classes=numbers or None,
            verbose=False,
        )
        boxes = [result.boxes.cpu().numpy() for result in results]
        return [(one.xyxy, one.conf, one.cls.astype(np.int64)) for one in boxes]


def _reason(error: Exception, weights: str, path: Path) -> str:
    message = first_line(error).removeprefix("ERROR ❌️ ").replace(f"{path.resolve()} ", "")
    reason = message.split(". ")[0].rstrip(".")
    if "types outside" in message and os.environ["ULTRALYTICS_SAFE_LOAD"] != "0":
        reason += "; if its makers are known and trusted, set ULTRALYTICS_SAFE_LOAD=0"
    return f"detector.weights={weights}: ultralytics cannot use it: {reason}"


@contextmanager
def _offline() -> Iterator[None]:
    """Keep an import offline and quiet, and restore the process state that it changes."""
    import torch

    # One thread at a time: two that restored the state in parallel would mix it up.
    with (
        _IMPORT_LOCK,
        isolated(),  # with a launcher's variables, ultralytics would take itself for one of several
        tempfile.TemporaryDirectory() as settings,
        np.printoptions(),
        warnings.catch_warnings(),
    ):
        before, threads = dict(os.environ), torch.get_num_threads()
        # ultralytics replaces both; its Image.open calls pip for unknown picture formats.
        save, image_open = torch.save, Image.open
        # ultralytics reads these once, on import.
        os.environ |= {
            "YOLO_OFFLINE": "1",
            "YOLO_AUTOINSTALL": "false",
            "YOLO_VERBOSE": "false",
            "YOLO_CONFIG_DIR": settings,
        }
        os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "1")
        try:
            yield
        finally:
            for name in os.environ.keys() - before.keys():
                del os.environ[name]
            os.environ |= before
            torch.set_num_threads(threads)
            torch.save, Image.open = save, image_open
