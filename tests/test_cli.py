"""Bad input to the four commands: one line, exit code 2, and nothing that was there is changed."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, Call, environment, fingerprints, one_line
from PIL import Image

from collabteam.catalog import Catalog

COMMANDS = (
    "simulate",
    "ingest",
    "review",
    "train",
    "report",
    "label",
    "audit",
    "export",
    "dashboard",
    "compact",
)


# --- help --------------------------------------------------------------------------------------

HELP = """
import runpy, sys
sys.argv = ["collabteam." + sys.argv[1], sys.argv[2]]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert not end.code, end.code
heavy = {"torch", "lightning", "hydra", "omegaconf", "timm", "wandb"}
print("heavy:", sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_light_and_names_what_every_command_takes(name: str, tmp_path: Path) -> None:
    flag = "-h" if name == "report" else "--help"
    done = subprocess.run(
        [sys.executable, "-c", HELP, name, flag],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("camera", "root=", f"python -m collabteam.{name}"):
        assert text in done.stdout
    assert done.stdout.splitlines()[-1] == "heavy: []"
    assert list(tmp_path.iterdir()) == []


def test_config_job_prints_every_setting(root: Path, call: Call) -> None:
    said = call("train", f"root={root}", "camera=sim", "--cfg", "job")
    assert said.code == 0, said.err
    assert "momentum: 0.9" in said.out
    assert "- motorcyclist" in said.out


# --- settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["camera=smi"], ["smi", "sim"]),
        (["camera=a/b"], ["a/b"]),
        ([], ["camera"]),
        (["camera=sim", "experiment=papr"], ["papr", "paper", "quick"]),
        (["camera=sim", "logger=tensorboard"], ["tensorboard", "wandb"]),
        (["camera=sim", "epochs=3"], ["epochs"]),
        (["camera=sim", "optim.epoch=3"], ["epoch"]),
        (["camera=sim", "+optim.epoch=3"], ["epoch"]),
        (["camera=sim", "round=two"], ["round", "two"]),
        (["camera=sim", "optim.lr=[1]"], ["lr"]),
        (["camera=sim", "round="], ["round"]),
        (["camera=sim", "round"], ["round"]),
        (["camera=sim", "round=-1"], ["round=-1", "expected 0 or more"]),
        (["camera=sim", "seed=-1"], ["seed=-1", "expected 0 or more"]),
        (["camera=sim", "quantile=2"], ["quantile=2", "expected 0 to 1"]),
        (["camera=sim", "quantile=nan"], ["quantile=nan", "expected 0 to 1"]),
        (["camera=sim", "oracle_error=1.5"], ["oracle_error=1.5"]),
        (["camera=sim", "reviewer=nobody"], ["reviewer=nobody", "person, oracle"]),
        (["camera=sim", "seed_per_class=0"], ["seed_per_class=0"]),
        (["camera=sim", "seed_unknown=-1"], ["seed_unknown=-1"]),
        (["camera=sim", "rollback=-2"], ["rollback=-2"]),
        (["camera=sim", "data.train_folds=[0,5]"], ["data.train_folds=[0, 5]", "0 to 4"]),
        (["camera=sim", "data.image_size=8"], ["data.image_size=8", "16 to 1024"]),
        (["camera=sim", "optim.epochs=0"], ["optim.epochs=0"]),
        (["camera=sim", "team.joint=median"], ["product, min, mean"]),
        (["camera=sim", "trainer.precision=fp64"], ["auto, bf16, fp32"]),
        (["camera=sim", "trainer.accelerator=abacus"], ["trainer.accelerator=abacus"]),
        (["camera=sim", "camera.classes=[cyclist]"], ["at least 2 classes", "cyclist"]),
        (["camera=sim", "camera.classes=[cyclist,car]"], ["cyclist, motorcyclist, pedestrian"]),
        (["camera=sim", "camera.classes=[cyclist,cyclist]"], ["named twice"]),
        (["camera=sim", "camera.classes=[cyclist,unknown]"], ["reserved"]),
    ],
)
def test_settings_of_train(
    root: Path, call: Call, settings: list[str], expected: list[str]
) -> None:
    before = fingerprints(root)
    said = call("train", f"root={root}", "reviewer=oracle", "optim.epochs=1", *settings)
    one_line(said, *expected)
    assert said.out == ""
    assert fingerprints(root) == before


