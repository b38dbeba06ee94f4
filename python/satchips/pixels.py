"""Labelled pixels of many chips as one table, for models that look at pixels alone."""

import numpy as np


def sample_pixels(dataset, per_chip=500, seed=0):
    """Features (n, bands) and classes (n,) of up to `per_chip` labelled pixels of each chip, drawn without replacement.

    The same dataset, number and seed give the same pixels.
    """
    random = np.random.default_rng(seed)
    features, classes = [np.empty((0, len(dataset.statistics.bands)), dtype=np.float32)], [np.empty(0, dtype=np.uint8)]
    for sample in (dataset[at] for at in range(len(dataset))):
        image, mask = sample["image"], sample["mask"]
        labelled = np.flatnonzero((mask != 0) & (mask != 255))
        chosen = random.choice(labelled, min(per_chip, len(labelled)), replace=False)
        features.append(image.reshape(len(image), -1)[:, chosen].T)
        classes.append(mask.ravel()[chosen])
    return np.concatenate(features), np.concatenate(classes)
