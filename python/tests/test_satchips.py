"""satchips on a finished dataset, whose directory the environment variable SATCHIPS_DATASET names.

Expectations are worked out with rasterio and numpy from the files themselves.
"""

import os
import pathlib
import shutil
import tempfile
import unittest

import numpy as np
import rasterio
from satchips import ChipDataset, NotFinished, read_index, sample_pixels

ROOT = pathlib.Path(os.environ["SATCHIPS_DATASET"])


class Chips(unittest.TestCase):
    def test_splits_are_the_lists_and_share_nothing(self):
        names = {split: ChipDataset(ROOT, split).names for split in ("train", "val", "test")}
        for split, of in names.items():
            self.assertEqual(of, (ROOT / f"{split}.txt").read_text().split())
            self.assertTrue(of)
        everything = sum(names.values(), [])
        self.assertEqual(len(set(everything)), len(everything))
        self.assertEqual(ChipDataset(ROOT, "all").names, everything)

    def test_samples_are_the_files(self):
        dataset = ChipDataset(ROOT, "val", normalise=False)
        for at in range(len(dataset)):
            sample = dataset[at]
            with rasterio.open(ROOT / "images" / f"{sample['name']}.tif") as file:
                np.testing.assert_array_equal(sample["image"], file.read())
                self.assertEqual(dataset.statistics.bands, list(file.descriptions))
            with rasterio.open(ROOT / "masks" / f"{sample['name']}.tif") as file:
                np.testing.assert_array_equal(sample["mask"], file.read(1))

    def test_normalised_training_images_have_mean_0_and_deviation_1(self):
        dataset = ChipDataset(ROOT, "train")
        values = np.stack([dataset[at]["image"] for at in range(len(dataset))]).astype(np.float64)
        np.testing.assert_allclose(values.mean(axis=(0, 2, 3)), 0, atol=1e-4)
        np.testing.assert_allclose(values.std(axis=(0, 2, 3)), 1, atol=1e-4)
        self.assertEqual(dataset[0]["image"].dtype, np.float32)

    def test_nodata_becomes_the_mean(self):
        statistics = ChipDataset(ROOT, "train").statistics
        image = np.zeros((len(statistics.bands), 2, 2), dtype=np.uint16)
        image[:, 0, 0] = np.round(statistics.mean + statistics.std)
        scaled = statistics.normalise(image)
        self.assertTrue((scaled[:, 1, :] == 0).all())
        np.testing.assert_allclose(scaled[:, 0, 0], 1, atol=0.01)

    def test_bands_come_in_the_order_asked_for(self):
        both = ChipDataset(ROOT, "val", normalise=False)
        some = ChipDataset(ROOT, "val", bands=["B08", "B04"], normalise=False)
        at = [both.statistics.bands.index(band) for band in ("B08", "B04")]
        np.testing.assert_array_equal(some[0]["image"], both[0]["image"][at])
        np.testing.assert_array_equal(some.statistics.mean, both.statistics.mean[at])
        with self.assertRaisesRegex(ValueError, "no band B99; there are B02"):
            ChipDataset(ROOT, "val", bands=["B99"])

    def test_a_transform_gives_the_sample(self):
        shapes = ChipDataset(ROOT, "val", transform=lambda sample: sample["image"].shape)
        self.assertEqual(shapes[0], (10, 256, 256))

    def test_pixels_are_labelled_and_repeatable(self):
        dataset = ChipDataset(ROOT, "val")
        features, classes = sample_pixels(dataset, per_chip=50, seed=3)
        self.assertEqual(features.shape, (len(classes), 10))
        self.assertLessEqual(set(classes.tolist()), set(dataset.classes))
        again = sample_pixels(dataset, per_chip=50, seed=3)
        np.testing.assert_array_equal(features, again[0])
        self.assertFalse(np.array_equal(features, sample_pixels(dataset, per_chip=50, seed=4)[0]))

    def test_weights_make_classes_count_the_same(self):
        dataset = ChipDataset(ROOT, "train")
        counts = np.bincount(np.concatenate([dataset[at]["mask"].ravel() for at in range(len(dataset))]), minlength=256)
        weighed = (counts * dataset.statistics.weights)[list(dataset.classes)]
        present = weighed[counts[list(dataset.classes)] > 0]
        np.testing.assert_allclose(present, present[0])
        self.assertEqual(dataset.statistics.weights[0], 0)

    def test_the_index_knows_every_chip(self):
        index = read_index(ROOT).set_index("name")
        for split in ("train", "val", "test"):
            self.assertTrue((index.loc[ChipDataset(ROOT, split).names, "split"] == split).all())

    def test_what_is_not_finished_says_so(self):
        with tempfile.TemporaryDirectory() as empty:
            with self.assertRaisesRegex(NotFinished, "node dataset finish"):
                ChipDataset(empty)
            shutil.copy(ROOT / "train.txt", empty)
            with self.assertRaisesRegex(NotFinished, "classes.csv"):
                ChipDataset(empty)
        with self.assertRaisesRegex(ValueError, "train, val, test and all"):
            ChipDataset(ROOT, "training")


if __name__ == "__main__":
    unittest.main()
