/* Numbers for the drivers: the same seed gives the same ones. */
#ifndef FUZZ_RANDOM_H
#define FUZZ_RANDOM_H

#include <stddef.h>
#include <stdint.h>

static uint64_t state;

/* splitmix64 */
static inline uint64_t number(void)
{
    uint64_t mixed = (state += 0x9e3779b97f4a7c15U);
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9U;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebU;
    return mixed ^ mixed >> 31;
}

static inline size_t below(size_t end)
{
    return (size_t)(number() % end);
}

#endif
