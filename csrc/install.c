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

/* Enter a new Landlock domain: from here on only processes of this domain and of domains nested in it can
 * be signalled. Nothing else is restricted. */
int install_signal_scope(void)
{
    const struct scoped_ruleset_attr attr = {.scoped = LANDLOCK_SCOPE_SIGNAL};
    autofd int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0U);
    if (ruleset < 0)
        return -errno;
    return syscall(SYS_landlock_restrict_self, ruleset, 0U) == 0 ? 0 : -errno;
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
