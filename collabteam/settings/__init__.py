"""Every setting of collabteam: the Hydra schema and the Python API in one.

The defaults are the paper's (Padilha and Ferreira, section 3.1) wherever the paper gives a value.
The dataclasses know nothing of Hydra; ``python -m collabteam.train`` fills them from YAML files and
the command line, and Python code builds them directly::

    camera = CameraConfig("S10-08", ["pedestrian", "cyclist", "motorcyclist"])
    TrainConfig(camera=camera, round=2)
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collabteam.errors import UserError

UNKNOWN = "unknown"
"""What a crop is called that shows none of the team's classes."""
UNUSABLE = "unusable"
"""What a crop is called that nobody can judge; it never trains and is never scored against."""

_REVIEWER = re.compile(r"[\w.@+-]{1,64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_OBJECT = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9_.=-]*")
# What Hydra reads as a number, a truth value or nothing, in a sweep even when it is quoted.
_NO_TEXT = re.compile(r"[\d_.]+(e-?[\d_]+)?|true|false|null|nan|inf", re.IGNORECASE)


@dataclass
class FootageConfig:
    """What a camera's footage is like; seen by ``ingest source=video`` alone.

    Attributes:
        start: How a file's name tells when the recording began, in the terms of
            :meth:`datetime.datetime.strptime`, anywhere in the name without its extension, such as
            ``%Y%m%d_%H%M%S``. Empty: the container's ``creation_time`` tells, if it is there.
        timezone: Of the time in the file's name, as an IANA name such as ``Europe/Madrid``.
        region: Corners of the polygon that is looked at, each [x, y] as fractions of the frame's
            width and height; empty for all of it. An object is inside if the middle of its lower
            edge is.
        mask: An image stretched over the frame; objects that stand where it is black are left out.
    """

    start: str = ""
    timezone: str = "UTC"
    region: list[Any] = field(default_factory=list)
    mask: str = ""


@dataclass
class CameraConfig:
    """A camera and the classes that its team tells apart.

    Attributes:
        name: The camera's name, also the name of its folder under ``root``.
        classes: The team's classes, at least two; one branch each, in this order.
        footage: What its footage is like.
    """

    name: str = ""
    classes: list[str] = field(default_factory=list)
    footage: FootageConfig = field(default_factory=FootageConfig)


@dataclass
class DataConfig:
    """How crops become tensors and folds.

    Attributes:
        image_size: Side in pixels of the square that a crop is letterboxed to.
        folds: Number of group-aware stratified folds (paper: 5, so each is an 80/20 split).
        train_folds: Which folds are trained; scores are the mean over these.
        augment: ``none``; ``affine``: mirror, rotate up to 3 degrees, scale by 0.9 to 1.1 and
            shift up to 6%; ``strong``: mirror, rotate up to 9 degrees, scale by 0.75 to 1.15, shift
            up to 10%, other brightness and contrast, and a square of two fifths of the side
            blanked in every second crop. The paper names no augmentation.
        augment_later: The same for rounds k > 0; empty means as ``augment``.
        batch_size: Crops per training step (paper: 64).
        eval_batch_size: Crops per validation step (paper: 16); speed only, not results.
    """

    image_size: int = 128
    folds: int = 5
    train_folds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4])
    augment: str = "none"
    augment_later: str = ""
    batch_size: int = 64
    eval_batch_size: int = 16


@dataclass
class TeamConfig:
    """The branches and how they vote.

    Attributes:
        backbone: Any timm model name.
        attention: timm attention layer inside the residual blocks (paper: ``cbam``), or ``none``.
        stem: ``standard`` as timm builds it (stride 4 in all), or ``small``: a 3x3 convolution of
            stride 2 and no pooling, for pictures of 32 to 48 px. ResNets only.
        pretrained: Start from timm's pretrained weights (downloads them).
        init: Start of round k > 0: ``scratch`` (Kaiming) or ``previous``: each fold goes on from
            the same fold of round k-1, so it never validates on what it was trained on.
        vote_with: ``best``: one network per branch, from the fold with the best balanced recall;
            ``mean``: the mean of all trained folds, at as many times the cost of scoring.
        joint: Joint confidence of a verdict from the branches' confidences in their own votes:
            ``product``, ``min`` or ``mean``. The paper does not define it.
    """

    backbone: str = "resnet18"
    attention: str = "cbam"
    stem: str = "standard"
    pretrained: bool = False
    init: str = "scratch"
    vote_with: str = "best"
    joint: str = "product"


