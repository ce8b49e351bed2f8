"""How commands end: codes, one line for each error, and output that cannot be printed."""

from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Call, environment
from hypothesis import given
from hypothesis import strategies as st

from collabteam import compact
from collabteam.cli.endings import FAULT
from collabteam.cli.outcome import Outcome
from collabteam.errors import plain
from collabteam.reporting.terminal import SweepMonitor, Terminal

Broken = Callable[[BaseException], None]


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Broken:
    """Let the work of ``compact`` end with an exception."""

    def let(error: BaseException) -> None:
        def run(config: Any, listener: Any) -> Outcome:
            raise error

        monkeypatch.setattr(compact, "main", dataclasses.replace(compact.main, run=run))

    return let


def test_a_fault_of_ours_is_told_from_everything_else(
    root: Path, call: Call, broken: Broken
) -> None:
    broken(KeyError("x\n\x1b[31mforged"))
    words = (
        "camera=sim",
        f"root={root}",
        "++camera.footage.start=https://me:secret@host/?token=t1",
    )
    said = call("compact", *words)
    assert said.code == FAULT == 70
    (line,) = said.err.splitlines()
    assert line.startswith("compact: a fault of collabteam: KeyError: 'x\\n\\x1b[31mforged'; ")
    (report,) = root.glob("fault-compact-*.txt")
    assert line.endswith(str(report))
    assert report.stat().st_mode & 0o077 == 0
    text = report.read_text()
    for part in ("camera=sim", "test_endings.py", "KeyError", "torch 2", "Python 3"):
        assert part in text
    assert "secret" not in text
    assert "t1" not in text.split("camera.footage.start=")[1].splitlines()[0]


def test_a_fault_in_a_sweep(root: Path, call: Call, broken: Broken) -> None:
    broken(ZeroDivisionError("of ours"))
    said = call("compact", "-m", "camera=sim", f"root={root}")
    assert said.code == FAULT
    assert "a fault of collabteam: ZeroDivisionError: of ours" in " ".join(said.out.split())
    assert "Traceback" in next(root.glob(".sweeps/*/0.log")).read_text()


def test_no_folder_takes_the_report(
    root: Path, call: Call, broken: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(KeyError("x"))
    monkeypatch.setattr("tempfile.mkstemp", lambda *where: os.open("/proc/none", os.O_RDONLY))
    said = call("compact", "camera=sim", f"root={root}")
    assert said.code == FAULT
    assert "test_endings.py:" in said.err
    assert "no folder could take its report" in said.err


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError("Unable to allocate 9 TiB"), "the memory does not suffice: Unable to"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: x"), "memory"),
        (
            OSError(errno.EROFS, "Read-only file system", "/mnt/x"),
            "/mnt/x cannot be used: Read-only file system",
        ),
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
    ],
)
def test_what_the_machine_lacks_is_no_fault_of_ours(
    root: Path, call: Call, broken: Broken, error: Exception, expected: str
) -> None:
    broken(error)
    said = call("compact", "camera=sim", f"root={root}")
    assert said.code == 2
    assert expected in said.err
    assert len(said.err.splitlines()) == 1
    assert not list(root.glob("fault-*"))


def test_an_interrupt_has_a_code_of_its_own(root: Path, call: Call, broken: Broken) -> None:
    broken(KeyboardInterrupt())
    said = call("compact", "camera=sim", f"root={root}")
    assert (said.code, said.err) == (
        130, "compact: interrupted; run the same command again to continue\n",
    )  # fmt: skip


