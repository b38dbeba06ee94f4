"""The JSON schemas of STAC's extensions, for a machine that reaches a package index but not stac-extensions.github.io.

The source packages of pystac's extensions (schemas.txt, pinned by hash) hold what that host answered, recorded for their
own tests. `Extensions` fetches them once into the virtual environment and validates as pystac does, with pystac's
schemas of the core for what the extensions refer to. The label extension's schema is in no package: `label_problems`
says its rules for rasters, as published with 1.0.1. (Tried once by hand: a transcription of that
schema in the cache of pystac's validator, and `validate()` of every item of the demonstration says the same.)
"""

import gzip
import json
import pathlib
import subprocess
import sys
import tarfile

import jsonschema.validators
import yaml
from pystac.validation.stac_validator import JsonSchemaSTACValidator

LIST = pathlib.Path(__file__).with_name("schemas.txt")
LABEL = "https://stac-extensions.github.io/label/v1.0.1/schema.json"
LABEL_FIELDS = {f"label:{n}" for n in "properties classes description type tasks methods overviews".split()}


def fetched():
    """The source packages, downloaded when one is not there yet."""
    place = pathlib.Path(sys.prefix) / "schemas"
    wanted = [line.split()[0].split("==") for line in LIST.read_text().splitlines() if line[0] != "#"]
    paths = [place / f"{name.replace('-', '_')}-{version}.tar.gz" for name, version in wanted]
    if not all(path.is_file() for path in paths):
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--no-deps"]
        # Sources of these alone: pip looks into them with a build tool, which had better be a wheel.
        sources = ",".join(name for name, _ in wanted)
        subprocess.run([*pip, "--no-binary", sources, "--dest", str(place), "--requirement", str(LIST)], check=True)
    return paths


def recorded(paths):
    """Address to schema, out of every recorded answer that is one."""
    found, moved = {}, {}
    for path in paths:
        with tarfile.open(path) as package:
            for member in package.getmembers():
                if not member.name.endswith(".yaml") or "/cassettes/" not in member.name:
                    continue
                for exchange in yaml.safe_load(package.extractfile(member))["interactions"]:
                    address, answer = exchange["request"]["uri"], exchange["response"]
                    if answer["status"]["code"] in (301, 302, 307, 308):
                        moved[address] = answer["headers"]["Location"][0]
                    elif address.endswith("schema.json") and answer["status"]["code"] == 200:
                        found[address] = json.loads(text(answer["body"]["string"]))
    found.update({old: found[new] for old, new in moved.items() if new in found})
    return found


def text(body):
    if isinstance(body, str):
        return body
    return (gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body).decode()


class Extensions:
    """Validates what an object says of its extensions."""

    def __init__(self):
        core = JsonSchemaSTACValidator()
        core.schema_cache.update(recorded(fetched()))
        self.known, registry = core.schema_cache, core.registry
        make = lambda schema: jsonschema.validators.validator_for(schema)(schema, registry=registry)
        self.validators = {address: make(schema) for address, schema in self.known.items()}

    def problems(self, thing):
        """(extension, what is wrong or None) for each extension that the object declares."""
        for address in thing.get("stac_extensions", []):
            if address == LABEL:
                wrong = label_problems(thing)
            elif address not in self.validators:
                wrong = "no schema at hand"
            else:
                best = jsonschema.exceptions.best_match(self.validators[address].iter_errors(thing))
                wrong = best and best.message
            yield "/".join(address.split("/")[3:5]), wrong


def label_problems(item):
    """What the label extension wants of a raster's item."""
    said, links = item["properties"], item["links"]
    ours = lambda thing: {key for key in thing if key.startswith("label:")}
    rules = {
        "no field of an item is invented": all(ours(t) <= LABEL_FIELDS for t in [said, *item["assets"].values()]),
        "links name assets": all(ours(link) <= {"label:assets"} for link in links),
        "tasks are text": all(isinstance(task, str) for task in said.get("label:tasks", [])),
        "type": said.get("label:type") == "raster",
        "properties are null": "label:properties" in said and said["label:properties"] is None,
        "description": bool(said.get("label:description")),
        "classes have no name of a property": all(c["name"] is None and c["classes"] for c in said["label:classes"]),
        "class names are text": all(isinstance(n, str) for c in said["label:classes"] for n in c["classes"]),
        "overviews have no key": all("property_key" not in o for o in said["label:overviews"]),
        "counts are whole": all(isinstance(c["count"], int) for o in said["label:overviews"] for c in o["counts"]),
    }
    broken = [rule for rule, kept in rules.items() if not kept]
    return f"label: {', '.join(broken)}" if broken else None
