#include "flights.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>
#include <time.h>

#define OVERDUE 200000000 /* nanoseconds after which the launcher may have been stopped along with its command */
#define SOON 32           /* outcomes that are told of together */
#define UNTAKEN_MAX (8u << 20) /* bytes of outcomes that wait for Python; beyond that, execs do, too */

/* One on its way, or one that has landed. Of Python's nothing is known but the process. */
struct flight {
    struct flight *next;
    pid_t tgid;
    int64_t since; /* CLOCK_MONOTONIC, nanoseconds; 0: Python's */
    struct rs_notification n;
    struct rs_landed head;
    int file;     /* a memfd with the strings until it is ordered, or -1 */
    char *packet; /* room for what the launcher says */
    char strings[]; /* images, command line, environment */
};

struct rs_flights {
    int channel, launcher; /* -1: there is none */
    atomic_int proven;
    pthread_mutex_t lock; /* of all that follows */
    struct flight *first;
    struct flight *landed, **landed_end;
    size_t landed_count, landed_size;
    char packet[sizeof(struct rs_executed) + (RS_MAX_CHILDREN + RS_MAX_ANCESTORS) * sizeof(struct rs_child)];
};

int flights_new(struct rs_flights **out)
{
    struct rs_flights *flights = calloc(1, sizeof *flights);
    if (!flights)
        return -ENOMEM;
    const int rc = pthread_mutex_init(&flights->lock, NULL);
    if (rc) {
        free(flights);
        return -rc;
    }
    flights->channel = flights->launcher = -1;
    flights->landed_end = &flights->landed;
    *out = flights;
    return 0;
}

void flights_close(struct rs_flights *flights)
{
    rs_close_fd(&flights->channel);
    rs_close_fd(&flights->launcher);
}

static void free_flight(struct flight *flight)
{
    rs_close_fd(&flight->file);
    free(flight->packet);
    free(flight);
}

void flights_free(struct rs_flights *flights)
{
    if (!flights)
        return;
    flights_close(flights);
    for (struct flight *at = flights->first, *next; at; at = next) {
        next = at->next;
        free_flight(at);
    }
    for (struct flight *at = flights->landed, *next; at; at = next) {
        next = at->next;
        free_flight(at);
    }
    (void)pthread_mutex_destroy(&flights->lock);
    free(flights);
}

void flights_open(struct rs_flights *flights, int channel, int launcher)
{
    flights->channel = channel;
    flights->launcher = launcher;
}

void flights_prove(struct rs_flights *flights, int proven)
{
    atomic_store(&flights->proven, proven);
}

/* All that follows is with the lock held, up to the functions that take it. */

static struct flight **find(struct rs_flights *flights, pid_t tgid)
{
    struct flight **at = &flights->first;
    while (*at && (*at)->tgid != tgid)
        at = &(*at)->next;
    return at;
}

/* Keep an outcome for Python. It was given room before the exec, so that this cannot fail. */
static void land(struct rs_flights *flights, struct flight *flight, size_t size)
{
    char *fit = realloc(flight->packet, size);
    flight->packet = fit ? fit : flight->packet;
    memcpy(flight->packet, flights->packet, size);
    flight->head.packet = (uint32_t)size;
    flight->head.size += (uint32_t)size;
    flight->next = NULL;
    *flights->landed_end = flight;
    flights->landed_end = &flight->next;
    flights->landed_count++;
    flights->landed_size += flight->head.size;
}

/* One message of the launcher; bits of RS_HEARD_*. */
static int hear_one(struct rs_flights *flights, size_t size, struct rs_notification *question)
{
    struct rs_executed said;
    if (size < sizeof said)
        return 0;
    memcpy(&said, flights->packet, sizeof said);
    struct flight **place = find(flights, (pid_t)said.pid);
    struct flight *flight = *place;
    if (said.type != RS_EXECUTED || !flight || flight->n.id != said.cookie)
        return 0;
    *place = flight->next;
    switch (said.outcome) {
    case RS_COMMITTED:
        land(flights, flight, size);
        return flights->landed_count % SOON == 0 ? RS_HEARD_TELL : 0;
    case RS_TAMPERED:
        land(flights, flight, size);
        return RS_HEARD_TELL;
    case RS_UNTRACED:
        *question = flight->n;
        flights_prove(flights, 0);
        free_flight(flight);
        return RS_HEARD_QUESTION;
    default:
        free_flight(flight);
        return 0;
    }
}