def test_nothing_can_be_written_but_the_root(
    root: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def without_folder() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TMPDIR", "/none")
    monkeypatch.setenv("MPLCONFIGDIR", "/none")
    monkeypatch.setattr("tempfile.gettempdir", without_folder)
    monkeypatch.setattr("atexit.register", lambda remove, folder, **_: made.append(folder))
    assert call("compact", "camera=sim", f"root={root}").code == 0
    assert [Path(folder).parent for folder in made] == [root]
    assert os.environ["TMPDIR"] == made[0]
    nowhere = call("compact", "camera=sim", f"root={root}/none")
    assert "no camera 'sim'" in nowhere.err


def test_no_folder_for_temporary_files(root: Path, call: Call, broken: Broken) -> None:
    broken(FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"))
    said = call("compact", "camera=sim", f"root={root}")
    assert (said.code, len(said.err.splitlines())) == (2, 1)
    assert "set TMPDIR to a folder" in said.err


def test_a_launcher_for_what_does_not_take_one(root: Path, call: Call) -> None:
    said = call("compact", "-m", "camera=sim", f"root={root}", "hydra/launcher=joblib")
    assert said.code == 2
    assert "hydra/launcher=joblib: the jobs of compact follow one another" in said.err


# --- output ------------------------------------------------------------------------------------


def shell(line: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env={**environment(), **variables}, text=True,
        capture_output=True, timeout=120, check=False, errors="replace",
    )  # fmt: skip


COMMAND = f"{sys.executable} -m collabteam"


def test_a_reader_that_goes_away(root: Path) -> None:
    done = shell(f"{COMMAND} | head -1; echo ${{PIPESTATUS[0]}}", root.parent)
    assert done.stdout == "commands, each with --help:\n0\n"
    assert done.stderr == ""
    # The work goes on when the reader of its progress has gone.
    done = shell(f"{COMMAND} compact camera=sim 2>&1 | true; echo ${{PIPESTATUS[0]}}", root.parent)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_a_failure_of_standard_error_changes_no_exit_code(root: Path) -> None:
    done = shell(f"{COMMAND} compact camera=none 2> /dev/full", root.parent)
    assert done.returncode == 2


def test_a_full_disk_for_the_output_is_an_error(root: Path) -> None:
    done = shell(f"{COMMAND} > /dev/full", root.parent)
    assert done.returncode == 2
    assert done.stderr.startswith("collabteam: the disk is full: ")
    assert len(done.stderr.splitlines()) == 1


def test_closed_streams(root: Path) -> None:
    done = shell(f"{COMMAND} compact camera=sim >&- 2>&- <&-", root.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_encoding_without_our_letters(finished: Path, encoding: str) -> None:
    there = finished.rename(finished.with_name("é (日本)"))
    line = f"{COMMAND} report camera=sim 'root={there.name}'"
    done = shell(line, there.parent, PYTHONIOENCODING=encoding, COLUMNS="20", TERM="dumb")
    assert done.returncode == 0, done.stderr
    assert "\\u65e5\\u672c" in done.stdout
    assert "of all" in done.stdout  # the last column of Table 1, though the terminal is narrow


@pytest.mark.parametrize("columns", ["1", "20", "79", "200"])
def test_the_reason_of_a_failure_never_leaves_the_table(
    tmp_path: Path,
    columns: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    reason = "the disk [bold]is[/bold] :smile: full\x1b[31m\nforged " + "and so on " * 20
    for name in ("c", "c" * 64, f"{'c' * 64} (seed-1_team.joint-min)"):
        watch = SweepMonitor("train", [name, "other"], lambda number: ("failed", "x"))
        watch.table([("failed", 5000.0, reason), ("done", 1.0, "fine")], tmp_path)
        out = capsys.readouterr().out
        words = "".join(out.split())
        assert "".join(plain(reason).split()) in words
        assert name.split()[0] in words
        assert "failed" in words
        assert "83:20" in words
        assert "\x1b" not in out
        assert "\nforged" not in out


def test_text_from_outside_is_only_text(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().warn("[red]:car:[/red] \x1b]0;title\x07 \u202egnp.exe\nforged: done")
    said = capsys.readouterr().err
    assert said == ("warning: [red]:car:[/red] \\x1b]0;title\\x07 \\u202egnp.exe\\nforged: done\n")


@given(st.text(max_size=60))
def test_a_plain_text_is_one_harmless_line(text: str) -> None:
    shown = plain(text)
    assert len(shown.splitlines()) <= 1
    shown.encode()
    assert not {"\x1b", "\x9b", "\u202e", "\u2066", "\u200f", "\x07"} & set(shown)
    if text.isprintable():
        assert shown == text


def test_a_long_text_keeps_both_ends() -> None:
    shown = plain("a" * 50_000 + "remedy")
    assert len(shown) < 5_000
    assert shown.startswith("aaa")
    assert shown.endswith("aremedy")
