"""Write measured figures into README.md, between its markers.

python scripts/readme.py                        of benchmarks/: what GPUs did, and the ways of reading data
python scripts/readme.py runs/<run>/run.json    the main job as well, from its record
python scripts/readme.py runs/*/run.json        and the generated sets, the best arm of each
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from hydra.utils import instantiate

from patchbench.track.terminal import rows

ROOT = Path(__file__).parents[1]


def main_job(record: dict) -> str:
    lines = ["| | |", "|---|---|", *(f"| {label} | {value} |" for label, value in rows(record["result"]).items())]
    return "\n".join([*lines, "", made_by(record), ""])


def generated(records: Iterable[dict]) -> str:
    """A row for each generated set, with its best arm by validation."""
    best: dict[str, dict] = {}
    for record in sorted(records, key=lambda r: r["result"]["val/acc_best"]):
        best[record["factors"]["data"]] = record
    lines = ["| set | chance | ceiling | best arm tried | test accuracy | wall time |", "|---|---|---|---|---|---|"]
    for name, record in sorted(best.items()):
        source, result, levels = instantiate(record["config"]["data"]), record["result"], record["factors"]
        arm = f"{levels['embed']}/{levels['patch']} {levels['pos']}"
        lines.append(
            f"| `{name}` | {source.chance:.0%} | {source.ceiling:.1%} | {arm} | {result['test/acc']:.1%} "
            f"| {result['time/wall_s']:.0f} s |"
        )
    return "\n".join([*lines, "", made_by(record), ""])


def made_by(record: dict) -> str:
    machine, versions = record["environment"]["machine"], record["environment"]["versions"]
    device = ", ".join(machine["gpus"]) or f"{machine['cores']} cores of {machine['cpu']}"
    return f"Commit {str(record['environment']['commit'])[:10]}, {device}, torch {versions['torch']}."


def reading(bench: dict) -> str:
    """A row for each way of reading images, of scripts/bench_data.py."""
    plain = bench["rungs"][0]["images_per_s"]
    lines = ["| images/s of one core | | times ImageFolder with PIL |", "|---|---:|---:|"]
    for rung in bench["rungs"]:
        if rung["per"] == "core":
            rate = rung["images_per_s"]
            lines.append(f"| {rung['rung']} | {rate:,.0f} | {rate / plain:,.1f} |")
    return "\n".join([*lines, "", made_by(bench), ""])


def gpus(evidence: Iterable[dict]) -> str:
    """A table for each file of scripts/gpu_evidence.py, newest first."""
    found = sorted((e for e in evidence if not e["rehearsal"]), key=lambda e: e["date"], reverse=True)
    if not found:
        return (
            "There is no file from a GPU yet: no figure of speed or memory on one is claimed here. "
            "`python scripts/gpu_evidence.py` makes one.\n"
        )
    return "\n".join(line for e in found for line in gpu(e))


def gpu(evidence: dict) -> Iterator[str]:
    yield "| training on random images | batch | images/s | step ms | MFU | peak GiB | waiting for data |"
    yield "|---|---|---|---|---|---|---|"
    for row in evidence["rows"]:
        if "left_out" in row:
            yield f"| {row['name']} | | not measured: {row['left_out']} | | | | |"
        else:
            mfu = f"{row['mfu']:.1%}" if "mfu" in row else "peak not known"
            cells = [row["name"], str(row["batch_size"]), f"{row['images_per_s']:,.0f}", f"{row['step_ms_median']:.1f}"]
            cells += [mfu, f"{row['gpu_peak_allocated_gib']:.1f}", f"{row['data_wait_frac']:.0%}"]
            yield f"| {' | '.join(cells)} |"
    tests, found = evidence["tests"], evidence["device"]
    counts = ", ".join(f"{number} {outcome}" for outcome, number in tests["counts"].items() if number) or "none run"
    yield ""
    yield (
        f"{found['name']}, driver {found.get('driver', 'unknown')}, CUDA {found.get('cuda', 'unknown')}, torch "
        f"{evidence['versions']['torch']}, commit {str(evidence['commit'])[:10]}, {evidence['date'][:10]}. "
        f"Tests on the GPU: {counts}; {tests['ended']}."
    )
    yield ""


def written(text: str, marker: str, block: str) -> str:
    """ValueError if the text has no such place."""
    place = re.compile(rf"(<!-- {marker} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not place.search(text):
        raise ValueError(f"README.md has no place for this: it needs the lines <!-- {marker} --> and <!-- end -->")
    return place.sub(lambda found: found[1] + block + found[2], text)


def main(*records: str) -> None:
    readme = ROOT / "README.md"
    text = readme.read_text()
    given = [json.loads(Path(path).read_text()) for path in records]
    for record in given:
        if record["factors"]["data"] == "digits":
            text = written(text, "main job", main_job(record))
    if scenes := [record for record in given if "scene" in record["config"]["data"]]:
        text = written(text, "diagnostics", generated(scenes))
    files = {path.name: json.loads(path.read_text()) for path in (ROOT / "benchmarks").glob("*.json")}
    if "data.json" in files:
        text = written(text, "data bench", reading(files.pop("data.json")))
    readme.write_text(written(text, "gpu", gpus(files.values())))


if __name__ == "__main__":
    main(*sys.argv[1:])
