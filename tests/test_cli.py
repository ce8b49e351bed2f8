"""The commands, their help, and bad input: one line, exit code 2, and nothing is changed."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, SMALL, Call, environment, fingerprints, one_line
from PIL import Image

from collabteam.catalog import Catalog
from collabteam.cli.commands import commands
from collabteam.cli.help import help_text
from collabteam.cli.reference import PAGE, text
from collabteam.settings.fields import settings_of

COMMANDS = sorted(commands())


# --- help --------------------------------------------------------------------------------------

HEAVY = """
import runpy, sys
sys.argv = sys.argv[1:]
code = 0
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as end:
    code = end.code or 0
heavy = {"torch", "lightning", "hydra", "omegaconf", "timm", "wandb", "lance", "scipy"}
print("heavy:", sorted(heavy & set(sys.modules)))
sys.exit(code)
"""


def with_imports(
    folder: Path, *words: str, path: str = ""
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """A module run with some words, and the heavy packages that it imported."""
    clean = environment()
    clean["PYTHONPATH"] = f"{path}:{clean['PYTHONPATH']}" if path else clean["PYTHONPATH"]
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, *words],
        cwd=folder, env=clean, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    *lines, last = done.stdout.splitlines()
    done.stdout = "\n".join(lines)
    return done, ast.literal_eval(last.removeprefix("heavy: "))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_light_and_names_what_every_command_takes(name: str, tmp_path: Path) -> None:
    flag = "-h" if name == "report" else "--help"
    done, heavy = with_imports(tmp_path, f"collabteam.{name}", flag)
    assert (done.returncode, done.stderr, heavy) == (0, "", [])
    for words in ("camera=", "root=", "docs/settings.md", f"python -m collabteam.{name}"):
        assert words in done.stdout
    assert all(len(line) <= 100 for line in done.stdout.splitlines())
    assert list(tmp_path.iterdir()) == []


def test_help_and_the_page_name_every_setting() -> None:
    page = text()
    for name, one in commands().items():
        told = help_text(one, one.options())
        for setting in settings_of(one.schema).values():
            assert f"`{setting.typed}`" in page, (name, setting.name)
            if not setting.name.startswith("camera") and setting.name != "cameras":
                assert f"  {setting.typed}=" in told, (name, setting.name)


def test_the_page_of_settings_is_that_of_the_declarations() -> None:
    kept = (REPOSITORY / PAGE).read_text(encoding="utf-8")
    assert kept == text(), "python -m collabteam.cli.reference writes it"


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


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["camera=sim", "roun=2"], "no such setting: roun; nearest: round"),
        (["camera=sim", "epochs=3"], "no such setting: epochs; nearest: optim.epochs"),
        (["camera=sim", "+optim.epoch=3"], "no such setting: optim.epoch; nearest: optim.epochs"),
        (["camera=sim", "round=two"], "round=two: expected a whole number, 0 or more"),
        (["camera=sim", "optim.nesterov=maybe"], "optim.nesterov=maybe: expected true or false"),
        (["camera=sim", "optim.lr=0"], "optim.lr=0.0: expected 1e-08 or more"),
        (["camera=sim", "round"], "round: expected name=value, such as round=..."),
        (["camera=sim", "data.train_folds=x"], "data.train_folds=x: expected a whole number"),
        (
            ["camera=sim", "data.train_folds=0,1"],
            "a list has brackets, as in data.train_folds=[a,b]",
        ),
        (["camera=sim", "optim=3"], "optim is a group; set one of its settings: optim.lr"),
        (["camera=sim", "logger=wand"], "logger=wand: expected one of wandb"),
        (["camera=sim", "team.init=previous,scratch"], "is a sweep and needs -m"),
        (["-m", "camera=sim", "team.init=previous,scrach"], "team.init=scrach: expected one of"),
        (["camera=sin"], "no camera 'sin' under outputs: known are sim; 'ingest camera=sin'"),
        (["round=2"], "camera is not given: expected camera=NAME; known are sim"),
    ],
)
def test_a_wrong_word_is_answered_before_anything_is_loaded(
    root: Path, words: list[str], expected: str
) -> None:
    done, heavy = with_imports(root.parent, "collabteam.train", *words)
    assert expected in one_line(done)
    assert heavy == []


@pytest.mark.parametrize(
    "words",
    [
        ["++data.image_size=32"], ["data={image_size: 32}"], ["data.image_size=${round}32"],
        ["data.image_size='32'", "logger.project='a,b'"], ["data.train_folds=[0,1]"],
        ["hydra.verbose=false", "team.pretrained=yes", "rollback=null"], ["~experiment"],
    ],
)  # fmt: skip
def test_words_that_only_hydra_can_read(root: Path, call: Call, words: list[str]) -> None:
    said = call("train", f"root={root}", "camera=sim", *words, "--cfg", "job")
    assert said.code == 0, said.err


def test_old_scripts_may_still_give_a_seed(root: Path, call: Call) -> None:
    said = call("compact", f"root={root}", "camera=sim", "seed=0")
    assert said.code == 0
    assert said.err.splitlines()[0] == "compact: seed= is ignored: this command draws nothing"


def test_what_train_needs_first_is_said_before_torch_is_loaded(root: Path) -> None:
    (root / "empty").mkdir()
    Catalog.register(root, "empty", ["car", "ship"])
    for camera, expected in (
        ("sim", "crops of i0 are not verified yet"),
        ("empty", "camera empty has no crops: python -m collabteam.ingest camera=empty"),
    ):
        done, heavy = with_imports(root.parent, "collabteam.train", f"camera={camera}")
        assert done.returncode == 2
        assert expected in done.stderr
        assert not {"torch", "timm", "lightning", "wandb"} & set(heavy)


# --- one console script --------------------------------------------------------------------------


def test_the_commands_and_the_cameras_with_what_comes_next(finished: Path) -> None:
    Catalog.register(finished, "new", ["car", "ship"])
    (finished / "sim" / "notes").mkdir()
    done, heavy = with_imports(finished.parent, "collabteam")
    assert (done.returncode, done.stderr, heavy) == (0, "", [])
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout
    assert "  new  no crops\n       next: collabteam ingest camera=new path=..." in done.stdout
    assert "  sim  round 2, coverage " in done.stdout
    assert "not labelled by this team\n       next: collabteam label camera=sim" in done.stdout
    (finished / "sim" / "round-2" / "round.json").write_text("{")
    done, _ = with_imports(finished.parent, "collabteam")
    assert "sim  damaged: " in done.stdout
    done, _ = with_imports(finished.parent, "collabteam", "root=nowhere")
    assert "no cameras under nowhere" in done.stdout


def test_a_command_by_its_name(root: Path) -> None:
    for words, expected in (
        (["trian"], "no such command: trian; nearest: train"),
        (["train", "camera=sim", "roun=2"], "train: no such setting: roun"),
        (["rot=x"], "rot=x: expected the name of a command, or root=FOLDER"),
    ):
        done, heavy = with_imports(root.parent, "collabteam", *words)
        assert expected in one_line(done)
        assert heavy == []
    done, _ = with_imports(root.parent, "collabteam", "report", "camera=sim")
    one_line(done, "camera sim has no finished round")


ANOTHER = """
from dataclasses import dataclass
from typing import Any
from collabteam.cli.command import Command
from collabteam.cli.outcome import Outcome
from collabteam.settings import CommandConfig
from collabteam.registry import Registry
from collabteam.settings.checks import resolve_group
from collabteam.settings.fields import implementation, setting

