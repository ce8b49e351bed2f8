"""What a second busy process costs a training step on all cores, with and without spinning threads.

    python benchmarks/threads.py

A loop of training steps (EfficientNet-Lite0, 96 px, batches of 32, fp32) runs alone and beside
busy processes of one thread, once for each policy of OpenMP. The table has crops a second and the
share of the rate that the same policy has alone. Commands of collabteam set ``PASSIVE``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

from rich.console import Console
from rich.table import Table

STEPS = """
import sys, time
import torch
from collabteam.features.backbones import Backbone
torch.set_num_threads(int(sys.argv[1]))
network = Backbone("tf_efficientnet_lite0", 96).network(3).train()
network = network.to(memory_format=torch.channels_last)
optimizer = torch.optim.AdamW(network.parameters())
images = torch.randn(32, 3, 96, 96).contiguous(memory_format=torch.channels_last)
def step():
    optimizer.zero_grad()
    network(images).square().mean().backward()
    optimizer.step()
step()
began, steps = time.perf_counter(), 0
while time.perf_counter() - began < float(sys.argv[2]):
    step()
    steps += 1
print(32 * steps / (time.perf_counter() - began))
"""
BUSY = "while True: pass"


def rate(policy: str, busy: int, threads: int, seconds: float) -> float:
    """Crops a second of the training loop beside ``busy`` processes."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
    try:
        done = subprocess.run(
            [sys.executable, "-c", STEPS, str(threads), str(seconds)],
            env=os.environ | {"OMP_WAIT_POLICY": policy}, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
    finally:
        for other in others:
            other.kill()
            other.wait()
    return float(done.stdout)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--busy", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--turns", type=int, default=3)
    asked = parser.parse_args()
    table = Table("policy", "alone, crops/s", f"beside {asked.busy} busy, crops/s", "share")
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(asked.turns):
        for policy in ("PASSIVE", "ACTIVE"):
            for busy in (0, asked.busy):
                value = rate(policy, busy, asked.threads, asked.seconds)
                found.setdefault((policy, busy), []).append(value)
    for policy in ("PASSIVE", "ACTIVE"):
        alone, beside = found[policy, 0], found[policy, asked.busy]
        cells = [
            f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"
            for values in (alone, beside)
        ]
        share = statistics.median(beside) / statistics.median(alone)
        table.add_row(policy, *cells, f"{share:.0%}")
    Console().print(table)


if __name__ == "__main__":
    main()
