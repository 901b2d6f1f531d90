#include "held.h"

#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>

#include "newer.h"

#define QUESTIONS_FIRST 256
#define WALKER_MEMORY (8u << 20)
#define TICK 10000000          /* nanoseconds between two looks of the watch */
#define PATIENCE 50000000      /* how long a call may take before the watch asks whether its target still lives */
#define SOLO_TICK 1000000     /* the same while leads are withheld and calls come */
#define SOLO_TICKS 5           /* looks without any call before none are expected */
#define STUCK 1000000          /* how long a call may take before somebody else receives */
#define SOLO 64                /* calls in a row of one thread before one lead is enough for it */
#define QUIET_TICKS 100        /* looks without any call before the watch sleeps, or looks less often: */
#define QUIET_TICK 50000000    /* while some call waits for others */
#define BLOCKING_MAX 32        /* calls that wait for others at a time */
#define SPARE 2                /* threads that do not, at least */
#define STOP_TRIES 5000        /* of a millisecond each */

/* Questions */

static void wake(struct rs_engine *engine)
{
    const uint64_t one = 1;
    (void)!write(engine->wake, &one, sizeof one); /* full: then it is readable already */
}

/* With the lock held. */
static int make_room(struct rs_engine *engine)
{
    if (engine->questions_count < engine->questions_size)
        return 0;
    size_t size = engine->questions_size ? 2 * engine->questions_size : QUESTIONS_FIRST;
    struct rs_notification *larger = calloc(size, sizeof *larger);
    if (!larger)
        return -ENOMEM;
    for (size_t i = 0; i < engine->questions_count; i++)
        larger[i] = engine->questions[(engine->questions_first + i) % engine->questions_size];
    free(engine->questions);
    engine->questions = larger;
    engine->questions_size = size;
    engine->questions_first = 0;
    return 0;
}

static int ask(struct rs_engine *engine, const struct rs_notification *n)
{
    (void)pthread_mutex_lock(&engine->lock);
    int rc = make_room(engine);
    if (rc == 0) {
        engine->questions[(engine->questions_first + engine->questions_count) % engine->questions_size] = *n;
        engine->questions_count++;
    }
    (void)pthread_mutex_unlock(&engine->lock);
    if (rc == 0) {
        atomic_fetch_add(&engine->asked, 1);
        wake(engine);
    }
    return rc;
}

int rs_engine_question(struct rs_engine *engine, struct rs_notification *out)
{
    int there = 0;
    (void)pthread_mutex_lock(&engine->lock);
    if (engine->questions_count > 0) {
        *out = engine->questions[engine->questions_first];
        engine->questions_first = (engine->questions_first + 1) % engine->questions_size;
        engine->questions_count--;
        there = 1;
    }
    (void)pthread_mutex_unlock(&engine->lock);
    return there;
}

/* Execs */

void held_hear(struct rs_engine *engine)
{
    int heard;
    do {
        struct rs_notification untraced;
        heard = flights_hear(engine->flights, &untraced);
        if ((heard & RS_HEARD_QUESTION) && ask(engine, &untraced) < 0)
            (void)rs_notif_reply(engine->listener, untraced.id, 0, EACCES);
        if (heard & RS_HEARD_TELL)
            wake(engine);
    } while (heard & RS_HEARD_QUESTION);
}

int rs_engine_trace(struct rs_engine *engine, int channel, int launcher, const struct rs_file *loaders, size_t count)
{
    engine->loaders = calloc(count + 1, sizeof *loaders);
    if (!engine->loaders)
        return -ENOMEM;
    memcpy(engine->loaders, loaders, count * sizeof *loaders);
    engine->loaders_count = count;
    flights_open(engine->flights, channel, launcher);
    return 0;
}

void rs_engine_traces(struct rs_engine *engine)
{
    flights_prove(engine->flights, 1);
}

int rs_engine_claim(struct rs_engine *engine, pid_t tgid)
{
    held_hear(engine);
    return flights_claim(engine->flights, tgid);
}

void rs_engine_unclaim(struct rs_engine *engine, pid_t tgid)
{
    flights_unclaim(engine->flights, tgid);
}

int64_t rs_engine_landed(struct rs_engine *engine, char *buffer, size_t size)
{
    held_hear(engine);
    return flights_take(engine->flights, buffer, size);
}

