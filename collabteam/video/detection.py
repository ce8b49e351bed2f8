"""Finding objects in frames: one protocol, behind it ultralytics' or torchvision's networks."""

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
    """What finds objects in frames."""

    @property
    def names(self) -> tuple[str, ...]:
        """All kinds of objects that it could find, COCO's as a rule."""

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Objects]:
        """Find objects.

        Args:
            images: Each (H, W, 3) uint8, RGB; they may differ in size. As many as fit the memory:
                batches are the caller's business, and what is found in an image does not depend on
                those beside it.

        Returns:
            Per image, the objects of the wanted kinds: boxes in pixels of that image and within it,
            scores from ``confidence`` to 1.
        """


def open_detector(config: DetectorConfig, wanted: Sequence[str]) -> Detector:
    """Load a detector. Nothing is ever downloaded.

    Args:
        config: Which one; the batch size plays no role here.
        wanted: The kinds of objects to find, among the names that the weights know.

    Returns:
        The detector, on the GPU if there is one. It can be pickled: it is then opened anew.

    Raises:
        UserError: No such kind of detector, a package or the weights are missing, the file holds no
            weights or those of another model, or they know nothing of a wanted kind.
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
        # Networks pad a batch to its largest image, and what they see changes with the padding.
        same_size: dict[tuple[int, ...], list[int]] = {}
        for place, image in enumerate(images):
            same_size.setdefault(image.shape, []).append(place)
        found: dict[int, Objects] = {}
        for places in same_size.values():
            raw = self._network.predict([images[i] for i in places], list(self._kinds))
            for place, said in zip(places, raw, strict=True):
                found[place] = self._objects(images[place], *said)
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


# torchvision sets the eps of these models' normalisations to 0 when it loads its weights.
_WITHOUT_EPS = (
    "fasterrcnn_resnet50_fpn",
    "keypointrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn",
)
_NO_KIND = ("__background__", "N/A", "no person")


class _Torchvision:
    """A detection model of torchvision's, with weights from a file.

    The state dict is read without running code from it. Its classes must be those of torchvision's
    own weights for the model, which give the names. SSD models see every image at the fixed size
    that they were made for, whatever ``image_size`` says.
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
        except Exception as error:  # of many types, by what the file is instead
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
        # Of some models the least score is above the confidence that may be asked for.
        getattr(model, "roi_heads", model).score_thresh = config.confidence
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.eval().to(self._device)
        self.names = {n: name for n, name in enumerate(names) if name not in _NO_KIND}

    def predict(self, images: Sequence[NDArray[np.uint8]], numbers: list[int]) -> list[Raw]:
        import torch

        with torch.inference_mode():
            # Copied before the axes move: frames may be read-only.
            batch = [
                torch.tensor(np.ascontiguousarray(image), device=self._device) for image in images
            ]
            said = self._model([image.permute(2, 0, 1).float() / 255 for image in batch])
        return [
            tuple(one[name].cpu().numpy() for name in ("boxes", "scores", "labels")) for one in said
        ]


def _check_shapes(
    shapes: dict[str, tuple[int, ...]], model: Any, config: DetectorConfig, classes: int
) -> None:
    """Raise unless a state dict has the shapes of the model's.

    Raises:
        UserError: It is another model's, or one with other classes.
    """
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    # Frozen normalisations, of which the official weights are, do not count batches.
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
