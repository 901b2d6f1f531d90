/*
 * open(2), openat(2), creat(2) of plain files and directories: decided on the pin, opened from the pin, added to the
 * target. The reference is calls/opening.py, which takes whatever is less plain.
 */
#include "held.h"

#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#define KERNEL_O_LARGEFILE 0100000
#define KERNEL_O_TMPFILE (O_TMPFILE & ~O_DIRECTORY)

/* What the kernel knows (open_how(2)); open(2) ignores the rest. */
#define KNOWN_FLAGS                                                                                           \
    (O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND | O_NONBLOCK | O_DSYNC | O_SYNC | O_ASYNC | \
     O_DIRECT | KERNEL_O_LARGEFILE | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC | O_PATH | O_TMPFILE)

/* An error of open(2); only if the target has a descriptor left, which the kernel looks at first. */
static enum rs_outcome fail(struct rs_held *held, int error)
{
    return held_has_descriptor(held) ? held_fail(held, error) : RS_QUESTION;
}

/* The same after a decision, which is on record exactly if the call is answered here. */
static enum rs_outcome fail_judged(struct rs_held *held, const struct rs_effects *effects, int error)
{
    if (!held_has_descriptor(held))
        return RS_QUESTION;
    held_record(held, effects, error);
    return held_fail(held, error);
}

/* Devices that block nobody, and whose opening does nothing. */
static int is_harmless_device(const struct stat *st)
{
    if (!S_ISCHR(st->st_mode) || major(st->st_rdev) != 1)
        return 0;
    const unsigned number = minor(st->st_rdev);
    return number == 3 || number == 5 || number == 7 || number == 8 || number == 9;
}

/*
 * Pin what exists, in one step of the kernel, links followed. Only where the target's root is ours, and nothing in
 * procfs is the answer, where "self" would be the broker: -EXDEV. -errno: look closer, the error may be another.
 */
static int pin_at_once(struct rs_held *held, const struct rs_identity *as, int dirfd, const char *path, int flags)
{
    if (!held->engine->same_root)
        return -EXDEV;
    RS_CLOSING int base = -1;
    if (path[0] != '/') {
        base = held_base(held, dirfd);
        if (base < 0)
            return base;
    }
    struct open_how how = {
        .flags = O_PATH | O_CLOEXEC | (uint64_t)(flags & (O_NOFOLLOW | O_DIRECTORY)),
        .resolve = RESOLVE_NO_MAGICLINKS,
    };
    int rc = rs_assume(as);
    if (rc < 0)
        return rc;
    int fd = rs_result(syscall(SYS_openat2, base < 0 ? AT_FDCWD : base, path, &how, sizeof how));
    rs_resume();
    return fd;
}

/* fs.protected_regular, which the kernel asks for names only: 1 if it has nothing to say. */
static int is_sticky_fine(const struct rs_pin *pin, const struct rs_identity *as)
{
    struct stat directory, st;
    if (fstat(pin->parent, &directory) < 0 || fstat(pin->object, &st) < 0)
        return 0;
    if (!(directory.st_mode & S_ISVTX) || !(directory.st_mode & (S_IWOTH | S_IWGRP)))
        return 1;
    return st.st_uid == directory.st_uid || st.st_uid == as->fsuid;
}

/*
 * Hand an open file over. `fd` is closed before the target goes on: a copy that lingers can be seen, as a writer
 * (ETXTBSY), as the end of a FIFO, as the owner of a lock.
 *
 * In two steps, though SECCOMP_ADDFD_FLAG_SEND would spare two changes of task: if a stop of the harness (or any signal)
 * interrupts that, the kernel takes the descriptor back but has answered already, and with 0, which is one, too.
 */
static enum rs_outcome hand_over(struct rs_held *held, const struct rs_effects *effects, int fd, int flags)
{
    int number;
    do
        number = rs_notif_add_fd(held->engine->listener, held->n.id, fd, flags & O_CLOEXEC ? 1 : 0, 0);
    while (number == -EINTR && held_valid(held) == 0);
    (void)close(fd);
    if (number == -EMFILE && effects->each[0].operation != RS_CREATE)
        return held_fail(held, EMFILE); /* open(2) says so before it looks: nothing has happened */
    held_record(held, effects, number < 0 ? -number : 0);
    return number < 0 ? held_fail(held, -number) : held_reply(held, number);
}

/* What is there is opened from its pin. */
static enum rs_outcome open_pinned(struct rs_held *held, const struct rs_identity *as, int pin, int flags)
{
    struct rs_effects effects;
    struct stat st;
    if (fstat(pin, &st) < 0)
        return RS_QUESTION;
    const int directory = S_ISDIR(st.st_mode);
    if (!S_ISREG(st.st_mode) && !directory && !S_ISFIFO(st.st_mode) && !is_harmless_device(&st))
        return RS_QUESTION;
    if ((S_ISREG(st.st_mode) || directory) && major(st.st_dev) == 0 && held_plain_type(pin) <= 0)
        return RS_QUESTION;
    int length = held_name(held, pin, effects.path, PATH_MAX);
    if (length < 0)
        return RS_QUESTION;
    effects.length = (size_t)length;
    effects.count = 0;
    effects.opens = 1;
    const int access = flags & O_ACCMODE;
    if ((flags & O_DIRECTORY) && !directory)
        return fail(held, ENOTDIR);
    if (directory && (access != O_RDONLY || (flags & (O_CREAT | O_TRUNC))))
        return fail(held, EISDIR);
    if (access != O_WRONLY)
        held_add(&effects, RS_READ);
    if (access != O_RDONLY || (flags & O_TRUNC))
        held_add(&effects, RS_MODIFY);
    if ((flags & O_TRUNC) && !held_has_descriptor(held))
        return RS_QUESTION;
    int allowed;
    enum rs_outcome outcome = held_judge(held, &effects, &allowed);
    if (!allowed)
        return outcome;
    /* What has no effect before it is handed over needs no asking: then the kernel asks. */
    if (((flags & O_TRUNC) || S_ISFIFO(st.st_mode)) && held_valid(held) < 0)
        return RS_ANSWERED;
    if (S_ISFIFO(st.st_mode) && !(flags & O_NONBLOCK) && held_may_block(held) < 0)
        return RS_QUESTION;
    int fd = held_reopen(held, as, pin, flags);
    if (fd == -EINTR)
        return held_valid(held) < 0 ? RS_ANSWERED : RS_QUESTION;
    if (fd < 0)
        return fail_judged(held, &effects, -fd);
    return hand_over(held, &effects, fd, flags);
}

