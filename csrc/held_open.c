/*
 * open(2), openat(2), creat(2) of plain files and directories: decided on the pin, opened from the pin, added to the
 * target. The reference is calls/opening.py, which takes whatever is less plain.
 */
#include "held.h"

#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

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

/* fs.protected_regular, which the kernel asks where O_CREAT is given: 1 if it has nothing to say. */
static int is_sticky_fine(const struct stat *directory, const struct stat *st, const struct rs_identity *as)
{
    if (!(directory->st_mode & S_ISVTX) || !(directory->st_mode & (S_IWOTH | S_IWGRP)))
        return 1;
    return st->st_uid == directory->st_uid || st->st_uid == as->fsuid;
}

static int is_pin_sticky_fine(const struct rs_pin *pin, const struct rs_identity *as)
{
    struct stat directory, st;
    return fstat(pin->parent, &directory) == 0 && fstat(pin->object, &st) == 0 && is_sticky_fine(&directory, &st, as);
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

/* Whether the kernel's file systems, whose files are more than files, have nothing to do with it. */
static int is_plain(const struct stat *st, int fd)
{
    return major(st->st_dev) != 0 || held_plain_type(fd) > 0;
}

static void add_opening(struct rs_effects *effects, int flags)
{
    if ((flags & O_ACCMODE) != O_WRONLY)
        held_add(effects, RS_READ);
    if ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC))
        held_add(effects, RS_MODIFY);
}

/*
 * Open a pinned object, by its name if that works out: a walk through procfs costs more. What opening would do to the
 * file is done through the pin alone.
 */
static int reopen(const struct rs_held *held, const struct rs_identity *as, int pin, const struct stat *pinned,
                  const char *name, int flags)
{
    struct stat st;
    if (!(flags & O_TRUNC) && (S_ISREG(pinned->st_mode) || S_ISDIR(pinned->st_mode)) && rs_assume(as) == 0) {
        int fd = held_open_name(name, (flags & ~(O_CREAT | O_EXCL)) | O_NOCTTY);
        rs_resume();
        if (fd >= 0 && fstat(fd, &st) == 0 && st.st_dev == pinned->st_dev && st.st_ino == pinned->st_ino)
            return fd;
        rs_close_fd(&fd);
    }
    return held_reopen(held, as, pin, flags);
}

/* What is there is opened from its pin. `straight` is the path that led there, or NULL. */
static enum rs_outcome open_pinned(struct rs_held *held, const struct rs_identity *as, int pin, int flags,
                                   const struct rs_straight *straight)
{
    struct rs_effects effects;
    struct stat st;
    if (fstat(pin, &st) < 0)
        return RS_QUESTION;
    const int directory = S_ISDIR(st.st_mode);
    if (!S_ISREG(st.st_mode) && !directory && !S_ISFIFO(st.st_mode) && !is_harmless_device(&st))
        return RS_QUESTION;
    if ((S_ISREG(st.st_mode) || directory) && !is_plain(&st, pin))
        return RS_QUESTION;
    if (held_name_pin(held, pin, straight, &effects) < 0)
        return RS_QUESTION;
    effects.count = 0;
    effects.opens = 1;
    if ((flags & O_DIRECTORY) && !directory)
        return fail(held, ENOTDIR);
    if (directory && ((flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC))))
        return fail(held, EISDIR);
    add_opening(&effects, flags);
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
    int fd = reopen(held, as, pin, &st, effects.path, flags);
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

/* Hand over what a straight path led to, open already, if that is allowed. */
static enum rs_outcome give_straight(struct rs_held *held, const struct rs_straight *straight, int *fd, int flags)
{
    struct rs_effects effects;
    int allowed;
    held_take_name(&effects, straight);
    effects.count = 0;
    effects.opens = 1;
    add_opening(&effects, flags);
    if ((flags & O_TRUNC) && !held_has_descriptor(held))
        return RS_QUESTION;
    enum rs_outcome outcome = held_judge(held, &effects, &allowed);
    if (!allowed)
        return outcome;
    if (flags & O_TRUNC) {
        if (held_valid(held) < 0)
            return RS_ANSWERED;
        if (ftruncate(*fd, 0) < 0)
            return fail_judged(held, &effects, errno);
    }
    return hand_over(held, &effects, rs_steal_fd(fd), flags);
}

