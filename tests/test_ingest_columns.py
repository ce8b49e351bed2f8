"""The columns of Parquet files: what a value means, what is refused, and which value is named."""

from __future__ import annotations

import datetime
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Call, one_line
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from collabteam.catalog import Catalog, Crop, LabelEvent
from collabteam.catalog.records import crops_to_table
from collabteam.catalog.times import END, UNITS, unix_seconds
from collabteam.errors import UserError
from collabteam.simulator import SimulationConfig, simulate
from collabteam.sources.crops import ingest_crops, open_source
from collabteam.sources.parquet import ParquetSource
from collabteam.sources.vocabulary import is_missing, split_of

NOW = 1_750_000_000


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 9, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


PICTURES = [picture(number) for number in range(8)]


def table(path: Path, count: int = 4, **columns: Any) -> Path:
    """A Parquet file with pictures, labels and these columns."""
    whole = {"image": PICTURES[:count], "label": ["cat", "dog"] * (count // 2), **columns}
    pq.write_table(pa.table({name: column for name, column in whole.items() if len(column)}), path)
    return path


def rows(path: Path, labels: Any = "person", classes: Sequence[str] = ()) -> list[Any]:
    """The items of a source, without their pictures."""
    source = open_source(path, labels, classes)
    assert isinstance(source, ParquetSource)
    return list(source.items())


def refused(path: Path, *expected: str) -> str:
    """The line with which a file is refused."""
    with pytest.raises(UserError) as caught:
        open_source(path, "person")
    line = str(caught.value)
    assert "\n" not in line
    for text in expected:
        assert text in line, line
    return line


# --- splits ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("test", ["test", "Test", "TEST", "test ", " test", "testing", "Testing", "test_set"]),
        (
            "test",
            ["Test set", "testset", "TEST-SPLIT", "test2017", "tests", "\uff54\uff45\uff53\uff54"],
        ),
        ("train", ["train", "Training", "TRAIN ", "train_set", "training-set", "train2017"]),
        ("val", ["val", "valid", "Validation", "dev", "DEV ", "development", "val2017"]),
        ("held-out", ["held-out", "held_out", "Held out", "heldout", "hold-out"]),
        ("", ["", "tset", "testcar", "0", "true", "eval", "test1", "contest", "trainee", "-"]),
    ],
)
def test_the_words_of_splits(split: str, words: list[str]) -> None:
    assert {word: split_of(word) for word in words} == dict.fromkeys(words, split)


def test_a_split_counts_by_its_meaning(tmp_path: Path) -> None:
    words = ["Train", "TEST", "test ", "testing", "dev", "", "nan", "held_out"]
    path = table(tmp_path / "a.parquet", 8, split=words)
    found = [item.split for item in rows(path)]
    assert found == ["train", "test", "test", "test", "val", "", "", "held-out"]
    catalog = Catalog.register(tmp_path / "root", "S1")
    summary = ingest_crops(catalog, path, "person")
    assert summary.test == 3
    assert summary.aside.remarks == [f"rows of {path} without a split, which may train: 2"]
    index = catalog.index()
    assert index.test.tolist() == [False, True, True, True, False, False, False, False]
    assert index.held_out.tolist() == [False, True, True, True, False, False, False, True]


def test_crops_that_earlier_rounds_may_have_trained_on_are_told(tmp_path: Path) -> None:
    catalog = Catalog.register(tmp_path / "root", "S1")
    ingest_crops(catalog, table(tmp_path / "a.parquet", 4), "person")
    first = ["test", "train", "train", "train"]
    ingested = ingest_crops(catalog, table(tmp_path / "a.parquet", split=first), "person")
    assert (ingested.test, ingested.aside.remarks) == (1, [])
    (catalog.folder / "round-0").mkdir()
    again = ingest_crops(catalog, table(tmp_path / "a.parquet", split=["test"] * 4), "person")
    assert again.test == 3
    assert again.aside.remarks == [
        "known before, and in the test set from now on: 3 crops; the teams of earlier rounds may "
        "have trained on them"
    ]


def test_what_the_simulator_calls_its_splits_is_known(tmp_path: Path) -> None:
    """A crop outside the test set is of the ``pool``: the word of our own simulator."""
    splits = [crop.split for crop in simulate(SimulationConfig(crops=40), seed=0, workers=1)]
    splits = ["test", *splits[:6], "Pool"]
    assert set(splits) == {"test", "pool", "Pool"}
    path = table(tmp_path / "a.parquet", 8, split=splits)
    catalog = Catalog.register(tmp_path / "root", "S1")
    summary = ingest_crops(catalog, path, "person")
    assert summary.test == splits.count("test")
    assert summary.aside.remarks == []


