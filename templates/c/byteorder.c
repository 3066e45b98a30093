#include <stdio.h>
#include <sys/utsname.h>

int main(void) {
  const union {
    unsigned number;
    unsigned char bytes[sizeof(unsigned)];
  } one = {1};
  struct utsname machine;

  if (uname(&machine)) {
    perror("uname");
    return 1;
  }
  printf("%s, %zu bits, %s\n", one.bytes[0] ? "little" : "big", 8 * sizeof(void *), machine.machine);
  return 0;
}
