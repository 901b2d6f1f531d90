/*
 * rampart-seccomp-launch FD PROGRAM -- ARG0 [ARG...]
 *
 * Start a command behind a seccomp filter that arrives over the control socket FD, hand its listener to the
 * broker, and stand in for the command: pass on signals, mirror stops and the exit status, end the whole
 * tree when the command ends or the broker goes away; the guard (guard.c) ends it in the launcher's place. PROGRAM is the file to execute; empty: ARG0 is looked
 * up through PATH.
 */
#define _GNU_SOURCE
#include "launch.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "newer.h"

enum { EXIT_OURS = 125, EXIT_NOT_EXECUTABLE = 126, EXIT_NOT_FOUND = 127 };

struct launch {
    int control;
    int harness; /* pidfd */
    pid_t harness_pid;
    int signals;
    int report;   /* read end; -1 once the command runs */
    int report_w; /* the child's end, while the descriptor table is shared */
    int go;
    pid_t command;
    pid_t witness;
    struct tracer tracer;
    int guard; /* channel to the guard; -1: none */
    bool guarded;
    struct watch watch; /* without a guard: limits of the tree */
    uint32_t landlock;
    bool scoped; /* proven: kill(-1) reaches the tree and nothing else */
    bool ended;
    bool lingers;   /* the broker knows that the command has ended */
    bool dismissed; /* by somebody who does not wait for what lingers */
    int status;  /* of the command, once ended */
    int failure; /* exit status if the command was never run; else 0 */
};

/* The child has it at the same address; the broker compares, and so knows that it can read the child. */
static uint8_t nonce[RS_NONCE_SIZE];
static struct start_packet start;

static int tell_failure(struct launch *launch, enum rs_stage stage, int error)
{
    const struct rs_failed failed = {.type = RS_FAILED, .stage = stage, .error = -error};
    launch->failure = EXIT_OURS;
    if (stage == RS_STAGE_RESOLVE || stage == RS_STAGE_EXEC)
        launch->failure = error == -ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
    /* A broker that is gone is noticed by whoever reads the socket next. */
    (void)send_packet(launch->control, launch->harness, &failed, sizeof(failed), -1);
    return launch->failure;
}

/* The control socket, kept from the command. A descriptor below 3 is one that the command must find closed,
 * as it would have been: move away from there. */
