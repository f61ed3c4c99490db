"""Ranks that another program has started: the tasks of srun, and the processes of torchrun."""

import os

from pytorch_lightning.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)


def started_by() -> str | None:
    """Name the program that has started the ranks, or return None if Lightning starts them."""
    if TorchElasticEnvironment.detect():
        return "torchrun"
    # without a step, the process runs in the script of sbatch itself; the second condition: a shell started by srun
    return "srun" if "SLURM_STEP_ID" in os.environ and SLURMEnvironment.detect() else None


def rank_environment() -> list[ClusterEnvironment]:
    """Return a plugin for Lightning in a SLURM job, where Lightning would take wrong ranks, else an empty list."""
    if "SLURM_JOB_ID" not in os.environ or started_by() == "torchrun":
        return []
    if started_by() is None:
        return [LightningEnvironment()]
    os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(started_ranks()[0]))  # Lightning requires it
    return [SLURMEnvironment(auto_requeue=False)]  # train/signals.py saves; SLURM or submitit queue the job again


def started_ranks() -> tuple[int, int]:
    """Return the number of ranks per node, and the number of nodes."""
    if started_by() == "torchrun":
        per_node = int(os.environ["LOCAL_WORLD_SIZE"])
        return per_node, int(os.environ["WORLD_SIZE"]) // per_node
    nodes = int(os.environ["SLURM_STEP_NUM_NODES"])
    return int(os.environ["SLURM_STEP_NUM_TASKS"]) // nodes, nodes


def refuse_other_ranks(devices: int, num_nodes: int) -> None:
    """Raise ValueError if the ranks that were started are not those that the trainer uses.

    Lightning would continue with too few ranks, or train one run several times.
    devices: number of devices per node that the trainer uses.
    """
    program = started_by()
    if program is None:
        return
    ranks, nodes = started_ranks()
    if (devices, num_nodes) != (ranks, nodes):
        cure = f"use trainer=ddp trainer.devices={ranks} trainer.num_nodes={nodes}"
        if program == "srun":
            cure += ", or hydra/launcher=slurm_node, which asks for what the trainer needs"
        raise ValueError(
            f"trainer.devices={devices} trainer.num_nodes={num_nodes}, but {program} started {ranks} task(s) on each "
            f"of {nodes} node(s): {cure}"
        )
