"""A sweep of SLURM jobs: compose all cells, submit those that are not done, and wait for them."""

from collections.abc import Callable, Sequence

from hydra.core.utils import JobReturn
from omegaconf import DictConfig, OmegaConf

from patchbench.config.errors import Refused
from patchbench.sweep.launch import (
    cells_of,
    compose_cells,
    environment_of_cells,
    exit_on_signals,
    folder_options,
    warm_workers,
)
from patchbench.sweep.view import count_by_state, print_invalid, print_report_command
from patchbench.words import count


def submit(
    overrides: list[list[str]],
    config: DictConfig,
    launch: Callable[[Sequence[Sequence[str]], int], Sequence[JobReturn]],
) -> Sequence[JobReturn]:
    """Submit the cells as jobs, wait for all jobs, and return their results.

    Refused if a cell cannot be composed. Whether it can be built depends on the node, so that its job checks it.
    launch: the method of Hydra's launcher.
    """
    cells = cells_of(overrides, 0, config)
    with environment_of_cells(), exit_on_signals(), warm_workers(len(cells)) as workers:
        compose_cells(cells, folder_options(config), workers)
    if invalid := [cell for cell in cells if cell.state == "invalid"]:
        print_invalid(invalid)
        raise Refused(f"{len(invalid)} of {count(len(cells), 'cell')} cannot run, see above: no job was submitted")
    print(count_by_state(cells))
    if "hydra.job.num" in str(OmegaConf.to_container(config.hydra.sweep, resolve=False)):
        waiting = cells  # the launcher numbers the cells that it receives
    else:
        waiting = [cell for cell in cells if cell.state == "waiting"]
    if not waiting:
        return []
    logs = config.hydra.launcher.submitit_folder.replace("%j", "<job>")
    submitted = f"{count(len(waiting), 'SLURM job')}, with output in {logs}"
    print(f"{submitted}: this command waits for all of them, and Ctrl-C ends only the waiting", flush=True)
    try:
        results = launch([cell.overrides for cell in waiting], 0)
    except KeyboardInterrupt:
        print("\nthe jobs go on: squeue lists them, scancel ends them; the same command repeats what is not done")
        raise SystemExit(130) from None
    print_report_command(config.runs_dir)
    return results
