"""The audit of what a team released, from frozen labels to a certificate.

    verdicts in the log -> release.parquet -> sample -> answers in the log -> certificate.json

The exact statistics are in :mod:`collabteam.audits.certificate`; here is what they rest on.

- **What is audited.** Every crop that a team labelled for release, outside the test set, on which
  no person (import, oracle) has a word. It is written down before the sample is drawn, so labels
  that come later change nothing; a certificate speaks of that file and of no other labels.
- **When an audit begins.** With ``audits/<n>/audit.json``, which is written after the release, in
  one piece, and holds the sample. What was killed before that has never been: the same command
  draws the same sample from the same release. What was killed after it goes on.
- **Which answers count.** A person's words of purpose ``audit`` that stand in the log behind the
  place where it was when the release was frozen. The place and not the time, because several
  machines may write and their clocks differ. Of several reviewers of a crop the last one's word
  counts; what was taken back counts for nothing. ``unknown`` and ``unusable`` count as wrong.
- **Every audit that began counts as an attempt**, of every class: the k-th has 1 / (k (k + 1)) of
  the error allowed (:func:`~collabteam.audits.certificate.share_out`), divided by the number of the
  camera's classes, also of those without a crop, because that number is fixed beforehand.
- **Other settings do not begin a new count.** The k-th audit may ask for another precision or
  confidence, chosen after all that was seen before. Given that past, its certificate is false with
  a chance of at most ``(1 - confidence) / (k (k + 1))``. Summed over all audits that claim some
  confidence or more, that is at most 1 minus that confidence: of a camera's certificates those that
  claim 95% or more are all true with 95% confidence, whatever the others claimed. Within an audit
  nothing may change; a command with other settings is refused.
- **Crops that were audited leave the next release**, since a person's word stands above the
  team's. The rest is a batch of its own, frozen before its own sample is drawn, so its bound holds
  whatever was found before. Those that left are right as far as the reviewers are. A failed sample
  is never added to; it is judged once.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from collabteam.audits.certificate import (
    Plan,
    audit_sample,
    fails,
    judge,
    plan,
    share_out,
    smallest_sample,
)
from collabteam.catalog import Catalog, CropIndex, LabelEvent
from collabteam.catalog.records import HUMAN_SOURCES, UNDO, labels_hash
from collabteam.errors import UserError, disk_errors
from collabteam.events import Listener
from collabteam.machine import utc_stamp
from collabteam.rounds.oracle import oracle_answers
from collabteam.settings import AuditConfig, check
from collabteam.storage.files import read_json, write_json, write_parquet
from collabteam.storage.workspace import Workspace

Record = dict[str, Any]
"""What ``audit.json`` or ``certificate.json`` (``docs/certificate.schema.json``) holds."""

SETTINGS = (
    "precision", "confidence", "expected_error", "power", "reviewer", "oracle_error", "seed"
)  # fmt: skip
"""What an audit is begun with and keeps."""

_REMEDY = "restore it from a backup"


@dataclass(frozen=True)
class Answer:
    """What a sampled crop was called.

    Attributes:
        label: A class, ``unknown`` or ``unusable``.
        by: The reviewer.
        source: ``person``, ``import`` or ``oracle``.
    """

    label: str
    by: str
    source: str


@dataclass(frozen=True)
class AuditResult:
    """How far the last audit of a camera is.

    Attributes:
        record: What it was begun with: ``audit.json``.
        classes: Per class what was found so far, see :func:`judge_classes`.
        certificate: What came of it: ``certificate.json``; None while it is open.
        file: Where that is, or will be.
        notes: What has changed since, line by line, for a person to read.
    """

    record: Record
    classes: Record
    certificate: Record | None
    file: Path
    notes: tuple[str, ...]


def certify(config: AuditConfig, listener: Listener | None = None) -> AuditResult:
    """Begin an audit, or go on with the last one, as far as it goes without a person.

    Args:
        config: The camera and what is asked for.
        listener: Where it is said what begins; None for silence.

    Returns:
        The last audit.

    Raises:
        UserError: A setting cannot work; the camera has no release; the settings differ from those
            of the audit that was begun; ``precision`` is out of reach with that
            ``expected_error``; the oracle lacks hidden truth; another command holds the camera; or
            something that was written is broken. No audit was begun then.
    """
    check(config)
    listener = listener or Listener()
    catalog = Catalog.open(config.root, config.camera.name)
    if _is_due(catalog, config):
        with catalog.workspace.transaction("audit"):
            # Somebody else may have begun one meanwhile.
            if _is_due(catalog, config):
                _begin(catalog, config, last_audit(catalog.workspace) + 1, listener)
    record = read_audit(catalog.workspace, last_audit(catalog.workspace))
    _check_settings(record, config)
    file = catalog.workspace.audit(record["audit"]).certificate
    if not file.exists():
        if config.reviewer == "oracle":
            _answer_as_oracle(catalog, record)
        _conclude(catalog, record, file)
    return _standing(catalog, record, catalog.index())


def last_audited(catalog: Catalog, index: CropIndex) -> AuditResult | None:
    """How far the last audit is; begins nothing and writes nothing.

    Args:
        catalog: The camera.
        index: Its crops.

    Returns:
        The last audit; None if none was begun.

    Raises:
        UserError: Something that was written is broken.
    """
    number = last_audit(catalog.workspace)
    return _standing(catalog, read_audit(catalog.workspace, number), index) if number else None


def _standing(catalog: Catalog, record: Record, index: CropIndex) -> AuditResult:
    file = catalog.workspace.audit(record["audit"]).certificate
    heard = answers(catalog, record)
    if not file.exists():
        return AuditResult(record, judge_classes(record, _labels(heard)), None, file, ())
    certificate = read_json(file, _REMEDY)
    notes = _changes(catalog, record, certificate, heard, index)
    return AuditResult(record, certificate["classes"], certificate, file, tuple(notes))


# -- what is written -------------------------------------------------------------------------------


def last_audit(workspace: Workspace) -> int:
    """Number of the last audit that was begun, from 1; 0 if there was none."""
    numbers = reversed(workspace.audit_numbers())
    return next((number for number in numbers if workspace.audit(number).record.exists()), 0)


def open_audit(workspace: Workspace) -> int:
    """Number of the audit that was begun and has no certificate yet; 0 if there is none.

    Cheap enough to ask at every request of a page.
    """
    number = last_audit(workspace)
    return 0 if workspace.audit(number).certificate.exists() else number


def read_audit(workspace: Workspace, number: int) -> Record:
    """What an audit was begun with.

    Raises:
        UserError: It is missing or broken.
    """
    return read_json(workspace.audit(number).record, _REMEDY)


def read_release(workspace: Workspace, record: Record) -> pa.Table:
    """The labels that an audit or its certificate speaks of.

    Args:
        workspace: The camera's files.
        record: ``audit.json`` or ``certificate.json``.

    Returns:
        ``crop_id``, ``label`` and ``confidence`` (0 to 1), by ``crop_id``.

    Raises:
        UserError: The file is missing, broken, or not the one that was frozen.
    """
    file = workspace.folder / record["release"]["file"]
    try:
        table = pq.read_table(file)
        found = labels_hash(table["crop_id"].to_pylist(), table["label"].to_pylist())
    except (OSError, KeyError, pa.ArrowException) as error:
        raise UserError(
            f"{file}: expected the labels that were audited, got {error}: restore it from a "
            "backup, or begin another audit with new=true"
        ) from error
    if found != record["release"]["hash"]:
        raise UserError(
            f"{file} is not what was frozen for audit {record['audit']} (its hash is {found}): "
            "restore it from a backup, or begin another audit with new=true"
        )
    return table


# -- begin -----------------------------------------------------------------------------------------


def released(index: CropIndex, classes: list[str]) -> NDArray[np.int64]:
    """Rows of the crops that a team labelled for release and no person judged, by ``crop_id``.

    Args:
        index: The camera's crops.
        classes: Its classes.
    """
    rows = np.flatnonzero(index.released(classes))
    return rows[np.argsort(index.crop_id[rows].astype(str))]


def plan_classes(
    batches: Mapping[str, NDArray[np.str_]], config: AuditConfig, attempt: int
) -> Record:
    """Plan the audit of every class and draw its sample.

    Args:
        batches: Per class the names of its crops, each once, also of classes without any.
        config: ``precision``, ``confidence``, ``expected_error``, ``power`` and ``seed`` count.
        attempt: Number of the audit, from 1.

    Returns:
        Per class ``released`` (crops), ``confidence`` (of this one test, 0 to 1), ``sample`` (crops
        in random order), ``allowed`` (wrong labels among them), ``chance`` (to pass if as good as
        expected), and ``left_out``: why it is not audited, ``""`` if it is.
    """
    own = share_out(config.confidence, len(batches), attempt)
    classes: Record = {}
    for number, (name, batch) in enumerate(batches.items()):
        audit, why = None, "no crops"
        if len(batch):
            audit = plan(
                len(batch), config.precision, own, config.expected_error, config.power
            )  # fmt: skip
            why = f"hopeless with expected_error={config.expected_error:g}"
        sample: list[str] = []
        if audit is not None:
            # Each audit and class has a draw of its own, all of them from one seed on record.
            seed = [config.seed, *b"audit", attempt, number]
            sample = audit_sample(batch, audit.size, seed).tolist()
        classes[name] = {
            "released": len(batch),
            "confidence": own,
            "sample": sample,
            "allowed": audit.allowed if audit else 0,
            "chance": audit.chance if audit else 0.0,
            "left_out": "" if audit else why,
        }
    return classes


def _is_due(catalog: Catalog, config: AuditConfig) -> bool:
    """Whether the command begins an audit."""
    number = last_audit(catalog.workspace)
    if number == 0 or not config.new:
        return number == 0
    record = read_audit(catalog.workspace, number)
    if not open_audit(catalog.workspace) or _differing(record, config):
        return True
    if config.reviewer == "person" and answers(catalog, record):
        return True
    # Begun a moment ago and killed: nothing was learned from it, so the same command goes on.
    covers = _coverage(catalog, record, catalog.index())
    return covers.now > covers.covered or covers.gone > 0


def _begin(catalog: Catalog, config: AuditConfig, number: int, listener: Listener) -> None:
    """Freeze the release and draw the sample; the caller holds the camera."""
    # Before the crops: a word that comes in between makes its crop no part of the release.
    events = catalog.log(["crop_id"]).num_rows
    index = catalog.index()
    rows = released(index, catalog.classes)
    if not len(rows):
        raise UserError(
            f"camera {catalog.name} has no released labels that nobody verified: "
            f"'python -m collabteam.label camera={catalog.name}' releases some"
        )
    ids, labels = index.crop_id[rows].astype(str), index.verdict[rows].astype(str)
    batches = {name: ids[labels == name] for name in catalog.classes}
    classes = plan_classes(batches, config, number)
    if not any(row["sample"] for row in classes.values()):
        raise UserError(
            f"expected_error={config.expected_error:g} is no less than 1 - precision="
            f"{1 - config.precision:g}, so no audit could be expected to pass: expect fewer "
            "errors, or ask for a lower precision"
        )
    files = catalog.workspace.audit(number)
    rounds = index.verdict_round[rows].tolist()
    teams = Counter(zip(index.verdict_by[rows], rounds, index.verdict_run[rows], strict=True))
    record = {
        "schema": 1,
        "camera": catalog.name,
        "audit": number,
        "begun": utc_stamp(),
        "log_events": events,
        "settings": {name: getattr(config, name) for name in SETTINGS},
        "release": {
            "file": files.release.relative_to(catalog.folder).as_posix(),
            "hash": labels_hash(ids.tolist(), labels.tolist()),
            "crops": len(rows),
            "by_class": {name: len(batch) for name, batch in batches.items()},
        },
        "teams": [
            {"fingerprint": by, "round": round_, "run": run, "crops": count}
            for (by, round_, run), count in sorted(teams.items())
        ],
        "classes": classes,
    }
    if config.reviewer == "oracle":
        _simulated_answers(catalog, index, record, {})  # raises where it would have none
    confidence = index.verdict_confidence[rows]
    with disk_errors():
        files.folder.mkdir(parents=True, exist_ok=True)
    write_parquet(
        files.release, pa.table({"crop_id": ids, "label": labels, "confidence": confidence})
    )
    write_json(files.record, record)
    asked = sum(len(row["sample"]) for row in classes.values())
    listener.say(
        f"audit {number} of {catalog.name} begins: {asked} of {len(rows)} crops to look at"
    )


def _differing(record: Record, config: AuditConfig) -> list[str]:
    old = record["settings"]
    return [
        f"{name} {old[name]} -> {getattr(config, name)}"
        for name in SETTINGS
        if old[name] != getattr(config, name)
    ]


def _check_settings(record: Record, config: AuditConfig) -> None:
    if changed := _differing(record, config):
        raise UserError(
            f"audit {record['audit']} of camera {record['camera']} was begun with other settings "
            f"({'; '.join(changed)}): keep those ('{command(record)}'), or begin another audit, "
            "which has to be surer of each class, with new=true"
        )


def command(record: Record) -> str:
    """The command that goes on with an audit."""
    default = AuditConfig()
    changed = [
        f" {name}={value}"
        for name, value in record["settings"].items()
        if value != getattr(default, name)
    ]
    return f"python -m collabteam.audit camera={record['camera']}{''.join(changed)}"


# -- hear ------------------------------------------------------------------------------------------


def answers(catalog: Catalog, record: Record) -> dict[str, Answer]:
    """What was answered for an audit and not taken back, by sampled crop.

    Raises:
        UserError: The log is damaged.
    """
    sample = {crop for row in record["classes"].values() for crop in row["sample"]}
    log = catalog.log(("crop_id", "label", "source", "purpose", "by", "commit"))
    log = log.slice(record["log_events"])
    # What a simulated reviewer says is nothing in an audit by persons.
    simulated = record["settings"]["reviewer"] == "oracle"
    sources = [s for s in HUMAN_SOURCES if simulated or s != "oracle"]
    log = log.filter(pc.is_in(log["source"], value_set=pa.array(sources)))
    is_undo = pc.starts_with(log["commit"], UNDO)
    undone = {name.removeprefix(UNDO) for name in log.filter(is_undo)["commit"].to_pylist()}
    # What an undo says again was said before, and counts where it stands first.
    log = log.filter(pc.invert(is_undo))
    log = log.filter(pc.or_(pc.equal(log["purpose"], "audit"), pc.equal(log["label"], "")))
    said: dict[str, dict[str, Answer]] = {crop: {} for crop in sample}
    for event in log.to_pylist():
        if event["crop_id"] not in sample or event["commit"] in undone:
            continue
        words = said[event["crop_id"]]
        words.pop(event["by"], None)
        if event["label"]:
            words[event["by"]] = Answer(event["label"], event["by"], event["source"])
    return {crop: [*words.values()][-1] for crop, words in said.items() if words}


def _labels(heard: Mapping[str, Answer]) -> dict[str, str]:
    return {crop: answer.label for crop, answer in heard.items()}


def _answer_as_oracle(catalog: Catalog, record: Record) -> None:
    """Answer what is unanswered from hidden truth, all of it in one commit."""
    with catalog.workspace.transaction("audit"):
        heard, index = answers(catalog, record), catalog.index()
        catalog.append_labels(_simulated_answers(catalog, index, record, heard))


def _simulated_answers(
    catalog: Catalog, index: CropIndex, record: Record, heard: Mapping[str, Answer]
) -> list[LabelEvent]:
    """What the oracle says of all sampled crops that nobody judged."""
    sample = {crop for row in record["classes"].values() for crop in row["sample"]}
    rows = index.crop_id.find([crop for crop in sample if crop not in heard])
    error, seed = record["settings"]["oracle_error"], record["settings"]["seed"]
    return oracle_answers(catalog, index, np.unique(rows[rows >= 0]), error, seed, "audit")


# -- judge -----------------------------------------------------------------------------------------


def judge_classes(record: Record, called: Mapping[str, str]) -> Record:
    """What an audit has found so far, per class.

    A class whose sample is answered in full is judged exactly as planned. One that has more errors
    than allowed before that has failed; how right it is then stays open, because the count depended
    on what was found (:func:`~collabteam.audits.certificate.fails`).

    Args:
        record: ``settings``, ``audit`` and ``classes`` of ``audit.json``.
        called: What sampled crops were called.

    Returns:
        Per class ``released``, ``sample``, ``answered`` and ``errors`` (crops), ``allowed`` (wrong
        labels), ``precision`` (asked for) and ``confidence`` (of this one test), 0 to 1;
        ``passed``, None where that is open or where the class is not audited; ``stopped``: whether
        it failed before all was answered; ``bound``: share of right labels that is certified
        instead or in any case, None unless all was answered; ``further``: if it failed, the fewest
        crops to look at in a next audit, all of them right, else 0; and ``left_out``, as in
        :func:`plan_classes`.
    """
    settings, attempt, planned = record["settings"], record["audit"], record["classes"]
    precision, confidence = settings["precision"], settings["confidence"]
    result: Record = {}
    for name, row in planned.items():
        population, sample = row["released"], row["sample"]
        said = [called[crop] for crop in sample if crop in called]
        errors = sum(label != name for label in said)
        found: Record = {
            "released": population,
            "sample": len(sample),
            "answered": len(said),
            "errors": errors,
            "allowed": row["allowed"],
            "precision": precision,
            "confidence": row["confidence"],
            "passed": None,
            "stopped": False,
            "bound": None,
            "further": 0,
            "left_out": row["left_out"],
        }
        if sample and len(said) == len(sample):
            judged = judge(
                len(sample), errors, population, precision, confidence, len(planned), attempt
            )
            found |= {
                "passed": judged.passed, "bound": judged.bound, "further": judged.further
            }  # fmt: skip
        elif fails(Plan(len(sample), row["allowed"], row["chance"]), errors):
            following = share_out(confidence, len(planned), attempt + 1)
            rest = population - len(said)
            further = smallest_sample(rest, precision, following, allowed=0)
            found |= {"passed": False, "stopped": True, "further": further}
        result[name] = found
    return result


def _conclude(catalog: Catalog, record: Record, file: Path) -> None:
    """Write the certificate, if every class is decided."""

    def is_open(classes: Record) -> bool:
        return any(row["passed"] is None and not row["left_out"] for row in classes.values())

    if is_open(judge_classes(record, _labels(answers(catalog, record)))):
        return
    with catalog.workspace.transaction("audit"):
        heard = answers(catalog, record)
        classes = judge_classes(record, _labels(heard))
        if file.exists() or is_open(classes):
            return
        read_release(catalog.workspace, record)
        by = Counter((answer.by, answer.source) for answer in heard.values())
        certificate = {
            "schema": 1,
            "camera": record["camera"],
            "audit": record["audit"],
            "created": utc_stamp(),
            "release": record["release"],
            "teams": record["teams"],
            "settings": record["settings"],
            "reviewers": [
                {"name": name, "source": source, "answers": count}
                for (name, source), count in sorted(by.items())
            ],
            "simulated": any(source == "oracle" for _, source in by),
            "answers_hash": _answers_hash(heard),
            "classes": classes,
            "passed": all(row["passed"] for row in classes.values() if not row["left_out"]),
        }
        write_json(file, {**certificate, "statement": statement(certificate)})


def _answers_hash(heard: Mapping[str, Answer]) -> str:
    lines = (f"{crop}\t{answer.label}\t{answer.by}\n" for crop, answer in sorted(heard.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


# -- say -------------------------------------------------------------------------------------------


def statement(certificate: Record) -> str:
    """What a certificate says, for whoever relies on the labels.

    Args:
        certificate: All of it but the statement.
    """
    classes: dict[str, Record] = certificate["classes"]
    number, settings = certificate["audit"], certificate["settings"]
    precision, confidence = percent(settings["precision"]), percent(settings["confidence"])
    who = _who(certificate)

    def looked(names: Iterable[str], by: str = "") -> str:
        parts = [
            f"{classes[name]['answered']:,} of {classes[name]['released']:,} {name} crops looked at"
            f"{by if not place else ''}, {classes[name]['errors']:,} wrong"
            for place, name in enumerate(names)
        ]
        return "; ".join(parts)

    passed = [name for name, row in classes.items() if row["passed"]]
    failed = [name for name, row in classes.items() if row["passed"] is False]
    provided = "provided the reviewers are right"
    parts = []
    if passed:
        named = " labels"
        what = []
        for name in passed:
            what.append(f"of the {classes[name]['released']:,}{named} called {name}")
            named = ""
        of_all = " for all of them together" if len(passed) > 1 else ""
        parts.append(
            f"At least {precision} {_listed(what)} are right, with {confidence} confidence{of_all} "
            f"(audit {number}: {looked(passed, f' by {who}')}), {provided}"
        )
    if failed:
        why = "; ".join(_shortfall(name, classes[name]) for name in failed)
        beginning = f"Not certified at {precision} with {confidence} confidence"
        source = "" if passed else f" (audit {number}, looked at by {who}, {provided})"
        parts.append(f"{beginning}{source}: {why}")
    return ". ".join(parts) + "."


def _listed(parts: list[str]) -> str:
    """One, two and three."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _shortfall(name: str, row: Record) -> str:
    """Why a class is not certified, and what would do."""
    text = (
        f"the {row['released']:,} labels called {name}: {row['errors']:,} of "
        f"{row['answered']:,} looked at were wrong and {row['allowed']:,} allowed, "
    )
    if row["stopped"]:
        text += f"which ended it before all {row['sample']:,} were looked at"
    else:
        text += f"so that at least {floored(row['bound'])} are right at the same confidence"
    if row["further"]:
        text += (
            f" (with these corrected, {row['further']:,} further ones or more in another audit, "
            "all of them right, would certify the rest)"
        )
    return text