def test_other_splits_are_refused_with_their_counts(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", 8, split=["tset"] * 3 + ["fold\n1"] + ["train"] * 4)
    refused(path, "column 'split'", "'tset' (3 rows)", r"'fold\n1' (1 rows)", "train, val, test")
    numbers = table(tmp_path / "b.parquet", split=pa.array([0, 0, 1, 1]))
    refused(numbers, "'0' (2 rows), '1' (2 rows)")


# --- labels ----------------------------------------------------------------------------------


def test_nan_and_its_kin_are_no_label(tmp_path: Path) -> None:
    kin = ["nan", "NaN", "None", "null", "NA", "<NA>", "", " ", "N/A", "NaT", "NULL", "-nan"]
    kin += ["np.nan", "pd.NA", "(null)", "\\N", "\ufeffnan", "\u200b", "None\u00a0"]
    for word in kin:
        assert is_missing(word), word
        path = table(tmp_path / "a.parquet", label=["cat", word, "dog", "cat"])
        source = open_source(path, "person")
        assert source.labels == {"cat", "dog"}
        assert source.aside.unlabelled == Counter([word] if word else [])
        assert [item.given for item in source.items()][1] == {}
    for word in ("banana", "nano", "nasa", "N", "none-of-these"):
        assert not is_missing(word)


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32()])
def test_a_number_that_is_not_one_is_no_label(tmp_path: Path, kind: pa.DataType) -> None:
    path = table(tmp_path / "a.parquet", label=pa.array([0.0, math.nan, 1.0, None], kind))
    assert [item.given.get("person") for item in rows(path)] == ["0", None, "1", None]


def test_labels_are_text_or_whole_numbers(tmp_path: Path) -> None:
    """Scores, shares and lengths of time would each become a class of their own."""
    day = datetime.date(2025, 6, 15)
    for label, expected in (
        ([0.5, 1.0, 0.0, 1.0], "0.5 in row 0, expected text or whole numbers"),
        ([0.0, 1.0, math.inf, math.nan], "inf in row 2, expected text or whole numbers"),
        ([Decimal("1.5")] * 4, "1.5 in row 0"),
        (pa.array([1, 2, 1, 2], pa.duration("s")), "'label' is duration[s], expected text"),
        ([day] * 4, "'label' is date32[day], expected text"),
    ):
        refused(table(tmp_path / "a.parquet", label=label), expected)
    path = table(tmp_path / "a.parquet", label=[Decimal("1.00"), Decimal("2.00")] * 2)
    assert open_source(path, "person").labels == {"1", "2"}


