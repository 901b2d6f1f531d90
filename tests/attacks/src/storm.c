/*
 * storm RESTART CALLS DIRECTORY: make CALLS rounds of calls in DIRECTORY while signals arrive all the time.
 *
 * SIGALRM a thousand times a second, SIGURG from a thread without a pause to speak of, SIGCHLD from children that end;
 * their handlers have SA_RESTART if RESTART is 1. Every call has an effect that a second performance would show: a
 * new file (EEXIST), its removal (ENOENT), a connection (EISCONN, or one more at the listener), a numbered datagram.
 * Prints what was counted as JSON; "probe" is what a read of an empty pipe says, which is the C library's and the
 * kernel's affair alone.
 */
#include "attacker.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>

static atomic_int taken[65];
static atomic_int over;
static atomic_uint accepted;
static pthread_t caller;
static int listening;
static int calls, interrupted, twice, lost, other, other_error, connections;

static void count(int number)
{
	atomic_fetch_add(&taken[number], 1);
}

static void *urge(void *unused)
{
	(void)unused;
	while (!atomic_load(&over)) {
		pthread_kill(caller, SIGURG);
		usleep(50);
	}
	return NULL;
}

static void *breed(void *unused)
{
	(void)unused;
	while (!atomic_load(&over)) {
		pid_t child = fork();

		if (child < 0)
			broken("fork");
		if (child == 0)
			_exit(0);
		if (waitpid(child, NULL, 0) != child)
			broken("waitpid");
		usleep(3000);
	}
	return NULL;
}

static void *receive(void *unused)
{
	struct pollfd ready = {.fd = listening, .events = POLLIN};

	(void)unused;
	for (;;) {
		int found = poll(&ready, 1, 100);

		if (found < 0)
			broken("poll");
		if (found == 0) {
			if (atomic_load(&over))
				return NULL;
			continue;
		}
		int fd = accept(listening, NULL, NULL);

		if (fd < 0)
			broken("accept");
		atomic_fetch_add(&accepted, 1);
		close(fd);
	}
}

static void *wake(void *writer)
{
	usleep(100000);
	if (write(*(int *)writer, "x", 1) != 1)
		broken("write");
	return NULL;
}

/* One more try of a call that gave `result`: counts it, and says whether it is to be made again. */
static int again(long result, int second)
{
	calls++;
	if (result >= 0)
		return 0;
	if (errno == EINTR) {
		interrupted++;
		return 1;
	}
	if (errno == second) {
		twice++;
		return 0;
	}
	other++;
	other_error = errno;
	return 0;
}

static int bound(int type, struct sockaddr_in *address)
{
	socklen_t length = sizeof(*address);
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	memset(address, 0, sizeof(*address));
	address->sin_family = AF_INET;
	address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || bind(fd, (struct sockaddr *)address, sizeof(*address)) || getsockname(fd, (struct sockaddr *)address, &length))
		broken("bind");
	return fd;
}

int main(int argc, char **argv)
{
	const int numbers[] = {SIGALRM, SIGURG, SIGCHLD};
	const struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
	struct sockaddr_in server, inbox;
	pthread_t threads[3], waker;
	int pipes[2], probe, rounds, expected = 0;
	sigset_t blocked;
	char byte;

	if (argc != 4 || chdir(argv[3]))
		broken("usage: storm RESTART CALLS DIRECTORY");
	rounds = atoi(argv[2]);
	caller = pthread_self();
	listening = bound(SOCK_STREAM, &server);
	if (listen(listening, 512))
		broken("listen");
	int receiver = bound(SOCK_DGRAM, &inbox), sender = socket(AF_INET, SOCK_DGRAM, 0);

	for (int i = 0; i < 3; i++) {
		struct sigaction action = {.sa_handler = count, .sa_flags = atoi(argv[1]) ? SA_RESTART : 0};

		if (sigaction(numbers[i], &action, NULL))
			broken("sigaction");
	}
	sigfillset(&blocked);
	if (pthread_sigmask(SIG_SETMASK, &blocked, NULL) || pipe(pipes))
		broken("pipe");
	if (pthread_create(&threads[0], NULL, urge, NULL) || pthread_create(&threads[1], NULL, breed, NULL) ||
	    pthread_create(&threads[2], NULL, receive, NULL) || pthread_create(&waker, NULL, wake, &pipes[1]))
		broken("pthread_create");
	sigemptyset(&blocked);
	if (pthread_sigmask(SIG_SETMASK, &blocked, NULL) || setitimer(ITIMER_REAL, &often, NULL))
		broken("setitimer");
	probe = read(pipes[0], &byte, 1) == 1 ? 0 : errno;

	for (int i = 0; i < rounds; i++) {
		char name[32];
		long result;
		int number;

		snprintf(name, sizeof(name), "new-%d", i);
		do
			result = open("there", O_RDONLY | O_CLOEXEC);
		while (again(result, 0));
		if (result >= 0)
			close(result);
		do
			result = open(name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
		while (again(result, EEXIST));
		if (result >= 0)
			close(result);
		do
			result = unlink(name);
		while (again(result, ENOENT));
		do
			result = mkdir(name, 0700);
		while (again(result, EEXIST));
		do
			result = rmdir(name);
		while (again(result, ENOENT));
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		do
			result = connect(fd, (struct sockaddr *)&server, sizeof(server));
		while (again(result, EISCONN));
		connections += result == 0;
		close(fd);
		do
			result = i % 2 ? sendto(sender, &i, sizeof(i), 0, (struct sockaddr *)&inbox, sizeof(inbox))
				       : sendmsg(sender,
						 &(struct msghdr){.msg_name = &inbox,
								  .msg_namelen = sizeof(inbox),
								  .msg_iov = &(struct iovec){&i, sizeof(i)},
								  .msg_iovlen = 1},
						 0);
		while (again(result, 0));
		/* On the loopback it has arrived when the call returns: one, and no other number than this. */
		while ((result = recv(receiver, &number, sizeof(number), MSG_DONTWAIT)) >= 0) {
			twice += number < expected;
			lost += number > expected;
			expected = number + 1;
		}
		if (errno != EAGAIN)
			broken("recv");
		if (expected != i + 1) {
			lost++;
			expected = i + 1;
		}
	}
	if (setitimer(ITIMER_REAL, &never, NULL))
		broken("setitimer");
	atomic_store(&over, 1);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	pthread_join(waker, NULL);
	twice += atomic_load(&accepted) > (unsigned)connections;
	lost += atomic_load(&accepted) < (unsigned)connections;
	printf("{\"probe\": \"%s\", \"calls\": %d, \"interrupted\": %d, \"twice\": %d, \"lost\": %d, \"other\": %d, \"error\": \"%s\","
	       " \"alarms\": %d, \"urges\": %d, \"children\": %d}\n",
	       probe ? error_name(probe) : "ok", calls, interrupted, twice, lost, other, other ? error_name(other_error) : "",
	       taken[SIGALRM], taken[SIGURG], taken[SIGCHLD]);
	return 0;
}
