"""Learners through the commands: another one than the paper's, and one that is killed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, SMALL, Call, environment, one_line, read_json, records
from safetensors.torch import load_file

from collabteam.catalog import Catalog


@pytest.mark.slow
def test_one_network_for_all_classes_goes_through_the_commands(root: Path, call: Call) -> None:
    train = ("train", f"root={root}", "camera=sim", *SMALL)
    done = call(*train, "round=1", "learner=softmax", "learner.passes=2")
    assert done.code == 0, done.err
    first, second = (read_json(root / "sim" / f"round-{k}" / "round.json") for k in (0, 1))
    for number, record in enumerate((first, second)):
        assert record["settings"]["learner"] == {"name": "softmax", "passes": 2}
        # One network votes on all classes, so they elect the same fold.
        (fold,) = {tuple(folds) for folds in record["voting"].values()}
        files = {file.name for file in (root / "sim" / f"round-{number}" / "branches").iterdir()}
        assert f"fold-{fold[0]}.safetensors" in files
        assert not any("pedestrian" in name for name in files)
    assert 0 < first["coverage"] < 1
    assert sum(row["taken"] for row in second["increment"].values()) > 0

    labelled = call("label", f"root={root}", "camera=sim", "threshold=paper")
    assert labelled.code == 0, labelled.err
    index = Catalog.open(root, "sim").index()
    assert (index.verdict_round == 1).sum() > 300
    audited = call("audit", f"root={root}", "camera=sim", "reviewer=oracle", "precision=0.6")
    assert audited.code in (0, 1), audited.err
    certificate = read_json(root / "sim" / "audits" / "1" / "certificate.json")
    assert set(certificate["classes"]) == set(CLASSES)
    exported = call("export", f"root={root}", "camera=sim", f"to={root.parent / 'out'}")
    assert exported.code == 0, exported.err

    refused = one_line(call(*train, "round=2"), "learner softmax -> paper", "rollback")
    assert "round 1" in refused


def test_a_learner_that_is_not_there_is_answered_by_near_names(root: Path, call: Call) -> None:
    said = call("train", f"root={root}", "camera=sim", *SMALL, "learner.name=sofmax")
    one_line(said, "learner", "sofmax", "softmax")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("optim.lr=1e300", ("fold 0: training diverged", "optim.lr")),
        ("trainer.threads=1000", ("trainer.threads=1000: expected 0 to ",)),
    ],
)
def test_training_that_cannot_end_well_is_one_line(
    root: Path, call: Call, setting: str, expected: tuple[str, ...]
) -> None:
    said = call("train", f"root={root}", "camera=sim", *SMALL, "optim.epochs=1", setting)
    assert said.code == 2, said.err
    last = said.err.strip().splitlines()[-1]
    assert all(text in last for text in expected)
    assert not list(root.rglob("*.safetensors"))
    assert not list(root.rglob("round.json"))


KILLED = """
import os, sys
from contextlib import contextmanager
from collabteam.reporting.terminal import Terminal
from collabteam.rounds.stages import train as stage
from collabteam import train
stage.CHECKPOINT_SECONDS = 0.0
crops = 0
inner = Terminal.stage
@contextmanager
def dying(self, title, total, unit):
    with inner(self, title, total, unit) as advance:
        def count(number, note=""):
            global crops
            advance(number, note)
            crops += number if "fold 0" in title else 0
            if crops > 0.6 * total:
                os._exit(9)
        yield count
Terminal.stage = dying
train.main()
"""


@pytest.mark.slow
def test_a_fold_that_is_killed_goes_on_to_the_same_networks(root: Path, call: Call) -> None:
    other = Path(shutil.copytree(root, root.with_name("undisturbed")))
    settings = ("camera=sim", *SMALL, "data.augment=strong")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, f"root={root}", *settings],
        env=environment(),
        cwd=root.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == 9, killed.stderr
    folder = root / "sim" / "round-0"
    assert not (folder / "fold-0.npz").exists()
    (unfinished,) = folder.glob(".fold-0-*")
    assert (unfinished / "fit.ckpt").exists()
    for place in (root, other):
        done = call("train", f"root={place}", *settings)
        assert done.code == 0, done.err
    assert not list(folder.glob(".fold-*"))
    assert records(root / "sim") == records(other / "sim")
    elsewhere = other / "sim" / "round-0"
    with np.load(folder / "fold-0.npz") as kept, np.load(elsewhere / "fold-0.npz") as whole:
        np.testing.assert_array_equal(kept["prob"], whole["prob"])
    for file in (folder / "branches").iterdir():
        ours, theirs = load_file(file), load_file(elsewhere / "branches" / file.name)
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
