#define _GNU_SOURCE
#include "launch.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>

union one_descriptor {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int))];
};

/* The descriptor that came with a message, or -1. */
static int carried_fd(struct msghdr *message)
{
    int fd = -1;
    struct cmsghdr *item = CMSG_FIRSTHDR(message);
    if (item != NULL && item->cmsg_level == SOL_SOCKET && item->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(item), sizeof(fd));
    return fd;
}

/* Wait for START. -ECONNRESET: the broker went away before it. */
int receive_start(int control, struct start_packet *start, int *harness)
{
    union one_descriptor ancillary = {0};
    struct iovec data = {.iov_base = start, .iov_len = sizeof(*start)};
    struct msghdr message = {
        .msg_iov = &data,
        .msg_iovlen = 1,
        .msg_control = ancillary.space,
        .msg_controllen = sizeof(ancillary.space),
    };
    ssize_t size;
    do
        size = recvmsg(control, &message, MSG_CMSG_CLOEXEC);
    while (size < 0 && errno == EINTR);
    if (size < 0)
        return -errno;
    if (size == 0)
        return -ECONNRESET;
    autofd int fd = carried_fd(&message);
    if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || fd < 0 || (size_t)size < sizeof(start->head) ||
        start->head.type != RS_START || start->head.n_insns == 0 || start->head.n_insns > RS_MAX_INSNS ||
        (size_t)size != sizeof(start->head) + start->head.n_insns * sizeof(start->insns[0]))
        return -EPROTO;
    *harness = steal_fd(&fd);
    return 0;
}

/* Whether a TRACE is whole: its strings are packed behind it, or come in a file if they are too long for that. */
static bool whole_trace(const struct rs_trace *order, size_t size, bool has_file)
{
    if (size < sizeof(*order) || order->environment_size > UINT32_MAX)
        return false;
    const uint64_t strings = order->command_size + order->environment_size;
    if (strings > RS_MAX_PACKED)
        return has_file && size == sizeof(*order);
    return !has_file && size == sizeof(*order) + strings;
}

static bool whole_order(const union order *order, size_t size, bool has_file)
{
    if (size < sizeof(order->type))
        return false;
    switch (order->type) {
    case RS_GO:
        return size == sizeof(struct rs_go) && !has_file;
    case RS_LEND:
        return size == sizeof(struct rs_lend) && has_file;
    case RS_SIGNAL:
        return size == sizeof(struct rs_signal) && !has_file;
    case RS_TRACE:
        return whole_trace(&order->trace.head, size, has_file);
    case RS_RELEASE:
        return size == sizeof(struct rs_release) && !has_file;
    case RS_HALT:
        return size == sizeof(struct rs_halt) && !has_file;
    default:
        return false;
    }
}

/*
 * Receive an order, without waiting. Returns the type, 0 if there is nothing, -ECONNRESET if the broker went away.
 * *carried is a descriptor that came with it, or -1; the caller owns it.
 */
int receive_order(int control, union order *order, int *carried)
{
    union one_descriptor ancillary = {0};
    struct iovec data = {.iov_base = order, .iov_len = sizeof(*order)};
    struct msghdr message = {
        .msg_iov = &data,
        .msg_iovlen = 1,
        .msg_control = ancillary.space,
        .msg_controllen = sizeof(ancillary.space),
    };
    *carried = -1;
    ssize_t size = recvmsg(control, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (size < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    if (size == 0)
        return -ECONNRESET;
    *carried = carried_fd(&message);
    if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || !whole_order(order, (size_t)size, *carried >= 0)) {
        close_fd(carried);
        return -EPROTO;
    }
    return (int)order->type;
}

/*
 * Send one packet, with a descriptor unless fd is -1. Waits while the socket is full, but not for a harness
 * that has died: a forked child of it may keep the other end open.
 */
int send_packet(int control, int harness, const void *packet, size_t size, int fd)
{
    union one_descriptor ancillary = {0};
    struct iovec data = {.iov_base = (void *)(uintptr_t)packet, .iov_len = size};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = ancillary.space;
        message.msg_controllen = sizeof(ancillary.space);
        struct cmsghdr *item = CMSG_FIRSTHDR(&message);
        item->cmsg_level = SOL_SOCKET;
        item->cmsg_type = SCM_RIGHTS;
        item->cmsg_len = CMSG_LEN(sizeof(fd));
        memcpy(CMSG_DATA(item), &fd, sizeof(fd));
    }
    for (;;) {
        if (sendmsg(control, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return 0;
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
        struct pollfd ready[] = {{.fd = control, .events = POLLOUT}, {.fd = harness, .events = POLLIN}};
        if (poll(ready, 2, -1) < 0 && errno != EINTR)
            return -errno;
        if (ready[1].revents != 0)
            return -ECONNRESET;
    }
}
