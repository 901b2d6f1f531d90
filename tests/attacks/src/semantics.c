/*
 * semantics SECTION: file calls of one kind, in an empty working directory; prints "NAME: RESULT".
 *
 * The output must be the same bare and under a policy that restricts nothing, so it holds no number that
 * differs from run to run.
 */
#include "attacker.h"

#include <limits.h>
#include <linux/openat2.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <sys/xattr.h>

static void show(const char *name, long result)
{
	int failure = errno;

	printf("%s: %s\n", name, result < 0 ? error_name(failure) : "ok");
	if (result > 2)
		close((int)result);
}

/* Show the kind, mode, size and links of a name, without following it. */
static void look(const char *name)
{
	struct stat found;

	if (lstat(name, &found))
		printf("%s is: %s\n", name, error_name(errno));
	else
		printf("%s is: %o, %ld bytes, %ld links\n", name, (unsigned)found.st_mode,
		       S_ISDIR(found.st_mode) ? 0L : (long)found.st_size, (long)found.st_nlink);
}

static void put(const char *name, const char *text)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		broken(name);
	close(fd);
}

#define OPEN(name, flags, mode) show("open " name " " #flags " " #mode, open(name, flags, mode))

static void modes(void)
{
	static const int masks[] = {0, 022, 027, 077, 0777};
	static const int wanted[] = {0, 0444, 0600, 0644, 0755, 0777, 01777, 02755, 04755, 07777};
	char name[64];

	for (size_t i = 0; i < sizeof(masks) / sizeof(masks[0]); i++) {
		umask((mode_t)masks[i]);
		for (size_t j = 0; j < sizeof(wanted) / sizeof(wanted[0]); j++) {
			snprintf(name, sizeof(name), "mode-%o-%o", (unsigned)masks[i], (unsigned)wanted[j]);
			show(name, open(name, O_CREAT | O_EXCL | O_RDWR, wanted[j]));
			look(name);
			unlink(name);
			show(name, creat(name, (mode_t)wanted[j]));
			look(name);
			unlink(name);
			show(name, mkdir(name, (mode_t)wanted[j]));
			look(name);
			rmdir(name);
			show(name, mknod(name, S_IFIFO | (mode_t)wanted[j], 0));
			look(name);
			unlink(name);
		}
	}
	umask(022);
}

/* What every section starts with. */
static void scene(void)
{
	put("file", "content");
	mkdir("dir", 0755);
	put("dir/inner", "inner");
	if (symlink("file", "link") || symlink("dir", "dirlink") || symlink("missing", "dangling") ||
	    symlink("loop", "loop") || symlink("loop2/x", "loop1") || symlink("loop1", "loop2"))
		broken("symlink");
}

