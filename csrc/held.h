/*
 * One held call in a thread of the engine, and what its answer is made of. The inside of the engine; not for others.
 */
#ifndef RAMPART_HELD_H
#define RAMPART_HELD_H

#include "engine.h"
#include "flights.h"
#include "journal.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#define TASKS 8 /* per thread: each keeps up to two descriptors open */
#define UMASKS_MAX 64

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL /* Linux 6.9 */
#endif

/* What is known of a thread of the tree. */
struct rs_task {
    pid_t tid; /* 0: nobody */
    int fd;    /* O_PATH, /proc/<tid>: stays with this very task */
    int pidfd; /* of the thread `pidfd_of`, or -1 */
    pid_t pidfd_of;
    uint64_t age; /* the engine's when this was learnt */
    int identified;
    struct rs_identity identity;
    size_t who_size; /* 0: not described yet */
    char *who;       /* RS_WHO_ROOM bytes, or NULL */
};

/*
 * An ELF image that was read. What it said it still says, as long as the file has not changed since, which a file that
 * changed just before it was read need not show. Should it be wrong, the launcher finds another image or interpreter.
 */
struct rs_image {
    uint64_t dev, ino; /* zeroes: none */
    off_t size;
    struct timespec changed;
    char interpreter[64]; /* empty: none */
};
#define IMAGES 16

/* A directory of the root that is a symbolic link on most systems, as /lib is: where it leads. */
struct rs_root_link {
    int known;
    uint64_t moves;  /* rs_names_moves when it was looked at */
    char target[24]; /* below the root; empty: it is no such link */
};
#define ROOT_LINKS 6

/* What decides; replaced as a whole, and freed when the last call that began under it is over. */
struct rs_reign {
    struct rs_tables *tables; /* NULL: everything is a question */
    uint32_t flags;
    unsigned users;
    int ended;
};

struct rs_worker {
    struct rs_engine *engine;
    pthread_t thread;
    atomic_int tid;           /* 0 before it runs, -1 when it has ended */
    atomic_int leads;         /* it is one of those that receive */
    atomic_int connects;      /* it waits for a connection, which may go on its way without it */
    atomic_uint_fast64_t id;  /* of the call at work */
    atomic_int_fast64_t since; /* CLOCK_MONOTONIC, nanoseconds; 0: receiving */
    struct rs_walker *walker;
    char *buffer; /* MESSAGE_MAX bytes, or NULL */
    char *strings; /* EXEC_ROOM bytes, or NULL */
    struct rs_image images[IMAGES]; /* by inode */
    struct rs_task tasks[TASKS];
    struct rs_root_link links[ROOT_LINKS];
    timer_t timer;
    int timer_there; /* 1; -1: there is none to be had */
};

#define WORKERS_MAX 64
#define RECORDS_SIZE (4u << 20)
#define OTHERS_SIZE (2u << 20)

struct rs_underway;

struct rs_engine {
    int listener, root, wake;
    int descriptors; /* O_PATH, /proc/self/fd */
    pid_t launcher;
    int same_root; /* an absolute path means the same to us */
    struct rs_names *names;
    struct rs_numbers numbers;
    struct rs_journal *records, *others;
    struct rs_flights *flights;
    struct rs_file *loaders; /* the dynamic loaders of the system */
    size_t loaders_count;
    atomic_uint_fast64_t sequence, age, answered, asked, unrecorded;
    atomic_int stopping, blind;
    atomic_int differ, shared; /* tasks may have other rights than each other; `rights` is set */
    struct rs_identity rights; /* of every task, as long as none differs; its ids of processes mean nothing */

    pthread_mutex_t lock; /* of all that follows */
    struct rs_reign *reign;
    struct rs_notification *questions; /* a ring */
    size_t questions_size, questions_first, questions_count;
    pid_t umasks[UMASKS_MAX]; /* processes that change their umask */
    size_t umasks_count;
    atomic_int umasks_all; /* any may */

    pthread_mutex_t departing; /* of the next two */
    struct rs_underway *underway;
    int no_underway; /* there is none to be had */

