#!/usr/bin/env bash
# Mounts the share of setup_master_nfs.sh on a worker, now and at every start. Run it as root; asks nothing.
#
#   scripts/mount_worker_nfs.sh --master HOST --export DIR --mount DIR [--version V] [--dry-run] [--undo] [--root DIR]
#
# --master HOST  name or address of the file server
# --export DIR   the directory that it exports
# --mount DIR    where it appears here, for instance /mnt/satellite; made when it is missing
# --version V    NFS version: 4.2 (default), 4.1, 4.0 or 3
# --dry-run      says what would be done and changes nothing
# --undo         unmounts and takes the line of /etc/fstab back
# --root DIR     works on the files below DIR and mounts nothing (for tests and images)
#
# A second run with the same arguments changes nothing. Mount options, and why:
#   hard            a server that is away makes writes wait; `soft` would make them fail, or lose data silently
#   nofail          this machine starts without the share
#   _netdev         mounted after the network is up, unmounted before it goes down
#   x-systemd.automount  mounted at first use, also when the server came up later; until then the directory gives
#                   errors instead of taking chips onto the local disk
#   nodev,nosuid,noexec  the share holds data and nothing else
#   noatime         reading a chip writes nothing
set -euo pipefail

MASTER='' EXPORT='' MOUNT='' VERSION=4.2 DRY='' UNDO='' ROOT=''

say() { printf 'mount_worker_nfs: %s\n' "$*"; }
die() { printf 'mount_worker_nfs: %s\n' "$*" >&2; exit 1; }
usage() {
    [ $# = 0 ] || printf 'mount_worker_nfs: %s\n\n' "$*" >&2
    sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

safe_path() { [[ $1 =~ ^(/[A-Za-z0-9_][A-Za-z0-9._-]*)+$ ]]; }
is_host() {
    [[ $1 =~ ^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$ ]] ||
        [[ $1 =~ ^\[[0-9a-fA-F:]+\]$ ]]
}

while [ $# -gt 0 ]; do
    case $1 in
        --dry-run) DRY=1 && shift && continue ;;
        --undo) UNDO=1 && shift && continue ;;
        --help | -h) usage ;;
        --master | --export | --mount | --version | --root) [ $# -ge 2 ] || usage "$1 wants a value" ;;
        *) usage "unknown option $1" ;;
    esac
    case $1 in
        --master) MASTER=$2 ;;
        --export) EXPORT=${2%/} ;;
        --mount) MOUNT=${2%/} ;;
        --version) VERSION=$2 ;;
        --root) ROOT=${2%/} ;;
    esac
    shift 2
done

safe_path "$MOUNT" || usage "--mount '$MOUNT': an absolute path of letters, digits, '.', '_', '-' is wanted"
if [ -z "$UNDO" ]; then
    is_host "$MASTER" || usage "--master '$MASTER': a host name or an address is wanted (IPv6 in brackets)"
    safe_path "$EXPORT" || usage "--export '$EXPORT': an absolute path of letters, digits, '.', '_', '-' is wanted"
    [[ $VERSION =~ ^(4\.2|4\.1|4\.0|3)$ ]] || usage "--version '$VERSION': 4.2, 4.1, 4.0 or 3 is wanted"
fi
[ -z "$ROOT" ] || [ -d "$ROOT" ] || usage "--root '$ROOT' is not a directory"
[ -n "$DRY" ] || [ "$(id -u)" = 0 ] || die "run it as root, or with --dry-run"

FSTAB=$ROOT/etc/fstab
DIR=$ROOT$MOUNT
TAG="# satellite-pipeline $MOUNT"
LINE="$MASTER:$EXPORT $MOUNT nfs vers=$VERSION,proto=tcp,hard,nofail,_netdev,x-systemd.automount,nodev,nosuid,noexec,noatime 0 0"

# Runs a command that changes something; only says so with --dry-run.
act() {
    say "$*"
    [ -n "$DRY" ] || "$@"
}

# The same for what concerns the running system, which --root leaves alone.
act_on_system() {
    if [ -n "$ROOT" ]; then say "not with --root: $*"; else act "$@"; fi
}

mounted() { [ -z "$ROOT" ] && mountpoint -q "$DIR"; }

# /etc/fstab with our two lines replaced by TAG and $1, or taken out when $1 is empty.
fstab_with() {
    if [ -e "$FSTAB" ]; then cat "$FSTAB"; fi | awk -v tag="$TAG" -v line="$1" '
        $0 == tag { getline; if (line != "") { print tag; print line }; done = 1; next }
        { print }
        END { if (!done && line != "") { print tag; print line } }'
}

# Writes /etc/fstab in one step; false when it is as it should be.
write_fstab() {
    local new
    new=$(mktemp)
    fstab_with "$1" >"$new"
    if cmp -s "$new" "$FSTAB"; then
        say "$FSTAB is as it should be"
        rm -f "$new"
        return 1
    fi
    say "writing $FSTAB"
    if [ -z "$DRY" ]; then
        mkdir -p "$(dirname "$FSTAB")"
        install -m 0644 "$new" "$FSTAB.satellite-new"
        mv "$FSTAB.satellite-new" "$FSTAB"
    fi
    rm -f "$new"
}

if fstab_with '' | awk -v mount="$MOUNT" '!/^[ \t]*#/ && $2 == mount { found = 1 } END { exit !found }'; then
    die "/etc/fstab mounts something at $MOUNT already: remove that line first, or choose another --mount"
fi

if [ -n "$UNDO" ]; then
    if mounted; then act umount "$DIR"; fi
    if write_fstab ''; then
        act_on_system systemctl daemon-reload
    fi
    if [ -d "$DIR" ] && [ -z "$(ls -A "$DIR")" ]; then act rmdir "$DIR"; fi
    say "done"
    exit 0
fi

if [ -z "$ROOT" ] && ! command -v mount.nfs >/dev/null; then
    act apt-get update -qq
    act env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nfs-common
fi
if ! mounted; then
    # Nobody but root can write into the bare mount point.
    [ -d "$DIR" ] || act install -d -m 0555 "$DIR"
    if [ -d "$DIR" ] && [ -z "$ROOT" ] && [ -n "$(ls -A "$DIR")" ]; then
        die "$MOUNT is not empty and nothing is mounted there: move its files away first"
    fi
fi
if write_fstab "$LINE"; then
    act_on_system systemctl daemon-reload
    if mounted; then act umount "$DIR"; fi
fi
mounted || act_on_system mount "$DIR"
if [ -z "$ROOT$DRY" ] && [ ! -e "$DIR/output/.satellite-output" ]; then
    die "$MOUNT is mounted and has no output/.satellite-output: run setup_master_nfs.sh on $MASTER"
fi
say "done; set output.dir = \"$MOUNT/output\" and output.require_marker = true"