/* Hear until there is nothing more, or a question. */
static int hear(struct rs_flights *flights, struct rs_notification *question)
{
    int found = 0;
    while (!(found & RS_HEARD_QUESTION)) {
        const ssize_t size = recv(flights->channel, flights->packet, sizeof flights->packet, MSG_DONTWAIT);
        if (size <= 0)
            break;
        found |= hear_one(flights, (size_t)size, question);
    }
    return found;
}

int flights_hear(struct rs_flights *flights, struct rs_notification *question)
{
    (void)pthread_mutex_lock(&flights->lock);
    const int found = hear(flights, question);
    (void)pthread_mutex_unlock(&flights->lock);
    return found;
}

int flights_ready(struct rs_flights *flights)
{
    (void)pthread_mutex_lock(&flights->lock);
    const int ready = atomic_load(&flights->proven) && flights->channel >= 0 && flights->landed_size < UNTAKEN_MAX;
    (void)pthread_mutex_unlock(&flights->lock);
    return ready;
}

int flights_claim(struct rs_flights *flights, pid_t tgid)
{
    struct flight *claim = calloc(1, sizeof *claim);
    if (!claim)
        return -ENOMEM;
    claim->tgid = tgid;
    claim->file = -1;
    (void)pthread_mutex_lock(&flights->lock);
    struct flight **place = find(flights, tgid);
    const int busy = *place != NULL;
    if (!busy)
        *place = claim;
    (void)pthread_mutex_unlock(&flights->lock);
    if (busy)
        free_flight(claim);
    return busy ? -EBUSY : 0;
}

void flights_unclaim(struct rs_flights *flights, pid_t tgid)
{
    (void)pthread_mutex_lock(&flights->lock);
    struct flight **place = find(flights, tgid);
    struct flight *claim = *place;
    if (claim && claim->since == 0)
        *place = claim->next;
    else
        claim = NULL;
    (void)pthread_mutex_unlock(&flights->lock);
    if (claim)
        free_flight(claim);
}

static int64_t now(void)
{
    struct timespec at;
    if (clock_gettime(CLOCK_MONOTONIC, &at) < 0)
        return 1;
    return (int64_t)at.tv_sec * 1000000000 + at.tv_nsec;
}

static struct flight *plan_flight(const struct rs_notification *n, const struct rs_plan *plan)
{
    const size_t strings = (size_t)plan->command_size + plan->environment_size;
    struct flight *flight = malloc(sizeof *flight + plan->images_size + strings);
    if (!flight)
        return NULL;
    *flight = (struct flight){
        .tgid = (pid_t)n->pid,
        .since = now(),
        .file = -1,
        .n = *n,
        .head = {
            .size = (uint32_t)(sizeof flight->head + plan->images_size + strings),
            .nr = n->nr,
            .images = plan->images_size,
            .command = plan->command_size,
            .environment = plan->environment_size,
            .dev = plan->image.dev,
            .ino = plan->image.ino,
        },
        .packet = malloc(sizeof((struct rs_flights *)0)->packet),
    };
    memcpy(flight->strings, plan->images, plan->images_size);
    memcpy(flight->strings + plan->images_size, plan->strings, strings);
    if (flight->packet)
        return flight;
    free_flight(flight);
    return NULL;
}

/* A memfd with these bytes, or -errno. */
static int in_memory(const char *bytes, size_t size)
{
    RS_CLOSING int fd = rs_result(memfd_create("exec", MFD_CLOEXEC));
    if (fd < 0)
        return fd;
    for (size_t done = 0; done < size;) {
        const ssize_t put = write(fd, bytes + done, size - done);
        if (put < 0)
            return -errno;
        done += (size_t)put;
    }
    return rs_steal_fd(&fd);
}

int flights_enter(struct rs_flights *flights, const struct rs_notification *n, const struct rs_plan *plan)
{
    const size_t size = (size_t)plan->command_size + plan->environment_size;
    /* An outcome without room would be taken never, and none behind it. What scripts put before the arguments counts. */
    if (size > RS_STRINGS_ROOM || plan->images_size > RS_IMAGES_ROOM)
        return -E2BIG;
    struct flight *flight = plan_flight(n, plan);
    if (!flight)
        return -ENOMEM;
    int rc = size > RS_MAX_PACKED ? in_memory(plan->strings, size) : 0;
    if (rc >= 0) {
        flight->file = size > RS_MAX_PACKED ? rc : -1;
        (void)pthread_mutex_lock(&flights->lock);
        struct flight **place = find(flights, flight->tgid);
        rc = *place ? -EBUSY : 0;
        if (rc == 0)
            *place = flight;
        (void)pthread_mutex_unlock(&flights->lock);
    }
    if (rc < 0)
        free_flight(flight);
    return rc < 0 ? rc : 0;
}

