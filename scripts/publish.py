"""Publish on Weights & Biases: a saved workspace of the project, or a report of a study or of a folder of runs.

python scripts/publish.py                      the workspace: accuracy, speed, memory, factors
python scripts/publish.py position scale=cpu   the report of a study: its page, figures, panels, links to its runs
python scripts/publish.py runs data=digits     the same for a folder of runs, or for some of them
python scripts/publish.py entity=team project=vit out=specification.json   the default is WANDB_ENTITY and WANDB_PROJECT

The specification of the page is always written to a file, by default runs/publish/<name>.json. With a login, the page
is published and its link is printed; the same command updates the page later. Without a login, the path of the file is
printed.
"""

import logging
import re
import sys
from pathlib import Path

from patchbench.config.arguments import errors_in_one_line, read

EVERY = {"project": None, "entity": None, "runs_dir": Path("runs"), "out": None}
OF_A_STUDY = {"scale": None}
OF_A_FOLDER = {"against": None}


def main(arguments: list[str]) -> None:
    with errors_in_one_line():
        given = read(__doc__, arguments, {**EVERY, **OF_A_STUDY, **OF_A_FOLDER}, most_names=1, others=True)
        logging.getLogger("matplotlib").setLevel(logging.WARNING)  # the first time it reports on its cache of fonts
        from patchbench.commands import publish  # seconds of imports, not needed for --help
        from patchbench.config import plan
        from patchbench.track.wandb_check import project_name

        name = given.names[0] if given.names else "workspace"
        of_study = name in plan.studies() or not Path(name).is_dir()
        options = given.options if of_study else {**given.options, "runs_dir": Path(name)}
        file = re.sub(r"[^\w.-]+", "-", name).strip("-") + ".json"
        out = Path(options["out"] or options["runs_dir"] / "publish" / file)
        where = {"project": project_name(options["project"], "project"), "entity": options["entity"]}
        if not given.names:
            given.refuse_unless(EVERY)
            result = publish.publish_workspace(**where, runs_dir=options["runs_dir"], out=out)
        elif of_study:
            given.refuse_unless({**EVERY, **OF_A_STUDY})
            result = publish.publish_study(name, options["scale"], options["runs_dir"], **where, out=out)
        else:
            given.refuse_unless({**EVERY, **OF_A_FOLDER}, others=True)
            chosen = dict(argument.split("=", 1) for argument in given.others)
            result = publish.publish_sweep(options["runs_dir"], chosen, options["against"], **where, out=out)
    print(result)
    if result == str(out):
        print("W&B: not logged in; after `wandb login` the same command publishes this file", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
