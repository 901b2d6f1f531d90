/*
 * unlink(2), rmdir(2), mkdir(2), symlink(2), rename(2): names below pinned directories. A name is moved, and a symbolic
 * link is made, where the rules say the same about both places and all that may be beneath them; whether anything is lost
 * where they do not, and other links, is Python's: calls/naming.py.
 */
#include "held.h"

#include <linux/fs.h>
#include <sys/statvfs.h>

/* An entry of a directory. */
struct entry {
    struct rs_pin pin;           /* without its object where the path is straight */
    struct rs_straight straight; /* the path, */
    int is_straight;             /* if no link is on the way to the directory */
};

/* Pin the directory at the end of a straight path, and look at the entry. -EAGAIN: look closer. */
static int pin_straight(struct rs_held *held, const struct rs_identity *as, int dirfd, const char *path,
                        struct entry *entry)
{
    struct rs_pin *pin = &entry->pin;
    struct rs_straight *straight = &entry->straight;
    struct stat st, directory;
    const char *given = strrchr(path, '/');
    const char *name = given ? given + 1 : path;
    const size_t length = strlen(name);
    if (length == 0 || length > NAME_MAX || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
        held_straight(held, dirfd, path, straight) < 0 || rs_assume(as) < 0)
        return -EAGAIN;
    char *slash = strrchr(straight->path, '/');
    *slash = 0;
    pin->parent = held_open_name(slash == straight->path ? "/" : straight->path, O_PATH | O_DIRECTORY);
    *slash = '/';
    int rc = pin->parent < 0 ? pin->parent : rs_result(fstatat(pin->parent, name, &st, AT_SYMLINK_NOFOLLOW));
    rs_resume();
    if (pin->parent < 0 || (rc < 0 && rc != -ENOENT) || fstat(pin->parent, &directory) < 0)
        return -EAGAIN;
    /* What is mounted there is looked at more closely. */
    if (held_plain_file_system(pin->parent) <= 0 || (rc == 0 && st.st_dev != directory.st_dev) ||
        !held_is_missing(held, dirfd, straight))
        return -EAGAIN;
    pin->flags = rc == -ENOENT ? RS_PIN_MISSING : 0;
    memcpy(pin->name, name, length + 1);
    entry->is_straight = 1;
    return 0;
}

static void drop_entry(struct entry *entry)
{
    held_drop_pin(&entry->pin);
    entry->pin.object = entry->pin.parent = -1;
}
#define ENTRY_DROPPING __attribute__((cleanup(drop_entry)))

static void begin_entry(struct entry *entry)
{
    entry->pin = (struct rs_pin){.object = -1, .parent = -1};
    entry->is_straight = 0;
}

/* Pin an entry whose directory is found at once. -EAGAIN: look closer; -EXDEV: it is none for us. */
static int pin_at_once(struct rs_held *held, const struct rs_identity *as, int dirfd, const char *path,
                       struct entry *entry)
{
    struct rs_pin *pin = &entry->pin;
    if (pin_straight(held, as, dirfd, path, entry) == 0)
        return 0;
    drop_entry(entry);
    if (held_pin_entry(held, as, dirfd, path, pin) == 0) {
        const int plain = held_plain_file_system(pin->parent) > 0 &&
                          (pin->object < 0 || held_plain_file_system(pin->object) > 0);
        return plain ? 0 : -EXDEV;
    }
    drop_entry(entry);
    return -EAGAIN;
}

/* Pin an entry: the last component is not followed. RS_ANSWERED if the call is over already. */
static enum rs_outcome pin_entry(struct rs_held *held, const struct rs_identity *as, int dirfd, uint64_t address,
                                 struct entry *entry, int *pinned)
{
    char path[PATH_MAX];
    struct rs_pin *pin = &entry->pin;
    *pinned = 0;
    int length = held_read_path(held, address, path);
    if (length <= 0)
        return RS_QUESTION;
    int rc = pin_at_once(held, as, dirfd, path, entry);
    *pinned = rc == 0;
    if (rc != -EAGAIN)
        return rc == 0 ? RS_ANSWERED : RS_QUESTION;

