/*
 * spawn_each CALL [WORD...]: execute each path that stands on a line of standard input, with the arguments WORD.
 *
 * CALL: execve, execveat (through an O_PATH descriptor and an empty path), dirfd (through a descriptor of its
 * directory), script (through a descriptor that stays open), check (AT_EXECVE_CHECK; nothing is started). Prints "= PATH", then
 * what the program wrote, then the exit status or the error.
 */
#include "attacker.h"

#include <libgen.h>
#include <sys/wait.h>

extern char **environ;

static void execute(const char *call, char *path, char **argv)
{
	char copy[4096];

	if (!strcmp(call, "execve")) {
		execve(path, argv, environ);
	} else if (!strcmp(call, "execveat") || !strcmp(call, "script")) {
		int fd = open(path, O_PATH | (strcmp(call, "script") ? O_CLOEXEC : 0));

		if (fd >= 0)
			syscall(SYS_execveat, fd, "", argv, environ, AT_EMPTY_PATH);
	} else if (!strcmp(call, "dirfd")) {
		int fd = open(dirname(strcpy(copy, path)), O_PATH | O_DIRECTORY);

		if (fd >= 0)
			syscall(SYS_execveat, fd, basename(path), argv, environ, 0);
	} else if (!strcmp(call, "check")) {
		if (syscall(SYS_execveat, AT_FDCWD, path, argv, environ, 0x10000) == 0)
			_exit(3);
	}
	printf("%s\n", error_name(errno));
	fflush(stdout);
	_exit(2);
}

int main(int argc, char **argv)
{
	static char path[4096];

	if (argc < 2)
		broken("usage: spawn_each CALL [WORD...]");
	while (fgets(path, sizeof(path), stdin)) {
		int status;
		pid_t child;

		path[strcspn(path, "\n")] = '\0';
		printf("= %s\n", path);
		fflush(stdout);
		child = fork();
		if (child < 0)
			broken("fork");
		if (child == 0)
			execute(argv[1], path, argv + 2);
		if (waitpid(child, &status, 0) != child)
			broken("waitpid");
		printf("\n%s %d\n", WIFEXITED(status) ? "exit" : "signal", WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
	}
	return 0;
}
