/*
 * Whom a process that stands at its exec has forked, and whom it descends from. It has one thread by then, which all
 * its children are filed under.
 */
#define _GNU_SOURCE
#include "launch.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

enum { LISTINGS_MAX = 16, LISTING_SIZE = 16384 };

/* Read the whole of a listing; how many bytes there were, or -errno. -E2BIG: more than fit. */
static ssize_t read_listing(int directory, const char *name, char *text, size_t size)
{
    autofd int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    for (size_t done = 0; done < size; ) {
        const ssize_t got = read(fd, text + done, size - done);
        if (got < 0)
            return -errno;
        if (got == 0)
            return (ssize_t)done;
        done += (size_t)got;
    }
    return -E2BIG;
}

/* Read the pids of a process's children, in the order in which it forked them; UINT32_MAX if not all of them. */
static uint32_t read_children(int directory, pid_t pid, pid_t *pids)
{
    static char text[LISTING_SIZE];
    char name[48];
    snprintf(name, sizeof(name), "task/%d/children", pid);
    const ssize_t size = read_listing(directory, name, text, sizeof(text) - 1);
    if (size < 0)
        return UINT32_MAX;
    text[size] = '\0';
    uint32_t count = 0;
    for (char *at = text, *end; *at != '\0'; at = end + 1) {
        const long number = strtol(at, &end, 10);
        if (end == at || *end != ' ' || count == RS_MAX_CHILDREN)
            return UINT32_MAX;
        pids[count++] = (pid_t)number;
    }
    return count;
}

/* Whether all of some pids are among others, both in the same order. */
static bool all_among(const pid_t *some, uint32_t n_some, const pid_t *others, uint32_t n_others)
{
    uint32_t found = 0;
    for (uint32_t at = 0; found < n_some && at < n_others; at++)
        found += some[found] == others[at];
    return found == n_some;
}

/* Tell the children by their starts, too. One that has ended is nobody any more, and its number may be another's. */
static uint32_t identify(pid_t pid, const pid_t *pids, uint32_t n_pids, struct rs_child *children)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n_pids; i++) {
        char name[32];
        struct process child;
        snprintf(name, sizeof(name), "/proc/%d/stat", pids[i]);
        if (read_process(AT_FDCWD, name, &child) == 0 && child.parent == pid)
            children[count++] = (struct rs_child){.pid = (uint64_t)pids[i], .start_time = child.start_time};
    }
    return count;
}

/*
 * List them. The kernel overlooks one only if another, listed before it, ends during the listing (proc(5)); so a
 * listing counts if all in it are still there afterwards.
 */
uint32_t list_children(int directory, pid_t pid, struct rs_child *children)
{
    static pid_t listings[2][RS_MAX_CHILDREN];
    pid_t *before = listings[0];
    pid_t *after = listings[1];
    uint32_t listed = read_children(directory, pid, before);
    for (int turn = 0; turn < LISTINGS_MAX && listed != UINT32_MAX; turn++) {
        const uint32_t again = listed != 0 ? read_children(directory, pid, after) : 0;
        if (again == UINT32_MAX)
            break;
        if (all_among(before, listed, after, again))
            return identify(pid, before, listed, children);
        pid_t *const newer = after;
        after = before;
        before = newer;
        listed = again;
    }
    return UINT32_MAX;
}

/* Whether a process is known to have executed something. False also of one that another has taken the place of. */
bool has_executed(const struct rs_child *executed, pid_t pid, uint64_t start_time)
{
    const struct rs_child *place = &executed[(unsigned int)pid % EXECUTED_SIZE];
    return place->pid == (uint64_t)pid && place->start_time == start_time;
}

void note_executed(struct rs_child *executed, pid_t pid, uint64_t start_time)
{
    executed[(unsigned int)pid % EXECUTED_SIZE] = (struct rs_child){.pid = (uint64_t)pid, .start_time = start_time};
}

/* Climb from `parent`. An orphan's is its adopter, this process, which is listed like any other. */
uint32_t list_ancestors(pid_t parent, const struct rs_child *executed, struct rs_child *ancestors)
{
    uint32_t count = 0;
    for (pid_t at = parent; at > 0 && count < RS_MAX_ANCESTORS;) {
        char name[32];
        struct process found;
        snprintf(name, sizeof(name), "/proc/%d/stat", at);
        if (read_process(AT_FDCWD, name, &found) != 0)
            break;
        ancestors[count++] = (struct rs_child){.pid = (uint64_t)at, .start_time = found.start_time};
        if (at == getpid() || has_executed(executed, at, found.start_time))
            break;
        at = found.parent;
    }
    return count;
}
