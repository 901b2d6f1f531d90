/* Declarations for CFFI. Every function returns >= 0, or -errno. The contracts stand in rampart.h. */

typedef int pid_t;
typedef unsigned int mode_t;
typedef unsigned int uid_t;
typedef unsigned int gid_t;

/* listener.c */
struct rs_notification {
    uint64_t id;
    uint32_t pid;
    uint32_t flags;
    int32_t nr;
    uint32_t arch;
    uint64_t instruction_pointer;
    uint64_t args[6];
    int32_t error;
    uint32_t arrived;
};
int rs_notif_receive(int listener, struct rs_notification *out);
int rs_notif_valid(int listener, uint64_t id);
int rs_notif_reply(int listener, uint64_t id, int64_t value, int error);
int rs_notif_continue(int listener, uint64_t id);
int rs_notif_add_fd(int listener, uint64_t id, int fd, int cloexec, int send);

/* target.c */
int rs_target_open(pid_t tid);
int64_t rs_target_read(int target, pid_t tid, uint64_t address, char *buffer, size_t size);
int64_t rs_target_read_string(int target, pid_t tid, uint64_t address, char *buffer, size_t size);
int64_t rs_target_read_vector(int target, pid_t tid, uint64_t address, char *buffer, size_t size);
int rs_target_memory(int target);
int64_t rs_memory_write(int memory, uint64_t address, const char *buffer, size_t size);
int rs_target_base(int target, int dirfd);
int rs_target_copy_fd(int target, pid_t tid, int fd);
int rs_stat(pid_t pid, pid_t *parent, uint64_t *start);
int rs_in_tree(pid_t pid, pid_t launcher);

/* who.c */
#define RS_WHO_ROOM ...
int64_t rs_describe(pid_t pid, pid_t launcher, char *buffer, size_t size);

/* identity.c */
#define RS_GROUPS_MAX 1024
struct rs_identity {
    pid_t tgid, ppid;
    uid_t ruid, euid, suid, fsuid;
    gid_t rgid, egid, sgid, fsgid;
    mode_t umask;
    uint64_t cap_effective;
    uint64_t cap_inside;
    int elsewhere;
    uint32_t ngroups;
    gid_t groups[1024];
};
int rs_target_identity(int target, struct rs_identity *out);
int rs_thread_prepare(void);
int rs_interrupt_prepare(void);
int rs_interrupt(pid_t tid);
int rs_block_signals(void);
int rs_gettid(void);
int rs_nudge(int pidfd);

/* spaces.c */
int rs_user_space_covers(int target, pid_t pid);
int rs_open_within(const struct rs_identity *as, int target, int parent, const char *name, int flags);

/* resolve.c */
#define RS_FOLLOW 1
#define RS_PIN_MISSING 1
#define RS_PIN_SLASH 2
#define RS_PIN_MAGIC 4
#define RS_PIN_OUTSIDE 8
#define RS_PIN_NAMELESS 16
#define RS_PIN_DELETED 32
struct rs_pin {
    int object;
    int parent;
    uint32_t flags;
    mode_t mode;
    uint64_t dev, ino, rdev, nlink;
    pid_t process;
    char name[258];
};
int rs_resolve(int target, pid_t tid, pid_t launcher, const struct rs_identity *as, int base, const char *path,
               uint32_t flags, uint64_t resolve, struct rs_pin *out);
int rs_directory(int base, const char *path);
int rs_pin_fd(int target, pid_t launcher, int fd, struct rs_pin *out);
int rs_real_name(int fd, uint32_t *flags, char *buffer, size_t size);
int64_t rs_file_system(int fd);

/* files.c */
int rs_open(const struct rs_identity *as, int pin, int flags);
int rs_create(const struct rs_identity *as, int parent, const char *name, int flags, mode_t mode);
int rs_tmpfile(const struct rs_identity *as, int directory, int flags, mode_t mode);
int rs_unlink(const struct rs_identity *as, int parent, const char *name, int flags);
int rs_rename(const struct rs_identity *as, int old_parent, const char *old_name, int new_parent,
              const char *new_name, unsigned int flags);
int rs_link(const struct rs_identity *as, int pin, int parent, const char *name);
int rs_link_name(const struct rs_identity *as, int old_parent, const char *old_name, int parent,
                 const char *name);
int rs_symlink(const struct rs_identity *as, const char *text, int parent, const char *name);
int rs_mkdir(const struct rs_identity *as, int parent, const char *name, mode_t mode);
int rs_mknod(const struct rs_identity *as, int parent, const char *name, mode_t mode, uint64_t device);
int rs_truncate(const struct rs_identity *as, int pin, int64_t length);
int rs_chmod(const struct rs_identity *as, int pin, mode_t mode);
int rs_chown(const struct rs_identity *as, int pin, uid_t uid, gid_t gid);
int rs_utimens(const struct rs_identity *as, int pin, const int64_t *times);
int rs_setxattr(const struct rs_identity *as, int pin, const char *name, const char *value, size_t size,
                int flags);
int rs_removexattr(const struct rs_identity *as, int pin, const char *name);
int64_t rs_getxattr(const struct rs_identity *as, int pin, const char *name, char *value, size_t size);
int64_t rs_listxattr(const struct rs_identity *as, int pin, char *list, size_t size);

