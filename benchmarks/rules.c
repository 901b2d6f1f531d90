/*
 * What one decision by tables costs: `rules TABLES MODE MEMORY COUNT` prints nanoseconds of processor time.
 *
 * Every path has eight components. known: a thousand paths take turns, and their names were met before. new:
 * the last name of each path was never met before.
 */
#include "tables.h"

#include <stdbool.h>
#include <stdio.h>
#include <time.h>

enum { PATHS = 1000, LONGEST = 128 };

static void must(bool well, const char *what)
{
    if (!well) {
        perror(what);
        exit(1);
    }
}

static double now(void)
{
    struct timespec at;
    must(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at) == 0, "clock");
    return (double)at.tv_sec * 1e9 + (double)at.tv_nsec;
}

static size_t spell(char path[LONGEST], unsigned number, bool new)
{
    /* Every fourth name is one that a rule speaks about, if there are as many rules. */
    return (size_t)snprintf(path, LONGEST, "/home/u/p/src/d%u/lib/m%u/%c%u%s", number % 20, number % 7,
                            number % 4 == 1 ? 'x' : 'n', number, new ? ".new" : "");
}

static char *content(const char *name, size_t *size)
{
    struct stat about;
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    must(fd >= 0 && fstat(fd, &about) == 0, name);
    *size = (size_t)about.st_size;
    char *text = malloc(*size + 1);
    must(text != NULL && read(fd, text, *size) == (ssize_t)*size && close(fd) == 0, name);
    return text;
}

int main(int argc, char **argv)
{
    static char paths[PATHS][LONGEST];
    static size_t lengths[PATHS];
    must(argc == 5, "usage: rules TABLES known|new MEMORY COUNT");
    const bool new = strcmp(argv[2], "new") == 0;
    const unsigned long count = strtoul(argv[4], NULL, 10);
    size_t size;
    char *blob = content(argv[1], &size);
    struct rs_tables *tables;
    struct rs_walker *walker;
    struct rs_verdict verdict;
    must(rs_tables_load(blob, size, 1, &tables) == 0, "load");
    must(rs_walker_new(strtoul(argv[3], NULL, 10), &walker) == 0, "walker");
    for (unsigned i = 0; i < PATHS; i++) {
        lengths[i] = spell(paths[i], i, false);
        must(rs_decide_path(tables, walker, RS_READ, paths[i], lengths[i], &verdict) == 0, "decide");
    }
    double spent = 0;
    unsigned long denied = 0;
    for (unsigned long done = 0; done < count; done += PATHS) {
        for (unsigned i = 0; new && i < PATHS; i++)
            lengths[i] = spell(paths[i], (unsigned)done + i, true);
        double before = now();
        for (unsigned i = 0; i < PATHS; i++) {
            must(rs_decide_path(tables, walker, RS_READ, paths[i], lengths[i], &verdict) == 0, "decide");
            denied += verdict.answer == RS_DENY;
        }
        spent += now() - before;
    }
    must(denied < count, "everything was denied");
    printf("%.1f\n", spent / (double)count);
    rs_walker_free(walker);
    rs_tables_free(tables);
    free(blob);
    return 0;
}