    RS_CLOSING int base = -1;
    struct rs_task *task = held_task(held);
    if (!task)
        return RS_QUESTION;
    if (path[0] != '/') {
        base = rs_target_base(task->fd, dirfd);
        if (base < 0)
            return RS_QUESTION;
    }
    const struct rs_identity *own = held_identity(held, 0); /* whose "self" it is counts here, too */
    if (!own)
        return RS_QUESTION;
    rc = rs_resolve(task->fd, task->tid, held->engine->launcher, own, base, path, 0, 0, pin);
    if (rc == -ENOENT || rc == -ENOTDIR || rc == -EACCES || rc == -ELOOP)
        return held_valid(held) < 0 ? RS_ANSWERED : held_fail(held, -rc);
    if (rc < 0 || pin->process || pin->parent < 0 || (pin->flags & ~(uint32_t)(RS_PIN_MISSING | RS_PIN_SLASH)))
        return RS_QUESTION;
    if (held_plain_file_system(pin->parent) <= 0 || (pin->object >= 0 && held_plain_file_system(pin->object) <= 0))
        return RS_QUESTION;
    *pinned = 1;
    return RS_ANSWERED;
}

static int name_of(const struct rs_held *held, const struct entry *entry, char *path, size_t size)
{
    const struct rs_pin *pin = &entry->pin;
    return pin->object >= 0 ? held_name(held, pin->object, path, size)
                            : held_child_name(held, pin->parent, pin->name, path, size);
}

/* While names are held still: whether the call still waits, and the name still is what was judged. */
static int as_judged(struct rs_held *held, const struct entry *entry, const struct rs_effects *effects)
{
    char now[RS_PATH_ROOM];
    if (held_valid(held) < 0)
        return 0;
    if (entry->is_straight && held_is_still(held, &entry->straight))
        return 1;
    int length = name_of(held, entry, now, sizeof now);
    return length >= 0 && (size_t)length == effects->length && memcmp(now, effects->path, effects->length) == 0;
}

/* `others` may be NULL. */
static enum rs_outcome finish(struct rs_held *held, const struct rs_effects *effects, const struct rs_effects *others,
                              int rc)
{
    if (rc == -ESTALE || rc == -EINTR)
        return RS_QUESTION;
    held_record(held, effects, rc < 0 ? -rc : 0);
    if (others)
        held_record(held, others, rc < 0 ? -rc : 0);
    return rc < 0 ? held_fail(held, -rc) : held_reply(held, 0);
}

/* What is done to one entry. */
struct change {
    enum rs_operation operation; /* RS_DELETE of what is there, RS_CREATE of what is not: */
    const char *text;            /* of a symbolic link; NULL: a directory */
    int flags;                   /* of unlinkat(2) */
    mode_t mode;
};

static int carry_out(const struct change *change, const struct rs_identity *as, const struct rs_pin *pin)
{
    if (change->operation == RS_DELETE)
        return rs_unlink(as, pin->parent, pin->name, change->flags);
    if (change->text)
        return rs_symlink(as, change->text, pin->parent, pin->name);
    return rs_mkdir(as, pin->parent, pin->name, change->mode);
}

/* The error of removing a name that is not there: the kernel looks for it last of all. */
static int not_removed(const struct rs_pin *pin)
{
    struct statvfs fs;
    return fstatvfs(pin->parent, &fs) == 0 && (fs.f_flag & ST_RDONLY) ? EROFS : ENOENT;
}

static int take_name(const struct rs_held *held, const struct entry *entry, struct rs_effects *effects)
{
    effects->count = 0;
    effects->opens = 0;
    if (entry->is_straight) {
        held_take_name(effects, &entry->straight);
        return 0;
    }
    int length = name_of(held, entry, effects->path, sizeof effects->path);
    effects->length = length < 0 ? 0 : (size_t)length;
    return length < 0 ? length : 0;
}

static enum rs_outcome change_entry(struct rs_held *held, const struct rs_identity *as, int dirfd, uint64_t address,
                                    const struct change *change)
{
    if (!as)
        return RS_QUESTION;
    ENTRY_DROPPING struct entry entry;
    begin_entry(&entry);
    int pinned, allowed;
    enum rs_outcome outcome = pin_entry(held, as, dirfd, address, &entry, &pinned);
    if (!pinned)
        return outcome;
    const int missing = (entry.pin.flags & RS_PIN_MISSING) != 0;
    if (missing != (change->operation == RS_CREATE))
        return held_fail(held, missing ? not_removed(&entry.pin) : EEXIST);
    struct rs_effects effects;
    if (take_name(held, &entry, &effects) < 0 || (change->text && !held_unwatched(held, &effects)))
        return RS_QUESTION;
    held_add(&effects, change->operation);
    outcome = held_judge(held, &effects, &allowed);
    if (!allowed)
        return outcome;
    if (rs_names_share(held->engine->names) < 0)
        return RS_QUESTION;
    int rc = as_judged(held, &entry, &effects) ? carry_out(change, as, &entry.pin) : -ESTALE;
    (void)rs_names_release(held->engine->names);
    drop_entry(&entry); /* before the answer, at which the target may make its next call */
    return finish(held, &effects, NULL, rc);
}

