"""Damage of a camera's files is found, named, and reported before anything is written."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import SMALL, Call, fingerprints, one_line
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from collabteam import load_team
from collabteam.catalog import Catalog, Crop, LabelEvent
from collabteam.errors import UserError
from collabteam.events import Listener
from collabteam.features.devices import Device
from collabteam.learners.base import FitEnvironment
from collabteam.learners.supervised import _STATE, _is_readable
from collabteam.reporting.terminal import read_status
from collabteam.rounds.predictions import read_fold
from collabteam.settings import TrainerConfig
from collabteam.storage.commits import last_commit
from collabteam.storage.tables import Table
from collabteam.storage.workspace import Workspace
from collabteam.video.spool import Spool, VideoRecord, commit
from collabteam.web.sessions import Sessions

# -- tables ----------------------------------------------------------------------------------------


def _camera(root: Path, answers: int = 5) -> Catalog:
    """Crops and as many commits of the log, the last of which is the newest manifest."""
    catalog = Catalog.register(root, "k", ["car", "ship"])
    crops = [Crop(b"%d" % number) for number in range(answers)]
    catalog.add_crops(crops[:2])
    catalog.add_crops(crops[2:])
    for crop in crops:
        catalog.append_labels([LabelEvent(crop.crop_id, "car", "person")])
    return catalog


def _newest(folder: Path) -> Path:
    return min((folder / "_versions").glob("*.manifest"))


def _gone(folder: Path) -> None:
    _newest(folder).unlink()


def _two_gone(folder: Path) -> None:
    for _ in range(2):
        _gone(folder)


def _all_but_the_first_gone(folder: Path) -> None:
    for file in sorted((folder / "_versions").glob("*.manifest"))[:-1]:
        file.unlink()


def _zeros(folder: Path) -> None:
    file = _newest(folder)
    file.write_bytes(bytes(file.stat().st_size))


def _empty(folder: Path) -> None:
    _newest(folder).write_bytes(b"")


def _flipped(folder: Path) -> None:
    """A bit in the name of a data file: what Lance reads of it, it takes for true."""
    file = _newest(folder)
    content = file.read_bytes()
    file.write_bytes(content.replace(b".lance", b".lancd", 1))


def _data_gone(folder: Path) -> None:
    min((folder / "data").iterdir()).unlink()


def _data_zeros(folder: Path) -> None:
    file = min((folder / "data").iterdir())
    file.write_bytes(bytes(file.stat().st_size))


BREAKS = [_gone, _two_gone, _all_but_the_first_gone, _zeros, _empty, _flipped]


@pytest.mark.parametrize("table", ["crops", "labels"])
@pytest.mark.parametrize("damage", [*BREAKS, _data_gone, _data_zeros])
def test_a_damaged_table_is_named_before_anything_is_written(
    tmp_path: Path, table: str, damage: Callable[[Path], None]
) -> None:
    folder = _camera(tmp_path).workspace.folder / f"{table}.lance"
    damage(folder)
    before = fingerprints(tmp_path)
    with pytest.raises(UserError, match=f"{table}.lance.*damaged.*restore") as caught:
        Catalog.open(tmp_path, "k").index()
    assert "\n" not in str(caught.value)
    assert fingerprints(tmp_path) == before


@pytest.mark.parametrize("table", ["crops", "labels"])
@pytest.mark.parametrize("damage", [_gone, _all_but_the_first_gone, _zeros])
def test_a_camera_of_an_earlier_version_has_lances_hint(
    tmp_path: Path, table: str, damage: Callable[[Path], None]
) -> None:
    folder = _camera(tmp_path).workspace.folder / f"{table}.lance"
    (folder / "commits").unlink()
    assert len(Catalog.open(tmp_path, "k").log()) == 5
    damage(folder)
    with pytest.raises(UserError, match=f"{table}.lance.* damaged"):
        Catalog.open(tmp_path, "k")


def test_a_log_that_names_crops_which_are_not_there(tmp_path: Path) -> None:
    """Without any note of commits: no crops at all, and some too few."""
    catalog = _camera(tmp_path)
    folder = catalog.workspace.folder / "crops.lance"
    shutil.rmtree(folder)
    catalog.workspace.create_table("crops", Table(folder.with_name("truth.lance"))._data.schema)
    shutil.rmtree(folder)
    other = Catalog.register(tmp_path / "other", "k", ["car", "ship"])
    shutil.copytree(other.workspace.folder / "crops.lance", folder)
    with pytest.raises(UserError, match=r"crops\.lance is damaged: the log has 5 events about"):
        Catalog.open(tmp_path, "k")
    other.add_crops([Crop(b"%d" % number) for number in range(3)])
    shutil.rmtree(folder)
    shutil.copytree(other.workspace.folder / "crops.lance", folder)
    damaged = Catalog.open(tmp_path, "k")
    for _ in range(2):
        with pytest.raises(UserError, match=r"crops\.lance is damaged: the log has 2 events about"):
            damaged.index()


def test_the_remedies_help(tmp_path: Path) -> None:
    """A table that is restored whole opens, and so does one whose loss is accepted."""
    catalog = _camera(tmp_path)
    folder = catalog.workspace.folder / "labels.lance"
    shutil.copytree(folder, tmp_path / "backup")
    for _ in range(2):
        catalog.append_labels([LabelEvent(catalog.index().crop_id[0], "ship", "person")])
    _two_gone(folder)
    with pytest.raises(UserError, match="commits are lost"):
        Catalog.open(tmp_path, "k")
    for _ in range(2):  # the note, then the hint of Lance
        with pytest.raises(UserError, match="commits are lost") as caught:
            Catalog.open(tmp_path, "k")
        Path(str(caught.value).partition("or delete ")[2].partition(" to go on")[0]).unlink()
    assert len(Catalog.open(tmp_path, "k").log()) == 5
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "backup", folder)
    assert len(Catalog.open(tmp_path, "k").log()) == 5


def test_a_power_cut_in_the_middle_of_a_commit_costs_nothing_that_was_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of the version was there, but not its content; nobody was told that it is."""
    catalog = _camera(tmp_path)
    monkeypatch.setattr("collabteam.storage.tables.note_commit", lambda *_: None)
    catalog.append_labels([LabelEvent(catalog.index().crop_id[0], "ship", "person")])
    broken = _newest(catalog.workspace.folder / "labels.lance")
    _zeros(broken.parents[1])
    with pytest.raises(UserError, match="nothing that was confirmed is lost") as caught:
        Catalog.open(tmp_path, "k")
    assert str(caught.value).startswith(f"{broken} is damaged")
    broken.unlink()
    (broken.with_name("latest_version_hint.json")).unlink()
    assert len(Catalog.open(tmp_path, "k").log()) == 5