/* What decides */

static void end_reign(struct rs_reign *reign)
{
    rs_tables_free(reign->tables);
    free(reign);
}

static struct rs_reign *enter_reign(struct rs_engine *engine)
{
    (void)pthread_mutex_lock(&engine->lock);
    struct rs_reign *reign = engine->reign;
    reign->users++;
    (void)pthread_mutex_unlock(&engine->lock);
    return reign;
}

static void leave_reign(struct rs_engine *engine, struct rs_reign *reign)
{
    (void)pthread_mutex_lock(&engine->lock);
    const int over = --reign->users == 0 && reign->ended;
    (void)pthread_mutex_unlock(&engine->lock);
    if (over)
        end_reign(reign);
}

int rs_engine_decide(struct rs_engine *engine, struct rs_tables *tables, uint32_t flags)
{
    struct rs_reign *reign = calloc(1, sizeof *reign);
    if (!reign)
        return -ENOMEM;
    reign->tables = tables;
    reign->flags = flags;
    (void)pthread_mutex_lock(&engine->lock);
    struct rs_reign *before = engine->reign;
    engine->reign = reign;
    before->ended = 1;
    const int over = before->users == 0;
    (void)pthread_mutex_unlock(&engine->lock);
    if (over)
        end_reign(before);
    return 0;
}

void rs_engine_forget(struct rs_engine *engine, int blind)
{
    /* In this order: what was learnt while nothing might be kept must be old before something may be. */
    if (blind < 0)
        atomic_fetch_add(&engine->age, 1);
    atomic_fetch_add(&engine->blind, blind);
    if (blind >= 0)
        atomic_fetch_add(&engine->age, 1);
}

/* The lead */

/*
 * Only who leads receives: the kernel wakes everybody who waits at a listener for each call, and all but one in vain. So
 * there are as many leads as threads in the beginning, however many are added for those that wait for others: these hand
 * their lead on before (held_may_block), or when the watch finds them stuck.
 *
 * While all calls come from one thread, which cannot make the next one before it has an answer, one lead is enough, and
 * the others would be woken in vain: they are withheld until another thread calls.
 */
static void hand_on(struct rs_worker *worker)
{
    if (atomic_exchange(&worker->leads, 0))
        (void)sem_post(&worker->engine->lead);
}

/* A call of this thread has come: others may receive again if it is not that of the last one. */
static void meet(struct rs_engine *engine, pid_t tid)
{
    if (atomic_exchange(&engine->caller, tid) == tid) {
        atomic_fetch_add(&engine->in_a_row, 1);
        return;
    }
    atomic_store(&engine->in_a_row, 0);
    for (int withheld = atomic_load(&engine->withheld); withheld > 0;)
        if (atomic_compare_exchange_weak(&engine->withheld, &withheld, withheld - 1)) {
            (void)sem_post(&engine->lead);
            break;
        }
}

/* Let go of a lead that is not needed; the last one always is. */
static void withhold(struct rs_worker *worker)
{
    struct rs_engine *engine = worker->engine;
    if (atomic_load(&engine->in_a_row) < SOLO)
        return;
    int withheld = atomic_load(&engine->withheld);
    if (withheld + 1 >= engine->leads || !atomic_load(&worker->leads) ||
        !atomic_compare_exchange_strong(&engine->withheld, &withheld, withheld + 1))
        return;
    if (!atomic_exchange(&worker->leads, 0))
        atomic_fetch_sub(&engine->withheld, 1); /* handed on by the watch in between */
}

/* One call */

/* Whether a call is one of those that are answered here. */
static int is_taken(const struct rs_numbers *numbers, int32_t nr)
{
    const int32_t taken[] = {
        numbers->openat, numbers->open,  numbers->creat,   numbers->unlink,  numbers->unlinkat, numbers->rmdir,
        numbers->mkdir,  numbers->mkdirat, numbers->rename, numbers->renameat, numbers->renameat2, numbers->symlink,
        numbers->symlinkat, numbers->connect, numbers->sendto, numbers->sendmsg, numbers->execve,
        numbers->execveat, numbers->fchmod, numbers->fchown, numbers->utimensat, numbers->chmod, numbers->fchmodat,
        numbers->chown, numbers->lchown, numbers->fchownat, numbers->fchmodat2, numbers->setxattr, numbers->lsetxattr,
        numbers->fsetxattr, numbers->removexattr, numbers->lremovexattr, numbers->fremovexattr,
    };
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        if (nr == taken[i])
            return 1;
    return 0;
}