static int take_control(const char *number)
{
    char *end;
    errno = 0;
    long fd = strtol(number, &end, 10);
    if (errno != 0 || end == number || *end != '\0' || fd < 0 || fd > INT_MAX)
        return -EINVAL;
    int type;
    socklen_t size = sizeof(type);
    if (getsockopt((int)fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0)
        return -errno;
    if (type != SOCK_SEQPACKET)
        return -EPROTOTYPE;
    int control = fcntl((int)fd, F_DUPFD_CLOEXEC, 3);
    if (control < 0)
        return -errno;
    close((int)fd);
    return control;
}

/* Occupy what is closed among 0-2 until execve, so that nothing of ours lands there. */
static int reserve_standard_fds(void)
{
    for (;;) {
        autofd int fd = open("/", O_PATH | O_CLOEXEC);
        if (fd < 0)
            return -errno;
        if (fd > STDERR_FILENO)
            return 0;
        steal_fd(&fd);
    }
}

/* The process behind a pidfd, as this process numbers it (proc_pid_fdinfo(5)); 0 if that cannot be told. */
static pid_t pid_behind(int pidfd)
{
    char path[64];
    char text[512];
    int pid = 0;
    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t size = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
    if (size <= 0)
        return 0;
    text[size] = '\0';
    const char *line = strstr(text, "\nPid:");
    return line != NULL && sscanf(line, "\nPid: %d", &pid) == 1 && pid > 0 ? pid : 0;
}

static int send_listener(struct launch *launch, int number)
{
    /* The table is shared: this closes the child's too, and the broker's becomes the only one. */
    autofd int listener = number;
    struct rs_listener packet = {
        .type = RS_LISTENER,
        .child_pid = (uint32_t)launch->command,
        .nonce_address = (uint64_t)(uintptr_t)nonce,
        .landlock_abi = launch->landlock,
        .scoped = launch->scoped,
    };
    memcpy(packet.nonce, nonce, sizeof(nonce));
    return send_packet(launch->control, launch->harness, &packet, sizeof(packet), listener);
}

/* Close everything but what supervising needs: a pipe that the command closes must end, whether it was 0-2
 * or a descriptor that was passed on. */
static void close_inherited(struct launch *launch)
{
    close_fd(&launch->report_w);
    close_fd(&launch->go);
    const int keep[] = {
        launch->control, launch->harness,        launch->signals,         launch->report,
        launch->guard,   launch->tracer.channel, launch->tracer.listener,
    };
    unsigned int next = 0;
    for (;;) {
        unsigned int kept = UINT_MAX;
        for (size_t i = 0; i < sizeof(keep) / sizeof(keep[0]); i++) {
            if (keep[i] >= 0 && (unsigned int)keep[i] >= next && (unsigned int)keep[i] < kept)
                kept = (unsigned int)keep[i];
        }
        if (kept == UINT_MAX)
            break;
        if (kept > next)
            (void)syscall(SYS_close_range, next, kept - 1, 0U); /* nothing open in a gap is no failure */
        next = kept + 1;
    }
    (void)syscall(SYS_close_range, next, UINT_MAX, 0U);
}

/* Take one message of the child. Returns 1, 0 if there is none, or -errno if the broker is gone. */
static int serve_report(struct launch *launch)
{
    struct report said;
    if (launch->report < 0)
        return 0;
    ssize_t size = read(launch->report, &said, sizeof(said));
    if (size < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    if (size == 0) {
        /* Closed by execve. Also by a death right before it, which looks the same to subprocess. */
        close_fd(&launch->report);
        const struct rs_started started = {.type = RS_STARTED};
        if (launch->failure == 0)
            return send_packet(launch->control, launch->harness, &started, sizeof(started), -1);
        return 0;
    }
    switch (said.kind) {
    case REPORT_LISTENER:
        return send_listener(launch, said.value) < 0 ? -ECONNRESET : 1;
    case REPORT_SEPARATE:
        close_inherited(launch);
        return 1;
    default:
        tell_failure(launch, said.stage, -said.value);
        return 1;
    }
}

/* A new witness in place of one that has something pending. The new one comes first: between the two, a
 * signal to the group would pass for one to us. Without any witness such a signal is passed on. */
static void renew_witness(struct launch *launch)
{
    pid_t used = launch->witness;
    launch->witness = start_witness();
    if (used > 0)
        kill(used, SIGKILL);
}

/* Tell the broker why its tree ends. Returns -ETIMEDOUT. */
static int exceed(struct launch *launch, enum rs_limit limit)
{
    const struct rs_exceeded packet = {.type = RS_EXCEEDED, .limit = limit};
    (void)send_packet(launch->control, launch->harness, &packet, sizeof(packet), -1);
    return -ETIMEDOUT;
}

/* Returns -errno if the tree has to end: the guard is dead, or says so. */
static int serve_guard(struct launch *launch)
{
    int said = hear_guard(launch->guard);
    if (said != GUARD_READY)
        return said < 0 ? said : exceed(launch, (enum rs_limit)said);
    launch->guarded = true;
    return 0;
}

/* Let the child execute the command: guarded, and with its limits on. */
static int let_go(struct launch *launch)
{
    int error = launch->guard >= 0 && !launch->guarded ? serve_guard(launch) : 0;
    if (error == 0)
        error = limit_process(launch->command, &start.head.limits);
    if (error < 0) {
        tell_failure(launch, RS_STAGE_SANDBOX, error);
        return error;
    }
    return write(launch->go, "", 1) == 1 ? 0 : -errno;
}

static int lend(struct launch *launch, const struct rs_lend *order, int *fd)
{
    int *const place = order->what == RS_LENT_CHANNEL ? &launch->tracer.channel : &launch->tracer.listener;
    if (*place >= 0 || (order->what != RS_LENT_CHANNEL && order->what != RS_LENT_LISTENER))
        return -EPROTO;
    *place = steal_fd(fd);
    return 0;
}

/*
 * Serve the engine. When it is gone the tree goes on: what the control socket says counts. Returns -errno if it talks
 * nonsense: then calls may wait for an answer that nobody gives.
 */
static int serve_channel(struct launch *launch)
{
    union order order;
    autofd int carried = -1;
    int type = receive_order(launch->tracer.channel, &order, &carried);
    if (type == RS_TRACE)
        type = trace_and_continue(&launch->tracer, &order.trace, steal_fd(&carried)) < 0 ? -ECONNRESET : 0;
    if (type == -ECONNRESET)
        close_fd(&launch->tracer.channel);
    return type == 0 || type == -ECONNRESET ? 0 : -EPROTO;
}

/* Returns -errno if the broker is gone or talks nonsense. */
static int serve_control(struct launch *launch)
{
    union order order;
    autofd int carried = -1;
    /* What the child said comes first: it makes us close all that we need not have, which an order that came
     * after it may bring along. */
    while (serve_report(launch) > 0)
        ;
    int type = receive_order(launch->control, &order, &carried);
    switch (type) {
    case RS_GO:
        return launch->go < 0 ? 0 : let_go(launch);
    case RS_LEND:
        return lend(launch, &order.lend, &carried);
    case RS_SIGNAL:
        if (order.signal.tree == 0) {
            if (!launch->ended)
                (void)kill(launch->command, (int)order.signal.signo);
            return 0;
        }
        (void)signal_tree((int)order.signal.signo, launch->scoped); /* what is dead already is no failure */
        if (!launch->ended)
            renew_witness(launch);
        return 0;
    case RS_TRACE:
        return trace(&launch->tracer, &order.trace, steal_fd(&carried));
    case RS_HALT:
        return halt(&launch->tracer, &order.halt);
    case RS_RELEASE:
        release_trace(&launch->tracer, &order.release);
        return 0;
    default:
        return type;
    }
}

static bool continued(pid_t pid)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)pid, &info, WCONTINUED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

/*
 * Stop as the command did, so that a shell in front sees its job stop. Only for stops of job control, which
 * the kernel does not allow in an orphaned process group and takes back when a group becomes one: a stopped
 * launcher guards nothing, so it must not be the tree's choice to stop it for good. That rules SIGSTOP out.
 */
static void stop_likewise(struct launch *launch, int signo)
{
    if ((signo != SIGTSTP && signo != SIGTTIN && signo != SIGTTOU) || getpgid(launch->command) != getpgrp())
        return;
    /* The broker continues us should the command be continued alone. If it is gone, that is noticed afterwards. */
    const struct rs_stopping stopping = {.type = RS_STOPPING};
    (void)send_packet(launch->control, launch->harness, &stopping, sizeof(stopping), -1);
    struct sigaction inherited;
    const struct sigaction stop = {.sa_handler = SIG_DFL};
    const uint64_t one = 1ULL << (signo - 1);
    sigaction(signo, &stop, &inherited);
    /* Still blocked. From here on a SIGCONT to the group takes the pending stop away; one that came earlier
     * has reached the command, and shows. */
    kill(getpid(), signo);
    if (continued(launch->command)) {
        const struct timespec now = {0, 0};
        (void)syscall(SYS_rt_sigtimedwait, &one, NULL, &now, sizeof(one));
    }
    change_mask(SIG_UNBLOCK, one, NULL);
    change_mask(SIG_BLOCK, one, NULL);
    sigaction(signo, &inherited, NULL);
}

/* Reap whatever ended: the command, and daemons of the tree, whose parents we are in their parents' place. */
static void reap_ended(struct launch *launch)
{
    int status;
    int stop = 0;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG | WUNTRACED | __WALL)) > 0;) {
        if (heed_trace(&launch->tracer, pid, status) || launch->ended || pid != launch->command)
            continue;
        if (WIFSTOPPED(status)) {
            stop = WSTOPSIG(status);
        } else {
            launch->ended = true;
            launch->status = status;
        }
    }
    if (stop != 0 && !launch->ended)
        stop_likewise(launch, stop);
}

