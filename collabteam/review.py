"""``python -m collabteam.review``: a person verifies crops, in the browser or in another tool."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from collabteam.cli.command import Command
from collabteam.cli.outcome import Outcome
from collabteam.errors import UndecodableCrops, UserError, fault_lines
from collabteam.events import Listener
from collabteam.reporting.output import tell
from collabteam.reviewing.exchange.base import EXCHANGE_FORMATS
from collabteam.settings import ReviewConfig
from collabteam.settings.fields import setting

if TYPE_CHECKING:
    from collabteam.catalog import Catalog
    from collabteam.reviewing.exchange.base import Task


@dataclass
class ReviewCommandConfig(ReviewConfig):
    """Settings of ``collabteam.review``."""

    export: str = setting(
        "",
        affects="place",
        metavar="FILE",
        is_path=True,
        help="write the queue as tasks for another tool",
    )
    format: str = setting(
        "labelstudio",
        choices=EXCHANGE_FORMATS,
        affects="place",
        help="format of the tasks",
    )
    import_: str = setting(
        "",
        affects="place",
        metavar="FILE",
        is_path=True,
        help="import answers: Label Studio's JSON, CVAT for images 1.1, or CSV",
    )

    def check_together(self) -> None:
        """Raise if both an export and an import are requested.

        Raises:
            UserError: ``export`` and ``import`` are both given, or a name is not usable.
        """
        super().check_together()
        if self.export and self.import_:
            raise UserError("export= and import= are two commands: give one of them")


def run(config: ReviewCommandConfig, listener: Listener) -> Outcome:
    """Serve the page, or exchange tasks and answers with another tool."""
    from collabteam.catalog import Catalog
    from collabteam.settings import is_reviewer

    catalog = Catalog.open(config.root, config.camera.name)
    if not catalog.classes:
        raise UserError(
            f"camera {catalog.name} has no classes yet: name them when you ingest, "
            "'camera.classes=[a,b]'"
        )
    try:
        reviewer = config.reviewer or getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        reviewer = ""
    if not is_reviewer(reviewer):
        raise UserError("the system's user has no name to use as the reviewer's: set reviewer=NAME")
    if config.export:
        return _export(catalog, config, listener)
    if config.import_:
        return _import(catalog, config, reviewer)
    return _serve(catalog, config, reviewer, listener)


def _serve(
    catalog: Catalog, config: ReviewCommandConfig, reviewer: str, listener: Listener
) -> Outcome:
    from collabteam.web.server import serve

    served = serve(catalog, config, reviewer, listener)
    if served is None:
        return Outcome()
    lines = [f"{catalog.name}: {served.verified} crops verified, in {catalog.place}"]
    if served.verified:
        lines[0] += f"; {served.kept / served.verified:.1%} confirmed the suggestion"
    agreement = served.agreement
    if agreement["crops"]:
        kappa = "" if agreement["kappa"] is None else f", kappa {agreement['kappa']:.2f}"
        lines.append(
            f"two reviewers on {agreement['crops']} crops{kappa}; open conflicts: "
            f"{agreement['conflicts']} (queue=conflict)"
        )
    if served.left:
        lines.append(
            f"left in queue {config.queue}: {served.left}; run the same command again to continue"
        )
    else:
        lines.append(f"next: {served.next}")
    tell(lines)
    return Outcome()


def _export(catalog: Catalog, config: ReviewCommandConfig, listener: Listener) -> Outcome:
    from collabteam.reviewing.exchange.tasks import write_tasks
    from collabteam.reviewing.review_queue import REVIEW_QUEUES
    from collabteam.reviewing.session import ReviewSession

    format = EXCHANGE_FORMATS.load(config.format)()
    format.check_target(Path(config.export))  # before anything is drawn
    REVIEW_QUEUES.load(config.queue)().prepare(catalog, config, listener)
    tasks = ReviewSession(catalog, config).open_tasks(config.queue)
    if not tasks:
        raise UserError(f"queue={config.queue} of camera {catalog.name} has nothing to verify")

    def write(tasks: Sequence[Task]) -> list[str]:
        with listener.stage(f"writing {config.export}", len(tasks), "crops") as advance:
            return write_tasks(catalog, tasks, format, Path(config.export), advance)

    faults: Mapping[str, str] = {}
    try:
        lines = write(tasks)
    except UndecodableCrops as error:
        faults = error.faults
        rest = [task for task in tasks if task.crop_id not in faults]
        if not rest:
            raise
        lines = write(rest)
    if faults:
        lines += [f"left out {len(faults)}: their picture cannot be opened", *fault_lines(faults)]
    tell(
        [
            *lines,
            f"next: verify them there, then python -m collabteam.review camera={catalog.name} "
            f"queue={config.queue} import=FILE",
        ]
    )
    if faults:
        return Outcome(f"left out {len(faults)} whose picture cannot be opened", "failed", 1)
    return Outcome()


def _import(catalog: Catalog, config: ReviewCommandConfig, reviewer: str) -> Outcome:
    from collabteam.reviewing.exchange.answers import read_answers
    from collabteam.reviewing.session import ReviewSession
    from collabteam.settings import is_reviewer

    # Among other packages' formats, only the one that the user names is known.
    names = dict.fromkeys([config.format, *EXCHANGE_FORMATS.names()])
    formats = [EXCHANGE_FORMATS.load(name)() for name in names]
    answers = read_answers(catalog, Path(config.import_), formats)
    desk = ReviewSession(catalog, config)
    problems = list(answers.problems)
    said = []
    for answer in answers.accepted:
        who = answer.reviewer or reviewer
        if is_reviewer(who):
            said.append((answer.crop_id, answer.label, who))
        else:
            problems.append(f"{answer.where}: {who!r} is not a reviewer's name")
    new, foreign = desk.take_in(config.queue, said)
    problems += [
        f"{answer.where}: crop {answer.crop_id} is not in queue {config.queue}"
        for answer in answers.accepted
        if answer.crop_id in foreign
    ]
    lines = [
        f"{catalog.name}: {new} answers taken in, "
        f"{len(said) - len(foreign) - new} known before, from {config.import_}"
    ]
    if problems:
        lines += [f"left out: {len(problems)}", *(f"  {problem}" for problem in problems)]
    left = desk.left(config.queue)
    if left:
        lines.append(f"left in queue {config.queue}: {left}")
    else:
        lines.append(f"next: {desk.state(reviewer, '', config.queue)['next']}")
    tell(lines)
    if problems:
        return Outcome(f"{len(problems)} answers could not be taken in", "failed", 1)
    return Outcome()


main = Command(
    "review",
    ReviewCommandConfig,
    run,
    about="Verify crops in the browser: a page full of one class, mark those that are wrong, "
    "Enter. A second reviewer runs the same command.",
    usage=(
        ("camera=NAME [queue=seed] [setting=value ...]", ""),
        ("camera=NAME export=tasks.json format=labelstudio", "for another tool"),
        ("camera=NAME import=answers.json", "and back"),
    ),
    then="python -m collabteam.train camera=NAME round=0",
)

if __name__ == "__main__":
    main()
