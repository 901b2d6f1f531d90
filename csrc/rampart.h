/*
 * The shim's one header: what the broker's Python half calls, and what the C files share.
 *
 * C reports, it does not decide. Every function returns >= 0 or -errno and says nothing on its own account. A
 * function with an `as` argument acts with the rights of the target (fs ids, groups, capabilities, umask), never
 * with more; NULL means the caller's own.
 */
#ifndef RAMPART_H
#define RAMPART_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define RS_GROUPS_MAX 1024

struct rs_notification {
    uint64_t id;
    uint32_t pid;
    uint32_t flags;
    int32_t nr;
    uint32_t arch;
    uint64_t instruction_pointer;
    uint64_t args[6];
    int32_t error;    /* of a connection, or 0 */
    uint32_t arrived; /* something has come of it: rs_engine_depart */
};

/* Who the target is, as /proc/<tid>/status tells (proc(5)). */
struct rs_identity {
    pid_t tgid, ppid;
    uid_t ruid, euid, suid, fsuid;
    gid_t rgid, egid, sgid, fsgid;
    mode_t umask;
    uint64_t cap_effective; /* of those that count here: none of another user namespace */
    uint64_t cap_inside;    /* those of its own user namespace */
    int elsewhere;          /* that is another than the broker's */
    uint32_t ngroups;
    gid_t groups[RS_GROUPS_MAX];
};

#define RS_FOLLOW 1 /* follow the last component if it is a symbolic link */

#define RS_PIN_MISSING 1   /* the last component does not exist; parent and name are set */
#define RS_PIN_SLASH 2     /* the path ended in a slash */
#define RS_PIN_MAGIC 4     /* reached through a magic link as the last step: no parent */
#define RS_PIN_OUTSIDE 8   /* in procfs, of a process that is not in the tree; `process` says which */
#define RS_PIN_NAMELESS 16 /* never had a name: pipe, socket, memfd, anonymous inode */
#define RS_PIN_DELETED 32  /* the name it had is gone */

/* An object of the target's view, held so that it cannot be exchanged. */
struct rs_pin {
    int object; /* O_PATH fd, or -1 if missing */
    int parent; /* O_PATH fd of the directory that holds `name`, or -1 */
    uint32_t flags;
    mode_t mode;
    uint64_t dev, ino, rdev, nlink;
    pid_t process; /* in procfs: the thread group that the object belongs to; else 0 */
    char name[NAME_MAX + 3]; /* last component, with a trailing slash if the path had one */
};

/* listener.c: seccomp_unotify(2) */
int rs_notif_receive(int listener, struct rs_notification *out);
int rs_notif_valid(int listener, uint64_t id);
int rs_notif_reply(int listener, uint64_t id, int64_t value, int error);
int rs_notif_continue(int listener, uint64_t id);
int rs_notif_add_fd(int listener, uint64_t id, int fd, int cloexec, int send);

/* target.c: `target` is an O_PATH fd of /proc/<tid>. What was read counts only if the notification is valid after
 * the reading. */
int rs_target_open(pid_t tid);
int64_t rs_target_read(int target, pid_t tid, uint64_t address, char *buffer, size_t size);
int64_t rs_target_read_string(int target, pid_t tid, uint64_t address, char *buffer, size_t size);
int64_t rs_target_read_vector(int target, pid_t tid, uint64_t address, char *buffer, size_t size);
int rs_target_memory(int target);
int64_t rs_memory_write(int memory, uint64_t address, const char *buffer, size_t size);
int rs_target_base(int target, int dirfd);
int rs_target_copy_fd(int target, pid_t tid, int fd);
int rs_stat(pid_t pid, pid_t *parent, uint64_t *start);
int rs_in_tree(pid_t pid, pid_t launcher);

/* identity.c */
int rs_target_identity(int target, struct rs_identity *out);
int rs_thread_prepare(void);
int rs_interrupt_prepare(void);
int rs_interrupt(pid_t tid);
int rs_interrupt_timer(timer_t *out);
int rs_interrupt_every(timer_t timer, long nanoseconds);
int rs_block_signals(void);
int rs_gettid(void);
int rs_nudge(int pidfd);
int rs_assume(const struct rs_identity *as);
void rs_assume_umask(const struct rs_identity *as);
void rs_resume(void);
int rs_owns_umask(void);

