"""Makes the benchmark's input: parcels, one Sentinel-2-like scene with its STAC item, and the cells to work on.

    fixture.py OUT [--size small|full]           a tile of 2048 or 10980 pixels, 3,200 or 60,000 parcels
    fixture.py OUT --parcels-only 2000000        parcels alone, over 640 x 640 km, for the master's scan

Deterministic: everything follows from the seeds below. The noise is set so that the blocks compress about 1.55:1,
as the 10 m bands of real L2A scenes do.
"""

import argparse
import json
import pathlib
import time

import numpy as np
import pyogrio
import pyproj
import shapely
from affine import Affine

from land import BANDS, CHIP, CROPS, EPSG, LAYER, STEP, TILE_X0, TILE_Y0

PITCH = 200.0  # metres between the corners of neighbouring parcels before they are moved about
NOISE = 62.0  # DN, white; decides the compression ratio
SQUARES = 8  # of two by two cells


def smooth(shape, pitch, seed, rows=None):
    """Normal noise on a coarse lattice, interpolated linearly; `rows` are the rows wanted."""
    height, width = shape
    lattice = np.random.default_rng(seed).standard_normal((height // pitch + 2, width // pitch + 2), np.float32)
    rows = np.arange(height) if rows is None else rows
    x = np.arange(width, dtype=np.float32) / pitch
    y = rows.astype(np.float32) / pitch
    left, top = x.astype(np.int32), y.astype(np.int32)
    across, down = x - left, (y - top)[:, None]
    lines = lattice[:, left] * (1 - across) + lattice[:, left + 1] * across
    return lines[top] * (1 - down) + lines[top + 1] * down


def outlines(side_m, count):
    """Rings of `count` parcels in metres right and down of the corner: the best land of a jittered lattice."""
    rng = np.random.default_rng(1)
    n = int(side_m / PITCH) - 1
    land = smooth((n, n), 40, 2) + 0.6 * smooth((n, n), 12, 3)
    corners = np.stack(np.meshgrid(np.arange(n + 1), np.arange(n + 1)), -1) * PITCH + PITCH / 2
    corners = corners + rng.uniform(-0.28, 0.28, corners.shape) * PITCH
    best = np.sort(np.argpartition(-land.ravel(), min(count, n * n - 1))[:count])
    row, col = best // n, best % n
    quads = np.stack([corners[row, col], corners[row, col + 1], corners[row + 1, col + 1], corners[row + 1, col]], 1)
    middle = quads.mean(1, keepdims=True)
    quads = middle + (quads - middle) * rng.uniform(0.90, 0.97, (len(quads), 1, 1))
    # Five points a side, bent by two metres.
    step = (np.arange(5) / 5.0)[None, None, :, None]
    rings = (quads[:, :, None] * (1 - step) + np.roll(quads, -1, 1)[:, :, None] * step).reshape(len(quads), 20, 2)
    rings = rings + 2.0 * np.sin(rings[..., ::-1] * 0.031 + rings * 0.017)
    return np.concatenate([rings, rings[:, :1]], 1)


def parcels(side_m, count):
    """Rings in UTM metres and the crop of each."""
    rings = outlines(side_m, count)
    rings[..., 0] += TILE_X0
    rings[..., 1] = TILE_Y0 - rings[..., 1]
    rings = rings[:, ::-1]
    share = np.array([c[3] for c in CROPS])
    return rings, np.random.default_rng(4).choice(len(CROPS), len(rings), p=share / share.sum())


def write_parcels(path, rings, crop):
    """The GeoPackage; gives the parcels in degrees."""
    to_lonlat = pyproj.Transformer.from_crs(EPSG, 4326, always_xy=True)
    lon, lat = to_lonlat.transform(rings[..., 0].ravel(), rings[..., 1].ravel())
    shapes = shapely.polygons(np.stack([lon, lat], -1).reshape(rings.shape))
    many = shapely.multipolygons(shapes, indices=np.arange(len(shapes)))
    columns = ["EC_trans_n", "EC_hcat_n", "EC_hcat_c", "EC_NUTS3"]
    name = np.array([c[1] for c in CROPS], object)[crop]
    code = np.array([c[0] for c in CROPS], object)[crop]
    nuts = np.full(len(crop), "ES418", object)
    path.unlink(missing_ok=True)
    pyogrio.raw.write(
        path, shapely.to_wkb(many), [name, name, code, nuts], columns, layer=LAYER, driver="GPKG",
        geometry_type="MultiPolygon", crs="EPSG:4326", SPATIAL_INDEX="YES", FID="fid", GEOMETRY_NAME="geom",
    )
    return shapes


def choose_cells(shapes, size):
    """Cells that lie in the tile with their chips: `SQUARES` of two by two with at least 100 parcels in each cell, from
    the densest down in equal steps, or where the tile has fewer the four fullest cells."""
    to_utm = pyproj.Transformer.from_crs(4326, EPSG, always_xy=True)
    point = shapely.get_coordinates(shapely.centroid(shapes))
    found, counts = np.unique(np.floor(point / STEP).astype(int), axis=0, return_counts=True)
    margin = (CHIP / 2 + 20) * 10
    right, bottom = TILE_X0 + size * 10 - margin, TILE_Y0 - size * 10 + margin
    fitting = {}
    for (i, j), n in zip(found.tolist(), counts.tolist()):
        corners = [(i + di, j + dj) for di in (0, 1) for dj in (0, 1)]
        x, y = to_utm.transform([c[0] * STEP for c in corners], [c[1] * STEP for c in corners])
        if min(x) > TILE_X0 + margin and max(x) < right and min(y) > bottom and max(y) < TILE_Y0 - margin:
            fitting[i, j] = n
    squares = []
    for i, j in fitting:
        four = [(i + di, j + dj) for dj in (0, 1) for di in (0, 1)]
        if i % 2 == j % 2 == 0 and all(fitting.get(c, 0) >= 100 for c in four):
            squares.append((sum(fitting[c] for c in four), four))
    squares.sort(reverse=True)
    if len(squares) < SQUARES:
        return [list(c) for c in sorted(fitting, key=fitting.get, reverse=True)[:4]]
    # The sparsest are left out.
    return [list(c) for k in range(SQUARES) for c in squares[k * len(squares) // (SQUARES + 1)][1]]


def write_band(path, pixels, metres, overviews="AVERAGE"):
    import rasterio
    import rasterio.shutil
    from rasterio.io import MemoryFile

    profile = dict(
        driver="GTiff", dtype=pixels.dtype, count=1, height=pixels.shape[0], width=pixels.shape[1], crs=f"EPSG:{EPSG}",
        transform=Affine(metres, 0, TILE_X0, 0, -metres, TILE_Y0), nodata=0, tiled=True, blockxsize=1024,
        blockysize=1024,
    )
    with MemoryFile() as memory:
        with memory.open(**profile) as raster:
            raster.write(pixels, 1)
        with memory.open() as raster:
            rasterio.shutil.copy(
                raster, path, driver="COG", BLOCKSIZE="1024", COMPRESS="DEFLATE", PREDICTOR="STANDARD",
                OVERVIEW_RESAMPLING=overviews, NUM_THREADS="ALL_CPUS", BIGTIFF="NO",
            )


def cover(size, rings):
    """Number of the parcel, from 1, that covers each pixel of 10 m."""
    import rasterio.features

    shapes = zip(shapely.polygons(rings), range(1, len(rings) + 1))
    return rasterio.features.rasterize(
        shapes, (size, size), transform=Affine(10, 0, TILE_X0, 0, -10, TILE_Y0), fill=0, dtype="uint32"
    )


def classify(path, ground, crop):
    """The scene classification: bare or green by crop, a pixel in a hundred unclassified, no cloud."""
    seen = ground[::2, ::2]
    scl = np.where(np.concatenate([[0], 1 + crop])[seen] % 3 == 1, 5, 4).astype(np.uint8)
    scl[np.random.default_rng(6).random(scl.shape, np.float32) < 0.01] = 7
    write_band(path, scl, 20, "MODE")


def paint(folder, ground, rings, crop):
    """All bands. Gives the ratio of decoded to file size, overviews included on both sides."""
    rng = np.random.default_rng(5)
    bright = np.concatenate([[1.0], rng.normal(1.0, 0.09, len(rings))]).astype(np.float32)
    kind = np.concatenate([[0], 1 + crop])
    level = rng.uniform(500, 3200, (len(CROPS) + 1, len(BANDS))).astype(np.float32)
    ratios = {}
    for band, (_, name, metres) in enumerate(BANDS):
        scale = metres // 10
        seen = ground[::scale, ::scale]
        dn = level[kind, band] * bright
        pixels = np.empty(seen.shape, np.uint16)
        noise = np.random.default_rng(100 + band)
        for top in range(0, seen.shape[0], 1024):
            rows = np.arange(top, min(top + 1024, seen.shape[0]))
            value = dn[seen[rows]]
            for pitch, swing in ((3, 0.020), (16, 0.030), (200, 0.05)):
                value *= 1 + swing * smooth(seen.shape, pitch, 7 + pitch, rows)
            value += NOISE * noise.standard_normal(value.shape, np.float32)
            pixels[rows] = np.clip(value, 1, 16000).astype(np.uint16)
        path = folder / f"{name}.tif"
        write_band(path, pixels, metres)
        ratios[name] = round(pixels.nbytes * 4 / 3 / path.stat().st_size, 2)
        print(f"  {name} {path.stat().st_size / 1e6:.0f} MB, ratio {ratios[name]}", flush=True)
    return ratios


def item(name, size):
    """The STAC item, in Earth Search's shape, hrefs relative to it."""
    to_lonlat = pyproj.Transformer.from_crs(EPSG, 4326, always_xy=True)
    x, y = [TILE_X0, TILE_X0 + size * 10], [TILE_Y0 - size * 10, TILE_Y0]
    ring = [list(to_lonlat.transform(a, b)) for a, b in [(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])]]
    lon, lat = [p[0] for p in ring], [p[1] for p in ring]
    assets = {
        key: {
            "href": f"./{band}.tif",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "eo:bands": [{"name": key}],
            "proj:shape": [size * 10 // metres] * 2,
            "proj:transform": [metres, 0, TILE_X0, 0, -metres, TILE_Y0],
            "raster:bands": [{"nodata": 0, "data_type": "uint16", "spatial_resolution": metres, "scale": 0.0001, "offset": -0.1}],
            "roles": ["data", "reflectance"],
        }
        for key, band, metres in BANDS
    }
    assets["scl"] = {
        "href": "./SCL.tif",
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "proj:shape": [size // 2] * 2,
        "proj:transform": [20, 0, TILE_X0, 0, -20, TILE_Y0],
        "raster:bands": [{"nodata": 0, "data_type": "uint8", "spatial_resolution": 20}],
        "roles": ["data"],
    }
    day = name.split("_")[2]
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": "sentinel-2-l2a",
        "bbox": [min(lon), min(lat), max(lon), max(lat)],
        "geometry": {"type": "Polygon", "coordinates": [ring + ring[:1]]},
        "properties": {
            "datetime": "2023-06-13T11:16:20.000000Z", "created": "2023-06-13T21:00:00Z",
            "updated": "2023-06-13T21:00:00Z", "platform": "sentinel-2b", "eo:cloud_cover": 2.5, "proj:epsg": EPSG,
            "s2:product_uri": f"S2B_MSIL2A_{day}T110619_N0509_R137_T30TVM_{day}T170000.SAFE", "s2:sequence": "0",
            "s2:processing_baseline": "05.09", "earthsearch:boa_offset_applied": True,
        },
        "assets": assets,
        "links": [{"rel": "self", "href": f"./{name}.json", "type": "application/geo+json"}],
        "stac_extensions": [
            "https://stac-extensions.github.io/eo/v1.0.0/schema.json",
            "https://stac-extensions.github.io/projection/v1.0.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
        ],
    }


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("out", type=pathlib.Path)
    ask.add_argument("--size", choices=["small", "full"], default="small")
    ask.add_argument("--parcels-only", type=int)
    asked = ask.parse_args()
    since = time.time()
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.parcels_only:
        rings, crop = parcels(640e3, asked.parcels_only)
        # The region reaches over the zone's middle.
        rings[..., 0] -= 220e3
        write_parcels(asked.out / "parcels.gpkg", rings, crop)
        about = {"parcels": len(rings)}
    else:
        size, count = (2048, 3200) if asked.size == "small" else (10980, 60000)
        name = "S2B_30TVM_20230613_0_L2A"
        folder = asked.out / "scenes" / "sentinel-s2-l2a-cogs/30/T/VM/2023/6" / name
        folder.mkdir(parents=True, exist_ok=True)
        rings, crop = parcels(size * 10.0, count)
        shapes = write_parcels(asked.out / "parcels.gpkg", rings, crop)
        cells = choose_cells(shapes, size)
        ground = cover(size, rings)
        classify(folder / "SCL.tif", ground, crop)
        ratios = paint(folder, ground, rings, crop)
        (folder / f"{name}.json").write_text(json.dumps(item(name, size)))
        about = {"parcels": len(rings), "cells": cells, "scene": str(folder.resolve()), "size": size, "ratio": ratios}
    about["seconds"] = round(time.time() - since, 1)
    # Written last: its presence says that the rest is whole.
    (asked.out / "fixture.json").write_text(json.dumps(about, indent=1))
    print(f"{asked.out}: {about['parcels']} parcels, {about['seconds']} s")


if __name__ == "__main__":
    main()
