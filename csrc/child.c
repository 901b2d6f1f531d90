#define _GNU_SOURCE
#include "launch.h"

#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

int change_mask(int how, uint64_t mask, uint64_t *old)
{
    return syscall(SYS_rt_sigprocmask, how, &mask, old, sizeof(mask)) == 0 ? 0 : -errno;
}

static void report(const struct child *child, enum report_kind kind, enum rs_stage stage, int value)
{
    const struct report said = {.kind = (uint16_t)kind, .stage = (uint16_t)stage, .value = value};
    ssize_t written;
    do
        written = write(child->report, &said, sizeof(said));
    while (written < 0 && errno == EINTR);
    if (written != sizeof(said))
        _exit(125); /* the launcher notices the death */
}

static _Noreturn void give_up(const struct child *child, enum rs_stage stage, int error)
{
    report(child, REPORT_FAILED, stage, -error);
    _exit(125);
}

/* Put everything on that the command must not be without. Returns the listener. */
static int enter_sandbox(const struct child *child)
{
    const struct rs_start *start = &child->start->head;

    /* The signal is lost if the launcher died before it was asked for. */
    if (prctl(PR_SET_PDEATHSIG, (long)SIGKILL, 0L, 0L, 0L) != 0)
        give_up(child, RS_STAGE_SANDBOX, -errno);
    if (getppid() != child->launcher)
        _exit(125);

    if ((start->flags & RS_START_NO_CORES) != 0) {
        const struct rlimit none = {0, 0};
        if (setrlimit(RLIMIT_CORE, &none) != 0)
            give_up(child, RS_STAGE_SANDBOX, -errno);
    }
    /* A domain of its own, nested in the launcher's: the tree cannot signal the launcher, nor reach through
     * /proc what belongs to others. */
    if (child->scope || landlock_abi() > 0) {
        int error = child->scope ? install_signal_scope() : install_barrier();
        if (error < 0)
            give_up(child, RS_STAGE_SANDBOX, error);
    }
    int listener = install_filter(child->start->insns, start->n_insns, start->filter_flags);
    if (listener < 0)
        give_up(child, RS_STAGE_FILTER, listener);
    return listener;
}

/*
 * Runs in a process that shares the launcher's descriptor table, with every signal blocked. Behind the
 * filter nothing but write, read, unshare(CLONE_FILES), rt_sigaction, rt_sigprocmask and exit_group may be
 * called before execve: there is nobody yet who would answer.
 */
_Noreturn void run_child(const struct child *child)
{
    int listener = enter_sandbox(child);
    /* The number means the same thing in the launcher, which passes the listener on and closes it: a
     * sendmsg of our own could be trapped by the filter. */
    report(child, REPORT_LISTENER, 0, listener);

    char go;
    ssize_t size;
    do
        size = read(child->go, &go, sizeof(go));
    while (size < 0 && errno == EINTR);
    if (size != sizeof(go))
        _exit(125);

    /* A table of our own first: only then may the launcher close 0-2, and only then does execve close the
     * report pipe for us alone. */
    if (unshare(CLONE_FILES) != 0)
        give_up(child, RS_STAGE_SANDBOX, -errno);
    report(child, REPORT_SEPARATE, 0, 0);

    if (sigaction(SIGCHLD, &child->on_sigchld, NULL) != 0)
        give_up(child, RS_STAGE_SANDBOX, -errno);
    int error = change_mask(SIG_SETMASK, child->mask, NULL);
    if (error < 0)
        give_up(child, RS_STAGE_SANDBOX, error);
    execve(child->program, child->argv, environ);
    give_up(child, RS_STAGE_EXEC, -errno);
}
