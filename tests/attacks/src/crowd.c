/*
 * crowd THREADS ROUNDS DIRECTORY: THREADS threads open files of DIRECTORY at the same moment, ROUNDS times.
 *
 * Thread N opens "fN%10", which says N%10, and every fifth one "secret", too. Prints how many opens of each gave what was expected: the
 * right content, EACCES; and the first thing that was not.
 */
#include "attacker.h"

#include <pthread.h>
#include <stdatomic.h>

static pthread_barrier_t start;
static atomic_int right, refused, read_secrets, others;
static atomic_int first_other;
static int rounds;

static void note(int result)
{
	int none = 0;

	atomic_fetch_add(&others, 1);
	atomic_compare_exchange_strong(&first_other, &none, result);
}

static void *rush(void *argument)
{
	const long number = (long)argument % 10;
	char name[16], content[8];

	snprintf(name, sizeof(name), "f%ld", number);
	for (int i = 0; i < rounds; i++) {
		pthread_barrier_wait(&start);
		int fd = open(name, O_RDONLY | O_CLOEXEC);

		if (fd < 0) {
			note(errno);
		} else {
			const ssize_t length = read(fd, content, sizeof(content));

			if (length == 1 && content[0] == '0' + number)
				atomic_fetch_add(&right, 1);
			else
				note(-1);
			close(fd);
		}
		if (number % 5)
			continue;
		fd = open("secret", O_RDONLY | O_CLOEXEC);
		if (fd >= 0) {
			atomic_fetch_add(&read_secrets, 1);
			close(fd);
		} else if (errno == EACCES) {
			atomic_fetch_add(&refused, 1);
		} else {
			note(errno);
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	static pthread_t threads[10000];
	pthread_attr_t small;
	int count;

	if (argc != 4 || chdir(argv[3]))
		broken("usage: crowd THREADS ROUNDS DIRECTORY");
	count = atoi(argv[1]);
	rounds = atoi(argv[2]);
	if (count < 1 || count > 10000)
		broken("THREADS");
	if (pthread_barrier_init(&start, NULL, (unsigned)count) || pthread_attr_init(&small) ||
	    pthread_attr_setstacksize(&small, 64 * 1024))
		broken("pthread_barrier_init");
	for (long i = 0; i < count; i++)
		if (pthread_create(&threads[i], &small, rush, (void *)i))
			broken("pthread_create");
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	printf("right %d, refused %d, read %d, others %d, first %d\n", right, refused, read_secrets, others, first_other);
	return 0;
}
