/*
 * execrace FLIPPER WHAT TRIES SECONDS ALLOWED DENIED: execute ALLOWED again and again while what it is told changes.
 *
 * FLIPPER says who changes it:
 *   thread   a sibling thread of the one that executes
 *   leader   the leader of the process, while another thread executes
 *   vm       a process with the same memory (CLONE_VM)
 *   shared   another process, through MAP_SHARED memory
 *   link     a forked child that renames ALLOWED and DENIED, two links, into each other
 *   none     somebody outside
 * WHAT is changed: path (ALLOWED and DENIED differ in one byte), string (argv[1] is "good" or "gold"), pointer
 * (argv[1] points to one or the other), variable ("ZD_PROBE=1" or "LD_PROBE=1"), vector (envp[0] points to one or the
 * other); of "none" and "link", nothing in here.
 *
 * The programs are src/identity.c: 'a' with "good" is right; a "win" is that 'b' runs, or that "gold" arrives. Prints
 * one JSON object; a try that ends by SIGKILL is "killed". With UNTIL_WIN the first win ends the race.
 */
#include "attacker.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

enum { REPORT = 9 };

struct page {
	char path[1024];
	char word[2][8];
	char variable[2][16];
	char *argv[3];
	char *envp[2];
	volatile int running;
};

static struct page *page;
static const char *allowed, *denied, *what;
static size_t place;
static char stack[1 << 16] __attribute__((aligned(16)));

static long tries, right, denials, killed, dirty, others, wins;

static void pause_a_little(unsigned *seed)
{
	*seed = *seed * 1103515245u + 12345u;
	for (unsigned i = (*seed >> 16) & 0x3ff; i; i--)
		__asm__ volatile("" ::: "memory");
}

static void flip_once(int turn)
{
	if (!strcmp(what, "path"))
		*(volatile char *)&page->path[place] = turn ? denied[place] : allowed[place];
	else if (!strcmp(what, "string"))
		*(volatile char *)&page->word[0][2] = turn ? 'l' : 'o';
	else if (!strcmp(what, "pointer"))
		*(char *volatile *)&page->argv[1] = page->word[turn];
	else if (!strcmp(what, "variable"))
		*(volatile char *)&page->variable[0][0] = turn ? 'L' : 'Z';
	else if (!strcmp(what, "vector"))
		*(char *volatile *)&page->envp[0] = page->variable[turn];
}

_Noreturn static void flip_for_ever(void)
{
	unsigned seed = (unsigned)time(NULL) + (unsigned)getpid();

	for (int turn = 0;; turn ^= 1) {
		flip_once(turn);
		pause_a_little(&seed);
		page->running = 1;
	}
}

static void *flip_in_thread(void *unused)
{
	(void)unused;
	flip_for_ever();
}

static void execute(void)
{
	int error;

	execve(page->path, page->argv, page->envp);
	error = errno;
	_exit(error == EACCES ? 77 : 78);
}

static void *execute_in_thread(void *unused)
{
	execute();
	return unused;
}

static int execute_in_clone(void *unused)
{
	(void)unused;
	execute();
	return 0;
}

/* One try, in a process of its own. */
static void attempt(const char *flipper)
{
	pthread_t thread;

	if (!strcmp(flipper, "thread")) {
		if (pthread_create(&thread, NULL, flip_in_thread, NULL))
			broken("pthread_create");
		while (!page->running)
			sched_yield();
	} else if (!strcmp(flipper, "leader")) {
		if (pthread_create(&thread, NULL, execute_in_thread, NULL))
			broken("pthread_create");
		flip_for_ever();
	} else if (!strcmp(flipper, "vm")) {
		pid_t child = clone(execute_in_clone, stack + sizeof(stack), CLONE_VM | SIGCHLD, NULL);
		unsigned seed = (unsigned)time(NULL) + (unsigned)getpid();
		int status;

		if (child < 0)
			broken("clone");
		for (unsigned turn = 0;; turn++) {
			flip_once((int)(turn & 1));
			pause_a_little(&seed);
			if ((turn & 31) == 0 && waitpid(child, &status, WNOHANG) == child)
				break;
		}
		if (WIFSIGNALED(status))
			kill(getpid(), WTERMSIG(status));
		_exit(WEXITSTATUS(status));
	}
	execute();
}

