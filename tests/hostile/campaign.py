"""The hostile campaign: inputs, kills and doors, drawn from a seed.

Every attempt has a number. ``python benchmarks/hostile.py --only inputs --first 17 --count 1``
repeats one alone. Three kinds:

- *inputs*: a folder, a table, a setting, a manifest, a record or a list of answers that is wrong in
  some way, and the command that reads it. It may be taken or refused, but: no traceback and no
  fault of ours, a refusal is one line on standard error with exit code 2, no line holds a control
  character, a refused ingest leaves no new camera, and neither the camera beside it nor a file
  outside of the root changes.
- *kills*: a command in a process of its own, on a disk or in an object store, that is killed at
  random moments and run again. In the end the camera is what it is without kills. One attempt in
  four starts Python anew; the others find the libraries imported, so that more kills meet work.
- *doors*: requests to a review server by somebody without a session, from another site or with
  nonsense inside. None gets a picture or a word, and none changes the log.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import SMALL, note_environment, probabilities
from conftest import start as start_command
from reviewing import Client, Server, start, visitor
from stores import bring

from collabteam.catalog import Catalog
from collabteam.settings import UNKNOWN, UNUSABLE
from collabteam.storage.workspace import registered

CAMERA = "sim"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u202a-\u202e\u2066-\u2069]")
TEXTS = (
    "", " ", ".", "..", "a/b", "train", "test", "val", "unknown", "unusable", "nan", "NaN", "None",
    "null", "-", "=1+1", "@SUM(1)", "+1", "-1", "josé", "日本", "\u202eevil", "\x1b[2Jx", "a\nb",
    "a\rb", "x" * 300, "a,b", "{x}", "${oc.env:HOME}", "[red]x[/red]", "%s", "'", '"', "\x00",
    "con", "a b", "~", "1e9", "0", "true", "\ud800",
)  # fmt: skip
"""Labels, names and values that something or other takes for something else."""


@dataclass
class Tally:
    """What was tried of one kind, how it ended, what fell, and how often a process was killed."""

    tried: int = 0
    kills: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    fell: list[str] = field(default_factory=list)


@dataclass
class Ran:
    """A command that ended."""

    code: int
    out: str
    err: str


class Slow(Exception):
    """A command ran for longer than a minute."""


def shell(words: Sequence[str]) -> Ran:
    """Run a command in this process, which spares it the start of Python and torch."""
    from hydra.core.config_store import ConfigStore

    def give_up(number: int, frame: object) -> None:
        raise Slow

    name, *settings = words
    ConfigStore.instance().repo.pop("camera", None)
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    code: object = 0
    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            sys.argv = [f"collabteam.{name}", *settings]
            importlib.import_module(f"collabteam.{name}").main()
    except SystemExit as ended:
        code = ended.code
    finally:
        signal.alarm(0)
        sys.argv = before
    return Ran(code if isinstance(code, int) else 0, out.getvalue(), err.getvalue())


def camera_digest(root: str) -> str:
    """What a camera knows: its crops, its log and its records, without times and run names."""
    catalog = Catalog(registered(root)[CAMERA])
    keep = ("crop_id", "label", "source", "purpose", "round", "confidence")
    log = [tuple(event[name] for name in keep) for event in catalog.log().to_pylist()]
    records: list[object] = []
    catalog.workspace.refresh()
    folder = catalog.workspace.folder
    for file in sorted([*folder.glob("round-*/round.json"), *folder.glob("label.json")]):
        record = json.loads(file.read_text(encoding="utf-8"))
        for name in ("seconds", "peak_memory_mb", "finished", "run"):
            record.pop(name, None)
        records.append(record)
    text = repr((sorted(catalog.index().crop_id.tolist()), log, records))
    return hashlib.blake2b(text.encode(errors="replace")).hexdigest()


def files_digest(folder: Path) -> str:
    """The names and contents of all files."""
    every = hashlib.blake2b()
    for file in sorted(folder.rglob("*")):
        every.update(str(file.relative_to(folder)).encode(errors="surrogateescape"))
        if file.is_file() and not file.is_symlink():
            every.update(file.read_bytes())
    return every.hexdigest()


# -- inputs ----------------------------------------------------------------------------------------


def picture(rng: random.Random) -> bytes:
    """A picture of any mode and format, whole or broken."""
    mode, kind = rng.choice(
        [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "PNG"),
         ("I;16", "PNG"), ("1", "PNG"), ("LA", "PNG"), ("F", "TIFF"), ("I", "TIFF"),
         ("RGB", "WEBP"), ("RGB", "BMP"), ("L", "PPM"), ("RGB", "GIF")]
    )  # fmt: skip
    size = rng.choice([(1, 1), (24, 24), (3, 90), (40, 31)])
    image = Image.new(mode, size)
    content = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = rng.randrange(10)
    with_exif = kind in ("JPEG", "WEBP") and rng.random() < 0.5
    image.save(content, kind, **({"exif": exif} if with_exif else {}))
    made = bytearray(content.getvalue())
    if rng.random() < 0.4:
        for _ in range(rng.randrange(1, 9)):
            made[rng.randrange(len(made))] = rng.randrange(256)
    if rng.random() < 0.2:
        del made[rng.randrange(len(made)) :]
    return bytes(made)


def name_of_file(rng: random.Random) -> str:
    """A name that a file system takes."""
    text = rng.choice(TEXTS).replace("/", "_").replace("\x00", "_")
    encoded = text.encode("utf-8", "replace")[:200]
    return encoded.decode("utf-8", "ignore") if text not in ("", ".", "..") else "x"


def folder_of_crops(rng: random.Random, base: Path) -> list[str]:
    """A folder that is none of ours."""
    top = base / "crops"
    top.mkdir()
    classes = [rng.choice([name_of_file(rng), "car", "bus", "train", "val", "@eaDir", "#recycle",
                           ".Trash-1000"]) for _ in range(rng.randrange(4))]  # fmt: skip
    for name in classes:
        inside = top / name / rng.choice(["", "", "car", "deep/er"])
        with contextlib.suppress(OSError):
            inside.mkdir(parents=True, exist_ok=True)
            for number in range(rng.randrange(4)):
                (
                    inside / f"{number}{rng.choice(['.jpg', '.png', '.PNG', '.txt', ''])}"
                ).write_bytes(picture(rng))
    kind = rng.randrange(7)
    if kind == 0:
        (top / "loop").symlink_to(top)
    elif kind == 1:
        (top / "out").symlink_to("/etc")
    elif kind == 2:
        os.mkfifo(top / "pipe.jpg")
    elif kind == 3:
        (top / "one.jpg").write_bytes(picture(rng))
    elif kind == 4:
        (top / "car.jpg").mkdir(exist_ok=True)
    more = rng.choice(
        [[], ["labels=verified"], ["labels=proposed"], ["labels=truth"], ["labels=x"]]
    )
    return ["ingest", f"path={top}", *more]


def column(rng: random.Random, rows: int) -> pa.Array:
    """A column of any type and content."""
    pick: Callable[[Sequence[Any]], list[Any]] = lambda those: [  # noqa: E731
        rng.choice(those) for _ in range(rows)
    ]
    kind = rng.randrange(9)
    if kind == 0:
        return pa.array(pick([text for text in TEXTS if text != "\ud800"]))
    if kind == 1:
        return pa.array(pick(["car", "bus", None]))
    if kind == 2:
        return pa.array(pick([0, 1, -1, 2**40, 10**18, None]), pa.int64())
    if kind == 3:
        return pa.array(pick([0.5, float("nan"), float("inf"), -1e300, 1.7e9, 1.7e12, 1.7e18]))
    if kind == 4:
        return pa.array(pick(["car", "bus"])).dictionary_encode()
    if kind == 5:
        return pa.array(pick([b"\xff\xfe", b"", b"car"]), pa.binary())
    if kind == 6:
        return pa.array(pick([[1, 2, 3, 4], [], None, [-1, 0, 9, 9]]), pa.list_(pa.int64()))
    if kind == 7:
        return pa.array(pick([{"x": 1}, None]), pa.struct([("x", pa.int64())]))
    return pa.nulls(rows)


def table_of_crops(rng: random.Random, base: Path) -> list[str]:
    """A Parquet file with the right names and wrong columns."""
    rows = rng.randrange(5)
    columns: dict[str, pa.Array] = {
        "image": pa.array([picture(rng) for _ in range(rows)], pa.binary()),
        "label": pa.array([rng.choice(["car", "bus"]) for _ in range(rows)], pa.string()),
    }
    for name in ("label", "split", "time", "track", "video", "frame", "box", "name", "proposed"):
        if rng.random() < 0.35:
            columns[name] = column(rng, rows)
    if rng.random() < 0.1:
        columns["image"] = column(rng, rows)
    names, arrays = list(columns), list(columns.values())
    if rng.random() < 0.1:
        names.append(names[0])
        arrays.append(arrays[0])
    file = base / "crops.parquet"
    pq.write_table(pa.Table.from_arrays(arrays, names), file)
    if rng.random() < 0.15:
        content = bytearray(file.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        file.write_bytes(content[: rng.choice([len(content), rng.randrange(len(content))])])
    return ["ingest", f"path={file}"]


def setting(rng: random.Random, base: Path) -> list[str]:
    """A value that a setting does not take, or that Hydra reads as something else."""
    from collabteam.cli.commands import commands
    from collabteam.settings.fields import settings_of

    # Those that only read, and train up to its checks: it stops at once without a reviewer.
    name = rng.choice(
        ["ingest", "train", "label", "audit", "export", "report", "simulate", "compact"]
    )
    known = [one.typed for one in settings_of(commands()[name].schema).values()]
    known = [one for one in known if one not in ("root", "crops")]
    value = rng.choice(
        [
            *TEXTS,
            "1" * 30,
            "1e400",
            "-0",
            "[]",
            "[1,",
            "{a:1}",
            "a=b",
            "null",
            "??",
            "2147483648",
            "0x10",
            "1_000",
            "glob(*)",
            "range(3)",
            "a,b",
            "(",
            "\\",
        ]
    )
    value = value.replace("\x00", "").replace("\ud800", "")
    word = rng.choice(
        [f"{rng.choice(known)}={value}", f"+{value}=1", f"~{rng.choice(known)}", value]
    )
    stops = {"train": ["reviewer=person", "round=7"], "simulate": ["crops=3"],
             "export": [f"to={base / 'to'}"], "ingest": [f"path={base / 'nowhere'}"]}  # fmt: skip
    return [name, f"camera={CAMERA}", *stops.get(name, []), *([word] if word else [])]


def manifest(rng: random.Random, base: Path) -> list[str]:
    """A camera beside ours whose ``camera.yaml`` is none."""
    name = rng.choice(["other", "k (1)", "k,old", "josé", "a=b", "k copy"])
    folder = base / "outputs" / name
    folder.mkdir()
    deep, laughs = (
        "[" * 20_000,
        "a: &a [x,x]\n"
        + "".join(
            f"{b}: &{b} [*{a},*{a},*{a},*{a},*{a},*{a}]\n"
            for a, b in zip("abcdefgh", "bcdefghi", strict=True)
        ),
    )
    text = rng.choice(
        [deep, laughs, "", "name: 2026-01-01\nclasses: [2026-01-01]", "classes: ${oc.env:HOME}",
         "- 1", "name: other\nclasses: 3", "name: !!python/object:os.system x", "\x00\x01", "{",
         "name: other\nclasses: [car, car]", "classes: [\x1b[2J]", "&a [*a]", "name: [[[]]]",
         "name: other\nclasses: [a]\nclasses: [b]", "x" * 100_000]
    )  # fmt: skip
    file = folder / "camera.yaml"
    if rng.random() < 0.1:
        os.mkfifo(file)
    elif rng.random() < 0.1:
        file.symlink_to("/dev/zero")
    else:
        file.write_text(text, encoding="utf-8")
    return ["report", f"camera={CAMERA}"]


def damaged(rng: random.Random, content: bytes) -> bytes:
    """JSON of right syntax and wrong content, or bytes that are no JSON."""

    def change(value: Any, depth: int = 0) -> Any:
        if isinstance(value, dict) and value and (depth < 3 and rng.random() < 0.8):
            key = rng.choice(list(value))
            if rng.random() < 0.2:
                return {name: one for name, one in value.items() if name != key}
            return {**value, key: change(value[key], depth + 1)}
        if isinstance(value, list) and value and rng.random() < 0.7:
            place = rng.randrange(len(value))
            return [*value[:place], change(value[place], depth + 1), *value[place + 1 :]]
        return rng.choice([None, [], {}, "", "x", -1, 10**30, 1e308, True, float("nan"), [[]]])

    kind = rng.randrange(8)
    if kind == 0:
        return content[: rng.randrange(len(content) + 1)]
    if kind == 1:
        return b"[" * 20_000
    if kind == 2:
        return b"\x00" * len(content)
    if kind == 3:
        return rng.choice([b"", b"null", b"[]", b"{}", b"3", b'"x"', b"\xff\xfe"])
    try:
        return json.dumps(change(json.loads(content))).encode()
    except ValueError:
        changed = bytearray(content)
        for _ in range(rng.randrange(1, 20)):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed)


def record(rng: random.Random, base: Path) -> list[str]:
    """A file of the camera that was damaged."""
    folder = base / "outputs" / CAMERA
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.suffix in (".json", ".npz", ".pt", ".safetensors", ".manifest", ".yaml", ".txn")
        and file.is_file()
    ]
    file = rng.choice(files)
    if rng.random() < 0.1:
        file.unlink()
    else:
        file.write_bytes(damaged(rng, file.read_bytes()))
    words = rng.choice(
        [["report"], ["label"], ["export", f"to={base / 'to'}"], ["audit"],
         ["train", "round=1", *SMALL]]
    )  # fmt: skip
    return [words[0], f"camera={CAMERA}", *words[1:]]


def answers(rng: random.Random, base: Path) -> list[str]:
    """A list of answers from another tool that is none."""
    file = base / rng.choice(["answers.csv", "answers.json", "answers.zip", "answers.xml"])
    ids = Catalog(base / "outputs" / CAMERA).index().crop_id[:3].tolist()
    lines = [f"{rng.choice([*ids, *TEXTS])},{rng.choice(TEXTS)}" for _ in range(rng.randrange(5))]
    text = "\n".join([rng.choice(["crop_id,label", "id;label", "", "crop_id"]), *lines])
    if file.suffix == ".json":
        text = json.dumps(rng.choice([[], {}, [{"data": {"crop_id": ids[0]}}], [1], None, ids]))
    file.write_bytes(
        text.encode("utf-8", "surrogatepass")[: rng.choice([10_000, rng.randrange(99)])]
    )
    return ["review", f"camera={CAMERA}", f"import={file}"]


INPUTS: tuple[Callable[[random.Random, Path], list[str]], ...] = (
    folder_of_crops, table_of_crops, setting, manifest, record, answers,
)  # fmt: skip


def judge(ran: Ran, name: str) -> str:
    """What is wrong with the way a command ended; empty if nothing."""
    text = ran.out + ran.err
    if "Traceback" in text:
        return f"a traceback: {text[-400:]}"
    if ran.code not in (0, 1, 2):
        return f"exit code {ran.code}: {ran.err[-300:]}"
    if found := CONTROL.search(text.replace("\r", "")):
        return f"a control character {found[0]!r}: {text[max(0, found.start() - 80) :][:160]!r}"
    lines = [line for line in ran.err.strip().splitlines() if line]
    if ran.code == 2 and not any(line.startswith(f"{name}: ") for line in lines[-1:]):
        return f"a refusal that is not one line: {ran.err[-400:]!r}"
    return ""


class Inputs:
    """Attempts with inputs, each on a copy of one trained camera."""

    def __init__(self, base: Path, trained: Path) -> None:
        self.base, self.trained = base, trained
        self.digest = camera_digest(str(trained))

    def attempt(self, number: int) -> tuple[str, str]:
        """How an attempt ended, and what fell; empty if nothing did."""
        rng = random.Random(f"inputs {number}")
        make = INPUTS[number % len(INPUTS)]
        base = self.base / f"input-{number}"
        base.mkdir()
        outside = base / "outside"
        outside.mkdir()
        (outside / "file").write_text("somebody's")
        root = base / "outputs"
        shutil.copytree(self.trained, root)
        try:
            name, *settings = make(rng, base)
            before = files_digest(outside)
            if name == "ingest" and not any(word.startswith("camera=") for word in settings):
                settings.append("camera=new")
            said = f"{make.__name__}: {name} {' '.join(settings)}"
            ran = shell([name, f"root={root}", *settings])
            wrong = judge(ran, name)
            if not wrong and files_digest(outside) != before:
                wrong = "a file outside of the root changed"
            if not wrong and ran.code == 2 and (root / "new").exists():
                wrong = f"a refused ingest left a camera: {ran.err}"
            if not wrong and (make not in (record, setting, answers)):
                wrong = "" if camera_digest(str(root)) == self.digest else "the camera changed"
            return ("taken", "left out", "refused")[min(ran.code, 2)], wrong and f"{said}: {wrong}"
        except Slow:
            return "slow", f"{make.__name__} {number}: more than a minute"
        except Exception as error:  # whatever falls out of a command is what we look for
            return "raised", f"{make.__name__} {number}: {type(error).__name__}: {error}"
        finally:
            shutil.rmtree(base, ignore_errors=True)


# -- kills -----------------------------------------------------------------------------------------


class Kills:
    """Attempts with kills: a command that is killed again and again, and then runs to its end."""

    def __init__(self, base: Path, trained: Path, table: Path, store: str, most: int) -> None:
        self.base, self.trained, self.table, self.store = base, trained, table, store
        self._most = most
        self._expected: dict[tuple[str, bool], tuple[str, float]] = {}
        self.kills = 0

    def _words(self, base: Path) -> dict[str, list[str]]:
        return {
            "ingest": [f"path={self.table}", "labels=truth"],
            "train": ["round=1", *SMALL],
            "label": ["trainer.precision=fp32", "trainer.threads=1"],
            "export": [f"to={base / 'to'}", "format=imagefolder"],
            "probe": [
                "round=1", "reviewer=oracle", "learner=probe", "team.vote_with=mean",
                "features.image_size=24", "features.projection=64", "seed_per_class=40",
                "increment_per_class=4", "quantile=0.5", "trainer.threads=1", "logger=none",
            ],
        }  # fmt: skip

    def _prepare(self, name: str, base: Path) -> str:
        base.mkdir(parents=True)
        root = base / "outputs"
        if name == "ingest":
            return f"{self.store}/{base.name}" if self.store else str(root)
        if name == "probe":  # a camera without rounds, with more crops than a part of features has
            address = f"{self.store}/{base.name}" if self.store else str(root)
            made = shell(["simulate", f"root={address}", f"camera={CAMERA}", "crops=1200"])
            assert made.code == 0, made.err
            return address
        if self.store:
            bring(self.trained, f"{self.store}/{base.name}")
            return f"{self.store}/{base.name}"
        shutil.copytree(self.trained, root)
        return str(root)

    def _digest(self, name: str, base: Path, root: str) -> str:
        exported = ""
        if name == "probe":
            folder = registered(root)[CAMERA].folder
            exported = repr(sorted(probabilities(folder).items()))
        if name == "export":
            (base / "to" / "README.md").unlink()  # it says when
            exported = files_digest(base / "to")
        return camera_digest(root) + exported

    def _run(self, name: str, base: Path, root: str, fresh: bool, after: float | None) -> float:
        """Run a command, or kill it after some seconds; the seconds that it took."""
        words = (f"root={root}", f"camera={CAMERA}", *self._words(base)[name])
        note_environment()  # commands in this process have imported libraries
        began = time.monotonic()
        run = "train" if name == "probe" else name
        process = start_command(
            run, base, *words, stdout=subprocess.DEVNULL, session=True, fresh=fresh
        )
        try:
            _, err = process.communicate(timeout=after if after is not None else 300)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            assert after is not None, f"{name} took more than five minutes"
            self.kills += 1
            return after
        assert process.returncode == 0, f"{name} ended with {process.returncode}: {err[-400:]}"
        return time.monotonic() - began

    def attempt(self, number: int) -> tuple[str, str]:
        """How an attempt ended, and what fell; empty if nothing did."""
        rng = random.Random(f"kills {number}")
        names = list(self._words(self.base))
        name = names[number % len(names)]
        where = "store" if self.store else "disk"
        fresh = number % 4 == 3
        try:
            if (name, fresh) not in self._expected:
                base = self.base / f"{where}-{name}-whole-{fresh}"
                root = self._prepare(name, base)
                took = self._run(name, base, root, fresh, None)
                self._expected[name, fresh] = self._digest(name, base, root), took
            expected, took = self._expected[name, fresh]
            base = self.base / f"{where}-{name}-{number}"
            root = self._prepare(name, base)
            moments: list[float | None] = [
                # A short command first reads its settings: moments near its end matter more.
                took * rng.betavariate(3, 1.5)
                for _ in range(rng.randint(1, self._most))
            ]
            for moment in [*moments, None]:
                # A dataset appears whole; the same export again would refuse to replace it.
                if not (base / "to").exists():
                    self._run(name, base, root, fresh, moment)
            same = self._digest(name, base, root) == expected
            return f"{name} ({where})", "" if same else f"{name} {number}: not what it is whole"
        except (AssertionError, Exception) as error:
            return f"{name} ({where})", f"{name} {number}: {type(error).__name__}: {error}"
        finally:
            shutil.rmtree(self.base / f"{where}-{name}-{number}", ignore_errors=True)


# -- doors -----------------------------------------------------------------------------------------


class Doors:
    """Attempts to get in, or to change something, without being let in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.server: Server = start(root, "queue=seed", "seed_per_class=40")
        self.client = visitor(self.server)
        catalog = Catalog(root / CAMERA)
        self.crops = catalog.index().crop_id.tolist()
        self.log = len(catalog.log())
        self.secret = json.loads((root / CAMERA / "review" / "lock").read_text())["secret"]

    def close(self) -> None:
        self.server.kill()

    def attempt(self, number: int) -> tuple[str, str]:
        """How an attempt ended, and what fell; empty if nothing did."""
        rng = random.Random(f"doors {number}")
        kind = rng.choice(["stranger", "site", "nonsense", "raw"])
        try:
            status = getattr(self, f"_{kind}")(rng)
        except (OSError, http_errors()) as error:
            status = 0
            if self.server.process.poll() is not None:
                return kind, f"door {number} ({kind}): the server ended: {error}"
        if status == 0 or 400 <= status < 500:
            events = len(Catalog(self.root / CAMERA).log())
            before, self.log = self.log, events
            return kind, "" if events == before else f"door {number} ({kind}): the log changed"
        return kind, f"door {number} ({kind}): answered with {status}"

    def _path(self, rng: random.Random) -> str:
        crop = rng.choice(self.crops)
        odd = quote(rng.choice(TEXTS).encode("utf-8", "surrogatepass"))
        return rng.choice(
            ["/", "/static/review.js", f"/crop/{crop}", f"/frame/{crop}", f"/api/context/{crop}",
             f"/enter?token={odd}", "/api/state", "/api/page", "/api/commit", "/api/invite",
             f"/static/../{odd}", f"/crop/..%2f..%2f{odd}", f"/{odd}", "/crop/%2e%2e/lock"]
        )  # fmt: skip

    def _stranger(self, rng: random.Random) -> int:
        cookie = rng.choice(["", self.client.cookie[:-1] + "x", "session=", "a=b; c", "x" * 5000])
        method = rng.choice(["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
        headers = rng.choice(
            [
                {},
                {"Authorization": f"Bearer {self.secret[:-1]}"},
                {"X-Forwarded-For": "127.0.0.1"},
                {"Authorization": "Basic eDp5"},
            ]
        )
        body = rng.choice([None, {"queue": "seed", "tab": "t"}, b"{", b""])
        path = self._path(rng)
        answer = Client(self.server.port, cookie).send(method, path, body, headers)
        if method == "HEAD" and path.startswith("/enter") and "set-cookie" not in answer.headers:
            return 0  # a preview of the link: it says nothing about the token, and lets nobody in
        return answer.status

    def _site(self, rng: random.Random) -> int:
        headers = rng.choice(
            [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Content-Type": "text/plain"},
             {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"}, {"Host": ""},
             {"Origin": "http://localhost:1"}, {"Sec-Fetch-Site": "same-site"}]
        )  # fmt: skip
        body = {"queue": "seed", "tab": "t", "commit": "x", "page": "p", "answers": {}}
        name = rng.choice(["state", "page", "commit", "undo", "release"])
        return self.client.send("POST", f"/api/{name}", body, headers).status

    def _nonsense(self, rng: random.Random) -> int:
        # With these two, a reviewer who was let in would give an answer and no nonsense.
        texts = [text for text in TEXTS if text not in (UNKNOWN, UNUSABLE)]
        crop, text = rng.choice(self.crops), rng.choice(texts)
        answers = rng.choice(
            [{crop: text}, {text: "car"}, [crop], crop, None, {crop: 3}, {crop: None}]
        )
        body: Any = {"tab": rng.choice(["t", 3, None, "x" * 9999]), "queue": "seed", "commit": text,
                     "page": rng.choice(["p", text, 1]), "answers": answers}  # fmt: skip
        if rng.random() < 0.3:
            body = rng.choice([b"[" * 20_000, b"\xff", b"3", b"null", b"{}", b'{"tab": "\\ud800"}'])
        return self.client.send("POST", "/api/commit", body).status

    def _raw(self, rng: random.Random) -> int:
        """Bytes that are hardly HTTP."""
        import socket

        sent = rng.choice(
            [b"GET / HTTP/1.1\r\n\r\n", b"GET /\r\n\r\n", b"\x16\x03\x01" + rng.randbytes(60),
             rng.randbytes(200), b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
             b"POST /api/commit HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
             b"POST /api/commit HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n"
                b"\r\n0\r\n\r\n",
             b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", b"", b"\r\n" * 50,
             struct.pack(">I", 3) * 30]
        )  # fmt: skip
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=5) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            line = connection.recv(64)
        found = re.match(rb"HTTP/1\.[01] (\d+)", line)
        return int(found[1]) if found else 0


def http_errors() -> type[Exception]:
    import http.client

    return http.client.HTTPException


# -- the whole -------------------------------------------------------------------------------------


def drawn_table(file: Path, rows: int = 120) -> Path:
    """A Parquet file of drawn crops, for ingests that are killed."""
    rng = np.random.default_rng(5)
    pictures = []
    for _ in range(rows):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8)).save(stream, "PNG")
        pictures.append(stream.getvalue())
    labels = rng.choice(["car", "bus"], rows).tolist()
    pq.write_table(pa.table({"image": pictures, "label": labels}), file)
    return file


