/*
 * foreign HOW PATH: open PATH through another system call convention of x86_64; prints the result.
 *
 * HOW is "int80" (the i386 numbers) or "x32" (the x32 bit set). The path is put below 4 GiB, where both reach.
 */
#include "attacker.h"

#include <sys/mman.h>

#define X32_BIT 0x40000000L

int main(int argc, char **argv)
{
	char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	long result;

	if (argc != 3 || low == MAP_FAILED)
		broken("usage: foreign int80|x32 PATH");
	snprintf(low, 4096, "%s", argv[2]);
	if (!strcmp(argv[1], "int80")) {
		__asm__ volatile("int $0x80" : "=a"(result) : "a"(5L), "b"(low), "c"(0L), "d"(0L) : "memory");
	} else {
		result = syscall(X32_BIT | SYS_open, low, O_RDONLY);
		if (result < 0)
			result = -errno;
	}
	puts(result < 0 ? error_name((int)-result) : "ok");
	return 0;
}