def test_a_class_that_the_camera_has_is_a_label_however_it_reads(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", label=["None", "nan", "car", "None"])
    assert open_source(path, "person").labels == {"car"}
    assert open_source(path, "person", ["None", "car"]).labels == {"car", "None"}


def test_missing_tracks_are_not_one_track(tmp_path: Path) -> None:
    for number, tracks in enumerate((["nan", "<NA>", "7", "None"], [-1, -1, 7, -1])):
        path = table(tmp_path / "a.parquet", track=tracks, video=["v"] * 4)
        catalog = Catalog.register(tmp_path / "root", f"S{number}")
        ingest_crops(catalog, path, "person")
        assert len(set(catalog.index().track.tolist())) == 4
        # An earlier version took the words for names: the same file adds nothing there.
        before = Catalog.register(tmp_path / "root", f"before{number}")
        before.add_crops([Crop(p, "v", str(t)) for p, t in zip(PICTURES, tracks, strict=False)])
        assert ingest_crops(before, path, "person").added == 0


def test_class_numbers_of_hugging_face(tmp_path: Path) -> None:
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    for numbers in (pa.array([0, 1, -1, 7]), pa.array([0.0, 1.0, math.nan, 7.0])):
        written = pa.table({"image": PICTURES[:4], "label": numbers}).replace_schema_metadata(about)
        pq.write_table(written, tmp_path / "a.parquet")
        source = open_source(tmp_path / "a.parquet", "person")
        assert [item.given.get("person") for item in source.items()] == ["cat", "dog", None, None]
        assert source.aside.unlabelled == {"class number 7": 1}


# --- types of columns ------------------------------------------------------------------------

INDICES = [
    *(pa.int8(), pa.uint8(), pa.int16(), pa.uint16()),
    *(pa.int32(), pa.uint32(), pa.int64(), pa.uint64()),
]
TEXTS: list[tuple[pa.DataType, list[Any]]] = [
    (pa.string(), ["cat", "dog"]),
    (pa.large_string(), ["cat", "dog"]),
    (pa.binary(), [b"cat", b"dog"]),
    (pa.large_binary(), [b"cat", b"dog"]),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("ordered", [False, True])
def test_dictionaries_of_texts(tmp_path: Path, index: pa.DataType, ordered: bool) -> None:
    for number, (kind, values) in enumerate(TEXTS):
        column = pa.DictionaryArray.from_arrays(
            pa.array([0, 1, None, 0], index), pa.array(values, kind), ordered=ordered
        )
        path = table(tmp_path / f"{number}.parquet", label=column)
        assert [item.given.get("person") for item in rows(path)] == ["cat", "dog", None, "cat"]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_dictionaries_of_everything_else(tmp_path: Path, index: pa.DataType) -> None:
    def dictionary(*values: Any, kind: pa.DataType | None = None) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 0], index),
                                              pa.array(values, kind))  # fmt: skip

    path = table(
        tmp_path / "a.parquet",
        image=dictionary(*PICTURES[:2]).fill_null(PICTURES[2]),
        label=dictionary(1, 2),
        split=dictionary("Test", "train"),
        frame=dictionary(3.0, 4.0),
        track=dictionary(8, 9, kind=pa.uint8()),
        time=dictionary(NOW * 1000, NOW * 1000 + 500, kind=pa.timestamp("ms", "UTC")),
    )
    found = rows(path)
    assert [item.image for item in found] == [PICTURES[0], PICTURES[1], PICTURES[2], PICTURES[0]]
    assert [item.given.get("person") for item in found] == ["1", "2", None, "1"]
    assert [item.split for item in found] == ["test", "train", "", "test"]
    assert found[1].origin == {"frame": 4, "track": "9", "time": NOW + 0.5}
    assert found[2].origin == {}


def test_categories_of_polars(tmp_path: Path) -> None:
    pl = pytest.importorskip("polars")
    for number, kind in enumerate((pl.Categorical, pl.Enum(["cat", "dog"]))):
        path = tmp_path / f"{number}.parquet"
        label = pl.Series(["cat", None, "dog", "cat"], dtype=kind)
        pl.DataFrame({"image": PICTURES[:4], "label": label}).write_parquet(path)
        assert [item.given.get("person") for item in rows(path)] == ["cat", None, "dog", "cat"]


# --- times -----------------------------------------------------------------------------------

PER = [*UNITS.items()]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(PER),
    st.lists(st.integers(200_000_000, int(END) - 1), min_size=4, max_size=4),
    st.sampled_from(["int", "float", "text", "timestamp", "decimal"]),
)
def test_a_time_is_the_same_in_every_unit_and_type(
    tmp_path: Path, unit: tuple[str, int], moments: list[int], kind: str
) -> None:
    name, factor = unit
    numbers = [moment * factor for moment in moments]
    columns: dict[str, Callable[[], pa.Array]] = {
        "int": lambda: pa.array(numbers),
        "float": lambda: pa.array([float(number) for number in numbers]),
        "text": lambda: pa.array(list(map(str, numbers))),
        "timestamp": lambda: pa.array(numbers, pa.timestamp(
            {"seconds": "s", "milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns"}[name]
        )),
        "decimal": lambda: pa.array(numbers).cast(pa.decimal128(30, 2)),
    }  # fmt: skip
    path = table(tmp_path / "a.parquet", time=columns[kind]())
    source = open_source(path, "person")
    assert [item.origin["time"] for item in source.items()] == moments
    told = [said for said in source.aside.remarks if name in said]
    assert bool(told) == (name != "seconds" and kind != "timestamp")


