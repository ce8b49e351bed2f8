"""A camera's crops, and the log of their labels.

Hidden truth (``collabteam.catalog.truth``) and the readers of foreign data
(``collabteam.sources.crops``) are imported by their own names.
"""

from collabteam.catalog.catalog import Catalog
from collabteam.catalog.index import CropIndex, class_numbers
from collabteam.catalog.records import NONE, UNLABELLED, Crop, LabelEvent

__all__ = [
    "NONE",
    "UNLABELLED",
    "Catalog",
    "Crop",
    "CropIndex",
    "LabelEvent",
    "class_numbers",
]
