"""Chunks of a cache, processed in parallel. A chunk is the unit that is written, verified, and lost if interrupted."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.data import DataLoader, Dataset


class Chunk(NamedTuple):
    """Images `start` to `stop` of a split, `stop` excluded."""

    split: str
    start: int
    stop: int


def in_parallel(
    task: Dataset, chunks: Sequence[Chunk], done: Mapping[Chunk, Any], workers: int, label: str
) -> Iterator[tuple[Chunk, dict[str, Any]]]:
    """Yield the chunks that are not done, in order, with their results of `task`; show a progress bar on a terminal.

    label: text of the bar. A result with the key `error` is raised, as an OSError if it has an `errno`, else as a
    ValueError.
    """
    missing = [chunk for chunk in chunks if chunk not in done]
    loader: Iterable = DataLoader(task, sampler=missing, batch_size=None, num_workers=min(workers, len(missing)))
    console = Console(stderr=True)
    bar = Progress(
        TextColumn(label),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("images"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        console=console,
        disable=not console.is_terminal,
    )
    total, left = (sum(chunk.stop - chunk.start for chunk in each) for each in (chunks, missing))
    with bar:
        row = bar.add_task("", total=total, completed=total - left)
        for chunk, result in loader:
            if "errno" in result:
                raise OSError(result["errno"], result["error"])
            if "error" in result:
                raise ValueError(result["error"])
            bar.advance(row, chunk.stop - chunk.start)
            yield chunk, result
