#!/usr/bin/env python3
"""Checks what `node dataset finish` made with geopandas, DuckDB, numpy, rasterio, shapely and pystac: no code of the pipeline.

    check_dataset.py DIR --gpkg FILE [--config EFFECTIVE.toml]

Index: GeoParquet as geopandas reads it, against the manifests, the files' own georeference, and the masks' pixels. Split:
blocks drawn again from their description, buffer worked out again chip by chip from distances that geopandas measures,
and the certificate: parcels burnt again with rasterio, pixels shared, smallest distances. Statistics: numpy over the
training images. Parcels: every one of the classes, its state worked out again. STAC: JSON schemas of the core
specification as pystac brings them, and of the extensions (stac_schemas.py); what they say is read by pystac's extension
classes and held against the files, every link and asset followed. Exit code 1 on any difference.
"""

import argparse
import collections
import itertools
import json
import pathlib
import sys
import time

import duckdb
import geopandas
import numpy as np
import pandas
import pyarrow.parquet
import pyproj
import pystac
import rasterio
import rasterio.features
import shapely
from pystac.extensions.eo import EOExtension
from pystac.extensions.label import LabelExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.extensions.raster import RasterExtension
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from check_chips import REPOSITORY, Report, Settings, cell_index
from land import Parcels, move
from rules import ClassRules, drawn
from stac_schemas import Extensions

USED = ("train", "val", "test")
PARTS = ("index", "split", "stats", "parcels", "stac")
RADIUS_KM = 6371.0088
MASK64 = (1 << 64) - 1
KINDS = {
    "Feature": pystac.STACObjectType.ITEM,
    "Collection": pystac.STACObjectType.COLLECTION,
    "Catalog": pystac.STACObjectType.CATALOG,
}


def multihash(record):
    """A file's checksum as the file extension of STAC wants it; codes as in the multicodec table."""
    return "1220" + record["sha256"] if "sha256" in record else "e4e70210" + record["xxh128"]


def splitmix64(x):
    z = (x + 0x9E3779B97F4A7C15) & MASK64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK64
    return z ^ (z >> 31)


def block_of(lon, lat, km):
    """Row of latitude and column of the block; as many equal columns as come nearest to square."""
    height = np.degrees(km / RADIUS_KM)
    row = int(np.floor(lat / height))
    middle = np.radians((row + 0.5) * height)
    columns = max(1, round(2 * np.pi * RADIUS_KM * np.cos(middle) / km))
    return row, int((lon + 180) % 360 / 360 * columns)


def draw(block, split):
    row, column = block
    place = ((row & 0xFFFFFFFF) << 32) | column
    at = (splitmix64(split["seed"] ^ splitmix64(place)) >> 11) * 2.0**-53
    if at < split["test_share"]:
        return "test"
    return "val" if at < split["test_share"] + split["val_share"] else "train"


