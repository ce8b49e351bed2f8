"""The record of a round, ``round.json`` (``docs/round.schema.json``), and how rounds are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from collabteam.errors import UserError, file_error, first_line
from collabteam.rounds.predictions import fold_digest
from collabteam.settings import LEARNERS, TeamConfig, TrainConfig
from collabteam.settings.fields import UNSET, Setting, settings_of
from collabteam.settings.records import from_record
from collabteam.storage.files import damaged, file_digest, parse_json, read_json
from collabteam.storage.layout import ROUND_RECORD, CameraFiles, RoundFiles
from collabteam.storage.records import (
    ClassName,
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
from collabteam.team.voting import VotePolicy, team_policy


class Reviewer(Part):
    """The reviewer whose answers the human labels are."""

    kind: Literal["person", "oracle"] = Field(
        description="'person', or 'oracle' for a simulated reviewer that answers from hidden truth."
    )
    error_rate: Share = Field(
        description="Share of the oracle's answers that are wrong; 0 for a person, whose errors "
        "are not known."
    )
    answers: Count = Field(description="Answers given so far.")


class ExpectedPrecision(Part):
    """Estimated precision of the next increment of one class; not a bound."""

    share: Share | None = Field(
        description="Share of right labels among the human-labelled fold crops that the same "
        "selection takes; null where it takes none."
    )
    crops: Count = Field(description="Crops that the share rests on.")


class Strangers(Part):
    """Objects of no class in the pool, as far as verified crops tell.

    Each crop counts as often as crops with the same proposal occur in the pool per verified one.
    """

    verified: Count = Field(description="Fold crops that a person verified as 'unknown'.")
    share: Share = Field(description="Estimated share of such objects in the pool.")
    unseen: Share = Field(
        description="Share of the pool whose proposals no verified fold crop has; the estimates "
        "leave it out."
    )
    expected_precision: dict[str, Share | None] = Field(
        description="Per class, the estimated precision of the next increment with such objects "
        "counted; null where the selection takes no verified crop."
    )


class DrawnClass(Part):
    """Crops of one class that are drawn for an increment."""

    candidates: Count = Field(description="Crops confident enough to be drawn from.")
    taken: Count = Field(description="Crops drawn, which joined the training set.")
    shortfall: Count = Field(
        description="How many crops fewer than asked for were drawn, for lack of candidates."
    )
    expected_precision: Share | None = Field(
        description="Share of the taken crops whose label is right, as estimated from "
        "human-labelled folds; null where they do not tell."
    )


class ClassIncrement(DrawnClass):
    """Crops of one class, labelled by the team of the round before."""

    precision: Share | None = Field(
        description="Share of the taken crops whose label is right; null where the truth is not "
        "known."
    )


class BranchRecall(Part):
    """Recall of one branch."""

    true: Share | None = Field(
        description="Share of the crops of its class that the branch votes true; null where there "
        "is no such crop."
    )
    false: Share | None = Field(
        description="Share of all other crops that the branch votes false; null where there is no "
        "such crop."
    )

    def sides(self) -> dict[str, float | None]:
        """Both recalls by their names, ``true`` first."""
        return {"true": self.true, "false": self.false}


Recalls = Annotated[dict[str, BranchRecall], Field(min_length=2)]
"""Recall of the branch of each class."""


def mean_of(recalls: dict[str, BranchRecall]) -> float | None:
    """Mean of all recalls of true and of false that are known, 0 to 1; None if none is."""
    known = [v for row in recalls.values() for v in row.sides().values() if v is not None]
    return sum(known) / len(known) if known else None


def _by_class_beside_the_fold(schema: dict[str, Any]) -> None:
    branch = schema["properties"].pop("recalls")["additionalProperties"]
    schema |= {"required": ["fold"], "minProperties": 3, "additionalProperties": branch}


class FoldRecall(Part):
    """The validation recall of one trained fold; on disk the classes stand beside ``fold``."""

    model_config = ConfigDict(json_schema_extra=_by_class_beside_the_fold)

    fold: Count = Field(description="The fold's number.")
    recalls: Recalls

    @model_validator(mode="before")
    @classmethod
    def _nest(cls, content: object) -> object:
        if isinstance(content, dict) and "recalls" not in content:
            rest = {name: row for name, row in content.items() if name != "fold"}
            return {"fold": content.get("fold"), "recalls": rest}
        return content

    @model_serializer(mode="wrap")
    def _flatten(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content = handler(self)
        return {"fold": content["fold"], **content["recalls"]}


class RoundRecalls(Part):
    """Recall of every branch on each set of crops."""

    validation: Recalls = Field(
        description="Mean over the trained folds. After round 0 these labels are partly the team's "
        "own, so this is not an accuracy."
    )
    human: Recalls = Field(
        description="Mean over the same folds, of their human-labelled crops only."
    )
    folds: Annotated[list[FoldRecall], Field(min_length=1)] = Field(
        description="The validation recall of every trained fold."
    )
    test: Recalls | None = Field(
        description="On the frozen, human-labelled test set; null where the camera has none."
    )


class UnknownObjects(Part):
    """Objects of none of the classes, if hidden truth contains any."""

    pool: Count = Field(description="Their crops in the pool.")
    abstain_rate: Share | None = Field(
        description="Share of these on which the team abstains; null without any."
    )
    increment: Count = Field(description="Such crops that this round's increment took.")


class RoundRecord(Record):
    """The record of a finished round of one camera, written last and atomically.

    Rates are fractions from 0 to 1.
    """

    model_config = ConfigDict(
        title=ROUND_RECORD,
        json_schema_extra={
            "if": {"properties": {"round": {"const": 0}}},
            "then": {"properties": {"increment": {"maxProperties": 0}}},
        },
    )

    camera: Name = Field(description="The camera's name, also that of its folder.")
    round: Count = Field(
        description="The round: 0 learned from human labels only, each later one from an increment "
        "more."
    )
    fingerprint: Digest = Field(
        description="Hash, in hexadecimal, of the settings and the data that made the round."
    )
    classes: Annotated[
        list[ClassName], Field(min_length=2, json_schema_extra={"uniqueItems": True})
    ] = Field(description="The team's classes, one branch each, in the order of the branches.")
    train_size: Annotated[int, Field(strict=True, ge=1)] = Field(
        description="Crops in the training set, all folds together."
    )
    train_counts: dict[str, Count] = Field(
        description="Crops in the training set per label: the classes, and 'unknown' for crops "
        "that show none of them."
    )
    train_unsure: Count = Field(
        default=0,
        description="Training crops on which an earlier team abstained and that a person verified.",
    )
    training_digest: Digest = Field(
        description="Hash of the training set: its crops and their labels."
    )
    reviewer: Reviewer = Field(description="Who gave the human labels.")
    expected_precision: Annotated[dict[str, ExpectedPrecision], Field(min_length=2)] = Field(
        description="Per class, the estimated precision of the next increment, from human-labelled "
        "validation crops of the folds."
    )
    increment: dict[str, ClassIncrement] = Field(
        description="Per class, the crops that this round added for training; empty for round 0."
    )
    voting: Annotated[
        dict[str, Annotated[list[Count], Field(min_length=1)]], Field(min_length=2)
    ] = Field(
        description="Per class, the folds whose networks vote: one with vote_with=best, all "
        "trained ones with vote_with=mean."
    )
    files: dict[str, Digest] = Field(
        default_factory=dict,
        description="Hash of each file of the round that later work reads, by its name in the "
        "round's folder; empty in rounds of earlier versions.",
    )
    settings: dict[str, Any] = Field(
        description="Every setting of the run that counts for its results, nested as in the "
        "configuration."
    )
    versions: dict[str, Text] = Field(
        description="Versions of Python and of the libraries that matter."
    )
    pool_size: Count = Field(
        description="Crops in the unlabelled pool that this round's team scored."
    )
    coverage: Share | None = Field(
        description="Share of the unlabelled pool on which the team reaches consensus; null where "
        "the pool is empty."
    )
    abstain_rate: Share | None = Field(
        description="Share of the unlabelled pool to which the team says 'I don't know'; null "
        "where the pool is empty."
    )
    test_size: Count = Field(
        description="Crops in the frozen test set; 0 where the camera has none."
    )
    coverage_test: Share | None = Field(
        description="Share of the frozen test set on which the team reaches consensus; null "
        "without a test set."
    )
    consensus_accuracy_test: Share | None = Field(
        description="Share of those consensus answers that are right; null without a test set or "
        "without any consensus on it."
    )
    recall: RoundRecalls = Field(
        description="Recall of every branch: the share of crops of its class that it votes true, "
        "and of all others that it votes false."
    )
    label_noise: Share | None = Field(
        description="Share of wrong labels in the training set; null where the truth is not known."
    )
    unknown: UnknownObjects | None = Field(
        description="Objects of none of the classes; null if none is known."
    )
    strangers: Strangers | None = Field(
        default=None,
        description="Estimates that count objects of none of the classes; null if no fold crop is "
        "verified as 'unknown', and in rounds of earlier versions.",
    )
    seconds: dict[str, Annotated[Number, Field(ge=0)]] = Field(
        description="Wall-clock time per stage, in seconds."
    )
    peak_memory_mb: Annotated[Number, Field(ge=0)] = Field(
        description="Most memory that the process held so far, in MiB."
    )
    finished: Time = Field(description="When the round was complete, UTC, ISO 8601.")

    @model_validator(mode="after")
    def _check(self) -> RoundRecord:
        if self.round == 0 and self.increment:
            raise ValueError("expected no increment in round 0")
        self._check_settings()
        named: list[tuple[str, dict[str, Any]]] = [
            ("expected_precision", self.expected_precision),
            ("voting", self.voting),
            ("recall.validation", self.recall.validation),
            ("recall.human", self.recall.human),
            ("recall.test", self.recall.test or self.recall.human),
            ("increment", self.increment or self.voting),
            (
                "strangers.expected_precision",
                self.strangers.expected_precision if self.strangers else self.voting,
            ),
        ]
        for key, rows in named:
            if set(rows) != set(self.classes):
                raise ValueError(
                    f"{key}: expected the classes {', '.join(self.classes)}, got {', '.join(rows)}"
                )
        return self

    def _check_settings(self) -> None:
        """Check the settings that this version knows; others are compared, not used."""
        for one in settings_of(TrainConfig).values():
            value: Any = self.settings
            for name in one.name.split("."):
                if not isinstance(value, dict):
                    raise ValueError(f"settings: expected {one.name} in a group, got {value!r:.40}")
                value = value.get(name, UNSET)
                if value is UNSET:
                    break
            if value is not UNSET and not _may_be(value, one):
                raise ValueError(f"settings: {one.name} cannot be {value!r:.40}")

    @property
    def policy(self) -> VotePolicy:
        """How the team votes: the settings ``team.vote`` and ``team.joint``.

        Raises:
            UserError: The package that holds the policy is not installed, or the record is damaged.
        """
        return team_policy(from_record(TeamConfig, self._group("team")))

    @property
    def image_size(self) -> int:
        """Side of the letterboxed square that the networks see, in pixels.

        Raises:
            UserError: The package that holds the learner is not installed.
        """
        settings = from_record(TrainConfig, self.settings)
        learner: Any = LEARNERS.load(settings.learner["name"])
        group = settings.features if learner.network == "features" else settings.data
        return group.image_size

    def _group(self, name: str) -> dict[str, Any]:
        found = self.settings.get(name)
        if not isinstance(found, dict):
            raise UserError(
                f"the record of round {self.round} of camera {self.camera} is damaged: it has no "
                f"settings {name}; restore it from a backup, or train that round again"
            )
        return found


def _may_be(value: Any, one: Setting) -> bool:
    """Whether a setting may have a value of this kind; its range may have been another once."""
    if one.is_implementation:
        return isinstance(value, dict) and isinstance(value.get("name"), str)
    if value is None and one.optional:
        return True
    kind = get_origin(one.kind) or one.kind
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind or kind not in (bool, int, str, list)


def read_increment(file: Path, classes: Sequence[str]) -> dict[str, DrawnClass]:
    """Read a round's draw per class from ``increment.json``.

    Args:
        file: The file.
        classes: The team's classes.

    Raises:
        UserError: The file is damaged.
    """
    try:
        content = parse_json(file.read_bytes())
        if set(content) != set(classes):
            raise ValueError(f"the classes {', '.join(map(str, content))}")
        return {name: DrawnClass.model_validate(row) for name, row in content.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file} is damaged ({first_line(error)}): delete it, and training draws again"
        ) from error


def hashed_files(files: RoundFiles, kept: Sequence[Path], folds: Sequence[int]) -> dict[str, str]:
    """Hash the files of a finished round that later work reads.

    Args:
        files: The round's files.
        kept: Its networks that stay.
        folds: The folds that it trained.
    """
    predictions = map(files.fold_predictions, folds)
    return {
        file.relative_to(files.folder).as_posix(): _digest(file)
        for file in (files.sample, files.increment, files.folds, *predictions, *kept)
        if file.is_file()
    }


def _digest(file: Path) -> str:
    return fold_digest(file) if file.suffix == ".npz" else file_digest(file)


def check_round(files: RoundFiles, record: RoundRecord, needed: Sequence[Path] = ()) -> None:
    """Make sure that a finished round's files are what the round wrote.

    Args:
        files: The round's files.
        record: Its record; one of an earlier version has no hashes to compare with.
        needed: Files that must be there.

    Raises:
        UserError: A file is damaged, or one that is needed is missing.
    """
    remedy = (
        f"restore it from a backup, or train that round again ('train ... "
        f"rollback={record.round - 1}')"
    )
    for file in needed:
        if not file.is_file():
            raise damaged(file, _expected(files, file), "no file", remedy)
    for name, digest in record.files.items():
        file = files.folder / name
        try:
            is_same = not file.exists() or _digest(file) == digest
        except PermissionError as error:
            raise file_error(file, error, "read") from error
        except (OSError, ValueError, UserError):
            is_same = False
        if not is_same:
            found = "other bytes than its round recorded"
            raise damaged(file, _expected(files, file), found, remedy)


def _expected(files: RoundFiles, file: Path) -> str:
    return "the weights of a branch" if file.parent == files.branches else "what its round wrote"


def read_folds(file: Path) -> dict[str, int]:
    """Read the fold of each track from ``folds.json``.

    Raises:
        UserError: The file is missing or damaged.
    """
    remedy = "restore it from a backup, or train that round again"
    folds = read_json(file, remedy)
    wrong = [name for name, fold in folds.items() if type(fold) is not int or fold < 0]
    if wrong or not folds:
        found = f"{folds[wrong[0]]!r:.40}" if wrong else "no track"
        raise damaged(file, "the fold of each track", found, remedy)
    return folds


def read_rounds(files: CameraFiles) -> list[RoundRecord]:
    """Complete rounds of one camera, in order.

    Reading stops at the first round without a ``round.json``: later rounds are not part of the
    chain that led to the team.

    Args:
        files: The camera's files.

    Returns:
        The record of each round; empty if no round is complete.

    Raises:
        UserError: A ``round.json`` cannot be read or is not valid.
    """
    rounds: list[RoundRecord] = []
    while (path := files.round(len(rounds)).record).is_file():
        remedy = (
            f"restore it, or delete {path.parent.name} and every later round folder and train "
            f"again with round={len(rounds)}"
        )
        record = RoundRecord.read(path, remedy)
        problem = ""
        if record.round != len(rounds):
            problem = f"it says round {record.round}, expected {len(rounds)}"
        elif rounds and record.classes != rounds[0].classes:
            problem = f"classes {record.classes!r}, expected {rounds[0].classes!r} as in round 0"
        if problem:
            raise UserError(f"{path} is damaged ({problem}): {remedy}")
        rounds.append(record)
    return rounds
