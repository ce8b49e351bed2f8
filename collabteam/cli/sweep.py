"""Many cameras with one command: the part of ``-m`` that Hydra's grid and launchers lack.

Two jobs never work on one camera at the same time, and other settings get roots of their own. Every
job writes its progress and outcome to files, and the sweep ends with a table of them. So the
outcome of a job is known even if the launcher lost it.
"""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import os
import re
import signal
import socket
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.errors import HydraException

from collabteam.catalog import Catalog
from collabteam.cli.endings import FAULT, outer_reason
from collabteam.cli.outcome import Outcome
from collabteam.cli.words import SWEEP, from_hydra, quoted, quotes_hint, texts
from collabteam.errors import Terminated, UserError, first_line, plain
from collabteam.events import Listener, Listeners
from collabteam.machine import processors
from collabteam.reporting.terminal import StatusFile, SweepMonitor, Terminal, read_status
from collabteam.settings import home_path
from collabteam.settings.checks import shown
from collabteam.storage.files import damaged, make_folder, open_own, read_json, write_json
from collabteam.storage.locks import Lock, LockHeld, is_locked
from collabteam.storage.roots import work_folder
from collabteam.storage.staging import write_errors

FOLDER = ".sweeps"
"""The folder under the root that holds the sweeps' files."""
LOCAL = ("joblib", "submitit_local")
"""Launchers that run jobs on this machine and end them with the command that started them."""
_SUBMITIT = {
    "submitit_folder": "${hydra.sweep.dir}/.submitit/%j",
    "cpus_per_task": "${runtime.cpus}",
    "gpus_per_node": "${whole:${runtime.gpus}}",
    "mem_gb": "${whole:${runtime.memory_gb}}",
    "tasks_per_node": 1,
    "nodes": 1,
    "name": "${hydra.job.name}",
}
LAUNCHERS: dict[str, dict[str, Any]] = {
    "joblib": {
        "_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
        "n_jobs": "${jobs_at_once:${runtime}}",
        "pre_dispatch": "n_jobs",
        "batch_size": "1",
    },
    # Without an address, Ray starts a cluster of this machine that ends with the command.
    "ray": {
        "_target_": "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher",
        "ray": {
            "init": {
                "address": "local",
                "include_dashboard": False,
                "logging_level": "error",
                # The plugin would set it, and an existing cluster refuses that.
                "object_store_memory": None,
            },
            "remote": {"num_cpus": "${runtime.cpus}", "num_gpus": "${runtime.gpus}"},
        },
    },
    "submitit_local": {
        "_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
        "timeout_min": 10080,
        **_SUBMITIT,
    },
    # A job that runs out of time is queued again and continues.
    "submitit_slurm": {
        "_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
        "timeout_min": 1440,
        **_SUBMITIT,
        **dict.fromkeys(("partition", "account", "qos", "constraint", "gres", "setup")),
        "array_parallelism": 256,
        "max_num_timeout": 10,
        "signal_delay_s": 120,
        "additional_parameters": {},
    },
}
"""Settings of Hydra's launchers; each is an extra of collabteam (``submitit`` covers two)."""
_ATTEMPTS = 2
"""Starts of a job whose process dies; a second death is not by chance."""
_HERE = ("camera", "round", "root")
"""Settings that a sweep may vary without a root for each value."""


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Attributes:
        number: From 0, in the order of the grid.
        camera: The camera.
        setting: The other varied settings, as a name; the last part of the job's own root, if any.
        folder: The sweep's folder.
    """

    number: int
    camera: str
    setting: str
    folder: Path

    @property
    def title(self) -> str:
        """The job's name in the table."""
        return f"{self.camera}{self.setting and f' ({self.setting})'}"

    def file(self, kind: str) -> Path:
        """The job's file of a kind: ``status``, ``outcome``, ``log`` or ``lock``."""
        return self.folder / f"{self.number}.{kind}"


@dataclass(frozen=True)
class Plan:
    """A sweep before it begins.

    Attributes:
        arguments: Hydra's arguments, in place of the typed ones.
        jobs: In the order of Hydra's grid.
        root: Where the cameras lie now; with ``own_roots`` they are copied from it first.
        own_roots: Whether each job's root is ``<root>/<setting>``.
        launcher: Name of the launcher.
        cluster: Address of the Ray cluster to use; empty for none.
        remarks: Notes on words that the sweep interprets differently from how they were typed, and
            on folders that it passes over.
        first: Hydra's arguments for the first job alone.
    """

    arguments: list[str]
    jobs: list[Job]
    root: str
    own_roots: bool
    launcher: str
    cluster: str
    remarks: list[str]
    first: list[str]


