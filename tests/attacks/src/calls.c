/*
 * calls STEP...: make one raw system call a step and print "STEP<tab>RESULT".
 *
 * A step is a name and its arguments, separated by commas. The result is the error's name, or what the call
 * returned ("ok" for a new descriptor, which becomes the last descriptor). "$" in an argument is the number of
 * the last descriptor, "%" the process id. In "raw", a number and up to six arguments, "B" is the address of a
 * zeroed buffer and "@text" that of a string. Nothing here goes through a C library wrapper that could choose
 * another call.
 */
#include "attacker.h"

#include <arpa/inet.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <utime.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#ifndef SYS_setxattrat
#define SYS_setxattrat 463
#endif
#ifndef SYS_removexattrat
#define SYS_removexattrat 466
#endif

extern char **environ;

enum { MAX_ARGUMENTS = 16 };

static int last = -1; /* the last descriptor */
static char buffer[1 << 16];

static const struct {
	const char *name;
	int value;
} open_flags[] = {
	{"r", O_RDONLY},           {"w", O_WRONLY},         {"rw", O_RDWR},         {"creat", O_CREAT},
	{"excl", O_EXCL},          {"trunc", O_TRUNC},      {"append", O_APPEND},   {"path", O_PATH},
	{"dir", O_DIRECTORY},      {"nofollow", O_NOFOLLOW}, {"tmpfile", O_TMPFILE}, {"nonblock", O_NONBLOCK},
};

static int parse_flags(const char *text)
{
	char copy[128], *save = NULL;
	int flags = 0;

	snprintf(copy, sizeof(copy), "%s", text);
	for (char *word = strtok_r(copy, "+", &save); word; word = strtok_r(NULL, "+", &save)) {
		size_t i = 0, n = sizeof(open_flags) / sizeof(open_flags[0]);

		while (i < n && strcmp(open_flags[i].name, word))
			i++;
		if (i == n) {
			errno = EINVAL;
			broken(word);
		}
		flags |= open_flags[i].value;
	}
	return flags;
}

static long keep(long fd)
{
	if (fd >= 0)
		last = (int)fd;
	return fd;
}

/* Run an exec call in a child; -errno of the call, or the exit status of what was started. */
static long in_child(long (*start)(char **), char **arguments)
{
	int channel[2], failure = 0, status;
	pid_t child;

	if (pipe2(channel, O_CLOEXEC))
		broken("pipe2");
	child = fork();
	if (child < 0)
		broken("fork");
	if (child == 0) {
		start(arguments);
		failure = errno;
		if (write(channel[1], &failure, sizeof(failure)) < 0)
			_exit(98);
		_exit(97);
	}
	close(channel[1]);
	if (read(channel[0], &failure, sizeof(failure)) == (ssize_t)sizeof(failure))
		status = -1;
	close(channel[0]);
	if (waitpid(child, &status, 0) != child)
		broken("waitpid");
	if (failure) {
		errno = failure;
		return -1;
	}
	if (WIFSIGNALED(status))
		return 128 + WTERMSIG(status);
	return WEXITSTATUS(status);
}

static long start_path(char **a)
{
	return syscall(SYS_execve, a[0], a, environ);
}

static long start_descriptor(char **a)
{
	return syscall(SYS_execveat, last, "", a, environ, AT_EMPTY_PATH);
}

static long start_no_arguments(char **a)
{
	return syscall(SYS_execve, a[0], NULL, NULL);
}

/* A memfd holding a copy of the file becomes the last descriptor. */
static long copy_to_memfd(const char *path)
{
	int from = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
	int to = (int)syscall(SYS_memfd_create, "payload", 0);
	ssize_t got;

	if (from < 0 || to < 0)
		return -1;
	while ((got = read(from, buffer, sizeof(buffer))) > 0)
		if (write(to, buffer, (size_t)got) != got)
			broken("write");
	close(from);
	return keep(to);
}

static long exhaust_descriptors(void)
{
	struct rlimit limit = {64, 64};

	if (setrlimit(RLIMIT_NOFILE, &limit))
		broken("setrlimit");
	while (dup(0) >= 0)
		;
	errno = 0;
	return 0;
}

static long number(const char *text)
{
	if (!strcmp(text, "B"))
		return (long)buffer;
	if (*text == '@')
		return (long)(text + 1);
	return (long)strtoull(text, NULL, 0);
}

#define IS(word) (!strcmp(a[0], word))

