/* Acting with the target's rights, in one thread, without the C library's process-wide set*id. */
#include "rampart.h"

#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>

#include "newer.h"
#include "protocol.h"

struct own_rights {
    int known;
    int own_fs; /* this thread has a umask and working directory of its own */
    mode_t umask, umask_now;
    uid_t euid;
    gid_t egid;
    uint64_t effective, permitted, inheritable;
    int ngroups;
    gid_t groups[RS_GROUPS_MAX];
};

static _Thread_local struct own_rights own;
static _Thread_local int assumed;

static int get_caps(uint64_t *effective, uint64_t *permitted, uint64_t *inheritable)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) < 0)
        return -errno;
    *effective = data[0].effective | (uint64_t)data[1].effective << 32;
    *permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
    *inheritable = data[0].inheritable | (uint64_t)data[1].inheritable << 32;
    return 0;
}

static int set_effective(uint64_t effective)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[2] = {
        {(uint32_t)effective, (uint32_t)own.permitted, (uint32_t)own.inheritable},
        {(uint32_t)(effective >> 32), (uint32_t)(own.permitted >> 32), (uint32_t)(own.inheritable >> 32)},
    };
    return rs_result(syscall(SYS_capset, &header, data));
}

static int learn_own(void)
{
    if (own.known)
        return 0;
    own.euid = geteuid();
    own.egid = getegid();
    own.ngroups = getgroups(RS_GROUPS_MAX, own.groups);
    if (own.ngroups < 0)
        return -errno;
    int rc = get_caps(&own.effective, &own.permitted, &own.inheritable);
    if (rc < 0)
        return rc;
    own.known = 1;
    return 0;
}

/*
 * Give the calling thread a umask and working directory of its own, the latter "/", where nobody can shut it out.
 * Call it once in every thread that performs.
 * -EPERM in containers that refuse unshare(2): creating then sets the mode through the new object instead.
 */
int rs_thread_prepare(void)
{
    int rc = learn_own();
    if (rc < 0)
        return rc;
    if (unshare(CLONE_FS) < 0)
        return -errno;
    if (chdir("/") < 0)
        return -errno;
    own.own_fs = 1;
    own.umask = own.umask_now = umask(0);
    (void)umask(own.umask);
    return 0;
}

int rs_owns_umask(void)
{
    return own.own_fs;
}

static int same_rights(const struct rs_identity *as)
{
    if (as->euid != own.euid || as->fsuid != own.euid || as->egid != own.egid || as->fsgid != own.egid)
        return 0;
    if (own.effective & ~as->cap_effective)
        return 0;
    if ((int)as->ngroups != own.ngroups)
        return 0;
    return memcmp(as->groups, own.groups, sizeof(gid_t) * (size_t)own.ngroups) == 0;
}

/*
 * Take on the target's groups, ids and capabilities, for this thread only (raw system calls: the C library's
 * wrappers would change every thread). Nothing is ever gained: a right the thread lacks stays lacking.
 */
int rs_assume(const struct rs_identity *as)
{
    if (!as)
        return 0;
    int rc = learn_own();
    if (rc < 0)
        return rc;
    if (same_rights(as))
        return 0;
    if (own.euid != 0) {
        rs_resume();
        return -EPERM; /* without privilege the tree cannot have other ids than ours */
    }
    assumed = 1;
    if (syscall(SYS_setgroups, as->ngroups, as->groups) < 0 ||
        syscall(SYS_setresgid, -1, as->egid, -1) < 0 || syscall(SYS_setfsgid, as->fsgid) < 0) {
        rc = -errno;
        rs_resume();
        return rc;
    }
    if (as->euid != own.euid && syscall(SYS_setresuid, -1, as->euid, -1) < 0) {
        rc = -errno;
        rs_resume();
        return rc;
    }
    if (as->fsuid != as->euid) {
        /* setfsuid(2) reports no error: ask what became of it. */
        (void)syscall(SYS_setfsuid, as->fsuid);
        if ((uid_t)syscall(SYS_setfsuid, -1) != as->fsuid) {
            rs_resume();
            return -EPERM;
        }
    }
    /*
     * Leaving uid 0 cleared the effective capabilities, though a target may have kept some; an fsuid of 0 brought those
     * about files back, though it may have dropped them (capabilities(7)). The permitted ones are all still there.
     */
    if ((rc = set_effective(own.effective & as->cap_effective)) < 0)
        rs_resume();
    return rc;
}

/* For what creates: take on the target's umask, too, until rs_resume; not where it is the harness's (rs_owns_umask). */
void rs_assume_umask(const struct rs_identity *as)
{
    if (as && own.own_fs && own.umask_now != as->umask) {
        (void)umask(as->umask);
        own.umask_now = as->umask;
    }
}

/* Come back to the thread's own rights and umask. A thread that cannot must not go on. */
void rs_resume(void)
{
    if (own.own_fs && own.umask_now != own.umask) {
        (void)umask(own.umask);
        own.umask_now = own.umask;
    }
    if (!assumed)
        return;
    int saved = errno;
    if (syscall(SYS_setresuid, -1, own.euid, -1) < 0 || set_effective(own.effective) < 0 ||
        syscall(SYS_setresgid, -1, own.egid, -1) < 0 ||
        syscall(SYS_setgroups, own.ngroups, own.groups) < 0)
        abort();
    assumed = 0;
    errno = saved;
}

