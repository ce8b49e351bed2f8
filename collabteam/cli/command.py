"""The Hydra edge: it turns a command line into a typed config, and an error into one line.

Hydra and OmegaConf appear here and in :mod:`collabteam.cli.sweep`, and nowhere else. The modules
behind the commands take dataclasses.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any, Literal, NoReturn

from collabteam.cli.endings import complain, ending
from collabteam.cli.help import help_text
from collabteam.cli.outcome import Outcome
from collabteam.cli.words import (
    CONFIG,
    NOT_OURS,
    SWEEP,
    check_option,
    from_hydra,
    given,
    is_pattern,
    only_tells,
    plain_settings,
    quoted,
    quotes_hint,
    read_words,
    roots,
    texts,
)
from collabteam.environment import settle
from collabteam.errors import Terminated, UserError, disk_errors
from collabteam.events import Listener
from collabteam.settings import check, check_camera_name
from collabteam.settings.checks import expand_home, nearest, shown
from collabteam.settings.fields import groups, settings_of
from collabteam.storage.manifest import Found, find_manifests, read_manifest
from collabteam.storage.roots import root_folder, store_address

_LAUNCHER = "hydra/launcher"
_CAMERA_HELP = {
    "one": "the camera, which is registered ('ingest' registers one); several with -m: a,b or "
    "'camera=glob(S10-*)'",
    "new": "the camera; a new name is registered: letters, digits, '_', '.', '-'",
    "many": "the camera; or several: a,b or 'camera=glob(S10-*)'",
    "all": "only these cameras: a name, a list a,b, or a pattern 'camera=glob(S10-*)'; else all",
}


@dataclass(frozen=True)
class Command:
    """One ``python -m collabteam.<name>``: the object ``main`` of the module of that name.

    A module of this package with such an object is a command, and so is every object that an entry
    point of the group ``collabteam.command`` names; commands are registered nowhere else.

    Attributes:
        name: The command's name.
        schema: The dataclass of its settings.
        run: The work; takes a checked instance of the schema, and the listener for its progress.
        about: Its purpose in one paragraph; the list of commands shows the first sentence.
        usage: Ways to call it, each with a note; the words after ``python -m collabteam.<name>``.
        then: The command that follows; empty for none.
        notes: Paragraphs for the end of ``--help``.
        cameras: The cameras of one run: ``one`` registered; one that may be ``new``; ``many``,
            where a pattern or a list becomes the setting ``cameras``; or ``all``, where
            ``camera=`` chooses some.
        varies: Settings that a sweep may vary: ``cameras`` (cameras, rounds and roots), ``roots``
            (anything; each other setting works on a copy of the camera under a root of its own) or
            ``anything``.
        experiment: The recipe of ``conf/experiment`` to start from; empty if it takes none.
    """

    name: str
    schema: type
    run: Callable[[Any, Listener], Outcome]
    about: str
    usage: tuple[tuple[str, str], ...]
    then: str = ""
    notes: tuple[str, ...] = ()
    cameras: Literal["one", "new", "many", "all"] = "one"
    varies: Literal["cameras", "roots", "anything"] = "cameras"
    experiment: str = ""

    @property
    def registers(self) -> bool:
        """Whether the camera may be new."""
        return self.cameras == "new"

    @property
    def camera_help(self) -> str:
        """The line of ``camera=`` in ``--help``."""
        return _CAMERA_HELP[self.cameras]

    def options(self) -> dict[str, list[str]]:
        """The config groups that take the name of one file, and their files."""
        found = {
            part.name: _files(part.name)
            for part in groups(self.schema)[1:]
            if part.rule.preset and part.name != "camera"
        }
        found |= {name: _files(name) for name in self._implementations()}
        if self.experiment:
            found["experiment"] = _files("experiment")
        if self.cameras == "all" or any(part.name == "camera" for part in groups(self.schema)):
            found["camera"] = []
        return found

    def _implementations(self) -> list[str]:
        """The settings that name an implementation and have a folder of YAML files."""
        every = settings_of(self.schema).values()
        return [one.name for one in every if one.is_implementation and _files(one.name)]

    def __call__(self) -> NoReturn:
        """Compose the settings from ``sys.argv``, run, and exit with a code of :mod:`endings`."""
        words = sys.argv[1:]
        sys.exit(ending(self.name, words, self._main))

    def _main(self, words: Sequence[str]) -> int:
        """Do what a command line says, and return the exit code.

        Raises:
            UserError: Something only the user can change.
        """
        if ignored := settle():
            complain(
                self.name,
                f"ignored from the environment: {', '.join(ignored)}; docs/settings.md lists the "
                "variables that count",
            )
        options = self.options()
        if {"-h", "--help"} & set(words):
            print(help_text(self, options))
            return 0
        try:
            Path.cwd()
        except FileNotFoundError as error:
            raise UserError(
                "the working directory was removed: change to another folder first"
            ) from error
        if "seed" not in settings_of(self.schema):
            words = self._without_seed(words)
        words = read_words(self.schema, words, options, self.cameras in ("many", "all"))
        self._check_cameras(words)
        self._check_together(words)
        if self.cameras in ("many", "all"):
            words = self._gather(words)
        sys.argv[1:] = words
        return self._compose_and_run(words)

    def _check_together(self, words: Sequence[str]) -> None:
        """Raise on settings that cannot go together, as far as that is known without Hydra.

        Raises:
            UserError: They cannot.
        """
        together = getattr(self.schema, "check_together", None)
        # The files of a recipe also set something, and only Hydra reads them.
        if together is None or self.experiment or self.cameras == "all":
            return
        values = plain_settings(self.schema, words)
        if values is None or not values.get("camera.name"):
            return
        config = self.schema()
        for name, value in values.items():
            *parts, last = name.split(".")
            setattr(reduce(getattr, parts, config), last, value)
        together(config)

    def _without_seed(self, words: Sequence[str]) -> list[str]:
        """Leave out ``seed=``: every command once took it, and old scripts still pass it."""
        kept = [word for word in words if not word.startswith("seed=")]
        if len(kept) < len(words):
            complain(self.name, "seed= is ignored: this command draws nothing")
        return kept

    # -- cameras ---------------------------------------------------------------------------------

    def _check_cameras(self, words: Sequence[str]) -> None:
        """Raise unless the named cameras can be used.

        Raises:
            UserError: No camera is named, or one is not registered; lists the nearest names.
        """
        value = given(words).get("camera", "")
        named = _named(value)
        for name in named:
            check_camera_name(name)
        if only_tells(words) or (self.registers and value):
            return
        if not value and self.cameras != "all" and "cameras" not in given(words):
            known = sorted({name for root in roots(words) for name in find_cameras(root).cameras})
            raise UserError(
                f"camera is not given: expected camera=NAME; known are {_listed(known)}"
            )
        for root in roots(words) if named else ():
            found = find_cameras(root).cameras
            for name in named:
                if name not in found:
                    raise _no_camera(name, root, list(found))

    def _composable(self, words: Sequence[str]) -> _Cameras:
        """The registered cameras that the words may mean, as options of the group ``camera``.

        So Hydra itself sweeps over them: ``camera=glob(*)``.

        Raises:
            UserError: A camera that is named is damaged.
        """
        named = _named(given(words).get("camera", ""))
        every = _Cameras({}, {}, {})
        for root in roots(words):
            found = find_cameras(root)
            every.passed_over.update(found.passed_over)
            for name, file in found.cameras.items():
                if named and name not in named:
                    continue
                classes: list[str] = []
                try:
                    classes = read_manifest(file)
                except UserError as error:
                    if name in named:
                        raise
                    every.damaged[name] = str(error)  # it must not stop the others
                every.known[name] = {"name": name, "classes": classes}
        if self.registers:
            for name in named:
                every.known.setdefault(name, {"name": name, "classes": []})
        return every

    def _gather(self, words: list[str]) -> list[str]:
        """Turn a pattern or list of cameras into the setting ``cameras``, damaged ones included.

        Raises:
            UserError: No camera matches, or every run of a sweep would write to the same place.
        """
        every = self.cameras == "all"
        value = given(words).get("camera", "")
        if not value or not (every or is_pattern(value) or "," in value):
            return words
        if SWEEP & set(words) and not every:
            to = given(words).get("to", "")
            if to and "${" not in to:
                raise UserError(
                    f"to={shown(to)} with -m: each camera would overwrite the one before it; "
                    "without -m you get one page of all cameras"
                )
            return words
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from hydra.core.override_parser.types import Glob

        where = roots(words)
        found = find_cameras(where[0] if where else "outputs")
        override = OverridesParser.create().parse_override(f"camera={value}")
        pattern = override.value()
        if isinstance(pattern, Glob):
            names = pattern.filter(list(found.cameras))
            strange = pattern.filter(list(found.passed_over))
            for name in strange:
                complain(self.name, found.passed_over[name])
            if not every:  # the page has a line on each
                names += strange
        elif override.is_sweep_override():
            names = [str(getattr(name, "text", name)) for name in override.sweep_iterator()]
        else:
            names = [str(getattr(pattern, "text", pattern))]
        unknown = sorted(set(names) - found.cameras.keys() - found.passed_over.keys())
        if unknown or not names:
            raise UserError(
                f"camera={shown(value)}: no camera {', '.join(unknown) or 'matches'} under "
                f"{', '.join(where)}: known are {_listed(list(found.cameras))}"
            )
        listed = ",".join(quoted(name) for name in dict.fromkeys(names))
        rest = [word for word in words if not word.startswith("camera=")]
        # Hydra expects its flags together.
        return [*([] if every else ["~camera"]), f"cameras=[{listed}]", *rest]

    # -- Hydra -----------------------------------------------------------------------------------

    def store(self, cameras: Mapping[str, Mapping[str, Any]]) -> None:
        """Register the schema, its defaults and the cameras with Hydra.

        Args:
            cameras: Name and classes of every camera.
        """
        from hydra.core.config_store import ConfigStore

        store = ConfigStore.instance()
        defaults: list[Any] = [f"{self.name}_schema"]
        for part in groups(self.schema)[1:]:
            if part.rule.preset:
                defaults.append({part.name: part.rule.preset})
        for name in self._implementations():
            defaults.append({name: settings_of(self.schema)[name].default["name"]})
        defaults.append("_self_")
        if self.experiment:
            defaults.append({"experiment": self.experiment})
        defaults.append({"hydra": "quiet"})
        store.store(name=f"{self.name}_schema", node=self.schema)
        store.store(name=self.name, node={"defaults": defaults})
        # A camera's own YAML file takes precedence.
        for name in cameras.keys() - set(_files("camera")):
            store.store(group="camera", name=name, node=dict(cameras[name]))

    def _compose_and_run(self, words: Sequence[str]) -> int:
        # With this, composition errors reach us instead of being printed with a trace.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        import hydra
        from hydra.core.config_store import ConfigStore
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import DictConfig

        from collabteam.reporting.terminal import Terminal

        codes: list[int] = []
        failures: list[Exception] = []
        sweeps = bool(SWEEP & set(words))
        here = Path.cwd()

        def work(composed: DictConfig, listener: Listener) -> Outcome:
            if HydraConfig.get().job.chdir:
                raise UserError(f"hydra.job.chdir=true: {NOT_OURS['hydra.job.chdir']}")
            if "camera" in composed and (why := every.damaged.get(composed.camera.name)):
                raise UserError(why)
            return self._work(composed, listener)

        def job(composed: DictConfig) -> None:
            if sweeps:
                from collabteam.cli.sweep import run_job

                # A launcher may start in another folder; paths are relative to the user's folder.
                if here.is_dir():
                    os.chdir(here)
                mine = plan.jobs[HydraConfig.get().job.num]
                if plan.own_roots:
                    composed.root = f"{plan.root}/{mine.setting}"
                run_job(mine, self.name, plan.launcher, partial(work, composed))
                return
            try:
                codes.append(work(composed, Terminal()).code)
            except Exception as error:  # Hydra would print lines of its own about it
                failures.append(error)

        def compose() -> None:
            hydra.main(version_base="1.3", config_path=str(_conf()), config_name=self.name)(job)()

        with _readable():
            every = self._composable(words)
            self.store(every.known)
            _resolvers()
            if sweeps:
                from hydra.core.plugins import Plugins

                from collabteam.cli import sweep

                # The plugins register their own defaults first; ours then replace them.
                Plugins.instance()
                for launcher, node in sweep.LAUNCHERS.items():
                    ConfigStore.instance().store(group=_LAUNCHER, name=launcher, node=node)
                launchers = [Path(file).stem for file in ConfigStore.instance().list(_LAUNCHER)]
                known = sorted(every.known)
                plan = sweep.plan(self.name, self.varies, words, known, every.passed_over)
                check_option(_LAUNCHER, plan.launcher, sorted(launchers))
                if plan.launcher != "basic" and not any(
                    part.name == "runtime" for part in groups(self.schema)
                ):
                    raise UserError(
                        f"hydra/launcher={shown(plan.launcher)}: the jobs of {self.name} follow "
                        "one another: leave it out"
                    )
                if not CONFIG & set(words):
                    sys.argv[1:] = plan.arguments
                    return sweep.run(plan, self.name, compose)
                sys.argv[1:] = plan.first
                sweeps = False
                complain(self.name, f"the settings of job 1 of {len(plan.jobs)}:")
            compose()
        if failures:
            raise failures[0]
        return max(codes, default=0)

    def _work(self, composed: Any, listener: Listener) -> Outcome:
        """Turn Hydra's config into the dataclass, check it, and run.

        Raises:
            UserError: Something only the user can change.
        """
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import OmegaConf

        with _readable():
            config: Any = OmegaConf.to_object(composed)
            unknown = _unknown(config, composed)
        if unknown:
            raise UserError(f"no such setting: {', '.join(map(shown, unknown))}")
        expand_home(config)
        check(config)
        if runtime := getattr(config, "runtime", None):
            aside = HydraConfig.get().runtime.choices.get(_LAUNCHER, "basic") != "basic"
            trainer = getattr(config, "trainer", None)
            if aside and trainer is not None and trainer.threads == 0:
                trainer.threads = runtime.cpus
        try:
            with disk_errors():
                return self.run(config, listener)
        except SystemExit as error:
            # Lightning exits on ^C and SIGTERM during a fit, possibly with code 0.
            by_sigterm = isinstance(error.__context__, Terminated) or (
                type(error).__name__ == "SIGTERMException"
            )
            raise (Terminated if by_sigterm else KeyboardInterrupt) from error


@dataclass(frozen=True)
class _Cameras:
    """The cameras that a command line may mean.

    Attributes:
        known: Name and classes of each.
        damaged: Why some of them cannot be used, by name.
        passed_over: What to do about folders that have no camera's name.
    """

    known: dict[str, dict[str, Any]]
    damaged: dict[str, str]
    passed_over: dict[str, str]


def _named(value: str) -> list[str]:
    """The cameras that ``camera=`` names one by one."""
    return [] if is_pattern(value) else [name for name in texts(value) if name]


def find_cameras(root: str) -> Found:
    """Find every camera under a root.

    Args:
        root: A folder (read without the table libraries), or ``s3://bucket/prefix``.

    Raises:
        UserError: The root is not a usable address, or the store does not answer.
    """
    if not store_address(root):
        return find_manifests(root_folder(root))
    from collabteam.storage.workspace import find_stored

    return find_stored(root)


def _no_camera(name: str, root: str, known: Sequence[str]) -> UserError:
    near = nearest(name, known)
    listed = _listed([*near, *(one for one in known if one not in near)])
    return UserError(
        f"no camera {name!r} under {root}: known are {listed}; 'ingest camera={name}' registers it"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "none"


def _conf() -> Path:
    """The YAML files: inside an installed package, beside the package in a checkout."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def _files(group: str) -> list[str]:
    """The names of a config group's files, without suffixes."""
    return sorted(file.stem for file in (_conf() / group).glob("*.yaml"))


