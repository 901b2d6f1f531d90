/* Tables: what policy/tables.py wrote, checked once and read from then on. */
#include "compiled.h"

static const size_t RECORD[SECTIONS] = {
    [LITERALS] = sizeof(struct literal),
    [WILDCARDS] = sizeof(struct wildcard),
    [ITEMS] = sizeof(uint32_t),
    [BITMAPS] = sizeof(struct bitmap),
    [NODES] = sizeof(struct node),
    [EDGES] = sizeof(struct edge),
    [ACCEPTS] = sizeof(uint32_t),
    [LAYERS] = sizeof(struct layer),
    [ENTRIES] = sizeof(struct entry),
    [CONDITIONS] = sizeof(struct condition),
    [TESTS] = sizeof(struct test),
    [RANGES] = sizeof(struct range),
    [TEXT] = 1,
};

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
        if (entry->operations >> OPERATIONS != 0 || entry->level > LEVEL_QUESTION ||
            entry->error > ERROR_MAX || entry->flags > (ENTRY_LOGS | ENTRY_RULE) || entry->conditions == 0)
            return false;
    }
    for (uint32_t i = 0; i < count_of(tables, CONDITIONS); i++) {
        const struct condition *condition = &tables->conditions[i];
        if (condition->flags > FLAGS ||
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
    for (uint32_t i = 0; i < wildcard->count && prefix.length < AFFIX_MAX && items[i] >> 24 == ITEM_BYTE;
         i++) {
        prefix.hash = hash_byte(prefix.hash, (unsigned char)items[i]);
        prefix.length++;
    }
    for (uint32_t i = wildcard->count; i > 0 && suffix.length < AFFIX_MAX && items[i - 1] >> 24 == ITEM_BYTE;
         i--) {
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
    return operation >= FILE_OPERATIONS ||
           (tables->conditions[tables->places[entry].first].flags & BY_PATH) == 0;
}

static int index_rules(struct rs_tables *tables)
{
    uint32_t entries = count_of(tables, ENTRIES);
    uint32_t layers = count_of(tables, LAYERS);
    tables->places = calloc((size_t)entries + 1, sizeof *tables->places);
    tables->entry_of = calloc((size_t)count_of(tables, CONDITIONS) + 1, sizeof *tables->entry_of);
    tables->listed_first = calloc((size_t)layers * OPERATIONS + 1, sizeof *tables->listed_first);
    tables->listed = calloc((size_t)entries * OPERATIONS + 1, sizeof *tables->listed);
    if (tables->places == NULL || tables->entry_of == NULL || tables->listed_first == NULL ||
        tables->listed == NULL)
        return -ENOMEM;
    uint32_t condition = 0;
    for (uint32_t i = 0; i < entries; i++) {
        tables->places[i].first = condition;
        for (uint32_t k = 0; k < tables->entries[i].conditions; k++)
            tables->entry_of[condition++] = i;
        tables->places[i].conditions_end = condition;
    }
    for (uint32_t i = 0; i < entries; i++)
        tables->grants |= tables->entries[i].level == LEVEL_GRANT;
    for (uint32_t i = 0; i < count_of(tables, CONDITIONS); i++)
        tables->variables |= (tables->conditions[i].flags & BY_VARIABLE) != 0;
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
