#!/usr/bin/env python3
"""Would mosaics give a chip that single scenes cannot? No code of the pipeline; the merging is rasterio.merge's.

    check_mosaic.py [DIR --gpkg FILE --scenes ROOT [--config EFFECTIVE.toml]]

1. The grid of Sentinel-2 tiles of a UTM zone: origins at whole 100 km, moved out to whole 60 m; 109.8 km wide. Held
   against a real item first. Along either axis, every window of 2.56 km on the 10 m grid that the tiles cover together must
   lie in one of them whole; windows are products of two such intervals, so this settles all of them.
2. Four tiles of that grid under a swath whose edge runs through them: windows across their edges and corners, from single
   tiles and merged. A datatake that ends leaves nothing to merge: merging must make no further window whole.
3. With DIR, the same on a run: each drawn parcel's window and each zone and datatake of the scenes. Windows over an edge
   must be chips of another scene, whole, or rejected; merging must gain none.

Exit code 1 when a mosaic would gain a window, or when the run has a chip with a hole.
"""

import argparse
import collections
import json
import math
import pathlib
import sys

import numpy as np
import rasterio
import rasterio.merge
import rasterio.transform
from rasterio.io import MemoryFile

from check_chips import REPOSITORY, Settings
from land import Parcels, move
from rules import ClassRules
from scenes import Scenes

CHIP, TILE, SQUARE = 2_560, 109_800, 100_000


def west_of(square):
    return math.floor(square / 60) * 60


def north_of(square):
    return math.ceil(square / 60) * 60


def real_tiles():
    """Real files have the corners that the rule gives."""
    pages = json.loads((REPOSITORY / "tests/fixtures/earth_search/page1.json").read_text())["features"]
    assets = [a["proj:transform"] for item in pages for a in item["assets"].values() if "proj:transform" in a]
    wrong = 0
    for _, _, x0, _, _, y0 in (transform[:6] for transform in assets):
        east, north = round(x0 / SQUARE) * SQUARE, round(y0 / SQUARE) * SQUARE
        wrong += (x0, y0) != (west_of(east), north_of(north))
    return len(assets), wrong


def axis(starts):
    """Windows on the 10 m grid that the intervals of these tiles cover together, and how many are whole in none."""
    starts = sorted(starts)
    apart = max(b - a for a, b in zip(starts, starts[1:]))
    at = np.arange(starts[0], starts[-1] + TILE - CHIP + 1, 10)
    whole = np.zeros(len(at), dtype=bool)
    for start in starts:
        whole |= (at >= start) & (at + CHIP <= start + TILE)
    covered = TILE >= apart  # No gap between them, so together they cover all from first to last.
    return len(at), int((~whole).sum()) if covered else len(at), TILE - apart


def tile(east, north, edge):
    """A classification at 20 m of one tile: 4 west of the swath's edge, 0 beyond it."""
    x0, y0, n = west_of(east), north_of(north), TILE // 20
    x = x0 + (np.arange(n) + 0.5) * 20
    y = y0 - (np.arange(n) + 0.5) * 20
    seen = x[None, :] < edge(y)[:, None]
    file = MemoryFile()
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "width": n, "height": n, "nodata": 0, "compress": "zstd",
               "tiled": True, "crs": "EPSG:32630", "transform": rasterio.transform.from_origin(x0, y0, 20, 20)}  # fmt: skip
    with file.open(**profile) as out:
        out.write(seen.astype(np.uint8) * 4, 1)
    return file.open()


def meets(file, bounds):
    left, bottom, right, top = file.bounds
    return left < bounds[2] and bounds[0] < right and bottom < bounds[3] and bounds[1] < top


def holds(file, bounds):
    left, bottom, right, top = file.bounds
    return left <= bounds[0] and bounds[2] <= right and bottom <= bounds[1] and bounds[3] <= top


def hole(files, bounds):
    """Share of nodata in these files, merged, over a window; None when none of them reaches into it."""
    near = [f for f in files if meets(f, bounds)]
    if not near:
        return None
    merged, _ = rasterio.merge.merge(near, bounds=bounds, nodata=0)
    return float((merged[0] == 0).mean())


def whole(files, bounds):
    return hole(files, bounds) == 0.0


