"""``python -m collabteam.review``: a person verifies crops, in the browser or in another tool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from collabteam.cli.command import Command, Outcome
from collabteam.errors import UserError
from collabteam.reviewing.exchange.base import EXCHANGE_FORMATS
from collabteam.settings import ReviewConfig
from collabteam.settings.fields import setting

if TYPE_CHECKING:
    from collabteam.catalog import Catalog
    from collabteam.reporting.terminal import Terminal

HELP = """
Verify crops in the browser: a page full of one class, mark what is wrong, Enter.

  python -m collabteam.review camera=NAME [queue=seed] [setting=value ...]
  python -m collabteam.review camera=NAME export=tasks.json format=labelstudio    another tool's job
  python -m collabteam.review camera=NAME import=answers.json                     ... and back

  camera=NAME          the camera
  queue=seed           seed: i0, what the team learns from; test: the frozen test set; audit: what a
                       team labelled; unsure: what the last team does not know; conflict: where
                       reviewers disagree
  reviewer=ana         who verifies; else the name of the system's user
  seed_per_class=1000  crops per proposed class in i0, if it is not drawn yet
  seed_unknown=0       and crops proposed as 'unknown'
  test_per_class=200   objects per proposed class in the frozen test set
  audit_per_class=200  crops per class in the queue 'audit', while no audit is open
  double=0             share that a second reviewer verifies again, such as 0.1; their agreement
                       is shown
  host=127.0.0.1  port=8130   where to listen; a second reviewer runs the same command
  url=https://...      the page's address, where a proxy stands in front
  open=true            open the browser
  export=FILE format=labelstudio|cvat|csv   write the queue as tasks, pictures beside it
  import=FILE          take answers in: Label Studio's JSON, CVAT for images 1.1, or CSV
  root=outputs  seed=0

Then: python -m collabteam.train camera=NAME round=0
"""


@dataclass
class ReviewCommandConfig(ReviewConfig):
    """Settings of ``collabteam.review``."""

    export: str = setting(
        "", affects="place", metavar="FILE", help="write the queue as tasks for another tool"
    )
    format: str = setting(
        "labelstudio",
        choices=EXCHANGE_FORMATS,
        affects="place",
        help="of the tasks",
    )
    import_: str = setting(
        "",
        affects="place",
        metavar="FILE",
        help="take answers in: Label Studio's JSON, CVAT for images 1.1, or CSV",
    )

    def check_together(self) -> None:
        """Raise unless one thing is asked for.

        Raises:
            UserError: ``export`` and ``import`` are both given, or a name is not usable.
        """
        super().check_together()
        if self.export and self.import_:
            raise UserError("export= and import= are two commands: give one of them")


def run(config: ReviewCommandConfig) -> Outcome:
    """Serve the page, or exchange tasks and answers with another tool."""
    import getpass

    from collabteam.catalog import Catalog
    from collabteam.reporting.terminal import Terminal
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
        raise UserError("the system's user has no name that could stand for you: say reviewer=NAME")
    console = Terminal()
    if config.export:
        return _export(catalog, config, console)
    if config.import_:
        return _import(catalog, config, reviewer)
    return _serve(catalog, config, reviewer, console)


def _serve(
    catalog: Catalog, config: ReviewCommandConfig, reviewer: str, console: Terminal
) -> Outcome:
    from collabteam.web.server import serve

    served = serve(catalog, config, reviewer, console)
    if served is None:
        return Outcome()
    lines = [f"{catalog.name}: {served.verified} crops verified, in {catalog.place}"]
    if served.verified:
        lines[0] += f"; {served.kept / served.verified:.1%} were what was suggested"
    agreement = served.agreement
    if agreement["crops"]:
        kappa = "" if agreement["kappa"] is None else f", kappa {agreement['kappa']:.2f}"
        lines.append(
            f"two reviewers on {agreement['crops']} crops{kappa}; open conflicts: "
            f"{agreement['conflicts']} (queue=conflict)"
        )
    if served.left:
        lines.append(
            f"left in queue {config.queue}: {served.left}; the same command goes on with them"
        )
    else:
        lines.append(f"next: {served.next}")
    print("\n".join(lines))
    return Outcome()


def _export(catalog: Catalog, config: ReviewCommandConfig, console: Terminal) -> Outcome:
    from pathlib import Path

    from collabteam.reviewing.exchange.base import Task
    from collabteam.reviewing.exchange.tasks import write_tasks
    from collabteam.reviewing.queues import prepare
    from collabteam.reviewing.session import ReviewSession

    format = EXCHANGE_FORMATS.load(config.format)()
    format.check_target(Path(config.export))  # before anything is drawn
    prepare(catalog, config, console)
    tasks = [
        Task(crop, asked) for crop, asked in ReviewSession(catalog, config).open_tasks(config.queue)
    ]
    if not tasks:
        raise UserError(f"queue={config.queue} of camera {catalog.name} has nothing to verify")
    with console.stage(f"writing {config.export}", len(tasks), "crops") as advance:
        lines = write_tasks(catalog, tasks, format, Path(config.export), advance)
    print("\n".join(lines))
    print(
        f"next: verify them there, then python -m collabteam.review camera={catalog.name} "
        f"queue={config.queue} import=FILE"
    )
    return Outcome()


def _import(catalog: Catalog, config: ReviewCommandConfig, reviewer: str) -> Outcome:
    from pathlib import Path

    from collabteam.reviewing.exchange.answers import read_answers
    from collabteam.reviewing.session import ReviewSession
    from collabteam.settings import is_reviewer

    # Of another package's formats only the one that the user names is known.
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
            problems.append(f"{answer.where}: {who!r} is no reviewer's name")
    new, foreign = desk.take_in(config.queue, said)
    problems += [
        f"{answer.where}: crop {answer.crop_id} is not in queue {config.queue}"
        for answer in answers.accepted
        if answer.crop_id in foreign
    ]
    print(
        f"{catalog.name}: {new} answers taken in, "
        f"{len(said) - len(foreign) - new} known before, from {config.import_}"
    )
    if problems:
        print(f"left out: {len(problems)}")
        print("\n".join(f"  {problem}" for problem in problems))
    left = desk.left(config.queue)
    if left:
        print(f"left in queue {config.queue}: {left}")
    else:
        print(f"next: {desk.state(reviewer, '', config.queue)['next']}")
    if problems:
        return Outcome(f"{len(problems)} answers could not be taken in", "failed", 1)
    return Outcome()


main = Command("review", ReviewCommandConfig, run, HELP, words=(("import", "import_"),))

if __name__ == "__main__":
    main()
