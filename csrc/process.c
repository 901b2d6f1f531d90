/* What the kernel says about a process (proc_pid_stat(5)). */
#define _GNU_SOURCE
#include "launch.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum field { PARENT = 4, START_TIME = 22, ARG_START = 48, ARG_END, ENV_START, ENV_END };
enum { STAT_SIZE = 2048 };

/* The directory of a process in /proc, for openat(2): it never comes to mean another process of the same number. */
int open_process(pid_t pid)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/%d", pid);
    const int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 ? fd : -errno;
}

/* Read the file `name` of `directory`. Where its memory must not be read, the kernel shows it as 0. */
int read_process(int directory, const char *name, struct process *found)
{
    char text[STAT_SIZE];
    autofd int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    const ssize_t size = read(fd, text, sizeof(text) - 1);
    if (size <= 0)
        return size < 0 ? -errno : -ESRCH;
    text[size] = '\0';
    char *at = strrchr(text, ')'); /* behind the name, which is field 2 and may hold anything */
    if (at == NULL || at[1] != ' ' || at[2] == '\0')
        return -EPROTO;
    at += 3; /* behind the state, which is a letter */
    uint64_t fields[ENV_END + 1];
    for (int field = PARENT; field <= ENV_END; field++) {
        char *const before = at;
        fields[field] = strtoull(before, &at, 10);
        if (at == before)
            return -EPROTO;
    }
    *found = (struct process){
        .parent = (pid_t)fields[PARENT],
        .start_time = fields[START_TIME],
        .arg_start = fields[ARG_START],
        .arg_end = fields[ARG_END],
        .env_start = fields[ENV_START],
        .env_end = fields[ENV_END],
    };
    return 0;
}
