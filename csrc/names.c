/* Who may change names at the moment: the one lock that all trees of a broker share. */
#include "engine.h"

#include <pthread.h>
#include <stdatomic.h>

struct rs_names {
    pthread_rwlock_t lock;
    int alone;                  /* held by one that is alone; only changed by whoever is */
    atomic_uint_fast64_t moves; /* odd while it is */
};

int rs_names_new(struct rs_names **out)
{
    struct rs_names *names = calloc(1, sizeof *names);
    if (!names)
        return -ENOMEM;
    pthread_rwlockattr_t kind;
    int rc = pthread_rwlockattr_init(&kind);
    if (rc == 0) {
        /* Whoever holds it alone is rare, and must not wait for ever behind those who come and go. */
        rc = pthread_rwlockattr_setkind_np(&kind, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
        if (rc == 0)
            rc = pthread_rwlock_init(&names->lock, &kind);
        (void)pthread_rwlockattr_destroy(&kind);
    }
    if (rc) {
        free(names);
        return -rc;
    }
    *out = names;
    return 0;
}

void rs_names_free(struct rs_names *names)
{
    if (!names)
        return;
    (void)pthread_rwlock_destroy(&names->lock);
    free(names);
}

int rs_names_hold(struct rs_names *names)
{
    int rc = -pthread_rwlock_wrlock(&names->lock);
    if (rc == 0) {
        names->alone = 1;
        atomic_fetch_add(&names->moves, 1);
    }
    return rc;
}

int rs_names_share(struct rs_names *names)
{
    return -pthread_rwlock_rdlock(&names->lock);
}

int rs_names_release(struct rs_names *names)
{
    if (names->alone) {
        names->alone = 0;
        atomic_fetch_add(&names->moves, 1);
    }
    return -pthread_rwlock_unlock(&names->lock);
}

uint64_t rs_names_moves(const struct rs_names *names)
{
    return atomic_load(&names->moves);
}
