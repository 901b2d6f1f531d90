/*
 * Deciding about paths, with a memory: the class of a name, the state that a class leads to, the verdict of a
 * state. What does not fit into the memory is worked out again.
 */
#include "compiled.h"

enum { REMEMBERED_NAME = 55, REMEMBERED_VARIABLES = 16384 };

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
    uint32_t plants; /* as the name of a variable: one of PLANTS_NOT, PLANTS; 0: not known yet */
    uint32_t of[];
};

enum { PLANTS_NOT = 1, PLANTS };

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
    struct started started;
    size_t variables_size; /* of the variables that were last looked at, and what is known of them; 0: nothing */
    int variables_plant;
    char variables[REMEMBERED_VARIABLES];
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
    free(walker->started.path.of);
    free(walker->started.named.of);
    free(walker->started.base.of);
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
    walker->variables_size = 0;
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

/* Follow one more component; -ENOSPC if something new does not fit. */
static int follow(struct rs_walker *walker, uint32_t *state, const unsigned char *name, size_t length, uint32_t hash)
{
    uint32_t class;
    int error = class_of(walker, name, length, hash, &class);
    return error == 0 ? next_state(walker, state, class) : error;
}

/* Walk with what is remembered; -ENOSPC if something new does not fit. */
static int reach_kept(struct rs_walker *walker, const unsigned char *path, const unsigned char *end, uint32_t *state)
{
    if (walker->root == 0) {
        int error = rs_start(walker->tables, &walker->nodes);
        if (error == 0)
            error = keep(walker, &walker->nodes, &walker->root);
        if (error != 0)
            return error;
    }
    *state = walker->root;
    uint32_t hash;
    for (size_t length; (length = next_name(&path, end, &hash)) > 0;) {
        int error = follow(walker, state, path - length, length, hash);
        if (error != 0)
            return error;
    }
    return 0;
}

