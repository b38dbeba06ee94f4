"""The original pipeline's way: geopandas, pystac-client, stackstac, geocube, rasterio, one cell after another.

    original.py FIXTURE OUT --url STAC [--encoding own|deflateN] [--clip]

`own` is what rasterio writes when asked for DEFLATE and nothing else: level 6, no predictor, strips. As written
it would read the cell alone and drop every chip that leaves it; so that all programs make the same chips, the
window read is wider than the cell by half a chip. `--clip` keeps to the cell, as the original does.
"""

import meter  # first: it knows when the process began

import warnings

import geopandas as gpd
import numpy as np
import rasterio
import rioxarray  # noqa: F401 (gives xarray its .rio)
import stackstac
from geocube.api.core import make_geocube
from pystac_client import Client
from rasterio.transform import Affine

from land import ASSETS, CHIP, CLASS_OF_CODE, EPSG, LAYER, MAX_CLOUD, SEASON, bbox_of, drawn, inside

asked = meter.arguments(clip=dict(action="store_true"))
catalog = Client.open(asked.url)
MARGIN = 0.0 if asked.clip else 0.02
IMAGE = dict(driver="GTiff", width=CHIP, height=CHIP, count=10, dtype="uint16", nodata=0, compress="deflate")
MASK = dict(driver="GTiff", width=CHIP, height=CHIP, count=1, dtype="uint8", nodata=0, compress="deflate")
if asked.encoding != "own":
    tiled = dict(tiled=True, blockxsize=CHIP, blockysize=CHIP, zlevel=int(asked.encoding.removeprefix("deflate")))
    IMAGE.update(tiled, predictor=2, interleave="band")
    MASK.update(tiled)


def write(name, pixels, mask, place):
    where = dict(crs=f"EPSG:{EPSG}", transform=place)
    with rasterio.open(asked.out / "images" / f"{name}.tif", "w", **IMAGE, **where) as file:
        file.write(pixels)
    with rasterio.open(asked.out / "masks" / f"{name}.tif", "w", **MASK, **where) as file:
        file.write(mask, 1)


def cell_chips(cell):
    w, s, e, n = bbox_of(cell)
    wide = (w - MARGIN, s - MARGIN, e + MARGIN, n + MARGIN)
    parcels = gpd.read_file(asked.fixture / "parcels.gpkg", layer=LAYER, bbox=wide, fid_as_index=True)
    parcels["label"] = parcels["EC_hcat_c"].map(CLASS_OF_CODE)
    parcels = parcels[parcels["label"] > 0].astype({"label": "uint8"})
    # Planar in degrees, as the pipeline's own points are.
    with warnings.catch_warnings(action="ignore"):
        middle = parcels.geometry.centroid
    take = inside(cell, middle.x, middle.y) & drawn(parcels.index.to_numpy(), parcels["label"].to_numpy())
    if not take.any():
        return 0
    found = catalog.search(
        collections=["sentinel-2-l2a"], bbox=[w, s, e, n], datetime=SEASON,
        query={"eo:cloud_cover": {"lt": MAX_CLOUD}},
    )
    item = min(found.items(), key=lambda i: i.properties["eo:cloud_cover"])
    item.make_asset_hrefs_absolute()
    stack = stackstac.stack(
        [item], assets=ASSETS, epsg=EPSG, resolution=10, bounds_latlon=wide, dtype="uint16",
        fill_value=np.uint16(0), rescale=False, xy_coords="center",
    )
    image = stack.isel(time=0).compute()
    centres = middle[take].to_crs(EPSG)
    burnt = make_geocube(
        vector_data=parcels[["label", "geometry"]].to_crs(EPSG), measurements=["label"],
        like=image.rio.write_crs(EPSG), fill=0,
    )["label"].to_numpy().astype("uint8")
    x0, y0 = stack.attrs["transform"].c, stack.attrs["transform"].f
    chips = 0
    for fid, centre in centres.items():
        col = int(np.floor((centre.x - x0) / 10)) - CHIP // 2
        row = int(np.floor((y0 - centre.y) / 10)) - CHIP // 2
        if col < 0 or row < 0:
            continue
        pixels = image[:, row:row + CHIP, col:col + CHIP].to_numpy()
        if pixels.shape[1:] != (CHIP, CHIP):
            continue
        place = Affine(10, 0, x0 + col * 10, 0, -10, y0 - row * 10)
        write(f"p{fid}", pixels, burnt[row:row + CHIP, col:col + CHIP], place)
        chips += 1
    return chips


meter.measure(asked, lambda cells: sum(cell_chips(cell) for cell in cells))
