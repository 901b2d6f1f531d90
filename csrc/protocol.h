/*
 * The control protocol between the broker and rampart-seccomp-launch: one packet a message over a
 * SOCK_SEQPACKET socket pair, native byte order, no padding. launch/protocol.py mirrors this file.
 *
 * broker                                launcher
 *   START (+ pidfd of the harness)  ->            install the filter in a child
 *                                   <-  LISTENER (+ listener fd) or FAILED
 *   LEND, twice (+ a descriptor)    ->            if the engine lets execs go: its channel, and the listener
 *   GO                              ->            the broker has proven that it can read the child
 *                                   <-  STARTED (the command runs) or FAILED
 *   SIGNAL                          ->            at any time after START
 *   TRACE (+ what must come of it)  ->            an execve is about to be let go
 *                                   <-  TRACED    it will stop at the commit: the call may continue
 *   RELEASE                         ->            it was not let go after all
 *   HALT                            ->            a held call is about to be made again, past signals and stops
 *                                   <-  TRACED    its thread will stop once
 *                                   <-  EXECUTED  what came of it
 *                                   <-  STOPPING  the command was stopped, and the launcher stops likewise
 *                                   <-  EXCEEDED, if a limit ends the tree
 *                                   <-  ENDED, with RS_START_LINGER: the command has, its tree may live on
 *
 * engine                                launcher, over the channel that was lent
 *   TRACE (+ what must come of it)  ->            an execve was judged: trace it, and let it go
 *                                   <-  EXECUTED  what came of it
 */
#ifndef RAMPART_PROTOCOL_H
#define RAMPART_PROTOCOL_H

#include <stddef.h>
#include <stdint.h>

enum rs_message {
    RS_START = 1,
    RS_GO = 2,
    RS_SIGNAL = 3,
    RS_TRACE = 4,
    RS_RELEASE = 5,
    RS_HALT = 6,
    RS_LEND = 7,
    RS_LISTENER = 16,
    RS_STARTED = 17,
    RS_FAILED = 18,
    RS_TRACED = 19,
    RS_EXECUTED = 20,
    RS_STOPPING = 21,
    RS_ENDED = 24,
    RS_EXCEEDED = 25,
};

/* rs_start.flags */
enum rs_start_flag {
    RS_START_SCOPE = 1 << 0,    /* confine signals with Landlock where the kernel can (ABI >= 6) */
    RS_START_NO_CORES = 1 << 1, /* RLIMIT_CORE hard 0: a core dump is a file made without a file call */
    RS_START_LINGER = 1 << 2,   /* what the command leaves running lives until the broker goes away */
};

/* rs_failed.stage */
enum rs_stage {
    RS_STAGE_RESOLVE = 1,  /* the program was not found through PATH */
    RS_STAGE_SANDBOX = 2,  /* fork, no_new_privs, Landlock */
    RS_STAGE_FILTER = 3,   /* seccomp(2); EBUSY: the process already has a listener */
    RS_STAGE_EXEC = 4,     /* execve(2), or the policy's answer to it */
    RS_STAGE_PROTOCOL = 5, /* a malformed packet, or a child that ended before it reported */
};

/* rs_executed.outcome */
enum rs_became {
    RS_COMMITTED = 1, /* the program that was judged runs, with the arguments and variables that were judged */
    RS_NOT_EXECUTED = 2, /* execve(2) failed, or was never let go */
    RS_TAMPERED = 3,  /* something else was about to run: killed before its first instruction */
    RS_GONE = 4,      /* the process died */
    RS_UNTRACED = 5,  /* over the engine's channel: it cannot be traced, and still waits for its answer */
};

/* rs_lend.what */
enum rs_lent { RS_LENT_CHANNEL = 1, RS_LENT_LISTENER = 2 };

/* With SIGCONT: the broker continues the launcher, and does not mean the command (sigqueue(3), sival_int). */
enum { RS_NUDGE = 0x72616d70 };

enum { RS_NONCE_SIZE = 16, RS_MAX_INSNS = 4096, RS_MAX_PACKED = 16384 };
enum { RS_MAX_CHILDREN = 1024, RS_MAX_ANCESTORS = 32 };

/* 0: no limit. */
struct rs_limits {
    uint64_t open_files;  /* RLIMIT_NOFILE, each process */
    uint64_t cpu_seconds; /* RLIMIT_CPU, each process */
    uint64_t memory;      /* RLIMIT_DATA, each process, in bytes */
    uint64_t processes;   /* of the whole tree, counted from time to time */
    uint64_t wall_ms;     /* of the whole tree, from START on */
};

/* Followed by n_insns struct sock_filter. Carries one descriptor: a pidfd of the harness. */
struct rs_start {
    uint32_t type;
    uint32_t flags;
    uint32_t filter_flags; /* SECCOMP_FILTER_FLAG_*; NEW_LISTENER is added */
    uint32_t n_insns;
    struct rs_limits limits;
};

