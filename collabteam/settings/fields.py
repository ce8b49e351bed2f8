"""How a setting is declared: once, with everything that is to be known about it.

From the declarations come the checks (:mod:`collabteam.settings.checks`), what records keep of them
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
"""What a setting changes: ``result``, what the command makes and its record tells; ``crops``, what
ingest cuts out of footage; ``speed``, how fast; ``place``, where things lie, how far the command
goes and who watches."""

AFFECTS: Final[Mapping[str, str]] = {
    "result": "what the command makes",
    "crops": "which crops ingest cuts out of footage",
    "speed": "how fast the command is",
    "place": "where things lie, how far the command goes, and what it shows",
}


class _Unset:
    def __repr__(self) -> str:
        return "unset"


UNSET: Final = _Unset()
"""A setting without a value, in a record or as ``when_absent``."""

REQUIRED: Final = "???"
"""Preset of a group of which the command line has to choose one."""

_KEY = "collabteam"


@dataclass(frozen=True)
class Rule:
    """What a declaration says beside name, type and default; the arguments of :func:`setting`."""

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
    preset: str = ""

    @property
    def registry(self) -> Registry[Any] | None:
        """The registry that names the choices, if one does."""
        return self.choices if isinstance(self.choices, Registry) else None

    def names(self) -> list[str]:
        """The choices; empty if any value will do."""
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
) -> Any:
    """Declare a setting, as the default of a dataclass's field.

    Args:
        default: The default; a list is copied for each instance.
        help: One line without a full stop.
        affects: See :data:`Affects`.
        ge: Smallest value; of a list, of its elements.
        gt: Value that it must exceed.
        le: Largest value.
        lt: Value that it must stay below.
        choices: The allowed values; a mapping gives the meaning of each, a registry also takes
            ``package.module:Class``.
        pattern: Regular expression that a text has to match as a whole.
        expected: In words, what the pattern allows.
        when_absent: What a record without this setting was made with. Every setting that is added
            to an existing schema needs it: records and fingerprints leave the setting out while it
            has this value, so that older cameras go on.
        always_recorded: Whether records hold it all the same. For settings that were added before
            ``when_absent`` existed, whose fingerprints must not change.
        metavar: What ``--help`` shows instead of the default, such as ``FILE``.
    """
    rule = Rule(
        help, affects, ge, gt, le, lt, choices, pattern, expected, when_absent, always_recorded,
        metavar,
    )  # fmt: skip
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata={_KEY: rule})
    return field(default=default, metadata={_KEY: rule})


def group(schema: type, *, help: str, affects: Affects | None = None, preset: str = "") -> Any:
    """Declare a group of settings, a dataclass inside a dataclass.

    Args:
        schema: The dataclass.
        help: One line without a full stop.
        affects: Of every setting in it, instead of what these declare.
        preset: The file in ``conf/<name>/`` that the command line starts from; ``REQUIRED`` if it
            has to name one; empty if there is no such folder.
    """
    return field(default_factory=schema, metadata={_KEY: Rule(help, affects, preset=preset)})


def implementation(
    registry: Registry[Any], default: str, *, help: str, affects: Affects = "result"
) -> Any:
    """Declare which implementation of a seam is used, and its settings: ``{"name": ..., ...}``.

    The field's type is ``dict[str, Any]``. The names besides ``name`` are those of the dataclass
    ``Settings`` of the implementation, see :func:`collabteam.settings.checks.resolve_group`. A
    record without the group was made with the default.

    Args:
        registry: The implementations.
        default: Name of the one that is used unless another is named.
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
        rule: What was declared.
        affects: What it changes here, which a group may have decided.
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
    """A group of settings of a schema; the schema itself is the one without a name.

    Attributes:
        name: Dotted, such as ``optim``.
        schema: The dataclass.
        rule: What was declared.
        settings: Those directly in it, in the order of declaration.
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
    """What the declaration of a field says.

    Raises:
        TypeError: The field was not declared by this module.
    """
    rule = declared.metadata.get(_KEY)
    if not isinstance(rule, Rule):
        raise TypeError(f"{declared.name}: declare it with setting(), group() or implementation()")
    return rule


def default_of(declared: dataclasses.Field[Any]) -> Any:
    """The default of a field, new for each call."""
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
