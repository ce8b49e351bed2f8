"""The page on many cameras: its figures are those of the records, and nothing breaks it."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import CLASSES, Call, Trained, fingerprints, one_line, read_json, run
from hypothesis import given
from hypothesis import strategies as st
from logs import truth_of
from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright
from test_reporting import TEN, fake_rounds, plain_rounds, typed
from test_review_page import CHROMIUM, FLAGS

from collabteam.catalog import Catalog, Crop, LabelEvent
from collabteam.labelling.records import EngineCheck, LabelRecord
from collabteam.monitoring.facts import CameraFacts, Sample, camera_facts
from collabteam.monitoring.progress import progress
from collabteam.reporting import figures
from collabteam.reporting.fleet_page import write_fleet
from collabteam.reporting.table1 import table1_rows
from collabteam.rounds.records import read_rounds
from collabteam.storage.workspace import Workspace

TEMPLATES = Path(__file__).parents[1] / "collabteam" / "reporting" / "templates"
EVERY = ("camera=glob(*)", "format=html")


def renamed(source: Path, root: Path, name: str) -> Path:
    """A copy of a camera under another name."""
    folder = Path(shutil.copytree(source, root / name))
    manifest = folder / "camera.yaml"
    manifest.write_text(manifest.read_text().replace(f"name: {source.name}", f"name: {name}"))
    return folder


@pytest.fixture(scope="module")
def fleet(trained: Trained, simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root: ``sim`` labelled and audited, ``trained`` not, ``crops`` and ``empty`` untouched,
    ``torn`` and ``wild`` damaged; read only.
    """
    root = tmp_path_factory.mktemp("fleet") / "outputs"
    shutil.copytree(trained.root, root)
    renamed(trained.folder, root, "trained")
    for settings in (("label", "trainer.threads=1"), ("audit", "reviewer=oracle", "precision=0.6")):
        done = run(settings[0], root, "camera=sim", *settings[1:])
        assert done.returncode in (0, 1), done.stderr
    renamed(simulated / "sim", root, "crops")
    Catalog.register(root, "empty", ["car", "ship"])
    torn = renamed(trained.folder, root, "torn") / "round-1" / "round.json"
    torn.write_text(torn.read_text()[:100])
    (root / "wild").mkdir()
    (root / "wild" / "camera.yaml").write_text(
        "name: wild\nclasses: ['<script>alert(1)</script>', '<img src=x>']\n"
    )
    return root


@pytest.fixture(scope="module")
def page(fleet: Path) -> Path:
    """The page on that root, by the command itself."""
    to = fleet.parent / "report.html"
    done = run("report", fleet, *EVERY, f"to={to}")
    assert done.returncode == 0, done.stderr
    assert "6 cameras, 2 with a team, damaged: torn, wild" in done.stdout
    assert f"the page: {to} (" in done.stdout
    assert "next: open it in a browser" in done.stdout
    return to


