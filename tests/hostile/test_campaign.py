"""A short hostile campaign; ``python benchmarks/hostile.py --minutes 60`` is a long one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from campaign import CAMERA, INPUTS, Ran, Tally, campaign, judge, shell, trained_camera

import collabteam.report
from collabteam.cli.outcome import Outcome

SHORT = {"inputs": 42, "kills": 4, "doors": 150}
"""Attempts of each kind, always the same ones."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_camera(tmp_path_factory.mktemp("trained"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHORT)
def test_nothing_falls(kind: str, trained: Path, tmp_path: Path) -> None:
    tally = Tally()
    for _, tally in campaign(tmp_path, trained, [kind], lambda kind, tried: tried >= SHORT[kind]):
        assert tally.fell == []
    assert tally.tried == SHORT[kind]


def test_every_kind_of_input_is_tried() -> None:
    assert SHORT["inputs"] >= 5 * len(INPUTS)


def fails(*_: object) -> Outcome:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    "ran",
    [
        Ran(70, "", "report: a fault of collabteam: ZeroDivisionError"),
        Ran(2, "", "Traceback (most recent call last):\nreport: x"),
        Ran(2, "", "something\nelse"),
        Ran(0, "\x1b]0;title\x07", ""),
    ],
)
def test_what_must_not_happen_is_noticed(ran: Ran) -> None:
    assert judge(ran, "report")
    assert not judge(Ran(2, "", "report: expected a camera, got none"), "report")


def test_a_fault_of_ours_ends_as_one(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collabteam.report, "main", replace(collabteam.report.main, run=fails))
    assert "exit code 70" in judge(
        shell(["report", f"root={trained}", f"camera={CAMERA}"]), "report"
    )
