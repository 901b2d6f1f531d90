/* Shared by the racing attackers: who changes a value while another is at work with it, and for how long. */
#ifndef RACING_H
#define RACING_H

#include "attacker.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

/* Spin for up to a microsecond or so: not always for the same time, so that no two parties fall into step. */
static inline void pause_a_little(unsigned *seed)
{
	*seed = *seed * 1103515245u + 12345u;
	for (unsigned i = (*seed >> 16) & 0x3ff; i; i--)
		__asm__ volatile("" ::: "memory");
}

static inline double seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* The byte in which two spellings differ. */
static inline size_t difference(const char *one, const char *other)
{
	size_t place = 0;

	while (one[place] && one[place] == other[place])
		place++;
	return place;
}

/* Fork a child that ends with its parent. */
static inline pid_t forked(void)
{
	pid_t parent = getpid(), child = fork();

	if (child < 0)
		broken("fork");
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(0);
	}
	return child;
}

static inline void start_thread(void *(*body)(void *), void *argument)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, body, argument))
		broken("pthread_create");
	pthread_detach(thread);
}

/* Run body() in a process that shares this memory. It needs no stack of its own size: one at a time. */
static inline pid_t cloned(int (*body)(void *))
{
	static char stack[1 << 16] __attribute__((aligned(16)));
	pid_t child = clone(body, stack + sizeof(stack), CLONE_VM | SIGCHLD, NULL);

	if (child < 0)
		broken("clone");
	return child;
}

/* Exchange two links for ever, as fast as this process may. */
_Noreturn static inline void exchange(const char *one, const char *other)
{
	for (;;)
		syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, other, 2);
}

#endif
