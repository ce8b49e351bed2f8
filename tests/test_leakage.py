"""No learner sees a crop of the tracks that it is judged on, neither labelled nor in the pool."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL, Call, read_json

from collabteam.catalog import Catalog
from collabteam.features.extractor import ComputedFeatures
from collabteam.features.images import CropPixels
from collabteam.features.store import FeatureStore
from collabteam.learners.supervised import SupervisedLearner
from collabteam.rounds.initial import initial_rows
from collabteam.settings import LEARNERS

PRETRAINED = (
    "reviewer=oracle", "features.image_size=32", "data.folds=2", "data.train_folds=[0]",
    "data.batch_size=16", "seed_per_class=30", "trainer.threads=1", "trainer.precision=fp32",
    "logger=none",
)  # fmt: skip
FROM_SCRATCH = (*SMALL, "data.folds=2", "optim.epochs=1", "seed_per_class=30")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often a fit asked for a row's picture or features."""
    found: Counter[int] = Counter()
    fits: list[int] = []
    for kind in (CropPixels, FeatureStore, ComputedFeatures):
        inner = kind.__getitem__

        def watched(self: Any, rows: Any, inner: Any = inner) -> Any:
            if fits:
                found.update(rows.tolist())
            return inner(self, rows)

        monkeypatch.setattr(kind, "__getitem__", watched)
    for learner in {SupervisedLearner, *map(LEARNERS.load, LEARNERS.names())}:
        if "fit" in vars(learner):
            monkeypatch.setattr(learner, "fit", _marked(learner.fit, fits))
    return found


def _marked(fit: Any, fits: list[int]) -> Any:
    def marked(self: Any, task: Any, env: Any) -> Any:
        fits.append(task.fold)
        try:
            return fit(self, task, env)
        finally:
            fits.pop()

    return marked


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS.names())
def test_no_learner_sees_a_pool_crop_of_a_validation_track(
    name: str, root: Path, call: Call, asked: Counter[int]
) -> None:
    pretrained = LEARNERS.load(name).network == "features"
    settings = (*(PRETRAINED if pretrained else FROM_SCRATCH), f"learner={name}")
    if name in ("finetune", "consistency"):
        settings = (*settings, "learner.steps=12")
    done = call("train", f"root={root}", "camera=sim", "round=0", *settings)
    assert done.code == 0, done.err
    catalog = Catalog.open(root, "sim")
    index = catalog.index()
    folds = read_json(root / "sim" / "round-0" / "folds.json")
    rows = np.array(sorted(asked))
    in_i0 = np.zeros(len(index), bool)
    in_i0[initial_rows(catalog.workspace, index)] = True
    validates = np.array([folds.get(str(track)) == 0 for track in index.track])
    # The simulated tracks have several crops, so the pool holds siblings of those that validate.
    assert (validates & ~in_i0 & ~index.held_out).sum() > 10
    assert in_i0[rows].any()
    pool = rows[~in_i0[rows]]
    assert bool(len(pool)) == LEARNERS.load(name).uses_pool
    assert not validates[pool].any()
    assert not index.held_out[rows].any()
