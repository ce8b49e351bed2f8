"""Training curves in W&B or CSV, and finished rounds in W&B. The only file that knows wandb.

A camera's runs are one group. Their ``job_type`` is the stage that they belong to:

- ``train``: one run a fold, the curves of its training.
- ``select``: one run a round but the first, the increment that the team of the round before chose.
- ``evaluate``: one run a round, the team that came of it and sample crops with its verdicts.
- ``rounds``: one run a camera, the course of its figures with the round as axis.

What belongs to finished rounds is logged from what is on disk, under names that follow from it
(:func:`log_rounds`): logged again, after a kill or out of order, it takes the place of what was
there. Offline, which is the default, a run needs no account and no network, and its files lie in
the camera's folder, from where ``wandb sync`` can upload them later.

``docs/tracking.md`` lists every key.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collabteam.errors import UserError
from collabteam.reporting.table1 import Round
from collabteam.settings import LoggerConfig
from collabteam.storage.files import write_json
from collabteam.storage.layout import ROUND_RECORD, RoundFiles

if TYPE_CHECKING:
    import numpy as np
    from lightning.pytorch.loggers import Logger
    from numpy.typing import NDArray
    from wandb import Artifact, Run

    from collabteam.storage.workspace import Workspace

_STEP = "trainer/global_step"
_ADVICE = "use logger.mode=offline and 'wandb sync' later"
# What the user has set himself stays; the rest follows the run that is begun.
_USERS = frozenset(os.environ)


def fold_logger(
    config: LoggerConfig,
    files: RoundFiles,
    camera: str,
    round_: int,
    fold: int,
    settings: dict[str, Any],
) -> Logger | None:
    """Logger for the training of one fold, to be closed with :func:`finish`.

    Every call begins a record of its own, so a fold that is trained again after a crash never
    touches what the first attempt left.

    Args:
        config: Which logger.
        files: The round, in whose folder the logs are kept.
        camera: The camera's name, which groups its runs.
        round_: The round, 0 or more.
        fold: The fold, 0 or more.
        settings: Nested settings to record with the run.

    Returns:
        The logger; None if ``config.kind`` is ``none``.

    Raises:
        UserError: W&B is to be used online and there is no account or no connection.
    """
    if config.kind == "none":
        return None
    folder = files.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if config.kind == "csv":
        from lightning.pytorch.loggers import CSVLogger

        # Left to itself the logger numbers its attempts: version_0, version_1, ...
        log = RoundFiles(folder).fold_log(fold)
        csv_logger = CSVLogger(folder, name=str(log.relative_to(folder)))
        csv_logger.log_hyperparams(settings)
        return csv_logger

    from lightning.pytorch.loggers import WandbLogger

    # The run is begun here and not by Lightning, which would do so lazily in the middle of the
    # first step and set WANDB_MODE for the whole process.
    name = f"{camera} round {round_} fold {fold}"
    with refusals(f"logger.mode={config.mode}", _ADVICE):
        run = _begin(config, folder, camera, name, "train", settings)
    run.define_metric(_STEP)
    run.define_metric("*", step_metric=_STEP, step_sync=True)
    return WandbLogger(save_dir=folder, offline=config.mode == "offline", experiment=run)


def _begin(
    config: LoggerConfig,
    folder: Path,
    camera: str,
    name: str,
    stage: str,
    settings: dict[str, Any],
    run_id: str | None = None,
) -> Run:
    """Begin a run in a folder; one of the same id that lies there makes way."""
    folder = folder.resolve()
    _set("WANDB_CACHE_DIR", str(folder / "wandb" / "cache"))
    if run_id is not None:
        # Of an attempt that a kill ended, or of fewer rounds.
        for stale in (folder / "wandb").glob(f"*-{run_id}"):
            shutil.rmtree(stale, ignore_errors=True)  # wandb may outlive a kill by a moment
        # Tables wait here for 'wandb sync'; by default they would lie in the user's home.
        _set("WANDB_DATA_DIR", str(folder / "wandb" / f"staged-{run_id}"))
    import wandb

    if config.mode == "online":
        account("logger.mode=online", _ADVICE)
    return wandb.init(
        project=config.project,
        group=camera,
        name=name,
        id=run_id,
        job_type=stage,
        config=settings,
        reinit="create_new",
        settings=wandb.Settings(
            mode="online" if config.mode == "online" else "offline",
            root_dir=str(folder),
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            save_code=False,
            symlink=False,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        ),
    )


def _set(name: str, value: str) -> None:
    if name not in _USERS:
        os.environ[name] = value


def account(what: str, advice: str) -> None:
    """Make sure that there is a W&B account whose key W&B accepts.

    Args:
        what: The setting that needs it, such as ``logger.mode=online``.
        advice: What to do without one.

    Raises:
        UserError: There is no account, no connection, or the key is wrong.
    """
    with refusals(what, advice):
        import wandb

        # Never asks; init would prompt for a key and wait.
        if not wandb.login(prompt=False):
            raise UserError(
                f"{what} needs a W&B account and found none: run 'wandb login' or set "
                f"WANDB_API_KEY, or {advice}"
            )


def default_entity(what: str, advice: str) -> str:
    """The user or team in whose name an account's runs are kept.

    Args:
        what: The setting that needs it.
        advice: What to do instead.

    Raises:
        UserError: There is none, or W&B refuses to tell.
    """
    with refusals(what, advice):
        import wandb

        entity = os.environ.get("WANDB_ENTITY") or wandb.Api().default_entity
    if not entity:
        raise UserError(f"{what}: the W&B account has no default team: set WANDB_ENTITY")
    return entity


@contextmanager
def refusals(what: str, advice: str) -> Iterator[None]:
    """What W&B refuses, as one line; all that has to do with W&B happens inside.

    Args:
        what: The setting that had W&B asked.
        advice: What to do instead.

    Raises:
        UserError: W&B refuses.
    """
    # Read once, by wandb and by the process that it starts: they must stand before the import.
    _set("WANDB_ERROR_REPORTING", "false")
    _set("WANDB_SILENT", "true")
    import wandb
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError

    try:
        yield
    except (wandb.Error, WandbApiFailedError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{what}: W&B says '{reason}': {advice}") from error


def log_recall(
    logger: Logger | None,
    round_: int,
    recall: dict[str, dict[str, float | None]],
    extra: dict[str, float],
) -> None:
    """Record the recall of a round, with the round and not the training step as its axis.

    Args:
        logger: From :func:`fold_logger`; None does nothing.
        round_: The round, 0 or more.
        recall: Per class ``true`` and ``false``, 0 to 1; written as ``recall/<class>/true``.
        extra: Further numbers by their full key, such as ``coverage``.
    """
    from lightning.pytorch.loggers import CSVLogger, WandbLogger

    values = {
        f"recall/{name}/{side}": value
        for name, sides in recall.items()
        for side, value in sides.items()
        if value is not None
    } | extra
    if isinstance(logger, WandbLogger):
        run = logger.experiment
        run.define_metric("round")
        for key in values:
            run.define_metric(key, step_metric="round")
        run.log({"round": round_, **values})
    elif isinstance(logger, CSVLogger):
        logger.log_metrics({"round": round_, **values}, step=round_)
        logger.save()


def finish(logger: Logger | None) -> None:
    """Close a fold's record: everything is on disk and the run counts as finished.

    Args:
        logger: From :func:`fold_logger`; None does nothing.
    """
    from lightning.pytorch.loggers import CSVLogger, WandbLogger

    if isinstance(logger, WandbLogger):
        logger.experiment.finish()
    elif isinstance(logger, CSVLogger):
        logger.save()


# -- finished rounds -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """A crop that a person judged, and what the team says that did not train on it.

    Attributes:
        kind: ``surest`` (and right), ``unsure`` ("I don't know") or ``wrong``.
        crop_id: The crop.
        person: What a person called it.
        team: What the team calls it, or "I don't know".
        confidence: The team's joint confidence, 0 to 1.
        picture: (3, S, S) uint8, RGB, as the networks see it.
    """

    kind: str
    crop_id: str
    person: str
    team: str
    confidence: float
    picture: NDArray[np.uint8]


@dataclass(frozen=True)
class RoundRun:
    """What a round made, besides its record.

    Attributes:
        team: Files of the networks that vote.
        team_before: The same of the round before; empty in round 0.
        increment: Crops that the team of the round before chose: crop id, label, confidence.
        samples: Some crops with verdicts.
    """

    team: Sequence[Path]
    team_before: Sequence[Path]
    increment: Sequence[tuple[str, str, float]]
    samples: Sequence[Sample]


def is_logged(project: str, workspace: Workspace, record: Round) -> bool:
    """Whether a finished round is in the project, or on its way there.

    Args:
        project: The W&B project's name.
        workspace: The camera's files.
        record: The round's record.
    """
    try:
        mark = json.loads(workspace.round(record["round"]).logged.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(mark == _said(project, record))


def log_rounds(
    config: LoggerConfig,
    workspace: Workspace,
    rounds: Sequence[Round],
    made: Callable[[Round], RoundRun],
) -> None:
    """Log the finished rounds that are not logged yet; nothing but ``kind=wandb`` does anything.

    A round's runs, and the camera's, have ids that follow from its fingerprint. So a round that was
    logged in part, before a kill, is logged again in its place, and its artifacts, whose content is
    the same, make no new versions. The camera's run is written whole each time, from the records.

    Args:
        config: Which logger.
        workspace: The camera's files, among which the logs are kept.
        rounds: Records of rounds 0 to the last finished one.
        made: Gives what a round made.

    Raises:
        UserError: W&B is to be used online and refuses.
    """
    if config.kind != "wandb":
        return
    if config.mode == "online":
        # Before anything is drawn or trained that could then not be logged.
        account("logger.mode=online", _ADVICE)
    left = [record for record in rounds if not is_logged(config.project, workspace, record)]
    if not left:
        return
    with refusals(f"logger.mode={config.mode}", _ADVICE):
        for record in left:
            before = rounds[record["round"] - 1] if record["round"] else None
            _log_round(config, workspace.round(record["round"]), record, before, made(record))
        _log_course(config, workspace.folder, rounds)
    for record in left:
        write_json(workspace.round(record["round"]).logged, _said(config.project, record))


def _said(project: str, record: Round) -> dict[str, str]:
    return {"project": project, "fingerprint": record["fingerprint"]}


def _log_round(
    config: LoggerConfig, files: RoundFiles, record: Round, before: Round | None, made: RoundRun
) -> None:
    import wandb

    number = record["round"]
    settings = {
        **record["settings"],
        **{name: record[name] for name in ("round", "fingerprint", "train_size", "increment")},
    }

    def begin(stage: str) -> Run:
        name = f"{record['camera']} round {number} {stage}"
        return _begin(
            config, files.folder, record["camera"], name, stage, settings,
            f"{name.replace(' ', '-')}-{record['fingerprint']}",
        )  # fmt: skip

    inputs: list[tuple[Artifact, Round]] = []
    if before is not None:
        run = begin("select")
        inputs.append((_team(before, made.team_before), before))
        _use(run, *inputs[0])
        increment = _artifact("increment", "dataset", record)
        rows = [list(row) for row in made.increment]
        increment.add(wandb.Table(columns=["crop", "label", "confidence"], data=rows), "crops")
        inputs.append((increment, record))
        run.log_artifact(increment, aliases=["latest", *_names(record)])
        run.finish()
    run = begin("evaluate")
    for artifact, origin in inputs:
        _use(run, artifact, origin)
    run.log_artifact(_team(record, made.team), aliases=["latest", *_names(record)])
    run.define_metric("round")
    run.define_metric("samples", step_metric="round")
    run.log({"round": number, "samples": _sample_table(made.samples, config.pictures)})
    run.finish()


def _artifact(what: str, kind: str, record: Round) -> Artifact:
    import wandb

    about = ("camera", "round", "fingerprint", "classes")
    return wandb.Artifact(
        f"{what}-{record['camera']}", kind, metadata={name: record[name] for name in about}
    )


def _team(record: Round, files: Sequence[Path]) -> Artifact:
    """The networks that vote and the round's record; the same content whenever it is asked for."""
    artifact = _artifact("team", "model", record)
    for file in files:
        # Left where they lie: they are large, and nothing changes them.
        artifact.add_file(str(file.resolve()), policy="immutable", skip_cache=True)
    with artifact.new_file(ROUND_RECORD) as text:
        json.dump(record, text, indent=1)
    return artifact


