"""Commands of tests as children of a process that has imported the libraries already.

To import torch, Lightning and the rest takes some five seconds of a processor in every process, far
more than what most tests ask of a command. :class:`Forker` starts one process, this module as a
script, which imports them and starts no thread; for each command it forks a child, which takes the
folder, the environment and the standard streams that a fresh process would get, and then does what
``python -m`` does. The child has a number of its own, ends as any process does, and can be killed.

Fresh processes stay where the start itself is tested: imports, launchers, variables of the
environment that libraries read while they are imported.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

IMPORTED = (
    "collabteam.audits.audit", "collabteam.cli.sweep", "collabteam.exporting.folder",
    "collabteam.labelling.label", "collabteam.learners.methods.finetune",
    "collabteam.learners.methods.paper", "collabteam.reporting.fleet_page",
    "collabteam.reporting.terminal", "collabteam.reporting.tracking", "collabteam.rounds.loop",
    "collabteam.simulator.source", "collabteam.web.server", "hydra",
)  # fmt: skip
"""What the children find imported."""
WHENEVER = ("AWS_", "PYTEST_")
"""Variables that no import reads."""
MESSAGE = 1 << 17
FOLDERS: list[Any] = []
"""What libraries will do at the end with temporary folders that they made while imported."""


class Forked:
    """A command in a child of the forker: what tests use of :class:`subprocess.Popen`."""

    def __init__(self, args: list[str], status: int, outlets: list[TextIO | None]) -> None:
        self.args = args
        self._status = status
        self.stdout, self.stderr = outlets
        self.returncode: int | None = None
        line = self._line()
        assert line, "the forker has ended: what it imports must be importable"
        self.pid = int(line)

    def _line(self) -> bytes:
        return os.read(self._status, 16)

    def poll(self) -> int | None:
        return self._ended(0)

    def _ended(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], seconds)[0]:
            said = self._line()
            os.close(self._status)
            # Without a word the forker has ended, which nobody but a broken test brings about.
            self.returncode = int(said) if said else -signal.SIGKILL
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read both streams to their ends and wait; can be called again after a timeout."""
        until = None if timeout is None else time.monotonic() + timeout
        if not hasattr(self, "_readers"):
            self._said = {}
            self._readers = [
                threading.Thread(target=self._read, args=(number, stream), daemon=True)
                for number, stream in enumerate((self.stdout, self.stderr))
                if stream is not None
            ]
            for reader in self._readers:
                reader.start()
        for reader in self._readers:
            reader.join(None if until is None else max(0.0, until - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(None if until is None else max(0.0, until - time.monotonic()))
        return self._said.get(0, ""), self._said.get(1, "")

    def _read(self, number: int, stream: TextIO) -> None:
        with stream:
            self._said[number] = stream.read()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class Forker:
    """The process that forks.

    Args:
        environment: Of the process; commands may differ from it in variables that no import reads.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = _read_by_imports(environment)
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(its.fileno())], env=dict(environment),
                pass_fds=[its.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip
        self._asked = mine

    def takes(self, environment: Mapping[str, str]) -> bool:
        """Whether a command with this environment would be what a fresh process is."""
        return _read_by_imports(environment) == self._environment

    def start(
        self,
        module: str,
        words: list[str],
        cwd: Path,
        environment: Mapping[str, str],
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        session: bool = False,
    ) -> Forked:
        """Start ``python -m MODULE WORDS`` in a folder, with nothing to read.

        Args:
            module: The module.
            words: Its command line.
            cwd: The folder.
            environment: All variables; :meth:`takes` must be true of them.
            stdout: ``PIPE`` or ``DEVNULL``.
            stderr: The same.
            session: Whether it gets a session of its own.
        """
        read, status = os.pipe()
        nowhere = os.open(os.devnull, os.O_RDWR)
        theirs, outlets = [nowhere], list[TextIO | None]()
        for kind in (stdout, stderr):
            if kind == subprocess.PIPE:
                end, other = os.pipe()
                outlets.append(os.fdopen(end, encoding="utf-8"))
                theirs.append(other)
            else:
                outlets.append(None)
                theirs.append(os.dup(nowhere))
        asked = {"module": module, "words": words, "cwd": str(cwd), "session": session}
        message = json.dumps(asked | {"environment": dict(environment)}).encode()
        assert len(message) < MESSAGE
        socket.send_fds(self._asked, [message], [*theirs, status])
        for descriptor in (*theirs, status):
            os.close(descriptor)
        return Forked([sys.executable, "-m", module, *words], read, outlets)

    def close(self) -> None:
        """Let the process end; it waits for no child."""
        self._asked.close()
        self._process.wait()


def _read_by_imports(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in environment.items() if not name.startswith(WHENEVER)}


# -- in the process that forks ---------------------------------------------------------------------


def serve(asked: socket.socket) -> dict[str, Any] | None:
    """Fork for each command until nobody can ask any more.

    Returns:
        In a child what to run; in the forker None, at its end.
    """
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    # Ctrl-C is for the commands, and they get it as well.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    before = signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    running: dict[int, int] = {}
    gc.collect()
    gc.freeze()
    while True:
        ready = select.select([asked, woken], [], [])[0]
        if woken in ready:
            os.read(woken, 4096)
            for pid, code in _ended(running):
                status = running.pop(pid)
                os.write(status, str(code).encode())
                os.close(status)
        if asked in ready:
            message, descriptors, _, _ = socket.recv_fds(asked, MESSAGE, 4)
            if not message:
                return None
            *streams, status = descriptors
            child = os.fork()
            if not child:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, before)
                # Whoever started the tests in the background has Ctrl-C ignored; a command has not.
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for number, descriptor in enumerate(streams):
                    os.dup2(descriptor, number)
                for descriptor in (*streams, status, *running.values(), woken, wakes):
                    os.close(descriptor)
                asked.close()
                return dict(json.loads(message))
            os.write(status, str(child).encode())
            running[child] = status
            for descriptor in streams:
                os.close(descriptor)


def _ended(running: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    for pid in list(running):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            yield pid, os.waitstatus_to_exitcode(status)


def become(command: dict[str, Any]) -> None:
    """Make this process what a fresh one would be, and run the module."""
    if command["session"]:
        os.setsid()
    # Temporary folders of libraries belong to the forker; another command needs them, too.
    finalizers: Any = weakref.finalize
    for one in list(finalizers._registry):
        one.atexit = False
    for handler in FOLDERS:
        atexit.unregister(handler)
    os.chdir(command["cwd"])
    os.environ.clear()
    os.environ.update(command["environment"])
    sys.path[0] = command["cwd"]
    sys.argv = ["-m", *command["words"]]
    import numpy as np

    np.random.seed(random.SystemRandom().getrandbits(32))  # Python's own forgets by itself
    runpy.run_module(command["module"], run_name="__main__", alter_sys=True)


def main() -> None:
    """Import, serve, and in each child run a command."""
    from importlib import import_module

    from collabteam.environment import settle

    settle()
    its: Any = atexit
    register = its.register

    def noted(handler: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(getattr(handler, "__self__", None), tempfile.TemporaryDirectory):
            FOLDERS.append(handler)
        return register(handler, *args, **kwargs)

    its.register = noted
    for name in IMPORTED:
        import_module(name)
    its.register = register
    with warnings.catch_warnings():
        # It has no thread, and so none that a child could wait for.
        warnings.filterwarnings("ignore", message="lance is not fork-safe")
        command = serve(socket.socket(fileno=int(sys.argv[1])))
    if command is not None:
        become(command)


if __name__ == "__main__":
    main()
