"""A W&B workspace over the rounds of several cameras.

Only this module imports wandb-workspaces. Its panels show the keys that
:func:`collabteam.reporting.wandb_runs.round_metrics` logs, and only keys that at least one round
has, so that no panel is empty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING

from collabteam.errors import UserError
from collabteam.reporting.wandb_runs import account, default_entity, refusals, round_metrics
from collabteam.rounds.records import RoundRecord
from collabteam.storage.files import write_json

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2.interface import PanelTypes
    from wandb_workspaces.workspaces import Section, Workspace

_PUBLISH = "publish=true"
_ADVICE = "leave publish=true out: the workspace is then written to a file"
_BLOCKS = {"test": "frozen test set", "human": "human-labelled crops of the folds"}


def build(cameras: dict[str, list[RoundRecord]], project: str, entity: str) -> Workspace:
    """Build the workspace without publishing it on W&B.

    Args:
        cameras: By name, the records of rounds 0 to the last finished one; at least one camera.
        project: The W&B project.
        entity: Owner of the project; empty without an account.

    Raises:
        UserError: wandb-workspaces is not installed.
    """
    try:
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise UserError(
            f"the dashboard needs the package wandb-workspaces ({error}): "
            "pip install 'collabteam[dashboard]'"
        ) from error
    figures = [round_metrics(record) for records in cameras.values() for record in records]
    keys = set().union(*figures)
    classes = list(
        dict.fromkeys(
            name for records in cameras.values() for one in records for name in one.classes
        )
    )
    names = ", ".join(repr(name) for name in cameras)
    return ws.Workspace(
        entity=entity,
        project=project,
        name="Teams by camera",
        sections=[
            _side_by_side(keys),
            *(_recall(keys, classes, block) for block in _BLOCKS if f"recall/{block}/mean" in keys),
            _coverage(keys),
            *([_increments(keys, classes)] if "increment/taken" in keys else []),
        ],
        settings=ws.WorkspaceSettings(x_axis="round", max_runs=100),
        runset_settings=ws.RunsetSettings(
            filters=f"JobType = 'rounds' and Group in [{names}]",
            pinned_columns=["summary:round", "summary:coverage"],
        ),
    )


def _side_by_side(keys: AbstractSet[str]) -> Section:
    """Bar charts that compare the cameras' last rounds, one bar per camera."""
    import wandb_workspaces.reports.v2.interface as wr

    titles = {
        "recall/test/mean": "Mean recall, frozen test set",
        "recall/human/mean": "Mean recall, human-labelled crops of the folds",
        "coverage": "Coverage of the pool",
        "abstain_rate": "I don't know",
        "increment/precision": "Precision of the last increment",
        "increment/expected_precision": "Estimated precision of the last increment",
        "train_size": "Training crops",
    }
    bars: list[PanelTypes] = [
        wr.BarPlot(title=title, metrics=[key], max_bars_to_show=100)
        for key, title in titles.items()
        if key in keys
    ]
    return _section("Cameras side by side, last round", bars, columns=3)


def _recall(keys: AbstractSet[str], classes: Sequence[str], block: str) -> Section:
    """Recall of true and of false over rounds: one row per branch, one line per camera."""
    rows = [
        (f"{name}: recall of {side}", [f"recall/{block}/{name}/{side}"])
        for name in classes
        for side in ("true", "false")
    ]
    return _section(f"Recall of the branches, {_BLOCKS[block]}", _lines(keys, rows), columns=2)


def _coverage(keys: AbstractSet[str]) -> Section:
    rows = [
        ("Coverage of the pool", ["coverage"]),
        ("I don't know, of the pool", ["abstain_rate"]),
        ("Coverage of the frozen test set", ["coverage_test"]),
        ("Consensus accuracy, frozen test set", ["consensus_accuracy_test"]),
        ("I don't know, of objects of no class", ["unknown/abstain_rate"]),
    ]
    return _section("Coverage and I don't know", _lines(keys, rows), columns=3)


def _increments(keys: AbstractSet[str], classes: Sequence[str]) -> Section:
    rows = [
        (f"{name}: precision, where the truth is known, and its estimate", [
            f"increment/{name}/precision", f"increment/{name}/expected_precision"
        ]) for name in classes
    ]  # fmt: skip
    rows.append(("All classes", ["increment/precision", "increment/expected_precision"]))
    rows.append(("Wrong labels in training", ["label_noise"]))
    counts = [("Crops taken", ["increment/taken"])]
    panels = [*_lines(keys, rows), *_lines(keys, counts, share=False)]
    return _section("Precision of the increments", panels, columns=3)


def _section(name: str, panels: list[PanelTypes], columns: int) -> Section:
    """An open section that shows all of its panels at once."""
    import wandb_workspaces.workspaces as ws

    layout = ws.SectionLayoutSettings(columns=columns, rows=math.ceil(len(panels) / columns))
    return ws.Section(name=name, panels=panels, is_open=True, layout_settings=layout)


def _lines(
    keys: AbstractSet[str], rows: Sequence[tuple[str, list[str]]], share: bool = True
) -> list[PanelTypes]:
    """Line plots over rounds of the keys that have values."""
    import wandb_workspaces.reports.v2.interface as wr

    return [
        wr.LinePlot(title=title, x="round", y=[*known], range_y=(0, 1 if share else None))
        for title, wanted in rows
        if (known := [key for key in wanted if key in keys])
    ]


def write(workspace: Workspace, file: Path) -> None:
    """Write the specification for W&B as JSON."""
    write_json(file, workspace._spec)


def sign_in() -> str:
    """Make sure that there is a W&B account.

    Returns:
        The user or team that owns the account's projects.

    Raises:
        UserError: There is no account, no connection, or the key is wrong.
    """
    account(_PUBLISH, _ADVICE)
    return default_entity(_PUBLISH, _ADVICE)


def publish(workspace: Workspace) -> str:
    """Publish the workspace on W&B as a new view of the project.

    Returns:
        Its address.

    Raises:
        UserError: W&B refuses.
    """
    with refusals(_PUBLISH, _ADVICE):
        url: str = workspace.save().url  # type: ignore[no-untyped-call]
        return url
