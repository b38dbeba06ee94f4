"""Scenes as files on this machine: STAC items and the pixels of their assets, read with rasterio."""

import datetime
import functools
import json
import pathlib
import urllib.parse

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.windows import Window

KEYS = {
    "B02": ("blue", "B02"), "B03": ("green", "B03"), "B04": ("red", "B04"), "B08": ("nir", "B08"),
    "B05": ("rededge1", "B05"), "B06": ("rededge2", "B06"), "B07": ("rededge3", "B07"), "B8A": ("nir08", "B8A"),
    "B11": ("swir16", "B11"), "B12": ("swir22", "B12"),
    "SCL": ("scl", "SCL"),
}  # fmt: skip


@functools.lru_cache(maxsize=256)
def opened(path):
    return rasterio.open(path)


class Scene:
    """One item and where its files are."""

    def __init__(self, path, item, root):
        self.path, self.item, self.root = path, item, root
        properties = item["properties"]
        self.id, self.collection = item["id"], item["collection"]
        self.cloud = properties.get("eo:cloud_cover")
        self.datetime = instant(properties["datetime"])
        code = str(properties.get("proj:code") or properties["proj:epsg"])
        self.epsg = int(code.rpartition(":")[2])

    def has(self, bands):
        return all(any(k in self.item["assets"] for k in KEYS[b]) for b in bands)

    def file(self, band):
        """The local file of a band's asset, whatever host the link names."""
        href = next(self.item["assets"][k]["href"] for k in KEYS[band] if k in self.item["assets"])
        parts = urllib.parse.urlparse(href)
        if parts.scheme in ("", "file"):
            return str((self.path.parent / urllib.parse.unquote(parts.path)).resolve())
        steps = [s for s in urllib.parse.unquote(parts.path).split("/") if s]
        for first in range(len(steps)):
            for base in (self.root, self.path.parent):
                candidate = base.joinpath(*steps[first:])
                if candidate.is_file():
                    return str(candidate)
        raise FileNotFoundError(f"{href} of {self.id}: no such file below {self.root}")

    def grid(self, bands):
        """Transform and size of the finest band."""
        files = [opened(self.file(b)) for b in bands]
        finest = min(files, key=lambda f: f.transform.a)
        return finest.transform, finest.width, finest.height

    def window(self, point, bands, size):
        """First column and row of the window whose middle pixel holds the point, and how near (in pixels) the point is
        to another pixel; None when the window leaves the scene."""
        transform, width, height = self.grid(bands)
        x, y = (point[0] - transform.c) / transform.a, (transform.f - point[1]) / transform.a
        col, row = int(np.floor(x)) - size // 2, int(np.floor(y)) - size // 2
        doubt = min(abs(v - round(v)) for v in (x, y))
        fits = 0 <= col and col + size <= width and 0 <= row and row + size <= height
        return (col, row, doubt) if fits else None

    def pixels(self, bands, x0, y0, res, size, bilinear=False):
        """(bands, size, size) of the square whose upper left corner is (x0, y0)."""
        return np.stack([self.band(b, x0, y0, res, size, bilinear) for b in bands])

    def band(self, band, x0, y0, res, size, bilinear):
        source = opened(self.file(band))
        step = source.transform.a
        left, top = (x0 - source.transform.c) / step, (source.transform.f - y0) / step
        span = size * res / step
        if left < 0 or top < 0 or left + span > source.width or top + span > source.height:
            raise ValueError(f"the window leaves {source.name}")
        if step == res:
            return source.read(1, window=Window(left, top, size, size))
        if bilinear and step > res:
            return source.read(
                1, window=Window(left, top, span, span), out_shape=(size, size), resampling=Resampling.bilinear
            )
        # The source pixel that holds the centre of each chip pixel, also when the origin is odd.
        centres = (np.arange(size) + 0.5) * res / step
        cols, rows = np.floor(left + centres).astype(int), np.floor(top + centres).astype(int)
        block = source.read(
            1, window=Window(cols[0], rows[0], cols[-1] - cols[0] + 1, rows[-1] - rows[0] + 1)
        )
        return block[np.ix_(rows - rows[0], cols - cols[0])]


def instant(text):
    moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)


class Scenes:
    """Every item found in JSON files, or in directories that hold some."""

    def __init__(self, places):
        self.all = []
        for place in map(pathlib.Path, places):
            root = place if place.is_dir() else place.parent
            files = sorted(place.rglob("*.json")) if place.is_dir() else [place]
            for path in files:
                item = json.loads(path.read_text())
                if isinstance(item, dict) and item.get("type") == "Feature" and "assets" in item:
                    self.all.append(Scene(path, item, root))
        self.by_id = {(s.collection, s.id): s for s in self.all}
        if not self.all:
            raise SystemExit(f"no STAC item in {', '.join(map(str, places))}")
