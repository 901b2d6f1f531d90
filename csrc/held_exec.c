/*
 * execve(2), execveat(2) of plain programs by threads that lead their group: what will run is found, read and judged here;
 * the launcher lets the kernel carry it out, and sees to it that it is what was judged (flights.h). The reference is
 * calls/starting.py, which takes whatever is less plain: what is denied, too, as it is rare and much is to be said of it.
 */
#include "held.h"

#include <elf.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>

#define SETTLED 2 /* seconds after which a change of a file would show another time */

/* A program, pinned, and what it is called. Both names are absolute, and in `path` the links are followed. */
struct program {
    int fd;
    struct rs_file file;
    struct stat st;
    char path[RS_PATH_ROOM], named[RS_PATH_ROOM];
};

/* What scripts say after "#!", cut out of their first bytes. */
struct script {
    const char *interpreter, *argument; /* NULL: none */
};

/* All that is to come of a call. */
struct start {
    char *room;        /* EXEC_ROOM bytes */
    char *argv, *end;  /* the arguments within, and behind them the environment */
    char *environment;
    char *images;      /* what was judged, as struct rs_plan has it */
    size_t images_size;
    struct rs_file image, interpreter;
    int plants;
    unsigned count;
    struct rs_verdict verdicts[IMAGES_MAX];
};

/* Memory for the start, which this thread keeps; 0 or -ENOMEM. */
static int prepare(struct rs_held *held, struct start *start)
{
    struct rs_worker *worker = held->worker;
    if (!worker->strings)
        worker->strings = rs_pages(EXEC_ROOM);
    if (!worker->strings)
        return -ENOMEM;
    *start = (struct start){.room = worker->strings};
    start->argv = start->room + PREFIX_ROOM;
    start->images = start->argv + RS_STRINGS_ROOM;
    return 0;
}

/* Copy arguments and variables, once. What has no argument gets one that is empty, as in the kernel. */
static int read_strings(const struct rs_held *held, uint64_t argv, uint64_t variables, struct start *start)
{
    const pid_t tid = (pid_t)held->n.pid;
    const int target = held->task ? held->task->fd : -1;
    int64_t size = argv ? rs_target_read_vector(target, tid, argv, start->argv, RS_STRINGS_ROOM) : 0;
    if (size < 0)
        return (int)size;
    if (size == 0)
        start->argv[size++] = 0;
    start->environment = start->argv + size;
    const size_t left = RS_STRINGS_ROOM - (size_t)size;
    size = variables ? rs_target_read_vector(target, tid, variables, start->environment, left) : 0;
    if (size < 0)
        return (int)size;
    start->end = start->environment + size;
    return 0;
}

/* Open what a pinned directory has of this name, links followed. -ELOOP: among them is a magic one. */
static int open_entry(const struct rs_identity *as, int directory, const char *name)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_MAGICLINKS};
    int rc = rs_assume(as);
    if (rc < 0)
        return rc;
    const int fd = rs_result(syscall(SYS_openat2, directory, name, &how, sizeof how));
    rs_resume();
    return fd;
}

/* Pin a program and name it. Negative: look closer. */
static int find_program(struct rs_held *held, const struct rs_identity *as, const char *path, struct program *found)
{
    PIN_CLOSING struct rs_pin entry = {.object = -1, .parent = -1};
    struct stat *st = &found->st;
    int rc = held_pin_entry(held, as, AT_FDCWD, path, &entry);
    if (rc < 0)
        return rc;
    if (entry.flags & RS_PIN_MISSING)
        return -ENOENT;
    rc = held_child_name(held, entry.parent, entry.name, found->named, sizeof found->named);
    if (rc < 0)
        return rc;
    if (S_ISLNK(entry.mode)) {
        found->fd = open_entry(as, entry.parent, entry.name);
        rc = found->fd < 0 ? found->fd : held_name(held, found->fd, found->path, sizeof found->path);
    } else {
        found->fd = rs_steal_fd(&entry.object);
        memcpy(found->path, found->named, (size_t)rc + 1);
    }
    if (rc < 0)
        return rc;
    if (fstat(found->fd, st) < 0 || !S_ISREG(st->st_mode) || st->st_nlink == 0)
        return -EACCES;
    if (major(st->st_dev) == 0 && held_plain_type(found->fd) <= 0)
        return -EACCES;
    found->file = (struct rs_file){.dev = st->st_dev, .ino = st->st_ino};
    return 0;
}