def _names(record: Round) -> list[str]:
    """Aliases of what a round made."""
    return [f"round-{record['round']}", record["fingerprint"]]


def _use(run: Run, artifact: Artifact, origin: Round) -> None:
    """Declare an artifact as what a run built on."""
    # run.use_artifact refuses to work offline. With an artifact that is not uploaded yet this is
    # what it does online; offline the declaration waits in the run's file until 'wandb sync'. W&B
    # then finds that it has the content and notes the use.
    run._log_artifact(artifact, aliases=_names(origin), is_user_created=True, use_after_commit=True)


def _sample_table(samples: Sequence[Sample], pictures: bool) -> Any:
    import wandb

    columns: list[str | int] = ["kind", "person", "team", "confidence", "crop"]
    rows: list[list[Any]] = [
        [one.kind, one.person, one.team, one.confidence, one.crop_id] for one in samples
    ]
    if pictures:
        columns.append("picture")
        for row, one in zip(rows, samples, strict=True):
            row.append(wandb.Image(one.picture.transpose(1, 2, 0), file_type="jpg"))
    return wandb.Table(columns=columns, data=rows)


def _log_course(config: LoggerConfig, folder: Path, rounds: Sequence[Round]) -> None:
    camera = rounds[0]["camera"]
    run = _begin(
        config, folder, camera, camera, "rounds", rounds[-1]["settings"],
        f"{camera}-rounds-{rounds[0]['fingerprint']}",
    )  # fmt: skip
    run.define_metric("round")
    run.define_metric("*", step_metric="round")
    for record in rounds:
        run.log({"round": record["round"], **round_metrics(record)})
    run.finish()


