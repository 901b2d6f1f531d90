/*
 * Feed spoiled tables to the loader, and ask those that it takes: `tables SEED COUNT TABLES...`.
 *
 * Deterministic: the same arguments do the same. Prints how many were taken. To be built with sanitizers;
 * what it is about is that it comes to its end.
 */
#include "tables.h"

#include <stdio.h>

#include "random.h"

/* Change a byte, or a number that counts or refers; the header, where all the counts are, more often. */
static void spoil(unsigned char *blob, size_t size)
{
    size_t at = below(below(3) == 0 && size > 64 ? 64 : size);
    if (below(3) == 0 || size < 8) {
        blob[at] = (unsigned char)number();
        return;
    }
    at = at / 4 * 4;
    if (at + 4 > size)
        return;
    uint32_t value;
    memcpy(&value, blob + at, sizeof value);
    const uint32_t values[] = {0,          1,        value + 1, value - 1,
                               UINT32_MAX, 1U << 31, value * 2, (uint32_t)below(64)};
    value = values[below(sizeof values / sizeof *values)];
    memcpy(blob + at, &value, sizeof value);
}

static void ask(const struct rs_tables *tables, struct rs_walker *walker)
{
    static const char names[][8] = {"a",   "b",    "c", ".e",   "x",   "h",    "p",
                                    "usr", "home", "u", ".ssh", "tmp", ".env", "ba"};
    char path[2048];
    struct rs_verdict verdict;
    for (int i = 0; i < 8; i++) {
        size_t length = 0;
        for (size_t depth = 1 + below(12); depth > 0; depth--) {
            const char *name = names[below(sizeof names / sizeof *names)];
            path[length++] = '/';
            memcpy(path + length, name, strlen(name));
            length += strlen(name);
            /* Beyond what a walker remembers of a name, too. */
            for (size_t more = below(4) == 0 ? below(100) : 0; more > 0; more--)
                path[length++] = (char)number();
        }
        (void)rs_decide_path(tables, walker, (enum rs_operation)below(9), path, length, &verdict);
        path[length] = 0;
        const struct rs_program_names started = {
            .path = path, .named = path + below(2) * strcspn(path + 1, "/"), .argv0 = path + below(length)};
        const int plants = rs_plants(tables, walker, path + 1, length);
        (void)rs_decide_exec(tables, walker, &started, plants, &verdict);
    }
    for (int i = 0; i < 8; i++) {
        unsigned char address[16] = {0};
        for (size_t k = below(17); k > 0; k--)
            address[k - 1] = (unsigned char)number();
        size_t size = below(2) == 0 ? 4 : 16;
        (void)rs_decide_address(tables, below(2) == 0 ? RS_CONNECT : RS_LISTEN, address, size,
                                (unsigned)below(65536), &verdict);
    }
}

static unsigned char *content(const char *name, size_t *size)
{
    struct stat about;
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &about) != 0)
        return NULL;
    *size = (size_t)about.st_size;
    unsigned char *text = malloc(*size + 1);
    if (text != NULL && read(fd, text, *size) != (ssize_t)*size) {
        free(text);
        text = NULL;
    }
    close(fd);
    return text;
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    state = strtoull(argv[1], NULL, 10);
    const unsigned long count = strtoul(argv[2], NULL, 10);
    unsigned long taken = 0;
    struct rs_walker *walker;
    if (rs_walker_new(1 << 14, &walker) != 0)
        return 1;
    for (int i = 3; i < argc; i++) {
        size_t size;
        unsigned char *whole = content(argv[i], &size);
        if (whole == NULL)
            return 1;
        for (unsigned long done = 0; done < count; done++) {
            /* A copy of its own size, so that a byte read behind it is found. */
            size_t kept = below(16) == 0 ? below(size + 1) : size;
            unsigned char *blob = malloc(kept == 0 ? 1 : kept);
            if (blob == NULL)
                return 1;
            memcpy(blob, whole, kept);
            for (size_t changes = below(5); changes > 0 && kept > 0; changes--)
                spoil(blob, kept);
            struct rs_tables *tables;
            int error = rs_tables_load((const char *)blob, kept, number(), &tables);
            free(blob);
            if (error == 0) {
                taken++;
                ask(tables, walker);
                rs_tables_free(tables);
            } else if (error != -EINVAL || tables != NULL) {
                fprintf(stderr, "%s: %d\n", argv[i], error);
                return 1;
            }
        }
        free(whole);
    }
    rs_walker_free(walker);
    printf("%lu\n", taken);
    return 0;
}
