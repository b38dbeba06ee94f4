"""The table, and the goals it is held against: report.py RESULTS.

Medians over the runs. Ratios of CPU compare seconds per chip, so programs with different numbers of chips compare.
Wall ratios compare our default encoding with the other's own.
"""

import json
import os
import statistics
import sys

HEADER = 16 * 1024  # bytes of one header read


class Table:
    def __init__(self, path):
        self.rows = {}
        with open(path) as lines:
            for line in lines:
                row = json.loads(line)
                self.rows.setdefault((row["name"], row["codec"], row["latency"]), []).append(row)

    def get(self, name, codec, latency=0):
        """Median of every figure, or None when the row was not measured."""
        rows = self.rows.get((name, codec, latency))
        if not rows:
            return None
        numbers = {k for r in rows for k, v in r.items() if isinstance(v, (int, float))}
        return {k: statistics.median(r[k] for r in rows if k in r) for k in numbers}


def line(*cells, widths=(25, 8, 3, 5, 6, 6, 7, 6, 8, 7, 12, 10)):
    print("  ".join(str(c).rjust(w) if i else str(c).ljust(w) for i, (c, w) in enumerate(zip(cells, widths))))


NAMES = {
    "ours": "(a) our worker", "original": "(b) original's way", "tuned": "(c) tuned rasterio",
    "original-clip": "(b) as it was: cell only", "floor1": "(d) floor, one core", "floor2": "(d) floor, both cores",
}


def chips_table(table):
    line("program", "codec", "ms", "chips", "wall s", "CPU s", "ms/chip", "RSS MB", "requests", "MB", "start-up CPU", "server CPU")
    for latency in (0, 40):
        for codec in ("deflate1", "zstd1", "own"):
            for name in ("ours", "original", "tuned", "original-clip", "floor1", "floor2"):
                row = table.get(name, codec, latency)
                if row:
                    wall = "-" if name.startswith("floor") else f"{row['wall_s']:.2f}"
                    line(
                        NAMES[name], codec, latency, int(row["chips"]), wall, f"{row['cpu_s']:.2f}",
                        f"{1000 * row['cpu_s'] / row['chips']:.1f}", f"{row['rss_mb']:.0f}",
                        int(row.get("requests", 0)) or "-", f"{row['bytes'] / 1e6:.1f}" if "bytes" in row else "-",
                        f"{row['startup_cpu_s']:.2f}" if "startup_cpu_s" in row else "-",
                        f"{row['server_cpu_s']:.2f}" if "server_cpu_s" in row else "-",
                    )
    for codec in ("deflate1", "zstd1"):
        floor, both = table.get("floor1", codec), table.get("floor2", codec)
        if floor:
            steps = ", ".join(f"{k} {floor[k + '_s']:.2f} / {both[k + '_s']:.2f}" for k in ("read", "decode", "cut", "encode", "write"))
            print(
                f"floor {codec}, one core / both: {steps} CPU s; {floor['blocks']:.0f} distinct blocks, "
                f"{floor['block_bytes'] / 1e6:.1f} MB, touched {floor['block_reads_per_chip']:.0f} times"
            )