/* sockets.c */
int rs_connect(const struct rs_identity *as, int fd, const char *address, size_t size);
int rs_connect_briefly(const struct rs_identity *as, int fd, const char *address, size_t size);
int rs_bind(const struct rs_identity *as, int directory, int fd, const char *address, size_t size);
int rs_listen(const struct rs_identity *as, int fd, int backlog);
int64_t rs_send(const struct rs_identity *as, int fd, const char *address, size_t address_size,
                const char *data, size_t size, const char *control, size_t control_size, int flags);
int rs_raise_sigpipe(pid_t tgid, pid_t tid);

/* names.c */
struct rs_names;
int rs_names_new(struct rs_names **out);
void rs_names_free(struct rs_names *names);
int rs_names_hold(struct rs_names *names);
int rs_names_share(struct rs_names *names);
int rs_names_release(struct rs_names *names);

/* tables.c; the contracts stand in tables.h */
enum rs_operation { RS_READ, RS_CREATE, RS_MODIFY, RS_DELETE, RS_METADATA, RS_EXEC, RS_CONNECT, RS_LISTEN };
enum rs_answer { RS_DENY, RS_ALLOW, RS_UNDECIDED };
struct rs_verdict {
    enum rs_answer answer;
    int error;
    int log;
};
struct rs_tables;
struct rs_walker;
int rs_tables_load(const char *blob, size_t size, uint64_t serial, struct rs_tables **out);
void rs_tables_free(struct rs_tables *tables);
uint64_t rs_tables_serial(const struct rs_tables *tables);
int rs_walker_new(size_t memory, struct rs_walker **out);
void rs_walker_free(struct rs_walker *walker);
int rs_decide_path(const struct rs_tables *tables, struct rs_walker *walker, enum rs_operation operation,
                   const char *path, size_t length, struct rs_verdict *out);
int rs_alike(const struct rs_tables *tables, struct rs_walker *walker, const char *one, size_t one_length,
             const char *other, size_t other_length);
int rs_unwatched(const struct rs_tables *tables, struct rs_walker *walker, const char *path, size_t length);
struct rs_program_names {
    const char *path, *named, *argv0;
};
int rs_plants(const struct rs_tables *tables, struct rs_walker *walker, const char *variables, size_t size);
int rs_decide_exec(const struct rs_tables *tables, struct rs_walker *walker, const struct rs_program_names *names,
                   int plants, struct rs_verdict *out);
int rs_decide_address(const struct rs_tables *tables, enum rs_operation operation, const unsigned char *address,
                      size_t length, unsigned port, struct rs_verdict *out);

/* journal.c */
#define RS_RECORD_ALLOWED 1
#define RS_RECORD_DATAGRAM 2
struct rs_record {
    uint32_t size;
    uint32_t path, who;
    uint32_t flags;
    uint64_t sequence;
    uint64_t serial;
    uint64_t began, held;
    int32_t tid, tgid, nr, error;
    uint32_t operation, port;
};
#define RS_RECORD_ROOM ...

/* engine.c */
#define RS_RECORD_ALL 1
#define RS_RECORD_REQUIRED 2
#define RS_RECORD_LOGGED 4
struct rs_numbers {
    int32_t open, openat, creat, unlink, unlinkat, rmdir, mkdir, mkdirat, rename, renameat, renameat2, symlink, symlinkat, connect, sendto, sendmsg, execve, execveat;
    int32_t chmod, fchmod, fchmodat, fchmodat2, chown, lchown, fchown, fchownat, utimensat;
    int32_t setxattr, lsetxattr, fsetxattr, removexattr, lremovexattr, fremovexattr;
    int32_t setuid, setgid, setreuid, setregid, setresuid, setresgid, setfsuid, setfsgid, setgroups, capset, prctl, umask;
    int32_t clone, unshare;
};
struct rs_engine;
int rs_engine_new(int listener, pid_t launcher, pid_t member, struct rs_names *names,
                  const struct rs_numbers *numbers, struct rs_engine **out);
int rs_engine_start(struct rs_engine *engine, unsigned threads);
int rs_engine_decide(struct rs_engine *engine, struct rs_tables *tables, uint32_t flags);
void rs_engine_forget(struct rs_engine *engine, int blind);
struct rs_file {
    uint64_t dev, ino;
};
#define RS_LANDED_ROOM ...
int rs_engine_trace(struct rs_engine *engine, int channel, int launcher, const struct rs_file *loaders, size_t count);
void rs_engine_traces(struct rs_engine *engine);
int rs_engine_claim(struct rs_engine *engine, pid_t tgid);
void rs_engine_unclaim(struct rs_engine *engine, pid_t tgid);
int64_t rs_engine_landed(struct rs_engine *engine, char *buffer, size_t size);
int rs_engine_fd(const struct rs_engine *engine);
int rs_engine_question(struct rs_engine *engine, struct rs_notification *out);
int64_t rs_engine_records(struct rs_engine *engine, int others, char *buffer, size_t size);
uint64_t rs_engine_unrecorded(struct rs_engine *engine);
uint64_t rs_engine_number(struct rs_engine *engine);
void rs_engine_counts(const struct rs_engine *engine, uint64_t *answered, uint64_t *asked);
int rs_engine_depart(struct rs_engine *engine, const struct rs_notification *n, int fd, const char *address, size_t size);
int rs_engine_stop(struct rs_engine *engine);
void rs_engine_free(struct rs_engine *engine);
void rs_engine_forsake(struct rs_engine *engine);
