/*
 * memory DIRECTORY: mediated calls with arguments in memory that is missing, ends early or never ends.
 *
 * Prints "CALL CASE<tab>RESULT". The results must be those of the kernel itself.
 */
#include "attacker.h"

#include <arpa/inet.h>
#include <limits.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/xattr.h>

static size_t page_size;
static char *edge; /* the first byte after readable memory */
static int stream;

/* Text that ends exactly where readable memory ends; without its NUL if asked. */
static char *at_edge(const char *text, size_t length, int terminated)
{
	char *start = edge - length - (terminated ? 1 : 0);

	memcpy(start, text, length);
	if (terminated)
		edge[-1] = '\0';
	return start;
}

static void show(const char *call, const char *which, long result)
{
	printf("%s %s\t%s\n", call, which, result < 0 ? error_name(errno) : "ok");
	if (result > 2)
		close((int)result);
}

static void paths(const char *which, const char *path)
{
	char *arguments[] = {(char *)"x", NULL};

	show("open", which, syscall(SYS_open, path, O_RDONLY));
	show("openat", which, syscall(SYS_openat, AT_FDCWD, path, O_RDONLY));
	show("creat", which, syscall(SYS_creat, path, 0644));
	show("unlink", which, syscall(SYS_unlink, path));
	show("rename", which, syscall(SYS_rename, path, "other"));
	show("rename to", which, syscall(SYS_rename, "missing", path));
	show("link", which, syscall(SYS_link, path, "other"));
	show("symlink", which, syscall(SYS_symlink, path, "/missing/link"));
	show("mkdir", which, syscall(SYS_mkdir, path, 0755));
	show("rmdir", which, syscall(SYS_rmdir, path));
	show("truncate", which, syscall(SYS_truncate, path, 0L));
	show("chmod", which, syscall(SYS_chmod, path, 0644));
	show("chown", which, syscall(SYS_chown, path, -1, -1));
	show("execve", which, syscall(SYS_execve, path, arguments, NULL));
}

static void addresses(void)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "missing"};
	struct sockaddr_in inet = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_storage big = {.ss_family = AF_INET};
	struct {
		const char *which;
		const void *address;
		unsigned length;
	} cases[] = {
		{"NULL", NULL, sizeof(name)},
		{"kernel", (void *)0xffffffff81000000UL, sizeof(name)},
		{"past the edge", edge - 4, sizeof(name)},
		{"empty", &name, 0},
		{"one byte", &name, 1},
		{"family only", &name, 2},
		{"short inet", &inet, 4},
		{"huge", &big, 0xffffffffu},
		{"too long", &big, sizeof(big) + 1},
		{"unix", &name, sizeof(name)},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		show("connect", cases[i].which, syscall(SYS_connect, stream, cases[i].address, cases[i].length));
		show("bind", cases[i].which, syscall(SYS_bind, -1, cases[i].address, cases[i].length));
		show("sendto", cases[i].which,
		     syscall(SYS_sendto, stream, "x", 1L, MSG_NOSIGNAL, cases[i].address, cases[i].length));
	}
	show("sendmsg", "NULL", syscall(SYS_sendmsg, stream, NULL, MSG_NOSIGNAL));
	show("sendmsg", "edge", syscall(SYS_sendmsg, stream, edge - 8, MSG_NOSIGNAL));
	show("sendmmsg", "NULL", syscall(SYS_sendmmsg, stream, NULL, 2, MSG_NOSIGNAL));
}