static void open_flags(void)
{
	int fd;

	OPEN("file", O_RDONLY, 0);
	OPEN("file", O_RDONLY | O_EXCL, 0);
	OPEN("file", O_CREAT | O_EXCL | O_RDWR, 0600);
	OPEN("file", O_CREAT | O_RDWR, 0600);
	OPEN("file", O_DIRECTORY, 0);
	OPEN("file", O_NOFOLLOW, 0);
	OPEN("file/", O_RDONLY, 0);
	OPEN("file/.", O_RDONLY, 0);
	OPEN("file/x", O_RDONLY, 0);
	OPEN("file/x", O_CREAT | O_RDWR, 0600);
	OPEN("file", O_ACCMODE, 0);
	OPEN("file", O_RDONLY | O_TRUNC, 0);
	look("file");
	OPEN("dir", O_RDONLY, 0);
	OPEN("dir", O_RDWR, 0);
	OPEN("dir", O_CREAT, 0600);
	OPEN("dir", O_CREAT | O_RDWR, 0600);
	OPEN("dir", O_CREAT | O_EXCL, 0600);
	OPEN("dir", O_CREAT | O_DIRECTORY, 0600);
	OPEN("dir", O_RDONLY | O_TRUNC, 0);
	OPEN("dir/", O_RDONLY, 0);
	OPEN("dir/", O_CREAT, 0600);
	OPEN("dir/.", O_RDONLY, 0);
	OPEN("dir/..", O_RDONLY, 0);
	OPEN("dir/.", O_CREAT, 0600);
	OPEN("new/", O_CREAT | O_RDWR, 0600);
	OPEN("new/", O_RDONLY, 0);
	OPEN("new/x", O_CREAT | O_RDWR, 0600);
	OPEN("link", O_RDONLY, 0);
	OPEN("link", O_NOFOLLOW, 0);
	OPEN("link", O_NOFOLLOW | O_PATH, 0);
	OPEN("link", O_CREAT | O_NOFOLLOW, 0600);
	OPEN("link", O_CREAT | O_EXCL, 0600);
	OPEN("link", O_DIRECTORY, 0);
	OPEN("link/", O_RDONLY, 0);
	OPEN("dirlink", O_NOFOLLOW, 0);
	OPEN("dirlink", O_NOFOLLOW | O_DIRECTORY, 0);
	OPEN("dirlink/", O_NOFOLLOW, 0);
	OPEN("dirlink/inner", O_NOFOLLOW, 0);
	OPEN("dangling", O_RDONLY, 0);
	OPEN("dangling", O_CREAT | O_EXCL, 0600);
	OPEN("dangling", O_CREAT | O_NOFOLLOW, 0600);
	OPEN("dangling/", O_CREAT, 0600);
	look("missing");
	OPEN("dangling", O_CREAT | O_RDWR, 0640);
	look("missing");
	look("dangling");
	OPEN("loop", O_RDONLY, 0);
	OPEN("loop", O_CREAT, 0600);
	OPEN("loop", O_PATH | O_NOFOLLOW, 0);
	OPEN("loop/x", O_RDONLY, 0);
	OPEN("loop1", O_RDONLY, 0);
	OPEN("", O_RDONLY, 0);
	OPEN("", O_CREAT, 0600);
	OPEN("/", O_RDONLY, 0);
	OPEN("/", O_RDWR, 0);
	OPEN("/", O_CREAT, 0600);
	OPEN("//", O_RDONLY, 0);
	OPEN(".", O_TMPFILE | O_RDWR, 0600);
	OPEN(".", O_TMPFILE | O_RDONLY, 0600);
	OPEN("file", O_TMPFILE | O_RDWR, 0600);
	OPEN("nowhere", O_TMPFILE | O_RDWR, 0600);
	OPEN("/dev/null", O_RDWR, 0);
	OPEN("/dev/null", O_CREAT | O_TRUNC | O_WRONLY, 0600);
	OPEN("/dev/tty", O_RDWR, 0);
	OPEN("/proc/self/mem", O_RDONLY, 0);
	OPEN("/proc/self/fd/99", O_RDONLY, 0);
	OPEN("/proc/self/nothing", O_RDONLY, 0);
	OPEN("/proc/self/status", O_CREAT | O_RDONLY, 0600);
	OPEN("/proc/0/status", O_RDONLY, 0);
	OPEN("/dev/fd/0/x", O_RDONLY, 0);

	fd = open(".", O_TMPFILE | O_RDWR, 0640);
	if (fd >= 0) {
		char name[64];

		snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
		show("link of a temporary file", linkat(AT_FDCWD, name, AT_FDCWD, "born", AT_SYMLINK_FOLLOW));
		look("born");
		close(fd);
	}
	fd = open(".", O_TMPFILE | O_RDWR | O_EXCL, 0640);
	if (fd >= 0) {
		char name[64];

		snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
		show("link of an exclusive one", linkat(AT_FDCWD, name, AT_FDCWD, "stillborn", AT_SYMLINK_FOLLOW));
		close(fd);
	}
}