def test_a_commit_is_noted_once_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = _camera(tmp_path, 3)
    folder = catalog.workspace.folder / "labels.lance"
    flushed: list[str] = []
    monkeypatch.setattr(
        "collabteam.storage.tables.sync",
        lambda file: flushed.append(file.relative_to(folder).as_posix()),
    )
    before = last_commit(folder)
    data = set((folder / "data").iterdir())
    catalog.append_labels([LabelEvent(catalog.index().crop_id[0], "ship", "person")])
    after = last_commit(folder)
    assert before is not None
    assert after is not None
    assert (after.version, after.rows) == (before.version + 1, before.rows + 1)
    (new,) = set((folder / "data").iterdir()) - data
    assert set(flushed) == {
        "_versions", f"_versions/{_newest(folder).name}", "data", f"data/{new.name}"
    }  # fmt: skip


def test_what_is_noted_outlives_torn_lines_and_merges(tmp_path: Path) -> None:
    catalog = _camera(tmp_path, 2)
    folder = catalog.workspace.folder / "labels.lance"
    noted = folder / "commits"
    for torn in (b"7 1", b"\0" * 600, b"999 999 00 00000000\n", bytes(range(256))):
        with noted.open("ab") as file:
            file.write(torn)
        catalog.append_labels([LabelEvent(catalog.index().crop_id[0], "ship", "person")])
        found = last_commit(folder)
        assert found is not None
        assert found.rows == catalog.log_size()
    noted.write_bytes(noted.read_bytes() * 100)
    for _ in range(70):
        catalog.append_labels([LabelEvent(catalog.index().crop_id[0], "car", "person")])
    assert noted.stat().st_size < 20_000
    catalog.compact()
    rows = len(Catalog.open(tmp_path, "k").log())
    assert rows == 2 + 4 + 70
    _gone(folder)
    with pytest.raises(UserError, match="damaged"):
        Catalog.open(tmp_path, "k")


