/* The target's memory, descriptors and place in the tree, read through /proc/<tid>. */
#include "rampart.h"

#include <linux/kcmp.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL /* Linux 6.9 */
#endif

struct rs_fd_path rs_fd_path(int fd)
{
    struct rs_fd_path path;
    (void)snprintf(path.text, sizeof path.text, "/proc/self/fd/%d", fd);
    return path;
}

/* Pin /proc/<tid>: the fd stays with this task even if its number is used again. */
int rs_target_open(pid_t tid)
{
    char path[32];
    (void)snprintf(path, sizeof path, "/proc/%d", tid);
    return rs_result(open(path, O_PATH | O_DIRECTORY | O_CLOEXEC));
}

static int open_memory(int target, int flags)
{
    return rs_result(openat(target, "mem", flags | O_CLOEXEC));
}

/*
 * Read up to `size` bytes; short where the rest is unreadable, -EFAULT where the first byte is.
 *
 * process_vm_readv(2) sees the page protections that the target's own call would meet; /proc/<tid>/mem, which does
 * not, serves where a surrounding sandbox refuses the former.
 */
int64_t rs_target_read(int target, pid_t tid, uint64_t address, char *buffer, size_t size)
{
    if (size == 0)
        return 0;
    if (address > (uint64_t)INT64_MAX || size > (uint64_t)INT64_MAX - address)
        return -EFAULT;
    struct iovec local = {.iov_base = buffer, .iov_len = size};
    /* One remote element a page: a partial transfer ends at an element, not within one. */
    size_t done = 0;
    while (done < size) {
        struct iovec remote[64];
        unsigned long n = 0;
        size_t planned = 0;
        for (; n < 64 && done + planned < size; n++) {
            uint64_t at = address + done + planned;
            size_t room = 4096 - (size_t)(at & 4095);
            size_t left = size - done - planned;
            remote[n] = (struct iovec){.iov_base = (void *)(uintptr_t)at, .iov_len = room < left ? room : left};
            planned += remote[n].iov_len;
        }
        local.iov_base = buffer + done;
        local.iov_len = planned;
        ssize_t got = process_vm_readv(tid, &local, 1, remote, n, 0);
        if (got < 0) {
            if (errno == ENOSYS || errno == EPERM)
                break;
            return done ? (int64_t)done : -(int64_t)errno;
        }
        done += (size_t)got;
        if ((size_t)got < planned)
            return (int64_t)done;
    }
    if (done == size)
        return (int64_t)done;
    RS_CLOSING int memory = open_memory(target, O_RDONLY);
    if (memory < 0)
        return memory;
    while (done < size) {
        uint64_t at = address + done;
        size_t room = 4096 - (size_t)(at & 4095);
        size_t left = size - done;
        ssize_t got = pread(memory, buffer + done, room < left ? room : left, (off_t)at);
        if (got <= 0)
            return done ? (int64_t)done : -(int64_t)(got < 0 && errno != EIO ? errno : EFAULT);
        done += (size_t)got;
    }
    return (int64_t)done;
}

/*
 * Copy a NUL-terminated string once; returns its length without the NUL.
 * -EFAULT: unreadable before a NUL; -ENAMETOOLONG: no NUL within `size` bytes.
 */
int64_t rs_target_read_string(int target, pid_t tid, uint64_t address, char *buffer, size_t size)
{
    size_t done = 0;
    while (done < size) {
        /* Never past the page: what lies behind a string that ends in time is none of our business. */
        size_t room = 4096 - (size_t)((address + done) & 4095);
        size_t chunk = room < size - done ? room : size - done;
        int64_t got = rs_target_read(target, tid, address + done, buffer + done, chunk);
        if (got < 0)
            return got;
        char *end = memchr(buffer + done, 0, (size_t)got);
        if (end)
            return end - buffer;
        if ((size_t)got < chunk)
            return -EFAULT;
        done += (size_t)got;
    }
    return -ENAMETOOLONG;
}