def plan(
    command: str,
    varies: str,
    arguments: Sequence[str],
    cameras: Sequence[str],
    passed_over: Mapping[str, str] | None = None,
) -> Plan:
    """Plan a sweep.

    A pattern for cameras matches registered ones. Only the highest of several target rounds stays,
    since training to it passes through the others. If a command may vary anything but the camera,
    the round or the root, and does, each setting has a root of its own, ``<root>/<setting>``.

    Args:
        command: The command.
        varies: The settings that it may vary, see :class:`collabteam.cli.command.Command`.
        arguments: The words as typed.
        cameras: The registered cameras.
        passed_over: What to do about folders that have no camera's name, by name.

    Raises:
        UserError: No job results, or a setting that must not vary does.
    """
    remarks = []
    values: dict[str, list[str]] = {}
    kept: list[str] = []
    first: list[str] = []
    flags = []
    parser = OverridesParser.create()
    for part in arguments:
        if part.startswith("-") or "=" not in part:
            flags.append(part)  # Hydra expects them together
            continue
        name = part.partition("=")[0].lstrip("+")
        try:
            override = parser.parse_override(part)
        except HydraException as error:
            raise UserError(
                f"{shown(part)}: cannot be read ({first_line(error)}): {quotes_hint(name)}"
            ) from error
        meant = override.value()
        if name == "camera" and isinstance(meant, Glob):
            found = meant.filter(cameras)
            strange = passed_over or {}
            remarks += [strange[one] for one in meant.filter(list(strange))]
            if not found:
                raise UserError(
                    f"{part}: no such camera is registered; known are "
                    f"{', '.join(cameras[:8]) or 'none'}: 'ingest' registers one"
                )
            values[name], part = found, f"camera={','.join(found)}"
        elif not override.is_sweep_override():
            values[name] = [str(meant)]
        elif name.startswith(("hydra.", "hydra/")):
            raise UserError(f"{shown(part)}: expected one value: one launcher runs all jobs")
        elif not override.is_discrete_sweep():
            raise UserError(f"{part}: expected a list of values, as in {name}=a,b")
        else:
            typed = [str(value) for value in override.sweep_string_iterator()]
            values[name] = [texts(value)[0] if len(texts(value)) == 1 else value for value in typed]
            if name == "round" and all(value.isdigit() for value in values[name]):
                last = str(max(map(int, values[name])))
                remarks.append(f"{part}: round={last} passes through the others")
                values[name], part = [last], f"round={last}"
        kept.append(part)
        alone = values[name][0] if name != "root" else quoted(values[name][0])
        first.append(f"{part.partition('=')[0]}={alone}" if override.is_sweep_override() else part)
    varied = [name for name, found in values.items() if len(found) > 1 and name not in _HERE]
    if varied and varies == "cameras":
        raise UserError(
            f"{command} -m varies camera, round and root, not {', '.join(varied)}: each job "
            "would replace the results of the one before; 'train -m' gives each setting a root of "
            "its own, which can then be named"
        )
    roots = values["root"] = [home_path(root) for root in values.get("root", ["outputs"])]
    own = varied if varies == "roots" else []
    if own and len(roots) > 1:
        raise UserError(f"root={','.join(roots)}: expected one, since {', '.join(own)} is varied")
    grid = [
        dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())
    ]
    root = roots[0]
    launcher = values.get("hydra/launcher", ["basic"])[0]
    name = f"{command}-{hashlib.blake2b(repr(grid).encode(), digest_size=4).hexdigest()}"
    folder = work_folder(root).absolute() / FOLDER / name
    jobs = []
    for number, chosen in enumerate(grid):
        camera = chosen.get("camera", "")
        other = [*varied, *(["root"] if len(roots) > 1 else [])]
        jobs.append(Job(number, camera, setting_name({n: chosen[n] for n in other}), folder))
    kept.append(f"hydra.sweep.dir={quoted(str(folder))}")
    if launcher == "submitit_local":  # which would start all of them at once
        kept.append("hydra.sweeper.max_batch_size='${jobs_at_once:${runtime}}'")
    cluster = values.get("hydra.launcher.ray.init.address", [""])[0]
    others = [flag for flag in flags if flag not in SWEEP]
    return Plan(
        [*flags, *kept], jobs, root, bool(own), launcher, cluster, remarks, [*others, *first]
    )


