# The kernel's source as files, for the pages of coverage: without what no virtual machine has.
{ runCommand, linuxSource }:
runCommand "linux-tree-${linuxSource.version}" { } ''
  mkdir $out
  tar -xf ${linuxSource.src} -C $out --strip-components=1 --wildcards \
    --exclude='*/drivers/gpu/*' --exclude='*/drivers/media/*' --exclude='*/drivers/net/wireless/*' \
    --exclude='*/drivers/infiniband/*' --exclude='*/sound/*' --exclude='*/tools/testing/*' --exclude='*/tools/perf/*' --exclude='*/Documentation/*' \
    '*.c' '*.h' '*.S'
''
