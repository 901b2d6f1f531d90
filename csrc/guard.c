#define _GNU_SOURCE
#include "launch.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "newer.h"

/*
 * The guard ends the tree if harness or launcher die, whoever killed them. It is a child of the launcher in the
 * outer Landlock domain, in which that one has proven that signals are confined: from there kill(-1) reaches
 * the launcher, the tree, whose domains are nested in this one, and nothing else. Nobody in there can signal
 * it. It has a session of its own, so that no signal to the launcher's group, and no terminal, reaches it
 * either; every signal is blocked; and it shares no memory with the launcher, because the kernel's
 * out-of-memory killer takes all processes that do.
 */

/* Milliseconds that the launcher has to end a tree which exceeds a limit. */
enum { GRACE = 5000 };

static _Noreturn void end_everything(void)
{
    (void)kill(-1, SIGKILL);
    _exit(0);
}

/* Keep nothing open but these three, which become 0 to 2: a pipe that the command closes must end. */
static int keep_descriptors(const int *kept, int n)
{
    int moved[3];
    for (int i = 0; i < n; i++) {
        moved[i] = fcntl(kept[i], F_DUPFD_CLOEXEC, n);
        if (moved[i] < 0)
            return -errno;
    }
    for (int i = 0; i < n; i++) {
        if (dup2(moved[i], i) != i)
            return -errno;
    }
    return syscall(SYS_close_range, (unsigned int)n, UINT_MAX, 0U) == 0 ? 0 : -errno;
}

static _Noreturn void guard(int launcher, int harness, int channel, const struct rs_limits *limits)
{
    enum { LAUNCHER, HARNESS, CHANNEL, KEPT };
    const struct rs_limits grace = {.wall_ms = GRACE};
    const int kept[KEPT] = {launcher, harness, channel};
    /* The launcher and its witness are no part of the tree. */
    struct watch watch = start_watch(limits, true, 2);
    bool told = false;
    uint8_t said = GUARD_READY;
    (void)prctl(PR_SET_NAME, "rampart-guard", 0L, 0L, 0L);
    if (setsid() < 0 || keep_descriptors(kept, KEPT) < 0 || send(CHANNEL, &said, 1, MSG_NOSIGNAL) != 1)
        _exit(1); /* the launcher notices, and starts nothing */

    for (;;) {
        struct pollfd ready[KEPT] = {
            {.fd = LAUNCHER, .events = POLLIN},
            {.fd = HARNESS, .events = POLLIN},
            {.fd = CHANNEL, .events = POLLIN},
        };
        if (poll(ready, KEPT, next_look(&watch)) < 0 && errno != EINTR)
            end_everything();
        if (ready[LAUNCHER].revents != 0 || ready[HARNESS].revents != 0)
            end_everything();
        if (ready[CHANNEL].revents != 0) {
            if (recv(CHANNEL, &said, 1, 0) == 1)
                _exit(0); /* dismissed */
            end_everything();
        }
        said = (uint8_t)look(&watch);
        if (said == 0)
            continue;
        if (told)
            end_everything();
        told = true;
        watch = start_watch(&grace, true, 0);
        (void)send(CHANNEL, &said, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        /* The launcher may be stopped, and that at the wish of the tree. */
        (void)syscall(SYS_pidfd_send_signal, LAUNCHER, SIGCONT, NULL, 0U);
    }
}

/*
 * Start the guard: with every signal blocked, in a domain in which the scope of signals is proven, and before
 * there is any process it shall end. Returns our end of its channel, which closes when the guard dies.
 */
int start_guard(int harness, const struct rs_limits *limits)
{
    int ends[2];
    autofd int launcher = (int)syscall(SYS_pidfd_open, getpid(), 0U);
    if (launcher < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        return -errno;
    autofd int ours = ends[0];
    autofd int theirs = ends[1];
    long pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0UL);
    if (pid < 0)
        return -errno;
    if (pid == 0)
        guard(launcher, harness, theirs, limits);
    return steal_fd(&ours);
}

/* Take the next word of the guard, waiting for it. Returns GUARD_READY, an enum rs_limit, or -ECHILD: it is dead. */
int hear_guard(int channel)
{
    uint8_t said;
    ssize_t size;
    do
        size = recv(channel, &said, sizeof(said), 0);
    while (size < 0 && errno == EINTR);
    return size == sizeof(said) ? said : -ECHILD;
}

/*
 * Let the guard end: once nothing of the tree can live on. The channel stays open until we end: if it were closed
 * with a word of the guard's still unread, the guard would hear ECONNRESET before it hears this.
 */
void dismiss_guard(int *channel)
{
    if (*channel < 0)
        return;
    (void)send(*channel, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    *channel = -1;
}
