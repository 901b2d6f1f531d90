/*
 * From a path string to a pinned object, in the target's view.
 *
 * The kernel does the walk where it can be trusted to walk as the target would: no symbolic link on the way. Else
 * the walk goes component by component, because "self" in procfs would mean the broker, and a magic link (fd/N,
 * cwd, root, exe of a process) leads anywhere: those are followed only for processes of the tree.
 */
#include "rampart.h"

#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#define LINKS_MAX 40 /* path_resolution(7) */
#define PROC_ROOT_INODE 1

static int open_pin(int directory, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC | flags, .resolve = resolve};
    return rs_result(syscall(SYS_openat2, directory, path, &how, sizeof how));
}

static int in_procfs(int fd)
{
    struct statfs fs;
    if (fstatfs(fd, &fs) < 0)
        return -errno;
    return fs.f_type == PROC_SUPER_MAGIC;
}

/* The type of the file system that an fd's object lies in: linux/magic.h, statfs(2). */
int64_t rs_file_system(int fd)
{
    struct statfs fs;
    if (fstatfs(fd, &fs) < 0)
        return -errno;
    return (int64_t)(uint32_t)fs.f_type;
}

static int is_proc_root(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    return st.st_ino == PROC_ROOT_INODE ? in_procfs(fd) : 0;
}

