/*
 * flood THREADS NAME: open NAME in THREADS threads without a pause until killed. Prints "flooding" once
 * they have made a thousand calls.
 */
#include "attacker.h"

#include <pthread.h>
#include <stdatomic.h>

static pthread_barrier_t start;
static atomic_int calls;

static void *flood(void *name)
{
	pthread_barrier_wait(&start);
	for (;;) {
		int fd = open(name, O_RDONLY | O_CLOEXEC);

		if (fd >= 0)
			close(fd);
		atomic_fetch_add(&calls, 1);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	int count;

	if (argc != 3)
		broken("usage: flood THREADS NAME");
	count = atoi(argv[1]);
	if (pthread_barrier_init(&start, NULL, (unsigned)count + 1))
		broken("pthread_barrier_init");
	for (int i = 0; i < count; i++)
		if (pthread_create(&thread, NULL, flood, argv[2]))
			broken("pthread_create");
	pthread_barrier_wait(&start);
	while (atomic_load(&calls) < 1000)
		usleep(1000);
	puts("flooding");
	fflush(stdout);
	pthread_join(thread, NULL);
	return 0;
}
