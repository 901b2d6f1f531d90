/*
 * connect(2), sendto(2) and sendmsg(2) over IP, and messages without a destination: on a copy of the socket. The
 * reference is calls/sockets.py and calls/sending.py, which take unix paths, ancillary data and all that is less plain.
 */
#include "held.h"
#include "newer.h"

#include <netinet/in.h>
#include <sys/uio.h>

#define PIECES_MAX 16
#define MSG_UNUSUAL (0x20000000 /* FASTOPEN */ | 0x4000000 /* ZEROCOPY */)

struct copied {
    int fd;
    int domain, kind;
    int blocks; /* O_NONBLOCK is not set */
};

static int option(int fd, int name, int *value)
{
    socklen_t size = sizeof *value;
    return rs_result(getsockopt(fd, SOL_SOCKET, name, value, &size));
}

/*
 * Copy the target's socket, by the task's number: memory is read afterwards, and shows that the call still waits. What
 * the socket is does not change. -ESTALE: no plain socket, or none at all.
 */
static int copy_socket(struct rs_held *held, int fd, struct copied *out)
{
    out->fd = held_copy_fd(held, fd);
    if (out->fd < 0)
        return -ESTALE;
    if (option(out->fd, SO_DOMAIN, &out->domain) < 0 || option(out->fd, SO_TYPE, &out->kind) < 0)
        return -ESTALE;
    int flags = fcntl(out->fd, F_GETFL);
    if (flags < 0)
        return -ESTALE;
    out->blocks = !(flags & O_NONBLOCK);
    return out->kind == SOCK_STREAM || out->kind == SOCK_DGRAM ? 0 : -ESTALE;
}

static int is_loopback(const unsigned char *host, size_t length)
{
    static const unsigned char loopback[16] = {[15] = 1};
    return length == 4 ? host[0] == 127 : memcmp(host, loopback, sizeof loopback) == 0;
}

/* Where an IP address leads. -ESTALE for all that another look is needed for, 0.0.0.0 and :: included. */
static int read_destination(const char *raw, size_t size, const struct copied *socket, struct rs_effects *effects)
{
    static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
    static const unsigned char zeroes[16];
    sa_family_t family;
    memcpy(&family, raw, sizeof family);
    if (family != socket->domain)
        return -ESTALE;
    const unsigned char *host;
    in_port_t port;
    if (family == AF_INET && size >= sizeof(struct sockaddr_in)) {
        host = (const unsigned char *)raw + offsetof(struct sockaddr_in, sin_addr);
        memcpy(&port, raw + offsetof(struct sockaddr_in, sin_port), sizeof port);
        effects->length = 4;
    } else if (family == AF_INET6 && size >= sizeof(struct sockaddr_in6)) {
        host = (const unsigned char *)raw + offsetof(struct sockaddr_in6, sin6_addr);
        memcpy(&port, raw + offsetof(struct sockaddr_in6, sin6_port), sizeof port);
        effects->length = 16;
        if (memcmp(host, mapped, sizeof mapped) == 0) {
            host += sizeof mapped;
            effects->length = 4;
        }
    } else {
        return -ESTALE;
    }
    if (memcmp(host, zeroes, effects->length) == 0)
        return -ESTALE;
    /* What is for this machine leaves it if the socket is bound to an interface: Python says so. */
    int interface;
    if (is_loopback(host, effects->length) &&
        (option(socket->fd, SO_BINDTOIFINDEX, &interface) < 0 || interface != 0))
        return -ESTALE;
    memcpy(effects->path, host, effects->length);
    effects->port = ntohs(port);
    effects->datagram = socket->kind == SOCK_DGRAM;
    effects->opens = 0;
    effects->count = 0;
    held_add(effects, RS_CONNECT);
    return 0;
}

static int read_memory(struct rs_held *held, uint64_t address, void *buffer, size_t size)
{
    int64_t got = rs_target_read(held->task ? held->task->fd : -1, (pid_t)held->n.pid, address, buffer, size);
    if (held_valid(held) < 0)
        return -ENOENT;
    return got == (int64_t)size ? 0 : -ESTALE;
}