def test_nothing_outside_1970_to_2100_enters(tmp_path: Path, call: Call) -> None:
    cases: list[tuple[Any, str]] = [
        ([-1.0, NOW, NOW, NOW], "-1.0"),
        ([NOW, END, NOW, NOW], "4102444800"),
        ([NOW, 1e30, NOW, NOW], "1e+30"),
        ([NOW, math.inf, NOW, NOW], "inf"),
        ([NOW, NOW, NOW * 1000.0, NOW], "mixes seconds"),
        (["2025-06-15T15:06:40Z"] * 4, "'2025-06-15T15:06:40Z'"),
        ([True, False, True, False], "is bool"),
        (pa.array([10**18] * 4, pa.uint64()), "1000000000000000000"),
        (pa.array([2**63] * 4, pa.uint64()), str(2**63)),
        (pa.array([NOW * 1000] * 4, pa.timestamp("s")), "row 0"),
        (pa.array([-1] * 4, pa.timestamp("ns")), "1969"),
        (pa.array([datetime.date(2026, 1, 1)] * 4), "is date32"),
    ]
    for column, value in cases[:7] + cases[8:]:
        refused(table(tmp_path / "a.parquet", time=column), "column 'time'", value)
    root = tmp_path / "outputs"
    for name in ("new", "new"):
        one_line(call("ingest", f"root={root}", f"camera={name}", f"path={tmp_path}/a.parquet"),
                 "column 'time'")  # fmt: skip
        assert not (root / name).exists()


def test_times_that_their_type_has_rounded_are_told(tmp_path: Path) -> None:
    for factor, expected in ((1, "128"), (1000, "131")):
        times = pa.array(np.arange(4, dtype=np.float32) + np.float32(NOW * factor))
        told = open_source(table(tmp_path / "a.parquet", time=times), "person").aside.remarks
        assert f"hold a time to {expected} seconds" in told[-1]
    seconds = pa.array(np.arange(4, dtype=np.float32))
    assert open_source(table(tmp_path / "a.parquet", time=seconds), "person").aside.remarks == []


def test_unknown_times_stay_unknown_and_0_is_0_in_every_unit(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", time=[0.0, math.nan, NOW * 1e3, None])
    assert [item.origin.get("time") for item in rows(path)] == [0.0, None, float(NOW), None]
    path = table(tmp_path / "b.parquet", time=[0.0, 0.5, 1.0, 3600.0])  # from a video's start
    assert [item.origin.get("time") for item in rows(path)] == [0.0, 0.5, 1.0, 3600.0]


def test_the_catalog_itself_takes_no_such_time(tmp_path: Path) -> None:
    catalog = Catalog.register(tmp_path, "S1")
    for time in (-1.0, END, NOW * 1e3, math.inf, -math.inf):
        with pytest.raises(UserError, match="1970 until 2100"):
            catalog.add_crops([Crop(b"x", time=NOW), Crop(b"y", "v", time=time)])
    assert len(catalog) == 0
    catalog.add_crops([Crop(b"x", time=time) for time in (math.nan, 0.0, END - 1)])
    assert len(catalog) == 3


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=8))
def test_stored_times_are_read_as_seconds_or_as_unknown(stored: list[float]) -> None:
    read = unix_seconds(np.array(stored, dtype=np.float64))
    for before, after in zip(stored, read.tolist(), strict=True):
        assert math.isnan(after) or 0 <= after < END
        if 0 <= before < END:
            assert after == before


def test_a_camera_that_holds_such_times_reports_again(tmp_path: Path, call: Call) -> None:
    """Earlier versions took any number, and the tables are only appended to."""
    root = tmp_path / "outputs"
    catalog = Catalog.register(root, "old", ["cat", "dog"])
    times = [NOW * 1e3, (NOW + 7200) * 1e6, (NOW + 9000) * 1e9, NOW, 1e30, -5.0, math.inf, math.nan]
    crops = [Crop(PICTURES[n], "v", str(n), n, time) for n, time in enumerate(times)]
    catalog._crops.append(crops_to_table(crops))
    catalog.append_labels(
        [
            event
            for number, crop in enumerate(crops)
            for event in (
                LabelEvent(crop.crop_id, "cat", "detector", "proposal"),
                LabelEvent(
                    crop.crop_id,
                    ["cat", "dog"][number % 2],
                    "team",
                    "verdict",
                    1,
                    0.9,
                    "team",
                    "run",
                ),
            )
        ]
    )
    known = [NOW, NOW + 7200, NOW + 9000, NOW]
    catalog = Catalog.open(root, "old")
    assert catalog.index().time[:4].tolist() == known
    assert np.isnan(catalog.index().time[4:]).all()
    assert [one["time"] for one in catalog.origins(range(4))] == known
    page = tmp_path / "page.html"
    said = call("report", f"root={root}", "camera=glob(old*)", "format=html", f"to={page}")
    assert (said.code, page.exists()) == (0, True), said.err
    assert "2025-06-15" in page.read_text(encoding="utf-8")
    said = call("export", f"root={root}", "camera=old", "format=csv", f"to={tmp_path / 'csv'}")
    assert said.code == 0, said.err
    again = Catalog.register(root, "again")
    assert ingest_crops(again, tmp_path / "csv", "person").added == len(crops)


