#!/usr/bin/env bash
# Exports a directory to the workers' subnet over NFS. Run it as root on the machine that keeps the data; asks nothing.
#
#   scripts/setup_master_nfs.sh --export DIR --subnet CIDR [--uid N] [--gid N] [--dry-run] [--undo] [--root DIR]
#
# --export DIR   directory to export, for instance /srv/satellite; made when it is missing, with output/ in it
# --subnet CIDR  who may mount it, for instance 192.168.1.0/24
# --uid, --gid   owner of the directory, the user that runs the nodes on every machine (default 10001, as in the image)
# --dry-run      says what would be done and changes nothing
# --undo         takes the export back; the data stay where they are
# --root DIR     works on the files below DIR and leaves services alone (for tests and images)
#
# A second run with the same arguments changes nothing. The line goes to /etc/exports.d/satellite-pipeline.exports, a
# file of our own, so /etc/exports is never edited. Options of the export, and why:
#   rw              workers write chips
#   sync            a chip the worker was told is on disk is on disk, also after the server loses power
#   root_squash     root of a worker is nobody here: only the user --uid writes
#   no_subtree_check  renames and hard links inside the export must not make file handles stale
#   sec=sys         the subnet is trusted to tell its user ids honestly; where it is not, use Kerberos instead
set -euo pipefail

EXPORT='' SUBNET='' OWNER=10001 GROUP=10001 DRY='' UNDO='' ROOT=''
OPTIONS=rw,sync,root_squash,no_subtree_check,sec=sys

say() { printf 'setup_master_nfs: %s\n' "$*"; }
die() { printf 'setup_master_nfs: %s\n' "$*" >&2; exit 1; }
usage() {
    [ $# = 0 ] || printf 'setup_master_nfs: %s\n\n' "$*" >&2
    sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

safe_path() { [[ $1 =~ ^(/[A-Za-z0-9_][A-Za-z0-9._-]*)+$ ]]; }

is_subnet() {
    local octet
    if [[ $1 =~ ^([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})/([0-9]{1,2})$ ]]; then
        for octet in "${BASH_REMATCH[@]:1:4}"; do [ "$((10#$octet))" -le 255 ] || return 1; done
        [ "$((10#${BASH_REMATCH[5]}))" -ge 8 ] && [ "$((10#${BASH_REMATCH[5]}))" -le 32 ]
    elif [[ $1 =~ ^[0-9a-fA-F:]*:[0-9a-fA-F:]*/([0-9]{1,3})$ ]]; then
        [ "$((10#${BASH_REMATCH[1]}))" -ge 16 ] && [ "$((10#${BASH_REMATCH[1]}))" -le 128 ]
    else
        return 1
    fi
}

is_id() { [[ $1 =~ ^[1-9][0-9]{0,8}$ ]]; }

while [ $# -gt 0 ]; do
    case $1 in
        --dry-run) DRY=1 && shift && continue ;;
        --undo) UNDO=1 && shift && continue ;;
        --help | -h) usage ;;
        --export | --subnet | --uid | --gid | --root) [ $# -ge 2 ] || usage "$1 wants a value" ;;
        *) usage "unknown option $1" ;;
    esac
    case $1 in
        --export) EXPORT=${2%/} ;;
        --subnet) SUBNET=$2 ;;
        --uid) OWNER=$2 ;;
        --gid) GROUP=$2 ;;
        --root) ROOT=${2%/} ;;
    esac
    shift 2
done

safe_path "$EXPORT" || usage "--export '$EXPORT': an absolute path of letters, digits, '.', '_', '-' is wanted"
if [ -z "$UNDO" ]; then
    is_subnet "$SUBNET" || usage "--subnet '$SUBNET': a network such as 192.168.1.0/24 is wanted, /8 or narrower"
