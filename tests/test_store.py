"""A root in an object store: the same line as on a disk, from several machines, with faults.

A machine is a cache folder of its own (``XDG_CACHE_HOME``); the store is a real S3 API on loopback.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import obstore
import pytest
from conftest import (
    CLASSES,
    SMALL,
    Call,
    Trained,
    command,
    environment,
    one_line,
    probabilities,
    records,
    said_of_crops,
)
from PIL import Image
from stores import BUCKET, bring, objects

from collabteam.catalog import Catalog, Crop, LabelEvent
from collabteam.cli.command import find_cameras
from collabteam.errors import UserError
from collabteam.features import store as feature_store
from collabteam.reviewing.session import ReviewSession
from collabteam.settings import CameraConfig, ReviewConfig
from collabteam.storage import mirror, tables
from collabteam.storage import store as store_module
from collabteam.storage.commits import Commit, StoredRecord
from collabteam.storage.files import write_json
from collabteam.storage.store import Store
from collabteam.storage.workspace import CameraInUse, Workspace, registered
from collabteam.testing.learners import small_settings
from collabteam.video.spool import Spool, VideoRecord, commit

TINY = small_settings("features").features


@dataclass
class Server:
    """The S3 server, and the faults that it is asked for."""

    process: subprocess.Popen[str]
    url: str

    def ask(self, path: str, content: object = None, method: str = "POST") -> Any:
        text = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(
            self.url + path, data=text, method=method, headers={"Content-Type": "text/plain"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    def faults(self, **asked: object) -> None:
        self.ask("/-/faults", asked)

    def state(self) -> dict[str, Any]:
        return dict(json.loads(self.ask("/-/faults", method="GET")))

    def hold(self, name: str) -> None:
        """Until a request to write such an object comes; it waits until the next faults."""
        self.faults(hold=["PUT", re.escape(name)])
        until = time.monotonic() + 120
        while time.monotonic() < until:
            if any(name in path for path in self.state()["held"]):
                return
            time.sleep(0.02)
        raise AssertionError("no such request came")


@pytest.fixture(scope="session")
def s3() -> Iterator[Server]:
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("s3_server.py"))],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        server = Server(process, f"http://127.0.0.1:{int(process.stdout.readline())}")
        server.ask(f"/{BUCKET}", method="PUT")
        yield server
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def server(s3: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """The server without faults, as the environment names it; this machine is ``here``."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    for name, value in (("ACCESS_KEY_ID", "key"), ("SECRET_ACCESS_KEY", "secret")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "here"))
    monkeypatch.setenv("MPLCONFIGDIR", "/tmp/collabteam-test-matplotlib")
    yield s3
    s3.faults()


@pytest.fixture
def root(server: Server, request: pytest.FixtureRequest) -> str:
    """An address that no other test uses."""
    return f"s3://{BUCKET}/{request.node.name.split('[')[0]}-{time.monotonic_ns()}"


Elsewhere = Callable[[str], None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Elsewhere:
    """Go to another machine by its name, or back."""
    return lambda name: monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))


def names(root: str) -> set[str]:
    """What is in the store but for the tables."""
    found = {str(meta["path"]) for meta in obstore.list(objects(root)).collect()}
    return {name for name in found if ".lance/" not in name}