static bool is_ours_to_pass_on(struct launch *launch, const struct signalfd_siginfo *info)
{
    const int signo = (int)info->ssi_signo;
    /* The broker continues us, so that we see to the tree. What it wants continued it says in an order. */
    if (signo == SIGCONT && info->ssi_code == SI_QUEUE && (pid_t)info->ssi_pid == launch->harness_pid &&
        info->ssi_int == RS_NUDGE)
        return false;
    /* About a child, one of which may stand at its exec until it is looked at: no moment to lose. */
    if (signo == SIGCHLD && info->ssi_code > 0)
        return false;
    const bool same_group = getpgid(launch->command) == getpgrp();
    bool to_group = launch->witness > 0 && has_witnessed(launch->witness, signo);
    if (launch->witness > 0 && !to_group) {
        /* A signal to the group reaches its members one after the other. */
        const struct timespec moment = {0, 2000000};
        (void)nanosleep(&moment, NULL);
        to_group = has_witnessed(launch->witness, signo);
    }
    if (to_group)
        renew_witness(launch);
    /* The terminal signals the foreground group. Except when it goes away: then it tells the leader of the
     * session, which without us would be the command. */
    if (info->ssi_code > 0 && !(signo == SIGHUP && getsid(0) == getpid()))
        return false;
    return !(to_group && same_group);
}