class Way:
    pass

class Plainly(Way):
    @dataclass
    class Settings:
        pass

class Loudly(Way):
    @dataclass
    class Settings:
        marks: int = setting(1, ge=1, help="exclamation marks")

WAYS = Registry("way", "counting:Way", "collabteam.cli")

@dataclass
class CountConfig(CommandConfig):
    times: int = setting(1, ge=1, help="how often to say it")
    way: dict[str, Any] = implementation(WAYS, "counting:Plainly", help="how it is said")

def run(config, listener):
    from collabteam.catalog import Catalog
    marks = getattr(resolve_group(WAYS, config.way, "way"), "marks", 0)
    crops = len(Catalog.open(config.root, config.camera.name))
    print(f"{crops} crops{'!' * marks}\\n" * config.times, end="")
    return Outcome(f"{crops} crops")

main = Command("count", CountConfig, run, about="Count crops.", usage=(("camera=NAME", ""),))
"""


def test_a_command_is_one_module(root: Path, tmp_path: Path) -> None:
    """Also one of another package: settings, help, checks and the list come from it."""
    package = tmp_path / "site"
    (package / "counting-1.0.dist-info").mkdir(parents=True)
    (package / "counting.py").write_text(ANOTHER)
    (package / "counting-1.0.dist-info" / "METADATA").write_text("Name: counting\nVersion: 1.0\n")
    points = "[collabteam.command]\ncount = counting:main\n"
    (package / "counting-1.0.dist-info" / "entry_points.txt").write_text(points)

    def count(*words: str) -> subprocess.CompletedProcess[str]:
        return with_imports(root.parent, "collabteam", *words, path=str(package))[0]

    assert "\n  count      Count crops\n" in count().stdout
    assert "  times=1                     how often to say it" in count("count", "--help").stdout
    assert "commands, each with --help" not in count("count", "--help").stdout
    done = count("count", "camera=sim", "times=2")
    assert done.stdout == "600 crops\n600 crops", done.stderr
    one_line(count("count", "camera=sim", "times=0"), "count: times=0: expected 1 or more")
    loudly = ("count", "camera=sim", "way=counting:Loudly")
    assert count(*loudly).stdout == "600 crops!"
    assert count(*loudly, "way.marks=3").stdout == "600 crops!!!"
    one_line(count(*loudly, "way.mark=3"), "no such setting: way.mark; nearest: way.marks")
    one_line(count(*loudly, "way.marks=0"), "way.marks=0: expected 1 or more")
    one_line(count("count", "camera=sim", "way=loud"), "way=loud: no such way")


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
    one_line(said, f"{table}.lance", "is damaged")
    assert fingerprints(root) == before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1}'])
def test_a_broken_record_of_a_round(finished: Path, call: Call, content: str) -> None:
    (finished / "sim" / "round-1" / "round.json").write_text(content)
    before = fingerprints(finished)
    for name, settings in (("train", ("round=2", *SMALL)), ("report", ())):
        said = call(name, f"root={finished}", "camera=sim", *settings)
        one_line(said, "round-1/round.json is damaged")
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
