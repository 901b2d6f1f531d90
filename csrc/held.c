/* What all held calls need: who calls, what they point to, what the tables say, and the answer. */
#include "held.h"

#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <time.h>

int64_t held_clock(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) < 0)
        return 1;
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void held_forget(struct rs_task *task)
{
    int fd = task->fd, pidfd = task->pidfd;
    task->fd = task->pidfd = -1; /* first: a forked child must not close a number that is somebody else's by then */
    rs_close_fd(&fd);
    rs_close_fd(&pidfd);
    task->pidfd_of = 0;
    task->tid = 0;
    task->identified = 0;
    task->who_size = 0;
}

/* Note that a process changes its umask. It is forgotten by nobody: where there is no room, all count as such. */
void held_note_umask(struct rs_engine *engine, pid_t tgid)
{
    (void)pthread_mutex_lock(&engine->lock);
    size_t i = 0;
    while (i < engine->umasks_count && engine->umasks[i] != tgid)
        i++;
    if (i == engine->umasks_count && i < UMASKS_MAX && tgid > 0)
        engine->umasks[engine->umasks_count++] = tgid;
    else if (i == engine->umasks_count)
        atomic_store(&engine->umasks_all, 1);
    (void)pthread_mutex_unlock(&engine->lock);
}

int held_umask_moves(struct rs_engine *engine, pid_t tgid)
{
    if (tgid <= 0 || atomic_load(&engine->umasks_all))
        return 1;
    int found = 0;
    (void)pthread_mutex_lock(&engine->lock);
    for (size_t i = 0; i < engine->umasks_count && !found; i++)
        found = engine->umasks[i] == tgid;
    (void)pthread_mutex_unlock(&engine->lock);
    return found;
}

