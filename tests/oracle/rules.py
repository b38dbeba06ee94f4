"""Class of a parcel and the draw, written from their description and not from the Rust code.

A classes file has rows `kind,key,class,note`: an exact code beats the longest prefix, both beat a name; an empty class
means "known, and in no class". A parcel is drawn when a number made of seed and parcel id is below its class's
probability.
"""

import csv

import numpy as np


class ClassRules:
    """The rules of one classes file."""

    def __init__(self, path):
        self.exact, self.prefix, self.names, self.colours, self.called = {}, {}, {}, {}, {}
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = (line for line in file if line.strip() and not line.startswith("#"))
            for row in csv.DictReader(lines):
                kind, key, value = row["kind"].strip(), row["key"].strip(), row["class"].strip()
                if kind == "class":
                    note = row["note"].strip()
                    self.called[int(key)] = value
                    self.colours[int(key)] = tuple(int(note[i : i + 2], 16) for i in (1, 3, 5))
                    continue
                table = {"exact": self.exact, "prefix": self.prefix, "name": self.names}[kind]
                table[key.lower() if kind == "name" else key] = int(value) if value else 0

    def of(self, code, name):
        """Class number, or 0 for none. Code and name as the column gives them: text, number or nothing."""
        code = text(code)
        if code in self.exact:
            return self.exact[code]
        for length in range(len(code), 0, -1):
            if code[:length] in self.prefix:
                return self.prefix[code[:length]]
        return self.names.get(text(name, blanks=True).strip().lower(), 0)


def text(value, blanks=False):
    """A cell of a column as text: no blanks, and whole numbers without a fraction."""
    if value is None or value != value:
        return ""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    value = str(value)
    if blanks:
        return value
    value = "".join(value.split())
    whole, dot, fraction = value.partition(".")
    return whole if dot and whole.isdigit() and set(fraction) <= {"0"} else value


def hash01(seed, ids):
    """The number in [0, 1) of each parcel: splitmix64's output for seed + id, its top 53 bits."""
    with np.errstate(over="ignore"):
        z = np.asarray(ids, dtype=np.int64).astype(np.uint64) + np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def drawn(seed, ids, classes, probabilities):
    """Whether each parcel is drawn; without probabilities every parcel of a class is."""
    classes = np.asarray(classes)
    if not probabilities:
        return classes > 0
    chance = np.zeros(256)
    for number, p in probabilities.items():
        chance[int(number)] = float(p)
    return (classes > 0) & (hash01(seed, ids) < chance[classes])
