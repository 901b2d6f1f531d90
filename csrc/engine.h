/*
 * The engine: threads that answer the held calls of one tree, and never wait for the interpreter.
 *
 * receive (engine.c) -> read and pin (held_*.c, target.c, resolve.c) -> decide (tables.c) -> perform (files.c,
 * sockets.c) -> reply (listener.c) -> record (journal.c). Whatever is not plain, in the call or in what the policy
 * says about it, is a question: it goes to Python as it was received, and is read, pinned and decided there from the
 * beginning.
 */
#ifndef RAMPART_ENGINE_H
#define RAMPART_ENGINE_H

#include "rampart.h"

#include "tables.h"

struct rs_engine;
struct rs_names;
struct rs_file;

/* names.c: all changes of names by the trees of a broker are made while holding this. */
int rs_names_new(struct rs_names **out);
void rs_names_free(struct rs_names *names);
int rs_names_hold(struct rs_names *names);  /* alone: names move, or must not change at all */
int rs_names_share(struct rs_names *names); /* with others that add or remove single entries */
int rs_names_release(struct rs_names *names);
/* How often somebody began or ended to hold it alone: odd while somebody does, the same as before if nothing moved. */
uint64_t rs_names_moves(const struct rs_names *names);

/* who.c: the process and its ancestors, as records have them; see there. -ESRCH, -E2BIG; size is RS_WHO_ROOM. */
int64_t rs_describe(pid_t pid, pid_t launcher, char *buffer, size_t size);

#define RS_RECORD_ALL 1      /* keep records of allowed calls, too */
#define RS_RECORD_LOGGED 4   /* of those that are allowed by a rule which wants that */
#define RS_RECORD_REQUIRED 2 /* deny what finds no room for its record; else that is a question */

/* The numbers of the calls that the engine takes; all others are questions. From the table of system calls. */
struct rs_numbers {
    int32_t open, openat, creat, unlink, unlinkat, rmdir, mkdir, mkdirat, rename, renameat, renameat2, symlink, symlinkat, connect, sendto, sendmsg, execve, execveat;
    int32_t chmod, fchmod, fchmodat, fchmodat2, chown, lchown, fchown, fchownat, utimensat;
    int32_t setxattr, lsetxattr, fsetxattr, removexattr, lremovexattr, fremovexattr;
    int32_t setuid, setgid, setreuid, setregid, setresuid, setresgid, setfsuid, setfsgid, setgroups, capset, prctl, umask;
    int32_t clone, unshare;
};

/*
 * Make an engine for the tree of `launcher`, whose calls arrive at `listener`; `member` is a process of the tree. It
 * neither closes the listener nor frees `names`. -ENOMEM, -EMFILE, and what opening
 * /proc/<member>/root gives.
 */
int rs_engine_new(int listener, pid_t launcher, pid_t member, struct rs_names *names,
                  const struct rs_numbers *numbers, struct rs_engine **out);

/* Start `threads` threads; as many receive at a time, later, too. -EAGAIN if the system has none left. */
int rs_engine_start(struct rs_engine *engine, unsigned threads);

/*
 * Decide by these tables from the next call on; they are the engine's from here. NULL: everything is a question.
 * `flags` is of RS_RECORD_*.
 */
int rs_engine_decide(struct rs_engine *engine, struct rs_tables *tables, uint32_t flags);

/*
 * Forget what is known of tasks: one of them may become another program. As long as the sum of all `blind` is not 0,
 * nothing that is learnt is kept from call to call.
 */
void rs_engine_forget(struct rs_engine *engine, int blind);

/*
 * Make execs possible: over `channel` the launcher traces them and lets them go; `launcher` is its pidfd. Both are the
 * engine's from here. `loaders` are the dynamic loaders of the system. Before rs_engine_start. -ENOMEM: it has neither.
 */
int rs_engine_trace(struct rs_engine *engine, int channel, int launcher, const struct rs_file *loaders, size_t count);

/* An exec has been traced, in Python: from now on they are judged here. One that cannot be traced takes that back. */
void rs_engine_traces(struct rs_engine *engine);

/* Keep a process for something that Python has traced there. -EBUSY: the engine has, and that is not over. -ENOMEM. */
int rs_engine_claim(struct rs_engine *engine, pid_t tgid);
void rs_engine_unclaim(struct rs_engine *engine, pid_t tgid);

/*
 * Take what has come of execs, in the order in which they came to their end, all that the launcher has said so far: as
 * struct rs_landed has it. Returns the bytes; 0 if there is nothing. Needs RS_LANDED_ROOM bytes at least.
 */
int64_t rs_engine_landed(struct rs_engine *engine, char *buffer, size_t size);

/* An eventfd (eventfd(2)), readable while there are questions or records to take. */
int rs_engine_fd(const struct rs_engine *engine);

/* Take the next question; 1, or 0 if there is none. */
int rs_engine_question(struct rs_engine *engine, struct rs_notification *out);

/* Take records: those that must be kept, or (`others`) the latest of the rest. As rs_journal_take. */
int64_t rs_engine_records(struct rs_engine *engine, int others, char *buffer, size_t size);

/* How many calls were denied for want of room for their records, since this was last asked. */
uint64_t rs_engine_unrecorded(struct rs_engine *engine);

/* The next number in the order of the tree's decisions, for one that is made in Python. */
uint64_t rs_engine_number(struct rs_engine *engine);

/* How many calls were answered here, and how many became questions. */
void rs_engine_counts(const struct rs_engine *engine, uint64_t *answered, uint64_t *asked);

/*
 * Wait for a connection to `address` that is on its way, on this copy of a socket, instead of whoever is to answer the
 * call. When something has come of it, or nobody waits for the answer any more, it is the next question: `arrived` is set,
 * and `error` says what. Negative: nobody waits.
 */
int rs_engine_depart(struct rs_engine *engine, const struct rs_notification *n, int fd, const char *address,
                     size_t size);

/*
 * Stop the threads; records and questions can still be taken. -EBUSY if one of them hangs in the kernel after some
 * seconds: then neither the engine may be freed nor the listener closed.
 */
int rs_engine_stop(struct rs_engine *engine);
void rs_engine_free(struct rs_engine *engine);

/*
 * In a forked child, where its threads are not: close the descriptors. Its memory stays, since a lock may be held for
 * ever, and so does what a call at work had open, since nobody knows what of it was closed already.
 */
void rs_engine_forsake(struct rs_engine *engine);

#endif
