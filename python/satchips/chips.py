"""Chips one at a time: an image, its mask, and their name."""

import pathlib

import numpy as np
import rasterio

from .statistics import Statistics, read_classes

SPLITS = ("train", "val", "test")


class NotFinished(FileNotFoundError):
    """The directory lacks a file that `node dataset finish` makes."""


def _file(root, name):
    path = root / name
    if not path.is_file():
        raise NotFinished(f"{path} is not there: run `node dataset finish {root}`")
    return path


def read_index(root):
    """`index.parquet` as a GeoDataFrame, one row per chip (needs geopandas and pyarrow)."""
    import geopandas

    return geopandas.read_parquet(_file(pathlib.Path(root), "index.parquet"))


class ChipDataset:
    """The chips of a split, in a fixed order: `len(dataset)`, `dataset[i]`.

    `split` is "train", "val", "test", or "all" for the three together. `bands` names the bands wanted, in the order
    wanted; by default all of the files. With `normalise` images are float32 of mean 0 and deviation 1 over the training
    split, else the files' uint16 as they are. `transform` is called with each sample and gives what is returned instead.

    A sample is a dict: `image` (bands, rows, cols), `mask` uint8 (rows, cols) with 0 for no label, and `name`. Files are
    opened for each sample and closed again, so workers of a DataLoader share nothing.
    """

    def __init__(self, root, split="train", bands=None, normalise=True, transform=None):
        if split not in (*SPLITS, "all"):
            raise ValueError(f"split is {split!r}; there are train, val, test and all")
        self.root = pathlib.Path(root)
        lists = SPLITS if split == "all" else (split,)
        self.names = [name for part in lists for name in _file(self.root, f"{part}.txt").read_text().split()]
        self.split, self.transform, self.normalised = split, transform, normalise
        self.classes = read_classes(_file(self.root, "classes.csv").parent)
        everything = Statistics.read(_file(self.root, "stats.json").parent)
        unknown = [band for band in bands or [] if band not in everything.bands]
        if unknown:
            raise ValueError(f"no band {', '.join(unknown)}; there are {', '.join(everything.bands)}")
        self.statistics = everything.select(bands) if bands else everything
        self._numbers = [everything.bands.index(band) + 1 for band in self.statistics.bands]

    def __len__(self):
        return len(self.names)

    def __getitem__(self, at):
        name = self.names[at]
        with rasterio.open(self.root / "images" / f"{name}.tif") as file:
            image = file.read(self._numbers)
        with rasterio.open(self.root / "masks" / f"{name}.tif") as file:
            mask = file.read(1)
        if self.normalised:
            image = self.statistics.normalise(image)
        sample = {"image": np.ascontiguousarray(image), "mask": mask, "name": name}
        return self.transform(sample) if self.transform else sample

    def __repr__(self):
        return f"ChipDataset({str(self.root)!r}, {self.split!r}): {len(self)} chips of {len(self.statistics.bands)} bands"
