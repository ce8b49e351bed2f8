"""What is known of a camera: its crops, and the log of what was said about them.

Hidden truth (``collabteam.catalog.truth``) and the readers of foreign data
(``collabteam.sources.crops``) are imported by their own names.
"""

from collabteam.catalog.catalog import CameraInUse, Catalog, registered
from collabteam.catalog.index import CropIndex
from collabteam.catalog.records import Crop, LabelEvent

__all__ = ["CameraInUse", "Catalog", "Crop", "CropIndex", "LabelEvent", "registered"]
