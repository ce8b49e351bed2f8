"""A camera's files: their names, writes that are whole or not at all, locks, transactions."""

from __future__ import annotations

import os
import pickle
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import environment
from hypothesis import given
from hypothesis import strategies as st

from collabteam.errors import UserError
from collabteam.machine import processors, utc_stamp, utc_time
from collabteam.storage import staging
from collabteam.storage.files import (
    read_json,
    replacing,
    replacing_folder,
    replacing_path,
    write_json,
    write_npz,
    write_parquet,
    write_text,
)
from collabteam.storage.layout import CameraFiles, is_mark, is_shared, is_under_lock
from collabteam.storage.locks import Lock, LockHeld, file_lock, is_locked
from collabteam.storage.roots import root_folder, work_folder
from collabteam.storage.staging import staging_folder
from collabteam.storage.workspace import CameraInUse, Workspace, registered

# -- names -------------------------------------------------------------------------------------


def test_names_are_those_of_every_camera_that_exists(tmp_path: Path) -> None:
    files = CameraFiles(tmp_path)
    round_, audit = files.round(12), files.audit(3)
    found = {
        files.manifest: "camera.yaml",
        files.lock: "lock",
        files.table_folder("crops"): "crops.lance",
        files.table_folder("labels"): "labels.lance",
        files.table_folder("truth"): "truth.lance",
        files.quarantine: "quarantine.jsonl",
        files.label_record: "label.json",
        files.videos: "videos",
        files.incoming: "incoming",
        files.attic: "rolled-back",
        files.review.lock: "review/lock",
        files.review.sessions: "review/sessions.json",
        files.report("table1.csv"): "table1.csv",
        round_.record: "round-12/round.json",
        round_.sample: "round-12/sample.json",
        round_.increment: "round-12/increment.json",
        round_.folds: "round-12/folds.json",
        round_.fold_predictions(4): "round-12/fold-4.npz",
        round_.branch("v1.walker", 4): "round-12/branches/v1.walker.fold-4.safetensors",
        round_.scores(): "round-12/scores",
        round_.scores("openvino-int8"): "round-12/scores-openvino-int8",
        round_.scores_check("openvino-int8"): "round-12/scores-openvino-int8-check.json",
        round_.openvino: "round-12/openvino",
        round_.logged: "round-12/wandb/logged.json",
        round_.fold_log(4): "round-12/csv/fold-4",
        audit.record: "audits/3/audit.json",
        audit.release: "audits/3/release.parquet",
        audit.certificate: "audits/3/certificate.json",
    }
    assert {path.relative_to(tmp_path).as_posix(): path for path in found} == {
        name: path for path, name in found.items()
    }


def test_rounds_are_numbers_and_not_texts(tmp_path: Path) -> None:
    files = CameraFiles(tmp_path)
    for name in (*(f"round-{n}" for n in range(12)), "round-x", "round-3.part", "rounds"):
        (tmp_path / name).mkdir()
    (tmp_path / "round-1" / "fold-10.npz").touch()
    (tmp_path / "round-1" / "fold-9.npz").touch()
    (tmp_path / "round-1" / "fold-9.part.npz").touch()
    assert files.round_numbers() == list(range(12))
    assert list(files.round(1).all_fold_predictions()) == [9, 10]

    for attempt in range(11):
        files.round(9).folder.mkdir(exist_ok=True)
        write_text(files.round(9).sample, str(attempt))
        moved = files.set_rounds_aside(8)
        assert moved == ([11, 10, 9] if not attempt else [9])
    assert files.round_numbers() == list(range(9))
    kept = [one.sample.read_text() for one in files.rolled_back(9)]
    assert kept == [str(attempt) for attempt in reversed(range(11))]  # the newest first
    assert len(files.rolled_back(11)) == 1
    assert not files.rolled_back(1)


def test_audits_are_numbers_and_not_texts(tmp_path: Path) -> None:
    files = CameraFiles(tmp_path)
    assert files.audit_numbers() == []
    for name in ("1", "2", "10", "old", "3.bak"):
        (tmp_path / "audits" / name).mkdir(parents=True)
    assert files.audit_numbers() == [1, 2, 10]


