#!/usr/bin/env python3
"""Whether anything of what is wrong with scenes and parcels got into a dataset; no code of the pipeline.

    check_planted.py DIR --gpkg FILE --scenes ROOT [--config EFFECTIVE.toml]

Finds the troubles in the inputs themselves with rasterio, pyogrio and shapely: clouds, BOA offsets that items deny or
invent, ground darker than the offset (or wrapped around by who took it out), products listed twice, items without a band, scenes cut off by their orbit, parcels that two zones cover, invalid
shapes. Prints for each what was planted, where it met the run, and what of it the dataset contains, which must be
nothing. A kind that was not planted is a failure too: then nothing was shown. Exit code 1 when anything got through.
"""

import argparse
import collections
import json
import pathlib
import sys

import numpy as np
import pyogrio
import rasterio
import rasterio.features
import shapely

import quality
from check_chips import REPOSITORY, Settings
from land import Parcels, mended, move, only_polygon_layer
from rules import ClassRules
from scenes import Scenes, opened


class Dataset:
    """Chips and rejections of all manifests."""

    def __init__(self, place):
        self.place, self.chips, self.rejected = place, [], []
        for path in sorted(place.glob(".manifests/*/task_*.json")):
            manifest = json.loads(path.read_text())
            # The season the task drew: that of its chips for which nobody had to look further.
            drawn = {c["season"] for c in manifest["chips"] if c["provenance"].get("widened", "") != "season"}
            self.chips += [{**c, "asked": drawn} for c in manifest["chips"]]
            self.rejected += manifest["rejected"]

    def read(self, kind, chip):
        with rasterio.open(self.place / kind / f"{chip['name']}.tif") as tif:
            return tif.read()


class Table:
    def __init__(self):
        self.rows, self.through = [], 0

    def row(self, what, planted, met, contained, of):
        self.rows.append((what, planted, met, f"{contained} of {of}"))
        self.through += contained + (planted == 0)

    def show(self):
        head = ("planted", "how many", "met by the run", "in the dataset")
        rows = [head, *((w, str(p), m, c) for w, p, m, c in self.rows)]
        widths = [max(len(r[i]) for r in rows) for i in range(4)]
        for row in rows:
            print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())


def where(chip):
    grid = chip["grid"]
    return grid["x0"], grid["y0"], grid["res"], grid["width"]


def clouds(table, data, scenes, settings):
    """Windows under clouds in scenes that were better by the item's word."""
    covered = [s for s in scenes.all if s.cloud and s.cloud > 0]
    widened = sum(c["provenance"].get("widened", "") != "" for c in data.chips)
    lost = sum(r["reason"] == "cloud" for r in data.rejected)
    cloudy = passed = 0
    for chip in data.chips:
        scene = scenes.by_id[chip["collection"], chip["item"]]
        cloudy += quality.bad_share(scene, settings.bad_scl, *where(chip))[0] > settings.max_bad
        for other in covered:
            better = other.epsg == scene.epsg and other.cloud < scene.cloud and in_season(other, settings, chip["season"])
            if better and inside(other, chip) and other.has([*settings.bands, "SCL"]):
                passed += quality.bad_share(other, settings.bad_scl, *where(chip))[0] > settings.max_bad
    met = f"{passed} windows passed over for a cloudier scene, {widened} searched for further, {lost} parcels given up"
    table.row("scenes with clouds", len(covered), met, cloudy, f"{len(data.chips)} chips")


def in_season(scene, settings, season):
    first, last = settings.seasons[season]
    return first <= scene.datetime.date() <= last


def inside(scene, chip):
    x0, y0, res, size = where(chip)
    west, south, east, north = opened(scene.file("SCL")).bounds
    return west <= x0 and x0 + res * size <= east and south <= y0 - res * size and y0 <= north


