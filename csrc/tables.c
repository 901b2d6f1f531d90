/*
 * Tables: what policy/tables.py wrote, checked once and read from then on.
 *
 * A path is read component by component. A component is first put into its class: the set of symbols (literals and
 * wildcards of the patterns) that match it. The patterns share their beginnings in one tree; a state is the set of
 * its nodes that the components read so far lead to, and the class of the next component gives the next state. What
 * a name's class is, where a class leads and what a state means is remembered in the walker. Whatever does not fit
 * there is worked out again.
 *
 * What depends on who acts is neither true nor false here. A condition may hold, so a rule may speak, so a layer has
 * several possible decisions; they are carried along, and only if they come to the same is there a verdict.
 */
#include "tables.h"

#include <stdbool.h>

/* ---- The format; policy/tables.py writes it. Numbers are 32 bits wide, in the byte order of the machine. ---- */

enum { MAGIC = 0x54425352, VERSION = 1, OPERATIONS = RS_LISTEN + 1, FILE_OPERATIONS = RS_METADATA + 1 };
enum { LEVEL_ALLOW, LEVEL_ASK, LEVEL_DENY, LEVEL_GRANT, LEVEL_RESOLVER };
enum { ENTRY_LOGS = 1, ENTRY_RULE = 2 };
enum { BY_PATH = 1, BY_ADDRESS = 2, BY_OTHER = 4 };
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
    uint32_t loop;  /* stays for every further component */
    uint32_t any;   /* node behind a `**` here, or 0 */
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

static const size_t RECORD[SECTIONS] = {
    [LITERALS] = sizeof(struct literal), [WILDCARDS] = sizeof(struct wildcard),
    [ITEMS] = sizeof(uint32_t),          [BITMAPS] = sizeof(struct bitmap),
    [NODES] = sizeof(struct node),       [EDGES] = sizeof(struct edge),
    [ACCEPTS] = sizeof(uint32_t),        [LAYERS] = sizeof(struct layer),
    [ENTRIES] = sizeof(struct entry),    [CONDITIONS] = sizeof(struct condition),
    [TESTS] = sizeof(struct test),       [RANGES] = sizeof(struct range),
    [TEXT] = 1,
};

struct header {
    uint32_t magic, version, size;
    uint32_t count[SECTIONS];
};

/* ---- In memory ---- */

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
    uint32_t *entry_of;               /* of a condition */
    uint32_t *listed;                 /* entries to be looked at whatever the path, by layer and operation */
    uint32_t *listed_first;           /* layers * OPERATIONS + 1 */
};

static uint32_t count_of(const struct rs_tables *tables, enum section section)
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

/* ---- Loading ---- */

static bool within(uint32_t first, uint32_t count, uint32_t total)
{
    return first <= total && count <= total - first;
}

static bool check_patterns(const struct rs_tables *tables)
{
    uint32_t symbols = count_of(tables, LITERALS) + count_of(tables, WILDCARDS);
    uint32_t nodes = count_of(tables, NODES);
    for (uint32_t i = 0; i < count_of(tables, LITERALS); i++) {
        if (!within(tables->literals[i].first, tables->literals[i].length, count_of(tables, TEXT)))
            return false;
    }
    for (uint32_t i = 0; i < count_of(tables, WILDCARDS); i++) {
        if (!within(tables->wildcards[i].first, tables->wildcards[i].count, count_of(tables, ITEMS)))
            return false;
    }
    for (uint32_t i = 0; i < count_of(tables, ITEMS); i++) {
        uint32_t kind = tables->items[i] >> 24;
        uint32_t value = tables->items[i] & 0xffffff;
        if (kind > ITEM_SET || (kind == ITEM_SET ? value >= count_of(tables, BITMAPS) : value > 255))
            return false;
    }
    /* A node stands behind the one that leads to it, so that following them comes to an end. */
    for (uint32_t i = 0; i < nodes; i++) {
        const struct node *node = &tables->nodes[i];
        if (!within(node->first, node->count, count_of(tables, ACCEPTS)) || node->any >= nodes ||
            (node->any != 0 && node->any <= i))
            return false;
    }
    for (uint32_t i = 0; i < count_of(tables, EDGES); i++) {
        const struct edge *edge = &tables->edges[i];
        if (edge->to >= nodes || edge->from >= edge->to || edge->symbol >= symbols)
            return false;
    }
    for (uint32_t i = 0; i < count_of(tables, ACCEPTS); i++) {
        if (tables->accepts[i] >= count_of(tables, CONDITIONS))
            return false;
    }
    return nodes > 0;
}