def test_a_note_of_nothing_is_damage(tmp_path: Path) -> None:
    folder = _camera(tmp_path).workspace.folder / "labels.lance"
    (folder / "commits").write_bytes(b"\0" * 100)
    with pytest.raises(UserError, match=r"labels\.lance/commits is damaged: .* delete this one"):
        Catalog.open(tmp_path, "k")


def test_a_copy_has_notes_of_its_own(tmp_path: Path) -> None:
    catalog = _camera(tmp_path / "a")
    copy = catalog.copy_to(tmp_path / "b")
    for number in range(3):
        copy.add_crops([Crop(b"of the copy %d" % number)])
    assert len(Catalog.open(tmp_path / "a", "k").index()) == 5
    assert len(Catalog.open(tmp_path / "b", "k").index()) == 8
    _gone(copy.workspace.folder / "crops.lance")
    with pytest.raises(UserError, match="damaged"):
        Catalog.open(tmp_path / "b", "k")
    assert len(Catalog.open(tmp_path / "a", "k").index()) == 5


def test_a_server_notices_that_commits_vanish(tmp_path: Path) -> None:
    """It keeps saying so, and adds nothing."""
    catalog = _camera(tmp_path)
    catalog.index()
    _two_gone(catalog.workspace.folder / "labels.lance")
    for _ in range(2):
        with pytest.raises(UserError, match=r"labels\.lance is damaged"):
            catalog.index()
    with pytest.raises(UserError, match=r"labels\.lance is damaged"):
        catalog.append_labels([LabelEvent(Crop(b"0").crop_id, "ship", "person")])


# -- records of rounds -----------------------------------------------------------------------------


def _text(content: str) -> Callable[[Path], None]:
    return lambda file: file.write_text(content, encoding="utf-8") and None


def _with(**changes: object) -> Callable[[Path], None]:
    """The same record with other values; None takes a key away."""

    def change(file: Path) -> None:
        content = {**json.loads(file.read_text()), **changes}
        kept = {name: value for name, value in content.items() if value is not None}
        file.write_text(json.dumps(kept))

    return change


DEEP = '{"x": ' + "[" * 20_000 + "]" * 20_000 + "}"
ANY = {
    "deep": _text(DEEP), "huge": _text('{"seed": 1' + "0" * 5000 + "}"), "nan": _text('{"a": NaN}'),
    "infinite": _text('{"a": 1e999}'), "list": _text("[1]"), "empty": _text(""),
    "zeros": _text("\0" * 50), "latin": lambda file: file.write_bytes(b'{"a": "\xe9"}') and None,
    "lacking": _text("{}"),
}  # fmt: skip
OWN: dict[str, dict[str, Callable[[Path], None]]] = {
    "round-0/sample.json": {
        "crops": _with(crops=3), "names": _with(crops=[1, None]), "seed": _with(seed="x"),
        "reviewer": _with(reviewer=None), "drawn_from": _with(drawn_from=[1]),
    },
    "round-2/folds.json": {
        "text": _text('{"a": "b"}'), "minus": _text('{"a": -1}'), "half": _text('{"a": 0.5}'),
        "true": _text('{"a": true}'), "none": _text('{"a": null}'),
    },
    "round-2/round.json": {
        "settings": _with(settings={"team": 3}),
        "size": _with(settings={"team": {}, "data": {"image_size": "x"}}),
        "recall": _with(recall={"validation": 3}), "voting": _with(voting={"a": ["x"]}),
    },
}  # fmt: skip