def test_what_is_in_a_store_besides_this_machine(tmp_path: Path) -> None:
    files = CameraFiles(tmp_path)

    def name(path: Path) -> str:
        return path.relative_to(tmp_path).as_posix()

    for path in (
        files.manifest, files.label_record, files.quarantine, files.round(3).record,
        files.round(3).branch("car", 0), files.round(3).scores() / "part-00000.parquet",
        files.audit(1).release, files.videos / "0123.json", files.report("table1.png"),
        files.attic / "round-3.0" / "round.json", files.wandb / "offline-run" / "run.wandb",
    ):  # fmt: skip
        assert is_shared(name(path)), path
    for path in (
        files.lock, files.review.sessions, files.incoming / "0123.parquet",
        files.table_folder("crops") / "data" / "1.lance", tmp_path / "labels.lock",
        files.round(3).folder / ".fold-1.npz.part", tmp_path / ".synced.json",
        files.wandb / "cache" / "x", files.wandb / "staged-1" / "x",
    ):  # fmt: skip
        assert not is_shared(name(path)), path
    marks = [files.manifest, files.label_record, files.round(0).record, files.audit(1).record]
    assert all(is_mark(name(path)) for path in [*marks, files.audit(1).certificate])
    assert not any(is_mark(name(path)) for path in (files.round(0).folds, files.quarantine))
    assert is_under_lock(name(files.round(10).folds))
    assert is_under_lock(name(files.audit(1).release))
    assert not is_under_lock(name(files.videos / "0123.json"))
    assert not is_under_lock(name(files.attic / "round-1.0" / "round.json"))


# -- writes ------------------------------------------------------------------------------------


def _fail(written: int) -> None:
    raise KeyError(written)


@given(st.binary(), st.binary())
def test_a_write_is_whole_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory, before: bytes, after: bytes
) -> None:
    file = tmp_path_factory.mktemp("files") / "x.bin"
    file.write_bytes(before)
    with pytest.raises(KeyError), replacing(file) as sink:
        _fail(sink.write(after))
    assert file.read_bytes() == before
    with replacing(file) as sink:
        sink.write(after[:1])
        sink.flush()
        assert file.read_bytes() == before
        sink.write(after[1:])
    assert file.read_bytes() == after
    assert list(file.parent.iterdir()) == [file]


def test_each_kind_of_content_comes_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"share": 0.5})
    assert read_json(tmp_path / "a.json") == {"share": 0.5}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"share": float("nan")})
    assert read_json(tmp_path / "a.json") == {"share": 0.5}

    write_npz(tmp_path / "a.npz", {"prob": np.eye(2), "crop_id": np.array(["x"])})
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["prob"].tolist() == [[1, 0], [0, 1]]
        assert arrays["crop_id"].tolist() == ["x"]

    write_parquet(tmp_path / "a.parquet", pa.table({"n": [1, 2]}))
    assert pq.read_table(tmp_path / "a.parquet")["n"].to_pylist() == [1, 2]

    with replacing_path(tmp_path / "b.c.npz") as part:
        assert part.suffix == ".npz"
        np.savez(part, n=3)  # adds an ending unless it is there
    assert int(np.load(tmp_path / "b.c.npz")["n"]) == 3
    assert {file.name for file in tmp_path.iterdir()} == {"a.json", "a.npz", "a.parquet", "b.c.npz"}


@pytest.mark.parametrize("text", ["", "[]", '{"a": '])
def test_broken_json_is_one_line_with_a_remedy(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=r"a\.json: expected JSON .*: train again") as caught:
        read_json(tmp_path / "a.json", "train again")
    assert "\n" not in str(caught.value)


KILLED = """
import os, signal, sys
from pathlib import Path
from collabteam.storage.files import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write(b"half of it" * 1000)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_kill_left_is_used_up_by_the_next_writer(tmp_path: Path) -> None:
    file = tmp_path / "large.bin"
    file.write_bytes(b"old")
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(file)], env=environment(), check=False
        )
        assert done.returncode == -signal.SIGKILL
        assert file.read_bytes() == b"old"
        assert len(list(tmp_path.iterdir())) == 2  # not one more with each kill
    with replacing(file) as sink:
        sink.write(b"new")
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    file = tmp_path / "x"
    with replacing(file) as first, replacing(file) as second:
        first.write(b"first" * 100)
        second.write(b"second" * 100)
    assert file.read_bytes() == b"first" * 100  # the last to end
    assert list(tmp_path.iterdir()) == [file]


def test_a_private_file_is_its_owners_alone(tmp_path: Path) -> None:
    write_text(tmp_path / "secret", "x", private=True)
    (tmp_path / ".secret.part").touch(0o644)  # a kill's
    write_text(tmp_path / "secret", "y", private=True)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    folder = tmp_path / "scores"
    for content in ("one", "two"):
        with replacing_folder(folder) as part:
            (part / "team.json").write_text(content)
            assert part.parent.name.startswith(".")
        assert (folder / "team.json").read_text() == content
    with pytest.raises(KeyError), replacing_folder(folder) as part:
        _fail((part / "team.json").write_text("three"))
    assert (folder / "team.json").read_text() == "two"
    with replacing_folder(folder):  # over what the failed one left
        pass
    assert list(tmp_path.iterdir()) == [folder]
    assert list(folder.iterdir()) == []


STAGED = """
import os, signal, sys
from pathlib import Path
from collabteam.storage.staging import staging_folder
with staging_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("of it")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def _killed(to: Path) -> Path:
    """What a call leaves that is killed while it makes ``to``."""
    before = set(to.parent.iterdir())
    subprocess.run([sys.executable, "-c", STAGED, str(to)], env=environment(), check=False)
    (left,) = set(to.parent.iterdir()) - before
    return left


