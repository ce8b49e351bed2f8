"""Training curves and recall in W&B or CSV. The only file that knows wandb.

One run per camera, round and fold. Offline, which is the default, a run needs no account and no
network, and its files lie in the round's folder, from where ``wandb sync`` can upload them later.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collabteam.config import LoggerConfig
from collabteam.errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger
    from wandb import Run

_STEP = "trainer/global_step"


def fold_logger(
    config: LoggerConfig,
    folder: Path,
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
        folder: The round's folder; files go to ``wandb/`` or ``csv/fold-<fold>/`` inside it.
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
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if config.kind == "csv":
        from lightning.pytorch.loggers import CSVLogger

        # Left to itself the logger numbers its attempts: version_0, version_1, ...
        csv_logger = CSVLogger(folder, name=f"csv/fold-{fold}")
        csv_logger.log_hyperparams(settings)
        return csv_logger

    from lightning.pytorch.loggers import WandbLogger

    # The run is begun here and not by Lightning, which would do so lazily in the middle of the
    # first step and set WANDB_MODE for the whole process.
    run = _begin(config, folder, camera, f"{camera} round {round_} fold {fold}", settings)
    run.define_metric(_STEP)
    run.define_metric("*", step_metric=_STEP, step_sync=True)
    return WandbLogger(save_dir=folder, offline=config.mode == "offline", experiment=run)


def _begin(
    config: LoggerConfig, folder: Path, camera: str, name: str, settings: dict[str, Any]
) -> Run:
    # Read once, by wandb and by the process that it starts: they must stand before the import.
    # What the user has set himself stays.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_CACHE_DIR", str(folder / "wandb" / "cache"))
    import wandb

    advice = "use logger.mode=offline and 'wandb sync' later"
    try:
        # Asked beforehand, because init would prompt for a key and wait.
        if config.mode == "online" and not wandb.login(prompt=False):
            raise UserError(
                "logger.mode=online needs a W&B account and found none: run 'wandb login' or set "
                f"WANDB_API_KEY, or {advice}"
            )
        return wandb.init(
            project=config.project,
            group=camera,
            name=name,
            job_type="train",
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
    except wandb.Error as error:
        reason = " ".join(str(error).split())
        raise UserError(f"logger.mode={config.mode}: W&B says '{reason}': {advice}") from error


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
