"""The Hydra edge: how a command line becomes a typed config, and an error one line.

Hydra and OmegaConf appear here and nowhere else. The modules behind the commands take dataclasses.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from collabteam.errors import UserError, disk_errors
from collabteam.settings import check, check_camera_name
from collabteam.settings.fields import settings_of


@dataclass(frozen=True)
class Outcome:
    """What a command came to, for the table at the end of a sweep.

    Attributes:
        note: One line on it.
        state: ``done``, ``skipped`` (there was nothing to do) or ``failed``.
        code: The exit code of the command alone.
        seconds: How long it took.
    """

    note: str = ""
    state: str = "done"
    code: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Command:
    """One ``python -m collabteam.<name>``.

    Attributes:
        name: The command's name, also that of its YAML file in ``conf/``.
        schema: The dataclass of its settings.
        run: What it does.
        help: What ``--help`` prints.
        registers: Whether a camera's name may be new.
        words: Settings whose name on the command line is a word that Python keeps for itself, and
            their names in the schema.
        varies: What a sweep may vary: ``cameras`` (cameras, rounds and roots), ``roots`` (anything;
            each other setting works on a copy of the camera under a root of its own) or
            ``anything``.
        gathers: Whether a pattern or a list of cameras without ``-m`` is one run over all of them:
            their names are then the setting ``cameras``.
    """

    name: str
    schema: type
    run: Callable[[Any], Outcome]
    help: str
    registers: bool = False
    words: tuple[tuple[str, str], ...] = ()
    varies: str = "cameras"
    gathers: bool = False

    def __call__(self) -> None:
        """Compose the settings from ``sys.argv`` and run; exits with 2 on bad input."""
        for word, name in self.words:
            sys.argv[1:] = [
                f"{name}={part.removeprefix(f'{word}=')}" if part.startswith(f"{word}=") else part
                for part in sys.argv[1:]
            ]
        if "seed" not in settings_of(self.schema):
            sys.argv[1:] = self._without_seed(sys.argv[1:])
        arguments = sys.argv[1:]
        if {"-h", "--help"} & set(arguments):
            print(self.help.strip())
            return
        if self.gathers:
            try:
                arguments = sys.argv[1:] = _gather(arguments)
            except UserError as error:
                _complain(self.name, str(error))
                sys.exit(2)
        sys.exit(self._compose_and_run(arguments))

    def _without_seed(self, words: list[str]) -> list[str]:
        """Leave out ``seed=``, which every command took once; old scripts still give it."""
        kept = [word for word in words if not word.startswith("seed=")]
        if len(kept) < len(words):
            _complain(self.name, "seed= is ignored: nothing is drawn here")
        return kept

    def _compose_and_run(self, arguments: list[str]) -> int:
        # Composition errors then reach us instead of being printed with a trace.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        import hydra
        from hydra.core.config_store import ConfigStore
        from hydra.core.hydra_config import HydraConfig
        from hydra.errors import HydraException
        from omegaconf import DictConfig
        from omegaconf.errors import OmegaConfBaseException

        codes: list[int] = []
        sweeps = bool({"-m", "--multirun"} & set(arguments)) and "--cfg" not in arguments
        here = Path.cwd()

        def work(composed: DictConfig) -> Outcome:
            if "camera" in composed and (why := damaged.get(composed.camera.name)):
                raise UserError(why)
            return self._work(composed)

        def job(composed: DictConfig) -> None:
            if sweeps:
                from collabteam.cli.sweep import run_job

                # A launcher may begin elsewhere; paths are meant from where the command was typed.
                if here.is_dir():
                    os.chdir(here)
                mine = plan.jobs[HydraConfig.get().job.num]
                if plan.own_roots:
                    composed.root = f"{plan.root}/{mine.setting}"
                run_job(mine, self.name, plan.launcher, lambda: work(composed))
                return
            try:
                codes.append(work(composed).code)
            except UserError as error:
                _complain(self.name, str(error))
                codes.append(2)

        def compose() -> None:
            hydra.main(version_base="1.3", config_path=str(_conf()), config_name=self.name)(job)()

        try:
            store = ConfigStore.instance()
            store.store(name=f"{self.name}_schema", node=self.schema)
            cameras, damaged = self._cameras(arguments)
            # A camera with a YAML file of its own is described there.
            described = {file.stem for file in (_conf() / "camera").glob("*.yaml")}
            for name, node in cameras.items():
                if name in described:
                    continue
                store.store(group="camera", name=name, node=node)
            _resolvers()
            if sweeps:
                from hydra.core.plugins import Plugins

                from collabteam.cli import sweep

                # The plugins register their own defaults, which ours then replace.
                Plugins.instance()
                for launcher, node in sweep.LAUNCHERS.items():
                    store.store(group="hydra/launcher", name=launcher, node=node)
                plan = sweep.plan(self.name, self.varies, arguments, sorted(cameras))
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
                f"\n{self.name}: interrupted; the same command goes on from here", file=sys.stderr
            )
            return 130
        return max(codes, default=0)

    def _work(self, composed: Any) -> Outcome:
        """Turn what Hydra composed into the dataclass, and do it.

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
                return self.run(config)
        except SystemExit as error:
            # What Lightning makes of ^C and SIGTERM amid a fit; its code may be 0.
            raise KeyboardInterrupt from error

    def _cameras(self, arguments: list[str]) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
        """Every registered camera, as an option of the config group ``camera``; why some are none.

        So Hydra itself sweeps over them, ``camera=glob(*)``, and answers a mistyped name with the
        known ones.
        """
        import yaml

        from collabteam.storage.workspace import registered

        given = dict(part.split("=", 1) for part in arguments if "=" in part)
        chosen = given.get("camera", "")
        named = [name for name in chosen.split(",") if name and "(" not in chosen]
        for name in named:
            check_camera_name(name)
        cameras: dict[str, dict[str, Any]] = {}
        damaged: dict[str, str] = {}
        for root in given.get("root", "outputs").split(","):
            for name, workspace in registered(root).items():
                file = workspace.manifest
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


