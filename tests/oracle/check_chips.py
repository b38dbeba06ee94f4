#!/usr/bin/env python3
"""Checks a dataset against scenes and parcels with rasterio, pyogrio, shapely and pyproj: no code of the pipeline.

    check_chips.py DIR --gpkg FILE --scenes ROOT_OR_ITEM... [--config EFFECTIVE.toml] [--every-window-in-scene]

For every chip that a manifest names: both files are there, with the bytes they were written with; CRS, transform, dtype,
nodata, descriptions, palette and layout; the window is the one centred on the parcel's representative point; image
pixels equal a windowed read of the item's files; mask pixels equal rasterio.features.rasterize of the same parcels (a
pixel whose centre is within 1 cm of an edge may differ: edges come out of another version of PROJ). For every task: the
parcels that were to be drawn, each of which must be a chip or a rejection. With --every-window-in-scene also, over all
tasks there should be: every drawn parcel whose window lies in a scene of the seasons, with valid pixels, has its pair.

--config takes the output of `node config`; without it the defaults of config/default.toml hold. Exit code 1 when
anything differs. Memory: one chip, GDAL's block cache, and 60 bytes for each parcel.
"""

import argparse
import collections
import dataclasses
import datetime
import hashlib
import json
import pathlib
import struct
import sys
import time
import tomllib

import numpy as np
import rasterio
import rasterio.features
import shapely

from land import Parcels, move
from rules import ClassRules, drawn
from scenes import Scenes

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
EDGE_M = 0.01
SHOWN = 40


@dataclasses.dataclass
class Settings:
    """What of the configuration decides how chips look."""

    seed: int
    step: float
    min_parcels: int
    probabilities: dict
    seasons: list
    size: int
    bands: list
    bilinear: bool
    max_nodata: float
    template: str
    compression: str
    code_column: str
    name_column: str
    layer: str

    @staticmethod
    def raw(path):
        base = tomllib.loads((REPOSITORY / "config/default.toml").read_text())
        text = pathlib.Path(path).read_text() if path else ""
        given = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
        for section, values in given.items():
            base[section] = {**base[section], **values}
        return base

    @classmethod
    def load(cls, path):
        base = cls.raw(path)
        day = datetime.date.fromisoformat
        basic = base["sampling"]["mode"] == "basic"
        return cls(
            seed=base["run"]["seed"],
            step=base["grid"]["step"],
            min_parcels=base["grid"]["min_parcels"],
            probabilities={} if basic else base["sampling"]["probabilities"],
            seasons=[(day(a), day(b)) for a, b in base["stac"]["seasons"].values()],
            size=base["chips"]["size"],
            bands=base["chips"]["bands"],
            bilinear=base["chips"]["resampling"] == "bilinear",
            max_nodata=base["chips"]["max_nodata_fraction"],
            template=base["output"]["name_template"],
            compression=base["output"]["compression"],
            code_column=base["parcels"]["code_column"],
            name_column=base["parcels"]["name_column"],
            layer=base["parcels"]["layer"],
        )


class Report:
    """What was compared, and what differed."""

    def __init__(self):
        self.counts = collections.Counter()
        self.problems = []

    def wrong(self, what):
        self.problems.append(what)

    def same(self, what, got, wanted):
        if got != wanted:
            self.wrong(f"{what} is {got!r}, should be {wanted!r}")

    def pixels(self, kind, what, differing, compared):
        self.counts[f"{kind} pixels compared"] += compared
        self.counts[f"{kind} pixels that differ"] += differing
        if differing:
            self.wrong(f"{what}: {differing} of {compared} {kind} pixels differ")


