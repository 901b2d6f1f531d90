/*
 * Deciding about paths, with a memory: the class of a name, the state that a class leads to, the verdict of a
 * state. What does not fit into the memory is worked out again.
 */
#include "compiled.h"

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
    walker->names = rs_pages(walker->names_size * sizeof *walker->names);
    walker->transitions = rs_pages(walker->transitions_size * sizeof *walker->transitions);
    walker->index = rs_pages(walker->index_size * sizeof *walker->index);
    walker->pool = rs_pages(walker->pool_size * sizeof *walker->pool);
    walker->pool_used = FIRST_PLACE;
    if (walker->names == NULL || walker->transitions == NULL || walker->index == NULL ||
        walker->pool == NULL) {
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
    rs_pages_free(walker->names, walker->names_size * sizeof *walker->names);
    rs_pages_free(walker->transitions, walker->transitions_size * sizeof *walker->transitions);
    rs_pages_free(walker->index, walker->index_size * sizeof *walker->index);
    rs_pages_free(walker->pool, walker->pool_size * sizeof *walker->pool);
    free(walker->symbols.of);
    free(walker->nodes.of);
    free(walker->next.of);
    free(walker->accepted.of);
    free(walker);
}

static void forget(struct rs_walker *walker)
{
    /* Whatever is remembered names a set in the pool. A new walker's pages are all zero, and most never used. */
    if (walker->pool_used == FIRST_PLACE)
        return;
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

static int class_of(struct rs_walker *walker, const unsigned char *name, size_t length, uint32_t hash,
                    uint32_t *out)
{
    struct name *known = &walker->names[hash & (walker->names_size - 1)];
    if (known->class != 0 && known->hash == hash && known->length == length &&
        memcmp(known->text, name, length) == 0) {
        *out = known->class;
        return 0;
    }
    int error = rs_classify(walker->tables, name, length, hash, &walker->symbols);
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
    int error = rs_step(walker->tables, from->of, from->count, with->of, with->count, &walker->next);
    if (error == 0)
        error = keep(walker, &walker->next, &next);
    if (error != 0)
        return error;
    walker->transitions[at] = (struct transition){.state = *state, .class = class, .next = next};
    walker->transitions_used++;
    *state = next;
    return 0;
}

static int judge_nodes(struct rs_walker *walker, enum rs_operation operation, const uint32_t *nodes,
                       size_t count, uint32_t *verdict)
{
    int error = rs_accepted(walker->tables, nodes, count, &walker->accepted);
    if (error != 0)
        return error;
    *verdict = rs_judge_path(walker->tables, operation, &walker->accepted);
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
        int error = rs_start(walker->tables, &walker->nodes);
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
    int error = rs_start(walker->tables, &walker->nodes);
    uint32_t hash;
    for (size_t length; error == 0 && (length = next_name(&path, end, &hash)) > 0;) {
        error = rs_classify(walker->tables, path - length, length, hash, &walker->symbols);
        if (error == 0)
            error = rs_step(walker->tables, walker->nodes.of, walker->nodes.count, walker->symbols.of,
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
        rs_unpack(verdict, out);
    return error;
}