def _who(certificate: Record) -> str:
    persons = {row["name"] for row in certificate["reviewers"] if row["source"] != "oracle"}
    real = "a person" if len(persons) == 1 else f"{len(persons)} persons"
    if not certificate["simulated"]:
        return real
    made_up = "a simulated reviewer, who is no person"
    return f"{made_up}, and {real}" if persons else made_up


def percent(share: float) -> str:
    """A share as it was asked for, for example ``99.5%``."""
    return f"{round(100 * share, 6):g}%"


def floored(share: float) -> str:
    """A bound to a tenth of a percent, rounded to the safe side."""
    return percent(math.floor(share * 1000 + 1e-9) / 1000)


# -- what changed since ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Coverage:
    """A frozen release beside what is released now, in crops.

    Attributes:
        now: Released now.
        covered: Of these, frozen with the same label.
        gone: Frozen, and neither released as such nor verified now.
    """

    now: int
    covered: int
    gone: int


def _coverage(catalog: Catalog, record: Record, index: CropIndex) -> _Coverage:
    frozen = read_release(catalog.workspace, record)
    label_of = dict(zip(frozen["crop_id"].to_pylist(), frozen["label"].to_pylist(), strict=True))
    rows = released(index, catalog.classes)
    pairs = zip(index.crop_id[rows].tolist(), index.verdict[rows].tolist(), strict=True)
    covered = sum(label_of.get(crop) == label for crop, label in pairs)
    verified = sum(crop in label_of for crop in index.crop_id[index.verified()].tolist())
    return _Coverage(len(rows), covered, len(label_of) - covered - verified)


def _changes(
    catalog: Catalog,
    record: Record,
    certificate: Record,
    heard: Mapping[str, Answer],
    index: CropIndex,
) -> list[str]:
    """What has changed since a certificate was written."""
    notes = []
    covers = _coverage(catalog, record, index)
    if covers.covered < covers.now:
        notes.append(
            f"the certificate covers {covers.covered:,} of {covers.now:,} labels released now"
        )
    if covers.gone:
        notes.append(
            f"{covers.gone:,} of the {certificate['release']['crops']:,} labels that it speaks of "
            "are no longer released as such; of the others alone it says nothing"
        )
    if _answers_hash(heard) != certificate["answers_hash"]:
        notes.append("answers were changed or taken back since; it stands on those given then")
    if notes:
        notes[-1] += "; new=true audits anew"
    return notes