/* Whether the tables allow all that opening what is there would do. */
static int allows_opening(const struct rs_held *held, const struct rs_straight *straight, int flags)
{
    const int access = flags & O_ACCMODE;
    if (access != O_WRONLY && !held_allows(held, RS_READ, straight))
        return 0;
    return (access == O_RDONLY && !(flags & O_TRUNC)) || held_allows(held, RS_MODIFY, straight);
}

/* Answer that nothing is there, with no link on the way. -EAGAIN: look closer. */
static int miss_straight(struct rs_held *held, int dirfd, const struct rs_straight *straight, enum rs_outcome *outcome)
{
    if (!held_is_missing(held, dirfd, straight))
        return -EAGAIN;
    *outcome = held_valid(held) < 0 ? RS_ANSWERED : fail(held, ENOENT);
    return 0;
}

/* Pin what a straight path leads to, where it seems that it may not be opened. -EAGAIN: look closer. */
static int pin_straight(struct rs_held *held, const struct rs_identity *as, int dirfd,
                        const struct rs_straight *straight, int flags, enum rs_outcome *outcome)
{
    if (rs_assume(as) < 0)
        return -EAGAIN;
    RS_CLOSING int pin = held_open_name(straight->path, O_PATH | (flags & (O_NOFOLLOW | O_DIRECTORY)));
    rs_resume();
    if (pin == -ENOENT)
        return miss_straight(held, dirfd, straight, outcome);
    if (pin < 0)
        return -EAGAIN;
    *outcome = open_pinned(held, as, pin, flags, straight);
    return 0;
}

/* Whether it is a file or a directory: opening a FIFO waits, and opening a device has an effect. */
static int is_harmless_kind(mode_t mode)
{
    return S_ISREG(mode) || S_ISDIR(mode);
}

/*
 * Open what is there at the end of a straight path, in one walk, if it is what may be opened just so. Its kind is asked
 * before and, since it may have been exchanged, afterwards. What opening does to a file is done last, when all is known.
 * -EAGAIN: nothing has happened, look closer.
 */
static int open_straight(struct rs_held *held, const struct rs_identity *as, int dirfd,
                         const struct rs_straight *straight, int flags, enum rs_outcome *outcome)
{
    struct stat st;
    RS_CLOSING int fd = -EAGAIN;
    if ((flags & O_TRUNC) && (flags & O_ACCMODE) == O_RDONLY)
        return -EAGAIN; /* what is open for reading cannot be truncated */
    if (rs_assume(as) < 0)
        return -EAGAIN;
    const int error = fstatat(AT_FDCWD, straight->path, &st, AT_SYMLINK_NOFOLLOW) < 0 ? errno : 0;
    if (error == ENOENT)
        fd = held_open_name(straight->path, O_PATH);
    else if (!error && is_harmless_kind(st.st_mode))
        fd = held_open_name(straight->path, (flags & ~(O_CREAT | O_TRUNC)) | O_NOCTTY);
    rs_resume();
    if (error == ENOENT)
        return fd == -ENOENT ? miss_straight(held, dirfd, straight, outcome) : -EAGAIN;
    if (fd < 0 || fstat(fd, &st) < 0 || !is_harmless_kind(st.st_mode) || !is_plain(&st, fd) ||
        !held_is_straight(held, straight, fd))
        return -EAGAIN;
    *outcome = give_straight(held, straight, &fd, flags);
    return 0;
}

/* Create below a directory that has not moved, under the name that was judged. -EAGAIN: nothing has happened. */
static int create_straight(struct rs_held *held, const struct rs_identity *as, const struct rs_straight *straight,
                           int flags, mode_t mode, enum rs_outcome *outcome)
{
    struct rs_effects effects;
    int allowed;
    held_take_name(&effects, straight);
    effects.count = 0;
    effects.opens = 1;
    held_add(&effects, RS_CREATE);
    if (!held_has_descriptor(held))
        return -EAGAIN;
    *outcome = held_judge(held, &effects, &allowed);
    if (!allowed)
        return 0;
    if (rs_names_share(held->engine->names) < 0)
        return -EAGAIN;
    int fd = -EAGAIN;
    const int waits = held_valid(held) == 0;
    if (waits && held_is_still(held, straight))
        fd = rs_create_straight(as, straight->path, flags, mode);
    (void)rs_names_release(held->engine->names);
    *outcome = RS_ANSWERED;
    if (!waits)
        return 0;
    if (fd < 0)
        return -EAGAIN; /* which error it is, and whether it is on record, the closer look says */
    *outcome = hand_over(held, &effects, fd, flags);
    return 0;
}

