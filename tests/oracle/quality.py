"""What a chip's pixels are worth, by numpy over rasterio's reads: bad pixels, suspect numbers, the BOA offset.

A pixel is bad when its class in the scene classification (SCL, 20 m, upsampled by nearest) is in `chips.bad_scl`. Before
processing baseline 04.00, or where the item says that the offset was removed, DNs are right; otherwise the darkest land
of the scene's smallest overview decides: the DN at place floor(0.01 (n - 1)) of the sorted blue DNs over SCL 4 and 5.
"""

import functools

import numpy as np
import rasterio

OFFSET = 1000
SUSPECT = 20_000
LEAST_LAND = 500


def bad_share(scene, bad_classes, x0, y0, res, size):
    """Share of bad pixels, share of pixels of class 0."""
    classes = scene.band("SCL", x0, y0, res, size, False)
    bad = np.isin(classes, bad_classes) | (classes > 11)
    return float(np.mean(bad)), float(np.mean(classes == 0))


def suspect_share(pixels):
    return float(np.mean((pixels > SUSPECT).any(axis=0)))


@functools.lru_cache(maxsize=512)
def smallest(path):
    with rasterio.open(path) as full:
        levels = len(full.overviews(1))
    if levels == 0:
        with rasterio.open(path) as full:
            return full.read(1)
    with rasterio.open(path, overview_level=levels - 1) as level:
        return level.read(1)


def dark_land(scene):
    """The DN of dark land, or None when there is too little land."""
    blue, classes = smallest(scene.file("B02")), smallest(scene.file("SCL")) if scene.has(["SCL"]) else None
    land = blue > 0
    if classes is not None:
        at = [np.floor((np.arange(n) + 0.5) / n * m).astype(int) for n, m in zip(blue.shape, classes.shape)]
        land &= np.isin(classes[np.ix_(*at)], (4, 5))
    values = np.sort(blue[land])
    return int(values[int(np.floor(0.01 * (len(values) - 1)))]) if len(values) >= LEAST_LAND else None


def offset_of(scene, mode):
    """What is to be subtracted, and the word for why."""
    properties = scene.item["properties"]
    baseline = properties.get("s2:processing_baseline")
    baseline = None if baseline is None else float(baseline)
    if mode == "none":
        return 0, "off"
    if properties.get("earthsearch:boa_offset_applied") is True:
        return 0, "flag"
    if baseline is not None and baseline < 4.0:
        return 0, "baseline"
    stated = (OFFSET, "stated") if baseline is not None else (0, "unknown")
    if mode == "stac":
        return stated
    dark = dark_land(scene)
    if dark is None:
        return stated
    return (OFFSET if dark >= OFFSET else 0), "pixels"


def harmonised(pixels, subtract):
    """DN 0 stays 0, anything else stays at least 1."""
    shifted = np.maximum(pixels.astype(np.int64) - subtract, 1)
    return np.where(pixels == 0, 0, shifted).astype(np.uint16)
