"""Sweeps over cameras and settings: the plan, the table, and what fails."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import (
    SMALL,
    Call,
    fingerprints,
    one_line,
    read_json,
)
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from sweeping import row

from collabteam.catalog import Catalog, LabelEvent
from collabteam.cli.sweep import jobs_at_once, plan, setting_name
from collabteam.errors import UserError
from collabteam.settings import RuntimeConfig

# --- what fails --------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_fails_is_named_and_the_rest_is_done(three: Path, tmp_path: Path, call: Call) -> None:
    root = Path(shutil.copytree(three, tmp_path / "outputs"))
    quick = (*SMALL, "optim.epochs=1", "optim.epochs_later=1")
    # Changed settings, no verified labels, no crops, damage.
    assert call("train", f"root={root}", "camera=gate", "round=0", *quick, "seed=5").code == 0
    (root / "north" / "truth.lance").rename(root / "kept")
    Catalog.register(root, "bare", ["car", "ship"])
    shutil.copytree(root / "bare" / "truth.lance", root / "north" / "truth.lance")
    shutil.rmtree(root / "kept")
    Catalog.register(root, "broken", ["car", "ship"])
    (root / "broken" / "camera.yaml").write_text("classes: [")
    said = call("train", "-m", f"root={root}", "camera=glob(*)", "round=0", *quick)
    assert said.code == 1
    assert "Traceback" not in said.err
    assert "east done" in row(said.out, "east")
    for camera, words in (
        ("gate", "gate failed"), ("gate", "other settings (seed 5 -> 0)"),
        ("north", "reviewer=oracle needs the hidden truth"), ("bare", "bare has no crops"),
        ("broken", "broken/camera.yaml is"),
    ):  # fmt: skip
        # A long path is wrapped in the middle of a word.
        assert "".join(words.split()) in "".join(row(said.out, camera).split())
    assert (
        "train: 1 done, 0 skipped, 4 failed; run the same command again for the missing ones"
        in said.out
    )
    assert read_json(root / "east" / "round-0" / "round.json")["camera"] == "east"
    # Alone, the one that was done is enough for the exit code.
    again = call("train", "-m", f"root={root}", "camera=east", "round=0", *quick)
    assert again.code == 0
    assert "train: 0 done, 1 skipped, 0 failed" in again.out


# --- other settings ----------------------------------------------------------------------------


@pytest.mark.slow
def test_settings_get_roots_of_their_own(root: Path, call: Call) -> None:
    before = fingerprints(root / "sim")
    quick = (*SMALL, "optim.epochs=1", "optim.epochs_later=1")
    settings = ("camera=sim", "seed=1,2", "team.joint=min,mean", "round=0", *quick)
    said = call("train", "-m", f"root={root}", *settings)
    assert said.code == 0, said.err
    roots = {f"seed-{seed}_team.joint-{joint}" for seed in (1, 2) for joint in ("min", "mean")}
    assert {path.name for path in root.iterdir()} == {"sim", ".sweeps", *roots}
    assert fingerprints(root / "sim") == before
    for name in roots:
        record = read_json(root / name / "sim" / "round-0" / "round.json")
        assert f"seed-{record['settings']['seed']}_" in name
        assert name.endswith(record["settings"]["team"]["joint"])
        assert f"sim ({name})" in said.out
    samples = {(root / name / "sim" / "round-0" / "sample.json").read_text() for name in roots}
    assert len(samples) == 2  # one for each seed
    assert call("report", f"root={root / 'seed-1_team.joint-min'}", "camera=sim").code == 0
    # The second time all is there.
    assert "0 done, 4 skipped" in call("train", "-m", f"root={root}", *settings).out


def test_a_copy_keeps_what_persons_said_and_nothing_of_teams(finished: Path) -> None:
    catalog = Catalog.open(finished, "sim")
    index = catalog.index()
    pool = index.crop_id[~index.test & (index.human == "")][:2]
    catalog.append_labels(
        [LabelEvent(str(crop), "cyclist", source="person", purpose="seed") for crop in pool]
    )
    copy = catalog.copy_to(finished / "other")
    there = copy.index()
    assert there.crop_id.tolist() == index.crop_id.tolist()
    assert (there.human != "").sum() == 2 + ((index.human != "") & index.test).sum()
    assert set(there.human[there.human_source == "person"]) == {"cyclist"}
    assert there.test.tolist() == index.test.tolist()
    assert there.proposed.tolist() == index.proposed.tolist()
    assert (there.increment_round == -1).all()
    assert copy.classes == catalog.classes
    assert copy.images([0, 5]) == catalog.images([0, 5])
    # What is said there is not said here.
    copy.append_labels([LabelEvent(str(pool[0]), "pedestrian", source="person")])
    assert catalog.index().human[index.crop_id == pool[0]] == ["cyclist"]
    # And a second copy changes nothing.
    before = fingerprints(finished / "other")
    catalog.copy_to(finished / "other")
    assert fingerprints(finished / "other") == before


@pytest.mark.parametrize(("name", "word"), [("label", "seed"), ("report", "samples")])
def test_what_other_commands_may_not_vary(finished: Path, call: Call, name: str, word: str) -> None:
    said = call(name, "-m", f"root={finished}", "camera=sim", f"{word}=1,2")
    one_line(said, f"varies camera, round and root, not {word}")


@pytest.mark.slow
def test_the_other_commands_sweep(finished: Path, tmp_path: Path, call: Call) -> None:
    shutil.copytree(finished / "sim", finished / "two")
    (finished / "two" / "camera.yaml").write_text(
        (finished / "sim" / "camera.yaml").read_text().replace("sim", "two")
    )
    where = (f"root={finished}", "camera=glob(*)")
    labelled = call("label", "-m", *where, "trainer.threads=1")
    assert labelled.code == 0, labelled.out
    assert "crops labelled by the team of round 2" in row(labelled.out, "two")
    assert "0 done, 2 skipped" in call("label", "-m", *where, "trainer.threads=1").out
    to = f"to={tmp_path}/${{format}}/${{camera.name}}"
    said = call("export", "-m", *where, "format=csv,parquet", to)
    assert said.code == 0, said.out + said.err
    made = {str(path.parent.relative_to(tmp_path)) for path in tmp_path.glob("*/*/README.md")}
    assert made == {"csv/sim", "csv/two", "parquet/sim", "parquet/two"}
    again = call("export", "-m", *where, "format=csv,parquet", to)
    assert again.code == 1  # there already, and left as they are
    assert call("report", "-m", *where).code == 0


def test_folders_of_crops_are_ingested_camera_by_camera(tmp_path: Path, call: Call) -> None:
    """A folder for each; what one of them lacks leaves the others alone, and is done later."""
    for place, name in enumerate(("dock", "quay")):
        for kind, label in enumerate(("car", "ship")):
            (tmp_path / "crops" / name / label).mkdir(parents=True)
            for number in range(3):
                grey = np.full((8, 8, 3), 100 * place + 50 * kind + number, np.uint8)
                file = tmp_path / "crops" / name / label / f"{number}.png"
                Image.fromarray(grey).save(file)
    root = tmp_path / "outputs"
    settings = (f"root={root}", "camera=dock,gone,quay", f"path={tmp_path}/crops/${{camera.name}}")
    said = call("ingest", "-m", *settings, "labels=person")
    assert said.code == 1, said.out
    assert "quay done" in row(said.out, "quay")
    assert "gone failed" in row(said.out, "gone")
    assert "ingest: 2 done, 0 skipped, 1 failed" in said.out
    for name in ("dock", "quay"):
        assert sorted(Catalog.open(root, name).index().human) == ["car"] * 3 + ["ship"] * 3
    (tmp_path / "crops" / "dock" / "car" / "0.png").rename(tmp_path / "kept.png")
    shutil.copytree(tmp_path / "crops" / "dock", tmp_path / "crops" / "gone")
    again = call("ingest", "-m", *settings, "labels=person")
    assert again.code == 0, again.out
    assert "ingest: 1 done, 2 skipped, 0 failed" in again.out
    assert [len(Catalog.open(root, name)) for name in ("dock", "gone", "quay")] == [6, 5, 6]


def test_a_sweep_over_rounds_is_one_job(root: Path, call: Call) -> None:
    settings = ("camera=sim", "round=0,1", *SMALL, "optim.epochs=1", "optim.epochs_later=1")
    said = call("train", "-m", f"root={root}", *settings)
    assert said.code == 0, said.err
    assert "round=0,1: round=1 passes through the others" in said.err
    assert read_json(root / "sim" / "round-1" / "round.json")["round"] == 1


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["camera=sim,smi"], ["smi", "sim"]),
        (["camera=sim", "experiment=quick,papr"], ["papr", "paper"]),
        (["camera=sim", "epochs=1,2"], ["epochs"]),
        (["camera=sim", "round=[1"], ["round"]),
        (["camera=sim", "hydra/launcher=slurm"], ["slurm", "submitit_slurm"]),
        (["camera=sim", "hydra/launcher=1"], ["launcher=1", "expected one of basic", "joblib"]),
        (["camera=sim", "hydra/launcher=basic,joblib"], ["expected one value"]),
        (["camera=sim", "hydra/sweeper=1"], ["must be a string"]),
        (["camera=sim", "hydra.job_logging.root=1"], ["root logger"]),
    ],
)
def test_a_sweep_that_cannot_be_composed(
    root: Path, call: Call, settings: list[str], expected: list[str]
) -> None:
    said = call("train", "-m", f"root={root}", "reviewer=oracle", *settings)
    one_line(said, *expected)
    assert said.out == ""


@pytest.mark.parametrize("name", ["joblib", "1", "nothing"])
def test_a_launcher_without_a_sweep(root: Path, call: Call, name: str) -> None:
    """It would have no effect."""
    said = call("train", f"root={root}", "camera=sim", f"hydra/launcher={name}")
    one_line(said, f"hydra/launcher={name}", "add -m")


def test_no_camera_is_meant(root: Path, call: Call) -> None:
    one_line(call("train", "-m", f"root={root}", "camera=glob(x*)"), "glob(x*)", "sim", "ingest")
    one_line(call("train", f"root={root}", "camera=sim", "runtime.cpus=0"), "runtime.cpus=0")


# --- the plan ----------------------------------------------------------------------------------

VALUES = st.lists(st.integers(0, 99).map(str), min_size=1, max_size=4, unique=True)


@given(cameras=st.sets(st.sampled_from("abcdef"), min_size=1), seeds=VALUES, rounds=VALUES)
def test_jobs_never_meet(cameras: set[str], seeds: list[str], rounds: list[str]) -> None:
    """No two jobs have the same camera and root, and each setting is there once."""
    arguments = [
        "-m", "camera=glob(*)", f"seed={','.join(seeds)}", f"round={','.join(rounds)}",
    ]  # fmt: skip
    found = plan("train", "roots", arguments, sorted(cameras))
    places = [(job.camera, job.setting) for job in found.jobs]
    assert len(set(places)) == len(places) == len(cameras) * len(seeds)
    assert f"round={max(map(int, rounds))}" in found.arguments
    assert found.own_roots == (len(seeds) > 1)
    assert [job.number for job in found.jobs] == list(range(len(places)))
    again = plan("train", "roots", arguments, sorted(cameras))
    assert again == found


@given(st.dictionaries(st.sampled_from(["seed", "team.joint", "experiment"]), st.text(max_size=120),
                       min_size=1))  # fmt: skip
@example({"seed": "1" * 120})
def test_a_settings_name_is_a_folders(chosen: dict[str, str]) -> None:
    name = setting_name(chosen)
    assert Path(name).name == name
    assert name not in ("", ".", "..")
    assert len(name) <= 100
    for key in chosen:
        more = [{**chosen, key: chosen[key] + end} for end in ("", "x", "/", "!")]
        assert len({setting_name(other) for other in more}) == 4


@pytest.mark.parametrize(
    ("meant", "expected"),
    [
        ("glob(*)", ["S1-a", "S1-b", "S2-a"]),
        ("glob(S1-*)", ["S1-a", "S1-b"]),
        ("glob('*-a')", ["S1-a", "S2-a"]),
        ("glob(*,exclude=S2*)", ["S1-a", "S1-b"]),
        ("glob([S2*,*-b],exclude=[*-a])", ["S1-b"]),
        ("S2-a,S1-a", ["S2-a", "S1-a"]),
        ("choice(S1-a,S1-b)", ["S1-a", "S1-b"]),
    ],
)
def test_patterns_are_those_of_hydra(
    tmp_path: Path, call: Call, meant: str, expected: list[str]
) -> None:
    root = tmp_path / "outputs"
    for name in ("S1-a", "S1-b", "S2-a"):
        Catalog.register(root, name, ["car", "ship"])
    said = call("compact", "-m", f"root={root}", f"camera={meant}")
    assert said.code == 0, said.out + said.err
    assert f"compact: {len(expected)} done, 0 skipped, 0 failed" in said.out
    assert all(f"{name} done" in row(said.out, name) for name in expected)
    one_line(call("compact", "-m", f"root={root}", "camera=glob(x*,exclude=y)"), "S1-a, S1-b, S2-a")


def test_ranges_and_roots(tmp_path: Path) -> None:
    found = plan("train", "roots", ["-m", "camera=a", "seed=range(0,3)"], ["a"])
    assert [job.setting for job in found.jobs] == ["seed-0", "seed-1", "seed-2"]
    found = plan("label", "cameras", ["-m", "camera=a", "root=x,y"], ["a"])
    assert [job.setting for job in found.jobs] == ["root-x", "root-y"]
    assert not found.own_roots
    with pytest.raises(UserError, match="expected one"):
        plan("train", "roots", ["-m", "camera=a", "root=x,y", "seed=1,2"], ["a"])
    with pytest.raises(UserError, match="expected a list of values"):
        plan("train", "roots", ["-m", "camera=a", "optim.lr=interval(0,1)"], ["a"])


def test_jobs_at_once_are_bounded_by_cores_and_memory() -> None:
    cores = len(os.sched_getaffinity(0))
    assert jobs_at_once(RuntimeConfig(cpus=1, memory_gb=0.1)) == cores
    assert jobs_at_once(RuntimeConfig(cpus=cores, memory_gb=0.1)) == 1
    assert jobs_at_once(RuntimeConfig(cpus=1, memory_gb=9999)) == 1
    assert jobs_at_once(RuntimeConfig(cpus=1, jobs=7)) == 7
