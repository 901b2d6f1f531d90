/*
 * What verifying an exec costs by itself, without the broker's Python: `verified MODE COUNT PROGRAM` prints
 * microseconds for one vfork, execve and wait of a static PROGRAM.
 *
 * bare: no filter. continued: execve is held and let go by a loop in C. stopped: in between, the thread is seized, and
 * detached at its stop, which nobody can spare who looks at a committed exec. verified: the launcher's own tracing and
 * comparing (csrc/trace.c, csrc/committed.c).
 */
#define _GNU_SOURCE
#include "launch.h"

#include <fcntl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

static void must(bool well, const char *what)
{
    if (!well) {
        perror(what);
        exit(1);
    }
}

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec * 1e6 + (double)at.tv_nsec / 1e3;
}

/* Start the program again and again; prints what one start takes. */
static void spawn(const char *program, int count)
{
    char *argv[] = {(char *)(uintptr_t)program, NULL};
    char *none[] = {NULL};
    const double began = now();
    for (int i = 0; i < count; i++) {
        const pid_t pid = vfork();
        if (pid == 0) {
            execve(program, argv, none);
            _exit(127);
        }
        int status;
        must(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0, "spawn");
    }
    printf("%.2f\n", (now() - began) / count);
    fflush(stdout);
}

static int hold_execs(void)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_execve, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog filter = {.len = 4, .filter = program};
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs");
    const long flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | (1 << 5); /* WAIT_KILLABLE_RECV */
    const int listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter);
    must(listener >= 0, "seccomp");
    return listener;
}

static void let_go(int listener, uint64_t id)
{
    struct seccomp_notif_resp answer = {.id = id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
    must(ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer) == 0, "continue");
}

static void stop_once(int listener, const struct seccomp_notif *call)
{
    int status;
    const pid_t pid = (pid_t)call->pid;
    const unsigned long options = PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
    must(ptrace(PTRACE_SEIZE, pid, NULL, (void *)options) == 0, "seize");
    must(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) == 0, "interrupt");
    let_go(listener, call->id);
    must(waitpid(pid, &status, __WALL) == pid && status >> 16 == PTRACE_EVENT_EXEC, "stop");
    must(ptrace(PTRACE_DETACH, pid, NULL, NULL) == 0, "detach");
}

int main(int argc, char **argv)
{
    must(argc == 4, "usage: verified bare|continued|stopped|verified COUNT PROGRAM");
    const bool verified = strcmp(argv[1], "verified") == 0;
    const bool stopped = strcmp(argv[1], "stopped") == 0;
    const int count = atoi(argv[2]);
    const char *program = argv[3];
    if (strcmp(argv[1], "bare") == 0) {
        spawn(program, count);
        return 0;
    }

    int *listener = mmap(NULL, sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int ready[2];
    int control[2];
    struct stat image;
    must(listener != MAP_FAILED && pipe(ready) == 0 && stat(program, &image) == 0, "setting up");
    must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) == 0, "socketpair");
    /* The table is shared, so that the number is the same here. */
    const long pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, 0UL);
    must(pid >= 0, "clone");
    if (pid == 0) {
        *listener = hold_execs();
        must(write(ready[1], "", 1) == 1, "write");
        spawn(program, count);
        _exit(0);
    }
    char byte;
    must(read(ready[0], &byte, 1) == 1, "read");

    struct tracer tracer = {.control = control[0], .harness = control[0]};
    static struct trace_packet order;
    order.head = (struct rs_trace){
        .type = RS_TRACE,
        .command_size = (uint32_t)strlen(program) + 1,
        .image = {.dev = image.st_dev, .ino = image.st_ino},
    };
    must(order.head.command_size <= sizeof(order.strings), "a name that is too long");
    memcpy(order.strings, program, order.head.command_size);
    for (int i = 0; i < count; i++) {
        struct seccomp_notif call = {0};
        must(ioctl(*listener, SECCOMP_IOCTL_NOTIF_RECV, &call) == 0, "receive");
        if (stopped) {
            stop_once(*listener, &call);
            continue;
        }
        if (!verified) {
            let_go(*listener, call.id);
            continue;
        }
        order.head.tid = order.head.tgid = call.pid;
        order.head.cookie = call.id;
        must(trace(&tracer, &order, -1) == 0, "trace");
        let_go(*listener, call.id);
        int status;
        for (pid_t seen = 0; !(seen > 0 && heed_trace(&tracer, seen, status));)
            must((seen = waitpid(-1, &status, __WALL)) > 0, "waitpid");
        char packet[64];
        int outcome = 0;
        while (recv(control[1], packet, sizeof(packet), MSG_DONTWAIT) > 0)
            if (((struct rs_executed *)(void *)packet)->type == RS_EXECUTED)
                outcome = (int)((struct rs_executed *)(void *)packet)->outcome;
        must(outcome == RS_COMMITTED, "not what was expected");
    }
    int status;
    must(waitpid((pid_t)pid, &status, 0) == (pid_t)pid && status == 0, "the spawning process");
    return 0;
}
