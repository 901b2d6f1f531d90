/*
 * A policy as tables: what it decides about paths and addresses without asking who acts, nobody or code.
 *
 * The tables are made in Python (policy/tables.py) and loaded once; from then on they are only read, by any number
 * of threads. What a thread learns about them on the way it keeps in a walker of its own, so that nothing is locked.
 */
#ifndef RAMPART_TABLES_H
#define RAMPART_TABLES_H

#include "rampart.h"

/* The operations, in the order of events.Operation. */
enum rs_operation {
    RS_READ,
    RS_CREATE,
    RS_MODIFY,
    RS_DELETE,
    RS_METADATA,
    RS_EXEC,
    RS_CONNECT,
    RS_LISTEN,
};

enum rs_answer {
    RS_DENY,
    RS_ALLOW,
    RS_UNDECIDED, /* it depends on who acts, on code, on a person, or on names: Python decides */
};

/* What the tables say about one effect. Zeroed, it denies. */
struct rs_verdict {
    enum rs_answer answer;
    int error; /* a positive errno; of a denial only */
    int log;   /* record it: always set for a denial; of an allowance, whether its rule wants that */
};

struct rs_tables;
struct rs_walker;

/* -EINVAL: not tables, or not of this version; -ENOMEM. `serial` tells these tables apart from all others. */
int rs_tables_load(const char *blob, size_t size, uint64_t serial, struct rs_tables **out);
void rs_tables_free(struct rs_tables *tables);
uint64_t rs_tables_serial(const struct rs_tables *tables);

/* A walker remembers at most about `memory` bytes; beyond that it forgets everything and begins again. */
int rs_walker_new(size_t memory, struct rs_walker **out);
void rs_walker_free(struct rs_walker *walker);

/*
 * Decide about one real absolute path; `operation` is one of the five on files. -ENOMEM, -EINVAL: then nothing is
 * decided and *out denies.
 */
int rs_decide_path(const struct rs_tables *tables, struct rs_walker *walker, enum rs_operation operation,
                   const char *path, size_t length, struct rs_verdict *out);

/*
 * 1 if the rules say the same about two names and about all that is or will be beneath them, whatever is done there and
 * whoever acts; 0 if perhaps not. Of real absolute names. -ENOMEM, -ENOSPC, -EINVAL.
 */
int rs_alike(const struct rs_tables *tables, struct rs_walker *walker, const char *one, size_t one_length,
             const char *other, size_t other_length);

/*
 * 1 if no rule has come further at a name than at the directory that it is in; 0 if perhaps one has. Of a real absolute
 * name. -ENOMEM, -ENOSPC, -EINVAL.
 */
int rs_unwatched(const struct rs_tables *tables, struct rs_walker *walker, const char *path, size_t length);

/* The names that a program goes by, each with its NUL. */
struct rs_program_names {
    const char *path;  /* of the image, real and absolute */
    const char *named; /* absolute, before the last symbolic link */
    const char *argv0; /* its first argument */
};

/*
 * 1 if one of the variables that a program is started with (NAME=value, each with its NUL) is one that a condition is
 * about, else 0. -ENOMEM, -ENOSPC, -EINVAL.
 */
int rs_plants(const struct rs_tables *tables, struct rs_walker *walker, const char *variables, size_t size);

/* Decide about the start of a program; `plants` is what rs_plants says. -ENOMEM, -ENOSPC, -EINVAL: then nothing is
 * decided and *out denies. */
int rs_decide_exec(const struct rs_tables *tables, struct rs_walker *walker, const struct rs_program_names *names,
                   int plants, struct rs_verdict *out);

/* Decide about RS_CONNECT to, or RS_LISTEN on, an IP address (4 or 16 bytes, network order) and port. A v4-mapped
 * address is the IPv4 address. -EINVAL: it is no such thing; then *out denies. */
int rs_decide_address(const struct rs_tables *tables, enum rs_operation operation, const unsigned char *address,
                      size_t length, unsigned port, struct rs_verdict *out);

#endif
