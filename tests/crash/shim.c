/* Counts what a worker tells the kernel, and kills or stops it at the call that a test names.
 *
 * Loaded with LD_PRELOAD into the zygote (shimmed.py); idle until a forked child calls shim_arm or shim_trace. A call
 * is counted where its file is the database, its WAL, the ledger, another file of the outbox, a folder, or the
 * connection to the relay or to PostgreSQL; what asyncio tells itself and what is logged is not. Its label is the region
 * of the attempt (what was last written to the relay), its number there, the call, and the kind of file: "DATA 7
 * fdatasync wal". What begins a writing transaction on PostgreSQL is the call "lock", as SQLite's write lock is, and
 * what ends it "commit": "body 9 commit server".
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static int is_armed, log_fd = -1, trace_fd = -1;
static char folder[PATH_MAX], watched_sender[256], wanted_region[16], wanted_call[16];
static size_t folder_length;
static int wanted_number, wanted_after, wanted_signal; /* signal 0: only count */
static char region[16] = "start";
static int is_watched, number;

/* Region "any" counts from the start to the end, whatever is said to the relay; with a call named, that call alone. */
void shim_arm(const char *in, const char *at_region, int at_number, const char *call, int after, int signal_number,
              const char *sender, const char *log)
{
    folder_length = (size_t)snprintf(folder, sizeof folder, "%s/", in);
    snprintf(wanted_region, sizeof wanted_region, "%s", at_region);
    snprintf(watched_sender, sizeof watched_sender, "%s", sender);
    snprintf(wanted_call, sizeof wanted_call, "%s", call);
    wanted_number = at_number;
    wanted_after = after;
    wanted_signal = signal_number;
    log_fd = *log ? open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    is_armed = 1;
}

/* Write every change of a file in the folder, every sync and every final dot to a file, in their order. */
void shim_trace(const char *in, const char *to)
{
    folder_length = (size_t)snprintf(folder, sizeof folder, "%s/", in);
    trace_fd = open(to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    is_armed = 1;
}

static void say(int fd, const void *octets, size_t length)
{
    while (length > 0) {
        long done = syscall(SYS_write, fd, octets, length);
        if (done <= 0)
            return;
        octets = (const char *)octets + done;
        length -= (size_t)done;
    }
}

static const char *kind_of(const char *name)
{
    size_t length = strlen(name);
    if (strstr(name, "ledger"))
        return "ledger";
    if (length > 4 && !strcmp(name + length - 4, "-wal"))
        return "wal";
    if (length > 4 && !strcmp(name + length - 4, "-shm"))
        return "lock"; /* SQLite's locks in WAL mode are on it; what is mapped of it is not written by calls */
    if (length > 10 && !strcmp(name + length - 10, " (deleted)"))
        return NULL;
    if (length > 3 && !strcmp(name + length - 3, ".db"))
        return "database";
    return "file";
}

/* A connection to the relay, or to PostgreSQL by its socket's name; whoever talks to that by TCP counts as the former. */
static const char *kind_of_socket(int fd)
{
    struct sockaddr_storage peer = {0};
    socklen_t size = sizeof peer - 1;
    if (getpeername(fd, (struct sockaddr *)&peer, &size) < 0)
        return NULL;
    if (peer.ss_family == AF_UNIX)
        return strstr(((struct sockaddr_un *)&peer)->sun_path, "/.s.PGSQL.") ? "server" : NULL;
    return peer.ss_family == AF_INET || peer.ss_family == AF_INET6 ? "socket" : NULL;
}

/* What is told PostgreSQL, by what it does. */
static const char *told(const char *octets, size_t length, const char *call)
{
    if (memmem(octets, length, "READ WRITE", 10))
        return "lock";
    return memmem(octets, length, "COMMIT", 6) ? "commit" : call;
}

/* What a descriptor is; its name below the folder in `name`. NULL: nothing that counts. */
static const char *look(int fd, char *name)
{
    char link[64];
    if (fd <= 2 || fd == log_fd || fd == trace_fd)
        return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    char path[PATH_MAX];
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return NULL;
    path[length] = 0;
    *name = 0;
    if (!strncmp(path, "socket:", 7))
        return kind_of_socket(fd);
    if (strncmp(path, folder, folder_length - 1))
        return NULL;
    snprintf(name, PATH_MAX, "%s", path[folder_length - 1] ? path + folder_length : ".");
    struct stat found;
    if (fstat(fd, &found) == 0 && S_ISDIR(found.st_mode))
        return "folder";
    return kind_of(name);
}

static const char *look_at_path(const char *path, char *name)
{
    if (path[0] == '/' && strncmp(path, folder, folder_length))
        return NULL;
    snprintf(name, PATH_MAX, "%s", path[0] == '/' ? path + folder_length : path);
    return kind_of(name);
}

/* The region that what is written to the relay begins. */
static void listen_in(const char *octets, size_t length)
{
    static const char *verbs[] = {"EHLO", "MAIL", "RCPT", "DATA", "QUIT"};
    const char *now = strcmp(region, "DATA") && strcmp(region, "body") ? NULL : "body";
    for (size_t n = 0; n < sizeof verbs / sizeof *verbs; n++)
        if (length >= 4 && !memcmp(octets, verbs[n], 4))
            now = verbs[n];
    if (length == 3 && !memcmp(octets, ".\r\n", 3))
        now = "dot";
    if (now == NULL)
        return;
    if (!strcmp(now, "MAIL"))
        is_watched = !*watched_sender || memmem(octets, length, watched_sender, strlen(watched_sender));
    if (!strcmp(now, region))
        return;
    snprintf(region, sizeof region, "%s", now);
    if (strcmp(wanted_region, "any"))
        number = 0;
}

static int counts(void)
{
    if (!strcmp(wanted_region, "any") || !strcmp(region, "start") || !strcmp(region, "EHLO"))
        return 1;
    return is_watched;
}

static void strike(int when_after, int at)
{
    if (!wanted_signal || when_after != wanted_after || at != wanted_number)
        return;
    int once = wanted_signal;
    wanted_signal = 0;
    if (once != SIGKILL)
        pthread_mutex_unlock(&turn); /* others go on while this thread stops, as they would */
    syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), once); /* kill() might stop another thread first, and this later */
    while (once == SIGKILL)
        pause();
    pthread_mutex_lock(&turn);
}