@pytest.mark.parametrize(
    "setting",
    [
        *("crops=0", "crops=many", "drift=2", "hours=0", "hours=nan", "test_share=-1", "seed=-1"),
        *("proposal_error=0.7", "unknown_share=inf", "hard_share=x", "nothing=1", "+nothing=1"),
        *("camera.classes=[car,bus]", "camera.classes=[car]"),
    ],
)
def test_settings_of_simulate(tmp_path: Path, call: Call, setting: str) -> None:
    said = call("simulate", f"root={tmp_path / 'outputs'}", "camera=new", "crops=5", setting)
    one_line(said, setting.split("=")[0].split(".")[-1].lstrip("+"))
    assert not (tmp_path / "outputs").exists(), "a refused command registers no camera"


def test_settings_of_report(root: Path, call: Call) -> None:
    before = fingerprints(root)
    settings = (f"root={root}", "camera=sim")
    one_line(call("report", *settings), "no finished round", "collabteam.train camera=sim round=0")
    one_line(call("report", *settings, "format=xml"), "format=xml", "table, json")
    one_line(call("report", f"root={root}", "camera=smi"), "smi", "sim")
    assert fingerprints(root) == before


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["camera=new"], "path is not given"),
        (["camera=new", "path={base}/nowhere"], "does not exist"),
        (["camera=new", "path={base}/crops", "labels=guess"], "labels=guess"),
        (["camera=new", "path={base}/crops", "source=radio"], "source=radio"),
        (["camera=new", "path={base}/crops", "source=video"], "holds no video"),
        (["camera=../x", "path={base}/crops"], "../x"),
        (["camera=new", "path={base}/one", "labels=person"], "at least 2 classes"),
        (["camera=new", "path={base}/crops", "camera.classes=[ship]"], "at least 2 classes"),
        (["camera=sim", "path={base}/crops", "labels=person"], "no class car, ship"),
        (["path={base}/crops"], "camera"),
    ],
)
def test_what_ingest_refuses(
    root: Path, tmp_path: Path, call: Call, settings: list[str], expected: str
) -> None:
    for name in ("crops/car", "crops/ship", "one/car"):
        (tmp_path / name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name / "0.png")
    before = fingerprints(root)
    words = [setting.format(base=tmp_path) for setting in settings]
    one_line(call("ingest", f"root={root}", *words), expected)
    assert fingerprints(root) == before
    assert {path.name for path in root.iterdir()} == {"sim"}


def test_one_class_is_no_camera_without_labels_either(tmp_path: Path, call: Call) -> None:
    """Proposals of a single class would register a team of one."""
    (tmp_path / "one" / "car").mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "one" / "car" / "0.png")
    said = call("ingest", f"root={tmp_path / 'outputs'}", "camera=new", f"path={tmp_path / 'one'}")
    one_line(said, "at least 2 classes")


def test_no_camera_at_all(tmp_path: Path, call: Call) -> None:
    settings = (f"root={tmp_path / 'outputs'}", "camera=S10-08")
    one_line(call("train", *settings), "no camera 'S10-08'", "known are none", "ingest")
    one_line(call("report", *settings), "S10-08")
    assert not (tmp_path / "outputs").exists()


# --- crops that do not make a team -------------------------------------------------------------


def camera(root: Path, counts: dict[str, int]) -> Path:
    """A camera of plain coloured crops with proposals, as a folder to ingest."""
    source = root.parent / "crops"
    for number, (name, count) in enumerate(counts.items()):
        (source / name).mkdir(parents=True)
        for crop in range(count):
            colour = np.full((16, 16, 3), 40 * number + crop, np.uint8)
            stream = io.BytesIO()
            Image.fromarray(colour).save(stream, "PNG")
            (source / name / f"{crop}.png").write_bytes(stream.getvalue())
    return source


def test_a_class_without_crops(tmp_path: Path, call: Call) -> None:
    root = tmp_path / "outputs"
    source = camera(root, {"car": 6, "ship": 6})
    classes = "camera.classes=[car,ship,plane]"
    done = call("ingest", f"root={root}", "camera=c", f"path={source}", classes, "labels=person")
    assert done.code == 0, done.err
    before = fingerprints(root)
    said = call("train", f"root={root}", "camera=c", *SMALL, "reviewer=person")
    one_line(said, "no crop is proposed or verified as plane", "car, ship")
    assert fingerprints(root) == before