/* Say that there is no program, if that is so. */
static enum rs_outcome miss(struct rs_held *held, const char *path)
{
    const struct rs_identity *as = held_identity(held, 0);
    if (!as)
        return RS_QUESTION;
    RS_CLOSING int base = -1;
    if (path[0] != '/') {
        base = rs_target_base(held->task->fd, AT_FDCWD);
        if (base < 0)
            return RS_QUESTION;
    }
    PIN_CLOSING struct rs_pin pin = {.object = -1, .parent = -1};
    int rc = rs_resolve(held->task->fd, held->task->tid, held->engine->launcher, as, base, path, RS_FOLLOW, 0, &pin);
    if (rc == 0 && (pin.flags & RS_PIN_MISSING) && !pin.process)
        rc = -ENOENT;
    if (rc != -ENOENT && rc != -ENOTDIR)
        return RS_QUESTION;
    return held_valid(held) < 0 ? RS_ANSWERED : held_fail(held, -rc);
}

static int is_loader(const struct rs_engine *engine, const struct rs_file *file)
{
    for (size_t i = 0; i < engine->loaders_count; i++)
        if (engine->loaders[i].dev == file->dev && engine->loaders[i].ino == file->ino)
            return 1;
    return 0;
}

/* Whether a name could be that of a dynamic loader; calls/starting.py has the patterns. */
static int is_loader_name(const char *path)
{
    const char *name = strrchr(path, '/') + 1;
    return (strncmp(name, "ld", 2) == 0 || strncmp(name, "libc.musl-", 10) == 0) && strstr(name, ".so") != NULL;
}

/*
 * Read a #! line as fs/binfmt_script.c does, of SCRIPT_LINE bytes and one more. 0, or -ENOEXEC where it is not a plain one:
 * an absolute name, and perhaps one argument, ended by a newline.
 */
static int parse_script(char *head, struct script *out)
{
    char *end = memchr(head, '\n', SCRIPT_LINE);
    if (!end || memchr(head, 0, (size_t)(end - head)))
        return -ENOEXEC;
    while (end[-1] == ' ' || end[-1] == '\t')
        end--;
    *end = 0;
    char *at = head + 2 + strspn(head + 2, " \t");
    if (*at != '/')
        return -ENOEXEC;
    out->interpreter = at;
    at += strcspn(at, " \t");
    out->argument = NULL;
    if (*at) {
        *at++ = 0;
        out->argument = at + strspn(at, " \t");
    }
    return 0;
}

/* Put a string before the arguments. */
static int put_before(struct start *start, const char *text)
{
    const size_t size = strlen(text) + 1;
    if (size > (size_t)(start->argv - start->room))
        return -E2BIG;
    start->argv -= size;
    memcpy(start->argv, text, size);
    return 0;
}

/* The arguments of a script's interpreter: its own name, the script's argument, the script, and the rest. */
static int take_over(struct start *start, const struct script *script, const char *file_name)
{
    start->argv += strlen(start->argv) + 1;
    int rc = put_before(start, file_name);
    if (rc == 0 && script->argument)
        rc = put_before(start, script->argument);
    return rc == 0 ? put_before(start, script->interpreter) : rc;
}

/*
 * Read the name of the interpreter of an ELF image, PATH_MAX bytes at most, from its first `size` bytes (elf(5),
 * fs/binfmt_elf.c). Empty: it has none. -ENOEXEC: not plain.
 */
static int read_interpreter(int fd, const char *head, size_t size, char *name)
{
    Elf64_Ehdr elf;
    name[0] = 0;
    if (size < sizeof elf)
        return -ENOEXEC;
    memcpy(&elf, head, sizeof elf);
    if (memcmp(elf.e_ident, ELFMAG, SELFMAG) != 0 || elf.e_machine == EM_386 || elf.e_machine == EM_ARM ||
        elf.e_phentsize != sizeof(Elf64_Phdr) || elf.e_phnum == 0 || elf.e_phoff > size ||
        elf.e_phnum > (size - elf.e_phoff) / sizeof(Elf64_Phdr))
        return -ENOEXEC;
    for (size_t i = 0; i < elf.e_phnum; i++) {
        Elf64_Phdr part;
        memcpy(&part, head + elf.e_phoff + i * sizeof part, sizeof part);
        if (part.p_type != PT_INTERP)
            continue;
        if (part.p_filesz < 2 || part.p_filesz > PATH_MAX || part.p_offset > INT64_MAX ||
            pread(fd, name, part.p_filesz, (off_t)part.p_offset) != (ssize_t)part.p_filesz ||
            name[part.p_filesz - 1] != 0 || name[0] != '/')
            return -ENOEXEC;
        return 0;
    }
    return 0;
}

