"""Simulate how often the rules of a study err if the truth is known. Rates are in percent; 5 is promised.

python scripts/simulate_rule.py                 two minutes of one core
python scripts/simulate_rule.py samples=500     a rough result
"""

import sys

from patchbench.config.arguments import errors_in_one_line, read


def main(arguments: list[str]) -> None:
    with errors_in_one_line():
        samples = read(__doc__, arguments, {"samples": 4000}).options["samples"]
        if samples < 100:
            raise ValueError(f"samples={samples} are too few to measure a rate of 5 %: give 100 or more")
    from patchbench.commands.simulate_rule import tables  # seconds of imports, not needed for --help

    for title, table in tables(samples):
        print(f"\n{title}\n{table.to_string(float_format='{:.1f}'.format)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
