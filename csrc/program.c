#define _GNU_SOURCE
#include "launch.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* os.defpath of Python, which searches it when PATH is not set. */
static const char default_search[] = "/bin:/usr/bin";

static int executable(const char *path)
{
    struct stat found;
    if (stat(path, &found) != 0)
        return -errno;
    if (!S_ISREG(found.st_mode))
        return -EACCES; /* as execve(2) */
    return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) == 0 ? 0 : -errno;
}

/*
 * Find what execve(2) is to be given for this name, as CPython's subprocess does: a name with a slash is
 * taken as it is; else the first executable regular file of the search path counts, an empty element is the
 * working directory, and an error that is not "no such file" is remembered as the answer if nothing is
 * found. There is no fallback to a shell.
 */
int resolve_program(const char *name, const char *search, char *path, size_t size)
{
    if (strchr(name, '/') != NULL) {
        if (strlen(name) >= size)
            return -ENAMETOOLONG;
        memcpy(path, name, strlen(name) + 1);
        return 0;
    }
    int remembered = 0;
    int last = -ENOENT;
    for (const char *element = search != NULL ? search : default_search;; element++) {
        const char *end = strchrnul(element, ':');
        bool slash = end > element && end[-1] != '/';
        int length = snprintf(path, size, "%.*s%s%s", (int)(end - element), element, slash ? "/" : "", name);
        last = length >= 0 && (size_t)length < size ? executable(path) : -ENAMETOOLONG;
        if (last == 0)
            return 0;
        if (remembered == 0 && last != -ENOENT && last != -ENOTDIR)
            remembered = last;
        element = end;
        if (*element == '\0')
            return remembered != 0 ? remembered : last;
    }
}
