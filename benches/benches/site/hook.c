/*
 * The cheapest hotplug script there can be, and the cheapest QEMU: what is measured is the
 * daemon that starts them.  Both talk to the store by themselves, over $XENSTORED_PATH.
 *
 *   hook add|online    says which block device (of a disk), and connected
 *   hook ...           nothing
 *   hook -xen-domid F  says that it is running, waits for SIGHUP
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { WRITE = 11, ERROR = 16, EVENT = 15 };
struct header { uint32_t type, req_id, tx_id, len; };

static int store;

static void take(void *buffer, size_t length)
{
    char *at = buffer;
    while (length) {
        ssize_t n = read(store, at, length);
        if (n <= 0) exit(3);
        at += n;
        length -= n;
    }
}

static void put(const char *directory, const char *node, const char *value)
{
    char message[1024], answer[4096];
    struct header *header = (void *)message;
    char *path = message + sizeof *header;
    int n = sprintf(path, "%s/%s", directory, node);
    size_t length = n + 1 + strlen(value);

    memcpy(path + n + 1, value, strlen(value));
    *header = (struct header){ WRITE, 1, 0, length };
    if (write(store, message, sizeof *header + length) != (ssize_t)(sizeof *header + length)) exit(4);
    do {
        take(header, sizeof *header);
        if (header->len > sizeof answer) exit(5);
        take(answer, header->len);
    } while (header->type == EVENT);
    if (header->type == ERROR) exit(6);
}

int main(int argc, char **argv)
{
    const char *directory = getenv("XENBUS_PATH"), *path = getenv("XENSTORED_PATH");
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int qemu = argc > 2 && !strcmp(argv[1], "-xen-domid");

    if (!qemu && (argc < 2 || (strcmp(argv[1], "online") && strcmp(argv[1], "add")))) return 0;
    if (!path || (!qemu && !directory)) return 1;
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    store = socket(AF_UNIX, SOCK_STREAM, 0);
    if (store < 0 || connect(store, (void *)&address, sizeof address)) return 2;
    if (qemu) {
        char home[64];
        snprintf(home, sizeof home, "device-model/%s", argv[2]);
        put(home, "state", "running");
        close(store);
        for (;;) pause();
    }
    if (!strcmp(argv[1], "add")) put(directory, "physical-device", "7:0");
    put(directory, "hotplug-status", "connected");
    return 0;
}
