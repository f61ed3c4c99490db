"""Write a report of runs: answers, tables, figures.

python scripts/report.py position                 a study, into experiments/position/
python scripts/report.py position scale=gpu       the study at one scale; runs_dir=<folder> if its runs are not in runs/
python scripts/report.py --all                    the pages over all studies: effects, predictions, errata
python scripts/report.py runs                     a folder of runs, into runs/reports/all/
python scripts/report.py runs data=digits epochs=15 against=none     some of its runs, compared with one arm
"""

import logging
import sys
from pathlib import Path

from patchbench.config.arguments import errors_in_one_line, read

OF_A_STUDY = {"scale": None, "runs_dir": Path("runs")}
OF_A_FOLDER = {"against": None}


def main(arguments: list[str]) -> None:
    with errors_in_one_line():
        given = read(__doc__, arguments, {**OF_A_STUDY, **OF_A_FOLDER}, most_names=1, flags=["all"], others=True)
        if bool(given.names) == ("all" in given.flags):
            raise ValueError("give the name of a study or a folder of runs, then key=value; or --all alone")
        logging.getLogger("matplotlib").setLevel(logging.WARNING)  # the first time it reports on its cache of fonts
        from patchbench.commands import report  # seconds of imports, not needed for --help

        options = given.options
        if not given.names:
            given.refuse_unless([])
            written = report.report_all()
        elif given.names[0] not in report.studies() and not Path(given.names[0]).is_dir():
            raise ValueError(
                f"{given.names[0]} is neither a folder of runs nor a study: studies are {', '.join(report.studies())}"
            )
        elif given.names[0] in report.studies():
            given.refuse_unless(OF_A_STUDY)
            written = [report.report_study(given.names[0], options["runs_dir"], options["scale"], show=True)]
        else:
            given.refuse_unless(OF_A_FOLDER, others=True)
            chosen = dict(argument.split("=", 1) for argument in given.others)
            written = [report.report_sweep(Path(given.names[0]), chosen, options["against"], show=True)]
    print(*written, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
