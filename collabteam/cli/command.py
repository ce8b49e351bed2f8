"""The Hydra edge: it turns a command line into a typed config, and an error into one line.

Hydra and OmegaConf appear here and in :mod:`collabteam.cli.sweep`, and nowhere else. The modules
behind the commands take dataclasses.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

from collabteam.cli.help import help_text
from collabteam.cli.outcome import Outcome
from collabteam.cli.words import SWEEP, given, is_pattern, only_tells, read_words
from collabteam.environment import settle
from collabteam.errors import UserError, disk_errors
from collabteam.events import Listener
from collabteam.settings import check, check_camera_name
from collabteam.settings.checks import nearest
from collabteam.settings.fields import groups, settings_of
from collabteam.storage.layout import MANIFEST
from collabteam.storage.roots import store_address

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
        """Compose the settings from ``sys.argv``, run, and exit (code 2 on bad input)."""
        if ignored := settle():
            _complain(
                self.name,
                f"ignored from the environment: {', '.join(ignored)}; docs/settings.md lists the "
                "variables that count",
            )
        words = sys.argv[1:]
        options = self.options()
        if {"-h", "--help"} & set(words):
            print(help_text(self, options))
            sys.exit(0)
        try:
            if "seed" not in settings_of(self.schema):
                words = self._without_seed(words)
            words = read_words(self.schema, words, options)
            self._check_cameras(words)
            if self.cameras in ("many", "all"):
                words = _gather(words, self.cameras == "all")
        except UserError as error:
            _complain(self.name, str(error))
            sys.exit(2)
        sys.argv[1:] = words
        sys.exit(self._compose_and_run(words))

    def _without_seed(self, words: Sequence[str]) -> list[str]:
        """Leave out ``seed=``: every command once took it, and old scripts still pass it."""
        kept = [word for word in words if not word.startswith("seed=")]
        if len(kept) < len(words):
            _complain(self.name, "seed= is ignored: this command draws nothing")
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
        roots = given(words).get("root", "outputs").split(",")
        if not value and self.cameras != "all" and "cameras" not in given(words):
            known = sorted({name for root in roots for name in registered_manifests(root)})
            raise UserError(
                f"camera is not given: expected camera=NAME; known are {_listed(known)}"
            )
        if any(is_pattern(root) for root in roots):
            return
        for root in roots if named else ():
            known = list(registered_manifests(root))
            for name in named:
                if name not in known:
                    raise _no_camera(name, root, known)

    def _composable(self, words: Sequence[str]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """Every registered camera as an option of the group ``camera``, and why some are left out.

        So Hydra itself sweeps over them: ``camera=glob(*)``.
        """
        import yaml

        named = _named(given(words).get("camera", ""))
        cameras: dict[str, dict[str, Any]] = {}
        damaged: dict[str, str] = {}
        for root in given(words).get("root", "outputs").split(","):
            for name, file in registered_manifests(root).items():
                try:
                    classes = yaml.safe_load(file.read_text(encoding="utf-8"))["classes"]
                    cameras[name] = {"name": name, "classes": list(classes)}
                except (yaml.YAMLError, TypeError, KeyError, ValueError, OSError) as error:
                    # One damaged camera must not stop the others.
                    cameras[name] = {"name": name, "classes": []}
                    damaged[name] = (
                        f"{file}: expected a camera's name and classes, got {_one_line(error)}: "
                        "repair or remove it"
                    )
                    if name in named:
                        raise UserError(damaged[name]) from error
        if self.registers:
            for name in named:
                cameras.setdefault(name, {"name": name, "classes": []})
        return cameras, damaged

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
        from hydra.errors import HydraException
        from omegaconf import DictConfig
        from omegaconf.errors import OmegaConfBaseException

        from collabteam.reporting.terminal import Terminal

        codes: list[int] = []
        sweeps = bool(SWEEP & set(words)) and "--cfg" not in words
        here = Path.cwd()

        def work(composed: DictConfig, listener: Listener) -> Outcome:
            if "camera" in composed and (why := damaged.get(composed.camera.name)):
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
            except UserError as error:
                _complain(self.name, str(error))
                codes.append(2)

        def compose() -> None:
            hydra.main(version_base="1.3", config_path=str(_conf()), config_name=self.name)(job)()

        try:
            cameras, damaged = self._composable(words)
            self.store(cameras)
            _resolvers()
            if sweeps:
                from hydra.core.plugins import Plugins

                from collabteam.cli import sweep

                # The plugins register their own defaults first; ours then replace them.
                Plugins.instance()
                for launcher, node in sweep.LAUNCHERS.items():
                    ConfigStore.instance().store(group="hydra/launcher", name=launcher, node=node)
                plan = sweep.plan(self.name, self.varies, words, sorted(cameras))
                sys.argv[1:] = plan.arguments
                return sweep.run(plan, self.name, compose)
            compose()
        except UserError as error:
            _complain(self.name, str(error))
            return 2
        except (HydraException, OmegaConfBaseException) as error:
            _complain(self.name, _one_line(error))
            return 2
        except KeyboardInterrupt:
            print(
                f"\n{self.name}: interrupted; run the same command again to continue",
                file=sys.stderr,
            )
            return 130
        return max(codes, default=0)

    def _work(self, composed: Any, listener: Listener) -> Outcome:
        """Turn Hydra's config into the dataclass, check it, and run.

        Raises:
            UserError: Something only the user can change.
        """
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            config: Any = OmegaConf.to_object(composed)
            if unknown := _unknown(config, composed):
                raise UserError(f"no such setting: {', '.join(unknown)}")
        except (ValueError, OmegaConfBaseException) as error:
            raise UserError(_one_line(error)) from error
        check(config)
        if runtime := getattr(config, "runtime", None):
            aside = HydraConfig.get().runtime.choices["hydra/launcher"] != "basic"
            trainer = getattr(config, "trainer", None)
            if aside and trainer is not None and trainer.threads == 0:
                trainer.threads = runtime.cpus
        try:
            with disk_errors():
                return self.run(config, listener)
        except SystemExit as error:
            # Lightning exits on ^C and SIGTERM during a fit, possibly with code 0.
            raise KeyboardInterrupt from error


def _gather(words: list[str], all_cameras: bool) -> list[str]:
    """Turn a pattern or list of cameras into the setting ``cameras``, damaged cameras included.

    Args:
        words: The command line.
        all_cameras: Whether the command covers all cameras if none is named.

    Raises:
        UserError: No camera matches, or every run of a sweep would write to the same place.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob
    from hydra.errors import HydraException

    mine = [word for word in words if word.startswith("camera=")]
    try:
        override = OverridesParser.create().parse_override(mine[-1]) if mine else None
    except HydraException:
        return words  # composition reports what is wrong
    if override is None or not (all_cameras or override.is_sweep_override()):
        return words
    settings = given(words)
    if SWEEP & set(words) and not all_cameras:
        if "to" in settings and "${" not in settings["to"]:
            raise UserError(
                f"to={settings['to']} with -m: each camera would overwrite the one before it; "
                "without -m you get one page of all cameras"
            )
        return words
    root = settings.get("root", "outputs")
    known = list(registered_manifests(root))
    pattern = override.value()
    if isinstance(pattern, Glob):
        names = pattern.filter(known)
    elif override.is_sweep_override():
        names = [str(getattr(name, "text", name)) for name in override.sweep_iterator()]
    else:
        names = [str(getattr(pattern, "text", pattern))]
    unknown = sorted(set(names) - set(known))
    if unknown or not names:
        raise UserError(
            f"{mine[-1]}: no camera {', '.join(unknown) or 'matches'} under {root}: known are "
            f"{_listed(known)}"
        )
    quoted = ",".join(f"'{name}'" for name in dict.fromkeys(names))
    rest = [word for word in words if not word.startswith("camera=")]
    return [*rest, *([] if all_cameras else ["~camera"]), f"cameras=[{quoted}]"]