static bool check_rules(const struct rs_tables *tables)
{
    uint64_t entries = 0;
    uint64_t conditions = 0;
    for (uint32_t i = 0; i < count_of(tables, LAYERS); i++) {
        entries += tables->layers[i].entries;
        for (int operation = 0; operation < OPERATIONS; operation++) {
            if (tables->layers[i].defaults[operation] > LEVEL_DENY)
                return false;
        }
    }
    for (uint32_t i = 0; i < count_of(tables, ENTRIES); i++) {
        const struct entry *entry = &tables->entries[i];
        conditions += entry->conditions;
        if (entry->operations >> OPERATIONS != 0 || entry->level > LEVEL_RESOLVER || entry->error > ERROR_MAX ||
            entry->flags > (ENTRY_LOGS | ENTRY_RULE) || entry->conditions == 0)
            return false;
    }
    for (uint32_t i = 0; i < count_of(tables, CONDITIONS); i++) {
        const struct condition *condition = &tables->conditions[i];
        if (condition->flags > (BY_PATH | BY_ADDRESS | BY_OTHER) ||
            !within(condition->first, condition->count, count_of(tables, TESTS)))
            return false;
    }
    for (uint32_t i = 0; i < count_of(tables, TESTS); i++) {
        const struct test *test = &tables->tests[i];
        uint32_t most = test->family == FAMILY_IPV4 ? 32 : test->family == FAMILY_IPV6 ? 128 : 0;
        if ((most == 0 && test->family > FAMILY_NAME) || test->prefix > most ||
            !within(test->first, test->count, count_of(tables, RANGES)))
            return false;
    }
    return count_of(tables, LAYERS) > 0 && entries == count_of(tables, ENTRIES) &&
           conditions == count_of(tables, CONDITIONS);
}

static int copy_sections(struct rs_tables *tables, const char *blob, size_t size)
{
    struct header header;
    if (size < sizeof header)
        return -EINVAL;
    memcpy(&header, blob, sizeof header);
    if (header.magic != MAGIC || header.version != VERSION || header.size != size)
        return -EINVAL;
    uint64_t total = sizeof header;
    for (int section = 0; section < SECTIONS; section++) {
        if (header.count[section] > LIMIT)
            return -EINVAL;
        total += (uint64_t)header.count[section] * RECORD[section];
    }
    if (total != size)
        return -EINVAL;
    tables->header = malloc(size);
    if (tables->header == NULL)
        return -ENOMEM;
    memcpy(tables->header, blob, size);
    const void *at[SECTIONS];
    const char *end = (const char *)tables->header + sizeof header;
    for (int section = 0; section < SECTIONS; section++) {
        at[section] = end;
        end += header.count[section] * RECORD[section];
    }
    tables->literals = at[LITERALS];
    tables->wildcards = at[WILDCARDS];
    tables->items = at[ITEMS];
    tables->bitmaps = at[BITMAPS];
    tables->nodes = at[NODES];
    tables->edges = at[EDGES];
    tables->accepts = at[ACCEPTS];
    tables->layers = at[LAYERS];
    tables->entries = at[ENTRIES];
    tables->conditions = at[CONDITIONS];
    tables->tests = at[TESTS];
    tables->ranges = at[RANGES];
    tables->text = at[TEXT];
    return 0;
}

static int make_chains(struct chains *chains, uint32_t count)
{
    uint32_t size = 4;
    while (size < count + count / 2)
        size *= 2;
    chains->mask = size - 1;
    chains->heads = calloc(size, sizeof *chains->heads);
    chains->next = calloc((size_t)count + 1, sizeof *chains->next);
    return chains->heads == NULL || chains->next == NULL ? -ENOMEM : 0;
}

static void add_to_chain(struct chains *chains, uint32_t hash, uint32_t place)
{
    chains->next[place] = chains->heads[hash & chains->mask];
    chains->heads[hash & chains->mask] = place + 1;
}

static void free_chains(struct chains *chains)
{
    free(chains->heads);
    free(chains->next);
}

static struct affix_key affix_of(const struct rs_tables *tables, const struct wildcard *wildcard)
{
    const uint32_t *items = tables->items + wildcard->first;
    struct affix_key prefix = {.hash = HASH_SEED, .kind = PREFIX};
    struct affix_key suffix = {.hash = HASH_SEED, .kind = SUFFIX};
    for (uint32_t i = 0; i < wildcard->count && prefix.length < AFFIX_MAX && items[i] >> 24 == ITEM_BYTE; i++) {
        prefix.hash = hash_byte(prefix.hash, (unsigned char)items[i]);
        prefix.length++;
    }
    for (uint32_t i = wildcard->count; i > 0 && suffix.length < AFFIX_MAX && items[i - 1] >> 24 == ITEM_BYTE; i--) {
        suffix.hash = hash_byte(suffix.hash, (unsigned char)items[i - 1]);
        suffix.length++;
    }
    return suffix.length > prefix.length ? suffix : prefix;
}

static int index_symbols(struct rs_tables *tables)
{
    uint32_t literals = count_of(tables, LITERALS);
    uint32_t wildcards = count_of(tables, WILDCARDS);
    uint32_t edges = count_of(tables, EDGES);
    tables->affixes = calloc((size_t)wildcards + 1, sizeof *tables->affixes);
    if (tables->affixes == NULL || make_chains(&tables->by_literal, literals) != 0 ||
        make_chains(&tables->by_affix, wildcards) != 0 || make_chains(&tables->by_edge, edges) != 0)
        return -ENOMEM;
    for (uint32_t i = 0; i < literals; i++) {
        uint32_t hash = HASH_SEED;
        for (uint32_t k = 0; k < tables->literals[i].length; k++)
            hash = hash_byte(hash, tables->text[tables->literals[i].first + k]);
        add_to_chain(&tables->by_literal, hash, i);
    }
    for (uint32_t i = 0; i < wildcards; i++) {
        struct affix_key key = affix_of(tables, &tables->wildcards[i]);
        tables->affixes[i] = key;
        tables->affix_lengths[key.kind][key.length / 64] |= 1ULL << key.length % 64;
        if (key.length >= tables->affix_longest[key.kind])
            tables->affix_longest[key.kind] = (size_t)key.length + 1;
        add_to_chain(&tables->by_affix, hash_two(key.hash, key.kind), i);
    }
    for (uint32_t i = 0; i < edges; i++)
        add_to_chain(&tables->by_edge, hash_two(tables->edges[i].from, tables->edges[i].symbol), i);
    return 0;
}

