#!/bin/sh
# For the scheduler of TSM / Spectrum Protect. In dsm.sys, in the stanza of the server:
#
#   PRESCHEDULECMD   "/usr/local/lib/vmdkit/tsm-schedule.sh pre"
#   POSTSCHEDULECMD  "/usr/local/lib/vmdkit/tsm-schedule.sh post"
#
# A PRESCHEDULECMD that does not end with 0 keeps the schedule from running; it is then told
# with return code 12.
set -eu

stage=${VMDKIT_STAGE_SH:-/usr/local/lib/vmdkit/stage.sh}
case ${1:-} in
pre) exec "$stage" fill ;;
post) exec "$stage" empty ;;
*)
    echo "tsm-schedule.sh: pre or post?" >&2
    exit 2
    ;;
esac
