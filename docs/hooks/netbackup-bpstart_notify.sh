#!/bin/sh
# NetBackup runs it on the client before a backup of the policy: an exit code other than 0 ends
# the job with status 73. Arguments: client, policy, schedule, schedule type.
set -eu

stage=${VMDKIT_STAGE_SH:-/usr/local/lib/vmdkit/stage.sh}
log=${VMDKIT_LOG:-/var/log/vmdkit-netbackup.log}

{
    date '+%F %T bpstart_notify'
    echo "client ${1:-?}, policy ${2:-?}, schedule ${3:-?} (${4:-?})"
} >>"$log"
exec "$stage" fill >>"$log" 2>&1
