/*
 * Connections on their way: the connects of blocking sockets to whom the peer does not answer at once.
 *
 * A connect(2) that a signal interrupts goes on in the kernel, and another one waits for it, or says what came of it. So
 * a thread of the engine waits for a moment only, and then hands the call to one thread that waits for all of them
 * (epoll(7)). There a call costs no thread, and a descriptor in a table that is not the harness's: a thousand would leave
 * it none (RLIMIT_NOFILE, which counts every table for itself).
 */
#include "held.h"
#include "newer.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>

#define FEW 8            /* threads of the engine that wait for others, of any kind */
#define LOOK_EVERY 50    /* milliseconds between two looks at those whose target may have died */
#define LOOKS 64         /* at so many of them: the kernel looks for each among all held calls */
#define UNDERWAY_MAX 16384
#define SPARE_FDS 24     /* what the thread needs beside the sockets */
#define EVENTS 64

struct journey {
    struct journey *next, *before;
    struct rs_held held; /* its reign is entered, no record has room yet */
    atomic_int handed; /* what the message that brings it does not say to the compiler: all of it is written */
    int fd;
    int asked; /* Python has decided: it says what came of it, too */
    size_t size, length;
    unsigned port, count;
    struct rs_effect each[EFFECTS_MAX];
    unsigned char host[16];
    char address[sizeof(struct sockaddr_in6)];
};

struct rs_underway {
    struct rs_engine *engine;
    pthread_t thread;
    sem_t ready;
    int works;       /* the thread has a table of its own; set before `ready` */
    int in, out;     /* `out` is the harness's, `in` the thread's */
    int events;
    int max;
    atomic_int count;
    struct journey *first;
    struct journey *look; /* where to look next */
    struct rs_worker worker;
};

/* As rs_connect_briefly, with the timer of the thread. */
static int connect_briefly(struct rs_worker *worker, const struct rs_identity *as, int fd, const char *address,
                           size_t size)
{
    if (worker->timer_there == 0)
        worker->timer_there = rs_interrupt_timer(&worker->timer) == 0 ? 1 : -1;
    return worker->timer_there < 0 ? -ESTALE : rs_connect_until(worker->timer, as, fd, address, size);
}

/*
 * The first connect of a call, in a thread of the engine. As long as few wait the watch ends the wait, after some
 * milliseconds: the timer costs about as much as a third of the connection.
 */
int held_connect_first(struct rs_held *held, const struct rs_identity *as, int fd, const char *address, size_t size)
{
    if (rs_has_time_limit(fd))
        return -ESTALE;
    if (atomic_load(&held->engine->blocking) >= FEW || held_may_block(held) < 0)
        return connect_briefly(held->worker, as, fd, address, size);
    atomic_store(&held->worker->connects, 1);
    int rc = rs_connect(as, fd, address, size);
    atomic_store(&held->worker->connects, 0);
    return rc;
}

/* The thread */

static void remove_journey(struct rs_underway *underway, struct journey *journey)
{
    if (underway->look == journey)
        underway->look = journey->next;
    if (journey->next)
        journey->next->before = journey->before;
    if (journey->before)
        journey->before->next = journey->next;
    else
        underway->first = journey->next;
    if (journey->fd >= 0) {
        /* By hand: the target's descriptors keep the socket, and so what is asked about it, alive. */
        (void)epoll_ctl(underway->events, EPOLL_CTL_DEL, journey->fd, NULL);
        rs_close_fd(&journey->fd); /* before the answer: a copy that lingers keeps the port taken */
        journey->fd = -1;
    }
}

/* The last of a journey: its call has been answered, or is answered by Python. */
static void end_journey(struct rs_underway *underway, struct journey *journey, enum rs_outcome outcome)
{
    held_leave(&journey->held, outcome);
    free(journey);
    atomic_fetch_sub(&underway->count, 1);
}

static void take_effects(const struct journey *journey, struct rs_effects *effects)
{
    effects->count = journey->count;
    memcpy(effects->each, journey->each, sizeof effects->each);
    effects->length = journey->length;
    effects->port = journey->port;
    effects->datagram = effects->opens = 0;
    memcpy(effects->path, journey->host, sizeof journey->host);
}

/* Nobody waits for an answer any more. */
static void give_up(struct rs_underway *underway, struct journey *journey)
{
    remove_journey(underway, journey);
    journey->held.n.arrived = 1; /* for Python, which remembers it */
    journey->held.n.error = ESRCH;
    end_journey(underway, journey, journey->asked ? RS_QUESTION : RS_ANSWERED);
}

/*
 * Answer with a result, for whose record there is room. Python only has what it decided to put on record: it reads nothing
 * a second time, since that could be something else by now.
 */
