"""Killed at any moment and begun again; one job a camera; settings that change; a full disk."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    REPOSITORY,
    SMALL,
    Call,
    Trained,
    command,
    environment,
    fingerprints,
    one_line,
    probabilities,
    read_json,
    records,
    run,
    said_of_crops,
    start,
)

from collabteam.catalog import Catalog, LabelEvent
from collabteam.errors import UserError
from collabteam.rounds.loop import train_rounds
from collabteam.settings import (
    CameraConfig,
    DataConfig,
    LoggerConfig,
    OptimConfig,
    TeamConfig,
    TrainConfig,
    TrainerConfig,
    from_record,
)
from collabteam.settings.fields import setting


def everything(folder: Path) -> dict[str, Any]:
    """All that two runs of the same settings have in common."""
    return {
        "records": records(folder),
        "log": said_of_crops(folder),
        "probabilities": probabilities(folder),
        "i0": read_json(folder / "round-0" / "sample.json"),
        "increments": [read_json(file) for file in sorted(folder.glob("round-*/increment.json"))],
        "folds": [read_json(file) for file in sorted(folder.glob("round-*/folds.json"))],
    }


# --- killed ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_as_if_undisturbed(
    trained: Trained, simulated: Path, tmp_path: Path
) -> None:
    draw = random.Random(0)
    root = Path(shutil.copytree(simulated, tmp_path / "outputs"))
    settings = (f"root={root}", "camera=sim", "round=2", *SMALL)
    words = command("train", *settings)
    kills, attempt = 0, 0
    work = sum(
        sum(read_json(file)["seconds"].values())
        for file in trained.folder.glob("round-*/round.json")
    )
    # From the imports to the writes between stages. An attempt gets as far as the ones before
    # left work to do, and one that finished leaves a new camera to the next.
    while kills < 6:
        # The first two are fresh, and die while they import; the others have that behind them.
        lasts = trained.seconds - work if kills < 2 else work
        delay = lasts * (attempt % 4 + draw.random()) / 4
        attempt += 1
        nowhere: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = (
            subprocess.Popen(words, cwd=tmp_path, env=environment(), **nowhere)
            if kills < 2
            else start("train", tmp_path, *settings, **nowhere)
        )
        try:
            assert process.wait(delay) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            continue
        assert everything(root / "sim") == everything(trained.folder)
        shutil.rmtree(root)
        shutil.copytree(simulated, root)
    done = run("train", root, "camera=sim", "round=2", *SMALL)
    assert done.returncode == 0, done.stderr
    assert everything(root / "sim") == everything(trained.folder)


# Forks a child for every death, so that Python and torch are started once. The parent must not
# run anything that begins a thread: Lance in a child would wait for it for ever.
DYING = """
import os, shutil, signal, sys
from pathlib import Path
import collabteam.rounds.loop as loop
import collabteam.learners.methods.paper  # which every child would import by its name
from collabteam.storage.tables import Table
from collabteam.settings import (
    CameraConfig, DataConfig, LoggerConfig, OptimConfig, TeamConfig, TrainConfig, TrainerConfig,
)

ROUND, ROLLBACK = int(sys.argv[2]), None if sys.argv[3] == "none" else int(sys.argv[3])

def config(root):
    return TrainConfig(
        CameraConfig("sim", ["cyclist", "motorcyclist", "pedestrian"]), str(root), round=ROUND,
        reviewer="oracle", seed_per_class=20, increment_per_class=3, quantile=0.0,
        rollback=ROLLBACK,
        data=DataConfig(image_size=16, train_folds=[0], batch_size=16),
        team=TeamConfig(backbone="test_resnet", init="previous"),
        optim=OptimConfig(lr=0.05, epochs=3, epochs_later=1),
        trainer=TrainerConfig(threads=1, precision="fp32"), logger=LoggerConfig(kind="none"),
    )

def train(root, dies):
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        assert status in (0, signal.SIGKILL), status
        return status == 0
    code = 1
    try:
        dies()
        loop.train_rounds(config(root))
        code = 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        os._exit(code)

def writes(wrap):
    replace, append = Path.replace, Table.append_few
    Path.replace = lambda self, target: wrap(lambda: replace(self, target), Path(target))
    Table.append_few = lambda self, rows: wrap(lambda: append(self, rows), self.path / "new")

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def before(number):
    left = [number]
    def wrap(write, target):
        left[0] -= 1
        if not left[0]:
            die()
        return write()
    writes(wrap)

def after_what_is_new():
    def wrap(write, target):
        # What a side folder holds is begun anew each time.
        staged = any(folder.suffix == ".part" for folder in target.parents)
        new = not target.exists() and not staged
        write()
        if new:
            die()
    writes(wrap)

