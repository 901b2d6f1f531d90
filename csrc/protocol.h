/*
 * The control protocol between the broker and rampart-seccomp-launch: one packet a message over a
 * SOCK_SEQPACKET socket pair, native byte order, no padding. launch/protocol.py mirrors this file.
 *
 * broker                                launcher
 *   START (+ pidfd of the harness)  ->            install the filter in a child
 *                                   <-  LISTENER (+ listener fd) or FAILED
 *   GO                              ->            the broker has proven that it can read the child
 *                                   <-  STARTED (the command runs) or FAILED
 *   SIGNAL                          ->            at any time after START
 */
#ifndef RAMPART_PROTOCOL_H
#define RAMPART_PROTOCOL_H

#include <stddef.h>
#include <stdint.h>

enum rs_message {
    RS_START = 1,
    RS_GO = 2,
    RS_SIGNAL = 3,
    RS_LISTENER = 16,
    RS_STARTED = 17,
    RS_FAILED = 18,
};

/* rs_start.flags */
enum rs_start_flag {
    RS_START_SCOPE = 1 << 0,    /* confine signals with Landlock where the kernel can (ABI >= 6) */
    RS_START_NO_CORES = 1 << 1, /* RLIMIT_CORE hard 0: a core dump is a file made without a file call */
};

/* rs_failed.stage */
enum rs_stage {
    RS_STAGE_RESOLVE = 1,  /* the program was not found through PATH */
    RS_STAGE_SANDBOX = 2,  /* fork, no_new_privs, Landlock */
    RS_STAGE_FILTER = 3,   /* seccomp(2); EBUSY: the process already has a listener */
    RS_STAGE_EXEC = 4,     /* execve(2), or the policy's answer to it */
    RS_STAGE_PROTOCOL = 5, /* a malformed packet, or a child that ended before it reported */
};

enum { RS_NONCE_SIZE = 16, RS_MAX_INSNS = 4096 };

/* Followed by n_insns struct sock_filter. Carries one descriptor: a pidfd of the harness. */
struct rs_start {
    uint32_t type;
    uint32_t flags;
    uint32_t filter_flags; /* SECCOMP_FILTER_FLAG_*; NEW_LISTENER is added */
    uint32_t n_insns;
};

struct rs_go {
    uint32_t type;
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

struct rs_failed {
    uint32_t type;
    uint32_t stage;
    int32_t error; /* errno(3) */
};

_Static_assert(sizeof(struct rs_start) == 16, "no padding");
_Static_assert(sizeof(struct rs_go) == 4, "no padding");
_Static_assert(sizeof(struct rs_signal) == 12, "no padding");
_Static_assert(sizeof(struct rs_listener) == 40, "no padding");
_Static_assert(offsetof(struct rs_listener, nonce_address) == 8, "no padding");
_Static_assert(offsetof(struct rs_listener, landlock_abi) == 32, "no padding");
_Static_assert(sizeof(struct rs_started) == 4, "no padding");
_Static_assert(sizeof(struct rs_failed) == 12, "no padding");

#endif
