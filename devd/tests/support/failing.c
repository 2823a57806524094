/* Makes one call of one function of the C library fail, for tests (LD_PRELOAD).
 *
 * The file that DEVD_TEST_FAULT names is memory that is shared with the test, which says in it
 * what is to fail: see failing.rs. The programs that this one starts are left alone. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

struct fault {
    char name[24];
    int32_t error;
    int32_t nth;
    int32_t calls;
};

/* As the number of a call. */
#define EVERY 0

static volatile struct fault *fault;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("DEVD_TEST_FAULT");
    int fd = path ? (int)syscall(SYS_open, path, O_RDWR | O_CLOEXEC) : -1;

    if (fd >= 0) {
        void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        syscall(SYS_close, fd);
        if (memory != MAP_FAILED)
            fault = memory;
    }
    unsetenv("LD_PRELOAD");
    unsetenv("DEVD_TEST_FAULT");
}

/* Is this the call that is to fail? */
static int strikes(const char *name)
{
    if (!fault || strcmp((const char *)fault->name, name))
        return 0;
    if (__sync_add_and_fetch(&fault->calls, 1) != fault->nth && fault->nth != EVERY)
        return 0;
    errno = fault->error;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAILING(type, name, parameters, ...) \
    type name parameters { return strikes(#name) ? (type)-1 : REAL(name)(__VA_ARGS__); }

FAILING(int, pipe2, (int fds[2], int flags), fds, flags)
FAILING(int, epoll_ctl, (int fd, int op, int of, struct epoll_event *event), fd, op, of, event)
FAILING(int, epoll_wait, (int fd, struct epoll_event *events, int max, int timeout),
        fd, events, max, timeout)
FAILING(ssize_t, read, (int fd, void *to, size_t len), fd, to, len)
FAILING(ssize_t, write, (int fd, const void *from, size_t len), fd, from, len)
FAILING(ssize_t, send, (int fd, const void *from, size_t len, int flags), fd, from, len, flags)
FAILING(ssize_t, recv, (int fd, void *to, size_t len, int flags), fd, to, len, flags)
FAILING(int, poll, (struct pollfd *fds, nfds_t count, int timeout), fds, count, timeout)
FAILING(int, waitid, (idtype_t type, id_t id, siginfo_t *info, int options),
        type, id, info, options)
FAILING(pid_t, waitpid, (pid_t pid, int *status, int options), pid, status, options)
FAILING(int, kill, (pid_t pid, int signal), pid, signal)
FAILING(int, killpg, (pid_t group, int signal), group, signal)
FAILING(int, signalfd, (int fd, const sigset_t *signals, int flags), fd, signals, flags)
FAILING(int, epoll_create1, (int flags), flags)
FAILING(int, eventfd, (unsigned int count, int flags), count, flags)
FAILING(int, mkdir, (const char *path, mode_t mode), path, mode)
FAILING(int, ftruncate64, (int fd, off64_t len), fd, len)
FAILING(int, socket, (int domain, int type, int protocol), domain, type, protocol)
FAILING(int, connect, (int fd, const struct sockaddr *to, socklen_t len), fd, to, len)

DIR *opendir(const char *path)
{
    return strikes("opendir") ? NULL : REAL(opendir)(path);
}

struct dirent64 *readdir64(DIR *directory)
{
    return strikes("readdir64") ? NULL : REAL(readdir64)(directory);
}

/* It returns its error. */
int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *files,
                const posix_spawnattr_t *attributes, char *const arguments[],
                char *const environment[])
{
    if (strikes("posix_spawn"))
        return errno;
    return REAL(posix_spawn)(pid, path, files, attributes, arguments, environment);
}

int open64(const char *path, int flags, ...)
{
    va_list list;
    mode_t mode;

    va_start(list, flags);
    mode = va_arg(list, mode_t);
    va_end(list);
    return strikes("open64") ? -1 : REAL(open64)(path, flags, mode);
}

/* As a lock only. */
int fcntl(int fd, int command, ...)
{
    va_list list;
    void *argument;

    va_start(list, command);
    argument = va_arg(list, void *);
    va_end(list);
    if (command == F_OFD_SETLK && strikes("F_OFD_SETLK"))
        return -1;
    return REAL(fcntl)(fd, command, argument);
}

/* As pidfd_open only. */
long syscall(long number, ...)
{
    long a[6];
    va_list list;

    va_start(list, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_pidfd_open && strikes("pidfd_open"))
        return -1;
    return REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