struct call {
    const char *kind;
    int at, is_counted;
    char name[PATH_MAX];
};

static void before(struct call *one, const char *what, const char *octets, size_t length)
{
    one->is_counted = 0;
    if (!is_armed || one->kind == NULL)
        return;
    pthread_mutex_lock(&turn);
    if (!strcmp(one->kind, "socket"))
        listen_in(octets, length);
    if (!strcmp(one->kind, "server"))
        what = told(octets, length, what);
    if (counts() && (!*wanted_call || !strcmp(wanted_call, what))) {
        one->is_counted = 1;
        one->at = ++number;
        if (log_fd >= 0) {
            char line[256];
            int size = snprintf(line, sizeof line, "%s %d %s %s\n", region, number, what, one->kind);
            say(log_fd, line, (size_t)size);
        }
        if (!strcmp(wanted_region, "any") || !strcmp(wanted_region, region))
            strike(0, one->at);
    }
    if (trace_fd < 0)
        pthread_mutex_unlock(&turn); /* a trace keeps the order in which things were done */
}

static void after(struct call *one)
{
    int error = errno;
    if (!is_armed || one->kind == NULL)
        return;
    if (trace_fd < 0)
        pthread_mutex_lock(&turn);
    if (one->is_counted && (!strcmp(wanted_region, "any") || !strcmp(wanted_region, region)))
        strike(1, one->at);
    pthread_mutex_unlock(&turn);
    errno = error;
}

/* One record: a line "OP NAME OFFSET LENGTH", then so many octets. */
static void record(const struct call *one, const char *op, long long offset, const void *octets, size_t length)
{
    if (trace_fd < 0 || !is_armed || one->kind == NULL || !strcmp(one->kind, "lock"))
        return;
    char line[PATH_MAX + 64];
    int size = snprintf(line, sizeof line, "%s %s %lld %zu\n", op, *one->name ? one->name : "-", offset, length);
    say(trace_fd, line, (size_t)size);
    say(trace_fd, octets, length);
}

static long long place(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    struct stat found;
    if (flags >= 0 && flags & O_APPEND && fstat(fd, &found) == 0)
        return found.st_size;
    return lseek(fd, 0, SEEK_CUR);
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) \
    real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define BEGIN(what, octets, length) \
    struct call one = {.kind = NULL}; \
    if (is_armed) { \
        one.kind = look(fd, one.name); \
        before(&one, what, octets, length); \
    }

static void record_written(struct call *one, long long offset, const void *octets, ssize_t done)
{
    if (one->kind == NULL || done < 0 || !strcmp(one->kind, "server"))
        return;
    if (strcmp(one->kind, "socket"))
        record(one, "write", offset, octets, (size_t)done);
    else if (done == 3 && !memcmp(octets, ".\r\n", 3))
        record(one, "dot", 0, NULL, 0);
}

ssize_t write(int fd, const void *octets, size_t length)
{
    REAL(write);
    BEGIN("write", octets, length)
    long long offset = one.kind && trace_fd >= 0 ? place(fd) : 0;
    ssize_t done = real(fd, octets, length);
    record_written(&one, offset, octets, done);
    after(&one);
    return done;
}