/*
 * Whether a call changes who the calling task is, or what it will be after an exec: of those nothing is judged, they
 * are noticed.
 */
static int changes_identity(const struct rs_numbers *numbers, int32_t nr, const uint64_t *args)
{
    if (nr == numbers->prctl) {
        const int option = (int)args[0];
        return option == PR_CAPBSET_DROP || option == PR_SET_SECUREBITS || option == PR_CAP_AMBIENT;
    }
    const int32_t changing[] = {
        numbers->setuid,   numbers->setgid,   numbers->setreuid, numbers->setregid,  numbers->setresuid,
        numbers->setresgid, numbers->setfsuid, numbers->setfsgid, numbers->setgroups, numbers->capset,
    };
    for (size_t i = 0; i < sizeof changing / sizeof *changing; i++)
        if (nr == changing[i])
            return 1;
    return 0;
}

/* Whether a call makes a user namespace: who is in it has rights that count there alone. Python says whether it may. */
static int enters_user_space(const struct rs_numbers *numbers, int32_t nr, const uint64_t *args)
{
    return (nr == numbers->clone || nr == numbers->unshare) && (args[0] & CLONE_NEWUSER);
}

/* The umask changes when the kernel goes on with the call, at any time from now on. */
static void note_umask(struct rs_held *held)
{
    const struct rs_identity *who = held_identity(held, 0);
    held_note_umask(held->engine, who ? who->tgid : 0);
    atomic_fetch_add(&held->engine->age, 1);
}

static enum rs_outcome answer(struct rs_held *held)
{
    const struct rs_numbers *numbers = &held->engine->numbers;
    const uint64_t *args = held->n.args;
    const int32_t nr = held->n.nr;
    if (nr < 0)
        return RS_QUESTION;
    /* Only the task itself changes it, and makes no other call before it is done. Whoever answers: what is known of
     * tasks outlives the tables. */
    const int changes = changes_identity(numbers, nr, args);
    if (changes || enters_user_space(numbers, nr, args)) {
        atomic_store(&held->engine->differ, 1);
        atomic_fetch_add(&held->engine->age, 1);
    }
    if (nr == numbers->umask)
        note_umask(held);
    if (!held->reign->tables)
        return RS_QUESTION;
    if (changes || nr == numbers->umask) {
        (void)rs_notif_continue(held->engine->listener, held->n.id);
        return RS_ANSWERED;
    }
    if (!is_taken(numbers, nr))
        return RS_QUESTION;
    if (nr == numbers->openat)
        return held_open(held, (int)args[0], args[1], args[2], args[3]);
    if (nr == numbers->open)
        return held_open(held, AT_FDCWD, args[0], args[1], args[2]);
    if (nr == numbers->creat)
        return held_open(held, AT_FDCWD, args[0], O_CREAT | O_WRONLY | O_TRUNC, args[1]);
    if (nr == numbers->unlink)
        return held_remove(held, AT_FDCWD, args[0], 0);
    if (nr == numbers->unlinkat)
        return held_remove(held, (int)args[0], args[1], (int)args[2]);
    if (nr == numbers->rmdir)
        return held_remove(held, AT_FDCWD, args[0], AT_REMOVEDIR);
    if (nr == numbers->mkdir)
        return held_make_directory(held, AT_FDCWD, args[0], args[1]);
    if (nr == numbers->mkdirat)
        return held_make_directory(held, (int)args[0], args[1], args[2]);
    if (nr == numbers->rename)
        return held_rename(held, AT_FDCWD, args[0], AT_FDCWD, args[1], 0);
    if (nr == numbers->renameat || nr == numbers->renameat2)
        return held_rename(held, (int)args[0], args[1], (int)args[2], args[3],
                           nr == numbers->renameat ? 0 : (unsigned)args[4]);
    if (nr == numbers->symlink)
        return held_make_link(held, args[0], AT_FDCWD, args[1]);
    if (nr == numbers->symlinkat)
        return held_make_link(held, args[0], (int)args[1], args[2]);
    if (nr == numbers->connect)
        return held_connect(held, (int)args[0], args[1], args[2]);
    if (nr == numbers->sendto)
        return held_sendto(held, args);
    if (nr == numbers->sendmsg)
        return held_sendmsg(held, args);
    if (nr == numbers->execve)
        return held_exec(held, args[0], args[1], args[2]);
    if (nr == numbers->execveat)
        return (int)args[0] == AT_FDCWD && (int)args[4] == 0 ? held_exec(held, args[1], args[2], args[3]) : RS_QUESTION;
    return held_metadata(held, nr, args);
}