enum rs_outcome held_remove(struct rs_held *held, int dirfd, uint64_t address, int flags)
{
    const struct change change = {.operation = RS_DELETE, .flags = flags};
    if (flags & ~AT_REMOVEDIR)
        return RS_QUESTION;
    return change_entry(held, held_rights(held), dirfd, address, &change);
}

enum rs_outcome held_make_directory(struct rs_held *held, int dirfd, uint64_t address, uint64_t mode)
{
    const struct change change = {.operation = RS_CREATE, .mode = (mode_t)(mode & 07777)};
    return change_entry(held, held_identity(held, 1), dirfd, address, &change);
}

enum rs_outcome held_make_link(struct rs_held *held, uint64_t text, int dirfd, uint64_t path)
{
    char copy[PATH_MAX];
    const struct change change = {.operation = RS_CREATE, .text = copy};
    if (held_read_path(held, text, copy) <= 0)
        return RS_QUESTION;
    return change_entry(held, held_rights(held), dirfd, path, &change);
}

/* While names are held still by nobody else: move the one to the other, if both are what was judged. */
static int move(struct rs_held *held, const struct rs_identity *as, const struct entry *old, const struct entry *new,
                const struct rs_effects *leaves, const struct rs_effects *comes, unsigned flags)
{
    struct stat st, replaced;
    if (!as_judged(held, old, leaves) || !as_judged(held, new, comes) ||
        fstatat(old->pin.parent, old->pin.name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
        (S_ISLNK(st.st_mode) && !held_unwatched(held, comes)))
        return -ESTALE;
    const int there = fstatat(new->pin.parent, new->pin.name, &replaced, AT_SYMLINK_NOFOLLOW) == 0;
    if (!there && errno != ENOENT)
        return -ESTALE;
    /* Judged was the deletion of what is there, or of nothing. */
    if (there != (comes->count > 1))
        return -ESTALE;
    return rs_rename(as, old->pin.parent, old->pin.name, new->pin.parent, new->pin.name, flags);
}

/*
 * Only what is allowed without a record, between names that the rules do not tell apart: nothing that is denied or asked
 * under the old name can then be less so under the new one, beneath a directory either.
 */
enum rs_outcome held_rename(struct rs_held *held, int old_dirfd, uint64_t old_path, int new_dirfd, uint64_t new_path,
                            unsigned flags)
{
    char from[PATH_MAX], to[PATH_MAX];
    const struct rs_identity *as = held_rights(held);
    ENTRY_DROPPING struct entry old;
    ENTRY_DROPPING struct entry new;
    struct rs_effects leaves, comes;
    begin_entry(&old);
    begin_entry(&new);
    if (!as || flags & ~(unsigned)RENAME_NOREPLACE || held_read_path(held, old_path, from) <= 0 ||
        held_read_path(held, new_path, to) <= 0 || pin_at_once(held, as, old_dirfd, from, &old) < 0 ||
        pin_at_once(held, as, new_dirfd, to, &new) < 0)
        return RS_QUESTION;
    if (((old.pin.flags | new.pin.flags) & ~(uint32_t)RS_PIN_MISSING) || old.pin.flags & RS_PIN_MISSING ||
        take_name(held, &old, &leaves) < 0 || take_name(held, &new, &comes) < 0)
        return RS_QUESTION;
    held_add(&leaves, RS_DELETE);
    held_add(&comes, RS_CREATE);
    if (!(new.pin.flags & RS_PIN_MISSING))
        held_add(&comes, RS_DELETE);
    if (!held_allows_quietly(held, &leaves) || !held_allows_quietly(held, &comes) ||
        !held_alike(held, &leaves, &comes) || rs_names_hold(held->engine->names) < 0)
        return RS_QUESTION;
    int rc = move(held, as, &old, &new, &leaves, &comes, flags);
    (void)rs_names_release(held->engine->names);
    drop_entry(&old); /* before the answer, at which the target may make its next call */
    drop_entry(&new);
    return finish(held, &leaves, &comes, rc);
}
