/*
 * descent WAY SELF [COUNT]: have processes of odd descent open files whose names say what they must be taken for.
 *
 * SELF is this program. A process opens "known-N" if it must be taken for the N-th program of the chain counted from
 * the command, or "unknown" if nobody can know. WAY:
 *   fork       a child, and a grandchild whose parent lives
 *   exec       a child that executes SELF
 *   double     an orphan, adopted by the launcher
 *   subreaper  an orphan, adopted by this process after PR_SET_CHILD_SUBREAPER
 *   space      an orphan, adopted by the first process of a pid namespace
 *   orphan     as double, but the orphan executes SELF
 *   parent     clone(CLONE_PARENT) and a raw clone with it: prints the errors
 *   around     COUNT times: a child forked right before its parent's exec, one right after it
 *   crowd      COUNT times: as around, but the first child stands among many that end while the exec takes place
 *   reuse      COUNT short-lived children, of which each second one is an orphan
 *   open NAME  opens NAME: what SELF is started with; "stay" then waits for a moment
 */
#include "attacker.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static const char *self;

static void look(const char *name)
{
	int fd = open(name, O_RDONLY);

	if (fd >= 0)
		close(fd);
}

static pid_t forked(void)
{
	pid_t child = fork();

	if (child < 0)
		broken("fork");
	return child;
}

static void wait_for(pid_t child)
{
	if (waitpid(child, NULL, 0) != child)
		broken("waitpid");
}

static void run_self(const char *way, const char *name)
{
	execl(self, self, way, name, NULL);
	broken(self);
}

/* A grandchild whose parent is gone; returns in it, and elsewhere once it has ended. */
static int orphaned(void)
{
	int done[2];
	char byte;
	pid_t child;

	if (pipe(done)) /* kept through an exec: it ends when the grandchild does */
		broken("pipe");
	child = forked();
	if (child == 0) {
		pid_t parent = getpid();

		if (forked())
			_exit(0);
		while (getppid() == parent)
			sched_yield();
		return 1;
	}
	wait_for(child);
	close(done[1]);
	if (read(done[0], &byte, 1) < 0)
		broken("read");
	close(done[0]);
	return 0;
}

static void *open_in_thread(void *name)
{
	look(name);
	return NULL;
}

/* In the second program: its own child is the second program's, the one that was forked before the first's. */
static void after_exec(void)
{
	pid_t child = forked();

	if (child == 0) {
		look("known-2");
		_exit(0);
	}
	look("known-2");
	while (wait(NULL) > 0)
		;
}

static void around(long count)
{
	for (long i = 0; i < count; i++) {
		pid_t child = forked();

		if (child == 0) {
			/* The exec comes while this one is under way. */
			if (forked() == 0) {
				look("known-1");
				_exit(0);
			}
			run_self("after", "");
		}
		wait_for(child);
	}
}

/* While somebody lists whom we have forked, they end one by one: that can make others be overlooked. */
static void crowd(long count)
{
	for (long i = 0; i < count; i++) {
		pid_t child = forked();

		if (child == 0) {
			int over[2];
			char byte;

			signal(SIGCHLD, SIG_IGN);
			if (pipe2(over, O_CLOEXEC))
				broken("pipe");
			for (unsigned n = 0; n < 400; n++) {
				if (forked())
					continue;
				close(over[1]);
				/* Closed by the exec, before anybody can look at it. */
				if (read(over[0], &byte, 1) < 0)
					broken("read");
				if (n % 40 == 39) {
					usleep(200000);
					look("known-1");
				}
				_exit(0);
			}
			run_self("stay", "known-2");
		}
		wait_for(child);
	}
}

static int nothing(void *unused)
{
	(void)unused;
	look("unknown");
	return 0;
}

int main(int argc, char **argv)
{
	const char *way = argc > 2 ? argv[1] : "";
	long count = argc > 3 ? atol(argv[3]) : 0;
	pthread_t thread;
	pid_t child;

	if (argc < 3)
		broken("usage: descent WAY SELF [COUNT]");
	if (!strcmp(way, "open")) {
		look(argv[2]);
		return 0;
	}
	if (!strcmp(way, "stay")) {
		look(argv[2]);
		usleep(500000);
		return 0;
	}
	self = argv[0];
	if (!strcmp(way, "after")) {
		after_exec();
		return 0;
	}
	self = argv[2];
	look("known-1");
	if (!strcmp(way, "fork")) {
		child = forked();
		if (child == 0) {
			child = forked();
			if (child == 0) {
				pthread_create(&thread, NULL, open_in_thread, "known-1");
				pthread_join(thread, NULL);
				_exit(0);
			}
			wait_for(child);
			look("known-1");
			_exit(0);
		}
		wait_for(child);
	} else if (!strcmp(way, "exec")) {
		child = forked();
		if (child == 0)
			run_self("open", "known-2");
		wait_for(child);
	} else if (!strcmp(way, "double")) {
		if (orphaned()) {
			look("unknown");
			_exit(0);
		}
	} else if (!strcmp(way, "orphan")) {
		if (orphaned())
			run_self("open", "unknown");
	} else if (!strcmp(way, "subreaper")) {
		if (prctl(PR_SET_CHILD_SUBREAPER, 1L, 0L, 0L, 0L))
			broken("prctl");
		if (orphaned()) {
			look("unknown");
			_exit(0);
		}
		wait(NULL);
	} else if (!strcmp(way, "space")) {
		if (unshare(CLONE_NEWUSER | CLONE_NEWPID))
			broken("unshare");
		child = forked();
		if (child == 0) {
			look("known-1");
			if (orphaned())
				look("unknown");
			_exit(0);
		}
		wait_for(child);
	} else if (!strcmp(way, "parent")) {
		static char stack[1 << 16] __attribute__((aligned(16)));

		child = clone(nothing, stack + sizeof(stack), CLONE_PARENT | SIGCHLD, NULL);
		puts(child < 0 ? error_name(errno) : "cloned");
		child = (pid_t)syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
		if (child == 0) {
			look("unknown");
			_exit(0);
		}
		puts(child < 0 ? error_name(errno) : "cloned");
	} else if (!strcmp(way, "around")) {
		around(count);
	} else if (!strcmp(way, "crowd")) {
		crowd(count);
	} else if (!strcmp(way, "reuse")) {
		for (long i = 0; i < count; i++) {
			if (i % 2 && orphaned()) {
				look("unknown");
				_exit(0);
			}
			child = forked();
			if (child == 0) {
				look("known-1");
				_exit(0);
			}
			wait_for(child);
		}
	} else {
		broken(way);
	}
	return 0;
}
