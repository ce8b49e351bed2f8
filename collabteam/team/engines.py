"""Engines that compute a team's probabilities, and the check that they keep its verdicts."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import logging
import math
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from collabteam.errors import UserError, disk_errors
from collabteam.features.compiled import Compiled, convert, import_quietly, without_telemetry
from collabteam.features.devices import set_threads
from collabteam.features.images import ImageReader, Transform, decoding_threads
from collabteam.settings import MOST_DISAGREEMENT, TrainerConfig
from collabteam.storage.files import damaged, read_json, replacing_folder, write_json
from collabteam.storage.layout import RoundFiles
from collabteam.team.team import Engine, Team, mean_of_views, probabilities
from collabteam.team.voting import VotePolicy

CALIBRATION = 600
"""Crops that calibrate a coarse arithmetic: half set its ranges, half measure its errors."""
_CHUNK, _CHUNK_CLOSE = 32, 4
"""Crops per call of a compiled model: for a whole batch, and for the close calls in it."""
_WORK = 0.005
"""Least share of its network's multiplications from which a product is quantised."""
_EXACT = 0.99
"""Share of crops whose error in a coarse arithmetic is within the margin of a close call."""
_PREPARE = "remove the folder, and it is prepared again"


def open_engine(
    load: Callable[[TrainerConfig], Team],
    files: RoundFiles,
    kind: str,
    precision: str,
    trainer: TrainerConfig,
    calibration: Callable[[int], list[bytes]],
) -> Engine:
    """Load a team into an engine.

    With ``openvino`` in bf16 or int8, crops on which a branch's probability is too close to one
    half to be sure of its vote are computed again in the next finer arithmetic, at last in fp32.
    The margin is measured on the camera's own crops; it and the int8 network are kept in the
    round's folder, so a resumed command gets the same numbers.

    Args:
        load: Returns the team on a device, in an arithmetic.
        files: The team's round.
        kind: ``torch``, or ``openvino`` (CPU only).
        precision: ``fp32``, ``bf16``, ``int8`` (OpenVINO only), or ``auto``: the
            value of ``trainer.precision``, by default bf16 if the processor has it.
        trainer: Device, threads, size of a batch.
        calibration: Returns up to the given number of encoded crops of the camera, the same ones
            each time. Called only when bf16 or int8 is prepared for the first time.

    Raises:
        UserError: The round is not finished or damaged, a package is missing, the processor lacks
            the arithmetic, or there are no crops to calibrate on.
    """
    if precision == "auto":
        precision = trainer.precision
    if kind == "torch":
        if precision == "int8":
            raise UserError("precision=int8 needs engine=openvino")
        return load(replace(trainer, precision=precision))
    if trainer.accelerator not in ("auto", "cpu"):
        raise UserError(
            f"trainer.accelerator={trainer.accelerator}: OpenVINO computes on the processor here: "
            "set trainer.accelerator=cpu, or engine=torch"
        )
    for package in ("openvino", *(["nncf"] if precision == "int8" else [])):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"engine=openvino precision={precision} needs {package} (Apache-2.0): "
                "pip install 'collabteam[openvino]', or set engine=torch"
            )
    team = load(replace(trainer, accelerator="cpu", precision="fp32"))
    return OpenVino(team, precision, trainer, calibration, files.openvino)