def test_a_file_that_an_earlier_version_took_adds_nothing(tmp_path: Path) -> None:
    """It took the times as they were, and the text ``nan`` as the name of a track."""
    catalog = Catalog.register(tmp_path / "root", "old", ["cat", "dog"])
    tracks = ["nan", "7", "None", "8"]
    times = [(NOW + n) * 1000 for n in range(4)]
    before = [Crop(PICTURES[n], "v", tracks[n], n, float(times[n])) for n in range(4)]
    catalog._crops.append(crops_to_table(before))
    path = table(
        tmp_path / "a.parquet", time=times, track=tracks, video=["v"] * 4, frame=[0, 1, 2, 3]
    )
    summary = ingest_crops(catalog, path, "person")
    assert (summary.added, summary.known, summary.quarantined) == (0, 4, [])
    assert catalog.index().human.tolist() == ["cat", "dog", "cat", "dog"]
    new = ingest_crops(Catalog.register(tmp_path / "root", "new"), path, "person")
    assert (new.added, new.quarantined) == (4, [])


# --- one value, one line ---------------------------------------------------------------------


def test_the_value_is_named(tmp_path: Path, call: Call) -> None:
    latin = pa.array([b"v"] * 3 + [b"peat\xf3n"])
    claimed = pa.Array.from_buffers(pa.string(), 4, latin.buffers())
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({"frame": [1.0, 2.0, math.nan, 3.5]}, ["'frame'", "3.5 in row 3", "whole numbers"]),
        ({"frame": ["1", "2", "", "3.5"]}, ["'frame'", "3.5 in row 3"]),
        ({"frame": ["1", "2", "x\n", "3"]}, ["'frame'", "'x' in row 2"]),
        ({"frame": [-2, 0, 1, 2]}, ["'frame'", "-2"]),
        ({"frame": [1e300] * 4}, ["'frame'", "1e+300"]),
        ({"frame": [[1]] * 4}, ["'frame' is list<", "expected numbers"]),
        ({"label": [{"a": 1}] * 4}, ["'label' is struct<", "expected text"]),
        ({"video": latin}, ["'video'", r"b'peat\xf3n' in row 3", "UTF-8"]),
        ({"label": claimed}, ["'label'", r"b'peat\xf3n' in row 3", "UTF-8"]),
        ({"proposed": latin, "label": []}, ["'proposed'", "UTF-8"]),
    ]
    for number, (columns, expected) in enumerate(cases):
        path = table(tmp_path / f"{number}.parquet", **columns)
        refused(path, *expected)
        if number in (0, 7):
            typed = (f"root={tmp_path / 'root'}", "camera=new", f"path={path}")
            one_line(call("ingest", *typed), *expected)
    assert not (tmp_path / "root" / "new").exists()


def test_a_column_twice(tmp_path: Path) -> None:
    for name in ("image", "label", "time"):
        pairs = [("image", PICTURES[:2]), ("label", ["a", "b"]), ("time", [1.0, 2.0])]
        pairs += [pair for pair in pairs if pair[0] == name]
        written = pa.Table.from_arrays(
            [pa.array(values) for _, values in pairs], names=[label for label, _ in pairs]
        )
        pq.write_table(written, tmp_path / "a.parquet")
        refused(tmp_path / "a.parquet", f"2 columns '{name}'")
    ours = ["image", "label", "source", "source", "confidence", "round", "team"]
    columns = [pa.array(PICTURES[:2]), *[pa.array(["a", "b"])] * 6]
    pq.write_table(pa.Table.from_arrays(columns, names=ours), tmp_path / "a.parquet")
    refused(tmp_path / "a.parquet", "2 columns 'source'")


