"""Every setting of collabteam: dataclasses that the command line fills and Python code builds.

Python code builds the same dataclasses that a command builds from YAML files and its arguments::

    camera = CameraConfig("S10-08", ["pedestrian", "cyclist", "motorcyclist"])
    TrainConfig(camera=camera, round=2)

Each setting is declared once (:mod:`collabteam.settings.fields`). ``docs/settings.md`` lists all.
"""

from collabteam.settings.audit import AuditConfig
from collabteam.settings.camera import CameraConfig, CommandConfig, FootageConfig
from collabteam.settings.checks import check
from collabteam.settings.ingest import CutConfig, DetectorConfig, IngestConfig
from collabteam.settings.label import MOST_DISAGREEMENT, MOST_SAMPLES, LabelConfig, risk_of
from collabteam.settings.machine import LoggerConfig, RuntimeConfig, TrainerConfig
from collabteam.settings.names import (
    UNKNOWN,
    UNUSABLE,
    check_camera_name,
    check_classes,
    check_root,
    home_path,
    is_camera_name,
    is_class_name,
    is_reviewer,
)
from collabteam.settings.records import changed_settings, from_record, result_settings
from collabteam.settings.review import ReviewConfig
from collabteam.settings.simulation import SimulationConfig
from collabteam.settings.train import (
    AUTO,
    LEARNERS,
    DataConfig,
    FeaturesConfig,
    OptimConfig,
    TeamConfig,
    TrainConfig,
)

__all__ = [
    "AUTO",
    "LEARNERS",
    "MOST_DISAGREEMENT",
    "MOST_SAMPLES",
    "UNKNOWN",
    "UNUSABLE",
    "AuditConfig",
    "CameraConfig",
    "CommandConfig",
    "CutConfig",
    "DataConfig",
    "DetectorConfig",
    "FeaturesConfig",
    "FootageConfig",
    "IngestConfig",
    "LabelConfig",
    "LoggerConfig",
    "OptimConfig",
    "ReviewConfig",
    "RuntimeConfig",
    "SimulationConfig",
    "TeamConfig",
    "TrainConfig",
    "TrainerConfig",
    "changed_settings",
    "check",
    "check_camera_name",
    "check_classes",
    "check_root",
    "from_record",
    "home_path",
    "is_camera_name",
    "is_class_name",
    "is_reviewer",
    "result_settings",
    "risk_of",
]