base = Path(sys.argv[1])
if step := int(sys.argv[4]):
    number, finished = 1 - step, False
    while not finished:
        number += step
        root = base / f"before-{number}"
        shutil.copytree(base / "start", root)
        finished = train(root, lambda: before(number))
        assert finished or train(root, lambda: None)
else:
    root = base / "after-each"
    shutil.copytree(base / "start", root)
    number = 1
    while not train(root, after_what_is_new):
        number += 1
print(number)
"""


def die_again_and_again(base: Path, number: int, rollback: str, step: int) -> int:
    """Train in ``base``, killed before every ``step``-th write, or after each new one if it is 0.

    Returns the number of the write that was never made, or how often it was begun.
    """
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(base), str(number), rollback, str(step)],
        cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_killed_at_any_write_it_ends_as_if_undisturbed(simulated: Path, tmp_path: Path) -> None:
    shutil.copytree(simulated, tmp_path / "start")
    count = die_again_and_again(tmp_path, 1, "none", 3)
    # Of two rounds: the draw and its labels, folds, three networks, the fold, scores, the record.
    assert count > 18
    undisturbed = everything(tmp_path / f"before-{count}" / "sim")
    assert sum(row["taken"] for row in undisturbed["records"][1]["increment"].values()) > 0
    for number in range(1, count, 3):
        assert everything(tmp_path / f"before-{number}" / "sim") == undisturbed, number
    # That was every third write, each on a camera of its own; now all of them on one, whose every
    # attempt dies right after the first thing that is new.
    assert die_again_and_again(tmp_path, 1, "none", 0) > 18
    assert everything(tmp_path / "after-each" / "sim") == undisturbed


@pytest.mark.slow
def test_killed_amid_a_rollback_it_is_repeated(finished: Path, tmp_path: Path) -> None:
    """Three rounds are moved, then the log is told; each may be the last thing done."""
    finished.rename(tmp_path / "start")
    count = die_again_and_again(tmp_path, 0, "-1", 2)
    undisturbed = everything(tmp_path / f"before-{count}" / "sim")
    (record,) = undisturbed["records"]
    assert record["round"] == 0
    for number in range(1, count, 2):
        folder = tmp_path / f"before-{number}" / "sim"
        kept = {path.name for path in (folder / "rolled-back").iterdir()}
        assert {"round-0.0", "round-1.0", "round-2.0"} <= kept
        assert (Catalog(folder).index().increment_round == -1).all()
        found = everything(folder)
        del found["log"]  # may say twice that it is rolled back
        assert found == {name: undisturbed[name] for name in found}, number


def test_a_broken_fold_is_trained_again(trained: Trained, root: Path, call: Call) -> None:
    settings = (f"root={root}", "camera=sim", *SMALL)
    assert call("train", *settings).code == 0
    folder = root / "sim" / "round-0"
    (folder / "round.json").unlink()
    content = (folder / "fold-0.npz").read_bytes()
    (folder / "fold-0.npz").write_bytes(content[: len(content) // 2])
    said = call("train", *settings)
    assert said.code == 0, said.err
    assert "fold-0.npz is damaged" in said.err
    assert records(root / "sim") == records(trained.folder)[:1]


def test_nothing_is_left_of_folds_that_were_dropped(
    trained: Trained, root: Path, call: Call
) -> None:
    """Their predictions would decide on thresholds, their checkpoints stay for ever."""
    settings = (f"root={root}", "camera=sim", *SMALL)
    assert call("train", *settings).code == 0
    folder = root / "sim" / "round-0"
    (folder / "round.json").unlink()
    shutil.copy(folder / "fold-0.npz", folder / "fold-3.npz")
    (folder / ".fold-3-0123abcd").mkdir()
    (folder / ".fold-3-0123abcd" / "fit.ckpt").write_bytes(b"x")
    assert call("train", *settings).code == 0
    assert not list(folder.glob(".fold-*")) + list(folder.glob("fold-3.*"))
    assert records(root / "sim") == records(trained.folder)[:1]


def test_an_unfinished_round_forgets_other_settings(
    trained: Trained, root: Path, call: Call
) -> None:
    """What a killed command left counts only for the settings that made it."""
    settings = (f"root={root}", "camera=sim", *SMALL)
    other = ("optim.epochs=1", "seed_per_class=15", "seed=3")
    assert call("train", *settings, *other).code == 0
    before = read_json(root / "sim" / "round-0" / "sample.json")
    (root / "sim" / "round-0" / "round.json").unlink()
    said = call("train", *settings)
    assert said.code == 0, said.err
    assert "i0 of sim is drawn again" in said.err
    after = read_json(root / "sim" / "round-0" / "sample.json")
    assert (len(before["crops"]), len(after["crops"])) == (45, 120)
    (record,) = records(root / "sim")
    assert record["train_size"] == 120
    # Whoever settles on the same settings from the start has another i0 but as many epochs.
    assert "round 0, fold 0: 120 crops, 8 epochs: done" in said.err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_amid_training_it_says_how_to_go_on(
    root: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Lightning would end as if all were done."""
    process = start("train", tmp_path, f"root={root}", "camera=sim", *SMALL, "optim.epochs=5000")
    try:
        until = time.monotonic() + 90
        while not (root / "sim" / "round-0" / "folds.json").exists():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(2)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + number, err
    assert "; run the same command again to continue" in err
    assert "Traceback" not in out + err
    assert not (root / "sim" / "round-0" / "round.json").exists()