def _resolvers() -> None:
    """Register the functions that the YAML files of ``conf/hydra`` call."""
    from omegaconf import OmegaConf

    def jobs_at_once(runtime: Any) -> int:
        from collabteam.cli.sweep import jobs_at_once

        return jobs_at_once(runtime)

    OmegaConf.register_new_resolver("jobs_at_once", jobs_at_once, replace=True)
    OmegaConf.register_new_resolver("whole", lambda number: math.ceil(number), replace=True)


def _unknown(config: object, composed: Any, prefix: str = "") -> list[str]:
    """Settings that the dataclasses lack; ``+name=value`` would add them silently."""
    if not is_dataclass(config):
        return []
    known = {field.name for field in fields(config)}
    extra = [prefix + str(name) for name in composed if name not in known]
    for name in sorted(known):
        extra += _unknown(getattr(config, name), composed[name], f"{prefix}{name}.")
    return extra


@contextmanager
def _readable() -> Iterator[None]:
    """Turn an exception of Hydra or OmegaConf about the words into one line.

    Raises:
        UserError: They cannot be read.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if from_hydra(error):
            raise UserError(_one_line(error)) from error
        raise


def _one_line(error: BaseException) -> str:
    """Shorten one of Hydra's multi-line messages to its first lines and their cause."""
    text = str(error) or type(error).__name__
    if isinstance(error.__cause__, Exception) and str(error.__cause__) not in text:
        text += f"\n{error.__cause__}"
    lines = [line.strip() for line in text.splitlines()]
    cut = next((n for n, line in enumerate(lines) if line.startswith("Config search path")), None)
    kept = [
        line
        for line in lines[:cut]
        if line and not line.startswith(("full_key", "object_t", "See https://hydra.cc"))
    ]
    if override := getattr(error, "override", None):  # it could not be read at all
        kept.append(f"({quotes_hint(str(override).partition('=')[0].lstrip('+'))})")
    return " ".join(kept)