class Check:
    def __init__(self, dataset, parcels, scenes, rules, settings, report):
        self.dataset, self.parcels, self.scenes = dataset, parcels, scenes
        self.rules, self.settings, self.report = rules, settings, report
        self.chips_of = collections.Counter()
        self.rejected = {}
        self.named = set()

    def manifest(self, path):
        manifest = json.loads(path.read_text())
        report, result = self.report, manifest["result"]
        report.counts["tasks"] += 1
        report.same(f"{path}: task", f"task_{manifest['key']['task']}.json", path.name)
        at = self.parcels.within(result["bbox"])
        classes, ids = self.parcels.classes[at], self.parcels.ids[at]
        probabilities = result["sampling_probs"]
        chosen = ids[drawn(self.settings.seed, ids, classes, probabilities)]
        numbers = {int(parcel): n for n, parcel in enumerate(chosen)}
        done = [c["parcel"] for c in manifest["chips"]] + [r["parcel"] for r in manifest["rejected"]]
        what = f"task {manifest['key']['task']}"
        wanted = np.isin(classes, [int(c) for c in probabilities]) if probabilities else classes > 0
        status = (
            "skipped_few_polygons" if len(at) < self.settings.min_parcels
            else "skipped_no_target_classes" if not wanted.any()
            else "skipped_sampling" if not len(chosen)
            else "success"
        )  # fmt: skip
        report.same(f"{what}: status", result["status"], status)
        if status == "success":
            report.same(f"{what}: parcels drawn", sorted(done), [int(i) for i in chosen])
        report.same(f"{what}: chips_saved", result["chips_saved"], len(manifest["chips"]))
        per_class = collections.Counter(str(c["class"]) for c in manifest["chips"])
        report.same(f"{what}: chips_per_class", result["chips_per_class"], dict(per_class))
        for rejection in manifest["rejected"]:
            self.rejected[rejection["parcel"]] = rejection["reason"]
            if not rejection["reason"]:
                report.wrong(f"{what}: parcel {rejection['parcel']} was rejected without a reason")
        for chip in manifest["chips"]:
            try:
                self.chip(chip, manifest, numbers)
            except (OSError, ValueError, KeyError, rasterio.errors.RasterioError) as error:
                report.wrong(f"{chip['name']}: {type(error).__name__}: {error}")

    def chip(self, chip, manifest, numbers):
        report, settings, name = self.report, self.settings, chip["name"]
        report.counts["chips"] += 1
        self.chips_of[chip["parcel"]] += 1
        self.named.add(name)
        report.same(f"{name}: name", name, self.name(chip, manifest, numbers.get(chip["parcel"])))
        scene = self.scenes.by_id[chip["collection"], chip["item"]]
        report.same(f"{name}: epsg", chip["epsg"], scene.epsg)
        report.same(f"{name}: cloud cover", chip["cloud_cover"], scene.cloud)
        when = datetime.datetime.fromisoformat(chip["datetime"].replace("Z", "+00:00"))
        report.same(f"{name}: datetime", when, scene.datetime)
        if not in_seasons(scene, settings.seasons):
            report.wrong(f"{name}: {chip['item']} of {scene.datetime} is in no season")
        origin = self.window(chip, scene)
        if origin is None:
            return
        image, mask = self.files(chip, scene, origin)
        x0, y0, res = origin
        expected = scene.pixels(settings.bands, x0, y0, res, settings.size, settings.bilinear)
        report.pixels("image", name, int(np.count_nonzero(image != expected)), image.size)
        empty = float(np.mean((image == 0).any(axis=0)))
        if empty > settings.max_nodata:
            report.wrong(f"{name}: {empty:.3%} of the image is nodata")
        self.mask(chip, mask, origin)

    def name(self, chip, manifest, number):
        safe = lambda text: "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in text)
        return self.settings.template.format(
            worker=safe(manifest["result"]["worker_id"]), task=manifest["key"]["task"], run=safe(manifest["key"]["run"]),
            chip=number, parcel=chip["parcel"], **{"class": chip["class"]},
        )  # fmt: skip

    def window(self, chip, scene):
        """Upper left corner and resolution of the window the chip should have."""
        settings, at = self.settings, self.parcels.place_of(chip["parcel"])
        if at is None:
            self.report.wrong(f"{chip['name']}: there is no parcel {chip['parcel']}")
            return None
        self.report.same(f"{chip['name']}: class", chip["class"], int(self.parcels.classes[at]))
        point = move(self.parcels.points[[at]], self.parcels.crs, f"EPSG:{scene.epsg}")[0]
        found = scene.window(point, settings.bands, settings.size)
        transform, _, _ = scene.grid(settings.bands)
        grid = chip["grid"]
        self.report.same(f"{chip['name']}: size", (grid["width"], grid["height"]), (settings.size,) * 2)
        if found is None:
            self.report.wrong(f"{chip['name']}: its window leaves {chip['item']}")
            return None
        col, row, doubt = found
        wanted = (transform.c + col * transform.a, transform.f - row * transform.a, transform.a)
        got = (grid["x0"], grid["y0"], grid["res"])
        # A point on the line between two pixels, to the millimetre, may fall into either.
        near = doubt * transform.a < 0.001 and max(abs(a - b) for a, b in zip(got, wanted)) <= transform.a
        if got != wanted and not near:
            self.report.wrong(f"{chip['name']}: its window begins at {got}, should at {wanted}")
        return got

    def files(self, chip, scene, origin):
        """Pixels of both files, after everything that is not a pixel."""
        settings, report, name = self.settings, self.report, chip["name"]
        x0, y0, res = origin
        arrays = []
        for place in ("images", "masks"):
            path, record = self.dataset / place / f"{name}.tif", chip[place[:-1]]
            raw = path.read_bytes()
            report.same(f"{path}: bytes", len(raw), record["bytes"])
            report.same(f"{path}: SHA-256", hashlib.sha256(raw).hexdigest(), record["sha256"])
            with rasterio.MemoryFile(raw) as memory, memory.open() as tif:
                count = len(settings.bands) if place == "images" else 1
                same = lambda what, got, wanted: report.same(f"{path}: {what}", got, wanted)
                same("driver", tif.driver, "GTiff")
                same("EPSG", tif.crs.to_epsg(), scene.epsg)
                same("transform", tuple(tif.transform)[:6], (res, 0.0, x0, 0.0, -res, y0))
                same("shape", (tif.count, *tif.shape), (count, settings.size, settings.size))
                same("dtypes", set(tif.dtypes), {"uint16" if place == "images" else "uint8"})
                same("nodata", set(tif.nodatavals), {0.0})
                same("blocks", set(tif.block_shapes), {(settings.size, settings.size)})
                same("compression", tif.compression.value.lower() if tif.compression else "none", settings.compression)
                tags, raw_tags = tif.tags(), tiff_tags(raw)
                same("tile", (raw_tags.get(322), raw_tags.get(323)), (settings.size, settings.size))
                if place == "images":
                    same("descriptions", list(tif.descriptions), settings.bands)
                    same("interleaving", tif.interleaving.value.lower(), "band")
                    same("predictor", raw_tags.get(317, 1), 1 if settings.compression == "none" else 2)
                    same("ITEM", tags.get("ITEM"), chip["item"])
                    same("COLLECTION", tags.get("COLLECTION"), chip["collection"])
                    same("DATETIME", tags.get("DATETIME"), chip["datetime"])
                else:
                    palette = tif.colormap(1)
                    for number, colour in self.rules.colours.items():
                        same(f"colour of class {number}", palette[number][:3], colour)
                arrays.append(tif.read())
        return arrays[0], arrays[1][0]

    def mask(self, chip, mask, origin):
        report, size, name = self.report, self.settings.size, chip["name"]
        x0, y0, res = origin
        crs = f"EPSG:{chip['epsg']}"
        bounds = (x0, y0 - size * res, x0 + size * res, y0)
        shapes, classes = self.parcels.around(bounds, crs)
        transform = rasterio.Affine(res, 0, x0, 0, -res, y0)
        # Burnt in ascending order of id: a later parcel wins where two overlap.
        expected = rasterio.features.rasterize(
            zip(shapes, (int(c) for c in classes)), out_shape=mask.shape, fill=0, transform=transform, dtype="uint8"
        )
        differing = 0
        for row, col in np.argwhere(mask != expected):
            centre = shapely.Point(x0 + (col + 0.5) * res, y0 - (row + 0.5) * res)
            if shapely.distance(shapely.boundary(shapes), centre).min(initial=np.inf) > EDGE_M:
                differing += 1
            else:
                report.counts["mask pixels on an edge that fell the other way"] += 1
        report.pixels("mask", name, differing, mask.size)
        values, counts = np.unique(mask, return_counts=True)
        report.same(f"{name}: histogram", chip["pixels"], [[int(v), int(n)] for v, n in zip(values, counts)])
        if not mask.any():
            report.wrong(f"{name}: the mask is empty")

    def directory(self):
        """Files and manifests must name each other, one to one."""
        for place in ("images", "masks"):
            there = {p.name for p in (self.dataset / place).glob("*")}
            for name in sorted(there ^ {f"{n}.tif" for n in self.named}):
                self.report.wrong(f"{place}/{name} is {'named by no manifest' if name in there else 'missing'}")
        for parcel, times in self.chips_of.items():
            if times > 1:
                self.report.wrong(f"parcel {parcel} has {times} chips")

    def every_window(self):
        """Every drawn parcel whose window a scene of the seasons holds, with pixels, must be a chip."""
        settings, parcels, report = self.settings, self.parcels, self.report
        cells = np.column_stack([cell_index(parcels.lonlat[:, i], settings.step) for i in (0, 1)])
        _, which, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
        peopled = counts[which.ravel()] >= settings.min_parcels
        chosen = drawn(settings.seed, parcels.ids, parcels.classes, settings.probabilities) & peopled
        report.counts["parcels drawn"] = int(np.count_nonzero(chosen))
        for at in np.flatnonzero(chosen):
            parcel = int(parcels.ids[at])
            if self.chips_of[parcel]:
                # That its scene holds the window was found when the chip was checked.
                report.counts["of them with their window in a scene"] += 1
                continue
            holder = next((s for s in self.scenes.all if self.can_give(s, at)), None)
            if holder is not None:
                report.counts["of them with their window in a scene"] += 1
                why = self.rejected.get(parcel, "it is in no manifest")
                report.wrong(f"parcel {parcel} has no chip ({why}), but {holder.id} holds its window")

    def can_give(self, scene, at):
        settings, parcels = self.settings, self.parcels
        if not in_seasons(scene, settings.seasons) or not scene.has(settings.bands):
            return False
        point = move(parcels.points[[at]], parcels.crs, f"EPSG:{scene.epsg}")[0]
        found = scene.window(point, settings.bands, settings.size) if np.isfinite(point).all() else None
        if found is None:
            return False
        transform, _, _ = scene.grid(settings.bands)
        x0, y0 = transform.c + found[0] * transform.a, transform.f - found[1] * transform.a
        pixels = scene.pixels(settings.bands, x0, y0, transform.a, settings.size)
        return float(np.mean((pixels == 0).any(axis=0))) <= settings.max_nodata


