/*
 * What seccomp user notification costs at least: the smallest broker that can be written.
 *
 * `limit MODE CPU PROGRAM ARG...` runs the program under a filter that holds one call, and answers it. CPU: both on that
 * one; `-`: wherever the kernel puts them.
 *
 *   bare       no filter
 *   trip       getppid: answered with a constant, nothing is read
 *   continue   openat: the path is read, and the kernel goes on
 *   addfd      openat: the path is read, opened here, and the descriptor given to the target
 *   deny       openat: the path is read, and those that end in .env are refused; others as addfd
 *
 * It looks at absolute paths and those below the working directory, which it shares, and at nothing else: no policy, no
 * other thread, no check of who asks.
 */
#define _GNU_SOURCE
#include "timing.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* Newer than the headers of some distributions. */
#ifndef SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1UL << 0)
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif
#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

enum { PATH_SIZE = 256, PAGE = 4096 };

enum mode { BARE, TRIP, CONTINUE, ADDFD, DENY, MODES };

static const char *const mode_names[MODES] = {"bare", "trip", "continue", "addfd", "deny"};

struct broker {
    enum mode mode;
    int listener;
};

static int hold(uint32_t number)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog filter = {.len = sizeof program / sizeof *program, .filter = program};
    const long flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs");
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter);
}

/* In two pieces, because the page after the string may not be there. */
static bool read_path(pid_t pid, uint64_t at, char path[PATH_SIZE])
{
    const size_t left = PAGE - at % PAGE;
    const size_t first = left < PATH_SIZE ? left : PATH_SIZE;
    const struct iovec here = {.iov_base = path, .iov_len = PATH_SIZE};
    const struct iovec there[] = {
        {.iov_base = (void *)(uintptr_t)at, .iov_len = first},
        {.iov_base = (void *)(uintptr_t)(at + first), .iov_len = PATH_SIZE - first},
    };
    return process_vm_readv(pid, &here, 1, there, 2, 0) > 0 && memchr(path, 0, PATH_SIZE) != NULL;
}

static bool is_denied(const char *path)
{
    const size_t size = strlen(path);
    return size >= 4 && strcmp(path + size - 4, ".env") == 0;
}

/* Returns what the target gets: the descriptor is there already, or the error has still to be sent. */
static int open_for(const struct broker *broker, const struct seccomp_notif *call, const char *path)
{
    const int flags = (int)call->data.args[2];
    const int fd = open(path, flags | O_CLOEXEC, (mode_t)call->data.args[3]);
    if (fd < 0)
        return -errno;
    struct seccomp_notif_addfd given = {
        .id = call->id,
        .flags = SECCOMP_ADDFD_FLAG_SEND,
        .srcfd = (uint32_t)fd,
        .newfd_flags = (uint32_t)(flags & O_CLOEXEC),
    };
    const int result = ioctl(broker->listener, SECCOMP_IOCTL_NOTIF_ADDFD, &given);
    const int error = errno;
    close(fd);
    return result < 0 ? -error : result;
}

static void answer(const struct broker *broker, const struct seccomp_notif *call)
{
    struct seccomp_notif_resp response = {.id = call->id};
    if (broker->mode == TRIP) {
        response.val = 1;
    } else {
        char path[PATH_SIZE];
        if (!read_path((pid_t)call->pid, call->data.args[1], path) ||
            ioctl(broker->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &call->id) != 0) {
            response.error = -EFAULT;
        } else if (broker->mode == CONTINUE) {
            response.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        } else if (broker->mode == DENY && is_denied(path)) {
            response.error = -EACCES;
        } else {
            response.error = open_for(broker, call, path);
            if (response.error >= 0)
                return;
        }
    }
    must(ioctl(broker->listener, SECCOMP_IOCTL_NOTIF_SEND, &response) == 0 || errno == ENOENT, "send");
}

/* Does not return: not every kernel tells that nobody is left, so the process ends around it. */
static void *serve(void *argument)
{
    const struct broker *broker = argument;
    for (;;) {
        struct seccomp_notif call = {0};
        if (ioctl(broker->listener, SECCOMP_IOCTL_NOTIF_RECV, &call) == 0)
            answer(broker, &call);
        else if (errno != EINTR && errno != ENOENT)
            return NULL;
    }
}

static void pin(const char *cpu)
{
    cpu_set_t set;
    if (strcmp(cpu, "-") == 0)
        return;
    CPU_ZERO(&set);
    CPU_SET(strtoul(cpu, NULL, 10), &set);
    must(sched_setaffinity(0, sizeof set, &set) == 0, "sched_setaffinity");
}

int main(int argc, char **argv)
{
    must(argc > 3, "usage: limit MODE CPU PROGRAM ARG...");
    struct broker broker = {.mode = BARE};
    while (broker.mode < MODES && strcmp(mode_names[broker.mode], argv[1]) != 0)
        broker.mode++;
    must(broker.mode < MODES, "there is no such mode");
    pin(argv[2]);
    if (broker.mode == BARE) {
        execv(argv[3], argv + 3);
        must(false, argv[3]);
    }

    int ready[2];
    int *listener = mmap(NULL, sizeof *listener, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(listener != MAP_FAILED && pipe2(ready, O_CLOEXEC) == 0, "setting up");
    /* The table of descriptors is shared until the program is executed, so the number is the same here. */
    const pid_t pid = (pid_t)syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, 0UL);
    must(pid >= 0, "clone");
    if (pid == 0) {
        *listener = hold(broker.mode == TRIP ? SYS_getppid : SYS_openat);
        if (write(ready[1], "", 1) == 1 && *listener >= 0)
            execv(argv[3], argv + 3);
        _exit(127);
    }
    char byte;
    must(read(ready[0], &byte, 1) == 1 && *listener >= 0, "the filter");
    broker.listener = *listener;
    /* Where the kernel has it; without it, waking up costs more. */
    ioctl(broker.listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP);
    pthread_t thread;
    int status;
    must(pthread_create(&thread, NULL, serve, &broker) == 0, "pthread_create");
    must(waitpid(pid, &status, 0) == pid, "waitpid");
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}