    pthread_mutex_t watching;
    pthread_cond_t watched;
    pthread_t watch;
    int watch_there;
    sem_t lead; /* as often as nobody has it */
    int leads;  /* in all; of these `withheld` are nobody's to take */
    atomic_int withheld, caller;
    atomic_uint in_a_row; /* calls of `caller` */
    atomic_int watch_sleeps, idle, blocking;
    unsigned workers_count; /* with `watching` held */
    struct rs_worker workers[WORKERS_MAX];
};

struct rs_held {
    struct rs_engine *engine;
    struct rs_worker *worker;
    struct rs_reign *reign;
    struct rs_notification n;
    struct rs_task *task;
    int64_t began;
    unsigned reserved; /* records that have been promised room */
    int blocks;        /* it has said that it may wait for others */
};

enum rs_outcome {
    RS_ANSWERED,
    RS_QUESTION, /* nothing was done and nobody was answered: Python begins from the beginning */
    RS_UNDERWAY, /* answered later, by the thread of underway.c */
};

/* One effect of a call on one object. */
struct rs_effect {
    enum rs_operation operation;
    struct rs_verdict verdict;
};

#define EFFECTS_MAX 2
#define MESSAGE_MAX 65536
#define IMAGES_MAX 6     /* scripts that are each other's interpreters, and a program (fs/exec.c: exec_binprm) */
#define SCRIPT_LINE 256  /* bytes of a file in which a #! line must end (fs/exec.c: BINPRM_BUF_SIZE) */
#define PREFIX_ROOM (IMAGES_MAX * (PATH_MAX + SCRIPT_LINE)) /* what scripts put before the arguments */
#define EXEC_ROOM (PREFIX_ROOM + RS_STRINGS_ROOM + RS_IMAGES_ROOM)

struct rs_effects {
    unsigned count;
    struct rs_effect each[EFFECTS_MAX];
    size_t length;
    unsigned port;
    int datagram;
    int opens; /* with no descriptor left, the target has another error than a denial */
    char path[RS_PATH_ROOM]; /* or the bytes of an IP address */
};

/* A path, and the name of what it leads to if no symbolic link is on the way. */
struct rs_straight {
    uint64_t moves; /* rs_names_moves, when the name was found */
    size_t base;    /* length of the directory that a relative path begins at; 0: it is none */
    size_t length;  /* of the name */
    int climbs;     /* there is a ".." in the path */
    char path[PATH_MAX]; /* absolute */
    char name[PATH_MAX];
};

/* held.c */
int64_t held_clock(void);
struct rs_task *held_task(struct rs_held *held);
const struct rs_identity *held_identity(struct rs_held *held, int fresh);
const struct rs_identity *held_rights(struct rs_held *held);
int held_base(const struct rs_held *held, int dirfd);
int held_pin_entry(const struct rs_held *held, const struct rs_identity *as, int dirfd, const char *path,
                   struct rs_pin *pin);
int held_copy_fd(struct rs_held *held, int fd);
void held_note_umask(struct rs_engine *engine, pid_t tgid);
int held_umask_moves(struct rs_engine *engine, pid_t tgid);
int held_read_path(struct rs_held *held, uint64_t address, char *path);
int held_reopen(const struct rs_held *held, const struct rs_identity *as, int pin, int flags);
int held_valid(const struct rs_held *held);
int held_has_descriptor(struct rs_held *held);
int held_plain_file_system(int fd);
int held_plain_type(int fd);
int held_is_plain_type(uint32_t type);
int held_name(const struct rs_held *held, int fd, char *path, size_t size);
int held_child_name(const struct rs_held *held, int parent, const char *name, char *path, size_t size);
void held_add(struct rs_effects *effects, enum rs_operation operation);
int held_allows(const struct rs_held *held, enum rs_operation operation, const struct rs_straight *straight);
enum rs_outcome held_judge(struct rs_held *held, struct rs_effects *effects, int *allowed);
int held_keep(struct rs_held *held, const struct rs_effects *effects);
int held_allows_quietly(struct rs_held *held, struct rs_effects *effects);
int held_alike(const struct rs_held *held, const struct rs_effects *one, const struct rs_effects *other);
int held_unwatched(const struct rs_held *held, const struct rs_effects *effects);
void held_record(struct rs_held *held, const struct rs_effects *effects, int error);
int held_reserve_starts(struct rs_held *held, const struct rs_verdict *verdicts, unsigned count,
                        enum rs_outcome *outcome);
