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
 * one JSON object; a try that ends by SIGKILL is "killed". Variables: with UNTIL_WIN the first win ends the race; PAD
 * is the length of a last argument, in front of the variables; RACERS is the number of processes that try at once.
 */
#include "racing.h"

#include <poll.h>
#include <stdatomic.h>
#include <sys/wait.h>

enum { REPORT = 9, BURST = 16, SLEEP_NS = 100000 };

struct page {
	char path[1024];
	char word[2][8];
	char variable[2][16];
	char *argv[4];
	char *envp[2];
	volatile int running;
};

/* Of all racers. */
struct counters {
	atomic_long begun, tries, allowed, denied, killed, dirty, other, wins;
};

static struct page *page;
static struct counters *counters;
static const char *flipper, *what, *allowed, *denied;
static size_t place;

static int is(const char *word, const char *wanted)
{
	return !strcmp(word, wanted);
}

static void flip_once(int turn)
{
	if (is(what, "path"))
		*(volatile char *)&page->path[place] = turn ? denied[place] : allowed[place];
	else if (is(what, "string"))
		*(volatile char *)&page->word[0][2] = turn ? 'l' : 'o';
	else if (is(what, "pointer"))
		*(char *volatile *)&page->argv[1] = page->word[turn];
	else if (is(what, "variable"))
		*(volatile char *)&page->variable[0][0] = turn ? 'L' : 'Z';
	else if (is(what, "vector"))
		*(char *volatile *)&page->envp[0] = page->variable[turn];
}

static unsigned fresh_seed(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (unsigned)now.tv_nsec ^ (unsigned)getpid() << 16;
}

/* Flip fast for a moment, then leave the processor to those who judge: a flip between two of their reads counts. */
static void flip_a_while(unsigned *seed)
{
	struct timespec moment = {0, (long)(*seed >> 16) % SLEEP_NS};

	for (int turn = BURST + (int)(*seed >> 31); turn; turn--) {
		flip_once(turn & 1);
		pause_a_little(seed);
	}
	flip_once((int)(*seed >> 30 & 1));
	page->running = 1;
	nanosleep(&moment, NULL);
}

_Noreturn static void flip_for_ever(void)
{
	unsigned seed = fresh_seed();

	prctl(PR_SET_TIMERSLACK, 1);
	for (;;)
		flip_a_while(&seed);
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
static void attempt(void)
{
	if (is(flipper, "thread")) {
		start_thread(flip_in_thread, NULL);
		while (!page->running)
			sched_yield();
	} else if (is(flipper, "leader")) {
		start_thread(execute_in_thread, NULL);
		flip_for_ever();
	} else if (is(flipper, "vm")) {
		pid_t child = cloned(execute_in_clone);
		unsigned seed = fresh_seed();
		int status;

		prctl(PR_SET_TIMERSLACK, 1);
		do
			flip_a_while(&seed);
		while (waitpid(child, &status, WNOHANG) != child);
		if (WIFSIGNALED(status))
			kill(getpid(), WTERMSIG(status));
		_exit(WEXITSTATUS(status));
	}
	execute();
}

static void count_report(const char *record, size_t size)
{
	const char *arguments = memchr(record, '\n', size), *end = record + size;
	const char *word = arguments ? arguments + strlen(arguments) + 1 : "", *last = word;

	for (const char *at = last; at < end; at += strlen(at) + 1)
		last = at;
	if (record[0] != 'a' || is(word, "gold"))
		counters->wins++;
	else
		counters->allowed++;
	counters->dirty += is(last, "LD_PROBE=1");
}

static void count(int status, int report)
{
	static char record[1 << 16];
	size_t size = 0;
	ssize_t got;

	while ((got = read(report, record + size, sizeof(record) - 1 - size)) > 0)
		size += (size_t)got;
	if (got < 0 && errno != EAGAIN)
		broken("read");
	record[size] = '\0';
	if (size)
		count_report(record, size);
	else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		counters->killed++;
	else if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		counters->denied++;
	else
		counters->other++;
	counters->tries++;
}

static void prepare(void)
{
	const char *pad = getenv("PAD");
	int kind = is(flipper, "shared") ? MAP_SHARED : MAP_PRIVATE;
	size_t size = pad ? (size_t)atol(pad) : 0;

	page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, kind | MAP_ANONYMOUS, -1, 0);
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
	if (pad && !(page->argv[2] = calloc(1, size + 1)))
		broken("memory");
	if (pad)
		memset(page->argv[2], 'x', size);
}

/* Try until there were enough, or there is no more time. */
static void race(long wanted, double end)
{
	int until_win = getenv("UNTIL_WIN") != NULL;
	int report[2];
	pid_t helper = 0;

	prepare();
	if (pipe2(report, O_CLOEXEC | O_NONBLOCK) || dup2(report[1], REPORT) < 0)
		broken("pipe");
	if (is(flipper, "shared") && (helper = forked()) == 0)
		flip_for_ever();
	while (counters->begun++ < wanted && !(until_win && counters->wins) && seconds_now() < end) {
		pid_t child;
		int status;

		child = fork();
		if (child < 0)
			broken("fork");
		if (child == 0)
			attempt();
		if (waitpid(child, &status, 0) != child)
			broken("waitpid");
		count(status, report[0]);
	}
	if (helper > 0)
		kill(helper, SIGKILL);
}

int main(int argc, char **argv)
{
	long racers = getenv("RACERS") ? atol(getenv("RACERS")) : 1;
	double began = seconds_now();
	pid_t links = 0;

	if (argc != 7)
		broken("arguments");
	flipper = argv[1];
	what = argv[2];
	allowed = argv[5];
	denied = argv[6];
	place = difference(allowed, denied);
	counters = mmap(NULL, sizeof(*counters), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (counters == MAP_FAILED)
		broken("memory");
	if (is(flipper, "link") && (links = forked()) == 0)
		exchange(allowed, denied);
	for (long i = 0; i < racers; i++) {
		if (forked() == 0) {
			race(atol(argv[3]), began + atof(argv[4]));
			exit(0);
		}
	}
	for (long i = 0; i < racers; i++) {
		int status;

		if (wait(&status) < 0 || status != 0)
			broken("a racer");
	}
	if (links > 0)
		kill(links, SIGKILL);
	printf("{\"tries\": %ld, \"allowed\": %ld, \"denied\": %ld, \"killed\": %ld, \"dirty\": %ld, \"other\": %ld, "
	       "\"wins\": %ld, \"seconds\": %.2f}\n",
	       counters->tries, counters->allowed, counters->denied, counters->killed, counters->dirty, counters->other,
	       counters->wins, seconds_now() - began);
	return 0;
}