static void descriptors(void)
{
	int fd, other, path, flags;
	char name[64], text[16] = "";
	struct rlimit limit, small = {3, 3};

	fd = open("file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	printf("close on exec: %d\n", fcntl(fd, F_GETFD));
	other = open("file", O_RDWR | O_APPEND | O_NONBLOCK);
	flags = fcntl(other, F_GETFL);
	printf("not on exec: %d, append %d, nonblock %d, large %d\n", fcntl(other, F_GETFD),
	       !!(flags & O_APPEND), !!(flags & O_NONBLOCK), !!(flags & O_LARGEFILE));
	printf("lowest number: %d\n", other - fd);
	if (write(other, "more", 4) != 4)
		broken("write");
	printf("offset of the other: %ld\n", (long)lseek(fd, 0, SEEK_CUR));
	close(fd);
	fd = open("file", O_RDONLY);
	show("write to a readable one", write(fd, "x", 1));
	path = open("file", O_PATH);
	show("read of a path", read(path, text, 1));
	show("fchmod of a path", fchmod(path, 0600));
	snprintf(name, sizeof(name), "/proc/self/fd/%d", path);
	show("reopen to write", open(name, O_RDWR));
	show("reopen with O_NOFOLLOW", open(name, O_RDWR | O_NOFOLLOW));
	show("reopen as a directory", open(name, O_DIRECTORY));
	show("below a file", openat(path, "x", O_RDONLY));
	show("closed number", openat(77, "file", O_RDONLY));
	show("closed number, absolute name", openat(77, "/dev/null", O_RDONLY));
	show("negative number", openat(-5, "file", O_RDONLY));
	if (unlink("file"))
		broken("unlink");
	snprintf(name, sizeof(name), "/proc/self/fd/%d", other);
	show("reopen of a deleted file", open(name, O_RDWR));
	show("its name with (deleted)", open("file (deleted)", O_RDWR));
	close(fd);
	close(other);
	close(path);

	getrlimit(RLIMIT_NOFILE, &limit);
	small.rlim_max = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &small);
	show("no number left", open("file", O_CREAT | O_RDWR, 0600));
	show("no number left, missing", open("missing/x", O_RDONLY));
	show("no number left, bad flags", open("dir", O_RDWR));
	setrlimit(RLIMIT_NOFILE, &limit);
	look("file");
}

static void how(const char *name, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve)
{
	struct open_how value = {flags, mode, resolve};

	show(name, syscall(SYS_openat2, AT_FDCWD, path, &value, sizeof(value)));
}

static void openat2_flags(void)
{
	put("file", "content");
	how("openat2", "file", O_RDONLY, 0, 0);
	how("openat2 beneath", "file", O_RDONLY, 0, RESOLVE_BENEATH);
	how("openat2 beneath, dots", "dir/../file", O_RDONLY, 0, RESOLVE_BENEATH);
	how("openat2 beneath, up", "../x", O_RDONLY, 0, RESOLVE_BENEATH);
	how("openat2 beneath, absolute", "/dev/null", O_RDONLY, 0, RESOLVE_BENEATH);
	how("openat2 in root, absolute", "/file", O_RDONLY, 0, RESOLVE_IN_ROOT);
	how("openat2 in root, up", "../../file", O_RDONLY, 0, RESOLVE_IN_ROOT);
	how("openat2 both", "file", O_RDONLY, 0, RESOLVE_IN_ROOT | RESOLVE_BENEATH);
	how("openat2 no links", "link", O_RDONLY, 0, RESOLVE_NO_SYMLINKS);
	how("openat2 no links, above", "dirlink/inner", O_RDONLY, 0, RESOLVE_NO_SYMLINKS);
	how("openat2 no magic links", "/proc/self/cwd/file", O_RDONLY, 0, RESOLVE_NO_MAGICLINKS);
	how("openat2 no crossing", "/dev/null", O_RDONLY, 0, RESOLVE_NO_XDEV);
	how("openat2 create", "made", O_CREAT | O_RDWR, 0604, 0);
	look("made");
	how("openat2 mode too large", "made", O_CREAT | O_RDWR, 0100644, 0);
	how("openat2 mode alone", "made", O_RDWR, 0644, 0);
	how("openat2 unknown flag", "made", 1u << 30, 0, 0);
	how("openat2 tmpfile and directory", "made", O_TMPFILE | O_CREAT, 0600, 0);
	unlink("made");
}

