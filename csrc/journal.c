#include "journal.h"

#include <pthread.h>

struct rs_journal {
    pthread_mutex_t lock;
    int overwrite;
    unsigned reserved;   /* records that have been promised room */
    size_t size;         /* of the ring, a multiple of 8 */
    uint64_t head, tail; /* bytes ever written, and ever taken or overwritten */
    char ring[];
};

int rs_journal_new(size_t size, int overwrite, struct rs_journal **out)
{
    size &= ~(size_t)7;
    if (size < 2 * RS_RECORD_ROOM || size > SIZE_MAX / 2)
        return -EINVAL;
    struct rs_journal *journal = rs_pages(sizeof *journal + size);
    if (!journal)
        return -ENOMEM;
    int rc = pthread_mutex_init(&journal->lock, NULL);
    if (rc) {
        rs_pages_free(journal, sizeof *journal + size);
        return -rc;
    }
    journal->size = size;
    journal->overwrite = overwrite;
    *out = journal;
    return 0;
}

void rs_journal_free(struct rs_journal *journal)
{
    if (!journal)
        return;
    (void)pthread_mutex_destroy(&journal->lock);
    rs_pages_free(journal, sizeof *journal + journal->size);
}

static size_t room(const struct rs_journal *journal)
{
    return journal->size - (size_t)(journal->head - journal->tail);
}

int rs_journal_reserve(struct rs_journal *journal, unsigned count)
{
    int rc = -ENOSPC;
    (void)pthread_mutex_lock(&journal->lock);
    if (count < 1024 && room(journal) / RS_RECORD_ROOM >= (size_t)journal->reserved + count) {
        journal->reserved += count;
        rc = 0;
    }
    (void)pthread_mutex_unlock(&journal->lock);
    return rc;
}

void rs_journal_drop(struct rs_journal *journal, unsigned count)
{
    (void)pthread_mutex_lock(&journal->lock);
    journal->reserved -= count < journal->reserved ? count : journal->reserved;
    (void)pthread_mutex_unlock(&journal->lock);
}

/* The ring wraps within records, never within 8 bytes. */
static void copy_in(struct rs_journal *journal, const char *bytes, size_t size)
{
    if (size == 0)
        return; /* from NULL, perhaps, which memcpy(3) does not take */
    size_t at = (size_t)(journal->head % journal->size);
    size_t first = size < journal->size - at ? size : journal->size - at;
    memcpy(journal->ring + at, bytes, first);
    memcpy(journal->ring, bytes + first, size - first);
    journal->head += size;
}

static void copy_out(const struct rs_journal *journal, char *bytes, size_t size)
{
    size_t at = (size_t)(journal->tail % journal->size);
    size_t first = size < journal->size - at ? size : journal->size - at;
    memcpy(bytes, journal->ring + at, first);
    memcpy(bytes + first, journal->ring, size - first);
}

static uint32_t oldest_size(const struct rs_journal *journal)
{
    uint32_t size;
    memcpy(&size, journal->ring + (size_t)(journal->tail % journal->size), sizeof size);
    return size;
}

int rs_journal_put(struct rs_journal *journal, struct rs_record *head, const char *path, size_t path_size,
                   const char *who, size_t who_size, atomic_uint_fast64_t *numbers)
{
    static const char zeroes[8];
    if (path_size > RS_OBJECT_ROOM || who_size > RS_WHO_ROOM)
        return -EINVAL;
    const size_t bare = sizeof *head + path_size + who_size;
    const size_t whole = (bare + 7) & ~(size_t)7;
    head->size = (uint32_t)whole;
    head->path = (uint32_t)path_size;
    head->who = (uint32_t)who_size;
    int rc = 0;
    (void)pthread_mutex_lock(&journal->lock);
    if (journal->overwrite)
        while (room(journal) < whole)
            journal->tail += oldest_size(journal);
    else if (journal->reserved == 0)
        rc = -ENOSPC;
    else
        journal->reserved--;
    if (rc == 0) {
        if (numbers)
            head->sequence = atomic_fetch_add(numbers, 1);
        copy_in(journal, (const char *)head, sizeof *head);
        copy_in(journal, path, path_size);
        copy_in(journal, who, who_size);
        copy_in(journal, zeroes, whole - bare);
    }
    (void)pthread_mutex_unlock(&journal->lock);
    return rc;
}

int64_t rs_journal_take(struct rs_journal *journal, char *buffer, size_t size)
{
    size_t done = 0;
    (void)pthread_mutex_lock(&journal->lock);
    while (journal->tail != journal->head) {
        const uint32_t next = oldest_size(journal);
        if (next > size - done)
            break;
        copy_out(journal, buffer + done, next);
        journal->tail += next;
        done += next;
    }
    (void)pthread_mutex_unlock(&journal->lock);
    return (int64_t)done;
}
