#!/usr/bin/env python3
"""compare_datasets.py A B: are images/ and masks/ of two datasets the same files with the same bytes?

Prints what differs and exits 1 then. Two empty datasets are a difference too: nothing was compared.
"""

import filecmp
import pathlib
import sys

SHOWN = 20


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    a, b = map(pathlib.Path, sys.argv[1:])
    differing, compared = [], 0
    for place in ("images", "masks"):
        names = [{p.name for p in (d / place).glob("*")} for d in (a, b)]
        differing += [f"{place}/{n} is only in {a if n in names[0] else b}" for n in sorted(names[0] ^ names[1])]
        for name in sorted(names[0] & names[1]):
            compared += 1
            if not filecmp.cmp(a / place / name, b / place / name, shallow=False):
                differing.append(f"{place}/{name} differs")
    for line in differing[:SHOWN]:
        print(f"DIFFERS  {line}")
    print(f"{compared} files compared, {len(differing)} differences")
    sys.exit(1 if differing or not compared else 0)


if __name__ == "__main__":
    main()