def setting_name(chosen: Mapping[str, str]) -> str:
    """Make a folder's name from settings: ``seed-1``, ``team.joint-min_seed-1``.

    It depends on the settings alone. A hash replaces names that are too long or have other letters.
    """
    text = "_".join(f"{name}-{chosen[name]}" for name in sorted(chosen))
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")
    if safe == text and len(safe) <= 100:
        return safe
    return f"{safe[:80]}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"


def run(plan: Plan, command: str, launch: Callable[[], None]) -> int:
    """Run all jobs, show how far they are, and end with a table.

    Args:
        plan: From :func:`plan`.
        command: The command.
        launch: Lets Hydra's launcher run them; jobs that have an outcome return at once.

    Returns:
        1 if any job failed, else 0; 70 if it failed for a fault of collabteam.

    Raises:
        UserError: The sweep as a whole cannot work.
        Terminated: SIGTERM came; the table is printed, and the local jobs have ended.
    """
    jobs, folder = plan.jobs, plan.jobs[0].folder
    # A launcher that is told by an exception ends its own workers, also those without work.
    with _rays_exit(), _only_one(folder, command):
        for job in jobs:
            for kind in ("status", "outcome", "log"):
                job.file(kind).unlink(missing_ok=True)
        if plan.own_roots:
            for job in jobs:
                Catalog.open(plan.root, job.camera).copy_to(f"{plan.root}/{job.setting}")
        watch = SweepMonitor(
            command, [job.title for job in jobs], lambda number: _state(jobs[number])
        )
        # Lance warns when a launcher forks to start another program; that program never uses it.
        warnings.filterwarnings("ignore", message="lance is not fork-safe")
        for remark in plan.remarks:
            watch.rich.print(plain(remark), soft_wrap=True)
        trouble = "interrupted"
        refused = False
        try:
            with watch:
                for _ in range(_ATTEMPTS if plan.launcher in LOCAL else 1):
                    if not any(_missing(job) for job in jobs):
                        break
                    trouble = _launch(launch, plan)
        except Exception as error:
            refused = from_hydra(error)  # nothing has begun
            raise
        finally:
            for job in [] if refused else jobs:
                if _missing(job):
                    began = job.file("log").exists()
                    note = "its process ended during the work" if began else "not begun"
                    then = "continues from there" if began else "does it"
                    note = f"{note} ({trouble}): the same command {then}"
                    _keep(job, Outcome(note, "failed", 1))
            if not refused:
                found = [_outcome(job) for job in jobs]
                watch.table([(one.state, one.seconds, one.note) for one in found], folder)
    if any(one.code == FAULT for one in found):
        return FAULT
    return int(any(one.state == "failed" for one in found))


def _answers(address: str) -> bool:
    """Whether a server listens at ``host:port``; True for any other kind of address."""
    found = re.fullmatch(r"(?:ray://)?([^/:]+):(\d+)", address)
    if not found:
        return True
    try:
        socket.create_connection((found[1], int(found[2])), timeout=10).close()
    except OSError:
        return False
    return True


def _launch(launch: Callable[[], None], plan: Plan) -> str:
    """Let the launcher run the jobs without an outcome; return its own error in one line."""
    # Ray itself would try for ten minutes and more.
    if not _answers(plan.cluster):
        return (
            f"no Ray cluster answers at {plan.cluster}: start one ('ray start --head'), or leave "
            "the address out, and one of this machine alone is used"
        )
    # A process may have no home folder, and then Path.home() raises.
    if plan.cluster and Path(os.path.expanduser("~/.ray/auth_token")).is_file():  # noqa: PTH111
        # Ray 2.60 reads its token for address=auto, but for an address only if told to.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        launch()
    except Exception as error:
        if any(isinstance(cause, ImportError) for cause in _causes(error)):
            extra = plan.launcher.split("_")[0]
            return (
                f"hydra/launcher={plan.launcher} is not installed: pip install "
                f"'collabteam[{extra}]', or leave it out, and one job follows the other"
            )
        if from_hydra(error):
            raise
        # If a worker dies, the launcher loses its results, but the jobs' files remain.
        while any(_runs(job) for job in plan.jobs):
            time.sleep(0.5)
        return f"{plan.launcher}: {type(error).__name__}: {first_line(error)}"
    return "its process was killed"


