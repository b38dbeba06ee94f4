#!/usr/bin/env bash
# Units and manifests below deploy/, judged by the tools of those who read them: systemd in a scratch root, and the
# schemas of the Kubernetes API. Ends 0 when nothing is wrong. Needs systemd-analyze, .venv and a node that is built (scripts/test makes all three); NODE names another one.
set -euo pipefail
cd "$(dirname "$0")/.."
ROOT=$(mktemp -d)
trap 'rm -rf "$ROOT"' EXIT

# systemd's own units, ours, and something to execute.
mkdir -p "$ROOT/etc/systemd/system" "$ROOT/usr/lib/systemd" "$ROOT/usr/lib/satellite-pipeline"
cp -r /usr/lib/systemd/system "$ROOT/usr/lib/systemd/"
cp deploy/systemd/*.service "$ROOT/etc/systemd/system/"
install -m 0755 /bin/true "$ROOT/usr/lib/satellite-pipeline/node"
printf 'root:x:0:0::/root:/bin/sh\nsatellite:x:10001:10001::/:/bin/sh\n' >"$ROOT/etc/passwd"
for unit in satellite-master satellite-worker@1 satellite-monitor; do
    # It prints what it does not like, and ends 0 all the same for an unknown key.
    said=$(systemd-analyze verify --root="$ROOT" --man=no --recursive-errors=one "$unit.service" 2>&1)
    [ -z "$said" ] || { printf '%s\n' "$said" && exit 1; }
    # Exposure from 0 (closed) to 10 (open), in tenths.
    systemd-analyze security --root="$ROOT" --offline=true --threshold=20 "$unit.service" | tail -1
done

.venv/bin/kubernetes-validate --strict --kubernetes-version 1.33 \
    deploy/kubernetes/{namespace,storage,master,worker,monitor,network}.yaml
# KEDA and Kustomize are no part of that API: at least the names that point from file to file must be there.
.venv/bin/python - <<'PY'
import pathlib, tomllib, yaml

here = pathlib.Path("deploy/kubernetes")
read = lambda name: yaml.safe_load((here / name).read_text())
kustomization, keda = read("kustomization.yaml"), read("keda.yaml")
listed = set(kustomization["resources"])
there = {f.name for f in here.glob("*.yaml")} - {"kustomization.yaml"}
assert listed == there, listed ^ there
files = [f for generator in kustomization["configMapGenerator"] for f in generator["files"]]
assert all((here / f).is_file() for f in files), files
run = tomllib.loads((here / "run.toml").read_text())
default = tomllib.loads(pathlib.Path("config/default.toml").read_text())
kafka = default["kafka"] | run["kafka"]
assert keda["spec"]["scaleTargetRef"]["name"] == read("worker.yaml")["metadata"]["name"]
trigger = keda["spec"]["triggers"][0]["metadata"]
assert trigger["bootstrapServers"] == kafka["bootstrap_servers"]
assert trigger["consumerGroup"] == kafka["group"] and trigger["topic"] == kafka["tasks_topic"]
assert keda["spec"]["maxReplicaCount"] == kafka["partitions"]
claim = read("storage.yaml")["metadata"]["name"]
for name in ("master.yaml", "worker.yaml", "monitor.yaml"):
    spec = read(name)["spec"]["template"]["spec"]
    volumes = {v["name"]: v for v in spec["volumes"]}
    assert volumes["data"]["persistentVolumeClaim"]["claimName"] == claim
    assert {m["name"] for c in spec["containers"] for m in c["volumeMounts"]} == set(volumes)
    assert spec["terminationGracePeriodSeconds"] > default["worker"]["drain_timeout_s"] if name == "worker.yaml" else True
print("kustomization, KEDA and run.toml agree with each other")

# Compose is not asked either (no engine here): what profile `observe` mounts is there, and asks the nodes where they answer.
compose = yaml.safe_load(pathlib.Path("docker-compose.yml").read_text())
observers = {n: s for n, s in compose["services"].items() if s.get("profiles") == ["observe"]}
assert set(observers) == {"prometheus", "grafana"}, set(observers)
mounts = [v for s in observers.values() for v in s["volumes"]]
files = [pathlib.Path(m["source"]) for m in mounts if isinstance(m, dict)]
assert len(files) == 4 and all(f.is_file() for f in files), files
assert {m.split(":")[0] for m in mounts if isinstance(m, str)} <= set(compose["volumes"])
scraped = yaml.safe_load(pathlib.Path("config/grafana/prometheus.yml").read_text())["scrape_configs"][0]["dns_sd_configs"][0]
listen = compose["services"]["worker"]["environment"]["NODE__METRICS__LISTEN"]
assert scraped["port"] == int(listen.rsplit(":", 1)[1]) == int(default["metrics"]["listen"].rsplit(":", 1)[1])
assert set(scraped["names"]) == {n for n, s in compose["services"].items() if "NODE__METRICS__LISTEN" in (s.get("environment") or {}) and n != "topics"}
pods = {f: read(f)["spec"]["template"]["spec"]["containers"][0] for f in ("worker.yaml", "monitor.yaml")}
ports = {p["containerPort"] for c in pods.values() for p in c["ports"]}
assert ports == {int(run["metrics"]["listen"].rsplit(":", 1)[1])}, ports
print("compose, Prometheus and pods agree on where metrics are")
PY

# The image is not built here; what its first stage copies must at least be a package that cargo understands, and
# be let in by .dockerignore.
mkdir "$ROOT/src"
while read -r path; do
    grep -qxF "!$path" .dockerignore || { echo "Dockerfile copies $path, which .dockerignore keeps out" && exit 1; }
    cp -r "$path" "$ROOT/src/"
done < <(sed -n '/ AS build/,/^FROM/s/^COPY \(.*\) [^ ]*$/\1/p' Dockerfile | tr ' ' '\n')
# Cargo looks for the files of all targets before it misses this one.
said=$(cargo build --locked --manifest-path "$ROOT/src/Cargo.toml" --bin none 2>&1 || true)
[[ $said == *'no bin target named'* ]] || { printf '%s\n' "$said" && exit 1; }
echo "the sources of the image are complete"

"${NODE:-target/debug/node}" config --config deploy/kubernetes/run.toml >/dev/null
echo "deploy/kubernetes/run.toml is a valid configuration"
