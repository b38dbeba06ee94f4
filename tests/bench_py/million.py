#!/usr/bin/env python3
"""What `node dataset` costs with a million chips: memory, CPU time, and the size of what it makes.

    million.py --node NODE --like DATASET --out DIR [--tasks 20000] [--chips 50] [--stac-tasks 2000]

Makes manifests of so many tasks and chips, spread over a UTM zone in cells of 4.5 x 5.5 km with 100 parcels each, 55 of
them in every mask; records and files are those of DATASET's chips in turn (hard links, so a run with `chips.size=16` is
best: a million images of 256 pixels are half a terabyte). Then runs each command in a process of its own, with the
statistics over every training image, and STAC over the first `--stac-tasks` alone: its items are a file each. Prints a
line per command: wall and CPU seconds, peak resident memory, what was made. Needs the standard library alone.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import sys
import time

COLUMNS, CELL = 140, (4500, 5500)
PARCELS = 100
IN_MASK = 55


def templates(dataset):
    """The chips of a finished run, and its manifests' head."""
    heads, chips = [], []
    for path in sorted(dataset.glob(".manifests/*/task_*.json")):
        manifest = json.loads(path.read_text())
        heads.append(manifest)
        chips += manifest["chips"]
    if not chips:
        raise SystemExit(f"{dataset} holds no chip")
    return heads[0], chips


def task(number, head, like, per_task, dice):
    """One task's manifest."""
    corner = (200_000 + number % COLUMNS * CELL[0], 4_000_000 + number // COLUMNS * CELL[1])
    chips, classes = [], {}
    for n in range(per_task):
        chip = dict(like[(number * per_task + n) % len(like)])
        x, y = (corner[axis] + dice.randrange(CELL[axis] // 10) * 10 for axis in (0, 1))
        first = number * PARCELS + max(0, min(PARCELS - IN_MASK, n - IN_MASK // 2))
        chip.update(
            name=f"task{number}_class{chip['class']}_chip{n}", parcel=number * PARCELS + n, epsg=32630,
            grid={"x0": float(x), "y0": float(y), "res": 10.0, "width": 256, "height": 256},
            provenance={**chip["provenance"], "parcels": list(range(first, first + IN_MASK))},
        )  # fmt: skip
        classes[str(chip["class"])] = classes.get(str(chip["class"]), 0) + 1
        chips.append(chip)
    said = {**head["result"], "task_id": number, "chips_saved": per_task, "chips_per_class": classes, "sampled": per_task}
    return {**head, "key": {**head["key"], "task": number}, "result": said, "chips": chips, "rejected": []}


def make(place, dataset, tasks, per_task):
    """Bytes of the manifests; a place that is complete is used as it is."""
    head, like = templates(dataset)
    run = place / ".manifests" / head["key"]["run"]
    if (place / "dataset.json").exists():
        return sum(p.stat().st_size for p in run.iterdir())
    for directory in (run, place / "images", place / "masks"):
        directory.mkdir(parents=True)
    dice = random.Random(1)
    for number in range(1, tasks + 1):
        manifest = task(number, head, like, per_task, dice)
        (run / f"task_{number}.json").write_text(json.dumps(manifest))
        for n, chip in enumerate(manifest["chips"]):
            source = like[(number * per_task + n) % len(like)]["name"]
            for kind in ("images", "masks"):
                os.link(dataset / kind / f"{source}.tif", place / kind / f"{chip['name']}.tif")
    shutil.copy(dataset / "dataset.json", place)
    return sum(p.stat().st_size for p in run.iterdir())


def measured(command, log):
    """Runs it; (wall seconds, CPU seconds, MiB)."""
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        with open(log, "w") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        os.execv(command[0], command)
    _, status, used = os.wait4(child, 0)
    if status:
        print(pathlib.Path(log).read_text()[-2000:], file=sys.stderr)
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def total(place, pattern):
    files = [p for p in place.glob(pattern) if p.is_file()]
    return f"{len(files):,} files, {sum(p.stat().st_size for p in files) / 1e6:,.0f} MB"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--node", type=pathlib.Path, required=True)
    parser.add_argument("--like", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--chips", type=int, default=50)
    parser.add_argument("--stac-tasks", type=int, default=2_000)
    given = parser.parse_args()
    place, few, shards = given.out / "all", given.out / "few", given.out / "shards"
    size = make(place, given.like, given.tasks, given.chips)
    make(few, given.like, min(given.stac_tasks, given.tasks), given.chips)
    print(f"{given.tasks:,} tasks, {given.tasks * given.chips:,} chips, {size / 1e6:,.0f} MB of manifests", flush=True)
    plain = ["--set", "finish.stac=false"]
    for name, action, where, more, made in (
        ("split", "split", place, [], "*.*"),
        ("finish, without STAC", "finish", place, plain, "*.*"),
        ("finish again", "finish", place, plain, "*.*"),
        ("export", "export", place, ["--out", str(shards)], None),
        (f"finish, {given.stac_tasks * given.chips:,} with STAC", "finish", few, [], "stac/**/*.json"),
    ):
        command = [str(given.node.resolve()), "dataset", action, str(where), *more]
        wall, cpu, rss = measured(command, given.out / "log")
        what = total(where, made) if made else total(shards, "*")
        print(f"{name:<32} wall {wall:>8,.1f} s   CPU {cpu:>8,.1f} s   RSS {rss:>6,.0f} MiB   {what}", flush=True)


if __name__ == "__main__":
    main()
