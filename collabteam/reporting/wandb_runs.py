"""Training curves in W&B or CSV, and finished rounds in W&B. The only module that imports wandb.

A camera's runs form one group. Their ``job_type`` is their stage:

- ``train``: one run per fold, the curves of its training.
- ``select``: one run per round after round 0, the increment that the previous round's team chose.
- ``evaluate``: one run per round, the resulting team and sample crops with its verdicts.
- ``rounds``: one run per camera, its figures with the round as axis.

Finished rounds are logged from the files on disk, under names that depend only on those files
(:func:`log_rounds`): logging a round again, after a kill or out of order, replaces the earlier
content. In offline mode, the default, a run needs no account and no network, and its files lie in
the camera's folder, from where ``wandb sync`` can upload them later.

``docs/tracking.md`` lists every key.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from collabteam.environment import isolated
from collabteam.errors import UserError
from collabteam.events import Fit
from collabteam.rounds.records import ClassIncrement, RoundRecord, mean_of
from collabteam.settings import LoggerConfig
from collabteam.storage.files import make_folder, read_json, write_json
from collabteam.storage.layout import ROUND_RECORD, RoundFiles

if TYPE_CHECKING:
    import numpy as np
    from lightning.pytorch.loggers import Logger
    from numpy.typing import NDArray
    from wandb import Artifact, Run

    from collabteam.storage.workspace import Workspace

_STEP = "trainer/global_step"
_ADVICE = "use logger.mode=offline and 'wandb sync' later"
# Variables that the user has set stay; the others follow the new run.
_USERS = frozenset(os.environ)


def fold_logger(config: LoggerConfig, fit: Fit) -> Logger | None:
    """Logger for the training of one fold, to be closed with :func:`finish`.

    Every call starts a new run, so a fold that is trained again after a crash never changes the
    files of the first attempt.

    Args:
        config: The logger's settings.
        fit: The fold; files go to ``wandb/`` or ``csv/fold-<fold>/`` in its folder, and its camera
            groups the runs.

    Returns:
        The logger; None if ``config.kind`` is ``none``.

    Raises:
        UserError: W&B is online, and there is no account or no connection.
    """
    if config.kind == "none":
        return None
    folder = fit.folder.resolve()
    make_folder(folder)
    if config.kind == "csv":
        from lightning.pytorch.loggers import CSVLogger

        # By default the logger numbers its attempts: version_0, version_1, ...
        log = RoundFiles(folder).fold_log(fit.fold)
        csv_logger = CSVLogger(folder, name=str(log.relative_to(folder)))
        csv_logger.log_hyperparams(dict(fit.settings))
        return csv_logger

    from lightning.pytorch.loggers import WandbLogger

    # The run starts here because Lightning would start it lazily during the first step and set
    # WANDB_MODE for the whole process.
    name = f"{fit.camera} round {fit.round} fold {fit.fold}"
    with refusals(f"logger.mode={config.mode}", _ADVICE):
        run = _begin(config, folder, fit.camera, name, "train", dict(fit.settings))
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
    """Start a run in a folder; it replaces an existing run of the same id."""
    folder = folder.resolve()
    _set("WANDB_CACHE_DIR", str(folder / "wandb" / "cache"))
    if run_id is not None:
        # Left by a killed attempt, or written with fewer rounds.
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


def _give_home() -> None:
    """W&B looks for settings in the home folder, and fails in a process that has none."""
    if os.path.expanduser("~") == "~":  # noqa: PTH111 - Path.home() raises then
        os.environ["HOME"] = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, os.environ["HOME"], ignore_errors=True)


def _set(name: str, value: str) -> None:
    if name not in _USERS:
        os.environ[name] = value


def account(what: str, advice: str) -> None:
    """Make sure that there is a W&B account whose key W&B accepts.

    Args:
        what: The setting that needs it, such as ``logger.mode=online``.
        advice: The alternative without an account.

    Raises:
        UserError: There is no account, no connection, or the key is wrong.
    """
    with refusals(what, advice):
        import wandb

        # This never prompts; init would ask for a key and wait.
        if not wandb.login(prompt=False):
            raise UserError(
                f"{what} needs a W&B account and found none: run 'wandb login' or set "
                f"WANDB_API_KEY, or {advice}"
            )


def default_entity(what: str, advice: str) -> str:
    """The user or team that owns an account's runs.

    Args:
        what: The setting that needs it.
        advice: The alternative, for the message.

    Raises:
        UserError: There is none, or W&B refuses the request.
    """
    with refusals(what, advice):
        import wandb

        entity = os.environ.get("WANDB_ENTITY") or wandb.Api().default_entity
    if not entity:
        raise UserError(f"{what}: the W&B account has no default team: set WANDB_ENTITY")
    return entity


@contextmanager
def refusals(what: str, advice: str) -> Iterator[None]:
    """Turn a refusal of W&B into one line; all calls of W&B happen inside this block.

    Args:
        what: The setting that caused the request.
        advice: The alternative, for the message.

    Raises:
        UserError: W&B refuses.
    """
    with isolated():
        # wandb and its service process read these once, so they must be set before the import.
        mine = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
        os.environ |= mine
        _give_home()
        import wandb
        from wandb.sdk.lib.service.service_connection import WandbApiFailedError

        try:
            yield
        except ValidationError as error:
            wrong = error.errors()[0]
            name = f"WANDB_{'_'.join(str(part) for part in wrong['loc'])}".upper()
            raise UserError(
                f"{name}={os.environ.get(name, '')} is not usable: W&B says '{wrong['msg']}'"
            ) from error
        except (wandb.Error, WandbApiFailedError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{what}: W&B says '{reason}': {advice}") from error
        finally:
            for name in mine:
                os.environ.pop(name, None)


def log_metrics(logger: Logger | None, round_: int, values: Mapping[str, float]) -> None:
    """Log figures of a fold with the round, instead of the training step, as their axis.

    Args:
        logger: From :func:`fold_logger`; None does nothing.
        round_: The round, 0 or more.
        values: Figures by their full key, such as ``recall/car/true``.
    """
    from lightning.pytorch.loggers import CSVLogger, WandbLogger

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
    """Close a fold's run, so that all is on disk and the run counts as finished.

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
    """A crop that a person judged, with the verdict of networks that did not train on it.

    Attributes:
        kind: ``surest`` (and right), ``unsure`` ("I don't know") or ``wrong``.
        crop_id: The crop.
        person: The person's label.
        team: The team's label, or "I don't know".
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
    """The results of a round besides its record.

    Attributes:
        team: Files of the networks that vote.
        team_before: Those of the round before; empty in round 0.
        increment: Crops that the team of the round before chose: crop id, label, confidence.
        samples: Some crops with verdicts.
    """

    team: Sequence[Path]
    team_before: Sequence[Path]
    increment: Sequence[tuple[str, str, float]]
    samples: Sequence[Sample]


def is_logged(project: str, workspace: Workspace, record: RoundRecord) -> bool:
    """Whether a finished round is in the project, or on its way there.

    Args:
        project: The W&B project's name.
        workspace: The camera's files.
        record: The round's record.
    """
    try:
        mark = read_json(workspace.round(record.round).logged)
    except UserError:
        return False
    return bool(mark == _said(project, record))


def log_rounds(
    config: LoggerConfig,
    workspace: Workspace,
    rounds: Sequence[RoundRecord],
    made: Callable[[RoundRecord], RoundRun],
) -> None:
    """Log the finished rounds that are not logged yet; does nothing unless ``kind=wandb``.

    The ids of a round's runs, and of the camera's run, depend on the fingerprint. So a round that
    was only partly logged before a kill is logged again in the same place, and its artifacts, whose
    content is the same, make no new versions. Each call rewrites the camera's whole run from the
    records.

    Args:
        config: The logger's settings.
        workspace: The camera's files, including the logs.
        rounds: Records of rounds 0 to the last finished one.
        made: Returns the results of a round.

    Raises:
        UserError: W&B is online and refuses.
    """
    if config.kind != "wandb":
        return
    if config.mode == "online":
        # Checked before any draw or training whose results could then not be logged.
        account("logger.mode=online", _ADVICE)
    left = [record for record in rounds if not is_logged(config.project, workspace, record)]
    if not left:
        return
    with refusals(f"logger.mode={config.mode}", _ADVICE):
        for record in left:
            before = rounds[record.round - 1] if record.round else None
            _log_round(config, workspace.round(record.round), record, before, made(record))
        _log_course(config, workspace.folder, rounds)
    for record in left:
        write_json(workspace.round(record.round).logged, _said(config.project, record))


def _said(project: str, record: RoundRecord) -> dict[str, str]:
    return {"project": project, "fingerprint": record.fingerprint}


def _log_round(
    config: LoggerConfig,
    files: RoundFiles,
    record: RoundRecord,
    before: RoundRecord | None,
    made: RoundRun,
) -> None:
    import wandb

    number, plain = record.round, record.to_json()
    settings = {
        **record.settings,
        **{name: plain[name] for name in ("round", "fingerprint", "train_size", "increment")},
    }

    def begin(stage: str) -> Run:
        name = f"{record.camera} round {number} {stage}"
        return _begin(
            config, files.folder, record.camera, name, stage, settings,
            f"{name.replace(' ', '-')}-{record.fingerprint}",
        )  # fmt: skip

    inputs: list[tuple[Artifact, RoundRecord]] = []
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


def _artifact(what: str, kind: str, record: RoundRecord) -> Artifact:
    import wandb

    about = record.model_dump(include={"camera", "round", "fingerprint", "classes"})
    return wandb.Artifact(f"{what}-{record.camera}", kind, metadata=about)


def _team(record: RoundRecord, files: Sequence[Path]) -> Artifact:
    """The voting networks and the round's record; every call gives the same content."""
    artifact = _artifact("team", "model", record)
    for file in files:
        # Referenced in place: they are large and never change.
        artifact.add_file(str(file.resolve()), policy="immutable", skip_cache=True)
    with artifact.new_file(ROUND_RECORD) as text:
        json.dump(record.to_json(), text, indent=1)
    return artifact


