"""The program still does what it did at d13fd55; ``tests/frozen/README.md`` lists what is frozen.

Three kinds of facts are compared:

- *exact* ones do not depend on the order in which floats are added. They must be equal on every
  machine; where the test draws the crops, only if the packages that draw and encode them have the
  versions of the fixture. All results of the old camera before it trains on are exact on every
  machine, since its scores are stored.
- *trained* ones follow from networks that were trained here. They must be equal where the
  processor and the packages that compute are those of the fixture. Elsewhere (AVX2 against AVX512,
  other caches, other versions of torch) the sums round otherwise, and nothing equal can be asked.
- *figures* are numbers that follow from trained networks. Elsewhere they must lie within
  ``TOLERANCE`` of the fixture's.

That a killed run ends as an undisturbed one is compared within one machine, so it is exact
everywhere. ``COLLABTEAM_FROZEN=all`` also runs the object store and the real street crops.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence

import pytest
from conftest import finish, start
from frozen import freeze
from frozen.freeze import Code, Facts

FIXTURE = json.loads((freeze.HERE / "digests.json").read_text(encoding="utf-8"))
TOLERANCE = {
    "recall": 0.12,
    "consensus_accuracy_test": 0.25,
    "coverage": 0.5,
    "train_size": 10,
    "abstained": 0.4,
}
"""By how much a figure may differ on another processor.

With torch and oneDNN held to AVX2 or SSE4.1, the figures of the simulated camera differed by up to
0.07, 0.11, 0.26, 0 and 0.13: a team this small varies widely. A network that has learned nothing
has a recall (the mean over classes and sides) of 0.5 and is found.
"""

ALL = pytest.mark.skipif(
    os.environ.get("COLLABTEAM_FROZEN") != "all", reason="COLLABTEAM_FROZEN=all runs it"
)
pytestmark = pytest.mark.slow


class ThisCode(Code):
    """This checkout; its commands find the libraries imported, but for those that are killed."""

    def finish(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        _, option, module, *settings = words
        if option != "-m" or self.extra:
            return super().finish(words)
        return finish(start(module.removeprefix("collabteam."), self.work, *settings))


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Code]:
    """This checkout, with a folder of its own for each part."""
    return lambda part: ThisCode(freeze.REPOSITORY, tmp_path_factory.mktemp(part))


@pytest.fixture(scope="module")
def undisturbed(code: Callable[[str], Code]) -> Facts:
    return freeze.simulated(code("simulated"))


@pytest.fixture(scope="module")
def old_camera(code: Callable[[str], Code]) -> tuple[Code, Facts]:
    one = code("old")
    return one, freeze.old(one)


def differing(facts: Facts, part: str, kind: str) -> list[str]:
    """Names of the facts whose digests are not the fixture's; also of those that are missing."""
    frozen, found = FIXTURE["parts"][part][kind], facts.digests()[kind]
    return sorted(
        name for name in frozen.keys() | found.keys() if frozen.get(name) != found.get(name)
    )


def out_of_tolerance(facts: Facts, part: str) -> dict[str, tuple[float, float | None]]:
    """Figures that are too far from the fixture's: what is frozen, and what was found."""
    found: dict[str, tuple[float, float | None]] = {}
    for name, frozen in FIXTURE["parts"][part]["figures"].items():
        margins = [margin for word, margin in TOLERANCE.items() if word in name.split()]
        value = facts.figures.get(name)
        if margins and (value is None or abs(value - frozen) > margins[0]):
            found[name] = (frozen, value)
    return found


def check(facts: Facts, part: str) -> None:
    """Compare as exactly as this machine allows."""
    drawn_alike = freeze.drawing_signature() == FIXTURE["drawing"]
    trained_alike = freeze.training_signature() == FIXTURE["training"]
    if drawn_alike:
        assert differing(facts, part, "exact") == []
    if trained_alike:
        assert differing(facts, part, "trained") == []
    assert out_of_tolerance(facts, part) == {}


def test_a_simulated_camera(undisturbed: Facts) -> None:
    check(undisturbed, "simulated")


def test_a_killed_run_ends_as_an_undisturbed_one(
    code: Callable[[str], Code], undisturbed: Facts
) -> None:
    facts = freeze.killed(code("killed"))
    check(facts, "killed")
    assert facts.exact == undisturbed.exact
    # The camera that was not killed went on to labels and an audit afterwards.
    assert facts.trained == {name: undisturbed.trained[name] for name in facts.trained}


def test_footage(code: Callable[[str], Code]) -> None:
    pytest.importorskip("av", reason="needs the extra 'footage'")
    pytest.importorskip("trackers", reason="needs the extra 'footage'")
    check(freeze.footage(code("footage")), "footage")


@ALL
def test_a_camera_in_an_object_store(code: Callable[[str], Code]) -> None:
    check(freeze.store(code("store")), "store")


@ALL
@pytest.mark.skipif(
    not (freeze.DATA / "crops" / "street").is_dir(),
    reason=f"{freeze.DATA} is absent: COLLABTEAM_TEST_DATA names the folder with it",
)
def test_real_street_crops(code: Callable[[str], Code]) -> None:
    check(freeze.street(code("street")), "street")


def test_the_old_camera_is_labelled_audited_reported_and_exported_as_then(
    old_camera: tuple[Code, Facts],
) -> None:
    _, facts = old_camera
    assert differing(facts, "old", "exact") == []


def test_the_old_camera_trains_on(old_camera: tuple[Code, Facts]) -> None:
    one, _ = old_camera
    facts = freeze.old_trained_on(one)
    if freeze.training_signature() == FIXTURE["training"]:
        assert differing(facts, "old trained on", "trained") == []
    assert out_of_tolerance(facts, "old trained on") == {}


def test_the_old_networks_still_see_the_same(old_camera: tuple[Code, Facts]) -> None:
    """The pictures are resized and normalised as then, and the weights find their places."""
    one, _ = old_camera
    assert freeze.old_rescored(one) == 1
