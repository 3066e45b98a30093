# shellcheck shell=bash
# Which go to use, for tests alone: the one on PATH where it can count what programs execute, else
# Debian's, unpacked into the cache.

go_suite=trixie # bookworm's is older than programs with `-cover`
go_series=1.24
go_minimum=1.20
go_recipe=1

go_on_path() {
  local have
  have=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || return 1
  have=${have#go}
  [ "$(printf '%s\n' "$go_minimum" "${have%% *}" | sort -V | head -n 1)" = "$go_minimum" ]
}
go_is_there() { current go "$go_recipe"; }
go_ensure() {
  local new=$work/go debs=$work/debs-go start=$EPOCHREALTIME
  say "fetching Debian's Go, since there is none of version $go_minimum or newer here"
  apt_release "$go_suite" "$(dpkg --print-architecture)"
  apt_download "$debs" "golang-$go_series-go" "golang-$go_series-src"
  unpack "$new" "$debs"/*.deb
  "$new/usr/lib/go-$go_series/bin/go" version
  install_component "$new" go "$go_recipe"
  say "$("$cache/go/usr/lib/go-$go_series/bin/go" version): $(size_mb "$debs"/*.deb), $(seconds_since "$start")"
}