/* Find the interpreter of this name, which must be one of the system's; zeroes for an empty name. */
static int find_interpreter(const struct rs_held *held, const struct rs_identity *as, const char *name,
                            struct rs_file *out)
{
    struct stat st;
    *out = (struct rs_file){0};
    if (!*name)
        return 0;
    RS_CLOSING int loader = open_entry(as, AT_FDCWD, name);
    if (loader < 0 || fstat(loader, &st) < 0)
        return -EACCES;
    *out = (struct rs_file){.dev = st.st_dev, .ino = st.st_ino};
    return is_loader(held->engine, out) ? 0 : -EACCES;
}

/* Where an image is remembered. */
static struct rs_image *image_place(const struct rs_held *held, const struct stat *st)
{
    return &held->worker->images[st->st_ino % IMAGES];
}

/* What is remembered of an image; NULL: nothing, or who acts may have other rights to read it than who did then. */
static const struct rs_image *known_image(const struct rs_held *held, const struct stat *st)
{
    const struct rs_image *known = image_place(held, st);
    const int same = known->dev == st->st_dev && known->ino == st->st_ino && known->size == st->st_size &&
                     known->changed.tv_sec == st->st_ctim.tv_sec && known->changed.tv_nsec == st->st_ctim.tv_nsec;
    return same && !atomic_load(&held->engine->differ) ? known : NULL;
}

static void remember_image(const struct rs_held *held, const struct stat *st, const char *interpreter)
{
    struct rs_image *place = image_place(held, st);
    const size_t size = strlen(interpreter) + 1;
    struct timespec now;
    if (size > sizeof place->interpreter || clock_gettime(CLOCK_REALTIME, &now) < 0 ||
        st->st_ctim.tv_sec > now.tv_sec - SETTLED)
        return;
    *place = (struct rs_image){
        .dev = st->st_dev, .ino = st->st_ino, .size = st->st_size, .changed = st->st_ctim};
    memcpy(place->interpreter, interpreter, size);
}

/* Write down a program with its arguments, for a record and for Python, and let the tables decide about it. */
static int judge(struct rs_held *held, struct start *start, const struct program *program)
{
    const size_t path = strlen(program->path) + 1, named = strlen(program->named) + 1;
    const size_t argv = (size_t)(start->environment - start->argv);
    const uint32_t size = (uint32_t)(path + named + argv);
    if (size > RS_OBJECT_ROOM || sizeof size + size > RS_IMAGES_ROOM - start->images_size)
        return -E2BIG;
    char *at = start->images + start->images_size;
    memcpy(at, &size, sizeof size);
    at += sizeof size;
    memcpy(at, program->path, path);
    memcpy(at + path, program->named, named);
    memcpy(at + path + named, start->argv, argv);
    start->images_size += sizeof size + size;
    const struct rs_program_names names = {.path = program->path, .named = program->named, .argv0 = start->argv};
    struct rs_verdict *verdict = &start->verdicts[start->count++];
    int rc = rs_decide_exec(held->reign->tables, held->worker->walker, &names, start->plants, verdict);
    return rc < 0 ? rc : verdict->answer == RS_ALLOW ? 0 : -EACCES;
}

/*
 * Look at one program, and judge it. Returns 1 if it is a script: `path` is then its interpreter's, and the arguments are
 * those that this gets. 0: it is what will run. -ENOENT, or -errno: not plain.
 */
