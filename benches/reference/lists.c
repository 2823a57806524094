/*
 * Devices the way that the C toolstack keeps them: a list of guests, and at each a list of its
 * devices. New ones go to the front.
 */
#include <stdint.h>
#include <stdlib.h>

struct device {
    struct device *next;
    int kind;
    uint32_t devid;
};

struct guest {
    struct guest *next;
    uint32_t domid;
    struct device *devices;
};

struct lists {
    struct guest *guests;
};

struct lists *reference_lists_new(void)
{
    return calloc(1, sizeof(struct lists));
}

static struct guest **guest_of(struct lists *lists, uint32_t domid)
{
    struct guest **at = &lists->guests;

    while (*at != NULL && (*at)->domid != domid)
        at = &(*at)->next;
    return at;
}

static struct device **device_of(struct guest *guest, int kind, uint32_t devid)
{
    struct device **at = &guest->devices;

    while (*at != NULL && ((*at)->kind != kind || (*at)->devid != devid))
        at = &(*at)->next;
    return at;
}

int reference_lists_find(struct lists *lists, int kind, uint32_t domid, uint32_t devid)
{
    struct guest *guest = *guest_of(lists, domid);

    return guest != NULL && *device_of(guest, kind, devid) != NULL;
}

int reference_lists_insert(struct lists *lists, int kind, uint32_t domid, uint32_t devid)
{
    struct guest *guest = *guest_of(lists, domid);
    struct device *device;

    if (guest == NULL) {
        guest = calloc(1, sizeof(*guest));
        if (guest == NULL)
            return 0;
        guest->domid = domid;
        guest->next = lists->guests;
        lists->guests = guest;
    } else if (*device_of(guest, kind, devid) != NULL) {
        return 0;
    }
    device = calloc(1, sizeof(*device));
    if (device == NULL)
        return 0;
    device->kind = kind;
    device->devid = devid;
    device->next = guest->devices;
    guest->devices = device;
    return 1;
}

/* A guest goes with its last device. */
int reference_lists_remove(struct lists *lists, int kind, uint32_t domid, uint32_t devid)
{
    struct guest **guest_at = guest_of(lists, domid), *guest = *guest_at;
    struct device **device_at, *device;

    if (guest == NULL)
        return 0;
    device_at = device_of(guest, kind, devid);
    device = *device_at;
    if (device == NULL)
        return 0;
    *device_at = device->next;
    free(device);
    if (guest->devices == NULL) {
        *guest_at = guest->next;
        free(guest);
    }
    return 1;
}

void reference_lists_free(struct lists *lists)
{
    while (lists->guests != NULL) {
        struct guest *guest = lists->guests;

        lists->guests = guest->next;
        while (guest->devices != NULL) {
            struct device *device = guest->devices;

            guest->devices = device->next;
            free(device);
        }
        free(guest);
    }
    free(lists);
}
