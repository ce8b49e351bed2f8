"""No variable of the environment changes a result, loses a record or ends in a traceback."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, environment, records

from collabteam.environment import HONOURED, isolated, settle

LIBRARIES = ("lightning", "wandb", "torch", "hydra", "omegaconf", "joblib", "matplotlib", "rich",
             "torchmetrics", "torchvision", "timm")  # fmt: skip
CLUSTERS = {
    "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1",
    "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "2", "SLURM_LOCALID": "2",
    "SLURM_JOB_ID": "17", "SLURM_NNODES": "2", "SLURM_NODEID": "1", "SLURM_STEP_NODELIST": "n[1-2]",
    "LSB_JOBID": "9", "LSB_DJOB_RANKFILE": "/nowhere", "JSM_NAMESPACE_SIZE": "4",
    "JSM_NAMESPACE_RANK": "2", "TORCHELASTIC_RUN_ID": "x", "GROUP_RANK": "1",
    "KUBERNETES_PORT": "tcp://10.0.0.1:443", "OMPI_COMM_WORLD_RANK": "2", "PMI_RANK": "2",
}  # fmt: skip
"""What the launchers of clusters set for the third of several processes."""
PLACES = ("PATH", "HOME", "PYTHON", "LD_", "TMPDIR", "CONDA", "SYSTEMROOT", "WINDIR", "CUDA_",
          "HIP_", "ROCR_")  # fmt: skip
"""Variables of the system, without which Python or a processor's driver does not start."""

READ = re.compile(
    r"""(?:environ(?:\.get|\.pop|\.setdefault)?\s*[\[(]|getenv\(|\b_?env\w*\()\s*
        ["']([A-Z][A-Z0-9_]+)["']
      | ["']([A-Z][A-Z0-9_]{3,})["']\s+(?:not\s+)?in\s+(?:os\.)?environ""",
    re.VERBOSE,
)


IN_TURN = """
import importlib, json, sys
for name, *settings in json.loads(sys.argv[1]):
    sys.argv = [name, *settings]
    try:
        importlib.import_module(f"collabteam.{name}").main()
    except SystemExit as ended:
        if ended.code:
            raise
"""
"""Runs several commands in one process, which spares two starts of torch."""


def read_by(library: str) -> set[str]:
    """The variables that the sources of a library name."""
    spec = importlib.util.find_spec(library)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    names: set[str] = set()
    for folder in spec.submodule_search_locations:
        for file in Path(folder).rglob("*.py"):
            found = READ.findall(file.read_text(encoding="utf-8", errors="replace"))
            names |= {one or other for one, other in found}
    return names


def known() -> set[str]:
    """The variables of all libraries below us, those built from the names of settings included."""
    from lightning.pytorch import Trainer
    from wandb import Settings

    names = set().union(*(read_by(library) for library in LIBRARIES))
    names |= {f"WANDB_{field.upper()}" for field in Settings.model_fields}
    arguments = inspect.signature(Trainer).parameters
    assert "fast_dev_run" in arguments
    return names | {f"PL_TRAINER_{name.upper()}" for name in arguments}


def honoured(name: str) -> bool:
    patterns = [part for key in HONOURED for part in key.split(", ")]
    return any(name == one or (one.endswith("*") and name.startswith(one[:-1])) for one in patterns)


def hostile(value: str) -> dict[str, str]:
    names = {name for name in known() if not honoured(name) and not name.startswith(PLACES)}
    assert len(names) > 400
    return dict.fromkeys(sorted(names), value)


def one_round(root: Path, variables: dict[str, str]) -> dict[str, Any]:
    """Train, label and log the curves of one tiny round; what counts of it."""
    settings = [setting for setting in SMALL if setting != "logger=none"]
    where = (f"root={root}", "camera=sim")
    commands = (
        ("simulate", *where, "crops=180", "seed=3"),
        (
            "train",
            *where,
            "round=0",
            *settings,
            "optim.epochs=2",
            "seed_per_class=20",
            "logger=csv",
        ),
        ("label", *where, "trainer.threads=1", "trainer.precision=fp32"),
    )
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN, json.dumps(commands)], cwd=root.parent,
        env=environment() | variables, capture_output=True, text=True, timeout=300,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    label = json.loads((root / "sim" / "label.json").read_text())
    for key in ("finished", "seconds"):
        label.pop(key, None)
    curves = {
        str(file.relative_to(root)): file.read_bytes()
        for file in sorted(root.rglob("metrics.csv"))
    }  # fmt: skip
    assert curves
    assert all(len(text.splitlines()) > 2 for text in curves.values())
    return {"rounds": records(root / "sim"), "label": label, "curves": curves}


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return one_round(tmp_path_factory.mktemp("quiet") / "outputs", {})


@pytest.mark.slow
@pytest.mark.parametrize("value", ["1", "yesplease"])
def test_hostile_values_of_every_variable_change_nothing(
    quiet: dict[str, Any], tmp_path: Path, value: str
) -> None:
    assert one_round(tmp_path / "outputs", hostile(value)) == quiet


@pytest.mark.slow
def test_an_allocation_of_a_cluster_changes_nothing(quiet: dict[str, Any], tmp_path: Path) -> None:
    assert one_round(tmp_path / "outputs", CLUSTERS) == quiet


@pytest.mark.parametrize(
    ("own", "policy"),
    [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"), ({"GOMP_SPINCOUNT": "9"}, None)],
)
def test_threads_sleep_unless_the_user_says_otherwise(
    own: dict[str, str], policy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    settle()
    assert os.environ.get("OMP_WAIT_POLICY") == policy


def test_settle_keeps_what_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "AWS_REGION", "RAY_ADDRESS", "HF_HUB_OFFLINE", "NOT_OURS"):
        monkeypatch.setenv(name, "x")
    for name in ("PL_TRAINER_MAX_EPOCHS", "WANDB_RUN_ID", "TORCH_LOGS"):
        monkeypatch.setenv(name, "x")
    assert settle() == ["PL_TRAINER_MAX_EPOCHS", "WANDB_RUN_ID"]
    kept = {"WANDB_API_KEY", "AWS_REGION", "RAY_ADDRESS", "HF_HUB_OFFLINE", "NOT_OURS"}
    assert kept <= os.environ.keys()
    assert not {"PL_TRAINER_MAX_EPOCHS", "WANDB_RUN_ID", "TORCH_LOGS"} & os.environ.keys()


def test_the_python_api_hides_and_restores(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    hidden = {"PL_TRAINER_FAST_DEV_RUN": "1", "RANK": "3", "SLURM_NTASKS": "4"}
    for name, value in hidden.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rank_zero_only, "rank", 3)
    with isolated():
        assert not hidden.keys() & os.environ.keys()
        assert rank_zero_only.rank == 0
    assert {name: os.environ[name] for name in hidden} == hidden
    assert rank_zero_only.rank == 3


def test_a_fit_from_python_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """No command has cleaned the environment here."""
    from collabteam.settings import LEARNERS
    from collabteam.testing import learners as checks

    softmax = LEARNERS.load("softmax")

    def fit() -> list[dict[str, Any]]:
        learner = checks.Case(softmax, softmax.Settings(), checks.small_settings()).make()
        voters = checks._fit(learner, checks.draw_task(learner, pool=0))
        return [{name: one.sum().item() for name, one in v.state_dict().items()} for v in voters]

    expected = fit()
    for name, value in {**CLUSTERS, "PL_TRAINER_FAST_DEV_RUN": "1"}.items():
        monkeypatch.setenv(name, value)
    assert fit() == expected
