/* Socket calls performed on a copy of the target's socket, with the target's rights. */
#include "rampart.h"

#include <signal.h>
#include <sys/syscall.h>

#define MOMENT 100000 /* nanoseconds that a connect may take before it is on its way */

static void resume_scope(const int *active)
{
    (void)active;
    rs_resume();
}

/* May block: see rs_interrupt. The address is ours by now; nobody rewrites it. */
int rs_connect(const struct rs_identity *as, int fd, const char *address, size_t size)
{
    int rc = rs_assume(as);
    if (rc < 0)
        return rc;
    __attribute__((cleanup(resume_scope))) const int scope = 1;
    (void)scope;
    return rs_result(connect(fd, (const struct sockaddr *)(const void *)address, (socklen_t)size));
}

/* One that has a limit of its own says at its end whether it was the first (EINPROGRESS): it is not to be interrupted. */
int rs_has_time_limit(int fd)
{
    struct timeval limit;
    socklen_t size = sizeof limit;
    return getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, &size) < 0 || limit.tv_sec || limit.tv_usec;
}

/*
 * Connect, for a moment. -EINTR: the connection is on its way, and the same again will wait for it. -ESTALE: nothing was
 * done, since nobody would end the wait.
 */
int rs_connect_until(timer_t timer, const struct rs_identity *as, int fd, const char *address, size_t size)
{
    if (rs_interrupt_every(timer, MOMENT) < 0)
        return -ESTALE;
    int rc = rs_connect(as, fd, address, size);
    (void)rs_interrupt_every(timer, 0);
    return rc;
}

int rs_connect_briefly(const struct rs_identity *as, int fd, const char *address, size_t size)
{
    timer_t timer;
    if (rs_has_time_limit(fd) || rs_interrupt_timer(&timer) < 0)
        return -ESTALE;
    int rc = rs_connect_until(timer, as, fd, address, size);
    (void)timer_delete(timer);
    return rc;
}

/*
 * Bind. A relative path of a unix socket counts from `directory`; -1 if the address has none.
 * -ENOTSUP for one with a path if this thread shares its working directory with the harness.
 */
int rs_bind(const struct rs_identity *as, int directory, int fd, const char *address, size_t size)
{
    if (directory >= 0) {
        if (!rs_owns_umask())
            return -ENOTSUP;
        if (fchdir(directory) < 0)
            return -errno;
    }
    int rc = rs_assume(as);
    rs_assume_umask(as);
    if (rc >= 0)
        rc = rs_result(bind(fd, (const struct sockaddr *)(const void *)address, (socklen_t)size));
    rs_resume();
    if (directory >= 0 && chdir("/") < 0)
        abort(); /* cannot be: "/" is where this thread came from, and stays open to everybody */
    return rc;
}

/* With the target's rights: they are what peers see (SO_PEERCRED). */
int rs_listen(const struct rs_identity *as, int fd, int backlog)
{
    int rc = rs_assume(as);
    if (rc < 0)
        return rc;
    rc = rs_result(listen(fd, backlog));
    rs_resume();
    return rc;
}

/*
 * Send one message. `control` holds descriptors of this process where the target's named its own. Never raises
 * SIGPIPE here: see rs_raise_sigpipe.
 */
int64_t rs_send(const struct rs_identity *as, int fd, const char *address, size_t address_size,
                const char *data, size_t size, const char *control, size_t control_size, int flags)
{
    int rc = rs_assume(as);
    if (rc < 0)
        return rc;
    __attribute__((cleanup(resume_scope))) const int scope = 1;
    (void)scope;
    /* The kernel reads these buffers, and never writes them. */
    struct iovec vector = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    struct msghdr message = {
        .msg_name = (void *)(uintptr_t)address,
        .msg_namelen = (socklen_t)address_size,
        .msg_iov = &vector,
        .msg_iovlen = 1,
        .msg_control = control_size ? (void *)(uintptr_t)control : NULL,
        .msg_controllen = control_size,
    };
    ssize_t sent = sendmsg(fd, &message, flags | MSG_NOSIGNAL);
    return sent < 0 ? -(int64_t)errno : sent;
}

/* Send SIGPIPE to the thread whose performed send met a closed peer. */
int rs_raise_sigpipe(pid_t tgid, pid_t tid)
{
    return rs_result(syscall(SYS_tgkill, tgid, tid, SIGPIPE));
}