def trained_camera(base: Path) -> Path:
    """A root with one small camera that has a team and labels."""
    root = base / "outputs"
    where = (f"root={root}", f"camera={CAMERA}")
    for words in (
        ["simulate", *where, "crops=240"],
        ["train", *where, "round=0", *SMALL],
        ["label", *where, "trainer.precision=fp32", "trainer.threads=1"],
    ):
        ran = shell(words)
        assert ran.code == 0, ran.err
    return root


def campaign(
    base: Path, trained: Path, kinds: Sequence[str], until: Callable[[str, int], bool],
    first: int = 0, store: str = "", most: int = 4,
) -> Iterator[tuple[str, Tally]]:  # fmt: skip
    """Try one after the other of each kind.

    Args:
        base: An empty folder.
        trained: Root of a camera that :func:`trained_camera` made; it is copied.
        kinds: Some of ``inputs``, ``kills``, ``store kills`` and ``doors``.
        until: Whether a kind is done, given its name and the attempts so far.
        first: Number of the first attempt.
        store: Address in an object store, for ``store kills``.
        most: Kills within one attempt, at most.

    Yields:
        After every attempt, its kind and that kind's tally so far.
    """
    table = drawn_table(base / "crops.parquet")
    for kind in kinds:
        tally = Tally()
        with _attempts(kind, base, trained, table, store, most) as those:
            while not until(kind, tally.tried):
                ended, fell = those.attempt(first + tally.tried)
                tally.kills = those.kills if isinstance(those, Kills) else 0
                tally.tried += 1
                tally.ended[ended] += 1
                if fell:
                    tally.fell.append(fell)
                yield kind, tally


@contextlib.contextmanager
def _attempts(
    kind: str, base: Path, trained: Path, table: Path, store: str, most: int
) -> Iterator[Inputs | Kills | Doors]:
    """What makes the attempts of a kind."""
    if kind == "inputs":
        yield Inputs(base, trained)
    elif kind == "doors":
        doors = Doors(Path(shutil.copytree(trained, base / "doors")))
        try:
            yield doors
        finally:
            doors.close()
    else:
        yield Kills(base, trained, table, store if kind == "store kills" else "", most)