static int look_at(struct rs_held *held, const struct rs_identity *as, char *path, struct start *start)
{
    char head[4096 + 1], interpreter[PATH_MAX];
    struct script script;
    struct program program = {.fd = -1};
    int rc = find_program(held, as, path, &program);
    RS_CLOSING int pin = program.fd;
    if (rc == 0 && (is_loader(held->engine, &program.file) || is_loader_name(program.path) ||
                    is_loader_name(program.named)))
        rc = -EACCES;
    if (rc == 0)
        rc = judge(held, start, &program);
    if (rc < 0)
        return rc;
    start->image = program.file;
    const struct rs_image *known = known_image(held, &program.st);
    if (known)
        return find_interpreter(held, as, known->interpreter, &start->interpreter);
    RS_CLOSING int fd = held_reopen(held, as, pin, O_RDONLY | O_NONBLOCK);
    const ssize_t size = fd < 0 ? -1 : pread(fd, head, sizeof head - 1, 0);
    if (size < SCRIPT_LINE && (size < 2 || memcmp(head, "#!", 2) != 0))
        return -ENOEXEC;
    if (memcmp(head, "#!", 2) != 0) {
        rc = read_interpreter(fd, head, (size_t)size, interpreter);
        if (rc < 0)
            return rc;
        remember_image(held, &program.st, interpreter);
        return find_interpreter(held, as, interpreter, &start->interpreter);
    }
    if (size < SCRIPT_LINE)
        memset(head + size, 0, (size_t)(SCRIPT_LINE - size));
    rc = parse_script(head, &script);
    if (rc == 0)
        rc = take_over(start, &script, path);
    if (rc < 0)
        return rc;
    memcpy(path, script.interpreter, strlen(script.interpreter) + 1);
    return 1;
}

/* Write down that all of it is let go. */
static void record(struct rs_held *held, const struct start *start)
{
    const char *at = start->images;
    for (unsigned i = 0; i < start->count; i++) {
        uint32_t size;
        memcpy(&size, at, sizeof size);
        held_record_start(held, &start->verdicts[i], at + sizeof size, size);
        at += sizeof size + size;
    }
}

/* Have the launcher let it go. On record before: whoever acts on it finds that. */
static enum rs_outcome send_off(struct rs_held *held, const struct start *start)
{
    struct rs_flights *flights = held->engine->flights;
    const struct rs_plan plan = {
        .image = start->image,
        .interpreter = start->interpreter,
        .strings = start->argv,
        .command_size = (uint32_t)(start->environment - start->argv),
        .environment_size = (uint32_t)(start->end - start->environment),
        .images = start->images,
        .images_size = (uint32_t)start->images_size,
    };
    enum rs_outcome outcome;
    if (held_reserve_starts(held, start->verdicts, start->count, &outcome) < 0)
        return outcome;
    if (held_valid(held) < 0)
        return RS_ANSWERED;
    int rc = flights_enter(flights, &held->n, &plan);
    if (rc == -EBUSY) {
        held_hear(held->engine); /* that it is over, perhaps */
        rc = flights_enter(flights, &held->n, &plan);
    }
    if (rc < 0)
        return RS_QUESTION;
    record(held, start);
    /* What is known of this task is of another program from now on; it makes no call before it is one. */
    rs_engine_forget(held->engine, 0);
    while ((rc = flights_order(flights, &held->n, &plan)) == -EAGAIN && held_valid(held) == 0) {
        (void)held_may_block(held); /* none to be had: those that are there come to it in time */
        flights_wait(flights);
        held_hear(held->engine);
    }
    if (rc < 0)
        flights_cancel(flights, &held->n);
    held_hear(held->engine); /* what came of others, while nobody waits for us */
    return rc < 0 && held_valid(held) == 0 ? RS_QUESTION : RS_ANSWERED;
}

enum rs_outcome held_exec(struct rs_held *held, uint64_t address, uint64_t argv, uint64_t variables)
{
    char path[PATH_MAX];
    struct start start;
    const pid_t tid = (pid_t)held->n.pid;
    /* The leader: its number is the process's, and stays its own. */
    if (!flights_ready(held->engine->flights) || syscall(SYS_tgkill, tid, tid, 0) != 0)
        return RS_QUESTION;
    const struct rs_identity *as = held_rights(held);
    if (!as || prepare(held, &start) < 0 || held_read_path(held, address, path) <= 0)
        return RS_QUESTION;
    if (read_strings(held, argv, variables, &start) < 0)
        return RS_QUESTION;
    start.plants = rs_plants(held->reign->tables, held->worker->walker, start.environment,
                             (size_t)(start.end - start.environment));
    int rc = start.plants < 0 ? start.plants : 1;
    while (rc == 1 && start.count < IMAGES_MAX)
        rc = look_at(held, as, path, &start);
    if (rc == -ENOENT && start.count == 0)
        return miss(held, path);
    return rc == 0 ? send_off(held, &start) : RS_QUESTION;
}