struct rs_reign *held_enter(struct rs_engine *engine)
{
    return enter_reign(engine);
}

void held_quit(struct rs_held *held)
{
    leave_reign(held->engine, held->reign);
    held->reign = NULL;
}

int held_is_current(const struct rs_held *held)
{
    (void)pthread_mutex_lock(&held->engine->lock);
    const int current = !held->reign->ended;
    (void)pthread_mutex_unlock(&held->engine->lock);
    return current;
}

void held_leave(struct rs_held *held, enum rs_outcome outcome)
{
    struct rs_engine *engine = held->engine;
    if (held->reign)
        leave_reign(engine, held->reign);
    if (held->blocks)
        atomic_fetch_sub(&engine->blocking, 1);
    if (held->reserved)
        rs_journal_drop(engine->records, held->reserved);
    if (outcome == RS_ANSWERED)
        atomic_fetch_add(&engine->answered, 1);
    else if (outcome == RS_QUESTION && ask(engine, &held->n) < 0)
        (void)rs_notif_reply(engine->listener, held->n.id, 0, EACCES);
}

static void take(struct rs_worker *worker, const struct rs_notification *n)
{
    struct rs_engine *engine = worker->engine;
    struct rs_held held = {.engine = engine, .worker = worker, .n = *n, .began = held_clock()};
    atomic_store(&worker->id, n->id);
    atomic_store(&worker->since, held.began);
    held.reign = enter_reign(engine);
    enum rs_outcome outcome = answer(&held);
    atomic_store(&worker->since, 0);
    held_leave(&held, outcome);
}

/* Threads */

static int hung_up(int listener)
{
    struct pollfd fd = {.fd = listener, .events = POLLIN};
    return poll(&fd, 1, 0) == 1 && (fd.revents & (POLLHUP | POLLERR | POLLNVAL)) && !(fd.revents & POLLIN);
}

/* The watch begins to look again. */
static void rouse_watch(struct rs_engine *engine)
{
    if (!atomic_load(&engine->watch_sleeps))
        return;
    (void)pthread_mutex_lock(&engine->watching);
    atomic_store(&engine->watch_sleeps, 0);
    (void)pthread_cond_signal(&engine->watched);
    (void)pthread_mutex_unlock(&engine->watching);
}

static void *work(void *argument)
{
    struct rs_worker *worker = argument;
    struct rs_engine *engine = worker->engine;
    (void)rs_block_signals();
    (void)rs_thread_prepare(); /* refused in some containers: creating then sets the mode afterwards */
    atomic_store(&worker->tid, rs_gettid());
    while (!atomic_load(&engine->stopping)) {
        struct rs_notification n;
        atomic_fetch_add(&engine->idle, 1);
        if (!atomic_load(&worker->leads) && sem_wait(&engine->lead) == 0)
            atomic_store(&worker->leads, 1);
        int rc = atomic_load(&worker->leads) ? rs_notif_receive(engine->listener, &n) : -EINTR;
        atomic_fetch_sub(&engine->idle, 1);
        if (rc == 0) {
            rouse_watch(engine);
            meet(engine, (pid_t)n.pid);
            take(worker, &n);
            withhold(worker);
        } else if (rc == -ENOENT) {
            if (hung_up(engine->listener))
                break;
        } else if (rc != -EINTR) {
            break;
        }
    }
    atomic_store(&worker->leads, 0);
    (void)sem_post(&engine->lead); /* whoever waits for the lead ends, too */
    for (int i = 0; i < TASKS; i++)
        held_forget(&worker->tasks[i]);
    if (worker->timer_there > 0)
        (void)timer_delete(worker->timer);
    atomic_store(&worker->tid, -1);
    return NULL;
}

