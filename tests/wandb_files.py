"""What W&B's runs have on disk, read without wandb's own reader."""

from __future__ import annotations

import importlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def records(path: Path) -> list[Any]:
    """Records of an offline run: a log of checksummed pieces in blocks of 32 KiB, as LevelDB's."""
    # Its classes are made at run time, where no type checker sees them.
    messages: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    data = path.read_bytes()
    # wandb's own header; pieces are cut at multiples of the block size of the whole file.
    assert data[:4] == b":W&B"
    found, whole, at = [], b"", 7
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # complete, or the last piece
            record = messages.Record()
            record.ParseFromString(whole)
            found.append(record)
            whole = b""
    return found


def history(found: list[Any]) -> list[dict[str, Any]]:
    return [
        {item.nested_key[0] if item.nested_key else item.key: json.loads(item.value_json)
         for item in record.history.item}
        for record in found
        if record.HasField("history")
    ]  # fmt: skip


@dataclass
class Run:
    """A run and what it logged, without what wandb adds of its own (``_step``, ...)."""

    name: str
    id: str
    group: str
    stage: str
    finished: bool
    config: dict[str, Any]
    points: list[dict[str, Any]]
    axes: dict[str, str]
    artifacts: list[Any]

    @property
    def keys(self) -> set[str]:
        return {key for point in self.points for key in point}

    def logged(self, name: str) -> Any:
        (one,) = [a for a in self.artifacts if a.name == name and not a.use_after_commit]
        return one

    @property
    def used(self) -> dict[str, str]:
        """Digest by name of what the run built on."""
        return {a.name: a.digest for a in self.artifacts if a.use_after_commit}


def read_run(path: Path) -> Run:
    found = records(path)
    run = next(record.run for record in found if record.HasField("run"))
    points = [
        {key: value for key, value in point.items() if not key.startswith("_")}
        for point in history(found)
    ]
    return Run(
        name=run.display_name,
        id=run.run_id,
        group=run.run_group,
        stage=run.job_type,
        finished=any(record.HasField("exit") for record in found),
        config={item.key: json.loads(item.value_json) for item in run.config.update},
        points=points,
        axes={
            record.metric.name or record.metric.glob_name: record.metric.step_metric
            for record in found
            if record.HasField("metric")
        },
        artifacts=[record.artifact for record in found if record.HasField("artifact")],
    )


def read_runs(folder: Path) -> dict[str, Run]:
    """Every run below a folder by its name, which no two may share."""
    runs = [read_run(path) for path in sorted(folder.rglob("run-*.wandb"))]
    assert len({run.name for run in runs}) == len(runs)
    return {run.name: run for run in runs}


def content(artifact: Any) -> dict[str, Path]:
    """By its name in the artifact, where each file lies that waits to be uploaded."""
    return {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
