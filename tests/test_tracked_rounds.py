"""What W&B gets of finished rounds, read from the files of a real training, and what it is sent.

``tests/wandb_server.py`` stands for W&B: it sees what is asked of it, and by whom.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    CLASSES,
    REPOSITORY,
    SMALL,
    Call,
    command,
    environment,
    fingerprints,
    one_line,
    read_json,
)
from wandb_files import Run, content, read_run, read_runs
from wandb_server import KEY, Server, serving

from collabteam.catalog import Catalog
from collabteam.reporting.tracking import UNSURE
from collabteam.reporting.wandb_runs import round_metrics
from collabteam.rounds.records import ClassIncrement, RoundRecord, read_rounds
from collabteam.storage.workspace import Workspace

pytestmark = pytest.mark.slow

WANDB = ("camera=sim", *(setting for setting in SMALL if setting != "logger=none"))


def at(server: Server, home: Path, key: str = KEY) -> dict[str, str]:
    """The environment of someone with a key of that server; nothing else of W&B."""
    mine = {"HOME": str(home), "WANDB_BASE_URL": server.url, "WANDB_API_KEY": key}
    # Lightning imports matplotlib, which would write its list of fonts to the home.
    return environment() | mine | {"MPLCONFIGDIR": str(home.parent / "fonts")}


def do(arguments: list[str], folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=folder, env=env, capture_output=True, text=True, timeout=180,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@dataclass
class Logged:
    """A camera whose three rounds were logged offline, and what its command did besides."""

    root: Path
    home: Path
    in_home: list[Path]
    requests: int
    runs: dict[str, Run]

    @property
    def folder(self) -> Path:
        return self.root / "sim"


@pytest.fixture(scope="module")
def logged(simulated: Path, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Logged:
    base = tmp_path_factory.mktemp("logged")
    root, home = base / "outputs", base / "home"
    home.mkdir()
    shutil.copytree(simulated, root)
    done = do(command("train", f"root={root}", *WANDB, "round=2"), base, at(server, home))
    assert done.returncode == 0, done.stderr
    assert "wandb" not in done.stderr.lower()
    return Logged(root, home, list(home.iterdir()), len(server.requests), read_runs(root))


@pytest.fixture
def again(logged: Logged, tmp_path: Path) -> Path:
    """A copy of the root."""
    return Path(shutil.copytree(logged.root, tmp_path / "outputs"))


# --- runs --------------------------------------------------------------------------------------


def test_offline_nothing_leaves_the_machine_or_the_cameras_folder(logged: Logged) -> None:
    assert logged.requests == 0
    assert logged.in_home == []
    assert {path.name for path in logged.root.parent.iterdir()} <= {"outputs", "home", "fonts"}
    assert [path.name for path in logged.root.iterdir()] == ["sim"]


def test_runs_are_grouped_by_camera_and_told_apart_by_stage(logged: Logged) -> None:
    stages = {run.name: run.stage for run in logged.runs.values()}
    assert stages == {
        "sim": "rounds",
        **{f"sim round {k} fold 0": "train" for k in range(3)},
        **{f"sim round {k} select": "select" for k in (1, 2)},
        **{f"sim round {k} evaluate": "evaluate" for k in range(3)},
    }
    for run in logged.runs.values():
        assert run.group == "sim"
        assert run.finished


def test_the_cameras_run_has_a_point_a_round(logged: Logged) -> None:
    run = logged.runs["sim"]
    records = read_rounds(Workspace(logged.folder))
    assert [point["round"] for point in run.points] == [0, 1, 2]
    for point, record in zip(run.points, records, strict=True):
        assert point == {"round": record.round, **round_metrics(record)}
        assert record.recall.test is not None
        for name in CLASSES:
            for side, value in record.recall.test[name].sides().items():
                assert point[f"recall/test/{name}/{side}"] == value
        assert point["coverage"] + point["abstain_rate"] == pytest.approx(1)
    assert run.axes == {"round": "", "*": "round"}


def test_the_rates_of_all_classes_are_by_crops_taken(logged: Logged) -> None:
    record = read_rounds(Workspace(logged.folder))[0]
    rows = [(10, 0.5, 1.0), (30, 0.9, None), (0, None, 0.2)]
    increment = {
        name: ClassIncrement(
            candidates=50, taken=taken, shortfall=0, expected_precision=guess, precision=right
        )
        for name, (taken, guess, right) in zip(CLASSES, rows, strict=True)
    }
    figures = round_metrics(record.model_copy(update={"increment": increment}))
    assert figures["increment/taken"] == 40
    assert figures["increment/expected_precision"] == pytest.approx((10 * 0.5 + 30 * 0.9) / 40)
    assert figures["increment/precision"] == 1.0
    assert "increment/motorcyclist/precision" not in figures


def documented() -> set[tuple[str, str]]:
    """Run and key of every row of the document's table, ``<class>`` written out."""
    text = (REPOSITORY / "docs" / "tracking.md").read_text(encoding="utf-8")
    found = set()
    for row in re.findall(r"^\| `(.+?)` \|.*\|$", text.partition("## Keys")[2], re.MULTILINE):
        (cells,) = re.findall(rf"^\| `{re.escape(row)}` \|(.*)\|$", text, re.MULTILINE)
        runs = cells.split("|")[3]
        for name in CLASSES if "<class>" in row else [""]:
            found |= {(run.strip(), row.replace("<class>", name)) for run in runs.split(",")}
    return found


