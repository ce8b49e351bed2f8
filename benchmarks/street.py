"""Make one Parquet file of the street crops, with a test set of consecutive pictures.

The pictures come from several sources and are numbered within each; neighbours often show the same
vehicle. So the frozen test set is the middle of every fifth group of ten neighbours rather than a
random sample; two crops at either end of such a group are left out. The groups are not used as
tracks, because then only one crop in ten could be drawn. As a result, folds separate neighbours and
the fold scores are too optimistic.

    python benchmarks/street.py FOLDER/crops/street street.parquet
    python -m collabteam.ingest camera=street path=street.parquet
    python -m collabteam.train camera=street round=2 experiment=scratch reviewer=oracle \
        seed_per_class=200 increment_per_class=100
"""

from __future__ import annotations

import re
import sys
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def numbered(path: Path) -> tuple[str, list[int]]:
    """Return a picture's source and its number within the source."""
    source, _, rest = path.stem.partition("__")
    return source, [int(digits) for digits in re.findall(r"\d+", rest)]


def main(folder: Path, to: Path) -> None:
    rows = []
    for directory in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = sorted(directory.glob("*.jpg"), key=numbered)
        for _, group in groupby(files, key=lambda path: numbered(path)[0]):
            for position, file in enumerate(group):
                is_test = position // 10 % 5 == 4
                if is_test and not 2 <= position % 10 < 8:
                    continue
                rows.append(
                    {
                        "image": file.read_bytes(),
                        "proposed": directory.name,
                        "truth": directory.name,
                        "split": "test" if is_test else "pool",
                    }
                )
    pq.write_table(pa.Table.from_pylist(rows), to)
    print(f"{to}: {len(rows)} crops")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
