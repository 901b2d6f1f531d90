/*
 * Resolve paths in a tree full of links, and compare with the kernel: `paths SEED COUNT DIRECTORY`.
 *
 * DIRECTORY is empty, and filled and emptied again and again. Deterministic. Prints how many paths led to something, to
 * a place where nothing is yet, and to an error. To be built with sanitizers.
 */
#include "held.h"

#include <linux/openat2.h>
#include <stdio.h>
#include <sys/syscall.h>

#include "random.h"

#define LINKS 6
#define CHAIN 46 /* links k00 to k45, each to the next, and the last to a directory: the kernel follows 40 */

static const char *top; /* the absolute name of the tree */
static struct rs_engine engine;
static struct rs_held held = {.engine = &engine};
static int target, base;
static unsigned long found, missing, failed, entries;

static void die(const char *what, const char *path, long got, long wanted)
{
    fprintf(stderr, "%s: %s: %ld, not %ld\n", path, what, got, wanted);
    for (char name[3] = "l0"; name[1] < '0' + LINKS; name[1]++) {
        char text[PATH_MAX];
        ssize_t length = readlink(name, text, sizeof text - 1);
        fprintf(stderr, "  %s -> %.*s\n", name, length > 0 ? (int)length : 0, text);
    }
    exit(1);
}

static size_t add(char *path, size_t length, const char *text)
{
    const size_t more = strlen(text);
    memcpy(path + length, text, more + 1);
    return length + more;
}

/*
 * Some names. What links lead to has no long ones: of what is still to be walked no more is kept than two of the
 * longest paths, where the kernel keeps forty (ENAMETOOLONG).
 */
static void make_path(char *path, int long_names)
{
    static const char *const names[] = {"a",  "b",  "c",  "f",  "l0", "l1", "l2",      "l3",
                                        "l4", "l5", "..", "..", ".",  "",   "missing", "a"};
    size_t length = 0;
    path[0] = 0;
    if (below(4) == 0)
        length = add(path, length, top);
    if (length && below(8) != 0)
        length = add(path, length, "/");
    for (size_t left = 1 + below(6); left > 0; left--) {
        if (long_names && below(40) == 0) {
            const size_t long_name = NAME_MAX - 1 + below(3);
            memset(path + length, 'n', long_name);
            path[length += long_name] = 0;
        } else if (below(12) == 0) {
            const char name[] = {'k', '0', (char)('0' + below(10)), 0};
            length = add(path, length, name);
        } else {
            length = add(path, length, names[below(sizeof names / sizeof *names)]);
        }
        if (left > 1 || below(6) == 0)
            length = add(path, length, below(8) == 0 ? "//" : "/");
    }
}

static void clear(const char *directory)
{
    static const char *const names[] = {"l0", "l1", "l2", "l3", "l4", "l5", "f"};
    char path[64];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        (void)unlink(path);
    }
}

/* a/b, c, files here and there, and links to anywhere. */
static void make_tree(void)
{
    static const char *const directories[] = {".", "a", "a/b", "c"};
    for (size_t i = 0; i < sizeof directories / sizeof *directories; i++) {
        if (mkdir(directories[i], 0755) < 0 && errno != EEXIST)
            die("mkdir", directories[i], errno, 0);
        clear(directories[i]);
        char path[64];
        (void)snprintf(path, sizeof path, "%s/f", directories[i]);
        int fd = below(2) == 0 ? open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644) : -1;
        rs_close_fd(&fd);
        for (int link = 0; link < LINKS; link++) {
            char text[PATH_MAX];
            make_path(text, 0);
            (void)snprintf(path, sizeof path, "%s/l%d", directories[i], link);
            if (below(3) != 0 && symlink(text[0] ? text : "a", path) < 0)
                die("symlink", path, errno, 0);
        }
    }
}

static void make_chain(void)
{
    for (int link = 0; link < CHAIN; link++) {
        char name[16], next[16];
        (void)snprintf(name, sizeof name, "k%02d", link);
        (void)snprintf(next, sizeof next, "k%02d", link + 1);
        if (symlink(link + 1 < CHAIN ? next : "a", name) < 0)
            die("symlink", name, errno, 0);
    }
}

static int by_kernel(const char *path, uint64_t flags)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC | flags};
    return rs_result(syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how));
}

static int is_same(int one, int other)
{
    struct stat a, b;
    return fstat(one, &a) == 0 && fstat(other, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Let the kernel create what is missing: it must turn up where the pin says. */
static void create(const char *path, const struct rs_pin *pin, int exclusive)
{
    RS_CLOSING int made = open(path, O_CREAT | O_WRONLY | O_CLOEXEC | (exclusive ? O_EXCL : 0), 0644);
    if (made < 0)
        die("a place to create at", path, errno, 0);
    RS_CLOSING int there = openat(pin->parent, pin->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (there < 0 || !is_same(made, there))
        die("created elsewhere", path, there, made);
    if (unlinkat(pin->parent, pin->name, 0) < 0)
        die("unlink", path, errno, 0);
}

static void check_resolve(const char *path, int follow)
{
    const size_t length = strlen(path);
    const int slash = length && path[length - 1] == '/';
    PIN_CLOSING struct rs_pin pin = {.object = -1, .parent = -1};
    RS_CLOSING int kernel = by_kernel(path, follow ? 0 : O_NOFOLLOW);
    const int rc = rs_resolve(target, getpid(), 1, NULL, base, path, follow ? RS_FOLLOW : 0, 0, &pin);
    /* "name/" is told as it was written, where links are not followed: the call itself decides what it means. */
    if (!follow && slash)
        return;
    if (kernel >= 0) {
        found++;
        if (rc < 0 || (pin.flags & RS_PIN_MISSING) || !is_same(kernel, pin.object))
            die("resolved otherwise", path, rc, kernel);
        return;
    }
    if (rc == 0 && (pin.flags & RS_PIN_MISSING) && kernel == -ENOENT) {
        missing++;
        if (!slash && !(pin.flags & RS_PIN_SLASH))
            create(path, &pin, !follow);
        return;
    }
    failed++;
    if (rc != kernel)
        die("another error", path, rc, kernel);
}

static void check_entry(const char *path)
{
    PIN_CLOSING struct rs_pin pin = {.object = -1, .parent = -1};
    if (held_pin_entry(&held, NULL, AT_FDCWD, path, &pin) < 0)
        return;
    entries++;
    RS_CLOSING int kernel = by_kernel(path, O_NOFOLLOW);
    const int there = !(pin.flags & RS_PIN_MISSING);
    if (there != (kernel >= 0) || (there && !is_same(kernel, pin.object)) || (!there && kernel != -ENOENT))
        die("another entry", path, pin.object, kernel);
    if (!there)
        create(path, &pin, 1);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    state = strtoull(argv[1], NULL, 10);
    top = argv[3];
    target = rs_target_open(getpid());
    engine.same_root = 1;
    held.n.pid = (uint32_t)getpid();
    if (chdir(top) < 0 || target < 0)
        return 1;
    base = rs_target_base(target, AT_FDCWD);
    if (base < 0)
        return 1;
    make_chain();
    for (unsigned long done = 0, count = strtoul(argv[2], NULL, 10); done < count; done++) {
        char path[PATH_MAX];
        if (done % 50 == 0)
            make_tree();
        make_path(path, 1);
        check_resolve(path, 1);
        check_resolve(path, 0);
        check_entry(path);
    }
    printf("%lu %lu %lu %lu\n", found, missing, failed, entries);
    return 0;
}
