/*
 * exec_storm WAY PROGRAM COUNT: execs that get in each other's way. PROGRAM is src/identity.c; prints how often it ran,
 * and how many processes ended otherwise.
 *   threads   COUNT processes: eight threads execute at once, with 1 MiB of arguments; others exit meanwhile
 *   exiting   COUNT processes: one thread executes while another ends the process
 *   killed    COUNT processes: killed while their exec is held
 *   stopped   COUNT processes: stopped and continued while their exec is held
 *   signals   COUNT processes: execute while they get signals that they ignore
 *   daemons   COUNT daemons, each of which executes PROGRAM, while eight threads do as in "threads"
 */
#include "attacker.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;
static const char *program;
static char *arguments[12];
static pthread_barrier_t together;

static void pause_for(unsigned microseconds)
{
	struct timespec moment = {0, microseconds * 1000L};

	nanosleep(&moment, NULL);
}

static void *execute(void *wait)
{
	if (wait)
		pthread_barrier_wait(&together);
	execve(program, arguments, environ);
	/* Those that lose are ended by the winner; this one has really failed. */
	_exit(errno == EAGAIN ? 55 : 56);
}

static void *exit_thread(void *unused)
{
	pthread_barrier_wait(&together);
	pthread_exit(unused);
}

static void *exit_process(void *unused)
{
	(void)unused;
	pthread_barrier_wait(&together);
	pause_for((unsigned)(getpid() % 8) * 300);
	_exit(7);
}

static void start(void *(*body)(void *), void *argument)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, body, argument))
		broken("pthread_create");
}

static void many_threads(void)
{
	pthread_barrier_init(&together, NULL, 12);
	for (int i = 0; i < 4; i++)
		start(exit_thread, NULL);
	for (int i = 0; i < 7; i++)
		start(execute, &together);
	execute(&together);
}

static void child(const char *way)
{
	if (!strcmp(way, "threads")) {
		many_threads();
	} else if (!strcmp(way, "exiting")) {
		pthread_barrier_init(&together, NULL, 2);
		start(exit_process, NULL);
		execute(&together);
	}
	execute(NULL);
}

static void bother(const char *way, pid_t target, unsigned turn)
{
	if (!strcmp(way, "killed")) {
		pause_for(turn % 20 * 150);
		kill(target, SIGKILL);
	} else if (!strcmp(way, "stopped")) {
		pause_for(turn % 20 * 100);
		kill(target, SIGSTOP);
		pause_for(500);
		kill(target, SIGCONT);
	} else if (!strcmp(way, "signals")) {
		for (int i = 0; i < 10; i++) {
			kill(target, SIGUSR2);
			kill(target, SIGWINCH);
			pause_for(100);
		}
	}
}

int main(int argc, char **argv)
{
	const char *way = argc == 4 ? argv[1] : "";
	long count = argc == 4 ? atol(argv[3]) : 0, ran = 0, exited = 0, killed = 0, others = 0;
	int report[2];

	if (argc != 4)
		broken("usage: exec_storm WAY PROGRAM COUNT");
	program = argv[2];
	signal(SIGUSR2, SIG_IGN);
	arguments[0] = "storm";
	if (!strcmp(way, "threads") || !strcmp(way, "daemons"))
		for (int i = 1; i < 11; i++) {
			arguments[i] = malloc(104858);
			memset(arguments[i], 'x', 104857);
			arguments[i][104857] = '\0';
		}
	if (pipe2(report, O_CLOEXEC))
		broken("pipe");
	for (long i = 0; i < count; i++) {
		int null = open("/dev/null", O_WRONLY | O_CLOEXEC), status;
		pid_t target;

		if (!strcmp(way, "daemons")) {
			if (fork() == 0) {
				setsid();
				if (fork())
					_exit(0);
				dup2(null, 9);
				execute(NULL);
			}
			wait(NULL);
		}
		target = fork();
		if (target < 0)
			broken("fork");
		if (target == 0) {
			dup2(null, 9);
			child(strcmp(way, "daemons") ? way : "threads");
		}
		close(null);
		bother(way, target, (unsigned)i);
		if (waitpid(target, &status, 0) != target)
			broken("waitpid");
		if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
			ran++;
		else if (WIFEXITED(status) && WEXITSTATUS(status) == 7)
			exited++;
		else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
			killed++;
		else {
			fprintf(stderr, "status %x\n", (unsigned)status);
			others++;
		}
	}
	printf("{\"ran\": %ld, \"exited\": %ld, \"killed\": %ld, \"others\": %ld}\n", ran, exited, killed, others);
	return 0;
}
