"""What several views of a crop bring a team of a finished round, on crops whose truth is known.

    make demo
    python benchmarks/views.py outputs demo

Scores the same crops of the pool with each value of ``team.views``. *Right at c* is the share of
right labels among the c of the crops that the team is surest about.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from learners import judged
from rich.console import Console
from rich.table import Table

from collabteam.catalog import Catalog
from collabteam.learners.teams import load_team


def main() -> None:
    """Score, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("camera")
    parser.add_argument("--round", type=int, default=0)
    parser.add_argument("--crops", type=int, default=1200)
    asked = parser.parse_args()
    catalog = Catalog.open(asked.root, asked.camera)
    index = catalog.index()
    team = load_team(catalog.workspace.round(asked.round))
    pool = np.flatnonzero(index.unverified() & ~index.held_out)
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(pool, min(asked.crops, len(pool)), replace=False))
    table = Table("views", "consensus", "right", "at 80 %", "at 90 %", "at 100 %", "crops/s")
    for views in ("plain", "mirror", "zoom"):
        team.views = views
        began = time.perf_counter()
        prob = np.concatenate(list(team.score_rows(catalog, rows, 256)))
        speed = len(rows) / (time.perf_counter() - began)
        found = judged(catalog, index, rows, prob)
        names = ("coverage", "consensus", "at80", "at90", "at100")
        table.add_row(views, *(f"{found[name]:.1%}" for name in names), f"{speed:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
