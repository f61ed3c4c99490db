"""Write a page over the runs on disk: table, curves, scatter, parallel coordinates, a page for each run.

python scripts/dashboard.py                          all of runs/, into runs/dashboard.html: open it in a browser
python scripts/dashboard.py runs_dir=elsewhere       of another folder
python scripts/dashboard.py out=/tmp/page.html       elsewhere, to pass on: it holds the pictures, too
"""

import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    if {"-h", "--help"} & set(arguments):
        print(__doc__.strip())
        return
    from patchbench.pages.dashboard.page import write  # seconds of imports, not needed for --help

    try:
        given = dict(argument.partition("=")[::2] for argument in arguments)
        for name, value in given.items():
            if name not in ("runs_dir", "out") or not value:
                raise ValueError(f"{name}={value} is no option: runs_dir=<folder> and out=<file>.html are")
        out = Path(given["out"]) if "out" in given else None
        path, count = write(Path(given.get("runs_dir", "runs")), out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(f"{count} runs, {path.stat().st_size / 1e6:.1f} MB: open {path} in a browser")


if __name__ == "__main__":
    main(sys.argv[1:])
