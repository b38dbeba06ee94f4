"""Whether datasets hold the same chips: parcels, pixels, transforms and CRS of the first against each other.

    same.py DATASET DATASET...        exit 1 on any difference

A file's name begins with its parcel, `pN`; what follows an underscore is the program's own.
"""

import pathlib
import sys

import numpy as np
import rasterio


def files(root):
    found = [p for place in ("images", "masks") for p in (root / place).glob("*.tif")]
    return {(p.parent.name, p.stem.split("_")[0]): p for p in found}


def main():
    first, *others = map(pathlib.Path, sys.argv[1:])
    wanted, bad = files(first), 0
    for other in others:
        found = files(other)
        wrong = len(wanted.keys() ^ found.keys())
        for key in sorted(wanted.keys() & found.keys()):
            with rasterio.open(wanted[key]) as a, rasterio.open(found[key]) as b:
                same = np.array_equal(a.read(), b.read()) and a.transform == b.transform and a.crs == b.crs
            wrong += not same
        print(f"{other.name}: {len(found) // 2} chips, {wrong} files differ from {first.name}")
        bad += wrong
    return 1 if bad or not wanted else 0


sys.exit(main())
