"""Adds one row to the results: note.py FILE NAME CODEC LATENCY PROGRAM_JSON SERVER_JSON SERVER_TICKS."""

import json
import os
import sys

path, name, codec, latency, program, server, ticks = sys.argv[1:]
row = dict(name=name, codec=codec, latency=int(latency), load=os.getloadavg()[0], **json.loads(program))
row.setdefault("cpu_s", row.get("user_s", 0) + row.get("sys_s", 0))
if "rss_kb" in row:
    row["rss_mb"] = row.pop("rss_kb") / 1024
served = json.loads(server)
if served and not name.startswith("floor"):
    parts = [served[k] for k in ("stac", "tif", "json", "other")]
    row.update(
        requests=sum(p["requests"] for p in parts), bytes=sum(p["bytes"] for p in parts),
        tif_requests=served["tif"]["requests"], tif_bytes=served["tif"]["bytes"],
        server_cpu_s=int(ticks) / os.sysconf("SC_CLK_TCK"),
    )
with open(path, "a") as out:
    out.write(json.dumps(row) + "\n")
