/* Opens a file from many at once: `parallel threads|processes N SECONDS DIRECTORY` prints opens a second, of all. */
#define _GNU_SOURCE
#include "timing.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 256, LINE = 64 };

/* Shared between processes. One line of the cache for each counter, so that counting costs nobody else anything. */
struct shared {
    atomic_bool begun;
    atomic_bool ended;
    atomic_int ready;
    _Alignas(LINE) struct {
        _Alignas(LINE) atomic_ulong opens;
    } workers[MOST];
};

static struct shared *shared;

static void *work(void *argument)
{
    atomic_ulong *opens = argument;
    atomic_fetch_add(&shared->ready, 1);
    while (!atomic_load(&shared->begun))
        usleep(1000);
    while (!atomic_load(&shared->ended)) {
        const int fd = open("file", O_RDONLY | O_CLOEXEC);
        must(fd >= 0 && close(fd) == 0, "open");
        atomic_fetch_add_explicit(opens, 1, memory_order_relaxed);
    }
    return NULL;
}

static void start(bool threads, atomic_ulong *opens)
{
    pthread_t thread;
    if (threads) {
        must(pthread_create(&thread, NULL, work, opens) == 0, "pthread_create");
        return;
    }
    const pid_t pid = fork();
    must(pid >= 0, "fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        work(opens);
        _exit(0);
    }
}

int main(int argc, char **argv)
{
    must(argc == 5, "usage: parallel threads|processes N SECONDS DIRECTORY");
    const int count = atoi(argv[2]);
    must(count > 0 && count <= MOST, "N");
    must(chdir(argv[4]) == 0, argv[4]);
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(shared != MAP_FAILED, "mmap");
    for (int i = 0; i < count; i++)
        start(strcmp(argv[1], "threads") == 0, &shared->workers[i].opens);
    while (atomic_load(&shared->ready) < count)
        usleep(1000);
    const double from = now_us();
    atomic_store(&shared->begun, true);
    usleep((useconds_t)(strtod(argv[3], NULL) * 1e6));
    unsigned long opens = 0;
    for (int i = 0; i < count; i++)
        opens += atomic_load(&shared->workers[i].opens);
    const double seconds = (now_us() - from) / 1e6;
    atomic_store(&shared->ended, true);
    printf("%.1f\n", (double)opens / seconds);
    fflush(stdout);
    if (strcmp(argv[1], "processes") == 0)
        while (wait(NULL) > 0)
            ;
    _exit(0);
}
