"""A hostile campaign: random inputs, kills and doors, and a table of what was tried and what fell.

    python benchmarks/hostile.py --minutes 60                  # a third of it for each kind
    python benchmarks/hostile.py --only inputs --first 17 --count 1      # one attempt again

``tests/hostile/campaign.py`` says what an attempt of each kind is, and what must not happen. Every
attempt has a number, from which all that is random in it follows, but for the moment at which the
system ends a killed process. Exit code 1 if anything fell.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS / "hostile"), str(TESTS)]

SHARES = {"inputs": 0.3, "kills": 0.4, "store kills": 0.2, "doors": 0.1}
"""Kinds, and their shares of the time."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--only", choices=SHARES, help="one kind alone")
    parser.add_argument("--first", type=int, default=0, help="number of the first attempt")
    parser.add_argument("--count", type=int, default=0, help="attempts of each kind; 0: by time")
    given = parser.parse_args()
    kinds = [given.only] if given.only else list(SHARES)
    whole = sum(SHARES[kind] for kind in kinds)
    budget = {kind: 60 * given.minutes * SHARES[kind] / whole for kind in kinds}
    spent = dict.fromkeys(kinds, 0.0)
    began: dict[str, float] = {}

    def is_done(kind: str, tried: int) -> bool:
        spent[kind] = time.monotonic() - began.setdefault(kind, time.monotonic())
        return tried >= given.count if given.count else spent[kind] >= budget[kind]

    store = subprocess.Popen(
        [sys.executable, str(TESTS / "s3_server.py")], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder, Progress(console=console) as progress:
        try:
            assert store.stdout is not None
            url = f"http://127.0.0.1:{int(store.stdout.readline())}"
            urllib.request.urlopen(urllib.request.Request(f"{url}/cameras", method="PUT"))
            os.environ |= {
                "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "key", "AWS_REGION": "us-east-1",
                "AWS_SECRET_ACCESS_KEY": "secret", "XDG_CACHE_HOME": f"{folder}/cache",
                "MPLCONFIGDIR": f"{folder}/plots",
            }  # fmt: skip
            # Only now: commands are forked from a process with the environment of this import.
            from campaign import Tally, campaign, trained_camera

            tallies = {kind: Tally() for kind in kinds}
            base = Path(folder)
            (base / "trained").mkdir()
            (base / "tries").mkdir()
            task = progress.add_task("training a camera", total=None)
            trained = trained_camera(base / "trained")
            for kind, tally in campaign(
                base / "tries", trained, kinds, is_done, given.first, "s3://cameras", 12
            ):
                tallies[kind] = tally
                total = given.count or budget[kind]
                done = tally.tried if given.count else spent[kind]
                what = f"{kind}: {tally.tried} tried, {len(tally.fell)} fell"
                progress.update(task, description=what, total=total, completed=done)
        finally:
            store.kill()

    table = Table("kind", "tried", "kills", "fell", "seconds", "how they ended")
    for kind, tally in tallies.items():
        ended = ", ".join(f"{name} {count}" for name, count in tally.ended.most_common())
        table.add_row(
            kind,
            str(tally.tried),
            str(tally.kills),
            str(len(tally.fell)),
            f"{spent[kind]:.0f}",
            ended,
        )
    Console().print(table)
    for kind, tally in tallies.items():
        for fell in tally.fell:
            print(f"{kind}: {fell}", file=sys.stderr)
    return int(any(tally.fell for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
