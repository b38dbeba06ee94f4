"""What every program of the benchmark agrees on: crops, classes, the draw, the bands, the tile.

The draw is the pipeline's own (splitmix64 of seed + parcel id, top 53 bits), written again in numpy, so that
all programs choose the same parcels without asking each other.
"""

import numpy as np

# HCAT code, name, class in the built-in classes file (0: none), share of the parcels.
CROPS = [
    ("3301010400", "barley", 5, 0.25),
    ("3301010100", "common_soft_wheat", 5, 0.20),
    ("3301110000", "fallow_land_not_crop", 8, 0.12),
    ("3303050000", "olive_plantations", 1, 0.10),
    ("3301060500", "sunflower", 0, 0.08),
    ("3303060000", "vineyards_wine_vine_rebland_grapes", 2, 0.06),
    ("3301090305", "vetches", 6, 0.05),
    ("3302000000", "pasture_meadow_grassland_grass", 0, 0.05),
    ("3303030100", "almond", 4, 0.04),
    ("3301020600", "peas", 6, 0.02),
    ("3303040000", "citrus_plantations", 3, 0.02),
    ("3301030000", "potatoes", 7, 0.01),
]
CLASS_OF_CODE = {code: cls for code, _, cls, _ in CROPS}
CHANCE = {1: 0.08, 2: 0.10, 3: 0.20, 4: 0.12, 5: 0.03, 6: 0.10, 7: 0.30, 8: 0.06}
SEED = 20230613

LAYER = "parcels"
STEP = 0.05
CHIP = 256
EPSG = 32630
TILE_X0, TILE_Y0 = 399960, 4600020
SEASON = "2023-03-21T00:00:00Z/2023-06-20T23:59:59Z"
MAX_CLOUD = 20

# Asset key, band, metres per pixel; the order of a chip's bands.
BANDS = [
    ("blue", "B02", 10), ("green", "B03", 10), ("red", "B04", 10), ("nir", "B08", 10),
    ("rededge1", "B05", 20), ("rededge2", "B06", 20), ("rededge3", "B07", 20),
    ("nir08", "B8A", 20), ("swir16", "B11", 20), ("swir22", "B12", 20),
]
ASSETS = [key for key, _, _ in BANDS]


def hash01(ids):
    """A number in [0, 1) for each parcel id."""
    with np.errstate(over="ignore"):
        z = np.asarray(ids).astype(np.uint64) + np.uint64(SEED) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)) / float(1 << 53)


def drawn(ids, classes):
    """Which parcels become chips."""
    chance = np.array([CHANCE.get(c, 0.0) for c in range(9)])
    return hash01(ids) < chance[classes]


def bbox_of(cell):
    """West, south, east, north of the cell (column, row), as the master computes them."""
    i, j = cell
    return (i * STEP, j * STEP, (i + 1) * STEP, (j + 1) * STEP)


def inside(cell, lon, lat):
    """Half-open: a point on the west or south edge belongs to the cell."""
    w, s, e, n = bbox_of(cell)
    return (lon >= w) & (lon < e) & (lat >= s) & (lat < n)
