"""``python -m collabteam.train``: bring a camera to a round."""

from __future__ import annotations

from collabteam.cli.command import Command
from collabteam.cli.outcome import Outcome
from collabteam.events import Listener, Listeners
from collabteam.reporting.output import console
from collabteam.settings import TrainConfig


def run(config: TrainConfig, listener: Listener) -> Outcome:
    """Bring the camera to the round and show Table 1."""
    from collabteam.reporting.table1 import render
    from collabteam.rounds.messages import headline
    from collabteam.rounds.ready import check_ready
    from collabteam.storage.workspace import Workspace

    workspace = Workspace.at(config.root, config.camera.name)
    before = check_ready(config, listener)
    # PyTorch takes seconds to import; an error should not wait for it.
    from collabteam.reporting.tracking import Tracking
    from collabteam.rounds.loop import train_rounds

    records = train_rounds(config, Listeners(listener, Tracking(config.logger)))
    render(records, console(on_stderr=True))
    listener.say(
        f"{config.camera.name} is at round {records[-1].round}: "
        f"{workspace.place_of(workspace.round(records[-1].round).record)}"
    )
    listener.say(
        f"next: python -m collabteam.report camera={config.camera.name}, or train with "
        f"round={records[-1].round + 1}"
    )
    unchanged = bool(before) and before[-1] == records[-1]
    return Outcome(headline(records[-1]), "skipped" if unchanged else "done")


main = Command(
    "train",
    TrainConfig,
    run,
    about="Bring a camera's team to a round: missing rounds are made, complete ones kept.",
    usage=(
        ("camera=NAME round=N [setting=value ...]", ""),
        ("-m 'camera=glob(*)' round=N", "every registered camera"),
        ("-m camera=NAME seed=1,2,3", "each in a root of its own"),
    ),
    then="python -m collabteam.report camera=NAME",
    varies="roots",
    experiment="paper",
)

if __name__ == "__main__":
    main()