class OpenVino(Engine):
    """All branches of a team as one OpenVINO model, from bytes to probabilities.

    Args:
        team: On the processor, in fp32.
        precision: ``auto``, ``fp32``, ``bf16`` or ``int8``.
        trainer: Threads, size of a batch.
        calibration: See :func:`open_engine`.
        kept: Folder for the prepared network and the margins.

    Attributes:
        margins: For each arithmetic but the last, coarse to fine: a crop with a probability this
            near to one half is computed in the next one, too; 0 to 0.5.

    Raises:
        UserError: The processor has no bf16, there are no crops to calibrate on, or the kept files
            are damaged.
    """

    kind = "openvino"

    def __init__(
        self,
        team: Team,
        precision: str,
        trainer: TrainerConfig,
        calibration: Callable[[int], list[bytes]],
        kept: Path,
    ) -> None:
        self.classes, self.transform = team.classes, team.transform
        openvino = import_quietly("openvino")
        self._core = openvino.Core()
        self._trainer = trainer
        has_bf16 = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and not has_bf16:
            raise UserError("precision=bf16: this processor has none: set precision=auto or fp32")
        if precision == "auto":
            precision = "bf16" if has_bf16 else "fp32"
        self.precision = precision
        network = convert(_Probabilities(team), team.transform.size)
        finer = ["bf16", "f32"] if has_bf16 else ["f32"]
        if precision == "fp32":
            self.margins: list[float] = []
            self._stages = [self._compile(network, "f32", _CHUNK)]
            return
        made_by = [openvino.__version__, self._core.get_property("CPU", "FULL_DEVICE_NAME")]
        if precision == "int8":
            made_by.append(import_quietly("nncf").__version__)
        folder = kept / f"{precision}-{_fingerprint(team, made_by)}"
        if not folder.exists():
            with disk_errors():
                self._prepare(openvino, network, finer, calibration, folder)
        try:
            self._stages = self._load(network, finer, folder)
            margins = read_json(folder / "margins.json", _PREPARE)["margins"]
            self.margins = [float(margin) for margin in margins]
            if not all(0 <= margin <= 0.5 for margin in self.margins):
                raise ValueError(f"margins {margins}")
            if len(self.margins) != len(self._stages) - 1:
                raise ValueError(f"{len(self.margins)} margins")
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise damaged(folder, "a prepared network", error, _PREPARE) from error

    def score(self, images: Tensor) -> NDArray[np.float32]:  # noqa: D102
        pixels = images.numpy()
        prob = _prob(self._stages[0], pixels)
        for margin, finer in zip(self.margins, self._stages[1:], strict=True):
            close = (np.abs(prob - 0.5) <= margin).any(axis=1)
            prob[close] = _prob(finer, pixels[close])
        return prob

    def _load(self, network: Any, finer: list[str], folder: Path) -> list[Compiled]:
        """The compiled models, coarse to fine: int8, if requested, precedes the network's own."""
        chunks = [_CHUNK] + [_CHUNK_CLOSE] * len(finer)
        stages = []
        if self.precision == "int8":
            # The operations that are not int8 use the coarsest type that the processor has.
            int8 = self._core.read_model(folder / "network.xml")
            stages = [self._compile(int8, finer[0], chunks.pop(0))]
        for arithmetic in finer:
            stages.append(self._compile(network, arithmetic, chunks.pop(0)))
        return stages

    def _compile(self, network: Any, arithmetic: str, crops: int) -> Compiled:
        threads = set_threads(self._trainer.threads)
        # More streams than chunks in a batch would only use memory.
        streams = min(threads, max(1, self._trainer.score_batch_size // crops))
        return Compiled(
            self._core, network, self.transform.size, len(self.classes),
            crops=crops, arithmetic=arithmetic, threads=threads, streams=streams,
        )  # fmt: skip

    def _prepare(
        self,
        openvino: Any,
        network: Any,
        finer: list[str],
        calibration: Callable[[int], list[bytes]],
        folder: Path,
    ) -> None:
        """Quantise if requested, measure the margins, and save both atomically."""
        crops = calibration(CALIBRATION)
        if not crops:
            raise UserError(
                f"precision={self.precision} is calibrated on the camera's crops, and it has none: "
                "ingest some, or set precision=fp32"
            )
        with decoding_threads() as pool:
            images = self.transform.decode(crops, pool).numpy()
        # Errors are measured on other crops than ranges; otherwise they would be too low.
        ranges, errors = images[::2], images[1::2] if len(images) > 1 else images
        with replacing_folder(folder) as part:
            if self.precision == "int8":
                quantised = _quantise(network, ranges, self.transform.size)
                openvino.save_model(quantised, part / "network.xml", compress_to_fp16=False)
            *coarse, exact = (_prob(stage, errors) for stage in self._load(network, finer, part))
            off = [np.abs(prob - exact).max(axis=1) for prob in coarse]
            margins = [min(0.5, float(np.quantile(one, _EXACT, method="higher"))) for one in off]
            write_json(part / "margins.json", {"margins": margins, "crops": len(errors)})
            for other in folder.parent.iterdir():
                # Networks of other weights, and what a kill left of an earlier version.
                is_ours = other.name.startswith(f"{self.precision}-") or other.name == "preparing"
                if is_ours and not other.is_symlink():
                    shutil.rmtree(other)


class _Probabilities(nn.Module):
    """(N, 3, S, S) uint8 to (N, B) probabilities, as :meth:`Team.score` computes them."""

    def __init__(self, team: Team) -> None:
        super().__init__()
        self.voters, self.transform = nn.ModuleList(team.voters), team.transform
        self.classes, self.views = len(team.classes), team.views
        extractor = team.extractor
        parts = extractor.parts if extractor is not None else []
        self.frozen = nn.ModuleList(part.network for part in parts)
        self.transforms = [part.transform for part in parts]

    def forward(self, images: Tensor) -> Tensor:
        voters: Any = self.voters
        if not self.transforms:
            pixels = self.transform.normalize(images)
            return mean_of_views(voters, pixels, self.classes, self.views)
        features = [
            network(transform.normalize(images))
            for network, transform in zip(self.frozen, self.transforms, strict=True)
        ]
        return probabilities(voters, torch.cat(features, dim=1), self.classes)


def _prob(stage: Compiled, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities (N, B); the mean of several networks may leave 0 to 1 by the last digit."""
    return stage(pixels).clip(0, 1)


def _quantise(network: Any, images: NDArray[np.uint8], side: int) -> Any:
    """Quantise the products that take most of a model's time to int8.

    The rest stays as it is: quantising just the attention makes the error six times as large and
    saves no time. The ranges of the numbers come from the images (post-training quantisation,
    NNCF).
    """
    nncf = import_quietly("nncf")
    crops = [images[i : i + 1] for i in range(len(images))]
    log = logging.getLogger("nncf")
    chatter = [log, logging.getLogger("torch.utils.cpp_extension")]
    levels = [one.level for one in chatter]
    for one in chatter:
        one.setLevel(logging.ERROR)
    try:
        with (
            without_telemetry(),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            return nncf.quantize(
                network,
                nncf.Dataset(crops),
                subset_size=len(crops),
                ignored_scope=nncf.IgnoredScope(names=_light(network, side), validate=False),
            )
    finally:
        for one, level in zip(chatter, levels, strict=True):
            one.setLevel(level)


def _light(network: Any, side: int) -> list[str]:
    """Names of all operations except the products that take most of a network's time."""
    sized = network.clone()
    sized.reshape([1, 3, side, side])
    work, names, ends = {}, [], 0
    for operation in sized.get_ordered_ops():
        name, kind = operation.get_friendly_name(), operation.get_type_name()
        if kind == "Constant":
            continue
        names.append(name)
        ends += kind == "Softmax"
        if kind not in ("Convolution", "GroupConvolution", "MatMul"):
            continue
        weights = operation.input_value(1)
        if weights.get_node().get_type_name() != "Constant":
            continue  # the product of two activations
        out = [int(length) for length in operation.get_output_shape(0)]
        sums = math.prod(weights.get_shape()) // out[-1 if kind == "MatMul" else 1]
        work[name] = math.prod(out) * sums
    least = _WORK * sum(work.values()) / max(ends, 1)
    return [name for name in names if work.get(name, 0) < least]


def _fingerprint(team: Team, made_by: Sequence[str]) -> str:
    """Hash weights, classes, picture size and library versions to sixteen hex digits."""
    found = hashlib.blake2b(digest_size=8)
    transform = team.transform
    # ImageNet's transform is left out, so that networks prepared by earlier versions stay valid.
    other = [] if transform == Transform(transform.size) else [asdict(transform)]
    found.update(json.dumps([team.classes, transform.size, *made_by, *other]).encode())
    if team.views != "plain":
        found.update(team.views.encode())
    if team.extractor is not None:
        found.update(team.extractor.digest.encode())
    for voter in team.voters:
        for name, tensor in voter.network.state_dict().items():
            found.update(f"{voter.columns[0]} {name} {tuple(tensor.shape)}".encode())
            found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


class Disagreement(UserError):
    """Too many of an engine's verdicts differ from the reference."""


@dataclass(frozen=True)
class Check:
    """Differences between an engine and the reference on a sample.

    Attributes:
        crops: Size of the sample.
        disagreement: Share of verdicts that differ, 0 to 1.
        largest_difference: Largest difference of two probabilities, 0 to 1.
    """

    crops: int
    disagreement: float
    largest_difference: float


def disagreement(
    reference_NB: NDArray[np.floating], other_NB: NDArray[np.floating], policy: VotePolicy
) -> float:
    """Share of crops whose verdicts differ between two arrays of probabilities; 0 without crops.

    Args:
        reference_NB: (N, B) probability of *true*, 0 to 1.
        other_NB: The same crops, (N, B).
        policy: Makes the verdicts.

    Raises:
        ValueError: The shapes differ, or :meth:`~collabteam.team.voting.VotePolicy.vote` refuses
            one.

    Example:
        >>> import numpy as np
        >>> from collabteam.team.votes.consensus import Consensus
        >>> one, other = np.array([[0.9, 0.2], [0.6, 0.1]]), np.array([[0.8, 0.3], [0.4, 0.1]])
        >>> disagreement(one, other, Consensus())
        0.5
    """
    if reference_NB.shape != other_NB.shape:
        raise ValueError(f"expected two of a shape, got {reference_NB.shape} and {other_NB.shape}")
    if not len(reference_NB):
        return 0.0
    return float((policy.vote(reference_NB).branch != policy.vote(other_NB).branch).mean())


def check_engine(
    engine: Engine,
    reference: Engine,
    reader: ImageReader,
    rows: NDArray[np.int64],
    batch_size: int,
    policy: VotePolicy,
    advance: Callable[[int], object] | None = None,
) -> Check:
    """Compare an engine's verdicts on a sample with those of the reference.

    Args:
        engine: The engine to check.
        reference: The same team in torch in fp32.
        reader: Returns encoded crops.
        rows: The sample.
        batch_size: Crops per step.
        policy: Makes the verdicts.
        advance: Called with the number of crops of each finished batch.

    Raises:
        Disagreement: More than ``MOST_DISAGREEMENT`` of the verdicts differ.
    """
    ours, theirs = [], []
    both = (one.score_rows(reader, rows, batch_size) for one in (engine, reference))
    for prob, exact in zip(*both, strict=True):
        ours.append(prob)
        theirs.append(exact)
        if advance is not None:
            advance(len(prob))
    if not ours:
        return Check(0, 0.0, 0.0)
    prob, exact = np.concatenate(ours), np.concatenate(theirs)
    found = Check(len(prob), disagreement(exact, prob, policy), float(np.abs(prob - exact).max()))
    if found.disagreement > MOST_DISAGREEMENT:
        raise Disagreement(
            f"engine={engine.kind} in {engine.precision} gives another verdict than torch in fp32 "
            f"on {found.disagreement:.2%} of {found.crops} crops, expected at most "
            f"{MOST_DISAGREEMENT:.1%}: use a finer precision, or engine=torch with fp32"
        )
    return found
