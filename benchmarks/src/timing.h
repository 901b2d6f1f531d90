/* Clock, samples and what is printed of them: shared by the programs that measure. */
#ifndef TIMING_H
#define TIMING_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline double now_us(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec * 1e6 + (double)at.tv_nsec / 1e3;
}

static inline void must(bool well, const char *what)
{
    if (!well) {
        perror(what);
        exit(1);
    }
}

static inline int ascending(const void *left, const void *right)
{
    const double a = *(const double *)left;
    const double b = *(const double *)right;
    return (a > b) - (a < b);
}

/* Print "median p99", in microseconds. Sorts the samples. */
static inline void print_quantiles(double *samples, size_t count)
{
    must(count > 0, "no sample");
    qsort(samples, count, sizeof *samples, ascending);
    printf("%.4f %.4f\n", samples[count / 2], samples[count * 99 / 100]);
    fflush(stdout);
}

#endif
