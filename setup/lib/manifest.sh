# shellcheck shell=bash
# assets.json, put together from the entry that each component carries: what earlier runs fetched
# for other arches stays in it without any JSON being read.

json_string() { # escaped, with quotes; control characters have no place in our paths
  local s=${1//\\/\\\\}
  printf '"%s"' "${s//\"/\\\"}"
}
json_entry() { # KEY VALUE...: one object
  local sep='{'
  while [ $# -gt 0 ]; do
    printf '%s%s: %s' "$sep" "$(json_string "$1")" "$(json_string "$2")"
    sep=', '
    shift 2
  done
  echo '}'
}
relative() { # PATH: relative to the manifest where it is under the cache
  echo "${1#"$cache/"}"
}

manifest_file() { # KEY ARCH: which file is the entry; one that does not exist stands for no entry
  local distribution=$cache/kernel/$2/entry.json built=$cache/kernel/$2-built
  case $1 in
  qemu) echo "$cache/qemu/$(qemu_family "$2")/$2.json" ;;
  # Our own kernel is the default where there is one, unless it is a spare one (setup/kernels).
  kernel) if [ -e "$built/entry.json" ] && [ ! -e "$built/spare" ]; then echo "$built/entry.json"; else echo "$distribution"; fi ;;
  distribution_kernel) if [ -e "$built/entry.json" ] && [ ! -e "$built/spare" ]; then echo "$distribution"; else echo /dev/null/none; fi ;;
  gcov_kernel) echo "$cache/kernel/$2-gcov/entry.json" ;;
  *) echo "$cache/$1/$2/entry.json" ;;
  esac
}

write_manifest() {
  local arch key file sep_arch='' sep new
  new=$(mktemp "$cache/.assets.XXXXXX")
  {
    printf '{ "schema": 1, "generator": %s,\n  "guests": {' "$(json_string "setup/assets ($os_name)")"
    for arch in "${all_arches[@]}"; do
      sep=''
      for key in qemu kernel distribution_kernel gcov_kernel guest shell firmware; do
        file=$(manifest_file "$key" "$arch")
        [ -e "$file" ] || continue
        [ -n "$sep" ] || printf '%s\n    %s: {\n' "$sep_arch" "$(json_string "$arch")"
        printf '%s      "%s": %s' "$sep" "$key" "$(cat "$file")"
        sep=$',\n'
      done
      [ -z "$sep" ] || { printf '\n    }' && sep_arch=,; }
    done
    printf '\n  } }\n'
  } >"$new"
  chmod 644 "$new"
  mv "$new" "$cache/assets.json"
}
