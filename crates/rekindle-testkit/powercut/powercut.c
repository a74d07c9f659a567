/*
 * Records what a process does to its database files, so that a test can rebuild what a power cut would have left.
 *
 * Loaded with LD_PRELOAD. Appends to $POWERCUT_TRACE, in the order in which they took effect:
 *   kind (1 byte), file (1 byte), offset (8 bytes), length (4 bytes), bytes; numbers little-endian
 * Kinds: 'w' write, 't' truncate to offset, 's' synced. Files: 'd' *.db, 'l' *.db-wal, 'o' the standard output.
 * The shared-memory file is left out: it is rebuilt after a crash.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FDS 4096

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int trace = -1;
static char file_of[FDS];

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("POWERCUT_TRACE");
    if (path) trace = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    file_of[1] = 'o';
}

static void append(const void *bytes, size_t length) {
    const char *at = bytes;
    while (length > 0) {
        long n = syscall(SYS_write, trace, at, length);
        if (n <= 0) abort();
        at += n;
        length -= (size_t)n;
    }
}

static void record(char kind, char file, int64_t offset, const void *bytes, size_t length) {
    unsigned char head[14];
    uint32_t n = (uint32_t)length;
    if (trace < 0) return;
    head[0] = (unsigned char)kind;
    head[1] = (unsigned char)file;
    memcpy(head + 2, &offset, 8);
    memcpy(head + 10, &n, 4);
    append(head, sizeof head);
    append(bytes, length);
}

static char tracked(int fd) { return fd >= 0 && fd < FDS ? file_of[fd] : 0; }

static int ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static int opened(int fd, const char *path) {
    if (fd >= 0 && fd < FDS) file_of[fd] = ends_with(path, ".db") ? 'd' : ends_with(path, ".db-wal") ? 'l' : 0;
    return fd;
}

#define MODE(flags, mode)                       \
    mode_t mode = 0;                            \
    if ((flags) & (O_CREAT | O_TMPFILE)) {      \
        va_list rest;                           \
        va_start(rest, flags);                  \
        mode = va_arg(rest, mode_t);            \
        va_end(rest);                           \
    }

int open(const char *path, int flags, ...) {
    MODE(flags, mode)
    return opened(openat(AT_FDCWD, path, flags, mode), path);
}

int open64(const char *path, int flags, ...) {
    MODE(flags, mode)
    return opened(openat(AT_FDCWD, path, flags, mode), path);
}

int close(int fd) {
    if (fd > 1 && fd < FDS) file_of[fd] = 0;
    return (int)syscall(SYS_close, fd);
}

static ssize_t traced_write(int fd, const void *bytes, size_t length, int64_t offset, int positioned) {
    char file = tracked(fd);
    ssize_t n;
    if (!file) return positioned ? syscall(SYS_pwrite64, fd, bytes, length, offset) : syscall(SYS_write, fd, bytes, length);
    pthread_mutex_lock(&lock);
    if (!positioned) offset = file == 'o' ? 0 : lseek(fd, 0, SEEK_CUR);
    n = positioned ? syscall(SYS_pwrite64, fd, bytes, length, offset) : syscall(SYS_write, fd, bytes, length);
    if (n > 0) record('w', file, offset, bytes, (size_t)n);
    pthread_mutex_unlock(&lock);
    return n;
}

ssize_t write(int fd, const void *bytes, size_t length) { return traced_write(fd, bytes, length, 0, 0); }
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { return traced_write(fd, bytes, length, at, 1); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) { return traced_write(fd, bytes, length, at, 1); }

static int traced_truncate(int fd, int64_t length) {
    char file = tracked(fd);
    int failed;
    pthread_mutex_lock(&lock);
    failed = (int)syscall(SYS_ftruncate, fd, length);
    if (file && !failed) record('t', file, length, "", 0);
    pthread_mutex_unlock(&lock);
    return failed;
}

int ftruncate(int fd, off_t length) { return traced_truncate(fd, length); }
int ftruncate64(int fd, off64_t length) { return traced_truncate(fd, length); }

/* Nothing need reach the disk: what counts is what had been asked to. */
static int traced_sync(int fd, long call) {
    char file = tracked(fd);
    if (!file) return (int)syscall(call, fd);
    pthread_mutex_lock(&lock);
    record('s', file, 0, "", 0);
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int fd) { return traced_sync(fd, SYS_fsync); }
int fdatasync(int fd) { return traced_sync(fd, SYS_fdatasync); }
