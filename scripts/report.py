"""Write what runs have shown: tables, figures, a verdict.

python scripts/report.py position                 a study: into experiments/position/
python scripts/report.py position scale=gpu       of one scale of it; runs_dir=<folder> if they are not in runs/
python scripts/report.py --all                    every study that has runs.csv, in a line: experiments/README.md
python scripts/report.py runs                     any folder of runs: into runs/reports/all/
python scripts/report.py runs data=digits epochs=15 against=none     some of them, compared with one arm
"""

import argparse
import logging
import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="report.py name [key=value ...]",
    )
    parser.add_argument("name", nargs="?", help="a study under experiments/, or a folder of runs")
    parser.add_argument("options", nargs="*", metavar="key=value", help="scale= runs_dir= against=, or which runs")
    parser.add_argument("--all", action="store_true", help="the table of all studies, from their runs.csv")
    given = parser.parse_intermixed_args(arguments)
    if bool(given.name) == given.all or not all("=" in option for option in given.options):
        parser.error("give the name of a study or a folder of runs, then key=value; or --all alone")
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # at first it tells of its cache of fonts
    from patchbench.commands import report  # seconds of imports, not needed for --help

    try:
        options = dict(option.split("=", 1) for option in given.options)
        if given.all:
            path = report.report_all()
        elif given.name in report.studies() or not Path(given.name).is_dir():
            runs_dir, scale = Path(options.pop("runs_dir", "runs")), options.pop("scale", None)
            tuned = options.pop("tune", "false") == "true"
            if options:
                raise ValueError(f"{next(iter(options))}= is no option of a study: scale=, tune= and runs_dir= are")
            path = report.report_study(given.name, runs_dir, scale, tuned=tuned)
        else:
            against = options.pop("against", None)
            path = report.report_sweep(Path(given.name), options, against)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
