"""Object detection: one protocol for the networks of ultralytics and torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from collabteam.errors import UserError
from collabteam.settings import DetectorConfig
from collabteam.video.network import Network, Raw
from collabteam.video.objects import Objects, area
from collabteam.video.yolo import Yolo


class Detector(Protocol):
    """Finds objects in frames."""

    @property
    def names(self) -> tuple[str, ...]:
        """All kinds of objects that the weights know, usually COCO's."""

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Objects]:
        """Find objects.

        Args:
            images: Each (H, W, 3) uint8, RGB; sizes may differ. The caller chooses the batch so
                that it fits the memory; the result of an image does not depend on the others.

        Returns:
            For each image, the objects of the requested kinds: boxes in pixels, clipped to the
            image, and scores from ``confidence`` to 1.
        """


def open_detector(config: DetectorConfig, wanted: Sequence[str]) -> Detector:
    """Load a detector. It never downloads anything.

    Args:
        config: Settings of the detector; the batch size is not used here.
        wanted: The kinds of objects to find, by the names that the weights know.

    Returns:
        The detector, on the GPU if there is one. Pickling stores the settings; unpickling loads
        the weights again.

    Raises:
        UserError: The kind of detector does not exist; a package or the weights are missing; the
            file holds no weights or those of another model; or the weights do not know a
            requested kind.
    """
    if config.kind == "yolo":
        network: Network = Yolo(config)
    elif config.kind == "torchvision":
        network = _Torchvision(config)
    else:
        raise UserError(f"detector.kind={config.kind}: expected one of yolo, torchvision")
    unknown = sorted(set(wanted) - set(network.names.values()))
    if unknown:
        raise UserError(
            f"detector.weights={config.weights} cannot find {', '.join(unknown)}; it knows "
            f"{', '.join(network.names.values())}"
        )
    return _Detector(network, config, tuple(wanted))


class _Detector:
    def __init__(self, network: Network, config: DetectorConfig, wanted: tuple[str, ...]):
        self._network, self._config, self._wanted = network, config, wanted
        self._kinds = {n: name for n, name in network.names.items() if name in wanted}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._network.names.values())

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Objects]:
        # Networks pad a batch to its largest image, and padding changes the detections.
        same_size: dict[tuple[int, ...], list[int]] = {}
        for place, image in enumerate(images):
            same_size.setdefault(image.shape, []).append(place)
        found: dict[int, Objects] = {}
        for places in same_size.values():
            raw = self._network.predict([images[i] for i in places], list(self._kinds))
            for place, output in zip(places, raw, strict=True):
                found[place] = self._objects(images[place], *output)
        return [found[place] for place in range(len(images))]

    def _objects(
        self,
        image: NDArray[np.uint8],
        box: NDArray[np.float32],
        score: NDArray[np.float32],
        number: NDArray[np.int64],
    ) -> Objects:
        height, width = image.shape[:2]
        box = np.clip(box, 0, np.array([width, height, width, height], np.float32))
        kept = np.isin(number, list(self._kinds)) & (area(box) > 0)
        kinds = np.array([self._kinds[n] for n in number[kept].tolist()], object)
        return Objects(box[kept], score[kept], kinds)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_detector, (self._config, self._wanted)


# torchvision sets eps to 0 in the batch norms of these models when it loads its own weights.
_WITHOUT_EPS = (
    "fasterrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
)
_NO_KIND = ("__background__", "N/A", "no person")


class _Torchvision:
    """A torchvision detection model with weights from a file.

    The state dict is loaded without executing code from it. It must have the classes of
    torchvision's own weights for the model, because those weights define the names. SSD models
    resize every image to their fixed input size and ignore ``image_size``.
    """

    def __init__(self, config: DetectorConfig):
        import torch
        from torchvision import models

        known = models.list_models(module=models.detection)
        if config.model not in known:
            raise UserError(f"detector.model={config.model}: expected one of {', '.join(known)}")
        official = models.get_model_weights(config.model).DEFAULT
        path = Path(config.weights)
        if not path.is_file():
            raise UserError(
                f"detector.weights={config.weights}: no such file: {path.resolve()}; get the "
                f"weights of {config.model} from {official.url}"
            )
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            shapes = {name: tuple(value.shape) for name, value in state.items()}
        except Exception as error:  # the type depends on what the file really is
            raise UserError(
                f"detector.weights={config.weights}: expected a state dict of {config.model}, got "
                "a file that holds none; is it for detector.kind=yolo?"
            ) from error
        names = official.meta["categories"]
        model = models.get_model(config.model, weights=None, weights_backbone=None)
        _check_shapes(shapes, model, config, len(names))
        model.load_state_dict(state)
        if config.model in _WITHOUT_EPS:
            for part in model.modules():
                if isinstance(part, torch.nn.BatchNorm2d):
                    part.eps = 0.0
        model.transform.min_size, model.transform.max_size = (config.image_size,), config.image_size
        # The default threshold of some models is above the lowest confidence that can be set.
        getattr(model, "roi_heads", model).score_thresh = config.confidence
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.eval().to(self._device)
        self.names = {n: name for n, name in enumerate(names) if name not in _NO_KIND}

    def predict(self, images: Sequence[NDArray[np.uint8]], numbers: list[int]) -> list[Raw]:
        import torch

        with torch.inference_mode():
            # Copied before the axes are permuted: frames may be read-only.
            batch = [
                torch.tensor(np.ascontiguousarray(image), device=self._device) for image in images
            ]
            output = self._model([image.permute(2, 0, 1).float() / 255 for image in batch])
        return [
            tuple(one[name].cpu().numpy() for name in ("boxes", "scores", "labels"))
            for one in output
        ]


def _check_shapes(
    shapes: dict[str, tuple[int, ...]], model: Any, config: DetectorConfig, classes: int
) -> None:
    """Check that a state dict has the parameter names and shapes of the model.

    Raises:
        UserError: The state dict belongs to another model, or to one with other classes.
    """
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    # The official weights use frozen batch norms, which do not count batches.
    missing = [n for n in expected if n not in shapes and not n.endswith("num_batches_tracked")]
    foreign = [n for n in shapes if n not in expected]
    if missing or foreign:
        raise UserError(
            f"detector.weights={config.weights} holds another model than detector.model="
            f"{config.model}: it has {'no ' if missing else ''}{(missing or foreign)[0]}"
        )
    other = [n for n in expected if n in shapes and shapes[n] != expected[n]]
    if other:
        raise UserError(
            f"detector.weights={config.weights}: expected {config.model} with the {classes} "
            f"classes of torchvision's own weights, got another number: {other[0]} is of shape "
            f"{shapes[other[0]]}, not {expected[other[0]]}"
        )