/* Whether the task that an entry is about still lives: numbers are used again. */
static int alive(const struct rs_task *task)
{
    struct stat st;
    return fstatat(task->fd, "cwd", &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Find out which task calls; NULL if it is gone, or cannot be looked at. */
struct rs_task *held_task(struct rs_held *held)
{
    const pid_t tid = (pid_t)held->n.pid;
    const uint64_t age = atomic_load(&held->engine->age);
    struct rs_task *task = &held->worker->tasks[(unsigned)tid % TASKS];
    if (held->task)
        return held->task;
    if (task->tid == tid && task->age == age && atomic_load(&held->engine->blind) == 0 && alive(task))
        return held->task = task;
    held_forget(task);
    int fd = rs_target_open(tid);
    if (fd == -EMFILE) {
        for (int i = 0; i < TASKS; i++)
            held_forget(&held->worker->tasks[i]);
        fd = rs_target_open(tid);
    }
    if (fd < 0)
        return NULL;
    task->fd = fd;
    task->tid = tid;
    task->age = age;
    /* Opened by number: only a task that still waits is the one that called. */
    if (held_valid(held) < 0) {
        held_forget(task);
        return NULL;
    }
    return held->task = task;
}

/*
 * Who the task is. NULL if that cannot be read. `fresh`: the umask counts, too, which any thread of the process can
 * change: one that has done so once is asked each time.
 */
const struct rs_identity *held_identity(struct rs_held *held, int fresh)
{
    struct rs_task *task = held_task(held);
    if (!task)
        return NULL;
    if (task->identified && !(fresh && held_umask_moves(held->engine, task->identity.tgid)))
        return &task->identity;
    task->identified = 0;
    if (rs_target_identity(task->fd, &task->identity) < 0)
        return NULL;
    task->identified = 1;
    return &task->identity;
}

/* Whether an exec, or a fork, leaves these rights as they are (capabilities(7)). */
static int lasts(const struct rs_identity *is)
{
    return is->ruid == is->euid && is->suid == is->euid && is->fsuid == is->euid && is->rgid == is->egid &&
           is->sgid == is->egid && is->fsgid == is->egid;
}

/*
 * The rights that the task acts with: ids, groups and capabilities, and nothing else of the identity. As long as no
 * task of the tree has changed its own, all have those that the command was started with. NULL: cannot be read.
 */
const struct rs_identity *held_rights(struct rs_held *held)
{
    struct rs_engine *engine = held->engine;
    if (atomic_load(&engine->differ))
        return held_identity(held, 0);
    if (atomic_load(&engine->shared))
        return &engine->rights;
    const struct rs_identity *own = held_identity(held, 0);
    if (!own)
        return NULL;
    if (!lasts(own)) {
        atomic_store(&engine->differ, 1);
        return own;
    }
    (void)pthread_mutex_lock(&engine->lock);
    if (!atomic_load(&engine->shared)) {
        engine->rights = *own;
        atomic_store(&engine->shared, 1);
    }
    (void)pthread_mutex_unlock(&engine->lock);
    return own;
}

/* Pin what `dirfd` means to the target, by its number: counts only if the call still waits afterwards. -errno. */
int held_base(const struct rs_held *held, int dirfd)
{
    char path[48];
    if (dirfd == AT_FDCWD)
        (void)snprintf(path, sizeof path, "/proc/%d/cwd", (pid_t)held->n.pid);
    else if (dirfd < 0)
        return -EBADF;
    else
        (void)snprintf(path, sizeof path, "/proc/%d/fd/%d", (pid_t)held->n.pid, dirfd);
    return rs_result(open(path, O_PATH | O_CLOEXEC));
}

/*
 * Pin the last component of a path, which is not followed, and the directory that has it: in two steps of the kernel,
 * links on the way followed. By the task's number: counts only if the call still waits afterwards. Negative: look closer
 * (rs_resolve), also for the right error.
 */
int held_pin_entry(const struct rs_held *held, const struct rs_identity *as, int dirfd, const char *path,
                   struct rs_pin *pin)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    const size_t length = strlen(name);
    char directory[PATH_MAX];
    struct stat st;
    if (!held->engine->same_root || length == 0 || length > NAME_MAX || strcmp(name, ".") == 0 ||
        strcmp(name, "..") == 0)
        return -EXDEV;
    RS_CLOSING int base = -1;
    if (path[0] != '/') {
        base = held_base(held, dirfd);
        if (base < 0)
            return base;
    }
    int rc = rs_assume(as);
    if (rc < 0)
        return rc;
    if (slash) {
        struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_NO_MAGICLINKS};
        memcpy(directory, path, (size_t)(name - path));
        directory[name - path] = 0;
        pin->parent = rs_result(syscall(SYS_openat2, base < 0 ? AT_FDCWD : base, directory, &how, sizeof how));
    } else {
        pin->parent = rs_steal_fd(&base);
    }
    if (pin->parent >= 0)
        pin->object = rs_result(openat(pin->parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
    rs_resume();
    if (pin->parent < 0)
        return pin->parent;
    if (pin->object == -ENOENT) {
        pin->flags |= RS_PIN_MISSING;
        pin->object = -1;
    } else if (pin->object < 0 || fstat(pin->object, &st) < 0) {
        return -EXDEV;
    } else {
        pin->mode = st.st_mode;
    }
    memcpy(pin->name, name, length + 1);
    return 0;
}

/* The name of a descriptor of ours in /proc/self/fd. */
struct number {
    char text[12];
};

static struct number number_of(int fd)
{
    struct number number;
    char digits[sizeof number.text];
    unsigned count = 0, left = (unsigned)fd;
    do
        digits[count++] = (char)('0' + left % 10);
    while (left /= 10);
    for (unsigned i = 0; i < count; i++)
        number.text[i] = digits[count - 1 - i];
    number.text[count] = 0;
    return number;
}

/* As rs_open. */
int held_reopen(const struct rs_held *held, const struct rs_identity *as, int pin, int flags)
{
    int rc = rs_assume(as);
    if (rc < 0)
        return rc;
    flags &= ~(O_CREAT | O_EXCL | O_NOFOLLOW | O_PATH);
    int fd = rs_result(openat(held->engine->descriptors, number_of(pin).text, flags | O_CLOEXEC | O_NOCTTY));
    rs_resume();
    return fd;
}

int held_valid(const struct rs_held *held)
{
    return rs_notif_valid(held->engine->listener, held->n.id);
}

/*
 * Copy a path, PATH_MAX bytes at most with its NUL; returns its length or -errno. By the task's number: it counts only
 * if the call still waits afterwards, which the answer shows, or held_valid.
 */
int held_read_path(struct rs_held *held, uint64_t address, char *path)
{
    /* Without a descriptor of the task: that is for where /proc/<tid>/mem has to serve, and then this fails. */
    int64_t length =
        rs_target_read_string(held->task ? held->task->fd : -1, (pid_t)held->n.pid, address, path, PATH_MAX);
    return (int)length;
}

/*
 * 1 if the target certainly has a free descriptor below its limit (getrlimit(2)); open(2) finds that out before all
 * else. The size of /proc/<tid>/fd is the number of open files since Linux 6.2.
 */
int held_has_descriptor(struct rs_held *held)
{
    struct rlimit limit;
    struct stat st;
    const struct rs_task *task = held_task(held);
    if (!task || prlimit(task->tid, RLIMIT_NOFILE, NULL, &limit) < 0)
        return 0;
    if (fstatat(task->fd, "fd", &st, 0) < 0)
        return 0;
    return st.st_size > 0 && (limit.rlim_cur == RLIM_INFINITY || (rlim_t)st.st_size < limit.rlim_cur);
}

/*
 * 1 if the object lies in a file system whose files are just files: see calls/machine.py. 0 if not, or unknown; -errno.
 * All that is special has no device of its own, so one with a block device, whose number is not 0, needs no asking.
 */
int held_plain_file_system(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    return major(st.st_dev) != 0 ? 1 : held_plain_type(fd);
}

int held_plain_type(int fd)
{
    struct statfs fs;
    if (fstatfs(fd, &fs) < 0)
        return -errno;
    return held_is_plain_type((uint32_t)fs.f_type);
}

/* `type` is that of statfs(2). */
int held_is_plain_type(uint32_t type)
{
    switch (type) {
    case EXT4_SUPER_MAGIC:
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case F2FS_SUPER_MAGIC:
    case TMPFS_MAGIC:
    case OVERLAYFS_SUPER_MAGIC:
    case 0x2fc12fc1: /* ZFS */
    case 0xca451a4e: /* bcachefs */
    case SQUASHFS_MAGIC:
    case EROFS_SUPER_MAGIC_V1:
    case MSDOS_SUPER_MAGIC:
    case EXFAT_SUPER_MAGIC:
    case NFS_SUPER_MAGIC:
    case V9FS_MAGIC:
    case FUSE_SUPER_MAGIC:
    case RAMFS_MAGIC:
        return 1;
    default:
        return 0;
    }
}

/* The real name of what is there; its length, or -ESTALE if it takes a closer look. */
int held_name(const struct rs_held *held, int fd, char *path, size_t size)
{
    static const char suffix[] = " (deleted)";
    const size_t tail = sizeof suffix - 1;
    ssize_t length = readlinkat(held->engine->descriptors, number_of(fd).text, path, size);
    if (length < 0)
        return -errno;
    if ((size_t)length >= size || path[0] != '/')
        return -ESTALE;
    path[length] = 0;
    if ((size_t)length > tail && memcmp(path + length - tail, suffix, tail) == 0)
        return -ESTALE;
    return (int)length;
}

/* The name that an entry of a pinned directory has or would have. */
int held_child_name(const struct rs_held *held, int parent, const char *name, char *path, size_t size)
{
    int length = held_name(held, parent, path, size - NAME_MAX - 2);
    if (length < 0)
        return length;
    size_t at = (size_t)length, named = strlen(name);
    while (named > 0 && name[named - 1] == '/')
        named--;
    if (named == 0 || named > NAME_MAX)
        return -ESTALE;
    if (at > 1)
        path[at++] = '/';
    memcpy(path + at, name, named);
    path[at + named] = 0;
    return (int)(at + named);
}

/*
 * Take a copy of the task's open file (pidfd_getfd(2)), by its number: counts only if the call still waits afterwards. A
 * pidfd is kept for the next call: one that still works is of whoever has the number. -errno.
 */
int held_copy_fd(struct rs_held *held, int fd)
{
    const pid_t tid = (pid_t)held->n.pid;
    struct rs_task *task = &held->worker->tasks[(unsigned)tid % TASKS];
    if (task->pidfd_of == tid) {
        int copy = rs_result(syscall(SYS_pidfd_getfd, task->pidfd, fd, 0));
        if (copy != -ESRCH)
            return copy;
    }
    int before = task->pidfd;
    task->pidfd = -1; /* first, as in held_forget */
    rs_close_fd(&before);
    task->pidfd_of = 0;
    task->pidfd = rs_result(syscall(SYS_pidfd_open, tid, PIDFD_THREAD));
    if (task->pidfd < 0)
        return rs_target_copy_fd(held->task ? held->task->fd : -1, tid, fd);
    task->pidfd_of = tid;
    return rs_result(syscall(SYS_pidfd_getfd, task->pidfd, fd, 0));
}

/* MESSAGE_MAX bytes for this call, or NULL. */
char *held_buffer(struct rs_held *held)
{
    if (!held->worker->buffer)
        held->worker->buffer = malloc(MESSAGE_MAX);
    return held->worker->buffer;
}

void held_add(struct rs_effects *effects, enum rs_operation operation)
{
    effects->each[effects->count++].operation = operation;
}

/* Give a number, and write down a decision, of which `head` has what is its own. */
static void put(struct rs_held *held, struct rs_record head, const char *object, size_t length, int keep)
{
    struct rs_engine *engine = held->engine;
    const struct rs_task *task = held->task;
    head.serial = rs_tables_serial(held->reign->tables);
    head.began = (uint64_t)held->began;
    head.held = (uint64_t)(held_clock() - held->began);
    head.tid = (pid_t)held->n.pid;
    head.tgid = task && task->identified ? task->identity.tgid : 0;
    head.nr = held->n.nr;
    struct rs_journal *journal = keep ? engine->records : engine->others;
    /* Room was reserved; the rest is bounded here. So neither can fail. */
    (void)rs_journal_put(journal, &head, object, length, keep ? task->who : NULL, keep ? task->who_size : 0,
                         &engine->sequence);
    if (keep) {
        held->reserved--;
        const uint64_t one = 1;
        (void)!write(engine->wake, &one, sizeof one); /* full: then it is readable already */
    }
}

/* Write down what was decided about one effect. */
static void put_effect(struct rs_held *held, const struct rs_effects *effects, const struct rs_effect *effect, int keep,
                       int error)
{
    struct rs_record head = {
        .flags = effect->verdict.answer == RS_ALLOW ? RS_RECORD_ALLOWED : 0,
        .error = error,
        .operation = (uint32_t)effect->operation,
    };
    if (effect->operation == RS_CONNECT) {
        head.flags |= effects->datagram ? RS_RECORD_DATAGRAM : 0;
        head.port = effects->port;
    }
    put(held, head, effects->path, effects->length, keep);
}

static int kept(const struct rs_held *held, const struct rs_verdict *verdict)
{
    return verdict->answer != RS_ALLOW || (held->reign->flags & RS_RECORD_ALL) ||
           (verdict->log && (held->reign->flags & RS_RECORD_LOGGED));
}

/* Make sure that what must be on record can be: with room for it, and with who did it. Instead of what was before. */
static int prepare_record(struct rs_held *held, unsigned count)
{
    if (held->reserved) {
        rs_journal_drop(held->engine->records, held->reserved);
        held->reserved = 0;
    }
    if (count == 0)
        return 0;
    struct rs_task *task = held_task(held);
    if (!task)
        return -ESRCH;
    int rc = rs_journal_reserve(held->engine->records, count);
    if (rc < 0)
        return rc;
    held->reserved = count;
    if (task->who_size)
        return 0;
    const struct rs_identity *identity = held_identity(held, 0);
    if (!identity)
        return -ESRCH;
    if (!task->who)
        task->who = malloc(RS_WHO_ROOM);
    if (!task->who)
        return -ENOMEM;
    int64_t size = rs_describe(identity->tgid, held->engine->launcher, task->who, RS_WHO_ROOM);
    if (size <= 0)
        return size < 0 ? (int)size : -ESRCH;
    task->who_size = (size_t)size;
    return 0;
}

/* The same; *outcome says what becomes of the call if it cannot. */
static int reserve(struct rs_held *held, unsigned count, enum rs_outcome *outcome)
{
    const int rc = prepare_record(held, count);
    *outcome = RS_QUESTION;
    if (rc == -ENOSPC && (held->reign->flags & RS_RECORD_REQUIRED)) {
        atomic_fetch_add(&held->engine->unrecorded, 1);
        *outcome = held_fail(held, EACCES);
    }
    return rc;
}

static int decide(const struct rs_held *held, const struct rs_effects *effects, enum rs_operation operation,
                  struct rs_verdict *out)
{
    if (operation == RS_CONNECT)
        return rs_decide_address(held->reign->tables, operation, (const unsigned char *)effects->path,
                                 effects->length, effects->port, out);
    return rs_decide_path(held->reign->tables, held->worker->walker, operation, effects->path, effects->length,
                          out);
}

/* 1 if the tables allow it by themselves. Nothing is recorded, and nobody answered. */
int held_allows(const struct rs_held *held, enum rs_operation operation, const struct rs_straight *straight)
{
    struct rs_verdict verdict;
    return rs_decide_path(held->reign->tables, held->worker->walker, operation, straight->name, straight->length,
                          &verdict) == 0 &&
           verdict.answer == RS_ALLOW;
}

/*
 * Let the tables decide. *allowed is 1 if all effects may be; the caller then acts, records and answers. A denial is
 * recorded and answered here.
 */
enum rs_outcome held_judge(struct rs_held *held, struct rs_effects *effects, int *allowed)
{
    const struct rs_effect *denied = NULL;
    int undecided = 0;
    unsigned keep = 0;
    *allowed = 0;
    for (unsigned i = 0; i < effects->count; i++) {
        struct rs_effect *effect = &effects->each[i];
        if (decide(held, effects, effect->operation, &effect->verdict) < 0)
            return RS_QUESTION;
        switch (effect->verdict.answer) {
        case RS_ALLOW:
            keep += (unsigned)kept(held, &effect->verdict);
            break;
        case RS_UNDECIDED:
            undecided = 1;
            break;
        case RS_DENY:
        default:
            if (!denied)
                denied = effect;
        }
    }
    if (!denied && undecided)
        return RS_QUESTION;
    if (denied && effects->opens && !held_has_descriptor(held))
        return RS_QUESTION;
    /* Nothing was read of anybody else, or nobody waits for the answer. */
    if (denied && held_valid(held) < 0)
        return RS_ANSWERED;
    enum rs_outcome outcome;
    if (reserve(held, denied ? 1 : keep, &outcome) < 0)
        return outcome;
    if (!denied) {
        *allowed = 1;
        return RS_ANSWERED;
    }
    const int error = denied->verdict.error > 0 ? denied->verdict.error : EACCES;
    put_effect(held, effects, denied, 1, error);
    return held_fail(held, error);
}

/* Make sure that what becomes of an allowed call can be on record: -errno as prepare_record has it. */
int held_keep(struct rs_held *held, const struct rs_effects *effects)
{
    unsigned keep = 0;
    for (unsigned i = 0; i < effects->count; i++)
        keep += (unsigned)kept(held, &effects->each[i].verdict);
    return prepare_record(held, keep);
}

/* 1 if all effects are allowed, and none of them has to be on record. Nothing is recorded, and nobody answered. */
int held_allows_quietly(struct rs_held *held, struct rs_effects *effects)
{
    for (unsigned i = 0; i < effects->count; i++) {
        struct rs_verdict *verdict = &effects->each[i].verdict;
        if (decide(held, effects, effects->each[i].operation, verdict) < 0 || verdict->answer != RS_ALLOW ||
            kept(held, verdict))
            return 0;
    }
    return 1;
}

/* 1 if the rules say the same about two objects, and all that may be beneath them. */
int held_alike(const struct rs_held *held, const struct rs_effects *one, const struct rs_effects *other)
{
    return rs_alike(held->reign->tables, held->worker->walker, one->path, one->length, other->path, other->length) == 1;
}

/* 1 if no rule watches the name: a symbolic link of it leads around none, wherever it leads (policy/planting.py). */
int held_unwatched(const struct rs_held *held, const struct rs_effects *effects)
{
    return rs_unwatched(held->reign->tables, held->worker->walker, effects->path, effects->length) == 1;
}

/* Write down what became of a call that was allowed: before its answer, so that whoever acts on that finds it. */
void held_record(struct rs_held *held, const struct rs_effects *effects, int error)
{
    for (unsigned i = 0; i < effects->count; i++)
        put_effect(held, effects, &effects->each[i], kept(held, &effects->each[i].verdict), error);
}

/* Make sure that allowed starts of programs can be on record; else *outcome says what becomes of the call. */
int held_reserve_starts(struct rs_held *held, const struct rs_verdict *verdicts, unsigned count,
                        enum rs_outcome *outcome)
{
    unsigned keep = 0;
    for (unsigned i = 0; i < count; i++)
        keep += (unsigned)kept(held, &verdicts[i]);
    return reserve(held, keep, outcome);
}

/* Write down the start of a program that was allowed; RS_OBJECT_ROOM says what its object is. */
void held_record_start(struct rs_held *held, const struct rs_verdict *verdict, const char *object, size_t length)
{
    const struct rs_record head = {.flags = RS_RECORD_ALLOWED, .operation = RS_EXEC};
    put(held, head, object, length, kept(held, verdict));
}

enum rs_outcome held_reply(struct rs_held *held, int64_t value)
{
    (void)rs_notif_reply(held->engine->listener, held->n.id, value, 0); /* -ENOENT: nobody waits any more */
    return RS_ANSWERED;
}

enum rs_outcome held_fail(struct rs_held *held, int error)
{
    (void)rs_notif_reply(held->engine->listener, held->n.id, 0, error);
    return RS_ANSWERED;
}
