/*
 * overlong CHILDREN PROGRAM [ARGUMENT...]: one process that has forked CHILDREN others starts a script with as many
 * arguments and variables as an exec may be judged with outside of Python. Then PROGRAM is executed in our place.
 *
 * The working directory has the script "first", through whose interpreters "second" and "third" /bin/true is started.
 * What is to be said of that exec is as long as it can be: the script's name, the names that its interpreters put
 * before the arguments, all of that once for each of the four, and the children.
 */
#include "attacker.h"

#include <sys/wait.h>

#define STRINGS 131072 /* bytes of arguments and variables together */
#define FILLING 12900  /* bytes of arguments: with those that are put before them, four times, almost 64 KiB */

static char name[4096], filling[FILLING + 1], variable[STRINGS];

static void fork_children(int count)
{
	for (int i = 0; i < count; i++) {
		const pid_t child = fork();

		if (child < 0)
			_exit(3);
		if (child == 0)
			for (;;)
				pause();
	}
}

static void start_script(void)
{
	static const char script[] = "first";
	char *const argv[] = {"", filling, NULL};
	char *const variables[] = {variable, NULL};
	const size_t given = 1 + sizeof(filling);

	while (strlen(name) + 2 + sizeof(script) <= sizeof(name))
		strcat(name, "./");
	strcat(name, script);
	memset(filling, 'x', FILLING);
	memset(variable, 'x', STRINGS - given - 16);
	variable[1] = '=';
	execve(name, argv, variables);
	_exit(4);
}

int main(int argc, char **argv)
{
	int status;

	if (argc < 3)
		return 2;
	const pid_t starter = fork();
	if (starter == 0) {
		fork_children(atoi(argv[1]));
		start_script();
	}
	if (waitpid(starter, &status, 0) != starter || status != 0) {
		fprintf(stderr, "the script: %x\n", (unsigned int)status);
		return 1;
	}
	execv(argv[2], argv + 2);
	return 1;
}
