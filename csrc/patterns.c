/*
 * Which patterns a path matches.
 *
 * A path is read component by component. A component is first put into its class: the set of symbols
 * (literals and wildcards of the patterns) that match it. The patterns share their beginnings in one tree; a
 * state is the set of its nodes that the components read so far lead to, and the class of the next component
 * gives the next state.
 */
#include "compiled.h"

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

/* A star is tried with more bytes only at the last one passed: what lies before it has found its first place.
 */
static bool matches(const struct rs_tables *tables, const struct wildcard *wildcard,
                    const unsigned char *name, size_t length)
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

static int add_wildcards(const struct rs_tables *tables, enum affix kind, const unsigned char *name,
                         size_t length, struct set *symbols)
{
    uint32_t hash = HASH_SEED;
    for (size_t affix = 0; affix < tables->affix_longest[kind] && affix <= length; affix++) {
        if (affix > 0)
            hash = hash_byte(hash, kind == PREFIX ? name[affix - 1] : name[length - affix]);
        if ((tables->affix_lengths[kind][affix / 64] >> affix % 64 & 1) == 0)
            continue;
        uint32_t bucket = hash_two(hash, kind) & tables->by_affix.mask;
        for (uint32_t found = tables->by_affix.heads[bucket]; found != 0;
             found = tables->by_affix.next[found - 1]) {
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
int rs_classify(const struct rs_tables *tables, const unsigned char *name, size_t length, uint32_t hash,
                struct set *symbols)
{
    symbols->count = 0;
    uint32_t bucket = hash & tables->by_literal.mask;
    for (uint32_t found = tables->by_literal.heads[bucket]; found != 0;
         found = tables->by_literal.next[found - 1]) {
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

int rs_start(const struct rs_tables *tables, struct set *nodes)
{
    nodes->count = 0;
    int error = reach(tables, 0, nodes);
    settle(nodes);
    return error;
}

int rs_step(const struct rs_tables *tables, const uint32_t *nodes, size_t count, const uint32_t *symbols,
            size_t symbol_count, struct set *next)
{
    next->count = 0;
    for (size_t i = 0; i < count; i++) {
        if (tables->nodes[nodes[i]].loop != 0 && reach(tables, nodes[i], next) != 0)
            return -ENOMEM;
        for (size_t k = 0; k < symbol_count; k++) {
            uint32_t bucket = hash_two(nodes[i], symbols[k]) & tables->by_edge.mask;
            for (uint32_t found = tables->by_edge.heads[bucket]; found != 0;
                 found = tables->by_edge.next[found - 1]) {
                const struct edge *edge = &tables->edges[found - 1];
                if (edge->from == nodes[i] && edge->symbol == symbols[k] &&
                    reach(tables, edge->to, next) != 0)
                    return -ENOMEM;
            }
        }
    }
    settle(next);
    return 0;
}

/* Give the conditions whose paths are matched in a state. */
int rs_accepted(const struct rs_tables *tables, const uint32_t *nodes, size_t count, struct set *accepted)
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