@pytest.mark.parametrize("file", OWN)
def test_a_record_of_right_syntax_and_wrong_content_is_damage(
    finished: Path, call: Call, file: str
) -> None:
    """Deep, huge, lacking keys, of other types: one line, before anything is written."""
    path = finished / "sim" / file
    kept = path.read_bytes()
    record = finished / "sim" / "round-2" / "round.json"
    if path != record:
        _with(files={})(record)  # as earlier versions wrote it
    for what, damage in (ANY | OWN[file]).items():
        damage(path)
        before = fingerprints(finished)
        said = call("train", f"root={finished}", "camera=sim", "round=3", *SMALL)
        assert file in one_line(said, "restore it"), what
        assert fingerprints(finished) == before, what
        assert not (finished / "sim" / "round-3").exists()
        path.write_bytes(kept)


@pytest.mark.parametrize("file", ["round-2/folds.json", "round-2/increment.json", "branches"])
def test_a_changed_file_of_the_round_before_is_found_by_its_hash(
    finished: Path, call: Call, file: str
) -> None:
    """One flipped bit, of content that is valid for itself."""
    path = finished / "sim" / file
    if file == "branches":
        path = min((finished / "sim" / "round-2" / "branches").iterdir())
    content = bytearray(path.read_bytes())
    place = len(content) // 2 if file == "branches" else content.rindex(b"1")
    content[place] ^= 1
    path.write_bytes(content)
    before = fingerprints(finished)
    for name, words in (("train", ("round=3", *SMALL)), ("label", ("trainer.threads=1",))):
        said = call(name, f"root={finished}", "camera=sim", *words)
        one_line(said, path.name, "damaged", "rollback=1")
    assert fingerprints(finished) == before
    if file == "branches":
        with pytest.raises(UserError, match=f"{path.name}.* other bytes than its round recorded"):
            load_team(Catalog.open(finished, "sim").workspace.round(2))


def test_weights_of_an_earlier_version_must_be_numbers(finished: Path) -> None:
    """Without hashes, what is no number is found; the rest stays usable."""
    files = Catalog.open(finished, "sim").workspace.round(2)
    _with(files=None)(files.record)
    load_team(files)
    path = min(files.branches.iterdir())
    weights, metadata = load_file(path), safe_open(path, "pt").metadata()
    next(one for one in weights.values() if one.is_floating_point()).view(-1)[0] = float("nan")
    save_file(weights, path, metadata)
    with pytest.raises(UserError, match=f"{path.name}: expected the weights.*no finite numbers"):
        load_team(files)


ARRAYS = {"prob": np.zeros((2, 3), np.float32), "fingerprint": "00", "seconds": 1.0}


@pytest.mark.parametrize(
    "change",
    [
        {"prob": np.zeros((2, 4))}, {"prob": np.zeros(3)}, {"prob": np.full((2, 3), np.nan)},
        {"prob": np.full((2, 3), 7.0)}, {"prob": np.array([["a"] * 3])}, {"seconds": "x"},
        {"seconds": [1, 2]}, {"fingerprint": 3}, {"crop_id": ["a"]}, {"crop_id": [1, 2]},
        {"crop_id": [["a"], ["b"]]}, {"prob": None},
    ],
)  # fmt: skip
def test_arrays_of_a_fold_of_wrong_content_are_damage(
    tmp_path: Path, change: dict[str, object]
) -> None:
    file = tmp_path / "fold-0.npz"
    np.savez(file, **ARRAYS)
    assert read_fold(file, 3).crop_id is None
    changed = {name: value for name, value in {**ARRAYS, **change}.items() if value is not None}
    np.savez(file, **changed)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"fold-0\.npz: expected .*; the file is damaged: restore"):
        read_fold(file, 3)


