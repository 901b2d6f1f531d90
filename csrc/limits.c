/* Limits of a policy: those that the kernel keeps for each process, and those that are looked after. */
#define _GNU_SOURCE
#include "launch.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

/* Milliseconds between two counts of the tree. */
enum { COUNT_SCOPED = 100, COUNT_SWEEPING = 1000, COUNT_AGAIN = 10 };

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Lower one limit of a process; what it has already below that stays. */
static int lower(pid_t pid, __rlimit_resource_t which, uint64_t soft, uint64_t hard)
{
    struct rlimit limit;
    if (soft == 0)
        return 0;
    if (prlimit(pid, which, NULL, &limit) != 0)
        return -errno;
    if (limit.rlim_max > hard)
        limit.rlim_max = hard;
    if (limit.rlim_cur > soft)
        limit.rlim_cur = soft;
    return prlimit(pid, which, &limit, NULL) == 0 ? 0 : -errno;
}

/*
 * Put the limits on the command, from outside and when its own preparations are over: those could fail of them.
 * Each of its descendants inherits them. At the soft limit of RLIMIT_CPU comes SIGXCPU, which a program can use
 * to say goodbye, and a second later SIGKILL (setrlimit(2)).
 */
int limit_process(pid_t pid, const struct rs_limits *limits)
{
    int error = lower(pid, RLIMIT_NOFILE, limits->open_files, limits->open_files);
    if (error == 0)
        error = lower(pid, RLIMIT_CPU, limits->cpu_seconds, limits->cpu_seconds + 1);
    if (error == 0)
        error = lower(pid, RLIMIT_DATA, limits->memory, limits->memory);
    return error;
}

/*
 * Count the processes of the tree, this one excepted. scoped: those that we can signal are exactly the ones of
 * our domain and of domains nested in it; else those that descend from us. -errno if /proc cannot be read.
 */
long count_tree(bool scoped)
{
    const pid_t self = getpid();
    long count = 0;
    DIR *processes = opendir("/proc");
    if (processes == NULL)
        return -errno;
    for (const struct dirent *entry; (entry = readdir(processes)) != NULL;) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (pid > 1 && pid != self && (scoped ? kill(pid, 0) == 0 : descends(pid, self)))
            count++;
    }
    closedir(processes);
    return count;
}

/* Watch over limits from now on; others: how many processes count_tree() sees that are not the tree's. */
struct watch start_watch(const struct rs_limits *limits, bool scoped, long others)
{
    struct watch watch = {.scoped = scoped};
    if (limits->wall_ms != 0)
        watch.deadline = now_ms() + limits->wall_ms;
    if (limits->processes != 0) {
        watch.most = (long)limits->processes + others;
        watch.next_count = now_ms();
    }
    return watch;
}

/* Milliseconds until look() has something to do, as poll(2) takes them; -1: never. */
int next_look(const struct watch *watch)
{
    uint64_t next = UINT64_MAX;
    if (watch->deadline != 0)
        next = watch->deadline;
    if (watch->most != 0 && watch->next_count < next)
        next = watch->next_count;
    if (next == UINT64_MAX)
        return -1;
    const uint64_t now = now_ms();
    /* Rounded up, and never so long that it would not fit. */
    return next <= now ? 0 : next - now > 3600000 ? 3600000 : (int)(next - now) + 1;
}

/*
 * Returns the limit that is exceeded, or 0. The tree has too many processes if two counts in a row say so: for
 * a moment there may be one more process of the launcher's. What cannot be counted is too much.
 */
enum rs_limit look(struct watch *watch)
{
    const uint64_t now = now_ms();
    if (watch->deadline != 0 && now >= watch->deadline) {
        watch->deadline = 0;
        return RS_LIMIT_WALL_TIME;
    }
    if (watch->most == 0 || now < watch->next_count)
        return 0;
    const long count = count_tree(watch->scoped);
    const bool exceeded = count < 0 || count > watch->most;
    const bool again = exceeded && watch->exceeded;
    watch->exceeded = exceeded;
    watch->next_count = now + (exceeded ? COUNT_AGAIN : watch->scoped ? COUNT_SCOPED : COUNT_SWEEPING);
    return again ? RS_LIMIT_PROCESSES : 0;
}
