#!/usr/bin/env bash
# Runs the NFS scripts against a scratch root: what they write, that a second run changes nothing, that --undo takes
# everything back, and that wrong arguments are refused before anything is touched. Needs root (it sets owners), no NFS.
#
#   tests/nfs_scripts.sh
set -euo pipefail

SCRIPTS=$(cd "$(dirname "${BASH_SOURCE[0]}")/../scripts" && pwd)
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
PASSED=0

fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
ok() { PASSED=$((PASSED + 1)) && printf 'ok: %s\n' "$*"; }

# A fresh scratch root with files that are not ours.
fresh() {
    rm -rf "$WORK/root"
    mkdir -p "$WORK/root/etc"
    printf '/home 10.1.1.0/24(ro)\n' >"$WORK/root/etc/exports"
    printf '# static\nUUID=12-34 / ext4 defaults 0 1\n' >"$WORK/root/etc/fstab"
}

master() { "$SCRIPTS/setup_master_nfs.sh" --root "$WORK/root" "$@" >"$WORK/out" 2>&1; }
worker() { "$SCRIPTS/mount_worker_nfs.sh" --root "$WORK/root" "$@" >"$WORK/out" 2>&1; }

# Everything below the scratch root: names, kinds, owners, modes, contents.
state() {
    (cd "$WORK/root" && find . -printf '%p %y %u %g %m\n' | sort && find . -type f -print0 | sort -z | xargs -0 sha256sum)
}

# same WHAT COMMAND...: the command succeeds and changes nothing.
same() {
    local what=$1 before
    shift
    before=$(state)
    "$@" || fail "$what: $(cat "$WORK/out")"
    [ "$before" = "$(state)" ] || fail "$what changed something: $(diff <(printf '%s\n' "$before") <(state))"
    ok "$what"
}

# refused WHAT COMMAND...: exit code 2, a message, nothing changed.
refused() {
    local what=$1 before code=0
    shift
    before=$(state)
    "$@" || code=$?
    [ "$code" = 2 ] || fail "$what ended with $code, not 2"
    [ -s "$WORK/out" ] || fail "$what said nothing"
    [ "$before" = "$(state)" ] || fail "$what changed something"
    ok "$what"
}

EXPORTS=$WORK/root/etc/exports.d/satellite-pipeline.exports
FSTAB=$WORK/root/etc/fstab
M=(--export /srv/satellite --subnet 192.168.1.0/24)
W=(--master nas.local --export /srv/satellite --mount /mnt/satellite)

# ---- master ----
fresh
same "master: --dry-run" master "${M[@]}" --dry-run
grep -q 'writing .*exports' "$WORK/out" || fail "--dry-run does not say what it would do"
before=$(state)
master "${M[@]}" || fail "master: $(cat "$WORK/out")"
[ "$(grep -c '^/srv/satellite 192.168.1.0/24(rw,sync,root_squash,' "$EXPORTS")" = 1 ] || fail "the export is not there"
[ "$(stat -c %u:%g:%a "$WORK/root/srv/satellite/output")" = 10001:10001:755 ] || fail "owner of the directory"
[ -f "$WORK/root/srv/satellite/output/.satellite-output" ] || fail "no marker"
[ "$(cat "$WORK/root/etc/exports")" = '/home 10.1.1.0/24(ro)' ] || fail "/etc/exports was touched"
ok "master: exports, owner, marker"
same "master: second run" master "${M[@]}"
master --export /srv/satellite --subnet 10.0.0.0/8 || fail "master: other subnet"
[ "$(grep -o '^/srv/satellite [^(]*' "$EXPORTS")" = '/srv/satellite 10.0.0.0/8' ] || fail "the line was not replaced"
ok "master: another subnet replaces the line"
master --export /srv/second --subnet 10.0.0.0/8 --uid 1000 --gid 1000 || fail "master: second export"
[ "$(grep -c '^/srv/' "$EXPORTS")" = 2 ] || fail "two exports are not two lines"
[ "$(stat -c %u:%g "$WORK/root/srv/second")" = 1000:1000 ] || fail "--uid and --gid"
ok "master: a second export stands beside the first"
master --export /srv/second --undo || fail "master: undo"
[ "$(grep -c '^/srv/' "$EXPORTS")" = 1 ] || fail "undo took the wrong line"
touch "$WORK/root/srv/satellite/output/chip.tif"
master --export /srv/satellite --undo || fail "master: undo"
[ ! -e "$EXPORTS" ] || fail "undo left the line"
[ -e "$WORK/root/srv/satellite/output/chip.tif" ] || fail "undo took the data"
ok "master: --undo takes the export and leaves the data"
same "master: --undo again" master --export /srv/satellite --undo
rm -rf "$WORK/root/srv" "$WORK/root/etc/exports.d"
[ "$before" = "$(state)" ] || fail "traces are left"
ok "master: no other traces"
# shellcheck disable=SC2016
for bad in '' srv /srv/../etc '/srv/a b' / "/srv/x'y" '/srv/$(id)'; do
    refused "master: --export '$bad'" master --export "$bad" --subnet 10.0.0.0/24
