"""The Hydra edge: how a command line becomes a typed config, and an error one line.

Hydra and OmegaConf appear here and nowhere else. The modules behind the commands take dataclasses.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from collabteam.config import camera_folder
from collabteam.errors import UserError, disk_errors


@dataclass(frozen=True)
class Command:
    """One ``python -m collabteam.<name>``.

    Attributes:
        name: The command's name, also that of its YAML file in ``conf/``.
        schema: The dataclass of its settings.
        run: What it does. May return an exit code.
        help: What ``--help`` prints.
        registers: Whether a camera's name may be new.
        words: Settings whose name on the command line is a word that Python keeps for itself, and
            their names in the schema.
    """

    name: str
    schema: type
    run: Callable[[Any], int | None]
    help: str
    registers: bool = False
    words: tuple[tuple[str, str], ...] = ()

    def __call__(self) -> None:
        """Compose the settings from ``sys.argv`` and run; exits with 2 on bad input."""
        for word, name in self.words:
            sys.argv[1:] = [
                f"{name}={part.removeprefix(f'{word}=')}" if part.startswith(f"{word}=") else part
                for part in sys.argv[1:]
            ]
        arguments = sys.argv[1:]
        if {"-h", "--help"} & set(arguments):
            print(self.help.strip())
            return
        sys.exit(self._compose_and_run(arguments))

    def _compose_and_run(self, arguments: list[str]) -> int:
        # Composition errors then reach us instead of being printed with a trace.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        import hydra
        from hydra.core.config_store import ConfigStore
        from hydra.errors import HydraException
        from omegaconf import DictConfig, OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        codes: list[int] = []
        everyone = any(part.startswith("camera=glob(") for part in arguments)
        cameras: dict[str, dict[str, Any]] = {}

        def job(composed: DictConfig) -> None:
            # A pattern means cameras that exist, and not every example in conf/camera.
            if everyone and cameras and composed.camera.name not in cameras:
                return
            # Errors stay inside: of a sweep over cameras, the others go on.
            try:
                try:
                    config = OmegaConf.to_object(composed)
                    if unknown := _unknown(config, composed):
                        raise UserError(f"no such setting: {', '.join(unknown)}")
                except (ValueError, OmegaConfBaseException) as error:
                    raise UserError(_one_line(error)) from error
                with disk_errors():
                    codes.append(self.run(config) or 0)
            except UserError as error:
                _complain(self.name, str(error))
                codes.append(2)
            except SystemExit as error:
                # What Lightning makes of ^C and SIGTERM amid a fit; its code may be 0.
                raise KeyboardInterrupt from error

        try:
            store = ConfigStore.instance()
            store.store(name=f"{self.name}_schema", node=self.schema)
            cameras |= self._cameras(arguments)
            # A camera with a YAML file of its own is described there.
            described = {file.stem for file in (_conf() / "camera").glob("*.yaml")}
            for name, node in cameras.items():
                if name in described:
                    continue
                store.store(group="camera", name=name, node=node)
            hydra.main(version_base="1.3", config_path=str(_conf()), config_name=self.name)(job)()
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

    def _cameras(self, arguments: list[str]) -> dict[str, dict[str, Any]]:
        """Every registered camera, as an option of the config group ``camera``.

        So Hydra itself sweeps over them, ``camera=glob(*)``, and answers a mistyped name with the
        known ones.
        """
        import yaml

        given = dict(part.split("=", 1) for part in arguments if "=" in part)
        named = [name for name in given.get("camera", "").split(",") if name and "(" not in name]
        for name in named:
            camera_folder("", name)
        cameras: dict[str, dict[str, Any]] = {}
        for root in given.get("root", "outputs").split(","):
            for file in sorted(Path(root).glob("*/camera.yaml")):
                name = file.parent.name
                try:
                    classes = yaml.safe_load(file.read_text(encoding="utf-8"))["classes"]
                    cameras[name] = {"name": name, "classes": list(classes)}
                except (yaml.YAMLError, TypeError, KeyError, ValueError, OSError) as error:
                    # One damaged camera must not stop the others.
                    if name in named:
                        raise UserError(
                            f"{file}: expected a camera's name and classes, got "
                            f"{_one_line(error)}: repair or remove it"
                        ) from error
        if self.registers:
            for name in named:
                cameras.setdefault(name, {"name": name, "classes": []})
        return cameras


def _conf() -> Path:
    """The YAML files: inside an installed package, beside the package in a checkout."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "conf"


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