static int parse_status(char *text, struct rs_identity *out)
{
    unsigned seen = 0;
    for (char *save = NULL, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        unsigned long long caps;
        if (sscanf(line, "Umask: %o", &out->umask) == 1)
            seen |= 1;
        else if (sscanf(line, "Tgid: %d", &out->tgid) == 1)
            seen |= 2;
        else if (sscanf(line, "PPid: %d", &out->ppid) == 1)
            seen |= 4;
        else if (sscanf(line, "Uid: %u %u %u %u", &out->ruid, &out->euid, &out->suid, &out->fsuid) == 4)
            seen |= 8;
        else if (sscanf(line, "Gid: %u %u %u %u", &out->rgid, &out->egid, &out->sgid, &out->fsgid) == 4)
            seen |= 16;
        else if (sscanf(line, "CapEff: %llx", &caps) == 1) {
            out->cap_effective = out->cap_inside = caps;
            seen |= 32;
        } else if (strncmp(line, "Groups:", 7) == 0) {
            char *at = line + 7, *end;
            out->ngroups = 0;
            for (;;) {
                unsigned long gid = strtoul(at, &end, 10);
                if (end == at)
                    break;
                if (out->ngroups == RS_GROUPS_MAX)
                    return -E2BIG;
                out->groups[out->ngroups++] = (gid_t)gid;
                at = end;
            }
            seen |= 64;
        }
    }
    return seen == 127 ? 0 : -EPROTO;
}

/* Read who the target is from /proc/<tid>/status. -E2BIG: more groups than RS_GROUPS_MAX. */
int rs_target_identity(int target, struct rs_identity *out)
{
    char text[16384];
    RS_CLOSING int fd = openat(target, "status", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    size_t done = 0;
    while (done < sizeof text - 1) {
        ssize_t got = read(fd, text + done, sizeof text - 1 - done);
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    text[done] = 0;
    memset(out, 0, offsetof(struct rs_identity, groups));
    int rc = parse_status(text, out);
    if (rc < 0)
        return rc;
    if (!rs_in_own_user_space(target)) {
        out->elsewhere = 1;
        out->cap_effective = 0;
    }
    return 0;
}

/* The signal that interrupts a thread of ours which waits in the kernel for a target that has died. */
static int interrupt_signal(void)
{
    return SIGRTMAX - 5;
}

static void ignore_signal(int number)
{
    (void)number;
}

/* Install a handler that does nothing, without SA_RESTART. -EBUSY if the host program uses the signal itself. */
int rs_interrupt_prepare(void)
{
    struct sigaction current;
    if (sigaction(interrupt_signal(), NULL, &current) < 0)
        return -errno;
    if (current.sa_handler == ignore_signal)
        return 0;
    if (current.sa_handler != SIG_DFL)
        return -EBUSY;
    struct sigaction mine = {.sa_handler = ignore_signal};
    (void)sigemptyset(&mine.sa_mask);
    return rs_result(sigaction(interrupt_signal(), &mine, NULL));
}

/* Leave all signals of the host program to threads of its own, but for the one that ends a wait of ours. */
int rs_block_signals(void)
{
    sigset_t theirs;
    if (sigfillset(&theirs) < 0 || sigdelset(&theirs, interrupt_signal()) < 0)
        return -errno;
    return -pthread_sigmask(SIG_SETMASK, &theirs, NULL);
}

/* Make a blocking call of thread `tid` of this process return -EINTR. Repeat until it has: it may not wait yet. */
int rs_interrupt(pid_t tid)
{
    return rs_result(syscall(SYS_tgkill, getpid(), tid, interrupt_signal()));
}

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

/* Make a timer that does the same to the calling thread; to be deleted by it. -EAGAIN */
int rs_interrupt_timer(timer_t *out)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = interrupt_signal()};
    event.sigev_notify_thread_id = rs_gettid();
    return rs_result(timer_create(CLOCK_MONOTONIC, &event, out));
}

/* From now on every so many nanoseconds, less than a second; 0: no more. */
int rs_interrupt_every(timer_t timer, long nanoseconds)
{
    const struct itimerspec every = {.it_value.tv_nsec = nanoseconds, .it_interval.tv_nsec = nanoseconds};
    return rs_result(timer_settime(timer, 0, &every, NULL));
}

/* Continue a launcher that stopped along with its command, and not the command. */
int rs_nudge(int pidfd)
{
    siginfo_t info = {0};
    info.si_signo = SIGCONT;
    info.si_code = SI_QUEUE;
    info.si_pid = getpid();
    info.si_uid = getuid();
    info.si_value.sival_int = RS_NUDGE;
    return rs_result(syscall(SYS_pidfd_send_signal, pidfd, SIGCONT, &info, 0));
}

int rs_gettid(void)
{
    return (int)syscall(SYS_gettid);
}