def test_too_few_objects_for_the_folds(tmp_path: Path, call: Call) -> None:
    root = tmp_path / "outputs"
    source = camera(root, {"car": 6, "ship": 3})
    call("ingest", f"root={root}", "camera=c", f"path={source}", "labels=person")
    said = call("train", f"root={root}", "camera=c", *SMALL, "reviewer=person")
    assert said.code == 2
    assert "class ship has 3 verified objects, 5 folds need at least 5" in said.err
    assert "Traceback" not in said.err
    folds = ("data.folds=3", "data.train_folds=[0]", "optim.epochs=1")
    said = call("train", f"root={root}", "camera=c", *SMALL, "reviewer=person", *folds)
    assert said.code == 0, said.err


def test_an_oracle_without_truth(tmp_path: Path, call: Call) -> None:
    root = tmp_path / "outputs"
    source = camera(root, {"car": 6, "ship": 6})
    call("ingest", f"root={root}", "camera=c", f"path={source}")
    said = call("train", f"root={root}", "camera=c", *SMALL)
    assert said.code == 2
    assert said.err.splitlines()[-1].startswith("train: reviewer=oracle needs the hidden truth")
    assert "Traceback" not in said.err


# --- damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "classes: [", "name: sim\n", "classes: 3\nname: sim"])
def test_a_broken_manifest(root: Path, call: Call, content: str) -> None:
    (root / "sim" / "camera.yaml").write_text(content)
    before = fingerprints(root)
    for name in ("train", "report"):
        one_line(call(name, f"root={root}", "camera=sim"), "camera.yaml")
    assert fingerprints(root) == before


@pytest.mark.parametrize("table", ["crops", "labels", "truth"])
def test_a_broken_table(root: Path, call: Call, table: str) -> None:
    for file in (root / "sim" / f"{table}.lance" / "_versions").iterdir():
        file.write_bytes(b"broken")
    before = fingerprints(root)
    said = call("train", f"root={root}", "camera=sim", "reviewer=oracle")
    one_line(said, f"{table}.lance cannot be used")
    assert fingerprints(root) == before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1}'])
def test_a_broken_record_of_a_round(finished: Path, call: Call, content: str) -> None:
    (finished / "sim" / "round-1" / "round.json").write_text(content)
    before = fingerprints(finished)
    for name, settings in (("train", ("round=2", *SMALL)), ("report", ())):
        said = call(name, f"root={finished}", "camera=sim", *settings)
        one_line(said, "round-1/round.json is broken")
    assert fingerprints(finished) == before


@pytest.mark.parametrize("content", [b"", b"broken"])
def test_broken_weights_to_go_on_from(finished: Path, call: Call, content: bytes) -> None:
    folder = finished / "sim"
    (folder / "round-2" / "branches" / "cyclist.fold-0.safetensors").write_bytes(content)
    before = fingerprints(folder / "round-2")
    settings = (f"root={finished}", "camera=sim", "round=3", *SMALL)
    said = call("train", *settings)
    assert said.code == 2
    assert "Traceback" not in said.err
    last = said.err.splitlines()[-1]
    assert "round-2/branches/cyclist.fold-0.safetensors: expected the weights of a branch" in last
    assert "rollback=" in last
    assert fingerprints(folder / "round-2") == before
    # The way out that the line names.
    assert call("train", *settings, "rollback=1").code == 0


@pytest.mark.parametrize("file", ["sample.json", "folds.json", "scores/part-00000.parquet"])
def test_broken_leavings_of_a_round(finished: Path, call: Call, file: str) -> None:
    number = 0 if file == "sample.json" else 2
    (finished / "sim" / f"round-{number}" / file).write_bytes(b"broken")
    said = call("train", f"root={finished}", "camera=sim", "round=3", *SMALL)
    assert said.code == 2
    assert "Traceback" not in said.err
    assert file in said.err.splitlines()[-1]


# --- sweeps ------------------------------------------------------------------------------------


def test_commands_run_from_any_folder(root: Path, tmp_path: Path) -> None:
    """Hydra leaves no log and no record of its own."""
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "collabteam.report", f"root={root}", "camera=sim"],
        cwd=tmp_path / "elsewhere", env=environment(), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    one_line(done, "no finished round")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_sweep_includes_a_registered_camera_that_has_a_yaml_file(
    tmp_path: Path, call: Call
) -> None:
    root = tmp_path / "outputs"
    Catalog.register(root, "S10-08", ["pedestrian", "cyclist", "motorcyclist"])
    Catalog.register(root, "other", ["a", "b"])
    said = call("report", "-m", f"root={root}", "camera=glob(*)")
    assert said.code == 1
    assert "camera S10-08 has no finished round" in " ".join(said.out.split())