def test_predictions_of_folds_are_held_by_a_hash(finished: Path, call: Call) -> None:
    """They decide on thresholds: valid ones of another fit, or none, are damage as well."""
    (file, *_) = sorted((finished / "sim" / "round-2").glob("fold-*.npz"))
    kept = file.read_bytes()
    with np.load(file) as found:
        arrays = dict(found)
    np.savez(file, **{**arrays, "seconds": 1e6})  # type: ignore[arg-type]
    assert call("label", f"root={finished}", "camera=sim", "trainer.threads=1").code == 0
    np.savez(file, **{**arrays, "prob": arrays["prob"][::-1]})  # type: ignore[arg-type]
    before = fingerprints(finished)
    words = (f"root={finished}", "camera=sim", "trainer.threads=1")
    one_line(call("label", *words), file.name, "damaged", "rollback=1")
    assert fingerprints(finished) == before
    file.unlink()
    one_line(call("label", *words), file.name, "no file", "damaged", "rollback=1")
    file.write_bytes(kept)


@pytest.mark.parametrize(
    "header",
    [
        "(" * 20_000, "{'descr': '<f4', 'fortran_order': False, 'shape': (1" + "0" * 15 + ",)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (3,)}", "{}", "\0",
    ],
)  # fmt: skip
def test_a_header_of_an_array_is_not_trusted(tmp_path: Path, header: str) -> None:
    file = tmp_path / "fold-0.npz"
    text = header.encode() + b"\n"
    content = b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("prob.npy", content)
    with pytest.raises(UserError, match=r"fold-0\.npz: expected arrays .* damaged: restore it"):
        read_fold(file, 3)


def test_a_flipped_bit_in_the_arrays_of_a_fold(finished: Path, call: Call) -> None:
    path = finished / "sim" / "round-2" / "fold-0.npz"
    content = bytearray(path.read_bytes())
    content[content.index(b"prob.npy") + 200] ^= 1
    path.write_bytes(content)
    before = fingerprints(finished / "sim" / "labels.lance")
    said = call("label", f"root={finished}", "camera=sim", "trainer.threads=1")
    assert "fold-0.npz" in said.err
    assert said.code == 2
    assert fingerprints(finished / "sim" / "labels.lance") == before


def test_a_draw_of_other_classes_is_damage_before_the_round_goes_on(
    finished: Path, call: Call
) -> None:
    folder = finished / "sim" / "round-2"
    (folder / "round.json").unlink()
    content = json.loads((folder / "increment.json").read_text())
    for changed in ([*content][1:], [*content, "x"]):
        rows = {name: content.get(name, next(iter(content.values()))) for name in changed}
        (folder / "increment.json").write_text(json.dumps(rows))
        said = call("train", f"root={finished}", "camera=sim", "round=2", *SMALL)
        one_line(said, "increment.json is damaged", "the classes", "delete it")


# -- records of videos -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        DEEP, "[]", "{}", '{"id": 3, "name": "a", "path": "b"}', '{"id": "a", "name": "a"}',
        '{"id": "a", "name": "a", "path": "b", "frames": "many"}',
        '{"id": "a", "name": "a", "path": "b", "seconds": {"total": "x"}}',
        '{"id": "a", "name": "a", "path": "b", "objects": [1]}',
        '{"id": "a", "name": "a", "path": "b", "start": true}',
        '{"id": "a", "name": "a", "path": "b", "duration": NaN}',
        '{"id": "a", "name": "a", "path": "b", "faults": [[]]}',
    ],
)  # fmt: skip
def test_a_record_of_a_video_of_wrong_content_is_damage(tmp_path: Path, content: str) -> None:
    spool = Spool(Workspace(tmp_path / "k"))
    good = VideoRecord("a", "a", "b", start=1.5, duration=3, faults=["late"])
    spool.note(good)
    assert spool.record("a") == good
    (spool.videos / "a.json").write_text(content)
    with pytest.raises(UserError, match=r"a\.json is damaged .*: remove it") as caught:
        spool.record("a")
    assert "\n" not in str(caught.value)


