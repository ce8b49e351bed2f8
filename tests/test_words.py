"""Words of a command line: what Hydra would take in quotes only, and what it cannot take at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from conftest import Call, one_line
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from collabteam.cli.words import quoted, read_words, texts
from collabteam.errors import UserError
from collabteam.settings import CommandConfig

ROOTS = [
    "out (1)",
    "josé",
    "a & b",
    "x=y",
    "it's",
    "1e3",
    "0x1",
    "[br]",
    "{a}",
    "007",
    "true",
    "日本",
]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40))
@example("\\'${oc.env:HOME}\\\\${x}\\")
def test_what_is_quoted_arrives_as_it_is(text: str) -> None:
    override = OverridesParser.create().parse_override(f"root={quoted(text)}")
    assert OmegaConf.create({"root": override.value()}).root == text
    assert "${" in text or texts(quoted(text)) == [text]


@pytest.mark.parametrize("root", ROOTS)
def test_a_text_needs_no_quotes_of_its_own(root: str) -> None:
    for flags in ([], ["-m"]):
        *_, word = read_words(CommandConfig, [*flags, f"root={root}"], {})
        assert OverridesParser.create().parse_override(word).value() == root
        *_, word = read_words(CommandConfig, [*flags, f"root={quoted(root)}"], {})
        assert OverridesParser.create().parse_override(word).value() == root


def test_any_folder_can_be_a_root(root: Path, tmp_path: Path, call: Call) -> None:
    """In every kind of run: one camera, a sweep, a page, and the words that sweeps alone read."""
    there = tmp_path / "it's (1), é"
    root.rename(there)
    typed = f"root='{str(there).replace(chr(39), chr(92) + chr(39))}'"  # for its comma alone
    assert f"in {there}/sim" in call("compact", "camera=sim", typed).out
    assert "1 done" in call("compact", "-m", "camera=glob(*)", typed).out
    page = tmp_path / "pages & more" / "of (all).html"
    page.parent.mkdir()
    done = call("report", "camera=glob(*)", typed, "format=html", f"to={page}")
    assert (done.code, page.is_file()) == (0, True), done.err
    one_line(call("compact", "camera=sim", "root=a,b"), "needs -m", "root=\"'a,b'\"")
    one_line(call("compact", "-m", "camera=sim", "root=a,(b"), "needs quotes of its own")


def test_a_tilde_is_the_home_folder(
    root: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(root, tmp_path / "home" / "o")
    for words in (["camera=sim"], ["-m", "camera=glob(*)"]):
        assert call("compact", "root=~/o", *words).code == 0
    done = call("report", "camera=sim", "root=~/o", "format=html", "to=~/o/page.html")
    assert done.code == 0, done.err
    assert (tmp_path / "home" / "o" / "page.html").is_file()
    one_line(call("ingest", "camera=new", "root=~/o", "path=~/no"), f"{tmp_path}/home/no")
    assert not list(tmp_path.glob("~*"))
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    one_line(call("compact", "camera=sim", "root=~/o"), "no home folder")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["camera=sim,sim"], "camera=sim,sim: several cameras are a sweep: add -m"),
        (["camera=[a,b]"], "several are camera=a,b with -m"),
        (["camera={a: 1}"], "camera={a: 1}: expected the name of a camera"),
        (["camera=sim,,sim"], "expected a value on each side of every comma"),
        (["-m", "camera=sim,"], "expected a value on each side of every comma"),
        (["-m", "camera=sim", "seed=1,,2"], "expected a value on each side of every comma"),
        (["camera=sim", "optim.epochs=1e1"], "optim.epochs=1e1: expected a whole number, 1 to"),
        (["-m", "camera=sim", "optim.epochs=1e1,2"], "optim.epochs=1e1: expected a whole number"),
        (["-m", "camera=sim", "hydra.sweep.dir=x"], ".sweeps under the root: leave it out"),
        (["camera=sim", "hydra.job.chdir=true"], "relative to the folder in which you start"),
        (["camera=sim", "++hydra.job.chdir=1"], "relative to the folder in which you start"),
        (["camera=sim", "hydra.mode=MULTIRUN"], "-m makes a sweep"),
        (["camera=sim", "--multi"], "--multi: no such flag; nearest: --multirun"),
        (["camera=sim", "--cfg"], "--cfg : expected --cfg job|hydra|all"),
        (["camera=sim", "logger=false"], "logger=false: expected one of csv, none, wandb"),
        (["camera=sim", "logger=[csv]"], "logger=[csv]: expected one of csv, none, wandb"),
        (
            ["camera=sim", "experiment='1'"],
            "experiment=1: expected one of demo, paper, quick, scratch",
        ),
        (["camera=sim", "runtime=1"], "runtime=1: expected one of core, gpu"),
        (["camera=sim", "trainer.threads=2147483648"], "expected 0 to 1024"),
        (["camera=sim", f"seed={10**29}"], "expected a number below 2^63"),
        (["camera=sim", f"seed={'9' * 5000}"], "999 ... 999"),
        (["camera=sim", f"optim.lr=-{'9' * 5000}"], "expected 1e-08 or more"),
        (["camera=sim", "round=1__0"], "round=1__0: expected a whole number, 0 or more"),
        (["camera=sim", "data.train_folds=${oc.env:HOME}"], "expected a list, as in [a,b]"),
        (["camera=sim", "data.train_folds=[1,"], "quotes of its own"),
        (["camera=sim", "logger.project=\udcff"], "logger.project=\\udcff: expected text"),
        (["camera=sim", "root=\udcff"], "whose name is text in UTF-8"),
        (["camera=sim", "data.folds\n=3\x1b[31m"], "data.folds\\n"),
    ],
)
def test_it_is_answered_in_our_words(
    root: Path, call: Call, words: list[str], expected: str
) -> None:
    where = [] if any(word.startswith("root=") for word in words) else [f"root={root}"]
    one_line(call("train", *where, *words), expected)


def test_the_settings_of_a_sweep_are_those_of_its_first_job(root: Path, call: Call) -> None:
    shutil.copytree(root / "sim", root / "abc")
    (root / "abc" / "camera.yaml").write_text("name: abc\nclasses: [a, b]\n")
    words = ("-m", "camera=glob(*)", f"root={root}", "seed=5,6", "optim.lr=0.2,0.3")
    said = call("train", *words, "--cfg", "job")
    assert (said.code, said.err) == (0, "train: the settings of job 1 of 8:\n")
    assert "name: abc" in said.out
    assert "seed: 5" in said.out
    assert "lr: 0.2" in said.out
    assert call("train", *words, "--cfg=job").out == said.out
    assert not (root / ".sweeps").exists()


def test_a_folder_that_was_removed(tmp_path: Path, call: Call) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    before = Path.cwd()
    try:
        os.chdir(gone)
        gone.rmdir()
        one_line(call("compact", "camera=sim"), "the working directory was removed")
    finally:
        os.chdir(before)


def test_a_word_is_not_read_twice() -> None:
    with pytest.raises(UserError, match="expected name=value"):
        read_words(CommandConfig, ["root"], {})
