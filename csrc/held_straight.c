/*
 * Paths that lead straight to what they name, without a symbolic link. The real name of what they lead to is their own
 * text, with the working directory in front and "." and ".." taken out. So it can be judged before the kernel is asked
 * for anything, and the kernel is told to follow no link (RESOLVE_NO_SYMLINKS, openat2(2)): what it then opens has the
 * judged name, or nothing is opened. That takes one walk of the kernel, where pinning, asking the pin for its name and
 * opening it once more take three.
 *
 * What is left is that a directory on the way moves while the kernel walks. Nobody moves one in a tree but the broker,
 * which counts that (rs_names_moves). If it has moved anything meanwhile, the open file itself is asked for its name.
 */
#include "held.h"

#include <linux/openat2.h>
#include <stdio.h>
#include <sys/syscall.h>

/* Whether a name lies beneath a directory, or is its own. */
static int is_beneath(const char *name, const char *directory)
{
    const size_t length = strlen(directory);
    return strncmp(name, directory, length) == 0 && (name[length] == '/' || name[length] == 0);
}

/*
 * Whether a name lies where file systems of the kernel are mounted. "self" is somebody else to us there, a file is more
 * than its content, and opening a device is an effect: those are looked at from close by. It need not find all of them;
 * whatever was opened is asked for its kind and its file system, too.
 */
static int is_special(const char *name)
{
    return is_beneath(name, "/proc") || is_beneath(name, "/sys") || is_beneath(name, "/dev");
}

/* Take "." and ".." and doubled slashes out of an absolute path; returns its length. */
static size_t name_of(const char *path, char *name, int *climbs)
{
    size_t length = 0;
    *climbs = 0;
    for (const char *at = path; *at;) {
        while (*at == '/')
            at++;
        const char *end = strchrnul(at, '/');
        const size_t size = (size_t)(end - at);
        if (size == 2 && at[0] == '.' && at[1] == '.') {
            while (length > 0 && name[--length] != '/')
                ;
            *climbs = 1;
        } else if (size > 0 && !(size == 1 && at[0] == '.')) {
            name[length++] = '/';
            memcpy(name + length, at, size);
            length += size;
        }
        at = end;
    }
    if (length == 0)
        name[length++] = '/';
    name[length] = 0;
    return length;
}

/*
 * The first component of an absolute path that is such a link: where it leads, else NULL; *length is what that stands
 * for. Most programs are found, and all libraries, through one, and where it leads changes less often than never.
 */
static const char *root_link(const struct rs_held *held, const char *path, size_t *length)
{
    static const char *const names[ROOT_LINKS] = {"bin", "sbin", "lib", "lib32", "lib64", "libx32"};
    const char *slash = strchr(path + 1, '/');
    if (!slash)
        return NULL;
    *length = (size_t)(slash - path);
    for (int i = 0; i < ROOT_LINKS; i++) {
        if (strlen(names[i]) != *length - 1 || memcmp(names[i], path + 1, *length - 1) != 0)
            continue;
        struct rs_root_link *link = &held->worker->links[i];
        const uint64_t moves = rs_names_moves(held->engine->names);
        if (!link->known || link->moves != moves || moves % 2 != 0) {
            ssize_t size = readlinkat(held->engine->root, names[i], link->target, sizeof link->target);
            const int fits = size > 0 && (size_t)size < sizeof link->target && link->target[0] != '/';
            link->target[fits ? size : 0] = 0;
            link->moves = moves;
            link->known = 1;
        }
        return link->target[0] ? link->target : NULL;
    }
    return NULL;
}

