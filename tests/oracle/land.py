"""Parcels, read with pyogrio and placed with shapely and pyproj.

A parcel's representative point is the centroid where that lies inside (even-odd rule), else the middle of the widest
interior span on the horizontal line through the centroid; where that line meets no interior, the line at half the
height of the whole shape, then of its largest part. A row without such a point is no parcel: it is neither counted nor
burnt.
"""

import functools

import numpy as np
import pyogrio
import pyproj
import shapely

BATCH = 50_000
POLYGONS = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)


def rings_of(shape):
    for part in shapely.get_parts(shape):
        yield shapely.get_coordinates(part.exterior)
        for hole in part.interiors:
            yield shapely.get_coordinates(hole)


def crossings(shape, y):
    """Where the horizontal line at y meets the rings; an edge owns its lower end."""
    xs = []
    for ring in rings_of(shape):
        a, b = ring[:-1], ring[1:]
        hit = (a[:, 1] <= y) != (b[:, 1] <= y)
        a, b = a[hit], b[hit]
        xs.append(a[:, 0] + (y - a[:, 1]) * (b[:, 0] - a[:, 0]) / (b[:, 1] - a[:, 1]))
    return np.sort(np.concatenate(xs)) if xs else np.empty(0)


def signed_area(ring):
    x, y = ring[:, 0] - ring[0, 0], ring[:, 1] - ring[0, 1]
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2


def net_area(shape):
    """Outer rings minus holes; a ring that crosses itself counts with what its shoelace sum gives."""
    total = 0.0
    for part in shapely.get_parts(shape):
        total += abs(signed_area(shapely.get_coordinates(part.exterior)))
        total -= sum(abs(signed_area(shapely.get_coordinates(hole))) for hole in part.interiors)
    return total


def widest_span(shape, y):
    xs = crossings(shape, y)
    if len(xs) < 2:
        return None
    widths = xs[1::2] - xs[0::2]
    best = int(np.argmax(widths))
    return (xs[2 * best] + widths[best] / 2, y) if widths[best] > 0 else None


def middle(bounds):
    return bounds[1] + (bounds[3] - bounds[1]) / 2


def odd_point(shape):
    """The representative point the long way, for shapes whose centroid is not plainly inside."""
    heights = []
    if net_area(shape) > 0:
        centre = shapely.centroid(shape)
        if np.searchsorted(crossings(shape, centre.y), centre.x) % 2 == 1:
            return centre.x, centre.y
        heights.append(centre.y)
    heights.append(middle(shape.bounds))
    parts = shapely.get_parts(shape)
    areas = [abs(signed_area(shapely.get_coordinates(p.exterior))) for p in parts]
    heights.append(middle(parts[int(np.argmax(areas))].exterior.bounds))
    for y in heights:
        point = widest_span(shape, y)
        if point is not None:
            return point
    return None


def representative_points(shapes):
    """Array of x, y; NaN where there is none."""
    shapes = np.asarray(shapes, dtype=object)
    usable = np.isin(shapely.get_type_id(shapes), POLYGONS) & ~shapely.is_empty(shapes)
    points = np.full((len(shapes), 2), np.nan)
    plain = usable & shapely.is_valid(shapes)
    points[plain] = shapely.get_coordinates(shapely.centroid(shapes[plain]))
    inside = np.zeros(len(shapes), dtype=bool)
    inside[plain] = shapely.contains_xy(shapes[plain], points[plain])
    points[~inside] = np.nan
    for i in np.flatnonzero(usable & ~inside):
        found = odd_point(shapes[i])
        points[i] = (np.nan, np.nan) if found is None else found
    return points


@functools.cache
def transformer(source, target):
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def move(points, source, target):
    """Points into another CRS; those without a place there become infinite."""
    points = np.asarray(points, dtype=float)
    if source == target:
        return points
    x, y = transformer(source, target).transform(points[:, 0], points[:, 1])
    return np.column_stack([x, y])


