/* What a policy's `environment:` takes away from the command, whoever starts the launcher. */
#define _GNU_SOURCE
#include "launch.h"

#include <fnmatch.h>
#include <string.h>

/* Options of one layer run from "-e" to the next "-e" or the end: "-d PATTERN" drops, "-p PATTERN" passes. */
static bool option_matches(char *const *options, size_t count, const char *flag, const char *name)
{
    for (size_t i = 0; i + 1 < count; i += 2)
        if (strcmp(options[i], flag) == 0 && fnmatch(options[i + 1], name, FNM_NOESCAPE) == 0)
            return true;
    return false;
}

static void drop_by_layer(char *const *options, size_t count)
{
    char **kept = environ;
    for (char **entry = environ; *entry != NULL; entry++) {
        char *equals = strchr(*entry, '=');
        if (equals != NULL)
            *equals = '\0';
        bool dropped = option_matches(options, count, "-d", *entry) && !option_matches(options, count, "-p", *entry);
        if (equals != NULL)
            *equals = '=';
        if (!dropped)
            *kept++ = *entry;
    }
    *kept = NULL;
}

int drop_variables(char *const *options, size_t count)
{
    size_t start = 0;
    while (start < count) {
        if (strcmp(options[start], "-e") != 0)
            return -EINVAL;
        size_t end = ++start;
        while (end < count && strcmp(options[end], "-e") != 0) {
            bool known = strcmp(options[end], "-d") == 0 || strcmp(options[end], "-p") == 0;
            if (!known || end + 1 >= count)
                return -EINVAL;
            end += 2;
        }
        drop_by_layer(options + start, end - start);
        start = end;
    }
    return 0;
}
