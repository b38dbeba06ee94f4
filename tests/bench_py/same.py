"""Whether datasets hold the same chips: names, pixels, transforms and CRS of the first against each other.

    same.py DATASET DATASET...        exit 1 on any difference
"""

import pathlib
import sys

import numpy as np
import rasterio


def files(root):
    return {str(p.relative_to(root)) for place in ("images", "masks") for p in (root / place).glob("*.tif")}


def main():
    first, *others = map(pathlib.Path, sys.argv[1:])
    wanted, bad = files(first), 0
    for other in others:
        found = files(other)
        wrong = len(wanted ^ found)
        for name in sorted(wanted & found):
            with rasterio.open(first / name) as a, rasterio.open(other / name) as b:
                same = np.array_equal(a.read(), b.read()) and a.transform == b.transform and a.crs == b.crs
            wrong += not same
        print(f"{other.name}: {len(found) // 2} chips, {wrong} files differ from {first.name}")
        bad += wrong
    return 1 if bad or not wanted else 0


sys.exit(main())
