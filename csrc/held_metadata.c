/*
 * chmod(2), chown(2), utimensat(2), setxattr(2), removexattr(2) and their relatives, of plain files, directories and
 * links: by descriptor, on a copy of it, and by path, on a pin. The reference is calls/metadata.py, which takes
 * whatever is less plain.
 */
#include "held.h"

#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#define UTIMENSAT_OMITS_BOTH(times) ((times)[1] == UTIME_OMIT && (times)[3] == UTIME_OMIT)

/* A change of what is said about a file. */
struct change {
    enum { RS_MODE, RS_OWNER, RS_TIMES, RS_SET_ATTRIBUTE, RS_REMOVE_ATTRIBUTE } kind;
    mode_t mode;
    uid_t uid;
    gid_t gid;
    uint64_t address; /* in the target: of the times (utimensat(2)), 0: now; or of an attribute's name */
    uint64_t value;   /* in the target: of an attribute's value */
    uint64_t size;
    int flags; /* of setxattr(2) */
    int now;
    int64_t times[4];
    char name[XATTR_NAME_MAX + 1];
};

/* Change it. `fd` is a pin, or a copy of the target's descriptor; `value` is of an attribute. */
static int apply(const struct rs_identity *as, int fd, const struct change *change, const char *value)
{
    switch (change->kind) {
    case RS_MODE:
        return rs_chmod(as, fd, change->mode);
    case RS_OWNER:
        return rs_chown(as, fd, change->uid, change->gid);
    case RS_SET_ATTRIBUTE:
        return rs_setxattr(as, fd, change->name, value, change->size, change->flags);
    case RS_REMOVE_ATTRIBUTE:
        return rs_removexattr(as, fd, change->name);
    case RS_TIMES:
    default:
        return rs_utimens(as, fd, change->now ? NULL : change->times);
    }
}

/* Judge a change of what was pinned, and make it. `straight` is the path that led there; NULL: ask the pin. */
static enum rs_outcome change_pinned(struct rs_held *held, const struct rs_identity *as, int fd,
                                     const struct rs_straight *straight, const struct change *change)
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
    int rc = apply(as, fd, change, held->worker->buffer);
    if (rc == -EINTR)
        return RS_QUESTION;
    held_record(held, &effects, rc < 0 ? -rc : 0);
    return rc < 0 ? held_fail(held, -rc) : held_reply(held, 0);
}

static int read_times(const struct rs_held *held, struct change *change)
{
    change->now = change->address == 0;
    if (change->now)
        return 0;
    int64_t got = rs_target_read(held->task ? held->task->fd : -1, (pid_t)held->n.pid, change->address,
                                 (char *)change->times, sizeof change->times);
    if (got < 0)
        return (int)got;
    /* Then the kernel looks at nothing else, not even at whether there is such a file. */
    return got < (int64_t)sizeof change->times || UTIMENSAT_OMITS_BOTH(change->times) ? -EINVAL : 0;
}

/* The value goes into the worker's buffer. */
static int read_attribute(struct rs_held *held, struct change *change)
{
    const int target = held->task ? held->task->fd : -1;
    int64_t got = rs_target_read_string(target, (pid_t)held->n.pid, change->address, change->name, sizeof change->name);
    if (got <= 0)
        return got < 0 ? (int)got : -ERANGE;
    if (change->flags & ~(XATTR_CREATE | XATTR_REPLACE))
        return -EINVAL;
    if (change->kind == RS_REMOVE_ATTRIBUTE || change->size == 0)
        return 0;
    char *value = held_buffer(held);
    if (!value || change->size > MESSAGE_MAX)
        return value ? -E2BIG : -ENOMEM;
    got = rs_target_read(target, (pid_t)held->n.pid, change->value, value, (size_t)change->size);
    if (got < 0)
        return (int)got;
    return (uint64_t)got < change->size ? -EFAULT : 0;
}