def _gather(arguments: list[str]) -> list[str]:
    """Turn a pattern or a list of cameras into the setting ``cameras``; damaged ones belong to it.

    Raises:
        UserError: No camera is of that name or matches, or every run of a sweep would write to the
            same place.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob
    from hydra.errors import HydraException

    from collabteam.storage.workspace import registered

    words = [word for word in arguments if word.startswith("camera=")]
    try:
        override = OverridesParser.create().parse_override(words[-1]) if words else None
    except HydraException:
        return arguments  # composing them says what is wrong
    if override is None or not override.is_sweep_override():
        return arguments
    given = dict(part.split("=", 1) for part in arguments if "=" in part)
    if {"-m", "--multirun"} & set(arguments):
        if "to" in given and "${" not in given["to"]:
            raise UserError(
                f"to={given['to']} with -m: each camera would write over the one before it; "
                "without -m there is one page of all"
            )
        return arguments
    root = given.get("root", "outputs")
    known = list(registered(root))
    pattern = override.value()
    if isinstance(pattern, Glob):
        names = pattern.filter(known)
    else:
        names = [str(getattr(name, "text", name)) for name in override.sweep_iterator()]
    unknown = sorted(set(names) - set(known))
    if unknown or not names:
        listing = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
        raise UserError(
            f"{words[-1]}: no camera {', '.join(unknown) or 'matches'} under {root}: known are "
            f"{listing or 'none'}"
        )
    quoted = ",".join(f"'{name}'" for name in dict.fromkeys(names))
    rest = [word for word in arguments if not word.startswith("camera=")]
    return [*rest, "~camera", f"cameras=[{quoted}]"]


def _conf() -> Path:
    """The YAML files: inside an installed package, beside the package in a checkout."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def _resolvers() -> None:
    """What the YAML files of ``conf/hydra`` compute."""
    from omegaconf import OmegaConf

    def jobs_at_once(runtime: Any) -> int:
        from collabteam.cli.sweep import jobs_at_once

        return jobs_at_once(runtime)

    OmegaConf.register_new_resolver("jobs_at_once", jobs_at_once, replace=True)
    OmegaConf.register_new_resolver("whole", lambda number: math.ceil(number), replace=True)


def _complain(command: str, text: str) -> None:
    print(f"{command}: {text}", file=sys.stderr)


def _unknown(config: object, composed: Any, prefix: str = "") -> list[str]:
    """Settings that the dataclasses do not have, which ``+name=value`` would add in silence."""
    if not is_dataclass(config):
        return []
    known = {field.name for field in fields(config)}
    extra = [prefix + str(name) for name in composed if name not in known]
    for name in sorted(known):
        extra += _unknown(getattr(config, name), composed[name], f"{prefix}{name}.")
    return extra


def _one_line(error: BaseException) -> str:
    """Hydra's messages span lines; the first ones, and their cause, say what is wrong."""
    text = str(error)
    if isinstance(error.__cause__, Exception) and str(error.__cause__) not in text:
        text += f"\n{error.__cause__}"
    lines = [line.strip() for line in text.splitlines()]
    cut = next((n for n, line in enumerate(lines) if line.startswith("Config search path")), None)
    kept = [line for line in lines[:cut] if line and not line.startswith(("full_key", "object_t"))]
    if "mismatched input" in text or "token recognition" in text:
        kept.append("(a value with such characters needs quotes of its own: name=\"'value'\")")
    return " ".join(kept)
