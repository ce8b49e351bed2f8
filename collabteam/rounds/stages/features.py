"""Stage that computes the features of the frozen backbones; saved part by part with the camera."""

from __future__ import annotations

from dataclasses import dataclass

from collabteam.catalog import Catalog
from collabteam.events import Listener
from collabteam.features.extractor import FeatureExtractor
from collabteam.features.store import FeatureStore
from collabteam.stages import Stage


@dataclass(frozen=True, eq=False)
class ComputeFeatures(Stage[FeatureStore]):
    """Compute the features of all crops that have none.

    Attributes:
        catalog: The camera, which the caller has locked.
        extractor: The frozen backbones.
    """

    catalog: Catalog
    extractor: FeatureExtractor
    name = "features"

    def compute(self, listener: Listener) -> FeatureStore:
        """Return the features by row.

        Raises:
            UserError: A picture cannot be decoded, or the disk is full.
        """
        store = FeatureStore(self.catalog, self.extractor)
        store.fill(listener)
        return store