def _stage(to: Path) -> None:
    with staging_folder(to) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.parent == to.parent


def test_what_a_kill_left_goes_and_what_somebody_has_stays(tmp_path: Path) -> None:
    """A mark with our words, by us, that nobody holds: without any of the three it stays."""
    to, away = tmp_path / "out", tmp_path / "away"
    away.mkdir()
    (away / "mine").write_text("mine")
    left = _killed(to)
    assert re.fullmatch(r"\.out\.[0-9a-f]{16}\.part", left.name)
    hidden = f".out.{'0' * 16}.part"
    links = [tmp_path / ".out.part", tmp_path / hidden]
    for link in links:
        link.symlink_to(away)
    unmarked, marked_otherwise = (tmp_path / f".out.{n * 16}.part" for n in "12")
    for folder in (unmarked, marked_otherwise):
        folder.mkdir()
        (folder / "mine").write_text("mine")
    (marked_otherwise / ".collabteam-staging").write_text("remember the milk")
    kept = {*links, unmarked, marked_otherwise, away}
    with staging_folder(tmp_path / "other") as alive:
        (alive / "x").write_text("x")
        _stage(to)
        assert (alive / "x").exists()
        assert set(tmp_path.iterdir()) == {*kept, alive}
    assert set(tmp_path.iterdir()) == kept
    assert all((folder / "mine").read_text() == "mine" for folder in kept)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder somebody else's")
def test_what_another_user_left_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = _killed(tmp_path / "out")
    os.chown(left, 1234, 1234)
    _stage(tmp_path / "out")
    assert left.exists()
    os.chown(left, 0, 0)
    monkeypatch.setattr(staging, "_cleaned", set())  # as in the next process
    _stage(tmp_path / "out")
    assert not left.exists()


def test_a_process_looks_through_a_folder_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder with a file for each of many videos would be read for each of them."""
    looked: list[object] = []
    scandir = os.scandir

    def counted(place: Any = ".") -> Any:
        looked.append(place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", counted)
    for number in range(5):
        write_text(tmp_path / f"{number}.json", "{}")
    assert looked.count(tmp_path) == 1


def test_a_pipe_in_place_of_a_mark_is_not_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / ".a.txt.0123456789abcdef.part"
    folder.mkdir()
    os.mkfifo(folder / ".collabteam-staging")
    with staging_folder(tmp_path / "a.txt", alone=True):
        pass
    assert folder.is_dir()


def test_a_name_of_255_bytes_has_a_staging_folder(tmp_path: Path) -> None:
    for name in ("x" * 255, "é" * 127):
        write_text(tmp_path / name, "x")
        assert (tmp_path / name).read_text() == "x"
    assert len(list(tmp_path.iterdir())) == 2


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    """Of the names that could be foreseen, and in place of the file itself."""
    outside = tmp_path / "outside"
    outside.write_text("mine")
    camera = tmp_path / "k"
    camera.mkdir()
    file = camera / "table1.csv"
    for name in (
        ".table1.csv.part",
        ".part-table1.csv",
        ".table1.csv",
        "table1.csv",
        "table1.part",
    ):
        (camera / name).symlink_to(outside)
    write_text(file, "new")
    assert file.read_text() == "new"
    assert not file.is_symlink()
    with replacing_path(file) as part:
        part.write_text("newer")
    assert file.read_text() == "newer"
    (camera / "lock").symlink_to(outside)
    with pytest.raises(UserError, match=r"k/lock cannot be written: it is a link"):
        Lock(camera / "lock", {"command": "train"})
    with pytest.raises(OSError, match="symbolic link"), file_lock(camera / "lock"):
        pass
    assert outside.read_text() == "mine"


def test_the_note_of_a_lock_replaces_no_content_of_others(tmp_path: Path) -> None:
    """Another name of somebody's file, a pipe and a folder in place of the lock."""
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "lock").hardlink_to(tmp_path / "outside")
    lock = Lock(tmp_path / "lock", {"command": "train"})
    with pytest.raises(LockHeld):
        Lock(tmp_path / "lock", {"command": "train"})
    lock.release()
    assert (tmp_path / "outside").read_text() == "mine"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(UserError, match=name):
            Lock(tmp_path / name, {"command": "train"})


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / "in").mkdir(parents=True)
    for path, reason in (
        (tmp_path / "file" / "x", "Not a directory"), (tmp_path / "none" / "x", "No such file"),
        (tmp_path / "folder", "Is a directory"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"{path} cannot be written: {reason}"):
            write_text(path, "x")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}