/* Copy from the target what does not stand in registers. It counts only if the call still waits afterwards. */
static int read_change(struct rs_held *held, struct change *change)
{
    switch (change->kind) {
    case RS_TIMES:
        return read_times(held, change);
    case RS_SET_ATTRIBUTE:
    case RS_REMOVE_ATTRIBUTE:
        return read_attribute(held, change);
    case RS_MODE:
    case RS_OWNER:
    default:
        return 0;
    }
}

/* Whether ids are named that mean others to us: numbers of another user namespace. */
static int is_meant_elsewhere(const struct rs_identity *as, const struct change *change)
{
    return as->elsewhere && change->kind == RS_OWNER;
}

static enum rs_outcome change_open(struct rs_held *held, int fd, struct change *change)
{
    const struct rs_identity *as = held_rights(held);
    if (!as || is_meant_elsewhere(as, change) || fd < 0 || read_change(held, change) < 0)
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

static enum rs_outcome change_path(struct rs_held *held, int dirfd, uint64_t address, int flags,
                                   struct change *change)
{
    struct rs_straight straight;
    char path[PATH_MAX];
    const struct rs_identity *as = held_rights(held);
    if (!as || is_meant_elsewhere(as, change) || (flags & ~AT_SYMLINK_NOFOLLOW) || read_change(held, change) < 0)
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

/* Of calls that change an attribute: their arguments in one form. */
static enum rs_outcome answer_attribute(struct rs_held *held, int32_t nr, const uint64_t *args)
{
    const struct rs_numbers *numbers = &held->engine->numbers;
    struct change change = {.kind = RS_REMOVE_ATTRIBUTE, .address = args[1]};
    if (nr == numbers->setxattr || nr == numbers->lsetxattr || nr == numbers->fsetxattr) {
        change.kind = RS_SET_ATTRIBUTE;
        change.value = args[2];
        change.size = args[3];
        change.flags = (int)args[4];
    }
    if (nr == numbers->fsetxattr || nr == numbers->fremovexattr)
        return change_open(held, (int)args[0], &change);
    const int of_link = nr == numbers->lsetxattr || nr == numbers->lremovexattr;
    return change_path(held, AT_FDCWD, args[0], of_link ? AT_SYMLINK_NOFOLLOW : 0, &change);
}

enum rs_outcome held_metadata(struct rs_held *held, int32_t nr, const uint64_t *args)
{
    const struct rs_numbers *numbers = &held->engine->numbers;
    const int32_t attributes[] = {
        numbers->setxattr,    numbers->lsetxattr,    numbers->fsetxattr,
        numbers->removexattr, numbers->lremovexattr, numbers->fremovexattr,
    };
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
        if (nr == attributes[i])
            return answer_attribute(held, nr, args);
    const int at = nr == numbers->fchmodat || nr == numbers->fchmodat2 || nr == numbers->fchownat ||
                   nr == numbers->utimensat;
    struct change change = {.kind = RS_MODE, .mode = (mode_t)args[at + 1] & 07777};
    if (nr == numbers->utimensat) {
        change = (struct change){.kind = RS_TIMES, .address = args[2]};
        if (!args[1])
            return args[3] ? RS_QUESTION : change_open(held, (int)args[0], &change);
        return change_path(held, (int)args[0], args[1], (int)args[3], &change);
    }
    if (nr == numbers->chown || nr == numbers->lchown || nr == numbers->fchown || nr == numbers->fchownat)
        change = (struct change){.kind = RS_OWNER, .uid = (uid_t)args[at + 1], .gid = (gid_t)args[at + 2]};
    if (nr == numbers->fchmod || nr == numbers->fchown)
        return change_open(held, (int)args[0], &change);
    const int flags = nr == numbers->fchownat    ? (int)args[4]
                      : nr == numbers->fchmodat2 ? (int)args[3]
                      : nr == numbers->lchown    ? AT_SYMLINK_NOFOLLOW
                                                 : 0;
    return change_path(held, at ? (int)args[0] : AT_FDCWD, args[at], flags, &change);
}
