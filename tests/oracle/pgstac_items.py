#!/usr/bin/env python3
"""pgstac_items.py SCENES BASE_URL OUT: the items below a directory as pypgstac loads them.

Writes OUT/collections.json and OUT/items.ndjson. Links to assets become absolute: BASE_URL plus the path of the file
below SCENES. A catalog has no address to which a relative link could be relative.
"""

import json
import pathlib
import sys
import urllib.parse


def absolute(href, item_path, root, base):
    parts = urllib.parse.urlparse(href)
    if parts.scheme in ("http", "https"):
        return base + parts.path
    below = (item_path.parent / href).resolve().relative_to(root)
    return f"{base}/{urllib.parse.quote(str(below))}"


def main():
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    root, base, out = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2].rstrip("/"), pathlib.Path(sys.argv[3])
    items = []
    for path in sorted(root.rglob("*.json")):
        item = json.loads(path.read_text())
        if item.get("type") != "Feature":
            continue
        for asset in item["assets"].values():
            if not asset["href"].startswith("s3:"):
                asset["href"] = absolute(asset["href"], path, root, base)
        item["links"] = []
        items.append(item)
    collections = [
        {
            "type": "Collection", "stac_version": "1.0.0", "id": name, "description": name, "license": "proprietary",
            "links": [],
            "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
        }
        for name in sorted({item["collection"] for item in items})
    ]  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    (out / "collections.json").write_text("".join(json.dumps(c) + "\n" for c in collections))
    (out / "items.ndjson").write_text("".join(json.dumps(i) + "\n" for i in items))
    print(f"{len(items)} items of {len(collections)} collections")


if __name__ == "__main__":
    main()