enum rs_outcome held_connect(struct rs_held *held, int fd, uint64_t address, uint64_t length)
{
    char raw[sizeof(struct sockaddr_in6)];
    const size_t size = (size_t)(uint32_t)length;
    if (size < sizeof(struct sockaddr_in) || size > sizeof raw)
        return RS_QUESTION;
    const struct rs_identity *as = held_rights(held);
    if (!as)
        return RS_QUESTION;
    struct copied socket;
    int rc = copy_socket(held, fd, &socket);
    RS_CLOSING int copy = socket.fd;
    if (rc < 0)
        return RS_QUESTION;
    rc = read_memory(held, address, raw, size);
    if (rc < 0)
        return rc == -ENOENT ? RS_ANSWERED : RS_QUESTION;
    struct rs_effects effects;
    if (read_destination(raw, size, &socket, &effects) < 0)
        return RS_QUESTION;
    int allowed;
    enum rs_outcome outcome = held_judge(held, &effects, &allowed);
    if (!allowed)
        return outcome;
    const int waits = socket.blocks && socket.kind == SOCK_STREAM;
    rc = waits ? held_connect_first(held, as, copy, raw, size) : rs_connect(as, copy, raw, size);
    if (waits && rc == -EINTR && held_valid(held) == 0 && held_depart(held, &effects, &copy, raw, size) == 0)
        return RS_UNDERWAY;
    if (waits && rc == -ESTALE && held_may_block(held) < 0)
        return RS_QUESTION;
    /* It is on its way, so nobody may decide it from the beginning, on what is in the memory by now. */
    if (waits && rc == -EINTR && held_may_block(held) < 0)
        rc = -ENFILE;
    /* A connection that is on its way is waited for again (connect(2)): no signal of the target's ends this. */
    while ((rc == -EINTR || (waits && rc == -ESTALE)) && !atomic_load(&held->engine->stopping)) {
        if (held_valid(held) < 0)
            return RS_ANSWERED;
        rc = rs_connect(as, copy, raw, size);
    }
    rs_close_fd(&copy); /* before the answer: a copy that lingers keeps the port taken */
    copy = -1;
    held_record(held, &effects, rc < 0 ? -rc : 0);
    return rc < 0 ? held_fail(held, -rc) : held_reply(held, rc);
}

struct message {
    size_t size;
    char *data;
    char address[sizeof(struct sockaddr_in6)];
    size_t address_size;
};

/* Send what was copied, without waiting; what must wait is Python's, unless a part is gone already. */
static enum rs_outcome send_copied(struct rs_held *held, const struct rs_identity *as, struct copied *socket,
                                   const struct message *message, int flags, const struct rs_effects *effects)
{
    const int blocks = socket->blocks && !(flags & MSG_DONTWAIT);
    const char *address = message->address_size ? message->address : NULL;
    int64_t sent = rs_send(as, socket->fd, address, message->address_size, message->data, message->size, NULL, 0,
                           flags | MSG_DONTWAIT);
    if (blocks && (sent == -EAGAIN || sent == -EWOULDBLOCK))
        return RS_QUESTION;
    while (blocks && socket->kind == SOCK_STREAM && sent > 0 && (size_t)sent < message->size) {
        /* Whoever reads that may have to be answered first: then this was all for now (send(2)). */
        if (held_may_block(held) < 0)
            break;
        int64_t more = rs_send(as, socket->fd, NULL, 0, message->data + sent, message->size - (size_t)sent, NULL, 0,
                               flags);
        if (more <= 0)
            break;
        sent += more;
    }
    rs_close_fd(&socket->fd);
    socket->fd = -1;
    if (sent == -EPIPE && socket->kind == SOCK_STREAM && !(flags & MSG_NOSIGNAL)) {
        const struct rs_identity *who = held_identity(held, 0);
        if (who && held_valid(held) == 0)
            (void)rs_raise_sigpipe(who->tgid, held->task->tid);
    }
    if (effects->count)
        held_record(held, effects, sent < 0 ? (int)-sent : 0);
    return sent < 0 ? held_fail(held, (int)-sent) : held_reply(held, sent);
}

static void close_copied(struct copied *socket)
{
    rs_close_fd(&socket->fd);
}
#define SOCKET_CLOSING __attribute__((cleanup(close_copied)))

