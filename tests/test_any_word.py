"""No word of any command ends in a traceback: seeded words for every setting, in this process."""

from __future__ import annotations

import dataclasses
import io
import random
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore

from collabteam.catalog import Catalog
from collabteam.cli.commands import commands
from collabteam.cli.outcome import Outcome
from collabteam.settings.fields import settings_of

VALUES = [
    *("", "1", "-1", "0", "1.5", "1e1", "1e999", "nan", "-inf", "true", "null", "a", "a,b"),
    *("9" * 30, "-" + "9" * 30, "9" * 5000, "2147483648", "18446744073709551616", "0x10", "1_0"),
    *(
        "[",
        "]",
        "[]",
        "[a,b]",
        "[1,[2,[3]]]",
        "{}",
        "{a: 1}",
        "{name: x}",
        "(",
        ")",
        "f(x)",
        "f(1,",
    ),
    *("${", "${x}", "${oc.env:HOME}", "${oc.env:NOT_THERE}", "${camera}", "${.}", "\\${a}", "$"),
    *("'", '"', "'a'", "'a,b'", '"a', "it's", "\\", "a\\,b", "a\nb", "\x1b[31mred", "\u202eback"),
    *("\udcff", "é", "日本", "😀", "a" * 3000, "[" * 300, "{a:" * 90, "???", "-1e400", "~", "~/a"),
    *(
        "choice(1,2)",
        "range(0,3)",
        "glob(*)",
        "interval(0,1)",
        "sort(3,1)",
        "tag(a,1)",
        "a=b",
        "=x",
    ),
    *("!!int x", "2020-02-31", "1:30", "s3://", "s3://a b/", "gs://x", "/dev/null", "..", "a:b"),
    *("package.module:Class", "os:system", "collabteam.errors:UserError", ":", "a" * 70),
]
WORDS = [
    *("=", "==", "x", "x=", "+=", "++", "~", "~x", "~camera", "~optim", "~root", "~experiment"),
    *("--cfg", "--cfg=job", "--info", "-m", "--multirun", "-x", "--", "-", "--root=a", "-c"),
    *("~hydra/launcher", "~hydra", "~hydra.job", "hydra.sweeper.max_batch_size=0"),
    *("hydra=1", "hydra/launcher=1", "hydra/launcher=[a]", "hydra/launcher=nothing"),
    *("hydra.verbose=1", "hydra.run.dir=[]", "hydra.job.name={}", "hydra/output=x", "hydra.x=1"),
    *("hydra.sweeper.max_batch_size=x", "hydra.launcher.n_jobs=x", "hydra.sweep.dir=x"),
    *(
        "camera@x=sim",
        "camera@=sim",
        "a@b@c=1",
        "a/b=1",
        "optim=1",
        "optim={lr: [}",
        "trainer=null",
    ),
    *("camera.name=../x", "camera.name=", "camera={name: a}", "++camera.classes=1", "+a.b.c=1"),
    *("camera.footage.region=[[0,0],[a]]", "camera.footage=null", "camera.footage={x: 1}"),
    *("learner=1", "learner={name: paper, x: 1}", "learner.name=1", "learner.x.y=1", "learner=[]"),
    *("team.vote=x:y", "team.vote.name=", "selection={}", "selection.name=null", "format=1:2"),
]
EVERY = commands()


def nothing(config: Any, listener: Any) -> Outcome:
    """In place of the work: what the settings are is all that counts here."""
    listener.say(str(config))
    return Outcome(str(config))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("words") / "outputs"
    for name in ("sim", "other"):
        Catalog.register(root, name, ["car", "ship"])
    return root


def tried(seed: int) -> Iterator[tuple[str, list[str]]]:
    """Commands with words: every setting with every kind of value in turn, and odd words."""
    rng = random.Random(seed)
    while True:
        name = rng.choice(list(EVERY))
        settings = list(settings_of(EVERY[name].schema).values())
        options = [*EVERY[name].options(), "experiment", "logger", "runtime"]
        words = ["camera=sim"] if rng.random() < 0.9 else []
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            kind = rng.random()
            if kind < 0.65:
                word = f"{rng.choice(settings).typed}={rng.choice(VALUES)}"
            elif kind < 0.8:
                word = f"{rng.choice(options)}={rng.choice(VALUES)}"
            else:
                word = rng.choice(WORDS)
            words.append(rng.choice(("", "", "", "", "", "+", "++")) + word)
        if rng.random() < 0.15:
            words.insert(0, "-m")
        yield name, words


def said_to(place: Path, name: str, words: list[str]) -> tuple[int, str]:
    """The exit code of a command that does not work, and all that it prints."""
    ConfigStore.instance().repo.pop("camera", None)
    printed = io.StringIO()
    before = sys.argv
    sys.argv = [f"collabteam.{name}", f"root={place}", *words]
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            dataclasses.replace(EVERY[name], run=nothing)()
    except SystemExit as end:
        return int(end.code or 0), printed.getvalue()
    finally:
        sys.argv = before
    raise AssertionError("a command ends by sys.exit")


def check_answer(place: Path, name: str, words: list[str]) -> None:
    code, text = said_to(place, name, words)
    case = f"{name} {words}: {code}\n{text[:3000]}"
    assert code in (0, 1, 2), case
    assert code != 1 or "-m" in words or "--multirun" in words, case
    assert "Traceback" not in text, case
    assert not {"\x1b", "\u202e", "\r"} & set(text), case
    # What is wrong is said in one line, which is not longer than a screen.
    if code == 2:
        assert len([line for line in text.splitlines() if line.startswith(f"{name}: ")]) >= 1, case
        assert len(text.splitlines()) <= 3, case
        assert len(text) < 5000, case


@pytest.mark.parametrize("seed", range(4))
def test_words_are_answered(place: Path, tmp_path: Path, seed: int, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    cases = tried(seed)
    for _ in range(40):
        check_answer(place, *next(cases))


@pytest.mark.parametrize("word", WORDS)
def test_odd_words_are_answered(place: Path, tmp_path: Path, word: str, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    check_answer(place, "train", ["camera=sim", word])