fi
is_id "$OWNER" || usage "--uid '$OWNER': a number above 0 is wanted (root must not own it)"
is_id "$GROUP" || usage "--gid '$GROUP': a number above 0 is wanted"
[ -z "$ROOT" ] || [ -d "$ROOT" ] || usage "--root '$ROOT' is not a directory"
[ -n "$DRY" ] || [ "$(id -u)" = 0 ] || die "run it as root, or with --dry-run"

FILE=$ROOT/etc/exports.d/satellite-pipeline.exports
DIR=$ROOT$EXPORT

# Runs a command that changes something; only says so with --dry-run.
act() {
    say "$*"
    [ -n "$DRY" ] || "$@"
}

# The same for what concerns the running system, which --root leaves alone.
act_on_system() {
    if [ -n "$ROOT" ]; then say "not with --root: $*"; else act "$@"; fi
}

# Our file with the lines of standard input, in one step; without lines it goes. False when it is so already.
write_exports() {
    local new
    new=$(mktemp)
    cat >"$new"
    if cmp -s "$new" "$FILE" || { [ ! -s "$new" ] && [ ! -e "$FILE" ]; }; then
        say "$FILE is as it should be"
        rm -f "$new"
        return 1
    fi
    if [ -s "$new" ]; then say "writing $FILE"; else say "removing $FILE"; fi
    if [ -z "$DRY" ] && [ -s "$new" ]; then
        mkdir -p "$(dirname "$FILE")"
        # Not `.exports` until it is whole: exportfs reads whatever ends in that.
        install -m 0644 "$new" "$FILE.new"
        mv "$FILE.new" "$FILE"
    elif [ -z "$DRY" ]; then
        rm -f "$FILE"
    fi
    rm -f "$new"
}

# Our file without the line of this export.
others() { if [ -e "$FILE" ]; then awk -v path="$EXPORT" '$1 != path && !/^#/ && NF' "$FILE"; fi; }

# All lines that our file shall have; $1: the line of this export or nothing.
content() {
    local lines
    lines=$({ others; [ -z "$1" ] || printf '%s\n' "$1"; } | sort)
    [ -z "$lines" ] || printf '# Written by setup_master_nfs.sh of satellite-pipeline; --undo takes a line back.\n%s\n' "$lines"
}

# Number of lines in the files given that export our directory; files that are not there have none.
lines_of() { { cat "$@" 2>/dev/null || true; } | awk -v path="$EXPORT" '$1 == path { n++ } END { print n + 0 }'; }

foreign=$(lines_of "$ROOT/etc/exports" "$ROOT"/etc/exports.d/*.exports)
own=$(lines_of "$FILE")
if [ "$foreign" -gt "$own" ]; then
    die "$EXPORT is exported by another line of /etc/exports or /etc/exports.d already: remove that line first"
fi

if [ -n "$UNDO" ]; then
    if [ "$own" -gt 0 ]; then
        if content '' | write_exports; then act_on_system exportfs -ra; fi
    else
        say "$EXPORT is not exported by us"
    fi
    say "done; $DIR and what is in it was left as it is"
    exit 0
fi

if [ -z "$ROOT" ] && ! command -v exportfs >/dev/null; then
    act apt-get update -qq
    act env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nfs-kernel-server
fi
for place in "$DIR" "$DIR/output"; do
    [ -d "$place" ] || act install -d -m 0755 -o "$OWNER" -g "$GROUP" "$place"
    if [ -d "$place" ] && [ "$(stat -c %u:%g "$place")" != "$OWNER:$GROUP" ]; then act chown "$OWNER:$GROUP" "$place"; fi
done
# What output.require_marker looks for: seen on a worker, it proves that the share is mounted.
MARKER=$DIR/output/.satellite-output
[ -e "$MARKER" ] || act install -m 0444 -o "$OWNER" -g "$GROUP" /dev/null "$MARKER"
if content "$EXPORT $SUBNET($OPTIONS)" | write_exports; then
    act_on_system exportfs -ra
    act_on_system systemctl enable --now nfs-server
fi
say "done; on each worker: scripts/mount_worker_nfs.sh --master $(hostname) --export $EXPORT --mount /mnt/satellite"
