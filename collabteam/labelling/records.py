"""The record of a labelling, ``label.json`` (``docs/label.schema.json``)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from collabteam.storage.layout import LABEL_RECORD, CameraFiles
from collabteam.storage.records import (
    Count,
    Digest,
    Name,
    Number,
    Part,
    Record,
    Share,
    Text,
    Time,
)


class EngineCheck(Part):
    """Differences of the engine from torch in fp32 on a sample of the camera's crops."""

    team: Digest = Field(description="Fingerprint of the round that trained the team.")
    kind: Text = Field(description="The engine: torch or openvino.")
    precision: Text = Field(description="Its precision: fp32, bf16 or int8.")
    crops: Count = Field(description="Crops that were compared; 0 if there was nothing to compare.")
    disagreement: Share = Field(description="Share of verdicts that differ.")
    largest_difference: Share = Field(description="Largest difference of two probabilities.")


class Threshold(Part):
    """The joint confidence from which labels of one class stay within the requested risk."""

    threshold: Number | None = Field(
        description="Lowest joint confidence to release; null to release nothing."
    )
    crops: Count = Field(
        description="Human-labelled crops at or above it, at most one of a track; without a "
        "threshold, all such crops."
    )
    errors: Count = Field(description="Wrong labels among these.")
    bound: Share = Field(
        description="Upper confidence bound of the share of wrong labels, from these crops alone."
    )


class Reliability(Part):
    """The share of true crops by a branch's probability, in bins that hold crops."""

    confidence: list[Share] = Field(description="Mean probability of each bin.")
    share: list[Share] = Field(description="Share of crops for which it is true.")
    count: list[Count] = Field(description="Crops of each bin.")


class ReliabilityPair(Part):
    """Reliability of one branch before and after calibration."""

    before: Reliability
    after: Reliability


class CalibrationError(Part):
    """Expected calibration error of one branch before and after calibration."""

    before: Share | None
    after: Share | None


class Curve(Part):
    """Risk over coverage of single crops, at roughly even steps of coverage."""

    coverage: list[Share] = Field(description="Share of crops with a label.")
    risk: list[Share] = Field(description="Share of wrong labels among these.")


class ClassPrecision(Part):
    """Labels of one class."""

    labelled: Count = Field(description="Crops with this label.")
    precision: Share | None = Field(description="Share of right labels among these; null if none.")


class Accuracy(Part):
    """The share of crops with a label, and of right labels among these."""

    coverage: Share | None = Field(description="Share of crops with a label; null without crops.")
    accuracy: Share | None = Field(description="Share of right labels; null without any.")
    classes: dict[str, ClassPrecision] = Field(description="Per class.")


class MeasuredAccuracy(Accuracy):
    """Accuracy on crops of the pool whose hidden truth is known."""

    strangers: Count = Field(description="Crops that show none of the classes.")
    strangers_labelled: Count = Field(description="Of these, crops that got a label.")


class TestQuality(Part):
    """The quality of the confidences and the labels on the frozen test set."""

    # pytest looks for classes of this name.
    __test__ = False

    crops: Count = Field(description="Verified crops of the frozen test set.")
    calibration_error: dict[str, CalibrationError] = Field(
        description="Expected calibration error per class."
    )
    reliability: dict[str, ReliabilityPair] | None = Field(
        default=None, description="Reliability per class; null in records of early versions."
    )
    risk_coverage: Curve | None = Field(
        default=None,
        description="Risk over coverage of single crops; null in records of early versions.",
    )
    risk_coverage_area: Annotated[Number, Field(ge=0)] = Field(description="Area under that curve.")
    apart: Accuracy = Field(description="On single crops, where every consensus is a label.")
    as_labelled: Accuracy = Field(description="With the final labels.")


class LabelledSample(Part):
    """A crop that got a label."""

    crop_id: Text
    label: Text
    confidence: Share = Field(description="Joint confidence.")


class UnsureSample(Part):
    """A crop that got no label."""

    crop_id: Text
    claimed_by: list[Text] = Field(description="Classes whose branches vote true.")


class WrongSample(LabelledSample):
    """A crop whose label a person or the hidden truth contradicts."""

    actual: Text = Field(description="The label given by that source.")
    source: Text = Field(description="person, import or oracle; truth for hidden truth.")


class Samples(Part):
    """Crops to check, at most one per track."""

    sure: list[LabelledSample] = Field(default=[], description="The most confident of each class.")
    unsure: list[UnsureSample] = Field(
        default=[], description="Random draw of the crops without a label."
    )
    wrong: list[WrongSample] = Field(
        default=[], description="Contradicted labels, the most confident first."
    )


class LabelRecord(Record):
    """The record of a labelling. Rates are fractions from 0 to 1."""

    model_config = ConfigDict(title=LABEL_RECORD)

    camera: Name = Field(description="The camera's name, also that of its folder.")
    round: Count = Field(description="The round whose team labelled.")
    team: Digest = Field(description="Fingerprint of that round.")
    run: Text = Field(description="Name of the team with these settings, as in the label log.")
    settings: dict[str, Any] = Field(
        description="Every setting of the labelling that affects its results."
    )
    vote: dict[str, Any] = Field(
        default={},
        description="The vote policy: name, settings, joint confidence and thresholds. Empty in "
        "records of earlier versions, whose teams vote by consensus.",
    )
    check: EngineCheck = Field(description="The engine that scored, compared with the reference.")
    pool: Count = Field(description="Crops without a person's label, outside the test set.")
    labelled: dict[str, Count] = Field(description="Of these, crops that got each label.")
    abstained: Count = Field(description="Of these, crops that got no label.")
    conflicts: Count = Field(
        description="Of those without a label, crops of tracks that contradict themselves or a "
        "person."
    )
    coverage: Share | None = Field(
        description="Share of the pool with a label; null where the pool is empty."
    )
    temperatures: dict[str, Annotated[Number, Field(gt=0)]] = Field(
        description="Temperature of each class's calibration; 1 for none."
    )
    thresholds: dict[str, Threshold] | None = Field(
        description="Threshold of each class for the requested risk; null with threshold=paper."
    )
    test: TestQuality | None = Field(
        description="Quality on the frozen test set; null without verified crops."
    )
    samples: Samples = Field(default=Samples(), description="Crops to check.")
    measured: MeasuredAccuracy | None = Field(
        description="Accuracy against hidden truth; null where it is unknown."
    )
    new: Count = Field(description="Verdicts that the label log did not have.")
    seconds: dict[str, Annotated[Number, Field(ge=0)]] = Field(
        description="Wall-clock time per stage, in seconds."
    )
    finished: Time = Field(description="When the labelling was complete, UTC, ISO 8601.")


def read_label(files: CameraFiles) -> LabelRecord | None:
    """Read the record of a camera's last labelling.

    Args:
        files: The camera's files.

    Returns:
        The record; None before the first labelling.

    Raises:
        UserError: ``label.json`` is damaged, or a newer version made it.
    """
    if not files.label_record.exists():
        return None
    remedy = f"'python -m collabteam.label camera={files.folder.name}' writes it again"
    return LabelRecord.read(files.label_record, remedy)
