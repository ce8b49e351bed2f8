"""``python -m collabteam.train``: bring a camera to a round."""

from __future__ import annotations

from collabteam.cli.command import Command, Outcome
from collabteam.settings import TrainConfig

HELP = """
Bring a camera's team to a round: missing rounds are done, complete ones skipped.

  python -m collabteam.train camera=NAME round=N [setting=value ...]
  python -m collabteam.train -m 'camera=glob(*)' round=N        every known camera
  python -m collabteam.train -m camera=NAME seed=1,2,3          each in a root of its own

  camera=NAME                the camera ('ingest' registers one)
  round=0                    the target round
  experiment=paper           paper: section 3.1 as it stands; quick: what two cores bear
  reviewer=person            person: labels in the catalog; oracle: answers from hidden truth
  oracle_error=0             share of the oracle's answers in i0 that are wrong
  seed_per_class=1000        human-verified crops per class in round 0
  seed_unknown=0             and crops of objects of no class, where the detector proposes 'unknown'
  increment_per_class=1000   crops per class that each later round adds
  quantile=0.75              candidates lie at or above this quantile of consensus confidence
  rollback=K                 first take back every round after K (-1: all); files are kept aside;
                             to go on after a kill, repeat the command without it
  team.init=scratch          later rounds start from scratch or from the previous round
  team.vote_with=best        best: the best fold of each branch; mean: all trained folds
  team.backbone=resnet18     any timm model
  data.image_size=128        side of the letterboxed square, px
  optim.epochs=30            epochs of round 0; optim.epochs_later for the others
  trainer.accelerator=auto   auto, cpu, gpu
  logger=wandb               wandb (offline unless logger.mode=online), csv, none
  logger.pictures=true       a few sample crops a round in W&B's table of verdicts
  root=outputs  seed=0
  -m hydra/launcher=joblib   several at once: joblib, ray, submitit_local, submitit_slurm; what a
                             job may use: runtime.cpus=1 runtime.gpus=0 runtime.memory_gb=3

All settings: --cfg job, and docs/settings.md. Then: python -m collabteam.report camera=NAME
"""


def run(config: TrainConfig) -> Outcome:
    """Bring the camera to the round and show Table 1."""
    from collabteam.reporting.table1 import read_rounds, render
    from collabteam.reporting.terminal import Terminal
    from collabteam.rounds.loop import train_rounds
    from collabteam.rounds.messages import headline
    from collabteam.storage.workspace import Workspace

    console = Terminal()
    workspace = Workspace.at(config.root, config.camera.name)
    workspace.refresh()
    before = read_rounds(workspace)
    records = train_rounds(config, console)
    render(records, console.rich)
    console.say(
        f"{config.camera.name} is at round {records[-1]['round']}: "
        f"{workspace.place_of(workspace.round(records[-1]['round']).record)}\n"
        f"next: python -m collabteam.report camera={config.camera.name}, or train with "
        f"round={records[-1]['round'] + 1}"
    )
    unchanged = bool(before) and before[-1] == records[-1]
    return Outcome(headline(records[-1]), "skipped" if unchanged else "done")


main = Command("train", TrainConfig, run, HELP, varies="roots")

if __name__ == "__main__":
    main()
