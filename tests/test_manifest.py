"""A strange ``camera.yaml``, or a folder that is no camera, stops nobody else and is named."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from conftest import Call, one_line

from collabteam.catalog import Catalog
from collabteam.cli import console
from collabteam.errors import UserError
from collabteam.monitoring.progress import progress
from collabteam.storage.manifest import find_manifests, read_manifest

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)
STRANGE = {
    "dates": "name: dates\nclasses: [2020-01-01, 2020-02-03]\n",
    "no-date": "name: no-date\nclasses: [2020-02-31, b]\n",
    "dollar": "name: dollar\nclasses: ['${oc.env:SECRET}', b]\n",
    "bomb": f"{BOMB}name: bomb\nclasses: *i\n",
    "deep": "[" * 20_000,
    "braces": "{a: " * 5_000,
    "long": f"name: long\nclasses: [a, b]\n# {'x' * 100_000}\n",
    "tag": "name: tag\nclasses: [!!int '', b]\n",
    "truth": "name: truth\nclasses: [!!bool x, b]\n",
    "object": "name: !!python/object/apply:os.system ['true']\nclasses: [a, b]\n",
    "number": f"name: number\nclasses: [{'9' * 5000}, b]\n",
    "nul": "name: nul\nclasses: [a\0, b]\n",
    "other": "name: k\nclasses: [a, b]\n",
    "two": "name: two\nclasses: [a, b]\n---\nname: two\n",
    "escape": 'name: "escape\\e[31m\\nforged"\nclasses: [a, b]\n',
    "text": "classes",
    "empty": "",
}
NAMES = ("k (1)", "k copy", "k,old", "${oc.env:SECRET}", "k\n\x1b[31mforged", "it's", "1e3")


@pytest.fixture
def strange(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with a camera, and beside it whatever can be called ``camera.yaml``."""
    monkeypatch.setenv("SECRET", "hunter2")
    for name, content in STRANGE.items():
        (root / name).mkdir()
        (root / name / "camera.yaml").write_text(content)
    (root / "latin").mkdir()
    (root / "latin" / "camera.yaml").write_bytes(b"name: latin\nclasses: [\xe9, b]\n")
    for name in NAMES:
        (root / name).mkdir()
        (root / name / "camera.yaml").write_bytes((root / "sim" / "camera.yaml").read_bytes())
    for name in ("pipe", "folder", "endless"):
        (root / name).mkdir()
    os.mkfifo(root / "pipe" / "camera.yaml")
    (root / "folder" / "camera.yaml").mkdir()
    (root / "endless" / "camera.yaml").symlink_to("/dev/zero")
    return root


DAMAGED = (*STRANGE, "latin", "pipe", "folder", "endless")


def test_one_reader_with_limits(strange: Path) -> None:
    found = find_manifests(strange)
    assert set(found.cameras) == {"sim", *DAMAGED}
    assert set(found.passed_over) == set(NAMES)
    for name in DAMAGED:
        began = time.monotonic()
        with pytest.raises(UserError, match=r"camera\.yaml is damaged") as raised:
            read_manifest(found.cameras[name])
        assert time.monotonic() - began < 2, name
        said = str(raised.value)
        assert len(said) < 600
        assert said.isprintable()
        assert "hunter2" not in said
        assert progress(strange / name).state == f"damaged: {said}"
        with pytest.raises(UserError):
            Catalog.open(strange, name)
    assert read_manifest(found.cameras["sim"]) == ["cyclist", "motorcyclist", "pedestrian"]


def test_a_few_aliases_are_plain_yaml(tmp_path: Path) -> None:
    (tmp_path / "k").mkdir()
    file = tmp_path / "k" / "camera.yaml"
    file.write_text("mine: &mine [car, ship]\nname: k\nclasses: *mine\n")
    assert read_manifest(file) == ["car", "ship"]


def test_nobody_else_is_stopped(strange: Path, call: Call, tmp_path: Path) -> None:
    one = call("compact", f"root={strange}", "camera=sim")
    assert one.code == 0, one.err
    page = tmp_path / "page.html"
    words = (f"root={strange}", "camera=glob(*)")
    said = call("report", *words, "format=html", f"to={page}")
    assert said.code == 0, said.err
    text = page.read_text()
    for name in (*DAMAGED, "k (1)", "k copy", "k,old", "${oc.env:SECRET}"):
        assert name in text, name
    swept = call("compact", "-m", *words)
    assert swept.code == 1
    assert f"1 done, 0 skipped, {len(DAMAGED)} failed" in swept.out
    for name in DAMAGED:
        assert f"\n  {name} " in swept.out
    one_line(call("compact", f"root={strange}", "camera=pipe"), "camera.yaml is damaged")
    for printed in (said.err, swept.err):
        for name in ("k (1)", "k copy", "k,old", "k\\n\\x1b[31mforged"):
            assert f"{name}: passed over" in printed
    assert "hunter2" not in text
    for printed in (said.out + said.err, swept.out + swept.err):
        assert "hunter2" not in printed
        assert "\x1b" not in printed
        assert "\nforged" not in printed


def test_the_list_names_them(
    strange: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["collabteam", f"root={strange}"])
    with pytest.raises(SystemExit) as ended:
        console.main()
    assert not ended.value.code
    said = capsys.readouterr().out
    assert "next: collabteam review camera=sim root=" in said
    for name in DAMAGED:
        assert f"\n  {name} " in said
    assert "k (1): passed over, because 'k (1)' is not a camera's name" in said
    assert "hunter2" not in said
    assert "\x1b" not in said
    assert "\nforged" not in said


def test_a_pipe_is_not_replaced(strange: Path, call: Call) -> None:
    said = call("ingest", f"root={strange}", "camera=pipe", f"path={strange}")
    one_line(said, "something that is not a file")
    assert (strange / "pipe" / "camera.yaml").is_fifo()