/* A page of the target's memory, as it was when it was first needed. */
struct page {
    uint64_t address; /* 1: none yet */
    size_t start, end; /* what of it is known */
    char bytes[4096];
};

/* The known bytes at `address`, up to the end of its page; *size says how many. NULL where it is unreadable. */
static const char *page_bytes(struct page *page, int target, pid_t tid, uint64_t address, size_t *size)
{
    const uint64_t base = address & ~(uint64_t)4095;
    const size_t offset = (size_t)(address & 4095);
    if (page->address != base || offset < page->start || offset >= page->end) {
        int64_t got = rs_target_read(target, tid, address, page->bytes + offset, sizeof page->bytes - offset);
        page->address = got > 0 ? base : 1;
        page->start = offset;
        page->end = got > 0 ? offset + (size_t)got : offset;
    }
    *size = page->address == base ? page->end - offset : 0;
    return *size ? page->bytes + offset : NULL;
}

/*
 * Copy a NULL-terminated vector of strings once, each with its NUL, one behind the other; returns the bytes they take.
 * Pointers and strings mostly lie side by side, so what is read is kept a page at a time.
 * -EFAULT; -E2BIG if they and their pointers take more than `size` bytes, or one more than MAX_ARG_STRLEN (execve(2)).
 */
int64_t rs_target_read_vector(int target, pid_t tid, uint64_t address, char *buffer, size_t size)
{
    enum { STRING_MAX = 131072 };
    struct page pointers = {.address = 1}, strings = {.address = 1};
    size_t done = 0, pointed = 0;
    for (uint64_t at = address;; at += sizeof(uint64_t)) {
        uint64_t pointer;
        for (size_t filled = 0, known; filled < sizeof pointer; filled += known) {
            const char *bytes = page_bytes(&pointers, target, tid, at + filled, &known);
            if (!bytes)
                return -EFAULT;
            known = known < sizeof pointer - filled ? known : sizeof pointer - filled;
            memcpy((char *)&pointer + filled, bytes, known);
        }
        if (pointer == 0)
            return (int64_t)done;
        pointed += sizeof pointer; /* counts, as in the kernel: many empty strings are much, too */
        if (pointed > size - done)
            return -E2BIG;
        for (size_t length = 0;;) {
            size_t known;
            const char *bytes = page_bytes(&strings, target, tid, pointer + length, &known);
            if (!bytes)
                return -EFAULT;
            const char *end = memchr(bytes, 0, known);
            const size_t take = end ? (size_t)(end - bytes) + 1 : known;
            if (length + take > STRING_MAX || take > size - done - pointed)
                return -E2BIG;
            memcpy(buffer + done, bytes, take);
            done += take;
            length += take;
            if (end)
                break;
        }
    }
}

/* The target's memory for writing; pins the address space, so that a later write cannot meet another process. */
int rs_target_memory(int target)
{
    return open_memory(target, O_RDWR);
}

int64_t rs_memory_write(int memory, uint64_t address, const char *buffer, size_t size)
{
    if (address > (uint64_t)INT64_MAX)
        return -EFAULT;
    ssize_t put = pwrite(memory, buffer, size, (off_t)address);
    return put < 0 ? -(int64_t)(errno == EIO ? EFAULT : errno) : put;
}

/* Pin what `dirfd` means to the target: its working directory for AT_FDCWD, else its descriptor. -EBADF. */
int rs_target_base(int target, int dirfd)
{
    if (dirfd == AT_FDCWD)
        return rs_result(openat(target, "cwd", O_PATH | O_CLOEXEC));
    if (dirfd < 0)
        return -EBADF;
    char name[32];
    (void)snprintf(name, sizeof name, "fd/%d", dirfd);
    int fd = openat(target, name, O_PATH | O_CLOEXEC);
    return fd < 0 ? (errno == ENOENT ? -EBADF : -errno) : fd;
}

