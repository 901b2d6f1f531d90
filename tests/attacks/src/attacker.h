/* Shared by the attacker programs: raw calls, names of errors, and death on a broken set-up. */
#ifndef ATTACKER_H
#define ATTACKER_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

/* The name of an error, such as "EACCES"; the number where the C library has no name for it. */
static inline const char *error_name(int number)
{
	static char text[16];
	const char *name = strerrorname_np(number);

	if (name)
		return name;
	snprintf(text, sizeof(text), "%d", number);
	return text;
}

/* The attack could not even be prepared: that must fail the test, never pass it. */
static inline void broken(const char *what)
{
	fprintf(stderr, "attacker: %s: %s\n", what, strerror(errno));
	exit(99);
}

#endif
