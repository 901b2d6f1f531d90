/* File calls performed on pins, with the target's rights. Names are single components below a pinned parent. */
#include "rampart.h"

#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

static void resume_scope(const int *active)
{
    (void)active;
    rs_resume();
}

/* Act as the target until the end of the enclosing function; return the error if that is impossible. */
#define ACT_AS(as)                                                                                            \
    int assumed_ = rs_assume(as);                                                                             \
    if (assumed_ < 0)                                                                                         \
        return assumed_;                                                                                      \
    __attribute__((cleanup(resume_scope))) const int scope_ = 1;                                              \
    (void)scope_

/* Never become somebody's controlling terminal: that would be the broker's session, not the target's. */
#define OWN_FLAGS (O_CLOEXEC | O_NOCTTY)

static int mode_bits(const struct rs_identity *as, mode_t mode)
{
    return (int)(mode & 07777 & ~(as ? as->umask : 0));
}

/* Reopen a pinned object. May block (a FIFO without a peer): see rs_interrupt. */
int rs_open(const struct rs_identity *as, int pin, int flags)
{
    ACT_AS(as);
    flags &= ~(O_CREAT | O_EXCL | O_NOFOLLOW | O_PATH);
    return rs_result(open(rs_fd_path(pin).text, flags | OWN_FLAGS));
}

/* `resolve` is of openat2(2). */
static int create(const struct rs_identity *as, int parent, const char *name, int flags, mode_t mode, uint64_t resolve)
{
    ACT_AS(as);
    rs_assume_umask(as);
    /* Where the umask is the harness's: create closed, then say the mode. */
    const int closed = as && !rs_owns_umask();
    /* O_EXCL follows no link (open(2)); O_NOFOLLOW would show in F_GETFL. */
    flags = (flags & ~(O_TRUNC | O_PATH)) | O_CREAT | O_EXCL | OWN_FLAGS;
    struct open_how how = {.flags = (unsigned int)flags, .mode = closed ? 0 : mode, .resolve = resolve};
    int fd = rs_result(syscall(SYS_openat2, parent, name, &how, sizeof how));
    if (fd >= 0 && closed && fchmod(fd, (mode_t)mode_bits(as, mode)) < 0) {
        int rc = -errno;
        rs_close_fd(&fd);
        return rc;
    }
    return fd;
}

/* Create and open; -EEXIST if something is there by now. */
int rs_create(const struct rs_identity *as, int parent, const char *name, int flags, mode_t mode)
{
    return create(as, parent, name, flags, mode, 0);
}

/* The same at an absolute path; -ELOOP if a symbolic link is on the way. */
int rs_create_straight(const struct rs_identity *as, const char *path, int flags, mode_t mode)
{
    return create(as, AT_FDCWD, path, flags, mode, RESOLVE_NO_SYMLINKS);
}

int rs_tmpfile(const struct rs_identity *as, int directory, int flags, mode_t mode)
{
    ACT_AS(as);
    rs_assume_umask(as);
    flags &= ~(O_NOFOLLOW | O_PATH);
    return rs_result(open(rs_fd_path(directory).text, flags | OWN_FLAGS, mode));
}

int rs_unlink(const struct rs_identity *as, int parent, const char *name, int flags)
{
    ACT_AS(as);
    return rs_result(unlinkat(parent, name, flags));
}

int rs_rename(const struct rs_identity *as, int old_parent, const char *old_name, int new_parent,
              const char *new_name, unsigned int flags)
{
    ACT_AS(as);
    return rs_result(syscall(SYS_renameat2, old_parent, old_name, new_parent, new_name, flags));
}

/* Link a pinned object that is not a symbolic link. */
int rs_link(const struct rs_identity *as, int pin, int parent, const char *name)
{
    ACT_AS(as);
    return rs_result(linkat(AT_FDCWD, rs_fd_path(pin).text, parent, name, AT_SYMLINK_FOLLOW));
}

/* Link an entry of a pinned directory: for symbolic links, which cannot be linked through their pin. */
int rs_link_name(const struct rs_identity *as, int old_parent, const char *old_name, int parent,
                 const char *name)
{
    ACT_AS(as);
    return rs_result(linkat(old_parent, old_name, parent, name, 0));
}

int rs_symlink(const struct rs_identity *as, const char *text, int parent, const char *name)
{
    ACT_AS(as);
    return rs_result(symlinkat(text, parent, name));
}

