/*
 * leftover TRIES: does a descriptor of somebody else stay behind an open that was answered? Prints two counts.
 *
 * "busy": a program is written, closed and started at once; an execve that fails with ETXTBSY saw a writer left.
 * "early": both ends of a FIFO are opened and closed; a reader that then does not wait for its writer, and so
 * reads nothing, saw a writer left.
 */
#include "attacker.h"

#include <signal.h>
#include <sys/wait.h>

static int start(const char *program)
{
	char *arguments[] = {(char *)program, NULL};
	pid_t child = vfork();
	int status;

	if (child == 0) {
		execve(program, arguments, NULL);
		_exit(errno == ETXTBSY ? 26 : 99);
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		broken("start");
	return WEXITSTATUS(status);
}

static int busy(const char *content, size_t size)
{
	int fd = open("program", O_WRONLY | O_CREAT | O_TRUNC, 0755), status;

	if (fd < 0 || write(fd, content, size) != (ssize_t)size || close(fd))
		broken("program");
	status = start("./program");
	if (status != 0 && status != 26)
		broken("the program did not run");
	return status == 26;
}

static int early(void)
{
	char byte;
	int fd = open("pipe", O_RDWR);
	pid_t child;
	long got;

	if (fd < 0 || close(fd))
		broken("pipe");
	child = fork();
	if (child == 0) {
		fd = open("pipe", O_WRONLY);
		_exit(fd < 0 || write(fd, "x", 1) != 1);
	}
	fd = open("pipe", O_RDONLY);
	got = read(fd, &byte, 1);
	close(fd);
	if (got != 1) /* the writer waits for a reader, or has one no more */
		kill(child, SIGKILL);
	if (waitpid(child, NULL, 0) != child)
		broken("waitpid");
	return got != 1;
}

int main(int argc, char **argv)
{
	/* ETXTBSY is for scripts as for binaries: execve asks before it looks at the content. */
	static const char script[] = "#!/bin/true\n";
	int tries = argc == 2 ? atoi(argv[1]) : 0, busy_count = 0, early_count = 0;

	alarm(30); /* a leftover end can also let a writer through too early: then its reader waits for ever */
	if (mkfifo("pipe", 0600))
		broken("mkfifo");
	for (int i = 0; i < tries; i++)
		busy_count += busy(script, sizeof(script) - 1);
	for (int i = 0; i < tries; i++)
		early_count += early();
	printf("busy %d, early %d\n", busy_count, early_count);
	return 0;
}
