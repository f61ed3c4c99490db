"""Weights & Biases as this project uses it, as code: a saved workspace, and reports.

python scripts/publish.py                      the workspace of the project: accuracy, speed, memory, factors
python scripts/publish.py position scale=cpu   the report of a study: its page, figures, panels, links to its runs
python scripts/publish.py runs data=digits     the same of any folder of runs, or of some of them
python scripts/publish.py entity=team project=vit out=specification.json

Logged in, it is published and its link printed; the second time the same one is changed. Elsewhere the same
specification is written, as it always is, to runs/publish/<name>.json.
"""

import argparse
import logging
import re
import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="publish.py [name] [key=value ...]",
    )
    parser.add_argument("words", nargs="*", metavar="name", help="a study, or a folder of runs; none: the workspace")
    given = parser.parse_intermixed_args(arguments)
    names = [word for word in given.words if "=" not in word]
    options = dict(word.split("=", 1) for word in given.words if "=" in word)
    if len(names) > 1:
        parser.error(f"{names[1]}: give one study or folder of runs, then key=value")
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # at first it tells of its cache of fonts
    from patchbench.commands import publish  # seconds of imports, not needed for --help
    from patchbench.config import plan  # seconds of imports, not needed for --help

    def take(key: str, default: str) -> str:
        return options.pop(key, default)

    try:
        name = names[0] if names else "workspace"
        of_study = name in plan.studies() or not Path(name).is_dir()
        runs_dir = Path(take("runs_dir", "runs") if of_study else name)
        where = {"project": take("project", "patchbench"), "entity": take("entity", "") or None}
        out = Path(take("out", str(runs_dir / "publish" / (re.sub(r"[^\w.-]+", "-", name).strip("-") + ".json"))))
        if not names:
            refuse_rest(options, "project= entity= runs_dir= out=")
            said = publish.publish_workspace(**where, runs_dir=runs_dir, out=out)
        elif of_study:
            scale, tuned = options.pop("scale", None), take("tune", "false") == "true"
            refuse_rest(options, "scale= tune= project= entity= runs_dir= out=")
            said = publish.publish_study(name, scale, runs_dir, **where, out=out, tuned=tuned)
        else:
            against = options.pop("against", None)
            said = publish.publish_sweep(runs_dir, options, against, **where, out=out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(said)
    if said == str(out):
        print("W&B: not logged in; `wandb login`, then the same line, publishes it", file=sys.stderr)


def refuse_rest(options: dict[str, str], known: str) -> None:
    for key in options:
        raise ValueError(f"{key}= is no option here: {known} are")


if __name__ == "__main__":
    main(sys.argv[1:])
