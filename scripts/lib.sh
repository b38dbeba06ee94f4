# shellcheck shell=bash
# shellcheck disable=SC2034 # the variables are for the scripts that source this
# Shell functions the scripts share; sourced, never run. No logic of the pipeline.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
ME=$(basename "$0")

say() { printf '%s: %s\n' "$ME" "$*" >&2; }
die() { say "$*"; exit 1; }
# The head of the calling script, as its help.
usage() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else die "this needs root, and there is no sudo; run it as root: $*"; fi
}

# What a build of the crate needs.
BUILD_PACKAGES=(libgdal-dev gdal-bin libsqlite3-dev libssl-dev zlib1g-dev pkg-config cmake g++ make ca-certificates)
# What the tests need beyond that; scripts/kafka installs its own.
TEST_PACKAGES=(python3-venv openjdk-17-jre-headless maven shellcheck curl git openssl procps iproute2 mount systemd chromium
    chromium-driver fonts-dejavu-core)

# Installs Debian packages, but only what is missing.
install_packages() {
    local missing=() package
    command -v dpkg-query >/dev/null ||
        die "this is not a Debian or Ubuntu: install the equivalents of these packages, then go on by hand: $*"
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} = 0 ] && return
    say "installing ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
        die "apt-get could not install: ${missing[*]}"
}

need_cargo() {
    command -v cargo >/dev/null || die "cargo is missing: install a Rust toolchain (rust-version in Cargo.toml) first"
}

# Ends with a word about the remedy where a filesystem has less room than the work ahead takes.
need_room() {
    local dir=$1 gib=$2 free
    free=$(df --output=avail -k "$dir" | tail -1)
    [ $((free / 1048576)) -ge "$gib" ] ||
        die "$dir has $((free / 1048576)) GiB left, this takes up to $gib: free some, or move it (CARGO_TARGET_DIR, TMPDIR)"
}

# A Python virtual environment with pinned packages, made again when the pins change.
install_venv() {
    local dir=$1 requirements=$2 python=${PYTHON:-python3}
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        die "Python 3.11 or later is needed: set PYTHON to one"
    cmp -s "$requirements" "$dir/installed.txt" && return
    say "installing $(basename "$requirements") into ${dir#"$ROOT"/}"
    rm -rf "$dir"
    "$python" -m venv "$dir"
    "$dir/bin/pip" install --quiet --disable-pip-version-check --prefer-binary -r "$requirements" ||
        die "pip could not install $requirements"
    cp "$requirements" "$dir/installed.txt"
}

# A release binary; prints nothing but cargo's own words. The path is in NODE afterwards.
build_node() {
    need_cargo
    (cd "$ROOT" && cargo build --release --locked --bin node) || die "the build failed"
    NODE=$TARGET/release/node
}

# Processes that this script started; stopped when it ends, however it ends.
STARTED=()
start() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 </dev/null &
    STARTED+=($!)
}
stop_started() {
    local pid
    for pid in "${STARTED[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${STARTED[@]}"; do wait "$pid" 2>/dev/null || true; done
    STARTED=()
}

# Waits until a file holds a line that matches, then prints the first match.
wait_for_line() {
    local file=$1 pattern=$2 seconds=$3 end
    end=$((SECONDS + seconds))
    until grep -oE -m1 "$pattern" "$file" 2>/dev/null; do
        [ $SECONDS -lt $end ] || die "no line like '$pattern' in $file after $seconds s: $(tail -3 "$file" 2>/dev/null)"
        sleep 0.1
    done
}

# Serves a directory of scenes by the project's own server; its URL is in SERVED afterwards.
serve_scenes() {
    local dir=$1 log=$2
    start "$log" "$NODE" serve "$dir" --listen 127.0.0.1:0
    SERVED=$(wait_for_line "$log" 'http://[0-9.:]+' 30)
}
