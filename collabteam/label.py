"""``python -m collabteam.label``: a team labels every crop that no person has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collabteam.cli.command import Command, Outcome
from collabteam.settings import LabelConfig

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console as RichConsole

    from collabteam.labelling.label import LabelResult
    from collabteam.storage.workspace import Workspace

HELP = """
Let a camera's team label every crop that no person has judged; again labels only what is new.

  python -m collabteam.label camera=NAME [setting=value ...]

  camera=NAME          the camera
  round=K              whose team; else the last one's
  threshold=paper      every consensus is a label; or risk:0.05: of each class only what is so sure
                       that at most this share is wrong
  confidence=0.95      of threshold=risk
  tracks=combine       the crops of one track get one label; apart: each crop for itself
  correlation=0.5      how alike the crops of a track are, 0 to 1
  calibrate=true       calibrate confidences on human-labelled crops that did not train
  engine=torch         or openvino (pip install 'collabteam[openvino]')
  precision=auto       bf16 where the processor has it, else fp32; fp32, bf16; int8 of openvino
  check=1000           crops on which the engine is compared with torch in fp32 before it is used
  trainer.accelerator=auto  trainer.threads=0  trainer.score_batch_size=256
  root=outputs  seed=0

Then: python -m collabteam.audit camera=NAME
"""


def run(config: LabelConfig) -> Outcome:
    """Label, and show what came of it."""
    from rich.console import Console as RichConsole

    from collabteam.labelling.label import label_pool
    from collabteam.reporting.terminal import Terminal
    from collabteam.storage.workspace import Workspace

    labelled = label_pool(config, Terminal())
    name = config.camera.name
    workspace = Workspace.at(config.root, name)
    out = RichConsole(highlight=False)
    _table(labelled, out)
    record = labelled.record
    lines = [
        f"{name}: {sum(record['labelled'].values())} of {record['pool']} crops labelled by the "
        f"team of round {record['round']}, {labelled.new} verdicts new in the log",
        f"the record: {workspace.label_record}",
    ]
    if labelled.quality is not None:
        lines.append(f"what its confidence is worth: {_plot(labelled, workspace)}")
    lines.append(f"next: python -m collabteam.audit camera={name}")
    out.print("\n".join(lines), markup=False, soft_wrap=True)
    return Outcome(
        f"{sum(record['labelled'].values())} of {record['pool']} crops labelled by the team of "
        f"round {record['round']}, {labelled.new} verdicts new",
        "done" if labelled.new else "skipped",
    )


def _table(labelled: LabelResult, out: RichConsole) -> None:
    from rich import box
    from rich.table import Table

    record = labelled.record
    test, truth = record["test"], record["measured"]
    table = Table(box=box.SIMPLE_HEAD, title=f"{record['camera']}, round {record['round']}")
    table.add_column("label")
    for column in ("crops", "of the pool", *(["right on the test set"] if test else [])):
        table.add_column(column, justify="right")
    if truth:
        table.add_column("right (truth known)", justify="right")

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    def row(label: str, count: int, *more: float | None) -> None:
        share = count / record["pool"] if record["pool"] else None
        table.add_row(label, str(count), percent(share), *map(percent, more))

    for name, count in record["labelled"].items():
        row(name, count, *(
            block[key]["classes"][name]["precision"] if key else block["classes"][name]["precision"]
            for block, key in ((test, "as_labelled"), (truth, "")) if block
        ))  # fmt: skip
    table.add_section()
    table.add_row("I don't know", str(record["abstained"]), percent(
        record["abstained"] / record["pool"] if record["pool"] else None
    ))  # fmt: skip
    table.add_row("of these tracks in conflict", str(record["conflicts"]))
    out.print(table)
    if test:
        one, other = test["apart"], test["as_labelled"]
        out.print(
            f"on {test['crops']} crops of the frozen test set: single crops "
            f"{percent(one['accuracy'])}% right at {percent(one['coverage'])}% coverage, as "
            f"labelled {percent(other['accuracy'])}% at {percent(other['coverage'])}%",
            markup=False, soft_wrap=True,
        )  # fmt: skip


def _plot(labelled: LabelResult, workspace: Workspace) -> Path:
    from collabteam.reporting.plots import Diagram, plot_label_quality

    quality, record = labelled.quality, labelled.record
    assert quality is not None
    errors = record["test"]["calibration_error"]
    diagrams = {}
    for name in quality.before:
        pair = []
        for word, found in (("before", quality.before[name]), ("after", quality.after[name])):
            held = found.count > 0
            pair.append(
                Diagram(
                    found.confidence[held].tolist(), found.share[held].tolist(),
                    found.count[held].tolist(), errors[name][word],
                )
            )  # fmt: skip
        diagrams[name] = (pair[0], pair[1])
    to = workspace.report("label-quality.png")
    with workspace.publishing(to):
        plot_label_quality(
            f"Camera {record['camera']}, team of round {record['round']}, "
            f"{record['test']['crops']} crops of the frozen test set",
            diagrams, (quality.curve.coverage.tolist(), quality.curve.risk.tolist()),
            quality.curve.area, to,
        )  # fmt: skip
    return to


main = Command("label", LabelConfig, run, HELP)

if __name__ == "__main__":
    main()