def test_the_document_lists_what_is_logged_and_nothing_else(logged: Logged) -> None:
    found = {(run.stage, key) for run in logged.runs.values() for key in run.keys}
    assert found == documented()


# --- artifacts ---------------------------------------------------------------------------------


def test_each_round_builds_on_the_team_before_and_on_its_increment(logged: Logged) -> None:
    runs = logged.runs
    teams = [runs[f"sim round {k} evaluate"].logged("team-sim").digest for k in range(3)]
    assert len(set(teams)) == 3
    assert runs["sim round 0 evaluate"].used == {}
    for k in (1, 2):
        select, evaluate = runs[f"sim round {k} select"], runs[f"sim round {k} evaluate"]
        assert select.used == {"team-sim": teams[k - 1]}
        increment = select.logged("increment-sim").digest
        assert evaluate.used == {"team-sim": teams[k - 1], "increment-sim": increment}


def test_a_team_is_the_networks_that_vote_and_the_record(logged: Logged) -> None:
    for record in read_rounds(Workspace(logged.folder)):
        run = logged.runs[f"sim round {record.round} evaluate"]
        team = run.logged("team-sim")
        assert team.type == "model"
        assert set(team.aliases) == {"latest", f"round-{record.round}", record.fingerprint}
        about = json.loads(team.metadata)
        assert (about["fingerprint"], about["classes"]) == (record.fingerprint, CLASSES)
        files = content(team)
        folder = logged.folder / f"round-{record.round}"
        assert read_json(files.pop("round.json")) == read_json(folder / "round.json")
        # Not copied: a round's networks may be hundreds of MB.
        assert files == {
            f"{name}.fold-{fold}.safetensors": folder / f"branches/{name}.fold-{fold}.safetensors"
            for name, folds in record.voting.items()
            for fold in folds
        }


def test_an_increment_is_a_table_of_crops(logged: Logged) -> None:
    index = Catalog(logged.folder).index()
    log = Catalog(logged.folder).log(("crop_id", "purpose", "round", "confidence")).to_pylist()
    for k in (1, 2):
        increment = logged.runs[f"sim round {k} select"].logged("increment-sim")
        assert increment.type == "dataset"
        table = read_json(content(increment)["crops.table.json"])
        assert table["columns"] == ["crop", "label", "confidence"]
        rows = {crop: (label, confidence) for crop, label, confidence in table["data"]}
        drawn = index.increment_round == k
        assert len(rows) == len(table["data"]) == drawn.sum() > 0
        assert {crop: label for crop, (label, _) in rows.items()} == dict(
            zip(index.crop_id[drawn], index.increment_label[drawn], strict=True)
        )
        assert {crop: confidence for crop, (_, confidence) in rows.items()} == {
            event["crop_id"]: event["confidence"]
            for event in log
            if event["purpose"] == "increment" and event["round"] == k
        }


