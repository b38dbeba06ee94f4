#!/usr/bin/env python3
"""Does check_dataset.py notice? Damages copies of a finished dataset, one thing at a time, and wants an exit code of 1.

    damage_dataset.py DIR --gpkg FILE [--config EFFECTIVE.toml]

Each damage is the smallest of its kind, and only the part of the check that should see it is run. Exit code 1 when any
damage passes unnoticed, or when the dataset as it is does not pass.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pyarrow.compute
import pyarrow.parquet

HERE = pathlib.Path(__file__).resolve().parent


def edit_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.unlink()
    path.write_text(json.dumps(value))


def edit_table(path, column, change):
    table = pyarrow.parquet.read_table(path)
    geo = pyarrow.parquet.ParquetFile(path).metadata.metadata.get(b"geo")
    values = table[column].to_pylist()
    change(values)
    at = table.schema.get_field_index(column)
    table = table.set_column(at, table.schema.field(at), pyarrow.array(values, table.schema.field(at).type))
    path.unlink()
    pyarrow.parquet.write_table(table.replace_schema_metadata({b"geo": geo} if geo else None), path)


def first(values, wanted, value):
    values[values.index(wanted)] = value


def move_line(root):
    """The first test chip goes to the training list, and the index agrees."""
    lists = [root / "test.txt", root / "train.txt"]
    test, train = (path.read_text().split() for path in lists)
    order = pyarrow.parquet.read_table(root / "index.parquet", columns=["name"])["name"].to_pylist()
    moved = test.pop(0)
    train = sorted([*train, moved], key=order.index)
    for path, names in zip(lists, (test, train)):
        path.unlink()
        path.write_text("\n".join(names) + "\n")
    edit_table(root / "index.parquet", "split", lambda splits: splits.__setitem__(order.index(moved), "train"))


def item(root):
    return sorted(p for p in root.glob("stac/*/task_*/*.json") if p.name != "catalog.json")[0]


DAMAGES = {
    "a chip in another split": ("split", move_line),
    "a distance 1 m off": ("split", lambda r: edit_json(r / "dataset-split.json", lambda v: v["distances"][0].update(metres=v["distances"][0]["metres"] + 1))),
    "a mean one part in 100,000 off": ("stats", lambda r: edit_json(r / "stats.json", lambda v: v["bands"][3].update(mean=v["bands"][3]["mean"] * 1.00001))),
    "a weight off": ("stats", lambda r: edit_json(r / "stats.json", lambda v: v["classes"][0].update(weight=v["classes"][0]["weight"] * 1.001))),
    "a parcel drawn that was not": ("parcels", lambda r: edit_table(r / "rejections.parquet", "state", lambda v: first(v, "not_drawn", "not_done"))),
    "a pixel count one off": ("index", lambda r: edit_table(r / "index.parquet", "pixels_5", lambda v: v.__setitem__(0, v[0] + 1))),
    "a transform one pixel off": ("index", lambda r: edit_table(r / "index.parquet", "transform", lambda v: v[0].__setitem__(2, v[0][2] + 10))),
    "an item without a geometry": ("stac", lambda r: edit_json(item(r), lambda v: v.pop("geometry"))),
    "an item's transform off": ("stac", lambda r: edit_json(item(r), lambda v: v["properties"]["proj:transform"].__setitem__(2, 0))),
    "an item of no EPSG code": ("stac", lambda r: edit_json(item(r), lambda v: v["properties"].update({"proj:code": "32630"}))),
    "an asset of an unknown type of data": ("stac", lambda r: edit_json(item(r), lambda v: v["assets"]["mask"]["raster:bands"][0].update(data_type="byte"))),
    "a raster's classes in a property": ("stac", lambda r: edit_json(item(r), lambda v: v["properties"]["label:classes"][0].update(name="class"))),
    "an item that is gone": ("stac", lambda r: item(r).unlink()),
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", type=pathlib.Path)
    parser.add_argument("--gpkg", required=True)
    parser.add_argument("--config")
    given = parser.parse_args()
    options = ["--gpkg", given.gpkg, *(["--config", given.config] if given.config else [])]
    unnoticed = []
    for what, (part, damage) in DAMAGES.items():
        with tempfile.TemporaryDirectory(dir=given.dataset.parent) as scratch:
            copy = pathlib.Path(scratch) / "dataset"
            # Links: whoever changes a file has to take it away first.
            shutil.copytree(given.dataset, copy, copy_function=os.link)
            damage(copy)
            command = [sys.executable, str(HERE / "check_dataset.py"), str(copy), "--only", part, *options]
            checked = subprocess.run(command, capture_output=True, text=True)
        noticed = checked.returncode == 1 and "DIFFERS" in checked.stdout
        print(f"{what:<36}{part:<10}{'noticed' if noticed else 'NOT NOTICED'}")
        if not noticed:
            unnoticed.append(what)
            print(checked.stdout[-500:], checked.stderr[-500:])
    print(f"{len(DAMAGES) - len(unnoticed)} of {len(DAMAGES)} damages noticed")
    sys.exit(1 if unnoticed else 0)


if __name__ == "__main__":
    main()