static void structures(void)
{
	struct {
		struct open_how how;
		uint64_t more;
	} longer = {.how.flags = O_RDONLY, .more = 0};
	char *missing[] = {(char *)8, NULL};

	show("openat2", "how NULL", syscall(SYS_openat2, AT_FDCWD, "f", NULL, sizeof(struct open_how)));
	show("openat2", "how edge", syscall(SYS_openat2, AT_FDCWD, "f", edge - 8, sizeof(struct open_how)));
	show("openat2", "size 0", syscall(SYS_openat2, AT_FDCWD, "f", &longer, 0L));
	show("openat2", "size 23", syscall(SYS_openat2, AT_FDCWD, "f", &longer, 23L));
	show("openat2", "size 32", syscall(SYS_openat2, AT_FDCWD, "f", &longer, sizeof(longer)));
	longer.more = 1;
	show("openat2", "size 32, not zero", syscall(SYS_openat2, AT_FDCWD, "f", &longer, sizeof(longer)));
	show("openat2", "size 0xffffffff", syscall(SYS_openat2, AT_FDCWD, "f", &longer, 0xffffffffL));
	show("openat2", "size -1", syscall(SYS_openat2, AT_FDCWD, "f", &longer, -1L));
	longer.more = 0;
	longer.how.flags = 1ULL << 40;
	show("openat2", "flag 40", syscall(SYS_openat2, AT_FDCWD, "f", &longer.how, sizeof(longer.how)));
	longer.how = (struct open_how){.flags = O_RDONLY, .mode = 0644};
	show("openat2", "mode without creat", syscall(SYS_openat2, AT_FDCWD, "f", &longer.how, sizeof(longer.how)));
	longer.how = (struct open_how){.flags = O_RDONLY, .resolve = 1ULL << 40};
	show("openat2", "resolve 40", syscall(SYS_openat2, AT_FDCWD, "f", &longer.how, sizeof(longer.how)));

	show("utimensat", "times", syscall(SYS_utimensat, AT_FDCWD, "f", (void *)8, 0));
	show("utimensat", "edge", syscall(SYS_utimensat, AT_FDCWD, "f", edge - 8, 0));
	show("setxattr", "name", syscall(SYS_setxattr, "f", (void *)8, "x", 1L, 0));
	show("setxattr", "value", syscall(SYS_setxattr, "f", "user.x", (void *)8, 1L, 0));
	show("setxattr", "size", syscall(SYS_setxattr, "f", "user.x", "x", 0xffffffffL, 0));

	show("execve", "argv", syscall(SYS_execve, "/bin/true", (void *)8, NULL));
	show("execve", "argv[0]", syscall(SYS_execve, "/bin/true", missing, NULL));
	show("execve", "envp", syscall(SYS_execve, "/bin/true", missing + 1, (void *)8));
}

int main(int argc, char **argv)
{
	static char longest[PATH_MAX + 2];
	char *map;

	if (argc != 2 || chdir(argv[1]))
		broken("usage: memory DIRECTORY");
	setvbuf(stdout, NULL, _IOLBF, 0);
	page_size = (size_t)sysconf(_SC_PAGESIZE);
	map = mmap(NULL, 8 * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED || munmap(map + 4 * page_size, 4 * page_size))
		broken("mmap");
	edge = map + 4 * page_size;
	stream = socket(AF_UNIX, SOCK_STREAM, 0);
	if (stream < 0)
		broken("socket");

	memset(longest, 'x', sizeof(longest) - 1);
	paths("NULL", NULL);
	paths("one", (char *)1);
	paths("kernel", (char *)0xffffffff81000000UL);
	paths("not canonical", (char *)0x8000000000000000UL);
	paths("unmapped", edge);
	paths("ends at the edge", at_edge("missing/name", 12, 1));
	paths("no end before the edge", at_edge("missing/name", 12, 0));
	paths("crosses a page", strcpy(map + page_size - 5, "missing/name"));
	paths("PATH_MAX with NUL", at_edge(longest, PATH_MAX - 1, 1));
	paths("PATH_MAX without NUL", at_edge(longest, PATH_MAX, 0));
	paths("longer", at_edge(longest, PATH_MAX + 1, 1));
	paths("long component", at_edge(longest, 256, 1));
	paths("empty", "");
	paths("not UTF-8", "missing\xff\xfe/\x80");
	paths("escapes", "missing\n\x1b[31m\r/\x07");
	structures();
	addresses();
	return 0;
}
