"""Print the runs on disk as a table: select, sort, write to a file, delete.

python scripts/runs.py                                                every run under runs/
python scripts/runs.py embed=conv,linear status=done 'test/acc>0.9'   only these; compare with <, >, <=, >=, !=
python scripts/runs.py columns=embed,patch,test/acc sort=-test/acc    these columns, best first
python scripts/runs.py study=position scale=cpu                       the runs of a study
python scripts/runs.py out=runs.csv                                   write every column to a file; or out=runs.parquet
python scripts/runs.py status=failed delete=true                      delete these runs, and their folders of W&B
"""

import sys
from pathlib import Path

from patchbench.config.arguments import errors_in_one_line, read
from patchbench.words import count

KNOWN = {"runs_dir": Path("runs"), "columns": None, "sort": None, "limit": 50, "out": None, "study": None}
KNOWN |= {"scale": None, "delete": False}


def main(arguments: list[str]) -> None:
    with errors_in_one_line():
        given = read(__doc__, arguments, KNOWN, others=True)
        options, conditions, runs_dir = given.options, given.others, given.options["runs_dir"]
        if options["delete"] and not (conditions or options["study"]):
            raise ValueError("delete=true: say which runs, as in status=failed delete=true")
        if options["scale"] and not options["study"]:
            raise ValueError(f"scale={options['scale']} is the scale of a study: add study=<name>")
        from patchbench.runs import browse, records  # seconds of imports, not needed for --help

        frame = records.load(runs_dir)
        if options["study"]:
            frame = frame[frame["identity"].isin(identities(options["study"], options["scale"]))]
        chosen = browse.filter_rows(frame, conditions)
        columns = options["columns"].split(",") if options["columns"] else []
        table = browse.select_columns(chosen, columns, options["sort"])
        if options["out"]:
            browse.write(chosen.loc[table.index, columns or list(chosen)], Path(options["out"]))
            print(f"wrote {count(len(chosen), 'run')} to {options['out']}")
        elif options["delete"]:
            busy = browse.delete(chosen, runs_dir)
            print(f"deleted {count(len(chosen) - len(busy), 'run')}")
            for run in busy:
                print(f"{run} is being trained and was not deleted")
        else:
            browse.print_table(table, chosen, options["limit"] or len(table))


def identities(name: str, scale: str | None) -> set[str]:
    """Return the identities of the runs of a study, at one scale or at all scales."""
    from patchbench.config import plan

    study = plan.read_study(name)
    scales = [scale] if scale else list(study.scales)
    return {identity for each in scales for identity in plan.identities(study, plan.cells(study, each))}


if __name__ == "__main__":
    main(sys.argv[1:])
