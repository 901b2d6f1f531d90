#define _GNU_SOURCE
#include "launch.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

/* How long a tree that is not confined may go on forking away from the sweep. */
enum { SWEEP_SECONDS = 10 };

static pid_t parent_of(pid_t pid)
{
    char name[32];
    struct process process;
    snprintf(name, sizeof(name), "/proc/%d/stat", pid);
    return read_process(AT_FDCWD, name, &process) == 0 ? process.parent : -1;
}

bool descends(pid_t pid, pid_t ancestor)
{
    for (pid_t parent = parent_of(pid); parent > 0; parent = parent_of(parent)) {
        if (parent == ancestor)
            return true;
    }
    return false;
}

/* Signal every process that /proc shows beneath this one. As subreaper we inherit what its parents leave
 * behind, so each one does descend from us; one that is forked meanwhile may be missed. */
static int signal_descendants(int signo)
{
    const pid_t self = getpid();
    DIR *processes = opendir("/proc");
    if (processes == NULL)
        return -errno;
    for (const struct dirent *entry; (entry = readdir(processes)) != NULL;) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (pid > 1 && descends(pid, self))
            kill(pid, signo);
    }
    closedir(processes);
    return 0;
}

/*
 * Signal every process of the tree. scoped: this process lives in a Landlock signal scope, and that was
 * tried out; then kill(-1) reaches exactly its own domain (itself excepted, kill(2)) and those nested in it,
 * all at once. Without that proof it would reach everything the user runs.
 */
int signal_tree(int signo, bool scoped)
{
    if (!scoped)
        return signal_descendants(signo);
    return kill(-1, signo) == 0 || errno == ESRCH ? 0 : -errno;
}

static bool reap(pid_t command, int *status, int options)
{
    int ended;
    pid_t pid;
    do
        pid = waitpid(-1, &ended, options | __WALL);
    while (pid < 0 && errno == EINTR);
    /* A traced process that dies may be reported as stopped before. */
    if (pid > 0 && pid == command && !WIFSTOPPED(ended))
        *status = ended;
    return pid > 0;
}

/*
 * Kill the tree and reap it; *status is set if the command itself is reaped here. The guard is dismissed in
 * between: not before everything has its SIGKILL, and before its own end is waited for.
 */
void end_tree(pid_t command, bool scoped, int *guard, int *status)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const time_t deadline = now.tv_sec + SWEEP_SECONDS;
    bool swept;
    do {
        swept = signal_tree(SIGKILL, scoped) == 0;
        dismiss_guard(guard);
        /* Something was killed, or there is nothing left: this waits for a death, not for a life. */
        if (!reap(command, status, swept ? 0 : WNOHANG))
            return;
        while (reap(command, status, WNOHANG))
            ;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (swept && (scoped || now.tv_sec < deadline));
}
