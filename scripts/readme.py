"""Write measured figures into README.md, between its markers.

python scripts/readme.py                        the files of benchmarks/: speed on GPUs, and speed of reading data
python scripts/readme.py runs/<run>/run.json    the main job too, from its record
python scripts/readme.py runs/*/run.json        the generated sets too, with the best arm of each
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from patchbench.config.arguments import errors_in_one_line, read
from patchbench.machine import whole_file

ROOT = Path(__file__).parents[1]


def main_job(record: dict) -> str:
    """Return the figures of the main job as a table."""
    from patchbench.track.terminal import rows  # seconds of imports, not needed for --help

    lines = ["| | |", "|---|---|", *(f"| {label} | {value} |" for label, value in rows(record["result"]).items())]
    return "\n".join([*lines, "", made_by(record), ""])


def generated(records: Iterable[dict]) -> str:
    """Return a table with a row for each generated set, with its best arm by validation."""
    from patchbench.commands.build import build_source
    from patchbench.config.origin import restored

    best: dict[str, dict] = {}
    for record in sorted(records, key=lambda r: r["result"]["val/acc_best"]):
        best[record["factors"]["data"]] = record
    lines = ["| set | chance | ceiling | best arm tried | test accuracy | wall time |", "|---|---|---|---|---|---|"]
    for name, record in sorted(best.items()):
        source: Any = build_source(restored(record))
        result, levels = record["result"], record["factors"]
        arm = f"{levels['embed']}/{levels['patch']} {levels['pos']}"
        lines.append(
            f"| `{name}` | {source.chance:.0%} | {source.ceiling:.1%} | {arm} | {result['test/acc']:.1%} "
            f"| {result['time/wall_s']:.0f} s |"
        )
    return "\n".join([*lines, "", made_by(record), ""])


def made_by(record: dict) -> str:
    """Return a line with the commit, the device and the version of torch."""
    machine, versions = record["environment"]["machine"], record["environment"]["versions"]
    device = ", ".join(machine["gpus"]) or f"{machine['cores']} cores of {machine['cpu']}"
    return f"Commit {str(record['environment']['commit'])[:10]}, {device}, torch {versions['torch']}."


def reading(bench: dict) -> str:
    """Return the table of scripts/bench_data.py, with a row for each way of reading images."""
    plain = bench["rungs"][0]["images_per_s"]
    lines = ["| images/s of one core | | times ImageFolder with PIL |", "|---|---:|---:|"]
    for rung in bench["rungs"]:
        if rung["per"] == "core":
            rate = rung["images_per_s"]
            lines.append(f"| {rung['rung']} | {rate:,.0f} | {rate / plain:,.1f} |")
    return "\n".join([*lines, "", made_by(bench), ""])


def gpus(evidence: Iterable[dict]) -> str:
    """Return a table for each file of scripts/gpu_evidence.py, the newest first."""
    newest = sorted((e for e in evidence if not e["rehearsal"]), key=lambda e: e["date"], reverse=True)
    if not newest:
        return (
            "There is no file from a GPU yet: no figure of speed or memory on one is claimed here. "
            "`python scripts/gpu_evidence.py` makes one.\n"
        )
    return "\n".join(line for e in newest for line in gpu(e))


def gpu(evidence: dict) -> Iterator[str]:
    """Return the lines of a table of rows, and of a sentence on the device and the tests."""
    yield "| training on random images | batch | images/s | step ms | MFU | peak GiB | waiting for data |"
    yield "|---|---|---|---|---|---|---|"
    for row in evidence["rows"]:
        if "left_out" in row:
            yield f"| {row['name']} | | not measured: {row['left_out']} | | | | |"
        else:
            mfu = f"{row['mfu']:.1%}" if "mfu" in row else "peak unknown"
            cells = [row["name"], str(row["batch_size"]), f"{row['images_per_s']:,.0f}", f"{row['step_ms_median']:.1f}"]
            cells += [mfu, f"{row['gpu_peak_allocated_gib']:.1f}", f"{row['data_wait_frac']:.0%}"]
            yield f"| {' | '.join(cells)} |"
    tests, device = evidence["tests"], evidence["device"]
    counts = ", ".join(f"{number} {outcome}" for outcome, number in tests["counts"].items() if number) or "none run"
    yield ""
    yield (
        f"{device['name']}, driver {device.get('driver', 'unknown')}, CUDA {device.get('cuda', 'unknown')}, torch "
        f"{evidence['versions']['torch']}, commit {str(evidence['commit'])[:10]}, {evidence['date'][:10]}. "
        f"Tests on the GPU: {counts}; {tests['ended']}."
    )
    yield ""


def written(text: str, marker: str, block: str) -> str:
    """Replace the text between a marker and `end`. ValueError if there is no such marker."""
    place = re.compile(rf"(<!-- {marker} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not place.search(text):
        raise ValueError(f"README.md has no place for this: it needs the lines <!-- {marker} --> and <!-- end -->")
    return place.sub(lambda match: match[1] + block + match[2], text)


def main(arguments: list[str]) -> None:
    with errors_in_one_line():
        write([Path(name) for name in read(__doc__, arguments, {}, most_names=sys.maxsize).names])


def write(paths: Iterable[Path]) -> None:
    """Write all tables for which there are files. paths: of records."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    records = [json.loads(path.read_text()) for path in paths]
    for record in records:
        if record["factors"]["data"] == "digits":
            text = written(text, "main job", main_job(record))
    if scenes := [record for record in records if "scene" in record["config"]["data"]]:
        text = written(text, "diagnostics", generated(scenes))
    files = {path.name: json.loads(path.read_text()) for path in (ROOT / "benchmarks").glob("*.json")}
    if "data.json" in files:
        text = written(text, "data bench", reading(files.pop("data.json")))
    text = written(text, "gpu", gpus(files.values()))
    with whole_file(readme) as file:
        file.write(text)


if __name__ == "__main__":
    main(sys.argv[1:])