def start(name: str, root: str, *settings: str) -> subprocess.Popen[str]:
    """A command in a process of its own."""
    return subprocess.Popen(
        command(name, f"root={root}", *settings), env=environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def end(process: subprocess.Popen[str]) -> str:
    """Wait for a command that must succeed."""
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out


def camera(root: str, crops: int = 3) -> tuple[Catalog, list[str]]:
    """A new camera with a few crops."""
    catalog = Catalog.register(root, "dock", CLASSES)
    return catalog, [crop_id for crop_id, _ in catalog.add_crops(map(_crop, range(crops)))]


def _crop(number: int) -> Crop:
    return Crop(b"picture %d" % number)


def _said(crop_id: str, by: str) -> list[LabelEvent]:
    return [LabelEvent(crop_id, CLASSES[0], source="detector", by=by)]


# -- the line ----------------------------------------------------------------------------------


def test_a_camera_goes_on_from_machine_to_machine_as_on_one_disk(
    call: Call, root: str, machine: Elsewhere, trained: Trained, tmp_path: Path
) -> None:
    """Simulate, train, label, audit, export and report in the store, on two machines in turn."""
    said = call("simulate", f"root={root}", "camera=sim", "crops=600")
    assert said.code == 0, said.err
    assert f"600 in all, in {root}/sim" in said.out
    assert call("train", f"root={root}", "camera=sim", "round=1", *SMALL).code == 0
    here = Workspace.at(root, "sim").folder

    machine("there")
    there = Workspace.at(root, "sim").folder
    assert here != there
    assert not there.exists()
    said = call("train", f"root={root}", "camera=sim", "round=2", *SMALL)
    assert said.code == 0, said.err
    assert f"{root}/sim/round-2/round.json" in said.out + said.err
    assert records(there) == records(trained.folder)
    assert probabilities(there) == probabilities(trained.folder)
    assert said_of_crops(there) == said_of_crops(trained.folder)

    for name, *settings in (
        ("label", "trainer.threads=1", "trainer.precision=fp32"),
        ("audit", "reviewer=oracle", "precision=0.5"),
        ("report",),
    ):
        said = call(name, f"root={root}", "camera=sim", *settings)
        assert said.code == (name == "audit"), said.err  # which is not passed
    machine("here")
    to = tmp_path / "dataset"
    said = call("export", f"root={root}", "camera=sim", "format=csv", f"to={to}")
    assert said.code == 0, said.err
    assert (to / "README.md").exists()
    for name in ("label.json", "label-quality.png", "table1.csv", "audits/1/certificate.json"):
        assert (here / name).read_bytes() == (there / name).read_bytes()
    shared = {f"sim/{name}" for name in files(here)}
    assert shared | {"sim/lock"} == names(root)
    assert not list(tmp_path.glob("**/s3:*"))
    assert not list(Path().glob("s3:*"))


def files(folder: Path) -> set[str]:
    """Files of a copy that another machine shall have, too."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock" and not path.name.startswith(".")
    }


def test_cameras_of_a_store_are_known_by_name(
    call: Call, root: str, machine: Elsewhere, simulated: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    bring(simulated, root)
    Catalog.register(root, "quay")
    machine("there")
    assert list(registered(root)) == ["quay", "sim"]
    said = call("train", f"root={root}", "camera=sima", *SMALL)
    assert said.code == 2
    assert "sim" in said.err
    with pytest.raises(UserError, match=r"no camera 'sin' under s3://.*: known are sim, quay;"):
        Catalog.open(root, "sin")
    monkeypatch.chdir(tmp_path)
    said = call("report", "-m", f"root={root}", "camera=glob(*)")
    assert said.code == 1
    for name in ("quay", "sim"):
        assert f"camera {name} has no finished round" in " ".join(said.out.split())
    said = call("dashboard", f"root={root}")
    one_line(said, f"no camera of * under {root} has logged a round")
    to = tmp_path / "fleet.html"
    said = call("report", f"root={root}", "camera=glob(*)", "format=html", f"to={to}")
    assert said.code == 0, said.err
    assert "2 cameras" in said.out
    assert not list(tmp_path.glob("s3:*"))


def test_a_folder_that_is_no_camera_of_a_store_is_named(call: Call, root: str) -> None:
    Catalog.register(root, "dock", CLASSES)
    for name in ("k (1)", ".hidden", "k,old"):
        obstore.put(objects(root), f"{name}/camera.yaml", b"name: k")
    obstore.put(objects(root), "notes (1)/a.txt", b"")
    found = find_cameras(root)
    assert list(found.cameras) == ["dock"]
    assert list(found.passed_over) == ["k (1)", "k,old"]
    assert found.passed_over["k (1)"].startswith(f"{root}/k (1): passed over")
    said = call("report", f"root={root}", "-m", "camera=glob(*)")
    assert f"{root}/k (1): passed over" in "".join(said.err.splitlines())


def test_marks_of_empty_folders_are_no_files(root: str, machine: Elsewhere, server: Server) -> None:
    """Consoles and mounted buckets make objects whose names end in a slash."""
    camera(root)
    for name in ("", "dock/", "dock/round-0/", "dock/rolled-back/", "dock/labels.lance/"):
        server.ask(f"/{root.removeprefix('s3://')}/{name}", method="PUT")
    machine("there")
    catalog = Catalog.open(root, "dock")
    with catalog.workspace.transaction("test"):
        (catalog.workspace.round(0).folder).mkdir()
        catalog.workspace.round(0).sample.write_text("{}")
    assert "dock/round-0/sample.json" in names(root)
    assert len(catalog) == 3


def test_a_commit_that_a_store_lost_is_seen(root: str) -> None:
    catalog, crop_ids = camera(root)
    for crop_id in crop_ids:
        catalog.append_labels(_said(crop_id, "a"))
    versions = [
        str(meta["path"])
        for meta in obstore.list(objects(root), "dock/labels.lance/_versions").collect()
    ]
    newest = min(name for name in versions if name.endswith(".manifest"))
    content = obstore.get(objects(root), newest).bytes()
    obstore.delete(objects(root), newest)
    address = f"{root}/dock/labels.lance"
    with pytest.raises(UserError, match=f"{address} is damaged: .* delete {address}/commits to go"):
        Catalog.open(root, "dock").log()
    obstore.put(objects(root), newest, bytes(content))
    assert len(Catalog.open(root, "dock").log()) == 3
    # Cameras of earlier versions have no note.
    obstore.delete(objects(root), "dock/labels.lance/commits")
    obstore.delete(objects(root), newest)
    assert len(Catalog.open(root, "dock").log()) == 2


def test_a_note_of_a_commit_never_goes_back(root: str) -> None:
    """Of two writers, the one that committed first may note it last."""
    slow, fast = StoredRecord(Store(f"{root}/t")), StoredRecord(Store(f"{root}/t"))
    assert slow.last_commit() is None
    slow.note(1, 1)
    fast.note(3, 3)
    slow.note(2, 2)
    assert fast.last_commit() == Commit(3, 3, "-")
    obstore.put(objects(root), "t/commits", b"3 3 - 00000000")
    with pytest.raises(UserError, match=f"{root}/t/commits is damaged: .* delete this one file"):
        slow.last_commit()


def test_a_page_on_the_cameras_of_a_store(call: Call, root: str, tmp_path: Path) -> None:
    for name in ("dock", "gate"):
        Catalog.register(root, name, CLASSES)
    to = tmp_path / "report.html"
    said = call("report", f"root={root}", "camera=glob(*)", "format=html", f"to={to}")
    assert said.code == 0, said.err
    assert "2 cameras, 0 with a team\n" in said.out
    assert "collabteam.ingest camera=gate path=..." in to.read_text(encoding="utf-8")
    said = call("report", f"root={root}", "camera=x,dock", "format=html", f"to={to}")
    one_line(said, "no camera 'x'", "known are dock, gate")


def test_a_sweep_over_settings_has_roots_of_its_own_in_the_store(
    call: Call, root: str, trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bring(trained.root, root)
    monkeypatch.chdir(tmp_path)
    said = call("train", "-m", f"root={root}", "camera=sim", "round=0", "seed=1,2", *SMALL)
    assert said.code == 0, said.out + said.err
    for seed in (1, 2):
        (record,) = records(Catalog.open(f"{root}/seed-{seed}", "sim").folder)
        assert record["settings"]["seed"] == seed
        assert record["train_size"] == 120
    assert len(records(Catalog.open(root, "sim").folder)) == 3
    again = call("train", "-m", f"root={root}", "camera=sim", "round=0", "seed=1,2", *SMALL)
    assert again.code == 0, again.out + again.err
    assert "skipped" in again.out


def test_a_round_that_was_taken_back_stays_so(
    call: Call, root: str, machine: Elsewhere, trained: Trained
) -> None:
    bring(trained.root, root)
    here = Catalog.open(root, "sim").folder
    machine("there")
    settings = [f"root={root}", "camera=sim", "round=0", *SMALL]
    said = call("train", *settings, "rollback=0")
    assert said.code == 0, said.err
    there = Catalog.open(root, "sim").folder
    kept = names(root)
    assert not any(name.startswith(("sim/round-1/", "sim/round-2/")) for name in kept)
    assert "sim/rolled-back/round-2.0/round.json" in kept
    machine("here")
    assert len(records(here)) == 3
    assert call("train", *settings).code == 0
    assert records(here) == records(there)
    assert len(records(here)) == 1
    assert files(here) == files(there)
    assert names(root) == kept


def test_a_review_page_sees_what_other_machines_made(
    call: Call, root: str, machine: Elsewhere, trained: Trained
) -> None:
    bring(trained.root, root)
    now = [0.0]
    config = ReviewConfig(camera=CameraConfig("sim", CLASSES), root=root)
    desk = ReviewSession(Catalog.open(root, "sim"), config, clock=lambda: now[0])
    assert desk.state("ana", "tab", "unsure")["next"].endswith("camera=sim round=3")
    machine("there")
    assert call("train", f"root={root}", "camera=sim", "round=1", "rollback=1", *SMALL).code == 0
    machine("here")
    now[0] += 31.0
    assert desk.state("ana", "tab", "unsure")["next"].endswith("camera=sim round=2")


@pytest.mark.slow
def test_features_are_computed_once_whichever_machine_goes_on(
    call: Call, root: str, machine: Elsewhere, simulated: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Killed between two parts on one machine, continued on another: as on one disk."""
    words = (
        "camera=sim", "reviewer=oracle", "learner=probe", "team.vote_with=mean", "logger=none",
        f"features.backbone={TINY.backbone}", f"features.weights={TINY.weights}",
        f"features.image_size={TINY.image_size}", "features.projection=16", "seed_per_class=40",
        "increment_per_class=4", "quantile=0.5", "trainer.threads=1",
    )  # fmt: skip
    disk = Path(shutil.copytree(simulated, tmp_path / "disk"))
    said = call("train", f"root={disk}", "round=1", *words)
    assert said.code == 0, said.err

    bring(simulated, root)
    monkeypatch.setattr(feature_store, "PART", 256)
    append, appended = feature_store._BackboneTable._append, list[int]()

    def dies(self: Any, vectors: Any) -> None:
        append(self, vectors)
        appended.append(len(vectors))
        if len(appended) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(feature_store._BackboneTable, "_append", dies)
    assert call("train", f"root={root}", "round=1", *words).code != 0
    (kept,) = (name for name in names(root) if name.startswith("sim/features-"))
    machine("there")
    said = call("train", f"root={root}", "round=1", *words)
    assert said.code == 0, said.err
    assert appended == [256, 256, 88]
    assert "features of 344 crops" in said.err
    there = Workspace.at(root, "sim").folder
    assert [name for name in names(root) if name.startswith("sim/features-")] == [kept]
    # The header of such a file may be written in any order.
    assert sorted((there.parent / kept).read_bytes()) == sorted((disk / kept).read_bytes())
    assert records(there) == records(disk / "sim")
    assert probabilities(there) == probabilities(disk / "sim")

    machine("elsewhere")
    said = call("label", f"root={root}", "camera=sim", f"weights={TINY.weights}")
    assert said.code == 0, said.err
    assert "features of" not in said.err


# -- writers at once -----------------------------------------------------------------------------

WRITER = """
import sys
from collabteam.catalog import Catalog, LabelEvent
root, crop_id, by, count = sys.argv[1:]
catalog = Catalog.open(root, "dock")
for number in range(int(count)):
    catalog.append_labels([LabelEvent(crop_id, "cyclist", source="person", by=by, round=number)])
"""


def test_two_writers_at_once_lose_nothing_and_keep_the_order(root: str) -> None:
    catalog, (crop_id, *_) = camera(root)
    count = 60
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, root, crop_id, by, str(count)], env=environment()
        )
        for by in ("ana", "ben")
    ]  # fmt: skip
    assert [writer.wait(120) for writer in writers] == [0, 0]
    log = catalog.log(("by", "round")).to_pylist()
    for by in ("ana", "ben"):
        assert [said["round"] for said in log if said["by"] == by] == list(range(count))
    assert len(log) == 2 * count
    # They were merged on the way.
    table = catalog.workspace.table("labels")
    assert len(table._data.get_fragments()) <= tables._MOST_FRAGMENTS + 1


