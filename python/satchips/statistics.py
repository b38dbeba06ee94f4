"""What is known of a dataset's training split: means, deviations and percentiles of the bands, weights of the classes."""

import csv
import dataclasses
import json
import pathlib

import numpy as np


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Arrays run over `bands`; DN of the files, nodata (0) left out."""

    bands: list
    mean: np.ndarray
    std: np.ndarray
    percentiles: dict
    """Percentile (1, 2, 25, 50, 75, 98, 99) to an array over the bands."""
    weights: np.ndarray
    """Weight of each mask value 0 to 255; 0 where a value is no class, or no training pixel has it."""

    @classmethod
    def read(cls, root):
        """Reads `stats.json` of a dataset's directory."""
        stats = json.loads((pathlib.Path(root) / "stats.json").read_text())
        bands = stats["bands"]
        numbers = lambda key: np.array([band[key] for band in bands], dtype=np.float64)
        known = bands[0]["percentiles"] if bands else {}
        weights = np.zeros(256)
        for row in stats["classes"]:
            weights[row["class"]] = row["weight"]
        return cls(
            bands=[band["name"] for band in bands],
            mean=numbers("mean"),
            std=numbers("std"),
            percentiles={int(p): np.array([band["percentiles"][p] for band in bands]) for p in known},
            weights=weights,
        )

    def select(self, bands):
        """The same for some of the bands, in that order."""
        at = [self.bands.index(name) for name in bands]
        some = {p: values[at] for p, values in self.percentiles.items()}
        return dataclasses.replace(self, bands=list(bands), mean=self.mean[at], std=self.std[at], percentiles=some)

    def normalise(self, image):
        """DN (bands, rows, cols) to float32 of mean 0 and deviation 1; nodata becomes 0, the mean."""
        scaled = (image - self.mean[:, None, None]) / np.maximum(self.std, 1e-9)[:, None, None]
        return np.where(image == 0, 0, scaled).astype(np.float32)


def read_classes(root):
    """Name of each class by its number, from `classes.csv`; the background is not among them."""
    with open(pathlib.Path(root) / "classes.csv", newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return {int(row["class"]): row["name"] for row in rows if int(row["class"]) not in (0, 255)}
