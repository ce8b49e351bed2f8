"""Settings of hardware and experiment tracking. No result depends on them."""

from __future__ import annotations

from dataclasses import dataclass

from collabteam.settings.fields import setting


@dataclass
class TrainerConfig:
    """The hardware of one process."""

    accelerator: str = setting("auto", affects="speed", metavar="auto", help="auto, cpu or gpu")
    precision: str = setting(
        "auto",
        affects="speed",
        choices={
            "auto": "bf16 where the processor has it, else fp32",
            "bf16": "bfloat16 products, fp32 weights and sums",
            "fp32": "single precision",
        },
        help="arithmetic of networks",
    )
    threads: int = setting(
        0,
        ge=0,
        le=1024,
        affects="speed",
        help="CPU threads; 0: one per core that this process may use",
    )
    score_batch_size: int = setting(
        256, ge=1, le=1_000_000, affects="speed", help="crops per step when crops are scored"
    )


@dataclass
class RuntimeConfig:
    """Resources of one job of a sweep whose jobs run side by side (``hydra/launcher=...``)."""

    cpus: int = setting(
        1,
        ge=1,
        le=4096,
        affects="speed",
        help="CPUs of one job, and its threads where trainer.threads=0",
    )
    gpus: float = setting(
        0.0,
        ge=0,
        le=1024,
        affects="speed",
        help="GPUs of one job; Ray accepts fractions, Slurm only whole ones",
    )
    memory_gb: float = setting(
        3.0,
        ge=0.1,
        le=10_000,
        affects="speed",
        help="memory of one job in GB (10^9 bytes); Ray ignores it",
    )
    jobs: int = setting(
        0,
        ge=0,
        le=4096,
        affects="speed",
        help="jobs at once on this machine; 0: as many as its CPUs and memory allow",
    )


@dataclass
class LoggerConfig:
    """Experiment tracking."""

    kind: str = setting(
        "wandb",
        affects="place",
        choices={"wandb": "Weights & Biases", "csv": "files", "none": "nothing is logged"},
        help="where the curves go",
    )
    mode: str = setting(
        "offline",
        affects="place",
        choices={"offline": "nothing leaves the machine", "online": "needs an account"},
        help="how W&B runs",
    )
    project: str = setting("collabteam", affects="place", help="the project's name on W&B")
    pictures: bool = setting(
        True,
        affects="place",
        help="log sample crops of each round in W&B's table of verdicts; they leave the machine "
        "only with mode=online or by wandb sync",
    )
