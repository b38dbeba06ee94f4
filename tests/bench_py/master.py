"""What Python needs to count the parcels of every cell of a GeoPackage: one line of JSON.

    master.py GPKG geopandas --cells N     one bbox read per cell of the extent, N evenly spaced cells measured
    master.py GPKG full                    everything read by pyogrio, cells counted by numpy

`full_cpu_s` and `full_wall_s` are for the whole grid: extrapolated by the number of cells for `geopandas`, as
measured for `full`. Imports are not counted.
"""

import argparse
import json
import math
import resource
import time

import geopandas as gpd
import numpy as np
import pyogrio
import shapely

from land import CLASS_OF_CODE, LAYER, STEP


def used():
    now = resource.getrusage(resource.RUSAGE_SELF)
    return now.ru_utime + now.ru_stime


def per_cell(path, count):
    w, s, e, n = pyogrio.read_info(path, layer=LAYER, force_total_bounds=True)["total_bounds"]
    columns = range(math.floor(w / STEP), math.floor(e / STEP) + 1)
    rows = range(math.floor(s / STEP), math.floor(n / STEP) + 1)
    cells = [(i, j) for j in rows for i in columns]
    measured = [cells[k] for k in np.linspace(0, len(cells) - 1, min(count, len(cells))).astype(int)]
    for i, j in measured:
        box = (i * STEP, j * STEP, (i + 1) * STEP, (j + 1) * STEP)
        parcels = gpd.read_file(path, layer=LAYER, bbox=box)
        parcels["EC_hcat_c"].map(CLASS_OF_CODE).value_counts()
    return len(cells), len(measured)


def full(path):
    _, _, wkb, (codes,) = pyogrio.raw.read(path, layer=LAYER, columns=["EC_hcat_c"])
    points = shapely.get_coordinates(shapely.centroid(shapely.from_wkb(wkb)))
    cells = np.floor(points / STEP).astype(np.int64)
    kinds, kind = np.unique(codes.astype(str), return_inverse=True)
    classes = np.array([CLASS_OF_CODE[c] for c in kinds])[kind]
    keys, _ = np.unique((cells[:, 0] * 10_000 + cells[:, 1]) * 10 + classes, return_counts=True)
    return len(np.unique(keys // 10)), None


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("gpkg")
    ask.add_argument("how", choices=["geopandas", "full"])
    ask.add_argument("--cells", type=int, default=300)
    asked = ask.parse_args()
    cpu, since = used(), time.perf_counter()
    cells, measured = per_cell(asked.gpkg, asked.cells) if asked.how == "geopandas" else full(asked.gpkg)
    cpu, wall = used() - cpu, time.perf_counter() - since
    times = cells / measured if measured else 1.0
    print(json.dumps(dict(
        cells=cells, measured=measured, cpu_s=cpu, wall_s=wall, full_cpu_s=cpu * times, full_wall_s=wall * times,
        rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )))


main()