def samples(run: Run) -> tuple[list[dict[str, Any]], Any]:
    """Rows of a round's sample crops, and the artifact that holds their pictures."""
    (artifact,) = [one for one in run.artifacts if one.type == "run_table"]
    table = read_json(content(artifact)["samples.table.json"])
    return [dict(zip(table["columns"], row, strict=True)) for row in table["data"]], artifact


def test_sample_crops_show_verdicts_of_networks_that_did_not_train_on_them(
    logged: Logged,
) -> None:
    index = Catalog(logged.folder).index()
    human = dict(zip(index.crop_id, index.human, strict=True))
    for k in range(3):
        rows, artifact = samples(logged.runs[f"sim round {k} evaluate"])
        kinds = [row["kind"] for row in rows]
        assert 0 < len(rows) <= 24
        assert max(kinds.count(kind) for kind in set(kinds)) <= 8
        assert len({row["crop"] for row in rows}) == len(rows)
        for row in rows:
            assert row["person"] == human[row["crop"]]
            right = row["team"] == row["person"]
            assert row["kind"] == (
                "unsure" if row["team"] == UNSURE else "surest" if right else "wrong"
            )
            assert 0 <= row["confidence"] <= 1
            picture = content(artifact)[row["picture"]["path"]]
            assert picture.read_bytes()[:2] == b"\xff\xd8"
            assert row["picture"]["width"] == row["picture"]["height"] == 24
        sure = [row["confidence"] for row in rows if row["kind"] == "surest"]
        assert sure == sorted(sure, reverse=True)


def test_pictures_can_be_left_out(root: Path, call: Call) -> None:
    said = call("train", f"root={root}", *WANDB, "optim.epochs=1", "logger.pictures=false")
    assert said.code == 0, said.err
    rows, artifact = samples(read_runs(root)["sim round 0 evaluate"])
    assert rows
    assert set(rows[0]) == {"kind", "person", "team", "confidence", "crop"}
    assert set(content(artifact)) == {"samples.table.json"}
    files = [path for path in (root / "sim").glob("**/wandb/**/*") if path.is_file()]
    assert not any(path.read_bytes()[:2] == b"\xff\xd8" for path in files)


# --- killed, and logged late -------------------------------------------------------------------


def test_the_same_command_again_logs_nothing(again: Path, call: Call) -> None:
    before = fingerprints(again)
    assert call("train", f"root={again}", *WANDB, "round=2").code == 0
    assert fingerprints(again) == before


def test_a_round_that_a_kill_kept_from_being_logged_is_logged_once(
    logged: Logged, again: Path, call: Call
) -> None:
    # As after a kill amid the logging of round 2: nothing says that it is done, a run breaks off.
    (again / "sim" / "round-2" / "wandb" / "logged.json").unlink()
    (broken,) = again.rglob("run-sim-round-2-evaluate-*.wandb")
    broken.write_bytes(broken.read_bytes()[:400])
    (gone,) = again.glob("sim/wandb/offline-run-*")
    shutil.rmtree(gone)
    kept = fingerprints(again / "sim" / "round-1")
    said = call("train", f"root={again}", *WANDB, "round=2")
    assert said.code == 0, said.err
    assert fingerprints(again / "sim" / "round-1") == kept
    runs = read_runs(again)
    assert {name: run.id for name, run in runs.items()} == {
        name: run.id for name, run in logged.runs.items()
    }
    assert all(run.finished for run in runs.values())
    assert runs["sim"].points == logged.runs["sim"].points
    for name, run in runs.items():
        for was, now in zip(logged.runs[name].artifacts, run.artifacts, strict=True):
            assert (now.name, now.digest, set(now.aliases)) == (
                was.name, was.digest, set(was.aliases)
            )  # fmt: skip