def offsets(table, data, scenes):
    """Raw scenes, and scenes that are called raw; judged by the darkest land of each chip."""
    kinds = {"raw DNs": [], "DNs falsely called raw": []}
    for scene in scenes.all:
        if scene.item["properties"].get("earthsearch:boa_offset_applied") is False and scene.has(["B02", "SCL"]):
            dark = quality.dark_land(scene)
            kinds["raw DNs" if dark >= quality.OFFSET else "DNs falsely called raw"].append(scene)
    for kind, found in kinds.items():
        ids = {s.id for s in found}
        chips = [c for c in data.chips if c["item"] in ids]
        shifted = 0
        for chip in chips:
            scene, image = scenes.by_id[chip["collection"], chip["item"]], data.read("images", chip)[0]
            raw = scene.band("B02", *where(chip), False)
            moved = set(np.unique((raw.astype(int) - image)[(raw > 1001) & (image > 1)]))
            shifted += moved != ({quality.OFFSET} if kind == "raw DNs" else {0})
        table.row(f"scenes with {kind}", len(found), f"{len(chips)} chips of them", shifted, f"{len(chips)} chips")


def dark_ground(table, data, scenes, settings):
    """DNs that are not above the offset become 1: were they 0, dark ground would be called unseen."""
    planted, met, chips, wrong = 0, 0, 0, 0
    raw = {s.id for s in scenes.all if s.has(settings.bands) and quality.offset_of(s, settings.harmonise)[0]}
    for scene in (s for s in scenes.all if s.id in raw):
        for band in settings.bands:
            values = opened(scene.file(band)).read(1)
            planted += int(((values > 0) & (values <= quality.OFFSET)).sum())
    for chip in (c for c in data.chips if c["item"] in raw):
        scene = scenes.by_id[chip["collection"], chip["item"]]
        before = scene.pixels(settings.bands, *where(chip))
        low = (before > 0) & (before <= quality.OFFSET)
        met, chips = met + int(low.sum()), chips + bool(low.any())
        wrong += int((data.read("images", chip)[low] != 1).sum())
    planted = planted if met else 0  # What no chip shows has shown nothing.
    table.row("DNs not above the offset", planted, f"{met} of them in {chips} chips, there 1", wrong, f"{met} made 0 or lifted")


def wrapped(table, data, scenes, settings):
    """DNs beyond everything that reflects: the archive subtracted below zero."""
    bad = [s for s in scenes.all if s.has(settings.bands) and (opened(s.file("B11")).read(1) > quality.SUSPECT).any()]
    refused = through = 0
    for chip in data.chips:
        through += quality.suspect_share(data.read("images", chip)) > settings.max_suspect
        for scene in bad:
            if scene.epsg == chip["epsg"] and scene.id != chip["item"] and inside(scene, chip):
                share = quality.suspect_share(scene.pixels(settings.bands, *where(chip)))
                refused += share > settings.max_suspect and any(in_season(scene, settings, s) for s in chip["asked"])
    met = f"{refused} windows passed over for another scene"
    table.row("scenes wrapped around zero", len(bad) if refused else 0, met, through, f"{len(data.chips)} chips")


def twins(table, data, scenes):
    """Items of one product."""
    products = collections.defaultdict(list)
    for scene in scenes.all:
        products[scene.item["properties"].get("s2:product_uri")].append(scene)
    doubled = {k: v for k, v in products.items() if k and len(v) > 1}
    best = {k: max(v, key=lambda s: int(s.item["properties"].get("s2:sequence", 0))).id for k, v in doubled.items()}
    chips = [c for c in data.chips if c["provenance"].get("product_uri") in doubled]
    older = sum(c["item"] != best[c["provenance"]["product_uri"]] for c in chips)
    times = collections.Counter((c["parcel"], c["season"]) for c in data.chips)
    doubles = sum(n - 1 for n in times.values())
    table.row("products listed twice", len(doubled), f"{len(chips)} chips of them", older + doubles, f"{len(chips)} chips")


def lacking(table, data, scenes, settings):
    ids = {s.id for s in scenes.all if not s.has(settings.bands)}
    got = sum(c["item"] in ids for c in data.chips)
    table.row("items without a band", len(ids), "left out by the catalog", got, f"{len(data.chips)} chips")


def edges(table, data, scenes, settings):
    """Scenes whose orbit ends inside them."""
    cut = {s.id for s in scenes.all if s.has(["SCL"]) and (opened(s.file("SCL")).read(1) == 0).mean() > 0.001}
    lost = sum(r["reason"] in ("nodata", "outside_scene") for r in data.rejected)
    holes, chips = 0, [c for c in data.chips if c["item"] in cut]
    for chip in data.chips:
        holes += float(np.mean((data.read("images", chip) == 0).any(axis=0))) > settings.max_nodata
    met = f"{len(chips)} chips beside the edge, {lost} parcels given up for it"
    table.row("scenes cut off by their orbit", len(cut), met, holes, f"{len(data.chips)} chips")


