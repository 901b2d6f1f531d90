/*
 * race FLIPPER CALL TRIES SECONDS ALLOWED DENIED: make CALL again and again while its argument changes, TRIES
 * times, and further until both have been met; SECONDS at the most. (A busy machine may run the flipper late.)
 *
 * ALLOWED and DENIED are names of equal length that differ in one byte (for "connect": two ports). FLIPPER says
 * who changes the argument between the two:
 *   thread   a sibling thread writes the byte
 *   vm       a CLONE_VM child, so another thread group with the same memory
 *   shared   a forked child, through MAP_SHARED memory
 *   proc     a forked child, through /proc/PID/mem (where that can be opened)
 *   none     nobody in here: the name ALLOWED is fixed, and somebody outside changes what it leads to
 *   link     a forked child renames "DENIED" (a second link) and the fixed name ALLOWED into each other
 * CALL "dirfd" and "cwd" open the fixed name "f" below a directory that a thread swaps with dup2 or fchdir.
 *
 * Variables: VICTIM and UNDO are names of the denied and the allowed object that do not change; with UNTIL_WIN
 * the first win ends the race. Prints one JSON object. A "win" is an effect on the denied object, found by looking at the object itself.
 */
#include "racing.h"

#include <arpa/inet.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <sys/socket.h>

#define SECRET "SECRET"

struct page {
	char path[1024];
	struct open_how how;
	struct sockaddr_in address;
	volatile int stop;
};

static struct page *page;
static const char *allowed, *denied; /* the two spellings; never written to */
static size_t place;                 /* the byte in which they differ */
static char side[1100];              /* a second, allowed name */
static struct stat victim;           /* the denied object as it was */
static const char *secret_path;      /* the denied object, under its own name */
static const char *undo_path;        /* the allowed object, under its own name */
static int directories[2], racing_directory;

static long tries, successes, denials, refusals, others, wins;

static int flip_bytes(void *unused)
{
	volatile char *byte = &page->path[place];
	unsigned seed = (unsigned)time(NULL);

	(void)unused;
	while (!page->stop) {
		*byte = allowed[place];
		pause_a_little(&seed);
		*byte = denied[place];
		pause_a_little(&seed);
	}
	return 0;
}

static void *flip_in_thread(void *unused)
{
	flip_bytes(unused);
	return NULL;
}

static void *flip_port(void *unused)
{
	volatile uint16_t *port = &page->address.sin_port;
	uint16_t good = htons((uint16_t)atoi(allowed)), bad = htons((uint16_t)atoi(denied));
	unsigned seed = 1;

	while (!page->stop) {
		*port = good;
		pause_a_little(&seed);
		*port = bad;
		pause_a_little(&seed);
	}
	return unused;
}

static void *flip_how(void *unused)
{
	volatile __u64 *flags = &page->how.flags;
	unsigned seed = 1;

	while (!page->stop) {
		*flags = O_PATH | O_CLOEXEC;
		pause_a_little(&seed);
		*flags = O_RDWR | O_TRUNC;
		pause_a_little(&seed);
	}
	return unused;
}

static void *flip_directory(void *cwd)
{
	unsigned seed = 1;

	for (int turn = 0; !page->stop; turn ^= 1) {
		if (cwd ? fchdir(directories[turn]) : dup2(directories[turn], racing_directory) < 0)
			broken("swapping the directory");
		pause_a_little(&seed);
	}
	return cwd;
}

static void flip_through_proc(pid_t target)
{
	char name[64];
	unsigned seed = 1;
	int memory;

	snprintf(name, sizeof(name), "/proc/%d/mem", (int)target);
	memory = open(name, O_RDWR);
	if (memory < 0)
		_exit(0);
	for (;;) {
		off_t where = (off_t)(uintptr_t)&page->path[place];

		if (pwrite(memory, &allowed[place], 1, where) < 0)
			_exit(0);
		pause_a_little(&seed);
		if (pwrite(memory, &denied[place], 1, where) < 0)
			_exit(0);
		pause_a_little(&seed);
	}
}

static pid_t start_flipper(const char *kind)
{
	pid_t child = 0, self = getpid();

	if (!strcmp(kind, "thread")) {
		start_thread(flip_in_thread, NULL);
	} else if (!strcmp(kind, "vm")) {
		child = cloned(flip_bytes);
	} else if (!strcmp(kind, "shared")) {
		child = forked();
		if (child == 0)
			_exit(flip_bytes(NULL));
	} else if (!strcmp(kind, "proc")) {
		child = forked();
		if (child == 0)
			flip_through_proc(self);
	} else if (!strcmp(kind, "link")) {
		child = forked();
		if (child == 0)
			exchange(allowed, denied);
	}
	return child;
}

/* --- the calls: each makes one try, and says whether the denied object was reached -------------------- */

static int same_object(const struct stat *found)
{
	return found->st_ino == victim.st_ino && found->st_dev == victim.st_dev;
}