def test_a_camera_that_was_trained_without_wandb_is_logged_later(
    finished: Path, call: Call
) -> None:
    said = call("train", f"root={finished}", *WANDB, "round=2")
    assert said.code == 0, said.err
    runs = read_runs(finished)
    assert [point["round"] for point in runs["sim"].points] == [0, 1, 2]
    assert {run.stage for run in runs.values()} == {"select", "evaluate", "rounds"}


# --- sync --------------------------------------------------------------------------------------


def test_wandb_sync_uploads_the_teams_and_what_they_built_on(
    logged: Logged, again: Path, server: Server, tmp_path: Path
) -> None:
    # A run's file says where the networks lie, so it is the original that is synced.
    branches = fingerprints(logged.folder / "round-0" / "branches")
    paths = sorted(logged.folder.rglob("offline-run-*"), key=lambda path: path.stat().st_mtime_ns)
    # Round 2 is as round 1; a fold's training has nothing but curves.
    paths = [path for path in paths if re.search(r"round-[01]-|sim-rounds", path.name)]
    assert [read_run(next(path.glob("*.wandb"))).name for path in paths] == [
        "sim round 0 evaluate", "sim round 1 select", "sim round 1 evaluate", "sim"
    ]  # fmt: skip
    for path in paths:
        done = do(
            [str(Path(sys.executable).with_name("wandb")), "sync", str(path)],
            tmp_path,
            at(server, logged.home),
        )
        assert done.returncode == 0, done.stderr
        assert "Finished syncing" in done.stderr
    begun = {one["name"]: one["jobType"] for one in server.of("UpsertBucket") if one["jobType"]}
    assert sorted(begun.values()) == ["evaluate", "evaluate", "rounds", "select"]
    name_of = {artifact: key[0] for key, artifact in server.committed.items()}
    used = [(one["runName"], one["artifactID"]) for one in server.of("UseArtifact")]
    stages = [(begun[run], name_of[artifact]) for run, artifact in used]
    assert sorted(stages) == [
        ("evaluate", "increment-sim"), ("evaluate", "team-sim"), ("select", "team-sim")
    ]  # fmt: skip
    # Two versions of the team, one increment: what is used makes no version of its own.
    assert [name for name in name_of.values() if not name.startswith("run-")] == [
        "team-sim", "increment-sim", "team-sim"
    ]  # fmt: skip
    assert len({artifact for run, artifact in used if name_of[artifact] == "team-sim"}) == 1
    # Uploaded, not moved.
    assert fingerprints(logged.folder / "round-0" / "branches") == branches


# --- the workspace -----------------------------------------------------------------------------