def zones(table, data, scenes, parcels, settings):
    """Parcels whose windows lie in scenes of two zones."""
    codes, shared = sorted({s.epsg for s in scenes.all}), []
    frames = {epsg: next(s for s in scenes.all if s.epsg == epsg and s.has(settings.bands)) for epsg in codes}
    points = {epsg: move(parcels.points, parcels.crs, f"EPSG:{epsg}") for epsg in codes}
    fits = lambda epsg, at: np.isfinite(points[epsg][at]).all() and frames[epsg].window(
        points[epsg][at], settings.bands, settings.size
    )
    for at, parcel in enumerate(parcels.ids):
        if sum(bool(fits(epsg, at)) for epsg in codes) > 1:
            shared.append(int(parcel))
    chips = collections.Counter((c["parcel"], c["season"]) for c in data.chips if c["parcel"] in set(shared))
    twice = sum(n - 1 for n in chips.values())
    table.row("parcels in two zones", len(shared), f"{sum(chips.values())} chips of them", twice, f"{sum(chips.values())} chips")


def shapes(table, data, gpkg, settings, rules):
    """Invalid geometries: masks around them must be those of the ground that shapely makes of them."""
    layer = settings.layer or only_polygon_layer(gpkg)
    frame = pyogrio.read_dataframe(gpkg, layer=layer, fid_as_index=True)
    geometry = np.asarray(frame.geometry.values)
    there = ~(shapely.is_missing(geometry) | shapely.is_empty(geometry))
    invalid = np.zeros(len(geometry), dtype=bool)
    invalid[there] = ~shapely.is_valid(geometry[there])
    whole, wrong, seen = mended(geometry[invalid]), 0, 0
    classes = [rules.of(c, n) for c, n in zip(frame["EC_hcat_c"][invalid], frame["EC_hcat_n"][invalid])]
    ids = [int(i) for i in frame.index[invalid]]
    for chip in data.chips:
        crs, (x0, y0, res, size) = f"EPSG:{chip['epsg']}", where(chip)
        window = shapely.box(x0, y0 - size * res, x0 + size * res, y0)
        transform = rasterio.Affine(res, 0, x0, 0, -res, y0)
        for parcel, number, ground in zip(ids, classes, whole):
            moved = shapely.transform(ground, lambda xy: move(xy, frame.crs, crs))
            if shapely.area(ground) == 0 or number == 0 or not moved.intersects(window):
                continue
            seen += 1
            inner = shapely.buffer(moved, -0.01)
            burnt = rasterio.features.rasterize([inner], out_shape=(size, size), transform=transform) == 1
            # These have the highest ids of all, so nothing is burnt over them.
            wrong += int(np.any(data.read("masks", chip)[0][burnt] != number))
    usable = sum(c in ids for c in (chip["parcel"] for chip in data.chips))
    met = f"{usable} became centres, {seen} times in a mask"
    table.row("invalid or empty parcels", int(invalid.sum() + (~there).sum()), met, wrong, f"{seen} masks")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", type=pathlib.Path)
    parser.add_argument("--gpkg", required=True)
    parser.add_argument("--scenes", required=True)
    parser.add_argument("--config")
    given = parser.parse_args()
    settings, rules = Settings.load(given.config), ClassRules(REPOSITORY / "config/classes/eurocrops.csv")
    parcels = Parcels(given.gpkg, settings.layer or None, settings.code_column, settings.name_column, rules)
    data, scenes, table = Dataset(given.dataset), Scenes([given.scenes]), Table()
    clouds(table, data, scenes, settings)
    offsets(table, data, scenes)
    dark_ground(table, data, scenes, settings)
    wrapped(table, data, scenes, settings)
    twins(table, data, scenes)
    lacking(table, data, scenes, settings)
    edges(table, data, scenes, settings)
    zones(table, data, scenes, parcels, settings)
    shapes(table, data, given.gpkg, settings, rules)
    table.show()
    print(f"{len(table.rows)} kinds of trouble, {table.through} got through or were not planted")
    sys.exit(1 if table.through else 0)


if __name__ == "__main__":
    main()