/* Whether an entry is looked at for this operation whatever the path. */
static bool is_listed(const struct rs_tables *tables, uint32_t entry, int operation)
{
    if ((tables->entries[entry].operations >> operation & 1) == 0)
        return false;
    return operation >= FILE_OPERATIONS || (tables->conditions[tables->places[entry].first].flags & BY_PATH) == 0;
}

static int index_rules(struct rs_tables *tables)
{
    uint32_t entries = count_of(tables, ENTRIES);
    uint32_t layers = count_of(tables, LAYERS);
    tables->places = calloc((size_t)entries + 1, sizeof *tables->places);
    tables->entry_of = calloc((size_t)count_of(tables, CONDITIONS) + 1, sizeof *tables->entry_of);
    tables->listed_first = calloc((size_t)layers * OPERATIONS + 1, sizeof *tables->listed_first);
    tables->listed = calloc((size_t)entries * OPERATIONS + 1, sizeof *tables->listed);
    if (tables->places == NULL || tables->entry_of == NULL || tables->listed_first == NULL || tables->listed == NULL)
        return -ENOMEM;
    uint32_t condition = 0;
    for (uint32_t i = 0; i < entries; i++) {
        tables->places[i].first = condition;
        for (uint32_t k = 0; k < tables->entries[i].conditions; k++)
            tables->entry_of[condition++] = i;
        tables->places[i].conditions_end = condition;
    }
    uint32_t used = 0;
    uint32_t first = 0;
    for (uint32_t i = 0; i < layers; i++) {
        for (int operation = 0; operation < OPERATIONS; operation++) {
            tables->listed_first[i * OPERATIONS + (uint32_t)operation] = used;
            for (uint32_t k = first; k < first + tables->layers[i].entries; k++) {
                if (is_listed(tables, k, operation))
                    tables->listed[used++] = k;
            }
        }
        first += tables->layers[i].entries;
    }
    tables->listed_first[layers * OPERATIONS] = used;
    return 0;
}

int rs_tables_load(const char *blob, size_t size, uint64_t serial, struct rs_tables **out)
{
    *out = NULL;
    struct rs_tables *tables = calloc(1, sizeof *tables);
    if (tables == NULL)
        return -ENOMEM;
    tables->serial = serial;
    int error = copy_sections(tables, blob, size);
    if (error == 0 && !(check_patterns(tables) && check_rules(tables)))
        error = -EINVAL;
    if (error == 0)
        error = index_symbols(tables);
    if (error == 0)
        error = index_rules(tables);
    if (error != 0) {
        rs_tables_free(tables);
        return error;
    }
    *out = tables;
    return 0;
}

void rs_tables_free(struct rs_tables *tables)
{
    if (tables == NULL)
        return;
    free_chains(&tables->by_literal);
    free_chains(&tables->by_affix);
    free_chains(&tables->by_edge);
    free(tables->affixes);
    free(tables->places);
    free(tables->entry_of);
    free(tables->listed);
    free(tables->listed_first);
    free(tables->header);
    free(tables);
}

uint64_t rs_tables_serial(const struct rs_tables *tables)
{
    return tables->serial;
}

/* ---- Sets of numbers: symbols, nodes, conditions ---- */

struct set {
    uint32_t *of;
    size_t count, room;
};

static int add(struct set *set, uint32_t value)
{
    if (set->count == set->room) {
        size_t room = set->room == 0 ? 64 : 2 * set->room;
        uint32_t *grown = realloc(set->of, room * sizeof *grown);
        if (grown == NULL)
            return -ENOMEM;
        set->of = grown;
        set->room = room;
    }
    set->of[set->count++] = value;
    return 0;
}

static int compare(const void *one, const void *two)
{
    uint32_t left = *(const uint32_t *)one;
    uint32_t right = *(const uint32_t *)two;
    return (left > right) - (left < right);
}

/* Put a set in order, each member once: equal sets look equal. */
static void settle(struct set *set)
{
    if (set->count < 2)
        return;
    if (set->count > 16)
        qsort(set->of, set->count, sizeof *set->of, compare);
    for (size_t i = 1; set->count <= 16 && i < set->count; i++) {
        uint32_t value = set->of[i];
        size_t k = i;
        for (; k > 0 && set->of[k - 1] > value; k--)
            set->of[k] = set->of[k - 1];
        set->of[k] = value;
    }
    size_t kept = 1;
    for (size_t i = 1; i < set->count; i++) {
        if (set->of[i] != set->of[kept - 1])
            set->of[kept++] = set->of[i];
    }
    set->count = kept;
}

static bool contains(const struct set *set, uint32_t value)
{
    size_t low = 0;
    size_t high = set->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (set->of[middle] < value)
            low = middle + 1;
        else
            high = middle;
    }
    return low < set->count && set->of[low] == value;
}

/* ---- Components ---- */

