/*
 * Watching an execve to its commit. The broker has judged program, arguments and variables, and the kernel is about
 * to read all of them again. So the waiting thread is seized and told to stop; once the call goes on, exactly one
 * stop follows: at the commit (PTRACE_EVENT_EXEC), with the new image in place and not one instruction of it run, or
 * on the way back after a failure (PTRACE_EVENT_STOP). See ptrace(2).
 *
 * Seizing does not stop anybody by itself, and a thread that waits in a notification stays there until it is
 * answered. The broker never has two threads of one process traced: the kernel would have one wait for the other
 * while both wait for us. If this process dies, PTRACE_O_EXITKILL ends what it traces.
 */
#define _GNU_SOURCE
#include "launch.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "newer.h"

struct traced {
    struct rs_trace judged;
    int expected; /* memfd */
    bool released;
    struct traced *next;
};

static int send_traced(const struct tracer *tracer, uint64_t cookie, int error)
{
    const struct rs_traced answer = {.type = RS_TRACED, .error = -error, .cookie = cookie};
    return send_packet(tracer->control, tracer->harness, &answer, sizeof(answer), -1);
}

/* Start to trace, and say so. Takes `expected`. Returns -errno only if the broker is gone. */
int trace(struct tracer *tracer, const struct rs_trace *order, int expected)
{
    autofd int owned = expected;
    const pid_t tid = (pid_t)order->tid;
    struct traced *entry = malloc(sizeof(*entry));
    if (entry == NULL)
        return send_traced(tracer, order->cookie, -ENOMEM);
    const unsigned long options = PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
    if (ptrace(PTRACE_SEIZE, tid, NULL, (void *)options) != 0) {
        const int error = -errno;
        free(entry);
        return send_traced(tracer, order->cookie, error);
    }
    *entry = (struct traced){.judged = *order, .expected = steal_fd(&owned), .next = tracer->first};
    tracer->first = entry;
    /* What died since then is reported by waitpid(2). */
    const int error = ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) == 0 || errno == ESRCH ? 0 : -errno;
    return send_traced(tracer, order->cookie, error);
}

/* A thread that is to make its held call again: whatever it should execute instead was judged by nobody. */
int halt(struct tracer *tracer, const struct rs_halt *order)
{
    const struct rs_trace judged = {.tid = order->tid, .tgid = order->tgid, .cookie = order->cookie};
    const int error = trace(tracer, &judged, -1);
    const struct rs_release release = {.cookie = order->cookie};
    release_trace(tracer, &release);
    return error;
}

/* The call was not let go: whatever this thread does next is not what was judged. */
void release_trace(struct tracer *tracer, const struct rs_release *order)
{
    for (struct traced *entry = tracer->first; entry != NULL; entry = entry->next)
        if (entry->judged.cookie == order->cookie)
            entry->released = true;
}

/* Parent and start (proc_pid_stat(5)); false if there is no such process. */
static bool stat_process(pid_t pid, pid_t *parent, uint64_t *start_time)
{
    enum { PARENT = 4, START_TIME = 22 };
    char path[32];
    char text[1024];
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
    if (size <= 0)
        return false;
    text[size] = '\0';
    const char *at = strrchr(text, ')'); /* behind the name, which is field 2 and may hold anything */
    for (int field = 2; at != NULL && field < START_TIME; field++) {
        at = strchr(at + 1, ' ');
        if (at != NULL && field + 1 == PARENT)
            *parent = (pid_t)strtol(at, NULL, 10);
    }
    if (at == NULL)
        return false;
    *start_time = strtoull(at, NULL, 10);
    return true;
}

struct executed_packet {
    struct rs_executed head;
    struct rs_child children[RS_MAX_CHILDREN];
};

enum { LISTINGS_MAX = 16 };

/* Read the pids of a process's children, in the order in which it forked them; UINT32_MAX if not all of them. */
static uint32_t read_children(pid_t pid, pid_t *pids)
{
    char path[64];
    /* At its exec a process has one thread, which all its children are filed under. */
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return UINT32_MAX;
    uint32_t count = 0;
    while (count < RS_MAX_CHILDREN && fscanf(file, "%d", &pids[count]) == 1)
        count++;
    const bool whole = count < RS_MAX_CHILDREN && feof(file) != 0;
    fclose(file);
    return whole ? count : UINT32_MAX;
}

/* Whether all of some pids are among others, both in the same order. */
static bool all_among(const pid_t *some, uint32_t n_some, const pid_t *others, uint32_t n_others)
{
    uint32_t found = 0;
    for (uint32_t at = 0; found < n_some && at < n_others; at++)
        found += some[found] == others[at];
    return found == n_some;
}

/* Tell the children by their starts, too. One that has ended is nobody any more, and its number may be another's. */
static uint32_t identify(pid_t pid, const pid_t *pids, uint32_t n_pids, struct rs_child *children)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n_pids; i++) {
        pid_t parent = 0;
        uint64_t start_time = 0;
        if (stat_process(pids[i], &parent, &start_time) && parent == pid)
            children[count++] = (struct rs_child){.pid = (uint64_t)pids[i], .start_time = start_time};
    }
    return count;
}