ssize_t pwrite64(int fd, const void *octets, size_t length, off64_t offset)
{
    REAL(pwrite64);
    BEGIN("pwrite", octets, length)
    ssize_t done = real(fd, octets, length, offset);
    record_written(&one, offset, octets, done);
    after(&one);
    return done;
}

ssize_t pwrite(int fd, const void *octets, size_t length, off_t offset)
{
    return pwrite64(fd, octets, length, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    REAL(writev);
    BEGIN("writev", count ? parts->iov_base : "", count ? parts->iov_len : 0)
    long long offset = one.kind && trace_fd >= 0 ? place(fd) : 0;
    ssize_t done = real(fd, parts, count), left = done;
    for (int n = 0; n < count && left > 0; n++) {
        ssize_t size = left < (ssize_t)parts[n].iov_len ? left : (ssize_t)parts[n].iov_len;
        record_written(&one, offset, parts[n].iov_base, size);
        offset += size;
        left -= size;
    }
    after(&one);
    return done;
}

ssize_t send(int fd, const void *octets, size_t length, int flags)
{
    REAL(send);
    BEGIN("send", octets, length)
    ssize_t done = real(fd, octets, length, flags);
    record_written(&one, 0, octets, done);
    after(&one);
    return done;
}

ssize_t sendto(int fd, const void *octets, size_t length, int flags, const struct sockaddr *to, socklen_t size)
{
    REAL(sendto);
    BEGIN("sendto", octets, length)
    ssize_t done = real(fd, octets, length, flags, to, size);
    record_written(&one, 0, octets, done);
    after(&one);
    return done;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    REAL(sendmsg);
    const struct iovec *first = message->msg_iov;
    BEGIN("sendmsg", message->msg_iovlen ? first->iov_base : "", message->msg_iovlen ? first->iov_len : 0)
    ssize_t done = real(fd, message, flags);
    if (message->msg_iovlen == 1)
        record_written(&one, 0, first->iov_base, done);
    after(&one);
    return done;
}

int fsync(int fd)
{
    REAL(fsync);
    BEGIN("fsync", "", 0)
    int done = real(fd);
    record(&one, "sync", 0, NULL, 0);
    after(&one);
    return done;
}

int fdatasync(int fd)
{
    REAL(fdatasync);
    BEGIN("fdatasync", "", 0)
    int done = real(fd);
    record(&one, "sync", 0, NULL, 0);
    after(&one);
    return done;
}

int ftruncate64(int fd, off64_t length)
{
    REAL(ftruncate64);
    BEGIN("ftruncate", "", 0)
    int done = real(fd, length);
    record(&one, "truncate", length, NULL, 0);
    after(&one);
    return done;
}

int ftruncate(int fd, off_t length)
{
    return ftruncate64(fd, length);
}

int unlink(const char *path)
{
    REAL(unlink);
    struct call one = {.kind = NULL};
    if (is_armed) {
        one.kind = look_at_path(path, one.name);
        before(&one, "unlink", "", 0);
    }
    int done = real(path);
    if (done == 0)
        record(&one, "unlink", 0, NULL, 0);
    after(&one);
    return done;
}

int link(const char *path, const char *to)
{
    REAL(link);
    struct call one = {.kind = NULL};
    if (is_armed) {
        one.kind = look_at_path(to, one.name);
        before(&one, "link", "", 0);
    }
    int done = real(path, to);
    char old[PATH_MAX];
    if (done == 0 && one.kind != NULL && look_at_path(path, old))
        record(&one, "link", 0, old, strlen(old));
    after(&one);
    return done;
}

/* Only SQLite's write lock in WAL mode counts (octet 120 of the -shm file): the moment between a look and a write. */
static int is_write_lock(int fd, int command, const struct flock *lock)
{
    char name[PATH_MAX];
    if (!is_armed || command != F_SETLK || lock->l_type != F_WRLCK || lock->l_start != 120 || lock->l_len != 1)
        return 0;
    const char *kind = look(fd, name);
    return kind != NULL && !strcmp(kind, "lock");
}

int fcntl64(int fd, int command, ...)
{
    REAL(fcntl64);
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    struct call one = {.kind = NULL};
    if (is_write_lock(fd, command, argument)) {
        one.kind = "lock";
        before(&one, "lock", "", 0);
    }
    int done = real(fd, command, argument);
    after(&one);
    return done;
}

int fcntl(int fd, int command, ...)
{
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    return fcntl64(fd, command, argument);
}

int rename(const char *path, const char *to)
{
    REAL(rename);
    struct call one = {.kind = NULL};
    if (is_armed) {
        one.kind = look_at_path(to, one.name);
        before(&one, "rename", "", 0);
    }
    int done = real(path, to);
    char old[PATH_MAX];
    if (done == 0 && one.kind != NULL && look_at_path(path, old))
        record(&one, "rename", 0, old, strlen(old));
    after(&one);
    return done;
}