static bool accepts(const struct rs_tables *tables, uint32_t item, unsigned char byte)
{
    uint32_t value = item & 0xffffff;
    switch (item >> 24) {
    case ITEM_BYTE:
        return value == byte;
    case ITEM_SET:
        return (tables->bitmaps[value].bits[byte / 32] >> byte % 32 & 1) != 0;
    default:
        return true;
    }
}

/* A star is tried with more bytes only at the last one passed: what lies before it has found its first place. */
static bool matches(const struct rs_tables *tables, const struct wildcard *wildcard, const unsigned char *name,
                    size_t length)
{
    const uint32_t *items = tables->items + wildcard->first;
    uint32_t item = 0;
    size_t at = 0;
    uint32_t behind_star = 0;
    size_t star_end = 0;
    while (at < length) {
        if (item < wildcard->count && items[item] >> 24 == ITEM_STAR) {
            behind_star = ++item;
            star_end = at;
        } else if (item < wildcard->count && accepts(tables, items[item], name[at])) {
            item++;
            at++;
        } else if (behind_star != 0) {
            item = behind_star;
            at = ++star_end;
        } else {
            return false;
        }
    }
    while (item < wildcard->count && items[item] >> 24 == ITEM_STAR)
        item++;
    return item == wildcard->count;
}

static int add_wildcards(const struct rs_tables *tables, enum affix kind, const unsigned char *name, size_t length,
                         struct set *symbols)
{
    uint32_t hash = HASH_SEED;
    for (size_t affix = 0; affix < tables->affix_longest[kind] && affix <= length; affix++) {
        if (affix > 0)
            hash = hash_byte(hash, kind == PREFIX ? name[affix - 1] : name[length - affix]);
        if ((tables->affix_lengths[kind][affix / 64] >> affix % 64 & 1) == 0)
            continue;
        uint32_t bucket = hash_two(hash, kind) & tables->by_affix.mask;
        for (uint32_t found = tables->by_affix.heads[bucket]; found != 0; found = tables->by_affix.next[found - 1]) {
            const struct affix_key *key = &tables->affixes[found - 1];
            if (key->hash == hash && key->kind == kind && key->length == affix &&
                matches(tables, &tables->wildcards[found - 1], name, length) &&
                add(symbols, count_of(tables, LITERALS) + found - 1) != 0)
                return -ENOMEM;
        }
    }
    return 0;
}

/* Give the class of a component: the symbols that match it. */
static int classify(const struct rs_tables *tables, const unsigned char *name, size_t length, uint32_t hash,
                    struct set *symbols)
{
    symbols->count = 0;
    uint32_t bucket = hash & tables->by_literal.mask;
    for (uint32_t found = tables->by_literal.heads[bucket]; found != 0; found = tables->by_literal.next[found - 1]) {
        const struct literal *literal = &tables->literals[found - 1];
        if (literal->length == length && memcmp(tables->text + literal->first, name, length) == 0 &&
            add(symbols, found - 1) != 0)
            return -ENOMEM;
    }
    int error = add_wildcards(tables, PREFIX, name, length, symbols);
    if (error == 0)
        error = add_wildcards(tables, SUFFIX, name, length, symbols);
    settle(symbols);
    return error;
}

/* ---- States ---- */

/* Add a node, and those behind a `**` that may match nothing. */
static int reach(const struct rs_tables *tables, uint32_t node, struct set *nodes)
{
    do {
        if (add(nodes, node) != 0)
            return -ENOMEM;
        node = tables->nodes[node].any;
    } while (node != 0);
    return 0;
}

static int start(const struct rs_tables *tables, struct set *nodes)
{
    nodes->count = 0;
    int error = reach(tables, 0, nodes);
    settle(nodes);
    return error;
}

static int step(const struct rs_tables *tables, const uint32_t *nodes, size_t count, const uint32_t *symbols,
                size_t symbol_count, struct set *next)
{
    next->count = 0;
    for (size_t i = 0; i < count; i++) {
        if (tables->nodes[nodes[i]].loop != 0 && reach(tables, nodes[i], next) != 0)
            return -ENOMEM;
        for (size_t k = 0; k < symbol_count; k++) {
            uint32_t bucket = hash_two(nodes[i], symbols[k]) & tables->by_edge.mask;
            for (uint32_t found = tables->by_edge.heads[bucket]; found != 0; found = tables->by_edge.next[found - 1]) {
                const struct edge *edge = &tables->edges[found - 1];
                if (edge->from == nodes[i] && edge->symbol == symbols[k] && reach(tables, edge->to, next) != 0)
                    return -ENOMEM;
            }
        }
    }
    settle(next);
    return 0;
}

/* Give the conditions whose paths are matched in a state. */
static int accepted_by(const struct rs_tables *tables, const uint32_t *nodes, size_t count, struct set *accepted)
{
    accepted->count = 0;
    for (size_t i = 0; i < count; i++) {
        const struct node *node = &tables->nodes[nodes[i]];
        for (uint32_t k = 0; k < node->count; k++) {
            if (add(accepted, tables->accepts[node->first + k]) != 0)
                return -ENOMEM;
        }
    }
    settle(accepted);
    return 0;
}

/* ---- Rules ---- */

enum truth { NO, MAYBE, YES };

/* What is judged: a path by the conditions that it matches, or an address. */
struct subject {
    uint32_t operation;
    const struct set *accepted; /* NULL for an address */
    uint32_t family;
    unsigned char address[16];
    bool unspecified;
    uint32_t port;
};