# --- one job a camera --------------------------------------------------------------------------


@pytest.mark.slow
def test_one_job_a_camera(root: Path, tmp_path: Path, call: Call) -> None:
    long = ("optim.epochs=5000", "data.image_size=64")
    holder = start(
        "train", tmp_path, f"root={root}", "camera=sim", *SMALL, *long,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until = time.monotonic() + 60
        # The simulation before signed the lock, too.
        while f'"pid": {holder.pid},' not in (root / "sim" / "lock").read_text():
            assert holder.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        began = time.monotonic()
        refused = call("train", f"root={root}", "camera=sim", *SMALL)
        assert time.monotonic() - began < 10
        one_line(refused, "camera sim is in use by", f"process {holder.pid} ", "'train'")
        (tmp_path / "more").mkdir()
        more = ("simulate", f"root={root}", "camera=sim", "crops=5")
        one_line(call(*more), f"process {holder.pid} ")
        # Another camera is nobody's, and reports need no lock.
        assert call("simulate", f"root={root}", "camera=other", "crops=5").code == 0
        one_line(call("report", f"root={root}", "camera=sim"), "no finished round")
        assert holder.poll() is None
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    said = call("train", f"root={root}", "camera=sim", *SMALL, "optim.epochs=1")
    assert said.code == 0, said.err


# --- settings that change ----------------------------------------------------------------------


def test_other_settings_are_refused_with_the_two_ways_on(finished: Path, call: Call) -> None:
    before = fingerprints(finished)
    for number in (2, 3):
        said = call(
            *("train", f"root={finished}", "camera=sim", f"round={number}", *SMALL),
            *("optim.lr=0.2", "seed=7"),
        )
        line = one_line(said, "round 2 of camera sim was made with other settings")
        assert "experiment=scratch now" not in line
        assert "optim.lr 0.05 -> 0.2; seed 0 -> 7" in line
        assert "root=" in line
        assert "rollback=2 keeps round 2" in line
        assert "rollback=-1 starts over" in line
        assert fingerprints(finished) == before


@dataclass
class LaterTrainConfig(TrainConfig):
    """Settings of a later version."""

    patience: int = setting(0, ge=0, help="epochs to wait", when_absent=0)
    looks: int = setting(3, ge=1, help="how often to look", affects="speed")


def test_a_setting_of_a_later_version_leaves_older_cameras_usable(
    finished: Path, trained: Trained
) -> None:
    settings = read_json(trained.folder / "round-2" / "round.json")["settings"]
    config = LaterTrainConfig(
        from_record(CameraConfig, settings.pop("camera")), str(finished), round=3,
        data=from_record(DataConfig, settings.pop("data")),
        team=from_record(TeamConfig, settings.pop("team")),
        optim=from_record(OptimConfig, settings.pop("optim")),
        trainer=TrainerConfig(threads=1, precision="fp32"), logger=LoggerConfig(kind="none"),
        **settings,
    )  # fmt: skip
    before = fingerprints(finished)
    with pytest.raises(UserError) as refused:
        train_rounds(replace(config, patience=2))
    assert "made with other settings (patience 0 -> 2): keep those" in str(refused.value)
    assert fingerprints(finished) == before
    made = train_rounds(replace(config, looks=5))[-1]
    assert made.round == 3
    assert "patience" not in made.settings
    # The version of today takes that round for its own.
    again = train_rounds(
        TrainConfig(**{f.name: getattr(config, f.name) for f in fields(TrainConfig)})
    )
    assert again[-1] == made


@pytest.mark.parametrize(
    "setting", ["trainer.threads=2", "trainer.score_batch_size=100", "logger=csv"]
)
def test_what_makes_no_difference_is_not_compared(finished: Path, call: Call, setting: str) -> None:
    said = call("train", f"root={finished}", "camera=sim", "round=2", *SMALL, setting)
    assert said.code == 0, said.err


def test_a_rollback_keeps_what_came_before_and_goes_on(
    finished: Path, trained: Trained, call: Call
) -> None:
    folder = finished / "sim"
    changed = ("rollback=1", "increment_per_class=2", "quantile=0.25")
    said = call("train", f"root={finished}", "camera=sim", "round=2", *SMALL, *changed)
    assert said.code == 0, said.err
    assert "took back rounds 2 to 2 of sim" in said.err
    assert str(folder / "rolled-back") in said.err
    old, new = records(trained.folder), records(folder)
    assert new[:2] == old[:2]
    assert new[2]["settings"]["increment_per_class"] == 2
    assert all(row["taken"] <= 2 for row in new[2]["increment"].values())
    assert read_json(folder / "rolled-back" / "round-2.0" / "round.json")["round"] == 2
    # In the log both draws stand, and of the taken back one nothing counts.
    team = [said for said in said_of_crops(folder) if said[4] == "2"]
    assert len(team) == sum(
        row["taken"] for record in (old[2], new[2]) for row in record["increment"].values()
    )
    index = Catalog(folder).index()
    counted = {round_: int((index.increment_round == round_).sum()) for round_ in (1, 2)}
    assert counted == {k: sum(row["taken"] for row in new[k]["increment"].values()) for k in (1, 2)}
    # Without the rollback the same command finds it done.
    before = fingerprints(finished)
    assert call(
        "train", f"root={finished}", "camera=sim", "round=2", *SMALL, *changed[1:]
    ).code == 0  # fmt: skip
    assert fingerprints(finished) == before


def test_a_rollback_to_the_beginning_has_the_same_i0(
    finished: Path, trained: Trained, call: Call
) -> None:
    said = call("train", f"root={finished}", "camera=sim", "round=2", *SMALL, "rollback=-1")
    assert said.code == 0, said.err
    assert "took back rounds 0 to 2" in said.err
    new, old = everything(finished / "sim"), everything(trained.folder)
    for name in ("records", "i0", "increments", "probabilities"):
        assert new[name] == old[name], name


def test_a_rollback_to_now_lets_settings_change(finished: Path, call: Call) -> None:
    """Also the size of pictures, although the round before must vote on crops that came since."""
    assert call("simulate", f"root={finished}", "camera=sim", "crops=30", "seed=2").code == 0
    before = fingerprints(finished / "sim" / "round-1")
    changed = ("round=3", "rollback=2", "data.image_size=32", "team.joint=min")
    said = call("train", f"root={finished}", "camera=sim", *SMALL, *changed)
    assert said.code == 0, said.err
    assert records(finished / "sim")[3]["settings"]["data"]["image_size"] == 32
    assert fingerprints(finished / "sim" / "round-1") == before


def test_another_network_cannot_go_on_from_the_one_before(finished: Path, call: Call) -> None:
    changed = ("round=3", "rollback=2", "team.attention=se")
    said = call("train", f"root={finished}", "camera=sim", *SMALL, *changed)
    assert said.code == 2
    assert "Traceback" not in said.err
    assert "team.attention cbam -> se" in said.err
    assert "team.init=scratch" in said.err
    said = call("train", f"root={finished}", "camera=sim", *SMALL, *changed, "team.init=scratch")
    assert said.code == 0, said.err


def test_draws_of_a_lost_round_are_drawn_again(
    finished: Path, trained: Trained, call: Call
) -> None:
    """A round's folder that somebody deleted is not a reason to mix two draws."""
    shutil.rmtree(finished / "sim" / "round-2")
    said = call("train", f"root={finished}", "camera=sim", "round=2", *SMALL)
    assert said.code == 0, said.err
    assert records(finished / "sim") == records(trained.folder)


def test_a_corrected_label_does_not_undo_what_is_finished(finished: Path, call: Call) -> None:
    catalog = Catalog.open(finished, "sim")
    crop_id = read_json(finished / "sim" / "round-0" / "sample.json")["crops"][0]
    catalog.append_labels([LabelEvent(crop_id, "unknown", "person")])
    before = fingerprints(finished)
    assert call("train", f"root={finished}", "camera=sim", "round=2", *SMALL).code == 0
    assert fingerprints(finished) == before


# --- a full disk -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_full_disk_loses_nothing(simulated: Path, trained: Trained, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    size = sum(path.stat().st_size for path in simulated.rglob("*")) // 1024
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size + 2500}k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        root = Path(shutil.copytree(simulated, disk / "outputs"))
        for extra in (2500, 6000):
            size_now = f"remount,size={size + extra}k"
            subprocess.run(["mount", "-o", size_now, str(disk)], check=True)
            full = run("train", root, "camera=sim", "round=2", *SMALL)
            assert full.returncode == 2, full.stderr
            assert "Traceback" not in full.stderr
            assert "the disk is full" in full.stderr.splitlines()[-1]
            assert "run the same command again" in full.stderr.splitlines()[-1]
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        done = run("train", root, "camera=sim", "round=2", *SMALL)
        assert done.returncode == 0, done.stderr
        assert everything(root / "sim") == everything(trained.folder)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
