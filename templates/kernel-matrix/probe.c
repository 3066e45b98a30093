/* probe built-in|module: fails unless the kernel has 9p, which the shares of a test need, in this form. */
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

int main(int argc, char **argv) {
  if (argc != 2 || (strcmp(argv[1], "built-in") && strcmp(argv[1], "module"))) {
    fprintf(stderr, "usage: probe built-in|module\n");
    return 2;
  }
  struct utsname kernel;
  if (uname(&kernel) < 0) {
    perror("uname");
    return 1;
  }
  /* Only modules that are loaded have this file. */
  const char *found = access("/sys/module/9p/initstate", F_OK) ? "built-in" : "module";
  printf("%s: 9p is %s\n", kernel.release, found);
  return strcmp(found, argv[1]) != 0;
}
