/*
 * identity: say who runs, with which arguments and variables, as the first thing after execve.
 *
 * Built without a C library, since it also stands in as the interpreter in PT_INTERP of another program. Writes one
 * record to descriptor 9, or to standard output if that is closed: a line "WHO ARGC SIZE", then SIZE bytes: all
 * arguments and all variables, each with its NUL. A variable ?D_PROBE has it then open probe-? (see probe()).
 */
#include <sys/syscall.h>

#ifndef WHO
#define WHO 'a'
#endif

struct piece {
	const void *start;
	unsigned long size;
};

static long call(long number, long a, long b, long c)
{
#if defined(__x86_64__)
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"((long){0})
			 : "rcx", "r11", "r10", "memory");
	return result;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
	return x0;
#endif
}

static unsigned long decimal(char *at, unsigned long number)
{
	char digits[20];
	unsigned long count = 0;

	do
		digits[count++] = (char)('0' + number % 10);
	while (number /= 10);
	for (unsigned long i = 0; i < count; i++)
		at[i] = digits[count - 1 - i];
	return count;
}

/* Let whoever judges opens compare what this process was taken for with what it is. */
static void probe(const char *variable)
{
	char name[] = "probe-?";

	for (const char *wanted = "D_PROBE"; *wanted; wanted++)
		if (*++variable != *wanted)
			return;
	name[6] = variable[-7];
	call(SYS_openat, -100, (long)name, 0);
}

__attribute__((used, noreturn)) void report(long *stack)
{
	long argc = stack[0];
	char **argv = (char **)(stack + 1), **envp = argv + argc + 1;
	char line[64];
	unsigned long length = 0;
	/* The kernel puts all strings side by side: the arguments, then the variables. */
	const char *start = argc ? argv[0] : envp[0], *end = start;

	for (long i = 0; i < argc || envp[i - argc]; i++) {
		end = i < argc ? argv[i] : envp[i - argc];
		while (*end++)
			;
	}
	line[length++] = WHO;
	line[length++] = ' ';
	length += decimal(line + length, (unsigned long)argc);
	line[length++] = ' ';
	length += decimal(line + length, (unsigned long)(end - start));
	line[length++] = '\n';
	struct piece pieces[] = {{line, length}, {start, (unsigned long)(end - start)}};
	if (call(SYS_writev, 9, (long)pieces, 2) < 0)
		call(SYS_writev, 1, (long)pieces, 2);
	for (char **variable = envp; *variable; variable++)
		probe(*variable);
	for (;;)
		call(SYS_exit_group, 0, 0, 0);
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call report\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start: mov x0, sp\n bl report\n");
#endif