/* Decide about a message that is copied, and send it. */
static enum rs_outcome judge_and_send(struct rs_held *held, const struct rs_identity *as, struct copied *socket,
                                      const struct message *message, int flags)
{
    struct rs_effects effects;
    effects.count = 0;
    if (message->address_size) {
        /* A stream has no destination, whatever is named: Python knows what to say. */
        if (socket->kind != SOCK_DGRAM ||
            read_destination(message->address, message->address_size, socket, &effects) < 0)
            return RS_QUESTION;
        int allowed;
        enum rs_outcome outcome = held_judge(held, &effects, &allowed);
        if (!allowed)
            return outcome;
    }
    return send_copied(held, as, socket, message, flags, &effects);
}

/* 0 if plain; the ids of a unix socket's sender are seen by its peer. */
static int is_plain(const struct rs_identity *as, const struct copied *socket)
{
    if (socket->domain == AF_INET || socket->domain == AF_INET6)
        return 1;
    return socket->domain == AF_UNIX && as->euid == geteuid() && as->egid == getegid();
}

enum rs_outcome held_sendto(struct rs_held *held, const uint64_t *args)
{
    const size_t address_size = (size_t)(uint32_t)args[5];
    struct message message = {.size = (size_t)args[2], .address_size = address_size};
    const int flags = (int)args[3];
    if (args[2] > MESSAGE_MAX || (flags & MSG_UNUSUAL) || address_size < sizeof(struct sockaddr_in) ||
        address_size > sizeof message.address)
        return RS_QUESTION;
    const struct rs_identity *as = held_rights(held);
    message.data = held_buffer(held);
    if (!as || !message.data)
        return RS_QUESTION;
    SOCKET_CLOSING struct copied socket = {.fd = -1};
    if (copy_socket(held, (int)args[0], &socket) < 0 || !is_plain(as, &socket))
        return RS_QUESTION;
    int rc = read_memory(held, args[4], message.address, address_size);
    if (rc == 0 && message.size)
        rc = read_memory(held, args[1], message.data, message.size);
    if (rc < 0)
        return rc == -ENOENT ? RS_ANSWERED : RS_QUESTION;
    return judge_and_send(held, as, &socket, &message, flags);
}

enum rs_outcome held_sendmsg(struct rs_held *held, const uint64_t *args)
{
    const int flags = (int)args[2];
    struct msghdr header;
    struct iovec pieces[PIECES_MAX];
    struct message message = {.size = 0};
    if (flags & MSG_UNUSUAL)
        return RS_QUESTION;
    const struct rs_identity *as = held_rights(held);
    message.data = held_buffer(held);
    if (!as || !message.data)
        return RS_QUESTION;
    SOCKET_CLOSING struct copied socket = {.fd = -1};
    if (copy_socket(held, (int)args[0], &socket) < 0 || !is_plain(as, &socket))
        return RS_QUESTION;
    int rc = read_memory(held, args[1], &header, sizeof header);
    if (rc < 0)
        return rc == -ENOENT ? RS_ANSWERED : RS_QUESTION;
    if (header.msg_controllen || header.msg_iovlen > PIECES_MAX)
        return RS_QUESTION;
    if (header.msg_name && header.msg_namelen) {
        if (header.msg_namelen < sizeof(struct sockaddr_in) || header.msg_namelen > sizeof message.address)
            return RS_QUESTION;
        message.address_size = header.msg_namelen;
        rc = read_memory(held, (uintptr_t)header.msg_name, message.address, message.address_size);
    }
    if (rc == 0 && header.msg_iovlen)
        rc = read_memory(held, (uintptr_t)header.msg_iov, pieces, header.msg_iovlen * sizeof *pieces);
    for (size_t i = 0; rc == 0 && i < header.msg_iovlen; i++) {
        if (pieces[i].iov_len > MESSAGE_MAX - message.size)
            return RS_QUESTION;
        if (pieces[i].iov_len)
            rc = read_memory(held, (uintptr_t)pieces[i].iov_base, message.data + message.size, pieces[i].iov_len);
        message.size += pieces[i].iov_len;
    }
    if (rc < 0)
        return rc == -ENOENT ? RS_ANSWERED : RS_QUESTION;
    return judge_and_send(held, as, &socket, &message, flags);
}