void held_record_start(struct rs_held *held, const struct rs_verdict *verdict, const char *object, size_t length);
enum rs_outcome held_reply(struct rs_held *held, int64_t value);
enum rs_outcome held_fail(struct rs_held *held, int error);
void held_forget(struct rs_task *task);
char *held_buffer(struct rs_held *held);

/* held_straight.c */
int held_straight(const struct rs_held *held, int dirfd, const char *path, struct rs_straight *out);
int held_open_name(const char *path, int flags);
int held_is_still(const struct rs_held *held, const struct rs_straight *straight);
int held_is_missing(const struct rs_held *held, int dirfd, const struct rs_straight *straight);
void held_take_name(struct rs_effects *effects, const struct rs_straight *straight);
int held_name_pin(const struct rs_held *held, int pin, const struct rs_straight *straight, struct rs_effects *effects);
int held_is_straight(const struct rs_held *held, const struct rs_straight *straight, int fd);

/* engine.c: to be asked before anything that may wait for others; -EAGAIN if nobody would be left to receive. */
int held_may_block(struct rs_held *held);
/* engine.c: what decides now, until held_quit; whether what decided is still in force. */
struct rs_reign *held_enter(struct rs_engine *engine);
void held_quit(struct rs_held *held);
int held_is_current(const struct rs_held *held);
/* engine.c: the end of a call: what it has taken is given back, and a question is asked. */
void held_leave(struct rs_held *held, enum rs_outcome outcome);

/* underway.c */
int held_connect_first(struct rs_held *held, const struct rs_identity *as, int fd, const char *address, size_t size);
/*
 * Have somebody else wait for a connection that is on its way, and answer the call: it, and the socket, are his from here.
 * Negative: nobody does.
 */
int held_depart(struct rs_held *held, const struct rs_effects *effects, int *fd, const char *address, size_t size);
void underway_stop(struct rs_engine *engine);
void underway_free(struct rs_underway *underway);
void underway_forsake(struct rs_underway *underway);

/* engine.c: take in what the launcher has said of execs. */
void held_hear(struct rs_engine *engine);

/* held_open.c, held_names.c, held_metadata.c, held_sockets.c, held_exec.c */
enum rs_outcome held_open(struct rs_held *held, int dirfd, uint64_t path, uint64_t flags, uint64_t mode);
enum rs_outcome held_remove(struct rs_held *held, int dirfd, uint64_t path, int flags);
enum rs_outcome held_rename(struct rs_held *held, int old_dirfd, uint64_t old_path, int new_dirfd, uint64_t new_path,
                            unsigned flags);
enum rs_outcome held_make_link(struct rs_held *held, uint64_t text, int dirfd, uint64_t path);
enum rs_outcome held_make_directory(struct rs_held *held, int dirfd, uint64_t path, uint64_t mode);
/* Of calls that change what is said about a file. */
enum rs_outcome held_metadata(struct rs_held *held, int32_t nr, const uint64_t *args);
enum rs_outcome held_connect(struct rs_held *held, int fd, uint64_t address, uint64_t length);
enum rs_outcome held_sendto(struct rs_held *held, const uint64_t *args);
enum rs_outcome held_sendmsg(struct rs_held *held, const uint64_t *args);
enum rs_outcome held_exec(struct rs_held *held, uint64_t path, uint64_t argv, uint64_t variables);

static inline void held_drop_pin(struct rs_pin *pin)
{
    rs_close_fd(&pin->object);
    rs_close_fd(&pin->parent);
}
#define PIN_CLOSING __attribute__((cleanup(held_drop_pin)))

#endif