class Check:
    def __init__(self, dataset, parcels, settings, split, rules, report):
        self.dataset, self.parcels, self.settings = dataset, parcels, settings
        self.split, self.rules, self.report = split, rules, report
        paths = sorted(dataset.glob(".manifests/*/task_*.json"), key=lambda p: (p.parent.name, int(p.stem[5:])))
        self.manifests = [json.loads(p.read_text()) for p in paths]
        self.chips = [(m, c) for m in self.manifests for c in m["chips"]]
        self.index = geopandas.read_parquet(dataset / "index.parquet")
        self.proof = json.loads((dataset / "dataset-split.json").read_text())

    # ---- index

    def check_index(self):
        report, index = self.report, self.index
        file = pyarrow.parquet.ParquetFile(self.dataset / "index.parquet")
        geo = json.loads(file.metadata.metadata[b"geo"])
        report.same("geo version", geo["version"], "1.1.0")
        covering = geo["columns"]["geometry"]["covering"]["bbox"]
        report.same("covering", covering, {k: ["bbox", k] for k in ("xmin", "ymin", "xmax", "ymax")})
        report.same("CRS", index.crs.to_epsg(), 4326)
        report.same("rows", len(index), len(self.chips))
        report.same("order", list(index["name"]), [c["name"] for _, c in self.chips])
        boxes = file.read(["bbox"])["bbox"].combine_chunks()
        boxes = np.column_stack([boxes.field(n).to_numpy() for n in ("xmin", "ymin", "xmax", "ymax")])
        if not np.array_equal(boxes, index.bounds.to_numpy()):
            report.wrong("bbox: not the bounds of the geometry")
        total = np.concatenate([boxes.min(axis=0)[:2], boxes.max(axis=0)[2:]])
        report.same("bbox of the file", geo["columns"]["geometry"]["bbox"], list(total))
        for split in USED:
            listed = (self.dataset / f"{split}.txt").read_text().split()
            report.same(f"{split}.txt", listed, list(index["name"][index["split"] == split]))
        for (manifest, chip), row in zip(self.chips, index.itertuples()):
            self.row(manifest, chip, row)
        report.counts["rows of the index"] = len(index)
        path = self.dataset / "index.parquet"
        kinds = dict(duckdb.sql(f"select column_name, column_type from (describe select * from '{path}')").fetchall())
        report.same("DuckDB's type of the geometry", kinds["geometry"].partition("(")[0], "GEOMETRY")
        rows = duckdb.sql(f"""select name, split, "class", parcels, image_checksum, bbox.xmin, epoch_us(datetime) from '{path}'""").fetchall()
        columns = (index[c] for c in ("name", "split", "class", "parcels", "image_checksum"))
        moments = index["datetime"].astype("datetime64[us, UTC]").astype("int64")
        same = [(n, s, c, list(p), h, x, t) for n, s, c, p, h, x, t in zip(*columns, boxes[:, 0], moments)]
        report.same("what DuckDB reads", rows, same)
        report.counts["rows that DuckDB reads the same"] = sum(a == b for a, b in zip(rows, same))

    def row(self, manifest, chip, row):
        name, report = chip["name"], self.report
        same = lambda what, got, wanted: report.same(f"{name}: {what}", got, wanted)
        for column in ("class", "parcel", "item", "collection", "season", "cloud_cover"):
            same(column, getattr(row, "_5" if column == "class" else column, self.cell(row, column)), chip[column])
        same("task", (row.run, row.task, row.worker), (*manifest["key"].values(), manifest["result"]["worker_id"]))
        same("datetime", row.datetime, pandas.Timestamp(chip["datetime"]))
        known = chip.get("provenance", {}).get("parcels") or [chip["parcel"]]
        same("parcels", list(row.parcels), known)
        for kind in ("image", "mask"):
            record = (getattr(row, f"{kind}_bytes"), getattr(row, f"{kind}_checksum"))
            same(f"{kind} file", record, (chip[kind]["bytes"], multihash(chip[kind])))
        with rasterio.open(self.dataset / row.image) as image:
            same("crs", pyproj.CRS(row.crs).to_epsg(), image.crs.to_epsg())
            same("transform", tuple(row.transform), tuple(image.transform)[:6])
            same("shape", (row.height, row.width), image.shape)
            outline = shapely.transform(shapely.box(*image.bounds), lambda xy: move(xy, image.crs.to_string(), "EPSG:4326"))
        off = shapely.hausdorff_distance(row.geometry, outline)
        if off > 1e-9 or not row.geometry.exterior.is_ccw:
            report.wrong(f"{name}: its geometry is {off} degrees off the image's outline, or runs clockwise")
        with rasterio.open(self.dataset / row.mask) as mask:
            values, counts = np.unique(mask.read(1), return_counts=True)
        by_value = collections.defaultdict(int, zip(values.tolist(), counts.tolist()))
        columns = [c for c in self.index.columns if c.startswith("pixels_")]
        same("pixels", [self.cell(row, c) for c in columns], [by_value[int(c[7:])] for c in columns])
        labelled = sum(n for v, n in by_value.items() if v not in (0, 255))
        same("label share", row.label_share, labelled / counts.sum())

    def cell(self, row, column):
        return self.index.at[row.Index, column]

    # ---- split

    def check_split(self):
        report, index, split = self.report, self.index, self.split
        report.same("settings of the split", self.proof["settings"], split)
        middles = [np.mean(shapely.get_coordinates(g)[:4], axis=0) for g in index.geometry]
        blocks = [block_of(lon, lat, split["block_km"]) for lon, lat in middles]
        names = [f"{'n' if row >= 0 else 's'}{abs(row)}_{column}" for row, column in blocks]
        report.same("blocks", list(index["block"]), names)
        first = np.array([draw(b, split) for b in blocks], dtype=object)
        # Metres: a transverse Mercator whose meridian runs through the middle of the dataset.
        west, south, east, north = index.total_bounds
        plane = f"+proj=tmerc +lon_0={(west + east) / 2} +lat_0={(south + north) / 2} +k=1 +ellps=WGS84 +units=m"
        flat = index[["name", "geometry"]].to_crs(plane)
        report.counts["km across"] = int(np.hypot(*(flat.total_bounds[2:] - flat.total_bounds[:2])) / 1000)
        outlines = np.asarray(flat.geometry.values)
        shown = [set(parcels) for parcels in index["parcels"]]
        wanted, doubt = first.copy(), set()
        for scarce, others in (("test", ("train", "val")), ("val", ("train",))):
            rivals = np.flatnonzero((wanted if scarce == "val" else first) == scarce)
            for i in np.flatnonzero(np.isin(wanted, others)):
                gaps = shapely.distance(outlines[i], outlines[rivals])
                shared = shapely.area(shapely.intersection(outlines[i], outlines[rivals])) > 1.0
                near = (gaps < split["buffer_m"]) if split["buffer_m"] > 0 else shared
                if near.any():
                    wanted[i] = "buffer"
                if len(gaps) and (abs(gaps - split["buffer_m"]) < 0.01).any():
                    doubt.add(i)
        for i in range(len(wanted)):
            scarcer = {"train": ("val", "test"), "val": ("test",)}.get(wanted[i], ())
            if any(first[j] in scarcer and shown[i] & shown[j] for j in range(len(first))):
                wanted[i] = "buffer"
        got = index["split"].to_numpy()
        wrong = [index["name"][i] for i in np.flatnonzero(got != wanted) if i not in doubt]
        report.counts["chips whose split differs"] = len(wrong)
        for name in wrong:
            report.wrong(f"{name}: in another split than blocks and distances say")
        report.same("chips by split", self.proof["chips"], {s: int((got == s).sum()) for s in (*USED, "buffer")})
        self.certificate(flat, got, shown)

    def certificate(self, flat, got, shown):
        report, proof = self.report, self.proof
        burnt = [self.burnt(chip) for _, chip in self.chips]
        shared = lambda sets: sum(
            len(set().union(*(sets[i] for i in np.flatnonzero(got == a))) & set().union(*(sets[i] for i in np.flatnonzero(got == b))))
            for a, b in itertools.combinations(USED, 2)
        )  # fmt: skip
        report.same("shared parcels", (proof["shared_parcels"], shared(shown)), (0, 0))
        report.counts["parcels burnt into chips of two splits"] = shared(burnt)
        if proof["parcels_known"] == "all":
            report.same("parcels burnt into chips of two splits", shared(burnt), 0)
        smallest, overlapping = {}, 0
        for a, b in itertools.combinations(USED, 2):
            left, right = flat[got == a], flat[got == b]
            if len(left) and len(right):
                nearest = geopandas.sjoin_nearest(left, right, distance_col="metres")
                smallest[a, b] = float(nearest["metres"].min())
                pairs = geopandas.overlay(left, right, how="intersection", keep_geom_type=False)
                overlapping += int((pairs.area > 1.0).sum())
        report.same("pairs that share pixels", (proof["pairs_sharing_pixels"], overlapping), (0, 0))
        told = {tuple(d["splits"]): d["metres"] for d in proof["distances"]}
        report.same("pairs of splits", sorted(told), sorted(smallest))
        for pair, metres in smallest.items():
            report.counts[f"metres from {pair[0]} to {pair[1]}"] = round(metres)
            # The projection's scale is off by 2 in a million 12 km from its meridian.
            if abs(told.get(pair, -1) - metres) > 0.01 + metres * 1e-4:
                report.wrong(f"smallest distance {pair}: {told.get(pair)}, geopandas says {metres}")
            if metres < self.split["buffer_m"] - 0.01:
                report.wrong(f"{pair} are {metres} m apart")
        least = min(smallest.values(), default=None)
        if (least is None) != (proof["smallest_distance_m"] is None):
            report.wrong(f"smallest distance: {proof['smallest_distance_m']}, geopandas says {least}")

    def burnt(self, chip):
        """Ids of the labelled parcels that have a pixel of the chip."""
        grid = chip["grid"]
        size, res = grid["width"], grid["res"]
        bounds = (grid["x0"], grid["y0"] - size * res, grid["x0"] + size * res, grid["y0"])
        shapes, ids = self.shapes_around(bounds, f"EPSG:{chip['epsg']}")
        transform = rasterio.Affine(res, 0, grid["x0"], 0, -res, grid["y0"])
        if not len(ids):
            return set()
        numbers = zip(shapes, range(1, len(ids) + 1))
        pixels = rasterio.features.rasterize(numbers, out_shape=(size, size), transform=transform, dtype="int32")
        return {int(ids[n - 1]) for n in np.unique(pixels) if n}

    def shapes_around(self, bounds, crs):
        parcels = self.parcels
        west, south, east, north = rasterio.warp.transform_bounds(crs, parcels.crs, *bounds, densify_pts=21)
        frame = parcels.read(bbox=(west, south, east, north)).sort_index()
        keep = np.array([parcels.place_of(i) is not None for i in frame.index], dtype=bool) & (parcels.classes_of(frame) > 0)
        shapes = frame["geometry"].values[keep]
        return shapely.transform(np.asarray(shapes), lambda xy: move(xy, parcels.crs, crs)), frame.index.to_numpy()[keep]

    # ---- statistics

    def check_stats(self):
        report, stats = self.report, json.loads((self.dataset / "stats.json").read_text())
        train = self.index[self.index["split"] == "train"]
        report.same("chips of the statistics", stats["chips"], len(train))
        names = self.settings.bands
        report.same("bands of the statistics", [b["name"] for b in stats["bands"]], names)
        for number, band in enumerate(stats["bands"], start=1):
            values = np.concatenate([rasterio.open(self.dataset / p).read(number).ravel() for p in train["image"]])
            values = values[values != 0]
            wanted = {"mean": values.mean(dtype=np.float64), "std": values.std(dtype=np.float64)}
            wanted |= {"min": values.min(), "max": values.max(), "pixels": len(values)}
            wanted |= {p: np.percentile(values, int(p)) for p in band["percentiles"]}
            for key, value in wanted.items():
                got = band.get(key, band["percentiles"].get(key))
                if abs(float(got) - float(value)) > 1e-6 * abs(float(value)):
                    report.wrong(f"{band['name']}: {key} is {got}, numpy says {value}")
            report.counts["values in the statistics"] += len(values)
        pixels = {c: int(train[f"pixels_{c}"].sum()) for c in self.rules.colours}
        present = [n for n in pixels.values() if n]
        for row in stats["classes"]:
            n = pixels[row["class"]]
            report.same(f"class {row['class']}: pixels", row["pixels"], n)
            weight = sum(present) / (len(present) * n) if n else 0.0
            if abs(row["weight"] - weight) > 1e-9 * max(1.0, weight):
                report.wrong(f"class {row['class']}: weight {row['weight']}, should be {weight}")
        report.same("background", stats["background_pixels"], int(train["pixels_0"].sum()))
        table = pandas.read_csv(self.dataset / "classes.csv")
        for row in table.itertuples():
            for split in (*USED, "buffer"):
                of = self.index[self.index["split"] == split]
                report.same(f"classes.csv {row[1]} chips {split}", getattr(row, f"chips_{split}"), int((of["class"] == row[1]).sum()))
                report.same(f"classes.csv {row[1]} pixels {split}", getattr(row, f"pixels_{split}"), int(of[f"pixels_{row[1]}"].sum()))

    # ---- parcels

    def check_parcels(self):
        report, parcels, settings = self.report, self.parcels, self.settings
        table = pandas.read_parquet(self.dataset / "rejections.parquet")
        report.same("parcels once each", table["parcel"].is_unique and table["parcel"].is_monotonic_increasing, True)
        cells = np.column_stack([cell_index(parcels.lonlat[:, i], settings.step) for i in (0, 1)])
        _, which, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
        which = which.ravel()
        chance = settings.probabilities
        wanted = np.isin(parcels.classes, [int(c) for c, p in chance.items() if p > 0]) if chance else parcels.classes > 0
        has_task = (counts >= settings.min_parcels) & (np.bincount(which, weights=wanted) > 0)
        chosen = drawn(settings.seed, parcels.ids, parcels.classes, chance)
        done = {c["parcel"]: "chip" for _, c in self.chips}
        for manifest in self.manifests:
            for rejection in manifest["rejected"]:
                done.setdefault(rejection["parcel"], "rejected")
        state = {}
        for at in np.flatnonzero(parcels.classes > 0):
            parcel = int(parcels.ids[at])
            state[parcel] = (
                "no_task" if not has_task[which[at]] else "not_drawn" if not chosen[at] else done.get(parcel, "not_done")
            )
        got = dict(zip(table["parcel"], table["state"]))
        unusable = {p for p, s in got.items() if s == "unusable"}
        report.same("rows that are no parcel", unusable & set(state), set())
        differ = {p for p in state if state[p] != got.get(p)} | (set(got) - unusable - set(state))
        report.counts["parcels with a state"] = len(got)
        report.counts["parcels whose state differs"] = len(differ)
        for parcel in sorted(differ)[:10]:
            report.wrong(f"parcel {parcel}: {got.get(parcel)}, should be {state.get(parcel)}")
        account = json.loads((self.dataset / "dataset-parcels.json").read_text())
        report.same("reconciled", (account["reconciled"], account["differences"]), (True, []))
        for number, of in account["classes"].items():
            here = table[table["class"] == int(number)]["state"].value_counts().to_dict()
            report.same(f"class {number}: states", of["states"], here)

    # ---- STAC

    def check_stac(self):
        report, root = self.report, self.dataset / "stac"
        collection = pystac.Collection.from_file(str(root / "collection.json"))
        validator, extensions, kinds = JsonSchemaSTACValidator(), Extensions(), collections.Counter()
        rows = self.index.set_index("name")
        for path in root.rglob("*.json"):
            text = json.loads(path.read_text())
            kind = KINDS[text["type"]]
            report.same(f"{path}: version", text["stac_version"], "1.1.0")
            try:
                if validator.validate_core(text, kind, "1.1.0", str(path)) is None:
                    report.wrong(f"{path}: pystac has no schema for it")
            except pystac.errors.STACValidationError as error:
                report.wrong(f"{path}: {str(error).splitlines()[0]}")
            kinds[f"{text['type'].lower()}s valid by the core schema"] += 1
            for extension, wrong in extensions.problems(text):
                kinds[f"{text['type'].lower()}s valid by {extension}"] += wrong is None
                if wrong:
                    report.wrong(f"{path}: {extension}: {wrong}")
            for entry in [*text["links"], *text.get("assets", {}).values()]:
                if entry.get("rel") != "derived_from" and not (path.parent / entry["href"]).resolve().is_file():
                    report.wrong(f"{path}: {entry['href']} leads nowhere")
                if entry["href"].startswith("/"):
                    report.wrong(f"{path}: {entry['href']} is not relative")
        seen = set()
        try:
            for item in collection.get_items(recursive=True):
                seen.add(item.id)
                self.item(item, rows.loc[item.id])
        except (pystac.errors.STACError, KeyError, ValueError) as error:
            report.wrong(f"STAC: {type(error).__name__}: {error}")
        report.same("items", sorted(seen), sorted(rows.index))
        bbox = collection.extent.spatial.bboxes[0]
        report.same("extent", bbox, list(self.index.total_bounds))
        for kind, n in kinds.items():
            report.counts[f"STAC {kind}"] = n

    def item(self, item, row):
        report, chip = self.report, item.id
        same = lambda what, got, wanted: report.same(f"{chip}: STAC {what}", got, wanted)
        same("geometry", bool(item.geometry) and shapely.geometry.shape(item.geometry).equals(row["geometry"]), True)
        same("datetime", pandas.Timestamp(item.datetime), row["datetime"])
        image, mask = item.assets["image"], item.assets["mask"]
        projection = ProjectionExtension.ext(item)
        with rasterio.open(image.get_absolute_href()) as file:
            same("proj:code", projection.code, f"EPSG:{file.crs.to_epsg()}")
            same("proj:shape", tuple(projection.shape), file.shape)
            same("proj:transform", tuple(projection.transform), tuple(file.transform)[:6])
            same("proj:bbox", tuple(projection.bbox), tuple(file.bounds))
            bands = zip(EOExtension.ext(image).bands, RasterExtension.ext(image).bands, file.descriptions, file.dtypes)
            for eo, raster, name, dtype in bands:
                same(f"band {name}", (eo.name, raster.data_type, raster.nodata), (name, dtype, 0))
            same("bands", len(RasterExtension.ext(image).bands), file.count)
        same("eo:cloud_cover", EOExtension.ext(item).cloud_cover, row["cloud_cover"])
        label = LabelExtension.ext(item)
        same("label", (label.label_type, label.label_properties, label.label_tasks), ("raster", None, ["segmentation"]))
        table = pandas.read_csv(self.dataset / "classes.csv").set_index("name")["class"]
        shown = {table[c.name]: c.count for c in label.label_overviews[0].counts}
        same("label counts", shown, {c: int(row[f"pixels_{c}"]) for c in self.rules.colours if row[f"pixels_{c}"]})
        for asset, kind in ((image, "image"), (mask, "mask")):
            fields = asset.extra_fields
            same(f"{kind} file", (fields["file:size"], fields["file:checksum"]), (row[f"{kind}_bytes"], row[f"{kind}_checksum"]))
        sources = [link.href for link in item.links if link.rel == "derived_from"]
        if not sources or row["item"] not in sources[0]:
            report.wrong(f"{chip}: derived_from says {sources}, not {row['item']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", type=pathlib.Path)
    parser.add_argument("--gpkg", required=True)
    parser.add_argument("--config")
    parser.add_argument("--classes", default=REPOSITORY / "config/classes/eurocrops.csv")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; repeatable")
    given = parser.parse_args()
    began = time.monotonic()
    settings, rules, report = Settings.load(given.config), ClassRules(given.classes), Report()
    split = Settings.raw(given.config)["split"]
    parcels = Parcels(given.gpkg, settings.layer or None, settings.code_column, settings.name_column, rules)
    check = Check(given.dataset, parcels, settings, split, rules, report)
    for part in given.only or PARTS:
        getattr(check, f"check_{part}")()
    for used in USED:
        report.counts[f"chips in {used}"] = int((check.index["split"] == used).sum())
        if not report.counts[f"chips in {used}"]:
            report.wrong(f"no chip in {used}")
    for problem in report.problems[:40]:
        print(f"DIFFERS  {problem}")
    for what, count in report.counts.items():
        print(f"{what:<46}{count:>14,}")
    print(f"{'seconds':<46}{time.monotonic() - began:>14,.1f}")
    print(f"{'differences':<46}{len(report.problems):>14,}")
    sys.exit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