/* With `watching` held. */
static int add_worker(struct rs_engine *engine)
{
    if (engine->workers_count == WORKERS_MAX)
        return -EAGAIN;
    struct rs_worker *worker = &engine->workers[engine->workers_count];
    worker->engine = engine;
    for (int i = 0; i < TASKS; i++)
        worker->tasks[i].fd = worker->tasks[i].pidfd = -1;
    int rc = rs_walker_new(WALKER_MEMORY, &worker->walker);
    if (rc < 0)
        return rc;
    rc = -pthread_create(&worker->thread, NULL, work, worker);
    if (rc < 0) {
        rs_walker_free(worker->walker);
        worker->walker = NULL;
        return rc;
    }
    engine->workers_count++;
    return 0;
}

int held_may_block(struct rs_held *held)
{
    struct rs_engine *engine = held->engine;
    int rc = 0;
    if (held->blocks)
        return 0;
    if (atomic_fetch_add(&engine->blocking, 1) >= BLOCKING_MAX) {
        atomic_fetch_sub(&engine->blocking, 1);
        return -EAGAIN;
    }
    held->blocks = 1;
    /* However many wait, and however long, they shall not use up the descriptors of the harness. */
    for (int i = 0; i < TASKS; i++)
        if (&held->worker->tasks[i] != held->task)
            held_forget(&held->worker->tasks[i]);
    (void)pthread_mutex_lock(&engine->watching);
    if (atomic_load(&engine->blocking) + SPARE > (int)engine->workers_count)
        rc = add_worker(engine);
    (void)pthread_mutex_unlock(&engine->watching);
    if (rc == 0)
        hand_on(held->worker);
    return rc;
}

/*
 * Frees threads whose target has died, and adds one while all that there are stand still: a file system can be slow,
 * or be served by a process of the same tree.
 */
static void look(struct rs_engine *engine, uint64_t *done_before)
{
    const int64_t now = held_clock();
    const uint64_t done = atomic_load(&engine->answered) + atomic_load(&engine->asked);
    int moving = 0; /* threads that are idle, or have begun a call not long ago: a busy machine stops no one */
    for (unsigned i = 0; i < engine->workers_count; i++) {
        struct rs_worker *worker = &engine->workers[i];
        const int64_t since = atomic_load(&worker->since);
        const pid_t tid = atomic_load(&worker->tid);
        moving += tid >= 0 && (!since || now - since <= PATIENCE);
        if (since && now - since > PATIENCE && tid > 0 &&
            rs_notif_valid(engine->listener, atomic_load(&worker->id)) < 0)
            (void)rs_interrupt(tid);
        if (since && now - since > STUCK) {
            hand_on(worker);
            if (atomic_load(&worker->connects) && tid > 0)
                (void)rs_interrupt(tid);
        }
    }
    if (!moving && atomic_load(&engine->idle) == 0 && done == *done_before)
        (void)add_worker(engine); /* none to be had: those that are there come to it in time */
    *done_before = done;
}

/* Whether no thread has a call at work, whose target could die. With `watching` held. */
static int all_receive(const struct rs_engine *engine)
{
    int there = 0;
    for (unsigned i = 0; i < engine->workers_count; i++)
        there += atomic_load(&engine->workers[i].tid) != -1;
    return atomic_load(&engine->idle) == there;
}

static void *watch(void *argument)
{
    struct rs_engine *engine = argument;
    uint64_t done = 0, seen = 0;
    int quiet = 0;
    (void)rs_block_signals();
    (void)pthread_mutex_lock(&engine->watching);
    while (!atomic_load(&engine->stopping)) {
        if (quiet >= QUIET_TICKS) {
            /* Said first, looked then: whoever takes a call in between finds the watch asleep, and wakes it. */
            atomic_store(&engine->watch_sleeps, 1);
            if (!all_receive(engine))
                atomic_store(&engine->watch_sleeps, 0);
            else
                quiet = 0;
            while (atomic_load(&engine->watch_sleeps) && !atomic_load(&engine->stopping))
                (void)pthread_cond_wait(&engine->watched, &engine->watching);
        }
        struct timespec until;
        if (clock_gettime(CLOCK_MONOTONIC, &until) < 0)
            break;
        const int solo = atomic_load(&engine->withheld) > 0 && quiet < SOLO_TICKS;
        until.tv_nsec += solo ? SOLO_TICK : quiet < QUIET_TICKS ? TICK : QUIET_TICK;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
        (void)pthread_cond_timedwait(&engine->watched, &engine->watching, &until);
        look(engine, &done);
        held_hear(engine);
        quiet = done == seen && !flights_look(engine->flights, held_clock()) ? quiet + 1 : 0;
        seen = done;
    }
    (void)pthread_mutex_unlock(&engine->watching);
    return NULL;
}