def swath(report):
    """Windows around the edges of four tiles, the swath's edge crossing some of them."""
    slope = 0.21
    edge = lambda y: 452_000 + (y - 4_600_000) * slope
    tiles = [tile(e, n, edge) for e in (300_000, 400_000) for n in (4_600_000, 4_700_000)]
    dice, near = np.random.default_rng(7), []
    for _ in range(600):
        # Along the borders between the tiles, and along the swath's edge where it crosses the overlaps.
        x, y = dice.integers(398_000, 414_000), dice.integers(4_500_000, 4_690_000)
        near.append((x, y) if dice.random() < 0.5 else (int(edge(y)) + dice.integers(-3_000, 3_000), dice.integers(4_586_000, 4_602_000)))
    merged = single = gained = crossing = 0
    for x, y in near:
        left, bottom = x // 20 * 20, y // 20 * 20
        bounds = (left, bottom, left + CHIP, bottom + CHIP)
        crossing += any(meets(t, bounds) and not holds(t, bounds) for t in tiles)
        one, all_of_them = any(whole([t], bounds) for t in tiles), whole(tiles, bounds)
        merged, single, gained = merged + all_of_them, single + one, gained + (all_of_them and not one)
    report.update({"windows tried on four tiles": len(near), "of them across an edge of a tile": crossing,
                   "cut by the swath's edge, merged or not": len(near) - merged, "whole when merged": merged,
                   "whole in one tile": single, "gained by merging": gained})  # fmt: skip
    return gained + (merged == 0) + (merged == len(near))


def of_a_run(report, given):
    """The windows of drawn parcels in every zone and datatake of the scenes."""
    settings, rules = Settings.load(given.config), ClassRules(REPOSITORY / "config/classes/eurocrops.csv")
    parcels = Parcels(given.gpkg, settings.layer or None, settings.code_column, settings.name_column, rules)
    scenes, chips, lost = Scenes([given.scenes]), collections.defaultdict(list), {}
    for path in given.dataset.glob(".manifests/*/task_*.json"):
        manifest = json.loads(path.read_text())
        for chip in manifest["chips"]:
            chips[chip["parcel"]].append(chip)
        lost.update({r["parcel"]: r["reason"] for r in manifest["rejected"]})
    takes = collections.defaultdict(list)
    for scene in (s for s in scenes.all if s.has([*settings.bands, "SCL"])):
        takes[scene.epsg, scene.datetime].append(scene)
    size, over, gained, elsewhere, holes, rejected = settings.size * 10, 0, 0, 0, 0, 0
    points = {epsg: move(parcels.points, parcels.crs, f"EPSG:{epsg}") for epsg in {e for e, _ in takes}}
    for at, parcel in enumerate(int(i) for i in parcels.ids):
        if not (chips[parcel] or parcel in lost):
            continue
        edges = 0
        for (epsg, _), group in takes.items():
            x, y = points[epsg][at]
            if not np.isfinite([x, y]).all():
                continue
            left, top = math.floor(x / 20) * 20 - size // 2, math.floor(y / 20) * 20 + size // 2
            bounds = (left, top - size, left + size, top)
            files = {s.file("SCL"): s for s in group}
            opened = [rasterio.open(f) for f in files]
            share, one = hole(opened, bounds), any(whole([f], bounds) for f in opened)
            if share is None or share == 1.0:
                continue
            edges += not one
            gained += share == 0.0 and not one
        over += edges
        if edges:
            elsewhere, rejected = elsewhere + bool(chips[parcel]), rejected + (parcel in lost)
        for chip in chips[parcel]:
            with rasterio.open(given.dataset / "images" / f"{chip['name']}.tif") as image:
                holes += bool((image.read() == 0).any()) and settings.max_nodata == 0
    report.update({"zones and datatakes of the run": len(takes), "windows of drawn parcels over a scene's edge": over,
                   "parcels of them with a chip from elsewhere": elsewhere, "parcels of them rejected": rejected,
                   "chips with a hole": holes, "gained by merging zone and datatake": gained})  # fmt: skip
    return gained + holes + (over == 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", type=pathlib.Path, nargs="?")
    parser.add_argument("--gpkg")
    parser.add_argument("--scenes")
    parser.add_argument("--config")
    given = parser.parse_args()
    report = {}
    items, wrong = real_tiles()
    report.update({"real files with the corners of the rule": items - wrong, "real files elsewhere": wrong})
    bad = wrong + (items == 0)
    for name, starts in (
        ("across a zone", [west_of(e) for e in range(100_000, 900_000, SQUARE)]),
        ("from south to north", [north_of(n) - TILE for n in range(100_000, 9_400_000, SQUARE)]),
    ):
        windows, torn, overlap = axis(starts)
        report.update({f"windows {name}": windows, f"whole in no tile {name}": torn, f"metres of overlap {name}": overlap})
        bad += torn + (overlap < CHIP)
    bad += swath(report)
    if given.dataset:
        bad += of_a_run(report, given)
    for what, count in report.items():
        print(f"{what:<48}{count:>12,}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