def round_metrics(record: Round) -> dict[str, float]:
    """The figures of a round by the keys under which a camera's run has them.

    Args:
        record: A round's record.

    Returns:
        Key and value, see ``docs/tracking.md``; what the round has no figure of is left out.
    """
    figures: dict[str, float | None] = {
        name: record[name]
        for name in (
            "coverage", "abstain_rate", "coverage_test", "consensus_accuracy_test", "label_noise",
            "train_size", "pool_size", "test_size", "peak_memory_mb",
        )
    }  # fmt: skip
    for block in ("test", "human", "validation"):
        recall = record["recall"][block] or {}
        sides = {
            f"{name}/{side}": value for name, row in recall.items() for side, value in row.items()
        }
        known = [value for value in sides.values() if value is not None]
        figures |= {f"recall/{block}/{key}": value for key, value in sides.items()}
        figures[f"recall/{block}/mean"] = sum(known) / len(known) if known else None
    increment = record["increment"]
    for name, row in increment.items():
        figures |= {f"increment/{name}/{key}": value for key, value in row.items()}
    if increment:
        figures["increment/taken"] = sum(row["taken"] for row in increment.values())
        for key in ("precision", "expected_precision"):
            figures[f"increment/{key}"] = _of_all(list(increment.values()), key)
    figures |= {f"unknown/{key}": value for key, value in (record["unknown"] or {}).items()}
    figures |= {f"seconds/{stage}": value for stage, value in record["seconds"].items()}
    return {key: float(value) for key, value in figures.items() if value is not None}


def _of_all(rows: Sequence[dict[str, Any]], key: str) -> float | None:
    """A rate of all classes together, by how many crops of each were taken."""
    known = [row for row in rows if row[key] is not None and row["taken"]]
    taken = sum(row["taken"] for row in known)
    return sum(row[key] * row["taken"] for row in known) / taken if taken else None
