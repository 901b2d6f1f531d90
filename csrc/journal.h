/*
 * What was decided, on its way to those who keep it: a ring of records in memory.
 *
 * Writers never wait for a reader. In a ring that keeps everything there must be room before a call is carried out
 * (rs_journal_reserve); in the other the oldest records make way.
 */
#ifndef RAMPART_JOURNAL_H
#define RAMPART_JOURNAL_H

#include "rampart.h"

#include <stdatomic.h>

#define RS_RECORD_ALLOWED 1  /* else denied */
#define RS_RECORD_DATAGRAM 2 /* `path` is an IP address: of a datagram; else of a stream */

/* A record begins with this; `path` and `who` bytes follow, and zeroes up to a multiple of 8. Native byte order. */
struct rs_record {
    uint32_t size; /* of the whole record */
    uint32_t path, who;
    uint32_t flags;
    uint64_t sequence; /* in the order of the decisions of the tree */
    uint64_t serial;   /* of the tables that decided */
    uint64_t began, held; /* nanoseconds: CLOCK_MONOTONIC when the call was received, and what it took */
    int32_t tid, tgid, nr, error; /* error: a positive errno that the program saw, or 0 */
    uint32_t operation, port;
};

#define RS_PATH_ROOM (PATH_MAX + NAME_MAX + 2)
#define RS_OBJECT_ROOM 20480 /* of a start: path, name before the last link and arguments, each with its NUL */
#define RS_WHO_ROOM 32768
/* The longest record. */
#define RS_RECORD_ROOM (sizeof(struct rs_record) + RS_OBJECT_ROOM + RS_WHO_ROOM + 16)

struct rs_journal;

/* `size` bytes; with `overwrite` the oldest records make way for new ones. -ENOMEM, -EINVAL. */
int rs_journal_new(size_t size, int overwrite, struct rs_journal **out);
void rs_journal_free(struct rs_journal *journal);

/* Keep room for `count` of the longest records; -ENOSPC. Each record that is put, or dropped, gives back one. */
int rs_journal_reserve(struct rs_journal *journal, unsigned count);
void rs_journal_drop(struct rs_journal *journal, unsigned count);

/*
 * Add a record: sizes are filled in here, and `sequence` is taken from `numbers`, unless that is NULL: with the lock held,
 * so that whoever takes a number and then takes the records has all that have a smaller one. Needs a reservation unless the ring
 * overwrites. -ENOSPC, -EINVAL.
 */
int rs_journal_put(struct rs_journal *journal, struct rs_record *head, const char *path, size_t path_size,
                   const char *who, size_t who_size, atomic_uint_fast64_t *numbers);

/* Move as many whole records as fit into `buffer`; returns their bytes. Needs RS_RECORD_ROOM bytes at least. */
int64_t rs_journal_take(struct rs_journal *journal, char *buffer, size_t size);

#endif