@dataclass
class OptimConfig:
    """Stochastic gradient descent, per branch (paper, section 3.1).

    Attributes:
        lr: Peak learning rate.
        momentum: Momentum factor.
        nesterov: Use Nesterov's form.
        weight_decay: L2 penalty.
        epochs: Epochs of round 0, and of later rounds unless ``epochs_later`` is set.
        epochs_later: Epochs of rounds k > 0; 0 means the same as ``epochs``.
        warmup: Share of all steps over which the rate rises linearly before the cosine; 0 to 0.5.
        label_smoothing: Smoothing of the weighted cross-entropy.
    """

    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    epochs: int = 30
    epochs_later: int = 0
    warmup: float = 0.0
    label_smoothing: float = 0.1


@dataclass
class TrainerConfig:
    """Where the arithmetic runs. None of this is part of a round's fingerprint.

    Attributes:
        accelerator: Lightning's accelerator: ``auto``, ``cpu``, ``gpu``, ...
        precision: ``auto`` (bf16 where the processor has it, else fp32), ``bf16`` or ``fp32``.
        threads: CPU threads of torch; 0 means one per core that this process may use.
        score_batch_size: Crops per step when the pool is scored.
    """

    accelerator: str = "auto"
    precision: str = "auto"
    threads: int = 0
    score_batch_size: int = 256


@dataclass
class RuntimeConfig:
    """What one job of a sweep may use, where jobs run side by side (``hydra/launcher=...``).

    Attributes:
        cpus: CPUs of one job; also its threads, where ``trainer.threads`` is 0.
        gpus: GPUs of one job; Ray shares one out by fractions, Slurm gives whole ones.
        memory_gb: Memory of one job in GB (10^9 bytes); Ray is not told. Training a team at 64 px
            took up to 2.6 GB (docs/results.md).
        jobs: Jobs at once on this machine; 0: as many as its CPUs and its memory bear.
    """

    cpus: int = 1
    gpus: float = 0.0
    memory_gb: float = 3.0
    jobs: int = 0


@dataclass
class LoggerConfig:
    """Where the training curves go.

    Attributes:
        kind: ``wandb``, ``csv`` or ``none``.
        mode: Of W&B: ``offline`` (nothing leaves the machine) or ``online``.
        project: Of W&B: the project's name.
        pictures: Of W&B: whether the table of sample crops of each round shows the crops. They
            leave the machine with ``mode=online`` or by ``wandb sync``, and not otherwise.
    """

    kind: str = "wandb"
    mode: str = "offline"
    project: str = "collabteam"
    pictures: bool = True


