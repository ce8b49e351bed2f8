"""Tables, files and pictures made from rounds that were never trained."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from PIL import Image
from rich.console import Console

from collabteam.errors import UserError
from collabteam.reporting import figures
from collabteam.reporting.table1 import render, table1_rows, to_csv, to_json
from collabteam.rounds.records import RoundRecord, read_rounds
from collabteam.storage.workspace import Workspace
from collabteam.video.contact_sheet import contact_sheet

THREE = ["pedestrian", "cyclist", "motorcyclist"]
TEN = [
    *THREE,
    "bus",
    "delivery-van",
    "articulated-lorry",
    "car",
    "motorised-wheelchair-user",
    "pickup_truck",
    "tram",
]
SCHEMA = json.loads(
    (Path(__file__).parents[1] / "docs" / "round.schema.json").read_text(encoding="utf-8")
)


def plain_rounds(
    count: int = 3,
    classes: list[str] = THREE,
    reviewer: str = "oracle",
    has_test: bool = True,
    knows_truth: bool = True,
) -> list[dict[str, Any]]:
    """Rounds as training would leave them, the same ones every time."""
    draw = random.Random(0)

    def recall(base: float) -> dict[str, dict[str, float]]:
        return {
            name: {side: min(1.0, base + draw.uniform(-0.05, 0.05)) for side in ("true", "false")}
            for name in classes
        }

    rounds = []
    for k in range(count):
        base = 0.86 + 0.03 * min(k, 3)
        coverage = min(1.0, 0.7 + 0.04 * k)
        increment: dict[str, Any] = {}
        for at, name in enumerate(classes if k else []):
            increment[name] = {
                "candidates": 900,
                "taken": 1000 if at else 412,
                "shortfall": 0 if at else 588,
                "precision": draw.uniform(0.95, 1) if knows_truth else None,
                "expected_precision": draw.uniform(0.94, 1),
            }
        rounds.append(
            {
                "schema": 1,
                "camera": "S10-08",
                "round": k,
                "fingerprint": f"{k:064x}",
                "classes": classes,
                "train_size": 3000 * (k + 1),
                "train_unsure": 0,
                "train_counts": dict.fromkeys(classes, 1000 * (k + 1)) | {"unknown": 12},
                "reviewer": {
                    "kind": reviewer,
                    "error_rate": 0.01 if reviewer == "oracle" else 0.0,
                    "answers": 3000,
                },
                "recall": {
                    "validation": recall(base + 0.03),
                    "human": recall(base),
                    "folds": [{"fold": fold} | recall(base) for fold in range(2)],
                    "test": recall(base) if has_test else None,
                },
                "test_size": 3000 if has_test else 0,
                "coverage": coverage,
                "abstain_rate": 1 - coverage,
                "pool_size": 12000,
                "coverage_test": 0.85 if has_test else None,
                "consensus_accuracy_test": 0.93 if has_test else None,
                "increment": increment,
                "label_noise": 0.004 * k if knows_truth else None,
                "voting": {name: [1] for name in classes},
                "training_digest": f"{k:016x}",
                "expected_precision": {name: {"share": 0.97, "crops": 40} for name in classes},
                "unknown": {"pool": 40, "abstain_rate": 0.6, "increment": k}
                if knows_truth
                else None,
                "seconds": {
                    "sample": 1.0,
                    "select": 2.0,
                    "train": 300.0,
                    "evaluate": 4,
                    "score": 9,
                },
                "peak_memory_mb": 1234.5,
                "versions": {"python": "3.11.9", "torch": "2.14.1"},
                "settings": {"optim": {"lr": 0.1}},
                "finished": "2026-11-22T13:40:00Z",
            }
        )
    return rounds


def typed(rounds: list[dict[str, Any]]) -> list[RoundRecord]:
    return [RoundRecord.from_json(content, Path("round.json"), "") for content in rounds]


def fake_rounds(
    count: int = 3,
    classes: list[str] = THREE,
    reviewer: str = "oracle",
    has_test: bool = True,
    knows_truth: bool = True,
) -> list[RoundRecord]:
    return typed(plain_rounds(count, classes, reviewer, has_test, knows_truth))


def write(folder: Path, rounds: list[dict[str, Any]]) -> Path:
    for record in rounds:
        path = folder / f"round-{record['round']}" / "round.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(record), encoding="utf-8")
    return folder


def printed(rounds: list[RoundRecord], width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    render(rounds, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("classes", [THREE, TEN, ["a", "b"]])
@pytest.mark.parametrize("known", [True, False])
def test_fake_rounds_and_json_follow_the_schema(classes: list[str], known: bool) -> None:
    rounds = fake_rounds(3, classes, has_test=known, knows_truth=known)
    validator = jsonschema.Draft202012Validator(SCHEMA)
    validator.check_schema(SCHEMA)
    data = json.loads(json.dumps(to_json(rounds), allow_nan=False))
    for record in data["rounds"]:
        validator.validate(record)
    assert data["camera"] == "S10-08"
    assert data["classes"] == classes
    assert [row["row"] for row in data["table1"]] == ["i0 (human)", "i0+i1", "i0+...+i2"]
    assert (data["table1"][2]["test"] is not None) == known


def test_schema_describes_every_field() -> None:
    for name, field in SCHEMA["properties"].items():
        assert field.get("description"), name


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("coverage", 84.0),
        ("pool_size", None),
        ("schema", 2),
        ("camera", "../x"),
        ("classes", ["a", "unknown"]),
        ("train_size", 1.5),
        ("recall/validation", None),
        ("recall/validation/cyclist/true", "much"),
        ("recall/test/cyclist", {"true": 0.5}),
        ("reviewer/kind", "guess"),
        ("increment/cyclist/taken", None),
        ("increment/cyclist/precision", 99.0),
        ("finished", "yesterday"),
        ("surprise", 1),
    ],
)
def test_schema_refuses(path: str, value: object) -> None:
    record = plain_rounds(2)[1]
    *parents, last = path.split("/")
    inner = record
    for key in parents:
        inner = inner[key]
    inner[last] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(record, SCHEMA, cls=jsonschema.Draft202012Validator)


def test_schema_refuses_an_increment_in_round_0() -> None:
    first, second = plain_rounds(2)
    first["increment"] = second["increment"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(first, SCHEMA, cls=jsonschema.Draft202012Validator)


def test_read_rounds_in_order_up_to_the_first_gap(tmp_path: Path) -> None:
    rounds = plain_rounds(12)
    assert read_rounds(Workspace(tmp_path / "nothing")) == []
    assert read_rounds(Workspace(write(tmp_path, rounds))) == typed(rounds)
    (tmp_path / "round-3" / "round.json").unlink()
    assert read_rounds(Workspace(tmp_path)) == typed(rounds[:3])


def test_broken_rounds_are_answered_in_one_line(tmp_path: Path) -> None:
    rounds = plain_rounds(2)
    path = write(tmp_path, rounds) / "round-1" / "round.json"
    good = rounds[1]
    broken = ["", '{"schema": 1,\n', "[]", "\x00", json.dumps(rounds[0])]
    broken += [
        json.dumps({name: good[name] for name in good if name != key})
        for key in SCHEMA["required"]
        if key not in ("train_unsure", "files", "strangers")  # earlier versions did not write them
    ]
    for key, value in (
        ("schema", 0),
        ("classes", ["a", "b"]),
        ("recall", {"validation": {}, "human": {}, "test": None}),
        ("recall", 3),
        ("increment", {"cyclist": {}}),
        ("increment", []),
        ("reviewer", {}),
    ):
        broken.append(json.dumps(good | {key: value}))
    for text in broken:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError) as caught:
            read_rounds(Workspace(tmp_path))
        message = str(caught.value)
        assert str(path) in message, text
        assert "\n" not in message
        assert "train again with round=1" in message
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is damaged"):
        read_rounds(Workspace(tmp_path))


def test_rows_mean_over_all_branches_and_sides() -> None:
    rounds = plain_rounds(4)
    rows = table1_rows(typed(rounds))
    assert [row.round for row in rows] == [0, 1, 2, 3]
    assert rows[3].row == "i0+...+i3"
    recall = rounds[1]["recall"]["test"]
    values = [recall[name][side] for name in THREE for side in ("true", "false")]
    mean = rows[1].test_mean
    assert mean is not None
    assert math.isclose(mean, sum(values) / 6)
    assert rows[1].validation == rounds[1]["recall"]["validation"]
    assert rows[1].human == rounds[1]["recall"]["human"]


def test_csv_round_trip() -> None:
    rounds = plain_rounds(3, TEN)
    rounds[2]["recall"]["test"] = rounds[2]["consensus_accuracy_test"] = None
    lines = list(csv.DictReader(io.StringIO(to_csv(typed(rounds)))))
    assert [line["row"] for line in lines] == ["i0 (human)", "i0+i1", "i0+...+i2"]
    for line, record in zip(lines, rounds, strict=True):
        for name in TEN:
            for side in ("true", "false"):
                got = float(line[f"validation/{name}/{side}"])
                assert got == record["recall"]["validation"][name][side]
        assert float(line["coverage"]) == record["coverage"]
    assert float(lines[1]["test/tram/true"]) == rounds[1]["recall"]["test"]["tram"]["true"]
    assert lines[2]["test/tram/true"] == lines[2]["test/mean"] == ""
    assert lines[2]["consensus_accuracy_test"] == ""
    assert lines[0]["increment/pedestrian/taken"] == ""
    assert lines[1]["increment/pedestrian/taken"] == "412"
    assert to_csv([]) == ""


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("count", range(2, 11))
def test_tables_fit_and_show_every_number(width: int, count: int) -> None:
    rounds = fake_rounds(6, TEN[:count])
    text = printed(rounds, width)
    assert max(len(line) for line in text.splitlines()) <= width
    # The library marks what it had to cut with this character.
    assert "\u2026" not in text
    for name in TEN[:count]:
        assert name[:17] in text
    recall = rounds[5].recall.test
    assert recall is not None
    for name in TEN[:count]:
        for value in recall[name].sides().values():
            assert value is not None
            assert f"{100 * value:.1f}" in text
    mean = table1_rows(rounds)[5].test_mean
    assert mean is not None
    assert re.search(rf"i0\+\.\.\.\+i5 .* {100 * mean:.1f} *\n", text)


def test_three_classes_stand_side_by_side_at_80_columns() -> None:
    text = printed(fake_rounds(2), 80)
    assert "(1/" not in text
    assert re.search(r"trained on( +true  false){3} +of all", text)
    assert re.search(r"trained on( +taken  prec\.   est\.){3}", text)
    assert "412*" in text


def test_captions_say_what_the_numbers_are_worth() -> None:
    oracle = " ".join(printed(fake_rounds(2), 80).split())
    assert "Simulated reviewer" in oracle
    assert "error rate 1.0%" in oracle
    assert "partly the team's own" in oracle
    assert "is not an accuracy" in oracle
    assert "Simulated" not in printed(fake_rounds(2, reviewer="person"), 80)


def test_unknown_numbers_are_dashes() -> None:
    rounds = fake_rounds(2, has_test=False, knows_truth=False)
    text = printed(rounds, 80)
    assert "None" not in text
    assert "nan" not in text
    assert re.search(r"i0\+i1 +6000 +74\.0 +26\.0 +- +-", text)
    assert re.search(r"i0\+i1 +412\* +- +\d\d", text)
    assert "no frozen test set" in text
    partly = plain_rounds(2)
    partly[0]["recall"]["test"] = None
    assert re.search(r"i0 \(human\)( +-){7} *\n", printed(typed(partly), 80))
    assert printed([], 80) == "No complete round yet.\n"
    assert to_json([]) == {"camera": None, "classes": [], "table1": [], "rounds": []}


@pytest.mark.parametrize(
    "rounds",
    [
        fake_rounds(6),
        fake_rounds(3, TEN),
        fake_rounds(1, has_test=False),
        fake_rounds(3, has_test=False, knows_truth=False, reviewer="person"),
        fake_rounds(2, ["x" * 64, "y" * 64]),
    ],
    ids=["six", "ten-classes", "first", "nulls", "long-names"],
)
def test_plot(rounds: list[RoundRecord], tmp_path: Path) -> None:
    figures.write_png("Camera S1", figures.course(rounds), tmp_path / "rounds.png")
    with Image.open(tmp_path / "rounds.png") as image:
        assert image.format == "PNG"
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 20


def test_contact_sheet(tmp_path: Path) -> None:
    images = []
    for width, height, colour in ((20, 80, "red"), (120, 30, "blue"), (1, 1, "lime")):
        encoded = io.BytesIO()
        Image.new("RGB", (width, height), colour).save(encoded, "PNG")
        images.append((encoded.getvalue(), "motorcyclist, not cyclist, 0.98"))
    contact_sheet(images, tmp_path / "sheet.png", columns=2, side=96)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (2 * 102 + 6, 2 * 118 + 6)
        assert sheet.getpixel((6 + 48, 6 + 48)) == (255, 0, 0)
        # Left and right of a tall crop the square is filled up, and nothing is stretched.
        assert sheet.getpixel((6 + 2, 6 + 48)) == (0x30, 0x30, 0x30)
        assert sheet.getpixel((6 + 48, 118 + 6 + 48)) == (0, 255, 0)
    contact_sheet([], tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 0


def test_importing_the_reports_is_light() -> None:
    code = (
        "import sys\n"
        "import collabteam.reporting.table1\n"
        "import collabteam.reporting.wandb_runs\n"
        "heavy = {'torch', 'lightning', 'wandb', 'matplotlib', 'PIL', 'pandas', 'lance'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