static bool has_port(const struct rs_tables *tables, const struct test *test, uint32_t port, bool strict)
{
    /* Ports that the kernel gives out for port 0 (ip(7), ip_local_port_range). */
    static const struct range ephemeral = {32768, 60999};
    if (test->count == 0)
        return true;
    for (uint32_t i = 0; i < test->count; i++) {
        const struct range *range = &tables->ranges[test->first + i];
        if (range->low <= port && port <= range->high)
            return true;
        if (strict && port == 0 && range->low <= ephemeral.high && range->high >= ephemeral.low)
            return true;
    }
    return false;
}

static bool in_network(const struct test *test, const unsigned char *address)
{
    uint32_t whole = test->prefix / 8;
    uint32_t rest = test->prefix % 8;
    if (memcmp(test->address, address, whole) != 0)
        return false;
    return rest == 0 || (test->address[whole] ^ address[whole]) >> (8 - rest) == 0;
}

static enum truth holds_connect(const struct rs_tables *tables, const struct test *test,
                                const struct subject *subject)
{
    static const unsigned char loopback[2][16] = {{127, 0, 0, 1}, {[15] = 1}};
    if (!has_port(tables, test, subject->port, false))
        return NO;
    if (test->family == FAMILY_NAME)
        return MAYBE;
    if (test->family != subject->family)
        return test->family == FAMILY_ANY ? YES : NO;
    /* Connecting to the unspecified address reaches the loopback address: both are judged. */
    return in_network(test, subject->address) ||
                   (subject->unspecified && in_network(test, loopback[subject->family == FAMILY_IPV6]))
               ? YES
               : NO;
}

static enum truth holds_listen(const struct rs_tables *tables, const struct test *test, const struct subject *subject,
                               bool strict)
{
    if (!has_port(tables, test, subject->port, strict))
        return NO;
    if (test->family == FAMILY_NAME)
        return MAYBE;
    if (test->family == FAMILY_ANY)
        return YES;
    if (test->family == subject->family && in_network(test, subject->address))
        return YES;
    /* The unspecified address counts as each one that it includes, where that restricts. */
    return strict && subject->unspecified && (subject->family == FAMILY_IPV6 || test->family == FAMILY_IPV4) ? YES
                                                                                                             : NO;
}

static enum truth hold(const struct rs_tables *tables, uint32_t number, const struct subject *subject, bool strict)
{
    const struct condition *condition = &tables->conditions[number];
    enum truth truth = YES;
    if ((condition->flags & BY_PATH) != 0 && (subject->accepted == NULL || !contains(subject->accepted, number)))
        return NO;
    if ((condition->flags & BY_ADDRESS) != 0) {
        if (subject->accepted != NULL)
            return MAYBE;
        truth = NO;
        for (uint32_t i = 0; i < condition->count && truth != YES; i++) {
            const struct test *test = &tables->tests[condition->first + i];
            enum truth found = subject->operation == RS_CONNECT ? holds_connect(tables, test, subject)
                                                                : holds_listen(tables, test, subject, strict);
            if (found > truth)
                truth = found;
        }
    }
    return truth == YES && (condition->flags & BY_OTHER) != 0 ? MAYBE : truth;
}

static enum truth speaks(const struct rs_tables *tables, uint32_t number, const struct subject *subject)
{
    uint32_t level = tables->entries[number].level;
    bool strict = level == LEVEL_ASK || level == LEVEL_DENY;
    struct place place = tables->places[number];
    enum truth truth = hold(tables, place.first, subject, strict);
    for (uint32_t i = place.first + 1; i < place.conditions_end && truth != NO; i++) {
        enum truth excepted = hold(tables, i, subject, !strict);
        if (excepted != NO)
            truth = excepted == YES ? NO : MAYBE;
    }
    return truth;
}

/* A possible decision in one number: error, log, whether it is the default, whether a rule made it, level. */
enum { LOGS = 1 << 16, YIELDS = 1 << 17, RANK = 24, BY_RULE = 1 << RANK, LEVEL = RANK + 1 };
enum { POSSIBLE = 8 };

struct possible {
    size_t count;
    bool more; /* than are kept */
    uint32_t of[POSSIBLE];
};

static void may_be(struct possible *possible, uint32_t decision)
{
    for (size_t i = 0; i < possible->count; i++) {
        if (possible->of[i] == decision)
            return;
    }
    if (possible->count < POSSIBLE)
        possible->of[possible->count++] = decision;
    else
        possible->more = true;
}

static uint32_t decided(uint32_t level, uint32_t operation, uint32_t error)
{
    uint32_t usual = operation == RS_CONNECT ? ECONNREFUSED : EACCES;
    return level << LEVEL | (error != 0 ? error : usual);
}

static uint32_t decided_by(const struct entry *entry, uint32_t operation)
{
    return decided(entry->level, operation, entry->error) | ((entry->flags & ENTRY_LOGS) != 0 ? LOGS : 0) |
           ((entry->flags & ENTRY_RULE) != 0 ? BY_RULE : 0);
}

/* The entries of one layer that may speak, in their order: those listed, and those whose paths match. */
struct cursor {
    const uint32_t *listed, *listed_end;
    size_t accepted; /* next of the subject's */
    uint32_t end;    /* of the layer's entries */
};

enum { NONE = UINT32_MAX };

