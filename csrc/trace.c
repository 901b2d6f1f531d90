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

#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "newer.h"

struct traced {
    struct rs_trace judged;
    bool engine; /* it was the engine who judged it, and is told what came of it */
    bool released;
    int directory; /* of the process in /proc, or -1: not opened yet */
    uint32_t n_ancestors;
    struct rs_child ancestors[RS_MAX_ANCESTORS]; /* of one that the engine judged */
    struct traced *next;
    const unsigned char *expected; /* the command line and, behind it, the environment */
    size_t mapped;                 /* bytes at `expected` that are a mapping; 0: they stand in `packed` */
    unsigned char packed[];
};

static int send_traced(const struct tracer *tracer, uint64_t cookie, int error)
{
    const struct rs_traced answer = {.type = RS_TRACED, .error = -error, .cookie = cookie};
    return send_packet(tracer->control, tracer->harness, &answer, sizeof(answer), -1);
}

/* Map the command line and environment that came as a file. MAP_FAILED: it is shorter than it should be, or errno. If
 * the harness shortened it afterwards, SIGBUS would end this process, and the guard the tree. */
static void *map_strings(int file, size_t size)
{
    struct stat found;
    if (fstat(file, &found) != 0 || found.st_size < 0 || (uint64_t)found.st_size < size)
        return MAP_FAILED;
    return mmap(NULL, size, PROT_READ, MAP_PRIVATE, file, 0);
}

/* Keep what must come of an exec; NULL without memory. `file` is -1 where the strings are packed. */
static struct traced *keep(const struct rs_trace *judged, const unsigned char *packed, int file)
{
    const size_t size = (size_t)(judged->command_size + judged->environment_size);
    struct traced *entry = malloc(sizeof(*entry) + (file < 0 ? size : 0));
    if (entry == NULL)
        return NULL;
    *entry = (struct traced){.judged = *judged, .directory = -1, .expected = entry->packed};
    if (file < 0) {
        if (size != 0)
            memcpy(entry->packed, packed, size);
        return entry;
    }
    void *const strings = map_strings(file, size);
    if (strings == MAP_FAILED) {
        free(entry);
        return NULL;
    }
    entry->expected = strings;
    entry->mapped = size;
    return entry;
}

static void discard(struct traced *entry)
{
    close_fd(&entry->directory);
    if (entry->mapped != 0)
        (void)munmap((void *)(uintptr_t)entry->expected, entry->mapped);
    free(entry);
}

/* Have a thread stop at the end of the call it waits in: the first entry is its then. -ESRCH, -EPERM, -ENOMEM: not. */
static int seize(struct tracer *tracer, const struct rs_trace *judged, const unsigned char *packed, int file, bool engine)
{
    const pid_t tid = (pid_t)judged->tid;
    struct traced *entry = keep(judged, packed, file);
    if (entry == NULL)
        return -ENOMEM;
    const unsigned long options = PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
    if (ptrace(PTRACE_SEIZE, tid, NULL, (void *)options) != 0) {
        const int error = -errno;
        discard(entry);
        return error;
    }
    entry->engine = engine;
    entry->next = tracer->first;
    tracer->first = entry;
    /* What died since then is reported by waitpid(2). */
    return ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) == 0 || errno == ESRCH ? 0 : -errno;
}

/* Start to trace, and say so. Takes `file`. Returns -errno only if the broker is gone. */
int trace(struct tracer *tracer, const struct trace_packet *order, int file)
{
    autofd int owned = file;
    const int error = seize(tracer, &order->head, order->strings, owned, false);
    return send_traced(tracer, order->head.cookie, error);
}

/* Say of an exec that was judged that it cannot be traced. It is not answered: whoever judged it goes on from there. */
static int send_untraced(const struct tracer *tracer, const struct rs_trace *judged)
{
    const struct rs_executed packet = {
        .type = RS_EXECUTED, .outcome = RS_UNTRACED, .cookie = judged->cookie, .pid = judged->tgid};
    return send_packet(tracer->channel, tracer->harness, &packet, sizeof(packet), -1);
}

/*
 * Find out whom a process descends from, which is soon to stand at its exec: while the kernel is at work there is nothing
 * else to do, and when it stands every moment counts. The broker looks for itself while it judges.
 */
static void look_ahead(struct tracer *tracer, struct traced *entry)
{
    const pid_t pid = (pid_t)entry->judged.tgid;
    struct process process;
    entry->directory = open_process(pid);
    if (entry->directory < 0 || read_process(entry->directory, "stat", &process) != 0 ||
        has_executed(tracer->executed, pid, process.start_time))
        return;
    entry->n_ancestors = list_ancestors(process.parent, tracer->executed, entry->ancestors);
}

/*
 * The engine's order, which spares it to wait for us: start to trace, and answer the call. Its id is of this very call;
 * if the call is not there any more, nothing that the thread does next was judged. Takes `file`. Returns -errno only if
 * the engine is gone.
 */