def test_a_sealed_file_of_other_columns_is_damage(tmp_path: Path) -> None:
    catalog = Catalog.register(tmp_path, "k", ["car", "ship"])
    spool = Spool(catalog.workspace)
    metadata = {b"collabteam": json.dumps({"id": "a", "name": "a", "path": "b"}).encode()}
    file = spool.incoming / "a.parquet"
    names = {"video": "a", "track": "1", "frame": 1, "time": 1.0, "proposed": "car", "image": b"x"}
    for change in ({"box": None}, {"box": [1, 2, 3, 4], "frame": None}):
        row = {**names, **change}
        kept = {name: [row[name]] for name in row if row[name] is not None or name == "box"}
        pq.write_table(pa.table(kept).replace_schema_metadata(metadata), file)
        with pytest.raises(UserError, match=r"a\.parquet is damaged .*: remove it"):
            commit(catalog, spool)
    assert len(catalog) == 0


# -- what commands keep for themselves -------------------------------------------------------------


def test_a_comparison_of_engines_that_is_damaged_is_made_again(finished: Path, call: Call) -> None:
    words = ("label", f"root={finished}", "camera=sim", "engine=openvino", "precision=fp32")
    assert call(*words).code == 0
    (file,) = (finished / "sim" / "round-2").glob("scores*-check.json")
    good = json.loads(file.read_text())
    for content in ("{", json.dumps({**good, "disagreement": 7}), json.dumps({**good, "x": [1]})):
        file.write_text(content)
        said = call(*words)
        assert said.code == 0, said.err
        assert f"{file.name}: expected" in said.err
        assert "damaged: the engine is compared again" in said.err
        assert json.loads(file.read_text()) == good


@pytest.mark.parametrize(
    "content",
    [{"e\u00e9": ["ana", 1e12]}, {"a": [3, 1e12]}, {"a": ["x" * 999, 1e12]}, {"a": ["ana", "1"]}],
)
def test_sessions_that_cannot_be_are_none(tmp_path: Path, content: dict[str, list[Any]]) -> None:
    file = tmp_path / "sessions.json"
    kept = {name: {"reviewer": who, "expires": at} for name, (who, at) in content.items()}
    file.write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
    sessions = Sessions(file)
    assert sessions.reviewer("x") is None
    assert (cookie := sessions.enter(sessions.invite("ana")))
    assert Sessions(file).reviewer(cookie) == "ana"


@pytest.mark.parametrize("content", [{"done": "x"}, {"total": [1]}, {"left": 1e400}, {"rate": 3}])
def test_a_status_that_cannot_be_is_none(tmp_path: Path, content: dict[str, Any]) -> None:
    file = tmp_path / "0.status"
    good = {"stage": "s", "done": 1.0, "total": 2, "rate": "1/s", "left": 3.0, "time": 4.0}
    file.write_text(json.dumps(good))
    assert read_status(file)
    file.write_text(json.dumps({**good, **content}))
    assert read_status(file) is None


def test_a_checkpoint_with_a_flipped_bit_is_not_continued(tmp_path: Path) -> None:
    """torch reads the weights without a look at their checksums."""
    file = tmp_path / "fit.ckpt"
    said: list[str] = []
    listener = Listener()
    listener.warn = said.append  # type: ignore[method-assign]
    env = FitEnvironment(Device.of(TrainerConfig()), tmp_path, "fold 0", listener)
    state = dict.fromkeys(_STATE, 1) | {"state_dict": {"w": torch.ones(5000)}}
    torch.save(state, file)
    assert _is_readable(file, env)
    content = bytearray(file.read_bytes())
    content[content.index(torch.ones(9).numpy().tobytes()) + 14] ^= 64
    file.write_bytes(content)
    assert not _is_readable(file, env)
    torch.save({"x": 1}, file)
    assert not _is_readable(file, env)
    assert [text.partition(" is damaged")[0] for text in said] == [str(file)] * 2
    assert not file.exists()