/* The thread group that a directory of procfs belongs to; 0 if to none. */
static pid_t proc_owner(int directory)
{
    static const char *const places[] = {"status", "../status", "../../status", "../../../status"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char text[1024];
        RS_CLOSING int fd = openat(directory, places[i], O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        /* Beyond the root of procfs lie files of anybody's making. */
        if (fd < 0 || in_procfs(fd) <= 0)
            continue;
        ssize_t got = read(fd, text, sizeof text - 1);
        if (got <= 0)
            return 0;
        text[got] = 0;
        pid_t tgid;
        char *line = strstr(text, "\nTgid:");
        return line && sscanf(line, "\nTgid: %d", &tgid) == 1 ? tgid : 0;
    }
    return 0;
}

static int describe(struct rs_pin *pin)
{
    struct stat st;
    if (fstat(pin->object, &st) < 0)
        return -errno;
    pin->mode = st.st_mode;
    pin->dev = st.st_dev;
    pin->ino = st.st_ino;
    pin->rdev = st.st_rdev;
    pin->nlink = st.st_nlink;
    return 0;
}

/*
 * A file of procfs without its directory, reached through a descriptor: its name leads to the directory, and that
 * tells the process. procfs may be mounted anywhere. -EACCES if the name does not lead back to the object.
 */
static int proc_owner_by_name(struct rs_pin *pin)
{
    char name[PATH_MAX];
    uint32_t flags = 0;
    int length = rs_real_name(pin->object, &flags, name, sizeof name);
    if (length < 0)
        return length;
    if (sscanf(name, "/proc/%d/", &pin->process) == 1)
        return 0;
    char *slash = strrchr(name, '/');
    if (!slash)
        return -EACCES;
    RS_CLOSING int found = open_pin(AT_FDCWD, name, O_NOFOLLOW, RESOLVE_NO_SYMLINKS);
    struct stat st;
    if (found < 0 || fstat(found, &st) < 0 || st.st_dev != pin->dev || st.st_ino != pin->ino)
        return -EACCES;
    *slash = 0;
    RS_CLOSING int directory = open_pin(AT_FDCWD, *name ? name : "/", O_DIRECTORY, RESOLVE_NO_SYMLINKS);
    if (directory < 0)
        return -EACCES;
    int rc = in_procfs(directory);
    if (rc > 0)
        pin->process = proc_owner(directory);
    return rc;
}

/* Say whose it is, if the object (or the place for it) lies in procfs. */
static int attribute(struct rs_pin *pin, pid_t launcher)
{
    int place = pin->parent;
    if (pin->object >= 0 && (S_ISDIR(pin->mode) || place < 0))
        place = pin->object;
    int rc = in_procfs(place);
    if (rc <= 0)
        return rc;
    if (pin->object >= 0 && place == pin->object && !S_ISDIR(pin->mode)) {
        rc = proc_owner_by_name(pin);
        if (rc < 0)
            return rc;
    } else {
        pin->process = proc_owner(place);
    }
    if (pin->process > 0 && !rs_in_tree(pin->process, launcher))
        pin->flags |= RS_PIN_OUTSIDE;
    return 0;
}

/* What the walk carries along. */
struct walk {
    const struct rs_identity *as;
    int target;
    pid_t tid, launcher;
    int links;
    int at;                      /* directory reached so far */
    char rest[2 * PATH_MAX + 2]; /* what is still to be walked */
};

/* Begin again at the target's root. Asks for ptrace access, which is the broker's right: not while assumed. */
static int start_at_root(struct walk *walk)
{
    int root = rs_result(openat(walk->target, "root", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (root < 0)
        return root;
    rs_close_fd(&walk->at);
    walk->at = root;
    return 0;
}

static int put_before_rest(struct walk *walk, const char *text, const char *rest)
{
    char joined[sizeof walk->rest];
    int length = snprintf(joined, sizeof joined, "%s%s%s", text, *rest ? "/" : "", rest);
    if (length < 0 || (size_t)length >= sizeof joined)
        return -ENAMETOOLONG;
    memcpy(walk->rest, joined, (size_t)length + 1);
    return 0;
}

/* fs.protected_symlinks, which the kernel cannot apply to links that we follow ourselves (proc_sys_fs(5)). */
static int may_follow(const struct walk *walk, int parent, const struct stat *link)
{
    struct stat directory;
    if (fstat(parent, &directory) < 0)
        return -errno;
    if (!(directory.st_mode & S_ISVTX) || !(directory.st_mode & S_IWOTH))
        return 0;
    uid_t who = walk->as ? walk->as->fsuid : geteuid();
    if (link->st_uid == who || link->st_uid == directory.st_uid)
        return 0;
    char setting = '1';
    RS_CLOSING int fd = open("/proc/sys/fs/protected_symlinks", O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && read(fd, &setting, 1) != 1)
        setting = '1';
    return setting == '0' ? 0 : -EACCES;
}

/*
 * Follow a magic link of a process of the tree; returns the pinned object, -EACCES for other processes, and for one
 * outside of the target's user namespace: the broker could look into it, and the target could not.
 */
static int follow_magic(struct walk *walk, const char *name)
{
    rs_resume(); /* the kernel asks for ptrace access here: that right is the broker's */
    pid_t owner = proc_owner(walk->at);
    int fd = -EACCES;
    if (owner > 0 && rs_in_tree(owner, walk->launcher) &&
        (!walk->as || !walk->as->elsewhere || rs_user_space_covers(walk->target, owner) == 1))
        fd = rs_result(openat(walk->at, name, O_PATH | O_CLOEXEC));
    int rc = rs_assume(walk->as);
    if (rc < 0) {
        if (fd >= 0)
            rs_close_fd(&fd);
        return rc;
    }
    return fd;
}

enum step { STEP_ON, STEP_MAGIC };

/* `link` was met: put its text before the rest, or, for a magic link, pin what it leads to in *object. */
static int follow_link(struct walk *walk, int link, const struct stat *st, const char *name, const char *rest,
                       int *object)
{
    if (++walk->links > LINKS_MAX)
        return -ELOOP;
    int rc = may_follow(walk, walk->at, st);
    if (rc < 0)
        return rc;
    rc = in_procfs(link);
    if (rc < 0)
        return rc;
    char text[PATH_MAX];
    if (rc) {
        int root = is_proc_root(walk->at);
        if (root < 0)
            return root;
        if (root && strcmp(name, "self") == 0) {
            (void)snprintf(text, sizeof text, "%d", walk->as ? walk->as->tgid : walk->tid);
            return put_before_rest(walk, text, rest) < 0 ? -ENAMETOOLONG : STEP_ON;
        }
        if (root && strcmp(name, "thread-self") == 0) {
            (void)snprintf(text, sizeof text, "%d/task/%d", walk->as ? walk->as->tgid : walk->tid, walk->tid);
            return put_before_rest(walk, text, rest) < 0 ? -ENAMETOOLONG : STEP_ON;
        }
        int plain = open_pin(walk->at, name, 0, RESOLVE_NO_MAGICLINKS);
        if (plain >= 0)
            rs_close_fd(&plain);
        if (plain == -ELOOP) {
            *object = follow_magic(walk, name);
            if (*object < 0)
                return *object;
            memmove(walk->rest, rest, strlen(rest) + 1);
            return STEP_MAGIC;
        }
    }
    ssize_t length = readlinkat(link, "", text, sizeof text - 1);
    if (length < 0)
        return -errno;
    if (length == 0)
        return -ENOENT;
    text[length] = 0;
    rc = put_before_rest(walk, text, rest);
    if (rc < 0)
        return rc;
    if (text[0] == '/') {
        rs_resume();
        rc = start_at_root(walk);
        int assumed = rs_assume(walk->as);
        if (rc < 0 || assumed < 0)
            return rc < 0 ? rc : assumed;
    }
    return STEP_ON;
}

static int set_name(struct rs_pin *out, const char *name, size_t length, int slash)
{
    if (length > NAME_MAX)
        return -ENAMETOOLONG;
    memcpy(out->name, name, length);
    out->name[length] = slash ? '/' : 0;
    out->name[length + 1] = 0;
    if (slash)
        out->flags |= RS_PIN_SLASH;
    return 0;
}

static int is_directory(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Walk the rest component by component. */
static int walk_slowly(struct walk *walk, uint32_t flags, struct rs_pin *out)
{
    for (;;) {
        char *start = walk->rest + strspn(walk->rest, "/");
        size_t length = strcspn(start, "/");
        const char *after = start + length;
        const char *next = after + strspn(after, "/");
        int slash = *after == '/';
        int last = *next == 0;
        if (length == 0) { /* only slashes were left: the directory itself */
            out->object = rs_steal_fd(&walk->at);
            return 0;
        }
        if (length > NAME_MAX)
            return -ENAMETOOLONG;
        char name[NAME_MAX + 1];
        memcpy(name, start, length);
        name[length] = 0;

        RS_CLOSING int fd = open_pin(walk->at, name, O_NOFOLLOW, 0);
        if (fd == -ENOENT && last) {
            int rc = set_name(out, name, length, slash);
            out->flags |= RS_PIN_MISSING;
            out->parent = rs_steal_fd(&walk->at);
            return rc;
        }
        if (fd < 0)
            return fd;
        struct stat st;
        if (fstat(fd, &st) < 0)
            return -errno;
        if (S_ISLNK(st.st_mode) && (!last || slash || (flags & RS_FOLLOW))) {
            char rest[sizeof walk->rest];
            (void)snprintf(rest, sizeof rest, "%s%s", next, last && slash ? "/" : "");
            if (last && slash && !(flags & RS_FOLLOW)) {
                /* "link/" as the last component of a call that names an entry: the kernel call decides. */
                int rc = set_name(out, name, length, 1);
                out->object = rs_steal_fd(&fd);
                out->parent = rs_steal_fd(&walk->at);
                return rc;
            }
            int magic = -1;
            int step = follow_link(walk, fd, &st, name, rest[0] == '/' ? "" : rest, &magic);
            if (step < 0)
                return step;
            if (last && slash && step == STEP_ON) {
                size_t end = strlen(walk->rest);
                if (end + 2 > sizeof walk->rest)
                    return -ENAMETOOLONG;
                memcpy(walk->rest + end, "/", 2);
            }
            if (step == STEP_MAGIC) {
                if (last) {
                    if (slash && !is_directory(magic)) {
                        rs_close_fd(&magic);
                        return -ENOTDIR;
                    }
                    out->object = magic;
                    out->flags |= RS_PIN_MAGIC;
                    return 0;
                }
                rs_close_fd(&walk->at);
                walk->at = magic;
            }
            continue;
        }
        if (last) {
            if (slash && !S_ISDIR(st.st_mode) && (flags & RS_FOLLOW))
                return -ENOTDIR;
            int rc = set_name(out, name, length, slash);
            out->object = rs_steal_fd(&fd);
            out->parent = rs_steal_fd(&walk->at);
            return rc;
        }
        if (!S_ISDIR(st.st_mode))
            return -ENOTDIR;
        rs_close_fd(&walk->at);
        walk->at = rs_steal_fd(&fd);
        memmove(walk->rest, next, strlen(next) + 1);
    }
}

/* One or two calls of the kernel, if no symbolic link is on the way; -ELOOP if one is. */
static int walk_quickly(struct walk *walk, uint32_t flags, struct rs_pin *out)
{
    const uint64_t plain = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
    size_t end = strlen(walk->rest);
    int slash = end > 0 && walk->rest[end - 1] == '/';
    while (end > 0 && walk->rest[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && walk->rest[start - 1] != '/')
        start--;
    if (end == start || end - start > NAME_MAX)
        return -ELOOP; /* "/" or too long: the slow walk knows */
    char name[NAME_MAX + 1], directory[sizeof walk->rest];
    memcpy(name, walk->rest + start, end - start);
    name[end - start] = 0;
    memcpy(directory, walk->rest, start);
    directory[start] = 0;

    RS_CLOSING int parent = -1;
    if (start == 0) {
        parent = fcntl(walk->at, F_DUPFD_CLOEXEC, 3);
        if (parent < 0)
            return -errno;
    } else {
        const char *relative = directory + strspn(directory, "/");
        parent = open_pin(walk->at, *relative ? relative : ".", O_DIRECTORY, plain);
        if (parent < 0)
            return parent;
    }
    RS_CLOSING int fd = open_pin(parent, name, O_NOFOLLOW, 0);
    if (fd == -ENOENT) {
        out->flags |= RS_PIN_MISSING;
    } else if (fd < 0) {
        return fd;
    } else {
        struct stat st;
        if (fstat(fd, &st) < 0)
            return -errno;
        if (S_ISLNK(st.st_mode) && ((flags & RS_FOLLOW) || slash))
            return -ELOOP;
        if (slash && !S_ISDIR(st.st_mode) && (flags & RS_FOLLOW))
            return -ENOTDIR;
    }
    out->object = rs_steal_fd(&fd);
    if (out->object < 0)
        out->object = -1;
    out->parent = rs_steal_fd(&parent);
    return set_name(out, name, end - start, slash);
}

/* Put what a symbolic link in `parent` says in the place of the path that leads to it, `directory` and its name. */
static int put_text(struct walk *walk, int parent, int link, const char *directory)
{
    char text[PATH_MAX];
    struct stat st;
    if (fstat(link, &st) < 0)
        return -errno;
    int rc = may_follow(walk, parent, &st);
    if (rc < 0)
        return rc;
    ssize_t length = readlinkat(link, "", text, sizeof text - 1);
    if (length <= 0)
        return -ENOENT; /* no link, but something that is there since a moment ago */
    text[length] = 0;
    const int absolute = text[0] == '/';
    int size = snprintf(walk->rest, sizeof walk->rest, "%s%s%s", absolute ? "" : directory, absolute ? "" : "/", text);
    return size < 0 || (size_t)size >= PATH_MAX ? -ENAMETOOLONG : 0;
}

/*
 * openat2(2) with resolve flags of the target's own: the kernel walks, and never through procfs links. It does not say
 * where a link leads that leads to nothing yet: such a link is followed here, and the kernel asked again.
 */
static int walk_restricted(struct walk *walk, uint32_t flags, uint64_t resolve, struct rs_pin *out)
{
    const uint64_t nofollow = flags & RS_FOLLOW ? 0 : O_NOFOLLOW;
    for (int links = 0; links <= LINKS_MAX; links++) {
        int fd = open_pin(walk->at, walk->rest, nofollow, resolve | RESOLVE_NO_MAGICLINKS);
        if (fd >= 0) {
            out->object = fd;
            return 0;
        }
        if (fd != -ENOENT)
            return fd;
        char directory[sizeof walk->rest];
        (void)snprintf(directory, sizeof directory, "%s", walk->rest);
        char *slash = strrchr(directory, '/');
        const char *name = slash ? slash + 1 : walk->rest;
        if (slash)
            slash[slash == directory] = 0;
        size_t length = strlen(name);
        if (length == 0 || strcmp(name, "..") == 0 || strcmp(name, ".") == 0)
            return -ENOENT;
        RS_CLOSING int parent =
            open_pin(walk->at, slash ? directory : ".", O_DIRECTORY, resolve | RESOLVE_NO_MAGICLINKS);
        if (parent < 0)
            return parent;
        RS_CLOSING int there = open_pin(parent, name, O_NOFOLLOW, 0);
        if (there < 0) {
            out->flags |= RS_PIN_MISSING;
            out->parent = rs_steal_fd(&parent);
            return set_name(out, name, length, 0);
        }
        int rc = put_text(walk, parent, there, slash ? directory : ".");
        if (rc < 0)
            return rc;
        if (walk->rest[0] == '/' && (resolve & RESOLVE_NO_XDEV))
            return -ENOENT; /* named by the program, it would be allowed to be on another mount */
    }
    return -ELOOP;
}

static void drop_pin(struct rs_pin *pin)
{
    rs_close_fd(&pin->object);
    rs_close_fd(&pin->parent);
    pin->object = pin->parent = -1;
}

static void clear_pin(struct rs_pin *pin)
{
    memset(pin, 0, sizeof *pin);
    pin->object = pin->parent = -1;
}

static void close_walk(struct walk *walk)
{
    rs_close_fd(&walk->at);
}

/*
 * Pin what `path` means to the target, seen from `base` (see rs_target_base).
 *
 * On success the caller owns out->object and out->parent. A missing last component is success with RS_PIN_MISSING.
 * -ELOOP, -ENOENT, -ENOTDIR, -EACCES, -ENAMETOOLONG as path_resolution(7) has them; -EACCES also for a magic link
 * of a process outside of the tree.
 */
int rs_resolve(int target, pid_t tid, pid_t launcher, const struct rs_identity *as, int base, const char *path,
               uint32_t flags, uint64_t resolve, struct rs_pin *out)
{
    clear_pin(out);
    __attribute__((cleanup(close_walk)))
    struct walk walk = {.as = as, .target = target, .tid = tid, .launcher = launcher, .at = -1};
    size_t length = strlen(path);
    if (length >= PATH_MAX)
        return -ENAMETOOLONG;
    if (length == 0)
        return -ENOENT;
    memcpy(walk.rest, path, length + 1);
    if (path[0] == '/' && !(resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT))) {
        int rc = start_at_root(&walk);
        if (rc < 0)
            return rc;
    } else {
        walk.at = fcntl(base, F_DUPFD_CLOEXEC, 3);
        if (walk.at < 0)
            return -errno;
    }
    int rc = rs_assume(as);
    if (rc < 0)
        return rc;
    if (resolve) {
        rc = walk_restricted(&walk, flags, resolve, out);
    } else {
        rc = walk_quickly(&walk, flags, out);
        if (rc == -ELOOP) {
            drop_pin(out);
            clear_pin(out);
            rc = walk_slowly(&walk, flags, out);
        }
    }
    rs_resume();
    if (rc >= 0 && out->object >= 0)
        rc = describe(out);
    if (rc >= 0)
        rc = attribute(out, launcher);
    if (rc < 0)
        drop_pin(out);
    return rc;
}

/* The directory that a path means to this process itself, seen from `base`; -ELOOP through a magic link. */
int rs_directory(int base, const char *path)
{
    return open_pin(base, path, O_DIRECTORY, RESOLVE_NO_MAGICLINKS);
}

/* Pin what the target's descriptor `fd` refers to. -EBADF. */
int rs_pin_fd(int target, pid_t launcher, int fd, struct rs_pin *out)
{
    clear_pin(out);
    out->object = rs_target_base(target, fd);
    if (out->object < 0) {
        int rc = out->object;
        out->object = -1;
        return rc;
    }
    out->flags |= RS_PIN_MAGIC;
    int rc = describe(out);
    if (rc >= 0)
        rc = attribute(out, launcher);
    if (rc < 0)
        drop_pin(out);
    return rc;
}

/* The device number that the kernel gives to memfds, System V segments and shared anonymous memory. */
static dev_t memfd_device(void)
{
    static _Thread_local dev_t device;
    if (!device) {
        struct stat st;
        RS_CLOSING int fd = memfd_create("rampart-probe", MFD_CLOEXEC);
        if (fd >= 0 && fstat(fd, &st) == 0)
            device = st.st_dev;
    }
    return device;
}

/*
 * The real absolute name of a pinned object; returns its length. RS_PIN_DELETED: the name it had; RS_PIN_NAMELESS: it
 * never had one, the text describes it. -ENAMETOOLONG beyond PATH_MAX; -ENOENT if it cannot be reached from here.
 */
int rs_real_name(int fd, uint32_t *flags, char *buffer, size_t size)
{
    static const char suffix[] = " (deleted)";
    struct stat st, named;
    ssize_t length = readlink(rs_fd_path(fd).text, buffer, size);
    if (length < 0)
        return -errno;
    if ((size_t)length >= size)
        return -ENAMETOOLONG;
    buffer[length] = 0;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (buffer[0] != '/' || (st.st_dev == memfd_device() && st.st_dev != 0)) {
        if (buffer[0] != '/' && strncmp(buffer, "(unreachable)", 13) == 0)
            return -ENOENT;
        *flags |= RS_PIN_NAMELESS;
        return (int)length;
    }
    size_t tail = sizeof suffix - 1;
    if ((size_t)length > tail && memcmp(buffer + length - tail, suffix, tail) == 0) {
        /* Either the kernel's remark, or a file that really ends so: then the name leads back to it. */
        if (lstat(buffer, &named) == 0 && named.st_dev == st.st_dev && named.st_ino == st.st_ino)
            return (int)length;
        *flags |= RS_PIN_DELETED;
        buffer[length - (ssize_t)tail] = 0;
        return (int)(length - (ssize_t)tail);
    }
    return (int)length;
}