def tiff_tags(raw):
    """Tags of the first directory that hold one number in place (little-endian classic TIFF, what chips are)."""
    at = struct.unpack_from("<I", raw, 4)[0]
    entries = (struct.unpack_from("<HHII", raw, at + 2 + 12 * i) for i in range(struct.unpack_from("<H", raw, at)[0]))
    return {tag: value & (0xFFFF if kind == 3 else 0xFFFFFFFF) for tag, kind, count, value in entries if count == 1}


def cell_index(degrees, step):
    """Number of the cell; edge i is i * step, and belongs to the cell above it."""
    index = np.floor(degrees / step)
    index -= index * step > degrees
    index += (index + 1) * step <= degrees
    return index.astype(np.int64)


def in_seasons(scene, seasons):
    day = scene.datetime.astimezone(datetime.timezone.utc).date()
    return any(first <= day <= last for first, last in seasons)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", type=pathlib.Path)
    parser.add_argument("--gpkg", required=True)
    parser.add_argument("--layer")
    parser.add_argument("--scenes", required=True, nargs="+")
    parser.add_argument("--classes", default=REPOSITORY / "config/classes/eurocrops.csv")
    parser.add_argument("--config")
    parser.add_argument("--every-window-in-scene", action="store_true")
    parser.add_argument("--at-least", type=int, default=1, metavar="CHIPS", help="fewer chips are a failure")
    given = parser.parse_args()
    began = time.monotonic()
    settings, rules, report = Settings.load(given.config), ClassRules(given.classes), Report()
    layer = given.layer or settings.layer or None
    parcels = Parcels(given.gpkg, layer, settings.code_column, settings.name_column, rules)
    check = Check(given.dataset, parcels, Scenes(given.scenes), rules, settings, report)
    report.counts["rows of the layer"], report.counts["parcels of them"] = parcels.rows, len(parcels.ids)
    for kind in ("image", "mask"):
        report.pixels(kind, "", 0, 0)
    for path in sorted(given.dataset.glob(".manifests/*/task_*.json")):
        check.manifest(path)
    check.directory()
    if given.every_window_in_scene:
        check.every_window()
    if report.counts["chips"] < given.at_least:
        report.wrong(f"{report.counts['chips']} chips, at least {given.at_least} were expected")
    for problem in report.problems[:SHOWN]:
        print(f"DIFFERS  {problem}")
    if len(report.problems) > SHOWN:
        print(f"... and {len(report.problems) - SHOWN} more")
    for what, count in report.counts.items():
        print(f"{what:<46}{count:>14,}")
    print(f"{'seconds':<46}{time.monotonic() - began:>14,.1f}")
    print(f"{'differences':<46}{len(report.problems):>14,}")
    sys.exit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
