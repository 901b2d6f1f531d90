/*
 * Times one system call: `calls [-w HINDRANCE] [-p PAUSE] CALL COUNT SECONDS DIRECTORY` prints median and 99th
 * percentile in microseconds.
 *
 * Ends after COUNT samples or SECONDS, whatever comes first. What is free is timed in batches, since reading the clock
 * costs as much. PAUSE is slept between samples, in microseconds, as a program does that is busy otherwise. A
 * HINDRANCE is another thread that stays in a call meanwhile: `fifo` opens one without a peer, `connect` waits for a
 * listener that accepts nobody, as a thousand threads do in `connects`, `question` opens the file that the policy asks
 * about.
 */
#define _GNU_SOURCE
#include "timing.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WARM_UP = 20, HINDERED_AFTER_US = 200000, CONNECTS = 1000, CONNECTS_AFTER_US = 2000000, BATCH = 100 };

extern char **environ;

static int listener = -1;
static int sender = -1;
static int large = -1;
static int opened = -1;
static int client = -1; /* The ends of an established connection. */
static int server = -1;
static struct sockaddr_in address; /* Of the listener, or of the datagram socket that nobody reads. */

static bool getppid_call(void) { return syscall(SYS_getppid) >= 0; }

static bool stat_call(void)
{
    struct stat st;
    return stat("file", &st) == 0;
}

static bool read_call(void)
{
    static char page[4096];
    const ssize_t got = read(large, page, sizeof page);
    return got > 0 || (got == 0 && lseek(large, 0, SEEK_SET) == 0);
}

static bool close_it(void) { return close(opened) == 0; }

static bool open_call(void)
{
    opened = open("file", O_RDONLY | O_CLOEXEC);
    return opened >= 0;
}

/* What every policy here lets everybody read, far away from what it restricts; no link leads there. */
static bool clean_call(void)
{
    opened = open("/usr/bin/env", O_RDONLY | O_CLOEXEC);
    return opened >= 0;
}

static bool denied_call(void) { return open(".env", O_RDONLY | O_CLOEXEC) < 0 && (errno == EACCES || errno == EPERM); }

