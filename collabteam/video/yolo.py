"""Ultralytics' networks (AGPL-3.0): the one file that imports the package, and only when used.

Left alone, ultralytics goes online when imported, reports its use, downloads weights it does not
find, calls pip for what it lacks, writes into the home folder, and changes the environment, the
number of torch's threads, ``torch.save`` and how numpy prints, for all of the process. ONNX Runtime
reports its use, too. Here they do none of it. If they were imported before, elsewhere in the
process, it is too late for that.
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

from collabteam.errors import UserError, first_line
from collabteam.settings import DetectorConfig
from collabteam.video.network import Raw

_RUNTIME = {".pt": None, ".onnx": "onnxruntime", ".tflite": "ai-edge-litert"}
"""The package that runs a file, by its extension."""
_WITH_BOXES = ("detect", "segment", "pose")
_GUARD = threading.Lock()


class Yolo:
    """A network that ultralytics runs.

    Args:
        config: The file and the size of the image. A ``.pt`` file is a pickle, and a pickle can run
            any code when it is opened. Ultralytics is told to take nothing from it but its own and
            torch's classes, which releases that know ``ULTRALYTICS_SAFE_LOAD`` obey; with older
            ones, or with that variable set to 0, open only files that you trust. ``.onnx`` and
            ``.tflite`` hold no code. Exported with a fixed size, they see images at that one.

    Attributes:
        names: The kinds of objects that it knows, by number.

    Raises:
        UserError: A package or the file is missing, or the file holds no weights that find boxes.
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
        with _undisturbed():
            from ultralytics.models import YOLO

            logging.getLogger("ultralytics").setLevel(logging.ERROR)
            try:
                # The whole path: a bare name that it knows would be replaced if it cannot be read.
                self._model: Any = YOLO(str(path.resolve()))
                task = self._model.task
                if task in _WITH_BOXES:
                    # Chooses the device and the threads, and shows whether the network runs at all.
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
        """What is seen in RGB images of one size.

        Args:
            images: Each (H, W, 3) uint8.
            numbers: Kinds to find; all, if empty.

        Returns:
            Per image (N, 4) boxes in pixels, (N,) scores and (N,) numbers of kinds.
        """
        results = self._model.predict(
            [np.ascontiguousarray(image[..., ::-1]) for image in images],  # arrays are taken as BGR
            imgsz=self._image_size,
            conf=self._confidence,
            classes=numbers or None,
            verbose=False,
        )
        boxes = [result.boxes.cpu().numpy() for result in results]
        return [(one.xyxy, one.conf, one.cls.astype(np.int64)) for one in boxes]


def _reason(error: Exception, weights: str, path: Path) -> str:
    said = first_line(error).removeprefix("ERROR ❌️ ").replace(f"{path.resolve()} ", "")
    reason = said.split(". ")[0].rstrip(".")
    if "types outside" in said and os.environ["ULTRALYTICS_SAFE_LOAD"] != "0":
        reason += "; if its makers are known and trusted, set ULTRALYTICS_SAFE_LOAD=0"
    return f"detector.weights={weights}: ultralytics cannot use it: {reason}"


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep what is imported offline and quiet, and put back what it changes for the process."""
    import torch

    # One at a time: two that put back what each had found would mix it up.
    with (
        _GUARD,
        tempfile.TemporaryDirectory() as settings,
        np.printoptions(),
        warnings.catch_warnings(),
    ):
        before, threads = dict(os.environ), torch.get_num_threads()
        # It replaces these two; the one of Pillow's would call pip for pictures of no known format.
        save, image_open = torch.save, Image.open
        # Read once, on import.
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
