"""The best Python we can write: windows read by rasterio in threads, two cells at a time, GDAL tuned for COGs.

    tuned.py FIXTURE OUT --url STAC [--encoding own|deflateN|zstdN]

Reads only the window that the cell's chips span, in each band's own resolution; 20 m pixels are repeated by numpy;
handles stay open, GDAL's block cache serves neighbouring cells. `own` is DEFLATE 1, predictor 2, planar tiles.
"""

import os

TUNED = dict(
    GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_INGESTED_BYTES_AT_OPEN="32768", GDAL_CACHEMAX="512",
    GDAL_HTTP_MERGE_CONSECUTIVE_RANGES="YES", GDAL_HTTP_MULTIPLEX="YES", GDAL_HTTP_TCP_KEEPALIVE="YES",
    GDAL_NUM_THREADS="1", VSI_CACHE="FALSE", CPL_VSIL_CURL_ALLOWED_EXTENSIONS=".tif",
    CPL_VSIL_CURL_CHUNK_SIZE="262144", CPL_VSIL_CURL_CACHE_SIZE=str(256 << 20),
)
os.environ.update(TUNED)

import meter  # noqa: E402

import threading  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402

import numpy as np  # noqa: E402
import pyogrio  # noqa: E402
import rasterio  # noqa: E402
import rasterio.features  # noqa: E402
import shapely  # noqa: E402
from affine import Affine  # noqa: E402
from pyproj import Transformer  # noqa: E402
from pystac_client import Client  # noqa: E402
from rasterio.windows import Window  # noqa: E402

from land import ASSETS, CHIP, CLASS_OF_CODE, EPSG, LAYER, MAX_CLOUD, SEASON, bbox_of, drawn, inside  # noqa: E402

asked = meter.arguments()
codec = asked.encoding if asked.encoding != "own" else "deflate1"
LEVEL = int(codec.lstrip("deflatzs"))
TILES = dict(driver="GTiff", width=CHIP, height=CHIP, tiled=True, blockxsize=CHIP, blockysize=CHIP, nodata=0)
if codec.startswith("zstd"):
    TILES.update(compress="zstd", zstd_level=LEVEL)
else:
    TILES.update(compress="deflate", zlevel=LEVEL)
IMAGE = dict(TILES, count=10, dtype="uint16", predictor=2, interleave="band")
MASK = dict(TILES, count=1, dtype="uint8")
CRS = rasterio.crs.CRS.from_epsg(EPSG)
to_utm = Transformer.from_crs(4326, EPSG, always_xy=True)
catalog = Client.open(asked.url)
cell_pool, band_pool, write_pool = (ThreadPoolExecutor(n) for n in (2, 10, 2))
MARGIN = 0.02
handles = {}


def handle(href):
    """A dataset per thread: GDAL's handles belong to one."""
    key = (threading.get_ident(), href)
    if key not in handles:
        handles[key] = rasterio.open(href)
    return handles[key]


def read(item, x0, y0, width, height):
    """The ten bands of a window of 10 m pixels whose corner is (x0, y0)."""
    image = np.empty((10, height, width), np.uint16)

    def one(band):
        raster = handle(item.assets[ASSETS[band]].href)
        col, row = round((x0 - raster.transform.c) / 10), round((raster.transform.f - y0) / 10)
        if raster.transform.a == 10:
            raster.read(1, window=Window(col, row, width, height), out=image[band])
            return
        left, top = col // 2, row // 2
        right, bottom = -(-(col + width) // 2), -(-(row + height) // 2)
        coarse = raster.read(1, window=Window(left, top, right - left, bottom - top))
        fine = coarse.repeat(2, 0).repeat(2, 1)
        image[band] = fine[row - 2 * top:row - 2 * top + height, col - 2 * left:col - 2 * left + width]

    list(band_pool.map(one, range(10)))
    return image


def cell_chips(cell):
    w, s, e, n = bbox_of(cell)
    _, ids, wkb, (codes,) = pyogrio.raw.read(
        asked.fixture / "parcels.gpkg", layer=LAYER, bbox=(w - MARGIN, s - MARGIN, e + MARGIN, n + MARGIN),
        columns=["EC_hcat_c"], return_fids=True,
    )
    labels = np.array([CLASS_OF_CODE[c] for c in codes], np.uint8)
    ids, wkb, labels = ids[labels > 0], wkb[labels > 0], labels[labels > 0]
    shapes = shapely.from_wkb(wkb)
    middle = shapely.get_coordinates(shapely.centroid(shapes))
    take = np.flatnonzero(inside(cell, middle[:, 0], middle[:, 1]) & drawn(ids, labels))
    if not len(take):
        return 0
    found = catalog.search(
        collections=["sentinel-2-l2a"], bbox=[w, s, e, n], datetime=SEASON,
        query={"eo:cloud_cover": {"lt": MAX_CLOUD}},
    )
    item = min(found.items(), key=lambda i: i.properties["eo:cloud_cover"])
    item.make_asset_hrefs_absolute()
    x, y = to_utm.transform(middle[take, 0], middle[take, 1])
    left = (np.floor(x / 10).astype(int) - CHIP // 2) * 10
    top = (np.ceil(y / 10).astype(int) + CHIP // 2) * 10
    x0, y0 = int(left.min()), int(top.max())
    width, height = (int(left.max()) - x0) // 10 + CHIP, (y0 - int(top.min())) // 10 + CHIP
    image = read(item, x0, y0, width, height)
    order = np.argsort(ids, kind="stable")
    shapes = shapely.transform(shapes[order], lambda c: np.stack(to_utm.transform(c[:, 0], c[:, 1]), 1))
    burnt = rasterio.features.rasterize(
        zip(shapes, labels[order].tolist()), (height, width), transform=Affine(10, 0, x0, 0, -10, y0), fill=0,
        dtype="uint8",
    )

    def write(k):
        row, col = (y0 - int(top[k])) // 10, (int(left[k]) - x0) // 10
        where = dict(crs=CRS, transform=Affine(10, 0, int(left[k]), 0, -10, int(top[k])))
        name = f"p{ids[take[k]]}.tif"
        with rasterio.open(asked.out / "images" / name, "w", **IMAGE, **where) as file:
            file.write(image[:, row:row + CHIP, col:col + CHIP])
        with rasterio.open(asked.out / "masks" / name, "w", **MASK, **where) as file:
            file.write(burnt[row:row + CHIP, col:col + CHIP], 1)

    list(write_pool.map(write, range(len(take))))
    return len(take)


meter.measure(asked, lambda cells: sum(cell_pool.map(cell_chips, cells)))
