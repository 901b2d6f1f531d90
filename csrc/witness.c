#define _GNU_SOURCE
#include "launch.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "newer.h"

/*
 * A child in our process group that blocks every signal, as we do, and does nothing. siginfo does not tell
 * a signal for us alone from one for our group, which the command has got already; but the latter is pending
 * in the witness, too. The kernel signals the newest member of a group first (attach_pid() adds in front):
 * when we have it, the witness does.
 *
 * Returns its pid, or -errno.
 */
pid_t start_witness(void)
{
    const pid_t launcher = getpid();
    /* The table is shared, so that it holds nothing open that we close. */
    long pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, 0UL);
    if (pid != 0)
        return pid > 0 ? (pid_t)pid : -errno;
    if (prctl(PR_SET_PDEATHSIG, (long)SIGKILL, 0L, 0L, 0L) != 0 || getppid() != launcher)
        _exit(0);
    for (;;)
        pause();
}

/* Whether the witness has this signal pending (proc_pid_status(5), ShdPnd). */
bool has_witnessed(pid_t witness, int signo)
{
    static const char field[] = "\nShdPnd:";
    char path[32];
    char status[4096];
    snprintf(path, sizeof(path), "/proc/%d/status", witness);
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd >= 0 ? read(fd, status, sizeof(status) - 1) : -1;
    if (size <= 0)
        return false;
    status[size] = '\0';
    const char *pending = strstr(status, field);
    return pending != NULL && (strtoull(pending + sizeof(field) - 1, NULL, 16) >> (signo - 1) & 1) != 0;
}