static void serve_signals(struct launch *launch)
{
    struct signalfd_siginfo info;
    while (read(launch->signals, &info, sizeof(info)) == sizeof(info)) {
        /* Asked before anything else: reaping may stop us, and the SIGCONT that ends the stop takes from the
         * witness what it had seen. */
        const bool ours = is_ours_to_pass_on(launch, &info);
        reap_ended(launch);
        if (launch->ended) {
            /* Its pid may be another's now. Whoever started us does not know the difference. */
            launch->dismissed = info.ssi_signo == SIGTERM && info.ssi_code <= 0;
            return;
        }
        if (!ours)
            continue;
        const union sigval value = {.sival_ptr = (void *)(uintptr_t)info.ssi_ptr};
        if (info.ssi_code == SI_QUEUE)
            (void)sigqueue(launch->command, (int)info.ssi_signo, value);
        else
            (void)kill(launch->command, (int)info.ssi_signo);
    }
}

/* Whether the command runs, or something that it left running and that may go on. */
static bool goes_on(struct launch *launch)
{
    if (!launch->ended)
        return true;
    if ((start.head.flags & RS_START_LINGER) == 0)
        return false;
    /* What the child said last was written before it died. */
    while (serve_report(launch) > 0)
        ;
    if (launch->report >= 0 || launch->failure != 0)
        return false;
    if (!launch->lingers) {
        const struct rs_ended packet = {.type = RS_ENDED, .status = launch->status};
        if (send_packet(launch->control, launch->harness, &packet, sizeof(packet), -1) < 0)
            return false;
        launch->lingers = true;
        if (launch->witness > 0)
            kill(launch->witness, SIGKILL); /* there is nobody to pass signals on to */
        launch->witness = -1;
        reap_ended(launch);
    }
    return !launch->dismissed && count_tree(launch->scoped) != 0;
}

/* Until nothing of the tree goes on, or has to end: the broker is gone, or the guard, or a limit is exceeded. */
static void supervise(struct launch *launch)
{
    while (goes_on(launch)) {
        struct pollfd ready[] = {
            {.fd = launch->signals, .events = POLLIN},
            {.fd = launch->control, .events = POLLIN},
            {.fd = launch->harness, .events = POLLIN},
            {.fd = launch->report, .events = POLLIN},
            {.fd = launch->guard, .events = POLLIN},
            {.fd = launch->tracer.channel, .events = POLLIN},
        };
        if (poll(ready, sizeof(ready) / sizeof(ready[0]), next_look(&launch->watch)) < 0) {
            if (errno == EINTR)
                continue;
            return;
        }
        const enum rs_limit exceeded = look(&launch->watch);
        if (exceeded != 0) {
            (void)exceed(launch, exceeded);
            return;
        }
        if (ready[2].revents != 0 || (ready[1].revents != 0 && serve_control(launch) < 0))
            return;
        /* Behind the control socket: a GO has heard the guard, whose readiness is no news then. */
        if (ready[4].revents != 0 && !(launch->guarded && ready[1].revents != 0) && serve_guard(launch) < 0)
            return;
        if (ready[3].revents != 0 && serve_report(launch) < 0)
            return;
        if (ready[5].revents != 0 && serve_channel(launch) < 0)
            return;
        if (ready[0].revents != 0)
            serve_signals(launch);
    }
    /* What the child said last was written before it died. */
    while (serve_report(launch) > 0)
        ;
    if (launch->report >= 0 && launch->failure == 0)
        tell_failure(launch, RS_STAGE_PROTOCOL, -ECHILD);
}

/*
 * Have as many descriptors as we may: every exec on its way takes one, and how many there are is the tree's choice. Not
 * for the command, which is another process by now. What is refused leaves the limit as it was.
 */
static void raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* End as the command ended: with its code, or by the same signal, but never with a second core file. */
static int mirror(int status)
{
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    const int signo = WTERMSIG(status);
    const struct rlimit none = {0, 0};
    const struct sigaction fatal = {.sa_handler = SIG_DFL};
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_DUMPABLE, 0L, 0L, 0L, 0L); /* a core_pattern with a pipe ignores the limit */
    sigaction(signo, &fatal, NULL);
    kill(getpid(), signo);
    change_mask(SIG_UNBLOCK, 1ULL << (signo - 1), NULL);
    return 128 + signo;
}

