"""The knobs of a sweep; conf/hydra/launcher/processes.yaml explains them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Knobs:
    """The options of the launcher."""

    jobs: int | str
    gpus_per_job: float | int | str
    timeout_min: float | int | None
    retries: int
    grace_s: float | int
    on_invalid: str
    dry_run: bool

    def check(self) -> None:
        """Raise ValueError for the first knob with a value that is not allowed."""
        share = self.gpus_per_job
        fits = {
            "jobs": (self.jobs == "auto" or (isinstance(self.jobs, int) and self.jobs >= 1), "auto, or 1 or more"),
            "gpus_per_job": (
                share == "auto" or (isinstance(share, int | float) and (share == int(share) >= 0 or 0 < share < 1)),
                "auto, a number of GPUs, or a share of one, as 0.5",
            ),
            "timeout_min": (self.timeout_min is None or self.timeout_min > 0, "above 0, or null for no limit"),
            "retries": (self.retries >= 0, "0 or more"),
            "grace_s": (self.grace_s >= 0, "0 or more seconds"),
            "on_invalid": (self.on_invalid in ("raise", "skip"), "raise or skip"),
        }
        for name, (fit, may_be) in fits.items():
            if not fit:
                raise ValueError(f"hydra.launcher.{name}={getattr(self, name)} must be {may_be}")
