#define _GNU_SOURCE
#include "launch.h"

#include <linux/seccomp.h>
#include <sys/prctl.h>

#include "newer.h"

/* struct landlock_ruleset_attr as of 6.12. */
struct scoped_ruleset_attr {
    uint64_t handled_access_fs;
    uint64_t handled_access_net;
    uint64_t scoped;
};

_Static_assert(sizeof(struct sock_filter) == 8, "the wire format of START");

int install_no_new_privs(void)
{
    return prctl(PR_SET_NO_NEW_PRIVS, 1L, 0L, 0L, 0L) == 0 ? 0 : -errno;
}

int landlock_abi(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, (size_t)0, LANDLOCK_CREATE_RULESET_VERSION);
    return abi > 0 ? (int)abi : 0;
}

static int enter_domain(const struct scoped_ruleset_attr *attr, size_t size)
{
    autofd int ruleset = (int)syscall(SYS_landlock_create_ruleset, attr, size, 0U);
    if (ruleset < 0)
        return -errno;
    return syscall(SYS_landlock_restrict_self, ruleset, 0U) == 0 ? 0 : -errno;
}

/* Enter a new Landlock domain: from here on only processes of this domain and of domains nested in it can
 * be signalled. Nothing else is restricted. */
int install_signal_scope(void)
{
    const struct scoped_ruleset_attr attr = {.scoped = LANDLOCK_SCOPE_SIGNAL};
    return enter_domain(&attr, sizeof(attr));
}

/* Enter a Landlock domain on a kernel that cannot scope signals: it still bars ptrace access to processes
 * outside, and with it what /proc shows of them. It has to restrict something: block devices are not made in
 * here anyway, and the broker renames for the tree, so that the REFER right that comes with it is not missed. */
int install_barrier(void)
{
    const struct scoped_ruleset_attr attr = {.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_BLOCK};
    return enter_domain(&attr, sizeof(attr.handled_access_fs));
}

/* Returns the listener, which the kernel opens with O_CLOEXEC. */
int install_filter(const struct sock_filter *insns, size_t n_insns, unsigned int flags)
{
    const struct sock_fprog program = {
        .len = (unsigned short)n_insns,
        .filter = (struct sock_filter *)(uintptr_t)insns, /* the kernel only reads it */
    };
    long listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                            flags | (unsigned int)SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    return listener >= 0 ? (int)listener : -errno;
}