/* Whether a name exists; errno stays that of the call under test. */
static int exists(const char *name)
{
	int failure = errno;
	struct stat found;
	int answer = !lstat(name, &found);

	errno = failure;
	return answer;
}

static void make_file(const char *name)
{
	int fd = open(name, O_WRONLY | O_CREAT, 0644);

	if (fd < 0)
		broken(name);
	if (write(fd, "open", 4) != 4)
		broken("write");
	close(fd);
}

static int victim_changed(void)
{
	struct stat now;

	if (lstat(secret_path, &now))
		return 1;
	return !same_object(&now) || now.st_size != victim.st_size || now.st_mode != victim.st_mode ||
	       now.st_mtim.tv_sec != victim.st_mtim.tv_sec || now.st_nlink != victim.st_nlink;
}

static int is_secret(int fd)
{
	char text[sizeof(SECRET)] = "";
	struct stat found;

	if (fstat(fd, &found))
		broken("fstat");
	if (same_object(&found))
		return 1;
	return pread(fd, text, sizeof(text) - 1, 0) > 0 && !strcmp(text, SECRET);
}

static long opened(long fd, int *win)
{
	if (fd >= 0) {
		*win = is_secret((int)fd);
		close((int)fd);
	}
	return fd;
}

static long try_read(int *win)
{
	return opened(syscall(SYS_openat, AT_FDCWD, page->path, O_RDONLY), win);
}

static long try_open_legacy(int *win)
{
	return opened(syscall(SYS_open, page->path, O_RDWR), win);
}

static long try_truncating_open(int *win)
{
	return opened(syscall(SYS_openat, AT_FDCWD, page->path, O_RDWR | O_TRUNC), win);
}

static long try_openat2(int *win)
{
	page->how = (struct open_how){.flags = O_RDWR};
	return opened(syscall(SYS_openat2, AT_FDCWD, page->path, &page->how, sizeof(page->how)), win);
}

/* The path is fixed and denied; the flags flip between O_PATH and O_RDWR | O_TRUNC. */
static long try_how(int *win)
{
	long fd = syscall(SYS_openat2, AT_FDCWD, denied, &page->how, sizeof(page->how));

	if (fd >= 0 && !(fcntl((int)fd, F_GETFL) & O_PATH))
		*win = 1;
	if (fd >= 0)
		close((int)fd);
	return fd;
}

static long try_openat_directory(int *win)
{
	return opened(syscall(SYS_openat, racing_directory, "f", O_RDONLY), win);
}

static long try_open_cwd(int *win)
{
	return opened(syscall(SYS_openat, AT_FDCWD, "f", O_RDONLY), win);
}

static long try_create(int *win)
{
	long fd = syscall(SYS_openat, AT_FDCWD, page->path, O_RDWR | O_CREAT | O_EXCL, 0644);

	*win = exists(secret_path);
	if (fd >= 0) {
		close((int)fd);
		unlink(undo_path);
	}
	return fd;
}

static long try_mkdir(int *win)
{
	long result = syscall(SYS_mkdir, page->path, 0755);

	*win = exists(secret_path);
	if (result == 0)
		rmdir(allowed);
	return result;
}

static long try_symlink(int *win)
{
	long result = syscall(SYS_symlink, "anything", page->path);

	*win = exists(secret_path);
	if (result == 0)
		unlink(allowed);
	return result;
}

static long try_unlink(int *win)
{
	long result = syscall(SYS_unlink, page->path);

	*win = victim_changed();
	if (result == 0)
		make_file(undo_path);
	return result;
}

static long try_rename_from(int *win)
{
	long result = syscall(SYS_rename, page->path, side);

	*win = victim_changed();
	if (result == 0 && rename(side, allowed))
		broken("rename back");
	return result;
}

static long try_rename_onto(int *win)
{
	long result;

	make_file(side);
	result = syscall(SYS_rename, side, page->path);
	*win = victim_changed();
	return result;
}

static long try_link(int *win)
{
	long result = syscall(SYS_link, page->path, side);
	struct stat found;

	if (result == 0) {
		*win = !lstat(side, &found) && same_object(&found);
		unlink(side);
	}
	*win |= victim_changed();
	return result;
}

static long try_chmod(int *win)
{
	long result = syscall(SYS_chmod, page->path, 0604);

	*win = victim_changed();
	return result;
}

static long try_truncate(int *win)
{
	long result = syscall(SYS_truncate, page->path, 2L);

	*win = victim_changed();
	return result;
}

/* Attributes of the victim cannot be looked at from in here; that something was done to it can. */
static long try_setxattr(int *win)
{
	long result = syscall(SYS_setxattr, page->path, "user.mark", "x", 1L, 0);
	int failure = errno;
	struct stat now;

	*win = lstat(secret_path, &now) || now.st_ctim.tv_sec != victim.st_ctim.tv_sec ||
	       now.st_ctim.tv_nsec != victim.st_ctim.tv_nsec;
	errno = failure;
	return result;
}

