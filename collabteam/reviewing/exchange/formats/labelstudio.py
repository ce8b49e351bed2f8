"""Label Studio's tasks, and its export as JSON or JSON-MIN."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from collabteam.annotation_tools.labelstudio import (
    CHOICE,
    IMAGE,
    choice_result,
    interface,
    picture_url,
)
from collabteam.errors import first_line
from collabteam.reviewing.exchange.answers import (
    AnswerCollector,
    NotAnAnswerFile,
    read_text,
    shown,
)
from collabteam.reviewing.exchange.base import ExchangeFormat, TaskList, WrittenTask


class LabelStudio(ExchangeFormat):
    """``NAME.json``, and the labelling interface in ``NAME-interface.xml``.

    Suggestions become predictions. A skipped annotation is not an answer.
    """

    name = "labelstudio"
    suffixes = (".json",)
    answers = "Label Studio's export as JSON"

    def companion(self, to: Path, labels: Sequence[str]) -> tuple[Path, str]:
        """Return the labelling interface."""
        return _interface_file(to), interface(labels)

    def write(self, tasks: Iterator[WrittenTask], file: TextIO, about: TaskList) -> None:
        """Write the tasks."""
        separator = "[\n"
        for task in tasks:
            entry: dict[str, Any] = {
                "data": {
                    IMAGE: picture_url(about.images, task.file),
                    "crop_id": task.crop_id,
                    "camera": about.camera,
                    "video": task.video,
                    "track": task.track,
                    "time": task.time,
                }
            }
            if task.suggested and task.preselect:
                result = choice_result(task.crop_id, task.suggested)
                entry["predictions"] = [{"model_version": "collabteam", "result": [result]}]
            file.write(separator + json.dumps(entry))
            separator = ",\n"
        file.write("\n]\n")

    def instructions(self, to: Path, images: Path, count: int) -> list[str]:
        """Explain how to set up a project."""
        extra = _interface_file(to)
        root = shlex.quote(str(to.parent.resolve()))
        return [
            f"{count} crop{'s' * (count != 1)} in {to}, the pictures in {images}, the labelling "
            f"interface in {extra}",
            "start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true "
            f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={root}",
            f"in a new project: Settings > Labeling Interface > Code: paste {extra.name}",
            "Settings > Cloud Storage > Add Source Storage > Local files: "
            f"{images.resolve()}, and do not sync it",
            f"Import {to.name}; Settings > Annotation > 'Use predictions to prelabel tasks' shows "
            "the suggestions",
            "when it is done: Export > JSON",
        ]

    def recognises(self, start: bytes) -> bool:
        """Accept JSON, by its first bracket."""
        return start[:1] in (b"[", b"{")

    def read(self, file: Path, answers: AnswerCollector) -> None:
        """Read the annotations of every task."""
        try:
            tasks = json.loads(read_text(file))
        except (ValueError, RecursionError) as error:
            raise NotAnAnswerFile(f"it is broken JSON ({first_line(error)})") from error
        if not isinstance(tasks, list):
            raise NotAnAnswerFile("it is one JSON object, Label Studio's export is a list")
        if tasks and not any(map(_is_task, tasks)):
            raise NotAnAnswerFile("none of its entries has 'data' or 'crop_id'")
        for number, task in enumerate(tasks, 1):
            _read_task(number, task, answers)


def _interface_file(to: Path) -> Path:
    return to.with_name(f"{to.stem}-interface.xml")


def _is_task(entry: object) -> bool:
    return isinstance(entry, dict) and ("data" in entry or "crop_id" in entry)


def _read_task(number: int, task: object, answers: AnswerCollector) -> None:
    if not isinstance(task, dict):
        answers.problem(f"entry {number}", "a task", shown(task))
        return
    known = isinstance(task.get("id"), int)
    where = f"task {str(task['id'])[:40]}" if known else f"entry {number}"
    if "data" not in task:  # JSON-MIN
        if task.get(CHOICE) is not None:
            answers.answer(where, task.get("crop_id"), task[CHOICE], task.get("annotator"))
        return
    data, annotations = task["data"], task.get("annotations", [])
    if not isinstance(data, dict) or not isinstance(annotations, list):
        wrong = annotations if isinstance(data, dict) else data
        answers.problem(where, "'data' with crop_id, and a list of 'annotations'", shown(wrong))
        return
    for annotation in annotations:
        _read_annotation(where, data.get("crop_id"), annotation, answers)


def _read_annotation(
    where: str, crop_id: object, annotation: object, answers: AnswerCollector
) -> None:
    """Read the answer of one annotator to one task."""
    if not isinstance(annotation, dict):
        answers.problem(where, "an annotation", shown(annotation))
        return
    if annotation.get("was_cancelled"):
        return
    results = annotation.get("result", [])
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        answers.problem(where, "a list of results in the annotation", shown(results))
        return
    results = [result for result in results if result.get("type") == "choices"]
    # A user may have renamed the interface's tags, or added others.
    results = [result for result in results if result.get("from_name") == CHOICE] or results
    if not results:
        return
    value = results[0].get("value")
    choices = value.get("choices") if isinstance(value, dict) else None
    if len(results) > 1 or not isinstance(choices, list) or len(choices) != 1:
        came = f"{len(choices)} choices" if isinstance(choices, list) else shown(choices)
        came = came if len(results) == 1 else f"{len(results)} results"
        answers.problem(where, f"one choice for crop {shown(crop_id)}", came)
        return
    by = annotation.get("completed_by")
    if isinstance(by, dict):
        by = by.get("email") or by.get("id")
    answers.answer(where, crop_id, choices[0], by)
