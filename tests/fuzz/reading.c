/*
 * Have strings and vectors of strings read from this very process, where every page may be unreadable, and compare
 * with reading them a byte at a time: `reading SEED COUNT [mem]`.
 *
 * `mem`: process_vm_readv(2) is refused, so that /proc/<tid>/mem serves. Deterministic. Prints how many were read to
 * their end. To be built with sanitizers: each buffer has exactly the size that it is said to have.
 */
#include "rampart.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "random.h"

#define PAGE 4096
#define PAGES 48
#define SPACE ((size_t)PAGES * PAGE)

static unsigned char *space; /* PAGES pages */
static int readable[PAGES];
static int nothing; /* an empty file: a page of it is mapped, and cannot be read in any way */
static int target;
static int elsewhere; /* a spoiled pointer led to what else this process has: nothing is known about that */
static uint64_t vector;   /* where pointers were put last */
static unsigned long complete;

static void die(const char *what)
{
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static void set_page(size_t page, int read)
{
    void *at = space + page * PAGE;
    void *made = read ? mmap(at, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)
                      : mmap(at, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, nothing, 0);
    if (made != at)
        die("mmap");
    readable[page] = read;
}

static int is_readable(uint64_t address)
{
    const uint64_t start = (uint64_t)(uintptr_t)space;
    if (address >= 65536 && address < UINT64_C(0x7ffffffff000) &&
        (address < start - PAGE || address >= start + SPACE + PAGE))
        elsewhere = 1;
    return address >= start && address - start < SPACE && readable[(address - start) / PAGE];
}

static char byte_at(uint64_t address)
{
    return *(const char *)(uintptr_t)address;
}

/* Near a border of pages, often. */
static uint64_t somewhere(void)
{
    static const uint64_t wild[] = {0, 1, 4095, UINT64_MAX, UINT64_MAX - 3, INT64_MAX, (uint64_t)INT64_MAX + 1,
                                    UINT64_MAX - 4095, 0x7ffffffff000, 0x8000000000000000};
    if (below(16) == 0)
        return wild[below(sizeof wild / sizeof *wild)];
    const uint64_t start = (uint64_t)(uintptr_t)space;
    if (below(3) == 0)
        return start + below(SPACE);
    return start + below(PAGES) * PAGE + below(24) - 12;
}

/* Change a page, and some of what is written in the others. */
static void change(void)
{
    const size_t page = below(PAGES);
    if (below(4) == 0)
        set_page(page, below(4) != 0);
    for (size_t pieces = below(6); pieces > 0; pieces--) {
        uint64_t at = somewhere();
        const size_t length = below(200) == 0 ? SPACE : below(3) == 0 ? below(2 * PAGE) : below(24);
        const int fill = below(2) == 0 ? 0 : 1 + (int)below(255);
        for (size_t i = 0; i < length && is_readable(at + i); i++)
            *(char *)(uintptr_t)(at + i) = (char)fill;
    }
    vector = somewhere();
    for (size_t pointers = below(12), at = vector; pointers > 0; pointers--, at += sizeof(uint64_t)) {
        uint64_t value = pointers == 1 || below(24) == 0 ? 0 : somewhere();
        if (is_readable(at) && is_readable(at + sizeof value - 1))
            memcpy((void *)(uintptr_t)at, &value, sizeof value);
    }
}

static size_t some_size(void)
{
    const size_t sizes[] = {0, 1, 2, PATH_MAX, PAGE - 1, PAGE + 1, 131072, 2 * SPACE, below(64), below(SPACE)};
    return sizes[below(sizeof sizes / sizeof *sizes)];
}

static int64_t string_by_bytes(uint64_t address, char *buffer, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (!is_readable(address + i))
            return -EFAULT;
        buffer[i] = byte_at(address + i);
        if (!buffer[i])
            return (int64_t)i;
    }
    return -ENAMETOOLONG;
}

static int64_t vector_by_bytes(uint64_t address, char *buffer, size_t size)
{
    size_t done = 0;
    for (size_t pointed = 0;;) {
        uint64_t pointer;
        char bytes[sizeof pointer];
        for (size_t i = 0; i < sizeof bytes; i++, address++) {
            if (!is_readable(address))
                return -EFAULT;
            bytes[i] = byte_at(address);
        }
        memcpy(&pointer, bytes, sizeof pointer);
        if (!pointer)
            return (int64_t)done;
        pointed += sizeof pointer;
        if (done + pointed > size)
            return -E2BIG;
        for (size_t length = 1;; length++, pointer++) {
            if (!is_readable(pointer))
                return -EFAULT;
            if (length > 131072 || done + pointed + 1 > size)
                return -E2BIG;
            buffer[done++] = byte_at(pointer);
            if (!byte_at(pointer))
                break;
        }
    }
}

typedef int64_t reader(int target, pid_t tid, uint64_t address, char *buffer, size_t size);
typedef int64_t model(uint64_t address, char *buffer, size_t size);

static void compare(const char *what, reader *read_it, model *by_bytes, size_t room)
{
    static char whole[2 * SPACE];
    const uint64_t address = below(2) == 0 ? vector : somewhere();
    const int64_t most = by_bytes(address, whole, sizeof whole);
    /* About as much as is needed, often. */
    const size_t size = most >= 0 && below(2) == 0 ? below((size_t)most + 64) : some_size();
    char *got = malloc(size ? size : 1), *expected = malloc(size ? size : 1);
    if (!got || !expected)
        die("malloc");
    const int64_t rc = read_it(target, getpid(), address, got, size);
    elsewhere = 0;
    const int64_t wanted = by_bytes(address, expected, size);
    if (!elsewhere && (rc != wanted || (rc >= 0 && memcmp(got, expected, (size_t)rc + room) != 0))) {
        fprintf(stderr, "%s at %llx, %zu bytes: %lld, not %lld\n", what,
                (unsigned long long)(address - (uint64_t)(uintptr_t)space), size, (long long)rc, (long long)wanted);
        exit(1);
    }
    complete += rc >= 0;
    free(got);
    free(expected);
}

static void refuse_readv(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {.len = sizeof code / sizeof *code, .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0)
        die("seccomp");
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    state = strtoull(argv[1], NULL, 10);
    const unsigned long count = strtoul(argv[2], NULL, 10);
    nothing = memfd_create("nothing", MFD_CLOEXEC);
    target = rs_target_open(getpid());
    /* A page on each side stays unreadable, and nobody else's. */
    unsigned char *held = mmap(NULL, SPACE + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (nothing < 0 || target < 0 || held == MAP_FAILED ||
        mmap(held, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, nothing, 0) == MAP_FAILED ||
        mmap(held + SPACE + PAGE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, nothing, 0) == MAP_FAILED)
        die("no space");
    space = held + PAGE;
    for (size_t page = 0; page < PAGES; page++)
        set_page(page, 1);
    if (argc > 3)
        refuse_readv();
    for (unsigned long done = 0; done < count; done++) {
        change();
        compare("string", rs_target_read_string, string_by_bytes, 1);
        compare("vector", rs_target_read_vector, vector_by_bytes, 0);
    }
    printf("%lu\n", complete);
    return 0;
}
