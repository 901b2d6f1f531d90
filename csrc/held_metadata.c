/*
 * chmod(2), chown(2), utimensat(2) and their relatives, of plain files, directories and links: by descriptor, on a copy of
 * it, and by path, on a pin. The reference is calls/metadata.py, which takes whatever is less plain.
 */
#include "held.h"

#include <sys/sysmacros.h>
#include <sys/syscall.h>

#define UTIMENSAT_OMITS_BOTH(times) ((times)[1] == UTIME_OMIT && (times)[3] == UTIME_OMIT)

/* Change it. `fd` is a pin, or a copy of the target's descriptor. */
static int apply(const struct rs_identity *as, int fd, const struct rs_metadata *change)
{
    switch (change->kind) {
    case RS_MODE:
        return rs_chmod(as, fd, change->mode);
    case RS_OWNER:
        return rs_chown(as, fd, change->uid, change->gid);
    case RS_TIMES:
    default:
        return rs_utimens(as, fd, change->now ? NULL : change->times);
    }
}

/* Judge a change of what was pinned, and make it. `straight` is the path that led there; NULL: ask the pin. */
static enum rs_outcome change_pinned(struct rs_held *held, const struct rs_identity *as, int fd,
                                     const struct rs_straight *straight, const struct rs_metadata *change)
{
    struct rs_effects effects;
    struct stat st;
    int allowed;
    if (fstat(fd, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || S_ISLNK(st.st_mode)))
        return RS_QUESTION;
    if (held_plain_file_system(fd) <= 0 || held_name_pin(held, fd, straight, &effects) < 0)
        return RS_QUESTION;
    effects.count = 0;
    effects.opens = 0;
    held_add(&effects, RS_METADATA);
    enum rs_outcome outcome = held_judge(held, &effects, &allowed);
    if (!allowed)
        return outcome;
    if (held_valid(held) < 0)
        return RS_ANSWERED;
    int rc = apply(as, fd, change);
    if (rc == -EINTR)
        return RS_QUESTION;
    held_record(held, &effects, rc < 0 ? -rc : 0);
    return rc < 0 ? held_fail(held, -rc) : held_reply(held, 0);
}

/* Copy times from the target, if they are not now. They count only if the call still waits afterwards. */
static int read_times(const struct rs_held *held, struct rs_metadata *change)
{
    change->now = change->address == 0;
    if (change->kind != RS_TIMES || change->now)
        return 0;
    int64_t got = rs_target_read(held->task ? held->task->fd : -1, (pid_t)held->n.pid, change->address,
                                 (char *)change->times, sizeof change->times);
    if (got < 0)
        return (int)got;
    /* Then the kernel looks at nothing else, not even at whether there is such a file. */
    return got < (int64_t)sizeof change->times || UTIMENSAT_OMITS_BOTH(change->times) ? -EINVAL : 0;
}

/* Whether ids are named that mean others to us: numbers of another user namespace. */
static int is_meant_elsewhere(const struct rs_identity *as, const struct rs_metadata *change)
{
    return as->elsewhere && change->kind == RS_OWNER;
}

enum rs_outcome held_change_open(struct rs_held *held, int fd, struct rs_metadata *change)
{
    const struct rs_identity *as = held_rights(held);
    if (!as || is_meant_elsewhere(as, change) || fd < 0 || read_times(held, change) < 0)
        return RS_QUESTION;
    /* Of a copy, since the number can mean another file at any time. */
    int copy = held_copy_fd(held, fd);
    if (copy < 0)
        return RS_QUESTION;
    const int flags = fcntl(copy, F_GETFL);
    enum rs_outcome outcome = RS_QUESTION;
    if (flags >= 0 && !(flags & O_PATH))
        outcome = change_pinned(held, as, copy, NULL, change);
    (void)close(copy);
    return outcome;
}

enum rs_outcome held_change(struct rs_held *held, int dirfd, uint64_t address, int flags, struct rs_metadata *change)
{
    struct rs_straight straight;
    char path[PATH_MAX];
    const struct rs_identity *as = held_rights(held);
    if (!as || is_meant_elsewhere(as, change) || (flags & ~AT_SYMLINK_NOFOLLOW) || read_times(held, change) < 0)
        return RS_QUESTION;
    if (held_read_path(held, address, path) <= 0 || held_straight(held, dirfd, path, &straight) < 0)
        return RS_QUESTION;
    if (rs_assume(as) < 0)
        return RS_QUESTION;
    RS_CLOSING int pin = held_open_name(straight.path, O_PATH | (flags & AT_SYMLINK_NOFOLLOW ? O_NOFOLLOW : 0));
    rs_resume();
    if (pin == -ENOENT && held_is_missing(held, dirfd, &straight))
        return held_valid(held) < 0 ? RS_ANSWERED : held_fail(held, ENOENT);
    return pin < 0 ? RS_QUESTION : change_pinned(held, as, pin, &straight, change);
}