def goals(table):
    """(what, value, comparison, goal)"""
    def per_chip(row, key="cpu_s"):
        return row[key] / row["chips"]

    def against(other, ours, key="cpu_s"):
        return per_chip(other, key) / per_chip(ours, key) if other and ours else None

    get = table.get
    same, own, floor = get("ours", "deflate1"), get("ours", "zstd1"), get("floor1", "deflate1")
    for codec in ("deflate1", "zstd1"):
        for threads, where in ((2, "both cores"), (1, "one core")):
            yield f"CPU against the floor on {where}, {codec}", against(get("ours", codec), get(f"floor{threads}", codec)), "<=", 1.25
    yield "chips per CPU s against (b), same DEFLATE", against(get("original", "deflate1"), same), ">=", 4
    yield "chips per CPU s against (b), each its own", against(get("original", "own"), own), ">=", 6
    yield "chips per CPU s against (c), same DEFLATE", against(get("tuned", "deflate1"), same), ">=", 1.8
    yield "chips per CPU s against (c), each its own", against(get("tuned", "deflate1"), own), ">=", 3
    yield "  (c) given our codec, zstd 1 (no goal)", against(get("tuned", "zstd1"), own), "", None
    for latency, b, c in ((40, 15, 6), (0, 12, 4)):
        mine = get("ours", "zstd1", latency)
        yield f"wall at {latency} ms against (b)", against(get("original", "own", latency), mine, "wall_s"), ">=", b
        yield f"wall at {latency} ms against (c)", against(get("tuned", "deflate1", latency), mine, "wall_s"), ">=", c
    if own and floor:
        least = floor["block_bytes"] + floor["files"] * HEADER
        yield "bytes against needed blocks + headers", own["tif_bytes"] / least, "<=", 1.03
        yield "requests against needed blocks + files", own["tif_requests"] / (floor["blocks"] + floor["files"]), "<=", 1.0
        yield "peak RSS, MB", own["rss_mb"], "<=", 1024
        # The server's work for this run is done on the same cores.
        cores = own["wall_s"] * min(2, os.cpu_count())
        yield "cores busy at 0 ms, worker and its server", (own["cpu_s"] + own["server_cpu_s"]) / cores, ">=", 0.9
        yield "  the worker's part (no goal)", own["cpu_s"] / cores, "", None
        yield "seconds from start to first chip", own["first_chip_s"], "<=", 1.0
    for region in ("tiles, 4 seasons", "tiles, 1 season", "one tile", "one seamless scene"):
        for row in table.rows.get(("affinity", region, 0), [])[:1]:
            for workers, goal in (("1", 1.03), ("4", 1.15), ("16", 1.3)):
                # Beside it: the same with caches that know the future, and if no block ever left a cache.
                bounds = f"Belady {row['clairvoyant'][workers]:.2f}, limit {row['limit'][workers]:.2f}"
                what = f"fetches/block, {region}, {workers} worker(s): {bounds}"
                yield what, row["fetches_per_block"][workers], "<=", goal
    clip = get("original-clip", "own")
    if clip and own:
        yield "chips against the original (cell only)", own["chips"] / clip["chips"], ">=", 4
        yield "  bytes per chip against it", per_chip(own, "bytes") / per_chip(clip, "bytes"), "<=", 1.0
    plan, per_cell, sqlite = get("master", "plan"), get("master", "geopandas"), get("master", "sqlite3")
    if plan:
        yield "master against per-cell geopandas, wall", per_cell["full_wall_s"] / plan["wall_s"], ">=", 100
        yield "  the same, CPU (no goal)", per_cell["full_cpu_s"] / plan["cpu_s"], "", None
        yield "master against sqlite3, wall", plan["wall_s"] / sqlite["wall_s"], "<=", 2
        yield "  the same, CPU (no goal)", plan["cpu_s"] / sqlite["cpu_s"], "", None
        yield "master's RSS, MB", plan["rss_mb"], "<=", 300


def master_table(table):
    for how in ("plan", "sqlite3", "pyogrio", "geopandas"):
        row = table.get("master", how)
        if row:
            whole = " (whole grid, extrapolated from %d of %d cells)" % (row["measured"], row["cells"]) if how == "geopandas" else ""
            wall, cpu = row.get("full_wall_s", row["wall_s"]), row.get("full_cpu_s", row["cpu_s"])
            print(f"master, {how:10} wall {wall:8.2f} s   CPU {cpu:8.2f} s   RSS {row['rss_mb']:6.0f} MB{whole}")


def main():
    table = Table(sys.argv[1])
    runs = max(len(rows) for rows in table.rows.values())
    loads = [r["load"] for rows in table.rows.values() for r in rows]
    print(f"\n{os.cpu_count()} cores, medians of {runs}, load average {min(loads):.1f} to {max(loads):.1f} during the run\n")
    if table.get("ours", "zstd1"):
        chips_table(table)
        print()
    master_table(table)
    print()
    for what, value, compare, goal in goals(table):
        if value is None:
            continue
        met = "" if goal is None else ("pass" if (value <= goal if compare == "<=" else value >= goal) else "FAIL")
        print(f"{what:72} {value:8.2f}   {compare} {'' if goal is None else goal:<6} {met}")


main()