/* What is not there is created below its pinned parent, under the name that was judged. */
static enum rs_outcome create(struct rs_held *held, const struct rs_identity *as, const struct rs_pin *pin, int flags,
                              mode_t mode)
{
    struct rs_effects effects;
    char now[RS_PATH_ROOM];
    if (held_plain_file_system(pin->parent) <= 0)
        return RS_QUESTION;
    int length = held_child_name(held, pin->parent, pin->name, effects.path, sizeof effects.path);
    if (length < 0 || length >= PATH_MAX)
        return RS_QUESTION;
    effects.length = (size_t)length;
    effects.count = 0;
    effects.opens = 1;
    held_add(&effects, RS_CREATE);
    if (!held_has_descriptor(held))
        return RS_QUESTION;
    int allowed;
    enum rs_outcome outcome = held_judge(held, &effects, &allowed);
    if (!allowed)
        return outcome;
    if (rs_names_share(held->engine->names) < 0)
        return RS_QUESTION;
    int fd = -ESTALE;
    const int waits = held_valid(held) == 0;
    if (waits && held_child_name(held, pin->parent, pin->name, now, sizeof now) == length &&
        memcmp(now, effects.path, (size_t)length) == 0)
        fd = rs_create(as, pin->parent, pin->name, flags, mode);
    (void)rs_names_release(held->engine->names);
    if (!waits)
        return RS_ANSWERED;
    if (fd == -ESTALE || fd == -EEXIST || fd == -EINTR)
        return RS_QUESTION;
    if (fd < 0)
        return fail_judged(held, &effects, -fd);
    return hand_over(held, &effects, fd, flags);
}

enum rs_outcome held_open(struct rs_held *held, int dirfd, uint64_t address, uint64_t given, uint64_t mode)
{
    const int flags = (int)(uint32_t)given & KNOWN_FLAGS;
    if ((flags & (O_PATH | KERNEL_O_TMPFILE)) || (flags & O_ACCMODE) == O_ACCMODE)
        return RS_QUESTION;
    if ((flags & O_CREAT) && (flags & O_DIRECTORY))
        return RS_QUESTION;
    char path[PATH_MAX];
    RS_CLOSING int there = -1;
    const struct rs_identity *rights = held_rights(held);
    if (!rights)
        return RS_QUESTION;
    int length = held_read_path(held, address, path);
    if (length <= 0)
        return RS_QUESTION;
    if ((flags & O_CREAT) && path[length - 1] == '/')
        return RS_QUESTION;
    if (!(flags & O_CREAT))
        there = pin_at_once(held, rights, dirfd, path, flags);
    if (there >= 0)
        return open_pinned(held, rights, there, flags);

    const struct rs_identity *as = held_identity(held, flags & O_CREAT);
    if (!as)
        return RS_QUESTION;
    if (flags & O_CREAT) {
        PIN_CLOSING struct rs_pin entry = {.object = -1, .parent = -1};
        if (held_pin_entry(held, as, dirfd, path, &entry) == 0) {
            if (entry.flags & RS_PIN_MISSING)
                return create(held, as, &entry, flags, (mode_t)(mode & 07777));
            if (S_ISREG(entry.mode) && !(flags & O_EXCL) && is_sticky_fine(&entry, as))
                return open_pinned(held, as, entry.object, flags);
        }
    }
    RS_CLOSING int base = -1;
    if (path[0] != '/') {
        base = rs_target_base(held->task->fd, dirfd);
        if (base < 0)
            return RS_QUESTION;
    }
    const int exclusive = (flags & O_CREAT) && (flags & O_EXCL);
    const int follow = !((flags & O_NOFOLLOW) || exclusive) || (path[length - 1] == '/' && !(flags & O_CREAT));
    PIN_CLOSING struct rs_pin pin = {.object = -1, .parent = -1};
    int rc = rs_resolve(held->task->fd, held->task->tid, held->engine->launcher, as, base, path,
                        follow ? RS_FOLLOW : 0, 0, &pin);
    if (rc == -ENOENT || rc == -ENOTDIR || rc == -EACCES || rc == -ELOOP)
        return held_valid(held) < 0 ? RS_ANSWERED : fail(held, -rc);
    if (rc < 0 || pin.process || (pin.flags & ~(uint32_t)RS_PIN_MISSING))
        return RS_QUESTION;
    if (pin.flags & RS_PIN_MISSING) {
        if (!(flags & O_CREAT))
            return fail(held, ENOENT);
        return create(held, as, &pin, flags, (mode_t)(mode & 07777));
    }
    if (exclusive)
        return fail(held, EEXIST);
    if ((flags & O_CREAT) && (pin.parent < 0 || !is_sticky_fine(&pin, as)))
        return RS_QUESTION;
    return open_pinned(held, as, pin.object, flags);
}