/* Life and death */

static int is_same_root(int root)
{
    struct statx theirs, ours;
    const unsigned mask = STATX_INO | STATX_MNT_ID;
    if (statx(root, "", AT_EMPTY_PATH, mask, &theirs) < 0 || statx(AT_FDCWD, "/", 0, mask, &ours) < 0)
        return 0;
    return (theirs.stx_mask & mask) == mask && (ours.stx_mask & mask) == mask &&
           theirs.stx_ino == ours.stx_ino && theirs.stx_dev_major == ours.stx_dev_major &&
           theirs.stx_dev_minor == ours.stx_dev_minor && theirs.stx_mnt_id == ours.stx_mnt_id;
}

void rs_engine_free(struct rs_engine *engine)
{
    if (!engine)
        return;
    for (unsigned i = 0; i < engine->workers_count; i++) {
        struct rs_worker *worker = &engine->workers[i];
        rs_walker_free(worker->walker);
        free(worker->buffer);
        rs_pages_free(worker->strings, EXEC_ROOM);
        for (int task = 0; task < TASKS; task++)
            free(worker->tasks[task].who);
    }
    underway_free(engine->underway);
    if (engine->reign)
        end_reign(engine->reign);
    rs_journal_free(engine->records);
    rs_journal_free(engine->others);
    flights_free(engine->flights);
    free(engine->loaders);
    rs_close_fd(&engine->root);
    rs_close_fd(&engine->descriptors);
    rs_close_fd(&engine->wake);
    free(engine->questions);
    (void)sem_destroy(&engine->lead);
    (void)pthread_cond_destroy(&engine->watched);
    (void)pthread_mutex_destroy(&engine->watching);
    (void)pthread_mutex_destroy(&engine->departing);
    (void)pthread_mutex_destroy(&engine->lock);
    rs_pages_free(engine, sizeof *engine);
}

void rs_engine_forsake(struct rs_engine *engine)
{
    if (!engine)
        return;
    for (unsigned i = 0; i < engine->workers_count; i++)
        for (int task = 0; task < TASKS; task++) {
            rs_close_fd(&engine->workers[i].tasks[task].fd);
            rs_close_fd(&engine->workers[i].tasks[task].pidfd);
        }
    rs_close_fd(&engine->descriptors);
    rs_close_fd(&engine->root);
    rs_close_fd(&engine->wake);
    flights_close(engine->flights);
    underway_forsake(engine->underway);
}

static int init_locks(struct rs_engine *engine)
{
    pthread_condattr_t monotonic;
    int rc = pthread_mutex_init(&engine->lock, NULL);
    if (rc == 0)
        rc = pthread_mutex_init(&engine->watching, NULL);
    if (rc == 0)
        rc = pthread_mutex_init(&engine->departing, NULL);
    if (rc == 0)
        rc = pthread_condattr_init(&monotonic);
    if (rc == 0) {
        rc = pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
        if (rc == 0)
            rc = pthread_cond_init(&engine->watched, &monotonic);
        (void)pthread_condattr_destroy(&monotonic);
    }
    if (rc == 0 && sem_init(&engine->lead, 0, 0) < 0)
        rc = errno;
    return -rc;
}