static long open_socket(const char *kind)
{
	if (!strcmp(kind, "tcp"))
		return keep(syscall(SYS_socket, AF_INET, SOCK_STREAM, 0));
	if (!strcmp(kind, "tcp6"))
		return keep(syscall(SYS_socket, AF_INET6, SOCK_STREAM, 0));
	if (!strcmp(kind, "udp"))
		return keep(syscall(SYS_socket, AF_INET, SOCK_DGRAM, 0));
	if (!strcmp(kind, "unix"))
		return keep(syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0));
	if (!strcmp(kind, "unixdgram"))
		return keep(syscall(SYS_socket, AF_UNIX, SOCK_DGRAM, 0));
	broken(kind);
	return -1;
}

static long open_step(char **a)
{
	int flags, mode;

	if (IS("creat"))
		return keep(syscall(SYS_creat, a[1], 0644));
	if (IS("memfd"))
		return copy_to_memfd(a[1]);
	if (IS("socket"))
		return open_socket(a[1]);
	if (strncmp(a[0], "open", 4))
		return -2;
	flags = a[2] ? parse_flags(a[2]) : 0;
	mode = a[2] && a[3] ? (int)strtol(a[3], NULL, 8) : 0644;
	if (IS("open"))
		return keep(syscall(SYS_open, a[1], flags, mode));
	if (IS("openat"))
		return keep(syscall(SYS_openat, AT_FDCWD, a[1], flags, mode));
	if (IS("openfrom"))
		return keep(syscall(SYS_openat, last, a[1], flags, mode));
	if (IS("openat2")) {
		struct open_how how = {.flags = (uint64_t)flags};

		if (flags & O_CREAT)
			how.mode = (uint64_t)mode;
		return keep(syscall(SYS_openat2, AT_FDCWD, a[1], &how, sizeof(how)));
	}
	return -2;
}

static long name_step(char **a)
{
	if (IS("unlink"))
		return syscall(SYS_unlink, a[1]);
	if (IS("unlinkat"))
		return syscall(SYS_unlinkat, AT_FDCWD, a[1], 0);
	if (IS("rmdir"))
		return syscall(SYS_rmdir, a[1]);
	if (IS("rename"))
		return syscall(SYS_rename, a[1], a[2]);
	if (IS("renameat"))
		return syscall(SYS_renameat, AT_FDCWD, a[1], AT_FDCWD, a[2]);
	if (IS("renameat2"))
		return syscall(SYS_renameat2, AT_FDCWD, a[1], AT_FDCWD, a[2], 0);
	if (IS("exchange"))
		return syscall(SYS_renameat2, AT_FDCWD, a[1], AT_FDCWD, a[2], 2);
	if (IS("link"))
		return syscall(SYS_link, a[1], a[2]);
	if (IS("linkat"))
		return syscall(SYS_linkat, AT_FDCWD, a[1], AT_FDCWD, a[2], 0);
	if (IS("linkfollow"))
		return syscall(SYS_linkat, AT_FDCWD, a[1], AT_FDCWD, a[2], AT_SYMLINK_FOLLOW);
	if (IS("linkempty"))
		return syscall(SYS_linkat, last, "", AT_FDCWD, a[1], AT_EMPTY_PATH);
	if (IS("symlink"))
		return syscall(SYS_symlink, a[1], a[2]);
	if (IS("symlinkat"))
		return syscall(SYS_symlinkat, a[1], AT_FDCWD, a[2]);
	if (IS("mkdir"))
		return syscall(SYS_mkdir, a[1], 0755);
	if (IS("mkdirat"))
		return syscall(SYS_mkdirat, AT_FDCWD, a[1], 0755);
	if (IS("mknod"))
		return syscall(SYS_mknod, a[1], S_IFREG | 0644, 0);
	if (IS("mknodat"))
		return syscall(SYS_mknodat, AT_FDCWD, a[1], S_IFIFO | 0644, 0);
	if (IS("mkdevice"))
		return syscall(SYS_mknodat, AT_FDCWD, a[1], S_IFCHR | 0644, 0x103);
	return -2;
}