def panels(specification: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    sections = specification["spec"]["section"]["panelBankConfig"]["sections"]
    return [
        (section["name"], panel["config"]) for section in sections for panel in section["panels"]
    ]


def test_the_workspace_without_an_account(logged: Logged, again: Path, call: Call) -> None:
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces.workspaces.internal import View

    said = call("dashboard", f"root={again}")
    assert (said.code, said.err) == (0, "")
    assert f"its specification: {again}/dashboard.json" in said.out
    assert "publish=true" in said.out.splitlines()[-1]
    specification = read_json(again / "dashboard.json")
    shown = panels(specification)
    # Whatever is shown was logged, by the runs that the workspace looks at.
    run = logged.runs["sim"]
    keys = {key for _, panel in shown for key in panel["metrics"]}
    assert keys <= run.keys
    assert {panel["xAxis"] for _, panel in shown if "xAxis" in panel} == {"round"}
    # And all that there is to see is shown.
    sides = [f"{name}/{side}" for name in CLASSES for side in ("true", "false")]
    assert {f"recall/{block}/{side}" for block in ("test", "human") for side in sides} <= keys
    assert {"coverage", "abstain_rate", "increment/precision", "recall/test/mean"} <= keys
    assert {f"increment/{name}/expected_precision" for name in CLASSES} <= keys
    names = list(dict.fromkeys(name for name, _ in shown))
    assert [name.split(",")[0] for name in names] == [
        "Cameras side by side", "Recall of the branches", "Recall of the branches",
        "Coverage and I don't know", "Precision of the increments",
    ]  # fmt: skip
    # W&B's own classes read it back and write the same.
    workspace = ws.Workspace._from_model(View.model_validate(specification))
    assert [(section.name, len(section.panels)) for section in workspace.sections] == [
        (name, sum(name == other for other, _ in shown)) for name in names
    ]
    assert panels(workspace._spec) == shown
    (runset,) = specification["spec"]["section"]["runSets"]
    wanted = {one["key"]["name"]: one["value"] for one in runset["filters"]["filters"]}
    assert wanted == {"jobType": run.stage, "group": [run.group]}


def test_the_workspace_has_no_empty_panel(again: Path, call: Call) -> None:
    # A camera without a frozen test set, at round 0: figures are fewer, and so are panels.
    for number in (1, 2):
        shutil.rmtree(again / "sim" / f"round-{number}")
    file = again / "sim" / "round-0" / "round.json"
    record = read_json(file)
    record["recall"]["test"] = record["coverage_test"] = record["consensus_accuracy_test"] = None
    file.write_text(json.dumps(record))
    assert call("dashboard", f"root={again}").code == 0
    keys = {key for _, one in panels(read_json(again / "dashboard.json")) for key in one["metrics"]}
    assert keys <= set(round_metrics(RoundRecord.read(file, "")))
    assert "recall/human/mean" in keys
    assert not any("test" in key or key.startswith("increment/") for key in keys)


def test_what_the_workspace_cannot_be_built_of(again: Path, call: Call) -> None:
    for settings in (
        [f"root={again}", "project=other"], [f"root={again}", "cameras=[dock*]"],
        [f"root={again}/nowhere"],
    ):  # fmt: skip
        one_line(call("dashboard", *settings), "has logged", "logger=wandb")
        assert not (again / "dashboard.json").exists()
    one_line(call("dashboard", f"root={again}", "cameras=[]"), "cameras=[]", "names or patterns")


def test_publishing_needs_an_account_and_the_right_key(
    logged: Logged, again: Path, server: Server, tmp_path: Path
) -> None:
    home = logged.home
    publish = command("dashboard", f"root={again}", "publish=true")
    nobody = at(server, home)
    del nobody["WANDB_API_KEY"]
    said = one_line(do(publish, tmp_path, nobody), "needs a W&B account", "wandb login")
    assert "leave publish=true out" in said
    wrong = do(publish, tmp_path, at(server, home, "b" * 40))
    one_line(wrong, "W&B says", "who are you?", "leave publish=true out")
    assert not server.of("UpsertView2")
    done = do(publish, tmp_path, at(server, home))
    assert done.returncode == 0, done.stderr
    (view,) = server.of("UpsertView2")
    assert f"on W&B: {server.url}/team/collabteam?nw=" in done.stdout
    assert json.loads(view["spec"]) == read_json(again / "dashboard.json")["spec"]


def test_a_wrong_key_is_refused_before_anything_is_drawn(
    logged: Logged, root: Path, server: Server, tmp_path: Path
) -> None:
    before = fingerprints(root)
    train = command("train", f"root={root}", *WANDB, "logger.mode=online")
    wrong = do(train, tmp_path, at(server, logged.home, "b" * 40))
    one_line(wrong, "logger.mode=online", "W&B says", "who are you?", "logger.mode=offline")
    assert fingerprints(root) == before
