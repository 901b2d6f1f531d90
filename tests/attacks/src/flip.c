/*
 * flip A B: exchange two names as fast as the kernel can, until killed or until the parent dies.
 *
 * Runs outside of the sandbox, with nothing in its way: the strongest form of a name that changes between a
 * check and a use.
 */
#include "attacker.h"

#include <signal.h>
#include <sys/prctl.h>

int main(int argc, char **argv)
{
	if (argc != 3)
		broken("usage: flip A B");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (syscall(SYS_renameat2, AT_FDCWD, argv[1], AT_FDCWD, argv[2], 2))
		broken("renameat2");
	puts("flipping");
	fflush(stdout);
	for (;;)
		if (syscall(SYS_renameat2, AT_FDCWD, argv[1], AT_FDCWD, argv[2], 2))
			broken("renameat2");
}