# -- locks -------------------------------------------------------------------------------------


def test_shared_locks_keep_out_the_one_who_must_be_alone(tmp_path: Path) -> None:
    file = tmp_path / "x.lock"
    shared, alone = (lambda: file_lock(file, shared=True, wait=False)), file_lock
    with shared(), shared(), pytest.raises(BlockingIOError), alone(file, wait=False):
        pass
    with alone(file), pytest.raises(BlockingIOError), shared():
        pass


def test_asking_whether_a_lock_is_held_leaves_no_trace(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    assert not is_locked(file)
    assert not file.exists()
    lock = Lock(file, {"command": "train"})
    assert is_locked(file)
    assert b"train" in file.read_bytes()
    with pytest.raises(LockHeld) as caught:
        Lock(file, {"command": "label"})
    assert caught.value.holder["command"] == "train"
    assert f"process {os.getpid()} on host" in caught.value.describe()
    lock.release()
    lock.release()
    assert not is_locked(file)


# -- workspaces --------------------------------------------------------------------------------


def test_a_workspace_of_a_folder(tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path, "S10-08")
    assert (workspace.folder, workspace.name) == (tmp_path / "S10-08", "S10-08")
    assert workspace.place == str(tmp_path / "S10-08")
    assert workspace.place_of(workspace.round(2).record) == f"{workspace.place}/round-2/round.json"
    assert not list(tmp_path.iterdir())  # looking makes nothing
    assert registered(tmp_path) == {}
    again = pickle.loads(pickle.dumps(workspace))
    assert (again.folder, again.place) == (workspace.folder, workspace.place)


@pytest.mark.parametrize("root", ["gs://bucket/x", "s3://", "s3://bucket//x", "s3://../x"])
def test_other_addresses_are_refused(root: str) -> None:
    with pytest.raises(UserError, match="expected a folder, or s3://bucket/prefix"):
        Workspace.at(root, "S1")
    with pytest.raises(UserError, match="expected a folder"):
        root_folder(root)


def test_folders_of_a_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    copies = tmp_path / "collabteam"
    assert root_folder("s3://bucket/a/b/") == copies / "aws" / "bucket" / "a" / "b"
    monkeypatch.setenv(
        "AWS_ENDPOINT_URL", "http://[::1]:9000/"
    )  # the same bucket of another server
    assert root_folder("s3://bucket/a/b") == copies / "___1__9000" / "bucket" / "a" / "b"
    assert root_folder("outputs") == work_folder("outputs") == Path("outputs")
    assert work_folder("s3://bucket/a/b") == Path("outputs")


def test_transactions_may_be_nested_and_end_with_an_exception(tmp_path: Path) -> None:
    (tmp_path / "S1").mkdir()
    workspace, other = Workspace.at(tmp_path, "S1"), Workspace.at(tmp_path, "S1")
    with workspace.transaction("train"):
        with pytest.raises(KeyError), workspace.transaction("train"):
            raise KeyError
        with pytest.raises(CameraInUse, match="'train'"), other.transaction("label"):
            pass
        with workspace.publishing(workspace.report("table1.png")) as files:
            assert files == [tmp_path / "S1" / "table1.png"]
    with other.transaction("label"):
        pass


# -- the machine -------------------------------------------------------------------------------


def test_times_are_in_utc() -> None:
    assert utc_stamp(1763818800.9) == "2025-11-22T13:40:00Z"
    assert f"{utc_time(0):%Y-%m-%d %H:%M}" == "1970-01-01 00:00"
    assert utc_stamp() >= utc_stamp(1763818800)


def test_processors_are_those_that_this_process_may_use() -> None:
    code = "from collabteam.machine import processors; print(processors())"
    one = min(os.sched_getaffinity(0))
    done = subprocess.run(
        [sys.executable, "-c", f"import os; os.sched_setaffinity(0, [{one}]); {code}"],
        env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "1\n"
    assert processors() == len(os.sched_getaffinity(0))