static void names(void)
{
	put("a", "a");
	put("b", "bb");
	mkdir("full", 0755);
	put("full/x", "x");
	mkdir("empty", 0755);
	mkdir("empty2", 0755);

	show("rename", rename("a", "c"));
	show("rename missing", rename("a", "d"));
	show("rename onto a file", rename("b", "c"));
	look("c");
	show("rename onto itself", rename("c", "c"));
	if (link("c", "c2"))
		broken("link");
	show("rename onto its other link", rename("c", "c2"));
	look("c");
	look("c2");
	show("rename file onto directory", rename("c", "empty"));
	show("rename directory onto file", rename("empty", "c"));
	show("rename directory onto empty", rename("empty", "empty2"));
	show("rename directory onto full", rename("empty2", "full"));
	show("rename into itself", rename("full", "full/inside"));
	show("rename onto its parent", rename("full/x", "full"));
	show("rename dot", rename("full/.", "y"));
	show("rename dots", rename("full/..", "y"));
	show("rename to dot", rename("full", "."));
	show("rename file with slash", rename("c/", "y"));
	show("rename file to slash", rename("c", "y/"));
	show("rename directory to slash", rename("full", "y/"));
	show("rename directory with slash", rename("y/", "full"));
	show("rename empty name", rename("", "y"));
	show("rename to empty name", rename("c", ""));
	show("rename below a file", rename("c", "c2/y"));
	show("rename across devices", rename("c", "/proc/self/y"));
	show("rename root", rename("/", "y"));
	show("rename link", rename("link", "link2"));
	look("link2");
	show("rename link back", rename("link2", "link"));
	show("rename dangling", rename("dangling", "dangling2"));
	show("rename NOREPLACE", syscall(SYS_renameat2, AT_FDCWD, "c", AT_FDCWD, "c2", 1));
	show("rename NOREPLACE, free", syscall(SYS_renameat2, AT_FDCWD, "c", AT_FDCWD, "c3", 1));
	show("rename EXCHANGE", syscall(SYS_renameat2, AT_FDCWD, "c3", AT_FDCWD, "full", 2));
	look("c3");
	show("rename EXCHANGE back", syscall(SYS_renameat2, AT_FDCWD, "c3", AT_FDCWD, "full", 2));
	show("rename EXCHANGE missing", syscall(SYS_renameat2, AT_FDCWD, "c3", AT_FDCWD, "none", 2));
	show("rename EXCHANGE itself", syscall(SYS_renameat2, AT_FDCWD, "c3", AT_FDCWD, "c3", 2));
	show("rename EXCHANGE with below", syscall(SYS_renameat2, AT_FDCWD, "full", AT_FDCWD, "full/x", 2));
	show("rename both flags", syscall(SYS_renameat2, AT_FDCWD, "c3", AT_FDCWD, "c4", 3));
	show("rename unknown flag", syscall(SYS_renameat2, AT_FDCWD, "c3", AT_FDCWD, "c4", 64));

	show("link", link("c3", "c5"));
	look("c5");
	show("link onto existing", link("c3", "c5"));
	show("link of missing", link("none", "c6"));
	show("link of directory", link("full", "c6"));
	show("link of link", link("link", "c6"));
	look("c6");
	show("link followed", linkat(AT_FDCWD, "dirlink", AT_FDCWD, "c7", AT_SYMLINK_FOLLOW));
	show("link to slash", link("c3", "c7/"));
	show("link across devices", link("/proc/version", "c7"));
	show("link unknown flag", linkat(AT_FDCWD, "c3", AT_FDCWD, "c7", 0x10));
	show("link of empty path", linkat(AT_FDCWD, "", AT_FDCWD, "c7", AT_EMPTY_PATH));

	show("symlink", symlink("target", "s"));
	look("s");
	show("symlink onto existing", symlink("target", "s"));
	show("symlink onto dangling", symlink("target", "dangling2"));
	show("symlink empty", symlink("", "s2"));
	show("symlink at empty", symlink("target", ""));
	show("symlink at slash", symlink("target", "s2/"));
	show("symlink below missing", symlink("target", "none/s2"));

	show("mkdir", mkdir("m", 0755));
	show("mkdir existing", mkdir("m", 0755));
	show("mkdir onto file", mkdir("c3", 0755));
	show("mkdir with slash", mkdir("m2/", 0755));
	show("mkdir onto dangling", mkdir("dangling2", 0755));
	show("mkdir dot", mkdir("m/.", 0755));
	show("mkdir dots", mkdir("m/..", 0755));
	show("mkdir root", mkdir("/", 0755));
	show("mkdir below missing", mkdir("none/m", 0755));
	show("mkdir below file", mkdir("c3/m", 0755));
	show("mkdir empty", mkdir("", 0755));

	show("rmdir full", rmdir("full"));
	show("rmdir file", rmdir("c3"));
	show("rmdir missing", rmdir("none"));
	show("rmdir dot", rmdir("m/."));
	show("rmdir dots", rmdir("m/.."));
	show("rmdir link", rmdir("dirlink"));
	show("rmdir link with slash", rmdir("dirlink/"));
	show("rmdir root", rmdir("/"));
	show("rmdir with slash", rmdir("m2/"));
	show("rmdir", rmdir("m"));

	show("unlink directory", unlink("full"));
	show("unlink with slash", unlink("c3/"));
	show("unlink missing", unlink("none"));
	show("unlink missing with slash", unlink("none/"));
	show("unlink dot", unlink("full/."));
	show("unlink root", unlink("/"));
	show("unlink link", unlink("s"));
	show("unlink link with slash", unlink("dirlink/"));
	show("unlinkat directory", unlinkat(AT_FDCWD, "empty2", AT_REMOVEDIR));
	show("unlinkat unknown flag", unlinkat(AT_FDCWD, "c3", 0x1000));
	show("unlink proc", unlink("/proc/self/status"));

	show("mknod regular", mknod("n", S_IFREG | 0640, 0));
	show("mknod no kind", mknod("n2", 0640, 0));
	show("mknod directory", mknod("n3", S_IFDIR | 0755, 0));
	show("mknod link", mknod("n3", S_IFLNK | 0755, 0));
	show("mknod nonsense", mknod("n3", 0170000, 0));
	show("mknod socket", mknod("n4", S_IFSOCK | 0600, 0));
	show("mknod existing", mknod("n", S_IFREG | 0640, 0));
	look("n4");

	show("truncate", truncate("c3", 100));
	look("c3");
	show("truncate negative", truncate("c3", -1));
	show("truncate directory", truncate("full", 0));
	show("truncate missing", truncate("none", 0));
	show("truncate fifo", mknod("fifo", S_IFIFO | 0600, 0) ? -1 : truncate("fifo", 0));
	show("truncate through link", symlink("c3", "t") ? -1 : truncate("t", 1));
	look("c3");
}

