/* Print the arguments, and the variables whose names begin with TOLD. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv)
{
	for (int i = 0; i < argc; i++)
		printf("%zu %.80s\n", strlen(argv[i]), argv[i]);
	for (char **at = environ; *at; at++)
		if (strncmp(*at, "TOLD", 4) == 0)
			printf("%zu %.80s\n", strlen(*at), *at);
	return 0;
}
