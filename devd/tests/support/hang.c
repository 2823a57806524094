/*
 * A process whose memory nobody can read: it sleeps in mmap(2), with the lock of its memory held,
 * until this program ends.
 *
 *   hang DIR PROGRAM ARGUMENT...   as a user with a user namespace of its own: mounts a file
 *                                  system on DIR that never answers a read, and runs PROGRAM in
 *                                  its place with that lock held. Prints the process's number.
 *
 * The kernel holds the lock in fuse_file_mmap while it waits for the file's first page, which a
 * read of another process has locked. The end of this program closes /dev/fuse, which aborts the
 * file system: nothing of it stays. alarm(2) sees to that end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECONDS 100
#define FILE_ID 2

static int fuse;
static volatile int *shared; /* reads seen, opens seen */

static void die(const char *what)
{
    fprintf(stderr, "hang: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        die(path);
    close(fd);
}

static void reply(const struct fuse_in_header *in, int error, const void *body, size_t length)
{
    char out[512];
    struct fuse_out_header *header = (void *)out;
    header->len = sizeof *header + length;
    header->error = -error;
    header->unique = in->unique;
    memcpy(out + sizeof *header, body, length);
    if (write(fuse, out, header->len) < 0 && errno != ENOENT)
        die("write to /dev/fuse");
}

static void attributes(struct fuse_attr *attr, int is_file)
{
    memset(attr, 0, sizeof *attr);
    attr->ino = is_file ? FILE_ID : 1;
    attr->size = is_file ? 65536 : 0;
    attr->mode = is_file ? S_IFREG | 0644 : S_IFDIR | 0755;
    attr->nlink = 1;
}

static void serve(void)
{
    static char in[1 << 17];
    ssize_t length;
    while ((length = read(fuse, in, sizeof in)) > 0 || errno == EINTR || errno == ENOENT) {
        const struct fuse_in_header *header = (void *)in;
        int is_file = header->nodeid == FILE_ID;
        if (length < (ssize_t)sizeof *header)
            continue;
        switch (header->opcode) {
        case FUSE_INIT: {
            struct fuse_init_out out = {.major = 7, .minor = 31, .max_write = 65536};
            reply(header, 0, &out, sizeof out);
            break;
        }
        case FUSE_LOOKUP: {
            struct fuse_entry_out out = {.nodeid = FILE_ID, .entry_valid = 1000, .attr_valid = 1000};
            attributes(&out.attr, 1);
            reply(header, 0, &out, sizeof out);
            break;
        }
        case FUSE_GETATTR: {
            struct fuse_attr_out out = {.attr_valid = 1000};
            attributes(&out.attr, is_file);
            reply(header, 0, &out, sizeof out);
            break;
        }
        case FUSE_OPEN: {
            /* The first opener reads through the cache, the second maps past it. */
            struct fuse_open_out out = {.open_flags = FOPEN_KEEP_CACHE};
            if (shared[1]++)
                out.open_flags |= FOPEN_DIRECT_IO;
            reply(header, 0, &out, sizeof out);
            break;
        }
        case FUSE_READ:
            shared[0]++; /* Never answered: the page stays locked. */
            break;
        case FUSE_FORGET:
        case FUSE_BATCH_FORGET:
        case FUSE_INTERRUPT:
            break;
        default:
            reply(header, ENOSYS, NULL, 0);
        }
    }
}

static pid_t child(void)
{
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        close(fuse); /* Else the file system outlives the server. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    }
    return pid;
}

int main(int argc, char **argv)
{
    char text[200], path[500];
    int uid = getuid(), gid = getgid(), i;
    if (argc < 3)
        return 2;
    alarm(SECONDS);
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
        die("unshare");
    put("/proc/self/setgroups", "deny");
    snprintf(text, sizeof text, "%d %d 1", uid, uid);
    put("/proc/self/uid_map", text);
    snprintf(text, sizeof text, "%d %d 1", gid, gid);
    put("/proc/self/gid_map", text);
    fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fuse < 0)
        die("/dev/fuse");
    snprintf(text, sizeof text, "fd=%d,rootmode=40000,user_id=%d,group_id=%d", fuse, uid, gid);
    if (mount("hang", argv[1], "fuse", MS_NOSUID | MS_NODEV, text))
        die("mount");
    snprintf(path, sizeof path, "%s/file", argv[1]);
    if (child() == 0) { /* Locks the first page. */
        char byte;
        int fd = open(path, O_RDONLY);
        if (fd < 0 || read(fd, &byte, 1) < 0)
            _exit(1);
        _exit(0);
    }
    pid_t victim = child();
    if (victim == 0) { /* Becomes this program again, with what it is to look like. */
        setpgid(0, 0);
        for (i = 0; !shared[0] && i < 1000; i++)
            usleep(10000);
        setenv("HANG_FILE", path, 1);
        execv("/proc/self/exe", argv + 2);
        die("exec");
    }
    printf("%d\n", victim);
    fflush(stdout);
    serve();
    return 0;
}

/* Runs before main: the process that is to hang is this program once more. */
__attribute__((constructor)) static void hang(void)
{
    const char *file = getenv("HANG_FILE");
    const char *name = getenv("HANG_NAME"); /* Or "hang". */
    int fd;
    if (!file)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, name ? name : "hang"); /* By which the tests know that they must not read its memory. */
    alarm(SECONDS);
    fd = open(file, O_RDONLY);
    if (fd >= 0)
        mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    for (;;)
        pause();
}