def _named(value: str) -> list[str]:
    """The cameras that ``camera=`` names one by one."""
    # Hydra takes names in quotes as well.
    names = [name.strip("'\"") for name in value.split(",")]
    return [] if is_pattern(value) else [name for name in names if name]


def registered_manifests(root: str) -> dict[str, Path]:
    """The manifest of every camera under a root, by name.

    Args:
        root: A folder (read without the table libraries), or ``s3://bucket/prefix``.

    Raises:
        UserError: The root is not a usable address, or the store does not answer.
    """
    if not store_address(root):
        return {file.parent.name: file for file in sorted(Path(root).glob(f"*/{MANIFEST}"))}
    from collabteam.storage.workspace import registered

    return {name: workspace.manifest for name, workspace in registered(root).items()}


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


def _complain(command: str, text: str) -> None:
    print(f"{command}: {text}", file=sys.stderr)


def _unknown(config: object, composed: Any, prefix: str = "") -> list[str]:
    """Settings that the dataclasses lack; ``+name=value`` would add them silently."""
    if not is_dataclass(config):
        return []
    known = {field.name for field in fields(config)}
    extra = [prefix + str(name) for name in composed if name not in known]
    for name in sorted(known):
        extra += _unknown(getattr(config, name), composed[name], f"{prefix}{name}.")
    return extra


def _one_line(error: BaseException) -> str:
    """Shorten one of Hydra's multi-line messages to its first lines and their cause."""
    text = str(error)
    if isinstance(error.__cause__, Exception) and str(error.__cause__) not in text:
        text += f"\n{error.__cause__}"
    lines = [line.strip() for line in text.splitlines()]
    cut = next((n for n, line in enumerate(lines) if line.startswith("Config search path")), None)
    kept = [line for line in lines[:cut] if line and not line.startswith(("full_key", "object_t"))]
    if "mismatched input" in text or "token recognition" in text:
        kept.append("(a value with such characters needs quotes of its own: name=\"'value'\")")
    return " ".join(kept)
