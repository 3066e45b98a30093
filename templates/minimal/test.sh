# Runs in the guest, as root of a machine of its own.
set -e
mkdir /small
mount -t tmpfs -o size=64k none /small
if dd if=/dev/zero of=/small/file bs=1k count=100 2>/small.log; then
  echo "a file of 100 KiB fits into 64" >&2
  exit 1
fi
grep -q 'No space left' /small.log
echo full as expected
# Files put there are in the test's result.
cp /small.log /mount/9p/artifacts/
