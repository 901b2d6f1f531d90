/*
 * What a process has become, looked at while it stands at its exec: the kernel has read path, arguments and variables
 * for the last time, and nothing of the new program has run.
 */
#define _GNU_SOURCE
#include "launch.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { CHUNK = 16384, MAPPING_LINE = 5120 };

static bool same_file(const struct stat *found, const struct rs_file *judged)
{
    return (uint64_t)found->st_dev == judged->dev && (uint64_t)found->st_ino == judged->ino;
}

static bool same_image(pid_t pid, const struct rs_file *judged)
{
    char path[32];
    struct stat found;
    snprintf(path, sizeof(path), "/proc/%d/exe", pid);
    return stat(path, &found) == 0 && same_file(&found, judged);
}

/* Read until `size` bytes or the end; how many there were, or -errno. */
static ssize_t read_fully(int fd, char *buffer, size_t size, off_t offset)
{
    size_t done = 0;
    while (done < size) {
        const ssize_t got = pread(fd, buffer + done, size - done, offset + (off_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

/* Whether a file of /proc/<pid> is exactly `size` bytes of `expected` from `offset`. */
static bool same_bytes(pid_t pid, const char *name, int expected, off_t offset, uint64_t size)
{
    static char found[CHUNK];
    static char wanted[CHUNK];
    char path[32];
    snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    for (uint64_t done = 0;; ) {
        const ssize_t got = read_fully(fd, found, sizeof(found), (off_t)done);
        if (got < 0)
            return false;
        const uint64_t left = size - done;
        const size_t want = left < sizeof(wanted) ? (size_t)left : sizeof(wanted);
        if ((size_t)got != want)
            return false;
        if (want == 0)
            return true;
        if (read_fully(expected, wanted, want, offset + (off_t)done) != (ssize_t)want ||
            memcmp(found, wanted, want) != 0)
            return false;
        done += want;
    }
}

/* Read a line of proc_pid_maps(5): which file it maps (inode 0: none), and where its name starts. */
static bool parse_mapping(const char *line, struct rs_file *file, int *name)
{
    unsigned int major_number;
    unsigned int minor_number;
    unsigned long long inode;
    *name = 0;
    if (sscanf(line, "%*s %*s %*s %x:%x %llu %n", &major_number, &minor_number, &inode, name) != 3 || *name == 0)
        return false;
    *file = (struct rs_file){.dev = makedev(major_number, minor_number), .ino = inode};
    return true;
}

static bool equal_files(const struct rs_file *one, const struct rs_file *other)
{
    return one->dev == other->dev && one->ino == other->ino;
}

/* How proc_pid_maps(5) shows a page that we map ourselves. */
static bool shown_at(const void *address, struct rs_file *shown)
{
    char line[MAPPING_LINE];
    bool found = false;
    FILE *file = fopen("/proc/self/maps", "re");
    if (file == NULL)
        return false;
    while (!found && fgets(line, sizeof(line), file) != NULL) {
        int name;
        found = strtoull(line, NULL, 16) == (uintptr_t)address && parse_mapping(line, shown, &name);
    }
    fclose(file);
    return found;
}

/* Whether a mapping that shows such numbers is one of the image that the process runs. */
static bool shown_like_image(pid_t pid, const struct rs_file *file)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/%d/exe", pid);
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    const size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (page == MAP_FAILED)
        return false;
    struct rs_file shown;
    const bool same = shown_at(page, &shown) && equal_files(&shown, file);
    munmap(page, size);
    return same;
}

/* Whether one line of proc_pid_maps(5) maps nothing but the image or its interpreter. */
static bool mapping_judged(pid_t pid, char *line, const struct rs_trace *judged)
{
    struct rs_file shown;
    int name;
    if (!parse_mapping(line, &shown, &name))
        return false;
    if (shown.ino == 0)
        return true; /* anonymous memory, the stack, what the kernel brings */
    if (equal_files(&shown, &judged->image) || equal_files(&shown, &judged->interpreter))
        return true;
    /* Some file systems show another device number here than stat(2) does. */
    line[strcspn(line, "\n")] = '\0';
    static const char deleted[] = " (deleted)";
    const size_t length = strlen(line + name);
    if (length >= sizeof(deleted) && strcmp(line + name + length - (sizeof(deleted) - 1), deleted) == 0)
        return shown_like_image(pid, &shown); /* what has this name now is another file */
    struct stat found;
    return stat(line + name, &found) == 0 &&
           (same_file(&found, &judged->image) || same_file(&found, &judged->interpreter));
}

/* Whether no file is mapped but the image and its interpreter, which the kernel, too, opened by name again. Also of an
 * image that was judged to name none: whoever has it open can have written another header since. */
static bool same_mappings(pid_t pid, const struct rs_trace *judged)
{
    char path[32];
    char line[MAPPING_LINE];
    snprintf(path, sizeof(path), "/proc/%d/maps", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    bool same = true;
    while (same && fgets(line, sizeof(line), file) != NULL)
        same = mapping_judged(pid, line, judged);
    same = same && ferror(file) == 0;
    fclose(file);
    return same;
}

bool committed_as_judged(pid_t pid, const struct rs_trace *judged, int expected)
{
    return same_image(pid, &judged->image) &&
           same_bytes(pid, "cmdline", expected, 0, judged->command_size) &&
           same_bytes(pid, "environ", expected, (off_t)judged->command_size, judged->environment_size) &&
           same_mappings(pid, judged);
}
