# shellcheck shell=bash
# Names, messages, stamps and jobs.

# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/cache.sh" # cache
# shellcheck source=/dev/null
. "$(dirname "${BASH_SOURCE[0]}")/arches.sh" # all_arches, and what is known of each
exec 3>&2 # jobs log to a file; what the user should read goes to 3

say() { printf 'assets: %s\n' "$*" >&3; }

# fail STATUS WHAT [HINT]: what failed on what, and the way out
fail() {
  # Several jobs may fail for the same reason; once is enough.
  if [ -n "${work-}" ]; then
    ! grep -qxF -- "$2" "$work/said" 2>/dev/null || exit "$1"
    printf '%s\n' "$2" >>"$work/said"
  fi
  printf 'error: %s\n' "$2" >&3
  [ -z "${3-}" ] || printf 'hint: %s\n' "$3" >&3
  exit "$1"
}

canonical_arch() { # the names that --arch takes, to ours
  local arch name
  for arch in "${all_arches[@]}"; do
    for name in "$arch" ${arch_aliases[$arch]}; do
      if [ "${1,,}" = "$name" ]; then echo "$arch" && return; fi
    done
  done
  fail 2 "unknown architecture \`$1\`" "accepted are ${all_arches[*]}"
}

debian_arch() { echo "${arch_debian[$1]}"; }

# The distribution: its name, the codename of its release, Debian's name for this machine.
if [ -r /etc/os-release ]; then
  os_id=$(. /etc/os-release && echo "${ID-}")
  os_codename=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
  os_name=$(. /etc/os-release && echo "${NAME%% *} ${VERSION_ID-}")
else
  os_id='' os_codename='' os_name=unknown
fi

# A component is a directory under the cache that appears whole or not at all: it is built under
# $work and renamed. `stamp` in it says which recipe made it.
current() { # DIR RECIPE
  local have=''
  [ ! -e "$cache/$1/stamp" ] || read -r have <"$cache/$1/stamp" || :
  [ "$have" = "$2" ]
}
install_component() { # NEW DIR RECIPE
  echo "$3" >"$1/stamp"
  mkdir -p "$(dirname "$cache/$2")"
  if [ -e "$cache/$2" ]; then mv -T "$cache/$2" "$(mktemp -d "$work/old.XXXXXX")/old"; fi
  mv -T "$1" "$cache/$2"
}

sha256() { sha256sum -- "$1" | { read -r sum _ && echo "$sum"; }; }
size_mb() { # FILE...: decimal megabytes, as download sizes are usually given
  stat -c %s -- "$@" | awk '{ s += $1 } END { printf "%.1f MB", s / 1e6 }'
}
seconds_since() { # EPOCHREALTIME: 3.2 s
  local us=$(((${EPOCHREALTIME/[.,]/} - ${1/[.,]/}) / 100000))
  printf '%d.%d s' $((us / 10)) $((us % 10))
}

describe() { # "qemu x86" "kernel amd64" …: kernel (amd64 arm64), …
  printf '%s\n' "$@" | awk '
    !($1 in of) { order[++n] = $1 }
    { of[$1] = of[$1] (of[$1] == "" ? "" : " ") $2 }
    END { for (i = 1; i <= n; i++) printf "%s%s (%s)", (i > 1 ? ", " : ""), order[i], of[order[i]] }'
}

# One run at a time changes the cache. $work is on the same file system as the cache, so that renames
# are atomic, and goes away whatever happens.
work=''
take_cache() {
  mkdir -p "$cache/log" 2>/dev/null || fail 69 "cannot create \`$cache\`" "set VMTEST_CACHE to a directory that can be written"
  exec 9>"$cache/lock" || fail 69 "cannot write to \`$cache\`" "set VMTEST_CACHE to a directory that can be written"
  flock -n 9 || { say "another run is at work in $cache; waiting for it" && flock 9; }
  rm -rf "$cache"/tmp.* # left by a run that was killed; nobody else is here
  work=$(mktemp -d "$cache/tmp.XXXXXX")
  trap 'stop_jobs; rm -rf "$work"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
}
# Gives it back before the end, so that a long build does not keep others from it.
leave_cache() {
  rm -rf "$work"
  work=''
  exec 9>&-
}

# install_packages FOR PACKAGE...: as root; else says the command that does it.
install_packages() {
  local what=$1
  shift
  [ "$(id -u)" = 0 ] || fail 69 "$what needs packages that are not installed: $*" "sudo apt-get install $*"
  say "installing what $what needs: $*"
  local install=(apt-get -qy --no-install-recommends -o DPkg::Lock::Timeout=300 install "$@")
  # Package lists may be missing or old: fetch them only when the first try fails.
  { DEBIAN_FRONTEND=noninteractive "${install[@]}" || { apt-get -q update && DEBIAN_FRONTEND=noninteractive "${install[@]}"; }; } >&2 ||
    fail 69 "apt-get could not install $*" "install them yourself and run this again"
}

# Jobs run in parallel, each in a process group of its own so that an interrupted run can end apt
# and cargo too. A failed job shows its log; the others go on, so that nothing is fetched twice.
declare -A job_pid=()
failed=0
run_jobs() { # "COMPONENT ARG"...
  local job log status
  set -m
  for job; do
    log=$(job_log "$job")
    # shellcheck disable=SC2086 # two words
    (set +m -e && trap - EXIT INT TERM HUP && ${job% *}_fetch ${job#* }) >"$log" 2>&1 </dev/null &
    job_pid[$job]=$!
  done
  set +m
  for job; do
    status=0
    wait "${job_pid[$job]}" || status=$?
    if [ "$status" != 0 ]; then failed=1; fi
    # 69: it has said what is wrong
    if [ "$status" != 0 ] && [ "$status" != 69 ]; then
      say "$job failed; the end of $(job_log "$job"):"
      tail -n 15 "$(job_log "$job")" | sed 's/^/  | /' >&3
    fi
    unset "job_pid[$job]"
    write_manifest
  done
}
job_log() {
  local name=${1%%,*}
  echo "$cache/log/${name/ /-}.log"
}
stop_jobs() {
  local job
  for job in "${!job_pid[@]}"; do
    if kill -TERM -- "-${job_pid[$job]}" 2>/dev/null; then wait "${job_pid[$job]}" 2>/dev/null || :; fi
  done
}
