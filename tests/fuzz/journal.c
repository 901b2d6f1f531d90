/*
 * Do to a ring of records and to a plain list what comes to mind, and compare: `journal SEED COUNT`.
 *
 * Deterministic. Prints how many records were taken. To be built with sanitizers.
 */
#include "journal.h"

#include <stdio.h>

#include "random.h"

#define RECORDS 65536

struct expected {
    uint64_t sequence;
    uint32_t size, path, who;
};

struct model {
    struct rs_journal *journal;
    int overwrite;
    size_t size, used;
    unsigned reserved;
    size_t first, count;
    struct expected records[RECORDS]; /* a ring */
};

static unsigned long taken;
static uint64_t sequence;

#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "line %d, sequence %llu: %s\n", __LINE__, (unsigned long long)sequence, #condition); \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* What stands in a record follows from its number. */
static char byte_of(uint64_t of, size_t at)
{
    return (char)(of * 31 + at * 7 + (at >> 8));
}

static char *content(uint64_t of, size_t size)
{
    /* Nothing is nowhere, as in the engine. */
    char *bytes = size ? malloc(size) : NULL;
    EXPECT(!size || bytes);
    for (size_t i = 0; i < size; i++)
        bytes[i] = byte_of(of, i);
    return bytes;
}

static void forget_first(struct model *model)
{
    model->used -= model->records[model->first].size;
    model->first = (model->first + 1) % RECORDS;
    model->count--;
}

static size_t some_size(size_t most)
{
    switch (below(5)) {
    case 0:
        return 0;
    case 1:
        return most - below(9);
    case 2:
        return most + 1 + below(64);
    case 3:
        return below(most + 1);
    default:
        return below(64);
    }
}

static void put(struct model *model)
{
    const size_t path_size = some_size(RS_OBJECT_ROOM), who_size = some_size(RS_WHO_ROOM);
    struct rs_record head = {.sequence = ++sequence};
    char *path = content(sequence, path_size), *who = content(sequence + 1, who_size);
    const int rc = rs_journal_put(model->journal, &head, path, path_size, who, who_size, NULL);
    free(path);
    free(who);
    if (path_size > RS_OBJECT_ROOM || who_size > RS_WHO_ROOM) {
        EXPECT(rc == -EINVAL);
        return;
    }
    if (!model->overwrite && model->reserved == 0) {
        EXPECT(rc == -ENOSPC);
        return;
    }
    EXPECT(rc == 0);
    const uint32_t whole = (uint32_t)((sizeof head + path_size + who_size + 7) / 8 * 8);
    if (!model->overwrite)
        model->reserved--;
    while (model->overwrite && model->size - model->used < whole)
        forget_first(model);
    EXPECT(model->size - model->used >= whole);
    EXPECT(model->count < RECORDS);
    model->records[(model->first + model->count++) % RECORDS] = (struct expected){
        .sequence = sequence, .size = whole, .path = (uint32_t)path_size, .who = (uint32_t)who_size};
    model->used += whole;
}

static void check(const char *record, const struct expected *expected)
{
    struct rs_record head;
    memcpy(&head, record, sizeof head);
    EXPECT(head.sequence == expected->sequence && head.size == expected->size);
    EXPECT(head.path == expected->path && head.who == expected->who);
    const char *at = record + sizeof head;
    for (size_t i = 0; i < head.path; i++)
        EXPECT(*at++ == byte_of(head.sequence, i));
    for (size_t i = 0; i < head.who; i++)
        EXPECT(*at++ == byte_of(head.sequence + 1, i));
    while (at < record + head.size)
        EXPECT(*at++ == 0);
}

static void take(struct model *model)
{
    const size_t size = below(3) == 0 ? below(RS_RECORD_ROOM) : RS_RECORD_ROOM + below(4 * RS_RECORD_ROOM);
    char *buffer = malloc(size ? size : 1);
    EXPECT(buffer);
    const int64_t got = rs_journal_take(model->journal, buffer, size);
    size_t done = 0;
    EXPECT(got >= 0 && (size_t)got <= size);
    while (model->count && model->records[model->first].size <= size - done) {
        const struct expected *expected = &model->records[model->first];
        EXPECT(done + expected->size <= (size_t)got);
        check(buffer + done, expected);
        done += expected->size;
        forget_first(model);
        taken++;
    }
    EXPECT(done == (size_t)got);
    free(buffer);
}

static void reserve(struct model *model)
{
    const unsigned count = below(8) == 0 ? (unsigned)number() : (unsigned)below(6);
    const size_t places = (model->size - model->used) / RS_RECORD_ROOM;
    const int fits = count < 1024 && places >= (size_t)model->reserved + count;
    EXPECT(rs_journal_reserve(model->journal, count) == (fits ? 0 : -ENOSPC));
    model->reserved += fits ? count : 0;
}

static void drop(struct model *model)
{
    const unsigned count = below(8) == 0 ? (unsigned)number() : (unsigned)below(3);
    rs_journal_drop(model->journal, count);
    model->reserved -= count < model->reserved ? count : model->reserved;
}

static void step(struct model *model)
{
    switch (below(model->overwrite ? 5 : 8)) {
    case 0:
        take(model);
        break;
    case 5:
    case 6:
        reserve(model);
        break;
    case 7:
        drop(model);
        break;
    default:
        put(model);
    }
}

int main(int argc, char **argv)
{
    static struct model model;
    if (argc != 3)
        return 2;
    state = strtoull(argv[1], NULL, 10);
    struct rs_journal *none = NULL;
    EXPECT(rs_journal_new(2 * RS_RECORD_ROOM - 8, 0, &none) == -EINVAL && !none);
    EXPECT(rs_journal_new(SIZE_MAX, 0, &none) == -EINVAL && !none);
    for (unsigned long left = strtoul(argv[2], NULL, 10); left > 0;) {
        memset(&model, 0, offsetof(struct model, records));
        model.overwrite = (int)below(2);
        size_t size = 2 * RS_RECORD_ROOM + 8 + below(12 * RS_RECORD_ROOM);
        model.size = size / 8 * 8;
        EXPECT(rs_journal_new(size, model.overwrite, &model.journal) == 0);
        for (size_t steps = below(2000); steps > 0 && left > 0; steps--, left--)
            step(&model);
        rs_journal_free(model.journal);
        left -= left > 0;
    }
    rs_journal_free(NULL);
    printf("%lu\n", taken);
    return 0;
}
