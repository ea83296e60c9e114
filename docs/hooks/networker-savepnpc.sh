#!/bin/sh
# For NetWorker's savepnpc, which runs precmd before the first save set of a group and pstcmd
# after the last. In /nsr/res/GROUP.res:
#
#   type: savepnpc;
#   precmd: "/usr/local/lib/vmdkit/networker-savepnpc.sh pre";
#   pstcmd: "/usr/local/lib/vmdkit/networker-savepnpc.sh post";
#   abort precmd with group: Yes;
#
# If precmd fails savepnpc saves nothing and says so in /nsr/logs/savepnpc.log.
set -eu

stage=${VMDKIT_STAGE_SH:-/usr/local/lib/vmdkit/stage.sh}
case ${1:-} in
pre) exec "$stage" fill ;;
post) exec "$stage" empty ;;
*)
    echo "networker-savepnpc.sh: pre or post?" >&2
    exit 2
    ;;
esac
