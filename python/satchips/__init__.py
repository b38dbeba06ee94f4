"""Datasets of satellite-pipeline as numpy arrays: images, masks, splits, statistics.

A dataset is a directory with images/ and masks/ in which `node dataset finish` has left train.txt, val.txt, test.txt,
stats.json, classes.csv and index.parquet.
"""

from .chips import ChipDataset, NotFinished, read_index
from .pixels import sample_pixels
from .statistics import Statistics, read_classes

__all__ = ["ChipDataset", "NotFinished", "Statistics", "read_classes", "read_index", "sample_pixels"]
__version__ = "0.1.0"