/* The order; its strings in a file if they are many. Never waits, since the launcher may do so for us. */
static int send_order(int channel, const struct flight *flight, const struct rs_plan *plan)
{
    struct rs_trace order = {
        .type = RS_TRACE,
        .tid = flight->n.pid,
        .tgid = flight->n.pid,
        .command_size = plan->command_size,
        .cookie = flight->n.id,
        .image = plan->image,
        .interpreter = plan->interpreter,
        .environment_size = plan->environment_size,
    };
    struct iovec parts[] = {
        {.iov_base = &order, .iov_len = sizeof order},
        {
            .iov_base = (void *)(uintptr_t)plan->strings,
            .iov_len = (size_t)plan->command_size + plan->environment_size,
        },
    };
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = flight->file < 0 ? 2 : 1};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } carried = {0};
    if (flight->file >= 0) {
        message.msg_control = carried.space;
        message.msg_controllen = sizeof carried.space;
        struct cmsghdr *item = CMSG_FIRSTHDR(&message);
        item->cmsg_level = SOL_SOCKET;
        item->cmsg_type = SCM_RIGHTS;
        item->cmsg_len = CMSG_LEN(sizeof flight->file);
        memcpy(CMSG_DATA(item), &flight->file, sizeof flight->file);
    }
    return sendmsg(channel, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int flights_order(struct rs_flights *flights, const struct rs_notification *n, const struct rs_plan *plan)
{
    (void)pthread_mutex_lock(&flights->lock);
    struct flight *flight = *find(flights, (pid_t)n->pid);
    const int rc = flight && flight->n.id == n->id ? send_order(flights->channel, flight, plan) : -ESRCH;
    if (rc == 0)
        rs_close_fd(&flight->file);
    if (rc == 0)
        flight->file = -1;
    (void)pthread_mutex_unlock(&flights->lock);
    return rc;
}

void flights_wait(struct rs_flights *flights)
{
    struct pollfd fd = {.fd = flights->channel, .events = POLLIN | POLLOUT};
    (void)poll(&fd, 1, 50);
}

void flights_cancel(struct rs_flights *flights, const struct rs_notification *n)
{
    (void)pthread_mutex_lock(&flights->lock);
    struct flight **place = find(flights, (pid_t)n->pid);
    struct flight *flight = *place;
    if (flight && flight->n.id == n->id)
        *place = flight->next;
    else
        flight = NULL;
    (void)pthread_mutex_unlock(&flights->lock);
    if (flight)
        free_flight(flight);
}

static char *put(char *at, const void *bytes, size_t size)
{
    memcpy(at, bytes, size);
    return at + size;
}

int64_t flights_take(struct rs_flights *flights, char *buffer, size_t size)
{
    size_t done = 0;
    (void)pthread_mutex_lock(&flights->lock);
    while (flights->landed && flights->landed->head.size <= size - done) {
        struct flight *flight = flights->landed;
        flights->landed = flight->next;
        if (!flights->landed)
            flights->landed_end = &flights->landed;
        flights->landed_count--;
        flights->landed_size -= flight->head.size;
        char *at = put(buffer + done, &flight->head, sizeof flight->head);
        at = put(at, flight->packet, flight->head.packet);
        (void)put(at, flight->strings, flight->head.size - sizeof flight->head - flight->head.packet);
        done += flight->head.size;
        free_flight(flight);
    }
    (void)pthread_mutex_unlock(&flights->lock);
    return (int64_t)done;
}

int flights_look(struct rs_flights *flights, int64_t time)
{
    int waits = 0, overdue = 0;
    (void)pthread_mutex_lock(&flights->lock);
    for (const struct flight *at = flights->first; at; at = at->next) {
        waits |= at->since != 0;
        overdue |= at->since != 0 && time - at->since > OVERDUE;
    }
    if (overdue)
        (void)rs_nudge(flights->launcher);
    (void)pthread_mutex_unlock(&flights->lock);
    return waits;
}