static void conclude(struct rs_underway *underway, struct journey *journey, int result)
{
    struct rs_held *held = &journey->held;
    struct rs_effects effects;
    remove_journey(underway, journey);
    if (journey->asked) {
        held->n.arrived = 1;
        held->n.error = result < 0 ? -result : 0;
        end_journey(underway, journey, RS_QUESTION);
        return;
    }
    take_effects(journey, &effects);
    held_record(held, &effects, result < 0 ? -result : 0);
    (void)(result < 0 ? held_fail(held, -result) : held_reply(held, result));
    end_journey(underway, journey, RS_ANSWERED);
}

/* Make sure that the end can be on record. -EAGAIN: later; otherwise nobody can know who calls. */
static int keep_room(struct journey *journey)
{
    struct rs_effects effects;
    if (journey->asked)
        return 0;
    take_effects(journey, &effects);
    int rc = held_keep(&journey->held, &effects);
    return rc == -ENOSPC ? -EAGAIN : rc;
}

/*
 * The end of a connection: what connect(2) gives; -EINTR: there is none yet. None is begun anew. One that has failed, or
 * that another thread of the target has taken back, only has its error told, and the socket left as connect(2) leaves it.
 */
static int finish(struct rs_underway *underway, struct journey *journey)
{
    const struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    const struct rs_identity *as = held_rights(&journey->held);
    unsigned char state = TCP_CLOSE; /* the first of struct tcp_info */
    socklen_t size = sizeof state;
    int error = 0;
    if (getsockopt(journey->fd, IPPROTO_TCP, TCP_INFO, &state, &size) < 0)
        return -errno;
    if (state == TCP_SYN_SENT || state == TCP_SYN_RECV)
        return -EINTR;
    if (state != TCP_CLOSE) {
        /* Should it be taken back just now this connects anew, which what decided may not stand for any more. */
        if (!as || !held_is_current(&journey->held))
            return 0;
        return connect_briefly(&underway->worker, as, journey->fd, journey->address, journey->size);
    }
    size = sizeof error;
    if (getsockopt(journey->fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
        error = errno;
    (void)connect(journey->fd, &nobody, sizeof nobody);
    return error ? -error : -ECONNABORTED;
}

/* Have it looked at again. */
static int await(const struct rs_underway *underway, struct journey *journey)
{
    struct epoll_event again = {.events = EPOLLOUT | EPOLLONESHOT, .data.ptr = journey};
    return rs_result(epoll_ctl(underway->events, EPOLL_CTL_MOD, journey->fd, &again));
}

/* Something has come of a connection: answer with what, unless that was nothing. */
static void arrive(struct rs_underway *underway, struct journey *journey)
{
    const struct timespec moment = {.tv_nsec = 1000000};
    struct rs_held *held = &journey->held;
    if (held_valid(held) < 0) {
        give_up(underway, journey);
        return;
    }
    held->task = NULL; /* another call may have used its place meanwhile */
    int rc = keep_room(journey);
    if (rc == -EAGAIN) {
        (void)nanosleep(&moment, NULL); /* for whoever takes the records: nobody else may answer this */
        rc = -EINTR;
    } else if (rc == 0) {
        rc = finish(underway, journey);
    } else {
        atomic_fetch_add(&held->engine->unrecorded, 1);
        (void)held_fail(held, EACCES);
        give_up(underway, journey);
        return;
    }
    if (rc == -EINTR && await(underway, journey) == 0) {
        if (held->reserved) {
            rs_journal_drop(held->engine->records, held->reserved);
            held->reserved = 0;
        }
        return;
    }
    conclude(underway, journey, rc == -EINTR || rc == -ESTALE ? -ENFILE : rc);
}

static void add_journey(struct rs_underway *underway, struct journey *journey, int fd)
{
    journey->fd = fd;
    journey->before = NULL;
    journey->next = underway->first;
    if (underway->first)
        underway->first->before = journey;
    underway->first = journey;
    struct epoll_event arrival = {.events = EPOLLOUT | EPOLLONESHOT, .data.ptr = journey};
    if (fd >= 0 && epoll_ctl(underway->events, EPOLL_CTL_ADD, fd, &arrival) == 0)
        return;
    if (keep_room(journey) == 0) {
        conclude(underway, journey, -ENFILE);
        return;
    }
    atomic_fetch_add(&journey->held.engine->unrecorded, 1);
    (void)held_fail(&journey->held, EACCES);
    give_up(underway, journey);
}

/* Take what has been handed over. 0 at the end of all. */
static int receive_journeys(struct rs_underway *underway)
{
    for (;;) {
        struct journey *journey;
        union {
            struct cmsghdr head;
            char room[CMSG_SPACE(sizeof(int))];
        } control;
        struct iovec part = {.iov_base = &journey, .iov_len = sizeof journey};
        struct msghdr message = {
            .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        ssize_t got = recvmsg(underway->in, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK;
        if (got != (ssize_t)sizeof journey || !journey)
            return 0;
        int fd = -1; /* as where there was no descriptor left for it */
        const struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        if (head && head->cmsg_type == SCM_RIGHTS && head->cmsg_len == CMSG_LEN(sizeof fd))
            memcpy(&fd, CMSG_DATA(head), sizeof fd);
        if (atomic_load(&journey->handed))
            add_journey(underway, journey, fd);
    }
}

static void look_after(struct rs_underway *underway)
{
    for (int i = 0; i < LOOKS; i++) {
        struct journey *journey = underway->look ? underway->look : underway->first;
        if (!journey)
            return;
        underway->look = journey->next;
        if (held_valid(&journey->held) < 0)
            give_up(underway, journey);
        if (!underway->look)
            return;
    }
}

static int ascending(const void *left, const void *right)
{
    return *(const int *)left - *(const int *)right;
}

/* Have a table of descriptors with nothing in it but what is needed here. */
static int leave_table(const struct rs_underway *underway)
{
    int kept[] = {underway->engine->listener, underway->engine->wake, underway->in};
    const size_t count = sizeof kept / sizeof *kept;
    qsort(kept, count, sizeof *kept, ascending);
    if (syscall(SYS_close_range, (unsigned)kept[count - 1] + 1, ~0U, CLOSE_RANGE_UNSHARE) < 0)
        return -errno;
    unsigned from = 0;
    for (size_t i = 0; i < count; i++) {
        if ((unsigned)kept[i] > from && syscall(SYS_close_range, from, (unsigned)kept[i] - 1, 0) < 0)
            return -errno;
        from = (unsigned)kept[i] + 1;
    }
    /* What writes a last word to descriptor 2 must not write it to the socket of a target. */
    for (int i = 0; i < 3; i++)
        if (fcntl(i, F_GETFD) < 0 && open("/dev/null", O_RDWR | O_CLOEXEC) < 0)
            return -errno;
    return 0;
}

static int prepare(struct rs_underway *underway)
{
    (void)rs_block_signals();
    (void)rs_thread_prepare();
    int rc = leave_table(underway);
    if (rc == 0)
        rc = rs_interrupt_timer(&underway->worker.timer);
    if (rc < 0)
        return rc;
    underway->worker.timer_there = 1;
    underway->events = rs_result(epoll_create1(EPOLL_CLOEXEC));
    struct epoll_event handed = {.events = EPOLLIN};
    return underway->events < 0
               ? underway->events
               : rs_result(epoll_ctl(underway->events, EPOLL_CTL_ADD, underway->in, &handed));
}

static void *wait_for_all(void *argument)
{
    struct rs_underway *underway = argument;
    int64_t looked = 0;
    int goes_on = prepare(underway) == 0;
    underway->works = goes_on;
    (void)sem_post(&underway->ready);
    while (goes_on) {
        struct epoll_event events[EVENTS];
        int there = epoll_wait(underway->events, events, EVENTS, underway->first ? LOOK_EVERY : -1);
        if (there < 0 && errno != EINTR)
            break;
        int handed = 0;
        for (int i = 0; i < there; i++) {
            if (events[i].data.ptr)
                arrive(underway, events[i].data.ptr);
            else
                handed = 1;
        }
        /* Last: an event of this round may be about a journey that has ended. Each has one, and ends by its own. */
        if (handed)
            goes_on = receive_journeys(underway);
        const int64_t now = held_clock();
        if (now - looked >= LOOK_EVERY * 1000000) {
            looked = now;
            look_after(underway);
        }
    }
    while (underway->first) {
        (void)held_fail(&underway->first->held, EINTR);
        give_up(underway, underway->first);
    }
    for (int i = 0; i < TASKS; i++)
        held_forget(&underway->worker.tasks[i]);
    if (underway->worker.timer_there > 0)
        (void)timer_delete(underway->worker.timer);
    /* The table ends with the thread, which may be later than pthread_join(3) sees. */
    (void)syscall(SYS_close_range, 0U, ~0U, 0);
    return NULL;
}

/* Everybody else */

static int start(struct rs_engine *engine)
{
    struct rs_underway *underway = calloc(1, sizeof *underway);
    struct rlimit limit;
    int ends[2];
    if (!underway)
        return -ENOMEM;
    underway->engine = underway->worker.engine = engine;
    underway->events = -1;
    for (int i = 0; i < TASKS; i++)
        underway->worker.tasks[i].fd = underway->worker.tasks[i].pidfd = -1;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
        free(underway);
        return -EAGAIN;
    }
    underway->max = limit.rlim_cur < UNDERWAY_MAX ? (int)limit.rlim_cur - SPARE_FDS : UNDERWAY_MAX;
    underway->out = ends[0];
    underway->in = ends[1];
    int rc = sem_init(&underway->ready, 0, 0) < 0 ? -errno : 0;
    if (rc == 0) {
        rc = -pthread_create(&underway->thread, NULL, wait_for_all, underway);
        if (rc == 0) {
            while (sem_wait(&underway->ready) < 0 && errno == EINTR)
                ;
            if (!underway->works) {
                rc = -EPERM;
                (void)pthread_join(underway->thread, NULL);
            }
        }
        (void)sem_destroy(&underway->ready);
    }
    rs_close_fd(&ends[1]); /* the thread has its own */
    if (rc < 0) {
        rs_close_fd(&ends[0]);
        free(underway);
        return rc;
    }
    engine->underway = underway;
    return 0;
}

/* With `departing` held, as the rest: else `out` could be somebody else's number by now. NULL: there is none. */
static struct rs_underway *started(struct rs_engine *engine)
{
    if (atomic_load(&engine->stopping))
        return NULL;
    if (!engine->underway && !engine->no_underway)
        engine->no_underway = start(engine) < 0;
    return engine->underway;
}

static int hand_over(const struct rs_underway *underway, struct journey *journey, int fd)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    memset(&control, 0, sizeof control);
    control.head = (struct cmsghdr){
        .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
    memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
    if (journey)
        atomic_store(&journey->handed, 1);
    struct iovec part = {.iov_base = &journey, .iov_len = sizeof journey};
    const struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = journey ? &control : NULL,
        .msg_controllen = journey ? sizeof control : 0,
    };
    ssize_t sent;
    do
        sent = sendmsg(underway->out, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : 0;
}

/* Have a journey begin: it is the thread's from here, unless this is negative. */
static int depart(struct rs_engine *engine, struct journey *journey, int fd)
{
    int rc = -EAGAIN;
    (void)pthread_mutex_lock(&engine->departing);
    struct rs_underway *underway = started(engine);
    if (underway) {
        journey->held.worker = &underway->worker;
        if (atomic_fetch_add(&underway->count, 1) < underway->max)
            rc = hand_over(underway, journey, fd);
        if (rc < 0)
            atomic_fetch_sub(&underway->count, 1);
    }
    (void)pthread_mutex_unlock(&engine->departing);
    if (rc < 0)
        free(journey);
    return rc;
}

int rs_engine_depart(struct rs_engine *engine, const struct rs_notification *n, int fd, const char *address,
                     size_t size)
{
    if (size > sizeof ((struct journey *)NULL)->address)
        return -EINVAL;
    struct journey *journey = calloc(1, sizeof *journey);
    if (!journey)
        return -ENOMEM;
    journey->asked = 1;
    journey->size = size;
    memcpy(journey->address, address, size);
    journey->held = (struct rs_held){.engine = engine, .n = *n, .began = held_clock()};
    journey->held.reign = held_enter(engine);
    struct rs_held held = journey->held;
    int rc = depart(engine, journey, fd);
    if (rc < 0)
        held_quit(&held);
    return rc;
}

int held_depart(struct rs_held *held, const struct rs_effects *effects, int *fd, const char *address, size_t size)
{
    /* A record that has to be there needs its room until then. */
    if (held->reserved && (held->reign->flags & RS_RECORD_REQUIRED))
        return -EAGAIN;
    struct journey *journey = calloc(1, sizeof *journey);
    if (!journey)
        return -ENOMEM;
    journey->held = *held;
    journey->held.task = NULL;
    journey->held.reserved = 0;
    journey->held.blocks = 0;
    journey->size = size;
    memcpy(journey->address, address, size);
    journey->length = effects->length;
    journey->port = effects->port;
    journey->count = effects->count;
    memcpy(journey->each, effects->each, sizeof journey->each);
    memcpy(journey->host, effects->path, effects->length);
    int rc = depart(held->engine, journey, *fd);
    if (rc < 0)
        return rc;
    held->reign = NULL; /* it goes along */
    rs_close_fd(fd);
    *fd = -1;
    return 0;
}

/* Once `stopping` is set. */
void underway_stop(struct rs_engine *engine)
{
    (void)pthread_mutex_lock(&engine->departing);
    struct rs_underway *underway = engine->underway;
    const int runs = underway && underway->out >= 0;
    if (runs) {
        (void)hand_over(underway, NULL, -1);
        rs_close_fd(&underway->out);
        underway->out = -1;
    }
    (void)pthread_mutex_unlock(&engine->departing);
    if (runs)
        (void)pthread_join(underway->thread, NULL);
}

void underway_free(struct rs_underway *underway)
{
    if (!underway)
        return;
    for (int i = 0; i < TASKS; i++)
        free(underway->worker.tasks[i].who);
    free(underway);
}

/* In a forked child. */
void underway_forsake(struct rs_underway *underway)
{
    if (underway)
        rs_close_fd(&underway->out);
}
