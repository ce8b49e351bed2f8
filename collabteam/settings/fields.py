"""Declarations of settings: each setting is declared once, with all that is known about it.

The declarations drive the checks (:mod:`collabteam.settings.checks`), the settings in records
(:mod:`collabteam.settings.records`), ``--help`` and ``docs/settings.md``. A schema is a dataclass::

    @dataclass
    class OptimConfig:
        lr: float = setting(0.1, gt=0, help="peak learning rate")

    @dataclass
    class TrainConfig:
        optim: OptimConfig = group(OptimConfig, help="stochastic gradient descent")
        learner: dict[str, Any] = implementation(LEARNERS, "paper", help="how networks learn")
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field
from functools import cache
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from collabteam.registry import Registry

Affects = Literal["result", "crops", "speed", "place"]
"""The effect of a setting: ``result``, on the command's results, so records hold it; ``crops``, on
the crops that ingest cuts out of footage; ``speed``, on the run time alone; ``place``, on where
files lie, how far the command goes and what it shows."""

AFFECTS: Final[Mapping[str, str]] = {
    "result": "what the command makes",
    "crops": "which crops ingest cuts out of footage",
    "speed": "how fast the command is",
    "place": "where files lie, how far the command goes, and what it shows",
}


class _Unset:
    def __repr__(self) -> str:
        return "unset"


UNSET: Final = _Unset()
"""Marks a setting without a value, in a record or as ``when_absent``."""

REQUIRED: Final = "???"
"""Preset of a group for which the command line must choose a file."""

_KEY = "collabteam"


@dataclass(frozen=True)
class Rule:
    """A declaration without name, type and default; the arguments of :func:`setting`."""

    help: str
    affects: Affects | None = "result"
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    choices: Sequence[str] | Mapping[str, str] | Registry[Any] | None = None
    pattern: str | None = None
    expected: str = ""
    when_absent: Any = UNSET
    always_recorded: bool = False
    metavar: str = ""
    is_path: bool = False
    preset: str = ""

    @property
    def registry(self) -> Registry[Any] | None:
        """The registry of the choices, if there is one."""
        return self.choices if isinstance(self.choices, Registry) else None

    def names(self) -> list[str]:
        """The choices; empty if the values are not limited to choices."""
        if isinstance(self.choices, Registry):
            return self.choices.names()
        return list(self.choices or ())


def setting(
    default: Any,
    *,
    help: str,
    affects: Affects = "result",
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: Sequence[str] | Mapping[str, str] | Registry[Any] | None = None,
    pattern: str | None = None,
    expected: str = "",
    when_absent: Any = UNSET,
    always_recorded: bool = False,
    metavar: str = "",
    is_path: bool = False,
) -> Any:
    """Declare a setting, as the default of a dataclass's field.

    Args:
        default: The default; a list is copied for each instance.
        help: One line without a full stop.
        affects: See :data:`Affects`.
        ge: Smallest value (for a list: of its elements).
        gt: Lower bound, excluded.
        le: Largest value.
        lt: Upper bound, excluded.
        choices: The allowed values; a mapping gives the meaning of each, a registry also takes
            ``package.module:Class``.
        pattern: Regular expression that a text has to match as a whole.
        expected: The values that the pattern allows, in words.
        when_absent: The value that a record without this setting implies. Every setting that is
            added to an existing schema needs it: records and fingerprints leave the setting out
            while it has this value, so that older cameras keep working.
        always_recorded: Whether records hold it even then. For settings that were added before
            ``when_absent`` existed, whose fingerprints must not change.
        metavar: Text that ``--help`` shows instead of the default, such as ``FILE``.
        is_path: Whether it is a path, in which ``~`` is the home folder.
    """
    rule = Rule(
        help, affects, ge, gt, le, lt, choices, pattern, expected, when_absent, always_recorded,
        metavar, is_path,
    )  # fmt: skip
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata={_KEY: rule})
    return field(default=default, metadata={_KEY: rule})


def group(schema: type, *, help: str, affects: Affects | None = None, preset: str = "") -> Any:
    """Declare a group of settings, a dataclass inside a dataclass.

    Args:
        schema: The dataclass.
        help: One line without a full stop.
        affects: The effect of every setting in it, in place of their own declarations.
        preset: The file in ``conf/<name>/`` that the command line starts from; ``REQUIRED`` if the
            user must name one; empty if there is no such folder.
    """
    return field(default_factory=schema, metadata={_KEY: Rule(help, affects, preset=preset)})


def implementation(
    registry: Registry[Any], default: str, *, help: str, affects: Affects = "result"
) -> Any:
    """Declare a setting that names an implementation of a seam: ``{"name": ..., ...}``.

    The field's type is ``dict[str, Any]``. Its keys other than ``name`` are fields of the
    implementation's ``Settings``, see :func:`collabteam.settings.checks.resolve_group`. A
    record without the group was made with the default.

    Args:
        registry: The implementations.
        default: Name of the default implementation.
        help: One line without a full stop.
        affects: See :data:`Affects`.
    """
    rule = Rule(help, affects, choices=registry, when_absent={"name": default})
    return field(default_factory=lambda: {"name": default}, metadata={_KEY: rule})


@dataclass(frozen=True)
class Setting:
    """One setting of a schema.

    Attributes:
        name: Dotted, such as ``optim.lr``.
        kind: Its type, without ``None``.
        optional: Whether it may be None.
        default: Its default.
        rule: Its declaration.
        affects: Its effect here, which a group may override.
    """

    name: str
    kind: Any
    optional: bool
    default: Any
    rule: Rule
    affects: Affects

    @property
    def typed(self) -> str:
        """Its name on the command line: ``import`` for the field ``import_``."""
        return self.name.rstrip("_")

    @property
    def is_implementation(self) -> bool:
        """Whether it was declared by :func:`implementation`."""
        return get_origin(self.kind) is dict


@dataclass(frozen=True)
class Group:
    """A group of settings of a schema; the schema itself is the group with an empty name.

    Attributes:
        name: Dotted, such as ``optim``.
        schema: The dataclass.
        rule: Its declaration.
        settings: The settings directly in it, in the order of declaration.
    """

    name: str
    schema: type
    rule: Rule
    settings: tuple[Setting, ...]


def groups(schema: type) -> tuple[Group, ...]:
    """All groups of a schema, the schema itself first, then in the order of declaration."""
    return _cached(schema)


def settings_of(schema: type) -> dict[str, Setting]:
    """All settings of a schema by their dotted names."""
    return {one.name: one for part in groups(schema) for one in part.settings}


def rule_of(declared: dataclasses.Field[Any]) -> Rule:
    """The rule of a declared field.

    Raises:
        TypeError: The field was not declared by this module.
    """
    rule = declared.metadata.get(_KEY)
    if not isinstance(rule, Rule):
        raise TypeError(f"{declared.name}: declare it with setting(), group() or implementation()")
    return rule


def default_of(declared: dataclasses.Field[Any]) -> Any:
    """The default of a field; each call makes a new object."""
    if declared.default_factory is not MISSING:
        return declared.default_factory()
    return declared.default


@cache
def _cached(schema: Any) -> tuple[Group, ...]:
    return tuple(_groups(schema, "", Rule("", None)))


def _groups(schema: type, name: str, rule: Rule) -> list[Group]:
    hints = get_type_hints(schema)
    own, inner = [], []
    for one in dataclasses.fields(schema):
        declared = rule_of(one)
        kind, optional = _kind(hints[one.name])
        dotted = f"{name}.{one.name}" if name else one.name
        affects = rule.affects or declared.affects
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            inner += _groups(kind, dotted, dataclasses.replace(declared, affects=affects))
        else:
            assert affects is not None, dotted
            default = default_of(one)
            own.append(Setting(dotted, kind, optional, default, declared, affects))
    return [Group(name, schema, rule, tuple(own)), *inner]


def _kind(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) in (Union, types.UnionType):
        (kind,) = (part for part in get_args(hint) if part is not type(None))
        return kind, True
    return hint, False
