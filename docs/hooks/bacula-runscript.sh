#!/bin/sh
# For Bacula and Bareos. In the job of the director:
#
#   RunScript {
#     RunsWhen = Before
#     FailJobOnError = Yes
#     Command = "/usr/local/lib/vmdkit/bacula-runscript.sh before %n"
#   }
#   RunScript {
#     RunsWhen = After
#     RunsOnFailure = Yes
#     Command = "/usr/local/lib/vmdkit/bacula-runscript.sh after %n %e"
#   }
#
# and a FileSet with File = /var/lib/vmdkit/stage. %n is the job's name, %e how it ended. A job
# that is called vmdkit-MACHINE takes that machine; any other takes all.
set -eu

stage=${VMDKIT_STAGE_SH:-/usr/local/lib/vmdkit/stage.sh}
when=${1:-}
job=${2:-}
ended=${3:-OK}
case $job in
vmdkit-*) set -- "${job#vmdkit-}" ;;
*) set -- ;;
esac
case $when in
before) exec "$stage" fill "$@" ;;
after)
    case $ended in
    OK* | Backup\ OK*) exec "$stage" empty "$@" ;;
    esac
    # What was not backed up stays for a look.
    ;;
*)
    echo "bacula-runscript.sh: before or after?" >&2
    exit 2
    ;;
esac