class Parcels:
    """The parcels of a layer. Ids, classes and points of all are held; shapes are read where they are needed."""

    def __init__(self, path, layer, code_column, name_column, rules, repair=True):
        self.path, self.rules, self.repair = path, rules, repair
        self.layer = layer or only_polygon_layer(path)
        info = pyogrio.read_info(path, layer=self.layer)
        self.crs = info["crs"]
        have = {f.lower(): f for f in info["fields"]}
        self.code, self.name = (have.get((c or "").lower()) for c in (code_column, name_column))
        self.columns = [c for c in (self.code, self.name) if c]
        ids, classes, points = [], [], []
        for start in range(0, info["features"], BATCH):
            frame = self.read(skip_features=start, max_features=BATCH)
            points.append(representative_points(frame["geometry"].values))
            ids.append(frame.index.to_numpy(dtype=np.int64))
            classes.append(self.classes_of(frame))
        self.ids, self.classes = np.concatenate(ids), np.concatenate(classes)
        self.points = np.concatenate(points)
        self.lonlat = move(self.points, self.crs, "EPSG:4326")
        self.rows = info["features"]
        keep = np.isfinite(self.lonlat).all(axis=1)
        order = np.argsort(self.ids[keep], kind="stable")
        for field in ("ids", "classes", "points", "lonlat"):
            setattr(self, field, getattr(self, field)[keep][order])
        self.by_lon = np.argsort(self.lonlat[:, 0], kind="stable")
        self.sorted_lon = self.lonlat[self.by_lon, 0]

    def read(self, **what):
        return pyogrio.read_dataframe(self.path, layer=self.layer, columns=self.columns, fid_as_index=True, **what)

    def classes_of(self, frame):
        nothing = [None] * len(frame)
        codes, names = (frame[c] if c else nothing for c in (self.code, self.name))
        return np.array([self.rules.of(c, n) for c, n in zip(codes, names)], dtype=np.int64)

    def within(self, bbox):
        """Places (in the arrays) of the parcels of a cell, ascending by id; the cell is half-open."""
        west, south, east, north = bbox
        span = slice(*np.searchsorted(self.sorted_lon, [west, east], side="left"))
        at = np.sort(self.by_lon[span])
        lat = self.lonlat[at, 1]
        return at[(lat >= south) & (lat < north)]

    def place_of(self, parcel):
        at = int(np.searchsorted(self.ids, parcel))
        return at if at < len(self.ids) and self.ids[at] == parcel else None

    def around(self, bounds, crs):
        """Shapes (in `crs`) and classes of the labelled parcels that may touch the bounds, ascending by id."""
        west, south, east, north = transformer(crs, self.crs).transform_bounds(*bounds, densify_pts=21)
        dx, dy = (east - west) * 0.01, (north - south) * 0.01
        frame = self.read(bbox=(west - dx, south - dy, east + dx, north + dy)).sort_index()
        classes = self.classes_of(frame)
        shapes = np.asarray(frame["geometry"].values)
        known = np.array([self.place_of(i) is not None for i in frame.index], dtype=bool)
        keep = known & (classes > 0)
        invalid = keep & ~shapely.is_valid(shapes)
        if self.repair:
            shapes[invalid] = mended(shapes[invalid])
        else:
            keep &= ~invalid
        moved = shapely.transform(shapes[keep], lambda xy: move(xy, self.crs, crs))
        return moved, classes[keep]


def mended(shapes):
    """What the outer rings go round, less the holes."""
    return shapely.make_valid(shapes, method="structure", keep_collapsed=False)


def only_polygon_layer(path):
    layers = [name for name, kind in pyogrio.list_layers(path) if kind is not None]
    full = [n for n in layers if pyogrio.read_info(path, layer=n)["features"] > 0]
    if len(full) != 1:
        raise SystemExit(f"{path}: name the layer with --layer, there are {layers}")
    return full[0]