/* spaces.c */
int rs_in_own_user_space(int target);
int rs_user_space_covers(int target, pid_t pid);
int rs_open_within(const struct rs_identity *as, int target, int parent, const char *name, int flags);

/* resolve.c */
int rs_resolve(int target, pid_t tid, pid_t launcher, const struct rs_identity *as, int base, const char *path,
               uint32_t flags, uint64_t resolve, struct rs_pin *out);
int rs_directory(int base, const char *path);
int rs_pin_fd(int target, pid_t launcher, int fd, struct rs_pin *out);
int rs_real_name(int fd, uint32_t *flags, char *buffer, size_t size);
int64_t rs_file_system(int fd);

/* files.c */
int rs_open(const struct rs_identity *as, int pin, int flags);
int rs_create(const struct rs_identity *as, int parent, const char *name, int flags, mode_t mode);
int rs_create_straight(const struct rs_identity *as, const char *path, int flags, mode_t mode);
int rs_tmpfile(const struct rs_identity *as, int directory, int flags, mode_t mode);
int rs_unlink(const struct rs_identity *as, int parent, const char *name, int flags);
int rs_rename(const struct rs_identity *as, int old_parent, const char *old_name, int new_parent,
              const char *new_name, unsigned int flags);
int rs_link(const struct rs_identity *as, int pin, int parent, const char *name);
int rs_link_name(const struct rs_identity *as, int old_parent, const char *old_name, int parent,
                 const char *name);
int rs_symlink(const struct rs_identity *as, const char *text, int parent, const char *name);
int rs_mkdir(const struct rs_identity *as, int parent, const char *name, mode_t mode);
int rs_mknod(const struct rs_identity *as, int parent, const char *name, mode_t mode, uint64_t device);
int rs_truncate(const struct rs_identity *as, int pin, int64_t length);
int rs_chmod(const struct rs_identity *as, int pin, mode_t mode);
int rs_chown(const struct rs_identity *as, int pin, uid_t uid, gid_t gid);
int rs_utimens(const struct rs_identity *as, int pin, const int64_t *times);
int rs_setxattr(const struct rs_identity *as, int pin, const char *name, const char *value, size_t size,
                int flags);
int rs_removexattr(const struct rs_identity *as, int pin, const char *name);
int64_t rs_getxattr(const struct rs_identity *as, int pin, const char *name, char *value, size_t size);
int64_t rs_listxattr(const struct rs_identity *as, int pin, char *list, size_t size);

/* sockets.c */
int rs_connect(const struct rs_identity *as, int fd, const char *address, size_t size);
/* For a moment: -EINTR if it goes on without us, and may be waited for by the same again; -ESTALE: not to be had. */
int rs_has_time_limit(int fd);
int rs_connect_until(timer_t timer, const struct rs_identity *as, int fd, const char *address, size_t size);
int rs_connect_briefly(const struct rs_identity *as, int fd, const char *address, size_t size);
int rs_bind(const struct rs_identity *as, int directory, int fd, const char *address, size_t size);
int rs_listen(const struct rs_identity *as, int fd, int backlog);
int64_t rs_send(const struct rs_identity *as, int fd, const char *address, size_t address_size,
                const char *data, size_t size, const char *control, size_t control_size, int flags);
int rs_raise_sigpipe(pid_t tgid, pid_t tid);

/* Scope-bound ownership. */
static inline void rs_close_fd(int *fd)
{
    if (*fd >= 0) {
        int saved = errno;
        (void)close(*fd);
        errno = saved;
    }
}
#define RS_CLOSING __attribute__((cleanup(rs_close_fd)))

/*
 * Zeroed memory in pages of its own; NULL if there is none. The allocator would keep large blocks of a process that
 * frees them often, and then clears them by hand.
 */
static inline void *rs_pages(size_t size)
{
    void *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return pages == MAP_FAILED ? NULL : pages;
}

static inline void rs_pages_free(void *pages, size_t size)
{
    if (pages)
        (void)munmap(pages, size);
}

static inline int rs_steal_fd(int *fd)
{
    int stolen = *fd;
    *fd = -1;
    return stolen;
}

/* A system call's result as this shim reports it. */
static inline int rs_result(long value)
{
    return value < 0 ? -errno : (int)value;
}

/* "/proc/self/fd/N": the one path that always means the object an fd pins. */
struct rs_fd_path {
    char text[32];
};
struct rs_fd_path rs_fd_path(int fd);

#endif
