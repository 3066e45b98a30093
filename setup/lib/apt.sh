# shellcheck shell=bash
# Packages by way of a private apt state: the machine's own lists, sources and installed packages
# are read, never changed, so root is not needed. Signatures are checked as always.

# The mirror that the machine itself uses. No host name stands in this repository.
# Prints URI and suite of each repository of the distribution (main component), one a line.
apt_sources() {
  # shellcheck disable=SC2016 # apt's variables
  apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(CODENAME) $(ORIGIN) $(COMPONENT)' 'Created-By: Packages' |
    awk -v id="$os_id" -v name="$os_codename" '
      { origin = tolower($4); suite = $2 }
      $1 ~ /^cdrom:/ || $5 != "main" { next }
      # the origin is known once the lists are there; before, the address has to do
      origin != id && !(origin ~ /^\$/ && $1 ~ "/" id "(-security|-ports)?/*$") && !($1 ~ /^mirror/) { next }
      # "stable" and the like stand for a codename
      suite !~ "^" name { if ($3 ~ "^" name) suite = $3; else next }
      !seen[$1, suite]++ { print $1, suite }'
}
# Debian's mirror: the machine's own on Debian. Elsewhere somebody has to name one.
apt_mirror() {
  local mirror
  if [ -n "${VMTEST_DEBIAN_MIRROR-}" ]; then
    mirror=$VMTEST_DEBIAN_MIRROR
  elif [ "$os_id" = debian ]; then
    mirror=$(apt_sources | awk -v name="$os_codename" '$2 == name { print $1; exit }')
  else
    fail 69 "$os_name has no kernels for other architectures" \
      "name a mirror of Debian: VMTEST_DEBIAN_MIRROR=http://…/debian; or use Nix"
  fi
  [ -n "$mirror" ] || fail 69 "apt's sources name no mirror of Debian ${os_codename:-(unknown release)}" \
    "add one to /etc/apt/sources.list, or set VMTEST_DEBIAN_MIRROR"
  [ -e "$debian_keys" ] || fail 69 "there are no keys of Debian's archive to check packages with" \
    "sudo apt-get install debian-archive-keyring"
  echo "$mirror"
}
debian_keys=/usr/share/keyrings/debian-archive-keyring.gpg

# apt_state NAME ARCH STATUS SOURCES: sets apt_opts; SOURCES are lines "URI SUITE". STATUS is the
# dpkg status to resolve against: the machine's, or /dev/null for "nothing is installed". Jobs of one
# run that give the same NAME share the lists, which the first of them fetches.
apt_state() {
  local state=$work/apt-$1 uri suite keyring='' components=main status=$3
  # Packages of Debian are signed by Debian's keys alone; those of another system by the keys that
  # its apt trusts.
  if [ "$os_id" = debian ] || [ "$status" = /dev/null ]; then keyring=" signed-by=$debian_keys"; else components='main universe'; fi
  mkdir -p "$state"/{lists/partial,archives/partial}
  if [ "$status" = /dev/null ]; then status=$state/status && : >>"$status"; fi
  apt_opts=(-q
    -o Dir::Etc::sourcelist="$state/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
    -o Dir::State="$state" -o Dir::State::lists="$state/lists" -o Dir::State::status="$status"
    -o Dir::Cache="$state" -o Dir::Cache::pkgcache=pkgcache.bin -o Dir::Cache::srcpkgcache=
    -o APT::Architecture="$2" -o APT::Architectures="$2" -o APT::Install-Recommends=false
    -o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=1 -o Acquire::GzipIndexes=false
    -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
    -o Acquire::Retries=3 -o APT::Update::Post-Invoke-Success= -o APT::Update::Post-Invoke=)
  {
    flock 8
    [ ! -e "$state/updated" ] || return 0
    while read -r uri suite; do
      echo "deb [arch=$2$keyring] $uri $suite $components"
    done <<<"$4" >"$state/sources.list"
    # A mirror that is being updated serves lists that do not match for a moment.
    local try
    for try in 1 2 3; do
      if apt-get "${apt_opts[@]}" -o APT::Update::Error-Mode=any update; then touch "$state/updated" && return 0; fi
      sleep $((try * 2))
    done
    # One list of several may be broken for longer; without any there is nothing to go on with.
    [ -n "$(find "$state/lists" -name '*_Packages' -size +0 -print -quit)" ] ||
      fail 69 "cannot fetch the package lists of $(paste -sd, <<<"$4")" "is the network up? the log says more: $cache/log"
    echo "apt's lists are incomplete; going on with what is there"
    touch "$state/updated"
  } 8>"$state/lock"
}
apt_release() { # SUITE ARCH: packages of a release as such, whatever the machine has
  local arch
  arch=$(debian_arch "$2")
  apt_state "$1-$arch" "$arch" /dev/null "$(apt_mirror) $1"
}
apt_install_list() { # PACKAGE...: NAME=VERSION of everything that an installation would bring
  apt-get "${apt_opts[@]}" -s install "$@" | awk '/^Inst / { for (i = 3; $i !~ /^\(/;) i++; print $2 "=" substr($i, 2) }'
}
apt_download() { # DIR PACKAGE...
  local dir=$1
  shift
  mkdir -p "$dir"
  (cd "$dir" && apt-get "${apt_opts[@]}" download "$@")
}
deb_version() { # NAME DIR: of the downloaded package, without epoch and revision
  local deb version
  for deb in "$2/$1"_*.deb; do break; done
  version=$(dpkg-deb -f "$deb" Version)
  version=${version#*:}
  echo "${version%%[-+]*}"
}
unpack() { # ROOT DEB...: without what no program reads; links among directories are kept
  local root=$1 deb
  shift
  mkdir -p "$root"
  for deb; do
    dpkg-deb --fsys-tarfile "$deb" |
      tar -x -C "$root" --no-same-owner --keep-directory-symlink \
        --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' --exclude='./usr/share/locale/*' --exclude='./usr/share/lintian/*'
  done
}
