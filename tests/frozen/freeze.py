"""Freeze the behaviour of the commands: make small cameras and write digests of the results.

    python tests/frozen/freeze.py --code CHECKOUT --out FILE.json [--parts simulated,killed,...]
    python tests/frozen/freeze.py --code CHECKOUT --camera FILE.tar.xz

It knows the command line and the files on disk, and nothing of the package's modules, so it runs
with any version of the code. ``README.md`` beside it says what is frozen and when that may change.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import io
import json
import lzma
import math
import os
import platform
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
DATA = Path(os.environ.get("COLLABTEAM_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
FORMATS = ("imagefolder", "coco", "yolo", "parquet", "csv", "labelstudio", "cvat")

# Like conftest's SMALL, but that one may change and this one may not; with enough crops for
# temperatures and thresholds, and two folds to choose the voting networks from.
SMALL = (
    "experiment=scratch",
    "reviewer=oracle",
    "team.backbone=test_resnet",
    "data.image_size=24",
    "data.train_folds=[0,1]",
    "optim.epochs=8",
    "optim.epochs_later=2",
    "seed_per_class=70",
    "seed_unknown=10",
    "increment_per_class=4",
    "quantile=0.5",
    "trainer.threads=1",
    "trainer.precision=fp32",
    "logger=none",
)
SIMULATION = ("camera=sim", "crops=900", "crops_per_track=2")
RISK = ("threshold=risk:0.5", "confidence=0.6")
# Without fp32 a processor that multiplies bf16 would score the pool in that.
FP32 = ("trainer.threads=1", "trainer.precision=fp32")

Rows = list[dict[str, Any]]


@dataclass
class Facts:
    """The facts about a part's cameras, by name.

    Attributes:
        exact: Independent of the order in which floats are added.
        trained: They follow from trained networks, and are the same only on the same processor.
        figures: Numbers that follow from trained networks, and are close on other processors.
    """

    exact: dict[str, Any] = field(default_factory=dict)
    trained: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    def digests(self) -> dict[str, Any]:
        """The content of the fixture: a digest of every fact, and the figures."""
        return {
            "exact": {name: digest(fact) for name, fact in self.exact.items()},
            "trained": {name: digest(fact) for name, fact in self.trained.items()},
            "figures": self.figures,
        }

    def whole(self) -> dict[str, Any]:
        """The facts themselves, as JSON holds them."""
        return json.loads(_json(self.__dict__))


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)


def digest(value: object) -> str:
    """Twelve hex digits that stand for a JSON-able value."""
    return hashlib.blake2b(_json(value).encode(), digest_size=6).hexdigest()


def content_hash(content: bytes) -> str:
    """The same for bytes."""
    return hashlib.blake2b(content, digest_size=6).hexdigest()


def drawing_signature() -> dict[str, str]:
    """Versions of the packages that draw and encode the pictures."""
    return {name: _version(name) for name in ("numpy", "pillow")}


def training_signature() -> dict[str, str]:
    """The processor and the packages that decide in which order floats are added."""
    import torch

    packages = ("torch", "torchvision", "timm", "lightning", "numpy", "scipy", "pillow")
    return {
        "processor": _processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        **{name: _version(name) for name in packages},
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"


def _processor() -> str:
    """Maker, family, model and caches: oneDNN and MKL choose their kernels and blocks by these."""
    wanted = ("vendor_id", "cpu family", "model", "stepping", "cache size")
    said: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, text = line.partition(":")
            said.setdefault(name.strip(), text.strip())
    parts = [said[name] for name in wanted if name in said]
    caches = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"))
    with contextlib.suppress(OSError):
        parts += [file.read_text(encoding="utf-8").strip() for file in caches]
    flags = hashlib.blake2b(" ".join(sorted(said.get("flags", "").split())).encode(), digest_size=4)
    return " ".join([platform.machine(), *parts, flags.hexdigest()])


# -- commands --------------------------------------------------------------------------------------


class Broken(Exception):
    """A command failed, or did not do what it is expected to do."""


@dataclass
class Code:
    """A checkout, whose commands are run beside a folder of cameras.

    Attributes:
        checkout: The repository.
        work: An empty folder; commands run in it, so that no path of this machine is printed.
        root: The folder of all cameras, relative to ``work``, or an object store.
        extra: Further environment.
    """

    checkout: Path
    work: Path
    root: str = "outputs"
    extra: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.checkout, self.work = self.checkout.resolve(), self.work.resolve()

    def folder(self, camera: str) -> Path:
        return self.work / self.root / camera

    def environment(self) -> dict[str, str]:
        clean = {name: text for name, text in os.environ.items() if not name.startswith("WANDB_")}
        clean.pop("GITHUB_ACTIONS", None)
        return clean | {
            "PYTHONPATH": str(self.checkout), "OMP_NUM_THREADS": "1", "COLUMNS": "120",
        } | self.extra  # fmt: skip

    def words(self, name: str, *settings: str) -> list[str]:
        recipe = "experiment=scratch"  # which d13fd55 calls quick
        if not (self.checkout / "conf" / "experiment" / "scratch.yaml").exists():
            settings = tuple("experiment=quick" if one == recipe else one for one in settings)
        return [sys.executable, "-m", f"collabteam.{name}", f"root={self.root}", *settings]

    def run(self, name: str, *settings: str) -> str:
        """Run a command to its end; returns what it wrote to standard output."""
        # An audit that certifies nothing, or a part, ends with 1.
        return self._run(self.words(name, *settings), (0, 1) if name == "audit" else (0,))

    def run_with_colours(self, name: str, *settings: str) -> str:
        """The same with the detector of ``colours.py``."""
        return self._run(
            [sys.executable, str(HERE / "colours.py"), name, f"root={self.root}", *settings]
        )

    def _run(self, words: Sequence[str], fine: Sequence[int] = (0,)) -> str:
        done = self.finish(words)
        if done.returncode not in fine:
            raise Broken(f"{' '.join(words[1:])}: exit code {done.returncode}\n{done.stderr}")
        return done.stdout

    def finish(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command line to its end, in a process of its own."""
        return subprocess.run(
            words, cwd=self.work, env=self.environment(), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip

    def kill_at(self, file: Path, name: str, *settings: str) -> None:
        """Run a command and kill it as soon as a file is there.

        Raises:
            Broken: The command ended first.
        """
        process = subprocess.Popen(
            self.words(name, *settings), cwd=self.work, env=self.environment(),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while not file.exists():
            if process.poll() is not None:
                raise Broken(
                    f"{name} ended with {process.returncode} before {file.name} appeared, where "
                    "it was to be killed"
                )
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            raise Broken(f"{name} had ended when it was to be killed, after {file.name}")


# -- facts about a camera --------------------------------------------------------------------------


@dataclass
class Camera:
    """A camera's files.

    Attributes:
        folder: Holds everything but the tables.
        tables: Folder or address of the tables; empty for ``folder``.
        options: How to reach the store, if ``tables`` is an address.
    """

    folder: Path
    tables: str = ""
    options: dict[str, str] | None = None

    def rows(self, table: str, columns: Sequence[str]) -> Rows:
        """A table's rows in their order."""
        import lance

        where = f"{self.tables or self.folder}/{table}.lance"
        found = lance.dataset(where, storage_options=self.options)
        return found.to_table(list(columns)).to_pylist()

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def rounds(self) -> list[dict[str, Any]]:
        count = len(list(self.folder.glob("round-*/round.json")))
        return [self.json(f"round-{number}/round.json") for number in range(count)]

    def teams(self) -> dict[str, str]:
        """A name for every fingerprint, since a setting that is added later changes these."""
        called = {said["fingerprint"]: f"team {said['round']}" for said in self.rounds()}
        for file in sorted(self.folder.glob("rolled-back/*/round.json")):
            said = json.loads(file.read_text(encoding="utf-8"))
            called.setdefault(said["fingerprint"], f"rolled-back {file.parent.name}")
        return called

    def log(self) -> list[list[Any]]:
        """The log in its order without times; names that are drawn are numbered."""
        columns = ("crop_id", "label", "source", "purpose", "round", "confidence", "by", "commit")
        teams, numbers = self.teams(), {}
        events = []
        for row in self.rows("labels", columns):
            undone, name = re.fullmatch(r"(undo:)?(.*)", row["commit"]).groups()
            if name:
                kind = "label" if name.startswith("label-") else "commit"
                name = numbers.setdefault(name, f"{kind} {len(numbers)}")
            by = row["by"]
            if row["source"] == "team":
                by = teams.get(by) or numbers.setdefault(by, f"lost team {len(numbers)}")
            events.append(
                [
                    row["crop_id"], row["label"], row["source"], row["purpose"], row["round"],
                    _rounded(row["confidence"]), by, (undone or "") + name,
                ]
            )  # fmt: skip
        return events


def _rounded(value: Any) -> Any:
    """The same with four digits behind the point, and nothing that JSON cannot hold."""
    if isinstance(value, dict):
        return {str(name): _rounded(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(one) for one in value]
    if isinstance(value, float):
        return round(value, 4) + 0.0 if math.isfinite(value) else str(value)
    return value


def crops_facts(camera: Camera, facts: Facts) -> None:
    """Add the crops as they were ingested, which are the same on every machine."""
    columns = ("crop_id", "video", "track", "frame", "time", "box")
    facts.exact["crops"] = [_rounded([*row.values()]) for row in camera.rows("crops", columns)]
    if (camera.folder / "truth.lance").exists() or camera.tables:
        truth = camera.rows("truth", ("crop_id", "label"))
        facts.exact["truth"] = sorted([*row.values()] for row in truth)
    facts.exact["proposals"] = [
        said for said in camera.log() if said[2] in ("detector", "ingest")
    ]  # fmt: skip


_ROUND = (
    "classes", "train_size", "train_counts", "train_unsure", "training_digest", "reviewer",
    "expected_precision", "increment", "voting", "pool_size", "coverage", "abstain_rate",
    "test_size", "coverage_test", "consensus_accuracy_test", "recall", "label_noise", "unknown",
)  # fmt: skip


def training_facts(camera: Camera, facts: Facts) -> None:
    """Add i0, every round, the increments and the log."""
    facts.exact["i0"] = camera.json("round-0/sample.json")["crops"]
    facts.exact["i0 answers"] = [said for said in camera.log() if said[3] in ("seed", "test")]
    facts.exact["folds 0"] = camera.json("round-0/folds.json")
    for said in camera.rounds():
        number = said["round"]
        facts.trained[f"round {number}"] = _rounded({name: said.get(name) for name in _ROUND})
        if number:
            facts.trained[f"folds {number}"] = camera.json(f"round-{number}/folds.json")
        facts.figures |= {
            f"round {number} {name}": value
            for name, value in _round_figures(said).items()
        }  # fmt: skip
    drawn: dict[str, dict[str, list[str]]] = {}
    for crop, label, _, purpose, number, *_ in camera.log():
        if purpose == "increment" and label:
            drawn.setdefault(f"increment {number}", {}).setdefault(label, []).append(crop)
    facts.trained |= drawn
    facts.trained["log"] = camera.log()


def _round_figures(said: dict[str, Any]) -> dict[str, float]:
    """Those that are steady: of a class alone a network that learned otherwise may miss half."""
    test = _rounded(said["recall"]["test"])
    figures = {
        "train_size": said["train_size"],
        "coverage": said["coverage"],
        "consensus_accuracy_test": said["consensus_accuracy_test"],
        "recall": statistics.fmean(value for sides in test.values() for value in sides.values()),
    }
    return {name: round(value, 4) for name, value in figures.items()}


_LABELLED = (
    "round", "pool", "labelled", "abstained", "conflicts", "coverage", "temperatures",
    "thresholds", "test", "samples", "measured",
)  # fmt: skip
_LABEL_SETTINGS = ("threshold", "confidence", "tracks", "correlation", "calibrate")


def label_facts(camera: Camera, since: int, name: str, facts: Facts) -> None:
    """Add the last labelling: its verdicts (the log from event ``since`` on) and its record."""
    said = camera.json("label.json")
    settings = {one: said["settings"][one] for one in _LABEL_SETTINGS}
    record = {one: said.get(one) for one in _LABELLED} | {"settings": settings}
    facts.trained[f"verdicts {name}"] = [event[:6] for event in camera.log()[since:]]
    facts.trained[f"label.json {name}"] = _rounded(record)
    facts.figures[f"label {name} abstained"] = round(said["abstained"] / said["pool"], 4)


_AUDIT = ("audit", "classes")
_CERTIFICATE = ("audit", "reviewers", "simulated", "answers_hash", "classes", "passed")
_AUDIT_SETTINGS = (
    "precision", "confidence", "expected_error", "power", "reviewer", "oracle_error", "seed",
)  # fmt: skip


def audit_facts(camera: Camera, number: int, facts: Facts) -> None:
    """Add an audit: its release, its sample and its certificate without the prose."""
    import pyarrow.parquet as pq

    teams = camera.teams()
    for file, names in (("audit.json", _AUDIT), ("certificate.json", _CERTIFICATE)):
        said = camera.json(f"audits/{number}/{file}")
        record = {one: said[one] for one in names}
        record["settings"] = {one: said["settings"][one] for one in _AUDIT_SETTINGS}
        record["release"] = {one: said["release"][one] for one in ("crops", "by_class")}
        record["teams"] = [
            [teams.get(team["fingerprint"], "lost"), team["round"], team["crops"]]
            for team in said["teams"]
        ]
        facts.trained[f"{file} {number}"] = _rounded(record)
    table = pq.read_table(camera.folder / "audits" / str(number) / "release.parquet")
    kept = [name for name in table.column_names if name not in ("team", "run", "by", "commit")]
    facts.trained[f"release {number}"] = _rounded(
        [[*row.values()] for row in table.select(kept).to_pylist()]
    )


# -- exported files --------------------------------------------------------------------------------

_LONG_NUMBER = re.compile(r"(?<![\w.])\d+\.\d{5,}(?:e[-+]?\d+)?|\d\.?\d*e-\d+")


def _normal(text: str, teams: dict[str, str]) -> str:
    """Without fingerprints, and with four digits behind the point."""
    for fingerprint, called in teams.items():
        text = text.replace(fingerprint, called)
    return _LONG_NUMBER.sub(lambda match: str(round(float(match[0]), 4)), text)


def _parquet(content: bytes, teams: dict[str, str]) -> Any:
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(content))
    kept = table.schema.metadata or {}
    about = {name: kept.get(name.encode(), b"").decode() for name in ("camera", "classes")}
    columns = [[column.name, str(column.type)] for column in table.schema]
    rows = []
    for row in table.to_pylist():
        picture = row.pop("image")
        row["image"] = content_hash(picture)
        row["team"] = teams.get(row["team"], row["team"])
        rows.append(_rounded(row))
    return [about, columns, rows]


def export_facts(folder: Path, teams: dict[str, str]) -> dict[str, Any]:
    """Every file of a dataset; pictures are counted and hashed together."""
    found: dict[str, Any] = {}
    pictures: list[tuple[str, str]] = []

    def add(name: str, content: bytes) -> None:
        if name.endswith((".jpg", ".png")):
            pictures.append((name, content_hash(content)))
        elif name.endswith(".parquet"):
            found[name] = _parquet(content, teams)
        elif name.endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for entry in archive.namelist():
                    add(f"{name}/{entry}", archive.read(entry))
        elif name == "README.md":
            # Its tables; the prose is free.
            lines = content.decode().splitlines()
            found[name] = [line for line in lines if line.startswith("|")]
        else:
            found[name] = content_hash(_normal(content.decode(), teams).encode())

    for path in sorted(folder.rglob("*")):
        if path.is_file():
            add(path.relative_to(folder).as_posix(), path.read_bytes())
        elif not any(path.iterdir()):
            found[path.relative_to(folder).as_posix() + "/"] = "empty"
    found["pictures"] = [len(pictures), digest(sorted(pictures))]
    return found


def export_all(
    code: Code, camera: Camera, facts: Facts, formats: Iterable[str] = FORMATS, *settings: str
) -> None:
    """Export in these formats; the facts go to ``trained``, for labels follow from networks."""
    for format in formats:
        to = f"datasets/{'-'.join([format, *settings]).replace('=', '-')}"
        code.run(
            "export", f"camera={camera.folder.name}", f"format={format}", f"to={to}", *settings
        )
        facts.trained[" ".join(["export", format, *settings])] = export_facts(
            code.work / to, camera.teams()
        )


def report_facts(code: Code, camera: Camera, facts: Facts) -> None:
    """Add the report in all its formats."""
    name = f"camera={camera.folder.name}"
    code.run("report", name)
    teams = camera.teams()
    for file in sorted(camera.folder.glob("*.csv")):
        rows = list(csv.reader(io.StringIO(_normal(file.read_text(encoding="utf-8"), teams))))
        facts.trained[f"report {file.name}"] = rows
    said = json.loads(code.run("report", name, "format=json"))
    facts.trained["report table 1"] = _rounded(said["table1"])
    facts.trained["report rounds"] = [
        _rounded({one: number.get(one) for one in _ROUND}) for number in said["rounds"]
    ]
    facts.trained["report stretches"] = _rounded(said["stretches"])
    code.run("report", name, "format=html", "to=report.html")
    page = (code.work / "report.html").read_text(encoding="utf-8")
    if camera.folder.name not in page:
        raise Broken("report.html does not name the camera")


# -- the parts -------------------------------------------------------------------------------------


def simulated(code: Code) -> Facts:
    """A simulated camera: rounds 0 to 2, labels by both rules, audit, exports, report."""
    facts, camera = train_simulated(code), Camera(code.folder("sim"))
    since = len(facts.trained["log"])
    code.run("label", "camera=sim", *FP32)
    label_facts(camera, since, "paper", facts)
    export_all(code, camera, facts)
    code.run("audit", "camera=sim", "reviewer=oracle", "precision=0.5")
    audit_facts(camera, 1, facts)
    if any(one["passed"] for one in camera.json("audits/1/certificate.json")["classes"].values()):
        export_all(code, camera, facts, ["parquet"], "certified=true")
    since = len(camera.log())
    code.run("label", "camera=sim", *RISK, *FP32)
    label_facts(camera, since, "risk", facts)
    report_facts(code, camera, facts)
    return facts


def train_simulated(code: Code, kill: bool = False) -> Facts:
    """Rounds 0 to 2 of a simulated camera.

    Args:
        code: Whose commands.
        kill: Whether the command is killed, twice, and run again.
    """
    code.run("simulate", *SIMULATION)
    words = ("train", "camera=sim", "round=2", *SMALL)
    folder = code.folder("sim")
    if kill:
        code.kill_at(folder / "round-0" / "fold-0.npz", *words)
        code.kill_at(folder / "round-1" / "increment.json", *words)
    code.run(*words)
    facts = Facts()
    crops_facts(Camera(folder), facts)
    training_facts(Camera(folder), facts)
    return facts


def killed(code: Code) -> Facts:
    """The same rounds by a command that is killed twice and run again."""
    return train_simulated(code, kill=True)


_COLOURS = {"person": (220, 30, 30), "bicycle": (30, 200, 30), "motorcycle": (40, 40, 230)}
_WIDTH, _HEIGHT, _FRAMES = 320, 240, 40
# Kind, box in frame 0, pixels a frame; who is drawn last stands in front.
_STREET = (
    ("bicycle", (10, 105, 70, 150), 4), ("person", (25, 60, 55, 130), 4),
    ("person", (280, 150, 306, 220), -3),
    ("motorcycle", (200, 70, 260, 115), -4), ("person", (215, 25, 245, 95), -4),
    ("bicycle", (120, 180, 180, 225), 0),
)  # fmt: skip


def draw_footage(to: Path) -> None:
    """A clip of riders, a walker and a parked bicycle, compressed without loss."""
    import av
    import numpy as np

    with av.open(str(to), "w") as container:
        stream = container.add_stream("png", rate=10)
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "rgb24"
        for number in range(_FRAMES):
            picture = np.full((_HEIGHT, _WIDTH, 3), 120, np.uint8)
            for kind, (left, top, right, bottom), step in _STREET:
                x = slice(max(left + step * number, 0), max(right + step * number, 0))
                picture[top:bottom, x] = _COLOURS[kind]
                # Stripes make it sharp.
                picture[top + 4 : bottom - 2 : 8, x] = [int(c * 0.75) for c in _COLOURS[kind]]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def footage(code: Code) -> Facts:
    """Footage drawn in code, followed and cut by ``ingest source=video``."""
    import torch

    draw_footage(code.work / "gate_20260102_030405.avi")
    torch.save({}, code.work / "colours.pth")
    code.run_with_colours(
        "ingest", "camera=gate", "source=video", "path=gate_20260102_030405.avi",
        "camera.footage.start=gate_%Y%m%d_%H%M%S", "camera.footage.timezone=Europe/Madrid",
        "detector.kind=torchvision", "detector.model=ssd300_vgg16",
        "detector.weights=colours.pth", "tracker=sort", "keep_unknown=[bicycle]",
        "cut.min_size=20",
    )  # fmt: skip
    facts = Facts()
    camera = Camera(code.folder("gate"))
    # Boxes go through a Kalman filter and the bytes of a crop through a JPEG encoder: exact on
    # every machine that this was tried on, with the same versions of the packages that draw.
    crops_facts(camera, facts)
    said = [json.loads(file.read_text()) for file in camera.folder.glob("videos/*.json")]
    facts.exact["videos"] = _rounded(
        [
            {one: video[one] for one in ("frames", "objects", "crops", "detections")}
            for video in said
        ]
    )
    return facts


def street(code: Code) -> Facts:
    """Real crops: rounds 0 and 1, and labels. Needs the development data."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = random.Random(13)
    rows: dict[str, list[Any]] = {name: [] for name in ("image", "label", "track", "split")}
    for name, count in (("cyclist", 110), ("motorcyclist", 110), ("pedestrian", 110),
                        ("unknown", 40)):  # fmt: skip
        files = sorted((DATA / "crops" / "street" / name).glob("*.jpg"))
        for place, file in enumerate(rng.sample(files, count)):
            rows["image"].append(file.read_bytes())
            rows["label"].append(name)
            rows["track"].append(file.stem)
            rows["split"].append("test" if place % 5 == 0 else "")
    pq.write_table(pa.table(rows), code.work / "street.parquet")
    classes = "camera.classes=[cyclist,motorcyclist,pedestrian]"
    for labels in ("proposed", "truth"):
        code.run("ingest", "camera=street", "path=street.parquet", f"labels={labels}", classes)
    code.run("train", "camera=street", "round=1", *SMALL)
    camera, facts = Camera(code.folder("street")), Facts()
    crops_facts(camera, facts)
    training_facts(camera, facts)
    since = len(facts.trained["log"])
    code.run("label", "camera=street", *FP32)
    label_facts(camera, since, "paper", facts)
    return facts


@contextlib.contextmanager
def object_store(work: Path) -> Iterator[dict[str, str]]:
    """A server on loopback with a bucket ``cameras``; gives the environment that leads there."""
    process = subprocess.Popen(
        [sys.executable, str(HERE.parent / "s3_server.py")],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        request = urllib.request.Request(f"{url}/cameras", method="PUT")
        with urllib.request.urlopen(request, timeout=30):
            yield {
                "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "key", "AWS_REGION": "us-east-1",
                "AWS_SECRET_ACCESS_KEY": "secret", "XDG_CACHE_HOME": str(work / "cache"),
                "AWS_ALLOW_HTTP": "true",
            }  # fmt: skip
    finally:
        process.kill()
        process.wait()


def store(code: Code) -> Facts:
    """A camera in an object store: rounds 0 and 1, labels, an export."""
    import obstore
    from obstore.store import S3Store

    with object_store(code.work) as way:
        code.root, code.extra = "s3://cameras/frozen", way
        code.run("simulate", *SIMULATION)
        code.run("train", "camera=sim", "round=1", *SMALL)
        code.run("label", "camera=sim", *FP32)
        code.run("export", "camera=sim", "format=parquet", "to=dataset")
        bucket = S3Store(
            "cameras", endpoint=way["AWS_ENDPOINT_URL"], access_key_id="key", region="us-east-1",
            secret_access_key="secret", client_options={"allow_http": True},
        )  # fmt: skip
        # The store is compared, not this machine's copy of it.
        fetched = code.work / "fetched"
        for part in obstore.list(bucket, "frozen/sim"):
            for found in part:
                path = found["path"]
                if ".lance/" not in path:
                    file = fetched / path
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(bytes(obstore.get(bucket, path).bytes()))
        options = {name.lower(): text for name, text in way.items() if name.startswith("AWS_")}
        options["aws_endpoint"] = way["AWS_ENDPOINT_URL"]
        camera = Camera(fetched / "frozen" / "sim", "s3://cameras/frozen/sim", options)
        facts = Facts()
        crops_facts(camera, facts)
        training_facts(camera, facts)
        verdicts = sum(said[3] == "verdict" for said in facts.trained["log"])
        label_facts(camera, len(facts.trained["log"]) - verdicts, "paper", facts)
        facts.trained["export parquet"] = export_facts(code.work / "dataset", camera.teams())
    return facts


def old(code: Code, archive: Path = HERE / "camera.tar.xz") -> Facts:
    """The camera that an earlier version made: what every later version still does with it."""
    root = code.work / code.root
    with tarfile.open(archive) as content:
        content.extractall(root, filter="data")
    camera, facts = Camera(code.folder("old")), Facts()
    # Scores are on disk, so nothing here depends on the processor until it trains on.
    stored = Facts()
    crops_facts(camera, facts)
    training_facts(camera, stored)
    code.run("audit", "camera=old", "reviewer=oracle", "precision=0.8")
    audit_facts(camera, 1, stored)
    export_all(code, camera, stored)
    export_all(code, camera, stored, ["parquet"], "certified=true")
    export_all(code, camera, stored, ["csv"], "unknown=true", "min_confidence=0.5")
    report_facts(code, camera, stored)
    for queue in ("unsure", "conflict"):
        tasks = ("review", "camera=old", f"queue={queue}", "reviewer=eve", "format=csv")
        code.run(*tasks, f"export={queue}.csv")
        text = (code.work / f"{queue}.csv").read_text(encoding="utf-8")
        stored.trained[f"queue {queue}"] = _normal(text, camera.teams())
    for name, settings in (
        ("paper", FP32),
        ("paper as trained", ("trainer.threads=1",)),
        ("risk", (*RISK, "tracks=apart", *FP32)),
    ):
        since = len(camera.log())
        code.run("label", "camera=old", *settings)
        label_facts(camera, since, name, stored)
    # A confidence of 0.259750 has another fourth digit on another processor.
    stored.trained["log"] = [
        [round(one, 3) if isinstance(one, float) else one for one in event]
        for event in camera.log()
    ]
    facts.exact |= stored.exact | stored.trained
    return facts


def old_rescored(code: Code) -> float:
    """Share of the old camera's crops of which its networks still say what they said.

    Called after :func:`old`, on the same camera.
    """
    folder = code.folder("old") / "round-1" / "scores-torch-fp32"
    before = _probabilities(folder)
    shutil.rmtree(folder)
    code.run("label", "camera=old", "round=1", *FP32)
    after = _probabilities(folder)
    near = sum(
        all(abs(one - other) < 1e-3 for one, other in zip(before[crop], said, strict=True))
        for crop, said in after.items()
    )
    return near / len(after)


def _probabilities(folder: Path) -> dict[str, tuple[float, ...]]:
    import pyarrow.parquet as pq

    found: dict[str, tuple[float, ...]] = {}
    for file in sorted(folder.glob("part-*.parquet")):
        for row in pq.read_table(file).to_pylist():
            found[row["crop_id"]] = tuple(one for one in row.values() if isinstance(one, float))
    return found


def old_trained_on(code: Code) -> Facts:
    """The old camera's next round, with its own settings. Called after :func:`old`."""
    code.run("train", "camera=old", "round=2", *OLD)
    camera, facts = Camera(code.folder("old")), Facts()
    training_facts(camera, facts)
    facts.exact.clear()
    return facts


PARTS: dict[str, Callable[[Code], Facts]] = {
    "simulated": simulated,
    "killed": killed,
    "footage": footage,
    "street": street,
    "store": store,
    "old": old,
}


# -- the old camera --------------------------------------------------------------------------------

OLD = (
    "experiment=scratch",
    "reviewer=oracle",
    "team.backbone=test_efficientnet",
    "team.attention=none",
    "data.image_size=24",
    "data.augment_later=affine",
    "data.batch_size=16",
    "data.folds=2",
    "optim.epochs=24",
    "optim.epochs_later=8",
    "seed_per_class=22",
    "seed_unknown=6",
    "increment_per_class=5",
    "quantile=0.5",
    "trainer.threads=1",
    "trainer.precision=fp32",
    "logger=none",
)
_SHAPES = ("pedestrian", "cyclist", "motorcyclist", "unknown")


def draw_crops(to: Path, objects: int = 110) -> None:
    """A Parquet file of small pictograms, two pictures an object, with proposals and truths."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image, ImageDraw

    rng = random.Random(5)
    rows: dict[str, list[Any]] = {
        name: [] for name in ("image", "label", "track", "video", "time", "split", "truth")
    }
    for number in range(objects):
        truth = rng.choices(_SHAPES, (4, 4, 4, 1))[0]
        proposed = truth if rng.random() > 0.1 else rng.choice(_SHAPES)
        for step in range(2):
            picture = Image.new("P", (24, 24))
            picture.putpalette([rng.randrange(90, 160) if i < 3 else rng.randrange(256)
                                for i in range(12)])  # fmt: skip
            draw, x, y = ImageDraw.Draw(picture), rng.randrange(-3, 4), rng.randrange(-2, 3)
            if truth == "pedestrian":
                draw.rectangle((9 + x, 8 + y, 14 + x, 21 + y), fill=1)
                draw.ellipse((9 + x, 2 + y, 14 + x, 7 + y), fill=2)
            elif truth == "cyclist":
                draw.ellipse((1 + x, 13 + y, 9 + x, 21 + y), outline=1)
                draw.ellipse((14 + x, 13 + y, 22 + x, 21 + y), outline=1)
                draw.line((5 + x, 17 + y, 12 + x, 5 + y, 18 + x, 17 + y), fill=2)
            elif truth == "motorcyclist":
                draw.polygon((1 + x, 20 + y, 22 + x, 20 + y, 12 + x, 9 + y), fill=1)
                draw.ellipse((9 + x, 3 + y, 15 + x, 9 + y), fill=2)
            else:
                draw.rectangle((2 + x, 5 + y, 21 + x, 19 + y), fill=rng.randrange(1, 4))
            draw.point([(rng.randrange(24), rng.randrange(24)) for _ in range(12)], fill=3)
            buffer = io.BytesIO()
            picture.save(buffer, "PNG", optimize=True)
            rows["image"].append(buffer.getvalue())
            rows["label"].append(proposed)
            rows["truth"].append(truth)
            rows["track"].append(f"object-{number}")
            rows["video"].append(f"gate-{number // 50}")
            rows["time"].append(1_700_000_000.0 + 120 * number + step)
            rows["split"].append("test" if number % 6 == 0 else "")
    truths = rows.pop("truth")
    pq.write_table(pa.table(rows), to.with_name("proposed.parquet"))
    pq.write_table(pa.table(rows | {"label": truths}), to.with_name("truth.parquet"))


class Reviewer:
    """A reviewer who sends the requests of d13fd55's review page."""

    def __init__(self, code: Code, queue: str, name: str, *settings: str) -> None:
        words = code.words(
            "review", "camera=old", "open=false", "port=0", f"reviewer={name}", f"queue={queue}",
            *settings,
        )  # fmt: skip
        self.process = subprocess.Popen(
            words, cwd=code.work, env=code.environment(), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        found = None
        while found is None:
            line = self.process.stdout.readline()
            if not line:
                raise Broken(self.process.stderr.read())
            found = re.search(r"http://127\.0\.0\.1:\d+/enter\?\S+", line)
        self.base, _, _ = found[0].partition("/enter")
        self.queue = queue
        self.open = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        self.open.open(found[0], timeout=30).read()

    def call(self, name: str, **body: object) -> Any:
        content = json.dumps({"tab": "tab", "queue": self.queue} | body).encode()
        request = urllib.request.Request(
            f"{self.base}/api/{name}", content, {"Content-Type": "application/json"}
        )
        with self.open.open(request, timeout=30) as answer:
            return json.loads(answer.read())

    def answer(self, size: int, say: Callable[[str], str], commit: str) -> None:
        """Answer a page."""
        page = self.call("page", size=size)
        answers = {crop["id"]: say(crop["id"]) for crop in page["crops"]}
        if not answers:
            raise Broken(f"the queue {self.queue} is empty")
        self.call("commit", commit=commit, page=page["page"], answers=answers)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=60)


def make_old(code: Code, archive: Path) -> None:
    """Make the camera ``old`` and pack it; meant for the code of d13fd55 alone."""
    draw_crops(code.work / "crops.parquet")
    for labels in ("proposed", "truth"):
        code.run("ingest", "camera=old", f"path={labels}.parquet", f"labels={labels}")
    camera = Camera(code.folder("old"))
    truth = {row["crop_id"]: row["label"] for row in camera.rows("truth", ("crop_id", "label"))}

    # Two persons verify a part of i0; one takes a page back, and they differ on one crop.
    seeds = ("seed_per_class=22", "seed_unknown=6", "double=1")
    ana = Reviewer(code, "seed", "ana", *seeds)
    ana.answer(6, truth.__getitem__, "11111111-aaaa-4000-8000-000000000001")
    ana.answer(5, lambda crop: "unusable", "11111111-aaaa-4000-8000-000000000002")
    ana.call("undo", commit="11111111-aaaa-4000-8000-000000000002")
    ana.stop()
    ben = Reviewer(code, "seed", "ben", *seeds)
    other = iter([True, True])
    ben.answer(
        9, lambda crop: "unknown" if next(other, False) else truth[crop],
        "22222222-aaaa-4000-8000-000000000001",
    )  # fmt: skip
    ben.stop()
    eve = Reviewer(code, "conflict", "eve")
    eve.answer(1, truth.__getitem__, "33333333-aaaa-4000-8000-000000000000")
    eve.stop()
    fewer = [one.replace("per_class=5", "per_class=3") for one in OLD]
    code.run("train", "camera=old", "round=1", *fewer)
    code.run("train", "camera=old", "round=1", "rollback=0", *OLD)
    eve = Reviewer(code, "unsure", "eve")
    eve.answer(4, truth.__getitem__, "33333333-aaaa-4000-8000-000000000001")
    eve.answer(3, truth.__getitem__, "33333333-aaaa-4000-8000-000000000002")
    eve.call("undo", commit="33333333-aaaa-4000-8000-000000000002")
    eve.stop()
    for file in sorted(camera.folder.rglob("*.safetensors")):
        _coarsen(file, 1 if "rolled-back" in file.parts else 4)
    # So a processor that multiplies bf16 finds its arithmetic checked, and uses the stored scores.
    code.run("label", "camera=old", "trainer.threads=1", "check=1")
    if not (camera.folder / "round-1" / "scores-check.json").exists():
        raise Broken("the old camera has to be made on a processor that multiplies bf16")
    code.run("label", "camera=old", *FP32)
    code.run("audit", "camera=old", "reviewer=oracle", "precision=0.8")

    def packed(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        name = Path(info.name).name
        # Locks and sessions name this machine; pictures of curves are made from the rest.
        if name in ("lock", "labels.lock", "review") or name.endswith(".png"):
            return None
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        return info

    # Most of it is numbers of four bytes.
    fours = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "lp": 2, "pb": 2}]
    with (
        lzma.open(archive, "w", filters=fours) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as content,
    ):
        content.add(camera.folder, "old", filter=packed)


def _coarsen(file: Path, levels: int) -> None:
    """Round the weights of convolutions to few levels, and others to 16 bits: so it packs well."""
    import numpy as np
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(file, "numpy") as content:
        about = content.metadata()
        weights = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    high = np.uint32(0xFFFF0000)
    for name, weight in weights.items():
        if weight.ndim == 4:
            step = np.float32(3 * weight.std() / levels)
            weights[name] = (weight / step).round().clip(-levels, levels) * step
        elif weight.ndim and weight.dtype == np.float32:
            weights[name] = (weight.view(np.uint32) & high).view(np.float32)
    save_file(weights, file, about)


# -- the command -----------------------------------------------------------------------------------


def first_difference(frozen: Any, found: Any, where: str = "") -> str:
    """Where two facts differ first, and by what; ``""`` if they are equal."""
    if isinstance(frozen, dict) and isinstance(found, dict):
        names = [*frozen, *(name for name in found if name not in frozen)]
        pairs = [(name, frozen.get(name, "-"), found.get(name, "-")) for name in names]
    elif isinstance(frozen, list) and isinstance(found, list) and len(frozen) == len(found):
        pairs = [(str(place), *pair) for place, pair in enumerate(zip(frozen, found, strict=True))]
    elif frozen == found:
        return ""
    else:
        said = (f"{len(one)} rows" if isinstance(one, list) else one for one in (frozen, found))
        return "{}: {} was frozen, {} is found".format(where, *(str(one)[:200] for one in said))
    for name, one, other in pairs:
        if difference := first_difference(one, other, f"{where} > {name}" if where else name):
            return difference
    return ""


def freeze(code: Path, parts: Sequence[str]) -> dict[str, Facts]:
    """Run parts with the code of a checkout."""
    found: dict[str, Facts] = {}
    for name in parts:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as work:
            one = Code(code, Path(work))
            found[name] = PARTS[name](one)
            if name == "old":
                found["old trained on"] = old_trained_on(one)
        print(f"{name}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
    return found


def main() -> int:
    """Run it from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--code", type=Path, required=True, help="a checkout of the repository")
    parser.add_argument("--out", type=Path, help="where the digests go")
    parser.add_argument("--parts", default=",".join(PARTS), help="default: %(default)s")
    parser.add_argument("--whole", type=Path, help="where the facts behind the digests go")
    parser.add_argument("--against", type=Path, help="a file of --whole to compare with")
    parser.add_argument("--camera", type=Path, help="make the old camera, as this archive")
    asked = parser.parse_args()
    if asked.camera:
        with tempfile.TemporaryDirectory() as work:
            make_old(Code(asked.code, Path(work)), asked.camera)
        return 0
    parts = asked.parts.split(",")
    if "street" in parts and not (DATA / "crops" / "street").is_dir():
        print(f"street: left out, {DATA} is absent", file=sys.stderr)
        parts.remove("street")
    found = freeze(asked.code, parts)
    whole = {name: facts.whole() for name, facts in found.items()}
    if asked.whole:
        asked.whole.write_text(json.dumps(whole, sort_keys=True), encoding="utf-8")
    if asked.out:
        content = {
            "drawing": drawing_signature(),
            "training": training_signature(),
            "parts": {name: facts.digests() for name, facts in found.items()},
        }
        asked.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    equal = True
    if asked.against:
        frozen = json.loads(asked.against.read_text(encoding="utf-8"))
        for name, facts in whole.items():
            difference = first_difference(frozen[name], facts)
            equal = equal and not difference
            print(f"{name}: {'different: ' + difference if difference else 'equal'}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
