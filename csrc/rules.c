/*
 * What the rules say about a path, a start of a program or an address.
 *
 * What depends on who acts is neither true nor false here. A condition may hold, so a rule may speak, so a
 * layer has several possible decisions; they are carried along, and only if they come to the same is there a
 * verdict.
 */
#include "compiled.h"

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

enum truth { NO, MAYBE, YES };

/* What is judged: a path by the conditions that it matches, a start by those that its names match, or an address. */
struct subject {
    uint32_t operation;
    const struct set *accepted; /* NULL for a start, or an address */
    const struct started *started;
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

static enum truth holds_listen(const struct rs_tables *tables, const struct test *test,
                               const struct subject *subject, bool strict)
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
    return strict && subject->unspecified && (subject->family == FAMILY_IPV6 || test->family == FAMILY_IPV4)
               ? YES
               : NO;
}

/*
 * A program is started under several names, and each of them counts where that restricts. Which arguments a command has,
 * and which of the variables are new, is told by nobody here: where the program is the command's, or there are such
 * variables, it may be.
 */
static enum truth holds_exec(const struct condition *condition, uint32_t number, const struct started *started,
                             bool strict)
{
    const bool named = contains(&started->named, number);
    const bool found = contains(&started->path, number);
    if ((condition->flags & BY_PATH) != 0 && !found && !(strict && named))
        return NO;
    if ((condition->flags & BY_COMMAND) != 0 && !found && !named && !contains(&started->base, number))
        return NO;
    if ((condition->flags & BY_VARIABLE) != 0 && !started->plants)
        return NO;
    return (condition->flags & (BY_COMMAND | BY_VARIABLE | BY_OTHER)) != 0 ? MAYBE : YES;
}

static enum truth hold(const struct rs_tables *tables, uint32_t number, const struct subject *subject,
                       bool strict)
{
    const struct condition *condition = &tables->conditions[number];
    enum truth truth = YES;
    if (subject->started != NULL)
        return holds_exec(condition, number, subject->started, strict);
    if ((condition->flags & BY_PATH) != 0 &&
        (subject->accepted == NULL || !contains(subject->accepted, number)))
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
    return truth == YES && (condition->flags & (BY_OTHER | BY_COMMAND | BY_VARIABLE)) != 0 ? MAYBE : truth;
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

static uint32_t next_entry(const struct rs_tables *tables, const struct subject *subject,
                           struct cursor *cursor)
{
    uint32_t matched = NONE;
    while (subject->accepted != NULL && cursor->accepted < subject->accepted->count) {
        uint32_t condition = subject->accepted->of[cursor->accepted];
        uint32_t entry = tables->entry_of[condition];
        if (entry >= cursor->end)
            break;
        if (condition == tables->places[entry].first &&
            (tables->entries[entry].operations >> subject->operation & 1)) {
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
    enum truth question = NO;
    for (uint32_t found; (found = next_entry(tables, subject, cursor)) != NONE;) {
        const struct entry *entry = &tables->entries[found];
        if (entry->level <= LEVEL_DENY && done == YES)
            continue;
        enum truth truth = speaks(tables, found, subject);
        enum truth *told = entry->level == LEVEL_GRANT      ? &granted
                           : entry->level == LEVEL_QUESTION ? &question
                                                            : &done;
        if (truth > *told)
            *told = truth;
        if (told == &done && truth != NO)
            may_be(&said, decided_by(entry, subject->operation));
    }
    if (done != YES) {
        uint32_t level = tables->layers[layer].defaults[subject->operation];
        may_be(&said, decided(level, subject->operation, 0) | YIELDS);
    }
    out->count = 0;
    out->more = said.more || question != NO;
    for (size_t i = 0; i < said.count; i++) {
        uint32_t level = said.of[i] >> LEVEL;
        bool grantable = level == LEVEL_ASK || (level == LEVEL_DENY && (said.of[i] & YIELDS) != 0);
        if (grantable && granted != NO)
            may_be(out, decided(LEVEL_ALLOW, subject->operation, 0));
        if (!grantable || granted != YES)
            may_be(out, said.of[i] & ~(uint32_t)YIELDS);
    }
}

/* The strictest of what the layers say; of those that are equally strict the first one with a rule, else the
 * first. */
static void combine(struct possible *all, const struct possible *layer)
{
    struct possible both = {.more = all->more || layer->more};
    for (size_t i = 0; i < all->count; i++) {
        for (size_t k = 0; k < layer->count; k++)
            may_be(&both, layer->of[k] >> RANK > all->of[i] >> RANK ? layer->of[k] : all->of[i]);
    }
    *all = both;
}

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

void rs_unpack(uint32_t verdict, struct rs_verdict *out)
{
    out->answer = (enum rs_answer)(verdict >> ANSWER & 3);
    out->error = (int)(verdict & 0xffff);
    out->log = (verdict & LOGS) != 0;
}

uint32_t rs_judge_path(const struct rs_tables *tables, enum rs_operation operation,
                       const struct set *accepted)
{
    struct subject subject = {.operation = operation, .accepted = accepted};
    return judge(tables, &subject);
}

uint32_t rs_judge_exec(const struct rs_tables *tables, const struct started *started)
{
    struct subject subject = {.operation = RS_EXEC, .started = started};
    return judge(tables, &subject);
}

int rs_decide_address(const struct rs_tables *tables, enum rs_operation operation,
                      const unsigned char *address, size_t length, unsigned port, struct rs_verdict *out)
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
    rs_unpack(judge(tables, &subject), out);
    return 0;
}
