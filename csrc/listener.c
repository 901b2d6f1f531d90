/* The notification fd: receive, validate, answer. See seccomp_unotify(2). */
#include "rampart.h"

#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

_Static_assert(sizeof(struct seccomp_notif) == 80, "struct seccomp_notif is a kernel ABI");
_Static_assert(sizeof(struct seccomp_notif_resp) == 24, "struct seccomp_notif_resp is a kernel ABI");

/* The kernel may know longer structs than these headers; it copies as much as it knows. */
union notification {
    struct seccomp_notif notif;
    char room[1024];
};

/* How long the kernel's struct is, asked once a thread; -EPROTO if it does not fit. */
static int notification_size(void)
{
    static _Thread_local int known;
    struct seccomp_notif_sizes sizes;
    if (known)
        return known;
    if (syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) < 0)
        return -errno;
    if (sizes.seccomp_notif < sizeof(struct seccomp_notif) || sizes.seccomp_notif > sizeof(union notification) ||
        sizes.seccomp_notif_resp != sizeof(struct seccomp_notif_resp))
        return -EPROTO;
    known = sizes.seccomp_notif;
    return known;
}

/* Take the next notification; blocks if there is none. -EINTR: interrupted; -ENOENT: its target died meanwhile. */
int rs_notif_receive(int listener, struct rs_notification *out)
{
    int size = notification_size();
    if (size < 0)
        return size;
    union notification got;
    memset(&got, 0, (size_t)size); /* the kernel insists on zeroes */
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &got.notif) < 0)
        return -errno;
    *out = (struct rs_notification){
        .id = got.notif.id,
        .pid = got.notif.pid,
        .flags = got.notif.flags,
        .nr = got.notif.data.nr,
        .arch = got.notif.data.arch,
        .instruction_pointer = got.notif.data.instruction_pointer,
    };
    for (int i = 0; i < 6; i++)
        out->args[i] = got.notif.data.args[i];
    return 0;
}

/* 0 while the target still waits for this notification; -ENOENT from then on. */
int rs_notif_valid(int listener, uint64_t id)
{
    return rs_result(ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &id));
}

/* Answer with a return value, or with an error if `error` is not 0 (a positive errno). */
int rs_notif_reply(int listener, uint64_t id, int64_t value, int error)
{
    struct seccomp_notif_resp response = {.id = id, .val = error ? 0 : value, .error = -error, .flags = 0};
    return rs_result(ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response));
}

/* Let the kernel run the call as it then stands: sound only if registers alone decided. */
int rs_notif_continue(int listener, uint64_t id)
{
    struct seccomp_notif_resp response = {.id = id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
    return rs_result(ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response));
}

/* Give the target a copy of `fd`; with `send`, also answer the call with its number, in one step. */
int rs_notif_add_fd(int listener, uint64_t id, int fd, int cloexec, int send)
{
    struct seccomp_notif_addfd add = {
        .id = id,
        .flags = send ? SECCOMP_ADDFD_FLAG_SEND : 0,
        .srcfd = (uint32_t)fd,
        .newfd_flags = cloexec ? O_CLOEXEC : 0,
    };
    return rs_result(ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add));
}