@dataclass
class TrainConfig:
    """``collabteam.train``: bring one camera to a round.

    Attributes:
        camera: The camera.
        root: Folder, or ``s3://bucket/prefix``, under which every camera has its own.
        seed: Of every random draw: i0, folds, initial weights, augmentation, increments.
        round: The target round; missing rounds are done, complete ones skipped.
        reviewer: ``person`` (labels from the catalog) or ``oracle`` (answers from hidden truth).
        oracle_error: Share of the oracle's answers in i0 that are wrong, 0 to 1; of the frozen
            test set it answers without error.
        seed_per_class: Crops per proposed class in i0 (paper: 1000).
        seed_unknown: Crops proposed as ``unknown`` in i0, so that every branch sees objects of no
            class called *false*; as many as there are, if fewer (paper: none).
        increment_per_class: Crops per class that each later round adds (paper: 1000).
        quantile: Candidates are the crops at or above this quantile of their class's consensus
            confidence (paper: top 25%, so 0.75).
        rollback: Take the camera back to this round first; -1 takes back round 0, too; None for no.
        data: Crops to tensors and folds.
        team: Branches and voting.
        optim: Optimiser.
        trainer: Hardware.
        logger: Curves.
        runtime: What a job of a sweep may use.
    """

    camera: CameraConfig = field(default_factory=CameraConfig)
    root: str = "outputs"
    seed: int = 0
    round: int = 0
    reviewer: str = "person"
    oracle_error: float = 0.0
    seed_per_class: int = 1000
    seed_unknown: int = 0
    increment_per_class: int = 1000
    quantile: float = 0.75
    rollback: int | None = None
    data: DataConfig = field(default_factory=DataConfig)
    team: TeamConfig = field(default_factory=TeamConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


@dataclass
class DetectorConfig:
    """What finds objects in a frame.

    Attributes:
        kind: ``yolo``: ultralytics (AGPL-3.0, the extra ``video``); ``torchvision``: its detection
            models (BSD-3-Clause, always there).
        weights: The weights' file. Of ``yolo``: ``.pt``, ``.onnx`` or ``.tflite``; of
            ``torchvision``: a state dict.
        model: Of ``torchvision``: name of the model that the weights are for.
        image_size: Longer side in pixels to which frames are scaled for the detector.
        confidence: Detections of a lower score are left out, 0 to 1.
        batch_size: Frames per forward pass: 1 is fastest on a CPU, a GPU wants 16 or more.
    """

    kind: str = "yolo"
    weights: str = "yolov8n.pt"
    model: str = "fasterrcnn_mobilenet_v3_large_fpn"
    image_size: int = 768
    confidence: float = 0.3
    batch_size: int = 1


@dataclass
class CutConfig:
    """How crops are cut out of frames.

    Attributes:
        margin: Rim around the box, as a share of its longer side.
        min_size: Longer side in pixels that a box must have, the rim not counted.
        min_frames: Analysed frames in which an object must be seen; briefer ones are mostly errors.
        jpeg_quality: 1 to 100.
    """

    margin: float = 0.1
    min_size: int = 32
    min_frames: int = 5
    jpeg_quality: int = 92


@dataclass
class IngestConfig:
    """``collabteam.ingest``: put crops into a camera's catalog.

    Attributes:
        camera: The camera; a new name is registered.
        root: Folder, or ``s3://bucket/prefix``, under which every camera has its own.
        seed: Unused; every command takes it.
        source: ``crops``: a folder of images or a Parquet file; ``video``: footage.
        path: The folder or the file; of footage a file, a folder, a pattern such as
            ``'footage/*.mp4'``, or a stream's address.
        labels: What a given label is: ``proposed`` by a detector, verified by a ``person``, or
            hidden ``truth`` that training and selection never see. Of ``source=crops``.
        fps: Frames per second of footage that are analysed; 0 for all.
        limit: Seconds after which to stop with a stream; 0 for never.
        detector: What finds objects.
        tracker: Any tracker of boxmot's (AGPL-3.0, the extra ``video``), such as ``strongsort``,
            ``bytetrack`` or ``botsort``; or ``sort``, of the package trackers (Apache-2.0, the
            extra ``footage``), which looks at boxes alone.
        reid: Re-identification weights for the tracker, ``.onnx`` or ``.pt``; without them,
            histograms of colours serve.
        keep_unknown: What the detector or the fusion of riders names and the camera has no class
            for, but shall be kept, proposed as ``unknown``: ``bicycle`` (one that nobody rides),
            ``car``, ...
        crops_per_track: Crops to keep of one object, the best, spread over its time in view.
        cut: How crops are cut.
        workers: Videos that are worked on at the same time.
        preview: Also write, per video, a clip with the objects drawn in and a contact sheet.
        runtime: What a job of a sweep may use.
    """

    camera: CameraConfig = field(default_factory=CameraConfig)
    root: str = "outputs"
    seed: int = 0
    source: str = "crops"
    path: str = ""
    labels: str = "proposed"
    fps: float = 10.0
    limit: float = 0.0
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    tracker: str = "strongsort"
    reid: str = ""
    keep_unknown: list[str] = field(default_factory=list)
    crops_per_track: int = 3
    cut: CutConfig = field(default_factory=CutConfig)
    workers: int = 1
    preview: bool = False
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


@dataclass
class SimulationConfig:
    """What the simulated camera sees.

    Attributes:
        crops: Number of crops, exactly; at least 1.
        crops_per_track: Mean number of crops of one track, at least 1; tracks have 1 to
            2 * mean - 1 crops, the last one may be cut short to give the exact number.
        hours: Simulated span in hours, 0.01 to 10000.
        drift: 0 (the same distribution all along) to 1 (the last hour looks very unlike the
            first: from a clear morning of summer clothes, large crops seen from the side and
            many pedestrians to a wet night of dark coats, small crops from front and rear and
            many motorcyclists).
        proposal_error: Share of crops whose proposed label is not the truth, 0 to 0.6. Half of
            the crops that show none of the classes are always proposed as a class and count
            among them, so that the share is never below `unknown_share / 2`.
        unknown_share: Share of crops that show none of the classes, 0 to 0.9.
        hard_share: Share of hard cases among the crops of the classes, 0 to 1: pushed bicycles
            (truth "pedestrian"), heavy occlusion, very small, dark and blurred, two close
            together.
        test_share: Share of tracks set apart as the frozen test set, 0 to 0.9.
    """

    crops: int = 6000
    crops_per_track: int = 3
    hours: float = 24.0
    drift: float = 0.3
    proposal_error: float = 0.08
    unknown_share: float = 0.06
    hard_share: float = 0.15
    test_share: float = 0.15

    def __post_init__(self) -> None:
        """Checks every value.

        Raises:
            ValueError: If a value is out of its range.
        """
        for name in ("crops", "crops_per_track"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"simulation: {name} must be a whole number >= 1, got {value!r}")
        for name, low, high in (
            ("drift", 0.0, 1.0),
            ("proposal_error", 0.0, 0.6),
            ("unknown_share", 0.0, 0.9),
            ("hard_share", 0.0, 1.0),
            ("test_share", 0.0, 0.9),
        ):
            value = getattr(self, name)
            if not _is_number(value) or not low <= value <= high:
                raise ValueError(
                    f"simulation: {name} must be a number from {low:g} to {high:g}, got {value!r}"
                )
        if not _is_number(self.hours) or not 0.01 <= self.hours <= 10000.0:
            raise ValueError(
                f"simulation: hours must be a number from 0.01 to 10000, got {self.hours!r}"
            )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@dataclass
class SimulateConfig(SimulationConfig):
    """``collabteam.simulate``: the simulation's settings and where it goes.

    Attributes:
        camera: The camera.
        root: Folder, or ``s3://bucket/prefix``, under which every camera has its own.
        seed: Of everything that is drawn.
        runtime: What a job of a sweep may use.
    """

    camera: CameraConfig = field(default_factory=CameraConfig)
    root: str = "outputs"
    seed: int = 0
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


@dataclass
class ReportConfig:
    """``collabteam.report``: Table 1 and what stands beside it, or one page on many cameras.

    Attributes:
        camera: The camera.
        cameras: Of ``format=html``: names of several cameras, instead of ``camera``; a pattern or a
            list, ``camera=glob(*)`` or ``camera=a,b``, becomes this.
        root: Folder, or ``s3://bucket/prefix``, under which every camera has its own.
        seed: Unused; every command takes it.
        format: ``table`` (terminal, and files in the camera's folder), ``json`` (standard output),
            or ``html``: a page that needs no network.
        to: Of ``format=html``: the file to write.
        samples: Of ``format=html``: crops to show of each kind (sure, unsure, wrong), 0 to 24; with
            0 there is no picture of anybody on the page.
    """

    camera: CameraConfig = field(default_factory=CameraConfig)
    cameras: list[str] = field(default_factory=list)
    root: str = "outputs"
    seed: int = 0
    format: str = "table"
    to: str = ""
    samples: int = 8


@dataclass
class DashboardConfig:
    """``collabteam.dashboard``: a W&B workspace over the rounds of all cameras.

    Attributes:
        cameras: Names of cameras, or patterns such as ``S10-*``; those that logged to the project
            are shown.
        root: Folder under which every camera has its own.
        seed: Unused; every command takes it.
        project: Of W&B: the project that the cameras logged to.
        publish: Whether to put the workspace on W&B, which needs an account; else it is only
            written to a file.
    """

    cameras: list[str] = field(default_factory=lambda: ["*"])
    root: str = "outputs"
    seed: int = 0
    project: str = "collabteam"
    publish: bool = False


@dataclass
class ReviewConfig:
    """``collabteam.review``: a person verifies crops in the browser, or in another tool.

    Attributes:
        camera: The camera.
        root: Folder, or ``s3://bucket/prefix``, under which every camera has its own.
        seed: Of every draw: i0, test set, audit, who sees what twice.
        queue: What to verify first: ``seed`` (i0), ``test`` (the frozen test set), ``audit`` (what
            a team labelled), ``unsure`` (what the last team does not know), ``conflict`` (where
            reviewers disagree). The page leads to the others.
        reviewer: Who verifies; empty: the name of the system's user.
        seed_per_class: Crops per proposed class in i0; None: as it is drawn already, else 1000, the
            paper's number.
        seed_unknown: Crops proposed as ``unknown`` in i0; None: as it is drawn already, else 0.
        test_per_class: Objects per proposed class in the frozen test set.
        audit_per_class: Crops per class that the audit looks at.
        double: Share of the crops that a second reviewer verifies again, unseen what the first
            said, 0 to 1.
        host: Address to listen on; other machines get in if it is not a loopback address.
        port: Port to listen on, 0 for any that is free.
        url: Address under which reviewers reach the page where it is another one, as behind a
            proxy: ``https://review.example.org``.
        open: Open the browser.
        export: File to write as tasks for another tool, instead of serving the page.
        format: Of ``export``: ``labelstudio``, ``cvat`` or ``csv``.
        import_: File with another tool's answers to take in (``import=FILE`` on the command line).
    """

    camera: CameraConfig = field(default_factory=CameraConfig)
    root: str = "outputs"
    seed: int = 0
    queue: str = "seed"
    reviewer: str = ""
    seed_per_class: int | None = None
    seed_unknown: int | None = None
    test_per_class: int = 200
    audit_per_class: int = 200
    double: float = 0.0
    host: str = "127.0.0.1"
    port: int = 8130
    url: str = ""
    open: bool = True
    export: str = ""
    format: str = "labelstudio"
    import_: str = ""


@dataclass
class LabelConfig:
    """``collabteam.label``: a team labels every crop that no person has.

    Attributes:
        camera: The camera.
        root: Folder, or ``s3://bucket/prefix``, under which every camera has its own.
        seed: Of the sample on which an engine is checked, and of what a threshold is chosen on.
        round: Whose team; None for the last one.
        engine: ``torch``, or ``openvino`` (the extra ``openvino``; CPU only).
        precision: ``auto`` (bf16 where the processor has it, else fp32), ``fp32``, ``bf16``, or
            ``int8`` (OpenVINO, prepared on the camera's own crops).
        check: Crops on which an engine's verdicts are compared with those of torch in fp32; above
            ``MOST_DISAGREEMENT`` it is refused.
        threshold: ``paper``: every consensus is a label; ``risk:0.05``: of each class only what is
            so sure that at most this share is wrong, at the stated confidence.
        confidence: Of ``threshold=risk``, 0 to 1.
        tracks: ``combine``: the crops of one track are one object with one label; ``apart``: each
            crop for itself.
        correlation: How alike the crops of one track are, 0 (each tells something new) to 1 (more
            of them tell nothing new).
        calibrate: Whether confidences are calibrated on human-labelled crops that did not train.
        trainer: Hardware.
        runtime: What a job of a sweep may use.
    """

    camera: CameraConfig = field(default_factory=CameraConfig)
    root: str = "outputs"
    seed: int = 0
    round: int | None = None
    engine: str = "torch"
    precision: str = "auto"
    check: int = 1000
    threshold: str = "paper"
    confidence: float = 0.95
    tracks: str = "combine"
    correlation: float = 0.5
    calibrate: bool = True
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


MOST_SAMPLES = 24
"""Crops of each kind that ``label`` names for a person to look at."""

MOST_DISAGREEMENT = 0.005
"""Share of verdicts by which an engine may differ from torch in fp32."""


@dataclass
class AuditConfig:
    """``collabteam.audit``: certify, by a random audit, how right a team's labels are.

    Attributes:
        camera: The camera.
        root: Folder, or ``s3://bucket/prefix``, under which every camera has its own.
        seed: Of the sample.
        precision: Share of right labels to be certified, per class, 0 to 1.
        confidence: Of the statement as a whole, over all classes and repeated audits, 0 to 1.
        expected_error: Share of wrong labels that is expected; it decides how many are audited.
        power: Chance to pass, per class, if the expectation is right.
        reviewer: ``person`` (the queue ``audit`` of the review page) or ``oracle`` (hidden truth).
        oracle_error: Share of the oracle's answers that are wrong.
        new: Begin another audit although one is open or done; each costs confidence.
        runtime: What a job of a sweep may use.
    """

    camera: CameraConfig = field(default_factory=CameraConfig)
    root: str = "outputs"
    seed: int = 0
    precision: float = 0.95
    confidence: float = 0.95
    expected_error: float = 0.01
    power: float = 0.8
    reviewer: str = "person"
    oracle_error: float = 0.0
    new: bool = False
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


@dataclass
class CompactConfig:
    """``collabteam.compact``: merge a camera's small files and remove those that nobody needs.

    Attributes:
        camera: The camera.
        root: Folder under which every camera has its own.
        seed: Unused; every command takes it.
    """

    camera: CameraConfig = field(default_factory=CameraConfig)
    root: str = "outputs"
    seed: int = 0


@dataclass
class ExportConfig:
    """``collabteam.export``: hand over a labelled dataset.

    Attributes:
        camera: The camera.
        root: Folder, or ``s3://bucket/prefix``, under which every camera has its own.
        seed: Of the split of ``yolo`` into train and val.
        format: One of the export formats, or ``package.module:Class`` of one's own.
        to: The folder to make.
        certified: Only what the last certificate covers.
        min_confidence: Leave out what the team was less sure of, 0 to 1; persons' labels stay.
        unknown: Also what a person called none of the classes, as ``unknown``.
        licence: What to write about rights to the pictures; they are yours to know.
        runtime: What a job of a sweep may use.
    """

    camera: CameraConfig = field(default_factory=CameraConfig)
    root: str = "outputs"
    seed: int = 0
    format: str = "imagefolder"
    to: str = ""
    certified: bool = False
    min_confidence: float = 0.0
    unknown: bool = False
    licence: str = ""
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


def check_camera_name(camera: str) -> None:
    """Raise unless a camera may have this name.

    Raises:
        UserError: The name is not up to 64 letters, digits, ``_``, ``.`` or ``-``, or reads as a
            number or a truth value.
    """
    if not _NAME.fullmatch(camera):
        raise UserError(
            f"camera={camera!r} is no camera name: expected up to 64 letters, digits, '_', '.' "
            "or '-', beginning with a letter or digit"
        )
    if _NO_TEXT.fullmatch(camera):
        raise UserError(
            f"camera={camera} reads as a number or a truth value, not as a name: put a letter in "
            f"front, such as c{camera}"
        )


def check_root(root: str | Path) -> None:
    """Raise unless cameras may lie under this root.

    Args:
        root: A folder, or ``s3://bucket/prefix``.

    Raises:
        UserError: It is another kind of address, or one without a bucket.
    """
    scheme, separator, rest = str(root).partition("://")
    parts = rest.removesuffix("/").split("/")
    if separator and (scheme != "s3" or not all(_OBJECT.fullmatch(part) for part in parts)):
        raise UserError(
            f"root={root}: expected a folder, or s3://bucket/prefix of letters, digits, '_', '.', "
            "'=' and '-'"
        )


def check_classes(classes: list[str]) -> None:
    """Raise unless the classes can make a team.

    Raises:
        UserError: Fewer than two classes, a repeated one, or a reserved or unusable name.
    """
    if len(classes) < 2:
        raise UserError(
            f"a team needs at least 2 classes, got {len(classes)} "
            f"({', '.join(classes) or 'none'}): name them with 'camera.classes=[a,b]'"
        )
    for name in classes:
        if classes.count(name) > 1:
            raise UserError(f"class {name!r} is named twice in camera.classes")
        if name in (UNKNOWN, UNUSABLE):
            raise UserError(f"class name {name!r} is reserved: it means 'none of the classes'")
        if not _NAME.fullmatch(name):
            raise UserError(f"class {name!r}: expected letters, digits, '_', '.' or '-'")


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"{name}={value}: expected one of {', '.join(allowed)}")


