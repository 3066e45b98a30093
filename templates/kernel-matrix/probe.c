/* probe present|absent: fails unless the kernel has, or lacks, inotify. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>

int main(int argc, char **argv) {
  if (argc != 2 || (strcmp(argv[1], "present") && strcmp(argv[1], "absent"))) {
    fprintf(stderr, "usage: probe present|absent\n");
    return 2;
  }
  int present = inotify_init1(0) >= 0 || errno != ENOSYS;
  printf("inotify is %s\n", present ? "present" : "absent");
  return present != !strcmp(argv[1], "present");
}