static uint32_t next_entry(const struct rs_tables *tables, const struct subject *subject, struct cursor *cursor)
{
    uint32_t matched = NONE;
    while (subject->accepted != NULL && cursor->accepted < subject->accepted->count) {
        uint32_t condition = subject->accepted->of[cursor->accepted];
        uint32_t entry = tables->entry_of[condition];
        if (entry >= cursor->end)
            break;
        if (condition == tables->places[entry].first && (tables->entries[entry].operations >> subject->operation & 1)) {
            matched = entry;
            break;
        }
        cursor->accepted++;
    }
    uint32_t listed = cursor->listed < cursor->listed_end ? *cursor->listed : NONE;
    if (listed <= matched) {
        cursor->listed += listed != NONE;
        cursor->accepted += listed == matched && listed != NONE;
        return listed;
    }
    cursor->accepted++;
    return matched;
}

static void judge_layer(const struct rs_tables *tables, uint32_t layer, const struct subject *subject,
                        struct cursor *cursor, struct possible *out)
{
    struct possible said = {0};
    enum truth done = NO;
    enum truth granted = NO;
    enum truth resolver = NO;
    for (uint32_t found; (found = next_entry(tables, subject, cursor)) != NONE;) {
        const struct entry *entry = &tables->entries[found];
        if (entry->level <= LEVEL_DENY && done == YES)
            continue;
        enum truth truth = speaks(tables, found, subject);
        enum truth *told = entry->level == LEVEL_GRANT ? &granted : entry->level == LEVEL_RESOLVER ? &resolver : &done;
        if (truth > *told)
            *told = truth;
        if (told == &done && truth != NO)
            may_be(&said, decided_by(entry, subject->operation));
    }
    if (done != YES) {
        uint32_t level = tables->layers[layer].defaults[subject->operation];
        if (level == LEVEL_DENY && resolver != NO)
            may_be(&said, decided(LEVEL_ALLOW, subject->operation, 0));
        if (level != LEVEL_DENY || resolver != YES)
            may_be(&said, decided(level, subject->operation, 0) | YIELDS);
    }
    out->count = 0;
    out->more = said.more;
    for (size_t i = 0; i < said.count; i++) {
        uint32_t level = said.of[i] >> LEVEL;
        bool grantable = level == LEVEL_ASK || (level == LEVEL_DENY && (said.of[i] & YIELDS) != 0);
        if (grantable && granted != NO)
            may_be(out, decided(LEVEL_ALLOW, subject->operation, 0));
        if (!grantable || granted != YES)
            may_be(out, said.of[i] & ~(uint32_t)YIELDS);
    }
}

/* The strictest of what the layers say; of those that are equally strict the first one with a rule, else the first. */
static void combine(struct possible *all, const struct possible *layer)
{
    struct possible both = {.more = all->more || layer->more};
    for (size_t i = 0; i < all->count; i++) {
        for (size_t k = 0; k < layer->count; k++)
            may_be(&both, layer->of[k] >> RANK > all->of[i] >> RANK ? layer->of[k] : all->of[i]);
    }
    *all = both;
}

/* A verdict in one number that is not 0. */
enum { ANSWER = 24 };
static const uint32_t KNOWN = 1U << 31;

static uint32_t verdict_of(uint32_t decision)
{
    switch (decision >> LEVEL) {
    case LEVEL_ALLOW:
        return KNOWN | RS_ALLOW << ANSWER | (decision & LOGS);
    case LEVEL_DENY:
        /* Denials are always recorded. */
        return KNOWN | RS_DENY << ANSWER | LOGS | (decision & 0xffff);
    default:
        return KNOWN | RS_UNDECIDED << ANSWER;
    }
}

static uint32_t judge(const struct rs_tables *tables, const struct subject *subject)
{
    struct possible all = {0};
    struct cursor cursor = {0};
    for (uint32_t layer = 0; layer < count_of(tables, LAYERS); layer++) {
        struct possible said;
        const uint32_t *first = tables->listed_first + layer * OPERATIONS + subject->operation;
        cursor.listed = tables->listed + first[0];
        cursor.listed_end = tables->listed + first[1];
        cursor.end += tables->layers[layer].entries;
        judge_layer(tables, layer, subject, &cursor, &said);
        if (layer == 0)
            all = said;
        else
            combine(&all, &said);
    }
    uint32_t verdict = verdict_of(all.of[0]);
    for (size_t i = 1; i < all.count; i++) {
        if (verdict_of(all.of[i]) != verdict)
            all.more = true;
    }
    return all.more ? KNOWN | RS_UNDECIDED << ANSWER : verdict;
}

static void unpack(uint32_t verdict, struct rs_verdict *out)
{
    out->answer = (enum rs_answer)(verdict >> ANSWER & 3);
    out->error = (int)(verdict & 0xffff);
    out->log = (verdict & LOGS) != 0;
}

int rs_decide_address(const struct rs_tables *tables, enum rs_operation operation, const unsigned char *address,
                      size_t length, unsigned port, struct rs_verdict *out)
{
    static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
    static const unsigned char unspecified[16] = {0};
    *out = (struct rs_verdict){0};
    if ((operation != RS_CONNECT && operation != RS_LISTEN) || (length != 4 && length != 16) || port > 65535)
        return -EINVAL;
    if (length == 16 && memcmp(address, mapped, sizeof mapped) == 0) {
        address += sizeof mapped;
        length = 4;
    }
    struct subject subject = {
        .operation = operation,
        .family = length == 4 ? FAMILY_IPV4 : FAMILY_IPV6,
        .unspecified = memcmp(address, unspecified, length) == 0,
        .port = port,
    };
    memcpy(subject.address, address, length);
    unpack(judge(tables, &subject), out);
    return 0;
}

