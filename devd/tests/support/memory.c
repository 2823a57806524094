/* Counts what a program allocates, for tests (LD_PRELOAD).
 *
 * The file that DEVD_TEST_MEMORY names is memory that is shared with the test, in which the
 * counts are: see memory.rs. The programs that this one starts are left alone. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *memory);

struct counts {
    int64_t calls;
    int64_t bytes;
};

static struct counts early;
static struct counts *counts = &early;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("DEVD_TEST_MEMORY");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

    if (fd >= 0) {
        struct counts *shared =
            mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        if (shared != MAP_FAILED) {
            *shared = early;
            counts = shared;
        }
    }
    unsetenv("LD_PRELOAD");
    unsetenv("DEVD_TEST_MEMORY");
}

static void *counted(void *memory)
{
    __sync_add_and_fetch(&counts->calls, 1);
    __sync_add_and_fetch(&counts->bytes, (int64_t)malloc_usable_size(memory));
    return memory;
}

static void returned(void *memory)
{
    __sync_sub_and_fetch(&counts->bytes, (int64_t)malloc_usable_size(memory));
}

void *malloc(size_t size)
{
    return counted(__libc_malloc(size));
}

void *calloc(size_t count, size_t size)
{
    return counted(__libc_calloc(count, size));
}

void *realloc(void *memory, size_t size)
{
    returned(memory);
    return counted(__libc_realloc(memory, size));
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    *memory = counted(__libc_memalign(alignment, size));
    return *memory ? 0 : ENOMEM;
}

void free(void *memory)
{
    returned(memory);
    __libc_free(memory);
}