static long try_utimensat(int *win)
{
	static const struct timespec times[2] = {{1000, 0}, {1000, 0}};
	long result = syscall(SYS_utimensat, AT_FDCWD, page->path, times, 0);

	*win = victim_changed();
	return result;
}

/* Wins of this one are counted by the server that must never be reached. */
static long try_connect(int *win)
{
	struct sockaddr_in peer;
	socklen_t length = sizeof(peer);
	struct linger reset = {1, 0};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	long result;

	if (fd < 0)
		broken("socket");
	result = syscall(SYS_connect, fd, &page->address, sizeof(page->address));
	if (result == 0) {
		if (getpeername(fd, (struct sockaddr *)&peer, &length))
			broken("getpeername");
		*win = ntohs(peer.sin_port) == atoi(denied);
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	}
	int failure = errno;
	close(fd);
	errno = failure;
	return result;
}

static const struct {
	const char *name;
	long (*attempt)(int *win);
} calls[] = {
	{"read", try_read},
	{"open", try_open_legacy},
	{"open-trunc", try_truncating_open},
	{"openat2", try_openat2},
	{"how", try_how},
	{"dirfd", try_openat_directory},
	{"cwd", try_open_cwd},
	{"create", try_create},
	{"mkdir", try_mkdir},
	{"symlink", try_symlink},
	{"unlink", try_unlink},
	{"rename-from", try_rename_from},
	{"rename-onto", try_rename_onto},
	{"link", try_link},
	{"chmod", try_chmod},
	{"truncate", try_truncate},
	{"utimensat", try_utimensat},
	{"setxattr", try_setxattr},
	{"connect", try_connect},
};

static void prepare_directories(const char *call)
{
	char name[1100];
	const char *names[2] = {allowed, denied};

	for (int i = 0; i < 2; i++) {
		char *slash;

		snprintf(name, sizeof(name), "%s", names[i]);
		slash = strrchr(name, '/');
		if (!slash)
			broken("no directory in the name");
		*slash = '\0';
		directories[i] = open(name, O_PATH | O_DIRECTORY);
		if (directories[i] < 0)
			broken(name);
	}
	racing_directory = dup(directories[0]);
	start_thread(flip_directory, !strcmp(call, "cwd") ? (void *)1 : NULL);
}

/* Whether the argument was seen both ways. Nobody can change it through /proc, if all is well. */
static int met_both(const char *flipper)
{
	return (successes + refusals && denials) || !strcmp(flipper, "proc");
}

static void run(long (*attempt)(int *win), const char *flipper, long limit, double seconds)
{
	double end = seconds_now() + seconds;
	int until_win = getenv("UNTIL_WIN") != NULL;

	while ((tries < limit || !met_both(flipper)) && !(until_win && wins && successes) && (tries % 16 || seconds_now() < end)) {
		int win = 0;
		long result;

		errno = 0;
		result = attempt(&win);
		tries++;
		wins += win;
		if (result >= 0)
			successes++;
		else if (errno == EACCES || errno == ECONNREFUSED)
			denials++;
		else if (errno == ENOSYS || errno == EPERM)
			refusals++;
		else
			others++;
	}
}

int main(int argc, char **argv)
{
	size_t chosen = 0, count = sizeof(calls) / sizeof(calls[0]);
	const char *call;
	pid_t child = 0;

	if (argc != 7) {
		errno = EINVAL;
		broken("usage: race FLIPPER CALL TRIES SECONDS ALLOWED DENIED");
	}
	call = argv[2];
	allowed = argv[5];
	denied = argv[6];
	while (chosen < count && strcmp(calls[chosen].name, call))
		chosen++;
	if (chosen == count || strlen(allowed) >= sizeof(page->path)) {
		errno = EINVAL;
		broken(call);
	}
	page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		broken("mmap");
	snprintf(page->path, sizeof(page->path), "%s", allowed);
	place = difference(allowed, denied);
	snprintf(side, sizeof(side), "%s.side", allowed);
	secret_path = getenv("VICTIM") ? getenv("VICTIM") : denied;
	undo_path = getenv("UNDO") ? getenv("UNDO") : allowed;
	page->address = (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)atoi(allowed)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	if (lstat(secret_path, &victim))
		memset(&victim, 0, sizeof(victim));

	if (!strcmp(call, "connect"))
		start_thread(flip_port, NULL);
	else if (!strcmp(call, "how"))
		start_thread(flip_how, NULL);
	else if (!strcmp(call, "dirfd") || !strcmp(call, "cwd"))
		prepare_directories(call);
	else
		child = start_flipper(argv[1]);

	run(calls[chosen].attempt, argv[1], atol(argv[3]), atof(argv[4]));

	page->stop = 1;
	if (child > 0)
		kill(child, SIGKILL);
	printf("{\"tries\": %ld, \"allowed\": %ld, \"denied\": %ld, \"refused\": %ld, \"other\": %ld, "
	       "\"wins\": %ld}\n",
	       tries, successes, denials, refusals, others, wins);
	return 0;
}
