"""Messages about labelling for the console."""

from __future__ import annotations

from collabteam.labelling.calibration import RiskThreshold
from collabteam.labelling.records import EngineCheck


def no_round(camera: str, number: int) -> str:
    """Explain that the round is not finished."""
    named = "" if number < 0 else f" {number}"
    return (
        f"camera {camera} has no finished round{named}: "
        f"python -m collabteam.train camera={camera} round={max(number, 0)}"
    )


def scoring(number: int, kind: str, precision: str) -> str:
    """Title of the scoring; ``{}`` in it stands for the number of crops."""
    return f"the team of round {number} scores {{}} crops ({kind}, {precision})"


def falls_back(error: Exception) -> str:
    """Warn that fp32 replaces a coarser precision."""
    return f"{error}; fp32 is used instead"


def compared(check: EngineCheck) -> str:
    """Report how far an engine differs from the reference."""
    return (
        f"{check.kind} in {check.precision} and torch in fp32 differ in "
        f"{check.disagreement:.2%} of {check.crops} verdicts"
    )


def nothing_to_calibrate_on(number: int) -> str:
    """Warn that confidences are not calibrated."""
    return (
        f"round {number} kept no crops to calibrate on: confidences stay as the networks give "
        "them; training the round again keeps them"
    )


def nothing_to_choose_on(threshold: str, number: int) -> str:
    """Refuse a threshold that no crops can support."""
    return (
        f"threshold={threshold}: round {number} kept no crops to choose a threshold on: train it "
        "again, or use threshold=paper"
    )


def nothing_released(name: str, risk: float, found: RiskThreshold) -> str:
    """Warn that no crop of a class can be labelled."""
    return (
        f"class {name}: nothing can be labelled at a risk of {risk:g}: {found.errors} of "
        f"{found.crops} human-labelled crops that did not train were wrong; verify more "
        "(queue=unsure), train on, or allow more risk"
    )


def no_test_set(camera: str) -> str:
    """Warn that the labels cannot be judged."""
    return (
        "the camera has no verified test set, so nothing says how right these labels are: "
        f"python -m collabteam.review camera={camera} queue=test"
    )