/* Where the umask is the harness's, things are created closed; this says the mode, on what was created only. */
static int say_mode(const struct rs_identity *as, int parent, const char *name, mode_t type, mode_t mode)
{
    if (!as || rs_owns_umask())
        return 0;
    struct stat st;
    RS_CLOSING int made = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (made < 0 || fstat(made, &st) < 0)
        return -errno;
    if ((st.st_mode & S_IFMT) != type || (st.st_mode & 07777) != 0)
        return -EEXIST;
    return rs_result(chmod(rs_fd_path(made).text, (mode_t)mode_bits(as, mode)));
}

int rs_mkdir(const struct rs_identity *as, int parent, const char *name, mode_t mode)
{
    ACT_AS(as);
    rs_assume_umask(as);
    int rc = rs_result(mkdirat(parent, name, as && !rs_owns_umask() ? 0 : mode));
    return rc < 0 ? rc : say_mode(as, parent, name, S_IFDIR, mode);
}

int rs_mknod(const struct rs_identity *as, int parent, const char *name, mode_t mode, uint64_t device)
{
    ACT_AS(as);
    rs_assume_umask(as);
    mode_t type = mode & S_IFMT;
    int rc = rs_result(mknodat(parent, name, as && !rs_owns_umask() ? type : mode, (dev_t)device));
    return rc < 0 ? rc : say_mode(as, parent, name, type ? type : S_IFREG, mode);
}

int rs_truncate(const struct rs_identity *as, int pin, int64_t length)
{
    ACT_AS(as);
    return rs_result(truncate(rs_fd_path(pin).text, length));
}

/* -EOPNOTSUPP for a symbolic link, which has no mode of its own on Linux. */
int rs_chmod(const struct rs_identity *as, int pin, mode_t mode)
{
    ACT_AS(as);
    struct stat st;
    if (fstat(pin, &st) < 0)
        return -errno;
    if (S_ISLNK(st.st_mode))
        return -EOPNOTSUPP;
    return rs_result(chmod(rs_fd_path(pin).text, mode));
}

int rs_chown(const struct rs_identity *as, int pin, uid_t uid, gid_t gid)
{
    ACT_AS(as);
    return rs_result(fchownat(pin, "", uid, gid, AT_EMPTY_PATH));
}

/* `times`: seconds and nanoseconds of access and modification, or NULL for now (utimensat(2)). */
int rs_utimens(const struct rs_identity *as, int pin, const int64_t *times)
{
    ACT_AS(as);
    struct timespec both[2];
    if (times)
        for (int i = 0; i < 2; i++)
            both[i] = (struct timespec){.tv_sec = times[2 * i], .tv_nsec = times[2 * i + 1]};
    /* The C library refuses an empty path; the system call takes it. */
    return rs_result(syscall(SYS_utimensat, pin, "", times ? both : NULL, AT_EMPTY_PATH));
}

/*
 * Attributes of a pinned object, of a symbolic link its own: the walk ends at what the magic link leads to, and a
 * link that is pinned is not followed further.
 */
int rs_setxattr(const struct rs_identity *as, int pin, const char *name, const char *value, size_t size,
                int flags)
{
    ACT_AS(as);
    return rs_result(setxattr(rs_fd_path(pin).text, name, value, size, flags));
}

int rs_removexattr(const struct rs_identity *as, int pin, const char *name)
{
    ACT_AS(as);
    return rs_result(removexattr(rs_fd_path(pin).text, name));
}

/*
 * Read an attribute; returns its length. `size` 0 asks for the length alone, as in getxattr(2). -ERANGE: it is
 * longer; -ENODATA: there is none.
 */
int64_t rs_getxattr(const struct rs_identity *as, int pin, const char *name, char *value, size_t size)
{
    ACT_AS(as);
    ssize_t length = getxattr(rs_fd_path(pin).text, name, value, size);
    return length < 0 ? -(int64_t)errno : length;
}

/* List the names of attributes, each with its NUL; otherwise as rs_getxattr. */
int64_t rs_listxattr(const struct rs_identity *as, int pin, char *list, size_t size)
{
    ACT_AS(as);
    ssize_t length = listxattr(rs_fd_path(pin).text, list, size);
    return length < 0 ? -(int64_t)errno : length;
}