class Reader(HTMLParser):
    """The cells of the fleet's table and the text of each camera's part."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: dict[str, list[tuple[str, str]]] = {}
        self.parts: dict[str, str] = {}
        self.tags: list[str] = []
        self._row: list[list[str]] | None = None
        self._part = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        if tag == "tr" and "data-name" in given:
            self._row = []
        elif self._row is not None and "data-v" in given:
            self._row.append([given["data-v"] or "", ""])
        elif tag == "details" and (given.get("id") or "").startswith("camera-"):
            self._part = (given["id"] or "").removeprefix("camera-")
            self.parts[self._part] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "tr" and self._row is not None:
            cells = [(value, " ".join(text.split())) for value, text in self._row]
            self.rows[cells[0][0]] = cells
            self._row = None

    def handle_data(self, data: str) -> None:
        if self._row:
            self._row[-1][1] += data
        elif self._part:
            self.parts[self._part] += f"{data} "


def read(page: Path) -> Reader:
    found = Reader(page.read_text(encoding="utf-8"))
    found.parts = {name: " ".join(text.split()) for name, text in found.parts.items()}
    return found


def percent(rate: float) -> str:
    return f"{100 * rate:.1f}"


def test_the_fleets_table_is_what_the_records_say(page: Path, fleet: Path) -> None:
    row = read(page).rows["sim"]
    last = read_json(fleet / "sim" / "round-2" / "round.json")
    certificate = read_json(fleet / "sim" / "audits" / "1" / "certificate.json")
    test = last["recall"]["test"]
    assert row[1] == ("2", "2")
    for cell, side in ((row[2], "true"), (row[3], "false")):
        mean = np.mean([test[name][side] for name in CLASSES])
        assert float(cell[0]) == pytest.approx(mean)
        assert cell[1] == percent(mean)
    lowest = min((test[name][side], f"{name}, {side}") for name in CLASSES for side in test[name])
    assert float(row[4][0]) == lowest[0]
    assert row[4][1] == f"{percent(lowest[0])} {lowest[1]}"
    assert row[5] == (str(last["coverage"]), percent(last["coverage"]))
    for name, one in certificate["classes"].items():
        if one["passed"]:
            assert re.search(rf"{name} ≥ {int(1000 * one['bound'] + 1e-9) / 10}", row[6][1])
        else:
            word = "refused" if one["passed"] is False else "not audited"
            assert f"{name} {word}" in row[6][1]
    assert "simulated reviewer" in row[6][1]
    log = Catalog(fleet / "sim").log(["source"])["source"].to_pylist()
    assert row[7] == (str(log.count("oracle")), f"0 by persons{log.count('oracle')} simulated")


def test_a_camera_in_detail_is_what_the_records_say(page: Path, fleet: Path) -> None:
    text = read(page).parts["sim"]
    rounds = read_rounds(Workspace(fleet / "sim"))
    for row in table1_rows(rounds):
        assert row.test is not None
        for recalls, mean in (
            (row.test, row.test_mean), (row.validation, row.validation_mean)
        ):  # fmt: skip
            cells = [
                percent(recalls[name][side] or 0) for name in CLASSES for side in recalls[name]
            ]
            assert f"{row.row} {' '.join(cells)} {percent(mean or 0)}" in text
    assert "partly the team's own" in text
    label = read_json(fleet / "sim" / "label.json")
    for name in CLASSES:
        error = label["test"]["calibration_error"][name]
        assert (
            f"Calibration error before {percent(error['before'])}, after {percent(error['after'])}"
            in text
        )
    assert f"Area under the curve {label['test']['risk_coverage_area']:.4f}" in text
    certificate = read_json(fleet / "sim" / "audits" / "1" / "certificate.json")
    assert certificate["statement"] in text
    for said in (
        rounds[-1].fingerprint, rounds[-1].versions["torch"], rounds[-1].training_digest,
        label["run"], certificate["release"]["hash"][:16], "team.backbone=test_resnet",
        f"simulated reviewer, seed: {rounds[0].reviewer.answers}",
    ):  # fmt: skip
        assert said in text
    assert "Coverage by hour" in text


def test_every_state_of_a_camera_has_a_next_command(page: Path) -> None:
    rows = read(page).rows
    following = {name: row[8][1] for name, row in rows.items()}
    assert list(rows) == ["crops", "empty", "sim", "torn", "trained", "wild"]
    assert "python -m collabteam.review camera=crops" in following["crops"]
    assert "python -m collabteam.ingest camera=empty path=..." in following["empty"]
    assert "python -m collabteam.label camera=trained" in following["trained"]
    assert re.search(r"collabteam\.(export|review|audit) camera=sim", following["sim"])
    assert "round-1/round.json is damaged" in following["torn"]
    assert "train again with round=1" in following["torn"]
    assert "<script>alert(1)</script>" in following["wild"]  # as text, see below
    assert rows["trained"][6][1] == "not audited"
    for name in ("torn", "wild"):
        assert rows[name][0][1].endswith("damaged")


def test_nothing_from_the_records_becomes_markup(page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert text.count("<script>") == 1
    assert "<img src=x" not in text
    words = ["<b>bus</b>", '"onload="x', "c&d"]
    rounds = plain_rounds(3)
    rounds[-1]["settings"] = {words[0]: words[1]}
    rounds[-1]["versions"] = {words[2]: words[0]}
    facts = CameraFacts(
        "x", classes=words, rounds=typed(rounds), why="<i>why</i>", drift="<u>drift</u>"
    )
    sample = Sample(b"", words[0], 0.9, (), words[1], "person")
    facts = replace(
        facts, label=a_label(words[2]), samples={"sure": [], "unsure": [], "wrong": [sample]}
    )
    write_fleet([facts], tmp_path / "x.html")
    found = Reader((tmp_path / "x.html").read_text(encoding="utf-8"))
    assert not {"i", "u"} & set(found.tags)
    assert "damaged" not in found.rows["x"][0][1]
    for word in words:
        assert word in found.parts["x"]


def a_label(run: str) -> LabelRecord:
    """The record of a camera without a test set."""
    team = "00112233aabbccdd"
    return LabelRecord(
        camera="x", round=2, team=team, run=run, settings={run: run}, pool=9, labelled={"car": 1},
        check=EngineCheck(
            team=team, kind="torch", precision="fp32", crops=0, disagreement=0.0,
            largest_difference=0.0,
        ),
        abstained=8, conflicts=0, coverage=1 / 9, temperatures={"car": 1.0}, thresholds=None,
        test=None, measured=None, new=9, seconds={}, finished="2026-11-22T13:40:00Z",
    )  # fmt: skip


def test_records_of_another_kind_leave_the_other_cameras_alone(
    fleet: Path, tmp_path: Path, call: Call
) -> None:
    root = tmp_path / "outputs"
    for name in ("a", "b", "c", "d"):
        renamed(fleet / "sim", root, name)
    (root / "b" / "label.json").write_text('{"run": 1}')
    (root / "c" / "label.json").write_text("[")
    certificate = root / "d" / "audits" / "1" / "certificate.json"
    content = read_json(certificate)
    certificate.write_text(json.dumps(content | {"classes": {"cyclist": {}}}))
    said = call("report", f"root={root}", *EVERY, f"to={tmp_path / 'r.html'}")
    assert said.code == 0, said.err
    assert "4 cameras, 1 with a team, damaged: b, c, d" in said.out
    rows = read(tmp_path / "r.html").rows
    assert rows["a"][1][1] == "2"
    assert "b/label.json is damaged" in rows["b"][8][1]
    assert "'python -m collabteam.label camera=c' writes it again" in rows["c"][8][1]
    assert "certificate.json is damaged (no classes.cyclist" in rows["d"][8][1]


def test_what_an_earlier_version_labelled_says_how_to_have_the_curves(
    fleet: Path, tmp_path: Path, call: Call
) -> None:
    root = tmp_path / "outputs"
    file = renamed(fleet / "sim", root, "sim") / "label.json"
    record = read_json(file)
    del record["samples"], record["test"]["reliability"], record["test"]["risk_coverage"]
    file.write_text(json.dumps(record))
    said = call("report", f"root={root}", "camera=sim", "format=html", f"to={tmp_path / 'r.html'}")
    assert said.code == 0, said.err
    text = read(tmp_path / "r.html").parts["sim"]
    assert "An earlier version labelled and kept no curves" in text
    assert "python -m collabteam.label camera=sim keeps them" in text


@pytest.mark.parametrize("classes", [["car", "bus"], TEN])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("count", [1, 12])
def test_any_rounds_can_be_drawn(
    classes: list[str], known: bool, count: int, tmp_path: Path
) -> None:
    rounds = fake_rounds(count, classes, has_test=known, knows_truth=known)
    (row,) = write_fleet([CameraFacts("x", classes=classes, rounds=rounds)], tmp_path / "x.html")
    assert (row.facts.problem, row.round) == ("", count - 1)
    found = read(tmp_path / "x.html")
    assert ("no test set" in found.rows["x"][4][1]) is not known
    assert ("Shown because this camera has no frozen test set" in found.parts["x"]) is not known
    assert len(re.findall("Precision of the increments", found.parts["x"])) == (count > 1)
    assert not re.search(r"\bnan\b", (tmp_path / "x.html").read_text())


def test_an_audit_that_is_open(fleet: Path, tmp_path: Path, call: Call) -> None:
    folder = renamed(fleet / "sim", tmp_path / "outputs", "sim")
    shutil.rmtree(folder / "audits")
    said = call("audit", f"root={folder.parent}", "camera=sim", "precision=0.6")
    assert said.code == 0, said.err
    facts = camera_facts(folder.parent, "sim", 0)
    assert facts.next == "python -m collabteam.review camera=sim queue=audit"
    asked = sum(one.sample for one in facts.audit_classes.values())
    assert f"{asked} crops are unanswered" in facts.why
    write_fleet([facts], tmp_path / "r.html")
    assert read(tmp_path / "r.html").rows["sim"][6][1] == "audit 1 is open"


# --- figures -----------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 100), max_size=8), st.floats(0, 5e5))
def test_axes_hold_what_is_drawn(values: list[float], highest: float) -> None:
    for axis, held in (
        (figures.percent_axis("", values), values),
        (figures.percent_axis("", values, floor=0), values),
        (figures.rising_axis("", highest), [highest]),
    ):
        assert axis.low < axis.high
        assert all(axis.low <= value <= axis.high for value in held)
        assert 2 <= len(axis.ticks) <= 7
        assert all(axis.low <= at <= axis.high for at, _ in axis.ticks)


@given(st.floats(0, 4e9), st.floats(3600, 4e8))
def test_an_axis_of_time_has_few_labels_all_of_them_different(since: float, span: float) -> None:
    axis = figures.time_axis(since, since + span)
    assert len(axis.ticks) <= 6
    assert all(since <= at <= since + span for at, _ in axis.ticks)
    assert "UTC" in axis.name


def test_a_panel_is_drawn_where_its_values_are() -> None:
    x = figures.Axis("hour", 0, 10, ((0, "0"), (5, "5"), (10, "10")))
    y = figures.percent_axis("right, %", [], floor=0)
    points = [(0.0, 0.0), (5.0, 50.0), (10.0, 100.0)]
    series = [
        figures.Series("<car>", points, 1, breaks=[2], intervals=[(0, 10), (40, 60), (90, 100)]),
        figures.Series("bus", points[1:], 12, "estimated", dashed=True),
    ]
    bars = [figures.Bar(0, 5, 50)]
    panel = figures.Panel("", x, y, series, '"all"', bars=bars, diagonal=True, shade=5)
    text = str(figures.svg(panel))
    root = ElementTree.fromstring(text)
    assert root.get("aria-label") == '"all"'
    # The left, upper, right and lower end of the diagram in the units of the drawing.
    left, top, right, floor = 40, 10, 328, 178
    middle = ((left + right) / 2, (top + floor) / 2)
    found: dict[str, list[Any]] = {}
    for one in root.iter():
        found.setdefault(one.get("class") or one.tag, []).append(one)
    marks = [(float(one.get("x")), float(one.get("y"))) for one in found["mark s1"]]
    assert marks == [(left, floor), middle, (right, top)]
    assert found["mark s1"][0][0].text == "<car>: 0.0"
    assert found["mark s2 dash"][1][0].text == "bus, estimated: 100.0"
    assert {one.get("href") for one in found["mark s2 dash"]} == {"#mark2"}
    assert found["line s1"][0].get("d").count("M") == 2
    assert found["line whisker s1"][0].get("d").startswith(f"M{left} {floor}L{left} 161.2M")
    assert found["shade"][0].get("d").startswith(f"M{middle[0]:g} {floor}L{middle[0]:g} {top}")
    assert f" {middle[1]:g}L{middle[0]:g} {middle[1]:g}L" in found["bar"][0].get("d")
    assert found["ideal"][0].get("d") == f"M{left} {floor}L{right} 161.2"
    said = {(one.text, one.get("class")) for one in root.iter() if one.tag == "text"}
    assert {("5", "mid"), ("hour", "mid"), ("20", "end"), ("right, %", "mid")} <= said
    assert [one.get("x") for one in root.iter("text") if one.text == "5"] == [f"{middle[0]:g}"]


def test_the_same_panel_is_the_same_text_and_the_page_alone_gives_it_a_look() -> None:
    one, two = (
        figures.course(fake_rounds(count, classes)) for count, classes in ((6, TEN), (2, CLASSES))
    )
    first = [figures.svg(panel) for panel in one]
    assert [figures.svg(panel) for panel in two] != first
    assert [figures.svg(panel) for panel in one] == first
    style = (TEMPLATES / "fleet.css").read_text(encoding="utf-8")
    for text in (*first, figures.swatch(3, dashed=True)):
        assert not re.search(r"\b(style|id|fill|stroke)=", text)
        for name in set(" ".join(re.findall(r'class="([^"]+)"', text)).split()):
            assert f".{name}" in style, name


def test_every_mark_of_a_page_is_there_once(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'<use [^>]*href="#([^"]+)"', text)) <= set(ids)
    assert text.count("<use") > 100


# --- crops -------------------------------------------------------------------------------------


def test_label_names_crops_that_show_what_it_says(fleet: Path) -> None:
    record = read_json(fleet / "sim" / "label.json")
    catalog = Catalog(fleet / "sim")
    index, truth = catalog.index(), truth_of(catalog)
    row_of = {str(crop): row for row, crop in enumerate(index.crop_id)}
    samples = record["samples"]
    for crops in samples.values():
        tracks = [index.track_code[row_of[crop["crop_id"]]] for crop in crops]
        assert 0 < len(crops) <= 24
        assert len(set(tracks)) == len(tracks)
    for crop in samples["sure"]:
        assert index.verdict[row_of[crop["crop_id"]]] == crop["label"] != ""
    for name in CLASSES:
        shown = [crop["confidence"] for crop in samples["sure"] if crop["label"] == name]
        labelled = index.verdict_confidence[(index.verdict == name) & (index.human == "")]
        if len(labelled):
            assert shown[0] == pytest.approx(labelled.max())
            assert shown == sorted(shown, reverse=True)
    for crop in samples["unsure"]:
        assert index.verdict[row_of[crop["crop_id"]]] == ""
    assert {crop["source"] for crop in samples["wrong"]} <= {"oracle", "truth"}
    for crop in samples["wrong"]:
        row = row_of[crop["crop_id"]]
        said = index.human[row] if crop["source"] == "oracle" else truth[crop["crop_id"]]
        assert crop["actual"] == said != crop["label"]
    for name in CLASSES:
        for word in ("before", "after"):
            bins = record["test"]["reliability"][name][word]
            assert sum(bins["count"]) == record["test"]["crops"]
    coverage = record["test"]["risk_coverage"]["coverage"]
    assert coverage[-1] == pytest.approx(record["test"]["apart"]["coverage"])
    assert len(coverage) <= 101


def test_the_list_and_the_page_say_the_same_next_step(fleet: Path, tmp_path: Path) -> None:
    for name in ("sim", "trained", "crops", "empty"):
        facts = camera_facts(fleet, name, 0)
        assert facts.next == f"python -m collabteam.{progress(fleet / name).next}"
    # Without a frozen test set, both ask for one first.
    folder = renamed(fleet / "trained", tmp_path, "trained")
    file = folder / "round-2" / "round.json"
    record = json.loads(file.read_text()) | {
        "test_size": 0, "coverage_test": None, "consensus_accuracy_test": None,
    }  # fmt: skip
    record["recall"]["test"] = None
    file.write_text(json.dumps(record))
    assert progress(folder).next == "review camera=trained queue=test"


def test_what_a_person_contradicts_comes_first_and_in_their_name(
    fleet: Path, tmp_path: Path
) -> None:
    catalog = Catalog(renamed(fleet / "sim", tmp_path, "sim"))
    index = catalog.index()
    rows = np.flatnonzero((index.verdict == "pedestrian") & (index.human == ""))
    # The most confident of all that is contradicted, i0 included, is shown first.
    row = rows[np.argmax(index.verdict_confidence[rows])]
    crop = str(index.crop_id[row])
    catalog.append_labels([LabelEvent(crop, "cyclist", "person", "unsure", 2, by="ana")])
    facts = camera_facts(tmp_path, "sim", samples=3)
    assert facts.problem == ""
    first = facts.samples["wrong"][0]
    assert (first.label, first.actual, first.source) == ("pedestrian", "cyclist", "person")
    # What is withdrawn, and what an undo says again, is no further click.
    again = [
        LabelEvent(crop, word, "person", "unsure", 2, by="ana", commit="undo:p")
        for word in ("cyclist", "")
    ]
    catalog.append_labels(again)
    assert camera_facts(tmp_path, "sim", 0).by_persons == facts.by_persons == 1
    with Image.open(io.BytesIO(first.picture)) as shown:
        assert max(shown.size) <= 96
    assert all(len(crops) <= 3 for crops in facts.samples.values())


def test_without_samples_there_is_no_picture(fleet: Path, tmp_path: Path, call: Call) -> None:
    said = call(
        "report", f"root={fleet}", *EVERY, f"to={tmp_path / 'r.html'}", "samples=0"
    )  # fmt: skip
    assert said.code == 0, said.err
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<img" not in text
    assert "image/webp" not in text


# --- the command -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cameras", "expected"),
    [
        ("camera=trained,sim", ["trained", "sim"]),
        ("camera='sim','empty'", ["sim", "empty"]),
        ("camera=glob(t*)", ["torn", "trained"]),
        ("camera=glob([s*,t*],exclude=torn)", ["sim", "trained"]),
        ("camera=sim", ["sim"]),
    ],
)
def test_which_cameras(
    fleet: Path, tmp_path: Path, call: Call, cameras: str, expected: list[str]
) -> None:
    to = tmp_path / "r.html"
    said = call("report", f"root={fleet}", cameras, "format=html", f"to={to}", "samples=0")
    assert said.code == 0, said.err
    assert list(read(to).rows) == expected


def test_a_page_for_each_camera(trained: Trained, tmp_path: Path, call: Call) -> None:
    for name in ("a", "b"):
        renamed(trained.folder, tmp_path / "outputs", name)
    to = f"to={tmp_path}/${{camera.name}}.html"
    said = call("report", "-m", f"root={tmp_path / 'outputs'}", *EVERY, to)
    assert said.code == 0, said.err
    for name in ("a", "b"):
        assert list(read(tmp_path / f"{name}.html").rows) == [name]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([*EVERY], ["to is not given", "to=report.html"]),
        ([*EVERY, "to={base}"], ["ends in .html"]),
        ([*EVERY, "to={base}/folder.html"], ["is a folder"]),
        ([*EVERY, "to={base}/no/r.html"], ["{base}/no is not there"]),
        ([*EVERY, "to={base}/file/r.html"], ["{base}/file is not there"]),
        ([*EVERY, "to={base}/r.html", "samples=25"], ["samples=25", "0 to 24"]),
        (
            ["camera=glob(x*)", "format=html", "to={base}/r.html"],
            ["no camera matches", "known are"],
        ),
        (["camera=sim,smi", "format=html", "to={base}/r.html"], ["no camera 'smi'", "sim"]),
        (["camera=glob(*", "format=html", "to={base}/r.html"], ["glob(*"]),
        (["camera=sim,trained"], ["format=table is about one camera", "format=html"]),
        (["camera=glob(*)", "format=json"], ["format=json is about one camera"]),
        (["camera=sim", "to={base}/r.html"], ["only format=html writes there"]),
        (["-m", *EVERY, "to={base}/r.html"], ["with -m", "without -m you get one page"]),
    ],
)
def test_what_is_refused(
    fleet: Path, tmp_path: Path, call: Call, settings: list[str], expected: list[str]
) -> None:
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").write_text("x")
    before = fingerprints(fleet)
    said = call("report", f"root={fleet}", *(word.format(base=tmp_path) for word in settings))
    one_line(said, *(text.format(base=tmp_path) for text in expected))
    assert said.out == ""
    assert fingerprints(fleet) == before
    assert {path.name for path in tmp_path.iterdir()} == {"folder.html", "file"}


def test_a_page_that_is_there_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    to = tmp_path / "r.html"
    to.write_text("before")

    def cameras() -> Iterator[CameraFacts]:
        yield CameraFacts("a")
        assert to.read_text() == "before"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_fleet(cameras(), to)
    assert to.read_text() == "before"
    assert list(tmp_path.iterdir()) == [to]
    write_fleet([CameraFacts("a")], to)
    assert "Fleet report, 1 camera<" in to.read_text()


def test_the_report_writes_nothing_else(fleet: Path, tmp_path: Path, call: Call) -> None:
    before = fingerprints(fleet)
    assert call("report", f"root={fleet}", *EVERY, f"to={tmp_path / 'r.html'}").code == 0
    assert fingerprints(fleet) == before


def test_a_camera_with_crops_and_no_class(tmp_path: Path) -> None:
    catalog = Catalog.register(tmp_path, "new")
    picture = io.BytesIO()
    Image.new("RGB", (9, 9)).save(picture, "PNG")
    catalog.add_crops([Crop(picture.getvalue())])
    facts = camera_facts(tmp_path, "new", 8)
    assert (facts.crops, facts.rounds, facts.problem) == (1, [], "")
    assert "camera.classes=" in facts.next


# --- how it looks ------------------------------------------------------------------------------


def colours(name: str) -> tuple[str, str]:
    """A colour of the style, by day and by night."""
    style = (TEMPLATES / "fleet.css").read_text(encoding="utf-8")
    found = re.search(rf"--{name}: light-dark\((#\w+), (#\w+)\)", style)
    assert found, name
    return found[1], found[2]


def contrast(one: str, other: str) -> float:
    """Ratio of WCAG 2.2, success criterion 1.4.3."""

    def luminance(colour: str) -> float:
        parts = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(
    ("ink", "grounds", "least"),
    [
        ("text", ["page", "surface", "sunk"], 7),
        ("soft", ["page", "surface", "sunk"], 4.5),
        ("accent", ["page", "surface", "sunk"], 4.5),
        ("ok", ["surface"], 4.5),
        ("bad", ["surface", "bad-page"], 4.5),
        ("warn", ["warn-page"], 4.5),
        *((f"s{k}", ["surface", "sunk"], 3) for k in range(10)),
    ],
)
def test_everything_can_be_read(ink: str, grounds: list[str], least: float) -> None:
    for ground in grounds:
        for front, behind in zip(colours(ink), colours(ground), strict=True):
            assert contrast(front, behind) >= least, (ink, ground, front, behind)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
@pytest.mark.parametrize("width", [1366, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(page: Path, browser: Browser, width: int, scheme: str) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme  # type: ignore[arg-type]
    )  # fmt: skip
    tab = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(page.as_uri())
    tab.click("#open")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("[...document.images].length") > 10
    # The policy forbids what the browser's own waiting for a function does.
    for _ in range(50):
        if tab.evaluate("[...document.images].every(one => one.complete && one.naturalWidth)"):
            break
        tab.wait_for_timeout(100)
    else:
        pytest.fail("a picture does not show")
    names = (
        "[...document.querySelectorAll('#fleet tbody tr:not([hidden])')].map(r => r.dataset.name)"
    )
    tab.click("#fleet thead button >> text=Recall of true")
    tab.click("#fleet thead button >> text=Recall of true")
    assert set(tab.evaluate(names)[:2]) == {"sim", "trained"}
    tab.click("#fleet thead button >> text=Camera")
    assert tab.evaluate(names) == ["crops", "empty", "sim", "torn", "trained", "wild"]
    tab.fill("#find", "TR")
    assert tab.evaluate(names) == ["trained"]
    assert tab.locator("details.camera:visible").count() == 1
    tab.fill("#find", "")
    tab.click("#close")
    tab.click("#fleet a >> text=sim")
    expect(tab.locator("#camera-sim")).to_have_attribute("open", "")
    assert [url.split("#")[0] for url in asked if not url.startswith("data:")] == [page.as_uri()]
    assert said == []
    # And had somebody smuggled a request in, it would not leave.
    tab.evaluate("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x'}))")
    tab.wait_for_timeout(200)
    assert any("Content Security Policy" in text for text in said)
    context.close()