done
for bad in '' 10.0.0.0 10.0.0.0/0 10.0.0.0/33 10.0.0.300/24 '*' '10.0.0.0/24(rw)' 'a b/24'; do
    refused "master: --subnet '$bad'" master --export /srv/satellite --subnet "$bad"
done
refused "master: --uid 0" master "${M[@]}" --uid 0
refused "master: --uid root" master "${M[@]}" --uid root
refused "master: unknown option" master "${M[@]}" --force
refused "master: option without value" master --export
refused "master: no arguments" master
printf '/srv/satellite *(ro)\n' >>"$WORK/root/etc/exports"
before=$(state)
if master "${M[@]}"; then fail "a foreign export of the same directory was accepted"; fi
[ "$before" = "$(state)" ] || fail "a refusal changed something"
ok "master: a foreign export of the same directory is refused"

# ---- worker ----
fresh
same "worker: --dry-run" worker "${W[@]}" --dry-run
before=$(state)
worker "${W[@]}" || fail "worker: $(cat "$WORK/out")"
line=$(grep '^nas.local:/srv/satellite /mnt/satellite nfs ' "$FSTAB") || fail "no line in fstab"
for option in vers=4.2 hard nofail _netdev nodev nosuid noexec; do
    [[ ,$(cut -d' ' -f4 <<<"$line"), == *",$option,"* ]] || fail "option $option is missing"
done
[ "$(head -2 "$FSTAB")" = $'# static\nUUID=12-34 / ext4 defaults 0 1' ] || fail "foreign lines of fstab were touched"
[ "$(stat -c %a "$WORK/root/mnt/satellite")" = 555 ] || fail "the bare mount point is writable"
ok "worker: fstab and mount point"
same "worker: second run" worker "${W[@]}"
printf 'tmpfs /tmp tmpfs defaults 0 0\n' >>"$FSTAB"
same "worker: a run after others edited fstab" worker "${W[@]}"
worker --master 10.0.0.5 --export /srv/satellite --mount /mnt/satellite --version 3 || fail "worker: other master"
[ "$(grep -c ' /mnt/satellite nfs ' "$FSTAB")" = 1 ] || fail "the line is there twice"
grep -q '^10.0.0.5:/srv/satellite /mnt/satellite nfs vers=3,' "$FSTAB" || fail "the line was not replaced"
[ "$(tail -1 "$FSTAB")" = 'tmpfs /tmp tmpfs defaults 0 0' ] || fail "the line was moved"
ok "worker: another master replaces the line in its place"
worker --mount /mnt/satellite --undo || fail "worker: undo"
sed -i '$d' "$FSTAB"
rmdir "$WORK/root/mnt"
[ "$before" = "$(state)" ] || fail "undo left something: $(state)"
ok "worker: --undo leaves no trace"
same "worker: --undo again" worker --mount /mnt/satellite --undo
for bad in '' 'nas local' '-x' 'nas;id' 'nas:/x'; do
    refused "worker: --master '$bad'" worker --master "$bad" --export /srv/satellite --mount /mnt/satellite
done
for bad in '' mnt / '/mnt/a b' /mnt/../etc; do
    refused "worker: --mount '$bad'" worker --master nas --export /srv/satellite --mount "$bad"
done
refused "worker: --version 2" worker "${W[@]}" --version 2
refused "worker: unknown option" worker "${W[@]}" --soft
printf 'other:/x /mnt/satellite nfs defaults 0 0\n' >>"$FSTAB"
before=$(state)
if worker "${W[@]}"; then fail "a foreign mount at the same place was accepted"; fi
[ "$before" = "$(state)" ] || fail "a refusal changed something"
ok "worker: a foreign mount at the same place is refused"

printf '%s checks passed\n' "$PASSED"
