/*
 * Who acts, for a record: the process and its ancestors up to the launcher, as /proc shows them now.
 *
 * The bytes: a struct rs_who, then for each process a struct rs_who_process with its path, then the argument vector as
 * /proc/<pid>/cmdline has it. Each part is padded with zeroes to a multiple of 8.
 */
#include "held.h"

#include <stdio.h>

#define ANCESTORS_MAX 32
#define ARGV_MAX 16384

struct rs_who {
    uint32_t processes, argv;
};

struct rs_who_process {
    int32_t pid;
    uint32_t path;   /* 0: unreadable */
    uint64_t start;  /* clock ticks since boot */
    uint64_t dev, ino; /* of the image */
};

static size_t padded(size_t size)
{
    return (size + 7) & ~(size_t)7;
}

/* Returns the bytes written. -ESRCH if the process is gone, -E2BIG, -errno. */
int64_t rs_describe(pid_t pid, pid_t launcher, char *buffer, size_t size)
{
    struct rs_who head = {0};
    size_t done = sizeof head;
    if (size < sizeof head + ARGV_MAX)
        return -E2BIG;
    memset(buffer, 0, size);
    for (pid_t at = pid, parent = 0; at > 1 && at != launcher && head.processes < ANCESTORS_MAX; at = parent) {
        struct rs_who_process one = {.pid = at};
        char link[40], path[PATH_MAX];
        struct stat st;
        int rc = rs_stat(at, &parent, &one.start);
        if (rc < 0) {
            if (at == pid)
                return rc;
            break;
        }
        (void)snprintf(link, sizeof link, "/proc/%d/exe", at);
        ssize_t length = readlink(link, path, sizeof path);
        if (length > 0 && (size_t)length < sizeof path && stat(link, &st) == 0) {
            one.path = (uint32_t)length;
            one.dev = st.st_dev;
            one.ino = st.st_ino;
        }
        if (done + sizeof one + padded(one.path) > size - ARGV_MAX)
            break;
        memcpy(buffer + done, &one, sizeof one);
        memcpy(buffer + done + sizeof one, path, one.path);
        done += sizeof one + padded(one.path);
        head.processes++;
    }
    char name[40];
    (void)snprintf(name, sizeof name, "/proc/%d/cmdline", pid);
    RS_CLOSING int fd = open(name, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && head.argv < ARGV_MAX) {
        ssize_t got = read(fd, buffer + done + head.argv, ARGV_MAX - head.argv);
        if (got <= 0)
            break;
        head.argv += (uint32_t)got;
    }
    memcpy(buffer, &head, sizeof head);
    const size_t whole = padded(done + head.argv);
    return (int64_t)(whole < size ? whole : size);
}