def run_job(job: Job, command: str, launcher: str, work: Callable[[Listener], Outcome]) -> None:
    """Run one job of a sweep, in any process that the launcher chooses.

    Args:
        job: The job.
        command: The command.
        launcher: Name of the launcher.
        work: The command's work, which reports to a listener; raises UserError if it cannot go on.
    """
    began = time.monotonic()
    if launcher == "joblib":  # children of its workers do not know its own start method
        multiprocessing.set_start_method("spawn", force=True)
    if launcher in LOCAL:
        _DRIVER.follow(job.folder / "lock")
    with _alone(job):
        if not _missing(job):
            return
        with (
            write_errors(job.file("log")),
            open(job.file("log"), "a", buffering=1, encoding="utf-8", opener=open_own) as log,
        ):
            outcome = _logged(job, command, work, log)
        _keep(job, replace(outcome, seconds=time.monotonic() - began))


def _logged(job: Job, command: str, work: Callable[[Listener], Outcome], log: TextIO) -> Outcome:
    """Run a job and return its outcome; messages go to its log, progress to its status."""
    with redirect_stdout(log), redirect_stderr(log):
        try:
            return work(Listeners(Terminal(), StatusFile(job.file("status"))))
        except UserError as error:
            print(plain(f"{command}: {error}"))
            return Outcome(str(error), "failed", 2)
        except Exception as error:
            traceback.print_exc()
            if reason := outer_reason(error):
                return Outcome(reason, "failed", 2)
            return Outcome(
                f"a fault of collabteam: {type(error).__name__}: {first_line(error)}: "
                f"{job.file('log')} describes it", "failed", FAULT,
            )  # fmt: skip


def jobs_at_once(runtime: Any) -> int:
    """Decide how many jobs run at once on this machine.

    Args:
        runtime: A :class:`RuntimeConfig`, or its OmegaConf counterpart.
    """
    if runtime.jobs:
        return int(runtime.jobs)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return max(1, min(processors() // int(runtime.cpus), int(memory / float(runtime.memory_gb))))


# -- what jobs leave for the driver -------------------------------------------------------------


def _keep(job: Job, outcome: Outcome) -> None:
    write_json(job.file("outcome"), asdict(outcome))


def _missing(job: Job) -> bool:
    return not job.file("outcome").exists()


def _outcome(job: Job) -> Outcome:
    file, remedy = job.file("outcome"), "remove it, and the sweep does this job again"
    try:
        found = Outcome(**read_json(file, remedy))
    except TypeError as error:
        raise damaged(file, "the outcome of a job", error, remedy) from error
    kinds = [type(value) for value in asdict(found).values()]
    if kinds[:3] != [str, str, int] or kinds[3] not in (int, float):
        raise damaged(file, "the outcome of a job", f"{asdict(found)!r:.80}", remedy)
    return found


def _state(job: Job) -> tuple[str, str]:
    """Whether a job is waiting, running or finished, and its progress in words."""
    if job.file("outcome").exists():
        outcome = _outcome(job)
        return outcome.state, outcome.note
    if not job.file("log").exists():
        return "waits", ""
    status = read_status(job.file("status"))
    return "runs", status.in_words() if status else "starts"


def _causes(error: BaseException) -> list[BaseException]:
    found = [error]
    while cause := found[-1].__cause__ or found[-1].__context__:
        found.append(cause)
    return found


@contextmanager
def _rays_exit() -> Iterator[None]:
    """Take the exit of Ray for SIGTERM: it puts a handler of its own in place of ours."""
    try:
        yield
    except SystemExit as error:
        signal.alarm(0)  # Ray would abort the process three seconds after the signal
        raise Terminated from error


@contextmanager
def _only_one(folder: Path, command: str) -> Iterator[None]:
    make_folder(folder)
    try:
        lock = Lock(folder / "lock", {"command": command})
    except LockHeld as held:
        raise UserError(
            f"this sweep is already running, in {held.describe()}: wait for it or stop it"
        ) from held
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _alone(job: Job) -> Iterator[None]:
    """Hold the job's lock, which shows the driver that the job's process is alive."""
    for _ in range(20):
        with suppress(LockHeld):
            lock = Lock(job.file("lock"), {"command": job.camera})
            break
        time.sleep(0.5)
    else:
        raise UserError(f"{job.file('lock')} is held: another process is at this job")
    try:
        yield
    finally:
        lock.release()


def _runs(job: Job) -> bool:
    return is_locked(job.file("lock"))


class _DriverWatch:
    """Ends a worker soon after its driver, so that a restart finds every camera unlocked.

    It goes on watching after a job, for a worker without work keeps its memory.
    """

    def __init__(self) -> None:
        self._lock: Path | None = None

    def follow(self, lock: Path) -> None:
        """Watch the driver that holds a lock, and no other any more."""
        is_new, self._lock = self._lock is None, lock
        if is_new:
            threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(1)
            if self._lock is not None and not is_locked(self._lock):
                os._exit(3)


_DRIVER = _DriverWatch()
