#!/usr/bin/env python3
"""Checks a dataset against scenes and parcels with rasterio, pyogrio, shapely and pyproj: no code of the pipeline.

    check_chips.py DIR --gpkg FILE --scenes ROOT_OR_ITEM... [--config EFFECTIVE.toml] [--every-window-in-scene]

For every chip that a manifest names: both files are there, with the bytes they were written with; CRS, transform, dtype,
nodata, descriptions, scale, tags, palette, names and layout; the window is the one centred on the parcel's representative point; image
pixels equal a windowed read of the item's files, the BOA offset taken out where it has to be; bad, suspect and nodata
shares are those of the reads; mask pixels equal rasterio.features.rasterize of the same parcels (a
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
import math
import pathlib
import struct
import sys
import time
import tomllib

import numpy as np
import rasterio
import rasterio.features
import shapely
import xxhash

import quality
from land import Parcels, move
from rules import ClassRules, drawn
from scenes import Scenes

# Checksums that a manifest may have.
DIGESTS = {"sha256": lambda raw: hashlib.sha256(raw).hexdigest(), "xxh128": xxhash.xxh3_128_hexdigest}

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
EDGE_M = 0.01
SHOWN = 40
UNFIT = ("too_close", "too_small", "invalid_geometry", "few_labels", "empty_mask", "quota")


@dataclasses.dataclass
class Settings:
    """What of the configuration decides how chips look."""

    seed: int
    step: float
    min_parcels: int
    probabilities: dict
    seasons: dict
    season: str
    by_class: dict
    series: bool
    max_cloud: float
    size: int
    bands: list
    bilinear: bool
    max_nodata: float
    max_bad: float
    bad_scl: list
    require_scl: bool
    max_suspect: float
    harmonise: str
    repair: bool
    unlabelled: int
    erode_m: float
    min_distance: float
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
            seasons={name: (day(a), day(b)) for name, (a, b) in base["stac"]["seasons"].items()},
            season=base["stac"]["season"],
            by_class=base["stac"]["by_class"],
            series=base["stac"]["season"] == "all",
            max_cloud=base["stac"]["max_cloud"],
            size=base["chips"]["size"],
            bands=base["chips"]["bands"],
            bilinear=base["chips"]["resampling"] == "bilinear",
            max_nodata=base["chips"]["max_nodata_fraction"],
            max_bad=base["chips"]["max_bad_fraction"],
            bad_scl=base["chips"]["bad_scl"],
            require_scl=base["chips"]["require_scl"],
            max_suspect=base["chips"]["max_suspect_fraction"],
            harmonise=base["chips"]["harmonise"],
            repair=base["labels"]["invalid"] == "repair",
            unlabelled=base["labels"]["unlabelled"],
            erode_m=base["labels"]["erode_m"],
            min_distance=base["sampling"]["min_distance_m"],
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
        self.probabilities = settings.probabilities

    def manifest(self, path):
        manifest = json.loads(path.read_text())
        self.run = manifest["key"]["run"]
        report, result = self.report, manifest["result"]
        report.counts["tasks"] += 1
        report.same(f"{path}: task", f"task_{manifest['key']['task']}.json", path.name)
        at = self.parcels.within(result["bbox"])
        classes, ids = self.parcels.classes[at], self.parcels.ids[at]
        self.probabilities = probabilities = result["sampling_probs"]
        chosen = ids[drawn(self.settings.seed, ids, classes, probabilities)]
        numbers = {int(parcel): n for n, parcel in enumerate(chosen)}
        done = [c["parcel"] for c in manifest["chips"]] + [r["parcel"] for r in manifest["rejected"]]
        what = f"task {manifest['key']['task']}"
        # Rejected before any season was looked at.
        once = {r["parcel"] for r in manifest["rejected"] if not r.get("season")}
        wanted = np.isin(classes, [int(c) for c in probabilities]) if probabilities else classes > 0
        status = (
            "skipped_few_polygons" if len(at) < self.settings.min_parcels
            else "skipped_no_target_classes" if not wanted.any()
            else "skipped_sampling" if not set(chosen.tolist()) - once
            else "success"
        )  # fmt: skip
        report.same(f"{what}: status", result["status"], status)
        if status == "success":
            each = len(self.settings.seasons) if self.settings.series else 1
            states = [int(i) for i in chosen for _ in range(1 if i in once else each)]
            report.same(f"{what}: parcels drawn", sorted(done), states)
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
        if not in_seasons(scene, [settings.seasons[chip["season"]]]):
            report.wrong(f"{name}: {chip['item']} of {scene.datetime} is not in season {chip['season']}")
        origin = self.window(chip, scene)
        if origin is None:
            return
        image, mask = self.files(chip, scene, origin)
        x0, y0, res = origin
        raw = scene.pixels(settings.bands, x0, y0, res, settings.size, settings.bilinear)
        known = chip["provenance"]
        subtract, rule = quality.offset_of(scene, settings.harmonise)
        report.same(f"{name}: offset", (known["offset"], known.get("offset_rule", "")), (subtract, rule))
        expected = quality.harmonised(raw, subtract)
        report.pixels("image", name, int(np.count_nonzero(image != expected)), image.size)
        empty = float(np.mean((raw == 0).any(axis=0)))
        report.same(f"{name}: nodata fraction", known["nodata_fraction"], empty)
        report.same(f"{name}: suspect fraction", known.get("suspect_fraction", 0.0), quality.suspect_share(raw))
        bad = None
        if settings.max_bad < 1 and scene.has(["SCL"]):
            bad = quality.bad_share(scene, settings.bad_scl, x0, y0, res, settings.size)[0]
            report.counts["windows whose bad pixels were counted"] += 1
        report.same(f"{name}: bad fraction", known.get("bad_fraction"), bad)
        report.same(f"{name}: product", known.get("product_uri"), scene.item["properties"].get("s2:product_uri"))
        for what, share, limit in (
            ("nodata", empty, settings.max_nodata),
            ("bad", bad if bad is not None else 0, settings.max_bad),
            ("suspect", quality.suspect_share(raw), settings.max_suspect),
        ):
            if share > limit:
                report.wrong(f"{name}: {share:.3%} of the image is {what}")
        widened = known.get("widened", "")
        asked = settings.by_class.get(str(chip["class"])) if settings.season == "by_class" else settings.season
        if asked in settings.seasons and widened != "season":
            report.same(f"{name}: season", chip["season"], asked)
        if widened != "season" and scene.cloud >= settings.max_cloud + (0 if widened == "" else 10) and not settings.series:
            report.wrong(f"{name}: its scene has {scene.cloud} % of cloud, and the search was widened by {widened!r}")
        self.mask(chip, mask, origin)

    def name(self, chip, manifest, number):
        safe = lambda text: "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in text)
        return self.settings.template.format(
            worker=safe(manifest["result"]["worker_id"]), task=manifest["key"]["task"], run=safe(manifest["key"]["run"]),
            chip=number, parcel=chip["parcel"], season=chip["season"], **{"class": chip["class"]},
        ) + (f"_{chip['season']}" if self.settings.series and "{season}" not in self.settings.template else "")  # fmt: skip

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
            algorithm = "sha256" if "sha256" in record else "xxh128"
            report.same(f"{path}: {algorithm}", DIGESTS[algorithm](raw), record[algorithm])
            with rasterio.MemoryFile(raw) as memory, memory.open() as tif:
                count = len(settings.bands) if place == "images" else 1
                same = lambda what, got, wanted: report.same(f"{path}: {what}", got, wanted)
                same("driver", tif.driver, "GTiff")
                same("EPSG", tif.crs.to_epsg(), scene.epsg)
                same("transform", tuple(tif.transform)[:6], (res, 0.0, x0, 0.0, -res, y0))
                same("shape", (tif.count, *tif.shape), (count, settings.size, settings.size))
                same("dtypes", set(tif.dtypes), {"uint16" if place == "images" else "uint8"})
                same("nodata", set(tif.nodatavals), {0.0 if place == "images" else float(settings.unlabelled)})
                same("scales", set(tif.scales), {0.0001 if place == "images" else 1.0})
                same("blocks", set(tif.block_shapes), {(settings.size, settings.size)})
                same("compression", tif.compression.value.lower() if tif.compression else "none", settings.compression)
                tags, raw_tags = tif.tags(), tiff_tags(raw)
                same("tile", (raw_tags.get(322), raw_tags.get(323)), (settings.size, settings.size))
                if place == "images":
                    same("descriptions", list(tif.descriptions), settings.bands)
                    same("interleaving", tif.interleaving.value.lower(), "band")
                    same("predictor", raw_tags.get(317, 1), 1 if settings.compression == "none" else 2)
                else:
                    same("names", {n: tif.tags(1).get(f"CLASS_{n}") for n in self.rules.called}, self.rules.called)
                    palette = tif.colormap(1)
                    for number, colour in self.rules.colours.items():
                        same(f"colour of class {number}", palette[number][:3], colour)
                same("tags", {tag: tags.get(tag, "") for tag in TAGS}, tags_of(chip, self.run, settings.seed))
                arrays.append(tif.read())
        return arrays[0], arrays[1][0]

    def mask(self, chip, mask, origin):
        report, size, name = self.report, self.settings.size, chip["name"]
        x0, y0, res = origin
        crs = f"EPSG:{chip['epsg']}"
        bounds = (x0, y0 - size * res, x0 + size * res, y0)
        shapes, classes = self.parcels.around(bounds, crs)
        if self.settings.erode_m:
            shapes = shapely.buffer(shapes, -self.settings.erode_m, quad_segs=8)
            shapes, classes = shapes[~shapely.is_empty(shapes)], classes[~shapely.is_empty(shapes)]
        transform = rasterio.Affine(res, 0, x0, 0, -res, y0)
        # Burnt in ascending order of id: a later parcel wins where two overlap.
        expected = rasterio.features.rasterize(
            zip(shapes, (int(c) for c in classes)), out_shape=mask.shape, fill=self.settings.unlabelled, transform=transform, dtype="uint8"
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
        if (mask == self.settings.unlabelled).all():
            report.wrong(f"{name}: the mask is empty")

    def directory(self):
        """Files and manifests must name each other, one to one."""
        for place in ("images", "masks"):
            there = {p.name for p in (self.dataset / place).glob("*")}
            for name in sorted(there ^ {f"{n}.tif" for n in self.named}):
                self.report.wrong(f"{place}/{name} is {'named by no manifest' if name in there else 'missing'}")
        for parcel, times in self.chips_of.items():
            if times > (len(self.settings.seasons) if self.settings.series else 1):
                self.report.wrong(f"parcel {parcel} has {times} chips")

    def distances(self):
        """No two centres nearer than allowed; who made way has a drawn parcel that near."""
        least = self.settings.min_distance
        places = {p: self.parcels.lonlat[self.parcels.place_of(p)] for p in [*self.chips_of, *self.rejected]}
        near = lambda a, b: math.dist((a[0] * math.cos(math.radians(a[1])), a[1]), (b[0] * math.cos(math.radians(a[1])), b[1]))
        near_m = lambda a, b: near(a, b) * 111_195
        centres = sorted(self.chips_of)
        for i, a in enumerate(centres):
            for b in centres[i + 1 :]:
                if near_m(places[a], places[b]) < least * 0.999:
                    self.report.wrong(f"parcels {a} and {b} are {near_m(places[a], places[b]):.0f} m apart")
        for parcel, reason in self.rejected.items():
            if reason == "too_close":
                self.report.counts["parcels that made way"] += 1
                others = (q for q in places if q != parcel)
                if not any(near_m(places[parcel], places[q]) < least * 1.001 for q in others):
                    self.report.wrong(f"parcel {parcel} made way for nobody")

    def every_window(self):
        """Every drawn parcel whose window a scene of the seasons holds, with pixels, must be a chip."""
        settings, parcels, report = self.settings, self.parcels, self.report
        cells = np.column_stack([cell_index(parcels.lonlat[:, i], settings.step) for i in (0, 1)])
        _, which, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
        peopled = counts[which.ravel()] >= settings.min_parcels
        chosen = drawn(settings.seed, parcels.ids, parcels.classes, self.probabilities) & peopled
        report.counts["parcels drawn"] = int(np.count_nonzero(chosen))
        for at in np.flatnonzero(chosen):
            parcel = int(parcels.ids[at])
            if self.chips_of[parcel]:
                # That its scene holds the window was found when the chip was checked.
                report.counts["of them with their window in a scene"] += 1
                continue
            if self.rejected.get(parcel) in UNFIT:
                report.counts["of them no centres"] += 1
                continue
            holder = next((s for s in self.scenes.all if self.can_give(s, at)), None)
            if holder is not None:
                report.counts["of them with their window in a scene"] += 1
                why = self.rejected.get(parcel, "it is in no manifest")
                report.wrong(f"parcel {parcel} has no chip ({why}), but {holder.id} holds its window")

    def can_give(self, scene, at):
        settings, parcels = self.settings, self.parcels
        if not in_seasons(scene, settings.seasons.values()) or not scene.has(settings.bands):
            return False
        asks = settings.max_bad < 1
        if asks and settings.require_scl and not scene.has(["SCL"]):
            return False
        point = move(parcels.points[[at]], parcels.crs, f"EPSG:{scene.epsg}")[0]
        found = scene.window(point, settings.bands, settings.size) if np.isfinite(point).all() else None
        if found is None:
            return False
        transform, _, _ = scene.grid(settings.bands)
        x0, y0 = transform.c + found[0] * transform.a, transform.f - found[1] * transform.a
        where = (x0, y0, transform.a, settings.size)
        if asks and scene.has(["SCL"]) and quality.bad_share(scene, settings.bad_scl, *where)[0] > settings.max_bad:
            return False
        pixels = scene.pixels(settings.bands, *where)
        empty = float(np.mean((pixels == 0).any(axis=0)))
        return empty <= settings.max_nodata and quality.suspect_share(pixels) <= settings.max_suspect


TAGS = (
    "ITEM", "COLLECTION", "DATETIME", "PRODUCT_URI", "BASELINE", "OFFSET_RULE", "OFFSET", "SEASON", "WIDENED",
    "CLOUD_COVER", "BAD_FRACTION", "NODATA_FRACTION", "PARCEL", "CLASS", "RUN", "SEED",
)  # fmt: skip


def tags_of(chip, run, seed):
    """The tags both files of a chip should have, from its record; fractions without exponents."""
    known = chip["provenance"]
    number = lambda value: np.format_float_positional(value, trim="-") if isinstance(value, float) else str(value)
    plain = lambda value: "" if value is None else number(value)
    values = (
        chip["item"], chip["collection"], chip["datetime"], known.get("product_uri"), known.get("baseline"),
        known.get("offset_rule"), known["offset"], chip["season"], known.get("widened"), chip["cloud_cover"],
        known.get("bad_fraction"), known["nodata_fraction"], chip["parcel"],
        chip["class"], run, seed,
    )  # fmt: skip
    return dict(zip(TAGS, map(plain, values)))


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
    parcels = Parcels(given.gpkg, layer, settings.code_column, settings.name_column, rules, settings.repair)
    check = Check(given.dataset, parcels, Scenes(given.scenes), rules, settings, report)
    report.counts["rows of the layer"], report.counts["parcels of them"] = parcels.rows, len(parcels.ids)
    for kind in ("image", "mask"):
        report.pixels(kind, "", 0, 0)
    for path in sorted(given.dataset.glob(".manifests/*/task_*.json")):
        check.manifest(path)
    check.directory()
    if settings.min_distance:
        check.distances()
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