/* The name of the target's working directory, or of one of its descriptors; its length or -errno. */
static int base_name(const struct rs_held *held, int dirfd, char *path)
{
    static const char suffix[] = " (deleted)";
    const size_t tail = sizeof suffix - 1;
    char link[48];
    if (dirfd == AT_FDCWD)
        (void)snprintf(link, sizeof link, "/proc/%d/cwd", (pid_t)held->n.pid);
    else if (dirfd < 0)
        return -EBADF;
    else
        (void)snprintf(link, sizeof link, "/proc/%d/fd/%d", (pid_t)held->n.pid, dirfd);
    ssize_t length = readlink(link, path, PATH_MAX);
    if (length < 0)
        return -errno;
    if (length == PATH_MAX || path[0] != '/')
        return -EXDEV;
    if ((size_t)length > tail && memcmp(path + length - tail, suffix, tail) == 0)
        return -ESTALE;
    return (int)length;
}

/*
 * Find the name that a path has if it is straight. By the task's number: it counts only if the call still waits
 * afterwards. Negative: it takes a closer look.
 */
int held_straight(const struct rs_held *held, int dirfd, const char *path, struct rs_straight *out)
{
    const size_t size = strlen(path);
    size_t at = 0;
    if (!held->engine->same_root)
        return -EXDEV;
    out->moves = rs_names_moves(held->engine->names);
    out->base = 0;
    if (path[0] != '/') {
        int length = base_name(held, dirfd, out->path);
        if (length < 0)
            return length;
        at = out->base = (size_t)length;
        if (at + 1 + size >= PATH_MAX)
            return -ENAMETOOLONG;
        out->path[at++] = '/';
    }
    size_t from = 0;
    const char *target = path[0] == '/' ? root_link(held, path, &from) : NULL;
    if (target) {
        out->path[at++] = '/';
        at += strlen(strcpy(out->path + at, target));
        if (at + size - from >= PATH_MAX)
            return -ENAMETOOLONG;
    } else {
        from = 0;
    }
    memcpy(out->path + at, path + from, size - from + 1);
    out->length = name_of(out->path, out->name, &out->climbs);
    return is_special(out->name) ? -EXDEV : 0;
}

/* Open an absolute path, if no link is on the way: else -ELOOP. With the rights that the thread has assumed. */
int held_open_name(const char *path, int flags)
{
    struct open_how how = {
        .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
        .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    return rs_result(syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how));
}

/*
 * 1 if the broker has moved nothing since the name was found. Where the path has a "..", that is not enough: if
 * another broker's tree moves a directory while the kernel is in it, ".." leads to wherever that is by then.
 */
int held_is_still(const struct rs_held *held, const struct rs_straight *straight)
{
    return !straight->climbs && straight->moves % 2 == 0 && rs_names_moves(held->engine->names) == straight->moves;
}

/* 1 if what was opened has the name, and had it all the time. */
int held_is_straight(const struct rs_held *held, const struct rs_straight *straight, int fd)
{
    char now[RS_PATH_ROOM];
    if (held_is_still(held, straight))
        return 1;
    int length = held_name(held, fd, now, sizeof now);
    return length >= 0 && (size_t)length == straight->length && memcmp(now, straight->name, straight->length) == 0;
}

/* 1 if what was not there has been missing: no directory has moved that the path begins with. */
int held_is_missing(const struct rs_held *held, int dirfd, const struct rs_straight *straight)
{
    char now[PATH_MAX];
    if (!held_is_still(held, straight))
        return 0;
    if (straight->base == 0)
        return 1;
    int length = base_name(held, dirfd, now);
    return length >= 0 && (size_t)length == straight->base && memcmp(now, straight->path, straight->base) == 0;
}

void held_take_name(struct rs_effects *effects, const struct rs_straight *straight)
{
    memcpy(effects->path, straight->name, straight->length + 1);
    effects->length = straight->length;
}

/* Find the real name of a pin; that of a straight path, unless it is NULL, is known. */
int held_name_pin(const struct rs_held *held, int pin, const struct rs_straight *straight, struct rs_effects *effects)
{
    if (straight && held_is_straight(held, straight, pin)) {
        held_take_name(effects, straight);
        return 0;
    }
    int length = held_name(held, pin, effects->path, PATH_MAX);
    if (length < 0)
        return length;
    effects->length = (size_t)length;
    return 0;
}