/*
 * List whom a process that stands at its exec has forked. The kernel overlooks one only if another, listed before it,
 * ends during the listing (proc(5)); so a listing counts if all in it are still there afterwards.
 */
static uint32_t list_children(pid_t pid, struct rs_child *children)
{
    static pid_t listings[2][RS_MAX_CHILDREN];
    pid_t *before = listings[0];
    pid_t *after = listings[1];
    uint32_t listed = read_children(pid, before);
    for (int turn = 0; turn < LISTINGS_MAX && listed != UINT32_MAX; turn++) {
        const uint32_t again = listed != 0 ? read_children(pid, after) : 0;
        if (again == UINT32_MAX)
            break;
        if (all_among(before, listed, after, again))
            return identify(pid, before, listed, children);
        pid_t *const newer = after;
        after = before;
        before = newer;
        listed = again;
    }
    return UINT32_MAX;
}

/* Say what came of an exec. Of a broker that is gone nothing more is to be told. */
static void send_executed(const struct tracer *tracer, const struct traced *entry, enum rs_outcome outcome)
{
    static struct executed_packet packet;
    const pid_t pid = (pid_t)entry->judged.tgid;
    packet.head = (struct rs_executed){
        .type = RS_EXECUTED,
        .outcome = outcome,
        .cookie = entry->judged.cookie,
        .pid = (uint32_t)pid,
    };
    size_t size = sizeof(packet.head);
    if (outcome == RS_COMMITTED) {
        pid_t parent;
        (void)stat_process(pid, &parent, &packet.head.start_time); /* 0: it was killed */
        packet.head.n_children = list_children(pid, packet.children);
        if (packet.head.n_children != UINT32_MAX)
            size += packet.head.n_children * sizeof(packet.children[0]);
    }
    (void)send_packet(tracer->control, tracer->harness, &packet, size, -1);
}

static struct traced *find(const struct tracer *tracer, pid_t pid)
{
    for (struct traced *entry = tracer->first; entry != NULL; entry = entry->next)
        if (entry->judged.tid == (uint32_t)pid || entry->judged.tgid == (uint32_t)pid)
            return entry;
    return NULL;
}

static void forget(struct tracer *tracer, struct traced *entry)
{
    struct traced **at = &tracer->first;
    while (*at != entry)
        at = &(*at)->next;
    *at = entry->next;
    close_fd(&entry->expected);
    free(entry);
}

/* A stop of a thread that was traced: the one that was waited for, unless it is on its way to its death. */
static void end_trace(struct tracer *tracer, struct traced *entry, pid_t pid, int status)
{
    const int event = status >> 16;
    const bool committed = event == PTRACE_EVENT_EXEC;
    if (committed && (entry->released || !committed_as_judged(pid, &entry->judged, entry->expected))) {
        /* One that was killed by somebody else meanwhile stands no more, and cannot be looked at. */
        unsigned long message;
        const bool stands = ptrace(PTRACE_GETEVENTMSG, pid, NULL, &message) == 0;
        kill(pid, SIGKILL);
        send_executed(tracer, entry, stands ? RS_TAMPERED : RS_GONE);
    } else {
        /* Told before the program runs: what it does next is judged by who it is now. */
        send_executed(tracer, entry, committed ? RS_COMMITTED : RS_NOT_EXECUTED);
        /* A signal that was about to be delivered goes on its way. */
        const long signo = event == 0 ? WSTOPSIG(status) : 0;
        (void)ptrace(PTRACE_DETACH, pid, NULL, (void *)signo); /* ESRCH: killed meanwhile */
    }
    forget(tracer, entry);
}

/* Whether a stop of this process is that of the traced thread: an execve takes the leader's pid over once it cannot fail
 * back into the old program any more (PTRACE_EVENT_EXEC, or the signal that ends a failed one). */
static bool is_its_stop(const struct traced *entry, pid_t pid, int status)
{
    const pid_t tid = (pid_t)entry->judged.tid;
    if (pid == tid || status >> 16 == PTRACE_EVENT_EXEC)
        return true;
    return syscall(SYS_tgkill, entry->judged.tgid, tid, 0) != 0 && errno == ESRCH;
}

bool heed_trace(struct tracer *tracer, pid_t pid, int status)
{
    struct traced *entry = find(tracer, pid);
    if (WIFSTOPPED(status)) {
        if (entry != NULL && is_its_stop(entry, pid, status)) {
            end_trace(tracer, entry, pid, status);
            return true;
        }
        if (status >> 16 != 0)
            (void)ptrace(PTRACE_DETACH, pid, NULL, NULL);
        return status >> 16 != 0;
    }
    /* The leader's death is the whole group's, the thread's included. */
    if (entry != NULL && !WIFCONTINUED(status)) {
        send_executed(tracer, entry, RS_GONE);
        forget(tracer, entry);
    }
    return false;
}
