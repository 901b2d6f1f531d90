/* Times system calls: `calls NAME COUNT DIRECTORY PORT` prints microseconds a call. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;
static int port;

static int getppid_call(void) { return (int)syscall(SYS_getppid) < 0; }

static int stat_call(void)
{
    struct stat st;
    return stat("file", &st);
}

static int open_call(void)
{
    int fd = open("file", O_RDONLY);
    return fd < 0 || close(fd);
}

static int denied_call(void)
{
    int fd = open("denied", O_RDONLY);
    return fd >= 0 && close(fd);
}

static int create_call(void)
{
    int fd = open("new", O_WRONLY | O_CREAT | O_EXCL, 0600);
    return fd < 0 || close(fd) || unlink("new");
}

static int connect_call(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) || close(fd);
}

static int spawn(const char *path)
{
    pid_t pid;
    char *argv[] = {"true", NULL};
    int status;
    return posix_spawn(&pid, path, NULL, NULL, argv, environ) || waitpid(pid, &status, 0) < 0 || status;
}

static int spawn_call(void) { return spawn("/bin/true"); }

static int spawn_static_call(void) { return spawn("./static"); }

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*call)(void);
    } calls[] = {{"getppid", getppid_call}, {"stat", stat_call},       {"open", open_call},  {"open denied", denied_call},
                 {"create", create_call},   {"connect", connect_call}, {"spawn", spawn_call},
                 {"spawn static", spawn_static_call}};
    if (argc != 5 || chdir(argv[3]))
        return 2;
    long count = atol(argv[2]);
    port = atoi(argv[4]);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        if (strcmp(calls[i].name, argv[1]))
            continue;
        struct timespec from, to;
        clock_gettime(CLOCK_MONOTONIC, &from);
        for (long n = 0; n < count; n++)
            if (calls[i].call()) {
                perror(argv[1]);
                return 1;
            }
        clock_gettime(CLOCK_MONOTONIC, &to);
        double seconds = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) * 1e-9;
        printf("%.3f\n", seconds / (double)count * 1e6);
        return 0;
    }
    return 2;
}
