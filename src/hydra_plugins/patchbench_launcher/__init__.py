"""Hydra plugins for sweeps: a launcher and two sweepers, which call patchbench.sweep.

Hydra imports this module at every start, so it imports little.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins import basic_sweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from patchbench.config.errors import CellFailed
from patchbench.sweep.knobs import Knobs


class ProcessLauncher(Launcher):
    """Run each cell in a process of its own; conf/hydra/launcher/processes.yaml explains the options."""

    def __init__(
        self,
        jobs: int | str,
        gpus_per_job: float | str,
        timeout_min: float | None,
        retries: int,
        grace_s: float,
        on_invalid: str,
        dry_run: bool,
    ) -> None:
        self.knobs = Knobs(jobs, gpus_per_job, timeout_min, retries, grace_s, on_invalid, dry_run)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run the cells. The value of a cell is its validation accuracy, NaN if it is invalid and skipped."""
        from patchbench.sweep.launch import launch

        cells = launch([list(overrides) for overrides in job_overrides], initial_job_idx, self.config, self.knobs)
        return [CellReturn.of(overrides, *cell) for overrides, cell in zip(job_overrides, cells, strict=True)]


class CellReturn(JobReturn):
    """The return value of a cell. Hydra's own class prints to stderr again that a cell failed."""

    @classmethod
    def of(cls, overrides: Sequence[str], folder: str | None, value: float | None, error: str) -> "CellReturn":
        status = JobStatus.FAILED if error else JobStatus.COMPLETED
        return cls(overrides, working_dir=folder, task_name="train", status=status, _return_value=error or value)

    @property
    def return_value(self) -> Any:
        if self.status == JobStatus.FAILED:
            raise CellFailed(self._return_value)
        return self._return_value


class GridSweeper(Sweeper):
    """Hydra's BasicSweeper, without its serial check of the cells, which stops at the first invalid cell."""

    def __init__(self, params: dict[str, str]) -> None:
        self.params = params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.config_loader = config, hydra_context.config_loader
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def cells(self, arguments: list[str]) -> Sequence[Sequence[str]]:
        """Return the overrides of each cell."""
        axes = [f"{key}={values}" for key, values in self.params.items()]
        overrides = OverridesParser.create(config_loader=self.config_loader).parse_overrides(axes + arguments)
        [cells] = basic_sweeper.BasicSweeper.split_arguments(overrides, None)
        return cells

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        results = self.launch([list(cell) for cell in self.cells(arguments)])
        for result in results:
            _ = result.return_value  # raises where a cell failed
        return list(results)

    def launch(self, cells: list[list[str]]) -> Sequence[JobReturn]:
        if not cells:
            return []
        if self.config.hydra.runtime.choices["hydra/launcher"].startswith("slurm"):
            from patchbench.sweep.slurm import submit

            return submit(cells, self.config, self.launcher.launch)
        return self.launcher.launch(cells, 0)


class StudySweeper(GridSweeper):
    """Sweeper over the runs of a study, or of one part, that no other machine has finished.

    Options on the command line apply to all runs.
    """

    def __init__(self, name: str, scale: str, tuning: str, part: str | None = None) -> None:
        self.study, self.part = (name, scale, tuning), part

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.runs_dir = Path(config.runs_dir)

    def cells(self, arguments: list[str]) -> Sequence[Sequence[str]]:
        from patchbench.config.errors import refusing
        from patchbench.sweep.study import cells_to_run

        with refusing():
            return cells_to_run(*self.study, self.runs_dir, arguments, self.part)