/* ---- The walker ---- */

enum { REMEMBERED_NAME = 55 };

struct name {
    uint32_t class;
    uint32_t hash;
    uint8_t length;
    char text[REMEMBERED_NAME];
};
_Static_assert(sizeof(struct name) == 64, "a cache line each");

struct transition {
    uint32_t state, class, next;
};

/* A set as it is kept in the pool; its place there is its number. As a state it has verdicts, too. */
struct kept {
    uint32_t hash, count;
    uint32_t verdicts[FILE_OPERATIONS];
    uint32_t of[];
};

enum { KEPT_WORDS = sizeof(struct kept) / sizeof(uint32_t), FIRST_PLACE = 1 };

struct rs_walker {
    const struct rs_tables *tables;
    uint64_t serial;
    struct name *names; /* one for each place: a new name takes the place of an old one */
    struct transition *transitions;
    uint32_t *index; /* of the pool */
    uint32_t *pool;
    size_t names_size, transitions_size, index_size, pool_size;
    size_t transitions_used, index_used, pool_used;
    uint32_t root;
    struct set symbols, nodes, next, accepted;
};

static size_t power_of_two(size_t most)
{
    size_t size = 4;
    while (size <= most / 2)
        size *= 2;
    return size;
}

int rs_walker_new(size_t memory, struct rs_walker **out)
{
    *out = NULL;
    if (memory > LIMIT)
        memory = LIMIT;
    struct rs_walker *walker = calloc(1, sizeof *walker);
    if (walker == NULL)
        return -ENOMEM;
    walker->names_size = power_of_two(memory / 4 / sizeof *walker->names);
    walker->transitions_size = power_of_two(memory / 4 / sizeof *walker->transitions);
    walker->index_size = power_of_two(memory / 8 / sizeof *walker->index);
    walker->pool_size = memory / 4 / sizeof *walker->pool + FIRST_PLACE;
    walker->names = calloc(walker->names_size, sizeof *walker->names);
    walker->transitions = calloc(walker->transitions_size, sizeof *walker->transitions);
    walker->index = calloc(walker->index_size, sizeof *walker->index);
    walker->pool = calloc(walker->pool_size, sizeof *walker->pool);
    walker->pool_used = FIRST_PLACE;
    if (walker->names == NULL || walker->transitions == NULL || walker->index == NULL || walker->pool == NULL) {
        rs_walker_free(walker);
        return -ENOMEM;
    }
    *out = walker;
    return 0;
}

void rs_walker_free(struct rs_walker *walker)
{
    if (walker == NULL)
        return;
    free(walker->names);
    free(walker->transitions);
    free(walker->index);
    free(walker->pool);
    free(walker->symbols.of);
    free(walker->nodes.of);
    free(walker->next.of);
    free(walker->accepted.of);
    free(walker);
}

static void forget(struct rs_walker *walker)
{
    memset(walker->names, 0, walker->names_size * sizeof *walker->names);
    memset(walker->transitions, 0, walker->transitions_size * sizeof *walker->transitions);
    memset(walker->index, 0, walker->index_size * sizeof *walker->index);
    walker->transitions_used = 0;
    walker->index_used = 0;
    walker->pool_used = FIRST_PLACE;
    walker->root = 0;
}

static struct kept *kept_at(struct rs_walker *walker, uint32_t place)
{
    return (struct kept *)(walker->pool + place);
}

/* Give the number of a set, new or known; -ENOSPC if it does not fit. */
static int keep(struct rs_walker *walker, const struct set *set, uint32_t *out)
{
    uint32_t hash = (uint32_t)set->count;
    for (size_t i = 0; i < set->count; i++)
        hash = hash_two(hash, set->of[i]);
    size_t at = hash & (walker->index_size - 1);
    for (; walker->index[at] != 0; at = (at + 1) & (walker->index_size - 1)) {
        const struct kept *known = kept_at(walker, walker->index[at]);
        if (known->hash == hash && known->count == set->count &&
            (set->count == 0 || memcmp(known->of, set->of, set->count * sizeof *set->of) == 0)) {
            *out = walker->index[at];
            return 0;
        }
    }
    if (KEPT_WORDS + set->count > walker->pool_size - walker->pool_used ||
        walker->index_used >= walker->index_size / 4 * 3)
        return -ENOSPC;
    struct kept *kept = kept_at(walker, (uint32_t)walker->pool_used);
    memset(kept, 0, sizeof *kept);
    kept->hash = hash;
    kept->count = (uint32_t)set->count;
    if (set->count > 0)
        memcpy(kept->of, set->of, set->count * sizeof *set->of);
    *out = walker->index[at] = (uint32_t)walker->pool_used;
    walker->index_used++;
    walker->pool_used += KEPT_WORDS + set->count;
    return 0;
}

