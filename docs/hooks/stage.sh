#!/bin/sh
# Fills a staging directory with backups of machines, proves them, and empties it again.
#
#   stage.sh fill [MACHINE…]    exit 0: all are there and proven; 1: none was begun, or some
#                               failed: each is named on standard error
#   stage.sh empty [MACHINE…]   removes what fill made
#
# VMDKIT_MACHINES  the list of machines, /etc/vmdkit/machines if not set
# VMDKIT_STAGE     the directory, /var/lib/vmdkit/stage if not set
# VMDKIT           the program
set -eu

machines=${VMDKIT_MACHINES:-/etc/vmdkit/machines}
stage=${VMDKIT_STAGE:-/var/lib/vmdkit/stage}
vmdkit=${VMDKIT:-vmdkit}

say() {
    printf 'stage.sh: %s\n' "$*" >&2
}

# Whether a machine is among those that were asked for.
wanted() {
    name=$1
    shift
    [ "$#" -eq 0 ] && return 0
    for one; do
        [ "$one" = "$name" ] && return 0
    done
    return 1
}

fill() {
    mkdir -p "$stage"
    failed=0
    found=0
    while read -r name source; do
        case $name in '' | '#'*) continue ;; esac
        case $name in */* | .*)
            say "$name: not a name"
            failed=1
            continue
            ;;
        esac
        wanted "$name" "$@" || continue
        found=1
        if [ -e "$stage/$name" ]; then
            say "$name: $stage/$name is there already; run: stage.sh empty $name"
            failed=1
            continue
        fi
        # Options and SOURCE are words, as on the command line.
        # shellcheck disable=SC2086
        if "$vmdkit" export --quiet $source "$stage/$name" </dev/null &&
            "$vmdkit" verify --quiet --no-guest-files "$stage/$name" </dev/null; then
            continue
        fi
        say "$name: failed"
        failed=1
    done <"$machines"
    if [ "$found" -eq 0 ]; then
        say "$machines names none of: ${*:-any machine}"
        return 1
    fi
    return "$failed"
}

empty() {
    while read -r name _; do
        case $name in '' | '#'* | */* | .*) continue ;; esac
        wanted "$name" "$@" || continue
        # Only what fill made has a manifest.
        if [ -f "$stage/$name/vmdkit-manifest.json" ]; then
            rm -rf "${stage:?}/$name"
        fi
    done <"$machines"
}

verb=${1:-}
[ "$#" -gt 0 ] && shift
case $verb in
fill) fill "$@" ;;
empty) empty "$@" ;;
*)
    say "fill or empty?"
    exit 2
    ;;
esac
