/*
 * Feed socket addresses to what says where they lead, and compare with the C library's view of them and with where the
 * kernel connects a datagram socket: `addresses SEED COUNT`.
 *
 * Deterministic, up to which networks can be reached. Prints how many addresses led somewhere, and how many of these
 * the kernel connected. To be built with sanitizers: each address has exactly the size that it is said to have.
 */
#include "held_sockets.c" /* for read_destination, which nobody else needs */

#include <stdio.h>

#include "random.h"

static unsigned long led, connected;

static void die(const char *what, const unsigned char *raw, size_t size)
{
    fprintf(stderr, "%s:", what);
    for (size_t i = 0; i < size; i++)
        fprintf(stderr, " %02x", raw[i]);
    fprintf(stderr, "\n");
    exit(1);
}

/* Plain ones, and those that are nearly something else. */
static void make(unsigned char *raw, size_t size)
{
    static const sa_family_t families[] = {AF_INET, AF_INET6, AF_INET, AF_INET6, AF_UNIX, AF_UNSPEC, 0x0a00, 0x0200};
    const sa_family_t family = families[below(sizeof families / sizeof *families)];
    for (size_t i = 0; i < size; i++)
        raw[i] = below(3) == 0 ? (unsigned char)number() : 0;
    memcpy(raw, &family, sizeof family);
    if (family == AF_INET && below(2) == 0)
        raw[4] = 127;
    if (family == AF_INET6 && size >= 24 && below(2) == 0) {
        memset(raw + 8, 0, size - 8 < 16 ? size - 8 : 16);
        if (size >= 24 && below(3) != 0) {
            raw[18] = raw[19] = 0xff;
            if (size >= 21 && below(2) == 0)
                raw[20] = 127;
        }
        if (size >= 24 && below(2) == 0)
            raw[23] = (unsigned char)below(3);
        if (below(4) == 0)
            raw[8 + below(16)] ^= (unsigned char)(1 << below(8));
    }
}

/* Where it leads, by the names that the C library has for the parts. 0: nowhere plain. */
static size_t expected(const unsigned char *raw, size_t size, int domain, unsigned char *host, unsigned *port)
{
    struct sockaddr_storage any = {0};
    memcpy(&any, raw, size);
    if (any.ss_family != domain)
        return 0;
    if (domain == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)&any;
        memcpy(host, &in->sin_addr, 4);
        *port = ntohs(in->sin_port);
        return in->sin_addr.s_addr != htonl(INADDR_ANY) ? 4 : 0;
    }
    if (domain != AF_INET6 || size < sizeof(struct sockaddr_in6))
        return 0;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&any;
    *port = ntohs(in6->sin6_port);
    if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
        memcpy(host, (const unsigned char *)&in6->sin6_addr + 12, 4);
        return host[0] || host[1] || host[2] || host[3] ? 4 : 0;
    }
    memcpy(host, &in6->sin6_addr, 16);
    return IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr) ? 0 : 16;
}

/* The kernel's view: whose peer a socket is after connecting. */
static void ask_kernel(const unsigned char *raw, size_t size, const struct copied *like, const struct rs_effects *said)
{
    RS_CLOSING int fd = socket(like->domain, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)raw, (socklen_t)size) < 0)
        return;
    struct sockaddr_storage peer = {0};
    socklen_t peer_size = sizeof peer;
    if (getpeername(fd, (struct sockaddr *)&peer, &peer_size) < 0) {
        if (said->port) /* without a port it counts as not connected */
            die("no peer", raw, size);
        return;
    }
    unsigned char host[16];
    unsigned port;
    const size_t length = expected((const unsigned char *)&peer, peer_size, like->domain, host, &port);
    if (length != said->length || memcmp(host, said->path, length) != 0 || port != said->port)
        die("the kernel went elsewhere", raw, size);
    connected++;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    state = strtoull(argv[1], NULL, 10);
    RS_CLOSING int unbound = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0); /* to any interface */
    if (unbound < 0)
        return 1;
    for (unsigned long left = strtoul(argv[2], NULL, 10); left > 0; left--) {
        /* Shorter and longer ones are questions before they are looked at. */
        const size_t shortest = sizeof(struct sockaddr_in), longest = sizeof(struct sockaddr_in6);
        const size_t size = below(2) == 0 ? longest : shortest + below(longest - shortest + 1);
        static const int domains[] = {AF_INET, AF_INET6, AF_INET, AF_INET6, AF_UNIX};
        const struct copied like = {
            .fd = unbound,
            .domain = domains[below(sizeof domains / sizeof *domains)],
            .kind = below(2) == 0 ? SOCK_DGRAM : SOCK_STREAM,
        };
        unsigned char *raw = malloc(size), host[16];
        struct rs_effects said;
        unsigned port = 0;
        if (!raw)
            return 1;
        make(raw, size);
        const size_t length = expected(raw, size, like.domain, host, &port);
        const int rc = read_destination((const char *)raw, size, &like, &said);
        if (rc != (length ? 0 : -ESTALE))
            die("somewhere or nowhere", raw, size);
        if (rc == 0) {
            led++;
            if (said.length != length || memcmp(said.path, host, length) != 0 || said.port != port ||
                said.datagram != (like.kind == SOCK_DGRAM) || said.count != 1 || said.opens ||
                said.each[0].operation != RS_CONNECT)
                die("elsewhere", raw, size);
            ask_kernel(raw, size, &like, &said);
        }
        free(raw);
    }
    printf("%lu %lu\n", led, connected);
    return 0;
}