static int class_of(struct rs_walker *walker, const unsigned char *name, size_t length, uint32_t hash, uint32_t *out)
{
    struct name *known = &walker->names[hash & (walker->names_size - 1)];
    if (known->class != 0 && known->hash == hash && known->length == length &&
        memcmp(known->text, name, length) == 0) {
        *out = known->class;
        return 0;
    }
    int error = classify(walker->tables, name, length, hash, &walker->symbols);
    if (error == 0)
        error = keep(walker, &walker->symbols, out);
    if (error == 0 && length <= REMEMBERED_NAME) {
        *known = (struct name){.class = *out, .hash = hash, .length = (uint8_t)length};
        memcpy(known->text, name, length);
    }
    return error;
}

static int next_state(struct rs_walker *walker, uint32_t *state, uint32_t class)
{
    size_t mask = walker->transitions_size - 1;
    size_t at = hash_two(*state, class) & mask;
    for (; walker->transitions[at].state != 0; at = (at + 1) & mask) {
        if (walker->transitions[at].state == *state && walker->transitions[at].class == class) {
            *state = walker->transitions[at].next;
            return 0;
        }
    }
    if (walker->transitions_used >= walker->transitions_size / 4 * 3)
        return -ENOSPC;
    const struct kept *from = kept_at(walker, *state);
    const struct kept *with = kept_at(walker, class);
    uint32_t next;
    int error = step(walker->tables, from->of, from->count, with->of, with->count, &walker->next);
    if (error == 0)
        error = keep(walker, &walker->next, &next);
    if (error != 0)
        return error;
    walker->transitions[at] = (struct transition){.state = *state, .class = class, .next = next};
    walker->transitions_used++;
    *state = next;
    return 0;
}

static int judge_nodes(struct rs_walker *walker, enum rs_operation operation, const uint32_t *nodes, size_t count,
                       uint32_t *verdict)
{
    int error = accepted_by(walker->tables, nodes, count, &walker->accepted);
    if (error != 0)
        return error;
    struct subject subject = {.operation = operation, .accepted = &walker->accepted};
    *verdict = judge(walker->tables, &subject);
    return 0;
}

/* Read the next component that has a name; *hash is its own. Gives its length, 0 at the end. */
static size_t next_name(const unsigned char **at, const unsigned char *end, uint32_t *hash)
{
    while (*at < end && **at == '/')
        ++*at;
    uint32_t found = HASH_SEED;
    const unsigned char *name = *at;
    while (*at < end && **at != '/')
        found = hash_byte(found, *(*at)++);
    *hash = found;
    return (size_t)(*at - name);
}

/* Walk with what is remembered; -ENOSPC if something new does not fit. */
static int walk_kept(struct rs_walker *walker, enum rs_operation operation, const unsigned char *path,
                     const unsigned char *end, uint32_t *verdict)
{
    if (walker->root == 0) {
        int error = start(walker->tables, &walker->nodes);
        if (error == 0)
            error = keep(walker, &walker->nodes, &walker->root);
        if (error != 0)
            return error;
    }
    uint32_t state = walker->root;
    uint32_t hash;
    for (size_t length; (length = next_name(&path, end, &hash)) > 0;) {
        uint32_t class;
        int error = class_of(walker, path - length, length, hash, &class);
        if (error == 0)
            error = next_state(walker, &state, class);
        if (error != 0)
            return error;
    }
    struct kept *kept = kept_at(walker, state);
    if (kept->verdicts[operation] == 0) {
        int error = judge_nodes(walker, operation, kept->of, kept->count, &kept->verdicts[operation]);
        if (error != 0)
            return error;
    }
    *verdict = kept->verdicts[operation];
    return 0;
}

/* Walk without remembering: what a path needs at once may be more than the walker may keep. */
static int walk_plain(struct rs_walker *walker, enum rs_operation operation, const unsigned char *path,
                      const unsigned char *end, uint32_t *verdict)
{
    int error = start(walker->tables, &walker->nodes);
    uint32_t hash;
    for (size_t length; error == 0 && (length = next_name(&path, end, &hash)) > 0;) {
        error = classify(walker->tables, path - length, length, hash, &walker->symbols);
        if (error == 0)
            error = step(walker->tables, walker->nodes.of, walker->nodes.count, walker->symbols.of,
                         walker->symbols.count, &walker->next);
        struct set reached = walker->next;
        walker->next = walker->nodes;
        walker->nodes = reached;
    }
    return error != 0 ? error
                      : judge_nodes(walker, operation, walker->nodes.of, walker->nodes.count, verdict);
}

int rs_decide_path(const struct rs_tables *tables, struct rs_walker *walker, enum rs_operation operation,
                   const char *path, size_t length, struct rs_verdict *out)
{
    *out = (struct rs_verdict){0};
    if ((unsigned)operation >= FILE_OPERATIONS || length == 0 || path[0] != '/')
        return -EINVAL;
    const unsigned char *first = (const unsigned char *)path;
    if (walker->tables != tables || walker->serial != tables->serial) {
        forget(walker);
        walker->tables = tables;
        walker->serial = tables->serial;
    }
    uint32_t verdict = 0;
    int error = walk_kept(walker, operation, first, first + length, &verdict);
    if (error == -ENOSPC) {
        forget(walker);
        error = walk_kept(walker, operation, first, first + length, &verdict);
    }
    if (error == -ENOSPC) {
        forget(walker);
        error = walk_plain(walker, operation, first, first + length, &verdict);
    }
    if (error == 0)
        unpack(verdict, out);
    return error;
}
