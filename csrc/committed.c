/*
 * What a process has become, looked at while it stands at its exec: the kernel has read path, arguments and variables
 * for the last time, and nothing of the new program has run. So it alone has written what is compared, the addresses
 * of arguments and variables included (PR_SET_MM is for a process itself), and nobody shares the new memory yet.
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
#include <sys/uio.h>
#include <unistd.h>

enum { CHUNK = 16384, MAPPING_LINE = 5120 };

static bool same_file(const struct stat *found, const struct rs_file *judged)
{
    return (uint64_t)found->st_dev == judged->dev && (uint64_t)found->st_ino == judged->ino;
}

static bool same_image(int directory, const struct rs_file *judged)
{
    struct stat found;
    return fstatat(directory, "exe", &found, 0) == 0 && same_file(&found, judged);
}

/* Whether the memory of a process has these bytes at `address`. */
static bool same_memory(pid_t pid, uint64_t address, const unsigned char *expected, uint64_t size)
{
    static unsigned char found[CHUNK];
    for (uint64_t done = 0; done < size;) {
        const size_t want = size - done < sizeof(found) ? (size_t)(size - done) : sizeof(found);
        const struct iovec here = {.iov_base = found, .iov_len = want};
        const struct iovec there = {.iov_base = (void *)(uintptr_t)(address + done), .iov_len = want};
        if (process_vm_readv(pid, &here, 1, &there, 1, 0) != (ssize_t)want || memcmp(found, expected + done, want) != 0)
            return false;
        done += want;
    }
    return true;
}

/* Whether arguments and, right behind them, variables are those that were judged: all of them, and no more. */
static bool same_strings(pid_t pid, const struct process *process, const struct rs_trace *judged,
                         const unsigned char *expected)
{
    return process->arg_start != 0 && process->arg_end == process->env_start &&
           process->arg_end - process->arg_start == judged->command_size &&
           process->env_end - process->env_start == judged->environment_size &&
           same_memory(pid, process->arg_start, expected, judged->command_size + judged->environment_size);
}

/* Find device, inode and name in a line of proc_pid_maps(5). False if it is none. */
static bool parse_mapping(char *line, struct stat *file, char **name)
{
    char *at = line;
    for (int field = 0; field < 3; field++) { /* addresses, permissions, offset */
        at = strchr(at, ' ');
        if (at == NULL)
            return false;
        at++;
    }
    char *end;
    const unsigned long major_number = strtoul(at, &end, 16);
    if (end == at || *end != ':')
        return false;
    at = end + 1;
    const unsigned long minor_number = strtoul(at, &end, 16);
    if (end == at || *end != ' ')
        return false;
    at = end + 1;
    const unsigned long long inode = strtoull(at, &end, 10);
    if (end == at)
        return false;
    *file = (struct stat){
        .st_dev = makedev((unsigned int)major_number, (unsigned int)minor_number),
        .st_ino = (ino_t)inode,
    };
    *name = end + strspn(end, " ");
    return true;
}

static bool equal_files(const struct stat *one, const struct stat *other)
{
    return one->st_dev == other->st_dev && one->st_ino == other->st_ino;
}

/* How proc_pid_maps(5) shows a page that we map ourselves. */
static bool shown_at(const void *address, struct stat *shown)
{
    char line[MAPPING_LINE];
    bool found = false;
    FILE *file = fopen("/proc/self/maps", "re");
    if (file == NULL)
        return false;
    while (!found && fgets(line, sizeof(line), file) != NULL) {
        char *name;
        found = strtoull(line, NULL, 16) == (uintptr_t)address && parse_mapping(line, shown, &name);
    }
    fclose(file);
    return found;
}

/* Whether a mapping that shows such numbers is one of the image that the process runs. */
static bool shown_like_image(int directory, const struct stat *mapped)
{
    autofd int fd = openat(directory, "exe", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    const size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (page == MAP_FAILED)
        return false;
    struct stat shown;
    const bool same = shown_at(page, &shown) && equal_files(&shown, mapped);
    munmap(page, size);
    return same;
}

/* Whether one line of proc_pid_maps(5) maps nothing but the image or its interpreter. */
static bool mapping_judged(int directory, char *line, const struct rs_trace *judged)
{
    struct stat mapped, found;
    char *name;
    if (!parse_mapping(line, &mapped, &name))
        return false;
    if (mapped.st_ino == 0)
        return true; /* anonymous memory, the stack, what the kernel brings */
    if (same_file(&mapped, &judged->image) || same_file(&mapped, &judged->interpreter))
        return true;
    /* Some file systems show another device number here than stat(2) does. */
    name[strcspn(name, "\n")] = '\0';
    static const char deleted[] = " (deleted)";
    const size_t length = strlen(name);
    if (length >= sizeof(deleted) && strcmp(name + length - (sizeof(deleted) - 1), deleted) == 0)
        return shown_like_image(directory, &mapped); /* what has this name now is another file */
    return stat(name, &found) == 0 &&
           (same_file(&found, &judged->image) || same_file(&found, &judged->interpreter));
}

/* Whether no file is mapped but the image and its interpreter, which the kernel, too, opened by name again. Also of an
 * image that was judged to name none: whoever has it open can have written another header since. */
static bool same_mappings(int directory, const struct rs_trace *judged)
{
    static char buffer[CHUNK];
    char line[MAPPING_LINE];
    autofd int fd = openat(directory, "maps", O_RDONLY | O_CLOEXEC);
    FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;
    if (file == NULL)
        return false;
    steal_fd(&fd);
    bool same = setvbuf(file, buffer, _IOFBF, sizeof(buffer)) == 0;
    while (same && fgets(line, sizeof(line), file) != NULL)
        same = mapping_judged(directory, line, judged);
    same = same && ferror(file) == 0;
    fclose(file);
    return same;
}

bool committed_as_judged(int directory, pid_t pid, const struct process *process, const struct rs_trace *judged,
                         const unsigned char *expected)
{
    return same_image(directory, &judged->image) && same_strings(pid, process, judged, expected) &&
           same_mappings(directory, judged);
}
