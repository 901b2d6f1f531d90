/* The outer of the nested Landlock domains, and the proof that it confines signals. */
#define _GNU_SOURCE
#include "launch.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "newer.h"

/* A process outside of the domain; it ends when its tie is closed. */
struct bystander {
    pid_t pid;
    int fd; /* pidfd */
    int tie;
};

static int start_bystander(struct bystander *bystander)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return -errno;
    autofd int theirs = ends[0];
    bystander->tie = ends[1];
    long pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0UL);
    if (pid < 0)
        return -errno;
    if (pid == 0) {
        char byte;
        close(bystander->tie);
        _exit(read(theirs, &byte, 1) == 0 ? 0 : 1);
    }
    bystander->pid = (pid_t)pid;
    bystander->fd = (int)syscall(SYS_pidfd_open, bystander->pid, 0U);
    return bystander->fd < 0 ? -errno : 0;
}

static void end_bystander(struct bystander *bystander)
{
    close_fd(&bystander->tie);
    close_fd(&bystander->fd);
    if (bystander->pid > 0)
        (void)waitpid(bystander->pid, NULL, 0);
}

/* 0, or the error of signalling a process. */
static int signalling(int pidfd)
{
    return syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0U) == 0 ? 0 : -errno;
}

/*
 * Enter the domain and try it out: what could be signalled before must not be afterwards. EPERM alone would
 * prove nothing, a harness of another user gives it too; then a process of our own serves.
 *
 * Returns 1 if the scope is proven, 0 if not, or -errno.
 */
int enter_proven_scope(int harness)
{
    struct bystander bystander = {.pid = -1, .fd = -1, .tie = -1};
    int error = 0;
    if (signalling(harness) != 0)
        error = start_bystander(&bystander);
    const int outside = bystander.fd >= 0 ? bystander.fd : harness;
    const bool before = error == 0 && signalling(outside) == 0;
    if (error == 0)
        error = install_signal_scope();
    const bool after = error < 0 || signalling(outside) != -EPERM;
    end_bystander(&bystander);
    return error < 0 ? error : before && !after;
}