/*
 * Take a copy of the target's open file `fd` (pidfd_getfd(2)); it shares the open file description.
 * -EBADF; -EPERM where ptrace access is refused; -ENOSYS where the call is.
 *
 * Before Linux 6.9 a pidfd names the thread group, and pidfd_getfd takes from the leader's table: right only if the
 * calling thread shares it.
 */
int rs_target_copy_fd(int target, pid_t tid, int fd)
{
    (void)target;
    RS_CLOSING int pidfd = (int)syscall(SYS_pidfd_open, tid, PIDFD_THREAD);
    if (pidfd < 0 && errno == EINVAL) {
        struct rs_identity who;
        int rc = rs_target_identity(target, &who);
        if (rc < 0)
            return rc;
        if (who.tgid != tid && syscall(SYS_kcmp, who.tgid, tid, KCMP_FILES, 0, 0) != 0)
            return -EPERM;
        pidfd = (int)syscall(SYS_pidfd_open, who.tgid, 0);
    }
    if (pidfd < 0)
        return -errno;
    return rs_result(syscall(SYS_pidfd_getfd, pidfd, fd, 0));
}

/* Parent of a process, and its start in clock ticks since boot (proc_pid_stat(5)). */
int rs_stat(pid_t pid, pid_t *parent, uint64_t *start)
{
    char path[40], text[1024];
    (void)snprintf(path, sizeof path, "/proc/%d/stat", pid);
    RS_CLOSING int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t got = read(fd, text, sizeof text - 1);
    if (got <= 0)
        return got < 0 ? -errno : -ESRCH;
    text[got] = 0;
    /* "pid (comm) state ppid ...": comm may hold anything, so count from the last bracket. */
    const char *at = strrchr(text, ')');
    unsigned long long ticks;
    int ppid;
    if (!at || sscanf(at + 1, " %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
                      &ppid, &ticks) != 2)
        return -EPROTO;
    *parent = ppid;
    *start = ticks;
    return 0;
}

/* How many seccomp filters a process has (proc_pid_status(5)), or -errno. */
static int filters_of(pid_t pid)
{
    static const char field[] = "\nSeccomp_filters:";
    char path[32], text[8192];
    (void)snprintf(path, sizeof path, "/proc/%d/status", pid);
    RS_CLOSING int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    size_t done = 0;
    ssize_t got;
    while (done < sizeof text - 1 && (got = read(fd, text + done, sizeof text - 1 - done)) > 0)
        done += (size_t)got;
    text[done] = 0;
    char *found = strstr(text, field);
    return found ? (int)strtol(found + sizeof field - 1, NULL, 10) : -ENODATA;
}

/* Whether a child of the launcher is behind the filter: its witness and its guard are not. */
static int is_filtered(pid_t pid, pid_t launcher)
{
    int theirs = filters_of(launcher);
    return theirs >= 0 && filters_of(pid) > theirs;
}

/*
 * 1 if `pid` is of the tree that `launcher` started, else 0: the launcher, and what it started for itself, are
 * Rampart's.
 *
 * The launcher is a subreaper, so that an orphan becomes its child. A process that ends while the chain is walked
 * breaks it; walking again then finds the new parent.
 */
int rs_in_tree(pid_t pid, pid_t launcher)
{
    if (pid == launcher)
        return 0;
    for (int attempt = 0; attempt < 3; attempt++) {
        pid_t at = pid;
        for (int depth = 0; depth < 4096; depth++) {
            uint64_t start;
            pid_t parent;
            int rc = rs_stat(at, &parent, &start);
            if (rc < 0)
                parent = rc;
            if (parent == launcher)
                return is_filtered(pid, launcher);
            if (parent < 0 && at == pid)
                return 0;
            if (parent < 0)
                break;
            if (parent <= 1)
                return 0;
            at = parent;
        }
    }
    return 0;
}
