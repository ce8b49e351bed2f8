"""Settings in records: which settings a record holds, and how older records are read.

A record holds the settings with ``affects="result"``. A setting that was added after the record was
written counts as its ``when_absent``. A removed setting is listed in its schema's ``RETIRED``,
which maps the name to the value that had no effect::

    RETIRED: ClassVar[Mapping[str, Any]] = {"attention_ratio": 16}

Settings that moved are put in their place by the schema's static method ``from_older``, which takes
the settings of a record and returns them as this version would have recorded them.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, TypeVar

from collabteam.registry import Registry
from collabteam.settings.checks import resolve_group, shown
from collabteam.settings.fields import UNSET, Setting, default_of, groups, rule_of, settings_of

T = TypeVar("T")


def result_settings(config: Any) -> dict[str, Any]:
    """Collect the settings that results depend on, as nested mappings of JSON-able values.

    A setting whose value equals its ``when_absent`` is left out, so that fingerprints stay the same
    as before the setting existed.

    Args:
        config: An instance of a schema, checked.

    Raises:
        UserError: A group names an implementation that is not there, or has other settings.
    """
    nested: dict[str, Any] = {}
    for one in settings_of(type(config)).values():
        if one.affects != "result":
            continue
        value = _value(config, one)
        if value == one.rule.when_absent and not one.rule.always_recorded:
            continue
        *parts, last = one.name.split(".")
        place = nested
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = value
    return nested


def changed_settings(recorded: Mapping[str, Any], config: Any) -> list[str]:
    """List the settings in which ``config`` differs from a record.

    Args:
        recorded: From :func:`result_settings` of this or an earlier version.
        config: An instance of the schema, checked.

    Returns:
        One ``name old -> new`` for each difference, sorted by name.

    Raises:
        UserError: A group names an implementation that is not there, or has other settings.
    """
    old = dict(_current(type(config), recorded))
    changed = []
    for one in settings_of(type(config)).values():
        before = _take(old, one.name.split("."))
        if one.affects != "result":
            continue
        if before is UNSET:
            before = one.rule.when_absent
        after = _value(config, one)
        if one.is_implementation and isinstance(before, Mapping):
            changed += _changed_implementation(one, before, attrgetter(one.name)(config))
        elif before != after:
            changed.append(f"{one.name} {_said(before)} -> {_said(after)}")
    retired = _retired(type(config))
    changed += [
        f"{name} {_said(value)} -> not known to this version"
        for name, value in _flat(old).items()
        if retired.get(name, UNSET) != value
    ]
    return sorted(changed)


def from_record(schema: type[T], recorded: Mapping[str, Any]) -> T:
    """Rebuild the settings that a record was made with.

    Args:
        schema: The dataclass.
        recorded: Its part of a record's settings. A missing setting takes its ``when_absent``, or
            else its default; a setting unknown to this version is dropped.
    """
    recorded = _current(schema, recorded)
    parts = {part.name: part.schema for part in groups(schema)[1:] if "." not in part.name}
    given: dict[str, Any] = {}
    for one in dataclasses.fields(schema):  # type: ignore[arg-type]
        value = recorded.get(one.name, UNSET)
        if one.name in parts:
            value = from_record(parts[one.name], value if isinstance(value, Mapping) else {})
        elif value is UNSET:
            absent = rule_of(one).when_absent
            value = default_of(one) if absent is UNSET else absent
        given[one.name] = copy.deepcopy(value)
    return schema(**given)


def implementation_from_record(
    registry: Registry[Any], recorded: Mapping[str, Any], name: str
) -> dict[str, Any]:
    """Complete a recorded choice of an implementation with what absent settings mean.

    :func:`from_record` leaves this to whoever needs the implementation, whose import may be slow.

    Args:
        registry: The implementations.
        recorded: The group: ``name``, and settings of the implementation.
        name: The group's name, such as ``learner``.

    Raises:
        UserError: No such implementation exists.
    """
    chosen = recorded.get("name")
    if not isinstance(chosen, str):
        return dict(recorded)
    registry.check(chosen, name)
    absent = {
        one.name: rule.when_absent
        for one in dataclasses.fields(registry.load(chosen).Settings)
        if (rule := rule_of(one)).when_absent is not UNSET
    }
    return {**copy.deepcopy(absent), **recorded}


def _current(schema: type, recorded: Mapping[str, Any]) -> Mapping[str, Any]:
    move = getattr(schema, "from_older", None)
    found: Mapping[str, Any] = recorded if move is None else move(recorded)
    return found


def _value(config: Any, one: Setting) -> Any:
    value = attrgetter(one.name)(config)
    if not one.is_implementation:
        return copy.deepcopy(value)
    assert one.rule.registry is not None
    chosen = resolve_group(one.rule.registry, value, one.name)
    return {"name": value["name"], **result_settings(chosen)}


def _changed_implementation(
    one: Setting, before: Mapping[str, Any], now: Mapping[str, Any]
) -> list[str]:
    if before.get("name") != now["name"]:
        return [f"{one.name} {_said(before.get('name', UNSET))} -> {_said(now['name'])}"]
    assert one.rule.registry is not None
    chosen = resolve_group(one.rule.registry, now, one.name)
    rest = {name: value for name, value in before.items() if name != "name"}
    return [f"{one.name}.{line}" for line in changed_settings(rest, chosen)]


def _take(nested: dict[str, Any], path: list[str]) -> Any:
    """Take a value out of nested mappings, and leave no empty ones."""
    first, *rest = path
    if not rest:
        return nested.pop(first, UNSET)
    if not isinstance(inner := nested.get(first), Mapping):
        return UNSET
    left = dict(inner)
    value = _take(left, rest)
    nested[first] = left
    if not left:
        del nested[first]
    return value


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def _retired(schema: type) -> dict[str, Any]:
    return {
        f"{part.name}.{name}" if part.name else name: value
        for part in groups(schema)
        for name, value in getattr(part.schema, "RETIRED", {}).items()
    }


def _said(value: Any) -> str:
    return str(value) if value is UNSET or isinstance(value, str) else shown(value)
