"""Write measured figures into README.md and docs/, between their markers.

python scripts/readme.py                        the files of benchmarks/ and experiments/: speed, and what was found
python scripts/readme.py runs/<run>/run.json    the first jobs too, from their records
python scripts/readme.py runs/*/run.json        the generated sets too, with the best arm of each
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from patchbench.config.arguments import errors_in_one_line, read
from patchbench.machine import write_whole

ROOT = Path(__file__).parents[1]
SPEEDS = {"images_per_s_wall": 0, "step_ms_median": 1, "host_ms_median": 1}  # numbers of decimals
FIRST = {"faded_photos": "make train", "digits": "make digits"}  # by data: the jobs of a newcomer
PEAK = "gpu_peak_allocated_gib"


def first_jobs(records: Iterable[dict]) -> str:
    """Return a table with a column for each job that a newcomer starts with, by the target of the Makefile."""
    from patchbench.track.terminal import rows  # seconds of imports, not needed for --help

    columns = {FIRST[record["factors"]["data"]]: record for record in records}
    columns = {target: columns[target] for target in FIRST.values() if target in columns}
    texts = {target: rows(record["result"]) | learned(record["result"]) for target, record in columns.items()}
    labels = dict.fromkeys(label for text in texts.values() for label in text)
    lines = [f"| | {' | '.join(f'`{target}`' for target in columns)} |", "|---" * (1 + len(columns)) + "|"]
    lines += [f"| {label} | {' | '.join(text.get(label, '') for text in texts.values())} |" for label in labels]
    made = dict.fromkeys(made_by(record) for record in columns.values())
    return "\n".join([*lines, "", *made, ""])


def learned(result: dict[str, Any]) -> dict[str, str]:
    """Return rows with results of an analysis: accuracy with shuffled patches, and the change of the kernels."""
    if "analysis/kernel_start_cosine" not in result:
        return {}
    measures = {name.removeprefix("analysis/"): value for name, value in result.items()}
    return {
        "accuracy, patches shuffled": f"{measures['robust/shuffled_patches/acc']:.2%}, "
        f"{measures['robust/moved0/acc']:.2%} "
        f"as they are, on {measures['robust/images']:,.0f} images",
        "kernels moved": f"by {measures['kernel_start_difference']:.0%} of their length, mean cosine with the start "
        f"{measures['kernel_start_cosine']:.2f}",
    }


def generated(records: Iterable[dict]) -> str:
    """Return a table with a row for each generated set, with its best arm by validation."""
    from patchbench.commands.build import build_source
    from patchbench.config.origin import restored

    best: dict[str, dict] = {}
    for record in sorted(records, key=lambda r: r["result"]["val/acc_best"]):
        best[record["factors"]["data"]] = record
    lines = ["| set | chance | ceiling | best arm tried | test accuracy |", "|---|---|---|---|---|"]
    for name, record in sorted(best.items()):
        source: Any = build_source(restored(record))
        result, levels = record["result"], record["factors"]
        arm = f"{levels['embed']}/{levels['patch']} {levels['pos']}"
        lines.append(f"| `{name}` | {source.chance:.0%} | {source.ceiling:.1%} | {arm} | {result['test/acc']:.1%} |")
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


def speeds(records: Iterable[dict]) -> str:
    """Return a table of the files of scripts/benchmark.py, by device and date, and the commands that made them."""
    rows = sorted(records, key=lambda record: (record["device"]["name"], record["date"]))
    if not rows:
        return (
            "There is no file of `scripts/benchmark.py` yet: no figure of speed is claimed here. "
            "`python scripts/benchmark.py embed=conv out=benchmarks/conv.json` makes one.\n"
        )
    titles = ["measured", "beside", "images/s", "ms a step", "ms for one image", "GiB", "takes times as long", "where"]
    made = ["Made by:", "", "```", *map(command, rows), "```", ""]
    return "\n".join([f"| {' | '.join(titles)} |", "|---" * len(titles) + "|", *map(speed, rows), "", *made])


def command(record: dict) -> str:
    """Return the command that makes a record, on a CPU with the number of threads of the record."""
    on_gpu = record["device"]["name"] != "cpu"
    return record["command"] if on_gpu else f"OMP_NUM_THREADS={record['threads']} {record['command']}"


def speed(record: dict) -> str:
    """Return the row of a benchmark, with the ratio of wall times on a GPU, or of CPU times on a CPU."""
    from patchbench.commands.bench.record import place, spell_ratio  # seconds of imports, not needed for --help

    first, *others = record["sides"]
    figures = {name: figure["median"] for name, figure in first["summary"].items()}
    kind = "inference" if record["mode"] == "infer" else "training"
    cells = [f"{kind}, {first['name']}, {first['batch_size']} images a step", "".join(o["name"] for o in others)]
    shown = {"images_per_s": ",.0f", "step_ms_median": ",.2f", "latency_ms_median": ",.2f"}
    cells += [format(figures[name], how) if name in figures else "" for name, how in shown.items()]
    memory = figures.get(PEAK, figures.get("cpu_rss_gib"))
    cells += ["" if memory is None else f"{memory:.2f}"]
    on_gpu = first["conditions"]["device"] == "cuda"
    ratio = record.get("ratios", {}).get("image_ms_wall" if on_gpu else "image_cpu_ms")
    cells += [spell_ratio(ratio) if ratio else "", f"{place(record)}, {record['date'][:10]}"]
    return f"| {' | '.join(cells)} |"


def gpus(evidence: Iterable[dict]) -> str:
    """Return the tables of the files of scripts/gpu_evidence.py, the newest first, and the number of older files.

    A file has a table if it has items that were not measured in a newer one; it shows these items alone.
    """
    from patchbench.commands.bench.evidence import measured  # seconds of imports, not needed for --help

    newest = sorted((e for e in evidence if not e["rehearsal"]), key=lambda e: e["date"], reverse=True)
    lines: list[str] = []
    shown = {"ceilings"}  # in the sentence below each table
    older = 0
    for file in newest:
        tested = {"tests"} if file["items"].get("tests", {}).get("counts") else set()  # failures are shown, too
        names = (measured(file["items"]) | tested) - shown
        older += not names
        shown |= names
        if names:
            lines += gpu(file, names)
    left_out = [name for file in newest[:1] for name in file["items"] if name not in shown]
    lines += [f"Not measured: {'; '.join(left_out)}.", ""] if left_out else []
    lines += [f"Older measurements of the same: {older} in `benchmarks/`.", ""] if older else []
    return "\n".join(lines) or (
        "There is no file from a GPU yet: no figure of speed or memory on one is claimed here. "
        "`python scripts/gpu_evidence.py` makes one.\n"
    )


def gpu(evidence: dict, names: set[str]) -> Iterator[str]:
    """Yield the lines of a table of trainings, and sentences on inference, the device and the tests.

    names: items to show.
    """
    ceiling = evidence["items"].get("ceilings", {}).get("matmul_bf16_tflops")
    items = {name: item for name, item in evidence["items"].items() if name in names}
    titles = ["training on random images", "batch", "images/s", "with pauses", "step ms", "host ms"]
    titles += ["MFU", "of a product", "GiB"]
    yield f"| {' | '.join(titles)} |"
    yield "|" + "---|" * len(titles)
    for name, item in items.items():
        if "images_per_s" in item and "latency_ms_median" not in item:
            cells = [name, str(item.get("batch_size", "")), f"{item['images_per_s']:,.0f}"]
            cells += [f"{item[k]:,.{d}f}" if k in item else "" for k, d in SPEEDS.items()]
            cells += [f"{item['mfu']:.1%}" if "mfu" in item else ""]
            product = item["tflops_per_gpu"] / ceiling if ceiling and "tflops_per_gpu" in item else None
            cells += [f"{product:.1%}" if product else ""]
            cells += [f"{item[PEAK]:.1f}" if PEAK in item else ""]
            yield f"| {' | '.join(cells)} |"
    answers = [item for item in items.values() if "latency_ms_median" in item]
    device, tests = evidence["device"], items.get("tests", {})
    counts = ", ".join(f"{number} {outcome}" for outcome, number in tests.get("counts", {}).items() if number)
    yield ""
    limit = f"; a product of matrices reached {ceiling:,.0f} TFLOP/s here" if ceiling else ""
    yield from (
        f"Inference of `{item['arguments']}`: {item['images_per_s']:,.0f} images/s in batches of {item['batch_size']}, "
        f"one image in {item['latency_ms_median']:.2f} ms (95th percentile {item['latency_ms_p95']:.2f} ms).\n"
        for item in answers
    )
    yield from (
        f"GPU time of a step of {name.removesuffix(' profiled')}, in ms: "
        f"{', '.join(f'{kind} {ms:.1f}' for kind, ms in item['ms'].items())}.\n"
        for name, item in items.items()
        if "ms" in item
    )
    yield (
        f"{device['name']}, driver {device.get('driver', 'unknown')}, CUDA {device.get('cuda', 'unknown')}, torch "
        f"{evidence['versions']['torch']}, commit {str(evidence['commit'])[:10]}, {evidence['date'][:10]}. "
        f"MFU is by the data sheet{limit}.{f' Tests on the GPU: {counts}.' if counts else ''}"
    )
    yield ""


def findings() -> str:
    """Return the counts of the answers about the document, and a table of the studies that have results."""
    from patchbench.config.plan import read_study, studies
    from patchbench.runs.committed import read_runs

    page = (ROOT / "experiments" / "README.md").read_text(encoding="utf-8")
    answers = re.findall(r"^\| \*\*(.+?)\*\* (\d+) \|", page, re.MULTILINE)
    lines = [f"Of its sentences: {', '.join(f'{count} {answer}' for answer, count in answers)}.", ""]
    lines += ["| question | first decided answer of its page | runs with a result |", "|---|---|---|"]
    missing = []
    for name in studies():
        folder = ROOT / "experiments" / name
        table = read_runs(folder / "runs.csv") if (folder / "runs.csv").exists() else None
        counts = "measured" if table is None else f"{(table['status'] == 'done').sum()} of {len(table)}"
        if counts.startswith("0 "):
            missing.append(f"[{name}](experiments/{name}/README.md)")
            continue
        first = first_answer((folder / "README.md").read_text(encoding="utf-8"))
        lines.append(f"| [{read_study(name).question}](experiments/{name}/README.md) | {first} | {counts} |")
    note = "pt: percentage points. In brackets: the 95 % confidence interval."
    note += f" Without results yet: {', '.join(missing)}." if missing else ""
    return "\n".join([*lines, "", note, ""])


def first_answer(page: str) -> str:
    """Return the first yes or no of the page of a study with its amount, or else the first amount; or else nothing."""
    value = r"\S.*?\)(?:; guessing gives \S+ %)?"
    answers = re.findall(
        rf"^> \*\*(Yes|No|By how much)\.\*\* (.+)\n>\n> Measured: .*, ({value})\. ", page, re.MULTILINE
    )
    certain = [answer for answer in answers if answer[0] != "By how much"]
    return next((f"**{word}.** {says} {amount}" for word, says, amount in [*certain, *answers]), "none yet")


def write_between(marker: str, block: str) -> None:
    """Replace the text between a marker and `end`, in the page with this marker. ValueError if no page has it."""
    place = re.compile(rf"(<!-- {marker} -->\n).*?(<!-- end -->)", re.DOTALL)
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text(encoding="utf-8")
        if place.search(text):
            write_whole(page, place.sub(lambda match: match[1] + block + match[2], text))
            return
    raise ValueError(f"no page has a place for this: one needs the lines <!-- {marker} --> and <!-- end -->")


def main(arguments: list[str]) -> None:
    with errors_in_one_line():
        write([Path(name) for name in read(__doc__, arguments, {}, most_names=sys.maxsize).names])


def write(paths: Iterable[Path]) -> None:
    """Write all tables for which there are files. paths: records of runs."""
    records = [json.loads(path.read_text()) for path in paths]
    if jobs := [record for record in records if record["factors"]["data"] in FIRST]:
        write_between("first jobs", first_jobs(jobs))
    if scenes := [record for record in records if "scene" in record["config"]["data"]]:
        write_between("diagnostics", generated(scenes))
    files = {path.name: json.loads(path.read_text()) for path in (ROOT / "benchmarks").glob("*.json")}
    if "data.json" in files:
        write_between("data bench", reading(files.pop("data.json")))
    write_between("speed", speeds(file for file in files.values() if "sides" in file))
    write_between("gpu", gpus(file for file in files.values() if "rehearsal" in file))
    write_between("found", findings())


if __name__ == "__main__":
    main(sys.argv[1:])
