"""Variables of the environment: which ones count, and the removal of all others.

The libraries below us read several hundred variables. Some change a result
(``PL_TRAINER_FAST_DEV_RUN`` trains one batch), some lose a record (``WANDB_RUN_ID`` gives all runs
one id), some end in an error of a library (the ``SLURM_*`` variables of an allocation with several
tasks). Results depend on the settings alone, so every variable of these libraries is taken out of
the process, unless :data:`HONOURED` names it.

Commands do so once, before they import any of the libraries (:func:`settle`). The Python API does
so around training and tracking (:func:`isolated`); so do the processes of a sweep, to which a
cluster gives its variables anew.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

HONOURED = {
    "AWS_*": "credentials, region and endpoint of an object store",
    "CUDA_VISIBLE_DEVICES": "the GPUs that may be used",
    "COLUMNS": "width of tables and progress, where there is no terminal",
    "HF_HOME, HF_HUB_*, HF_TOKEN": "cache and access of the hub that pretrained weights come from",
    "HTTP_PROXY, HTTPS_PROXY, NO_PROXY": "proxies",
    "KMP_DUPLICATE_LIB_OK": "whether two copies of OpenMP may meet in one process",
    "MPLCONFIGDIR": "cache of the plotting library",
    "OMP_WAIT_POLICY, GOMP_SPINCOUNT": "whether threads without work spin; commands let them sleep "
    "(PASSIVE), because spinning threads slow each other down beside other work",
    "NO_COLOR, FORCE_COLOR, TERM": "colours in the terminal",
    "OMP_NUM_THREADS": "threads of a library before trainer.threads applies",
    "ORT_DISABLE_TELEMETRY": "0 lets onnxruntime report its use to its makers",
    "PYTORCH_CUDA_ALLOC_CONF, PYTORCH_ALLOC_CONF": "the allocator of GPU memory",
    "RAY_*": "the cluster that hydra/launcher=ray joins",
    "SBATCH_*, SLURM_CONF": "defaults of hydra/launcher=submitit_slurm",
    "TMPDIR": "folder for temporary files",
    "TORCH_HOME": "cache of downloaded weights",
    "WANDB_API_KEY, WANDB_IDENTITY_TOKEN_FILE, WANDB_CREDENTIALS_FILE": "the W&B account",
    "WANDB_BASE_URL": "a W&B server of one's own, as https://HOST",
    "WANDB_CACHE_DIR, WANDB_CONFIG_DIR, WANDB_DATA_DIR": "folders of W&B",
    "WANDB_ENTITY": "the user or team that owns the runs",
    "WANDB_NOTES, WANDB_TAGS": "notes and tags of the runs",
    "ULTRALYTICS_SAFE_LOAD": "0 allows weights of a detector that hold code",
    "XDG_CACHE_HOME, XDG_CONFIG_HOME": "folders for caches",
}
"""What each variable that counts does. ``*`` stands for any ending; commas separate names."""

_LIBRARIES = frozenset(
    """
    PL_* LT_* LIGHTNING_* LIGHTING_* TORCH* PYTORCH* PT2_* PT_XLA_DEBUG AOT* TIMM_* INDUCTOR_*
    FX_* ENABLE_PYTORCH_* XLA_* PARTITIONER_* TEARDOWN_CUPTI KINETO_* NVIDIA_TF32_* CUBLAS_*
    CUDNN_* HALIDE_* QUACK_* TF_CONFIG DISABLE_MPS BENCHMARK_USE_DEV_SHM COMPILE_STROBELIGHT_*
    CUTEDSL_* CUTLASS_* DCP_* DISABLE_CUPTI_* DUMP_AOTI_* ENABLE_HOST_SIDE_TMA
    ENABLE_PERSISTENT_TMA ENABLE_TEMPLATE_* ENABLE_TMA_* FAKE_ALLOW_META FORK_LAST3 FR_TRACE_*
    HELION_* HFIDS_* INSIDE_RE_WORKER IS_FBCODE LOG_AUTOTUNE_* LTC_* MAST_* STRICT_DEFAULT
    TENSORIFY_* TFDS_* TRITON_* TW_JOB_USER UNSAFE_SKIP_FSDP_* USE_LIBUV WDS_* RANK LOCAL_RANK
    NODE_RANK GROUP_RANK ROLE_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT
    STANDALONE_PORT LSB_* JSM_NAMESPACE_* SLURM_* PMI_* OMPI_* KUBERNETES_* SM_TRAINING_ENV ATEN_*
    MKL_* DNNL_* ONEDNN_* KMP_* OV_* OPENVINO_* ORT_* WANDB_* HYDRA_* SELF_WARNING_AS_ERROR
    OC_CAUSE DOCTEST_* SKIP_SLOW_DOCTEST JOBLIB_* LOKY_* MPL* MATPLOTLIB* SOURCE_DATE_EPOCH
    UNICODE_VERSION JUPYTER_COLUMNS JUPYTER_LINES TTY_* TQDM_* COLAB_GPU
    DATABRICKS_RUNTIME_VERSION YOLO_* ULTRALYTICS_* POLARS_* LANCE_* COMET_* MLFLOW_*
    BITSANDBYTES_*
    """.split()  # noqa: SIM905
)
"""Variables of torch, Lightning and timm; of launchers, which number processes, while one of ours
never shares its work; of numeric kernels, whose choice changes the last digits; of W&B, Hydra,
joblib, matplotlib, rich and others. ``*`` stands for any ending."""


def _matches(names: Iterable[str]) -> Callable[[str], bool]:
    """A test for names of which some end in ``*``."""
    names = set(names)
    starts = tuple(sorted(name[:-1] for name in names if name.endswith("*")))
    return lambda name: name in names or name.startswith(starts)


_is_library = _matches(_LIBRARIES)
_is_honoured = _matches(name for names in HONOURED for name in names.split(", "))


def _ignored() -> list[str]:
    return sorted(name for name in os.environ if _is_library(name) and not _is_honoured(name))


def settle() -> list[str]:
    """Remove the variables of libraries that do not count, for this process and its children.

    Threads of torch sleep when they have no work, unless the user says otherwise.

    Returns:
        The names of those removed that somebody is likely to have set on purpose, sorted.
    """
    removed = _ignored()
    for name in removed:
        del os.environ[name]
    # OpenMP reads this when torch loads it. benchmarks/threads.py measures the effect.
    if "GOMP_SPINCOUNT" not in os.environ:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return [name for name in removed if name.startswith(("PL_TRAINER_", "WANDB_"))]


@contextmanager
def isolated() -> Iterator[None]:
    """Hide the variables that do not count, then restore them.

    Lightning also keeps the process's number from its import on, and would write no metrics in a
    process that is not the first: the number is 0 inside.
    """
    # Whoever does not use Lightning, as footage, need not wait for its import.
    lightning = sys.modules.get("lightning.fabric.utilities.rank_zero")
    kept = SimpleNamespace() if lightning is None else lightning.rank_zero_only
    hidden = {name: os.environ.pop(name) for name in _ignored()}
    rank = getattr(kept, "rank", 0)
    kept.rank = 0
    try:
        yield
    finally:
        kept.rank = rank
        os.environ |= hidden
