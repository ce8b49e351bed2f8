"""Networks that OpenVINO compiles for the processor.

OpenVINO and NNCF (Apache-2.0, the extra ``openvino``) are imported through this module alone, and
only when used. By default, both write an id into the home folder and report to Google Analytics
when imported. Here they are imported as if their telemetry package were not installed. This has no
effect if other code in the process has imported them before.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import math
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


def has_openvino() -> bool:
    """Whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def import_quietly(package: str) -> Any:
    """Import OpenVINO or NNCF without its telemetry."""
    with without_telemetry():
        return importlib.import_module(package)


@contextlib.contextmanager
def without_telemetry() -> Iterator[None]:
    """Let imports of the telemetry package fail; both packages support its absence."""
    name = "openvino_telemetry"
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


def convert(network: nn.Module, side: int) -> Any:
    """Convert a network on pictures to an OpenVINO model with a dynamic batch size.

    Args:
        network: Maps (N, 3, S, S) uint8 to (N, C) float.
        side: Side S of the pictures in pixels.
    """
    openvino = import_quietly("openvino")
    example = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    with warnings.catch_warnings(), without_telemetry(), torch.inference_mode():
        # torch.jit.trace is deprecated. OpenVINO takes what torch.export gives, too, and the models
        # are equally fast, but making one takes four times as long (2026.4, torch 2.14).
        warnings.simplefilter("ignore")
        # The model owns its weights: the network's may be freed or trained further.
        return openvino.convert_model(
            network.eval(),
            example_input=example,
            input=openvino.PartialShape([-1, 3, side, side]),
            share_weights=False,
        )


class Compiled:
    """A compiled model that takes a fixed number of crops, several times at once.

    Args:
        core: ``openvino.Core()``.
        model: See :func:`convert`.
        side: Side S of the pictures in pixels.
        outputs: Number C of its outputs.
        crops: Crops per call.
        arithmetic: ``f32`` or ``bf16``.
        threads: Threads, 1 or more.
        streams: Calls at once, 1 or more.
    """

    def __init__(
        self,
        core: Any,
        model: Any,
        side: int,
        outputs: int,
        *,
        crops: int,
        arithmetic: str,
        threads: int,
        streams: int,
    ) -> None:
        model = model.clone()
        model.reshape([crops, 3, side, side])
        settings = {
            "INFERENCE_PRECISION_HINT": arithmetic,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": streams,
            # A pinned thread waits for other processes on its core.
            "ENABLE_CPU_PINNING": False,
        }
        compiled = core.compile_model(model, "CPU", settings)
        self._crops, self._outputs = crops, outputs
        self._queue = import_quietly("openvino").AsyncInferQueue(compiled, streams)
        self._queue.set_callback(self._collect)
        self._found = np.empty((0, outputs), np.float32)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map (N, 3, S, S) to (N, C) for any N; a crop's outputs do not depend on the others."""
        count = len(images)
        padded = math.ceil(count / self._crops) * self._crops
        self._found = np.empty((padded, self._outputs), np.float32)
        for start in range(0, padded, self._crops):
            chunk = images[start : start + self._crops]
            if len(chunk) < self._crops:
                blank = np.zeros((self._crops - len(chunk), *images.shape[1:]), np.uint8)
                chunk = np.concatenate([chunk, blank])
            self._queue.start_async({0: chunk}, start)
        self._queue.wait_all()
        return self._found[:count]

    def _collect(self, request: Any, start: int) -> None:
        self._found[start : start + self._crops] = request.get_output_tensor(0).data