static long metadata_step(char **a)
{
	static const struct timespec times[2] = {{1000, 0}, {1000, 0}};
	static const struct timeval values[2] = {{1000, 0}, {1000, 0}};
	static const struct utimbuf seconds = {1000, 1000};
	const struct {
		uint64_t value;
		uint32_t size;
		uint32_t flags;
	} attribute = {(uint64_t)(uintptr_t) "x", 1, 0};

	if (IS("truncate"))
		return syscall(SYS_truncate, a[1], 0L);
	if (IS("chmod"))
		return syscall(SYS_chmod, a[1], 0600);
	if (IS("fchmodat"))
		return syscall(SYS_fchmodat, AT_FDCWD, a[1], 0600);
	if (IS("fchmodat2"))
		return syscall(SYS_fchmodat2, AT_FDCWD, a[1], 0600, 0);
	if (IS("chown"))
		return syscall(SYS_chown, a[1], getuid(), getgid());
	if (IS("lchown"))
		return syscall(SYS_lchown, a[1], getuid(), getgid());
	if (IS("fchownat"))
		return syscall(SYS_fchownat, AT_FDCWD, a[1], getuid(), getgid(), 0);
	if (IS("utime"))
		return syscall(SYS_utime, a[1], &seconds);
	if (IS("utimes"))
		return syscall(SYS_utimes, a[1], values);
	if (IS("futimesat"))
		return syscall(SYS_futimesat, AT_FDCWD, a[1], values);
	if (IS("utimensat"))
		return syscall(SYS_utimensat, AT_FDCWD, a[1], times, 0);
	if (IS("setxattr"))
		return syscall(SYS_setxattr, a[1], "user.mark", "x", 1L, 0);
	if (IS("lsetxattr"))
		return syscall(SYS_lsetxattr, a[1], "user.mark", "x", 1L, 0);
	if (IS("removexattr"))
		return syscall(SYS_removexattr, a[1], "user.mark");
	if (IS("lremovexattr"))
		return syscall(SYS_lremovexattr, a[1], "user.mark");
	if (IS("setxattrat"))
		return syscall(SYS_setxattrat, AT_FDCWD, a[1], 0, "user.mark", &attribute, sizeof(attribute));
	if (IS("removexattrat"))
		return syscall(SYS_removexattrat, AT_FDCWD, a[1], 0, "user.mark");
	if (IS("fchmod"))
		return syscall(SYS_fchmod, last, 0600);
	if (IS("fchown"))
		return syscall(SYS_fchown, last, getuid(), getgid());
	if (IS("futimens"))
		return syscall(SYS_utimensat, last, NULL, times, 0);
	if (IS("fsetxattr"))
		return syscall(SYS_fsetxattr, last, "user.mark", "x", 1L, 0);
	return -2;
}

/* "ADDRESS" and "PORT", or "unix" and "PATH" ("@name" is abstract); the length of what was filled in. */
static socklen_t address(char **a, struct sockaddr_storage *out)
{
	struct sockaddr_in *four = (struct sockaddr_in *)out;
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)out;
	struct sockaddr_un *local = (struct sockaddr_un *)out;

	memset(out, 0, sizeof(*out));
	if (!a[0] || !a[1])
		broken("address");
	if (!strcmp(a[0], "unix")) {
		local->sun_family = AF_UNIX;
		strncpy(local->sun_path, a[1], sizeof(local->sun_path) - 1);
		if (*a[1] == '@') {
			local->sun_path[0] = '\0';
			return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(a[1]));
		}
		return sizeof(*local);
	}
	if (strchr(a[0], ':')) {
		six->sin6_family = AF_INET6;
		six->sin6_port = htons((uint16_t)atoi(a[1]));
		if (inet_pton(AF_INET6, a[0], &six->sin6_addr) != 1)
			broken(a[0]);
		return sizeof(*six);
	}
	four->sin_family = AF_INET;
	four->sin_port = htons((uint16_t)atoi(a[1]));
	if (inet_pton(AF_INET, a[0], &four->sin_addr) != 1)
		broken(a[0]);
	return sizeof(*four);
}

