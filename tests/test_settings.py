"""Settings are declared once: what is checked, recorded and compared follows from it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, make_dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collabteam.errors import UserError
from collabteam.registry import Registry
from collabteam.rounds.state import digest
from collabteam.settings import (
    CameraConfig,
    DataConfig,
    OptimConfig,
    TeamConfig,
    TrainConfig,
)
from collabteam.settings.checks import build, check, nearest, resolve_group
from collabteam.settings.fields import group, implementation, setting, settings_of
from collabteam.settings.records import changed_settings, from_record, result_settings

# --- an invented schema --------------------------------------------------------------------------


class Method:
    """The base class of an invented seam."""


class Plain(Method):
    @dataclass
    class Settings:
        pass


class Fancy(Method):
    @dataclass
    class Settings:
        rate: float = setting(0.5, ge=0, le=1, help="how fast")
        steps: int = setting(3, ge=1, help="how often", when_absent=2)


METHODS: Registry[Method] = Registry("method", f"{__name__}:Method", "collabteam.rounds")
PLAIN, FANCY = f"{__name__}:Plain", f"{__name__}:Fancy"


@dataclass
class Inner:
    share: float = setting(0.25, gt=0, lt=1, help="a share")
    where: str = setting("here", help="a place", affects="place")
    RETIRED: ClassVar[Mapping[str, Any]] = {"gone": 7}


@dataclass
class Outer:
    count: int = setting(4, ge=1, help="a number")
    kind: str = setting("a", choices={"a": "one", "b": "another"}, help="a kind")
    parts: list[int] = setting([1, 2], ge=0, help="some numbers")
    most: int | None = setting(None, ge=0, help="a limit")
    inner: Inner = group(Inner, help="a group")
    method: dict[str, Any] = implementation(METHODS, PLAIN, help="a method")

    def check_together(self) -> None:
        if self.count > 10 and self.kind == "b":
            raise UserError("count above 10 needs kind=a")


sys.modules.setdefault("test_settings", sys.modules[__name__])


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"count": 0}, "count=0: expected 1 or more"),
        ({"count": True}, "count=true: expected a whole number, 1 or more"),
        ({"count": 1.5}, "count=1.5: expected a whole number, 1 or more"),
        ({"kind": "c"}, "kind=c: expected one of a, b"),
        ({"parts": [0, -1]}, "parts=[0, -1]: expected 0 or more"),
        ({"parts": 3}, "parts=3: expected a list, as in [a,b]"),
        ({"most": -1}, "most=-1: expected 0 or more"),
        ({"inner": {"share": 1.0}}, "inner.share=1.0: expected more than 0 and less than 1"),
        ({"inner": {"share": math.nan}}, "inner.share=nan: expected more than 0 and less than 1"),
        ({"inner": {"shar": 0.5}}, "no such setting: inner.shar; nearest: inner.share"),
        ({"share": 0.5}, "no such setting: share; nearest: inner.share"),
        ({"count": 11, "kind": "b"}, "count above 10 needs kind=a"),
        ({"method": {"name": "fancy"}}, "method=fancy: no such method"),
    ],
)
def test_one_line_for_each_wrong_value(values: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as raised:
        build(Outer, values)
    assert str(raised.value).startswith(line)
    assert "\n" not in str(raised.value)


def test_whole_numbers_serve_as_numbers() -> None:
    assert isinstance(build(Fancy.Settings, {"rate": 1}).rate, float)
    assert build(Outer, {"most": 3, "inner": {"share": 0.5}}).inner.share == 0.5


def test_the_settings_of_an_implementation() -> None:
    chosen = resolve_group(METHODS, {"name": FANCY, "rate": 1}, "method")
    assert isinstance(chosen, Fancy.Settings)
    assert (chosen.rate, chosen.steps) == (1.0, 3)
    for values, line in (
        ({"rat": 1}, "no such setting: method.rat; nearest: method.rate"),
        ({"rate": 2}, "method.rate=2.0: expected 0 to 1"),
    ):
        with pytest.raises(UserError) as raised:
            resolve_group(METHODS, {"name": FANCY, **values}, "method")
        assert str(raised.value).startswith(line)
    with pytest.raises(UserError, match=r"no such setting: method\.rate; nearest: it has none"):
        resolve_group(METHODS, {"name": PLAIN, "rate": 1}, "method")


def test_names_that_are_like_a_wrong_one() -> None:
    known = ["optim.epochs", "optim.epochs_later", "round", "data.folds"]
    assert nearest("epochs", known)[0] == "optim.epochs"
    assert nearest("optim.epoch", known)[0] == "optim.epochs"
    assert nearest("zzz", known) == []


# --- records -------------------------------------------------------------------------------------


def test_a_setting_at_its_absent_value_leaves_no_trace() -> None:
    values = result_settings(Outer())
    assert values == {
        "count": 4, "kind": "a", "parts": [1, 2], "most": None, "inner": {"share": 0.25}
    }  # fmt: skip
    fancy = Outer(method={"name": FANCY, "steps": 2})
    assert result_settings(fancy)["method"] == {"name": FANCY, "rate": 0.5}


def test_only_what_differs_is_named() -> None:
    recorded = json.loads(json.dumps(result_settings(Outer())))
    assert changed_settings(recorded, Outer()) == []
    other = Outer(count=5, inner=Inner(0.5, "there"))
    assert changed_settings(recorded, other) == ["count 4 -> 5", "inner.share 0.25 -> 0.5"]
    fancy = Outer(method={"name": FANCY})
    assert changed_settings(recorded, fancy) == [f"method {PLAIN} -> {FANCY}"]
    # As an earlier version of Fancy left it, which had no steps.
    recorded["method"] = {"name": FANCY, "rate": 0.5}
    assert changed_settings(recorded, fancy) == ["method.steps 2 -> 3"]
    assert changed_settings(recorded, Outer(method={"name": FANCY, "steps": 2})) == []


def test_what_is_gone_counts_only_where_it_changed_something() -> None:
    recorded = result_settings(Outer())
    recorded["inner"]["gone"] = 7
    assert changed_settings(recorded, Outer()) == []
    recorded["inner"]["gone"] = 8
    recorded["later"] = {"one": True}
    assert changed_settings(recorded, Outer()) == [
        "inner.gone 8 -> not known to this version", "later.one true -> not known to this version"
    ]  # fmt: skip


def test_settings_are_read_from_a_record_of_any_version() -> None:
    made = from_record(Outer, {"count": 9, "inner": {"share": 0.5, "gone": 8}, "later": 1})
    assert made == Outer(count=9, inner=Inner(0.5))
    assert from_record(Fancy.Settings, {"rate": 0.1}) == Fancy.Settings(0.1, steps=2)


def test_fingerprints_of_existing_cameras_stay() -> None:
    """As the first version with records made them; another digest would refuse every camera."""
    camera = CameraConfig("S10-08", ["pedestrian", "cyclist", "motorcyclist"])
    paper = TrainConfig(camera=camera)
    quick = TrainConfig(
        camera=camera, root="x", round=3, reviewer="oracle", seed_unknown=250, rollback=1,
        data=DataConfig(
            image_size=64, train_folds=[0], augment="affine", augment_later="strong",
            batch_size=32, eval_batch_size=8,
        ),
        team=TeamConfig(init="previous", stem="small"),
        optim=OptimConfig(lr=0.05, nesterov=True, warmup=0.2, epochs=24, epochs_later=16),
    )  # fmt: skip
    assert digest(result_settings(paper)) == "0471d006fb072519"
    assert digest(result_settings(quick)) == "a708352806720f56"


def test_older_cameras_go_on_without_the_settings_that_came_later() -> None:
    config = TrainConfig(camera=CameraConfig("c", ["a", "b"]))
    recorded = json.loads(json.dumps(result_settings(config)))
    del recorded["team"]["stem"], recorded["data"]["augment_later"], recorded["seed_unknown"]
    assert changed_settings(recorded, config) == []
    config.team.stem = "small"
    assert changed_settings(recorded, config) == ["team.stem standard -> small"]
    assert from_record(TeamConfig, recorded["team"]) == TeamConfig()


# --- any schema ----------------------------------------------------------------------------------

KINDS = {
    int: st.integers(-5, 5),
    float: st.floats(-5, 5),
    bool: st.booleans(),
    str: st.text("ab=é "),
}


@st.composite
def schemas(draw: st.DrawFn) -> tuple[type, dict[str, Any]]:
    """A schema of up to six settings, some of which were added later, and values for it."""
    fields: list[tuple[str, Any, Any]] = []
    values = {}
    for number in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(list(KINDS)))
        default = draw(KINDS[kind])
        later = draw(st.booleans())
        added = {"when_absent": draw(KINDS[kind])} if later else {}
        name = f"s{number}"
        fields.append((name, kind, setting(default, help="one", **added)))
        values[name] = draw(KINDS[kind])
    return make_dataclass("Drawn", fields), values


@given(schemas())
def test_records_and_settings_agree(drawn: tuple[type, dict[str, Any]]) -> None:
    schema, values = drawn
    made = build(schema, values)
    recorded = json.loads(json.dumps(result_settings(made)))
    assert changed_settings(recorded, made) == []
    assert from_record(schema, recorded) == made
    rules = {name: one.rule.when_absent for name, one in settings_of(schema).items()}
    assert recorded == {name: v for name, v in values.items() if rules[name] != v}


@given(schemas(), st.data())
def test_one_other_value_is_one_line(
    drawn: tuple[type, dict[str, Any]], data: st.DataObject
) -> None:
    schema, values = drawn
    name = data.draw(st.sampled_from(sorted(values)))
    other = data.draw(KINDS[settings_of(schema)[name].kind].filter(lambda v: v != values[name]))
    recorded = result_settings(build(schema, values))
    changed = changed_settings(recorded, build(schema, {**values, name: other}))
    assert [line.split()[0] for line in changed] == [name]


@given(st.integers(-5, 5), st.integers(-5, 5), st.integers(-8, 8))
def test_a_range_is_held_on_both_sides(low: int, width: int, value: int) -> None:
    high = low + abs(width)
    schema = make_dataclass("Drawn", [("s", int, setting(low, ge=low, le=high, help="one"))])
    if low <= value <= high:
        check(schema(value))
        return
    with pytest.raises(UserError, match=f"s={value}: expected {low} to {high}"):
        check(schema(value))