struct rs_go {
    uint32_t type;
};

/* Carries one descriptor. */
struct rs_lend {
    uint32_t type;
    uint32_t what;
};

struct rs_signal {
    uint32_t type;
    uint32_t signo;
    uint32_t tree; /* 0: the command; 1: every process of the tree */
};

/* Carries one descriptor: the listener. The broker reads the nonce from the child's memory as proof. */
struct rs_listener {
    uint32_t type;
    uint32_t child_pid;
    uint64_t nonce_address;
    uint8_t nonce[RS_NONCE_SIZE];
    uint32_t landlock_abi; /* 0: none */
    uint32_t scoped;       /* 1: signals are confined, and that was tried out */
};

struct rs_started {
    uint32_t type;
};

struct rs_stopping {
    uint32_t type;
};

struct rs_failed {
    uint32_t type;
    uint32_t stage;
    int32_t error; /* errno(3) */
};

struct rs_file {
    uint64_t dev; /* as stat(2) has it */
    uint64_t ino;
};

/*
 * Trace a thread that waits in a held execve. Followed by the command line and, behind it, the environment, each
 * string with its NUL, as /proc/<pid>/cmdline and environ will show them. Where both are more than RS_MAX_PACKED
 * bytes, it carries one descriptor instead: a memfd with them.
 */
struct rs_trace {
    uint32_t type;
    uint32_t tid;
    uint32_t tgid;
    uint32_t command_size; /* bytes */
    uint64_t cookie;       /* tells execs apart; the broker's choice. Over the channel, the held call's id */
    struct rs_file image;
    struct rs_file interpreter; /* PT_INTERP, as elf(5) has it; zeros: none */
    uint64_t environment_size;  /* bytes */
};

struct rs_release {
    uint32_t type;
    uint32_t tid;
    uint64_t cookie;
};

/* Have a thread stop once on its way out of the call it waits in. */
struct rs_halt {
    uint32_t type;
    uint32_t tid;
    uint32_t tgid;
    uint32_t unused;
    uint64_t cookie;
};

struct rs_traced {
    uint32_t type;
    int32_t error; /* errno(3); 0: traced */
    uint64_t cookie;
};

/* A process that the executing one had forked before, or that it descends from. */
struct rs_child {
    uint64_t pid;
    uint64_t start_time; /* clock ticks since boot (proc_pid_stat(5)) */
};

/*
 * Followed by n_children, then n_ancestors struct rs_child. The ancestors, the nearest first, end with one that has
 * executed something under these eyes; of a process that has done so itself there are none.
 */
struct rs_executed {
    uint32_t type;
    uint32_t outcome;
    uint64_t cookie;
    uint64_t start_time; /* of the process */
    uint32_t pid;        /* the thread group */
    uint32_t n_children; /* UINT32_MAX: there are more than fit, or they cannot be listed */
    uint32_t n_ancestors;
    uint32_t unused;
};

_Static_assert(sizeof(struct rs_trace) == 64, "no padding");
_Static_assert(sizeof(struct rs_release) == 16, "no padding");
_Static_assert(sizeof(struct rs_halt) == 24, "no padding");
_Static_assert(sizeof(struct rs_traced) == 16, "no padding");
_Static_assert(sizeof(struct rs_child) == 16, "no padding");
_Static_assert(sizeof(struct rs_executed) == 40, "no padding");
/* The command has ended. */
struct rs_ended {
    uint32_t type;
    int32_t status; /* as waitpid(2) has it */
};

/* rs_exceeded.limit; the kernel keeps the other limits by itself */
enum rs_limit { RS_LIMIT_PROCESSES = 1, RS_LIMIT_WALL_TIME = 2 };

struct rs_exceeded {
    uint32_t type;
    uint32_t limit;
};

_Static_assert(sizeof(struct rs_start) == 56, "no padding");
_Static_assert(sizeof(struct rs_go) == 4, "no padding");
_Static_assert(sizeof(struct rs_lend) == 8, "no padding");
_Static_assert(sizeof(struct rs_signal) == 12, "no padding");
_Static_assert(sizeof(struct rs_listener) == 40, "no padding");
_Static_assert(offsetof(struct rs_listener, nonce_address) == 8, "no padding");
_Static_assert(offsetof(struct rs_listener, landlock_abi) == 32, "no padding");
_Static_assert(sizeof(struct rs_started) == 4, "no padding");
_Static_assert(sizeof(struct rs_stopping) == 4, "no padding");
_Static_assert(sizeof(struct rs_failed) == 12, "no padding");
_Static_assert(sizeof(struct rs_ended) == 8, "no padding");
_Static_assert(sizeof(struct rs_exceeded) == 8, "no padding");

#endif
