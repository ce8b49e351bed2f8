"""``python -m collabteam.dashboard``: a W&B workspace over the rounds of all cameras."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from collabteam.cli.command import Command
from collabteam.cli.outcome import Outcome
from collabteam.errors import UserError, first_line
from collabteam.events import Listener
from collabteam.reporting.output import tell
from collabteam.settings.fields import setting

if TYPE_CHECKING:
    from collabteam.rounds.records import RoundRecord


@dataclass
class DashboardConfig:
    """Settings of ``collabteam.dashboard``."""

    cameras: list[str] = setting(
        ["*"], affects="place", help="names or patterns of cameras; camera= becomes this"
    )
    root: str = setting(
        "outputs",
        affects="place",
        is_path=True,
        help="folder under which every camera has its own",
    )
    project: str = setting(
        "collabteam", affects="place", help="the W&B project that the cameras logged to"
    )
    publish: bool = setting(
        False,
        affects="place",
        help="publish the workspace on W&B, which needs an account; else only write it to a file",
    )

    def check_together(self) -> None:
        """Raise unless cameras are named.

        Raises:
            UserError: There are none.
        """
        if not self.cameras:
            raise UserError("cameras=[]: expected names or patterns, such as 'camera=glob(S10-*)'")


def run(config: DashboardConfig, listener: Listener) -> Outcome:
    """Build the workspace, write it, and publish it if requested."""
    from collabteam.reporting import wandb_workspace as workspace
    from collabteam.storage.roots import root_folder

    cameras = _cameras(config, listener)
    entity = workspace.sign_in() if config.publish else ""
    built = workspace.build(cameras, config.project, entity)
    file = root_folder(config.root) / "dashboard.json"
    workspace.write(built, file)
    panels = sum(len(section.panels) for section in built.sections)
    lines = [
        f"a workspace of {len(built.sections)} sections, {panels} panels over {len(cameras)} "
        f"camera(s): {', '.join(cameras)}",
        f"its specification: {file}",
    ]
    if config.publish:
        lines.append(f"on W&B: {workspace.publish(built)}")
    else:
        lines.append(
            "next, with a W&B account: wandb login, then wandb sync of the offline runs "
            "(docs/tracking.md), then python -m collabteam.dashboard publish=true"
        )
    tell(lines)
    return Outcome(lines[0])


def _cameras(config: DashboardConfig, listener: Listener) -> dict[str, list[RoundRecord]]:
    """Finished rounds of the requested cameras that logged to the project."""
    from collabteam.reporting.wandb_runs import is_logged
    from collabteam.rounds.records import read_rounds
    from collabteam.storage.workspace import registered

    found = {}
    for name, workspace in registered(config.root).items():
        if not any(fnmatchcase(name, pattern) for pattern in config.cameras):
            continue
        try:
            workspace.refresh()
            rounds = read_rounds(workspace)
        except (UserError, OSError) as error:
            listener.warn(f"{name} is left out: {first_line(error)}")
            continue
        if rounds := [one for one in rounds if is_logged(config.project, workspace, one)]:
            found[name] = rounds
    if not found:
        raise UserError(
            f"no camera of {', '.join(config.cameras)} under {config.root} has logged a "
            f"round to the W&B project {config.project}: python -m collabteam.train camera=NAME "
            f"logger=wandb logger.project={config.project}"
        )
    return found


main = Command(
    "dashboard",
    DashboardConfig,
    run,
    about="Build a W&B workspace over the rounds of all cameras that logged to a project: recall "
    'of each branch, coverage, "I don\'t know", precision of the increments. Needs the package '
    "wandb-workspaces (pip install 'collabteam[dashboard]').",
    usage=(
        ("[setting=value ...]", "all cameras"),
        ("'camera=glob(S10-*)'", "some of them"),
    ),
    notes=(
        "python -m collabteam.train logs to W&B, offline by default; 'wandb sync' uploads "
        "offline runs, see docs/tracking.md.",
    ),
    cameras="all",
)

if __name__ == "__main__":
    main()