/* What is at the end of a straight path, and the directory that holds it. */
struct place {
    int missing;
    struct stat entry, directory;
    int plain; /* the directory's file system is */
};

static int look_at(const struct rs_identity *as, const struct rs_straight *straight, struct place *place)
{
    char directory[PATH_MAX];
    struct statfs fs;
    const char *slash = strrchr(straight->path, '/');
    const size_t length = slash == straight->path ? 1 : (size_t)(slash - straight->path);
    memcpy(directory, straight->path, length);
    directory[length] = 0;
    int rc = rs_assume(as);
    if (rc < 0)
        return rc;
    if (fstatat(AT_FDCWD, straight->path, &place->entry, AT_SYMLINK_NOFOLLOW) < 0)
        rc = -errno;
    place->missing = rc == -ENOENT;
    if (rc == 0 || place->missing)
        rc = rs_result(fstatat(AT_FDCWD, directory, &place->directory, AT_SYMLINK_NOFOLLOW));
    place->plain = rc == 0 && (major(place->directory.st_dev) != 0 ||
                               (statfs(directory, &fs) == 0 && held_is_plain_type((uint32_t)fs.f_type)));
    rs_resume();
    return rc;
}

/* The first look of a call that may create. */
static int look_and_create(struct rs_held *held, const struct rs_identity *as, int dirfd, const char *path, int flags,
                           mode_t mode, enum rs_outcome *outcome)
{
    struct rs_straight straight;
    struct place place;
    if (held_straight(held, dirfd, path, &straight) < 0 || look_at(as, &straight, &place) < 0 || !place.plain)
        return -EAGAIN;
    if (place.missing && held_allows(held, RS_CREATE, &straight))
        return create_straight(held, as, &straight, flags, mode, outcome);
    if (place.missing || !S_ISREG(place.entry.st_mode) || (flags & O_EXCL) ||
        !is_sticky_fine(&place.directory, &place.entry, as) || !allows_opening(held, &straight, flags))
        return -EAGAIN;
    return open_straight(held, as, dirfd, &straight, flags, outcome);
}

/* The first look: -EAGAIN if it takes a closer one, as wherever a symbolic link is on the way. */
static int look(struct rs_held *held, const struct rs_identity *as, int dirfd, const char *path, int flags,
                enum rs_outcome *outcome)
{
    struct rs_straight straight;
    if (held_straight(held, dirfd, path, &straight) < 0)
        return -EAGAIN;
    if (!allows_opening(held, &straight, flags))
        return pin_straight(held, as, dirfd, &straight, flags, outcome);
    return open_straight(held, as, dirfd, &straight, flags, outcome);
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
    if (!(flags & O_CREAT)) {
        enum rs_outcome outcome;
        if (look(held, rights, dirfd, path, flags, &outcome) == 0)
            return outcome;
        there = pin_at_once(held, rights, dirfd, path, flags);
    }
    if (there >= 0)
        return open_pinned(held, rights, there, flags, NULL);

    const struct rs_identity *as = held_identity(held, flags & O_CREAT);
    if (!as)
        return RS_QUESTION;
    if (flags & O_CREAT) {
        enum rs_outcome outcome;
        if (look_and_create(held, as, dirfd, path, flags, (mode_t)(mode & 07777), &outcome) == 0)
            return outcome;
        PIN_CLOSING struct rs_pin entry = {.object = -1, .parent = -1};
        if (held_pin_entry(held, as, dirfd, path, &entry) == 0) {
            if (entry.flags & RS_PIN_MISSING)
                return create(held, as, &entry, flags, (mode_t)(mode & 07777));
            if (S_ISREG(entry.mode) && !(flags & O_EXCL) && is_pin_sticky_fine(&entry, as))
                return open_pinned(held, as, entry.object, flags, NULL);
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
    if ((flags & O_CREAT) && (pin.parent < 0 || !is_pin_sticky_fine(&pin, as)))
        return RS_QUESTION;
    return open_pinned(held, as, pin.object, flags, NULL);
}