/* Clone the child and prepare to supervise it. Returns 0; the child does not return. */
static int clone_child(struct launch *launch, const char *program, char **argv)
{
    struct child child = {
        .launcher = getpid(),
        .start = &start,
        .program = program,
        .argv = argv,
    };
    int report[2];
    int go[2];
    if (pipe2(report, O_CLOEXEC | O_NONBLOCK) != 0)
        return -errno;
    launch->report = report[0];
    launch->report_w = child.report = report[1];
    if (pipe2(go, O_CLOEXEC) != 0)
        return -errno;
    child.go = go[0];
    launch->go = go[1];

    /* An inherited SIG_IGN would have the kernel reap in our place. */
    const struct sigaction reported = {.sa_handler = SIG_DFL};
    int error = change_mask(SIG_BLOCK, UINT64_MAX, &child.mask);
    if (error < 0 || sigaction(SIGCHLD, &reported, &child.on_sigchld) != 0)
        return error < 0 ? error : -errno;
    const uint64_t all = UINT64_MAX;
    launch->signals = (int)syscall(SYS_signalfd4, -1, &all, sizeof(all), SFD_CLOEXEC | SFD_NONBLOCK);
    if (launch->signals < 0)
        return -errno;
    if (getrandom(nonce, sizeof(nonce), 0) != sizeof(nonce))
        return -EIO;
    if (prctl(PR_SET_CHILD_SUBREAPER, 1L, 0L, 0L, 0L) != 0)
        return -errno;

    error = install_no_new_privs();
    if (error < 0)
        return error;
    launch->landlock = (uint32_t)landlock_abi();
    child.scope = (start.head.flags & RS_START_SCOPE) != 0 && launch->landlock >= 6;
    if (child.scope) {
        int proven = enter_proven_scope(launch->harness);
        if (proven < 0)
            return proven;
        launch->scoped = proven != 0;
    }
    if (launch->scoped) {
        launch->guard = start_guard(launch->harness, &start.head.limits);
        if (launch->guard < 0)
            return launch->guard;
        /* A domain of our own within the guard's: what we send to the tree does not reach it. */
        error = install_signal_scope();
        if (error < 0)
            return error;
    } else {
        launch->watch = start_watch(&start.head.limits, false, 1);
    }

    long pid = syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, 0UL);
    if (pid < 0)
        return -errno;
    if (pid == 0)
        run_child(&child);
    launch->command = (pid_t)pid;
    launch->witness = start_witness();
    return 0;
}

int main(int argc, char **argv)
{
    struct launch launch = {
        .control = -1,
        .harness = -1,
        .signals = -1,
        .report = -1,
        .report_w = -1,
        .go = -1,
        .guard = -1,
        .tracer = {.channel = -1, .listener = -1},
    };
    static char program[PATH_MAX + NAME_MAX];

    int dashes = 3;
    while (dashes < argc && strcmp(argv[dashes], "--") != 0)
        dashes++;
    launch.control = dashes + 1 < argc ? take_control(argv[1]) : -EINVAL;
    if (launch.control < 0 || drop_variables(argv + 3, (size_t)(dashes - 3)) < 0) {
        fputs("usage: rampart-seccomp-launch FD PROGRAM [-e [-d NAME]... [-p NAME]...]... -- ARG0 [ARG...]\n"
              "FD is the inherited control socket of a Rampart broker: Broker.wrap() makes this command line.\n",
              stderr);
        return EXIT_OURS;
    }
    int error = reserve_standard_fds();
    if (error == 0)
        error = receive_start(launch.control, &start, &launch.harness);
    if (error < 0)
        return tell_failure(&launch, RS_STAGE_PROTOCOL, error);

    /* Before the filter: looking a program up needs calls that the filter mediates. */
    const char *named = argv[2][0] != '\0' ? argv[2] : argv[dashes + 1];
    error = resolve_program(named, getenv("PATH"), program, sizeof(program));
    if (error < 0)
        return tell_failure(&launch, RS_STAGE_RESOLVE, error);
    error = clone_child(&launch, program, argv + dashes + 1);
    if (error < 0) {
        tell_failure(&launch, RS_STAGE_SANDBOX, error);
        end_tree(-1, launch.scoped, &launch.guard, &launch.status);
        return launch.failure;
    }

    raise_descriptors();
    launch.harness_pid = pid_behind(launch.harness);
    launch.tracer.control = launch.control;
    launch.tracer.harness = launch.harness;
    supervise(&launch);
    if (!launch.ended && launch.report >= 0)
        launch.failure = EXIT_OURS; /* given up before the command ran */
    /* Nothing of the tree outlives the command, or the broker. */
    end_tree(launch.ended ? -1 : launch.command, launch.scoped, &launch.guard, &launch.status);
    return launch.failure != 0 ? launch.failure : mirror(launch.status);
}
