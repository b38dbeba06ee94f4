"""Arguments and figures common to the Python programs: one line of JSON, imports counted apart.

Units: seconds, MiB, CPU = user + system of this process with all its threads.
"""

import argparse
import json
import pathlib
import resource
import time

BORN = time.perf_counter()


def used():
    now = resource.getrusage(resource.RUSAGE_SELF)
    return now.ru_utime, now.ru_stime


def arguments(**more):
    ask = argparse.ArgumentParser()
    ask.add_argument("fixture", type=pathlib.Path, help="directory made by fixture.py")
    ask.add_argument("out", type=pathlib.Path)
    ask.add_argument("--url", required=True, help="STAC API")
    ask.add_argument("--encoding", default="own", help="how chips are encoded")
    for name, how in more.items():
        ask.add_argument("--" + name.replace("_", "-"), **how)
    asked = ask.parse_args()
    for place in ("images", "masks"):
        (asked.out / place).mkdir(parents=True)
    return asked


def measure(asked, work):
    """Runs `work(cells)`, which gives the number of chips, and prints what it took."""
    cells = [tuple(c) for c in json.loads((asked.fixture / "fixture.json").read_text())["cells"]]
    startup = time.perf_counter() - BORN
    before, since = used(), time.perf_counter()
    chips = work(cells)
    wall, after = time.perf_counter() - since, used()
    user, system = after[0] - before[0], after[1] - before[1]
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(dict(
        tasks=len(cells), chips=chips, wall_s=wall, cpu_s=user + system, user_s=user, sys_s=system, rss_mb=rss,
        startup_wall_s=startup, startup_cpu_s=sum(before),
    )))
