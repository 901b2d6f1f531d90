/*
 * Tables as csrc/tables.c holds them once they are checked, and what the parts of their evaluation share:
 * patterns.c knows which patterns a path matches, rules.c what the rules make of it, walker.c remembers both.
 */
#ifndef RAMPART_COMPILED_H
#define RAMPART_COMPILED_H

#include "tables.h"

#include <stdbool.h>

/* The format; policy/tables.py writes it. Numbers are 32 bits wide, in the byte order of the machine. */

enum { MAGIC = 0x54425352, VERSION = 2, OPERATIONS = RS_LISTEN + 1, FILE_OPERATIONS = RS_METADATA + 1 };
enum { LEVEL_ALLOW, LEVEL_ASK, LEVEL_DENY, LEVEL_GRANT, LEVEL_QUESTION };
enum { ENTRY_LOGS = 1, ENTRY_RULE = 2 };
enum { BY_PATH = 1, BY_ADDRESS = 2, BY_OTHER = 4, BY_COMMAND = 8, BY_VARIABLE = 16, FLAGS = 31 };
enum { FAMILY_ANY, FAMILY_NAME, FAMILY_IPV4 = 4, FAMILY_IPV6 = 6 };
enum { ITEM_BYTE, ITEM_ANY, ITEM_STAR, ITEM_SET };
enum { ERROR_MAX = 4095, LIMIT = 1 << 28 };

struct literal {
    uint32_t first, length; /* in the text */
};
struct wildcard {
    uint32_t first, count; /* items: the kind in the highest byte, a byte or the place of a bitmap below */
};
struct bitmap {
    uint32_t bits[8];
};
struct node {
    uint32_t loop;         /* stays for every further component */
    uint32_t any;          /* node behind a `**` here, or 0 */
    uint32_t first, count; /* conditions whose paths are matched here */
};
struct edge {
    uint32_t from, symbol, to; /* symbols: the literals, then the wildcards */
};
struct layer {
    uint32_t entries;
    uint32_t defaults[OPERATIONS]; /* levels */
};
struct entry {
    uint32_t operations; /* as bits */
    uint32_t level;
    uint32_t error; /* 0: the usual one */
    uint32_t flags;
    uint32_t conditions; /* its own, then its exceptions */
};
struct condition {
    uint32_t flags;
    uint32_t first, count; /* tests; one of them must hold */
};
struct test {
    uint32_t family;
    uint32_t prefix;
    unsigned char address[16];
    uint32_t first, count; /* ranges of ports; none: every port */
};
struct range {
    uint32_t low, high;
};

enum section {
    LITERALS,
    WILDCARDS,
    ITEMS,
    BITMAPS,
    NODES,
    EDGES,
    ACCEPTS,
    LAYERS,
    ENTRIES,
    CONDITIONS,
    TESTS,
    RANGES,
    TEXT,
    SECTIONS,
};

struct header {
    uint32_t magic, version, size;
    uint32_t count[SECTIONS];
};

enum { AFFIX_MAX = 255 };
enum affix { PREFIX, SUFFIX };

/* Where a wildcard is looked up: by the longer of its fixed beginning and its fixed end. */
struct affix_key {
    uint32_t hash;
    uint8_t kind, length;
};

struct chains {
    uint32_t mask;
    uint32_t *heads; /* 1 + place of the first, or 0 */
    uint32_t *next;
};

struct place {
    uint32_t first, conditions_end; /* of an entry: its conditions */
};

struct rs_tables {
    uint64_t serial;
    struct header *header; /* the copy that everything below points into */
    const struct literal *literals;
    const struct wildcard *wildcards;
    const uint32_t *items;
    const struct bitmap *bitmaps;
    const struct node *nodes;
    const struct edge *edges;
    const uint32_t *accepts;
    const struct layer *layers;
    const struct entry *entries;
    const struct condition *conditions;
    const struct test *tests;
    const struct range *ranges;
    const unsigned char *text;
    struct chains by_literal, by_edge, by_affix;
    struct affix_key *affixes;
    uint64_t affix_lengths[2][AFFIX_MAX / 64 + 1];
    size_t affix_longest[2];
    struct place *places;
    uint32_t *entry_of;     /* of a condition */
    bool variables;         /* some condition is about variables */
    bool grants;            /* something was granted */
    uint32_t *listed;       /* entries to be looked at whatever the path, by layer and operation */
    uint32_t *listed_first; /* by layer and operation, and the end */
};

static inline uint32_t count_of(const struct rs_tables *tables, enum section section)
{
    return tables->header->count[section];
}

/* FNV-1a, byte by byte. */
enum { HASH_SEED = 0x811c9dc5 };

static inline uint32_t hash_byte(uint32_t hash, unsigned char byte)
{
    return (hash ^ byte) * 0x01000193U;
}

static inline uint32_t hash_two(uint32_t one, uint32_t two)
{
    uint64_t mixed = ((uint64_t)one << 32 | two) * 0x9e3779b97f4a7c15U;
    return (uint32_t)(mixed >> 32);
}

/* Numbers of symbols, nodes or conditions; in order, and each once. */
struct set {
    uint32_t *of;
    size_t count, room;
};

/* patterns.c: 0 or -ENOMEM */
int rs_classify(const struct rs_tables *tables, const unsigned char *name, size_t length, uint32_t hash,
                struct set *symbols);
int rs_start(const struct rs_tables *tables, struct set *nodes);
int rs_step(const struct rs_tables *tables, const uint32_t *nodes, size_t count, const uint32_t *symbols,
            size_t symbol_count, struct set *next);
int rs_accepted(const struct rs_tables *tables, const uint32_t *nodes, size_t count, struct set *accepted);

/* rules.c: a verdict in one number that is not 0 */
uint32_t rs_judge_path(const struct rs_tables *tables, enum rs_operation operation,
                       const struct set *accepted);
/* What an exec is judged by: the conditions that match the image's path, the name that it was started under, and the base
 * name in argv[0]; and whether it is started with a variable that some condition is about. */
struct started {
    struct set path, named, base;
    bool plants;
};
uint32_t rs_judge_exec(const struct rs_tables *tables, const struct started *started);
void rs_unpack(uint32_t verdict, struct rs_verdict *out);

#endif
