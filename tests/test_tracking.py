"""What W&B and CSV have on disk after folds were trained, one of them killed on the way.

The folds are trained in processes of their own: a fresh one shows what is printed and what is
written where, and only a process of its own can be killed.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from wandb_files import history, records

from collabteam.events import Fit
from collabteam.reporting.tracking import Tracking
from collabteam.settings import LoggerConfig

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

TRAIN = """
import logging, os, signal, sys, warnings
from pathlib import Path
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import WandbLogger
from collabteam.events import Fit
from collabteam.reporting.tracking import Tracking
from collabteam.settings import LoggerConfig
from collabteam.storage.layout import RoundFiles

kind, folder, dies, *folds = sys.argv[1:]
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")

class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
    def training_step(self, batch, index):
        loss = self.layer(batch).square().mean()
        self.log("loss", loss, on_step=True)
        return loss
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

for fold in map(int, folds):
    settings = {"optim": {"lr": 0.1}, "camera": {"classes": ["car", "bus.big"]}}
    tracking = Tracking(LoggerConfig(kind=kind))
    with tracking.fit(Fit("S10-08", 3, fold, Path(folder), settings)) as logger:
        trainer = Trainer(max_epochs=1, accelerator="cpu", logger=logger, log_every_n_steps=1,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
        trainer.fit(Net(), torch.utils.data.DataLoader(torch.ones(4, 1)))
        if dies == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        recall = {"car/true": 0.9, "car/false": 0.8, "bus.big/true": 0.7, "bus.big/false": 0.6}
        figures = {f"recall/{key}": value for key, value in recall.items()}
        tracking.metrics(3, figures | {"coverage": 0.84, "increment/car/taken": 500})
print("WANDB_MODE" in os.environ)
"""


@dataclass
class Trained:
    """What a few processes left behind."""

    folder: Path
    home: Path
    output: str


def child(code: str, home: Path, *args: str) -> subprocess.CompletedProcess[str]:
    clean = {name: text for name, text in os.environ.items() if not name.startswith("WANDB_")}
    clean.pop("NETRC", None)
    xdg = {name: "" for name in clean if name.startswith("XDG_")}
    # Lightning imports matplotlib, which would write its list of fonts there.
    fonts = {"MPLCONFIGDIR": str(home.parent / "fonts")}
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        cwd=home,
        env=clean | xdg | fonts | {"HOME": str(home), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def train(kind: str, base: Path) -> Trained:
    """Train fold 0, killed at the end; then folds 0 and 1 as a second attempt would."""
    home, folder = base / "home", base / "outputs" / "S10-08" / "round-3"
    home.mkdir()
    killed = child(TRAIN, home, kind, str(folder), "dies", "0")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = child(TRAIN, home, kind, str(folder), "lives", "0", "1")
    assert done.returncode == 0, done.stderr
    # Lightning itself may warn on standard error; wandb begins all of its lines alike.
    for text in (killed.stderr, done.stderr, done.stdout):
        assert "wandb" not in text.lower()
    return Trained(folder, home, done.stdout)


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train("wandb", tmp_path_factory.mktemp("offline"))


def runs(trained: Trained) -> dict[str, list[list[Any]]]:
    """All attempts of every run by name, the finished one last."""
    out: dict[str, list[list[Any]]] = {}
    for path in trained.folder.glob("wandb/offline-run-*/run-*.wandb"):
        found = records(path)
        begun = [record.run for record in found if record.HasField("run")]
        # What had not reached the disk when the process died may be as much as everything.
        name = begun[0].display_name if begun else "nothing"
        out.setdefault(name, []).append(found)
    for attempts in out.values():
        attempts.sort(key=lambda found: any(record.HasField("exit") for record in found))
    return out


def test_offline_one_finished_run_per_fold(offline: Trained) -> None:
    found = runs(offline)
    assert {"S10-08 round 3 fold 0", "S10-08 round 3 fold 1"} <= set(found)
    assert sum(map(len, found.values())) == 3
    ids = set()
    for fold in (0, 1):
        attempt = found[f"S10-08 round 3 fold {fold}"][-1]
        (run,) = [record.run for record in attempt if record.HasField("run")]
        assert run.run_group == "S10-08"
        assert run.job_type == "train"
        assert run.project == "collabteam"
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert config["optim"] == {"lr": 0.1}
        assert config["camera"] == {"classes": ["car", "bus.big"]}
        (ended,) = [record.exit for record in attempt if record.HasField("exit")]
        assert ended.exit_code == 0
        ids.add(run.run_id)
    assert len(ids) == 2


def test_offline_killed_attempt_stays_unfinished(offline: Trained) -> None:
    ends = [
        any(record.HasField("exit") for record in found)
        for attempts in runs(offline).values()
        for found in attempts
    ]
    assert sorted(ends) == [False, True, True]


def test_offline_history(offline: Trained) -> None:
    for fold in (0, 1):
        found = runs(offline)[f"S10-08 round 3 fold {fold}"][-1]
        rows = history(found)
        losses = [row for row in rows if "loss" in row]
        assert [row["trainer/global_step"] for row in losses] == [0, 1, 2, 3]
        (recall,) = [row for row in rows if "round" in row]
        logged = {key: value for key, value in recall.items() if not key.startswith("_")}
        assert logged == {
            "round": 3,
            "recall/car/true": 0.9,
            "recall/car/false": 0.8,
            "recall/bus.big/true": 0.7,
            "recall/bus.big/false": 0.6,
            "coverage": 0.84,
            "increment/car/taken": 500,
        }
        steps = {
            record.metric.name or record.metric.glob_name: record.metric.step_metric
            for record in found
            if record.HasField("metric")
        }
        assert steps["*"] == "trainer/global_step"
        assert {steps[key] for key in logged if key != "round"} == {"round"}


def test_offline_keeps_to_the_folder_and_to_itself(offline: Trained) -> None:
    assert offline.output == "False\n"
    assert list(offline.home.iterdir()) == []
    # Nothing of the machine, the code or the console is taken along.
    taken = [path for path in offline.folder.rglob("files/*") if path.is_file()]
    assert taken == []
    # wandb links a log of its own; a copy of the folder must not need what is outside.
    for path in offline.folder.rglob("*"):
        assert path.resolve().is_relative_to(offline.folder.resolve())
    kinds = {
        record.WhichOneof("record_type")
        for attempts in runs(offline).values()
        for found in attempts
        for record in found
    }
    assert not kinds & {"stats", "output", "output_raw", "environment", "alert", "artifact"}


def test_online_without_an_account_is_refused_in_one_line(tmp_path: Path) -> None:
    code = """
from pathlib import Path
from collabteam.events import Fit
from collabteam.reporting.tracking import Tracking
from collabteam.settings import LoggerConfig
from collabteam.errors import UserError
try:
    with Tracking(LoggerConfig(mode="online")).fit(Fit("a", 0, 0, Path("round-0"), {})):
        print("began")
except UserError as error:
    print(error)
"""
    done = child(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert "needs a W&B account" in done.stdout
    assert "logger.mode=offline" in done.stdout
    assert "wandb" not in done.stderr.lower()


def test_csv(tmp_path: Path) -> None:
    trained = train("csv", tmp_path)
    assert trained.output == "False\n"
    assert list(trained.home.iterdir()) == []
    logs = sorted(trained.folder.rglob("*.csv"))
    expected = ["fold-0/version_0", "fold-0/version_1", "fold-1/version_0"]
    assert [path.parent.relative_to(trained.folder / "csv").as_posix() for path in logs] == expected
    for path in logs[1:]:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len([row for row in rows if row["loss"]]) == 4
        (recall,) = [row for row in rows if row["round"]]
        assert float(recall["round"]) == 3
        assert float(recall["recall/car/true"]) == 0.9
        assert float(recall["recall/bus.big/false"]) == 0.6
        assert float(recall["increment/car/taken"]) == 500
        assert "lr: 0.1" in (path.parent / "hparams.yaml").read_text()


def test_none(tmp_path: Path) -> None:
    tracking = Tracking(LoggerConfig(kind="none"))
    with tracking.fit(Fit("a", 0, 0, tmp_path / "round-0", {})) as logger:
        assert logger is None
        tracking.metrics(0, {"recall/a/true": 1.0})
    tracking.rounds_finished(tmp_path)
    assert not (tmp_path / "round-0").exists()
