/*
 * Parts of rampart-seccomp-launch. Functions return >= 0 or -errno unless they say otherwise.
 */
#ifndef RAMPART_LAUNCH_H
#define RAMPART_LAUNCH_H

#include <errno.h>
#include <linux/filter.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <unistd.h>

#include "protocol.h"

/* A descriptor that is closed when its variable leaves scope; steal_fd() moves it out. */
#define autofd __attribute__((cleanup(close_fd)))

static inline void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static inline int steal_fd(int *fd)
{
    int owned = *fd;
    *fd = -1;
    return owned;
}

/* install.c: what a process puts on itself, in this order; none of it can be taken off again. */
int install_no_new_privs(void);
int install_signal_scope(void);
int install_barrier(void);

/* environment.c: apply the options between PROGRAM and "--"; -EINVAL if they are none. */
int drop_variables(char *const *options, size_t count);
int install_filter(const struct sock_filter *insns, size_t n_insns, unsigned int flags);
/* The Landlock ABI of this kernel; 0 where there is none. */
int landlock_abi(void);

/* program.c */
int resolve_program(const char *name, const char *search, char *path, size_t size);

/* control.c */
struct start_packet {
    struct rs_start head;
    struct sock_filter insns[RS_MAX_INSNS];
};

int receive_start(int control, struct start_packet *start, int *harness);

struct trace_packet {
    struct rs_trace head;
    unsigned char strings[RS_MAX_PACKED];
};

/* What the broker wants after START. */
union order {
    uint32_t type;
    struct rs_signal signal;
    struct trace_packet trace;
    struct rs_release release;
    struct rs_halt halt;
    struct rs_lend lend;
};

int receive_order(int control, union order *order, int *carried);
int send_packet(int control, int harness, const void *packet, size_t size, int fd);

/* child.c: from clone to execve. */
enum report_kind { REPORT_LISTENER = 1, REPORT_SEPARATE = 2, REPORT_FAILED = 3 };

struct report {
    uint16_t kind;
    uint16_t stage; /* REPORT_FAILED */
    int32_t value;  /* REPORT_LISTENER: descriptor number; REPORT_FAILED: errno */
};

/* Signal masks are the kernel's own 64 bits: the C library's functions hide signals 32 and 33. */
struct child {
    pid_t launcher;
    const struct start_packet *start;
    bool scope;
    uint64_t mask;              /* to restore */
    struct sigaction on_sigchld; /* to restore */
    int report;
    int go;
    const char *program;
    char **argv;
};

int change_mask(int how, uint64_t mask, uint64_t *old);
_Noreturn void run_child(const struct child *child);

/* witness.c */
pid_t start_witness(void);
bool has_witnessed(pid_t witness, int signo);

/* trace.c: execs that were let go, until they have committed or failed. */
struct traced;

enum { EXECUTED_SIZE = 1024 };

struct tracer {
    int control;
    int harness;
    int channel;  /* to the engine, which has judged what arrives there; -1: none */
    int listener; /* of the tree, to answer those calls; -1: none */
    struct traced *first;
    struct rs_child executed[EXECUTED_SIZE]; /* who has executed something, by pid: the latest of those that share a place */
};

int trace(struct tracer *tracer, const struct trace_packet *order, int file);
int trace_and_continue(struct tracer *tracer, const struct trace_packet *order, int file);
int halt(struct tracer *tracer, const struct rs_halt *order);
void release_trace(struct tracer *tracer, const struct rs_release *order);
/* Look at what waitpid(2) reported; true if it was a stop that concerns nothing but tracing. */
bool heed_trace(struct tracer *tracer, pid_t pid, int status);

/* process.c */
struct process {
    pid_t parent;
    uint64_t start_time; /* clock ticks since boot */
    uint64_t arg_start, arg_end; /* addresses of the arguments, and of the variables */
    uint64_t env_start, env_end;
};

int open_process(pid_t pid);
int read_process(int directory, const char *name, struct process *found);

/* committed.c: what the process at this pid, stopped at its exec, has become. True if it is what was judged. */
bool committed_as_judged(int directory, pid_t pid, const struct process *process, const struct rs_trace *judged,
                         const unsigned char *expected);

/* relatives.c: how many there are; UINT32_MAX if they cannot be listed, or are more than RS_MAX_CHILDREN. */
uint32_t list_children(int directory, pid_t pid, struct rs_child *children);
/* How many there are, up to the nearest that `has_executed`, and RS_MAX_ANCESTORS at most. */
uint32_t list_ancestors(pid_t parent, const struct rs_child *executed, struct rs_child *ancestors);
bool has_executed(const struct rs_child *executed, pid_t pid, uint64_t start_time);
void note_executed(struct rs_child *executed, pid_t pid, uint64_t start_time);

/* tree.c */
bool descends(pid_t pid, pid_t ancestor);
int signal_tree(int signo, bool scoped);
void end_tree(pid_t command, bool scoped, int *guard, int *status);

/* scope.c */
int enter_proven_scope(int harness);

/* guard.c */
int start_guard(int harness, const struct rs_limits *limits);
enum { GUARD_READY = 0 }; /* else an enum rs_limit */
int hear_guard(int channel);
void dismiss_guard(int *channel);

/* limits.c */
struct watch {
    bool scoped;
    bool exceeded;       /* the last count was too much */
    long most;           /* processes that count_tree() may find; 0: any number */
    uint64_t next_count; /* in milliseconds of CLOCK_MONOTONIC */
    uint64_t deadline;   /* the same; 0: none */
};

int limit_process(pid_t pid, const struct rs_limits *limits);
long count_tree(bool scoped);
struct watch start_watch(const struct rs_limits *limits, bool scoped, long others);
int next_look(const struct watch *watch);
enum rs_limit look(struct watch *watch);

#endif