int trace_and_continue(struct tracer *tracer, const struct trace_packet *order, int file)
{
    autofd int owned = file;
    if (seize(tracer, &order->head, order->strings, owned, true) < 0)
        return send_untraced(tracer, &order->head);
    struct seccomp_notif_resp answer = {.id = order->head.cookie, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
    int answered;
    do
        answered = ioctl(tracer->listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    while (answered != 0 && errno == EINTR);
    if (answered != 0) {
        const struct rs_release release = {.cookie = order->head.cookie};
        release_trace(tracer, &release);
    }
    look_ahead(tracer, tracer->first);
    return 0;
}

/* A thread that is to make its held call again: whatever it should execute instead was judged by nobody. */
int halt(struct tracer *tracer, const struct rs_halt *order)
{
    const struct rs_trace judged = {.tid = order->tid, .tgid = order->tgid, .cookie = order->cookie};
    const int error = seize(tracer, &judged, NULL, -1, false);
    const struct rs_release release = {.cookie = order->cookie};
    release_trace(tracer, &release);
    return send_traced(tracer, order->cookie, error);
}

/* The call was not let go: whatever this thread does next is not what was judged. */
void release_trace(struct tracer *tracer, const struct rs_release *order)
{
    for (struct traced *entry = tracer->first; entry != NULL; entry = entry->next)
        if (entry->judged.cookie == order->cookie)
            entry->released = true;
}

struct executed_packet {
    struct rs_executed head;
    struct rs_child relatives[RS_MAX_CHILDREN + RS_MAX_ANCESTORS];
};

static int told(const struct tracer *tracer, const struct traced *entry)
{
    return entry->engine ? tracer->channel : tracer->control;
}

static struct rs_executed executed(const struct traced *entry, enum rs_became outcome)
{
    return (struct rs_executed){
        .type = RS_EXECUTED,
        .outcome = outcome,
        .cookie = entry->judged.cookie,
        .pid = entry->judged.tgid,
    };
}

/* Say what came of an exec. Whoever is gone is told nothing more. */
static void send_outcome(const struct tracer *tracer, const struct traced *entry, enum rs_became outcome)
{
    const struct rs_executed packet = executed(entry, outcome);
    (void)send_packet(told(tracer, entry), tracer->harness, &packet, sizeof(packet), -1);
}

/* Say that an exec has committed, and who the process is that made it. Returns -errno if nobody hears. */
static int send_committed(struct tracer *tracer, const struct traced *entry, const struct process *process)
{
    static struct executed_packet packet;
    const pid_t pid = (pid_t)entry->judged.tgid;
    packet.head = executed(entry, RS_COMMITTED);
    packet.head.start_time = process->start_time;
    packet.head.n_children = list_children(entry->directory, pid, packet.relatives);
    packet.head.n_ancestors = entry->n_ancestors;
    const uint32_t listed = packet.head.n_children != UINT32_MAX ? packet.head.n_children : 0;
    memcpy(packet.relatives + listed, entry->ancestors, entry->n_ancestors * sizeof(packet.relatives[0]));
    note_executed(tracer->executed, pid, process->start_time);
    const size_t size = sizeof(packet.head) + (listed + entry->n_ancestors) * sizeof(packet.relatives[0]);
    return send_packet(told(tracer, entry), tracer->harness, &packet, size, -1);
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
    discard(entry);
}

/* A process stands at its exec. True if it may go on: it is what was judged, and the broker knows. Else it is killed. */
static bool is_as_judged(struct tracer *tracer, struct traced *entry, pid_t pid)
{
    struct process process;
    if (entry->directory < 0)
        entry->directory = open_process(pid);
    if (!entry->released && entry->directory >= 0 && read_process(entry->directory, "stat", &process) == 0 &&
        committed_as_judged(entry->directory, pid, &process, &entry->judged, entry->expected)) {
        /* Told before the program runs: what it does next is judged by who it is now. Untold, it would be judged by who
         * it was. */
        if (send_committed(tracer, entry, &process) == 0)
            return true;
    }
    /* One that was killed by somebody else meanwhile stands no more, and cannot be looked at. */
    unsigned long message;
    const bool stands = ptrace(PTRACE_GETEVENTMSG, pid, NULL, &message) == 0;
    kill(pid, SIGKILL);
    send_outcome(tracer, entry, stands ? RS_TAMPERED : RS_GONE);
    return false;
}

/* A stop of a thread that was traced: the one that was waited for, unless it is on its way to its death. */
static void end_trace(struct tracer *tracer, struct traced *entry, pid_t pid, int status)
{
    const int event = status >> 16;
    if (event == PTRACE_EVENT_EXEC) {
        if (is_as_judged(tracer, entry, pid))
            (void)ptrace(PTRACE_DETACH, pid, NULL, NULL); /* ESRCH: killed meanwhile */
    } else {
        send_outcome(tracer, entry, RS_NOT_EXECUTED);
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
        send_outcome(tracer, entry, RS_GONE);
        forget(tracer, entry);
    }
    return false;
}