static long socket_step(char **a)
{
	struct sockaddr_storage name, other;
	struct iovec piece = {(char *)"leak", 4};
	struct mmsghdr messages[2] = {{{0}, 0}, {{0}, 0}};
	socklen_t length;

	if (IS("disconnect")) {
		memset(&name, 0, sizeof(name));
		return syscall(SYS_connect, last, &name, sizeof(struct sockaddr_in));
	}
	if (IS("listen"))
		return syscall(SYS_listen, last, 5);
	if (IS("dup"))
		return syscall(SYS_dup3, last, 100, 0) < 0 ? -1 : 0;
	if (!a[1] || !a[2])
		return -2;
	if (IS("connect"))
		return syscall(SYS_connect, last, &name, address(a + 1, &name));
	if (IS("connectdup"))
		return syscall(SYS_connect, 100, &name, address(a + 1, &name));
	if (IS("bind"))
		return syscall(SYS_bind, last, &name, address(a + 1, &name));
	if (IS("sendto")) {
		length = address(a + 1, &name);
		return syscall(SYS_sendto, last, "leak", 4L, MSG_NOSIGNAL, &name, length);
	}
	if (IS("fastopen")) {
		length = address(a + 1, &name);
		return syscall(SYS_sendto, last, "leak", 4L, MSG_NOSIGNAL | MSG_FASTOPEN, &name, length);
	}
	messages[0].msg_hdr.msg_iov = messages[1].msg_hdr.msg_iov = &piece;
	messages[0].msg_hdr.msg_iovlen = messages[1].msg_hdr.msg_iovlen = 1;
	if (IS("sendmsg") || IS("sendmmsg")) {
		messages[0].msg_hdr.msg_name = &name;
		messages[0].msg_hdr.msg_namelen = address(a + 1, &name);
	}
	if (IS("sendmsg"))
		return syscall(SYS_sendmsg, last, &messages[0].msg_hdr, MSG_NOSIGNAL);
	if (IS("sendmmsg")) { /* two messages: ADDRESS,PORT,ADDRESS,PORT */
		messages[1].msg_hdr.msg_name = &other;
		messages[1].msg_hdr.msg_namelen = address(a + 3, &other);
		return syscall(SYS_sendmmsg, last, messages, 2, MSG_NOSIGNAL);
	}
	return -2;
}

static long process_step(char **a, int count)
{
	long n[7] = {0};

	if (IS("exec"))
		return in_child(start_path, a + 1);
	if (IS("execfd"))
		return in_child(start_descriptor, a + 1);
	if (IS("execnull"))
		return in_child(start_no_arguments, a + 1);
	if (IS("chdir"))
		return syscall(SYS_chdir, a[1]);
	if (IS("fchdir"))
		return syscall(SYS_fchdir, last);
	if (IS("chroot"))
		return syscall(SYS_chroot, a[1]);
	if (IS("close"))
		return syscall(SYS_close, last);
	if (IS("write"))
		return syscall(SYS_write, last, a[1], strlen(a[1]));
	if (IS("exhaust"))
		return exhaust_descriptors();
	if (IS("undumpable"))
		return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (IS("clone")) { /* flags: the child ends at once */
		long child = syscall(SYS_clone, number(a[1]) | SIGCHLD, NULL, NULL, NULL, NULL);

		if (child == 0)
			_exit(0);
		return child < 0 ? child : waitpid((pid_t)child, NULL, 0) != child;
	}
	if (IS("raw")) {
		for (int i = 1; i < count && i <= 7; i++)
			n[i - 1] = number(a[i]);
		memset(buffer, 0, sizeof(buffer));
		return syscall(n[0], n[1], n[2], n[3], n[4], n[5], n[6]);
	}
	return -2;
}

/* Print the first line that the last descriptor holds; false if it cannot be read. */
static int show_content(void)
{
	ssize_t got = read(last, buffer, 200);

	if (got < 0)
		return 0;
	buffer[got] = '\0';
	buffer[strcspn(buffer, "\n")] = '\0';
	printf("%s\n", buffer);
	return 1;
}

static void substitute(const char *step, char *out, size_t size)
{
	size_t used = 0;

	for (; *step && used + 16 < size; step++) {
		if (*step == '$')
			used += (size_t)snprintf(out + used, size - used, "%d", last);
		else if (*step == '%')
			used += (size_t)snprintf(out + used, size - used, "%d", (int)getpid());
		else
			out[used++] = *step;
	}
	out[used] = '\0';
}

int main(int argc, char **argv)
{
	static char step[1 << 15];

	setvbuf(stdout, NULL, _IOLBF, 0);
	umask(022);
	for (int i = 1; i < argc; i++) {
		char *a[MAX_ARGUMENTS + 1] = {NULL};
		char *rest = step;
		int count = 0;
		long result;

		substitute(argv[i], step, sizeof(step));
		while (count < MAX_ARGUMENTS && (a[count] = strsep(&rest, ",")))
			count++;
		printf("%s\t", argv[i]);
		errno = 0;
		if (IS("read")) {
			if (!show_content())
				printf("%s\n", error_name(errno));
			continue;
		}
		result = open_step(a);
		if (result >= 0) {
			printf("ok\n");
			continue;
		}
		if (result == -2)
			result = name_step(a);
		if (result == -2)
			result = metadata_step(a);
		if (result == -2)
			result = socket_step(a);
		if (result == -2)
			result = process_step(a, count);
		if (result == -2) {
			errno = EINVAL;
			broken(a[0]);
		}
		if (result == -1)
			printf("%s\n", error_name(errno));
		else
			printf("%ld\n", result);
	}
	return 0;
}