def _at_least(name: str, value: float, least: float) -> None:
    if not math.isfinite(value) or value < least:
        raise UserError(f"{name}={value}: expected {least:g} or more")


def _between(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise UserError(f"{name}={value}: expected {low:g} to {high:g}")


def check_runtime(config: RuntimeConfig) -> None:
    """Raise on the first setting that cannot work.

    Raises:
        UserError: Names the setting, what was expected and what came.
    """
    _at_least("runtime.cpus", config.cpus, 1)
    _at_least("runtime.gpus", config.gpus, 0)
    _between("runtime.memory_gb", config.memory_gb, 0.1, 10_000)
    _at_least("runtime.jobs", config.jobs, 0)


def check_train(config: TrainConfig) -> None:
    """Raise on the first setting that cannot work.

    Raises:
        UserError: Names the setting, what was expected and what came.
    """
    check_camera_name(config.camera.name)
    check_root(config.root)
    check_classes(config.camera.classes)
    _at_least("round", config.round, 0)
    _choice("reviewer", config.reviewer, ("person", "oracle"))
    _between("oracle_error", config.oracle_error, 0, 1)
    check_seed(config.seed)
    _at_least("seed_per_class", config.seed_per_class, 1)
    _at_least("seed_unknown", config.seed_unknown, 0)
    _at_least("increment_per_class", config.increment_per_class, 1)
    _between("quantile", config.quantile, 0, 1)
    if config.rollback is not None:
        _at_least("rollback", config.rollback, -1)
    data, team, optim = config.data, config.team, config.optim
    _between("data.image_size", data.image_size, 16, 1024)
    _at_least("data.folds", data.folds, 2)
    if not data.train_folds or any(not 0 <= k < data.folds for k in data.train_folds):
        raise UserError(
            f"data.train_folds={data.train_folds}: expected some of 0 to {data.folds - 1}"
        )
    if len(set(data.train_folds)) != len(data.train_folds):
        raise UserError(f"data.train_folds={data.train_folds}: expected each fold once")
    _choice("data.augment", data.augment, ("none", "affine", "strong"))
    _choice("data.augment_later", data.augment_later, ("", "none", "affine", "strong"))
    _at_least("data.batch_size", data.batch_size, 2)
    _at_least("data.eval_batch_size", data.eval_batch_size, 1)
    _choice("team.stem", team.stem, ("standard", "small"))
    _choice("team.init", team.init, ("scratch", "previous"))
    _choice("team.vote_with", team.vote_with, ("best", "mean"))
    _choice("team.joint", team.joint, ("product", "min", "mean"))
    _at_least("optim.lr", optim.lr, 1e-8)
    _between("optim.momentum", optim.momentum, 0, 1)
    if optim.nesterov and not optim.momentum:
        raise UserError("optim.nesterov=true needs optim.momentum above 0")
    _at_least("optim.weight_decay", optim.weight_decay, 0)
    _at_least("optim.epochs", optim.epochs, 1)
    _at_least("optim.epochs_later", optim.epochs_later, 0)
    _between("optim.warmup", optim.warmup, 0, 0.5)
    _between("optim.label_smoothing", optim.label_smoothing, 0, 0.9)
    _choice("trainer.precision", config.trainer.precision, ("auto", "bf16", "fp32"))
    _at_least("trainer.threads", config.trainer.threads, 0)
    _at_least("trainer.score_batch_size", config.trainer.score_batch_size, 1)
    _choice("logger.kind", config.logger.kind, ("wandb", "csv", "none"))
    _choice("logger.mode", config.logger.mode, ("offline", "online"))


def check_seed(seed: int) -> None:
    """Raise unless the seed can seed.

    Raises:
        UserError: It is negative.
    """
    _at_least("seed", seed, 0)


def check_ingest(config: IngestConfig) -> None:
    """Raise on the first setting that cannot work.

    Raises:
        UserError: Names the setting, what was expected and what came.
    """
    check_camera_name(config.camera.name)
    check_root(config.root)
    if config.camera.classes:
        check_classes(config.camera.classes)
    _choice("source", config.source, ("crops", "video"))
    _choice("labels", config.labels, ("proposed", "person", "truth"))
    if not config.path:
        expected = {
            "crops": "a folder of images or a .parquet file",
            "video": "a video, a folder of videos, a pattern such as 'footage/*.mp4', or a stream",
        }
        raise UserError(f"path is not given: expected {expected[config.source]}")
    _at_least("fps", config.fps, 0)
    _at_least("limit", config.limit, 0)
    _choice("detector.kind", config.detector.kind, ("yolo", "torchvision"))
    _between("detector.image_size", config.detector.image_size, 32, 4096)
    _between("detector.confidence", config.detector.confidence, 0, 1)
    _at_least("detector.batch_size", config.detector.batch_size, 1)
    _at_least("crops_per_track", config.crops_per_track, 1)
    _between("cut.margin", config.cut.margin, 0, 1)
    _at_least("cut.min_size", config.cut.min_size, 4)
    _at_least("cut.min_frames", config.cut.min_frames, 1)
    _between("cut.jpeg_quality", config.cut.jpeg_quality, 1, 100)
    _at_least("workers", config.workers, 1)


def check_report(config: ReportConfig) -> None:
    """Raise on the first setting that cannot work.

    Raises:
        UserError: Names the setting, what was expected and what came.
    """
    _choice("format", config.format, ("table", "json", "html"))
    _between("samples", config.samples, 0, MOST_SAMPLES)
    if config.format != "html" and config.cameras:
        raise UserError(
            f"format={config.format} is about one camera, got {len(config.cameras)}: name one, add "
            "-m to have one after the other, or take format=html to=FILE, a page of all"
        )
    if config.format == "html" and not config.to:
        raise UserError("to is not given: expected the file to write, such as to=report.html")
    if config.format == "html" and Path(config.to).suffix.lower() not in (".html", ".htm"):
        # What else lies there would be replaced.
        raise UserError(f"to={config.to}: expected a file whose name ends in .html")
    if config.format != "html" and config.to:
        raise UserError(f"to={config.to}: only format=html writes there")


def check_dashboard(config: DashboardConfig) -> None:
    """Raise on the first setting that cannot work.

    Raises:
        UserError: Names the setting, what was expected and what came.
    """
    if not config.cameras:
        raise UserError("cameras=[]: expected names or patterns, such as 'cameras=[S10-*]'")


def is_reviewer(name: str) -> bool:
    """Whether a person may be called so: ``oracle`` is the simulated reviewer."""
    return _REVIEWER.fullmatch(name) is not None and name != "oracle"


def check_review(config: ReviewConfig) -> None:
    """Raise on the first setting that cannot work.

    Raises:
        UserError: Names the setting, what was expected and what came.
    """
    check_camera_name(config.camera.name)
    check_root(config.root)
    check_seed(config.seed)
    _choice("queue", config.queue, ("seed", "test", "audit", "unsure", "conflict"))
    if config.reviewer and not is_reviewer(config.reviewer):
        raise UserError(
            f"reviewer={config.reviewer!r}: expected up to 64 letters, digits, '_', '.', '@', '+' "
            "or '-', and not 'oracle', which is the simulated reviewer"
        )
    for name in ("seed_per_class", "seed_unknown"):
        if (asked := getattr(config, name)) is not None:
            _at_least(name, asked, 1 if name == "seed_per_class" else 0)
    _at_least("test_per_class", config.test_per_class, 1)
    _at_least("audit_per_class", config.audit_per_class, 1)
    _between("double", config.double, 0, 1)
    _between("port", config.port, 0, 65535)
    if config.url and not re.fullmatch(r"https?://[^\s/?#@]+/?", config.url):
        raise UserError(f"url={config.url}: expected http://HOST or https://HOST, without a path")
    if config.export and config.import_:
        raise UserError("export= and import= are two commands: give one of them")


def risk_of(threshold: str) -> float | None:
    """The risk in ``threshold=risk:0.05``; None for ``paper``.

    Raises:
        UserError: It is neither.
    """
    if threshold == "paper":
        return None
    kind, _, share = threshold.partition(":")
    try:
        risk = float(share)
    except ValueError:
        risk = math.nan
    if kind != "risk" or not 0 < risk < 1:
        raise UserError(
            f"threshold={threshold}: expected 'paper', or 'risk:' and a share between 0 and 1, "
            "such as risk:0.05"
        )
    return risk


def check_label(config: LabelConfig) -> None:
    """Raise on the first setting that cannot work.

    Raises:
        UserError: Names the setting, what was expected and what came.
    """
    check_camera_name(config.camera.name)
    check_root(config.root)
    check_seed(config.seed)
    if config.round is not None:
        _at_least("round", config.round, 0)
    _choice("engine", config.engine, ("torch", "openvino"))
    _choice("precision", config.precision, ("auto", "fp32", "bf16", "int8"))
    _choice("trainer.precision", config.trainer.precision, ("auto", "bf16", "fp32"))
    _at_least("check", config.check, 1)
    risk_of(config.threshold)
    _between("confidence", config.confidence, 0.5, 0.9999)
    _choice("tracks", config.tracks, ("combine", "apart"))
    _between("correlation", config.correlation, 0, 1)
    _at_least("trainer.threads", config.trainer.threads, 0)
    _at_least("trainer.score_batch_size", config.trainer.score_batch_size, 1)


def check_audit(config: AuditConfig) -> None:
    """Raise on the first setting that cannot work.

    Raises:
        UserError: Names the setting, what was expected and what came.
    """
    check_camera_name(config.camera.name)
    check_root(config.root)
    check_seed(config.seed)
    _between("precision", config.precision, 0.5, 0.9999)
    _between("confidence", config.confidence, 0.5, 0.9999)
    _between("expected_error", config.expected_error, 0, 1)
    _between("power", config.power, 0.01, 0.9999)
    _choice("reviewer", config.reviewer, ("person", "oracle"))
    _between("oracle_error", config.oracle_error, 0, 1)


def check_export(config: ExportConfig) -> None:
    """Raise on the first setting that cannot work.

    Raises:
        UserError: Names the setting, what was expected and what came.
    """
    check_camera_name(config.camera.name)
    check_root(config.root)
    check_seed(config.seed)
    if not config.to:
        raise UserError("to is not given: expected the folder to make")
    _between("min_confidence", config.min_confidence, 0, 1)