def _names(record: RoundRecord) -> list[str]:
    """Aliases of a round's artifacts."""
    return [f"round-{record.round}", record.fingerprint]


def _use(run: Run, artifact: Artifact, origin: RoundRecord) -> None:
    """Declare an artifact as an input of a run."""
    # run.use_artifact does not work offline. This is what it does online for an artifact that is
    # not uploaded yet; offline the declaration waits in the run's file until 'wandb sync'. W&B then
    # finds that it has the content and records the use.
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


def _log_course(config: LoggerConfig, folder: Path, rounds: Sequence[RoundRecord]) -> None:
    camera = rounds[0].camera
    run = _begin(
        config, folder, camera, camera, "rounds", rounds[-1].settings,
        f"{camera}-rounds-{rounds[0].fingerprint}",
    )  # fmt: skip
    run.define_metric("round")
    run.define_metric("*", step_metric="round")
    for record in rounds:
        run.log({"round": record.round, **round_metrics(record)})
    run.finish()


def round_metrics(record: RoundRecord) -> dict[str, float]:
    """The figures of a round, by their keys in the camera's run.

    Args:
        record: A round's record.

    Returns:
        Key and value, see ``docs/tracking.md``; missing figures are left out.
    """
    figures: dict[str, float | None] = record.model_dump(
        include={
            "coverage", "abstain_rate", "coverage_test", "consensus_accuracy_test", "label_noise",
            "train_size", "pool_size", "test_size", "peak_memory_mb",
        }
    )  # fmt: skip
    recall = record.recall
    for block, branches in (
        ("test", recall.test or {}), ("human", recall.human), ("validation", recall.validation)
    ):  # fmt: skip
        for name, branch in branches.items():
            figures |= {
                f"recall/{block}/{name}/{side}": value for side, value in branch.sides().items()
            }
        figures[f"recall/{block}/mean"] = mean_of(branches)
    for name, drawn in record.increment.items():
        figures |= {f"increment/{name}/{key}": value for key, value in drawn.model_dump().items()}
    if record.increment:
        of_all = list(record.increment.values())
        figures["increment/taken"] = sum(drawn.taken for drawn in of_all)
        figures["increment/precision"] = _weighted(of_all, [drawn.precision for drawn in of_all])
        figures["increment/expected_precision"] = _weighted(
            of_all, [drawn.expected_precision for drawn in of_all]
        )
    if record.unknown:
        figures |= {f"unknown/{key}": value for key, value in record.unknown.model_dump().items()}
    figures |= {f"seconds/{stage}": value for stage, value in record.seconds.items()}
    return {key: float(value) for key, value in figures.items() if value is not None}


def _weighted(drawn: Sequence[ClassIncrement], rates: Sequence[float | None]) -> float | None:
    """The rate over all classes, weighted by the crops taken of each class."""
    known = [(one.taken, rate) for one, rate in zip(drawn, rates, strict=True) if rate is not None]
    taken = sum(count for count, _ in known)
    return sum(count * rate for count, rate in known) / taken if taken else None
