"""The runs on disk as a table: choose, sort, write to a file, delete.

python scripts/runs.py                                                every run under runs/
python scripts/runs.py embed=conv,linear status=done 'test/acc>0.9'   those; compare with <, >, <=, >=, !=
python scripts/runs.py columns=embed,patch,test/acc sort=-test/acc    these columns, best first
python scripts/runs.py study=position scale=cpu                       the runs of a study
python scripts/runs.py out=runs.csv                                   every column into a file; or out=runs.parquet
python scripts/runs.py status=failed delete=true                      remove them from the disk
"""

import sys
from pathlib import Path

OWN = ("runs_dir", "columns", "sort", "out", "study", "scale", "delete", "limit")


def main(arguments: list[str]) -> None:
    if {"-h", "--help"} & set(arguments):
        print(__doc__.strip())
        return
    from patchbench.runs import browse, records  # seconds of imports, not needed for --help

    own = dict(a.split("=", 1) for a in arguments if a.split("=")[0] in OWN and "=" in a)
    conditions = [a for a in arguments if a.split("=")[0] not in OWN or "=" not in a]
    runs_dir = Path(own.get("runs_dir", "runs"))
    try:
        frame = records.load(runs_dir)
        if "study" in own:
            frame = frame[frame["identity"].isin(identities(own["study"], own.get("scale")))]
        chosen = browse.choose(frame, conditions)
        columns = own["columns"].split(",") if "columns" in own else []
        table = browse.shown(chosen, columns, own.get("sort"))
        if "out" in own:
            browse.write(chosen.loc[table.index, columns or list(chosen)], Path(own["out"]))
            print(f"wrote {len(chosen)} runs to {own['out']}")
        elif own.get("delete", "false") != "false":
            if own["delete"] != "true" or not (conditions or "study" in own):
                raise ValueError(f"delete={own['delete']}: say which runs, as in status=failed delete=true")
            busy = browse.delete(chosen, runs_dir)
            print(
                f"deleted {len(chosen) - len(busy)} runs" + "".join(f"\n{run} is being trained: kept" for run in busy)
            )
        else:
            limit = int(own.get("limit", 50))
            browse.show(table, chosen, limit or len(table))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def identities(study: str, scale: str | None) -> set[str]:
    """Identities of the runs of a study, at one scale or at all of them."""
    from patchbench.config import plan

    found = plan.read_study(study)
    scales = [scale] if scale else list(found.scales)
    return {identity for one in scales for identity in plan.identities(found, plan.cells(found, one))}


if __name__ == "__main__":
    main(sys.argv[1:])