static bool create_call(void)
{
    const int fd = open("new", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return fd >= 0 && close(fd) == 0 && unlink("new") == 0;
}

static bool mkdir_call(void) { return mkdir("made", 0700) == 0; }

static bool remove_it(void) { return rmdir("made") == 0; }

static bool rename_call(void) { return rename("named", "renamed") == 0; }

static bool rename_back(void) { return rename("renamed", "named") == 0; }

static bool chmod_call(void)
{
    static mode_t mode = 0600;
    mode ^= 0040;
    return chmod("named", mode) == 0;
}

static bool new_socket(void)
{
    opened = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return opened >= 0;
}

static bool connect_call(void) { return connect(opened, (struct sockaddr *)&address, sizeof address) == 0; }

/* Without accepting, the queue of the listener would fill up; without aborting, the ports would run out. */
static bool accept_and_abort(void)
{
    const struct linger abort_it = {.l_onoff = 1, .l_linger = 0};
    const int peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    return peer >= 0 && setsockopt(opened, SOL_SOCKET, SO_LINGER, &abort_it, sizeof abort_it) == 0 && close_it() &&
           close(peer) == 0;
}

static bool send_call(bool addressed)
{
    struct iovec part = {.iov_base = "x", .iov_len = 1};
    const struct msghdr message = {
        .msg_name = addressed ? &address : NULL,
        .msg_namelen = addressed ? sizeof address : 0,
        .msg_iov = &part,
        .msg_iovlen = 1,
    };
    return sendmsg(sender, &message, 0) == 1;
}

static bool sendmsg_call(void) { return send_call(true); }

static bool sendmsg_connected_call(void) { return send_call(false); }

static bool fill_call(void)
{
    static const char bytes[BATCH];
    return send(server, bytes, sizeof bytes, 0) == sizeof bytes;
}

static bool drain_call(void)
{
    char bytes[BATCH];
    return recv(server, bytes, sizeof bytes, MSG_WAITALL) == sizeof bytes;
}

static bool read_established_call(void)
{
    char byte;
    return read(client, &byte, 1) == 1;
}

static bool write_established_call(void) { return write(client, "x", 1) == 1; }

static bool send_established_call(void) { return send(client, "x", 1, 0) == 1; }

static bool spawn(const char *path)
{
    pid_t pid;
    char *argv[] = {"true", NULL};
    int status;
    return posix_spawn(&pid, path, NULL, NULL, argv, environ) == 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

static bool spawn_call(void) { return spawn("/bin/true"); }

static bool spawn_static_call(void) { return spawn("./static"); }

static int bound(int type)
{
    socklen_t size = sizeof address;
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    must(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0, "bind");
    must(getsockname(fd, (struct sockaddr *)&address, &size) == 0, "getsockname");
    return fd;
}

static void prepare_read(void)
{
    large = open("large", O_RDONLY | O_CLOEXEC);
    must(large >= 0, "large");
}

static void prepare_name(void)
{
    const int fd = open("named", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    must(fd >= 0 && close(fd) == 0, "named");
}

static void prepare_connect(void)
{
    listener = bound(SOCK_STREAM);
    must(listen(listener, 16) == 0, "listen");
}

/* The name that the policy has: that of this machine, which every one has (hosts(5)). */
static void prepare_connect_by_name(void)
{
    const struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    must(getaddrinfo("localhost", NULL, &hints, &found) == 0, "localhost");
    prepare_connect();
    const struct sockaddr_in *named = (const struct sockaddr_in *)(const void *)found->ai_addr;
    must(named->sin_addr.s_addr == address.sin_addr.s_addr, "localhost is elsewhere");
    freeaddrinfo(found);
}

static void prepare_established(void)
{
    prepare_connect();
    must(new_socket() && connect_call(), "connect");
    client = opened;
    server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    must(server >= 0, "accept");
}

static void prepare_sendmsg(void)
{
    bound(SOCK_DGRAM);
    sender = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    must(sender >= 0, "socket");
}

static void prepare_sendmsg_connected(void)
{
    prepare_sendmsg();
    must(connect(sender, (struct sockaddr *)&address, sizeof address) == 0, "connect");
}

struct timed {
    const char *name;
    size_t batch;         /* Calls a sample. */
    void (*prepare)(void); /* Once. */
    bool (*before)(void); /* Not timed, as `after`. */
    bool (*call)(void);
    bool (*after)(void);
};

static const struct timed calls[] = {
    {"getppid", 500, NULL, NULL, getppid_call, NULL},
    {"stat", 100, NULL, NULL, stat_call, NULL},
    {"read", 100, prepare_read, NULL, read_call, NULL},
    {"open performed", 1, NULL, NULL, open_call, close_it},
    {"open clean", 1, NULL, NULL, clean_call, close_it},
    {"open denied", 1, NULL, NULL, denied_call, NULL},
    {"create+unlink", 1, NULL, NULL, create_call, NULL},
    {"mkdir", 1, NULL, NULL, mkdir_call, remove_it},
    {"rename", 1, prepare_name, NULL, rename_call, rename_back},
    {"chmod", 1, prepare_name, NULL, chmod_call, NULL},
    {"connect", 1, prepare_connect, new_socket, connect_call, accept_and_abort},
    {"connect by name", 1, prepare_connect_by_name, new_socket, connect_call, accept_and_abort},
    {"read established", BATCH, prepare_established, fill_call, read_established_call, NULL},
    {"write established", BATCH, prepare_established, NULL, write_established_call, drain_call},
    {"send established", BATCH, prepare_established, NULL, send_established_call, drain_call},
    {"sendmsg", 1, prepare_sendmsg, NULL, sendmsg_call, NULL},
    {"sendmsg connected", 1, prepare_sendmsg_connected, NULL, sendmsg_connected_call, NULL},
    {"spawn", 1, NULL, NULL, spawn_call, NULL},
    {"spawn static", 1, NULL, NULL, spawn_static_call, NULL},
};

/* Returns microseconds a call. */
static double sample(const struct timed *timed)
{
    must(!timed->before || timed->before(), timed->name);
    const double from = now_us();
    for (size_t n = 0; n < timed->batch; n++)
        must(timed->call(), timed->name);
    const double to = now_us();
    must(!timed->after || timed->after(), timed->name);
    return (to - from) / (double)timed->batch;
}

static void *open_fifo(void *nothing)
{
    open("fifo", O_RDONLY | O_CLOEXEC);
    return nothing;
}

static void *open_asked(void *nothing)
{
    open("asked", O_RDONLY | O_CLOEXEC);
    return nothing;
}

/* The queue of a listener takes one more than it says; who comes later gets no answer. */
static void *connect_in_vain(void *nothing)
{
    const int full = bound(SOCK_STREAM);
    const struct sockaddr_in to = address;
    must(listen(full, 0) == 0, "listen");
    for (;;) {
        const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        must(fd >= 0, "socket");
        if (connect(fd, (const struct sockaddr *)&to, sizeof to) != 0)
            return nothing;
    }
}

static struct sockaddr_in full; /* Nobody is accepted there any more. */
static atomic_int connects_over;
static atomic_int connects_error;

static void *connect_for_long(void *nothing)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int error = fd < 0 || connect(fd, (const struct sockaddr *)&full, sizeof full) != 0 ? errno : 0;
    atomic_store(&connects_error, error);
    atomic_fetch_add(&connects_over, 1);
    return nothing;
}

static void check_connects(void)
{
    if (atomic_load(&connects_over) == 0)
        return;
    errno = atomic_load(&connects_error);
    fprintf(stderr, "%d of %d connects have ended\n", atomic_load(&connects_over), CONNECTS);
    must(false, "a connect that should wait");
}

static void hinder_by_many(void)
{
    const struct sockaddr_in before = address;
    pthread_attr_t small;
    pthread_t thread;
    const int queue = bound(SOCK_STREAM);
    full = address;
    address = before;
    must(listen(queue, 0) == 0, "listen");
    for (int n = 0; n < 2; n++) {
        const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        must(fd >= 0, "socket");
        must(connect(fd, (const struct sockaddr *)&full, sizeof full) == 0 || errno == EINPROGRESS, "fill");
    }
    usleep(HINDERED_AFTER_US);
    must(pthread_attr_init(&small) == 0 && pthread_attr_setstacksize(&small, 1 << 16) == 0, "attributes");
    for (int n = 0; n < CONNECTS; n++)
        must(pthread_create(&thread, &small, connect_for_long, NULL) == 0, "pthread_create");
    usleep(CONNECTS_AFTER_US);
    check_connects();
}

static void hinder(const char *hindrance)
{
    static const struct {
        const char *name;
        void *(*wait)(void *);
    } hindrances[] = {{"fifo", open_fifo}, {"connect", connect_in_vain}, {"question", open_asked}};
    pthread_t thread;
    if (strcmp(hindrance, "connects") == 0) {
        hinder_by_many();
        return;
    }
    for (size_t i = 0; i < sizeof hindrances / sizeof *hindrances; i++)
        if (strcmp(hindrances[i].name, hindrance) == 0) {
            must(pthread_create(&thread, NULL, hindrances[i].wait, NULL) == 0, "pthread_create");
            usleep(HINDERED_AFTER_US);
            must(pthread_tryjoin_np(thread, NULL) == EBUSY, "the hindrance has ended");
            return;
        }
    must(strcmp(hindrance, "none") == 0, hindrance);
}

static const struct timed *named(const char *name)
{
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (strcmp(calls[i].name, name) == 0)
            return &calls[i];
    must(false, "there is no such call");
    return NULL;
}

int main(int argc, char **argv)
{
    const char *hindrance = "none";
    useconds_t pause_us = 0;
    for (int option; (option = getopt(argc, argv, "w:p:")) != -1;) {
        must(option != '?', "options");
        if (option == 'w')
            hindrance = optarg;
        else
            pause_us = (useconds_t)strtoul(optarg, NULL, 10);
    }
    must(argc - optind == 4, "usage: calls [-w HINDRANCE] [-p PAUSE] CALL COUNT SECONDS DIRECTORY");
    argv += optind;
    const struct timed *timed = named(argv[0]);
    const size_t count = strtoul(argv[1], NULL, 10);
    double *samples = calloc(count, sizeof *samples);
    must(count > 0 && samples != NULL, "samples");
    must(chdir(argv[3]) == 0, argv[3]);
    if (timed->prepare)
        timed->prepare();
    hinder(hindrance);
    for (int n = 0; n < WARM_UP; n++)
        sample(timed);
    const double end = now_us() + strtod(argv[2], NULL) * 1e6;
    size_t taken = 0;
    while (taken < count && (taken == 0 || now_us() < end)) {
        if (pause_us)
            usleep(pause_us);
        samples[taken++] = sample(timed);
    }
    check_connects();
    print_quantiles(samples, taken);
    /* Not exit(): the hindrance still waits. */
    _exit(0);
}