static pid_t forked(void)
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

static void count(int status, int report)
{
	char record[256] = "";
	struct pollfd ready = {.fd = report, .events = POLLIN};

	if (poll(&ready, 1, 0) == 1 && read(report, record, sizeof(record) - 1) < 0)
		broken("read");
	if (record[0]) {
		const char *arguments = strchr(record, '\n');
		const char *word = arguments ? arguments + strlen(arguments) + 1 : "";

		if (record[0] != 'a' || !strcmp(word, "gold"))
			wins++;
		else
			right++;
		dirty += !strcmp(word + strlen(word) + 1, "LD_PROBE=1");
	} else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
		killed++;
	} else if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		denials++;
	} else {
		others++;
	}
}

int main(int argc, char **argv)
{
	const char *flipper = argc == 7 ? argv[1] : "";
	long wanted = argc == 7 ? atol(argv[3]) : 0;
	double seconds = argc == 7 ? atof(argv[4]) : 0;
	struct timespec began, now;
	pid_t helper = 0;
	int report[2], until_win = getenv("UNTIL_WIN") != NULL;

	if (argc != 7)
		broken("arguments");
	what = argv[2];
	allowed = argv[5];
	denied = argv[6];
	for (place = 0; allowed[place] && allowed[place] == denied[place]; place++)
		;
	page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE,
		    (strcmp(flipper, "shared") ? MAP_PRIVATE : MAP_SHARED) | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED || strlen(allowed) >= sizeof(page->path))
		broken("memory");
	strcpy(page->path, allowed);
	strcpy(page->word[0], "good");
	strcpy(page->word[1], "gold");
	strcpy(page->variable[0], "ZD_PROBE=1");
	strcpy(page->variable[1], "LD_PROBE=1");
	page->argv[0] = page->path;
	page->argv[1] = page->word[0];
	page->envp[0] = page->variable[0];
	if (pipe2(report, O_CLOEXEC | O_NONBLOCK) || dup2(report[1], REPORT) < 0)
		broken("pipe");
	if (!strcmp(flipper, "shared")) {
		helper = forked();
		if (helper == 0)
			flip_for_ever();
	} else if (!strcmp(flipper, "link")) {
		helper = forked();
		while (helper == 0)
			syscall(SYS_renameat2, AT_FDCWD, allowed, AT_FDCWD, denied, 2);
	}
	clock_gettime(CLOCK_MONOTONIC, &began);
	while (tries < wanted && !(until_win && wins)) {
		int status;
		pid_t child = fork();

		if (child < 0)
			broken("fork");
		if (child == 0)
			attempt(flipper);
		if (waitpid(child, &status, 0) != child)
			broken("waitpid");
		count(status, report[0]);
		tries++;
		clock_gettime(CLOCK_MONOTONIC, &now);
		if ((double)(now.tv_sec - began.tv_sec) + (double)(now.tv_nsec - began.tv_nsec) * 1e-9 > seconds)
			break;
	}
	if (helper > 0)
		kill(helper, SIGKILL);
	clock_gettime(CLOCK_MONOTONIC, &now);
	printf("{\"tries\": %ld, \"right\": %ld, \"denied\": %ld, \"killed\": %ld, \"dirty\": %ld, \"others\": %ld, "
	       "\"wins\": %ld, \"seconds\": %.2f}\n",
	       tries, right, denials, killed, dirty, others, wins,
	       (double)(now.tv_sec - began.tv_sec) + (double)(now.tv_nsec - began.tv_nsec) * 1e-9);
	return 0;
}