def test_an_append_amid_a_merge_is_neither_lost_nor_before_its_time(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, (crop_id, *_) = camera(root)
    other = Catalog.open(root, "dock")
    for number in range(6):
        catalog.append_labels(_said(crop_id, str(number)))
    write = store_module._rewrite

    def slow(*arguments: Any) -> Any:
        written = write(*arguments)
        if other.log_size() < 7:
            other.append_labels(_said(crop_id, "amid"))
        return written

    monkeypatch.setattr(store_module, "_rewrite", slow)
    monkeypatch.setattr(tables, "_MOST_FRAGMENTS", 4)
    catalog.append_labels(_said(crop_id, "6"))
    monkeypatch.setattr(store_module, "_rewrite", write)
    other.append_labels(_said(crop_id, "last"))
    order = [*map(str, range(7)), "amid", "last"]
    assert other.log(["by"])["by"].to_pylist() == order
    assert catalog.log(["by"])["by"].to_pylist() == order


def grown(root: str) -> Catalog:
    """A camera that grew by small commits of crops and of events."""
    catalog, _ = camera(root, 3)
    for number in range(3, 15):
        [(crop_id, _)] = catalog.add_crops([_crop(number)])
        catalog.append_labels(_said(crop_id, str(number)))
    return catalog


def everything(root: str) -> str:
    """All that the tables say, in their order; a text, for NaN equals nothing."""
    catalog = Catalog.open(root, "dock")
    index, rows = catalog.index(), range(len(catalog))
    told = catalog.log().to_pylist()
    return repr((index.crop_id.tolist(), catalog.images(rows), catalog.origins(rows), told))


def objects_of_tables(root: str) -> int:
    found = obstore.list(objects(root), "dock").collect()
    return sum(".lance/" in str(meta["path"]) for meta in found)


def test_compacting_keeps_all_rows_and_their_order(
    call: Call, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for those who read before it, and read and append after it."""
    catalog = grown(root)
    readers = [Catalog.open(root, "dock") for _ in range(3)]
    readers[0].index()
    content, many = everything(root), objects_of_tables(root)
    said = call("compact", f"root={root}", "camera=dock")
    assert said.code == 0, said.err
    assert (
        f"{root}/dock; files replaced within the last hour are removed by a later compact"
        in said.out
    )
    assert everything(root) == content
    # Nothing is taken away that a commit under way may build on.
    assert objects_of_tables(root) > many
    monkeypatch.setattr(tables, "_SETTLED", timedelta(0))
    said = call("compact", f"root={root}", "camera=dock")
    assert said.code == 0, said.err
    assert objects_of_tables(root) < 12
    assert everything(root) == content
    assert len(catalog._crops._data.get_fragments()) > 10  # this one still knows the old version
    for number, held in enumerate((catalog, *readers)):
        [(crop_id, is_new)] = held.add_crops([_crop(100 + number)])
        assert is_new
        held.append_labels(_said(crop_id, "later"))
        assert held.images(range(15)) == [b"picture %d" % n for n in range(15)]
        assert len(held.index()) == 16 + number
        catalog.compact()
    assert everything(root)[: content.index("]")] == content[: content.index("]")]
    assert len(Catalog.open(root, "dock").log()) == 16


def test_what_would_not_get_fewer_files_is_not_written_again(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown(root)
    table = Catalog.open(root, "dock").workspace.table("crops")
    table.compact(4)  # fifteen crops: 3, and twelve single ones in files of 4
    sizes = [part.metadata.num_rows for part in table._data.get_fragments()]
    assert sizes == [4, 4, 4, 3]
    monkeypatch.setattr(store_module, "_rewrite", None)
    table.compact(4)
    with pytest.raises(TypeError):  # three would do
        table.compact(5)


def test_who_appends_amid_compacting_stands_behind(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = grown(root)
    other = Catalog.open(root, "dock")
    rewrite = store_module._rewrite
    amid: list[str] = []

    def slow(*arguments: Any) -> Any:
        written = rewrite(*arguments)
        amid.append(f"amid {len(amid)}")
        [(crop_id, _)] = other.add_crops([_crop(200 + len(amid))])
        other.append_labels(_said(crop_id, amid[-1]))
        return written

    monkeypatch.setattr(store_module, "_rewrite", slow)
    catalog.compact()
    assert len(amid) == 2  # once for each table that had many files
    fresh = Catalog.open(root, "dock")
    rows = [b"picture %d" % number for number in (*range(15), 201, 202)]
    assert fresh.images(range(len(fresh))) == rows
    assert fresh.log(["by"])["by"].to_pylist() == [*map(str, range(3, 15)), *amid]
    assert len(fresh._crops._data.get_fragments()) == 3  # merged all the same


KILLED = """
import os, signal, sys
from datetime import timedelta
from collabteam.catalog import Catalog
from collabteam.storage import tables
moment = sys.argv[2]
tables._SETTLED = timedelta(0)
die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
if moment == "committed":
    tables.Table._clean = die
Catalog.open(sys.argv[1], "dock").compact(die if moment == "rewritten" else None)
"""


@pytest.mark.parametrize("moment", ["rewritten", "committed"])
def test_compacting_that_was_killed_is_done_again(
    root: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown(root)
    content = everything(root)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, root, moment], env=environment(), check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert everything(root) == content
    monkeypatch.setattr(tables, "_SETTLED", timedelta(0))
    Catalog.open(root, "dock").compact()
    assert everything(root) == content
    assert objects_of_tables(root) < 14


def test_classes_are_registered_once(root: str, machine: Elsewhere) -> None:
    catalog = Catalog.register(root, "dock")
    machine("there")
    Catalog.register(root, "dock", ["ship", "boat"])
    machine("here")
    with pytest.raises(UserError, match="camera dock has the classes ship, boat, not car, van"):
        catalog.set_classes(["car", "van"])
    assert Catalog.open(root, "dock").classes == ["ship", "boat"]


def test_a_copy_knows_its_store(root: str, machine: Elsewhere, tmp_path: Path) -> None:
    catalog, crops = camera(root)
    machine("there")  # the copy is told by itself, not by where copies lie
    workspace = Workspace(catalog.folder)
    assert workspace.place == f"{root}/dock"
    assert pickle.loads(pickle.dumps(workspace)).place == f"{root}/dock"
    assert len(Catalog(workspace).index()) == len(crops)
    # Brought to another root by hand, it is a folder among others.
    shutil.copytree(catalog.folder, tmp_path / "outputs" / "dock")
    assert Workspace.at(tmp_path / "outputs", "dock").place == str(tmp_path / "outputs" / "dock")


def test_the_end_of_an_inner_transaction_brings_up_what_was_made(root: str) -> None:
    workspace = camera(root)[0].workspace
    with workspace.transaction("train"):
        with workspace.transaction("train"):
            write_json(workspace.label_record, {})
            assert "dock/label.json" not in names(root)
        assert "dock/label.json" in names(root)
        with pytest.raises(KeyError), workspace.transaction("train"):
            _fail(workspace.report("table1.csv"))
        assert "dock/table1.csv" not in names(root)
    assert "dock/table1.csv" in names(root)
    with workspace.publishing(workspace.report("table1.png")) as files:
        files[0].write_bytes(b"plot")
        assert "dock/table1.png" not in names(root)
    assert "dock/table1.png" in names(root)


def _fail(file: Path) -> None:
    file.write_text("half")
    raise KeyError


def test_a_store_without_conditional_writes_is_refused(root: str, server: Server) -> None:
    server.faults(careless=True)
    with pytest.raises(UserError, match="does not support conditional writes"):
        Catalog.register(root, "dock")
    assert not registered(root)


# -- faults ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["drop", "500"])
def test_what_is_done_while_the_answer_is_lost_is_done_once(
    root: str, server: Server, machine: Elsewhere, how: str
) -> None:
    catalog, (crop_id, *_) = camera(root)
    for count in (1, 3):
        server.faults(lose=["PUT", "_versions/", count, how])
        catalog.append_labels(_said(crop_id, f"{count}"))
        assert server.state()["lost"] == count
    assert catalog.log(["by"])["by"].to_pylist() == ["1", "3"]
    server.faults(lose=["PUT", "dock/lock", 2, how])
    with catalog.workspace.transaction("test"):
        assert server.state()["lost"] == 2
        (catalog.folder / "label.json").write_text("{}")
        server.faults(lose=["PUT", "label.json", 2, how])
    assert server.state()["lost"] == 2
    machine("there")
    assert (Catalog.open(root, "dock").folder / "label.json").read_text() == "{}"


@pytest.mark.slow
def test_a_store_that_is_away_for_ten_seconds_costs_nothing(
    root: str, server: Server, machine: Elsewhere, simulated: Path, trained: Trained
) -> None:
    """Away when round 0 goes up, and then frozen for a while when round 1 does."""
    bring(simulated, root)
    process = start("train", root, "camera=sim", "round=1", *SMALL)
    server.hold("round-0/folds.json")
    server.faults(away=10.0)
    time.sleep(10.0)
    server.hold("round-1/folds.json")
    server.process.send_signal(signal.SIGSTOP)
    time.sleep(3.0)
    server.process.send_signal(signal.SIGCONT)
    server.faults()
    end(process)
    machine("there")
    there = Catalog.open(root, "sim").folder
    assert records(there) == records(trained.folder)[:2]


def test_a_store_that_stays_away_is_one_line_and_the_command_goes_on_later(
    call: Call, root: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "PATIENCE", 0.5)
    catalog, (crop_id, *_) = camera(root)
    (catalog.folder / "round-0").mkdir()
    with pytest.raises(UserError, match="does not answer"), catalog.workspace.transaction("test"):
        _begin_outage(catalog.folder / "round-0" / "round.json", server)
    with pytest.raises(UserError, match=r"s3://.*/crops\.lance does not answer at http://127"):
        catalog.append_labels(_said(crop_id, "ana"))
    said = call("train", f"root={root}", "camera=dock", *SMALL)
    one_line(
        said, f"{root} does not answer", "run the same command again to continue; nothing is lost"
    )
    server.faults()
    assert "dock/round-0/round.json" not in names(root)
    with catalog.workspace.transaction("test"):
        assert "dock/round-0/round.json" in names(root)
    catalog.append_labels(_said(crop_id, "ana"))
    assert catalog.log(["by"])["by"].to_pylist() == ["ana"]


def _begin_outage(file: Path, server: Server) -> None:
    file.write_text("{}")
    server.faults(away=60.0)


def test_whoever_is_not_let_in_is_told_why(
    call: Call, root: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera(root)
    said = call("report", f"root=s3://nowhere-{os.getpid()}/a", "camera=dock")
    one_line(said, f"there is no bucket s3://nowhere-{os.getpid()} at {server.url}")
    for wrong in ("s3://", "s3:///a", "gs://cameras/a", "s3://cameras/ä"):
        with pytest.raises(UserError, match=r"expected a folder, or s3://bucket/prefix"):
            Catalog.open(wrong, "dock")
    server.ask("/moto-api/reset-auth", 0)
    try:
        said = call("report", f"root={root}", "camera=dock")
        one_line(said, f"{root} is forbidden to these credentials", "AWS_SECRET_ACCESS_KEY")
    finally:
        server.ask("/moto-api/reset-auth", 10**9)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    said = call("report", f"root={root}", "camera=dock")
    one_line(said, f"{root}: no credentials: set AWS_ACCESS_KEY_ID")


# -- killed ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("held", "where"),
    [
        # The draw is in the log, and the files that belong to it are on a machine that is gone.
        ("labels.lance/_versions/", "there"),
        # Half of the round is in the store, without its record.
        ("round-1/folds.json", "here"),
    ],
)
def test_a_killed_command_goes_on(
    call: Call, root: str, server: Server, machine: Elsewhere, simulated: Path, trained: Trained,
    monkeypatch: pytest.MonkeyPatch, held: str, where: str,
) -> None:  # fmt: skip
    bring(simulated, root)
    process = start("train", root, "camera=sim", "round=1", *SMALL)
    server.hold("round-0/round.json")
    server.hold(held)
    process.kill()
    process.communicate()
    server.faults()
    machine(where)
    settings = [f"root={root}", "camera=sim", "round=1", *SMALL]
    if where == "there":
        one_line(call("train", *settings), "camera sim is in use by process", "'train'")
        monkeypatch.setattr(mirror, "LEASE", 0.5)
        monkeypatch.setattr(mirror, "_CLOCK_STEP", 0.5)
        time.sleep(2.0)
    said = call("train", *settings)
    assert said.code == 0, said.err
    folder = Workspace.at(root, "sim").folder
    assert records(folder) == records(trained.folder)[:2]
    machine("third")
    third = Catalog.open(root, "sim").folder
    assert records(third) == records(folder)
    assert files(third) == files(folder)
    assert {f"sim/{name}" for name in files(folder)} | {"sim/lock"} <= names(root)


def test_what_a_kill_kept_from_the_store_is_dropped_once_others_were_at_work(
    root: str, machine: Elsewhere
) -> None:
    catalog, _ = camera(root)
    here = catalog.folder

    def made(text: str) -> None:
        """A round and a plot of a command that never got to bring them up."""
        (here / "round-0").mkdir(exist_ok=True)
        (here / "round-0" / "round.json").write_text(text)
        (here / "plot.png").write_text(text)

    with catalog.workspace.transaction("train"):
        pass
    made("mine")
    with catalog.workspace.transaction("train"):
        pass
    assert {"dock/round-0/round.json", "dock/plot.png"} <= names(root)
    made("too late")
    (here / "round-1").mkdir()
    (here / "round-1" / "round.json").write_text("too late")
    machine("there")
    with Catalog.open(root, "dock").workspace.transaction("train"):
        pass
    machine("here")
    Catalog.open(root, "dock")
    assert (here / "round-0" / "round.json").read_text() == "mine"
    assert not (here / "round-1").exists()


# -- the lock --------------------------------------------------------------------------------------

HOLDER = """
import sys
from collabteam.catalog import Catalog
from collabteam.storage import mirror
mirror.LEASE = 2.0
catalog = Catalog.open(sys.argv[1], "dock")
with catalog.workspace.transaction("hold"):
    (catalog.folder / "label.json").write_text("of the one who was frozen")
    print("held", flush=True)
    sys.stdin.readline()
"""


def hold_briefly(catalog: Catalog) -> None:
    with catalog.workspace.transaction("too"):
        pass


@pytest.mark.slow
def test_the_lock_of_a_dead_holder_is_taken_over_and_never_held_twice(
    root: str, machine: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "LEASE", 2.0)
    camera(root)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, root], env=environment(), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CameraInUse, match=rf"in use by process {holder.pid} .*'hold'"):
            hold_briefly(Catalog.open(root, "dock"))  # on the same machine
        machine("there")
        catalog = Catalog.open(root, "dock")
        until = time.monotonic() + 5.0
        while time.monotonic() < until:  # it lives, and so its lease does not end
            with pytest.raises(CameraInUse):
                hold_briefly(catalog)
            time.sleep(0.2)
        holder.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        while True:
            try:
                with catalog.workspace.transaction("next"):
                    assert time.monotonic() - stopped > mirror.LEASE * 3 / 4
                    (catalog.folder / "label.json").write_text("of the next one")
                    holder.send_signal(signal.SIGCONT)
                    _, err = holder.communicate("\n", timeout=60)
                break
            except CameraInUse:
                assert time.monotonic() - stopped < 20
                time.sleep(0.2)
    finally:
        holder.kill()
        holder.wait()
    assert holder.returncode == 1
    assert "another command took over the camera" in err
    machine("third")
    folder = Catalog.open(root, "dock").folder
    assert (folder / "label.json").read_text() == "of the next one"


def test_of_two_who_take_the_lock_over_one_gets_it(root: str, server: Server) -> None:
    camera(root)
    store = store_module.Store(f"{root}/dock")
    found: list[object] = []

    def take(number: int) -> None:
        try:
            found.append(mirror.Lease(store, f"copy {number}", {"command": "race"}))
        except mirror.LockHeld as held:
            found.append(held)

    for _ in range(3):
        racing = [threading.Thread(target=take, args=(number,)) for number in range(4)]
        for thread in racing:
            thread.start()
        for thread in racing:
            thread.join()
        (lease,) = [one for one in found if isinstance(one, mirror.Lease)]
        lease.release()
        assert len(found) == 4
        found.clear()
    assert lease.generation == 3


# -- footage ---------------------------------------------------------------------------------------


def test_a_video_that_two_machines_read_counts_once(root: str, machine: Elsewhere) -> None:
    Catalog.register(root, "dock", CLASSES)
    for number, where in enumerate(("here", "there")):
        machine(where)
        catalog = Catalog.open(root, "dock")
        spool = Spool(catalog.workspace)
        # Two machines' arithmetic differs in the last digit, and so do their crops.
        picture = io.BytesIO()
        Image.new("RGB", (40, 40), (number, 90, 90)).save(picture, "PNG")
        record = VideoRecord("0" * 24, "quay.mp4", f"/{where}/quay.mp4")
        with spool.writing(record) as file:
            file.add(Crop(picture.getvalue(), "quay.mp4", "1", 0, box=(0, 0, 40, 40)), CLASSES[0])
        assert len(spool.sealed()) == 1
    for where, read in (("here", 1), ("there", 0)):
        machine(where)
        catalog = Catalog.open(root, "dock")
        assert len(commit(catalog, Spool(catalog.workspace))) == read
        assert len(Catalog.open(root, "dock")) == 1
        assert not Spool(catalog.workspace).sealed()
        assert Spool(catalog.workspace).record("0" * 24) is not None
