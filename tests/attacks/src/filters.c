/*
 * filters PATH...: install seccomp filters of one's own, then open each PATH; prints "WHAT<tab>RESULT".
 */
#include "attacker.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>

/* Every call is allowed but getppid, which gives EDOM: so that a filter shows that it is in force. */
static struct sock_filter instructions[] = {
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EDOM),
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};
static struct sock_fprog program = {sizeof(instructions) / sizeof(instructions[0]), instructions};

static void show(const char *what, long result)
{
	printf("%s\t%s\n", what, result < 0 ? error_name(errno) : "ok");
}

int main(int argc, char **argv)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		broken("no_new_privs");
	setvbuf(stdout, NULL, _IOLBF, 0);
	show("listener",
	     syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program));
	show("filter", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
	show("tsync", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program));
	show("prctl", prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
	show("getppid", syscall(SYS_getppid));
	for (int i = 1; i < argc; i++)
		show(argv[i], syscall(SYS_openat, AT_FDCWD, argv[i], O_RDONLY));
	return 0;
}