def test_class_names_of_hugging_face_that_are_no_text(tmp_path: Path) -> None:
    about = b'{"info": {"features": {"label": {"names": ["\\ud800", "b"]}}}}'
    written = pa.table({"image": PICTURES[:2], "label": [0, 1]})
    path = tmp_path / "a.parquet"
    pq.write_table(written.replace_schema_metadata({"huggingface": about}), path)
    assert open_source(path, "person").labels == {"\\ud800", "b"}


@pytest.mark.parametrize("name", ["Split", "SPLIT", " split", "split ", "\uff53plit", "Time"])
def test_a_column_in_another_spelling_is_not_left_out(
    name: str, tmp_path: Path, call: Call
) -> None:
    """The rows of a test set would train."""
    path = table(tmp_path / "a.parquet", **{name: ["test"] * 4})
    meant = "time" if name == "Time" else "split"
    one_line(
        call("ingest", f"root={tmp_path / 'root'}", "camera=S1", f"path={path}"),
        f"a column {name!r}, which is not read: call it {meant!r}, or drop it",
    )
    assert not (tmp_path / "root" / "S1").exists()


def test_columns_that_are_not_read_are_told(tmp_path: Path) -> None:
    path = table(tmp_path / "a.parquet", subset=["test"] * 4, **{"a\nb": [1] * 4})
    told = open_source(path, "person").aside.remarks
    assert told == [f"columns of {path} that are not read: 'subset', 'a\\nb'"]


@pytest.mark.parametrize("name", ["test.parquet", "test-00000-of-00001.parquet", "Testing.parquet"])
def test_a_table_that_is_called_like_a_split(name: str, tmp_path: Path) -> None:
    path = table(tmp_path / name)
    (told,) = open_source(path, "person").aside.remarks
    assert "is called like the split test" in told
    assert open_source(table(path, split=["train"] * 4), "person").aside.remarks == []
    assert open_source(table(tmp_path / "train.parquet"), "person").aside.remarks == []


def test_a_fault_in_the_last_row_leaves_nothing(tmp_path: Path, call: Call) -> None:
    path = table(tmp_path / "a.parquet", 8, split=["train"] * 7 + ["oops"])
    catalog = Catalog.register(tmp_path / "outputs", "S1")
    with pytest.raises(UserError, match="oops"):
        ingest_crops(catalog, path, "person")
    assert (len(catalog), catalog.classes) == (0, [])


@pytest.mark.parametrize(
    "refusal",
    [
        "label=other",
        "one class",
        "no picture",
        "no usable picture",
        "crop_id of none",
    ],
)
def test_what_is_refused_leaves_no_camera(refusal: str, tmp_path: Path, call: Call) -> None:
    classes = ["camera.classes=[a,b]"] if refusal == "label=other" else []
    columns: dict[str, Any] = {}
    if refusal == "one class":
        columns["label"] = ["cat"] * 4
    if refusal == "no picture":
        columns["image"] = pa.array([None] * 4, pa.binary())
    if refusal == "no usable picture":
        columns["image"] = [b"none"] * 4
    if refusal == "crop_id of none":
        columns |= {"image": [], "crop_id": ["0" * 24] * 4}
    path = table(tmp_path / "a.parquet", **columns)
    root = tmp_path / "outputs"
    expected = {
        "label=other": "camera new has no class cat, dog",
        "one class": "at least 2 classes",
        "no picture": "none of the 4 pictures can be used",
        "no usable picture": "none of the 4 pictures can be used",
        "crop_id of none": "no such crop in the catalog",
    }[refusal]
    one_line(call("ingest", f"root={root}", "camera=new", f"path={path}", *classes), expected)
    assert not (root / "new").exists()
    assert not any((root).glob("new*"))


def test_what_comes_before_the_damage_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pictures = [picture(number) for number in range(600)]
    pq.write_table(
        pa.table({"image": pictures, "label": ["cat", "dog"] * 300}), path,
        compression="snappy", use_dictionary=False, data_page_size=4096, write_batch_size=32,
    )  # fmt: skip
    content = bytearray(path.read_bytes())
    at = len(content) * 8 // 10
    content[at : at + 6000] = b"\0" * 6000
    path.write_bytes(bytes(content))
    catalog = Catalog.register(tmp_path / "root", "S1")
    with pytest.raises(UserError, match="is damaged"):
        ingest_crops(catalog, path, "person")
    assert len(catalog) >= 256
