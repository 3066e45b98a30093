# shellcheck shell=sh
# Where the cache is: `cache`, for the Makefile and all of setup.

# As the program looks for it (src/environment.rs): relative XDG_CACHE_HOME and HOME decide nothing.
case ${XDG_CACHE_HOME-} in /*) ;; *) unset XDG_CACHE_HOME ;; esac
case ${HOME-} in /*) ;; *) HOME=$(awk -F: -v uid="$(id -u)" '$3 == uid { print $6; exit }' /etc/passwd) ;; esac
cache=${VMTEST_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set, and neither is VMTEST_CACHE}/.cache}/vmtest}
case $cache in /*) ;; *) cache=$PWD/$cache ;; esac