static void metadata(void)
{
	static const struct timespec given[2] = {{1000, 5}, {2000, 7}};
	static const struct timespec now[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
	static const struct timespec wrong[2] = {{0, 1000000000}, {0, 0}};
	static const struct timeval bad[2] = {{0, 1000000}, {0, 0}};
	struct stat found;

	put("m", "m");
	if (symlink("m", "ml"))
		broken("symlink");
	show("chmod through link", chmod("ml", 0601));
	look("m");
	look("ml");
	show("chmod of a link", fchmodat(AT_FDCWD, "ml", 0600, AT_SYMLINK_NOFOLLOW));
	show("chmod dangling", chmod("dangling2", 0600));
	show("chmod missing", chmod("none", 0600));
	show("chmod bits", chmod("m", 07777));
	look("m");
	show("chmod with slash", chmod("m/", 0600));
	show("chmod proc", chmod("/proc/self/status", 0600));
	show("chmod unknown flag", syscall(452, AT_FDCWD, "m", 0600, 0x400000));
	show("chown to oneself", chown("m", getuid(), getgid()));
	look("m");
	show("chown nothing", chown("m", (uid_t)-1, (gid_t)-1));
	show("lchown", lchown("ml", getuid(), getgid()));
	show("fchownat unknown flag", fchownat(AT_FDCWD, "m", 0, 0, 0x400000));
	show("utimensat", utimensat(AT_FDCWD, "ml", given, 0));
	if (stat("m", &found) == 0)
		printf("times: %ld %ld %ld %ld\n", (long)found.st_atim.tv_sec, (long)found.st_atim.tv_nsec,
		       (long)found.st_mtim.tv_sec, (long)found.st_mtim.tv_nsec);
	show("utimensat of a link", utimensat(AT_FDCWD, "ml", given, AT_SYMLINK_NOFOLLOW));
	show("utimensat now, omit", utimensat(AT_FDCWD, "m", now, 0));
	if (stat("m", &found) == 0)
		printf("omitted: %ld, now later: %d\n", (long)found.st_mtim.tv_sec, found.st_atim.tv_sec > 2000);
	show("utimensat nanoseconds", utimensat(AT_FDCWD, "m", wrong, 0));
	show("utimensat unknown flag", utimensat(AT_FDCWD, "m", given, 0x400000));
	show("utimensat missing", utimensat(AT_FDCWD, "none", given, 0));
	show("utimes microseconds", utimes("m", bad));
	show("utimes NULL", utimes("m", NULL));
	show("setxattr", setxattr("m", "user.a", "value", 5, 0));
	show("setxattr again, create", setxattr("m", "user.a", "value", 5, XATTR_CREATE));
	show("setxattr other, replace", setxattr("m", "user.b", "value", 5, XATTR_REPLACE));
	show("setxattr no namespace", setxattr("m", "a", "value", 5, 0));
	show("setxattr unknown flag", setxattr("m", "user.a", "value", 5, 8));
	show("lsetxattr of a link", lsetxattr("ml", "user.a", "value", 5, 0));
	show("lsetxattr of a link, privileged", lsetxattr("ml", "trusted.a", "value", 5, 0));
	show("lsetxattr of a link, security", lsetxattr("ml", "security.a", "value", 5, 0));
	show("lsetxattr of a link, unknown namespace", lsetxattr("ml", "unknown.a", "value", 5, 0));
	show("lsetxattr of a link, again, create", lsetxattr("ml", "trusted.a", "value", 5, XATTR_CREATE));
	show("its target has none", removexattr("ml", "trusted.a"));
	show("the link has", lgetxattr("ml", "trusted.a", NULL, 0));
	show("lremovexattr of a link, user", lremovexattr("ml", "user.a"));
	show("lremovexattr of a link", lremovexattr("ml", "trusted.a"));
	show("lremovexattr of a link again", lremovexattr("ml", "trusted.a"));
	show("removexattr", removexattr("ml", "user.a"));
	show("removexattr again", removexattr("m", "user.a"));
	show("removexattr long name", removexattr("m",
		"user.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
}

/* In a directory whose own path is longer than PATH_MAX. */
static void deep(void)
{
	static char name[PATH_MAX];
	int top = open(".", O_RDONLY | O_DIRECTORY), bottom;

	memset(name, 'n', 200);
	for (int i = 0; i < 25; i++) {
		if (mkdir(name, 0755) || chdir(name))
			broken("going deep");
	}
	show("create below PATH_MAX", open("file", O_CREAT | O_RDWR, 0600));
	look("file");
	show("open there", open("file", O_RDONLY));
	show("rename there", rename("file", "file2"));
	show("mkdir there", mkdir("sub", 0755));
	show("rmdir there", rmdir("sub"));
	show("dots there", open("../../../../..", O_RDONLY | O_DIRECTORY));
	bottom = open(".", O_RDONLY | O_DIRECTORY);
	show("fchdir to the top", fchdir(top));
	show("openat deep", openat(bottom, "file2", O_RDONLY));
	show("unlinkat deep", unlinkat(bottom, "file2", 0));
	close(bottom);
	for (int i = 0; i < 25; i++)
		if (chdir(name))
			broken("going deep again");
	for (int i = 0; i < 25; i++)
		if (chdir("..") || rmdir(name))
			broken("coming back");
	close(top);
}

static void directories(void)
{
	static char name[PATH_MAX];
	int top = open(".", O_RDONLY | O_DIRECTORY);

	if (mkdir("gone", 0755) || chdir("gone") || rmdir("../gone"))
		broken("gone");
	show("open in a deleted directory", open("x", O_RDONLY));
	show("create in a deleted directory", open("x", O_CREAT | O_RDWR, 0600));
	show("mkdir in a deleted directory", mkdir("x", 0755));
	show("rename from a deleted directory", rename("x", "/y"));
	show("dot of a deleted directory", open(".", O_RDONLY));
	show("dots of a deleted directory", open("..", O_RDONLY));
	show("through dots of it", open("../file", O_RDONLY));
	show("absolute from there", open("/dev/null", O_RDONLY));
	show("temporary file there", open(".", O_TMPFILE | O_RDWR, 0600));
	if (fchdir(top))
		broken("fchdir");
	close(top);
	memset(name, '/', sizeof(name) - 1);
	show("slashes", open(name, O_RDONLY));
	memset(name, 'x', sizeof(name) - 1);
	show("a name too long", open(name, O_RDONLY));
	show("a name too long, to create", open(name, O_CREAT, 0600));
	name[255] = '\0';
	show("the longest name", open(name, O_CREAT | O_RDWR, 0600));
	show("unlink it", unlink(name));
	name[255] = 'x';
	name[256] = '\0';
	show("one more", open(name, O_CREAT | O_RDWR, 0600));
}

static void pipes(void)
{
	char text[8] = "";
	int fd, status;
	pid_t child;

	if (mkfifo("pipe", 0600))
		broken("mkfifo");
	show("write end, nobody there", open("pipe", O_WRONLY | O_NONBLOCK));
	show("read end, nobody there", open("pipe", O_RDONLY | O_NONBLOCK));
	show("both ends", open("pipe", O_RDWR));
	child = fork();
	if (child == 0) {
		fd = open("pipe", O_WRONLY);
		_exit(fd < 0 || write(fd, "through", 7) != 7);
	}
	fd = open("pipe", O_RDONLY);
	printf("through the pipe: %ld\n", (long)read(fd, text, sizeof(text) - 1));
	puts(text);
	waitpid(child, &status, 0);
	printf("its writer: %d\n", status);
	close(fd);
}

static const struct {
	const char *name;
	void (*run)(void);
} sections[] = {
	{"modes", modes},     {"open", open_flags},         {"descriptors", descriptors}, {"openat2", openat2_flags},
	{"names", names},     {"metadata", metadata},       {"directories", directories}, {"deep", deep},
	{"pipes", pipes},
};

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	umask(022);
	scene();
	for (size_t i = 0; argc == 2 && i < sizeof(sections) / sizeof(sections[0]); i++) {
		if (!strcmp(sections[i].name, argv[1])) {
			sections[i].run();
			return 0;
		}
	}
	errno = EINVAL;
	broken("usage: semantics SECTION");
}
