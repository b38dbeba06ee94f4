#!/usr/bin/env python3
"""Does check_chips.py notice what it is there to notice?

    check_the_check.py DIR --gpkg FILE --scenes ROOT [--config EFFECTIVE.toml]

Copies one task of a good dataset, spoils the copy in one way at a time (rewriting lengths and hashes in the manifest, so
that only the kind of damage in question can give it away), and expects the difference to be named. Exit code 1 when the
good copy is found wrong or a spoilt one right.
"""

import argparse
import json
import pathlib
import shutil
import sys
import tempfile

import numpy as np
import rasterio
import xxhash

from check_chips import REPOSITORY, Check, Report, Settings
from land import Parcels
from rules import ClassRules
from scenes import Scenes


class Copy:
    """One task's files and manifest in a directory of their own."""

    def __init__(self, dataset, manifest, place):
        self.place = place
        self.path = place / manifest.relative_to(dataset)
        self.path.parent.mkdir(parents=True)
        self.manifest = json.loads(manifest.read_text())
        for kind in ("images", "masks"):
            (place / kind).mkdir()
            for chip in self.manifest["chips"]:
                shutil.copy(dataset / kind / f"{chip['name']}.tif", place / kind)
        self.chip = self.manifest["chips"][0]

    def file(self, kind):
        return self.place / kind / f"{self.chip['name']}.tif"

    def rewrite(self, kind, pixels=lambda p: p, **changes):
        """Writes a file of the first chip anew, with changed pixels or profile."""
        with rasterio.open(self.file(kind)) as tif:
            profile, array, described, tags = tif.profile, tif.read(), tif.descriptions, tif.tags()
            palette = tif.colormap(1) if kind == "masks" else None
        described = changes.pop("descriptions", described)
        tags.update(changes.pop("tags", {}))
        size = {"blockxsize": array.shape[2], "blockysize": array.shape[1]}
        profile.update({"tiled": True, **size, "predictor": 2 if kind == "images" else 1, **changes})
        with rasterio.open(self.file(kind), "w", **profile) as tif:
            tif.write(pixels(array))
            tif.descriptions = described
            tif.update_tags(**{k: v for k, v in tags.items() if k != "AREA_OR_POINT"})
            if palette:
                tif.write_colormap(1, palette)

    def save(self):
        for chip in self.manifest["chips"]:
            for kind in ("image", "mask"):
                path = self.place / f"{kind}s" / f"{chip['name']}.tif"
                if path.exists():
                    raw = path.read_bytes()
                    chip[kind] = {"bytes": len(raw), "xxh128": xxhash.xxh3_128_hexdigest(raw)}
        self.path.write_text(json.dumps(self.manifest))


def one_more(array):
    array[3, 100, 100] += 1
    return array


def class_gone(array):
    row, col = np.argwhere(array[0] > 0)[len(np.argwhere(array[0] > 0)) // 2]
    array[0, row, col] = 0
    return array


def moved(copy, by):
    copy.chip["grid"]["x0"] += by
    grid = copy.chip["grid"]
    for kind in ("images", "masks"):
        copy.rewrite(kind, transform=rasterio.Affine(grid["res"], 0, grid["x0"], 0, -grid["res"], grid["y0"]))


def dropped(copy):
    copy.manifest["chips"].remove(copy.chip)
    for kind in ("images", "masks"):
        copy.file(kind).unlink()


SPOILERS = {
    "one DN is one more": (lambda c: c.rewrite("images", one_more), "1 of 655360 image pixels differ"),
    "the image is one column off": (lambda c: c.rewrite("images", lambda a: np.roll(a, 1, axis=2)), "image pixels differ"),
    "two bands are swapped": (lambda c: c.rewrite("images", lambda a: a[[1, 0, *range(2, 10)]]), "image pixels differ"),
    "one mask pixel is lost": (lambda c: c.rewrite("masks", class_gone), "1 of 65536 mask pixels differ"),
    "the mask is one row off": (lambda c: c.rewrite("masks", lambda a: np.roll(a, 1, axis=1)), "mask pixels differ"),
    "the chip lies 10 m further east": (lambda c: moved(c, 10.0), "its window begins at"),
    "the image says another zone": (lambda c: c.rewrite("images", crs="EPSG:32629"), "EPSG is 32629"),
    "a description is another band's": (
        lambda c: c.rewrite("images", descriptions=("B03", *("B02",) * 9)), "descriptions is"),
    "the image has no nodata": (lambda c: c.rewrite("images", nodata=None), "nodata is"),
    "the mask has another compression": (lambda c: c.rewrite("masks", compress="lzw"), "compression is"),
    "the image is signed": (lambda c: c.rewrite("images", lambda a: a.astype("int16"), dtype="int16"), "dtypes is"),
    "the image is in strips": (lambda c: c.rewrite("images", tiled=False), "tile is"),
    "a file was changed after it was written": (lambda c: (c.save(), c.rewrite("masks", class_gone)), "xxh128 is"),
    "another share of bad pixels is claimed": (
        lambda c: c.chip["provenance"].update(bad_fraction=0.04321), "bad fraction is 0.04321"),
    "another offset is claimed": (
        lambda c: c.chip["provenance"].update(offset=7), "offset is (7"),
    "the chip is of another season": (lambda c: c.chip.update(season="winter" if c.chip["season"] != "winter" else "summer"),
        "is not in season"),
    "a tag is another run's": (lambda c: c.rewrite("images", tags={"RUN": "other"}), "tags is"),
    "a mask is missing": (lambda c: c.file("masks").unlink(), "No such file"),
    "a file nobody wrote": (lambda c: shutil.copy(c.file("images"), c.place / "images/stray.tif"), "named by no manifest"),
    "a drawn parcel is forgotten": (dropped, "parcels drawn is"),
    "a chip has another class": (lambda c: c.chip.update({"class": c.chip["class"] % 8 + 1}), "class is"),
    "a chip names another scene": (lambda c: c.chip.update({"item": "S2A_00AAA_20230101_0_L2A"}), "KeyError"),
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", type=pathlib.Path)
    parser.add_argument("--gpkg", required=True)
    parser.add_argument("--scenes", required=True)
    parser.add_argument("--config")
    given = parser.parse_args()
    settings, rules = Settings.load(given.config), ClassRules(REPOSITORY / "config/classes/eurocrops.csv")
    parcels = Parcels(given.gpkg, settings.layer or None, settings.code_column, settings.name_column, rules)
    scenes = Scenes([given.scenes])
    manifests = sorted(given.dataset.glob(".manifests/*/task_*.json"))
    sizes = {path: len(json.loads(path.read_text())["chips"]) for path in manifests}
    smallest = min((n, p) for p, n in sizes.items() if n >= 2)[1]

    def problems(spoil):
        with tempfile.TemporaryDirectory() as place:
            copy = Copy(given.dataset, smallest, pathlib.Path(place))
            spoil(copy)
            if copy.path.parent.exists() and not copy.path.exists():
                copy.save()
            report = Report()
            check = Check(copy.place, parcels, scenes, rules, settings, report)
            check.manifest(copy.path)
            check.directory()
            return report.problems

    failures = problems(lambda _: None)
    for what, (spoil, sign) in SPOILERS.items():
        found = problems(spoil)
        if not any(sign in problem for problem in found):
            failures.append(f"{what}: expected {sign!r}, found {found}")
    for failure in failures:
        print(f"NOT NOTICED  {failure}")
    print(f"{len(SPOILERS)} kinds of damage tried on {smallest.name}, {len(failures)} not noticed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
