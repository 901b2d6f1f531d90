/*
 * Execs on their way, from their decision to what came of them: those that the engine judges, and the processes in which
 * Python has something traced. Of one process there is at most one at a time, since the kernel makes a second exec of it
 * wait for the first, with a lock that a tracer of both needs.
 *
 * The launcher traces and answers by itself (csrc/trace.c, trace_and_continue), so nobody waits here. What it says of the
 * outcomes is read by whoever comes along: the next exec, the engine's watch, and Python before it asks who is who.
 */
#ifndef RAMPART_FLIGHTS_H
#define RAMPART_FLIGHTS_H

#include "rampart.h"

#include "protocol.h"

struct rs_flights;

/* What must come of an exec, and what Python is told with the outcome. */
struct rs_plan {
    struct rs_file image, interpreter;
    const char *strings; /* the command line and, behind it, the environment */
    uint32_t command_size, environment_size;
    const char *images; /* what was judged: of each program a 32-bit size and that many bytes */
    uint32_t images_size;
};

/* An outcome, as it is taken: this, the launcher's packet (struct rs_executed and its relatives), images, strings. */
struct rs_landed {
    uint32_t size; /* of the whole */
    int32_t nr;    /* of the call */
    uint32_t packet, images, command, environment; /* bytes each */
    uint64_t dev, ino;                             /* of the image */
};

/* What has become of an order to the launcher; see flights_hear. */
enum rs_heard { RS_HEARD_TELL = 1, RS_HEARD_QUESTION = 2 };

int flights_new(struct rs_flights **out);
/* In a forked child, too: closes the descriptors. */
void flights_close(struct rs_flights *flights);
void flights_free(struct rs_flights *flights);
/* From here on execs can be judged in C. Owns `channel`, and `launcher`, a pidfd. */
void flights_open(struct rs_flights *flights, int channel, int launcher);
/* That somebody could be traced has been seen (or, with 0, that it cannot be). */
void flights_prove(struct rs_flights *flights, int proven);
/* Whether an exec can be sent off from here. */
int flights_ready(struct rs_flights *flights);

/* Keep a process for an exec that Python has traced. -EBUSY: something is on its way there. */
int flights_claim(struct rs_flights *flights, pid_t tgid);
void flights_unclaim(struct rs_flights *flights, pid_t tgid);

/*
 * Enter a judged exec of a thread that leads its group, so that it can be ordered. -EBUSY, -ENOMEM, -EMFILE, and -E2BIG
 * if there is more to say of it than fits RS_LANDED_ROOM: nothing was done. An order that the launcher has no room for
 * gives -EAGAIN, and can be given again once flights_wait returns.
 */
int flights_enter(struct rs_flights *flights, const struct rs_notification *n, const struct rs_plan *plan);
int flights_order(struct rs_flights *flights, const struct rs_notification *n, const struct rs_plan *plan);
void flights_wait(struct rs_flights *flights);
void flights_cancel(struct rs_flights *flights, const struct rs_notification *n);

/*
 * Hear what the launcher has said so far. Returns bits of RS_HEARD_*: there are outcomes that Python should take soon;
 * *question is a call that could not be traced, and there may be more.
 */
int flights_hear(struct rs_flights *flights, struct rs_notification *question);

/* Take as many whole outcomes as fit; returns their bytes. */
int64_t flights_take(struct rs_flights *flights, char *buffer, size_t size);
/* Continue the launcher if it was stopped while something waits for it; 1 if something is on its way. */
int flights_look(struct rs_flights *flights, int64_t now);

#define RS_STRINGS_ROOM 131072
#define RS_IMAGES_ROOM 65536
/* The longest outcome. */
#define RS_LANDED_ROOM                                                                                          \
    (sizeof(struct rs_landed) + sizeof(struct rs_executed) +                                                   \
     (RS_MAX_CHILDREN + RS_MAX_ANCESTORS) * sizeof(struct rs_child) + RS_IMAGES_ROOM + RS_STRINGS_ROOM)

#endif