int rs_engine_new(int listener, pid_t launcher, pid_t member, struct rs_names *names,
                  const struct rs_numbers *numbers, struct rs_engine **out)
{
    struct rs_engine *engine = rs_pages(sizeof *engine);
    if (!engine)
        return -ENOMEM;
    int rc = init_locks(engine);
    if (rc < 0) {
        rs_pages_free(engine, sizeof *engine);
        return rc;
    }
    engine->listener = listener;
    engine->launcher = launcher;
    engine->names = names;
    engine->numbers = *numbers;
    engine->root = engine->wake = engine->descriptors = -1;
    atomic_store(&engine->age, 1);
    engine->reign = calloc(1, sizeof *engine->reign);
    rc = engine->reign ? rs_journal_new(RECORDS_SIZE, 0, &engine->records) : -ENOMEM;
    if (rc == 0)
        rc = rs_journal_new(OTHERS_SIZE, 1, &engine->others);
    if (rc == 0)
        rc = flights_new(&engine->flights);
    if (rc == 0)
        rc = engine->wake = rs_result(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (rc >= 0) {
        char path[40];
        (void)snprintf(path, sizeof path, "/proc/%d/root", member);
        rc = engine->root = rs_result(open(path, O_PATH | O_DIRECTORY | O_CLOEXEC));
    }
    if (rc >= 0)
        rc = engine->descriptors = rs_result(open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (rc < 0) {
        rs_engine_free(engine);
        return rc;
    }
    engine->same_root = is_same_root(engine->root);
    *out = engine;
    return 0;
}

int rs_engine_start(struct rs_engine *engine, unsigned threads)
{
    /* A target that wakes a thread then waits for it: better on its own processor. Linux 6.6; no harm without. */
    (void)ioctl(engine->listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP);
    int rc = 0;
    /* The first may add others already, while the last are not there yet. */
    (void)pthread_mutex_lock(&engine->watching);
    engine->leads = (int)threads;
    for (unsigned i = 0; i < threads; i++)
        (void)sem_post(&engine->lead);
    for (unsigned i = 0; i < threads && rc == 0; i++)
        rc = add_worker(engine);
    (void)pthread_mutex_unlock(&engine->watching);
    if (rc == 0) {
        rc = -pthread_create(&engine->watch, NULL, watch, engine);
        engine->watch_there = rc == 0;
    }
    return rc;
}

/* Interrupt the threads that have not ended; how many there are. A call at work may still add one. */
static unsigned interrupt_workers(struct rs_engine *engine)
{
    unsigned running = 0;
    (void)pthread_mutex_lock(&engine->watching);
    for (unsigned i = 0; i < engine->workers_count; i++) {
        const pid_t tid = atomic_load(&engine->workers[i].tid);
        running += tid != -1;
        if (tid > 0)
            (void)rs_interrupt(tid);
    }
    (void)pthread_mutex_unlock(&engine->watching);
    return running;
}

int rs_engine_stop(struct rs_engine *engine)
{
    atomic_store(&engine->stopping, 1);
    if (engine->watch_there) {
        (void)pthread_mutex_lock(&engine->watching);
        (void)pthread_cond_signal(&engine->watched);
        (void)pthread_mutex_unlock(&engine->watching);
        (void)pthread_join(engine->watch, NULL);
    }
    for (int tries = 0; interrupt_workers(engine) > 0; tries++) {
        if (tries == STOP_TRIES)
            return -EBUSY;
        /* Most end at once; one that is about to wait may miss the first signal. */
        const struct timespec moment = {.tv_nsec = tries < 20 ? 50000 : 1000000};
        (void)nanosleep(&moment, NULL);
    }
    for (unsigned i = 0; i < engine->workers_count; i++)
        (void)pthread_join(engine->workers[i].thread, NULL);
    underway_stop(engine);
    return 0;
}

int rs_engine_fd(const struct rs_engine *engine)
{
    return engine->wake;
}

int64_t rs_engine_records(struct rs_engine *engine, int others, char *buffer, size_t size)
{
    return rs_journal_take(others ? engine->others : engine->records, buffer, size);
}

uint64_t rs_engine_unrecorded(struct rs_engine *engine)
{
    return atomic_exchange(&engine->unrecorded, 0);
}

uint64_t rs_engine_number(struct rs_engine *engine)
{
    return atomic_fetch_add(&engine->sequence, 1);
}

void rs_engine_counts(const struct rs_engine *engine, uint64_t *answered, uint64_t *asked)
{
    *answered = atomic_load(&engine->answered);
    *asked = atomic_load(&engine->asked);
}
