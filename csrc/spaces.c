/* User namespaces: whose rights count, whom a task may look into, and opening a file from within one. */
#include "rampart.h"

#include <linux/capability.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define DEPTH_MAX 33 /* nested user namespaces (user_namespaces(7)), and the first */

static int same_file(const struct stat *one, const struct stat *other)
{
    return one->st_dev == other->st_dev && one->st_ino == other->st_ino;
}

/*
 * 1 if the target is in the broker's own user namespace; 0 if not, or unknown. Capabilities of another one are none
 * here, though they read the same: whoever makes a user namespace has all of them in it.
 */
int rs_in_own_user_space(int target)
{
    static _Thread_local struct stat own; /* no thread of many can leave it (unshare(2)) */
    struct stat theirs;
    if (own.st_ino == 0 && stat("/proc/self/ns/user", &own) < 0) {
        own.st_ino = 0;
        return errno == ENOENT; /* a kernel that has none */
    }
    return fstatat(target, "ns/user", &theirs, 0) == 0 && same_file(&own, &theirs);
}

/*
 * 1 if a process is in the target's user namespace or in one beneath it, else 0 or -errno: only then the target could
 * have rights over it by itself (ptrace(2), user_namespaces(7)). The broker, above both, could always look into it.
 */
int rs_user_space_covers(int target, pid_t pid)
{
    struct stat wanted, st;
    char path[40];
    if (fstatat(target, "ns/user", &wanted, 0) < 0)
        return -errno;
    (void)snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
    RS_CLOSING int at = open(path, O_RDONLY | O_CLOEXEC);
    if (at < 0)
        return -errno;
    for (int depth = 0; depth < DEPTH_MAX; depth++) {
        if (fstat(at, &st) < 0)
            return -errno;
        if (same_file(&wanted, &st))
            return 1;
        int above = ioctl(at, NS_GET_PARENT);
        if (above < 0)
            return errno == EPERM ? 0 : -errno; /* above the broker's own */
        rs_close_fd(&at);
        at = above;
    }
    return 0;
}

/* What the child of rs_open_within does: it shares nothing but the table of descriptors. Returns one, or -errno. */
static int open_there(int space, const struct rs_identity *as, int parent, const char *name, int flags)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    const uint32_t low = (uint32_t)as->cap_inside, high = (uint32_t)(as->cap_inside >> 32);
    const struct __user_cap_data_struct data[2] = {{low, low, 0}, {high, high, 0}};
    /* First: it has a copy of all that the harness has in memory, and whoever made the namespace has rights there. */
    if (prctl(PR_SET_DUMPABLE, 0L, 0L, 0L, 0L) < 0)
        return -errno;
    if (setns(space, CLONE_NEWUSER) < 0) /* gives all capabilities there */
        return -errno;
    if (syscall(SYS_capset, &header, data) < 0)
        return -errno;
    return rs_result(openat(parent, name, flags | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY));
}

/*
 * Open a file of procfs, `name` in the pinned directory of a process, from within the target's user namespace, with the
 * target's ids and capabilities. For those files that ask who opened them, and in which namespace, when they are
 * written to. A thread cannot go there (setns(2)), so a child does: a copy of this process, with nothing in common but
 * the descriptors.
 */
int rs_open_within(const struct rs_identity *as, int target, int parent, const char *name, int flags)
{
    RS_CLOSING int space = rs_result(openat(target, "ns/user", O_RDONLY | O_CLOEXEC));
    if (space < 0)
        return space;
    int tell[2], answer = -EIO, status;
    if (pipe2(tell, O_CLOEXEC) < 0)
        return -errno;
    RS_CLOSING int in = tell[0];
    RS_CLOSING int out = tell[1];
    int rc = rs_assume(as);
    if (rc < 0)
        return rc;
    /* No signal at its end, which the harness would see as a child of its own. */
    long child = syscall(SYS_clone, CLONE_FILES, NULL, NULL, NULL, 0UL);
    if (child == 0) {
        answer = open_there(space, as, parent, name, flags & ~(O_CREAT | O_EXCL | O_PATH));
        ssize_t put = write(out, &answer, sizeof answer);
        syscall(SYS_exit, put == (ssize_t)sizeof answer ? 0 : 1);
        __builtin_unreachable();
    }
    rc = child < 0 ? -errno : 0;
    rs_resume();
    if (rc < 0)
        return rc;
    pid_t ended;
    do
        ended = waitpid((pid_t)child, &status, __WALL);
    while (ended < 0 && errno == EINTR);
    if (ended != child || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return -EIO;
    if (read(in, &answer, sizeof answer) != (ssize_t)sizeof answer)
        return -EIO;
    return answer;
}
