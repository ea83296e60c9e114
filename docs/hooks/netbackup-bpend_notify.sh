#!/bin/sh
# NetBackup runs it on the client after a backup of the policy. Arguments: client, policy,
# schedule, schedule type, status.
set -eu

stage=${VMDKIT_STAGE_SH:-/usr/local/lib/vmdkit/stage.sh}
log=${VMDKIT_LOG:-/var/log/vmdkit-netbackup.log}
status=${5:-1}

{
    date '+%F %T bpend_notify'
    echo "client ${1:-?}, policy ${2:-?}, status $status"
} >>"$log"
# What was not backed up (0: all, 1: in part) stays for a look; the next run says so.
case $status in
0 | 1) exec "$stage" empty >>"$log" 2>&1 ;;
esac