static int walk_kept(struct rs_walker *walker, enum rs_operation operation, const unsigned char *path,
                     const unsigned char *end, uint32_t *verdict)
{
    uint32_t state;
    int error = reach_kept(walker, path, end, &state);
    if (error != 0)
        return error;
    struct kept *kept = kept_at(walker, state);
    if (kept->verdicts[operation] == 0) {
        error = judge_nodes(walker, operation, kept->of, kept->count, &kept->verdicts[operation]);
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

/* What is remembered holds for one policy. */
static void walk_in(struct rs_walker *walker, const struct rs_tables *tables)
{
    if (walker->tables == tables && walker->serial == tables->serial)
        return;
    forget(walker);
    walker->tables = tables;
    walker->serial = tables->serial;
}

int rs_decide_path(const struct rs_tables *tables, struct rs_walker *walker, enum rs_operation operation,
                   const char *path, size_t length, struct rs_verdict *out)
{
    *out = (struct rs_verdict){0};
    if ((unsigned)operation >= FILE_OPERATIONS || length == 0 || path[0] != '/')
        return -EINVAL;
    const unsigned char *first = (const unsigned char *)path;
    walk_in(walker, tables);
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

/* Whether each of a set, in order, is one of another. */
static int is_part(const struct kept *small, const struct kept *large)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < small->count; i++) {
        while (at < large->count && large->of[at] < small->of[i])
            at++;
        if (at == large->count || large->of[at] != small->of[i])
            return 0;
    }
    return 1;
}

/* Walk both ways with what is remembered; -ENOSPC if something new does not fit. */
static int compare_kept(struct rs_walker *walker, const char *one, size_t one_length, const char *other,
                        size_t other_length, int equal)
{
    const unsigned char *first = (const unsigned char *)one, *second = (const unsigned char *)other;
    uint32_t here, there;
    int error = reach_kept(walker, first, first + one_length, &here);
    if (error == 0)
        error = reach_kept(walker, second, second + other_length, &there);
    if (error < 0)
        return error;
    return here == there || (!equal && is_part(kept_at(walker, here), kept_at(walker, there)));
}

static int compare(const struct rs_tables *tables, struct rs_walker *walker, const char *one, size_t one_length,
                   const char *other, size_t other_length, int equal)
{
    if (one_length == 0 || one[0] != '/' || other_length == 0 || other[0] != '/')
        return -EINVAL;
    if (tables->grants)
        return 0; /* these are for single names, and for more than is in the tables */
    walk_in(walker, tables);
    int found = compare_kept(walker, one, one_length, other, other_length, equal);
    if (found == -ENOSPC) {
        forget(walker);
        found = compare_kept(walker, one, one_length, other, other_length, equal);
    }
    return found;
}

int rs_alike(const struct rs_tables *tables, struct rs_walker *walker, const char *one, size_t one_length,
             const char *other, size_t other_length)
{
    return compare(tables, walker, one, one_length, other, other_length, 1);
}

int rs_unwatched(const struct rs_tables *tables, struct rs_walker *walker, const char *path, size_t length)
{
    size_t above = length;
    while (above > 0 && path[above - 1] != '/')
        above--;
    return compare(tables, walker, path, length, path, above > 1 ? above - 1 : above, 0);
}

/* Give the conditions that a path matches. */
static int accept_path(struct rs_walker *walker, const char *path, size_t length, struct set *accepted)
{
    const unsigned char *first = (const unsigned char *)path;
    uint32_t state;
    int error = reach_kept(walker, first, first + length, &state);
    if (error == -ENOSPC) {
        forget(walker);
        error = reach_kept(walker, first, first + length, &state);
    }
    if (error != 0)
        return error;
    const struct kept *kept = kept_at(walker, state);
    return rs_accepted(walker->tables, kept->of, kept->count, accepted);
}

/* Reach the directory whose names are those of variables: no path has it. */
static int reach_variables(struct rs_walker *walker, uint32_t *state)
{
    static const unsigned char directory[] = {'/', 0};
    return reach_kept(walker, directory, directory + sizeof directory, state);
}

/* Whether a variable of this name is one that conditions are about. */
static int plants(struct rs_walker *walker, uint32_t state, const unsigned char *name, size_t length)
{
    uint32_t hash = HASH_SEED;
    for (size_t i = 0; i < length; i++)
        hash = hash_byte(hash, name[i]);
    int error = follow(walker, &state, name, length, hash);
    if (error != 0)
        return error;
    struct kept *kept = kept_at(walker, state);
    if (kept->plants == 0) {
        error = rs_accepted(walker->tables, kept->of, kept->count, &walker->accepted);
        if (error != 0)
            return error;
        kept->plants = PLANTS_NOT;
        for (size_t i = 0; i < walker->accepted.count; i++) {
            if (walker->tables->conditions[walker->accepted.of[i]].flags & BY_VARIABLE)
                kept->plants = PLANTS;
        }
    }
    return kept->plants == PLANTS;
}

static int look_for_plants(struct rs_walker *walker, const char *variables, size_t size)
{
    uint32_t state;
    int found = reach_variables(walker, &state);
    for (const char *at = variables, *end; found == 0 && at < variables + size; at = end + 1) {
        end = memchr(at, 0, (size_t)(variables + size - at));
        if (end == NULL)
            return -EINVAL;
        const char *equals = memchr(at, '=', (size_t)(end - at));
        const size_t length = (size_t)((equals != NULL ? equals : end) - at);
        found = plants(walker, state, (const unsigned char *)at, length);
        if (found == -ENOSPC) {
            forget(walker);
            found = reach_variables(walker, &state);
            if (found == 0)
                found = plants(walker, state, (const unsigned char *)at, length);
        }
    }
    return found;
}

/* Most programs are started with the variables of the one before. */
int rs_plants(const struct rs_tables *tables, struct rs_walker *walker, const char *variables, size_t size)
{
    if (!tables->variables || size == 0)
        return 0;
    walk_in(walker, tables);
    if (size == walker->variables_size && memcmp(variables, walker->variables, size) == 0)
        return walker->variables_plant;
    const int found = look_for_plants(walker, variables, size);
    if (found >= 0 && size <= sizeof walker->variables) {
        memcpy(walker->variables, variables, size);
        walker->variables_size = size;
        walker->variables_plant = found;
    }
    return found;
}

int rs_decide_exec(const struct rs_tables *tables, struct rs_walker *walker, const struct rs_program_names *names,
                   int plants_some, struct rs_verdict *out)
{
    *out = (struct rs_verdict){0};
    if (names->path[0] != '/' || names->named[0] != '/')
        return -EINVAL;
    walk_in(walker, tables);
    struct started *started = &walker->started;
    const char *slash = strrchr(names->argv0, '/');
    const char *base = slash != NULL ? slash + 1 : names->argv0;
    int error = accept_path(walker, names->path, strlen(names->path), &started->path);
    if (error == 0)
        error = accept_path(walker, names->named, strlen(names->named), &started->named);
    if (error == 0)
        error = accept_path(walker, base, strlen(base), &started->base);
    if (error != 0)
        return error;
    started->plants = plants_some != 0;
    rs_unpack(rs_judge_exec(tables, started), out);
    return 0;
}
